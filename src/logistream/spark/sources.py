"""The two data sources, as Spark calls them: columns, readers and partitions over an origin."""

from __future__ import annotations

import os
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark.sql.datasource import DataSource, DataSourceReader, DataSourceStreamReader, InputPartition
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.streaming.datasource import ReadAllAvailable, ReadMaxRows, SupportsTriggerAvailableNow
from pyspark.sql.types import (
    BooleanType,
    DoubleType,
    LongType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from logistream.errors import RequestError
from logistream.spark.generator_origin import GeneratorOrigin
from logistream.spark.origin import Options, Span
from logistream.spark.server_origin import ServerOrigin

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pyspark.sql.streaming.datasource import ReadLimit

    from logistream.schema import Kind, Schema
    from logistream.spark.origin import Offset, Origin

__all__ = ["GeneratorSource", "ServerSource", "spark_schema"]


_TYPES: Mapping[Kind, Any] = {
    "category": StringType(),
    "boolean": BooleanType(),
    "integer": LongType(),
    "number": DoubleType(),
    "timestamp": TimestampType(),
}
_EVENTS_PER_BATCH = 1_000_000
_IDLE = 0.1  # seconds between two questions for new events


def spark_schema(schema: Schema) -> StructType:
    """Return columns as Spark has them: strings, longs, doubles, booleans, and timestamps."""
    return StructType(
        [StructField(column.name, _TYPES[column.kind], nullable=column.nullable) for column in schema]
    )


class _Source(DataSource):
    """A data source whose events have numbers."""

    def __init__(self, options: Mapping[str, str]) -> None:
        self.origin = self._origin(options)
        given = Options(options, options)
        self.parts = given.whole("numPartitions", 1) or os.cpu_count() or 1
        self.limit = given.whole("maxEventsPerBatch", 1) or _EVENTS_PER_BATCH

    @staticmethod
    @abstractmethod
    def _origin(options: Mapping[str, str]) -> Origin:
        """Return where the events come from."""

    def schema(self) -> StructType:
        """Return the columns of the data source."""
        return spark_schema(self.origin.schema)

    def reader(self, schema: StructType) -> RangeReader:
        """Return what reads a range of events."""
        self._require_own(schema)
        return RangeReader(self.origin, schema, self.parts)

    def streamReader(self, schema: StructType) -> StreamReader:  # noqa: N802 - Spark's name
        """Return what reads a stream."""
        self._require_own(schema)
        return StreamReader(self.origin, schema, self.parts, self.limit)

    def _require_own(self, schema: StructType) -> None:
        """Raise `RequestError` for a schema that the user has given and that is not that of the events."""
        own = self.schema()
        if [(f.name, f.dataType) for f in schema] != [(f.name, f.dataType) for f in own]:
            raise RequestError(
                f"the columns are {', '.join(own.names)}: leave out schema(), and choose with option columns"
            )


class ServerSource(_Source):
    """The data source `logistream`: the events of a server, each exactly once.

    ========================= ========================================================================
    option                    what it does
    ========================= ========================================================================
    `url`                     address of the server; needed
    `token`                   required by servers on other machines
    `start`                   the first event: its number, `earliest`, `latest`, a time, or a time before
                              now such as `-10min`; by default, a stream query begins with the next event
                              and a batch query with the earliest
    `stop`                    the event before which a batch query ends, in the same forms; by default the
                              next one that happens
    `columns`                 `all`, or names with commas between; by default those of the published event
                              and `event_number`
    `where`                   only events that match, as in `Market:Europe`, or a JSON array of conditions
    `maxEventsPerBatch`       event numbers in a micro-batch at most, 1,000,000 by default
    `numPartitions`           tasks of a query or micro-batch at most; by default, one for each core of the
                              driver's machine
    ========================= ========================================================================

    A stream query waits for a server that is away, and continues with the next event. It ends with an error
    if another stream answers.
    """

    @classmethod
    def name(cls) -> str:
        """Return the name for `format`."""
        return "logistream"

    @staticmethod
    def _origin(options: Mapping[str, str]) -> Origin:
        return ServerOrigin.of(options)


class GeneratorSource(_Source):
    """The data source `logistream-generator`: events that the executors make themselves.

    ========================= ========================================================================
    option                    what it does
    ========================= ========================================================================
    `model`                   a model file, at the same path on every machine; by default the shipped one
    `seed`                    which of its streams; by default 0, or that of the timeline
    `timeline`                a timeline file, as of `logistream serve`, which the driver reads
    `eventsPerSecond`         without a timeline: the rate of a stream that begins at `startTime`
    `startTime`               when that stream begins, as in `2026-11-24T06:00:00Z`; by default now
    `start`, `stop`           the first event, and the one before which a batch query ends: numbers, times,
                              `earliest` or `latest`; by default all that have happened
    `columns`                 `all`, or names with commas between; by default those of the published event
                              and `event_number`
    `maxEventsPerBatch`       events in a micro-batch at most, 1,000,000 by default
    `numPartitions`           tasks of a query or micro-batch at most; by default, one for each core of the
                              driver's machine
    ========================= ========================================================================

    A batch query with neither a timeline nor a rate makes the events from `start` to `stop` as
    `Model.events` does: without event times, dates from the fitted history.
    """

    @classmethod
    def name(cls) -> str:
        """Return the name for `format`."""
        return "logistream-generator"

    @staticmethod
    def _origin(options: Mapping[str, str]) -> Origin:
        return GeneratorOrigin.of(options)


class _Part(InputPartition):
    """What one task reads."""

    def __init__(self, span: Span) -> None:
        super().__init__(span)


class RangeReader(DataSourceReader):
    """Reads a range of events that have happened."""

    def __init__(self, origin: Origin, schema: StructType, parts: int) -> None:
        self._origin, self._schema, self._parts = origin, schema, parts

    def partitions(self) -> list[_Part]:
        """Return a part of the range for each task."""
        offset, stop = self._origin.finished()
        # An empty list would be read as one part without a value.
        spans = self._origin.spans(offset, stop, self._parts) or [Span(stop, stop)]
        return [_Part(span) for span in spans]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """Give the events of a part as Arrow record batches."""
        return _convert(self._origin.read(partition.value, patient=False), self._schema)


class StreamReader(DataSourceStreamReader, SupportsTriggerAvailableNow):
    """Reads a stream; offsets hold the identity of the stream and the number of the next event.

    The methods but `read` are called in one process on the driver, `read` on the executors.
    """

    def __init__(self, origin: Origin, schema: StructType, parts: int, limit: int) -> None:
        self._origin, self._schema, self._parts, self._limit = origin, schema, parts, limit
        self._mark: int | None = None
        self._idle = False

    def initialOffset(self) -> Offset:  # noqa: N802 - Spark's names, here and below
        """Return where a query without a checkpoint begins."""
        return self._origin.begin()

    def getDefaultReadLimit(self) -> ReadLimit:  # noqa: N802
        """Return how many events a micro-batch may have."""
        return ReadMaxRows(self._limit)

    def prepareForTriggerAvailableNow(self) -> None:  # noqa: N802
        """Note the present, at which the query then ends."""
        self._mark = self._origin.mark()

    def latestOffset(self, start: Offset, limit: ReadLimit) -> Offset:  # noqa: N802
        """Return where the next micro-batch ends; `start` if there is nothing new."""
        if self._idle and self._mark is None:
            time.sleep(_IDLE)  # Spark asks again after 10 ms
        newest, first = self._origin.newest(start, self._mark), int(start["next"])
        self._idle = newest is None or newest <= first
        if newest is None or newest <= first:
            return start
        most = (
            newest if isinstance(limit, ReadAllAvailable) else first + getattr(limit, "max_rows", self._limit)
        )
        return {**start, "next": min(newest, most)}

    def partitions(self, start: Offset, end: Offset) -> list[_Part]:
        """Return a part of a micro-batch for each task; the same whenever the micro-batch is repeated.

        To repeat the first one, Spark has only its end, and asks for another initial offset.
        """
        begins = start["next"] == start["first"]
        offset = {**end, "next": end["first"] if begins else start["next"]}
        return [_Part(span) for span in self._origin.spans(offset, int(end["next"]), self._parts)]

    def read(self, partition: InputPartition) -> Iterator[pa.RecordBatch]:
        """Give the events of a part as Arrow record batches."""
        return _convert(self._origin.read(partition.value, patient=True), self._schema)


def _convert(batches: Iterator[pa.RecordBatch], schema: StructType) -> Iterator[pa.RecordBatch]:
    """Give batches with exactly Spark's types: strings without a dictionary."""
    wanted = to_arrow_schema(schema, timezone="UTC")
    for batch in batches:
        arrays = [
            column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
            for column in batch.columns
        ]
        yield pa.RecordBatch.from_arrays(
            [array.cast(field.type) for array, field in zip(arrays, wanted, strict=True)], schema=wanted
        )

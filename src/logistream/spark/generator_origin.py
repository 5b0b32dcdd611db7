"""Events made where they are read: of a model, a seed and a timeline, without a server."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from logistream.errors import ModelError, RequestError, StreamError
from logistream.model.model import Model, load_model
from logistream.model.sampling import Sampler
from logistream.schema import EVENT_NUMBER, Schema
from logistream.spark.origin import Offset, Options, Origin, Span, split
from logistream.stream.arrivals import Arrivals
from logistream.stream.query import parse_number, parse_start, selected_columns
from logistream.stream.stream import Stream
from logistream.stream.timeline import Entry, Timeline, first_entry
from logistream.stream.timeline_file import FileTimeline
from logistream.times import parse_instant, parse_rfc3339, rfc3339, wall_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Self

    from logistream.stream.arrivals import ArrivalKind

__all__ = ["OPTIONS", "GeneratorOrigin"]


OPTIONS = (
    "model",
    "seed",
    "timeline",
    "eventsPerSecond",
    "startTime",
    "start",
    "stop",
    "columns",
    "maxEventsPerBatch",
    "numPartitions",
)
"""Options of the data source `logistream-generator`."""

_ROWS = 16384  # events of a batch


@dataclass(frozen=True)
class GeneratorOrigin(Origin):
    """The events of a model and a seed.

    Attributes
    ----------
    model : str or None
        A model file, at the same path on every machine; None for the shipped model.
    checksum : str
        Of the model, so that every machine makes the same events.
    seed : int
        Which of the model's streams.
    columns : Schema
        What to make.
    timeline : str or None
        A timeline file, which only the driver reads.
    rate : float or None
        Events per second of a timeline that begins at `began`.
    began : int
        Microseconds since the Unix epoch.
    start, stop : str or None
        The first event, and the one before which a batch query ends, as the query of a range holds them.
    """

    model: str | None
    checksum: str
    seed: int
    columns: Schema
    timeline: str | None
    rate: float | None
    began: int
    start: str | None
    stop: str | None

    @classmethod
    def of(cls, options: Mapping[str, str]) -> Self:
        """Return the origin that options describe.

        Raises
        ------
        RequestError
            An option is not allowed, or the timeline is of another stream.
        ModelError, StreamError, DataError
            The model or the timeline cannot be read.
        """
        given = Options(options, OPTIONS)
        path, timeline, rate = (
            given.string("model"),
            given.string("timeline"),
            given.number("eventsPerSecond"),
        )
        begins, columns, seed = given.string("startTime"), given.string("columns"), given.whole("seed")
        if timeline is not None and rate is not None:
            raise RequestError("give option timeline or eventsPerSecond, not both")
        if begins is not None and rate is None:
            raise RequestError("option startTime needs eventsPerSecond")
        model = load_model(path)
        if timeline is not None:
            seed = _seed_of(timeline, model, seed)
        known = model.full_schema if rate is not None or timeline is not None else model.schema
        names = selected_columns(columns, columns is None, model)
        if columns in (None, "all"):
            names = tuple(name for name in names if name in known or name == EVENT_NUMBER.name)
        return cls(
            model=path,
            checksum=model.checksum,
            seed=seed or 0,
            columns=Schema((*known, EVENT_NUMBER)).select(names),
            timeline=timeline,
            rate=rate,
            began=wall_clock() if begins is None else _instant(begins),
            start=given.string("start"),
            stop=given.string("stop"),
        )

    @property
    def schema(self) -> Schema:
        """The columns."""
        return self.columns

    def begin(self) -> Offset:
        """Return where a new stream query begins: the first event, unless `start` was given."""
        if self.timeline is None and self.rate is None:
            raise RequestError("to stream, give option timeline or eventsPerSecond")
        stream = self._stream(self.began)
        return self._offset(stream, stream.resolve(parse_start(self.start or "earliest")))

    def mark(self) -> int:
        """Return the time in microseconds since the Unix epoch."""
        return wall_clock()

    def newest(self, offset: Offset, mark: int | None = None) -> int:
        """Return the number of the next event; `RequestError` if the offset is of another stream."""
        timeline = self._stream_of(offset).timeline
        return timeline.count(timeline.known_until(wall_clock() if mark is None else mark))

    def finished(self) -> tuple[Offset, int]:
        """Return the range of a batch query: all that has happened, unless `start` or `stop` was given."""
        if self.timeline is None and self.rate is None:
            if self.stop is None:
                raise RequestError("option stop is needed, or a timeline, or eventsPerSecond")
            first, last = parse_number("start", self.start or "0"), parse_number("stop", self.stop)
            offset = {"stream": self.checksum, "first": first, "next": first}
        else:
            stream = self._stream(self.began)
            first = stream.resolve(parse_start(self.start or "earliest"))
            stop = parse_start(self.stop or "latest", "stop")
            # What is still to come of a timeline with one rate is certain; of a file it is not.
            last = stop if self.rate is not None and isinstance(stop, int) else stream.resolve_stop(stop)
            offset = self._offset(stream, first)
        if first > last:
            raise RequestError(f"start must not be after stop: {first} is after {last}")
        return offset, last

    def spans(self, offset: Offset, stop: int, parts: int) -> list[Span]:
        """Return the events from an offset to `stop` (exclusive) as at most `parts` spans."""
        ranges = split(offset["next"], stop, parts)
        if self.timeline is None and self.rate is None:
            return [Span(low, high) for low, high in ranges]
        timeline = self._stream_of(offset).timeline
        arrivals = timeline.arrivals.kind
        return [
            Span(low, high, {"arrivals": arrivals, "entries": _in_force(timeline.entries, low, high)})
            for low, high in ranges
        ]

    def read(self, span: Span, *, patient: bool) -> Iterator[pa.RecordBatch]:  # noqa: ARG002 - nothing can be away
        """Give the events of a span."""
        entries = span.known.get("entries")
        make: Callable[[int, int], pa.RecordBatch]
        if entries is None:
            make = _sampler(self.model, self.checksum, self.seed).batch
        else:
            make = _stream(self.model, self.checksum, self.seed, span.known["arrivals"], entries).batch
        names = self.columns.names
        for low in range(span.first - span.first % _ROWS, span.stop, _ROWS):
            first, stop = max(low, span.first), min(low + _ROWS, span.stop)
            batch = make(first, stop)
            if EVENT_NUMBER.name in names and EVENT_NUMBER.name not in batch.schema.names:
                batch = batch.append_column(EVENT_NUMBER.arrow_field, pa.array(np.arange(first, stop)))
            yield batch.select(list(names))

    def _offset(self, stream: Stream, number: int) -> Offset:
        offset = {"stream": stream.id, "first": number, "next": number}
        return offset if self.rate is None else {**offset, "began": rfc3339(self.began)}

    def _stream_of(self, offset: Offset) -> Stream:
        """Return the stream of an offset; `RequestError` if the options now describe another one."""
        stream = self._stream(parse_rfc3339(offset["began"]) if "began" in offset else self.began)
        if stream.id != offset["stream"]:
            raise RequestError(
                f"the checkpoint is of stream {offset['stream']}, the options describe {stream.id}: use the "
                f"model, seed, timeline and eventsPerSecond of before, or another checkpoint"
            )
        return stream

    def _stream(self, began: int) -> Stream:
        timeline: Timeline
        if self.timeline is not None:
            timeline = _read_timeline(self.timeline)
        else:
            entry = first_entry(wall_clock(), rate=self.rate or 0.0, start=began)
            timeline = Timeline([entry])
        return Stream(_model(self.model, self.checksum), timeline, seed=self.seed)


def _instant(given: str) -> int:
    try:
        return parse_instant(given)
    except (ValueError, OverflowError) as error:
        raise RequestError(f"option startTime: {error}") from None


def _read_timeline(path: str) -> FileTimeline:
    """Return what a timeline file holds now, which is then certain; the file is closed."""
    if not Path(path).exists():
        raise StreamError(f"there is no timeline file at {path}: check the path")
    with closing(FileTimeline(Path(path).absolute())) as timeline:
        timeline.begin()
        return timeline


def _seed_of(path: str, model: Model, seed: int | None) -> int:
    """Return the seed of a timeline file; `RequestError` if it is of another seed or model."""
    header = _read_timeline(path).header
    of_file = int(header.get("seed", 0))
    if seed not in (None, of_file):
        raise RequestError(
            f"timeline {path} belongs to seed {of_file}, and to no other: leave out option seed"
        )
    if header.get("model", model.checksum) != model.checksum:
        raise RequestError(
            f"timeline {path} belongs to another model, {header.get('model_name') or header['model']}: "
            f"give its file as option model"
        )
    return of_file


def _in_force(entries: tuple[Entry, ...], first: int, stop: int) -> tuple[Entry, ...]:
    """Return the entries that events `first` to `stop` (exclusive) depend on.

    They are those that hold for these events, and those before since which a scenario has been in force: its
    strength may depend on when it took effect.
    """
    place = bisect_right(entries, first, key=attrgetter("first")) - 1
    while place and set(entries[place].scenarios) & set(entries[place - 1].scenarios):
        place -= 1
    return entries[place : bisect_left(entries, stop, key=attrgetter("first"))]


# Python workers of Spark live on from task to task, and the driver's from micro-batch to micro-batch.
@lru_cache(maxsize=2)
def _model(path: str | None, checksum: str) -> Model:
    """Return the model of a file; `ModelError` if it is not the one with this checksum."""
    model = load_model(path)
    if model.checksum != checksum:
        raise ModelError(
            f"the model in {path or 'the installed package'} is not the one that the query began with: every "
            f"machine must have the same file, and the same version of this package"
        )
    return model


@lru_cache(maxsize=2)
def _sampler(path: str | None, checksum: str, seed: int) -> Sampler:
    return Sampler(_model(path, checksum), seed)


@lru_cache(maxsize=4)
def _stream(
    path: str | None, checksum: str, seed: int, arrivals: ArrivalKind, entries: tuple[Entry, ...]
) -> Stream:
    return Stream(_model(path, checksum), Timeline(entries, Arrivals(arrivals, seed)), seed=seed)

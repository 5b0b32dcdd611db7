"""`verify`: compare a sink with the stream that it was filled from.

The rows go by once. Each is compared with its event; of each event number it is counted how often it came, so
that what is missing in the end is known. Rows whose events are far apart are put aside until all are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from logistream.errors import DataError, NotYetError, RequestError
from logistream.schema import EVENT_NUMBER
from logistream.times import parse_duration
from logistream.verification.compare import instants, unequal
from logistream.verification.counting import Pile, Seen, spans_of
from logistream.verification.reference import open_reference
from logistream.verification.result import EXAMPLES, Finding, Verification
from logistream.verification.sink import Sink, event_numbers
from logistream.verification.windows import Grouping, window_sums

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from datetime import timedelta

    from numpy.typing import NDArray

    from logistream.client.subscription import Source
    from logistream.model.model import Model
    from logistream.stream.stream import Stream
    from logistream.verification.reference import Reference
    from logistream.verification.sink import Sinkable

__all__ = ["verify"]


_BLOCK = 4096  # events that are made at once in any case
_NEAR = 4  # events that are made for each row at most; rows that are farther apart wait for others
_PROBED = 10  # rows from which another stream is recognised
_BEFORE, _ARRIVED = "\0before", "\0arrived"  # of rows that are put aside


def verify(
    what: Sinkable,
    source: Source | str | os.PathLike[str] | Stream,
    *,
    model: Model | str | os.PathLike[str] | None = None,
    start: int | None = None,
    stop: int | None = None,
    ordered: bool = True,
    arrived: str | None = None,
    late: str | timedelta | None = None,
    window: str | timedelta | None = None,
    watermark: str | timedelta | None = None,
    by: str | Iterable[str] = (),
    sums: str | Iterable[str] = (),
    token: str | None = None,
) -> Verification:
    """Report what a sink lost, doubled, reordered or altered, and whether the wire or the pipeline did it.

    Values are compared, not types: a sink may hold strings, numbers and timestamps as JSON, pandas or Spark
    have written them. Memory does not grow with the values, but by about a byte for each event of a sink that
    is not in order; such rows go through temporary files.

    Parameters
    ----------
    what : DataFrame, path, or iterable
        The sink: a DataFrame, Arrow columns, Parquet or NDJSON files (a path, or a list of paths), a folder
        of them, or an iterator of dicts, JSON strings, DataFrames or record batches. It has a column
        `event_number`, and any other columns of the stream. Further columns are ignored.
    source : str, path or StreamServer
        The address of the server, a `StreamServer`, or the timeline file of the server.
    model : Model or path, optional
        What the events of a timeline file are drawn from; the shipped model if it is not given. A server
        knows its model; where this is another one, the events are read from the server.
    start, stop : int, optional
        The range of event numbers, `stop` excluded; rows of other events are left out. By default it is that
        of the sink, so that what the sink lacks at its ends is not noticed.
    ordered : bool, default=True
        Whether the rows of each file should be in the order of delivery. Of several files each has its own.
    arrived : str, optional
        The column with the time at which each row arrived.
    late : str or timedelta, default="30s"
        How long after its event a row may arrive; needs `arrived`.
    window : str or timedelta, optional
        Also give the right sums of tumbling windows of this length in event time, from 1970 on.
    watermark : str or timedelta, optional
        How far the watermark of the pipeline is behind the newest event time that was delivered. An event
        counts only if it is delivered before the watermark reaches the end of its window.
    by : str or iterable of str, optional
        Columns by which the windows are divided.
    sums : str or iterable of str, optional
        Columns of numbers to sum up. The events are always counted.
    token : str, optional
        Required by servers on other machines.

    Returns
    -------
    Verification
        A table in a notebook. `ok` says whether the pipeline did nothing wrong, `windows` holds the sums.

    Raises
    ------
    DataError
        The sink cannot be read, has no rows or no event numbers, or is of another stream.
    RequestError
        A value is not allowed, or the model is not that of the timeline.
    StreamError
        The server cannot be reached, or the timeline cannot be read.

    Examples
    --------
    >>> print(verify("orders.parquet", "http://127.0.0.1:8000"))  # doctest: +SKIP
    """
    if late is not None and arrived is None:
        raise RequestError("late needs arrived, the column with the time at which each row arrived")
    bound = _micros("late", "30s" if late is None else late)
    reference = open_reference(source, model, token)
    grouping = Grouping.of(reference.schema, window, watermark, by, sums)
    first = reference.timeline.entries[0].first
    for name, number in (("start", start), ("stop", stop)):
        if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < first):
            raise RequestError(f"{name} must be an event number from {first}, not {number!r}")
    if stop is not None and stop > reference.newest:
        raise NotYetError(f"event {stop - 1}", reference.newest - 1)
    if start is not None and start >= (reference.newest if stop is None else stop):
        raise RequestError(f"start must be before stop, or before the newest event, not {start}")
    sink = Sink(what, reference.schema, () if arrived is None else (arrived,))
    with Pile() as pile:
        check = _Check(reference, pile, start, stop, bound, arrived=arrived, ordered=ordered)
        for place, rows in sink.pieces():
            check.add(place, rows)
        return check.finish(sink, grouping)


def _micros(name: str, length: str | timedelta) -> int:
    try:
        micros = parse_duration(length)
    except ValueError as error:
        raise RequestError(f"{name}: {error}") from None
    if micros < 0:
        raise RequestError(f"{name} must not be negative, got {length}")
    return micros


class _Tally:
    """How often something was found that the pipeline did, and where first."""

    def __init__(self) -> None:
        self.total = 0
        self._examples: set[int] = set()

    def add(self, numbers: NDArray[np.int64], total: int | None = None) -> None:
        """Count events; `total` if they are more often found than they are given."""
        self.total += len(numbers) if total is None else total
        if len(numbers):
            lowest = np.partition(numbers, min(EXAMPLES, len(numbers)) - 1)[:EXAMPLES]
            self._examples = set(sorted({*self._examples, *lowest.tolist()})[:EXAMPLES])

    def finding(self, wire: int = 0) -> Finding:
        return Finding(wire, self.total, tuple(sorted(self._examples)))


class _Check:
    """The rows of a sink so far, compared with their events."""

    def __init__(
        self,
        reference: Reference,
        pile: Pile,
        start: int | None,
        stop: int | None,
        bound: int,
        *,
        arrived: str | None,
        ordered: bool,
    ) -> None:
        self._reference, self._pile = reference, pile
        self._first = reference.timeline.entries[0].first
        self._start, self._stop = start, stop
        self._bound, self._arrived, self._ordered = bound, arrived, ordered
        self._seen = Seen()
        self._lowest = self._highest = -1  # event numbers of the sink
        self._rows = 0
        self._file, self._newest_in_file = -1, -1
        self._columns: dict[str, None] = {}
        self._altered_cells = self._compared_rows = 0
        self._doubled, self._reordered, self._altered, self._late, self._foreign = (
            _Tally() for _ in range(5)
        )
        self._altered_columns: dict[str, _Tally] = {}
        self._is_known = False  # that the rows are of this stream

    def add(self, file: int, rows: pa.RecordBatch) -> None:
        """Take in rows that follow those before."""
        if self._arrived is not None and self._arrived not in rows.schema.names:
            raise DataError(f"the sink has no column {self._arrived!r} with the times of arrival")
        numbers, usable = event_numbers(rows.column(EVENT_NUMBER.name))
        if usable.any() and numbers[usable].max() >= self._reference.newest:
            self._reference.refresh()
        known = usable & (numbers >= self._first) & (numbers < self._reference.newest)
        self._foreign.add(numbers[usable & ~known], int((~known).sum()))
        self._rows += int((~known).sum())
        kept = known
        if self._start is not None:
            kept = kept & (numbers >= self._start)
        if self._stop is not None:
            kept = kept & (numbers < self._stop)
        if not kept.all():
            rows, numbers = rows.filter(pa.array(kept)), numbers[kept]
        if not len(numbers):
            return
        self._rows += len(numbers)
        low, high = int(numbers.min()), int(numbers.max())
        self._lowest = low if self._lowest < 0 else min(low, self._lowest)
        self._highest = max(high, self._highest)
        before = self._seen.add(numbers)
        self._doubled.add(numbers[before > 0])
        self._check_order(file, numbers, before)
        self._columns.update(
            dict.fromkeys(name for name in rows.schema.names if name in self._reference.schema)
        )
        if high - low < _NEAR * len(numbers) + _BLOCK:
            self._compare(rows, numbers)
            return
        order = np.argsort(numbers, kind="stable")
        rows, numbers = rows.take(pa.array(order)), numbers[order]
        for span, place in spans_of(numbers):
            here, part = numbers[place], rows.slice(place.start, place.stop - place.start)
            if here[-1] - here[0] < _NEAR * len(here):
                self._compare(part, here)
            else:
                self._pile.add(span, part)

    def _check_order(self, file: int, numbers: NDArray[np.int64], before: NDArray[np.int64]) -> None:
        if file != self._file:
            self._file, self._newest_in_file = file, -1
        newest = np.maximum.accumulate(np.concatenate([[self._newest_in_file], numbers]))
        self._newest_in_file = int(newest[-1])
        if self._ordered:
            self._reordered.add(numbers[(numbers < newest[:-1]) & (before == 0)])

    def _truth(self, numbers: NDArray[np.int64], names: list[str]) -> pa.RecordBatch:
        """Return the events with these numbers, row by row."""
        low, high = int(numbers.min()), int(numbers.max()) + 1
        if high - low == len(numbers) and (np.diff(numbers) == 1).all():
            return self._reference.rows(low, high, names)
        blocks = np.unique(numbers // _BLOCK)
        if len(blocks) == blocks[-1] - blocks[0] + 1:
            return self._reference.rows(low, high, names).take(pa.array(numbers - low))
        parts, starts = [], np.zeros(len(blocks), np.int64)
        held = 0
        for place, block in enumerate(blocks.tolist()):
            begin, end = max(low, block * _BLOCK), min(high, (block + 1) * _BLOCK)
            starts[place] = held - begin
            parts.append(self._reference.rows(begin, end, names))
            held += end - begin
        places = numbers + starts[np.searchsorted(blocks, numbers // _BLOCK)]
        return pa.Table.from_batches(parts).take(pa.array(places)).combine_chunks().to_batches()[0]

    def _compare(self, rows: pa.RecordBatch, numbers: NDArray[np.int64]) -> None:
        """Compare rows with their events."""
        if self._arrived is not None:
            self._check_arrivals(rows, numbers)
        names = [name for name in rows.schema.names if name in self._reference.schema]
        truth = self._truth(numbers, names)
        altered = np.zeros(len(numbers), bool)
        where: dict[str, NDArray[np.bool_]] = {}
        for name in names:
            different = unequal(rows.column(name), truth.column(name), self._reference.schema[name])
            if different is not None:
                where[name] = different
                altered |= different
        if not self._is_known:
            self._require_same_stream(where, altered, names)
        self._altered.add(numbers[altered])
        for name, different in where.items():
            self._altered_columns.setdefault(name, _Tally()).add(numbers[different])

    def _require_same_stream(
        self, where: dict[str, NDArray[np.bool_]], altered: NDArray[np.bool_], names: list[str]
    ) -> None:
        """Raise if the first rows differ all, and in most columns, not only in numbers."""
        if len(altered) < _PROBED:
            return
        self._is_known = True
        cells = sum(int(different.sum()) for different in where.values())
        schema = self._reference.schema
        others = any(schema[name].kind in ("category", "timestamp") for name in where)
        if altered.all() and len(names) > 2 and others and cells > 0.5 * len(names) * len(altered):
            raise DataError(
                f"the sink is of another stream than {self._reference.stream_id}: none of its first rows is "
                f"the event with its number; check the address or the timeline, and the model"
            )

    def _check_arrivals(self, rows: pa.RecordBatch, numbers: NDArray[np.int64]) -> None:
        arrived = instants(rows.column(self._arrived))
        low, high = int(numbers.min()), int(numbers.max()) + 1
        happened = self._reference.timeline.times(low, high)[numbers - low]
        missing = arrived == np.iinfo(np.int64).min
        if missing.all():
            raise DataError(f"column {self._arrived!r} holds no times of arrival: expected timestamps")
        self._late.add(numbers[~missing & (arrived - happened > self._bound)])

    def finish(self, sink: Sink, grouping: Grouping | None) -> Verification:
        """Compare what was put aside, find what is missing, and return what was found."""
        for _, rows in self._pile.spans():
            self._compare(rows, event_numbers(rows.column(EVENT_NUMBER.name))[0])
        start, stop = self._range(sink)
        missing, examples = self._seen.unseen(start, stop, EXAMPLES)
        return Verification(
            stream_id=self._reference.stream_id,
            start=start,
            stop=stop,
            rows=self._rows,
            columns=tuple(self._columns),
            lost=Finding(0, missing, tuple(examples)),
            doubled=self._doubled.finding(),
            reordered=self._reordered.finding() if self._ordered else None,
            altered=self._altered.finding(),
            late=None if self._arrived is None else self._late.finding(),
            foreign=self._foreign.finding(),
            unreadable=Finding(0, sink.unreadable),
            altered_columns={
                name: self._altered_columns[name].finding()
                for name in self._reference.schema.names
                if name in self._altered_columns
            },
            windows=None if grouping is None else window_sums(self._reference, grouping, start, stop),
        )

    def _range(self, sink: Sink) -> tuple[int, int]:
        if self._lowest < 0 and (self._start is None or self._stop is None):
            if self._rows:
                raise DataError(
                    f"the sink is of another stream than {self._reference.stream_id}: none of its "
                    f"{self._rows:,} event numbers has happened there; check the address or the timeline"
                )
            lines = f" but {sink.unreadable:,} lines that are not JSON objects" if sink.unreadable else ""
            raise DataError(f"the sink holds no rows{lines}: to find all events lost, give start and stop")
        start = self._lowest if self._start is None else self._start
        return start, self._highest + 1 if self._stop is None else self._stop

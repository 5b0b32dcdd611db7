"""The rows of a sink, one after the other, compared with their events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from logistream.errors import DataError, StreamError
from logistream.schema import EVENT_NUMBER
from logistream.verification.attribution import Attribution, Tallies
from logistream.verification.compare import MISSING, instants, unequal
from logistream.verification.counting import Seen, spans_of
from logistream.verification.result import EXAMPLES, Finding, Verification
from logistream.verification.sink import event_numbers
from logistream.verification.windows import window_sums

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from logistream.verification.counting import Spill
    from logistream.verification.reference import Reference
    from logistream.verification.sink import StoredRows
    from logistream.verification.windows import Grouping

__all__ = ["Check"]


_BLOCK = 4096  # events that are made at once in any case
_NEAR = 4  # events that are made for each row at most; rows that are farther apart wait for others
_PROBED = 10  # rows from which another stream is recognised
_BEFORE, _POSITION = "\0before", "\0position"  # columns of rows that wait


class Check:
    """The rows of a sink so far, compared with their events.

    Parameters
    ----------
    reference : Reference
        The stream.
    waiting, attributed : Spill
        Where rows are put aside: those that are far from others, and those of a stream with faults.
    start, stop : int or None
        The range.
    bound : int
        Microseconds after its event at which a row is late.
    arrived : str or None
        The column with the time at which each row arrived.
    ordered : bool
        Whether the order of the rows is checked.
    faults : bool
        Whether the rows are what the wire delivered.
    """

    def __init__(
        self,
        reference: Reference,
        waiting: Spill,
        attributed: Spill,
        start: int | None,
        stop: int | None,
        bound: int,
        *,
        arrived: str | None,
        ordered: bool,
        faults: bool,
    ) -> None:
        self._reference, self._waiting = reference, waiting
        self._first = reference.timeline.entries[0].first
        self._start, self._stop = start, stop
        self._bound, self._arrived, self._ordered = bound, arrived, ordered
        self._tallies = Tallies()
        self._faults = faults
        self._attribution = (
            Attribution(reference, attributed, self._tallies, bound) if self._has_faults else None
        )
        self._seen = Seen()
        self._lowest = self._highest = -1  # event numbers of the sink
        self._rows = self._kept = 0
        self._without_number = 0
        self._file, self._newest_in_file = -1, -1
        self._files: list[int] = []  # positions with which they begin
        self._columns: dict[str, None] = {}
        self._is_known = False  # that the rows are of this stream
        self._has_arrivals = False

    @property
    def _has_faults(self) -> bool:
        return self._faults and any(entry.faults for entry in self._reference.timeline.entries)

    def add(self, file: int, rows: pa.RecordBatch) -> None:
        """Take in rows that follow those before."""
        if self._arrived is not None and self._arrived not in rows.schema.names:
            raise DataError(f"the sink has no column {self._arrived!r} with the times of arrival")
        numbers, usable = event_numbers(rows.column(EVENT_NUMBER.name))
        if usable.any() and numbers[usable].max() >= self._reference.newest:
            self._reference.refresh()
            if self._attribution is None and self._has_faults:
                raise StreamError("faults were set while the sink was read: verify it again")
        known = usable & (numbers >= self._first) & (numbers < self._reference.newest)
        self._tallies.foreign.add(numbers[usable & ~known], int((~known).sum()))
        self._without_number += int((~usable).sum())
        self._rows += int((~known).sum())
        kept = known & self._in_range(numbers)
        if not kept.all():
            rows, numbers = rows.filter(pa.array(kept)), numbers[kept]
        if len(numbers):
            self._add(file, rows, numbers)

    def _in_range(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        low = 0 if self._start is None else self._start
        high = np.iinfo(np.int64).max if self._stop is None else self._stop
        inside = (numbers >= low) & (numbers < high)
        if self._start is not None and self._attribution is not None:
            inside |= np.isin(numbers, self._attribution.on_the_way(self._start))
        return inside

    def _add(self, file: int, rows: pa.RecordBatch, numbers: NDArray[np.int64]) -> None:
        low, high = int(numbers.min()), int(numbers.max())
        self._lowest = low if self._lowest < 0 else min(low, self._lowest)
        self._highest = max(high, self._highest)
        before = self._seen.add(numbers)
        if file != self._file:
            self._file, self._newest_in_file = file, -1
            self._files.append(self._kept)
        if self._attribution is None:
            self._tallies.doubled.add(numbers[before > 0])
            if self._ordered:
                self._check_order(numbers, before)
        else:
            rows = rows.append_column(_BEFORE, pa.array(before))
            rows = rows.append_column(_POSITION, pa.array(np.arange(self._kept, self._kept + len(numbers))))
        self._rows += len(numbers)
        self._kept += len(numbers)
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
                self._waiting.add(span, part)

    def _check_order(self, numbers: NDArray[np.int64], before: NDArray[np.int64]) -> None:
        """Count first arrivals that come after a later event: RFC 4737 calls such packets reordered."""
        newest = np.maximum.accumulate(np.concatenate([[self._newest_in_file], numbers]))
        self._newest_in_file = int(newest[-1])
        self._tallies.reordered.add(numbers[(numbers < newest[:-1]) & (before == 0)])

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
        return pa.concat_batches(parts).take(pa.array(places))

    def _compare(self, rows: pa.RecordBatch, numbers: NDArray[np.int64]) -> None:
        """Compare rows with their events."""
        arrived = None if self._arrived is None else self._late_arrivals(rows, numbers)
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
        if self._attribution is not None:
            before, positions = (np.asarray(rows.column(name)) for name in (_BEFORE, _POSITION))
            self._attribution.add(numbers, before, positions, arrived, where, rows)
            return
        if arrived is not None:
            self._tallies.late.add(numbers[arrived != MISSING])
        self._tallies.altered.add(numbers[altered])
        for name, different in where.items():
            self._tallies.column(name).add(numbers[different])

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

    def _late_arrivals(self, rows: pa.RecordBatch, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return when late rows arrived, `MISSING` for the others, int64 of shape (n,)."""
        arrived = instants(rows.column(self._arrived))
        low, high = int(numbers.min()), int(numbers.max()) + 1
        happened = self._reference.timeline.times(low, high)[numbers - low]
        missing = arrived == MISSING
        self._has_arrivals |= not missing.all()
        return np.where(~missing & (arrived - happened > self._bound), arrived, MISSING)

    def finish(self, sink: StoredRows, grouping: Grouping | None) -> Verification:
        """Compare what was put aside, find what is missing, and return what was found."""
        for span in self._waiting.spans:
            for rows in self._waiting.take(span):
                self._compare(rows, event_numbers(rows.column(EVENT_NUMBER.name))[0])
        self._require_rows(sink.unreadable)
        if self._arrived is not None and self._kept and not self._has_arrivals:
            raise DataError(f"column {self._arrived!r} holds no times of arrival: expected timestamps")
        start, stop, unreadable = self._finished(sink.unreadable)
        tallies = self._tallies
        return Verification(
            stream_id=self._reference.stream_id,
            start=start,
            stop=stop,
            rows=self._rows,
            columns=tuple(self._columns),
            lost=tallies.lost.finding,
            doubled=tallies.doubled.finding,
            reordered=tallies.reordered.finding if self._ordered else None,
            altered=tallies.altered.finding,
            late=None if self._arrived is None else tallies.late.finding,
            foreign=tallies.foreign.finding,
            unreadable=unreadable,
            altered_columns={
                name: tallies.columns[name].finding
                for name in self._reference.schema.names
                if name in tallies.columns
            },
            windows=None
            if grouping is None
            else window_sums(self._reference, grouping, start, stop, faults=self._faults),
        )

    def _finished(self, unreadable: int) -> tuple[int, int, Finding]:
        """Find what is missing, and who did what; return the range, and the lines that cannot be read."""
        if self._attribution is None:
            start = self._lowest if self._start is None else self._start
            stop = self._highest + 1 if self._stop is None else self._stop
            missing, examples = self._seen.unseen(start, stop, EXAMPLES)
            self._tallies.lost.add(np.array(examples, np.int64), missing)
            return start, stop, Finding(0, unreadable)
        files = [*self._files, self._kept] if self._ordered else None
        start, stop = self._attribution.finish(
            self._seen, self._start, self._stop, self._lowest, self._highest, files
        )
        cut = min(unreadable, self._attribution.cut)
        without_number = min(
            self._without_number, self._attribution.cut - cut
        )  # where cut events are still rows
        self._tallies.foreign.wire += without_number
        self._tallies.foreign.pipeline -= without_number
        return start, stop, Finding(cut, unreadable - cut)

    def _require_rows(self, unreadable: int) -> None:
        if self._lowest >= 0 or (self._start is not None and self._stop is not None):
            return
        if self._rows:
            raise DataError(
                f"the sink is of another stream than {self._reference.stream_id}: none of its "
                f"{self._rows:,} rows has the number of an event there; check the address or the timeline"
            )
        lines = f", but {unreadable:,} lines that are not JSON objects" if unreadable else ""
        raise DataError(f"the sink holds no rows{lines}: if events should be in it, give start and stop")

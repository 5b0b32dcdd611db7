"""Which findings are the wire's: rows of a sink, and events that it lacks, beside the deliveries.

Rows are kept with what was found of them, by event number, until all are read. Then the deliveries are
computed once, in order.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from logistream.verification.compare import MISSING
from logistream.verification.counting import SPAN
from logistream.verification.result import EXAMPLES, Finding
from logistream.verification.wire import ByEvent, is_corrupted, place_keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from logistream.verification.counting import Seen, Spill
    from logistream.verification.reference import Reference
    from logistream.verification.wire import Delivered

__all__ = ["Attribution", "Occurrences", "Tallies"]


_POSITION, _NUMBER, _BEFORE, _ARRIVED, _CELLS = "position", "number", "before", "arrived", "cells"
_AT_ONCE = 1 << 20  # rows whose order is checked


class Occurrences:
    """How often something was found, who did it, and where the pipeline did it first."""

    def __init__(self) -> None:
        self.wire = 0
        self.pipeline = 0
        self._examples: list[int] = []

    def add(self, numbers: NDArray[np.int64], total: int | None = None) -> None:
        """Count what the pipeline did to events; `total` if that is more than there are numbers."""
        self.pipeline += len(numbers) if total is None else total
        if len(numbers):
            lowest = np.partition(numbers, min(EXAMPLES, len(numbers)) - 1)[:EXAMPLES]
            self._examples = sorted({*self._examples, *lowest.tolist()})[:EXAMPLES]

    @property
    def finding(self) -> Finding:
        """What was found."""
        return Finding(self.wire, self.pipeline, tuple(self._examples))


@dataclass(slots=True)
class Tallies:
    """All that is counted of rows and events."""

    lost: Occurrences = field(default_factory=Occurrences)
    doubled: Occurrences = field(default_factory=Occurrences)
    reordered: Occurrences = field(default_factory=Occurrences)
    altered: Occurrences = field(default_factory=Occurrences)
    late: Occurrences = field(default_factory=Occurrences)
    foreign: Occurrences = field(default_factory=Occurrences)
    columns: dict[str, Occurrences] = field(default_factory=dict)

    def column(self, name: str) -> Occurrences:
        """Return the tally of a column that was altered."""
        return self.columns.setdefault(name, Occurrences())


class Attribution:
    """What was found of rows of a stream with faults, until it is compared with the deliveries.

    Parameters
    ----------
    reference : Reference
        The stream.
    spill : Spill
        Where the rows are kept.
    tallies : Tallies
        What is counted.
    bound : int
        Microseconds after which a row is late.
    """

    def __init__(self, reference: Reference, spill: Spill, tallies: Tallies, bound: int) -> None:
        self._reference, self._spill, self._tallies, self._bound = reference, spill, tallies, bound
        self._deliveries = ByEvent(reference)
        self._pending: dict[tuple[int, int], NDArray[np.int64]] = {}
        self.cut = 0  # deliveries of the range whose text ends early

    def on_the_way(self, start: int) -> NDArray[np.int64]:
        """Return the events before `start` whose first delivery is not, int64 of shape (n,)."""
        first, reach = self._reference.timeline.entries[0].first, self._deliveries.reach
        known = start, min(start + reach, self._reference.newest)
        if known not in self._pending:
            begin = max(first, start - reach)
            slots = self._deliveries.of(begin, start).first_slots(none=-1)
            self._pending[known] = np.flatnonzero(slots >= start) + begin
        return self._pending[known]

    def add(
        self,
        numbers: NDArray[np.int64],
        before: NDArray[np.int64],
        positions: NDArray[np.int64],
        arrived: NDArray[np.int64] | None,
        where: Mapping[str, NDArray[np.bool_]],
        rows: pa.RecordBatch,
    ) -> None:
        """Keep what was found of rows.

        Parameters
        ----------
        numbers, before, positions : ndarray of int64, shape (n,)
            Of each row its event, how often that came before, and its place in the sink.
        arrived : ndarray of int64, shape (n,), optional
            When a late row arrived; `MISSING` if it is not late.
        where : mapping of str to ndarray of bool, shape (n,)
            The columns that differ somewhere, and where.
        rows : RecordBatch of n rows
            The rows.
        """
        cells: list[str | None] = [None] * len(numbers)
        for row in np.flatnonzero(np.logical_or.reduce(list(where.values()))) if where else ():
            names = [name for name, different in where.items() if different[row]]
            cells[row] = json.dumps({name: _cell(rows.column(name)[int(row)]) for name in names})
        batch = pa.record_batch(
            {
                _POSITION: pa.array(positions),
                _NUMBER: pa.array(numbers),
                _BEFORE: pa.array(before),
                _ARRIVED: pa.array(np.full(len(numbers), MISSING) if arrived is None else arrived),
                _CELLS: pa.array(cells, pa.string()),
            }
        )
        spans = numbers // SPAN
        for span in np.unique(spans).tolist():
            here = spans == span
            self._spill.add(span, batch if here.all() else batch.filter(pa.array(here)))

    def finish(
        self, seen: Seen, start: int | None, stop: int | None, low: int, high: int, files: list[int] | None
    ) -> tuple[int, int]:
        """Compare all with the deliveries, and return the range of slots that the sink covers.

        Parameters
        ----------
        seen : Seen
            The events of the sink.
        start, stop : int or None
            The range, where it is given.
        low, high : int
            The lowest and the highest event of the sink.
        files : list of int or None
            The positions with which its files begin; None if its order is not to be checked.
        """
        first, newest = self._reference.timeline.entries[0].first, self._reference.newest
        if stop is None:
            stop = self._stop(seen, low, high)
        if start is None:
            start = min(self._start(seen, low, high), stop - 1)
        rows = files.pop() if files is not None else 0
        order = self._spill.scratch(rows, 3) if files is not None else None
        spans = range(max(first, start - self._deliveries.reach) // SPAN, (stop - 1) // SPAN + 1)
        for span in sorted({*spans, *self._spill.spans}):
            begin, end = max(first, span * SPAN), min(newest, (span + 1) * SPAN)
            delivered = self._deliveries.of(begin, end)
            self._count(delivered, seen.counts(begin, end), start, stop)
            for kept in self._spill.take(span):
                self._attribute(delivered, kept, order)
        if order is not None and files is not None:
            for begin, end in zip(files, [*files[1:], rows], strict=True):
                self._check_order(order[begin:end])
        return start, stop

    def _start(self, seen: Seen, low: int, high: int) -> int:
        """Return the last slot with which the sink can begin: each of its events was delivered since."""
        start = low + self._deliveries.reach
        begin = low
        while begin <= min(start, high):
            end = min(begin + SPAN, high + 1)
            last = self._deliveries.of(begin, end).last_slots(none=start)
            here = last[seen.counts(begin, end) > 0]
            start = min(start, int(here.min(initial=start)))
            begin = end
        return start

    def _stop(self, seen: Seen, low: int, high: int) -> int:
        """Return the slot after the first with which the sink can end: each of its events was delivered."""
        stop = high
        end = high + 1
        while end > low and end + self._deliveries.reach > stop:
            begin = max(low, end - SPAN)
            slots = self._deliveries.of(begin, end).first_slots(none=-1)
            here = slots[seen.counts(begin, end) > 0]
            stop = max(stop, int(here.max(initial=stop)))
            end = begin
        return stop + 1

    def _count(self, delivered: Delivered, counts: NDArray[np.int64], start: int, stop: int) -> None:
        """Count what is missing, and what came too often."""
        numbers = np.arange(delivered.start, delivered.stop)
        due = delivered.slots < stop
        slots = delivered.first_slots(none=np.iinfo(np.int64).max)
        expected = (slots >= start) & (slots < stop)
        never = (numbers >= start) & (numbers < stop) & (slots >= stop)  # dropped, or still on the way
        unseen = counts == 0
        can_be_there = expected & (delivered.counts(due & delivered.whole) > 0)
        self._tallies.lost.add(numbers[unseen & can_be_there])
        self._tallies.lost.wire += int((unseen & (expected | never) & ~can_be_there).sum())
        self.cut += int((delivered.cut & due & (delivered.slots >= start)).sum())
        again = np.maximum(counts - 1, 0)
        copies = np.maximum(np.diff(delivered.ends) - 1, 0)
        by_wire = np.minimum(again, copies)
        self._tallies.doubled.wire += int(by_wire.sum())
        by_pipeline = again - by_wire
        self._tallies.doubled.add(numbers[by_pipeline > 0], int(by_pipeline.sum()))

    def _attribute(self, delivered: Delivered, kept: pa.RecordBatch, order: NDArray[np.int64] | None) -> None:
        """Compare rows with the deliveries of their events."""
        positions, numbers, before, arrived = (
            np.asarray(kept.column(name)) for name in (_POSITION, _NUMBER, _BEFORE, _ARRIVED)
        )
        begins = delivered.ends[numbers - delivered.start]
        deliveries = delivered.ends[numbers - delivered.start + 1] - begins
        some = deliveries > 0
        place = np.where(some, begins + np.minimum(before, deliveries - 1), 0)
        slots, keys, last = numbers, place_keys(numbers, 0), place_keys(numbers, 0)
        if len(delivered.slots):
            slots = np.where(some, delivered.slots[place], numbers)
            keys = np.where(some, delivered.keys[place], keys)
            last = np.where(some, delivered.keys[np.where(some, begins + deliveries - 1, 0)], last)
        if order is not None:
            order[positions, 0] = numbers
            order[positions, 1] = np.where(before == 0, keys, -1)
            order[positions, 2] = last
        self._attribute_late(numbers, slots, arrived)
        cells = kept.column(_CELLS)
        for row in np.flatnonzero(np.asarray(cells.is_valid())).tolist():
            altered = json.loads(cells[row].as_py())
            number = numbers[row : row + 1]
            corruptions = delivered.corruptions_of(int(number[0]))
            by_wire = is_corrupted(list(altered), list(altered.values()), corruptions)
            for tally in (self._tallies.altered, *map(self._tallies.column, altered)):
                if by_wire:
                    tally.wire += 1
                else:
                    tally.add(number)

    def _attribute_late(
        self, numbers: NDArray[np.int64], slots: NDArray[np.int64], arrived: NDArray[np.int64]
    ) -> None:
        late = np.flatnonzero(arrived != MISSING)
        if not len(late):
            return
        low, high = int(slots[late].min()), int(slots[late].max()) + 1
        left = self._reference.timeline.times(low, high)[slots[late] - low]
        by_pipeline = arrived[late] - left > self._bound
        self._tallies.late.add(numbers[late][by_pipeline])
        self._tallies.late.wire += int((~by_pipeline).sum())

    def _check_order(self, order: NDArray[np.int64]) -> None:
        """Count the rows of a file that are not in order of delivery, and those that the wire reordered."""
        newest, latest = -1, -1
        for begin in range(0, len(order), _AT_ONCE):
            numbers, keys, last = np.array(order[begin : begin + _AT_ONCE]).T
            fresh = keys >= 0
            highest = np.maximum.accumulate(np.concatenate([[newest], numbers]))
            reached = np.maximum.accumulate(np.concatenate([[latest], keys]))
            newest, latest = int(highest[-1]), int(reached[-1])
            # A row may be of a later delivery than the first: then that was lost, and this one is in order.
            by_pipeline = fresh & (keys < reached[:-1]) & (last < reached[:-1])
            self._tallies.reordered.add(numbers[by_pipeline])
            self._tallies.reordered.wire += int((fresh & (numbers < highest[:-1]) & ~by_pipeline).sum())


def _cell(value: pa.Scalar) -> Any:  # noqa: ANN401 - of a sink
    """Return a cell as JSON has it; None for NaN."""
    found = value.as_py()
    if isinstance(found, str | int):
        return found
    return None if found is None or found != found else str(found)

"""The deliveries of a stream, event by event, and whether a row is what a corrupted delivery held."""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from logistream.stream.faults import REACH

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from logistream.stream.corruption import Corruption
    from logistream.stream.deliveries import Deliveries
    from logistream.stream.faults import Fault
    from logistream.verification.reference import Reference

__all__ = ["ByEvent", "Delivered", "is_corrupted", "place_keys"]


_SLOTS = 16_384  # whose deliveries are computed at once
_KEPT = 16  # such parts: more than a span of events and the longest delay need
_INDEX_BITS = 20  # of the place within a slot


@dataclass(frozen=True, slots=True)
class Delivered:
    """The deliveries of the events `start` to `stop` (exclusive), event by event, each in order; m of them.

    Attributes
    ----------
    ends : ndarray of int64, shape (stop - start + 1,)
        Those of event `start + i` stand at `ends[i]` to `ends[i + 1]`.
    slots, keys : ndarray of int64, shape (m,)
        When each leaves: its slot, and a number that grows with its place.
    whole, cut : ndarray of bool, shape (m,)
        Whether it is not corrupted at all, and whether its text ends early.
    corruptions : dict of int to tuple of Corruption
        By place in these arrays.
    """

    start: int
    stop: int
    ends: NDArray[np.int64]
    slots: NDArray[np.int64]
    keys: NDArray[np.int64]
    whole: NDArray[np.bool_]
    cut: NDArray[np.bool_]
    corruptions: dict[int, tuple[Corruption, ...]]

    def counts(self, which: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return how many of the marked deliveries each event has, int64 of shape (stop - start,)."""
        return np.diff(np.concatenate([[0], np.cumsum(which)])[self.ends])

    def first_slots(self, none: int) -> NDArray[np.int64]:
        """Return the slot of the first delivery of each event; `none` for an event without one."""
        some = np.diff(self.ends) > 0
        found = np.full(self.stop - self.start, none)
        found[some] = self.slots[self.ends[:-1][some]]
        return found

    def last_slots(self, none: int) -> NDArray[np.int64]:
        """Return the slot of the last delivery of each event; `none` for an event without one."""
        some = np.diff(self.ends) > 0
        found = np.full(self.stop - self.start, none)
        found[some] = self.slots[self.ends[1:][some] - 1]
        return found

    def corruptions_of(self, number: int) -> list[tuple[Corruption, ...]]:
        """Return what was corrupted in the deliveries of an event, of each that was."""
        places = range(*self.ends[number - self.start : number - self.start + 2].tolist())
        return [self.corruptions[place] for place in places if place in self.corruptions]


class ByEvent:
    """The deliveries of a stream, by event; quickest if asked for in order."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._parts: OrderedDict[tuple[int, int], Deliveries] = OrderedDict()

    @property
    def reach(self) -> int:
        """Slots after its own in which an event can still be delivered."""
        return max(_reach(entry.faults) for entry in self._reference.timeline.entries)

    def of(self, start: int, stop: int) -> Delivered:
        """Return all deliveries so far of the events `start` to `stop` (exclusive)."""
        parts = []
        corruptions: dict[int, tuple[Corruption, ...]] = {}
        held = 0
        for part in range(
            start // _SLOTS, (min(stop + self.reach, self._reference.newest) - 1) // _SLOTS + 1
        ):
            found = self._part(part)
            rows = np.flatnonzero((found.numbers >= start) & (found.numbers < stop))
            if found.corruptions:
                places = {row: held + i for i, row in enumerate(rows.tolist())}
                corruptions |= {places[row]: how for row, how in found.corruptions.items() if row in places}
            parts.append((found.numbers[rows], found.slots[rows], found.indices[rows]))
            held += len(rows)
        numbers, slots, indices = (
            np.concatenate(arrays) if parts else np.empty(0, np.int64)
            for arrays in (zip(*parts, strict=True) if parts else ((), (), ()))
        )
        order = np.argsort(numbers, kind="stable")  # parts are in the order of delivery
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        corruptions = {int(rank[place]): how for place, how in corruptions.items()}
        whole, cut = np.ones(len(order), bool), np.zeros(len(order), bool)
        for place, how in corruptions.items():
            whole[place] = False
            cut[place] = any(corruption.kind == "cut" for corruption in how)
        slots = slots[order]
        return Delivered(
            start,
            stop,
            np.searchsorted(numbers[order], np.arange(start, stop + 1)),
            slots,
            place_keys(slots, indices[order]),
            whole,
            cut,
            corruptions,
        )

    def _part(self, part: int) -> Deliveries:
        low = max(part * _SLOTS, self._reference.timeline.entries[0].first)
        high = min((part + 1) * _SLOTS, self._reference.newest)  # a part that was not over may be longer now
        if (low, high) not in self._parts:
            self._parts[low, high] = self._reference.deliveries(low, high)
            while len(self._parts) > _KEPT:
                self._parts.popitem(last=False)
        self._parts.move_to_end((low, high))
        return self._parts[low, high]


def _reach(faults: Iterable[Fault]) -> int:
    """Return how many slots faults can hold an event back."""
    delays = [fault for fault in faults if fault.kind in ("late", "reorder", "duplicate")]
    if any(fault.unit == "seconds" for fault in delays):
        return REACH
    first = sum(fault.high for fault in delays if fault.kind != "duplicate")
    again = max((fault.high for fault in delays if fault.kind == "duplicate"), default=0)
    return min(REACH, round(first + again))


def place_keys(slots: NDArray[np.int64], indices: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Return numbers in the order of places."""
    return np.asarray((slots << _INDEX_BITS) + np.minimum(indices, (1 << _INDEX_BITS) - 1))


def is_corrupted(
    columns: Sequence[str], values: Sequence[Any], deliveries: Iterable[Sequence[Corruption]]
) -> bool:
    """Return whether the cells of a row that differ from the event are those of a corrupted delivery.

    Parameters
    ----------
    columns : sequence of str
        Which cells differ.
    values : sequence of n values
        What the row holds there, None if nothing.
    deliveries : iterable of sequence of Corruption
        What was corrupted in each delivery of the event.
    """
    return any(_matches(columns, values, corruptions) for corruptions in deliveries)


def _matches(columns: Sequence[str], values: Sequence[Any], corruptions: Sequence[Corruption]) -> bool:
    by_column = {corruption.column: corruption for corruption in corruptions if corruption.column}
    others = [
        value
        for name, value in zip(columns, values, strict=True)
        if name not in by_column or not _is_value(value, by_column[name])
    ]
    if any(corruption.kind == "cut" for corruption in corruptions):
        return sum(value is not None for value in others) <= 1  # the last field may be there in part
    return not others


def _is_value(value: Any, corruption: Corruption) -> bool:  # noqa: ANN401 - of a sink
    """Return whether a cell is what the wire made of it; a reader has nothing where a type does not fit."""
    if value is None:
        return True
    try:
        return corruption.kind == "type" and math.isclose(float(value), corruption.value)
    except ValueError:
        return corruption.kind == "type" and value == ""  # a missing number in quotes

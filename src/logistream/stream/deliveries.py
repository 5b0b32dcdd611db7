"""What is delivered when: the deliveries of a stream as a function of (seed, timeline, slot).

Slot s is the moment of event s. Without faults of the wire, event s is delivered in slot s and nothing else
is. A fault can hold it back until a later slot, at most `REACH` slots after its own, drop it, deliver copies
of it, or corrupt what is delivered. Whether a slot is reached by a delay in seconds depends only on the times
of the events up to that slot, so a change of the timeline alters no slot before it.

Each fault draws from raw bits of a Philox generator whose key is the seed and whose counter starts at the
block of the event, the position of the fault in its list, and the copy, as in `logistream.model.sampling`.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from logistream.model.random_bits import uniforms
from logistream.model.sampling import BLOCK
from logistream.stream.faults import REACH
from logistream.stream.query import parse_conditions

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from logistream.model.conditions import Condition
    from logistream.model.model import Model
    from logistream.stream.faults import CorruptionKind, Fault
    from logistream.stream.timeline import Timeline

__all__ = ["Corruption", "Deliveries", "Wire"]


_KEY = 0x4641554C54532121  # "FAULTS!!": keeps these draws apart from all others of the same seed
_HIT, _AMOUNT, _COLUMN = range(3)  # what a fault draws
_MOST_COPIES = 256  # of an event; 16 faults of 10 copies are fewer
_LARGEST_VALUE = 1000  # of a number in the place of a string, or of a key too many
_KEPT_BLOCKS = 64  # with what is delivered elsewhere: twice what a reader with delays of any length needs
_KEPT_WHOLE = 2


@dataclass(frozen=True, slots=True)
class Corruption:
    """What is corrupted in one delivery.

    Attributes
    ----------
    kind : {"null", "type", "missing", "extra", "cut"}
        See `Fault.from_json`.
    column : str
        Which column; empty for "extra" and "cut".
    value : float
        For "type" the whole number that stands in the place of a string, for "extra" that of the unexpected
        key, for "cut" from 0 to below 1 where the text ends, between its first value and its end.
    """

    kind: CorruptionKind
    column: str = ""
    value: float = 0.0


@dataclass(frozen=True, slots=True)
class Deliveries:
    """The deliveries of a range of slots, in order; m of them.

    In a slot its own event comes first, and then the others by event number. Copies follow each other.

    Attributes
    ----------
    slots : ndarray of int64, shape (m,)
        In which slot each is delivered.
    indices : ndarray of int64, shape (m,)
        Its place within the slot, from 0.
    numbers : ndarray of int64, shape (m,)
        Event numbers.
    copies : ndarray of int64, shape (m,)
        0 for the first delivery of an event, from 1 for its duplicates.
    corruptions : dict of int to tuple of Corruption
        What is corrupted, by row; at most one in each column, one key too many and one cut.
    """

    slots: NDArray[np.int64]
    indices: NDArray[np.int64]
    numbers: NDArray[np.int64]
    copies: NDArray[np.int64]
    corruptions: dict[int, tuple[Corruption, ...]]

    def __len__(self) -> int:
        return len(self.slots)

    def places(self) -> pa.Array:
        """Return the place of each, slot and index, as a string such as `40.1`: the column `DELIVERY`."""
        slots, indices = (pa.array(numbers).cast(pa.string()) for numbers in (self.slots, self.indices))
        return pc.binary_join_element_wise(slots, indices, ".").dictionary_encode()


@dataclass(frozen=True, slots=True)
class _Delays:
    """How much later some deliveries come: microseconds first, then events."""

    micros: NDArray[np.int64]
    events: NDArray[np.int64]


@dataclass(slots=True)
class _Plan:
    """What happens to the events of a block.

    Attributes
    ----------
    start, stop : int
        The events.
    entries : int
        How many entries the timeline had when `slots` was computed.
    stays : ndarray of bool, shape (stop - start,)
        Whether an event is delivered in its own slot.
    corrupted : ndarray of bool, shape (stop - start,)
        Whether its first delivery is corrupted.
    corruptions : dict of (int, int) to tuple of Corruption
        By event number and copy.
    numbers, copies, slots : ndarray of int64, shape (k,)
        All other deliveries, by slot.
    hit : ndarray of bool, shape (k,)
        Whether they are corrupted.
    rows : RecordBatch of k rows
        Their events.
    timed : bool
        Whether some slot depends on the times of events.
    """

    start: int
    stop: int
    entries: int
    stays: NDArray[np.bool_]
    corrupted: NDArray[np.bool_]
    corruptions: dict[tuple[int, int], tuple[Corruption, ...]]
    numbers: NDArray[np.int64]
    copies: NDArray[np.int64]
    slots: NDArray[np.int64]
    hit: NDArray[np.bool_]
    rows: pa.RecordBatch | None
    timed: bool


class Wire:
    """The deliveries of a stream; safe to use from any thread.

    Parameters
    ----------
    model : Model
        What the events are drawn from.
    seed : int
        Of the stream.
    batch : callable
        Takes a timeline, a start and a stop, and returns these events.
    """

    def __init__(
        self, model: Model, seed: int, batch: Callable[[Timeline, int, int], pa.RecordBatch]
    ) -> None:
        self._model, self._seed, self._batch = model, seed, batch
        self._lock = threading.Lock()
        self._plans: OrderedDict[int, _Plan] = OrderedDict()
        self._whole: OrderedDict[int, tuple[int, int, int, pa.RecordBatch]] = OrderedDict()

    def has_faults(self, timeline: Timeline, start: int, stop: int) -> bool:
        """Return whether what is delivered in slots `start` to `stop` (exclusive) can have faults."""
        first = timeline.entries[0].first
        start = max(start, first)
        return any(faults for _, _, faults in timeline.faults(start, stop)) or (
            start < stop and _earliest(timeline, start) < start
        )

    def deliveries(self, timeline: Timeline, start: int, stop: int) -> tuple[pa.RecordBatch, Deliveries]:
        """Return what is delivered in slots `start` to `stop` (exclusive); see `Stream.deliveries`."""
        if start >= stop:
            nothing = np.empty(0, np.int64)
            return self._batch(timeline, start, start), Deliveries(nothing, nothing, nothing, nothing, {})
        timeline.time(start)  # raises for what is before the stream
        timeline.time(stop - 1)  # raises for what a pause holds back
        sources, slots, numbers, copies, hit, places = [], [], [], [], [], []
        plans: dict[int, _Plan] = {}
        passed = 0
        for block in range(_earliest(timeline, start) // BLOCK, (stop - 1) // BLOCK + 1):
            plan = plans[block] = self._plan(timeline, block)
            low, high = max(start, plan.start), min(stop, plan.stop)
            if low < high:
                whole_start, whole = self._whole_block(timeline, block)
                sources.append(whole.slice(low - whole_start, high - low))
                stays = np.flatnonzero(plan.stays[low - plan.start : high - plan.start])
                slots.append(stays + low)
                numbers.append(stays + low)
                copies.append(np.zeros(len(stays), np.int64))
                hit.append(plan.corrupted[stays + (low - plan.start)])
                places.append(stays + passed)
                passed += high - low
            begin, end = np.searchsorted(plan.slots, (start, stop)).tolist()
            if begin < end:
                assert plan.rows is not None  # noqa: S101 - there are some
                sources.append(plan.rows.slice(begin, end - begin))
                slots.append(plan.slots[begin:end])
                numbers.append(plan.numbers[begin:end])
                copies.append(plan.copies[begin:end])
                hit.append(plan.hit[begin:end])
                places.append(np.arange(passed, passed + end - begin))
                passed += end - begin
        slot, number, copy = (np.concatenate(arrays) for arrays in (slots, numbers, copies))
        order = np.lexsort((number * _MOST_COPIES + copy, 2 * slot + (slot != number)))
        slot, number, copy = slot[order], number[order], copy[order]
        place = np.concatenate(places)[order]
        batch = sources[0] if len(sources) == 1 else pa.concat_batches(sources)
        if len(place) != batch.num_rows or (np.diff(place) != 1).any():
            batch = batch.take(pa.array(place))
        corruptions = {
            row: plans[int(number[row]) // BLOCK].corruptions[int(number[row]), int(copy[row])]
            for row in np.flatnonzero(np.concatenate(hit)[order]).tolist()
        }
        indices = np.arange(len(slot)) - np.searchsorted(slot, slot)
        return batch, Deliveries(slot, indices, number, copy, corruptions)

    def _whole_block(self, timeline: Timeline, block: int) -> tuple[int, pa.RecordBatch]:
        """Return the events of a block as far as they have times, and the number of the first."""
        low, high = _range(timeline, block)
        with self._lock:
            kept = self._whole.get(block)
            if kept is not None and kept[1] == high and _is_settled(timeline, kept[2], high):
                self._whole.move_to_end(block)
                return kept[0], kept[3]
        batch = self._batch(timeline, low, high)
        with self._lock:
            self._whole[block] = low, high, len(timeline.entries), batch
            self._whole.move_to_end(block)
            while len(self._whole) > _KEPT_WHOLE:
                self._whole.popitem(last=False)
        return low, batch

    def _plan(self, timeline: Timeline, block: int) -> _Plan:
        """Return what happens to the events of a block."""
        _, high = _range(timeline, block)
        with self._lock:
            plan = self._plans.get(block)
            if plan is not None and plan.stop == high and _is_settled(timeline, plan.entries, high):
                known = plan.entries == len(timeline.entries) or not plan.timed
                if known:
                    self._plans.move_to_end(block)
                    return plan
        plan = self._made(timeline, block)
        with self._lock:
            self._plans[block] = plan
            self._plans.move_to_end(block)
            while len(self._plans) > _KEPT_BLOCKS:
                self._plans.popitem(last=False)
        return plan

    def _made(self, timeline: Timeline, block: int) -> _Plan:
        """Draw what happens to the events of a block."""
        low, high = _range(timeline, block)
        stays, corrupted = np.ones(max(high - low, 0), bool), np.zeros(max(high - low, 0), bool)
        corruptions: dict[tuple[int, int], tuple[Corruption, ...]] = {}
        numbers, copies, slots = [], [], []
        timed = False
        for start, stop, faults in timeline.faults(low, high):
            if not faults:
                continue
            drawn = _Draws(self._seed, block, start, stop)
            here = np.arange(start, stop)
            hits = [self._hits(timeline, fault, drawn, place) for place, fault in enumerate(faults)]
            micros, events = np.zeros((2, stop - start), np.int64)
            dropped = np.zeros(stop - start, bool)
            for place, (fault, hit) in enumerate(zip(faults, hits, strict=True)):
                if fault.kind == "drop":
                    dropped |= hit
                elif fault.kind in ("late", "reorder"):
                    delay = np.where(hit, drawn.amounts(fault, place), 0)
                    if fault.unit == "seconds":
                        micros += delay
                    else:
                        events += delay
            slot = _due(timeline, here, here, micros, events)
            moved = (slot != here) & ~dropped
            stays[start - low : stop - low] = ~moved & ~dropped
            numbers.append(here[moved])
            copies.append(np.zeros(int(moved.sum()), np.int64))
            slots.append(slot[moved])
            made = np.zeros(stop - start, np.int64)  # copies of each event
            for place, (fault, hit) in enumerate(zip(faults, hits, strict=True)):
                if fault.kind != "duplicate":
                    continue
                rows = np.flatnonzero(hit & ~dropped)
                for nth in range(fault.copies):
                    delay = drawn.amounts(fault, place, nth)[rows]
                    nothing = np.zeros(len(rows), np.int64)
                    both = (delay, nothing) if fault.unit == "seconds" else (nothing, delay)
                    made[rows] += 1
                    numbers.append(here[rows])
                    copies.append(made[rows])
                    slots.append(_due(timeline, here[rows], slot[rows], *both))
            timed |= any(fault.unit == "seconds" and fault.high > 0 for fault in faults)
            self._corrupt(faults, hits, drawn, dropped, made, corruptions)
        number, copy, slot = (
            np.concatenate(arrays) if arrays else np.empty(0, np.int64) for arrays in (numbers, copies, slots)
        )
        order = np.argsort(slot, kind="stable")
        number, copy, slot = number[order], copy[order], slot[order]
        rows_batch = None
        if len(number):
            whole_start, whole = self._whole_block(timeline, block)
            rows_batch = whole.take(pa.array(number - whole_start))
        for damaged, of in corruptions:
            if of == 0:
                corrupted[damaged - low] = True
        hit_moved = np.array(
            [pair in corruptions for pair in zip(number.tolist(), copy.tolist(), strict=True)]
            if corruptions
            else np.zeros(len(number)),
            bool,
        )
        return _Plan(
            low, high, len(timeline.entries), stays, corrupted, corruptions, number, copy, slot, hit_moved,
            rows_batch, timed,
        )  # fmt: skip

    def _hits(self, timeline: Timeline, fault: Fault, drawn: _Draws, place: int) -> NDArray[np.bool_]:
        """Return to which events a fault happens, shape (n,); corruption draws for each delivery."""
        hit = np.ones(drawn.stop - drawn.start, bool)
        if fault.kind != "corrupt" and fault.share < 1:
            hit = drawn.uniforms(place, _HIT) < fault.share
        if fault.where:
            low, whole = self._whole_block(timeline, drawn.block)
            batch = whole.slice(drawn.start - low, drawn.stop - drawn.start)
            for condition in _conditions(self._model, fault.where):
                hit = hit & condition.mask(batch)
        return hit

    def _corrupt(
        self,
        faults: tuple[Fault, ...],
        hits: list[NDArray[np.bool_]],
        drawn: _Draws,
        dropped: NDArray[np.bool_],
        made: NDArray[np.int64],
        corruptions: dict[tuple[int, int], tuple[Corruption, ...]],
    ) -> None:
        """Draw what is corrupted in each delivery; of two corruptions of one column the first counts."""
        columns = self._model.event_schema.names
        for copy in range(int(made.max(initial=0)) + 1):
            exists = made >= copy if copy else ~dropped
            for place, (fault, hit) in enumerate(zip(faults, hits, strict=True)):
                if not fault.corruption:
                    continue
                rows = np.flatnonzero(exists & hit & (drawn.uniforms(place, _HIT, copy) < fault.share))
                if not len(rows):
                    continue
                amounts = drawn.uniforms(place, _AMOUNT, copy)[rows]
                values = amounts if fault.corruption == "cut" else np.floor(amounts * _LARGEST_VALUE)
                which = drawn.uniforms(place, _COLUMN, copy)[rows] * len(columns)
                for row, value, column in zip(
                    rows.tolist(), values.tolist(), which.astype(int).tolist(), strict=True
                ):
                    name = ""
                    if fault.corruption not in ("extra", "cut"):
                        name = fault.column or columns[column]
                    key = drawn.start + row, copy
                    before = corruptions.get(key, ())
                    mark = name or fault.corruption
                    if all((c.column or c.kind) != mark for c in before):
                        corruptions[key] = (*before, Corruption(fault.corruption, name, value))


class _Draws:
    """What the faults of events `start` to `stop` draw, all within one block."""

    def __init__(self, seed: int, block: int, start: int, stop: int) -> None:
        self.block, self.start, self.stop = block, start, stop
        self._seed = seed

    def uniforms(self, place: int, purpose: int, copy: int = 0) -> NDArray[np.float64]:
        """Return one uniform for each event, for a purpose of the fault at a place of the list."""
        lane = (3 * place + purpose) * _MOST_COPIES + copy
        bits = np.random.Philox(
            key=np.array([self._seed, _KEY], np.uint64),
            counter=np.array([0, 0, lane, self.block], np.uint64),
        )
        begin = self.block * BLOCK
        return uniforms(bits, BLOCK)[self.start - begin : self.stop - begin]

    def amounts(self, fault: Fault, place: int, copy: int = 0) -> NDArray[np.int64]:
        """Return a delay for each event, in events or microseconds."""
        scale = 1 if fault.unit == "events" else 1e6
        low, high = round(fault.low * scale), round(fault.high * scale)
        if low == high:
            return np.full(self.stop - self.start, low)
        drawn = np.floor(self.uniforms(place, _AMOUNT, copy) * (high - low + 1)).astype(np.int64)
        return low + np.minimum(drawn, high - low)


@lru_cache(maxsize=64)
def _conditions(model: Model, where: tuple[str, ...]) -> tuple[Condition, ...]:
    return parse_conditions(list(where), model)


def _range(timeline: Timeline, block: int) -> tuple[int, int]:
    """Return the first event of a block that the stream has, and the number after the last with a time."""
    entries = timeline.entries
    low, high = max(entries[0].first, block * BLOCK), (block + 1) * BLOCK
    if entries[-1].paused:
        high = min(high, entries[-1].first)
    return low, max(low, high)


def _is_settled(timeline: Timeline, entries: int, stop: int) -> bool:
    """Return whether no entry after the first so many of a timeline applies to an event before `stop`."""
    known = timeline.entries
    return entries == len(known) or (entries < len(known) and known[entries].first >= stop)


def _due(
    timeline: Timeline,
    numbers: NDArray[np.int64],
    bases: NDArray[np.int64],
    micros: NDArray[np.int64],
    events: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Return the slots of deliveries that are due so much after the slots `bases`; all of shape (n,).

    What a pause holds back is due in the first slot after the pause or later: that is not known yet.
    """
    slots = bases.copy()
    last = timeline.entries[-1]
    late = np.flatnonzero(micros)
    if last.paused:
        late = late[bases[late] < last.first]
    if len(late):
        lowest, highest = int(bases[late].min()), int(bases[late].max())
        base_times = timeline.times(lowest, highest + 1)
        due = base_times[bases[late] - lowest] + micros[late]
        stop = min(int(numbers[late].max()) + REACH, timeline.count(int(due.max()) - 1))
        times = timeline.times(lowest, stop)
        slots[late] = lowest + np.searchsorted(times, due)
    due_slots: NDArray[np.int64] = np.minimum(slots + events, numbers + REACH)
    return due_slots


def _earliest(timeline: Timeline, slot: int) -> int:
    """Return the first event that can be delivered in a slot or after it; at most `slot`."""
    first = timeline.entries[0].first
    for low, high, faults in timeline.faults(max(first, slot - REACH), slot):
        micros = events = 0
        number = slot
        for fault in faults:
            scale = 1 if fault.unit == "events" else 1e6
            most = round(fault.high * scale)
            if fault.kind == "duplicate":
                both = (most, 0) if fault.unit == "seconds" else (0, most)
                number = min(number, _before(timeline, slot, *both))
            elif fault.unit == "seconds":
                micros += most
            else:
                events += most
        number = max(low, _before(timeline, number, micros, events))
        if number < high:
            return number
    return slot


def _before(timeline: Timeline, slot: int, micros: int, events: int) -> int:
    """Return the least slot from which a delay of so much can end in `slot` or after it."""
    entries = timeline.entries
    slot -= events
    if not micros:
        return slot
    if entries[-1].paused:
        slot = min(slot, entries[-1].first)
    if slot <= entries[0].first:
        return slot
    return min(slot, timeline.count(timeline.time(slot - 1) - micros))

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
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from logistream.model.random_bits import uniforms
from logistream.model.sampling import BLOCK
from logistream.stream.corruption import Corruption, described
from logistream.stream.faults import REACH
from logistream.stream.query import parse_conditions
from logistream.stream.rows import Layout, Rows

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeAlias

    from numpy.typing import NDArray

    from logistream.model.model import Model
    from logistream.stream.faults import Fault
    from logistream.stream.timeline import Timeline

    _Copies: TypeAlias = "list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]"

__all__ = ["Deliveries", "Wire", "written_places"]


_KEY = 0x4641554C54532121  # "FAULTS!!": keeps these draws apart from all others of the same seed
_HIT, _AMOUNT, _COLUMN = range(3)  # what a fault draws
_MOST_COPIES = 256  # of an event: more than all faults together make
_LARGEST_VALUE = 1000  # of a number in the place of a string, or of a key too many
_KEPT_BLOCKS = 512  # what happens to their events
_KEPT_ROWS = 64 * BLOCK  # that are delivered elsewhere or corrupted, some 60 MB; with more, fewer blocks
_KEPT_AT_LEAST = 32  # a reader with delays of any length needs 26
_KEPT_WHOLE = 2


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
        """Return the place of each as a string such as `40.1`, shape (m,)."""
        return written_places(self.slots, self.indices)


def written_places(slots: NDArray[np.int64], indices: NDArray[np.int64]) -> pa.StringArray:
    """Return the places of n deliveries as strings such as `40.1`: the column `DELIVERY`."""
    return pc.binary_join_element_wise(*(pa.array(n).cast(pa.string()) for n in (slots, indices)), ".")


_NONE = np.empty(0, np.int64)
_NOTHING = Deliveries(_NONE, _NONE, _NONE, _NONE, {})


@dataclass(frozen=True, slots=True)
class _Plan:
    """What happens to the events of a block.

    Attributes
    ----------
    start, stop : int
        The events.
    entries : int
        How many entries the timeline had when the slots were computed.
    stays : ndarray of bool, shape (stop - start,)
        Whether an event is delivered in its own slot.
    corrupted : ndarray of bool, shape (stop - start,)
        Whether its first delivery is corrupted.
    corruptions : dict of (int, int) to tuple of Corruption
        By event number and copy.
    numbers, copies, slots : ndarray of int64, shape (k,)
        All other deliveries, by slot.
    delays : ndarray of int64, shape (4, k)
        How they follow from the number: microseconds and events to the first delivery, and from there.
    hit : ndarray of bool, shape (k,)
        Whether they are corrupted.
    rows : Rows or None
        Their events; None if k is 0.
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
    delays: NDArray[np.int64]
    hit: NDArray[np.bool_]
    rows: Rows | None

    @property
    def size(self) -> int:
        """How many rows are kept, roughly."""
        return len(self.numbers) + len(self.corruptions)

    def on(self, timeline: Timeline) -> _Plan:
        """Return the plan on a timeline that has the same events of the block."""
        entries = timeline.entries
        if self.entries == len(entries):
            return self
        if not self.delays[::2].any() or self.slots[-1] < entries[self.entries].first:
            return replace(self, entries=len(entries))
        slots = _slots(timeline, self.numbers, self.delays)
        order = np.argsort(slots, kind="stable")
        return replace(
            self,
            entries=len(entries),
            numbers=self.numbers[order],
            copies=self.copies[order],
            slots=slots[order],
            delays=self.delays[:, order],
            hit=self.hit[order],
            rows=None if self.rows is None else self.rows.take(order),
        )


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
        self._layout = Layout(model.full_schema.arrow)
        self._lock = threading.Lock()
        self._plans: OrderedDict[int, _Plan] = OrderedDict()
        self._kept_rows = 0
        self._whole: OrderedDict[int, tuple[int, int, int, Rows]] = OrderedDict()

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
            return self._batch(timeline, start, start), _NOTHING
        timeline.time(start)  # raises for what is before the stream
        timeline.time(stop - 1)  # raises for what a pause holds back
        sources: list[Rows] = []
        listed = self._listed(timeline, start, stop, sources)
        if listed is None:
            return self._batch(timeline, start, start), _NOTHING
        deliveries, places = listed
        return Rows.joined(sources, places), deliveries

    def _listed(
        self, timeline: Timeline, start: int, stop: int, sources: list[Rows] | None
    ) -> tuple[Deliveries, NDArray[np.int64]] | None:
        """Return the deliveries of slots and the place of each in the joined `sources`; None for none.

        Parameters
        ----------
        sources : list of Rows or None
            Is filled with the rows from which the deliveries are taken; None if they are not needed.
        """
        pieces: list[tuple[NDArray[Any], ...]] = []  # slots, numbers, copies, hit, places
        plans: dict[int, _Plan] = {}
        passed = 0
        for block in range(_earliest(timeline, start) // BLOCK, (stop - 1) // BLOCK + 1):
            plan = plans[block] = self._plan(timeline, block)
            low, high = max(start, plan.start), min(stop, plan.stop)
            stays = np.flatnonzero(plan.stays[low - plan.start : high - plan.start]) if low < high else _NONE
            if len(stays):
                if sources is not None:
                    whole_start, whole = self._whole_block(timeline, block)
                    sources.append(whole.slice(low - whole_start, high - whole_start))
                hit = plan.corrupted[stays + (low - plan.start)]
                pieces.append((stays + low, stays + low, np.zeros(len(stays), np.int64), hit, stays + passed))
                passed += high - low
            begin, end = np.searchsorted(plan.slots, (start, stop)).tolist()
            if begin < end and plan.rows is not None:
                if sources is not None:
                    sources.append(plan.rows.slice(begin, end))
                here = slice(begin, end)
                places = np.arange(passed, passed + end - begin)
                pieces.append(
                    (plan.slots[here], plan.numbers[here], plan.copies[here], plan.hit[here], places)
                )
                passed += end - begin
        if not pieces:  # all of them are dropped or held back
            return None
        slot, number, copy, hit, place = map(np.concatenate, zip(*pieces, strict=True))
        # One key to sort by, of slot, own event or other, number and copy.
        least = int(number.min())
        span = (int(number.max()) - least + 1) * _MOST_COPIES
        key = (2 * (slot - start) + (slot != number)) * span + (number - least) * _MOST_COPIES + copy
        order = np.argsort(key)
        slot, number, copy = slot[order], number[order], copy[order]
        corruptions = {
            row: plans[int(number[row]) // BLOCK].corruptions[int(number[row]), int(copy[row])]
            for row in np.flatnonzero(hit[order]).tolist()
        }
        indices = np.arange(len(slot)) - np.searchsorted(slot, slot)
        return Deliveries(slot, indices, number, copy, corruptions), place[order]

    def truth(self, timeline: Timeline, start: int, stop: int, known: int) -> list[dict[str, Any]]:
        """Return what is done to the delivery of events `start` to `stop` (exclusive).

        Parameters
        ----------
        known : int
            How many slots have passed: where a delivery comes in its slot is not certain before.

        Returns
        -------
        list of dict
            Empty for an event that is delivered whole in its own slot; `{"dropped": True}`; or `places`, a
            list of the places of all its deliveries, None for one that is still to come, and, if one is
            corrupted, `corrupt`, a list with what JSON has of each, None for one that is whole.
        """
        found: list[dict[str, Any]] = [{} for _ in range(stop - start)]
        if not any(faults for _, _, faults in timeline.faults(start, stop)):
            return found
        slots: dict[tuple[int, int], int] = {}
        corrupt: dict[tuple[int, int], dict[str, Any]] = {}
        for block in range(start // BLOCK, (stop - 1) // BLOCK + 1):
            plan = self._plan(timeline, block)
            low, high = max(start, plan.start), min(stop, plan.stop)
            here = (plan.numbers >= low) & (plan.numbers < high)
            others = [array[here].tolist() for array in (plan.numbers, plan.copies, plan.slots)]
            moved = {(number, copy): slot for number, copy, slot in zip(*others, strict=True)}
            damaged = {key: of for key, of in plan.corruptions.items() if low <= key[0] < high}
            stays = plan.stays[low - plan.start : high - plan.start]
            for number in (np.flatnonzero(~stays) + low).tolist():
                if (number, 0) not in moved:
                    found[number - start] = {"dropped": True}
            for number in {number for number, _ in (*moved, *damaged)}:
                moved.setdefault((number, 0), number)
            slots |= moved
            if damaged:
                first, whole = self._whole_block(timeline, block)
                batch = whole.batch()
                for copy in {copy for _, copy in damaged}:
                    rows = {number - first: of for (number, nth), of in damaged.items() if nth == copy}
                    effects = described(batch, self._model.event_schema, rows, self._model.full_schema)
                    corrupt |= {(first + row, copy): effect for row, effect in effects.items()}
        places = self._places(timeline, start, min(known, max(slots.values(), default=0) + 1))
        for key in sorted(slots):
            event = found[key[0] - start]
            event.setdefault("places", []).append(places.get(key))
        for number in {number for number, _ in corrupt}:
            event = found[number - start]
            event["corrupt"] = [corrupt.get((number, copy)) for copy in range(len(event["places"]))]
        return found

    def _places(self, timeline: Timeline, start: int, stop: int) -> dict[tuple[int, int], str]:
        """Return the places of what is delivered in slots, by event number and copy."""
        listed = self._listed(timeline, start, stop, None) if start < stop else None
        if listed is None:
            return {}
        deliveries, _ = listed
        keys = zip(deliveries.numbers.tolist(), deliveries.copies.tolist(), strict=True)
        return dict(zip(keys, deliveries.places().to_pylist(), strict=True))

    def _whole_block(self, timeline: Timeline, block: int) -> tuple[int, Rows]:
        """Return the events of a block as far as they have times, and the number of the first."""
        low, high = _range(timeline, block)
        with self._lock:
            kept = self._whole.get(block)
            if kept is not None and kept[1] == high and _is_settled(timeline, kept[2], high):
                self._whole.move_to_end(block)
                return kept[0], kept[3]
        rows = Rows.of(self._batch(timeline, low, high), self._layout)
        with self._lock:
            self._whole[block] = low, high, len(timeline.entries), rows
            self._whole.move_to_end(block)
            while len(self._whole) > _KEPT_WHOLE:
                self._whole.popitem(last=False)
        return low, rows

    def _plan(self, timeline: Timeline, block: int) -> _Plan:
        """Return what happens to the events of a block."""
        _, high = _range(timeline, block)
        with self._lock:
            known = self._plans.get(block)
        if known is not None and known.stop == high and _is_settled(timeline, known.entries, high):
            plan = known.on(timeline)
        else:
            plan = self._drawn(timeline, block)
        with self._lock:
            self._kept_rows += plan.size - (self._plans[block].size if block in self._plans else 0)
            self._plans[block] = plan
            self._plans.move_to_end(block)
            while len(self._plans) > (_KEPT_BLOCKS if self._kept_rows <= _KEPT_ROWS else _KEPT_AT_LEAST):
                self._kept_rows -= self._plans.popitem(last=False)[1].size
        return plan

    def _drawn(self, timeline: Timeline, block: int) -> _Plan:
        """Draw what happens to the events of a block."""
        low, high = _range(timeline, block)
        stays, corrupted = np.ones(high - low, bool), np.zeros(high - low, bool)
        corruptions: dict[tuple[int, int], tuple[Corruption, ...]] = {}
        others = [np.empty((6, 0), np.int64)]  # number, copy, delays
        for start, stop, faults in timeline.faults(low, high):
            if not faults:
                continue
            draws = _Draws(self._seed, block, start, stop)
            hits = [self._hits(timeline, fault, draws, place) for place, fault in enumerate(faults)]
            dropped, first, copies = _moved(faults, hits, draws)
            stays[start - low : stop - low] = ~(dropped | first.any(axis=0))
            late = np.flatnonzero(first.any(axis=0) & ~dropped)
            others.append(
                np.vstack([late + start, np.zeros_like(late), first[:, late], np.zeros((2, len(late)), int)])
            )
            others += [np.vstack([rows + start, nth, first[:, rows], delay]) for rows, nth, delay in copies]
            self._corrupt(faults, hits, draws, dropped, copies, corruptions)
        numbers, copy, *_ = other = np.hstack(others)
        slots = _slots(timeline, numbers, other[2:])
        order = np.argsort(slots, kind="stable")
        numbers, copy, delays = numbers[order], copy[order], other[2:, order]
        hit = np.zeros(len(order), bool)
        if corruptions:
            corrupted[[number - low for number, of in corruptions if of == 0]] = True
            pairs = zip(numbers.tolist(), copy.tolist(), strict=True)
            hit = np.fromiter((pair in corruptions for pair in pairs), bool, len(order))
        rows = None
        if len(order):
            whole_start, whole = self._whole_block(timeline, block)
            rows = whole.take(numbers - whole_start)
        entries = len(timeline.entries)
        return _Plan(
            low, high, entries, stays, corrupted, corruptions, numbers, copy, slots[order], delays, hit, rows
        )

    def _hits(self, timeline: Timeline, fault: Fault, draws: _Draws, place: int) -> NDArray[np.bool_]:
        """Return which events a fault hits, shape (n,); for corruption those that it can hit."""
        hit = np.ones(draws.stop - draws.start, bool)
        if not fault.corruption and fault.share < 1:
            hit = draws.uniforms(place, _HIT) < fault.share
        if fault.where:
            low, whole = self._whole_block(timeline, draws.block)
            batch = whole.slice(draws.start - low, draws.stop - low).batch()
            for condition in parse_conditions(list(fault.where), self._model):
                hit = hit & condition.mask(batch)
        return hit

    def _corrupt(
        self,
        faults: tuple[Fault, ...],
        hits: list[NDArray[np.bool_]],
        draws: _Draws,
        dropped: NDArray[np.bool_],
        copies: _Copies,
        corruptions: dict[tuple[int, int], tuple[Corruption, ...]],
    ) -> None:
        """Draw what is corrupted in each delivery; of two corruptions of one column the first counts."""
        columns = self._model.event_schema.names
        exists = [~dropped]
        for rows, nth, _ in copies:
            while len(exists) <= nth.max(initial=0):
                exists.append(np.zeros(len(dropped), bool))
            for copy in np.unique(nth).tolist():
                exists[copy][rows[nth == copy]] = True
        for copy, delivered in enumerate(exists):
            for place, (fault, hit) in enumerate(zip(faults, hits, strict=True)):
                if not fault.corruption:
                    continue
                rows = np.flatnonzero(delivered & hit & (draws.uniforms(place, _HIT, copy) < fault.share))
                if not len(rows):
                    continue
                amounts = draws.uniforms(place, _AMOUNT, copy)[rows]
                values = amounts if fault.corruption == "cut" else np.floor(amounts * _LARGEST_VALUE)
                names = [fault.column] * len(rows)
                if fault.corruption not in ("extra", "cut") and not fault.column:
                    which = draws.uniforms(place, _COLUMN, copy)[rows] * len(columns)
                    names = [columns[column] for column in which.astype(int).tolist()]
                for row, value, name in zip(
                    (rows + draws.start).tolist(), values.tolist(), names, strict=True
                ):
                    before = corruptions.get((row, copy), ())
                    if all((c.column or c.kind) != (name or fault.corruption) for c in before):
                        corruptions[row, copy] = (*before, Corruption(fault.corruption, name, value))


def _moved(
    faults: tuple[Fault, ...], hits: list[NDArray[np.bool_]], draws: _Draws
) -> tuple[NDArray[np.bool_], NDArray[np.int64], _Copies]:
    """Return which events are dropped, how late each is, and its copies.

    Returns
    -------
    tuple of ndarray of bool of shape (n,), ndarray of int64 of shape (2, n), and list
        Delays are in microseconds and in events. Each item of the list has the places of some events, which
        copies of them are meant, and how much later than the first delivery these come, shape (2, k).
    """
    n = draws.stop - draws.start
    dropped, first = np.zeros(n, bool), np.zeros((2, n), np.int64)
    for place, (fault, hit) in enumerate(zip(faults, hits, strict=True)):
        if fault.kind == "drop":
            dropped |= hit
        elif fault.kind in ("late", "reorder"):
            first[int(fault.unit == "events")] += np.where(hit, draws.amounts(fault, place), 0)
    made = np.zeros(n, np.int64)
    copies: _Copies = []
    for place, (fault, hit) in enumerate(zip(faults, hits, strict=True)):
        rows = np.flatnonzero(hit & ~dropped)
        for nth in range(fault.copies):
            made[rows] += 1
            delay = np.zeros((2, len(rows)), np.int64)
            delay[int(fault.unit == "events")] = draws.amounts(fault, place, nth)[rows]
            copies.append((rows, made[rows], delay))
    return dropped, first, copies


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


def _slots(timeline: Timeline, numbers: NDArray[np.int64], delays: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the slots of deliveries, shape (n,); `delays` as in `_Plan`."""
    return _due(timeline, numbers, _due(timeline, numbers, numbers, *delays[:2]), *delays[2:])


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
        longest = timeline.time(highest) + int(micros[late].max())
        stop = min(int(numbers[late].max()) + REACH, timeline.count(longest))
        times = timeline.times(lowest, max(highest + 1, stop))
        slots[late] = lowest + np.searchsorted(times, times[bases[late] - lowest] + micros[late])
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

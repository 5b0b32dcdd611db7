"""Model, seed and number → event: random access into an endless synthetic table.

Events come in blocks of `BLOCK`. The uniforms of block `b` are raw bits of a Philox generator whose key is
the seed and whose counter starts at `b`, so any block can be made at any time without those before it. From
the bits on only comparisons, table look-ups and the four basic operations are used, which give the same
result on every machine.

Events are independent with one exception: within a segment of 1,024, variables of many values are drawn in
strata.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa

from logistream.errors import RequestError
from logistream.model.patterns import first_of_group
from logistream.model.random_bits import uniforms
from logistream.schema import EVENT_TIME
from logistream.times import CALENDAR, DAY, ahead_of_utc, from_local

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from logistream.model.network import DaysAfterEvent, Emission, Factor, Formula, Network
    from logistream.model.patterns import Identifier

__all__ = [
    "BLOCK",
    "OPERATIONS",
    "SEGMENT",
    "SMALLEST_STEP",
    "CountSampler",
    "Drawn",
    "FactorSampler",
    "Needed",
    "Sampler",
    "compute",
    "count_samplers",
    "finish",
    "needed",
    "require_range",
    "scaled",
]


BLOCK = 4096
"""Events drawn at once; part of what a seed means, so never to be changed."""

SEGMENT = 1024
"""Events of a block that share their strata, never to be changed either.

They are fewer than most tables have rows, so few events repeat a rare value no more than as many rows do.
"""

SMALLEST_STEP = 1e-15
"""A step that is smaller counts as this one: its reciprocal is finite."""

_CACHED_BLOCKS = 3
_PLACES = np.arange(BLOCK)
_INSTANT = pa.timestamp("us", tz="UTC")
_NUMPY = {pa.int64(): np.int64, pa.float64(): np.float64, pa.bool_(): np.bool_}
_RANKS = np.arange(BLOCK, dtype=np.float64)
_PLACE_BITS = SEGMENT.bit_length() - 1
_SEGMENT_STARTS = _PLACES & -SEGMENT
_RANKS_IN_SEGMENT = (_PLACES - _SEGMENT_STARTS).astype(np.float64)
_MANY_CODES = 64  # a factor of so many is drawn in strata
_LAID_OUT = 2**24  # counts of all factors of a model, 64 MiB; less if it has many combinations
_MOST_COMBINATIONS = 2**18  # that fit beside uniform and place into 63 bits
_STREAM_KEY = 0x4C4F474953545245  # "LOGISTRE": keeps our draws apart from other users of the same seed


class FactorSampler(Protocol):
    """One factor, ready to draw from."""

    @property
    def factor(self) -> Factor:
        """What is drawn."""

    @property
    def deterministic(self) -> bool:
        """Whether it can do without uniforms."""

    def draw(self, uniform: np.ndarray | None, codes: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the code of each event given those of the factors before, int32 of shape (n_events,)."""


@dataclass(frozen=True, slots=True)
class CountSampler:
    """A factor whose codes are laid out as often as they were counted: drawing is one look-up.

    If there is no room for that, the look-up is a search, with the same result.
    """

    factor: Factor
    start: np.ndarray  # (n_combinations,) where the distribution that the combination selects begins
    total: np.ndarray  # (n_combinations,) number of counts in it, float64
    code: np.ndarray  # (all counts,) or, if `upto` is given, (n_entries,), int32
    upto: np.ndarray | None  # (n_entries,) number of counts until the end of each entry
    stratified: bool  # only for events of one block
    deterministic: bool

    @classmethod
    def of(cls, factor: Factor, *, stratified: bool = True, room: int = _LAID_OUT) -> CountSampler:
        """Lay out the counts if there are at most `room`; `stratified` allows strata for many codes."""
        first = np.cumsum(factor.totals) - factor.totals
        laid_out = int(factor.counts.sum()) <= max(room, len(factor.counts))
        return cls(
            factor=factor,
            start=first[factor.distribution_of].astype(np.int64),
            total=factor.totals[factor.distribution_of].astype(np.float64),
            code=np.repeat(factor.codes.astype(np.int32), factor.counts if laid_out else 1),
            upto=None if laid_out else np.cumsum(factor.counts),
            stratified=stratified
            and factor.size >= _MANY_CODES
            and len(factor.distribution_of) <= _MOST_COMBINATIONS,
            deterministic=factor.deterministic,
        )

    def draw(self, uniform: np.ndarray | None, codes: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the code of each event, int32; `uniform` may be None if the factor is deterministic."""
        return self.draw_with(uniform, codes)[0]

    def draw_with(
        self, uniform: np.ndarray | None, codes: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the code of each event as `draw` does, and the uniforms that it follows from.

        Those are the ones given, or lie in strata. Each alone is as likely to be anywhere in [0, 1) whatever
        the codes before are, so another distribution can be drawn from with it.
        """
        if len(self.start) == 1:
            if uniform is None:
                return np.full(BLOCK, self.code[0]), None
            if self.stratified:
                uniform = _stratified(uniform, None)
            return self._found((uniform * self.total[0]).astype(np.int64) + self.start[0]), uniform
        combination = self.factor.combination(codes)
        if uniform is None:
            return np.asarray(self.code.take(self.start.take(combination))), None
        if self.stratified:
            uniform = _stratified(uniform, combination)
        within = (uniform * self.total.take(combination)).astype(np.int64)
        within += self.start.take(combination)
        return self._found(within), uniform

    def _found(self, places: np.ndarray) -> np.ndarray:
        """Return the codes at these places of all counts, laid out or not."""
        if self.upto is not None:
            places = np.searchsorted(self.upto, places, side="right")
        return np.asarray(self.code.take(places))


def count_samplers(
    factors: Sequence[Factor],
    *,
    stratified: bool = True,
    replaced: Mapping[int, FactorSampler] | None = None,
) -> list[FactorSampler]:
    """Return how each factor is drawn: as often as counted, or by what replaces that at some places.

    Counts are laid out as long as there is room, those of small factors first.
    """
    room = _LAID_OUT - 4 * sum(len(factor.distribution_of) for factor in factors)
    found: dict[int, FactorSampler] = dict(replaced or {})
    for place in sorted(range(len(factors)), key=lambda place: int(factors[place].counts.sum())):
        if place not in found:
            found[place] = sampler = CountSampler.of(factors[place], stratified=stratified, room=room)
            room -= len(sampler.code) if sampler.upto is None else 0
    return [found[place] for place in range(len(factors))]


def _stratified(uniform: np.ndarray, combination: np.ndarray | None) -> np.ndarray:
    """Return uniforms that lie evenly among the events of a segment that draw from the same distribution.

    Independent draws repeat the rare values of a small sample: a value that was seen once comes twice as
    often as in a sample of the population, where other rare values take its place. Stratified draws (McKay,
    Beckman and Conover 1979) come about once. The events of a combination keep the order of their uniforms,
    whose low bits give the place within the stratum.

    Parameters
    ----------
    uniform : ndarray of shape (BLOCK,)
    combination : ndarray of int64 of shape (BLOCK,) or None
        Which distribution each event draws from; None if it is the same for all.
    """
    scaled = uniform * 2.0**33
    whole = scaled.astype(np.int64)
    scaled -= whole
    # Combination, uniform and place in one number: no two are equal, so every way of sorting gives the same.
    whole <<= _PLACE_BITS
    whole |= _PLACES & (SEGMENT - 1)
    if combination is not None:
        whole |= combination << (33 + _PLACE_BITS)
    whole.reshape(-1, SEGMENT).sort(axis=1)
    order = whole & (SEGMENT - 1)
    order += _SEGMENT_STARTS
    rank = np.empty(BLOCK)
    if combination is None:
        rank[order] = _RANKS_IN_SEGMENT
        rank += scaled
        rank *= 1 / SEGMENT  # exact, a power of two
        return rank
    group = whole >> (33 + _PLACE_BITS)
    changes = group[1:] != group[:-1]
    changes[SEGMENT - 1 :: SEGMENT] = True
    first = np.flatnonzero(changes)
    first += 1
    edges = np.empty(len(first) + 2, np.int64)
    edges[0], edges[1:-1], edges[-1] = 0, first, BLOCK
    size = edges[1:] - edges[:-1]
    among = np.empty(BLOCK)
    rank[order] = _RANKS - edges[:-1].repeat(size)
    among[order] = size.repeat(size)
    rank += scaled
    rank /= among
    return rank


@dataclass(slots=True)
class Drawn:
    """What is drawn of the events of a block, before values are made of it.

    Parameters
    ----------
    codes : dict of str to ndarray of shape (BLOCK,)
        Of each factor.
    within : dict of str to ndarray of shape (BLOCK,)
        Of each column whose codes stand for ranges: how far a value lies within its range, from 0 to 1.
    days : list of ndarray of shape (BLOCK,)
        Of each delay: how far the days lie within those that are possible, from 0 to 1.
    uniforms : dict of str to ndarray of shape (BLOCK,)
        Of each factor: what its codes follow from; empty unless requested.
    """

    codes: dict[str, np.ndarray]
    within: dict[str, np.ndarray]
    days: list[np.ndarray]
    uniforms: dict[str, np.ndarray]


class Sampler:
    """The events of one model and seed, by number.

    Parameters
    ----------
    model : Network
        What to draw from.
    seed : int
        From 0 to 2**64 - 1.
    live : bool
        Whether batches are always asked for with times: then nothing is drawn only to be overwritten.
    columns : collection of str, optional
        The only columns of the table to make; their values are the same as among all columns.
    samplers : sequence of FactorSampler, optional
        How each factor is drawn, in the order of the factors; by default as often as counted.
    factors : collection of str
        Factors to draw besides those that the columns need.

    Attributes
    ----------
    model, seed, live
        As given.

    Raises
    ------
    RequestError
        If the seed is out of its range.
    """

    def __init__(
        self,
        model: Network,
        seed: int = 0,
        *,
        live: bool = False,
        columns: Collection[str] | None = None,
        samplers: Sequence[FactorSampler] | None = None,
        factors: Collection[str] = (),
    ) -> None:
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or not 0 <= seed < 2**64:
            raise RequestError(f"seed must be a whole number from 0 to 2**64 - 1, not {seed!r}")
        self.model = model
        self.seed = int(seed)
        self.live = live
        self._samplers = samplers or count_samplers(model.factors)
        self._dictionaries = {
            name: pa.array(strings, pa.string()) for name, strings in model.categories.items()
        }
        # Indices of strings, in the type that Arrow's dictionaries have.
        self._indices = {
            emission.column: emission.low.astype(np.int32)
            for factor in model.factors
            for emission in factor.emissions
            if emission.column in self._dictionaries
        }
        self._identifiers = {identifier.column: identifier for identifier in model.identifiers}
        overwritten = {delay.column for delay in model.days_after_event} if live else set()
        self._fields = {
            c.name: c.arrow_field
            for c in model.schema
            if c.name not in overwritten and (columns is None or c.name in columns)
        }
        self._schema, self._live_schema = pa.schema(list(self._fields.values())), model.full_schema.arrow
        self._needed = needed(model, self._fields, factors)
        self._blocks: OrderedDict[int, tuple[pa.RecordBatch, list[np.ndarray]]] = OrderedDict()
        self._lock = threading.Lock()

    def batch(self, start: int, stop: int, times: np.ndarray | None = None) -> pa.RecordBatch:
        """Return events `start` to `stop` (exclusive) as columns.

        Parameters
        ----------
        start, stop : int
            Event numbers, 0 <= start <= stop <= 2**53.
        times : ndarray of int64 of shape (stop - start,), optional
            Event times in microseconds since 1970 UTC.

        Returns
        -------
        pyarrow.RecordBatch
            Without times, the columns of `model.schema`, dates from the fitted history. With times, those
            of `model.full_schema`: `event_time` added, columns that follow the clock computed from it.

        Raises
        ------
        RequestError
            If the range is not allowed.
        """
        require_range(start, stop)
        first, last = start // BLOCK, max(start, stop - 1) // BLOCK
        parts, delays = [], []
        for block in range(first, last + 1):
            low, high = max(start - block * BLOCK, 0), min(stop - block * BLOCK, BLOCK)
            columns, days = self._block(block, high)
            parts.append(columns.slice(low, high - low))
            delays.append([column[low:high] for column in days])
        batch = parts[0] if len(parts) == 1 else pa.concat_batches(parts)
        if times is None:
            return batch
        return self._live(batch, times, [np.concatenate(column) for column in zip(*delays, strict=True)])

    def _live(self, batch: pa.RecordBatch, times: np.ndarray, delays: list[np.ndarray]) -> pa.RecordBatch:
        """Compute the columns that follow the clock from these times."""
        timestamps = {EVENT_TIME.name: times}
        for delay, days in zip(self.model.days_after_event, delays, strict=True):
            timestamps[delay.column] = times + days * DAY
        columns = dict(zip(self._fields, batch.columns, strict=True))
        columns |= {name: pa.array(values).view(_INSTANT) for name, values in timestamps.items()}
        return pa.RecordBatch.from_arrays(
            [columns[name] for name in self._live_schema.names], schema=self._live_schema
        )

    def _block(self, number: int, stop: int) -> tuple[pa.RecordBatch, list[np.ndarray]]:  # noqa: ARG002
        """Return at least the first `stop` rows of a block, and the days of each delay."""
        with self._lock:
            if number in self._blocks:
                self._blocks.move_to_end(number)
                return self._blocks[number]
        made = self.make(number)
        with self._lock:
            self._blocks[number] = made
            while len(self._blocks) > _CACHED_BLOCKS:
                # The newest block is that of live readers, who need it in pieces while others read the past.
                oldest, other, *_ = self._blocks
                del self._blocks[other if oldest == max(self._blocks) else oldest]
        return made

    def make(self, number: int) -> tuple[pa.RecordBatch, list[np.ndarray]]:
        """Draw a block: its columns, and the days of each delay."""
        return self.rows(self.draw(number), number)

    def draw(self, number: int, attempt: int = 0, *, uniforms_too: bool = False) -> Drawn:
        """Draw the codes of a block; `uniforms_too` also returns what they follow from.

        Each attempt at a block has bits of its own.
        """
        bits = self._bits(number, attempt)

        def lane() -> np.ndarray:
            # One by one: arrays of this size stay in the processor's cache and in the allocator's hands.
            return uniforms(bits, BLOCK)

        def skip(lanes: int) -> None:
            bits.advance(lanes * BLOCK // 4)  # a step of the counter gives four numbers

        drawn = Drawn({}, {}, [], {})
        codes = drawn.codes
        for sampler in self._samplers:
            factor = sampler.factor
            if factor.name not in self._needed.factors:
                skip(1 + sum(emission.high is not None for emission in factor.emissions))
                continue
            if uniforms_too and isinstance(sampler, CountSampler):
                uniform = lane()
                codes[factor.name], stratified = sampler.draw_with(
                    None if sampler.deterministic else uniform, codes
                )
                drawn.uniforms[factor.name] = uniform if stratified is None else stratified
            else:
                if sampler.deterministic:
                    skip(1)
                codes[factor.name] = sampler.draw(None if sampler.deterministic else lane(), codes)
            for emission in factor.emissions:
                if emission.high is None:
                    continue
                if emission.column in self._needed.columns:
                    drawn.within[emission.column] = lane()
                else:
                    skip(1)
        drawn.days = [lane() for _ in self.model.days_after_event]
        return drawn

    def rows(
        self, drawn: Drawn, number: int, places: np.ndarray = _PLACES
    ) -> tuple[pa.RecordBatch, list[np.ndarray]]:
        """Make values of codes: the columns, and the days of each delay.

        Parameters
        ----------
        drawn : Drawn
            What was drawn.
        number : int
            Of the block.
        places : ndarray of int64 of shape (BLOCK,)
            Where the rows stand in the block, -1 for rows that are left out: values that name the rows follow
            from the numbers of the events.
        """
        columns: dict[str, pa.Array] = {}
        values: dict[str, np.ndarray] = {}
        gaps: dict[str, np.ndarray] = {}
        repeated: list[tuple[Identifier, np.ndarray, np.ndarray | None]] = []
        for factor in self.model.factors:
            if factor.name not in self._needed.factors:
                continue
            code = drawn.codes[factor.name]
            for emission in factor.emissions:
                name = emission.column
                if name not in self._needed.columns:
                    continue
                if emission.missing is not None:
                    gaps[name] = emission.missing[code]
                mask = gaps.get(name)
                identifier = self._identifiers.get(name)
                if identifier is None:
                    self._emit(emission, code, drawn, mask, columns, values)
                elif identifier.within:
                    repeated.append((identifier, emission.low.take(code), mask))
                else:
                    patterns, events = emission.low.take(code), number * BLOCK + places
                    columns[name] = self._invented(identifier, patterns, events, mask)
        for formula in self.model.formulas:
            if formula.column not in self._needed.columns:
                continue
            value = compute(formula, values)
            missing = [gaps[name] for name in formula.inputs if name in gaps]
            if formula.keeps_order or formula.operation == "unless":
                others = [gaps[name] for name in formula.inputs if name in gaps and name != formula.column]
                if others:  # the rule is about values that are not there
                    value = np.where(np.logical_or.reduce(others), values[formula.column], value)
            elif formula.operation == "blank":
                gaps[formula.column] = np.logical_or.reduce([*missing, values[formula.left] == 1])
            elif missing:
                gaps[formula.column] = np.logical_or.reduce(missing)
            value = values[formula.column] = self._effective(formula.column, value, drawn)
            if formula.column in self._fields:
                mask = gaps.get(formula.column)
                columns[formula.column] = finish(value, self._fields[formula.column], mask)
        for identifier, patterns, mask in repeated:
            within = _combined([_codes(name, columns, values, gaps) for name in identifier.within])
            shared = [patterns, *(_codes(name, columns, values, gaps) for name in identifier.shared)]
            there = np.flatnonzero(places >= 0)
            first = places.copy()
            first[there] = first_of_group(within[there], _combined(shared)[there], places[there])
            columns[identifier.column] = self._invented(identifier, patterns, number * BLOCK + first, mask)
        delays = []
        for delay, within in zip(self.model.days_after_event, drawn.days, strict=True):
            service = columns[delay.service].indices.to_numpy()
            promised, late = values[delay.promised], values[delay.late] == 1
            low = np.where(late, np.maximum(delay.low[service], promised + 1), delay.low[service])
            high = np.where(late, delay.high[service], np.minimum(delay.high[service], promised))
            days = low + (within * (high - low + 1)).astype(np.int64)
            delays.append(self._effective_days(delay, days, drawn, columns, values))
        arrays = [columns[name] for name in self._fields]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema), delays

    def _effective(self, column: str, values: np.ndarray, drawn: Drawn) -> np.ndarray:  # noqa: ARG002
        """Return the numbers of a column as they shall be: a scenario may change them."""
        return values

    def _effective_days(
        self,
        delay: DaysAfterEvent,  # noqa: ARG002
        days: np.ndarray,
        drawn: Drawn,  # noqa: ARG002
        columns: dict[str, pa.Array],  # noqa: ARG002
        values: dict[str, np.ndarray],  # noqa: ARG002
    ) -> np.ndarray:
        """Return the days of a delay as they shall be: a scenario may change them, and what follows."""
        return days

    def _bits(self, number: int, attempt: int, purpose: int = 0) -> np.random.Philox:
        """Return the bits of an attempt at a block; those of another purpose are others."""
        return np.random.Philox(
            key=np.array([self.seed, _STREAM_KEY], np.uint64),
            counter=np.array([0, purpose, attempt, number], np.uint64),
        )

    def _invented(
        self, identifier: Identifier, patterns: np.ndarray, numbers: np.ndarray, mask: np.ndarray | None
    ) -> pa.Array:
        """Return the values of a column that names the rows, or a few rows each."""
        values = identifier.values(patterns, numbers, self.seed)
        if values.dtype.kind != "U":
            return pa.array(values, pa.int64(), mask=mask)
        return pa.array(values.astype(object), pa.string(), mask=mask).dictionary_encode()

    def _emit(
        self,
        emission: Emission,
        code: np.ndarray,
        drawn: Drawn,
        mask: np.ndarray | None,
        columns: dict[str, pa.Array],
        numbers: dict[str, np.ndarray],
    ) -> None:
        """Add the values of one column for these codes."""
        name = emission.column
        uniform = drawn.within.get(name)
        if name in self._dictionaries and uniform is None:
            indices = pa.array(self._indices[name].take(code), pa.int32(), mask=mask)
            columns[name] = pa.DictionaryArray.from_arrays(indices, self._dictionaries[name])
            return
        low = emission.low.take(code)
        if uniform is not None and emission.high is not None:
            step = None if emission.step is None else emission.step.take(code)
            low = _between(low, emission.high.take(code), step, uniform)
        if name in self._dictionaries:
            indices = pa.array(low.astype(np.int32), pa.int32(), mask=mask)
            columns[name] = pa.DictionaryArray.from_arrays(indices, self._dictionaries[name])
            return
        value = numbers[name] = self._effective(name, scaled(emission, low), drawn)
        if name in self._fields:
            columns[name] = finish(value, self._fields[name], mask)


def require_range(start: int, stop: int) -> None:
    """Raise `RequestError` unless events from `start` to `stop` can be made."""
    given: tuple[object, ...] = (start, stop)
    for number in given:
        if not isinstance(number, Integral):
            raise RequestError(f"an event number must be a whole number, not {number!r}")
    if not 0 <= start <= stop <= 2**53:
        raise RequestError(f"event numbers must satisfy 0 <= start <= stop <= 2**53, not {start}, {stop}")


def _codes(
    name: str,
    columns: Mapping[str, pa.Array],
    numbers: Mapping[str, np.ndarray],
    gaps: Mapping[str, np.ndarray],
) -> np.ndarray:
    """Return a column as numbers from 0 that are the same where its value is, 0 where it is missing."""
    if name in numbers:
        codes = np.unique(numbers[name], return_inverse=True)[1].reshape(-1) + 1
    else:
        codes = columns[name].indices.fill_null(-1).to_numpy().astype(np.int64) + 1
    return np.where(gaps[name], 0, codes) if name in gaps else codes


def _combined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return several lists of numbers from 0 as one, equal where all are."""
    whole = np.zeros(len(parts[0]), np.int64)
    for part in parts:
        whole = np.unique(whole * (int(part.max()) + 1) + part, return_inverse=True)[1].reshape(-1)
    return whole


def _between(low: np.ndarray, high: np.ndarray, step: np.ndarray | None, uniform: np.ndarray) -> np.ndarray:
    """Return numbers that lie evenly from `low` to `high`, in steps where there are such."""
    span = high - low
    if low.dtype.kind == "i":
        if step is None:
            return np.asarray(low + (uniform * (span + 1)).astype(np.int64))
        return np.asarray(low + (uniform * (span // step + 1)).astype(np.int64) * step)
    if step is None:
        return np.asarray(low + uniform * span)
    rounded = np.maximum(step, SMALLEST_STEP)
    parts = np.maximum(np.rint(1 / rounded), 1)
    place = np.floor(uniform * (np.rint(span / rounded) + 1))
    on_lattice = np.rint((low + place * rounded) * parts) / parts
    return np.asarray(np.where(step > 0, on_lattice, low + uniform * span))


@dataclass(frozen=True, slots=True)
class Needed:
    """Names of what must be drawn and computed for some columns."""

    columns: frozenset[str]  # and helpers
    factors: frozenset[str]


def needed(model: Network, names: Iterable[str], also: Iterable[str] = ()) -> Needed:
    """Return what must be drawn and computed for these columns, for the delays and for other factors."""
    columns, factors = set(names), set(also)
    for delay in model.days_after_event:
        columns |= {delay.service, delay.promised, delay.late}
    before = -1
    while len(columns) > before:  # again, since what adjusts a column stands after the formulas that read it
        before = len(columns)
        for identifier in model.identifiers:
            if identifier.column in columns:
                columns |= {*identifier.within, *identifier.shared}
        for formula in reversed(model.formulas):
            if formula.column in columns:
                columns |= {*formula.inputs}
    for factor in reversed(model.factors):
        if factor.name in factors or any(emission.column in columns for emission in factor.emissions):
            factors |= {factor.name, *factor.parents}
    return Needed(frozenset(columns), frozenset(factors))


def scaled(emission: Emission, multiples: np.ndarray) -> np.ndarray:
    """Return the numbers that multiples of the emission's quantum stand for, shape (n_rows,)."""
    if emission.quantum is None:
        return multiples
    numerator, denominator = emission.quantum
    whole = multiples if numerator == 1 else multiples * numerator
    return np.asarray(whole if denominator == 1 else whole / denominator)


def _linear(factors: Sequence[float], *inputs: np.ndarray) -> np.ndarray:
    total = factors[-1] + factors[0] * inputs[0]
    for factor, values in zip(factors[1:], inputs[1:], strict=False):
        total = total + factor * values
    return np.asarray(total)


OPERATIONS: Mapping[str, tuple[int, int, Callable[..., np.ndarray]]] = {
    "product": (2, 0, lambda _, a, b: a * b),
    "sum": (2, 0, lambda _, a, b: a + b),
    "linear": (0, 1, _linear),
    "ratio": (2, 1, lambda f, a, b: f[0] * a / np.where(b == 0, 1, b)),
    "elapsed": (2, 1, lambda f, a, b: (a - b) / f[0]),
    "product and sum": (3, 1, lambda f, a, b, c: a * b + f[0] * c),
    "square": (1, 0, lambda _, a: a * a),
    "log": (1, 2, lambda f, a: f[0] * np.log(np.maximum(a + f[1], _SMALLEST))),
    "at least": (2, 0, lambda _, a, b: np.where(b < a, a + (a - b), b)),
    "at most": (2, 0, lambda _, a, b: np.where(b > a, a - (b - a), b)),
    "unless": (0, 0, lambda _, a, b, *c: np.where(a == 1, sum(c), b)),
    "blank": (2, 0, lambda _, a, b: b),  # noqa: ARG005 - the flag makes a gap, not a value
}
"""Number of inputs, of factors, and from factors and inputs to the result; see `Formula`.

"linear" and "unless" have any number of them; "local" and the parts of a timestamp need a clock besides.
"""

_ROUNDED: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "at least": lambda a: np.ceil(a - _NEXT),  # to the nearest could be to the wrong side
    "at most": lambda a: np.floor(a + _NEXT),
}
_SMALLEST = 1e-300  # a logarithm is taken of
_NEXT = 1e-6  # of the last digit: a number so near to a rounded one is taken for it


def compute(formula: Formula, numbers: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return what a formula gives for the columns known so far, shape (n_rows,)."""
    inputs = [numbers[name] for name in formula.inputs]
    if formula.operation in CALENDAR:
        return CALENDAR[formula.operation](inputs[0] + ahead_of_utc(inputs[0], formula.offsets))
    if formula.operation == "local":
        return from_local(inputs[0] + inputs[1], formula.offsets)
    value = OPERATIONS[formula.operation][2](formula.factors, *inputs)
    if formula.keeps_order and formula.factors:
        step, right = int(formula.factors[0]), inputs[1]
        moved = (value - right) // step if formula.operation == "at most" else -((right - value) // step)
        return np.asarray(right + moved * step)
    if formula.decimals is None or value.dtype.kind == "i" or formula.operation == "blank":
        return np.asarray(value)
    scale = 10.0**formula.decimals
    if formula.keeps_order:
        right = inputs[1]
        return np.where(value == right, right, _ROUNDED[formula.operation](value * scale) / scale)
    if formula.floor:
        return np.asarray(np.floor(value * scale + _NEXT) / scale + 0.0)
    return np.asarray(np.round(value, formula.decimals) + 0.0)  # + 0.0: no negative zero


def finish(values: np.ndarray, field: pa.Field, mask: np.ndarray | None) -> pa.Array:
    """Return values as an Arrow array of the column's type."""
    kind = field.type
    if kind == _INSTANT:
        return pa.array(values.astype(np.int64, copy=False), pa.int64(), mask=mask).view(kind)
    return pa.array(values.astype(_NUMPY[kind], copy=False), kind, mask=mask)

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
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa

from logistream.errors import RequestError
from logistream.model.random_bits import uniforms
from logistream.schema import EVENT_TIME
from logistream.times import CALENDAR, DAY, ahead_of_utc, from_local

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

    from logistream.model.network import Emission, Factor, Formula, Network

__all__ = [
    "BLOCK",
    "OPERATIONS",
    "SEGMENT",
    "CountSampler",
    "FactorSampler",
    "Needed",
    "Sampler",
    "compute",
    "needed",
    "scaled",
]


BLOCK = 4096
"""Events drawn at once; part of what a seed means, so never to be changed."""

SEGMENT = 1024
"""Events of a block that share their strata, never to be changed either.

They are fewer than most tables have rows, so few events repeat a rare value no more than as many rows do.
"""

_CACHED_BLOCKS = 3
_PLACES = np.arange(BLOCK)
_INSTANT = pa.timestamp("us", tz="UTC")
_NUMPY = {pa.int64(): np.int64, pa.float64(): np.float64, pa.bool_(): np.bool_}
_RANKS = np.arange(BLOCK, dtype=np.float64)
_PLACE_BITS = SEGMENT.bit_length() - 1
_SEGMENT_STARTS = _PLACES & -SEGMENT
_RANKS_IN_SEGMENT = (_PLACES - _SEGMENT_STARTS).astype(np.float64)
_MANY_CODES = 64  # a factor of so many is drawn in strata
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
    """A factor whose codes are laid out as often as they were counted: drawing is one look-up."""

    factor: Factor
    start: np.ndarray  # (n_combinations,) where the distribution that the combination selects begins
    total: np.ndarray  # (n_combinations,) number of counts in it, float64
    code: np.ndarray  # (all counts,) int32
    stratified: bool  # only for events of one block
    deterministic: bool

    @classmethod
    def of(cls, factor: Factor, *, stratified: bool = True) -> CountSampler:
        """Lay out the counts; `stratified` allows strata where the factor has many codes."""
        first = np.cumsum(factor.totals) - factor.totals
        return cls(
            factor=factor,
            start=first[factor.distribution_of].astype(np.int64),
            total=factor.totals[factor.distribution_of].astype(np.float64),
            code=np.repeat(factor.codes, factor.counts).astype(np.int32),
            stratified=stratified
            and factor.size >= _MANY_CODES
            and len(factor.distribution_of) <= _MOST_COMBINATIONS,
            deterministic=factor.deterministic,
        )

    def draw(self, uniform: np.ndarray | None, codes: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the code of each event, int32; `uniform` may be None if the factor is deterministic."""
        if len(self.start) == 1:
            if uniform is None:
                return np.full(BLOCK, self.code[0])
            if self.stratified:
                uniform = _stratified(uniform, None)
            return np.asarray(self.code[(uniform * self.total[0]).astype(np.int64) + self.start[0]])
        combination = self.factor.combination(codes)
        if uniform is None:
            return np.asarray(self.code.take(self.start.take(combination)))
        if self.stratified:
            uniform = _stratified(uniform, combination)
        within = (uniform * self.total.take(combination)).astype(np.int64)
        within += self.start.take(combination)
        return np.asarray(self.code.take(within))


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
        self._samplers = samplers or [CountSampler.of(factor) for factor in model.factors]
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
        if not 0 <= start <= stop <= 2**53:
            raise RequestError(f"event numbers must satisfy 0 <= start <= stop <= 2**53, not {start}, {stop}")
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
                self._blocks.popitem(last=False)
        return made

    def make(
        self,
        number: int,
        attempt: int = 0,
        places: np.ndarray = _PLACES,
        codes: dict[str, np.ndarray] | None = None,
    ) -> tuple[pa.RecordBatch, list[np.ndarray]]:
        """Draw a block: its columns, and the days of each delay.

        Each attempt at a block has bits of its own; `places`, of shape (BLOCK,), are where its rows will
        stand in the block, since values that name the rows follow from their numbers. The codes of the
        factors are added to `codes`.
        """
        bits = self._bits(number, attempt)

        def lane() -> np.ndarray:
            # One by one: arrays of this size stay in the processor's cache and in the allocator's hands.
            return uniforms(bits, BLOCK)

        def skip(lanes: int) -> None:
            bits.advance(lanes * BLOCK // 4)  # a step of the counter gives four numbers

        codes = {} if codes is None else codes
        columns: dict[str, pa.Array] = {}
        numbers: dict[str, np.ndarray] = {}
        gaps: dict[str, np.ndarray] = {}
        for sampler in self._samplers:
            factor = sampler.factor
            if factor.name not in self._needed.factors:
                skip(1 + sum(emission.high is not None for emission in factor.emissions))
                continue
            if sampler.deterministic:
                skip(1)
            code = codes[factor.name] = sampler.draw(None if sampler.deterministic else lane(), codes)
            for emission in factor.emissions:
                if emission.column not in self._needed.columns:
                    skip(int(emission.high is not None))
                    continue
                uniform = None if emission.high is None else lane()
                if emission.missing is not None:
                    gaps[emission.column] = emission.missing[code]
                mask = gaps.get(emission.column)
                if emission.column in self._identifiers:
                    columns[emission.column] = self._invented(emission, code, number * BLOCK + places, mask)
                else:
                    self._emit(emission, code, uniform, mask, columns, numbers)
        for formula in self.model.formulas:
            if formula.column not in self._needed.columns:
                continue
            value = compute(formula, numbers)
            missing = [gaps[name] for name in formula.inputs if name in gaps]
            if formula.keeps_order:
                if formula.left in gaps:  # what is missing cannot be exceeded
                    value = np.where(gaps[formula.left], numbers[formula.column], value)
            elif formula.operation == "blank":
                gaps[formula.column] = np.logical_or.reduce([*missing, numbers[formula.left] == 1])
            elif missing:
                gaps[formula.column] = np.logical_or.reduce(missing)
            numbers[formula.column] = value
            if formula.column in self._fields:
                mask = gaps.get(formula.column)
                columns[formula.column] = _finish(value, self._fields[formula.column], mask)
        delays = []
        for delay in self.model.days_after_event:
            service = columns[delay.service].indices.to_numpy()
            promised, late = numbers[delay.promised], numbers[delay.late] == 1
            low = np.where(late, np.maximum(delay.low[service], promised + 1), delay.low[service])
            high = np.where(late, delay.high[service], np.minimum(delay.high[service], promised))
            delays.append(low + (lane() * (high - low + 1)).astype(np.int64))
        arrays = [columns[name] for name in self._fields]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema), delays

    def _bits(self, number: int, attempt: int, purpose: int = 0) -> np.random.Philox:
        """Return the bits of an attempt at a block; those of another purpose are others."""
        return np.random.Philox(
            key=np.array([self.seed, _STREAM_KEY], np.uint64),
            counter=np.array([0, purpose, attempt, number], np.uint64),
        )

    def _invented(
        self, emission: Emission, code: np.ndarray, numbers: np.ndarray, mask: np.ndarray | None
    ) -> pa.Array:
        """Return the values of a column that names the rows."""
        values = self._identifiers[emission.column].values(emission.low.take(code), numbers, self.seed)
        if values.dtype.kind != "U":
            return pa.array(values, pa.int64(), mask=mask)
        return pa.array(values.astype(object), pa.string(), mask=mask).dictionary_encode()

    def _emit(
        self,
        emission: Emission,
        code: np.ndarray,
        uniform: np.ndarray | None,
        mask: np.ndarray | None,
        columns: dict[str, pa.Array],
        numbers: dict[str, np.ndarray],
    ) -> None:
        """Add the values of one column for these codes."""
        name = emission.column
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
        value = numbers[name] = scaled(emission, low)
        if name in self._fields:
            columns[name] = _finish(value, self._fields[name], mask)


def _between(low: np.ndarray, high: np.ndarray, step: np.ndarray | None, uniform: np.ndarray) -> np.ndarray:
    """Return numbers that lie evenly from `low` to `high`, in steps where there are such."""
    span = high - low
    if low.dtype.kind == "i":
        if step is None:
            return np.asarray(low + (uniform * (span + 1)).astype(np.int64))
        return np.asarray(low + (uniform * (span // step + 1)).astype(np.int64) * step)
    if step is None:
        return np.asarray(low + uniform * span)
    rounded = np.maximum(step, _SMALLEST_STEP)
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
    "blank": (2, 0, lambda _, a, b: b),  # noqa: ARG005 - the flag makes a gap, not a value
}
"""Number of inputs, of factors ("linear" has any), and from factors and inputs to the result; see `Formula`.

"local" and the parts of a timestamp need a clock besides.
"""

_ROUNDED: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "at least": lambda a: np.ceil(a - _NEXT),  # to the nearest could be to the wrong side
    "at most": lambda a: np.floor(a + _NEXT),
}
_SMALLEST = 1e-300  # a logarithm is taken of
_SMALLEST_STEP = 1e-15  # of numbers that are rounded
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


def _finish(values: np.ndarray, field: pa.Field, mask: np.ndarray | None) -> pa.Array:
    """Return values as an Arrow array of the column's type."""
    kind = field.type
    if kind == _INSTANT:
        return pa.array(values.astype(np.int64, copy=False), pa.int64(), mask=mask).view(kind)
    return pa.array(values.astype(_NUMPY[kind], copy=False), kind, mask=mask)

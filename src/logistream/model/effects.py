"""What the effects of a scenario do to the events of a model, exactly.

First the factors that are set are given other distributions; what depends on them is drawn again from the
same uniforms, so all else stays as it was. Then, for each weight or share, events that are too frequent by it
are replaced at random by as many of those that are too rare, drawn by variable elimination: no other event
changes. At last numbers are scaled and deliveries delayed. Every event is still a function of model, seed,
scenario and number.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from logistream.errors import RequestError, listed
from logistream.model.bounds import MAX_CELLS, common_refinement, spread
from logistream.model.conditions import Condition, operand, quoted, read_conditions
from logistream.model.elimination import Table, TooManyCellsError, eliminate_exactly
from logistream.model.findings import find_associated
from logistream.model.random_bits import uniforms
from logistream.model.rejection import possible
from logistream.model.sampling import BLOCK, CountSampler, Drawn, Sampler, finish, scaled
from logistream.times import DAY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import pyarrow as pa

    from logistream.model.conditions import Value
    from logistream.model.network import DaysAfterEvent, Emission, Factor, Network
    from logistream.model.sampling import FactorSampler
    from logistream.model.scenario import Effect

__all__ = ["BaselineSampler", "EffectsSampler", "WeightedTable"]

_EFFECTS_KEY = 0x4546464543545321  # "EFFECTS!": keeps these draws apart from all others of the same seed
_CACHED_BLOCKS = 3
_PRECISION = 10_000  # denominators of the frequencies of values that a column is set to
_MOST_COUNTS = 2**20  # that a distribution of such values may take
_ROUNDS = 10_000  # of adapting shares to each other
_MOST_SHARES = 8
_CLOSE = 1e-12  # a share that is reached so nearly holds
_LARGEST_WHOLE = 2**53


class BaselineSampler(Sampler):
    """The events without any scenario; remembers what was drawn of the newest blocks."""

    def __init__(self, model: Network, seed: int = 0, *, live: bool = False) -> None:
        super().__init__(model, seed, live=live)
        self._drawn: OrderedDict[int, Drawn] = OrderedDict()
        self._drawing = threading.Lock()

    def drawn(self, number: int) -> Drawn:
        """Return what is drawn of a block, with uniforms."""
        with self._drawing:
            if number not in self._drawn:
                self._drawn[number] = self.draw(number, uniforms_too=True)
                while len(self._drawn) > _CACHED_BLOCKS:
                    self._drawn.popitem(last=False)
            self._drawn.move_to_end(number)
            return self._drawn[number]

    def make(self, number: int) -> tuple[pa.RecordBatch, list[np.ndarray]]:
        """Draw a block; see `Sampler`."""
        return self.rows(self.drawn(number), number)


@dataclass(frozen=True, slots=True)
class WeightedTable:
    """A weight or a share: how many times as likely the events become that are meant, and the others.

    Parameters
    ----------
    match : Table
        1 where an event is meant, 0 elsewhere.
    on, off : float
        How many times as likely an event becomes if it is meant, and if not.
    """

    match: Table
    on: float
    off: float

    @property
    def table(self) -> Table:
        """The weights as a table."""
        return Table(self.match.over, np.where(self.match.values > 0, self.on, self.off))


@dataclass(frozen=True, slots=True)
class _Set:
    """A column that is given values."""

    column: str
    match: Table
    values: np.ndarray | None  # (n_codes,) what each code stands for; None if each has a single value
    factor: str


@dataclass(frozen=True, slots=True)
class _Scale:
    """A column that is multiplied."""

    column: str
    match: Table
    by: float


@dataclass(frozen=True, slots=True)
class _Replacement:
    """One step of drawing: which events are kept, and how others are drawn in their place."""

    match: Table
    kept: tuple[float, float]  # probability, by whether the event is meant: no, yes
    samplers: tuple[FactorSampler, ...]


class EffectsSampler(Sampler):
    """The events of a model as they are under effects, by number.

    Parameters
    ----------
    baseline : BaselineSampler
        The events without them.
    effects : sequence of Effect
        What is changed; `rate` is left to the timeline.

    Attributes
    ----------
    network : Network
        The model with what is set: before `weights`.
    weights : tuple of WeightedTable
        How many times as likely the events of that network become, up to a constant.

    Raises
    ------
    RequestError
        If a column or value is unknown, or an effect cannot be exact.
    """

    def __init__(self, baseline: BaselineSampler, effects: Sequence[Effect]) -> None:
        super().__init__(baseline.model, baseline.seed, live=baseline.live)
        self._baseline = baseline
        self._effects = tuple(effects)
        model = self.network = baseline.model
        self._sets: list[_Set] = []
        for effect in effects:
            if effect.kind == "set":
                self._set(effect)
        self._scales = [_scale(model, effect) for effect in effects if effect.kind == "scale"]
        self._delays = [(_delay(model, e), int(e.amount)) for e in effects if e.kind == "delay"]
        changed = _changed_columns(model, [scale.column for scale in self._scales], bool(self._delays))
        self._plain = tuple(CountSampler.of(factor, stratified=False) for factor in self.network.factors)
        try:
            self.weights = _weights(self.network, effects, changed)
            self._replacements = tuple(_replacements(self.network, self.weights, self._plain))
        except TooManyCellsError:
            raise _too_large(*(e for e in effects if e.kind in ("weight", "share"))) from None
        self._is_set = {item.factor for item in self._sets}

    @property
    def scaled_columns(self) -> frozenset[str]:
        """The columns that are scaled, or computed from such."""
        return _changed_columns(self.model, [scale.column for scale in self._scales], delayed=False)

    @property
    def has_set_within_ranges(self) -> bool:
        """Whether a column is set to a value of which the model only knows the range."""
        return any(item.values is not None for item in self._sets)

    @property
    def delays(self) -> tuple[tuple[Table, int], ...]:
        """Which events are delayed, and by how many days."""
        return tuple(self._delays)

    @cached_property
    def as_drawn(self) -> EffectsSampler:
        """What makes the same events before numbers are scaled and deliveries delayed."""
        return EffectsSampler(self._baseline, [e for e in self._effects if e.kind not in ("scale", "delay")])

    def make(self, number: int) -> tuple[pa.RecordBatch, list[np.ndarray]]:
        """Draw a block as it is under the effects; see `Sampler`."""
        return self.rows(self.drawn(number), number)

    def drawn(self, number: int) -> Drawn:
        """Return what is drawn of a block under the effects."""
        before = self._baseline.drawn(number)
        codes = dict(before.codes)
        if self._is_set:
            self._redraw(before, codes)
        for step, replacement in enumerate(self._replacements):
            self._replace(replacement, step, number, codes)
        return Drawn(codes, before.within, before.days, before.uniforms)

    def _redraw(self, before: Drawn, codes: dict[str, np.ndarray]) -> None:
        """Draw what is set, and what depends on it, again from the same uniforms."""
        moved: dict[str, np.ndarray] = {}  # factor → (BLOCK,) whether its code differs
        for sampler in self._plain:
            factor = sampler.factor
            if factor.name not in codes:
                continue
            touched = [moved[parent] for parent in factor.parents if parent in moved]
            if factor.name in self._is_set:
                rows = np.arange(BLOCK)
            elif touched:
                rows = np.flatnonzero(np.logical_or.reduce(touched))
            else:
                continue
            drawn = sampler.draw(
                before.uniforms[factor.name][rows], {parent: codes[parent][rows] for parent in factor.parents}
            )
            differs = drawn != codes[factor.name][rows]
            if differs.any():
                rows = rows[differs]
                codes[factor.name] = codes[factor.name].copy()
                codes[factor.name][rows] = drawn[differs]
                moved[factor.name] = np.zeros(BLOCK, bool)
                moved[factor.name][rows] = True

    def _replace(
        self, replacement: _Replacement, step: int, number: int, codes: dict[str, np.ndarray]
    ) -> None:
        """Replace events that are too frequent by others."""
        bits = np.random.Philox(
            key=np.array([self.seed, _EFFECTS_KEY], np.uint64),
            counter=np.array([0, 0, step, number], np.uint64),
        )
        meant = replacement.match.at(codes) > 0
        kept = np.where(meant, replacement.kept[1], replacement.kept[0])
        rows = np.flatnonzero(uniforms(bits, BLOCK) >= kept)
        if not len(rows):
            return
        drawn: dict[str, np.ndarray] = {}
        for sampler in replacement.samplers:
            name = sampler.factor.name
            if name in codes:
                drawn[name] = sampler.draw(uniforms(bits, len(rows)), drawn)
                codes[name] = codes[name].copy()
                codes[name][rows] = drawn[name]

    def _set(self, effect: Effect) -> None:
        """Give a factor other distributions where the conditions hold."""
        factor, emission = _settable(self.network, effect.column)
        match = _match(self.network, effect)
        dependent = _dependent(self.network, factor.name)
        if dependent & set(match.over):
            before = [f for f in self.network.factors if f.name not in dependent]
            raise RequestError(
                f"{effect.column!r} cannot be set where {' and '.join(effect.where)}, since what decides "
                f"that depends on {effect.column!r}: use weight or share, or a condition on other columns: "
                f"{listed(_columns(self.network, before), effect.column)}"
            )
        shares, values = _wanted_codes(self.network, effect, factor, emission)
        _require_possible(self.network, effect, factor, match, shares)
        changed = _with_distribution(factor, match, shares)
        factors = [changed if f.name == factor.name else f for f in self.network.factors]
        self.network = replace(self.network, factors=_ordered(factors))
        self._sets.append(_Set(effect.column, match, values, factor.name))

    def _effective(self, column: str, values: np.ndarray, drawn: Drawn) -> np.ndarray:
        for item in self._sets:
            if item.column == column and item.values is not None:
                wanted = item.values[drawn.codes[item.factor]]
                values = np.where(item.match.at(drawn.codes) > 0, wanted, values)
        for scale in self._scales:
            if scale.column == column:
                product = values * scale.by
                decimals = self.model.schema[column].decimals
                if self.model.schema[column].kind == "integer":
                    product = np.rint(product).astype(np.int64)
                elif decimals is not None:
                    product = np.round(product, decimals) + 0.0  # no negative zero
                values = np.where(scale.match.at(drawn.codes) > 0, product, values)
        return values

    def _effective_days(
        self,
        delay: DaysAfterEvent,
        days: np.ndarray,
        drawn: Drawn,
        columns: dict[str, pa.Array],
        values: dict[str, np.ndarray],
    ) -> np.ndarray:
        if not self._delays:
            return days
        more = np.zeros(BLOCK, np.int64)
        for match, count in self._delays:
            more += np.where(match.at(drawn.codes) > 0, count, 0)
        days = days + more
        late = np.where(more > 0, days > values[delay.promised], values[delay.late])
        for name, changed in ((delay.late, late), (delay.column, values.get(delay.column, 0) + more * DAY)):
            if name in columns:
                values[name] = np.asarray(changed)
                gaps = np.asarray(columns[name].is_null()) if columns[name].null_count else None
                columns[name] = finish(values[name], self._fields[name], gaps)
        return days


def _match(model: Network, effect: Effect) -> Table:
    """Return for which codes the conditions of an effect hold; `RequestError` if codes do not decide that."""
    conditions = read_conditions(effect.where, model.schema)
    after = {delay.column for delay in model.days_after_event}
    tables = []
    for condition in conditions:
        if condition.column in after:
            raise RequestError(
                f"a scenario cannot depend on {condition.column!r}, since it follows the clock in a stream"
            )
        table, decided = possible(model, condition)
        if table is None or not decided:
            raise RequestError(
                f"the effect {effect.kind} cannot be exact where {condition}: the model draws "
                f"{condition.column!r} from ranges of values, and some of them hold events of both kinds; "
                f"use a condition on a column of single values"
            )
        tables.append(table)
    over = {
        name: common_refinement([t.over[name] for t in tables if name in t.over])
        for name in dict.fromkeys(name for table in tables for name in table.over)
    }
    if math.prod(int(groups.max()) + 1 for groups in over.values()) > MAX_CELLS:
        raise _too_large(effect)
    values = np.ones([int(groups.max()) + 1 for groups in over.values()])
    for table in tables:
        values = values * table.spread(over)
    return Table(over, values).merged()


def _too_large(*effects: Effect) -> RequestError:
    return RequestError(
        f"{' and '.join(effect.words for effect in effects)} cannot be exact, since the tables would be too "
        f"large: use conditions on fewer columns, or on columns of fewer values"
    )


def _settable(model: Network, column: str) -> tuple[Factor, Emission]:
    """Return what gives a column; `RequestError` if it cannot be set."""
    if column not in model.schema:
        raise RequestError(f"no column is called {column!r}: there are {listed(model.schema.names, column)}")
    if any(identifier.column == column for identifier in model.identifiers):
        raise RequestError(f"{column!r} cannot be set, since it names the rows: its values are invented")
    for formula in model.formulas:
        if formula.column != column:
            continue
        if formula.adjusts:
            raise RequestError(
                f"{column!r} cannot be set exactly, since it is adjusted to {formula.left!r} afterwards"
            )
        inputs = [repr(name) for name in formula.inputs if name in model.schema]
        instead = f": set {' or '.join(inputs)}" if inputs else ""
        raise RequestError(f"{column!r} cannot be set, since it is computed from other columns{instead}")
    factor, emission = next((f, e) for f in model.factors for e in f.emissions if e.column == column)
    if column in model.categories and emission.high is not None:
        raise RequestError(f"{column!r} cannot be set exactly, since its strings are drawn from ranges")
    return factor, emission


def _dependent(network: Network, name: str) -> set[str]:
    """Return the names of a factor and of all that depend on it."""
    found = {name}
    for factor in network.factors:
        if found & set(factor.parents):
            found.add(factor.name)
    return found


def _columns(network: Network, factors: Sequence[Factor]) -> list[str]:
    """Return the columns that some factors give."""
    given = {emission.column for factor in factors for emission in factor.emissions}
    return [name for name in network.schema.names if name in given]


def _ordered(factors: Sequence[Factor]) -> tuple[Factor, ...]:
    """Return factors so that each comes after its parents, otherwise in the order in which they are."""
    ordered: dict[str, Factor] = {}
    waiting = list(factors)
    while waiting:
        ready = next(factor for factor in waiting if ordered.keys() >= set(factor.parents))
        ordered[ready.name] = ready
        waiting.remove(ready)
    return tuple(ordered.values())


def _wanted_codes(
    network: Network, effect: Effect, factor: Factor, emission: Emission
) -> tuple[dict[int, Fraction], np.ndarray | None]:
    """Return how often each code is wanted, and the value of each where codes stand for ranges."""
    column = network.schema[effect.column]
    strings = network.categories.get(column.name)
    if strings is None:
        low, high = scaled(emission, emission.low), scaled(emission, emission.last)
    else:
        low = high = np.array(strings, dtype=object)[emission.low]
    missing = np.zeros(factor.size, bool) if emission.missing is None else emission.missing
    pooled = np.bincount(factor.codes, factor.counts, factor.size).astype(np.int64)
    shares: dict[int, Fraction] = {}
    values = np.array(low)
    total = sum(share for _, share in effect.values)
    for given, frequency in effect.values:
        condition = _asked(network, column.name, given)
        [value] = condition.values
        if (
            column.decimals is not None
            and isinstance(value, float)
            and round(value, column.decimals) != value
        ):
            raise RequestError(
                f"{column.name!r} has {column.decimals} decimals: it cannot be set to {value!r}"
            )
        possible(network, condition)  # names the nearest values if it never occurs
        codes = np.flatnonzero(condition.between(low, high, missing)[0] & (pooled > 0))
        if any(int(code) in shares for code in codes):
            raise RequestError(
                f"two of the values that {column.name!r} is set to lie in one range of the model, so what "
                f"depends on them cannot be told apart: set it to one of them"
            )
        share = Fraction(frequency / total).limit_denominator(_PRECISION)
        if abs(float(share) - frequency / total) > _CLOSE * 100 or share == 0:
            raise RequestError(
                f"the relative frequency of {given!r} in {column.name!r} is too fine: "
                f"use shares of at most four decimals"
            )
        for code in codes.tolist():
            shares[code] = share * Fraction(int(pooled[code]), int(pooled[codes].sum()))
            if value is not None:
                values[code] = operand(value)
    if sum(shares.values()) != 1:
        raise RequestError(
            f"the relative frequencies of the values of {column.name!r} are too fine: "
            f"use shares of at most four decimals"
        )
    return shares, None if strings is not None or emission.high is None else values


def _asked(network: Network, column: str, given: Any) -> Condition:  # noqa: ANN401 - as users write it
    """Return a value as a condition, in the column's kind."""
    if isinstance(given, str) and network.schema[column].kind != "category":
        given = f"{quoted(column)}=={given}" if given else None  # as in JSON, where keys are strings
        if given is not None:
            return read_conditions([given], network.schema)[0]
    value = _none_if_empty(given, network, column)
    return read_conditions([Condition(column, "in", (value,))], network.schema)[0]


def _none_if_empty(given: Any, network: Network, column: str) -> Value:  # noqa: ANN401
    """Return a missing value for the empty string, unless that is a value of the column."""
    if given == "" and "" not in network.categories.get(column, ()):
        return None
    return given  # type: ignore[no-any-return]


def _require_possible(
    network: Network, effect: Effect, factor: Factor, match: Table, shares: Mapping[int, Fraction]
) -> None:
    """Raise if setting a column would give combinations that never occur with columns drawn before it."""
    wanted = np.array(sorted(shares))
    for other, pairs in find_associated(network, factor.name).items():
        never = ~pairs.allowed[:, wanted].all(axis=1)
        table = Table({other: pairs.group}, np.asarray(never, np.float64))
        try:
            reached = eliminate_exactly(network, [match, table]).share if never.any() else 0.0
        except TooManyCellsError:
            raise _too_large(effect) from None
        if reached > 0:
            names = [e.column for f in network.factors if f.name == other for e in f.emissions]
            name = next(name for name in names if name in network.schema)
            raise RequestError(
                f"setting {effect.words} would give combinations with {name!r} "
                f"that never occur, and {name!r} is drawn before it: set {name!r} instead, or add a "
                f"condition on it"
            )


def _with_distribution(factor: Factor, match: Table, shares: Mapping[int, Fraction]) -> Factor:
    """Return a factor that is drawn from given codes where a table holds."""
    scale = math.lcm(*(share.denominator for share in shares.values()))
    if scale > _MOST_COUNTS:
        raise RequestError(
            f"the frequencies of the values that {factor.name!r} is set to are too fine: use fewer decimals"
        )
    before = dict(zip(factor.parents, factor.groups, strict=True))
    names = dict.fromkeys((*factor.parents, *match.over))
    groups = {
        name: common_refinement([over[name] for over in (before, match.over) if name in over])
        for name in names
    }
    shape = tuple(int(group.max()) + 1 for group in groups.values())
    if math.prod(shape) > MAX_CELLS:
        raise RequestError(
            f"{factor.name!r} cannot be set there, since its tables would be too large: "
            f"use conditions on fewer columns"
        )
    number = len(factor.totals)
    choice = spread(factor.distribution_of.reshape(factor.shape), before, groups)
    distribution_of = np.where(match.spread(groups) > 0, number, choice)
    codes = np.array(sorted(shares), np.int64)
    counts = np.array([int(shares[code] * scale) for code in codes.tolist()], np.int64)
    return replace(
        factor,
        parents=tuple(groups),
        groups=tuple(groups.values()),
        distribution_of=np.broadcast_to(distribution_of, shape).reshape(-1).astype(np.int64),
        offsets=np.append(factor.offsets, factor.offsets[-1] + len(codes)),
        codes=np.concatenate([factor.codes, codes]),
        counts=np.concatenate([factor.counts, counts]),
    )


def _scale(model: Network, effect: Effect) -> _Scale:
    """Return a column that is multiplied; `RequestError` if that is not possible."""
    column = effect.column
    numeric = [c.name for c in model.schema if c.kind in ("integer", "number")]
    if column not in model.schema:
        raise RequestError(f"no column is called {column!r}: there are {listed(numeric, column)}")
    if column not in numeric:
        raise RequestError(
            f"{column!r} cannot be scaled, since it is no number: numbers are {listed(numeric, column)}"
        )
    if any(identifier.column == column for identifier in model.identifiers):
        raise RequestError(f"{column!r} cannot be scaled, since it names the rows")
    for delay in model.days_after_event:
        if column in (delay.promised, delay.late):
            raise RequestError(
                f"{column!r} cannot be scaled, since {delay.column!r} follows from it: use delay or set"
            )
    emission = next((e for f in model.factors for e in f.emissions if e.column == column), None)
    if model.schema[column].kind == "integer" and emission is not None:
        most = np.abs(scaled(emission, np.concatenate([emission.low, emission.last]))).max()
        if most * abs(effect.amount) > _LARGEST_WHOLE:
            raise RequestError(f"{column!r} cannot be scaled by {effect.amount:g}: it would exceed 2**53")
    return _Scale(column, _match(model, effect), effect.amount)


def _delay(model: Network, effect: Effect) -> Table:
    """Return which events are delayed; `RequestError` if deliveries cannot be."""
    if not model.days_after_event:
        raise RequestError(
            "the effect delay needs a column that follows the event by days, and this model has none"
        )
    moved = {name for delay in model.days_after_event for name in (delay.late, delay.column)}
    for formula in model.formulas:
        read = moved & set(formula.inputs)
        if read:
            raise RequestError(
                f"the effect delay cannot be exact, since {formula.column!r} is computed from "
                f"{min(read)!r}, which the delay changes"
            )
    return _match(model, effect)


def _changed_columns(model: Network, scaled_columns: Sequence[str], delayed: bool) -> frozenset[str]:
    """Return the columns whose values change after conditions were looked at."""
    changed = set(scaled_columns)
    for formula in model.formulas:
        if changed & set(formula.inputs):
            changed.add(formula.column)
    if delayed:
        changed |= {delay.late for delay in model.days_after_event}
    return frozenset(changed)


def _weights(
    network: Network, effects: Sequence[Effect], changed: frozenset[str]
) -> tuple[WeightedTable, ...]:
    """Return the weights of all effects, with those of shares found so that all shares hold together."""
    found: list[WeightedTable] = []
    shares: dict[int, Effect] = {}
    for effect in effects:
        if effect.kind not in ("weight", "share"):
            continue
        for condition in read_conditions(effect.where, network.schema):
            if condition.column in changed:
                raise RequestError(
                    f"the effect {effect.words} cannot be exact, since scale or delay changes "
                    f"{condition.column!r} afterwards: use a condition on another column"
                )
        match = _match(network, effect)
        if effect.kind == "share":
            shares[len(found)] = effect
        found.append(WeightedTable(match, effect.amount if effect.kind == "weight" else 1.0, 1.0))
    _adapt(network, found, shares)
    return tuple(found)


def _adapt(network: Network, found: list[WeightedTable], shares: Mapping[int, Effect]) -> None:
    """Find weights with which all shares hold: iterative proportional fitting (Deming and Stephan 1940)."""
    if not shares:
        return
    if len(shares) > _MOST_SHARES:
        raise RequestError(f"at most {_MOST_SHARES} shares can hold together, not {len(shares)}")
    # The probability of each combination of fulfilled conditions, one axis for each share.
    tables = [item.table for place, item in enumerate(found) if place not in shares]
    matches = [found[place].match for place in shares]
    joint = np.zeros([2] * len(shares))
    for case in np.ndindex(joint.shape):
        ends = [m if on else Table(m.over, 1 - m.values) for m, on in zip(matches, case, strict=True)]
        joint[case] = eliminate_exactly(network, [*tables, *ends]).share
    joint /= joint.sum() or 1.0
    weights = np.ones((len(shares), 2))  # of each: for events that are not meant, and for those that are
    for _ in range(_ROUNDS):
        furthest = 0.0
        for axis, effect in enumerate(shares.values()):
            now = np.moveaxis(joint, axis, 0).reshape(2, -1).sum(axis=1)
            wanted = np.array([1 - effect.amount, effect.amount])
            if ((now == 0) & (wanted > 0)).any():
                kind = "no" if now[1] == 0 else "every"
                raise RequestError(
                    f"the effect {effect.words} is not possible: {kind} event of this scenario fulfils that"
                )
            factor = wanted / np.where(now == 0, 1.0, now)
            joint *= factor.reshape([2 if other == axis else 1 for other in range(len(shares))])
            weights[axis] = weights[axis] * factor / (weights[axis] * factor).max()
            furthest = max(furthest, float(np.abs(now - wanted).max()))
        if furthest <= _CLOSE or len(shares) == 1:
            break
    else:
        asked = " and ".join(effect.words for effect in shares.values())
        raise RequestError(f"these effects cannot hold together: {asked}")
    for place, (off, on) in zip(shares, weights.tolist(), strict=True):
        found[place] = WeightedTable(found[place].match, on, off)


def _replacements(
    network: Network, weights: Sequence[WeightedTable], plain: Sequence[FactorSampler]
) -> Iterator[_Replacement]:
    """Give the steps of drawing, one for each weight.

    After each step the events follow the weights up to it. An event of weight w is kept with probability
    min(1, w / Z), where Z is the mean weight. What is missing then are events of the greater weight only.
    """
    before: list[Table] = []
    total = 1.0  # mean of the product of the weights before
    for item in weights:
        found = eliminate_exactly(network, [*before, item.match])
        weighted, share = found.samplers, found.share / total
        mean = item.on * share + item.off * (1 - share)
        if mean <= 0:
            raise RequestError("no event is left under these weights and shares: raise one that is 0")
        if item.on != item.off and 0 < share < 1:
            if item.off > item.on:
                others = Table(item.match.over, 1 - item.match.values)
                weighted = eliminate_exactly(network, [*before, others]).samplers
            yield _Replacement(
                item.match,
                (min(1.0, item.off / mean), min(1.0, item.on / mean)),
                tuple(weighted.get(place, sampler) for place, sampler in enumerate(plain)),
            )
        before.append(item.table)
        total *= mean

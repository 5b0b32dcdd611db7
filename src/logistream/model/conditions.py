"""Conditions on rows, as people write them → the codes of the model's factors that fulfil them.

Rows that fulfil a condition, drawn exactly and without drawing any others.

A model is a chain of discrete factors, so conditions on its columns are answered by variable elimination
(Dechter 1996; Koller and Friedman 2009, chapter 9). Backwards, each factor concerned is summed out: what is
left is a *message*, the probability of the conditions behind it as a table over earlier factors. Forwards,
each factor concerned is drawn with its counts times the messages that mention it. A message tells codes apart
only where its values differ, which keeps the tables small: the thousand places behind "Market is Europe"
become two groups. As everywhere in sampling, only comparisons, look-ups and the four basic operations are
used, so a row is a pure function of model, seed, condition and number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from logistream.errors import RequestError, listed
from logistream.model.sampling import Sampler, compute, scaled
from logistream.times import CALENDAR, micros

if TYPE_CHECKING:
    from collections.abc import Sequence

    from logistream.model.network import Factor, Network
    from logistream.schema import Column

__all__ = ["ConditionedSampler", "allowed_codes"]


@dataclass(frozen=True, slots=True)
class _Reading:
    """What each code of a factor says of one column."""

    factor: str
    value: np.ndarray  # (n_codes,) text or number; instants in microseconds
    missing: np.ndarray  # (n_codes,) bool


def allowed_codes(model: Network, where: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return which codes fulfil the conditions.

    Parameters
    ----------
    model : Network
        What the conditions are about.
    where : mapping of str to value or list of values
        For each column concerned, the value or values it may take; None is a missing value.

    Returns
    -------
    dict of str to ndarray of bool of shape (n_codes,)
        For each factor with a condition, by its name, whether a code is allowed.

    Raises
    ------
    RequestError
        If a column is unknown or no factor's codes are single values of it, or a value never occurs.
    """
    import pandas as pd  # a server needs none

    if not isinstance(where, Mapping):
        raise RequestError(f"where must name columns and values, as in {{'Market': 'Europe'}}, not {where!r}")
    readings = _readings(model)
    allowed: dict[str, np.ndarray] = {}
    for name, asked in where.items():
        if name not in model.schema:
            raise RequestError(f"no column is called {name!r}: there are {listed(model.schema.names, name)}")
        if name not in readings:
            raise _refusal(model, name, readings)
        reading, column = readings[name], model.schema[name]
        values = list(asked) if pd.api.types.is_list_like(asked) else [asked]
        if not values:
            raise RequestError(f"no value is given for {name!r}: expected one, or a list of those allowed")
        fulfil = np.any([_matching(reading, column, value) for value in values], axis=0)
        allowed[reading.factor] = allowed.get(reading.factor, True) & fulfil
    return allowed


def _readings(model: Network) -> dict[str, _Reading]:
    """Return the columns and helpers that a single factor decides, with a single value for each code."""
    readings: dict[str, _Reading] = {}
    ranges: dict[str, tuple[str, list[np.ndarray]]] = {}
    for factor in model.factors:
        for emission in factor.emissions:
            if emission.high is None:
                categories = model.categories.get(emission.column)
                value = (
                    scaled(emission, emission.low)
                    if categories is None
                    else np.array(categories, dtype=object)[emission.low]
                )
                missing = np.zeros(factor.size, bool) if emission.missing is None else emission.missing
                readings[emission.column] = _Reading(factor.name, value, missing)
            elif emission.missing is None:
                ranges[emission.column] = (
                    factor.name,
                    [scaled(emission, e) for e in (emission.low, emission.high)],
                )
    for formula in model.formulas:
        if (
            formula.operation in CALENDAR and formula.left in ranges
        ):  # of a range of dates that lies in a month
            name, ends = ranges[formula.left]
            first, last = (compute(formula, {formula.left: end}) for end in ends)
            if (first == last).all():
                readings[formula.column] = _Reading(name, first, np.zeros(len(first), bool))
            continue
        inputs = {name: readings.get(name) for name in (formula.left, formula.right) if name}
        found = {name: reading for name, reading in inputs.items() if reading is not None}
        decisive = [reading for reading in found.values() if len(reading.value) > 1]  # not constant
        if len(found) == len(inputs) and len({reading.factor for reading in decisive}) <= 1:
            name = (decisive or list(found.values()))[0].factor
            value = compute(formula, {name: reading.value for name, reading in found.items()})
            missing = np.zeros(len(value), bool)
            for reading in found.values():
                missing = missing | reading.missing
            readings[formula.column] = _Reading(name, value, missing)
    return readings


def _matching(reading: _Reading, column: Column, wanted: Any) -> np.ndarray:  # noqa: ANN401 - as users write it
    """Return which codes stand for the value, (n_codes,) bool; at least one does."""
    import pandas as pd

    if not pd.api.types.is_scalar(wanted):
        found = np.zeros_like(reading.missing)
    elif pd.isna(wanted):
        found = reading.missing
    else:
        value = _micros(column, wanted) if column.kind == "timestamp" else wanted
        comparable = isinstance(value, str) == (column.kind == "category")
        found = ~reading.missing & comparable & (reading.value == value)
    if not found.any():
        occurring: list[Any] = np.unique(reading.value[~reading.missing]).tolist()
        if column.kind == "timestamp":
            occurring = [str(pd.Timestamp(moment, unit="us")) for moment in occurring]
        elif column.kind == "boolean":
            occurring = [bool(number) for number in occurring]
        if reading.missing.any():
            occurring.append(None)
        raise RequestError(f"{column.name!r} is never {wanted!r}: it is {listed(occurring, wanted)}")
    return np.asarray(found)


def _micros(column: Column, wanted: Any) -> int:  # noqa: ANN401 - as users write it
    """Return an instant as microseconds since 1970 UTC; without a time zone it is taken as UTC."""
    import pandas as pd

    try:
        return int(micros(pd.Series([pd.Timestamp(wanted)]))[0])
    except (ValueError, TypeError):
        raise RequestError(
            f"{column.name!r} is a timestamp: expected one like '2017-03-31 12:00', not {wanted!r}"
        ) from None


def _refusal(model: Network, name: str, readings: Mapping[str, _Reading]) -> RequestError:
    """Return why no condition on this column can be met exactly, and on which it can."""
    formula = next((f for f in model.formulas if f.column == name and not f.keeps_order), None)
    reason = "computed from columns that are drawn apart" if formula else "continuous"
    if name in model.categories:
        reason = "made up anew, since it names the rows"
    columns = [column for column in model.schema.names if column in readings]
    if formula is not None:
        columns = [column for column in columns if column in (formula.left, formula.right)] or columns
    instead = f"ask for {listed(columns, None)} instead, or filter" if columns else "filter"
    return RequestError(f"{name!r} is {reason}, so its values cannot be asked for: {instead} the rows")


_MAX_CELLS = 2**22  # of one table: 32 MiB


class ConditionedSampler(Sampler):
    """The rows that fulfil a condition, by number: row n is the n-th of an endless table of such rows.

    Parameters
    ----------
    model : Network
        What to draw from.
    where : mapping of str to value or list of values
        For each column concerned, the value or values it may take; None is a missing value.
    seed : int
        From 0 to 2**64 - 1.

    Attributes
    ----------
    share : float
        The probability that a row of the model fulfils the condition.

    Raises
    ------
    RequestError
        If a column is unknown or has no single values to ask for, if a value never occurs, if no row can
        fulfil the condition, or if working it out would take too large a table.
    """

    def __init__(self, model: Network, where: Mapping[str, Any], seed: int = 0) -> None:
        super().__init__(model, seed)
        masks = allowed_codes(model, where)
        messages: list[_Table] = []
        for place in reversed(range(len(model.factors))):
            factor = model.factors[place]
            told = [message for message in messages if factor.name in message.over]
            if factor.name not in masks and not told:
                continue
            messages = [message for message in messages if factor.name not in message.over]
            urns = _WeightedUrns.of(factor, masks.get(factor.name), told, tuple(where))
            message = urns.message()
            messages.append(message)
            # where all weights of a case are 0 it never comes, and where all are 1 the plain urns are right
            if not np.isin(message.values, (0.0, 1.0)).all():
                self._urns[place] = urns
        self.share = math.prod(float(message.values) for message in messages)
        if self.share == 0:
            asked = " and ".join(repr(name) for name in where)
            raise RequestError(f"no row of this model has these values of {asked} together: ask for others")


@dataclass(frozen=True, slots=True)
class _Table:
    """Values over groups of the codes of some factors."""

    over: dict[str, np.ndarray]  # factor → (n_codes,) group of each code, in the order of the axes
    values: np.ndarray

    def spread(self, fine: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the values over the finer groups `fine`: an axis for each, of length 1 if not concerned."""
        one_of_each = {name: np.unique(fine[name], return_index=True)[1] for name in self.over}
        values = self.values[np.ix_(*(groups[one_of_each[name]] for name, groups in self.over.items()))]
        here = list(self.over)
        values = values.transpose([here.index(name) for name in fine if name in self.over])
        shape = [len(one_of_each[name]) if name in self.over else 1 for name in fine]
        return np.asarray(values).reshape(shape)

    def merged(self) -> _Table:
        """Return the same with groups merged where no value differs, without factors that tell nothing."""
        over: dict[str, np.ndarray] = {}
        values = self.values
        for name, groups in self.over.items():
            axis = len(over)
            slices = np.moveaxis(values, axis, 0)
            flat = slices.reshape(len(slices), -1)
            _, first, merged = np.unique(flat, axis=0, return_index=True, return_inverse=True)
            if len(first) == 1:
                values = slices[0]
            else:
                values = np.moveaxis(slices[first], 0, axis)
                over[name] = merged.reshape(-1)[groups]
        return _Table(over, values)


def _refined(groupings: Sequence[np.ndarray]) -> np.ndarray:
    """Return groups of codes that tell apart what any of the groupings does, shape (n_codes,)."""
    return np.unique(np.stack(groupings, axis=1), axis=0, return_inverse=True)[1].reshape(-1)


@dataclass(frozen=True, slots=True)
class _WeightedUrns:
    """A factor whose balls are weighted: codes with the same weight everywhere form a group.

    A case is a combination of the groups of the factors in `scope`; it selects the urn and the weights.
    First a group is drawn, then with what is left of the same uniform a ball of that group.
    """

    factor: Factor
    scope: dict[str, np.ndarray]
    shape: tuple[int, ...]  # number of groups of each factor in scope
    urn: np.ndarray  # (n_cases,)
    upto: np.ndarray  # (n_groups, n_cases) weight of this group and those before it
    start: np.ndarray  # (n_urns * n_groups,) first ball of an urn that belongs to a group
    balls: np.ndarray  # (n_urns * n_groups,) number of such balls
    ball: np.ndarray  # (all balls that are allowed,) the code on each

    @classmethod
    def of(
        cls, factor: Factor, mask: np.ndarray | None, messages: Sequence[_Table], asked: tuple[str, ...]
    ) -> _WeightedUrns:
        sizes = [int(group.max()) + 1 for group in factor.groups]
        choice = _Table(
            dict(zip(factor.parents, factor.groups, strict=True)), factor.distribution_of.reshape(sizes)
        )
        names = dict.fromkeys(name for table in (choice, *messages) for name in table.over)
        groupings = {
            name: _refined([table.over[name] for table in (choice, *messages) if name in table.over])
            for name in names
        }
        own = groupings.pop(factor.name, np.zeros(factor.size, np.int64))
        n_groups = int(own.max()) + 1
        shape = tuple(int(groups.max()) + 1 for groups in groupings.values())
        if math.prod(shape) * n_groups > _MAX_CELLS:
            raise RequestError(
                f"a condition on {' and '.join(repr(name) for name in asked)} takes a table of "
                f"{math.prod(shape) * n_groups:,} cells, more than {_MAX_CELLS:,}: "
                f"leave a column out, and filter the rows by it"
            )
        n_urns = len(factor.offsets) - 1
        slot = np.repeat(np.arange(n_urns), np.diff(factor.offsets)) * n_groups + own[factor.codes]
        counts = factor.counts if mask is None else factor.counts * mask[factor.codes]
        balls = np.bincount(slot, counts, n_urns * n_groups).astype(np.int64)
        order = np.argsort(slot, kind="stable")
        urn = choice.spread(groupings)
        upto = np.empty((n_groups, *shape))
        weight = np.zeros(shape)
        tables = [message.spread({factor.name: own, **groupings}) for message in messages]
        for group, of_urn in enumerate(balls.reshape(n_urns, n_groups).T):
            share = of_urn[urn].astype(np.float64)
            for table in tables:
                share = share * table[group]
            weight = upto[group] = weight + share
        return cls(
            factor=factor,
            scope=groupings,
            shape=shape,
            urn=np.broadcast_to(urn, shape).reshape(-1),
            upto=upto.reshape(n_groups, -1),
            start=np.cumsum(balls) - balls,
            balls=balls,
            ball=np.repeat(factor.codes[order], counts[order]).astype(np.int32),
        )

    def message(self) -> _Table:
        """Return the share of each case's urn that the weights leave, over the factors in scope."""
        all_balls = np.add.reduceat(self.factor.counts, self.factor.offsets[:-1])
        return _Table(self.scope, (self.upto[-1] / all_balls[self.urn]).reshape(self.shape)).merged()

    @property
    def deterministic(self) -> bool:
        """Whether it can do without uniforms; what has no chance is drawn by the plain urns."""
        return False

    def draw(self, uniform: np.ndarray | None, codes: dict[str, np.ndarray]) -> np.ndarray:
        """Return the code of each event, shape (n_events,), int32."""
        assert uniform is not None  # noqa: S101 - it is never deterministic
        case = np.zeros(len(uniform), np.int64)
        for (name, groups), size in zip(self.scope.items(), self.shape, strict=True):
            case = case * size + groups[codes[name]]
        n_groups = len(self.upto)
        wanted = uniform * self.upto[-1, case]
        group = np.zeros(len(uniform), np.int64)  # by bisection: number of groups with upto <= wanted
        for step in (1 << power for power in reversed(range(n_groups.bit_length()))):
            further = np.minimum(group + step, n_groups)
            group = np.where(self.upto[further - 1, case] <= wanted, further, group)
        before = np.where(group > 0, self.upto[group - 1, case], 0.0)
        left = (wanted - before) / (self.upto[group, case] - before)
        slot = self.urn[case] * n_groups + group
        within = np.minimum((left * self.balls[slot]).astype(np.int64), self.balls[slot] - 1)
        return np.asarray(self.ball[self.start[slot] + within])

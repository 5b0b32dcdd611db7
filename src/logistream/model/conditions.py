"""Rows that fulfil a condition, drawn exactly and without drawing any others.

First the condition is translated into codes: which codes of which factors fulfil it. Then the rows are drawn
by variable elimination (Dechter 1996; Koller and Friedman 2009, chapter 9). Backwards, each factor concerned
is summed out: what is left is a *message*, the probability of the conditions behind it as a table over
earlier factors. Forwards, each factor concerned is drawn with its counts times the messages that mention it.
A message keeps codes apart only where its values differ, so tables stay small: the thousand places behind
"Market is Europe" become two groups. As everywhere in sampling, only comparisons, look-ups and the four basic
operations are used, so a row is a pure function of model, seed, condition and number.
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
        fulfil the condition, or if that would take too large a table.
    """

    def __init__(self, model: Network, where: Mapping[str, Any], seed: int = 0) -> None:
        super().__init__(model, seed)
        masks = allowed_codes(model, where)
        messages: list[_Table] = []
        for place in reversed(range(len(model.factors))):
            factor = model.factors[place]
            received = [message for message in messages if factor.name in message.over]
            if factor.name not in masks and not received:
                continue
            messages = [message for message in messages if factor.name not in message.over]
            sampler = _WeightedSampler.of(factor, masks.get(factor.name), received, tuple(where))
            message = sampler.message()
            messages.append(message)
            # A case of weight 0 never comes, and one of weight 1 is drawn right by the plain sampler.
            if not np.isin(message.values, (0.0, 1.0)).all():
                self._samplers[place] = sampler
        self.share = math.prod(float(message.values) for message in messages)
        if self.share == 0:
            asked = " and ".join(repr(name) for name in where)
            raise RequestError(f"no row of this model has these values of {asked} together: ask for others")


def allowed_codes(model: Network, where: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return which codes fulfil the conditions.

    Parameters
    ----------
    model, where
        As for `ConditionedSampler`.

    Returns
    -------
    dict of str to ndarray of bool of shape (n_codes,)
        For each factor with a condition, by its name, whether a code is allowed.

    Raises
    ------
    RequestError
        If a column is unknown, no factor's codes are single values of it, or a value never occurs.
    """
    import pandas as pd  # a server needs none

    if not isinstance(where, Mapping):
        raise RequestError(f"where must name columns and values, as in {{'Market': 'Europe'}}, not {where!r}")
    decided = _decided_columns(model)
    allowed: dict[str, np.ndarray] = {}
    for name, asked in where.items():
        if name not in model.schema:
            raise RequestError(f"no column is called {name!r}: there are {listed(model.schema.names, name)}")
        if name not in decided:
            raise _refusal(model, name, decided)
        of_codes, column = decided[name], model.schema[name]
        values = list(asked) if pd.api.types.is_list_like(asked) else [asked]
        if not values:
            raise RequestError(f"no value is given for {name!r}: expected one, or a list of those allowed")
        fulfil = np.any([_matching(of_codes, column, value) for value in values], axis=0)
        allowed[of_codes.factor] = allowed.get(of_codes.factor, True) & fulfil
    return allowed


@dataclass(frozen=True, slots=True)
class _CodeValues:
    """The value of one column that each code of a factor stands for."""

    factor: str
    value: np.ndarray  # (n_codes,) string or number; timestamps in microseconds
    missing: np.ndarray  # (n_codes,) bool


def _decided_columns(model: Network) -> dict[str, _CodeValues]:
    """Return the columns and helpers that a single factor decides, with a single value for each code."""
    decided: dict[str, _CodeValues] = {}
    invented = {identifier.column for identifier in model.identifiers}
    ranges: dict[str, tuple[str, list[np.ndarray]]] = {}
    for factor in model.factors:
        none = np.zeros(factor.size, bool)
        for emission in factor.emissions:
            name, missing = emission.column, none if emission.missing is None else emission.missing
            if name in invented:
                continue
            if emission.high is not None:
                if emission.missing is None:
                    ranges[name] = factor.name, [scaled(emission, e) for e in (emission.low, emission.high)]
            elif name in model.categories:
                strings = np.array(model.categories[name], dtype=object)
                decided[name] = _CodeValues(factor.name, strings[emission.low], missing)
            else:
                decided[name] = _CodeValues(factor.name, scaled(emission, emission.low), missing)
    for formula in model.formulas:
        if formula.operation in CALENDAR and formula.left in ranges:  # a range of dates within one month
            factor_name, ends = ranges[formula.left]
            first, last = (compute(formula, {formula.left: end}) for end in ends)
            if (first == last).all():
                decided[formula.column] = _CodeValues(factor_name, first, np.zeros(len(first), bool))
            continue
        found = {name: decided[name] for name in formula.inputs if name in decided}
        if formula.adjusts:
            decided.pop(formula.column, None)
        varied = [values for values in found.values() if len(values.value) > 1]
        if len(found) == len({*formula.inputs}) and len({values.factor for values in varied}) <= 1:
            value = compute(formula, {name: values.value for name, values in found.items()})
            missing = np.zeros(len(value), bool)
            for values in found.values():
                missing = missing | values.missing
            if formula.operation == "blank":
                missing = missing | (found[formula.left].value == 1)
            factor_name = (varied or list(found.values()))[0].factor
            decided[formula.column] = _CodeValues(factor_name, value, missing)
    return decided


def _matching(of_codes: _CodeValues, column: Column, wanted: Any) -> np.ndarray:  # noqa: ANN401 - as users write it
    """Return which codes stand for the value, (n_codes,) bool; `RequestError` if none does."""
    import pandas as pd

    if not pd.api.types.is_scalar(wanted):
        found = np.zeros_like(of_codes.missing)
    elif pd.isna(wanted):
        found = of_codes.missing
    else:
        value = _micros(column, wanted) if column.kind == "timestamp" else wanted
        comparable = isinstance(value, str) == (column.kind == "category")
        found = ~of_codes.missing & comparable & (of_codes.value == value)
    if not found.any():
        occurring: list[Any] = np.unique(of_codes.value[~of_codes.missing]).tolist()
        if column.kind == "timestamp":
            occurring = [str(pd.Timestamp(micro, unit="us")) for micro in occurring]
        elif column.kind == "boolean":
            occurring = [bool(number) for number in occurring]
        if of_codes.missing.any():
            occurring.append(None)
        raise RequestError(f"{column.name!r} is never {wanted!r}: it is {listed(occurring, wanted)}")
    return np.asarray(found)


def _micros(column: Column, wanted: Any) -> int:  # noqa: ANN401 - as users write it
    """Return a timestamp as microseconds since 1970 UTC; without a time zone it is taken as UTC."""
    import pandas as pd

    try:
        return int(micros(pd.Series([pd.Timestamp(wanted)]))[0])
    except (ValueError, TypeError):
        raise RequestError(
            f"{column.name!r} is a timestamp: expected one like '2017-03-31 12:00', not {wanted!r}"
        ) from None


def _refusal(model: Network, name: str, decided: Mapping[str, _CodeValues]) -> RequestError:
    """Return why no condition on this column can be met exactly, and on which it can."""
    formula = next((f for f in model.formulas if f.column == name and not f.keeps_order), None)
    reason = "computed from columns that are drawn separately" if formula else "continuous"
    if any(identifier.column == name for identifier in model.identifiers):
        reason = "invented, since it names the rows"
    columns = [column for column in model.schema.names if column in decided]
    if formula is not None:
        columns = [column for column in columns if column in formula.inputs] or columns
    instead = f"ask for {listed(columns, None)} instead, or filter" if columns else "filter"
    return RequestError(f"{name!r} is {reason}, so its values cannot be asked for: {instead} the rows")


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
        """Return the same with groups merged where no value differs, without factors that change nothing."""
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


def _common_refinement(groupings: Sequence[np.ndarray]) -> np.ndarray:
    """Return groups of codes that keep apart what any of the groupings does, shape (n_codes,)."""
    return np.unique(np.stack(groupings, axis=1), axis=0, return_inverse=True)[1].reshape(-1)


@dataclass(frozen=True, slots=True)
class _WeightedSampler:
    """A factor whose counts are weighted: codes with the same weight everywhere form a group.

    A case is a combination of the groups of the factors in `scope`; it selects the distribution and the
    weights. First a group is drawn, then with what is left of the same uniform a code of that group.
    """

    factor: Factor
    scope: dict[str, np.ndarray]
    shape: tuple[int, ...]  # number of groups of each factor in scope
    distribution: np.ndarray  # (n_cases,)
    upto: np.ndarray  # (n_groups, n_cases) weight of this group and those before it
    start: np.ndarray  # (n_distributions * n_groups,) where the counts of a group in a distribution begin
    total: np.ndarray  # (n_distributions * n_groups,) number of such counts
    code: np.ndarray  # (all counts that are allowed,)
    deterministic: bool = False  # what has no chance is left to the plain sampler

    @classmethod
    def of(
        cls, factor: Factor, mask: np.ndarray | None, messages: Sequence[_Table], asked: tuple[str, ...]
    ) -> _WeightedSampler:
        choice = _Table(
            dict(zip(factor.parents, factor.groups, strict=True)),
            factor.distribution_of.reshape(factor.shape),
        )
        names = dict.fromkeys(name for table in (choice, *messages) for name in table.over)
        groupings = {
            name: _common_refinement([t.over[name] for t in (choice, *messages) if name in t.over])
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
        n_distributions = len(factor.totals)
        slot = np.repeat(np.arange(n_distributions), np.diff(factor.offsets)) * n_groups + own[factor.codes]
        counts = factor.counts if mask is None else factor.counts * mask[factor.codes]
        total = np.bincount(slot, counts, n_distributions * n_groups).astype(np.int64)
        order = np.argsort(slot, kind="stable")
        distribution = choice.spread(groupings)
        upto = np.empty((n_groups, *shape))
        weight = np.zeros(shape)
        tables = [message.spread({factor.name: own, **groupings}) for message in messages]
        for group, of_distribution in enumerate(total.reshape(n_distributions, n_groups).T):
            share = of_distribution[distribution].astype(np.float64)
            for table in tables:
                share = share * table[group]
            weight = upto[group] = weight + share
        return cls(
            factor=factor,
            scope=groupings,
            shape=shape,
            distribution=np.broadcast_to(distribution, shape).reshape(-1),
            upto=upto.reshape(n_groups, -1),
            start=np.cumsum(total) - total,
            total=total,
            code=np.repeat(factor.codes[order], counts[order]).astype(np.int32),
        )

    def message(self) -> _Table:
        """Return the share of each case's distribution that the weights leave, over the factors in scope."""
        share = self.upto[-1] / self.factor.totals[self.distribution]
        return _Table(self.scope, share.reshape(self.shape)).merged()

    def draw(self, uniform: np.ndarray | None, codes: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the code of each event, int32 of shape (n_events,)."""
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
        slot = self.distribution[case] * n_groups + group
        within = np.minimum((left * self.total[slot]).astype(np.int64), self.total[slot] - 1)
        return np.asarray(self.code[self.start[slot] + within])

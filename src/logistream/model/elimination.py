"""Factors drawn under conditions, exactly: variable elimination (Dechter 1996; Koller and Friedman 2009).

A condition is a table of zeros and ones over the codes of some factors; a table may hold other weights too.
Backwards, each factor concerned is
summed out: what is left is a *message*, the probability of the conditions behind it as a table over earlier
factors. Forwards, each factor concerned is drawn with its counts times the messages that mention it. A
message keeps codes apart only where its values differ, so tables stay small: the thousand places behind
"Market is Europe" become two groups. As everywhere in sampling, only comparisons, look-ups and the four
basic operations are used.

Far down a chain of continuous columns messages would grow without end. One that is too large is replaced by
an upper bound over fewer groups ("mini-buckets", Dechter and Rish 2003). A row is then accepted with the
probability message / bound, so accepted rows still have the exact distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from logistream.model.bounds import MAX_CELLS, common_refinement, spread

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from logistream.model.network import Factor, Network
    from logistream.model.sampling import FactorSampler

__all__ = ["Eliminated", "Table", "TooManyCellsError", "eliminate", "eliminate_exactly"]


_BOUNDED_CELLS = 2**19  # of a factor with bounds of its messages, where with these it has more than MAX_CELLS


class TooManyCellsError(Exception):
    """A table would have more than `MAX_CELLS` cells."""


@dataclass(frozen=True, slots=True)
class Table:
    """Values over groups of the codes of some factors."""

    over: dict[str, np.ndarray]  # factor → (n_codes,) group of each code, in the order of the axes
    values: np.ndarray

    def spread(self, fine: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the values over the finer groups `fine`: an axis for each, of length 1 if not concerned."""
        return spread(self.values, self.over, fine)

    def merged(self) -> Table:
        """Return the same with groups merged where no value differs, without factors that change nothing."""
        over: dict[str, np.ndarray] = {}
        values = self.values
        for name, groups in self.over.items():
            axis = len(over)
            slices = np.moveaxis(values, axis, 0)
            number: dict[
                bytes, int
            ] = {}  # of each different slice; np.unique would sort them, which takes long
            merged = np.array([number.setdefault(part.tobytes(), len(number)) for part in slices])
            if len(number) == 1:
                values = slices[0]
            else:
                first = np.unique(merged, return_index=True)[1]
                values = np.moveaxis(slices[first], 0, axis)
                over[name] = merged[groups]
        return Table(over, values)

    def at(self, codes: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the value for each event's codes, shape (n_events,); shape () if no factor is concerned."""
        return np.asarray(self.values[tuple(groups[codes[name]] for name, groups in self.over.items())])


@dataclass(frozen=True, slots=True)
class Eliminated:
    """How to draw rows that tables allow.

    Attributes
    ----------
    share : float
        The probability that a row is allowed, or how many times as likely a row becomes on average; an upper
        bound of it where there are `chances`.
    samplers : dict of int to FactorSampler
        Samplers of the factors that are drawn otherwise than without the tables, by their place.
    chances : list of Table
        With the product of these probabilities a row that is drawn must be accepted.
    """

    share: float
    samplers: dict[int, FactorSampler]
    chances: list[Table]


def eliminate(network: Network, tables: Sequence[Table]) -> Eliminated:
    """Return the probability of what the tables allow, and how to draw the factors concerned.

    Parameters
    ----------
    network : Network
        The factors, in the order of drawing.
    tables : sequence of Table
        Each 1 where a combination of codes is allowed and 0 elsewhere; or how many times as likely it
        becomes.
    """
    masks: dict[str, np.ndarray] = {}
    messages: list[Table] = []
    allowing = all(np.isin(table.values, (0.0, 1.0)).all() for table in tables)
    for table in tables:
        if len(table.over) == 1 and np.isin(table.values, (0.0, 1.0)).all():
            [(name, groups)] = table.over.items()
            masks[name] = masks.get(name, True) & (table.values[groups] > 0)
        else:
            messages.append(table)
    samplers: dict[int, FactorSampler] = {}
    chances: list[Table] = []
    for place in reversed(range(len(network.factors))):
        factor = network.factors[place]
        received = [message for message in messages if factor.name in message.over]
        if factor.name not in masks and not received:
            continue
        messages = [message for message in messages if factor.name not in message.over]
        bounds = _bounded(factor, received)
        chances += [
            _ratio(exact, bound) for exact, bound in zip(received, bounds, strict=True) if bound is not exact
        ]
        sampler = _WeightedSampler.of(factor, masks.get(factor.name), bounds)
        message = sampler.message()
        messages.append(message)
        # A case of weight 0 never comes or is not accepted; the plain sampler draws one of weight 1 right.
        if not (allowing and np.isin(message.values, (0.0, 1.0)).all()):
            samplers[place] = sampler
    return Eliminated(math.prod(float(message.values) for message in messages), samplers, chances)


def eliminate_exactly(network: Network, tables: Sequence[Table]) -> Eliminated:
    """Return what `eliminate` does, if that is exact without `chances`.

    Raises
    ------
    TooManyCellsError
        If a factor depends on too many others at once.
    """
    found = eliminate(network, tables)
    if found.chances:
        raise TooManyCellsError
    return found


def _bounded(factor: Factor, received: Sequence[Table]) -> list[Table]:
    """Return upper bounds of messages, over so few groups that one table holds them with the factor.

    They are the messages themselves if these fit. Groups that the factor itself keeps apart stay so.
    """
    messages = list(received)
    own = dict(zip(factor.parents, factor.groups, strict=True))
    if _cells(own, messages) <= MAX_CELLS:
        return messages
    while _cells(own, messages) > _BOUNDED_CELLS:
        tried = [
            halved
            for name in dict.fromkeys(name for message in messages for name in message.over)
            if (halved := _halved(messages, name, own.get(name))) is not None
        ]
        if not tried:
            break
        messages = min(tried, key=lambda halved: halved[0])[1]
    return messages


def _ratio(exact: Table, bound: Table) -> Table:
    """Return a message divided by its upper bound."""
    fine = {
        name: common_refinement([groups, bound.over[name]]) if name in bound.over else groups
        for name, groups in exact.over.items()
    }
    highest = bound.spread(fine)
    return Table(fine, exact.spread(fine) / np.where(highest > 0, highest, 1.0))


def _cells(own: Mapping[str, np.ndarray], messages: Sequence[Table]) -> int:
    """Return the size of a table over all groups that a factor and messages keep apart."""
    overs = [own, *(message.over for message in messages)]
    names = dict.fromkeys(name for over in overs for name in over)
    return math.prod(
        int(common_refinement([over[name] for over in overs if name in over]).max()) + 1 for name in names
    )


def _halved(messages: Sequence[Table], name: str, own: np.ndarray | None) -> tuple[float, list[Table]] | None:
    """Return bounds of messages over about half as many groups of one factor, those of similar values merged.

    Parameters
    ----------
    messages : sequence of Table
        What to bound.
    name : str
        The factor whose groups to merge.
    own : ndarray of shape (n_codes,) or None
        Groups of its codes that must stay apart.

    Returns
    -------
    tuple of float and list of Table, or None
        By how much the bounds are larger on average, and they; None if no groups can be merged.
    """
    groupings = [message.over[name] for message in messages if name in message.over]
    apart = np.zeros(len(groupings[0]), np.int64) if own is None else own
    groups = common_refinement([apart, *groupings])
    first = np.unique(groups, return_index=True)[1]
    places = [list(message.over).index(name) if name in message.over else -1 for message in messages]
    slices = [
        np.moveaxis(np.take(message.values, message.over[name][first], axis=axis), axis, 0)
        for message, axis in zip(messages, places, strict=True)
        if axis >= 0
    ]
    mean = [part.reshape(len(first), -1).mean(axis=1) / max(float(part.mean()), 1e-300) for part in slices]
    order = np.lexsort([np.sum(mean, axis=0), apart[first]])
    begins = np.flatnonzero(np.diff(apart[first][order], prepend=-1))
    within = np.arange(len(order)) - np.repeat(begins, np.diff(np.append(begins, len(order))))
    starts = np.flatnonzero(within % 2 == 0)
    if len(starts) == len(order):
        return None
    number = np.empty(len(order), np.int64)
    number[order] = np.cumsum(within % 2 == 0) - 1
    larger, bounds = 1.0, []
    for message, axis in zip(messages, places, strict=True):
        if axis < 0:
            bounds.append(message)
            continue
        part = slices.pop(0)
        highest = np.maximum.reduceat(part[order], starts, axis=0)
        larger *= float(highest[number].mean()) / max(float(part.mean()), 1e-300)
        over = {key: number[groups] if key == name else old for key, old in message.over.items()}
        bounds.append(Table(over, np.moveaxis(highest, 0, axis)).merged())
    return larger, bounds


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
    def of(cls, factor: Factor, mask: np.ndarray | None, messages: Sequence[Table]) -> _WeightedSampler:
        choice = Table(
            dict(zip(factor.parents, factor.groups, strict=True)),
            factor.distribution_of.reshape(factor.shape),
        )
        names = dict.fromkeys(name for table in (choice, *messages) for name in table.over)
        groupings = {
            name: common_refinement([t.over[name] for t in (choice, *messages) if name in t.over])
            for name in names
        }
        own = groupings.pop(factor.name, np.zeros(factor.size, np.int64))
        n_groups = int(own.max()) + 1
        shape = tuple(int(groups.max()) + 1 for groups in groupings.values())
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

    def message(self) -> Table:
        """Return the share of each case's distribution that the weights leave, over the factors in scope."""
        share = self.upto[-1] / self.factor.totals[self.distribution]
        return Table(self.scope, share.reshape(self.shape)).merged()

    def draw(self, uniform: np.ndarray | None, codes: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the code of each event, int32 of shape (n_events,)."""
        assert uniform is not None  # noqa: S101 - it is never deterministic
        case = np.zeros(len(uniform), np.int64)
        for (name, groups), size in zip(self.scope.items(), self.shape, strict=True):
            case = case * size + groups[codes[name]]
        n_groups = len(self.upto)
        wanted = uniform * self.upto[-1, case]  # 0 in rows that will not be accepted: they get any code
        group = np.zeros(len(uniform), np.int64)  # by bisection: number of groups with upto <= wanted
        for step in (1 << power for power in reversed(range(n_groups.bit_length()))):
            further = np.minimum(group + step, n_groups)
            group = np.where(self.upto[further - 1, case] <= wanted, further, group)
        group = np.minimum(group, n_groups - 1)
        before = np.where(group > 0, self.upto[group - 1, case], 0.0)
        weight = self.upto[group, case] - before
        left = (wanted - before) / np.where(weight > 0, weight, 1.0)
        slot = self.distribution[case] * n_groups + group
        within = np.minimum((left * self.total[slot]).astype(np.int64), self.total[slot] - 1)
        return np.asarray(self.code[np.clip(self.start[slot] + within, 0, len(self.code) - 1)])

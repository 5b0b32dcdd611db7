"""Factors drawn under conditions, exactly: variable elimination (Dechter 1996; Koller and Friedman 2009).

A condition is a table of zeros and ones over the codes of some factors; a table may hold other weights too.
Backwards, each factor concerned is
summed out: what is left is a *message*, the probability of the conditions behind it as a table over earlier
factors. Forwards, each factor concerned is drawn with its counts times the messages that mention it. A
message keeps codes apart only where its values differ, so tables stay small: the thousand places behind
"Market is Europe" become two groups. As everywhere in sampling, only comparisons, look-ups and the four
basic operations are used.
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

__all__ = ["Table", "TooManyCellsError", "eliminate"]


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

    def at(self, codes: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the value of each row, shape (n_rows,); without factors a single one, shape ()."""
        return np.asarray(self.values[tuple(groups[codes[name]] for name, groups in self.over.items())])

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


def eliminate(network: Network, tables: Sequence[Table]) -> tuple[float, dict[int, FactorSampler]]:
    """Return the probability of what the tables allow, and how to draw the factors concerned.

    Parameters
    ----------
    network : Network
        The factors, in the order of drawing.
    tables : sequence of Table
        Each 1 where a combination of codes is allowed and 0 elsewhere; or how many times as likely it
        becomes.

    Returns
    -------
    share : float
        The probability that a row is allowed by all of them; or how many times as likely a row becomes on
        average.
    samplers : dict of int to FactorSampler
        Samplers of the factors that are drawn otherwise than without the tables, by their place.

    Raises
    ------
    TooManyCellsError
        If a factor depends on too many others at once.
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
    for place in reversed(range(len(network.factors))):
        factor = network.factors[place]
        received = [message for message in messages if factor.name in message.over]
        if factor.name not in masks and not received:
            continue
        messages = [message for message in messages if factor.name not in message.over]
        sampler = _WeightedSampler.of(factor, masks.get(factor.name), received)
        message = sampler.message()
        messages.append(message)
        # A case of weight 0 never comes, and one of weight 1 is drawn right by the plain sampler.
        if not (allowing and np.isin(message.values, (0.0, 1.0)).all()):
            samplers[place] = sampler
    return math.prod(float(message.values) for message in messages), samplers


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
        if math.prod(shape) * n_groups > MAX_CELLS:
            raise TooManyCellsError
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

"""Which earlier variables a variable depends on, and how: a conditional inference tree, as a table.

A node is split only if a test, corrected for the number of variables tried, says that the target depends on
a predictor there (Hothorn, Hornik and Zeileis 2006, "Unbiased recursive partitioning"), so that independent
variables stay independent. The leaves hold observed codes of the target, as in CART synthesis (Reiter 2005).
The finished tree is compiled into look-up tables over groups of the predictors' codes, which is what makes
drawing fast (`logistream.diagrams`).

No leaf that a test made holds fewer rows than `SMALLEST_GROUP`. What `logistream.branches` says before any
test may hold fewer, and there it is told what for.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from logistream.branches import Node, begin
from logistream.coding import SMALLEST_GROUP
from logistream.diagrams import certain, tables
from logistream.independence import log_p_trends, log_p_values
from logistream.model import Factor
from logistream.splits import children, compact, middle_ranks, quantile_groups

if TYPE_CHECKING:
    from collections.abc import Sequence

    from logistream.coding import Coded

__all__ = ["grow"]

_CHANCE_SPLITS = 10.0  # over rows: the chance of splitting a node where nothing depends on anything;
_MOST_CHANCE = 0.05  # and no more than this. A larger table has more nodes, so as many go wrong in any table.
_KNOWN_CHANCE = 0.2  # the same for the predictors that already told something on the way to the node

_MIN_SHARE = 1 / 2000  # of all rows that a leaf holds at least
_MOST_GROUPS = 12  # ordered variables are tested in at most so many groups of equal size,
_CELL_ROWS = 5  # and in so few that this many rows fall into a cell of the table
_MOST_PREDICTORS = 50  # are looked at in the nodes
_AT_ONCE = 2**22  # codes tested at once


@dataclass(frozen=True, slots=True)
class _Split:
    log_p: float
    predictor: int
    child_of: np.ndarray  # (size,) which child each of the predictor's codes leads to


class _Predictors:
    """Variables drawn before, side by side."""

    def __init__(self, variables: Sequence[Coded]) -> None:
        self.variables = variables
        n = len(variables[0].codes) if variables else 0
        self.codes = np.empty((n, len(variables)), np.int64)
        for i, variable in enumerate(variables):
            self.codes[:, i] = variable.codes
        self.ordered = np.array([variable.ordered for variable in variables], bool)

    def log_p(
        self, rows: np.ndarray, labels: np.ndarray, n_groups: int, rank: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the log p-value of each against labels of these rows, and which are of a trend.

        Both of shape (n_predictors,). Of two tests, of a trend and of any dependence, the smaller p-value
        counts, twice as large since there were two.
        """
        step = max(1, _AT_ONCE // len(rows))
        any_, trend = [np.empty(0)], [np.empty(0)]
        for start in range(0, self.codes.shape[1], step):
            codes = self.codes[rows, start : start + step]
            ordered = self.ordered[start : start + step]
            codes[:, ordered] = quantile_groups(codes[:, ordered], n_groups)
            any_.append(log_p_values(codes, labels))
            trend.append(log_p_trends(codes, ordered, labels, rank))
        both = np.stack([np.concatenate(any_), np.concatenate(trend)])
        return np.minimum(both.min(axis=0) + math.log(2), 0), both[1] < both[0]


def grow(
    target: Coded,
    predictors: Sequence[Coded],
    within: Sequence[Coded] = (),
    *,
    facts: int = 0,
    times: np.ndarray | None = None,
) -> list[Factor]:
    """Return factors, the last of which draws `target` given what the predictors were found to tell of it.

    Parameters
    ----------
    target : Coded
        The variable to draw.
    predictors : sequence of Coded
        Variables drawn before it.
    within : sequence of Coded
        Predictors whose every code begins a branch, see `logistream.branches.begin`.
    facts : int
        How many of these, the first ones, are facts.
    times : ndarray of int64 of shape (n_rows,), optional
        How often each row occurred; once if not given. Groups are counted in different rows.
    """
    if len(predictors) > _MOST_PREDICTORS:
        predictors = _screened(target, predictors, within)
    known = _Predictors(predictors)
    places = [next(i for i, predictor in enumerate(predictors) if predictor is coarser) for coarser in within]
    ticket = itertools.count()
    waiting: list[tuple[float, int, _Split]] = []
    nodes: dict[int, Node] = {}
    done: list[tuple[int, list[int], _Split]] = []  # which node became which others

    def settle(more: Sequence[Node]) -> list[int]:
        numbers = [next(ticket) for _ in more]
        for number, node in zip(numbers, more, strict=True):
            nodes[number] = node
            split = None if node.final else _best(node, target, known)
            if split is not None:
                heapq.heappush(waiting, (split.log_p, number, split))
        return numbers

    roots = settle(begin(target, dict(zip(places, within, strict=True)), facts))
    while waiting:  # the most certain split first, since the size of the tables may end the growth
        _, number, split = heapq.heappop(waiting)
        done.append((number, settle(_divide(nodes[number], split, predictors)), split))
    while True:
        leaves = dict.fromkeys(roots)
        groups = {place: np.arange(predictors[place].size) for place in places}
        for number, parts, split in done:
            del leaves[number]
            leaves |= dict.fromkeys(parts)
            groups = _refined(groups, split)
        ended = [nodes[number] for number in leaves]
        factors = _compile(target, predictors, ended, groups, len(places), times)
        if factors is not None:
            return factors
        done = done[: len(done) * 3 // 4]


def _refined(groups: dict[int, np.ndarray], split: _Split) -> dict[int, np.ndarray]:
    """Return the groups of codes that are told apart with this split added."""
    before = groups.get(split.predictor, np.zeros(len(split.child_of), np.int64))
    both = before * (int(split.child_of.max()) + 1) + split.child_of
    return {**groups, split.predictor: np.unique(both, return_inverse=True)[1]}


def _seen(y: np.ndarray, ordered: bool) -> tuple[np.ndarray, int, np.ndarray | None]:
    """Return what a test sees of the target: its groups, how many there may be, and its ranks if ordered."""
    n_groups = int(min(_MOST_GROUPS, max(2, math.sqrt(len(y) / _CELL_ROWS))))
    labels = quantile_groups(y[:, None], n_groups)[:, 0] if ordered else y
    return compact(labels)[1], n_groups, middle_ranks(y) if ordered else None


def _screened(target: Coded, predictors: Sequence[Coded], within: Sequence[Coded]) -> list[Coded]:
    """Return of very many predictors those that tell most in all rows, and those to keep to."""
    log_p, _ = _Predictors(predictors).log_p(
        np.arange(len(target.codes)), *_seen(target.codes, target.ordered)
    )
    kept = set(np.argsort(log_p, kind="stable")[:_MOST_PREDICTORS].tolist())
    return [p for i, p in enumerate(predictors) if i in kept or any(p is coarser for coarser in within)]


def _best(node: Node, target: Coded, known: _Predictors) -> _Split | None:
    """Return the split by the most telling predictor, or None where no test is passed."""
    least = max(SMALLEST_GROUP, int(_MIN_SHARE * len(target.codes)))
    if len(node.rows) < 2 * least:
        return None
    y = target.codes[node.rows]
    labels, n_groups, rank = _seen(y, target.ordered)
    if labels.max() == 0:
        return None
    log_p, trend = known.log_p(node.rows, labels, n_groups, rank)
    chance = min(_CHANCE_SPLITS / len(target.codes), _MOST_CHANCE)
    limit = np.full(len(log_p), math.log(chance / max(len(log_p), 1)))
    limit[list(node.allowed)] = math.log(_KNOWN_CHANCE / max(len(node.allowed), 1))
    for i in np.argsort(log_p, kind="stable"):
        if log_p[i] < limit[i]:
            predictor = known.variables[i]
            told = rank if trend[i] else None
            child_of = children(predictor, predictor.codes[node.rows], y, labels, told, target.ordered, least)
            if child_of is not None:
                return _Split(float(log_p[i]), int(i), child_of)
    return None


def _divide(node: Node, split: _Split, predictors: Sequence[Coded]) -> list[Node]:
    """Return the children; one that no row reaches gets all rows of the node, as if it were not divided."""
    child = split.child_of[predictors[split.predictor].codes[node.rows]]
    before = node.allowed.get(split.predictor, np.ones(len(split.child_of), bool))
    parts = []
    for number in range(int(split.child_of.max()) + 1):
        rows = node.rows[child == number]
        allowed = before & (split.child_of == number)
        if allowed.any():
            path = {**node.allowed, split.predictor: allowed}
            parts.append(Node(rows, path) if len(rows) else Node(node.rows, path, final=True))
    return parts


def _compile(
    target: Coded,
    predictors: Sequence[Coded],
    leaves: Sequence[Node],
    groups: dict[int, np.ndarray],
    firm: int,
    times: np.ndarray | None,
) -> list[Factor] | None:
    """Return the tree as factors, the last of which draws the target; None if they would be too large."""
    found, counts = [], []
    for leaf in leaves:
        codes, which = compact(target.codes[leaf.rows])
        found.append(codes)
        counts.append(np.bincount(which, None if times is None else times[leaf.rows]).astype(np.int64))
    reached = []
    for place, group in groups.items():
        lit = np.ones((len(leaves), int(group.max()) + 1), bool)
        for number, leaf in enumerate(leaves):
            if place in leaf.allowed:
                lit[number] = False
                lit[number, group[leaf.allowed[place]]] = True
        reached.append(lit)
    steps = tables(reached, firm)
    if steps is None:
        return None
    factors: list[Factor] = []
    left = list(groups.items())
    before: list[tuple[str, np.ndarray]] = []
    for many, table in steps:
        read, left = left[:many], left[many:]
        asked = [*before, *((predictors[place].name, group) for place, group in read)]
        parents, sorts = [name for name, _ in asked], [group for _, group in asked]
        if not left:
            factors.append(
                Factor(
                    name=target.name,
                    size=target.size,
                    parents=tuple(parents),
                    groups=tuple(sorts),
                    urn_of=table.reshape(-1),
                    offsets=np.cumsum([0, *map(len, found)]),
                    codes=np.concatenate(found),
                    counts=np.concatenate(counts),
                    emissions=target.emissions,
                )
            )
            break
        name, size = f"where {target.name} is drawn, {len(factors) + 1}", int(table.max()) + 1
        factors.append(certain(name, size, parents, sorts, table.reshape(-1)))
        before = [(name, np.arange(size))]
    return factors

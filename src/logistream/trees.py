"""Which earlier variables a variable depends on, and how: a conditional inference tree, as a table.

A node is split only if a test, corrected for the number of variables tried, says that the target depends on
a predictor there (Hothorn, Hornik and Zeileis 2006, "Unbiased recursive partitioning"), so that independent
variables stay independent. The leaves hold observed codes of the target, as in CART synthesis (Reiter 2005).
The finished tree is compiled into a look-up table over groups of the predictors' codes, which is what makes
drawing fast.

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
from logistream.independence import log_p_values
from logistream.model import Factor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from logistream.coding import Coded

__all__ = ["grow"]

ALPHA = 0.001
"""Chance of splitting a node where nothing depends on anything."""

KNOWN_ALPHA = 0.2
"""The same for the predictors that already told something on the way to the node."""

_MIN_SHARE = 1 / 2000  # of all rows that a leaf holds at least
_MAX_CELLS = 2**18  # of the compiled table
_MOST_GROUPS = 12  # ordered variables are tested in at most so many groups of equal size,
_CELL_ROWS = 5  # and in so few that this many rows fall into a cell of the table
_SPLIT_GROUPS = 64  # places tried for a split of an ordered predictor
_DETERMINED = 0.8  # share of an ordered target's variance: above, each code of the predictor gets a leaf
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

    def log_p(self, rows: np.ndarray, labels: np.ndarray, n_groups: int) -> np.ndarray:
        """Return the log p-value of each against labels of these rows, shape (n_predictors,)."""
        step = max(1, _AT_ONCE // len(rows))
        parts = []
        for start in range(0, self.codes.shape[1], step):
            codes = self.codes[rows, start : start + step]
            ordered = self.ordered[start : start + step]
            codes[:, ordered] = _quantile_groups(codes[:, ordered], n_groups)
            parts.append(log_p_values(codes, labels))
        return np.concatenate(parts) if parts else np.empty(0)


def grow(
    target: Coded,
    predictors: Sequence[Coded],
    within: Sequence[Coded] = (),
    *,
    facts: int = 0,
    times: np.ndarray | None = None,
) -> Factor:
    """Return the factor that draws `target` given what the predictors were found to tell of it.

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
    leaves: dict[int, Node] = {}
    groups: dict[int, np.ndarray] = {}  # predictor → group of each code; codes that no split tells apart
    waiting: list[tuple[float, int, _Split]] = []
    ticket = itertools.count()
    known = _Predictors(predictors)

    def settle(nodes: Sequence[Node]) -> None:
        for node in nodes:
            number = next(ticket)
            leaves[number] = node
            split = None if node.final else _best(node, target, known)
            if split is not None:
                heapq.heappush(waiting, (split.log_p, number, split))

    places = [next(i for i, predictor in enumerate(predictors) if predictor is coarser) for coarser in within]
    groups = {place: np.arange(predictors[place].size) for place in places}
    settle(begin(target, dict(zip(places, within, strict=True)), facts))
    while waiting:  # the most certain split first, since the size of the table may end the growth
        _, number, split = heapq.heappop(waiting)
        finer = _refined(groups, split)
        if math.prod(int(group.max()) + 1 for group in finer.values()) <= _MAX_CELLS:
            groups = finer
            settle(_divide(leaves.pop(number), split, predictors))
    return _compile(target, predictors, list(leaves.values()), groups, times)


def _refined(groups: dict[int, np.ndarray], split: _Split) -> dict[int, np.ndarray]:
    """Return the groups of codes that are told apart with this split added."""
    before = groups.get(split.predictor, np.zeros(len(split.child_of), np.int64))
    both = before * (int(split.child_of.max()) + 1) + split.child_of
    return {**groups, split.predictor: np.unique(both, return_inverse=True)[1]}


def _best(node: Node, target: Coded, known: _Predictors) -> _Split | None:
    """Return the split by the most telling predictor, or None where no test is passed."""
    least = max(SMALLEST_GROUP, int(_MIN_SHARE * len(target.codes)))
    if len(node.rows) < 2 * least:
        return None
    y = target.codes[node.rows]
    n_groups = int(min(_MOST_GROUPS, max(2, math.sqrt(len(y) / _CELL_ROWS))))
    labels = _quantile_groups(y[:, None], n_groups)[:, 0] if target.ordered else y
    labels = _compact(labels)[1]
    if labels.max() == 0:
        return None
    log_p = known.log_p(node.rows, labels, n_groups)
    limit = np.full(len(log_p), math.log(ALPHA / max(len(log_p), 1)))
    if target.ordered:
        limit[list(node.allowed)] = math.log(KNOWN_ALPHA / max(len(node.allowed), 1))
    for i in np.argsort(log_p, kind="stable"):
        if log_p[i] < limit[i]:
            predictor = known.variables[i]
            child_of = _children(predictor, predictor.codes[node.rows], y, labels, target.ordered, least)
            if child_of is not None:
                return _Split(float(log_p[i]), int(i), child_of)
    return None


def _children(
    predictor: Coded, x: np.ndarray, y: np.ndarray, labels: np.ndarray, ordered_target: bool, least: int
) -> np.ndarray | None:
    """Return which child each of the predictor's codes leads to; None if no division leaves enough rows."""
    present, compact = _compact(x)
    shape = len(present), int(labels.max()) + 1
    table = np.bincount(compact * shape[1] + labels, minlength=math.prod(shape)).reshape(shape)
    weight = table.sum(axis=1)
    if ordered_target and not predictor.ordered and _explained(compact, y, len(present)) > _DETERMINED:
        lots = _lots(np.bincount(compact, y) / weight, weight)
        if lots is not None:
            child_of = np.full(predictor.size, lots.max() + 1)  # the last child: codes that do not occur here
            child_of[present] = lots
            return child_of
    if predictor.ordered:
        order = np.arange(len(present))
    else:
        score = np.bincount(compact, y) / weight if ordered_target else _principal_score(table)
        order = np.argsort(score, kind="stable")
    cut = _best_cut(table[order], weight[order], least)
    if cut is None:
        return None
    if predictor.ordered:
        return np.asarray(np.arange(predictor.size) >= present[cut], dtype=np.int64)
    child_of = np.full(
        predictor.size, int(weight[order[:cut]].sum() * 2 < weight.sum())
    )  # unseen: the larger
    child_of[present[order]] = np.arange(len(present)) >= cut
    return child_of


def _lots(score: np.ndarray, weight: np.ndarray) -> np.ndarray | None:
    """Return a number for each code: its own, or, for rare ones, that of a lot with like scores."""
    lots = np.full(len(weight), -1)
    common = weight >= SMALLEST_GROUP
    lots[common] = np.arange(common.sum())
    number, rows = int(common.sum()), 0
    rare = np.flatnonzero(~common)
    rare = rare[np.argsort(score[rare], kind="stable")]
    for code in rare:
        lots[code] = number
        rows += int(weight[code])
        if rows >= SMALLEST_GROUP:
            number, rows = number + 1, 0
    if rows:  # too few are left: they join the lot before, or the common code that is most like them
        left = lots == number
        if number > common.sum():
            lots[left] = number - 1
        elif common.any():
            nearest = np.abs(score[left].mean() - np.where(common, score, np.inf)).argmin()
            lots[left] = lots[nearest]
        else:
            return None
    return lots if lots.max() > 0 else None


def _best_cut(table: np.ndarray, weight: np.ndarray, least: int) -> int | None:
    """Return after how many rows of the table to cut so that both sides differ most (by G²)."""
    behind = np.cumsum(weight)
    total = behind[-1]
    places = np.flatnonzero((behind[:-1] >= least) & (total - behind[:-1] >= least)) + 1
    if len(places) == 0:
        return None
    if len(places) > _SPLIT_GROUPS:
        wanted = np.linspace(behind[places[0] - 1], behind[places[-1] - 1], _SPLIT_GROUPS)
        places = places[np.unique(np.searchsorted(behind[places - 1], wanted).clip(0, len(places) - 1))]
    left = np.add.reduceat(table, np.concatenate([[0], places[:-1]]), axis=0)[: len(places)].cumsum(axis=0)
    right = table.sum(axis=0) - left
    gain = (
        _xlogx(left).sum(axis=1)
        - _xlogx(left.sum(axis=1))
        + _xlogx(right).sum(axis=1)
        - _xlogx(right.sum(axis=1))
    )
    return int(places[int(np.argmax(gain))])


def _xlogx(x: np.ndarray) -> np.ndarray:
    return np.asarray(x * np.log(np.maximum(x, 1)))


def _principal_score(table: np.ndarray) -> np.ndarray:
    """Return the first correspondence score of each row: rows with like profiles get like scores."""
    p = table / table.sum()
    rows, columns = p.sum(axis=1), p.sum(axis=0)
    residual = (p - np.outer(rows, columns)) / np.sqrt(np.outer(rows, columns))
    if min(residual.shape) > 200:  # by power iteration where a full decomposition would be slow
        axis = residual[int(np.argmax(np.abs(residual).sum(axis=1)))]
        for _ in range(30):
            axis = residual.T @ (residual @ axis)
            axis /= np.linalg.norm(axis) or 1.0
        return np.asarray(residual @ axis / np.sqrt(rows))
    u = np.linalg.svd(residual, full_matrices=False)[0]
    return np.asarray(u[:, 0] / np.sqrt(rows))


def _explained(groups: np.ndarray, y: np.ndarray, n_groups: int) -> float:
    """Return the share of the variance of y that the groups explain, adjusted for their number."""
    n = len(y)
    if n <= n_groups + 1:
        return 0.0
    mean = np.bincount(groups, y, n_groups) / np.bincount(groups, minlength=n_groups)
    total, left = float(((y - y.mean()) ** 2).sum()), float(((y - mean[groups]) ** 2).sum())
    return 1 - (left / (n - n_groups)) / (total / (n - 1)) if total > 0 else 0.0


def _quantile_groups(codes: np.ndarray, n_groups: int) -> np.ndarray:
    """Return the codes of each column merged into `n_groups` groups of neighbours, about as many rows each.

    Columns with no more codes than that keep them.
    """
    if codes.size == 0:
        return codes
    n, many = codes.shape
    sizes = codes.max(axis=0) + 1
    start = np.cumsum(sizes) - sizes
    cell = codes + start
    counts = np.bincount(cell.reshape(-1), minlength=int(sizes.sum()))
    middle = np.cumsum(counts) - counts / 2 - np.repeat(np.arange(many) * n, sizes)
    few = np.add.reduceat(counts > 0, start, dtype=np.int64) <= n_groups
    group = np.where(
        np.repeat(few, sizes),
        np.arange(len(counts)) - np.repeat(start, sizes),
        (middle * n_groups / n).astype(np.int64),
    )
    return np.asarray(group[cell])


def _compact(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes that occur, in order, and the place among them of each; a fast np.unique."""
    size = int(codes.max()) + 1
    if size > 4 * len(codes):
        present, places = np.unique(codes, return_inverse=True)
        return present, places
    present = np.flatnonzero(np.bincount(codes, minlength=size))
    place_of = np.zeros(size, np.int64)
    place_of[present] = np.arange(len(present))
    return present, place_of[codes]


def _divide(node: Node, split: _Split, predictors: Sequence[Coded]) -> list[Node]:
    """Return the children; one that no row reaches gets all rows of the node, as if it were not divided."""
    child = split.child_of[predictors[split.predictor].codes[node.rows]]
    before = node.allowed.get(split.predictor, np.ones(len(split.child_of), bool))
    children = []
    for number in range(int(split.child_of.max()) + 1):
        rows = node.rows[child == number]
        allowed = before & (split.child_of == number)
        if allowed.any():
            path = {**node.allowed, split.predictor: allowed}
            children.append(Node(rows, path) if len(rows) else Node(node.rows, path, final=True))
    return children


def _compile(
    target: Coded,
    predictors: Sequence[Coded],
    leaves: Sequence[Node],
    groups: dict[int, np.ndarray],
    times: np.ndarray | None,
) -> Factor:
    """Return the tree as a factor."""
    sizes = [int(group.max()) + 1 for group in groups.values()]
    urn_of = np.zeros(sizes or [1], np.int64)
    codes, counts, offsets = [], [], [0]
    for urn, leaf in enumerate(leaves):
        lit = []
        for (i, group), size in zip(groups.items(), sizes, strict=True):
            inside = np.ones(size, bool)
            if i in leaf.allowed:
                inside[:] = False
                inside[group[leaf.allowed[i]]] = True
            lit.append(inside)
        if lit:
            urn_of[np.ix_(*lit)] = urn
        found, place = _compact(target.codes[leaf.rows])
        many = np.bincount(place, None if times is None else times[leaf.rows]).astype(np.int64)
        codes.append(found)
        counts.append(many)
        offsets.append(offsets[-1] + len(found))
    return Factor(
        name=target.name,
        size=target.size,
        parents=tuple(predictors[i].name for i in groups),
        groups=tuple(groups.values()),
        urn_of=urn_of.reshape(-1),
        offsets=np.array(offsets),
        codes=np.concatenate(codes),
        counts=np.concatenate(counts),
        emissions=target.emissions,
    )

"""Which earlier variables a variable depends on, and how: a conditional inference tree, as a table.

A node is split only if a test, corrected for the number of variables tried, says that the target depends on
a predictor there (Hothorn, Hornik and Zeileis 2006, "Unbiased recursive partitioning"), so that independent
variables stay independent. The leaves hold observed codes of the target, as in CART synthesis (Reiter 2005).
The finished tree is compiled into a look-up table over groups of the predictors' codes, which is what makes
drawing fast.
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from logistream.independence import log_p_value
from logistream.model import Factor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from logistream.coding import Coded

__all__ = ["grow"]

ALPHA = 0.001
"""Chance of splitting a node where nothing depends on anything."""

KNOWN_ALPHA = 0.2
"""The same for the predictors that already told something on the way to the node."""

_MIN_LEAF = 5  # rows; but not less than
_MIN_SHARE = 1 / 2000  # of all
_MAX_CELLS = 2**18  # of the compiled table
_MOST_GROUPS = 12  # ordered variables are tested in at most so many groups of equal size,
_CELL_ROWS = 5  # and in so few that this many rows fall into a cell of the table
_SPLIT_GROUPS = 64  # places tried for a split of an ordered predictor
_DETERMINED = 0.8  # share of an ordered target's variance: above, each code of the predictor gets a leaf


@dataclass(slots=True)
class _Node:
    rows: np.ndarray
    allowed: dict[int, np.ndarray]  # predictor → (size,) bool: its codes that lead here
    unseen: bool = False  # a combination that no row has; drawn as if the last split had not been made


@dataclass(frozen=True, slots=True)
class _Split:
    log_p: float
    predictor: int
    child_of: np.ndarray  # (size,) which child each of the predictor's codes leads to


def grow(target: Coded, predictors: Sequence[Coded], within: Sequence[Coded] = ()) -> Factor:
    """Return the factor that draws `target` given what the predictors were found to tell of it.

    Parameters
    ----------
    target : Coded
        The variable to draw.
    predictors : sequence of Coded
        Variables drawn before it.
    within : sequence of Coded
        Predictors whose every code begins a branch.
    """
    leaves: dict[int, _Node] = {}
    groups: dict[int, np.ndarray] = {}  # predictor → group of each code; codes that no split tells apart
    waiting: list[tuple[float, int, _Split]] = []
    ticket = itertools.count()

    def settle(nodes: Sequence[_Node]) -> None:
        for node in nodes:
            number = next(ticket)
            leaves[number] = node
            split = None if node.unseen else _best(node, target, predictors)
            if split is not None:
                heapq.heappush(waiting, (split.log_p, number, split))

    root = _Node(np.arange(len(target.codes)), {})
    nodes = [root]
    for coarser in within:
        place = next(i for i, predictor in enumerate(predictors) if predictor is coarser)
        groups[place] = np.arange(coarser.size)
        split = _Split(-math.inf, place, groups[place])
        nodes = [child for node in nodes for child in _divide(node, split, predictors)]
    settle(nodes)
    while waiting:  # the most certain split first, since the size of the table may end the growth
        _, number, split = heapq.heappop(waiting)
        finer = _refined(groups, split)
        if math.prod(int(group.max()) + 1 for group in finer.values()) <= _MAX_CELLS:
            groups = finer
            settle(_divide(leaves.pop(number), split, predictors))
    return _compile(target, predictors, list(leaves.values()), groups)


def _refined(groups: dict[int, np.ndarray], split: _Split) -> dict[int, np.ndarray]:
    """Return the groups of codes that are told apart with this split added."""
    before = groups.get(split.predictor, np.zeros(len(split.child_of), np.int64))
    both = before * (int(split.child_of.max()) + 1) + split.child_of
    return {**groups, split.predictor: np.unique(both, return_inverse=True)[1]}


def _best(node: _Node, target: Coded, predictors: Sequence[Coded]) -> _Split | None:
    """Return the split by the most telling predictor, or None where no test is passed."""
    least = max(_MIN_LEAF, int(_MIN_SHARE * len(target.codes)))
    if len(node.rows) < 2 * least:
        return None
    y = target.codes[node.rows]
    n_groups = int(min(_MOST_GROUPS, max(2, math.sqrt(len(y) / _CELL_ROWS))))
    labels = _quantile_groups(y, n_groups) if target.ordered else y
    labels = _compact(labels)[1]
    if labels.max() == 0:
        return None
    new = math.log(ALPHA / max(len(predictors), 1))
    known = math.log(KNOWN_ALPHA / max(len(node.allowed), 1))
    ranked = []
    for i, predictor in enumerate(predictors):
        x = predictor.codes[node.rows]
        groups = _quantile_groups(x, n_groups) if predictor.ordered else x
        log_p = log_p_value(_contingency(groups, labels))
        if log_p < (known if target.ordered and i in node.allowed else new):
            ranked.append((log_p, i))
    for log_p, i in sorted(ranked):
        child_of = _children(predictors[i], predictors[i].codes[node.rows], y, labels, target.ordered, least)
        if child_of is not None:
            return _Split(log_p, i, child_of)
    return None


def _children(
    predictor: Coded, x: np.ndarray, y: np.ndarray, labels: np.ndarray, ordered_target: bool, least: int
) -> np.ndarray | None:
    """Return which child each of the predictor's codes leads to; None if no division leaves enough rows."""
    present, compact = _compact(x)
    table = _contingency(compact, labels)
    weight = table.sum(axis=1)
    if ordered_target and not predictor.ordered and _explained(compact, y, len(present)) > _DETERMINED:
        child_of = np.full(predictor.size, len(present))  # the last child: codes that do not occur here
        child_of[present] = np.arange(len(present))
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
    """Return codes merged into at most `n_groups` groups of neighbours with about as many rows each."""
    counts = np.bincount(codes)
    if np.count_nonzero(counts) <= n_groups:
        return codes
    middle = np.cumsum(counts) - counts / 2
    return np.asarray((middle * n_groups / len(codes)).astype(np.int64)[codes])


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


def _contingency(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a = _compact(a)[1]
    r, c = int(a.max()) + 1, int(b.max()) + 1
    return np.bincount(a * c + b, minlength=r * c).reshape(r, c)


def _divide(node: _Node, split: _Split, predictors: Sequence[Coded]) -> list[_Node]:
    """Return the children; one that no row reaches gets all rows of the node."""
    child = split.child_of[predictors[split.predictor].codes[node.rows]]
    before = node.allowed.get(split.predictor, np.ones(len(split.child_of), bool))
    children = []
    for number in range(int(split.child_of.max()) + 1):
        rows = node.rows[child == number]
        allowed = before & (split.child_of == number)
        if allowed.any():
            path = {**node.allowed, split.predictor: allowed}
            children.append(_Node(rows, path) if len(rows) else _Node(node.rows, path, unseen=True))
    return children


def _compile(
    target: Coded, predictors: Sequence[Coded], leaves: Sequence[_Node], groups: dict[int, np.ndarray]
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
        found, many = np.unique(target.codes[leaf.rows], return_counts=True)
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

"""Which earlier variables a variable depends on, and how: a conditional inference tree, as tables.

A node is split only if a test, corrected for the number of variables tried, finds that the target depends on
a predictor there (Hothorn, Hornik and Zeileis 2006, "Unbiased recursive partitioning"), so that independent
variables stay independent. An ordered predictor is cut at one place; the codes of an unordered one are first
put in order, by the target's mean or by the first correspondence score, and then cut. If an unordered
predictor nearly determines an ordered target, each of its codes gets a child of its own.

The leaves hold observed codes of the target, as in CART synthesis (Reiter 2005). No leaf that a test made
holds fewer rows than `SMALLEST_GROUP`; the branches that a tree begins with may, and
`logistream.fitting.branches` says why. The finished tree is compiled into look-up tables over groups of the
predictors' codes, which makes drawing fast (`logistream.fitting.decision_diagram`).
"""

from __future__ import annotations

import heapq
import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from logistream.fitting.branches import Node, begin
from logistream.fitting.coding import SMALLEST_GROUP
from logistream.fitting.decision_diagram import deterministic, tables
from logistream.fitting.independence import log_p_trends, log_p_values
from logistream.model.network import Factor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from logistream.fitting.coding import Coded

__all__ = ["MOST_TESTED", "grow"]


MOST_TESTED = 50
"""Predictors that are tested in the nodes of a tree, at most."""

_CHANCE_SPLITS = 10.0  # over rows: the chance of splitting a node where nothing depends on anything;
_MOST_CHANCE = 0.05  # and no more than this. A larger table has more nodes, so as many go wrong in any table.
_KNOWN_CHANCE = 0.2  # the same for predictors that split a node above or pass the test in all rows
_MIN_SHARE = 1 / 2000  # of all rows that a leaf holds at least
_MOST_GROUPS = 12  # ordered variables are tested in at most so many groups of equal size,
_CELL_ROWS = 5  # and in so few that this many rows fall into a cell of the table
_AT_ONCE = 2**22  # codes tested at once
_CUTS_TRIED = 64  # for an ordered predictor
_NEARLY_DETERMINED = (
    0.8  # share of an ordered target's variance: above, each code of the predictor gets a child
)


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
            codes[:, ordered] = _quantile_groups(codes[:, ordered], n_groups)
            any_.append(log_p_values(codes, labels))
            trend.append(log_p_trends(codes, ordered, labels, rank))
        both = np.stack([np.concatenate(any_), np.concatenate(trend)])
        return np.minimum(both.min(axis=0) + math.log(2), 0), both[1] < both[0]


def grow(
    target: Coded,
    predictors: Sequence[Coded],
    within: Sequence[Coded] = (),
    *,
    functional: int = 0,
    times: np.ndarray | None = None,
    most: int = MOST_TESTED,
) -> list[Factor]:
    """Return factors, the last of which draws `target` given the predictors that it depends on.

    Parameters
    ----------
    target : Coded
        The variable to draw.
    predictors : sequence of Coded
        Variables drawn before it.
    within : sequence of Coded
        Predictors whose every code begins a branch, see `logistream.fitting.branches.begin`.
    functional : int
        How many of these, the first ones, are functional dependencies.
    times : ndarray of int64 of shape (n_rows,), optional
        How often each row occurred; once if not given. The sizes of groups count different rows.
    most : int
        Predictors that are tested in the nodes, at most: those with the least p-values in all rows.
    """
    known, related = _screened(target, predictors, within, most)
    predictors = known.variables
    places = [next(i for i, predictor in enumerate(predictors) if predictor is coarser) for coarser in within]
    ticket = itertools.count()
    waiting: list[tuple[float, int, _Split]] = []
    nodes: dict[int, Node] = {}
    done: list[tuple[int, list[int], _Split]] = []  # which node became which others

    def settle(more: Sequence[Node]) -> list[int]:
        numbers = [next(ticket) for _ in more]
        for number, node in zip(numbers, more, strict=True):
            nodes[number] = node
            split = None if node.final else _best(node, target, known, related)
            if split is not None:
                heapq.heappush(waiting, (split.log_p, number, split))
        return numbers

    roots = settle(begin(target, dict(zip(places, within, strict=True)), functional))
    while waiting:  # the split of least p-value first, since the size of the tables may end the growth
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
    """Return the groups of codes that are kept apart with this split added."""
    before = groups.get(split.predictor, np.zeros(len(split.child_of), np.int64))
    both = before * (int(split.child_of.max()) + 1) + split.child_of
    return {**groups, split.predictor: np.unique(both, return_inverse=True)[1]}


def _test_view(y: np.ndarray, ordered: bool) -> tuple[np.ndarray, int, np.ndarray | None]:
    """Return the target as tests see it: its groups, how many there may be, and its ranks if ordered."""
    n_groups = int(min(_MOST_GROUPS, max(2, math.sqrt(len(y) / _CELL_ROWS))))
    labels = _quantile_groups(y[:, None], n_groups)[:, 0] if ordered else y
    return _compact(labels)[1], n_groups, _middle_ranks(y) if ordered else None


def _screened(
    target: Coded, predictors: Sequence[Coded], within: Sequence[Coded], most: int
) -> tuple[_Predictors, list[int]]:
    """Return the predictors to test, and which of them the target depends on in all rows."""
    known = _Predictors(predictors)
    if not predictors:
        return known, []
    log_p, _ = known.log_p(np.arange(len(target.codes)), *_test_view(target.codes, target.ordered))
    limit = _log_limit(target, len(predictors))
    if len(predictors) > most:
        best = set(np.argsort(log_p, kind="stable")[:most].tolist())
        kept = [i for i, p in enumerate(predictors) if i in best or any(p is coarser for coarser in within)]
        known, log_p = _Predictors([predictors[i] for i in kept]), log_p[kept]
    return known, np.flatnonzero(log_p < limit).tolist()


def _log_limit(target: Coded, tests: int) -> float:
    """Return below which log p-value one of several tests finds a dependence."""
    return math.log(min(_CHANCE_SPLITS / len(target.codes), _MOST_CHANCE) / tests)


def _best(node: Node, target: Coded, known: _Predictors, related: Sequence[int]) -> _Split | None:
    """Return the split by the predictor of least p-value, or None where no test is passed.

    What the target depends on in all rows, it mostly depends on in a few of them as well, where a test has
    little power. So for such predictors a larger p-value will do.
    """
    least = max(SMALLEST_GROUP, int(_MIN_SHARE * len(target.codes)))
    if len(node.rows) < 2 * least:
        return None
    y = target.codes[node.rows]
    labels, n_groups, rank = _test_view(y, target.ordered)
    if labels.max() == 0:
        return None
    log_p, trend = known.log_p(node.rows, labels, n_groups, rank)
    limit = np.full(len(log_p), _log_limit(target, max(len(log_p), 1)))
    likely = list({*related, *node.allowed})
    limit[likely] = math.log(_KNOWN_CHANCE / max(len(likely), 1))
    for i in np.argsort(log_p, kind="stable"):
        if log_p[i] < limit[i]:
            predictor = known.variables[i]
            by_rank = rank if trend[i] else None
            child_of = _children(
                predictor, predictor.codes[node.rows], y, labels, by_rank, target.ordered, least
            )
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
        codes, which = _compact(target.codes[leaf.rows])
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
    unread = list(groups.items())
    before: list[tuple[str, np.ndarray]] = []
    for many, table in steps:
        read, unread = unread[:many], unread[many:]
        asked = [*before, *((predictors[place].name, group) for place, group in read)]
        parents, of_parents = [name for name, _ in asked], [group for _, group in asked]
        if not unread:
            factors.append(
                Factor(
                    name=target.name,
                    size=target.size,
                    parents=tuple(parents),
                    groups=tuple(of_parents),
                    distribution_of=table.reshape(-1),
                    offsets=np.cumsum([0, *map(len, found)]),
                    codes=np.concatenate(found),
                    counts=np.concatenate(counts),
                    emissions=target.emissions,
                )
            )
            break
        name, size = f"branch of {target.name}, {len(factors) + 1}", int(table.max()) + 1
        factors.append(deterministic(name, size, parents, of_parents, table.reshape(-1)))
        before = [(name, np.arange(size))]
    return factors


def _children(
    predictor: Coded,
    x: np.ndarray,
    y: np.ndarray,
    labels: np.ndarray,
    rank: np.ndarray | None,
    ordered_target: bool,
    least: int,
) -> np.ndarray | None:
    """Return which child each of the predictor's codes leads to; None if no split leaves enough rows.

    Parameters
    ----------
    predictor : Coded
        The variable to split by.
    x : ndarray of int64 of shape (n_rows,)
        Its codes in the rows to split.
    y, labels : ndarray of int64 of shape (n_rows,)
        Codes of the target, and groups of them.
    rank : ndarray of float64 of shape (n_rows,) or None
        Ranks of the target if the children are to differ in the mean rank, None if in any way.
    ordered_target : bool
        Whether neighbouring codes of the target are alike.
    least : int
        Rows that each child has at least.

    Returns
    -------
    ndarray of int64 of shape (n_codes,) or None
        From 0; codes that do not occur in these rows have a child as well.
    """
    present, place = _compact(x)
    shape = len(present), int(labels.max()) + 1
    table = np.bincount(place * shape[1] + labels, minlength=math.prod(shape)).reshape(shape)
    weight = table.sum(axis=1)
    if ordered_target and not predictor.ordered and _explained(place, y, len(present)) > _NEARLY_DETERMINED:
        merged = _merged_rare(np.bincount(place, y) / weight, weight)
        if merged is not None:
            child_of = np.full(
                predictor.size, merged.max() + 1
            )  # the last child: codes that do not occur here
            child_of[present] = merged
            return child_of
    if predictor.ordered:
        order = np.arange(len(present))
    else:
        position = np.bincount(place, y) / weight if ordered_target else _correspondence_score(table)
        order = np.argsort(position, kind="stable")
    sums = None if rank is None else np.bincount(place, rank)[order]
    cut = _best_cut(table[order], weight[order], least, sums)
    if cut is None:
        return None
    if predictor.ordered:
        return np.asarray(np.arange(predictor.size) >= present[cut], dtype=np.int64)
    larger = int(weight[order[:cut]].sum() * 2 < weight.sum())
    child_of = np.full(predictor.size, larger)  # for codes that do not occur in these rows
    child_of[present[order]] = np.arange(len(present)) >= cut
    return child_of


def _merged_rare(position: np.ndarray, weight: np.ndarray) -> np.ndarray | None:
    """Return a child for each code: its own, or one for several rare codes with neighbouring positions."""
    child = np.full(len(weight), -1)
    common = weight >= SMALLEST_GROUP
    child[common] = np.arange(common.sum())
    number, rows = int(common.sum()), 0
    rare = np.flatnonzero(~common)
    rare = rare[np.argsort(position[rare], kind="stable")]
    for code in rare:
        child[code] = number
        rows += int(weight[code])
        if rows >= SMALLEST_GROUP:
            number, rows = number + 1, 0
    if rows:  # too few are left: they join the child before, or the nearest common code
        left = child == number
        if number > common.sum():
            child[left] = number - 1
        elif common.any():
            nearest = np.abs(position[left].mean() - np.where(common, position, np.inf)).argmin()
            child[left] = child[nearest]
        else:
            return None
    return child if child.max() > 0 else None


def _best_cut(
    table: np.ndarray, weight: np.ndarray, least: int, sums: np.ndarray | None = None
) -> int | None:
    """Return after how many rows of the table to cut so that both sides differ most.

    They differ by G², or, where sums of ranks are given for each row of the table, in the mean rank.
    """
    behind = np.cumsum(weight)
    total = behind[-1]
    places = np.flatnonzero((behind[:-1] >= least) & (total - behind[:-1] >= least)) + 1
    if len(places) == 0:
        return None

    def difference(places: np.ndarray) -> np.ndarray:
        if sums is not None:
            before = behind[places - 1]
            ahead = np.cumsum(sums - weight * (sums.sum() / total))[places - 1]
            return np.asarray(ahead**2 * (1 / before + 1 / (total - before)))
        left = np.add.reduceat(table, np.concatenate([[0], places[:-1]]), axis=0)[: len(places)].cumsum(
            axis=0
        )
        return np.asarray(_log_likelihood(left) + _log_likelihood(table.sum(axis=0) - left))

    while len(places) > _CUTS_TRIED:  # some of them, then those around the best one
        wanted = np.linspace(behind[places[0] - 1], behind[places[-1] - 1], _CUTS_TRIED)
        tried = np.unique(np.searchsorted(behind[places - 1], wanted).clip(0, len(places) - 1))
        best = int(np.argmax(difference(places[tried])))
        around = places[tried[max(best - 1, 0)] : tried[min(best + 1, len(tried) - 1)] + 1]
        if len(around) == len(places):  # nearly all rows are at one of them
            break
        places = around
    best = int(np.argmax(difference(places)))
    return int(places[best])


def _log_likelihood(counts: np.ndarray) -> np.ndarray:
    """Return the log-likelihood of counts under their own shares, one for each row."""
    return np.asarray(_xlogx(counts).sum(axis=1) - _xlogx(counts.sum(axis=1)))


def _xlogx(x: np.ndarray) -> np.ndarray:
    return np.asarray(x * np.log(np.maximum(x, 1)))


def _correspondence_score(table: np.ndarray) -> np.ndarray:
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


def _middle_ranks(codes: np.ndarray) -> np.ndarray:
    """Return the rank of each code among these, equal ones their middle, shape (n_rows,)."""
    counts = np.bincount(codes)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[codes])


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

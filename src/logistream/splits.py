"""Where a tree divides its rows: by which codes of a predictor.

An ordered predictor is cut at one place; of an unordered one the codes are put in an order first, by the
target's mean or by the first correspondence score, and then cut. If it settles an ordered target nearly, each
of its codes gets a child of its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from logistream.coding import SMALLEST_GROUP

if TYPE_CHECKING:
    from logistream.coding import Coded

__all__ = ["children", "compact", "middle_ranks", "quantile_groups"]

_SPLIT_GROUPS = 64  # places tried for a split of an ordered predictor
_DETERMINED = 0.8  # share of an ordered target's variance: above, each code of the predictor gets a child


def children(
    predictor: Coded,
    x: np.ndarray,
    y: np.ndarray,
    labels: np.ndarray,
    rank: np.ndarray | None,
    ordered_target: bool,
    least: int,
) -> np.ndarray | None:
    """Return which child each of the predictor's codes leads to; None if no division leaves enough rows.

    Parameters
    ----------
    predictor : Coded
        The variable that divides.
    x : ndarray of int64 of shape (n_rows,)
        Its codes in the rows to divide.
    y, labels : ndarray of int64 of shape (n_rows,)
        Codes of the target, and groups of them.
    rank : ndarray of float64 of shape (n_rows,) or None
        Ranks of the target if the rows are to be divided by the mean rank, None if by all differences.
    ordered_target : bool
        Whether neighbouring codes of the target are alike.
    least : int
        Rows that each child has at least.

    Returns
    -------
    ndarray of int64 of shape (n_codes,) or None
        From 0; codes that do not occur in these rows have a child as well.
    """
    present, place = compact(x)
    shape = len(present), int(labels.max()) + 1
    table = np.bincount(place * shape[1] + labels, minlength=math.prod(shape)).reshape(shape)
    weight = table.sum(axis=1)
    if ordered_target and not predictor.ordered and _explained(place, y, len(present)) > _DETERMINED:
        lots = _lots(np.bincount(place, y) / weight, weight)
        if lots is not None:
            child_of = np.full(predictor.size, lots.max() + 1)  # the last child: codes that do not occur here
            child_of[present] = lots
            return child_of
    if predictor.ordered:
        order = np.arange(len(present))
    else:
        score = np.bincount(place, y) / weight if ordered_target else _principal_score(table)
        order = np.argsort(score, kind="stable")
    sums = None if rank is None else np.bincount(place, rank)[order]
    cut = _best_cut(table[order], weight[order], least, sums)
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

    while len(places) > _SPLIT_GROUPS:  # some of them, then those around the best one
        wanted = np.linspace(behind[places[0] - 1], behind[places[-1] - 1], _SPLIT_GROUPS)
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


def middle_ranks(codes: np.ndarray) -> np.ndarray:
    """Return the rank of each code among these, equal ones their middle, shape (n_rows,)."""
    counts = np.bincount(codes)
    return np.asarray((np.cumsum(counts) - (counts - 1) / 2)[codes])


def quantile_groups(codes: np.ndarray, n_groups: int) -> np.ndarray:
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


def compact(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes that occur, in order, and the place among them of each; a fast np.unique."""
    size = int(codes.max()) + 1
    if size > 4 * len(codes):
        present, places = np.unique(codes, return_inverse=True)
        return present, places
    present = np.flatnonzero(np.bincount(codes, minlength=size))
    place_of = np.zeros(size, np.int64)
    place_of[present] = np.arange(len(present))
    return present, place_of[codes]

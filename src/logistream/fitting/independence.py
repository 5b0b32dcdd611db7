"""Tests of independence of two variables that hold in sparse tables.

The statistic is Pearson's X² of a contingency table. Its mean and variance under all permutations of the
rows are known exactly for any margins (Haldane 1940; Dawson 1954, "A simplified expression for the variance
of the χ² function on a contingency table"), so it can be judged where cells hold less than one row on
average and the usual χ² law does not: a scaled χ² law with those two moments is used.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["log_p_trends", "log_p_values", "log_upper_tail"]


def log_p_values(groups: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the natural logarithm of the p-value of independence, of each of many variables from one.

    All at once, since otherwise most of the time of a fit would go into calls on tables of a few cells.

    Parameters
    ----------
    groups : ndarray of int64 of shape (n_rows, n_variables)
        Codes of the variables, from 0.
    labels : ndarray of int64 of shape (n_rows,)
        Codes of the one that they are tested against, from 0, each of which occurs.

    Returns
    -------
    ndarray of shape (n_variables,)
        At most 0; 0 where the table is no evidence (a single row or column, or fewer than 4 counts).
    """
    n, many = groups.shape
    columns = np.bincount(labels).astype(float)
    c = len(columns)
    if n < 4 or c < 2 or many == 0:
        return np.zeros(many)
    sizes = groups.max(axis=0) + 1
    start = np.cumsum(sizes) - sizes
    cell = groups + start
    rows = np.bincount(cell.reshape(-1), minlength=int(sizes.sum()))
    place = np.cumsum(rows > 0) - 1  # among those that occur
    first = np.concatenate([[0], place + 1])[start]
    rows = rows[rows > 0].astype(float)
    table = np.bincount((place[cell] * c + labels[:, None]).reshape(-1), minlength=len(rows) * c)
    share = (table.reshape(-1, c).astype(float) ** 2) @ (1 / columns) / rows
    statistic = n * (np.add.reduceat(share, first) - 1.0)
    r = np.diff(np.append(first, len(rows)))
    mean = n / (n - 1) * (r - 1) * (c - 1)
    v1, w1 = _margin(r, np.add.reduceat(1 / rows, first), n)
    v2, w2 = _margin(np.array([c]), np.array([(1 / columns).sum()]), n)
    variance = 2 * n / (n - 3) * (v1 - w1) * (v2 - w2) + n * n / (n - 1) * w1 * w2
    result = np.zeros(many)
    varies = (r > 1) & (variance > 1e-12 * mean * mean)  # else the margins allow only one table
    freedom = 2 * mean[varies] ** 2 / variance[varies]
    ratio = np.maximum(statistic[varies], 0.0) / mean[varies]  # rounding may leave it just below 0
    result[varies] = [log_upper_tail(*pair) for pair in zip(ratio.tolist(), freedom.tolist(), strict=True)]
    return result


def log_p_trends(
    groups: np.ndarray, ordered: np.ndarray, labels: np.ndarray, rank: np.ndarray | None
) -> np.ndarray:
    """Return the log p-value of independence against a trend, of each of many variables from one.

    A trend is seen in far fewer rows than any other dependence. Two ordered variables: their correlation
    (the linear-by-linear test of Agresti 2013, section 3.4). An ordered and an unordered one: whether the
    groups of the latter differ in the mean of the former (Kruskal and Wallis 1952). Mean and variance of both
    statistics under all permutations are those of the χ² law that they are judged by.

    Parameters
    ----------
    groups : ndarray of int64 of shape (n_rows, n_variables)
        Codes of the variables, from 0; of ordered ones, groups of about as many rows each.
    ordered : ndarray of bool of shape (n_variables,)
        Which of them are ordered.
    labels : ndarray of int64 of shape (n_rows,)
        Codes of the one that they are tested against, from 0.
    rank : ndarray of float64 of shape (n_rows,) or None
        Its ranks, if it is ordered.

    Returns
    -------
    ndarray of shape (n_variables,)
        At most 0; 0 where neither is ordered or one is constant.
    """
    n, many = groups.shape
    result = np.zeros(many)
    if n < 4 or many == 0:
        return result
    x = groups[:, ordered].astype(np.float64)
    x -= x.mean(axis=0)
    spread = (x * x).sum(axis=0)
    varied = spread > 0
    if rank is not None:
        y = rank - rank.mean()
        total = float(y @ y)
        if total <= 0:
            return result
        statistic = np.zeros(x.shape[1])
        statistic[varied] = (n - 1) * (y @ x[:, varied]) ** 2 / (spread[varied] * total)
        result[ordered] = [_log_two_sided(math.sqrt(value)) for value in statistic.tolist()]
        for i in np.flatnonzero(~ordered):
            counts = np.bincount(groups[:, i])
            present = counts > 0
            if present.sum() > 1:
                sums = np.bincount(groups[:, i], y)[present]
                between = float((sums**2 / counts[present]).sum())
                result[i] = _log_between((n - 1) * between / total, int(present.sum()) - 1)
        return result
    counts = np.bincount(labels)
    order = np.argsort(labels, kind="stable")
    first = np.cumsum(counts) - counts
    present = counts > 0
    freedom = int(present.sum()) - 1
    if freedom and x.shape[1]:
        sums = np.add.reduceat(x[order], first[present], axis=0)
        between = (sums**2 / counts[present][:, None]).sum(axis=0)
        statistic = np.where(varied, (n - 1) * between / np.where(varied, spread, 1), 0.0)
        result[ordered] = [_log_between(value, freedom) for value in statistic.tolist()]
    return result


def _log_two_sided(z: float) -> float:
    """Return log P(|Z| > z) of a normal variable."""
    if z < 25:
        return math.log(math.erfc(z / math.sqrt(2)))
    return -z * z / 2 - math.log(z * math.sqrt(math.pi / 2))


def _log_between(statistic: float, freedom: int) -> float:
    return log_upper_tail(statistic / freedom, freedom) if statistic > 0 else 0.0


def _margin(k: np.ndarray, reciprocals: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return Dawson's two figures of margins of k totals with this sum of reciprocals."""
    v = (n - k) * (k - 1) / (n - 1)
    w = (n * reciprocals - k * k) / (n - 2)
    return v, w


def log_upper_tail(ratio: float, freedom: float) -> float:
    """Return log P(X/freedom > ratio) of a χ² variable X by the cube root of Wilson and Hilferty (1931)."""
    width = 2 / (9 * freedom)
    z: float = (ratio ** (1 / 3) - (1 - width)) / math.sqrt(width)
    if z < 25:
        return math.log(0.5 * math.erfc(z / math.sqrt(2)))
    return -z * z / 2 - math.log(z * math.sqrt(2 * math.pi))

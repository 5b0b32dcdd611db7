"""Does one variable depend on another? A test that holds in sparse tables.

The statistic is Pearson's X² of a contingency table. Its mean and variance under all permutations of the
rows are known exactly for any margins (Haldane 1940; Dawson 1954, "A simplified expression for the variance
of the χ² function on a contingency table"), so it can be judged where cells hold less than one row on
average and the usual χ² law does not: a scaled χ² law with those two moments is used.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

__all__ = ["log_p_value"]


def log_p_value(table: np.ndarray) -> float:
    """Return the natural logarithm of the p-value of independence.

    Parameters
    ----------
    table : ndarray of shape (n_rows, n_columns)
        Counts.

    Returns
    -------
    float
        At most 0; 0 where the table says nothing (a single row or column, or fewer than 4 counts).
    """
    table = table[table.sum(axis=1) > 0]
    table = table[:, table.sum(axis=0) > 0].astype(float)
    n = float(table.sum())
    r, c = table.shape
    if min(r, c) < 2 or n < 4:
        return 0.0
    rows, columns = table.sum(axis=1), table.sum(axis=0)
    statistic = n * (float((table**2 / rows[:, None] / columns[None, :]).sum()) - 1.0)
    mean = n / (n - 1) * (r - 1) * (c - 1)
    (v1, w1), (v2, w2) = _margin(rows, n), _margin(columns, n)
    variance = 2 * n / (n - 3) * (v1 - w1) * (v2 - w2) + n * n / (n - 1) * w1 * w2
    if variance <= 1e-12 * mean * mean:
        return 0.0  # the margins leave only one table
    freedom = 2 * mean * mean / variance
    return _log_upper_tail(max(statistic, 0.0) / mean, freedom)  # rounding may leave it just below 0


def _margin(totals: np.ndarray, n: float) -> tuple[float, float]:
    """Return Dawson's two figures of one margin."""
    k = len(totals)
    v = (n - k) * (k - 1) / (n - 1)
    w = (n * float((1 / totals).sum()) - k * k) / (n - 2)
    return v, w


def _log_upper_tail(ratio: float, freedom: float) -> float:
    """Return log P(X/freedom > ratio) of a χ² variable X by the cube root of Wilson and Hilferty (1931)."""
    width = 2 / (9 * freedom)
    z: float = (ratio ** (1 / 3) - (1 - width)) / math.sqrt(width)
    if z < 25:
        return math.log(0.5 * math.erfc(z / math.sqrt(2)))
    return -z * z / 2 - math.log(z * math.sqrt(2 * math.pi))

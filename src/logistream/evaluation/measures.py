"""How alike two sets of rows are, column by column and pair by pair, and which rows were seen before.

No measure depends on the order of the rows. Shapes and pairs follow the definitions of SDMetrics, with two
additions: missing is a value like any other, and a column that became constant counts as uncorrelated.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from logistream.evaluation.numeric import NumericTable

__all__ = [
    "column_pairs",
    "column_shapes",
    "copied",
    "copied_strings",
    "correlation",
    "equal_width_edges",
    "identifiers",
]


_BINS = 10  # of a number beside a category, as in SDMetrics
_MAX_PAIRS = 2_000  # of a wide table's pairs, so many are drawn


def identifiers(real: NumericTable) -> np.ndarray:
    """Return which columns of strings or whole numbers never repeat a value, bool of shape (n_columns,)."""
    return np.array(
        [
            column.kind in ("category", "integer") and _never_repeats(values[~np.isnan(values)])
            for column, values in zip(real.schema, real.matrix.T, strict=True)
        ],
        dtype=bool,
    )


def _never_repeats(values: np.ndarray) -> bool:
    return len(values) > 1 and len(np.unique(values)) == len(values)


def column_shapes(real: NumericTable, other: NumericTable) -> np.ndarray:
    """Return how alike each column is: 1 is the same distribution, 0 nothing in common.

    Strings and booleans: 1 less the total variation distance. Numbers and timestamps: 1 less the
    Kolmogorov-Smirnov distance.

    Returns
    -------
    ndarray of shape (n_columns,)
    """
    distances = [
        _total_variation(a, b) if discrete else _kolmogorov_smirnov(a, b)
        for a, b, discrete in zip(real.matrix.T, other.matrix.T, real.discrete, strict=True)
    ]
    return np.array([1 - distance for distance in distances])


def _total_variation(a: np.ndarray, b: np.ndarray) -> float:
    keys = np.unique(np.concatenate([a, b]), return_inverse=True)[1]  # NaN is one key
    return _code_distance(keys[: len(a)], keys[len(a) :])


def _code_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the total variation distance of two variables whose values are whole numbers from 0."""
    size = int(max(a.max(), b.max())) + 1
    if size > 10 * (len(a) + len(b)):  # a table of mostly empty cells
        return _total_variation(a, b)
    shares = [np.bincount(part, minlength=size) / len(part) for part in (a, b)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def _kolmogorov_smirnov(a: np.ndarray, b: np.ndarray) -> float:
    a, b = (np.sort(np.where(np.isnan(part), -np.inf, part)) for part in (a, b))
    everywhere = np.concatenate([a, b])
    shares = [np.searchsorted(part, everywhere, side="right") / len(part) for part in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())


def column_pairs(real: NumericTable, other: NumericTable) -> tuple[np.ndarray, np.ndarray]:
    """Return how alike each pair of columns is, from 0 to 1.

    Two numbers: 1 less half the difference of their Pearson correlations. Otherwise 1 less the total
    variation distance of their contingency tables, a number beside a string in ten bins of equal width.

    Returns
    -------
    pairs : ndarray of int64 of shape (n_pairs, 2)
        Positions of the columns; of a wide table, 2,000 pairs that are the same in every call.
    likeness : ndarray of shape (n_pairs,)
        NaN where it is undefined: a correlation with a column that is constant in `real`.
    """
    pairs = np.array(list(combinations(range(len(real.schema)), 2)), dtype=np.int64).reshape(-1, 2)
    if len(pairs) > _MAX_PAIRS:
        pairs = pairs[np.sort(np.random.default_rng(0).permutation(len(pairs))[:_MAX_PAIRS])]
    cells = [
        _cells(a, b, discrete)
        for a, b, discrete in zip(real.matrix.T, other.matrix.T, real.discrete, strict=True)
    ]
    likeness = np.empty(len(pairs))
    for k, (i, j) in enumerate(pairs):
        if real.discrete[i] or real.discrete[j]:
            (a, b), (c, d) = cells[i], cells[j]
            width = int(max(c.max(), d.max())) + 1
            likeness[k] = 1 - _code_distance(a * width + c, b * width + d)
        else:
            theirs = correlation(real.matrix[:, i], real.matrix[:, j])
            ours = correlation(other.matrix[:, i], other.matrix[:, j])
            likeness[k] = 1 - abs(theirs - (0.0 if np.isnan(ours) else ours)) / 2
    return pairs, likeness


def _cells(a: np.ndarray, b: np.ndarray, discrete: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the cell of each value in a contingency table, for both tables alike; missing is cell 0."""
    if discrete:
        cells = np.nan_to_num(np.concatenate([a, b]), nan=-1.0) + 1
    else:
        both = np.concatenate([a, b])
        cells = np.where(np.isnan(both), 0, np.digitize(both, equal_width_edges(a)) + 1)
    cells = cells.astype(np.int64)
    return cells[: len(a)], cells[len(a) :]


def equal_width_edges(real: np.ndarray) -> np.ndarray:
    """Return the nine edges between ten bins of equal width; the first and the last are open."""
    known = real[~np.isnan(real)]
    return np.asarray(np.histogram_bin_edges(known if len(known) else np.zeros(1), _BINS)[1:-1])


def correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Return the Pearson correlation where both are known; NaN for a constant."""
    known = ~(np.isnan(x) | np.isnan(y))
    x, y = x[known], y[known]
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()))


def copied(rows: NumericTable, among: NumericTable, columns: Sequence[str] = ()) -> float:
    """Return the share of rows that occur among others, equal in the named columns (all if none are)."""
    positions = [rows.schema.names.index(name) for name in columns or rows.schema.names]
    known = {row.tobytes() for row in _row_by_row(among.matrix[:, positions])}
    return float(np.mean([row.tobytes() in known for row in _row_by_row(rows.matrix[:, positions])]))


def _row_by_row(values: np.ndarray) -> np.ndarray:
    """Return values contiguous row by row, every NaN with the same bits."""
    return np.ascontiguousarray(np.where(np.isnan(values), np.nan, values))


def copied_strings(source: NumericTable, others: NumericTable, synthetic: NumericTable) -> float:
    """Return the share of strings of one row of `source`, and of no other real row, that were made again.

    A generator that keeps no string of a single row still makes some that happen to exist. Then the share is
    the same for fitted and for held-out rows.

    Parameters
    ----------
    source, others : NumericTable
        The rows whose strings are looked for, and all other real rows.
    synthetic : NumericTable
        Where they are looked for.

    Returns
    -------
    float
        NaN if no row of `source` has a string of its own.
    """
    single = found = 0
    for i, column in enumerate(source.schema):
        if column.kind != "category":
            continue
        values, count = np.unique(source.matrix[~np.isnan(source.matrix[:, i]), i], return_counts=True)
        own = np.setdiff1d(values[count == 1], others.matrix[:, i])
        single += len(own)
        found += len(np.intersect1d(own, synthetic.matrix[:, i]))
    return found / single if single else np.nan

"""Distances between rows of mixed columns, and the nearest rows among others.

The distance of two rows is Euclidean. A column of strings or booleans adds 1 to its square if the values
differ (1 on average if it has many); a column of numbers adds 6 times the squared difference of their ranks,
which is 1 on average for rows that have nothing to do with each other; a missing value is 1 from any other.
So all columns count alike.

Most of the work is one matrix product, which is many times as fast as comparing column by column.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from logistream.evaluation.numeric import NumericTable

__all__ = ["coordinates", "nearest_balance", "nearest_distance", "squared_distances"]


_SIGNS = 32  # coordinates of a column of more values
_ODD = np.array([0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D], np.uint32)
_CELLS = 4_000_000  # distances held at once, 16 MB


def coordinates(table: NumericTable, references: Sequence[NumericTable]) -> np.ndarray:
    """Return rows as points, float32 of shape (n_rows, n_coordinates).

    A number is its rank among `references`, and whether it is missing. A string is a corner of a simplex, or,
    where a column has more than 32, of a cube of 32 dimensions: no two strings have the same corner, and
    the squared distance of two is 1 with a standard deviation of 0.18.
    """
    points = []
    for i, column in enumerate(table.matrix.T):
        if table.discrete[i]:
            points.append(_corner(column, int(table.sizes[i])))
            continue
        known = np.concatenate([reference.matrix[:, i] for reference in references])
        points.append(_rank(column, np.sort(known[~np.isnan(known)])))
    return np.concatenate(points, axis=1)


def _rank(column: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return ranks from 0 to the square root of 6, and 1 where a value is missing, shape (n_rows, 2)."""
    missing = np.isnan(column)
    middle = np.searchsorted(known, column, "left") + np.searchsorted(known, column, "right")
    rank = np.where(missing, 0.5, middle / max(2 * len(known), 1))
    return np.column_stack([np.sqrt(6) * rank, missing]).astype(np.float32)


def _corner(column: np.ndarray, size: int) -> np.ndarray:
    """Return codes below `size` as corners of a simplex or of a cube; missing is a code."""
    codes = np.nan_to_num(column, nan=-1.0).astype(np.int64) + 1
    if size < _SIGNS:
        return np.asarray(np.eye(size + 1, dtype=np.float32)[codes] / np.float32(np.sqrt(2)))
    mixed = np.arange(size + 1, dtype=np.uint32)
    for odd in _ODD:  # each step is invertible, so all stay different
        mixed = (mixed ^ (mixed >> 16)) * odd
    bits = mixed[:, None] >> np.arange(_SIGNS, dtype=np.uint32) & 1
    signs = bits.astype(np.float32) - np.float32(0.5)
    return np.asarray(signs[codes] * np.float32(np.sqrt(2 / _SIGNS)))


def squared_distances(rows: np.ndarray, among: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Give the squared distances of a few rows at a time to all others, float32, with which rows they are.

    They are off by rounding, up to about 1e-5.
    """
    squares = np.einsum("ij,ij->i", among, among)
    step = max(1, _CELLS // max(len(among), 1))
    for start in range(0, len(rows), step):
        chunk = slice(start, min(start + step, len(rows)))
        distance = rows[chunk] @ among.T
        distance *= -2
        distance += squares
        distance += np.einsum("ij,ij->i", rows[chunk], rows[chunk])[:, None]
        yield chunk, np.maximum(distance, 0, out=distance)


def nearest_distance(rows: np.ndarray, among: np.ndarray) -> np.ndarray:
    """Return each row's distance to the nearest of others, float32 of shape (n_rows,); 0 for an equal one."""
    nearest = np.empty(len(rows), np.float32)
    for chunk, distance in squared_distances(rows, among):
        exact = rows[chunk] - among[distance.argmin(axis=1)]  # the rounding of the product is left behind
        nearest[chunk] = np.square(exact).sum(axis=1)
    return np.sqrt(nearest)


def nearest_balance(rows: NumericTable, train: NumericTable, holdout: NumericTable) -> float:
    """Return the share of rows whose nearest neighbour is in `train` rather than in `holdout`.

    Both should be of one size; then 0.5 means that rows are no nearer to those that were fitted than to
    others of the same kind. Equally near counts half.
    """
    points, fitted_points, held_points = (
        coordinates(table, [train, holdout]) for table in (rows, train, holdout)
    )
    fitted, held = (nearest_distance(points, others) for others in (fitted_points, held_points))
    return float(np.mean(np.where(fitted == held, 0.5, fitted < held)))

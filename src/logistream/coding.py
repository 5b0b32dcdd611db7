"""Columns → codes: every column, or several together, as one discrete variable.

Texts, and numbers with few different values, keep each value as a code of its own. Other numbers are cut
into bins of `BIN_ROWS` rows, inside which values are drawn evenly; a value that many rows share exactly
(a spike) stays whole. So no bin stands for fewer rows than that, and no rare value is stored as such.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from logistream.model import Emission

if TYPE_CHECKING:
    from collections.abc import Sequence

    from logistream.schema import Column

__all__ = ["BIN_ROWS", "Coded", "code_column", "code_together", "micros"]

BIN_ROWS = 8
"""Fewest rows that a bin of a continuous column stands for."""

_SPIKE_SHARE = 0.01  # of all rows: a value at least this common is kept exactly
_FEW = 0.1  # of all rows: a numeric column with at most this share of different values is not continuous
_MINUTE = 60_000_000


@dataclass(frozen=True, slots=True)
class Coded:
    """One discrete variable.

    Parameters
    ----------
    name : str
        Columns it stands for.
    codes : ndarray of int64 of shape (n_rows,)
        The code of each row, from 0 to `size` - 1.
    size : int
        Number of codes.
    ordered : bool
        Whether neighbouring codes are alike.
    emissions : tuple of Emission
        From code to values.
    """

    name: str
    codes: np.ndarray
    size: int
    ordered: bool
    emissions: tuple[Emission, ...]

    @property
    def exact(self) -> bool:
        """Whether every code is a single value."""
        return all(emission.high is None for emission in self.emissions)

    def named(self, name: str) -> Coded:
        """Return the same variable without columns, under another name."""
        return replace(self, name=name, emissions=())

    def emitting(self, *more: Emission) -> Coded:
        """Return the same variable with further columns."""
        return replace(self, emissions=(*self.emissions, *more))


def code_column(values: pd.Series, column: Column, categories: Sequence[str] = ()) -> Coded:
    """Return one column as a discrete variable.

    Parameters
    ----------
    values : Series of shape (n_rows,)
        Values of the column's kind.
    column : Column
        What it is.
    categories : sequence of str
        The closed set of texts, for a category column.
    """
    empty = values.isna().to_numpy()
    if column.kind == "category":
        index = pd.Index(categories).get_indexer(pd.Index(values.astype("str").where(~empty, None)))
        return _with_missing(_distinct(column.name, index[~empty], (1, 1), ordered=False), empty)
    numbers, quantum = _multiples(values[~empty], column)
    few = len(np.unique(numbers)) <= max(20, _FEW * len(numbers))
    if few or column.kind == "boolean":
        return _with_missing(_distinct(column.name, numbers, quantum, ordered=True), empty)
    return _with_missing(_binned(column.name, numbers, quantum), empty)


def code_together(parts: Sequence[Coded]) -> Coded:
    """Return several variables as one, whose codes are the combinations that occur."""
    stacked = np.stack([part.codes for part in parts], axis=1)
    seen, codes = np.unique(stacked, axis=0, return_inverse=True)
    emissions = tuple(
        replace(
            emission,
            low=emission.low[seen[:, i]],
            high=None if emission.high is None else emission.high[seen[:, i]],
            missing=None if emission.missing is None else emission.missing[seen[:, i]],
        )
        for i, part in enumerate(parts)
        for emission in part.emissions
    )
    name = ", ".join(part.name for part in parts)
    return Coded(
        name, codes.reshape(-1).astype(np.int64), len(seen), ordered=parts[0].ordered, emissions=emissions
    )


def micros(values: pd.Series) -> np.ndarray:
    """Return instants as int64 microseconds since 1970 UTC, shape (n_rows,)."""
    naive = values.dt.tz_convert("UTC").dt.tz_localize(None) if values.dt.tz is not None else values
    return naive.astype("datetime64[us]").astype("int64").to_numpy()


def _multiples(values: pd.Series, column: Column) -> tuple[np.ndarray, tuple[int, int] | None]:
    """Return values as whole multiples of their quantum, or as floats if they have none."""
    if column.kind == "timestamp":
        instants = micros(values)
        step = _MINUTE if not (instants % _MINUTE).any() else 1
        return instants // step, (step, 1)
    if column.kind in ("integer", "boolean"):
        return values.astype("int64").to_numpy(), (1, 1)
    floats = values.to_numpy(dtype=np.float64)
    if column.decimals is None:
        return floats, None
    scale = 10**column.decimals
    return np.rint(floats * scale).astype(np.int64), (1, scale)


def _distinct(name: str, numbers: np.ndarray, quantum: tuple[int, int] | None, *, ordered: bool) -> Coded:
    """Return a variable with a code for each different value."""
    values, codes = np.unique(numbers, return_inverse=True)
    return Coded(name, codes.astype(np.int64), len(values), ordered, (Emission(name, values, None, quantum),))


def _binned(name: str, numbers: np.ndarray, quantum: tuple[int, int] | None) -> Coded:
    """Return a variable whose codes are bins and spikes, in ascending order."""
    values, counts = np.unique(numbers, return_counts=True)
    spike = counts >= max(2 * BIN_ROWS, _SPIKE_SHARE * len(numbers))
    starts: list[int] = []  # index of the first value of each bin
    rows = 0
    for i, (count, alone) in enumerate(zip(counts, spike, strict=True)):
        if alone or rows >= BIN_ROWS or i == 0 or spike[i - 1]:
            if starts and rows < BIN_ROWS and len(starts) > 1 and not spike[starts[-2]]:
                starts.pop()  # what is left before a spike joins the bin before it
            starts.append(i)
            rows = 0
        rows += count
    if rows < BIN_ROWS and len(starts) > 1 and not spike[starts[-2]]:
        starts.pop()
    low, high = values[starts], values[[*(i - 1 for i in starts[1:]), len(values) - 1]]
    codes = np.searchsorted(low, numbers, side="right") - 1
    return Coded(name, codes.astype(np.int64), len(low), True, (Emission(name, low, high, quantum),))


def _with_missing(coded: Coded, empty: np.ndarray) -> Coded:
    """Return the variable over all rows, with one more code, the last, for those without a value."""
    if not empty.any():
        return coded
    codes = np.full(len(empty), coded.size, np.int64)
    codes[~empty] = coded.codes
    emissions = tuple(
        replace(
            e,
            low=np.append(e.low, e.low[:1]),
            high=None if e.high is None else np.append(e.high, e.low[:1]),
            missing=np.arange(coded.size + 1) == coded.size,
        )
        for e in coded.emissions
    )
    return replace(coded, codes=codes, size=coded.size + 1, emissions=emissions)

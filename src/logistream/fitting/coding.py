"""Columns → codes: every column, or several together, as one discrete variable.

Texts, and numbers with few different values, keep each value as a code of its own. Other numbers are cut
into bins of `SMALLEST_GROUP` rows, inside which values are drawn evenly; a value that many rows share exactly
(a spike) stays whole. So no bin stands for fewer rows than that, and no rare value is stored as such.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from logistream.model.network import Emission, missing_name
from logistream.times import micros

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from logistream.schema import Column

__all__ = [
    "SMALLEST_GROUP",
    "Coded",
    "code_column",
    "code_missing",
    "code_multiples",
    "code_together",
    "in_steps",
    "over_all_rows",
]


SMALLEST_GROUP = 5
"""Fewest rows that a range of numbers, a leaf or a combination of several columns stands for."""

_MOST_BINS = 1000  # a larger table has larger bins

_SPIKE_SHARE = 0.01  # of all rows: a value at least this common is kept exactly
_FEW_SHARE = 0.1  # of all rows: a column with at most so many different numbers keeps each of them,
_MOST_VALUES = 500  # and no more than these,
_FEW_VALUES = 20  # but with at most so many in any case


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
    instant : bool
        Whether it is an instant or a part of one.
    """

    name: str
    codes: np.ndarray
    size: int
    ordered: bool
    emissions: tuple[Emission, ...]
    instant: bool = False

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
        return over_all_rows(_distinct(column.name, index[~empty], (1, 1), ordered=False), empty)
    numbers, quantum = _multiples(values[~empty], column)
    coded = code_multiples(column.name, numbers, quantum, instant=column.kind == "timestamp")
    if column.kind == "number" and quantum is not None and coded.exact:
        floats = values[~empty].to_numpy(dtype=np.float64)
        if (numbers / quantum[1] != floats).any():  # off in the last bits, which is how they are kept
            as_they_are = code_multiples(column.name, floats, None, instant=False)
            coded = as_they_are if as_they_are.exact else coded
    return over_all_rows(coded, empty)


def code_multiples(
    name: str,
    numbers: np.ndarray,
    quantum: tuple[int, int] | None,
    *,
    instant: bool = True,
    apart: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Coded:
    """Return numbers as a discrete variable.

    Parameters
    ----------
    name : str
        What they are.
    numbers : ndarray of shape (n_rows,)
        Int64 multiples of the quantum, or float64 values where there is none.
    quantum : tuple of (int, int) or None
        Numerator and denominator of the quantum.
    instant : bool
        Whether they are instants or parts of one.
    apart : callable, optional
        From ascending numbers to the groups that no range should span, such as their hours.
    """
    if len(np.unique(numbers)) <= max(_FEW_VALUES, min(_MOST_VALUES, _FEW_SHARE * len(numbers))):
        return _distinct(name, numbers, quantum, ordered=True, instant=instant)
    return _binned(name, numbers, quantum, instant=instant, apart=apart)


def code_missing(values: pd.Series, column: Column) -> Coded:
    """Return whether values are missing as a variable without columns: 1 where they are."""
    return Coded(missing_name(column.name), values.isna().to_numpy().astype(np.int64), 2, False, ())


def in_steps(instants: np.ndarray) -> tuple[np.ndarray, tuple[int, int]]:
    """Return microseconds as multiples of the largest of minute, second, millisecond that fits, and it."""
    step = next((s for s in (60_000_000, 1_000_000, 1_000) if not (instants % s).any()), 1)
    return instants // step, (step, 1)


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
    first = parts[0]
    return Coded(
        name, codes.reshape(-1).astype(np.int64), len(seen), first.ordered, emissions, instant=first.instant
    )


def _multiples(values: pd.Series, column: Column) -> tuple[np.ndarray, tuple[int, int] | None]:
    """Return values as whole multiples of their quantum, or as floats if they have none."""
    if column.kind == "timestamp":
        return in_steps(micros(values))
    if column.kind in ("integer", "boolean"):
        return values.astype("int64").to_numpy(), (1, 1)
    floats = values.to_numpy(dtype=np.float64)
    if column.decimals is None:
        return floats, None
    scale = 10**column.decimals
    return np.rint(floats * scale).astype(np.int64), (1, scale)


def _distinct(
    name: str, numbers: np.ndarray, quantum: tuple[int, int] | None, *, ordered: bool, instant: bool = False
) -> Coded:
    """Return a variable with a code for each different value."""
    values, codes = np.unique(numbers, return_inverse=True)
    emission = Emission(name, values, None, quantum)
    return Coded(name, codes.astype(np.int64), len(values), ordered, (emission,), instant)


def _binned(
    name: str,
    numbers: np.ndarray,
    quantum: tuple[int, int] | None,
    *,
    instant: bool,
    apart: Callable[[np.ndarray], np.ndarray] | None,
) -> Coded:
    """Return a variable whose codes are bins and spikes, in ascending order."""
    values, place, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    spike = counts >= max(2 * SMALLEST_GROUP, _SPIKE_SHARE * len(numbers))
    wanted = max(SMALLEST_GROUP, len(numbers) // _MOST_BINS)
    bins: list[tuple[int, int]] = []  # first and last value of each
    bin_of = np.zeros(len(values), np.int64)
    edges = np.flatnonzero(np.diff(spike.astype(np.int8), prepend=2, append=2))
    if apart is not None:
        edges = np.union1d(edges, _between(apart(values), np.where(spike, 0, counts), wanted))
    for start, stop in itertools.pairwise(edges.tolist()):
        cut = (
            [(i, i) for i in range(start, stop)] if spike[start] else _cut(counts[start:stop], start, wanted)
        )
        # what is too little for a bin of its own joins the spike beside it, and is drawn as that
        for first, last in cut:
            bin_of[first : last + 1] = len(bins)
            bins.append((first, last))
        if not cut:
            bin_of[start:stop] = max(len(bins) - 1, 0)
    low, high = values[[first for first, _ in bins]], values[[last for _, last in bins]]
    emission = Emission(name, low, high, quantum)
    return Coded(name, bin_of[place.reshape(-1)], len(bins), True, (emission,), instant)


def _between(groups: np.ndarray, rows: np.ndarray, wanted: int) -> np.ndarray:
    """Return where a new group begins, but for those that are too small: they go with the one before."""
    begins = np.flatnonzero(np.diff(groups, prepend=groups[0]))
    kept = [0]
    for begin, end in itertools.pairwise([*begins.tolist(), len(groups)]):
        enough = [
            int((rows[a:b] > 0).sum()) > 1 and rows[a:b].sum() >= wanted
            for a, b in ((kept[-1], begin), (begin, end))
        ]
        if all(enough):
            kept.append(begin)
    return np.array(kept[1:], dtype=np.int64)


def _cut(counts: np.ndarray, start: int, wanted: int) -> list[tuple[int, int]]:
    """Return a run of values in bins of `wanted` rows and of two values: one alone would be given away."""
    cut: list[tuple[int, int]] = []
    first, rows = 0, 0
    for i, count in enumerate(counts):
        rows += count
        if rows >= wanted and i > first:
            cut.append((start + first, start + i))
            first, rows = i + 1, 0
    if cut:
        cut[-1] = (cut[-1][0], start + len(counts) - 1)
    return cut


def over_all_rows(coded: Coded, empty: np.ndarray) -> Coded:
    """Return the variable over all rows, with one more code, the last, for those without a value.

    Parameters
    ----------
    coded : Coded
        The variable over the rows that have a value.
    empty : ndarray of bool of shape (n_rows,)
        Which rows have none.
    """
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

"""Columns → codes: every column, or several together, as one discrete variable.

Strings, and numbers with few different values, have a code for each value. Other numbers are cut into bins
of `SMALLEST_GROUP` rows, inside which values are drawn evenly; a value that many rows share exactly (a point
mass) has a code of its own. So no bin stands for fewer rows than that, and no rare number is stored.
"""

from __future__ import annotations

import itertools
from bisect import bisect
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from logistream.fitting.lattices import find_lattices
from logistream.model.network import Emission, missing_name

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from logistream.fitting.columns import Values
    from logistream.schema import Column

__all__ = [
    "POINT_MASS",
    "SMALLEST_GROUP",
    "Coded",
    "code_column",
    "code_grouped",
    "code_missing",
    "code_multiples",
    "code_together",
    "in_steps",
    "over_all_rows",
]


SMALLEST_GROUP = 5
"""Fewest rows that a range of numbers, a leaf or a combination of several columns stands for."""

POINT_MASS = 2 * SMALLEST_GROUP
"""Rows that share a number, at least, for it to be kept exactly in a column of many."""

_MOST_BINS = 1000  # a larger table has larger bins
_WIDE_GAP = 0.05  # of the whole range, without a value: numbers within it would be far from every row
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
        Whether it is a timestamp or a part of one.
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

    @property
    def missing_code(self) -> int | None:
        """The code that stands for a missing value."""
        flags = [emission.missing for emission in self.emissions if emission.missing is not None]
        return int(np.flatnonzero(flags[0])[0]) if flags else None


def code_column(values: Values) -> Coded:
    """Return one column as a discrete variable."""
    column, known = values.column, values.known
    if column.kind == "category":
        return over_all_rows(_distinct(column.name, known, (1, 1), ordered=False), values.missing)
    numbers, quantum = _multiples(known, column)
    coded = code_multiples(column.name, numbers, quantum, instant=column.kind == "timestamp")
    if (
        column.kind == "number"
        and quantum is not None
        and coded.exact
        and (numbers / quantum[1] != known).any()
    ):
        exact = code_multiples(column.name, known, None, instant=False)  # off in the last bits: kept so
        coded = exact if exact.exact else coded
    return over_all_rows(coded, values.missing)


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
        Whether they are timestamps or parts of one.
    apart : callable, optional
        From ascending numbers to the groups that no range should span, such as their hours.
    """
    if len(np.unique(numbers)) <= max(_FEW_VALUES, min(_MOST_VALUES, _FEW_SHARE * len(numbers))):
        return _distinct(name, numbers, quantum, ordered=True, instant=instant)
    return _binned(name, numbers, quantum, instant=instant, apart=apart)


def code_grouped(name: str, numbers: np.ndarray, quantum: tuple[int, int] | None) -> Coded:
    """Return numbers as a discrete variable each of whose codes stands for `SMALLEST_GROUP` rows or more.

    The parameters are those of `code_multiples`; there are at least `SMALLEST_GROUP` rows. No range spans
    zero if it can be avoided.
    """
    if np.unique(numbers, return_counts=True)[1].min() >= SMALLEST_GROUP:
        return _distinct(name, numbers, quantum, ordered=True)
    return _binned(name, numbers, quantum, instant=False, apart=np.sign)


def code_missing(values: Values) -> Coded:
    """Return whether values are missing as a variable without columns: 1 where they are."""
    return Coded(missing_name(values.column.name), values.missing.astype(np.int64), 2, False, ())


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
            step=None if emission.step is None else emission.step[seen[:, i]],
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


def over_all_rows(coded: Coded, missing: np.ndarray) -> Coded:
    """Return the variable over all rows, with one more code, the last, for those without a value.

    Parameters
    ----------
    coded : Coded
        The variable over the rows that have a value.
    missing : ndarray of bool of shape (n_rows,)
        Which rows have none.
    """
    if not missing.any():
        return coded
    codes = np.full(len(missing), coded.size, np.int64)
    codes[~missing] = coded.codes
    emissions = tuple(
        replace(
            e,
            low=np.append(e.low, e.low[:1]),
            high=None if e.high is None else np.append(e.high, e.low[:1]),
            step=None if e.step is None else np.append(e.step, e.step[:1]),
            missing=np.arange(coded.size + 1) == coded.size,
        )
        for e in coded.emissions
    )
    return replace(coded, codes=codes, size=coded.size + 1, emissions=emissions)


def _multiples(numbers: np.ndarray, column: Column) -> tuple[np.ndarray, tuple[int, int] | None]:
    """Return numbers as whole multiples of their quantum, or as they are if they have none."""
    if column.kind == "timestamp":
        return in_steps(numbers)
    if column.kind != "number":
        return numbers, (1, 1)
    if column.decimals is None:
        return numbers, None
    scale = 10**column.decimals
    return np.rint(numbers * scale).astype(np.int64), (1, scale)


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
    """Return a variable whose codes are bins and point masses, in ascending order."""
    values, place, counts = np.unique(numbers, return_inverse=True, return_counts=True)
    mass = counts >= POINT_MASS
    wanted = max(SMALLEST_GROUP, len(numbers) // _MOST_BINS)
    lattices = find_lattices(values, counts, mass)
    # A bin spans a point mass, or values to keep apart, only if there are too few rows on one side.
    border = np.append(False, mass[1:] | mass[:-1])
    if apart is not None:
        border |= np.diff(apart(values), prepend=0) != 0
    group = np.cumsum(border)
    cells = [(np.array([i]), lattices.steps[0]) for i in np.flatnonzero(mass)]  # values, as places, and step
    far_apart = _gap_edges(values, np.where(mass, 0, counts), wanted)
    left = np.empty(0, np.int64)
    for level in reversed(range(len(lattices.steps))):
        own = np.union1d(left, np.flatnonzero(~mass & (lattices.level == level)))
        uncut = [left[:0]]
        gaps = np.unique([0, *np.searchsorted(own, far_apart), len(own)]).tolist()
        edges = [
            start + edge
            for start, stop in itertools.pairwise(gaps)
            for edge in (0, *_group_edges(group[own[start:stop]], counts[own[start:stop]], wanted))
        ]
        for start, stop in itertools.pairwise([*edges, len(own)]):
            cut = _cut(counts[own[start:stop]], wanted)
            cells += [(own[start + first : start + last + 1], lattices.steps[level]) for first, last in cut]
            if not cut:  # too few for a bin: they are on the finer lattices as well
                uncut.append(own[start:stop])
        left = np.concatenate(uncut)
    cells.sort(key=lambda cell: int(cell[0][0] + cell[0][-1]))
    ends = np.array([(cell[0], cell[-1]) for cell, _ in cells])
    code_of = np.empty(len(values), np.int64)
    for code, (cell, _) in enumerate(cells):
        code_of[cell] = code
    middle = ends.sum(axis=1) / 2
    code_of[left] = np.searchsorted((middle[1:] + middle[:-1]) / 2, left)  # the nearest bin or point mass
    usual = 0 if quantum is None else 1
    step = np.array([step for _, step in cells], values.dtype) if lattices.steps != [usual] else None
    emission = Emission(name, values[ends[:, 0]], values[ends[:, 1]], quantum, step=step)
    return Coded(name, code_of[place.reshape(-1)], len(cells), True, (emission,), instant)


def _gap_edges(values: np.ndarray, rows: np.ndarray, wanted: int) -> list[int]:
    """Return where values begin again after a wide gap, if there are enough rows on both sides."""
    gaps = np.diff(values)
    wide = np.flatnonzero(gaps > _WIDE_GAP * (values[-1] - values[0]))
    edges = [0, len(values)]
    for place in (wide[np.argsort(-gaps[wide], kind="stable")] + 1).tolist():
        i = bisect(edges, place)
        if all(
            b - a > 1 and rows[a:b].sum() >= wanted for a, b in ((edges[i - 1], place), (place, edges[i]))
        ):
            edges.insert(i, place)
    return edges[1:-1]


def _group_edges(groups: np.ndarray, rows: np.ndarray, wanted: int) -> np.ndarray:
    """Return where a new group begins; one that is too small goes with the one before."""
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


def _cut(counts: np.ndarray, wanted: int) -> list[tuple[int, int]]:
    """Return a run of values in bins of `wanted` rows and two values: a single one would be disclosed."""
    cut: list[tuple[int, int]] = []
    first, rows = 0, 0
    for i, count in enumerate(counts):
        rows += count
        if rows >= wanted and i > first:
            cut.append((first, i))
            first, rows = i + 1, 0
    if cut:
        cut[-1] = (cut[-1][0], len(counts) - 1)
    return cut

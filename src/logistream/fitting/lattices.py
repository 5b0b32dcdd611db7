"""Lattices: how the numbers of a column are rounded, where not all are rounded alike.

Of incomes some are given in thousands, some in hundreds and some to the unit; of weights some in halves. A
*lattice* is the multiples of a step. It is found by a test: more rows lie on it than would by chance, were
the numbers rounded to the next finer step only. Each value is drawn from one lattice: the coarsest that it
lies on, except for so many as lie there by chance.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from logistream.model.random_bits import uniforms

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Lattices", "find_lattices"]


_LEAST_EXCESS = 10  # rows that a lattice holds, beyond those on it by chance,
_STANDARD_ERRORS = 6.0  # and so many times the standard error of that number
_AS_MANY = 0.9  # of the largest excess: the coarsest lattice that holds so much of it is taken
_MOST_LATTICES = 5
_SEED = 2
_DIGITS = 8  # after the point, at most, of rounded numbers without a quantum
_FACTORS = sorted(
    {m * 10**k for m in (1, 2, 5, 25) for k in range(13)}
    | {3, 4, 6, 12, 15, 24, 30, 60, 900, 1800, 3600}  # dozens, and parts of the hour and the day
)[1:]


@dataclass(frozen=True, slots=True)
class Lattices:
    """The lattices of a column.

    Parameters
    ----------
    steps : list of int or float
        Ascending. In units of the quantum; of numbers without one, 0 where they are continuous, otherwise
        a whole number, or one part of a whole number of parts.
    level : ndarray of int64 of shape (n_values,)
        The lattice from which each different value is drawn.
    """

    steps: list[float]
    level: np.ndarray


def find_lattices(values: np.ndarray, counts: np.ndarray, mass: np.ndarray) -> Lattices:
    """Return the lattices of a column.

    Parameters
    ----------
    values : ndarray of shape (n_values,)
        The different values, ascending: int64 multiples of a quantum, or float64.
    counts : ndarray of int64 of shape (n_values,)
        Rows of each.
    mass : ndarray of bool of shape (n_values,)
        Which are point masses: they are kept as they are, and are no evidence about the others.
    """
    level = np.zeros(len(values), np.int64)
    rest = np.flatnonzero(~mass)
    steps: list[float] = []
    masses = values[mass]
    if values.dtype.kind == "f":
        multiples, unit, rounded = _decimal(values[rest], counts[rest])
        if not rounded.all() or len(rest) == 0:
            steps.append(0.0)
        if not rounded.any():
            return Lattices(steps, level)
        rest, multiples, masses = rest[rounded], multiples[rounded], np.rint(masses * unit)
        step = 1
    else:
        multiples, unit = values[rest], 1
        step = max(int(np.gcd.reduce(multiples)), 1) if len(rest) else 1
    level[rest] = len(steps)
    steps.append(_in_units(step, unit))
    rows = counts[rest]
    bits = np.random.Philox(_SEED)
    while len(rest) and len(steps) < _MOST_LATTICES:
        largest = int(np.abs(multiples).max())
        factors = [f for f in _FACTORS if step * f <= largest and _whole(step * f, unit)]
        on_each = [multiples % (step * f) == 0 for f in factors]
        found = _coarsest([int(rows[on].sum()) for on in on_each], [1 / f for f in factors], rows)
        if found is None:
            break
        factor, on = factors[found], on_each[found]
        step *= factor
        # Bins leave point masses out, so only near other numbers of the lattice do rows get there by chance.
        free = ~on & ~np.isin(np.rint(multiples / step) * step, masses)
        by_chance = rows[free].sum() / (factor - 1) / rows[on].sum()
        on = on & (uniforms(bits, len(on)) >= by_chance)
        rest, rows, multiples = rest[on], rows[on], multiples[on]
        level[rest] = len(steps)
        steps.append(_in_units(step, unit))
    return Lattices(steps, level)


def _decimal(values: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, int, np.ndarray]:
    """Return numbers as multiples of a part of one, how many parts one has, and which are such multiples."""
    found, by_chance = [], []
    for digits in reversed(range(_DIGITS + 1)):  # from fine to coarse
        scaled = values * 10.0**digits
        found.append((np.rint(scaled) / 10.0**digits == values) & (np.abs(scaled) < 2**53))
        by_chance.append(float(np.minimum(np.spacing(np.abs(values)) * 10.0**digits, 0.5).mean()))
    best = _coarsest([int(rows[on].sum()) for on in found], by_chance, rows) if len(rows) else None
    if best is None:
        return np.zeros(len(values), np.int64), 1, np.zeros(len(values), bool)
    parts = 10 ** (_DIGITS - best)
    return np.rint(np.where(found[best], values, 0) * parts).astype(np.int64), parts, found[best]


def _whole(step: int, unit: int) -> bool:
    """Return whether a step is a whole number, or one part of a whole number of parts."""
    return step % unit == 0 or unit % step == 0


def _in_units(step: int, unit: int) -> float:
    return step // unit if step % unit == 0 else step / unit


def _coarsest(found: Sequence[int], by_chance: Sequence[float], rows: np.ndarray) -> int | None:
    """Return the coarsest lattice that holds more rows than by chance, and nearly as many as any other.

    Parameters
    ----------
    found : sequence of int
        Rows on each lattice, from fine to coarse.
    by_chance : sequence of float
        Share of the rows that would be on it by chance.
    rows : ndarray of int64 of shape (n_values,)
        Rows of each different value.
    """
    if not found:
        return None
    share = np.array(by_chance)
    beyond = np.array(found) - int(rows.sum()) * share
    error = np.sqrt(share * (1 - share) * float((rows * rows).sum()))
    excess = beyond / (1 - share)  # of the others that lie on it, some do so by chance
    sure = (excess >= _LEAST_EXCESS) & (beyond >= _STANDARD_ERRORS * error)
    return int(np.flatnonzero(sure & (excess >= _AS_MANY * excess[sure].max()))[-1]) if sure.any() else None

"""What hangs together in a table: found, not told.

Three kinds of relation are looked for, in this order.

- *Formulas*: a number is the product or the sum of two others, or another number times (or plus) a factor
  that takes few values, such as a rate. What a formula gives is computed, never drawn.
- *Keys*: every value of one column goes with a single value of another (city → country).
- *Blocks*: columns whose combinations recur, where independence would leave most of them unseen, or would
  fill cells that are empty (category with price, shipping mode with lateness). A block is drawn whole.

Each must hold in far more rows than chance would allow after so many tries.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from logistream.model import Formula

if TYPE_CHECKING:
    from collections.abc import Mapping

    from logistream.coding import Coded

__all__ = ["Relation", "find_formulas", "find_keys", "find_links"]

ALPHA = 1e-3
"""Chance that a relation is found in a table that has none."""

_SCREEN_ROWS = 64  # most pairs are refused on so few rows
_FEW_VALUES = 0.1  # of the rows: a rate takes at most this share of different values,
_FEWER = 0.25  # and at most this share of those that the column itself takes
_RATE_DECIMALS = 4
_FINE = 1000  # quanta in a typical value: there one more or less may be by rounding
_FEW_COMBINATIONS = 0.75  # of those that shuffled columns have: a pair with fewer is a block
_BARRED = 0.02  # of all rows, at least: what independence would put into cells that are empty
_CLOSED = 0.9  # share of the rows of a block whose combination recurs


@dataclass(frozen=True, slots=True)
class Relation:
    """A formula found, with the values of the helper that it needs.

    Parameters
    ----------
    formula : Formula
        How the column is computed.
    helper : ndarray of float64 of shape (n_rows,) or None
        Values of `formula.right` if that is no column of the table but a rate or a difference.
    helper_decimals : int
        Digits that the helper's values have.
    """

    formula: Formula
    helper: np.ndarray | None = None
    helper_decimals: int = 0


@dataclass(frozen=True, slots=True)
class _Numbers:
    """The numeric columns side by side."""

    names: tuple[str, ...]
    values: np.ndarray  # (n_rows, n_columns) float64
    quantum: np.ndarray  # (n_columns,) smallest difference of two values
    different: np.ndarray  # (n_columns,) number of different values


def find_formulas(
    columns: Mapping[str, np.ndarray],
    decimals: Mapping[str, int],
    told: Mapping[str, Formula | None] | None = None,
) -> list[Relation]:
    """Return formulas for as many columns as can be computed from others, in the order of computing.

    Parameters
    ----------
    columns : mapping of str to ndarray of float64 of shape (n_rows,)
        Numeric columns without missing values.
    decimals : mapping of str to int
        Digits after the point, of those that are no whole numbers.
    told : mapping of str to Formula or None, optional
        Columns whose formula is known, or None for those that must not be computed.
    """
    names = tuple(columns)
    if len(names) < 2:
        return []
    values = np.stack([columns[name] for name in names], axis=1)
    numbers = _Numbers(
        names,
        values,
        np.array([10.0 ** -decimals.get(name, 0) for name in names]),
        np.array([len(np.unique(column)) for column in values.T]),
    )
    candidates = [*_pairs(numbers), *_rates(numbers)]
    candidates.sort(key=lambda found: found[0])
    known = told or {}
    candidates = [((0, 0, 0), Relation(f)) for f in known.values() if f] + candidates
    needs: dict[str, set[str]] = {}
    chosen = []
    for _, relation in candidates:
        formula = relation.formula
        if formula.column in known and formula != known[formula.column]:
            continue
        inputs = {formula.left} if relation.helper is not None else {formula.left, formula.right}
        behind = inputs.union(*(needs.get(name, set()) for name in inputs))
        if formula.column in needs or formula.column in behind:
            continue
        needs[formula.column] = behind
        for name, others in needs.items():
            if formula.column in others:
                needs[name] = others | behind
        chosen.append(relation)
    return sorted(chosen, key=lambda relation: len(needs[relation.formula.column]))


def _spread_rows(n: int, wanted: int) -> np.ndarray:
    return np.unique(np.linspace(0, n - 1, min(n, wanted)).astype(int))


def _pairs(numbers: _Numbers) -> list[tuple[tuple[int, int, int], Relation]]:
    """Return exact products and sums of two columns, with a rank each (lower is better)."""
    n, m = numbers.values.shape
    screen = numbers.values[_spread_rows(n, _SCREEN_ROWS)]
    varied = [i for i in range(m) if numbers.different[i] > 1]
    found = []
    for a, b in itertools.combinations_with_replacement(varied, 2):
        for operation in ("product", "sum"):
            combine = np.multiply if operation == "product" else np.add
            guess = combine(screen[:, a], screen[:, b])
            near = np.abs(screen - guess[:, None]) <= _tolerance(guess)[:, None] + 0.51 * numbers.quantum
            for c in np.flatnonzero(near.all(axis=0)):
                if c in (a, b) or numbers.different[c] < 3:
                    continue
                whole = combine(numbers.values[:, a], numbers.values[:, b])
                off = np.abs(numbers.values[:, c] - whole)
                if (off <= _tolerance(whole) + 0.51 * numbers.quantum[c]).all():
                    formula = Formula(
                        numbers.names[c], operation, numbers.names[a], numbers.names[b], _digits(numbers, c)
                    )
                    found.append(((0, 0, -int(numbers.different[c])), Relation(formula)))
    return found


def _rates(numbers: _Numbers) -> list[tuple[tuple[int, int, int], Relation]]:
    """Return columns that are another one times, or plus, a helper of few values, with a rank each."""
    n, m = numbers.values.shape
    rows = _spread_rows(n, _SCREEN_ROWS)
    found = []
    for c, a in itertools.permutations(range(m), 2):
        most = min(_FEW_VALUES * n, _FEWER * numbers.different[c])
        if most < 1 or numbers.different[a] < 3:
            continue
        target, base = numbers.values[:, c], numbers.values[:, a]
        finer = int(numbers.quantum[c] > numbers.quantum[a])  # to compute from what is finer loses digits
        if not (base == 0).any():
            for digits in range(_RATE_DECIMALS + 1):
                if not _rate_fits(target[rows], base[rows], digits, numbers.quantum[c]):
                    continue
                if _rate_fits(target, base, digits, numbers.quantum[c]):
                    rate = np.round(target / base, digits) + 0.0
                    count = len(np.unique(rate))
                    if count <= most:
                        name = f"{numbers.names[c]} / {numbers.names[a]}"
                        formula = Formula(
                            numbers.names[c], "product", numbers.names[a], name, _digits(numbers, c)
                        )
                        found.append(((count, finer, 1), Relation(formula, rate, digits)))
                    break
        digits = max(_digits(numbers, c), _digits(numbers, a))
        if len(np.unique(np.round(target[rows] - base[rows], digits))) <= max(1, len(rows) // 2):
            rest = np.round(target - base, digits) + 0.0
            count = len(np.unique(rest))
            if count <= most:
                name = f"{numbers.names[c]} - {numbers.names[a]}"
                formula = Formula(numbers.names[c], "sum", numbers.names[a], name, _digits(numbers, c))
                found.append(((count, finer, -int(rest.min() >= 0)), Relation(formula, rest, digits)))
    return found


def _rate_fits(target: np.ndarray, base: np.ndarray, digits: int, quantum: float) -> bool:
    """Return whether the target is the base times a rounded rate, but for the rounding of the target.

    Where both were rounded, that is off by one in the last digit; which is no rounding but another value
    where the target has few digits (hours, which are about a hundredth of a time like 1930).
    """
    made = base * np.round(target / base, digits)
    slack = 1.51 if np.median(np.abs(target)) >= _FINE * quantum else 0.5
    return bool((np.abs(made - target) <= slack * quantum + _tolerance(made)).all())


def _digits(numbers: _Numbers, column: int | np.integer) -> int:
    return round(-math.log10(numbers.quantum[column]))


def _tolerance(values: np.ndarray) -> np.ndarray:
    """Return what rounding in double precision may be off by."""
    return np.asarray(8 * np.finfo(float).eps * np.abs(values))


def find_keys(coded: Mapping[str, Coded]) -> dict[str, tuple[str, ...]]:
    """Return for each variable those that it determines: each of its codes goes with one of theirs.

    Two that determine each other are given once, by the one that comes first.
    """
    names = list(coded)
    n = len(next(iter(coded.values())).codes) if coded else 0
    codes = np.stack([coded[name].codes for name in names], axis=1) if names else np.empty((0, 0), np.int64)
    sizes = [coded[name].size for name in names]
    # log chance that another row of the same code agrees, were the two independent
    agree = [2 * np.log(np.linalg.norm(np.bincount(codes[:, j]) / n)) for j in range(len(names))]
    threshold = math.log(ALPHA / max(len(names) ** 2, 1))
    keys: dict[str, tuple[str, ...]] = {}
    for i, name in enumerate(names):
        if sizes[i] < 2:
            continue
        order = np.argsort(codes[:, i], kind="stable")
        ranked = codes[order]
        same = ranked[1:, i] == ranked[:-1, i]
        holds = (ranked[1:][same] == ranked[:-1][same]).all(axis=0)
        again = int(same.sum())
        keys[name] = tuple(
            other
            for j, other in enumerate(names)
            if j != i
            and holds[j]
            and sizes[j] > 1
            and again * agree[j] < threshold
            and (sizes[j] < sizes[i] or (sizes[j] == sizes[i] and i < j))
        )
    return {name: others for name, others in keys.items() if others}


def find_links(coded: Mapping[str, Coded]) -> dict[frozenset[str], float]:
    """Return the pairs of variables that occur in certain combinations only, with how much they avoid.

    Parameters
    ----------
    coded : mapping of str to Coded
        Variables whose every code is a single value.

    Returns
    -------
    dict of frozenset of two str to float
        The share of combinations, or of rows, that the pair would have were the two independent and has not.
    """
    varied = [name for name, variable in coded.items() if variable.size > 1 and not variable.instant]
    tries = max(len(varied) * (len(varied) - 1) // 2, 1)
    n = len(coded[varied[0]].codes) if varied else 0
    shuffled = np.argsort(np.random.Philox(0).random_raw(n))
    recurs = {name: np.bincount(coded[name].codes)[coded[name].codes] > 1 for name in varied}
    links = {}
    for a, b in itertools.combinations(varied, 2):
        strength = _avoided(coded[a], coded[b], tries, recurs[a] & recurs[b], shuffled)
        if strength > 0:
            links[frozenset((a, b))] = strength
    return links


def _avoided(a: Coded, b: Coded, tries: int, again: np.ndarray, shuffled: np.ndarray) -> float:
    """Return the share of combinations, or of rows, that two variables avoid; 0 if little or by chance."""
    n, cells = len(a.codes), a.size * b.size
    both = a.codes * b.size + b.codes
    if cells <= 4 * n:
        counts = np.bincount(both, minlength=cells)
        table = counts.reshape(a.size, b.size)
        found, times = int(np.count_nonzero(counts)), counts[both]
        if found < cells:
            expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / n
            barred = float(expected[(table == 0) & (expected > math.log(cells * tries / ALPHA))].sum() / n)
            if barred >= _BARRED:
                return barred
    else:
        _, combination, counts = np.unique(both, return_inverse=True, return_counts=True)
        found, times = len(counts), counts[combination]
    if not again.any() or (times > 1)[again].mean() < _CLOSED:
        return 0.0
    by_chance = a.codes * b.size + b.codes[shuffled]
    possible = np.count_nonzero(np.bincount(by_chance)) if cells <= 4 * n else len(np.unique(by_chance))
    return float(1 - found / possible) if found < _FEW_COMBINATIONS * possible else 0.0

"""Columns that follow from others: formulas, parts of timestamps, and pairs that keep an order.

- *Formulas*: a number is the product or the sum of two others, or another number times (or plus) a helper
  that takes few values, such as a rate. A formula must hold in every row, up to rounding.
- *Timestamps* are the sum of a date and a time of day, on the clock that was used; what other columns show of
  them (year, hour) is computed.
- *Orders*: one number is never above another, as the lowest temperature of a day is never above the highest.
  Both are drawn, the later one only within ranges, at whose edges they can come out in the wrong order. Then
  one is put as far above the other as it lay below: `low + |high - low|`. So no row breaks the order, and
  equal values are no more common than they were.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING

import numpy as np

from logistream.errors import DataError
from logistream.fitting.clocks import Clock, read_clock
from logistream.fitting.coding import Coded, code_column, code_multiples, in_steps
from logistream.fitting.columns import Values
from logistream.model.network import Formula
from logistream.model.random_bits import permutation
from logistream.schema import Column
from logistream.times import CALENDAR, DAY, TIME_OF_DAY, ahead_of_utc

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

__all__ = ["Relation", "find_computed", "find_formulas", "find_orders"]


_SCREEN_ROWS = 64  # most candidates are refused on so few rows
_FEW_VALUES = 0.1  # of the rows: a rate takes at most this share of different values,
_FEWER = 0.25  # and at most this share of those that the column itself takes
_RATE_DECIMALS = 4
_FINE = 1000  # quanta in a typical value: there one more or less may be by rounding
_LEAST_ROWS = 50  # with values in all columns of a formula
_LEAST_ORDERED_ROWS = 100
_EASILY_BROKEN = 0.05  # an order must be broken in so many rows of values put together at random
_SIGNS = {"*": "product", "+": "sum"}


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


def find_computed(
    table: Mapping[str, Values], asked: Mapping[str, tuple[str, str, str] | None]
) -> tuple[list[Formula], dict[str, Coded]]:
    """Return what is computed, in the order of computing, and the helpers that are drawn for it.

    Parameters
    ----------
    table : mapping of str to Values
        The columns by name.
    asked : mapping of str to (str, str, str) or None
        The `derive` of `fit`.

    Returns
    -------
    formulas : list of Formula
    helpers : dict of str to Coded
        Rates, differences, dates and times of day, by a name that no column has.

    Raises
    ------
    DataError
        If a formula that is asked for does not hold.
    """
    complete = {name: values for name, values in table.items() if not values.column.nullable}
    instants = {name: v.numbers for name, v in complete.items() if v.column.kind == "timestamp"}
    integers = {name: v.numbers for name, v in complete.items() if v.column.kind == "integer"}
    decimals = {
        name: v.column.decimals
        for name, v in complete.items()
        if v.column.kind == "number" and v.column.decimals is not None
    }
    numbers = {
        name: values.numbers.astype(np.float64)
        for name, values in complete.items()
        if name in instants or name in integers or name in decimals
    }
    clocks: dict[str, Clock] = {}
    parts: set[str] = set()
    for name, micros in instants.items():
        free = {c: values for c, values in integers.items() if c not in asked and c not in parts}
        clocks[name] = read_clock(micros, free)
        parts |= set(clocks[name].parts)
    given = {column: _checked(column, how, numbers, decimals) for column, how in asked.items()}
    found = find_formulas({n: v for n, v in numbers.items() if n not in parts}, decimals, given)
    relations = [
        (relation, np.ones(len(v), bool)) for relation in found for v in [numbers[relation.formula.left]]
    ]
    relations += _between_gaps(table, numbers, asked)
    formulas: list[Formula] = []
    helpers: dict[str, Coded] = {}
    for relation, known in relations:
        formula = relation.formula
        if relation.helper is not None:
            name = _fresh(formula.right, table)
            formula = replace(formula, right=name)
            values = np.full(len(known), relation.helper[0])
            values[known] = relation.helper
            # Where the column that it is computed from has the gaps, the helper needs none.
            missing = ~known if formula.left in numbers else np.zeros(len(known), bool)
            column = Column(name, "number", decimals=relation.helper_decimals)
            helpers[name] = code_column(Values(column, values, missing))
        formulas.append(formula)
    computed = {formula.column for formula in formulas}
    for name, clock in clocks.items():
        more, drawn = _on_the_clock(name, instants[name], clock, table, computed=name in computed)
        formulas += more
        helpers |= drawn
    return _in_order(formulas), helpers


def _between_gaps(
    table: Mapping[str, Values], complete: Mapping[str, np.ndarray], asked: Collection[str]
) -> Iterator[tuple[Relation, np.ndarray]]:
    """Give formulas of columns with missing values, and which rows have none.

    A formula has a value where all that it is computed from has one. So only columns whose gaps are those of
    another, or of the rate that is drawn for it, can be computed.
    """
    alike: dict[bytes, list[Values]] = {}
    for name, values in table.items():
        column = values.column
        exact = column.kind == "integer" or (column.kind == "number" and column.decimals is not None)
        if column.nullable and exact and name not in asked:
            alike.setdefault(values.missing.tobytes(), []).append(values)
    for gaps, columns in alike.items():
        known = ~np.frombuffer(gaps, bool)
        if known.sum() < _LEAST_ROWS:
            continue
        numbers = {values.column.name: values.numbers[known].astype(np.float64) for values in columns}
        others = {
            name: column[known] for name, column in complete.items() if table[name].column.kind != "timestamp"
        }
        decimals = {name: table[name].column.decimals or 0 for name in numbers | others}
        for relation in find_formulas(numbers | others, decimals, dict.fromkeys(others)):
            if relation.helper is not None or numbers.keys() & {*relation.formula.inputs}:
                yield relation, known


def _checked(
    column: str,
    how: tuple[str, str, str] | None,
    numbers: Mapping[str, np.ndarray],
    decimals: Mapping[str, int],
) -> Formula | None:
    """Return the caller's formula for a column after checking that it holds."""
    if how is None:
        return None
    left, sign, right = how
    for name in (column, left, right):
        if name not in numbers:
            raise DataError(f"derive: {name!r} is not a numeric column without missing values")
    if sign not in _SIGNS:
        raise DataError(f"derive: {column!r} can be computed with * or +, not {sign!r}")
    digits = decimals.get(column, 0)
    a, b = numbers[left], numbers[right]
    off = np.abs((a * b if sign == "*" else a + b) - numbers[column]) > 1.51 * 10.0**-digits
    if off.any():
        raise DataError(
            f"derive: {column!r} is not {left!r} {sign} {right!r} in {int(off.sum()):,} of {len(off):,} rows"
        )
    return Formula(column, _SIGNS[sign], left, right, digits)


def _fresh(name: str, taken: Collection[str]) -> str:
    """Return a name that no column has."""
    while name in taken:
        name += " *"
    return name


def _in_order(formulas: Sequence[Formula]) -> list[Formula]:
    """Return formulas so that each comes after those whose columns it reads."""
    by_column = {formula.column: formula for formula in formulas}
    sorter = TopologicalSorter({f.column: [i for i in f.inputs if i in by_column] for f in formulas})
    ordered: list[Formula] = []
    sorter.prepare()
    while sorter.is_active():
        ready = sorter.get_ready()
        ordered += [formula for formula in formulas if formula.column in ready]
        sorter.done(*ready)
    return ordered


@dataclass(frozen=True, slots=True)
class _Numbers:
    """The numeric columns side by side."""

    names: tuple[str, ...]
    matrix: np.ndarray  # (n_rows, n_columns) float64
    quantum: np.ndarray  # (n_columns,) smallest difference of two values
    different: np.ndarray  # (n_columns,) number of different values

    def digits(self, column: int | np.integer) -> int:
        return round(-math.log10(self.quantum[column]))


def find_formulas(
    columns: Mapping[str, np.ndarray],
    decimals: Mapping[str, int],
    given: Mapping[str, Formula | None] | None = None,
) -> list[Relation]:
    """Return formulas for as many columns as can be computed from others, in the order of computing.

    Parameters
    ----------
    columns : mapping of str to ndarray of float64 of shape (n_rows,)
        Numeric columns without missing values.
    decimals : mapping of str to int
        Digits after the point, of those that are no whole numbers.
    given : mapping of str to Formula or None, optional
        Columns whose formula is known, or None for those that must not be computed.
    """
    names = tuple(columns)
    if len(names) < 2:
        return []
    matrix = np.stack([columns[name] for name in names], axis=1)
    numbers = _Numbers(
        names,
        matrix,
        np.array([10.0 ** -decimals.get(name, 0) for name in names]),
        np.array([len(np.unique(column)) for column in matrix.T]),
    )
    candidates = [*_pairs(numbers), *_rates(numbers)]
    candidates.sort(key=lambda found: found[0])
    known = given or {}
    candidates = [((0, 0, 0), Relation(f)) for f in known.values() if f] + candidates
    needs: dict[str, set[str]] = {}
    chosen = []
    for _, relation in candidates:
        formula = relation.formula
        if formula.column in known and formula != known[formula.column]:
            continue
        inputs = {formula.left} if relation.helper is not None else {*formula.inputs}
        ancestors = inputs.union(*(needs.get(name, set()) for name in inputs))
        if formula.column in needs or formula.column in ancestors:
            continue
        needs[formula.column] = ancestors
        for name, others in needs.items():
            if formula.column in others:
                needs[name] = others | ancestors
        chosen.append(relation)
    return sorted(chosen, key=lambda relation: len(needs[relation.formula.column]))


def _pairs(numbers: _Numbers) -> list[tuple[tuple[int, int, int], Relation]]:
    """Return exact products and sums of two columns, with a rank each (lower is better)."""
    n, m = numbers.matrix.shape
    screen = numbers.matrix[_even_rows(n)]
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
                whole = combine(numbers.matrix[:, a], numbers.matrix[:, b])
                off = np.abs(numbers.matrix[:, c] - whole)
                if (off <= _tolerance(whole) + 0.51 * numbers.quantum[c]).all():
                    column, left, right = (numbers.names[i] for i in (c, a, b))
                    formula = Formula(column, operation, left, right, numbers.digits(c))
                    found.append(((0, 0, -int(numbers.different[c])), Relation(formula)))
    return found


def _rates(numbers: _Numbers) -> list[tuple[tuple[int, int, int], Relation]]:
    """Return columns that are another one times, or plus, a helper of few values, with a rank each."""
    n, m = numbers.matrix.shape
    rows = _even_rows(n)
    found = []
    for c, a in itertools.permutations(range(m), 2):
        most = min(_FEW_VALUES * n, _FEWER * numbers.different[c])
        if most < 1 or numbers.different[a] < 3:
            continue
        target, base, quantum = numbers.matrix[:, c], numbers.matrix[:, a], numbers.quantum[c]
        column, other = numbers.names[c], numbers.names[a]
        finer = int(quantum > numbers.quantum[a])  # to compute from what is finer loses digits
        if not (base == 0).any():
            fitting = (
                digits
                for digits in range(_RATE_DECIMALS + 1)
                if _rate_fits(target[rows], base[rows], digits, quantum)
                and _rate_fits(target, base, digits, quantum)
            )
            for digits in itertools.islice(fitting, 1):
                rate = np.round(target / base, digits) + 0.0
                count = len(np.unique(rate))
                if count <= most:
                    formula = Formula(column, "product", other, f"{column} / {other}", numbers.digits(c))
                    found.append(((count, finer, 1), Relation(formula, rate, digits)))
        digits = max(numbers.digits(c), numbers.digits(a))
        if len(np.unique(np.round(target[rows] - base[rows], digits))) <= max(1, len(rows) // 2):
            rest = np.round(target - base, digits) + 0.0
            count = len(np.unique(rest))
            if count <= most:
                formula = Formula(column, "sum", other, f"{column} - {other}", numbers.digits(c))
                found.append(((count, finer, -int(rest.min() >= 0)), Relation(formula, rest, digits)))
    return found


def _rate_fits(target: np.ndarray, base: np.ndarray, digits: int, quantum: float) -> bool:
    """Return whether the target is the base times a rounded rate, except for the rounding of the target.

    Where both were rounded, that is off by one in the last digit. Where the target has few digits, one more
    is another value and no rounding: hours are about a hundredth of a time like 1930.
    """
    product = base * np.round(target / base, digits)
    slack = 1.51 if np.median(np.abs(target)) >= _FINE * quantum else 0.5
    return bool((np.abs(product - target) <= slack * quantum + _tolerance(product)).all())


def _even_rows(n: int) -> np.ndarray:
    """Return at most `_SCREEN_ROWS` row numbers that lie evenly among n."""
    return np.unique(np.linspace(0, n - 1, min(n, _SCREEN_ROWS)).astype(np.int64))


def _tolerance(values: np.ndarray) -> np.ndarray:
    """Return what rounding in double precision may be off by."""
    return np.asarray(8 * np.finfo(float).eps * np.abs(values))


def _on_the_clock(
    name: str, micros: np.ndarray, clock: Clock, taken: Collection[str], *, computed: bool
) -> tuple[list[Formula], dict[str, Coded]]:
    """Return formulas of a timestamp and of its parts, and what is drawn for it unless it is computed."""
    if computed:
        return [
            Formula(column, part, name, offsets=clock.offsets) for column, part in clock.parts.items()
        ], {}
    date, time = _fresh(f"{name}: date", taken), _fresh(f"{name}: time of day", taken)
    local = micros + ahead_of_utc(micros, clock.offsets)
    steps, step = in_steps(local % DAY)
    drawn = {
        date: code_multiples(date, local // DAY, (DAY, 1), apart=_apart(clock, DAY)),
        time: code_multiples(time, steps, step, apart=_apart(clock, step[0])),
    }
    whole = Formula(name, "local" if clock.offsets else "sum", date, time, offsets=clock.offsets)
    parts = [
        Formula(column, part, time if part in TIME_OF_DAY else date) for column, part in clock.parts.items()
    ]
    return [whole, *parts], drawn


def _apart(clock: Clock, step: int) -> Callable[[np.ndarray], np.ndarray] | None:
    """Return what separates dates or times (in steps of microseconds) of different months or hours."""
    wanted = ("month", "quarter", "year") if step == DAY else ("hour",)
    part = next((part for part in wanted if part in clock.parts.values()), None)
    return None if part is None else lambda values: CALENDAR[part](values * step)


def find_orders(
    table: Mapping[str, Values], coded: Mapping[str, Coded], formulas: Sequence[Formula]
) -> list[Formula]:
    """Return what keeps columns in order, in the order of computing, after all other formulas.

    Columns that are computed from others, or that others are computed from, are not moved, nor are those of
    few values, for which conditions can ask.

    Parameters
    ----------
    table : mapping of str to Values
        The columns by name.
    coded : mapping of str to Coded
        The columns that are drawn.
    formulas : sequence of Formula
        What is computed.
    """
    read = {name for formula in formulas for name in formula.inputs}
    movable = {name for name, variable in coded.items() if not variable.exact and name not in read}
    drawn = {formula.column for formula in formulas if formula.right and formula.left not in table}
    columns = {
        v.column.name: v for v in table.values() if not v.column.nullable and v.column.kind != "category"
    }
    movable |= {
        n for n, v in columns.items() if v.column.kind == "timestamp" and n in drawn and n not in read
    }
    found: list[Formula] = []
    for kinds in (("integer", "number"), ("timestamp",)):
        numbers = {n: v.numbers for n, v in columns.items() if v.column.kind in kinds}
        below = _below(numbers)
        ascending = sorted(numbers, key=lambda n: sum(n in lower for lower in below.values()), reverse=True)
        for name in ascending:
            if name in movable:
                digits = columns[name].column.decimals
                found += [Formula(name, "at least", low, name, digits) for low in _nearest(below, name)]
        for name in reversed(ascending):
            if name not in movable:
                lower = [low for low in _nearest(below, name) if low in movable]
                found += [Formula(low, "at most", name, low, columns[low].column.decimals) for low in lower]
    return found


def _below(columns: Mapping[str, np.ndarray]) -> dict[str, set[str]]:
    """Return for each column those that are never above it, though they easily could be."""
    below: dict[str, set[str]] = {name: set() for name in columns}
    n = len(next(iter(columns.values()), ()))
    if n < _LEAST_ORDERED_ROWS:
        return below
    few = np.linspace(0, n - 1, _SCREEN_ROWS).astype(np.int64)
    shuffled = permutation(n)
    for low, high in itertools.permutations(columns, 2):
        x, y = columns[low], columns[high]
        ordered = (x[few] <= y[few]).all() and (x <= y).all() and (x < y).any()
        if ordered and (x > y[shuffled]).mean() >= _EASILY_BROKEN:
            below[high].add(low)
    return below


def _nearest(below: Mapping[str, set[str]], name: str) -> list[str]:
    """Return the columns directly below: not those that are below another one of them."""
    lower = below[name]
    return sorted(low for low in lower if not any(low in below[between] for between in lower))

"""What hangs together in a table: found, not told.

Three kinds of relation are looked for, in this order.

- *Formulas*: a number is the product or the sum of two others, or another number times (or plus) a factor
  that takes few values, such as a rate. What a formula gives is computed, never drawn.
- *Keys*: every value of one column goes with a single value of another (city → country).
- *Blocks*: columns whose combinations recur, where independence would leave most of them unseen, or would
  fill cells that are empty (category with price, shipping mode with lateness). A block is drawn whole.

Each must hold in far more rows than chance would allow after so many tries.

Columns that are computed from others, as found or as told, and the helpers that they need.

Numbers and instants that are never above another: the lowest temperature of a day and the highest.

The one that is drawn later knows the other, but only in ranges, at whose edges they can still come out in the
wrong order. Then one is put as far above the other as it lay below: `low + |high - low|`. So no row breaks
the order, and equal values are no more common than they were.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from logistream.errors import DataError
from logistream.fitting.clocks import Clock, read_clock
from logistream.fitting.coding import Coded, code_column, code_multiples, in_steps
from logistream.model.network import Formula
from logistream.schema import Column, Schema
from logistream.times import CALENDAR, DAY, TIME_OF_DAY, ahead_of_utc, micros

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = ["Relation", "find_computed", "find_formulas", "find_orders"]


ALPHA = 1e-3
"""Chance that a relation is found in a table that has none."""

_SCREEN_ROWS = 64  # most pairs are refused on so few rows
_FEW_VALUES = 0.1  # of the rows: a rate takes at most this share of different values,
_FEWER = 0.25  # and at most this share of those that the column itself takes
_RATE_DECIMALS = 4
_FINE = 1000  # quanta in a typical value: there one more or less may be by rounding


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
    matrix: np.ndarray  # (n_rows, n_columns) float64
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
    n, m = numbers.matrix.shape
    screen = numbers.matrix[_spread_rows(n, _SCREEN_ROWS)]
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
                    formula = Formula(
                        numbers.names[c], operation, numbers.names[a], numbers.names[b], _digits(numbers, c)
                    )
                    found.append(((0, 0, -int(numbers.different[c])), Relation(formula)))
    return found


def _rates(numbers: _Numbers) -> list[tuple[tuple[int, int, int], Relation]]:
    """Return columns that are another one times, or plus, a helper of few values, with a rank each."""
    n, m = numbers.matrix.shape
    rows = _spread_rows(n, _SCREEN_ROWS)
    found = []
    for c, a in itertools.permutations(range(m), 2):
        most = min(_FEW_VALUES * n, _FEWER * numbers.different[c])
        if most < 1 or numbers.different[a] < 3:
            continue
        target, base = numbers.matrix[:, c], numbers.matrix[:, a]
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


_LEAST_ROWS = 50  # with values in all columns of a formula


def find_computed(
    df: pd.DataFrame, schema: Schema, told: Mapping[str, tuple[str, str, str] | None]
) -> tuple[list[Formula], dict[str, Coded]]:
    """Return what is computed, in the order of computing, and the helpers that are drawn for it.

    Parameters
    ----------
    df : DataFrame of shape (n_rows, n_columns)
        Columns in plain dtypes.
    schema : Schema
        What they are.
    told : mapping of str to (str, str, str) or None
        The `derive` of `fit`.

    Returns
    -------
    formulas : list of Formula
    helpers : dict of str to Coded
        Rates, differences, dates and times of day, by a name that no column has.

    Raises
    ------
    DataError
        If what the caller says does not hold.
    """
    whole = [c for c in schema if not c.nullable]
    instants = {c.name: micros(df[c.name]) for c in whole if c.kind == "timestamp"}
    integers = {c.name: df[c.name].to_numpy(dtype=np.int64) for c in whole if c.kind == "integer"}
    reals = {c.name: c.decimals for c in whole if c.kind == "number" and c.decimals is not None}
    numbers = {name: df[name].to_numpy(dtype=np.float64) for name in reals}
    numbers |= {name: column.astype(np.float64) for name, column in (instants | integers).items()}
    clocks: dict[str, Clock] = {}
    parts: set[str] = set()
    for name, moments in instants.items():
        free = {c: values for c, values in integers.items() if c not in told and c not in parts}
        clocks[name] = read_clock(moments, free)
        parts |= set(clocks[name].parts)
    relations = find_formulas(
        {c.name: numbers[c.name] for c in whole if c.name in numbers and c.name not in parts},
        reals,
        {column: _told(column, how, numbers, reals) for column, how in told.items()},
    )
    formulas: list[Formula] = []
    helpers: dict[str, Coded] = {}
    for relation in relations:
        formula = relation.formula
        if relation.helper is not None:
            name = _fresh(formula.right, schema)
            formula = replace(formula, right=name)
            helper = Column(name, "number", decimals=relation.helper_decimals)
            helpers[name] = code_column(pd.Series(relation.helper), helper)
        formulas.append(formula)
    for relation, known in _with_gaps(df, schema, numbers, told):
        formula = relation.formula
        if relation.helper is not None:
            name = _fresh(formula.right, schema)
            formula = replace(formula, right=name)
            # where the other column has the gaps the helper needs none, and must have no others
            filler = np.nan if formula.left in numbers else relation.helper[0]
            rates = pd.Series(filler, range(len(df)))
            rates[known] = relation.helper
            helper = Column(name, "number", decimals=relation.helper_decimals)
            helpers[name] = code_column(rates, helper)
        formulas.append(formula)
    computed = {formula.column for formula in formulas}
    for name, clock in clocks.items():
        more, drawn = _by_the_clock(name, instants[name], clock, schema, computed=name in computed)
        formulas += more
        helpers |= drawn
    return _in_order(formulas), helpers


def _by_the_clock(
    name: str, moments: np.ndarray, clock: Clock, schema: Schema, *, computed: bool
) -> tuple[list[Formula], dict[str, Coded]]:
    """Return formulas of an instant and of its parts; if it is not computed already, what is drawn for it."""
    if computed:
        return [
            Formula(column, part, name, offsets=clock.offsets) for column, part in clock.parts.items()
        ], {}
    date, time = _fresh(f"{name}: date", schema), _fresh(f"{name}: time of day", schema)
    local = moments + ahead_of_utc(moments, clock.offsets)
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
    """Return what tells dates or times (in steps of microseconds) of other months or hours apart."""
    wanted = ("month", "quarter", "year") if step == DAY else ("hour",)
    part = next((part for part in wanted if part in clock.parts.values()), None)
    return None if part is None else lambda values: CALENDAR[part](values * step)


def _with_gaps(
    df: pd.DataFrame, schema: Schema, whole: Mapping[str, np.ndarray], told: Mapping[str, object]
) -> Iterator[tuple[Relation, np.ndarray]]:
    """Give formulas of columns with missing values, and which rows have none.

    A formula has a value where all that it is computed from has one. So only columns whose gaps are those of
    another, or of the rate that is drawn for it, can be computed.
    """
    alike: dict[bytes, list[Column]] = {}
    for c in schema:
        exact = c.kind == "integer" or (c.kind == "number" and c.decimals is not None)
        if c.nullable and exact and c.name not in told:
            alike.setdefault(df[c.name].isna().to_numpy().tobytes(), []).append(c)
    for gaps, columns in alike.items():
        known = ~np.frombuffer(gaps, bool)
        if known.sum() < _LEAST_ROWS:
            continue
        numbers = {c.name: df.loc[known, c.name].to_numpy(dtype=np.float64) for c in columns}
        others = {name: column[known] for name, column in whole.items() if schema[name].kind != "timestamp"}
        decimals = {name: schema[name].decimals or 0 for name in numbers | others}
        for relation in find_formulas(numbers | others, decimals, dict.fromkeys(others)):
            formula = relation.formula
            if relation.helper is not None or formula.left in numbers or formula.right in numbers:
                yield relation, known


def _fresh(name: str, schema: Schema) -> str:
    """Return a name that no column has."""
    while name in schema:
        name += " *"
    return name


def _told(
    column: str,
    how: tuple[str, str, str] | None,
    numbers: Mapping[str, np.ndarray],
    decimals: Mapping[str, int | None],
) -> Formula | None:
    """Return the caller's formula for a column after checking that it holds."""
    if how is None:
        return None
    left, sign, right = how
    for name in (column, left, right):
        if name not in numbers:
            raise DataError(f"derive: {name!r} is not a numeric column without missing values")
    if sign not in _OPERATIONS:
        raise DataError(f"derive: {column!r} can be computed with * or +, not {sign!r}")
    digits = decimals.get(column) or 0
    a, b = numbers[left], numbers[right]
    off = np.abs((a * b if sign == "*" else a + b) - numbers[column]) > 1.51 * 10.0**-digits
    if off.any():
        raise DataError(
            f"derive: {column!r} is not {left!r} {sign} {right!r} in {int(off.sum()):,} of {len(off):,} rows"
        )
    return Formula(column, _OPERATIONS[sign], left, right, digits)


_OPERATIONS = {"*": "product", "+": "sum"}


def _in_order(formulas: list[Formula]) -> list[Formula]:
    """Return formulas so that each comes after those whose columns it reads."""
    left = {formula.column: formula for formula in formulas}
    ordered: list[Formula] = []
    while left:
        ready = [f for f in left.values() if f.left not in left and f.right not in left]
        ordered += ready
        for formula in ready:
            del left[formula.column]
    return ordered


_LEAST_ORDERED_ROWS = 100  # must bear witness
_EASY = 0.05  # of rows put together at random: would break the order


def find_orders(
    df: pd.DataFrame, schema: Schema, coded: Mapping[str, Coded], formulas: Sequence[Formula]
) -> list[Formula]:
    """Return what keeps columns in order, in the order of computing, after all other formulas.

    Columns that are computed from others, or that others are computed from, are left as they are, and so are
    those of few values, which can be asked for.

    Parameters
    ----------
    df : DataFrame of shape (n_rows, n_columns)
        Columns in plain dtypes.
    schema : Schema
        What they are.
    coded : mapping of str to Coded
        The columns that are drawn.
    formulas : sequence of Formula
        What is computed.
    """
    read = {name for formula in formulas for name in (formula.left, formula.right)}
    movable = {name for name, variable in coded.items() if not variable.exact and name not in read}
    drawn = {formula.column for formula in formulas if formula.right and formula.left not in schema}
    whole = [c for c in schema if not c.nullable and c.kind != "category"]
    movable |= {c.name for c in whole if c.kind == "timestamp" and c.name in drawn and c.name not in read}
    numbers = {c.name: df[c.name].to_numpy(np.float64) for c in whole if c.kind in ("integer", "number")}
    instants = {c.name: micros(df[c.name]) for c in whole if c.kind == "timestamp"}
    digits = {c.name: c.decimals for c in whole}
    found: list[Formula] = []
    for columns in (numbers, instants):
        below = _below(columns)
        ascending = sorted(
            columns, key=lambda name: sum(name in lower for lower in below.values()), reverse=True
        )
        for name in ascending:
            if name in movable:
                found += [Formula(name, "at least", low, name, digits[name]) for low in _nearest(below, name)]
        for name in reversed(ascending):
            if name not in movable:
                lower = [low for low in _nearest(below, name) if low in movable]
                found += [Formula(low, "at most", name, low, digits[low]) for low in lower]
    return found


def _below(columns: Mapping[str, np.ndarray]) -> dict[str, set[str]]:
    """Return for each column those that are never above it, though they well might be."""
    below: dict[str, set[str]] = {name: set() for name in columns}
    n = len(next(iter(columns.values()), ()))
    if n < _LEAST_ORDERED_ROWS:
        return below
    few = np.linspace(0, n - 1, _SCREEN_ROWS).astype(np.int64)
    shuffled = np.argsort(np.random.Philox(0).random_raw(n), kind="stable")
    for low, high in itertools.permutations(columns, 2):
        x, y = columns[low], columns[high]
        ordered = (x[few] <= y[few]).all() and (x <= y).all() and (x < y).any()
        if ordered and (x > y[shuffled]).mean() >= _EASY:
            below[high].add(low)
    return below


def _nearest(below: Mapping[str, set[str]], name: str) -> list[str]:
    """Return which columns below need to be looked at: not those that are below another one of them."""
    lower = below[name]
    return sorted(low for low in lower if not any(low in below[between] for between in lower))

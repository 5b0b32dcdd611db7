"""Columns that follow from others: formulas, parts of timestamps, and pairs that keep an order.

- *Formulas*: a number is the product or the sum of others, a ratio or percentage, a product plus another
  one, a square, a logarithm, the time between two timestamps in some unit, digits of two numbers side by
  side; or another number times (or plus) a helper that takes few values, such as a rate. A formula must
  hold, with the rounding that the column shows, in every row in which all its columns are present.
- *Gaps* need not be those of the inputs. Then the values of all columns of the formula are drawn or computed
  in every row, and blanked after that where the column is missing. For the fit, a missing input is solved
  from the others where that is possible.
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
from logistream.fitting.coding import Coded, code_column, code_multiples, in_steps, over_all_rows
from logistream.fitting.columns import Values
from logistream.model.network import Emission, Formula, missing_name
from logistream.model.random_bits import permutation
from logistream.model.sampling import compute
from logistream.schema import Column
from logistream.times import CALENDAR, DAY, HOUR, TIME_OF_DAY, ahead_of_utc

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

__all__ = ["Computed", "Relation", "find_computed", "find_formulas", "find_orders"]


_SCREEN_ROWS = 64  # most candidates are refused on so few rows
_FIRST_ROWS = 6  # and very many of them on these
_FEW_VALUES = 0.1  # of the rows: a rate takes at most this share of different values,
_FEWER = 0.25  # and at most this share of those that the column itself takes
_RATE_DECIMALS = 4
_FINE = 1000  # quanta in a typical value: there one more or less may be by rounding
_LEAST_ROWS = 50  # with values in all columns of a formula
_LEAST_COMPLETE = 12  # of the screened rows, without gaps
_CHANCE_AGREEMENT = 0.8  # a formula must hold in fewer of the rows put together at random
_LEAST_ORDERED_ROWS = 100
_EASILY_BROKEN = 0.05  # an order must be broken in so many rows of values put together at random
_SIGNS = {"*": "product", "+": "sum"}
_MOST_COLUMNS = 40  # of a table, are tried in formulas of three inputs and more
_UNITS = (1_000_000, 60_000_000, HOUR, DAY, 7 * DAY)  # microseconds of what durations are counted in
_SCALES = (1.0, 100.0, 1000.0, 60.0, 3600.0)  # of a ratio: percent, per thousand, per hour
_SHIFTS = (10, 100, 1000, 10_000, 100_000, 1_000_000)  # of digits side by side
_LOGS = ((1.0, 0.0), (1.0, 1.0), (1 / math.log(10), 0.0), (1 / math.log(10), 1.0), (1 / math.log(2), 0.0))
_RELATIVE = 1e-9  # what numbers of full precision may be off by


@dataclass(frozen=True, slots=True)
class Relation:
    """A formula found, with the values of the helper that it needs.

    Parameters
    ----------
    formula : Formula
        How the column is computed.
    helper : ndarray of float64 of shape (n_rows,) or None
        Values of `formula.right` if that is no column of the table but a rate or a difference.
        NaN where it is not known.
    helper_decimals : int
        Digits that the helper's values have.
    """

    formula: Formula
    helper: np.ndarray | None = None
    helper_decimals: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the table that it reads."""
        return self.formula.inputs if self.helper is None else self.formula.inputs[:1]


@dataclass(frozen=True, slots=True)
class Computed:
    """What is computed of a table.

    Parameters
    ----------
    formulas : list of Formula
        In the order of computing.
    helpers : dict of str to Coded
        Rates, differences, dates and times of day, by a name that no column has.
    blanks : list of Formula
        What makes the gaps of columns whose formulas hold under gaps; after all other formulas.
    filled : dict of str to Values
        Such columns with the values that could be solved from the others.
    """

    formulas: list[Formula]
    helpers: dict[str, Coded]
    blanks: list[Formula]
    filled: dict[str, Values]


def find_computed(table: Mapping[str, Values], asked: Mapping[str, tuple[str, str, str] | None]) -> Computed:
    """Return what is computed, and the helpers that are drawn for it.

    Parameters
    ----------
    table : mapping of str to Values
        The columns by name.
    asked : mapping of str to (str, str, str) or None
        The `derive` of `fit`.

    Raises
    ------
    DataError
        If a formula that is asked for does not hold.
    """
    numeric = {
        name: values
        for name, values in table.items()
        if values.column.kind in ("integer", "number", "timestamp")
        and len(values.known) >= min(_LEAST_ROWS, len(values.numbers))
    }
    instants = {
        n: v.numbers for n, v in numeric.items() if v.column.kind == "timestamp" and not v.missing.any()
    }
    integers = {
        n: v.numbers for n, v in numeric.items() if v.column.kind == "integer" and not v.missing.any()
    }
    decimals = {n: v.column.decimals for n, v in numeric.items() if v.column.kind == "number"}
    numbers = {
        name: np.where(values.missing, np.nan, values.numbers.astype(np.float64))
        for name, values in numeric.items()
    }
    clocks: dict[str, Clock] = {}
    parts: set[str] = set()
    for name, micros in instants.items():
        free = {c: values for c, values in integers.items() if c not in asked and c not in parts}
        clocks[name] = read_clock(micros, free)
        parts |= set(clocks[name].parts)
    given = {column: _checked(column, how, numbers, decimals) for column, how in asked.items()}
    timestamps = {name for name, values in numeric.items() if values.column.kind == "timestamp"}
    relations = find_formulas(
        {name: column for name, column in numbers.items() if name not in parts}, decimals, given, timestamps
    )
    relations += _parts_between_gaps(numeric, asked, {r.formula.column for r in relations} | parts, clocks)
    blanked = _blanked(relations, table)
    full = _solved(relations, {name: numbers[name] for name in numbers}, blanked)
    formulas: list[Formula] = []
    helpers: dict[str, Coded] = {}
    for relation in relations:
        formula, helper = relation.formula, relation.helper
        if helper is not None:
            name = _fresh(formula.right, table)
            formula = replace(formula, right=name)
            missing = np.isnan(helper)
            if formula.column in blanked or table[formula.left].missing.any():
                helper = _filled(helper)  # where the other column has the gaps, the helper needs none
                missing = np.zeros(len(helper), bool)
            helpers[name] = _coded_helper(
                name, helper, missing, relation.helper_decimals, timestamps, formula
            )
        formulas.append(formula)
    computed = {formula.column for formula in formulas}
    for name, clock in clocks.items():
        more, drawn = _on_the_clock(name, instants[name], clock, table, computed=name in computed)
        formulas += more
        helpers |= drawn
    blanks, filled = [], {}
    for name in (column for column in table if column in blanked):
        flag = missing_name(name)
        helpers[flag] = _coded_flag(flag, table[name].missing)
        blanks.append(Formula(name, "blank", flag, name))
        if name not in computed:
            unknown = np.isnan(full[name])
            values = np.where(unknown, 0, full[name]).astype(table[name].numbers.dtype)
            filled[name] = replace(table[name], numbers=values, missing=unknown)
    return Computed(_in_order(formulas), helpers, blanks, filled)


def _parts_between_gaps(
    numeric: Mapping[str, Values], asked: Collection[str], taken: Collection[str], clocks: Mapping[str, Clock]
) -> list[Relation]:
    """Return which whole numbers are parts of a timestamp, where one of the two has gaps."""
    found: list[Relation] = []
    instants = [v for v in numeric.values() if v.column.kind == "timestamp"]
    integers = [
        v for v in numeric.values() if v.column.kind == "integer" and v.column.name not in {*taken, *asked}
    ]
    for values, timestamp in itertools.product(integers, instants):
        name, of = values.column.name, timestamp.column.name
        known = ~(values.missing | timestamp.missing)
        if not (values.missing.any() or timestamp.missing.any()) or known.sum() < _LEAST_ROWS:
            continue
        offsets = clocks[of].offsets if of in clocks else ()
        micros, numbers = timestamp.numbers[known], values.numbers[known]
        local = micros + ahead_of_utc(micros, offsets)
        for part, read in CALENDAR.items():
            if numbers.min() < numbers.max() and np.array_equal(read(local), numbers):
                if all(relation.formula.column != name for relation in found):
                    formula = Formula(name, part, of, offsets=offsets, rows=int(known.sum()))
                    found.append(Relation(formula))
                break
    return found


def _coded_flag(name: str, missing: np.ndarray) -> Coded:
    """Return whether a column is missing as a variable that formulas read: 1 where it is."""
    return Coded(name, missing.astype(np.int64), 2, False, (Emission(name, np.arange(2)),))


def _coded_helper(
    name: str, helper: np.ndarray, missing: np.ndarray, decimals: int, timestamps: set[str], formula: Formula
) -> Coded:
    if formula.column in timestamps:
        steps, step = in_steps(helper[~missing].astype(np.int64))
        return over_all_rows(code_multiples(name, steps, step, instant=False), missing)
    column = Column(name, "number", decimals=decimals)
    return code_column(Values(column, np.where(missing, 0.0, helper), missing))


def _blanked(relations: Sequence[Relation], table: Mapping[str, Values]) -> set[str]:
    """Return the columns with gaps that cannot simply follow from the gaps of what they are computed from."""
    blanked: set[str] = set()
    tied: list[set[str]] = []
    for relation in relations:
        column = relation.formula.column
        if column not in table:
            continue
        inputs = [table[name].missing for name in relation.columns]
        behind = np.logical_or.reduce(inputs)
        gaps = table[column].missing
        free = relation.helper is not None and not behind.any()  # then the helper can have the gaps
        nullable = {n for n in (column, *relation.columns) if table[n].missing.any()}
        tied.append(nullable)
        if not np.array_equal(gaps, behind) and not free:
            blanked |= nullable
    changed = True
    while changed:
        changed = False
        for group in tied:
            if group & blanked and not group <= blanked:
                blanked |= group
                changed = True
    return blanked


def _solved(
    relations: Sequence[Relation], numbers: Mapping[str, np.ndarray], blanked: set[str]
) -> dict[str, np.ndarray]:
    """Return the numbers with those filled in that follow from the others, NaN where none does.

    Where a result is known and two inputs are not, all but one of them are taken from other rows, so that the
    result is not lost.
    """
    full = {name: values.copy() if name in blanked else values for name, values in numbers.items()}
    tied = [relation for relation in relations if {relation.formula.column, *relation.columns} & blanked]
    for guess in (False, False, True):
        for relation in tied:
            formula, target = relation.formula, full[relation.formula.column]
            known = {name: full[name] for name in relation.columns}
            if relation.helper is not None:
                known[formula.right] = _filled(relation.helper)
            gaps = [name for name in dict.fromkeys(relation.columns) if name in blanked]
            if guess:
                for name in gaps:
                    missing = np.isnan(full[name]) & ~np.isnan(target)
                    others = [np.isnan(full[other]) for other in gaps if other != name]
                    more = missing & np.logical_or.reduce(others) if others else missing & False
                    full[name][more] = _filled(full[name])[more]
            with np.errstate(all="ignore"):
                if formula.column in blanked:
                    made = compute(formula, known).astype(np.float64)
                    made[np.logical_or.reduce([np.isnan(values) for values in known.values()])] = np.nan
                    target[np.isnan(target)] = made[np.isnan(target)]
                for name in gaps:
                    solved = _solve(formula, name, known, target)
                    if guess:
                        solved = np.where(np.isnan(target) | np.isfinite(solved), solved, _filled(full[name]))
                    fits = np.isnan(full[name]) & np.isfinite(solved)
                    full[name][fits] = solved[fits]
    return full


def _solve(formula: Formula, name: str, known: Mapping[str, np.ndarray], target: np.ndarray) -> np.ndarray:
    """Return one input of a formula from the result and the other inputs, NaN where that is not possible."""
    place = formula.inputs.index(name)
    inputs = [known[other] for other in formula.inputs]
    rest = inputs[1 - place] if len(inputs) == 2 else inputs[0]
    if formula.operation == "square" or formula.inputs == (name, name):
        negative = bool((inputs[0] < 0).any())
        return np.full(len(target), np.nan) if negative or formula.operation == "sum" else np.sqrt(target)
    if formula.operation == "log":
        return np.asarray(np.exp(target / formula.factors[0]) - formula.factors[1])
    if formula.operation == "product":
        return np.asarray(target / rest)
    if formula.operation == "sum":
        return np.asarray(target - rest)
    if formula.operation == "ratio":
        factor = formula.factors[0]
        return np.asarray(target * rest / factor if place == 0 else factor * rest / target)
    if formula.operation == "elapsed":
        return np.asarray(rest + target * formula.factors[0] * (1 if place == 0 else -1))
    if formula.operation == "linear":
        others = formula.factors[-1] + sum(
            factor * values
            for i, (factor, values) in enumerate(zip(formula.factors, inputs, strict=False))
            if i != place
        )
        return np.asarray((target - others) / formula.factors[place])
    if formula.operation == "product and sum" and place < 2:
        return np.asarray((target - formula.factors[0] * inputs[2]) / inputs[1 - place])
    if formula.operation == "product and sum":
        return np.asarray((target - inputs[0] * inputs[1]) / formula.factors[0])
    return np.full(len(target), np.nan)


def _filled(values: np.ndarray) -> np.ndarray:
    """Return values with gaps filled by those of other rows, evenly taken."""
    missing = np.isnan(values)
    if not missing.any():
        return values
    known = values[~missing]
    filled = values.copy()
    filled[missing] = known[permutation(len(known), 2)][np.arange(missing.sum()) % len(known)]
    return filled


def _checked(
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
        if name not in numbers or np.isnan(numbers[name]).any():
            raise DataError(f"derive: {name!r} is not a numeric column without missing values")
    if sign not in _SIGNS:
        raise DataError(f"derive: {column!r} can be computed with * or +, not {sign!r}")
    digits = decimals.get(column) or 0
    a, b = numbers[left], numbers[right]
    off = np.abs((a * b if sign == "*" else a + b) - numbers[column]) > 1.51 * 10.0**-digits
    if off.any():
        raise DataError(
            f"derive: {column!r} is not {left!r} {sign} {right!r} in {int(off.sum()):,} of {len(off):,} rows"
        )
    return Formula(column, _SIGNS[sign], left, right, digits, rows=len(off))


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
    matrix: np.ndarray  # (n_rows, n_columns) float64, NaN where missing
    quantum: np.ndarray  # (n_columns,) smallest difference of two values, 0 for full precision
    different: np.ndarray  # (n_columns,) number of different values
    instant: np.ndarray  # (n_columns,) bool: timestamps, in microseconds
    screen: np.ndarray  # some rows of the matrix: most candidates are refused there

    def digits(self, column: int | np.integer) -> int | None:
        return None if self.quantum[column] == 0 else round(-math.log10(self.quantum[column]))

    def known(self, *columns: int | np.integer) -> np.ndarray:
        """Return which rows have values in all these columns."""
        places = np.array(columns, dtype=np.int64)
        return np.asarray(~np.isnan(self.matrix[:, places]).any(axis=1))


def find_formulas(
    columns: Mapping[str, np.ndarray],
    decimals: Mapping[str, int | None],
    given: Mapping[str, Formula | None] | None = None,
    timestamps: Collection[str] = (),
) -> list[Relation]:
    """Return formulas for as many columns as can be computed from others, in the order of computing.

    Parameters
    ----------
    columns : mapping of str to ndarray of float64 of shape (n_rows,)
        Numeric columns, NaN where a value is missing.
    decimals : mapping of str to int or None
        Digits after the point, of those that are no whole numbers; None for full precision.
    given : mapping of str to Formula or None, optional
        Columns whose formula is known, or None for those that must not be computed.
    timestamps : collection of str
        Columns that are microseconds.
    """
    names = tuple(columns)
    if len(names) < 2:
        return []
    matrix = np.stack([columns[name] for name in names], axis=1)
    digits = [decimals.get(name, 0) for name in names]
    numbers = _Numbers(
        names,
        matrix,
        np.array([0.0 if count is None else 10.0**-count for count in digits]),
        np.array([len(np.unique(column[~np.isnan(column)])) for column in matrix.T]),
        np.array([name in timestamps for name in names]),
        matrix[_even_rows(len(matrix))],
    )
    with np.errstate(all="ignore"):  # what overflows agrees with nothing
        candidates = [*_pairs(numbers), *_rates(numbers), *_further(numbers)]
    candidates.sort(key=lambda found: found[0])
    known = given or {}
    candidates = [((0, 0, 0), Relation(f)) for f in known.values() if f] + candidates
    needs: dict[str, set[str]] = {}
    chosen = []
    for _, relation in candidates:
        formula = relation.formula
        if formula.column in known and formula != known[formula.column]:
            continue
        inputs = {*relation.columns}
        ancestors = inputs.union(*(needs.get(name, set()) for name in inputs))
        if formula.column in needs or formula.column in ancestors:
            continue
        needs[formula.column] = ancestors
        for name, others in needs.items():
            if formula.column in others:
                needs[name] = others | ancestors
        chosen.append(relation)
    return sorted(chosen, key=lambda relation: len(needs[relation.formula.column]))


_Candidate = tuple[tuple[int, int, int], Relation]  # with a rank: lower is better


def _pairs(numbers: _Numbers) -> list[_Candidate]:
    """Return exact products and sums of two columns."""
    screen, found = numbers.screen, []
    slack = np.where(numbers.quantum > 0, 0.51 * numbers.quantum, _RELATIVE * _size(screen))
    varied = [i for i in range(len(numbers.names)) if numbers.different[i] > 1]
    for a, b in itertools.combinations_with_replacement(varied, 2):
        for operation in ("product", "sum"):
            if numbers.instant[a] and (numbers.instant[b] or operation == "product"):
                continue
            if numbers.instant[b] and operation == "product":
                continue
            combine = np.multiply if operation == "product" else np.add
            guess = combine(screen[:, a], screen[:, b])
            off = np.abs(screen - guess[:, None]) - _tolerance(guess)[:, None]
            for c in np.flatnonzero(((off <= slack) | np.isnan(off)).all(axis=0)):
                if c in (a, b) or numbers.different[c] < 3:
                    continue
                rows = numbers.known(a, b, c)
                if rows.sum() < min(_LEAST_ROWS, len(rows)):
                    continue
                whole = combine(numbers.matrix[rows, a], numbers.matrix[rows, b])
                if _holds(numbers, c, rows, whole):
                    column, left, right = (numbers.names[i] for i in (c, a, b))
                    formula = Formula(column, operation, left, right, numbers.digits(c), rows=int(rows.sum()))
                    found.append(((0, 0, -int(numbers.different[c])), Relation(formula)))
    return found


def _rates(numbers: _Numbers) -> list[_Candidate]:
    """Return columns that are another one times, or plus, a helper of few values."""
    found: list[_Candidate] = []
    exact = [i for i in range(len(numbers.names)) if numbers.quantum[i] > 0]
    for c, a in itertools.permutations(exact, 2):
        most = min(_FEW_VALUES * len(numbers.matrix), _FEWER * numbers.different[c])
        if most < 1 or numbers.different[a] < 3:
            continue
        few = ~np.isnan(numbers.screen[:, [a, c]]).any(axis=1)
        near, below = numbers.screen[few, c], numbers.screen[few, a]
        if not few.any():
            continue
        quantum = numbers.quantum[c]
        column, other = numbers.names[c], numbers.names[a]
        finer = int(quantum > numbers.quantum[a])  # to compute from what is finer loses digits
        rows = numbers.known(a, c)
        if rows.sum() < min(_LEAST_ROWS, len(rows)):
            continue
        target, base = numbers.matrix[rows, c], numbers.matrix[rows, a]
        if not (base == 0).any():
            fitting = (
                digits
                for digits in range(_RATE_DECIMALS + 1)
                if _rate_fits(near, below, digits, quantum) and _rate_fits(target, base, digits, quantum)
            )
            for digits in itertools.islice(fitting, 1):
                rate = np.round(target / base, digits) + 0.0
                count = len(np.unique(rate))
                if count <= most:
                    name = f"{column} / {other}"
                    formula = Formula(column, "product", other, name, numbers.digits(c), rows=int(rows.sum()))
                    found.append(((count, finer, 1), Relation(formula, _over(rows, rate), digits)))
        digits = max(numbers.digits(c) or 0, numbers.digits(a) or 0)
        if len(np.unique(np.round(near - below, digits))) <= max(1, len(near) // 2):
            rest = np.round(target - base, digits) + 0.0
            count = len(np.unique(rest))
            if count <= most:
                name = f"{column} - {other}"
                formula = Formula(column, "sum", other, name, numbers.digits(c), rows=int(rows.sum()))
                rank = count, finer, -int(rest.min() >= 0)
                found.append((rank, Relation(formula, _over(rows, rest), digits)))
    return found


def _over(rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return values of some rows over all of them, NaN elsewhere."""
    if rows.all():
        return values
    whole = np.full(len(rows), np.nan)
    whole[rows] = values
    return whole


def _further(numbers: _Numbers) -> Iterator[_Candidate]:
    """Give all other kinds of formulas, ranked behind products and sums of two."""
    plain = [i for i in np.flatnonzero(~numbers.instant).tolist() if numbers.different[i] > 2]
    plain = plain[:_MOST_COLUMNS]
    yield from _elapsed(numbers, plain)
    yield from _sums(numbers, plain)
    for c, operation, inputs, factors in _guesses(numbers, plain):
        candidate = _checked_guess(numbers, c, operation, inputs, factors)
        if candidate is not None:
            yield candidate


def _guesses(
    numbers: _Numbers, plain: Sequence[int]
) -> Iterator[tuple[int, str, tuple[int, ...], tuple[float, ...]]]:
    """Give formulas that hold on the screened rows: target, operation, inputs and factors."""
    screen = numbers.screen[:, plain]
    slack = np.where(
        numbers.quantum[plain] > 0, numbers.quantum[plain], _RELATIVE * _size(screen)
    )  # whatever the rounding
    few = np.argsort(np.isnan(screen).sum(axis=1), kind="stable")[:_FIRST_ROWS]
    for i, a in enumerate(plain):
        unary: list[tuple[str, tuple[float, ...], np.ndarray]] = [("square", (), screen[:, i] ** 2)]
        if numbers.matrix[:, a][numbers.known(a)].min() > 0:
            unary += [("log", f, f[0] * np.log(screen[:, i] + f[1])) for f in _LOGS]
        for operation, factors, guess in unary:
            for c in _near(screen, guess, slack, {i}):
                yield plain[c], operation, (a,), factors
    for i, k in itertools.permutations(range(len(plain)), 2):
        left, right = screen[:, i], screen[:, k]
        if not (numbers.matrix[:, plain[k]] == 0).any():
            for scale in _SCALES:
                for c in _near(screen, scale * left / right, slack, {i, k}):
                    yield plain[c], "ratio", (plain[i], plain[k]), (scale,)
        if numbers.quantum[plain[i]] == numbers.quantum[plain[k]] == 1:
            for shift in _SHIFTS:
                for c in _near(screen, shift * left + right, slack, {i, k}):
                    yield plain[c], "linear", (plain[i], plain[k]), (shift, 1, 0)
        if i < k:
            for sign in (1, -1):  # all third inputs and targets at once, on few of the rows
                product = left[few, None] * right[few, None] + sign * screen[few]
                off = np.abs(product[:, :, None] - screen[few, None, :]) - _tolerance(product)[:, :, None]
                for d, c in np.argwhere(((off <= slack) | np.isnan(off)).all(axis=0)).tolist():
                    guess = left * right + sign * screen[:, d]
                    if len({i, k, d, c}) == 4 and c in _near(screen, guess, slack, set()):
                        yield plain[c], "product and sum", (plain[i], plain[k], plain[d]), (sign,)


def _near(screen: np.ndarray, guess: np.ndarray, slack: np.ndarray, without: set[int]) -> list[int]:
    """Return the columns that a guess agrees with on the screened rows, missing values aside."""
    off = np.abs(screen - guess[:, None])
    fits = ((off <= slack + _tolerance(guess)[:, None]) | np.isnan(off)).all(axis=0)
    return [c for c in np.flatnonzero(fits).tolist() if c not in without]


def _checked_guess(
    numbers: _Numbers, c: int, operation: str, inputs: tuple[int, ...], factors: tuple[float, ...]
) -> _Candidate | None:
    """Return a formula if it holds in all rows that have its columns, and would not by chance."""
    rows = numbers.known(c, *inputs)
    if rows.sum() < min(_LEAST_ROWS, len(rows)) or numbers.different[c] < 3:
        return None
    left, right, *others = *(numbers.names[i] for i in inputs), *([""] if len(inputs) == 1 else [])
    formula = Formula(
        numbers.names[c],
        operation,
        left,
        right,
        numbers.digits(c),
        others=tuple(others),
        factors=factors,
        rows=int(rows.sum()),
    )
    columns = {numbers.names[i]: numbers.matrix[rows, i] for i in inputs}
    for floor in (False, True):
        formula = replace(formula, floor=floor)
        made = compute(replace(formula, decimals=None), columns)
        if _holds(numbers, c, rows, made, floor=floor):
            shuffled = permutation(len(made))
            other = compute(replace(formula, decimals=None), {n: v[shuffled] for n, v in columns.items()})
            if _agreement(numbers, c, rows, other, floor=floor).mean() < _CHANCE_AGREEMENT:
                place = {"linear": 1, "ratio": 2, "square": 1, "log": 1}.get(operation, 3)
                return (0, place, -int(numbers.different[c])), Relation(formula)
        if numbers.quantum[c] == 0:
            break
    return None


def _elapsed(numbers: _Numbers, plain: Sequence[int]) -> Iterator[_Candidate]:
    """Give durations between two timestamps, and the later timestamp as the earlier one plus a difference."""
    instants = np.flatnonzero(numbers.instant).tolist()
    for later, earlier in itertools.permutations(instants, 2):
        rows = numbers.known(later, earlier)
        if rows.sum() < _LEAST_ROWS:
            continue
        difference = numbers.matrix[:, later] - numbers.matrix[:, earlier]
        found = False
        few = (numbers.screen[:, later] - numbers.screen[:, earlier])[:, None]
        screen = numbers.screen[:, plain]
        for unit in _UNITS:
            off = np.abs(screen - few / unit)
            slack = np.where(numbers.quantum[plain] > 0, numbers.quantum[plain], _RELATIVE * _size(screen))
            for i in np.flatnonzero(((off <= slack) | np.isnan(off)).all(axis=0)).tolist():
                candidate = _checked_guess(numbers, plain[i], "elapsed", (later, earlier), (unit,))
                if candidate is not None:
                    found = True
                    yield candidate
        if found:  # so the order of the two and their steps stay
            names = numbers.names[later], numbers.names[earlier]
            formula = Formula(names[0], "sum", names[1], " - ".join(names), 0, rows=int(rows.sum()))
            negative = int(np.nanmin(difference) < 0)
            yield (1, negative, 1), Relation(formula, difference)


def _sums(numbers: _Numbers, plain: Sequence[int]) -> Iterator[_Candidate]:
    """Give sums and differences of three or four columns.

    Found by sums of hashes: a random projection of each column's multiples of the finest quantum keeps sums,
    so of all choices of columns only those whose hashes add up are looked at.
    """
    exact = [i for i in plain if numbers.quantum[i] > 0]
    complete = np.flatnonzero(numbers.known(*exact)) if exact else np.empty(0, np.int64)
    screen = numbers.matrix[complete[_even_rows(len(complete))] if len(complete) else complete][:, exact]
    if len(exact) < 4 or len(screen) < _LEAST_COMPLETE:
        return
    finest = numbers.quantum[exact].min()
    multiples = np.rint(screen / finest)
    if np.abs(multiples).max() > 2**52:
        return
    weights = np.random.Philox(3).random_raw(len(screen))
    hashes = [int(h) for h in (multiples.astype(np.int64).astype(np.uint64) * weights[:, None]).sum(axis=0)]
    pairs: dict[int, list[tuple[int, int, int]]] = {}
    for i, k in itertools.combinations(range(len(exact)), 2):
        for sign in (1, -1):
            pairs.setdefault((hashes[i] + sign * hashes[k]) % 2**64, []).append((i, k, sign))
    seen = set()
    for (i, k), s, d in itertools.product(
        itertools.combinations(range(len(exact)), 2), (1, -1), range(-1, len(exact))
    ):
        if d in (i, k):
            continue
        for sign in (1, -1) if d >= 0 else (1,):  # hash of i + s k + sign d = hash of a pair, or less it
            more = sign * hashes[d] if d >= 0 else 0
            total = hashes[i] + s * hashes[k] + more
            for flip in (1, -1):
                for p, q, t in pairs.get((flip * total) % 2**64, ()):
                    terms = {i: 1, k: s, p: -flip, q: -flip * t} | ({d: sign} if d >= 0 else {})
                    if len(terms) < (5 if d >= 0 else 4) or frozenset(terms) in seen:
                        continue
                    seen.add(frozenset(terms))
                    yield from _of_terms(numbers, {exact[j]: sign for j, sign in terms.items()})


def _of_terms(numbers: _Numbers, terms: Mapping[int, int]) -> Iterator[_Candidate]:
    """Give formulas for the columns of a sum that is zero, each from the others."""
    for c, sign in terms.items():
        inputs = tuple(i for i in terms if i != c)
        factors = *(-sign * terms[i] for i in inputs), 0
        candidate = _checked_guess(numbers, c, "linear", inputs, factors)
        if candidate is not None:
            yield candidate


def _agreement(
    numbers: _Numbers, c: int | np.integer, rows: np.ndarray, made: np.ndarray, *, floor: bool = False
) -> np.ndarray:
    """Return in which of the rows a column is what was computed, up to its rounding."""
    target, quantum = numbers.matrix[rows, c], numbers.quantum[c]
    if floor:
        below = made - target
        return np.asarray((below >= -1e-6 * quantum) & (below < quantum * (1 + 1e-6)))
    slack = 0.51 * quantum if quantum > 0 else _RELATIVE * _size(target[:, None])[0]
    return np.asarray(np.abs(target - made) <= slack + _tolerance(made))


def _holds(
    numbers: _Numbers, c: int | np.integer, rows: np.ndarray, made: np.ndarray, *, floor: bool = False
) -> bool:
    return bool(np.isfinite(made).all() and _agreement(numbers, c, rows, made, floor=floor).all())


def _size(columns: np.ndarray) -> np.ndarray:
    """Return the typical size of each column, at least 1e-300."""
    known = np.nan_to_num(np.abs(columns))
    return np.asarray(np.maximum(known.mean(axis=0), 1e-300))


def _rate_fits(target: np.ndarray, base: np.ndarray, digits: int, quantum: float) -> bool:
    """Return whether the target is the base times a rounded rate, except for the rounding of the target.

    Where both were rounded, that is off by one in the last digit. Where the target has few digits, one more
    is another value and no rounding: hours are about a hundredth of a time like 1930.
    """
    if (base == 0).any():
        return False
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
    columns = {v.column.name: v for v in table.values() if v.column.kind not in ("category", "boolean")}
    movable |= {
        n for n, v in columns.items() if v.column.kind == "timestamp" and n in drawn and n not in read
    }
    found: list[Formula] = []
    for kinds in (("integer", "number"), ("timestamp",)):
        of_kind = [v for v in columns.values() if v.column.kind in kinds]
        numbers = {v.column.name: v.numbers for v in of_kind}
        below = _below({v.column.name: v for v in of_kind})
        ascending = sorted(numbers, key=lambda n: sum(n in lower for lower in below.values()), reverse=True)

        def moved(name: str, operation: str, beside: str) -> Formula:
            factors = _step_beside(columns[name], columns[beside])
            return Formula(name, operation, beside, name, columns[name].column.decimals, factors=factors)

        for name in ascending:
            if name in movable:
                found += [moved(name, "at least", low) for low in _nearest(below, name)]
        for name in reversed(ascending):
            if name not in movable:
                lower = [low for low in _nearest(below, name) if low in movable]
                found += [moved(low, "at most", name) for low in lower]
    return found


def _step_beside(values: Values, other: Values) -> tuple[float, ...]:
    """Return the step of which whole numbers or timestamps are multiples, if those of the other are not."""
    if values.numbers.dtype.kind != "i" or other.numbers.dtype.kind != "i":
        return ()
    known = values.known
    step = int(np.gcd.reduce(known - known[0])) if len(known) else 0
    return (float(step),) if step > 1 and ((other.known - known[0]) % step).any() else ()


def _below(columns: Mapping[str, Values]) -> dict[str, set[str]]:
    """Return for each column those that are never above it, though they easily could be, gaps aside."""
    below: dict[str, set[str]] = {name: set() for name in columns}
    n = len(next(iter(columns.values())).numbers) if columns else 0
    few = np.linspace(0, n - 1, _SCREEN_ROWS).astype(np.int64)
    for (low, x), (high, y) in itertools.permutations(columns.items(), 2):
        a, b = x.numbers, y.numbers
        if not ((a[few] <= b[few]) | x.missing[few] | y.missing[few]).all():
            continue
        known = ~(x.missing | y.missing)
        a, b = a[known], b[known]
        ordered = len(a) >= _LEAST_ORDERED_ROWS and (a <= b).all() and (a < b).any()
        if ordered and (a > b[permutation(len(b))]).mean() >= _EASILY_BROKEN:
            below[high].add(low)
    return below


def _nearest(below: Mapping[str, set[str]], name: str) -> list[str]:
    """Return the columns directly below: not those that are below another one of them."""
    lower = below[name]
    return sorted(low for low in lower if not any(low in below[between] for between in lower))

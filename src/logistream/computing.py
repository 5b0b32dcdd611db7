"""Columns that are computed from others, as found or as told, and the helpers that they need."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from logistream.coding import Coded, code_column, code_multiples, in_steps
from logistream.errors import DataError
from logistream.instants import CALENDAR, DAY, TIME_OF_DAY, ahead_of_utc, micros
from logistream.localtime import Clock, read_clock
from logistream.model import Formula
from logistream.schema import Column, Schema
from logistream.structure import Relation, find_formulas

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["find_computed"]

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

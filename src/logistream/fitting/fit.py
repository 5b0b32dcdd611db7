"""A table → a model: read the columns, find formulas, code the rest, grow a tree for each variable."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from logistream.dataco import (
    DELIVERY_DATE,
    EVENT,
    MODE,
    ORDERS,
    PROMISED_DAYS,
    PUBLIC_NAMES,
    REAL_DAYS,
    TARGET,
    are_orders,
)
from logistream.errors import DataError
from logistream.fitting.additive import Basis, additive_predictor, unexplained
from logistream.fitting.coding import code_column, code_missing
from logistream.fitting.columns import check_frame, read_columns
from logistream.fitting.common_causes import common_causes
from logistream.fitting.formulas import find_computed
from logistream.fitting.identifiers import code_integers, code_repeated, code_strings, find_unique
from logistream.fitting.inequalities import find_inequalities
from logistream.fitting.order import Step, find_dependencies, find_steps
from logistream.fitting.parts import find_parts, joined, part_rules
from logistream.fitting.trees import MOST_TESTED, grow
from logistream.model.dtypes import dtype_name
from logistream.model.model import Model
from logistream.model.network import DaysAfterEvent, Factor, missing_name
from logistream.progress import progress_shown
from logistream.schema import Schema
from logistream.tables.interchange import as_dataframe
from logistream.tables.kinds import chosen, with_text_formats

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from logistream.fitting.coding import Coded
    from logistream.fitting.columns import Values
    from logistream.model.network import Rule
    from logistream.model.patterns import Identifier

__all__ = ["fit"]


_MANY_VALUES = (
    0.1  # of the different rows: a column with so many different values shows whether rows are copies,
)
_MOST_TRIED = 20  # and so many such columns are looked at
_MOST_PREDICTORS = 6  # in an additive predictor,
_MOST_IN_ALL = 200  # and in all additive predictors of a model about so many
_LEAST_TESTED = 12  # predictors in the nodes of a tree, where there are many columns,
_TESTED_IN_ALL = 2000  # and in all trees about so many
_WORTHWHILE = 0.98  # of the variance that a tree leaves: an additive predictor must leave less


def fit(
    df: object,
    *,
    name: str = "",
    together: Sequence[Sequence[str]] = (),
    keys: Mapping[str, Sequence[str]] | None = None,
    derive: Mapping[str, tuple[str, str, str] | None] | None = None,
    columns: Iterable[str] | None = None,
    drop: Iterable[str] = (),
    types: Mapping[str, str] | None = None,
    public: Sequence[str] = (),
    progress: bool = False,
) -> Model:
    """Learn a table.

    What a model keeps of few rows is limited: see the Notes.

    Parameters
    ----------
    df : DataFrame of shape (n_rows, n_columns)
        `df_cleaned`, or any other table: strings, booleans, whole numbers, real numbers and timestamps, with
        or without missing values. It is not changed. It may be one of polars, or an Arrow table.
    name : str
        What to call the model.
    together : sequence of sequences of str
        Columns of which only combinations that occur are drawn, besides those found, such as
        `[("Market", "Type")]`. None of them may be computed, nor continuous.
    keys : mapping of str to sequence of str, optional
        For a column, which others it determines, instead of those found; empty for none. They must be
        determined by it in every row.
    derive : mapping of str to (str, str, str) or None, optional
        For a column, how it is computed, such as `{"Sales": ("Product Price", "*", "Order Item Quantity")}`
        with `*` or `+`, instead of what was found; None for a column that is to be drawn. It must hold in
        every row, up to rounding.
    columns : iterable of str, optional
        The only columns to learn.
    drop : iterable of str
        Columns not to learn.
    types : mapping of str to str, optional
        For a column, what it is: category, boolean, integer, number, timestamp, or the pattern of its dates,
        such as `{"zip": "category", "sold": "%d/%m/%Y"}`.
    public : sequence of str
        Columns of strings that are public names, such as places, and kept even if a single row has them. Of
        DataCo orders, the places are.
    progress : bool
        Whether to show progress on stderr: a bar in a terminal, else a line every two seconds.

    Returns
    -------
    Model
        Draws rows with the columns, dtypes and joint distribution of `df`.

    Raises
    ------
    DataError
        If there is nothing to learn from, or what the caller says of the structure or of the type of a
        column does not hold in the frame.
    RequestError
        If `columns`, `drop` or `types` names a column or a type that there is not.

    Warns
    -----
    DataWarning
        If a column cannot be learned: it has no values, or lists, infinite numbers or whole numbers of more
        than 64 bits. It is left out.

    Notes
    -----
    A range of numbers, a leaf of a tree and a combination of more than two columns stand for five different
    rows at least (`logistream.fitting.coding.SMALLEST_GROUP`). A string that fewer rows have is not kept: an
    invented one stands for it, and values that name the rows are invented for each event, no two alike
    (`logistream.fitting.identifiers`). Kept even of a single row are: numbers of columns with few different
    ones; which values of two associated columns occur together; what a column determines, such as the state
    and country of a city (`logistream.fitting.branches`). Copies of a row count once where most rows are
    copies.
    """
    df = chosen(check_frame(as_dataframe(df)), columns=columns, drop=drop, types=types)
    read = read_columns(df)
    schema = with_text_formats(Schema(tuple(values.column for values in read)), df)
    orders = _are_clean_orders(schema)
    if orders:
        read, schema = _as_orders(read), ORDERS
    for column in public:
        if column not in schema or schema[column].kind != "category":
            raise DataError(f"public: {column!r} is no column of strings")
    read, times = _different_rows(read)
    table = {values.column.name: values for values in read}
    found = find_computed(table, derive or {})
    formulas, blanked = found.formulas, {formula.column for formula in found.blanks}
    computed = {formula.column for formula in formulas}
    coded: dict[str, Coded] = {}
    categories: dict[str, tuple[str, ...]] = {}
    names = {*public, *(PUBLIC_NAMES if orders else ())}
    identifiers: list[Identifier] = []
    inputs = {name for formula in formulas for name in formula.inputs}
    repeated, unique = find_unique(table, names | computed | inputs)
    parts = find_parts(table, {*repeated, *names})
    written: dict[str, dict[str, str]] = {}
    given: dict[str, Step] = {}
    for column, values in sorted(table.items(), key=lambda item: item[0] in parts):
        kind = values.column.kind
        if column in parts:
            parts[column] = parts[column].written_as(written)
        if column in repeated and (groups := code_repeated(values, *repeated[column])):
            coded[column] = groups[0]
            identifiers.append(groups[1])
        elif kind == "category":
            kept = parts[column].kept if column in parts and not parts[column].whole else None
            coded[column], strings, identifier = code_strings(values, public=column in names, kept=kept)
            if identifier is None:
                categories[column] = strings
                written[column] = _as_drawn(values, coded[column], strings)
            else:
                identifiers.append(identifier)
        elif kind == "integer" and column not in computed | inputs and (named := code_integers(values)):
            coded[column] = named[0]
            identifiers.append(named[1])
        elif column not in computed:
            coded[column] = code_column(found.filled.get(column, values))
    for column, found_parts in parts.items():
        put_together = found_parts.whole and joined(found_parts, table[column], coded)
        if put_together:
            given[column], categories[column] = put_together
            coded[column] = given[column].variable
    free = {name: values for name, values in table.items() if name not in {i.column for i in identifiers}}
    coded |= found.helpers
    coded |= {
        missing_name(column): code_missing(values)
        for column, values in table.items()
        if values.missing.any() and column not in computed | blanked
    }
    formulas, exceptions = find_inequalities(free, coded, formulas)
    coded |= exceptions
    dependencies = find_dependencies({n: v for n, v in coded.items() if v.exact}, free)
    of_parts = [rule for found in parts.values() for rule in part_rules(found, coded, found.column in given)]
    ties = [rule for rule in of_parts if not parts[rule.columns[0]].not_drawn(coded)]
    causes = common_causes(coded.values())
    steps = find_steps(coded, together, keys, [*dependencies, *ties], given)
    return Model(
        name=name or ("DataCo orders" if orders else "table"),
        schema=schema,
        categories=categories,
        dtypes={column: dtype_name(df[column].dtype) for column in table},
        factors=tuple(_factors(causes, steps, times, progress=progress)),
        formulas=(*formulas, *found.blanks),
        identifiers=tuple(identifiers),
        days_after_event=(_days_after_event(categories),) if orders else (),
        on_request=tuple(column for column in table if orders and column not in EVENT),
        rows=len(df),
        rules=(*_uniqueness(identifiers, unique), *of_parts, *dependencies),
    )


def _as_drawn(values: Values, coded: Coded, strings: Sequence[str]) -> dict[str, str]:
    """Return under which string each of a column is drawn."""
    numbers, first = np.unique(values.known, return_index=True)
    drawn = coded.emissions[0].low[coded.codes[~values.missing][first]]
    return {values.strings[i]: strings[k] for i, k in zip(numbers.tolist(), drawn.tolist(), strict=True)}


def _uniqueness(identifiers: Sequence[Identifier], rules: Sequence[Rule]) -> Iterator[Rule]:
    """Give the rules of columns that name a few rows each, lost where such a column is no identifier."""
    repeated = {identifier.column for identifier in identifiers if identifier.within}
    for rule in rules:
        column, *_ = rule.columns
        lost = not rule.why_not and column not in repeated
        yield replace(rule, why_not=f"{column} has too many digits, or numbers below 0") if lost else rule


def _are_clean_orders(schema: Schema) -> bool:
    """Return whether a table has the columns of `df_cleaned`, each of its kind and without gaps."""
    return are_orders(schema) and all(
        not c.nullable
        and (c.kind == ORDERS[c.name].kind or (c.kind, ORDERS[c.name].kind) == ("integer", "number"))
        for c in schema
    )


def _as_orders(columns: Sequence[Values]) -> list[Values]:
    """Return the columns of `df_cleaned` in its order, as its schema describes them."""
    given = {values.column.name: values for values in columns}
    return [
        replace(
            given[c.name],
            column=c,
            numbers=given[c.name].numbers.astype(np.float64) if c.kind == "number" else given[c.name].numbers,
        )
        for c in ORDERS
    ]


def _different_rows(columns: list[Values]) -> tuple[list[Values], np.ndarray | None]:
    """Return the rows of a table that was drawn from fewer, each once, and how often each occurred.

    Copies are no evidence: in rows that stand there forty times everything would seem to depend on
    everything, and no group would be too small. A table of few categories repeats itself as well, and so
    does one whose rows are all determined by a key; that is no copying. So most rows must be copies, two
    columns of many values that do not determine each other must agree in them, and no string or whole number
    may name the different rows.
    """
    plain = {f"{i}": values.numbers for i, values in enumerate(columns)}
    plain |= {f"{i} missing": v.missing for i, v in enumerate(columns) if v.column.nullable}
    row = pd.factorize(pd.util.hash_pandas_object(pd.DataFrame(plain), index=False))[0]
    times = np.bincount(row)
    if len(times) > len(row) / 2:
        return columns, None
    first = np.unique(row, return_index=True)[1]
    different = [values.at(first) for values in columns]
    codes = []
    for values in different:
        code = np.zeros(len(first), np.int64)
        code[~values.missing] = pd.factorize(values.known)[0] + 1
        if values.column.kind in ("category", "integer") and int(code.max()) >= len(times) / 2:
            return columns, None
        codes.append(code)
    many = [code for code in codes if int(code.max()) >= _MANY_VALUES * len(times)]
    for a, b in itertools.combinations(many[:_MOST_TRIED], 2):
        if len(np.unique(a * (int(b.max()) + 1) + b)) >= 2 * max(a.max(), b.max()):
            return different, times
    return columns, None


def _factors(
    causes: Sequence[Coded], steps: Sequence[Step], times: np.ndarray | None, *, progress: bool
) -> list[Factor]:
    """Return the factors of each step, given all that were drawn before."""
    factors: list[Factor] = []
    drawn: dict[str, Coded] = {}
    bases: dict[str, Basis] = {}
    most = max(2, min(_MOST_PREDICTORS, _MOST_IN_ALL // max(len(steps), 1)))
    tested = max(_LEAST_TESTED, min(MOST_TESTED, _TESTED_IN_ALL // max(len(steps), 1)))
    for cause in causes:
        factors += grow(cause, list(drawn.values()), times=times)
        bases[cause.name] = Basis.of(cause, smooth=True)
        drawn[cause.name] = cause
    with progress_shown("learning", len(steps), shown=progress) as advance:
        for step in steps:
            target = step.variable
            if step.factor:
                factors.append(step.factor)
            else:
                factors += _grown(step, drawn, bases, most, tested, len(causes), times)
                bases[target.name] = Basis.of(target)
            drawn[target.name] = target
            advance()
    return factors


def _grown(
    step: Step,
    drawn: Mapping[str, Coded],
    bases: Mapping[str, Basis],
    most: int,
    tested: int,
    causes: int,
    times: np.ndarray | None,
) -> list[Factor]:
    """Return the factors of a variable: a tree, with an additive predictor if that leaves less variance."""
    target, before, within = step.variable, list(drawn.values()), [drawn[name] for name in step.within]

    def tree(predictors: Sequence[Coded]) -> list[Factor]:
        return grow(target, predictors, within, functional=step.functional, times=times, most=tested)

    if not target.ordered and target.size != 2:
        return tree(before)
    found = additive_predictor(target, [drawn[name] for name in bases], list(bases.values()), most, causes)
    if found is None:
        return tree(before)
    variable, factors = found
    better = [*factors, *tree([*before, variable])]
    if causes:  # there are too many columns to try both
        return better
    plain = tree(before)
    codes = {variable.name: variable.codes for variable in before}
    worthwhile = unexplained(target, better, codes) < _WORTHWHILE * unexplained(target, plain, codes)
    return better if worthwhile else plain


def _days_after_event(categories: dict[str, tuple[str, ...]]) -> DaysAfterEvent:
    """Return how the delivery dates of DataCo orders follow the clock."""
    days = np.array([REAL_DAYS.get(mode, (0, 6)) for mode in categories[MODE]])
    return DaysAfterEvent(DELIVERY_DATE, MODE, days[:, 0], days[:, 1], PROMISED_DAYS, TARGET)

"""A table → a model: take out what is computed, code the columns, grow a tree for each variable."""

from __future__ import annotations

import itertools
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import track

from logistream.dataco import DELIVERY_DATE, EVENT, MODE, ORDERS, PROMISED_DAYS, REAL_DAYS, TARGET, are_orders
from logistream.fitting.additive import Basis, score, unexplained
from logistream.fitting.coding import Coded, code_column, code_missing
from logistream.fitting.columns import check_frame, closed_set, plain_frame
from logistream.fitting.formulas import find_computed, find_orders
from logistream.fitting.identifiers import code_texts
from logistream.fitting.order import Step, find_steps
from logistream.fitting.trees import grow
from logistream.model.dtypes import dtype_name
from logistream.model.model import Model
from logistream.model.network import Delay, Factor, missing_name

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from logistream.schema import Schema

__all__ = ["fit"]


_MANY_VALUES = 0.1  # of the different rows: a column with so many different values can tell copies,
_MOST_TRIED = 20  # and so many such columns are looked at
_MOST_SCORED = 6  # predictors in a score,
_MOST_LINKS = 200  # and in all scores of a model about so many
_WORTH = 0.98  # of what a tree leaves unexplained: more must not be left with a score
_SECONDS_BETWEEN = 2.0  # two lines that tell how far a fit is


def fit(
    df: pd.DataFrame,
    *,
    name: str = "",
    together: Sequence[Sequence[str]] = (),
    keys: Mapping[str, Sequence[str]] | None = None,
    derive: Mapping[str, tuple[str, str, str] | None] | None = None,
    progress: bool = False,
) -> Model:
    """Learn a table.

    What a model may tell of few rows is limited: see the Notes.

    Parameters
    ----------
    df : DataFrame of shape (n_rows, n_columns)
        `df_cleaned`, or any other table: texts, booleans, whole numbers, real numbers and timestamps, with
        or without missing values. It is not changed.
    name : str
        What to call the model.
    together : sequence of sequences of str
        Columns to draw as one block besides those found, such as `[("Market", "Type")]`. None of them may
        be computed, nor continuous.
    keys : mapping of str to sequence of str, optional
        For a column, which others it determines, instead of those found; empty for none. They must be
        determined by it in every row.
    derive : mapping of str to (str, str, str) or None, optional
        For a column, how it is computed, such as `{"Sales": ("Product Price", "*", "Order Item Quantity")}`
        with `*` or `+`, instead of what was found; None for a column that is to be drawn. It must hold in
        every row, up to rounding.
    progress : bool
        Whether to show on stderr how far it is: a bar in a terminal, else a line every two seconds.

    Returns
    -------
    Model
        Draws rows with the columns, dtypes and joint distribution of `df`.

    Raises
    ------
    DataError
        If there is nothing to learn from, a column is of a kind that is not supported, or what the caller
        says of the structure does not hold in the frame.

    Notes
    -----
    A range of numbers, a leaf of a tree and a combination of more than two columns stand for five different
    rows at least (`logistream.fitting.coding.SMALLEST_GROUP`). Kept even of a single row are: the values of
    columns with few, and texts that recur in the table; which values of two linked columns go together; what
    a column determines, such as the state and country of a city (`logistream.fitting.branches`). Texts that
    name the rows are made up anew (`logistream.fitting.identifiers`). Copies of a row count once where most
    rows are copies.
    """
    plain, schema = plain_frame(check_frame(df))
    orders = _are_clean_orders(schema)
    if orders:
        schema = ORDERS
    plain, times = _different_rows(plain[list(schema.names)], schema)
    formulas, helpers = find_computed(plain, schema, derive or {})
    computed = {formula.column for formula in formulas}
    coded, categories = {}, {}
    for c in schema:
        if c.kind == "category":
            coded[c.name], categories[c.name] = code_texts(plain[c.name], c, closed_set(plain[c.name]))
        elif c.name not in computed:
            coded[c.name] = code_column(plain[c.name], c)
    coded |= helpers
    coded |= {
        missing_name(c.name): code_missing(plain[c.name], c)
        for c in schema
        if c.nullable and c.name not in computed
    }
    return Model(
        name=name or ("DataCo orders" if orders else "table"),
        schema=schema,
        categories=categories,
        dtypes={c.name: dtype_name(df[c.name].dtype) for c in schema},
        factors=tuple(_factors(find_steps(coded, together, keys), times, progress=progress)),
        formulas=(*formulas, *find_orders(plain, schema, coded, formulas)),
        delays=(_delay(categories),) if orders else (),
        on_request=tuple(c.name for c in schema if orders and c.name not in EVENT),
        rows=len(df),
    )


def _are_clean_orders(schema: Schema) -> bool:
    """Return whether a table has the columns of `df_cleaned`, each of its kind and without gaps."""
    return are_orders(schema) and all(
        not c.nullable
        and (c.kind == ORDERS[c.name].kind or (c.kind, ORDERS[c.name].kind) == ("integer", "number"))
        for c in schema
    )


def _different_rows(plain: pd.DataFrame, schema: Schema) -> tuple[pd.DataFrame, np.ndarray | None]:
    """Return the rows of a frame that was drawn from fewer, each once, and how often it occurred.

    Copies bear no witness: of rows that stand there forty times everything would seem to hang together, and
    no group would be too small. A table of few categories repeats itself as well, or one whose rows are all
    told by a key, and that is no copying: so most rows must be copies, two columns of many values that do not
    fix each other must agree in them, and no text or whole number may name the different rows.
    """
    row = pd.factorize(pd.util.hash_pandas_object(plain, index=False))[0]
    times = np.bincount(row)
    if len(times) > len(row) / 2:
        return plain, None
    first = np.unique(row, return_index=True)[1]
    different = plain.iloc[first].reset_index(drop=True)
    codes = [pd.factorize(different[name])[0] + 1 for name in different.columns]
    for c, column in zip(codes, schema, strict=True):
        if column.kind in ("category", "integer") and int(c.max()) >= len(times) / 2:
            return plain, None
    many = [c for c in codes if int(c.max()) >= _MANY_VALUES * len(times)]
    for a, b in itertools.combinations(many[:_MOST_TRIED], 2):
        if len(np.unique(a * (int(b.max()) + 1) + b)) >= 2 * max(a.max(), b.max()):
            return different, times
    return plain, None


def _factors(steps: Sequence[Step], times: np.ndarray | None, *, progress: bool) -> list[Factor]:
    """Return a factor for each step, given all that were drawn before."""
    factors: list[Factor] = []
    drawn: dict[str, Coded] = {}
    bases: dict[str, Basis] = {}
    most = max(2, min(_MOST_SCORED, _MOST_LINKS // max(len(steps), 1)))
    for step in _shown(steps) if progress else steps:
        target = step.variable
        if step.factor:
            factors.append(step.factor)
        else:
            factors += _grown(step, drawn, bases, most, times)
            bases[target.name] = Basis.of(target)
        drawn[target.name] = target
    return factors


def _grown(
    step: Step,
    drawn: Mapping[str, Coded],
    bases: Mapping[str, Basis],
    most: int,
    times: np.ndarray | None,
) -> list[Factor]:
    """Return the factors of one variable: those of a tree, or of a score and a tree if that explains more."""
    target, before, within = step.variable, list(drawn.values()), [drawn[name] for name in step.within]
    plain = grow(target, before, within, facts=step.facts, times=times)
    if not target.ordered and target.size != 2:
        return plain
    told = [drawn[name] for name in bases]
    found = score(target, told, list(bases.values()), most, empty=_empty(target))
    if found is None:
        return plain
    variable, factors = found
    scored = [*factors, *grow(target, [*before, variable], within, facts=step.facts, times=times)]
    codes = {variable.name: variable.codes for variable in before}
    worth = unexplained(target, scored, codes) < _WORTH * unexplained(target, plain, codes)
    return scored if worth else plain


def _empty(variable: Coded) -> int | None:
    """Return the code that stands for a missing value."""
    return next(
        (int(np.flatnonzero(e.missing)[0]) for e in variable.emissions if e.missing is not None), None
    )


def _shown(steps: Sequence[Step]) -> Iterator[Step]:
    """Give steps while showing how many are done: a bar in a terminal, a line now and then elsewhere.

    Both on stderr, and never a widget: those do not last in a saved notebook, and fail where no state of
    widgets is kept.
    """
    if sys.stderr.isatty():
        yield from track(steps, "learning", console=Console(stderr=True, force_jupyter=False), transient=True)
        return
    said = time.monotonic()
    for done, step in enumerate(steps):
        if time.monotonic() - said >= _SECONDS_BETWEEN:
            said = time.monotonic()
            print(f"learning: {done} of {len(steps)} done", file=sys.stderr)  # noqa: T201 - asked for
        yield step
    print(f"learning: {len(steps)} of {len(steps)} done", file=sys.stderr)  # noqa: T201 - asked for


def _delay(categories: dict[str, tuple[str, ...]]) -> Delay:
    """Return how the delivery dates of DataCo orders follow the clock."""
    days = np.array([REAL_DAYS.get(mode, (0, 6)) for mode in categories[MODE]])
    return Delay(DELIVERY_DATE, MODE, days[:, 0], days[:, 1], PROMISED_DAYS, TARGET)

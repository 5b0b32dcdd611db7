"""A table → a model: take out what is computed, code the columns, grow a tree for each variable."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.progress import track

from logistream.coding import Coded, code_column, code_missing, missing_name
from logistream.computing import find_computed
from logistream.kinds import check_frame, closed_set, dtype_name, plain_frame
from logistream.model import Delay, Factor, Model
from logistream.schema import EVENT, ORDERS, Schema
from logistream.steps import Step, find_steps
from logistream.trees import grow

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

__all__ = ["fit"]


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
        Whether to show a progress bar, in a terminal or a notebook.

    Returns
    -------
    Model
        Draws rows with the columns, dtypes and joint distribution of `df`.

    Raises
    ------
    DataError
        If there is nothing to learn from, a column is of a kind that is not supported, or what the caller
        says of the structure does not hold in the frame.
    """
    plain, schema = plain_frame(check_frame(df))
    orders = _are_orders(schema)
    if orders:
        schema = ORDERS
    plain = plain[list(schema.names)]
    categories = {c.name: closed_set(plain[c.name]) for c in schema if c.kind == "category"}
    formulas, helpers = find_computed(plain, schema, derive or {})
    computed = {formula.column for formula in formulas}
    coded = {
        c.name: code_column(plain[c.name], c, categories.get(c.name, ()))
        for c in schema
        if c.name not in computed
    }
    coded |= helpers
    coded |= {missing_name(c.name): code_missing(plain[c.name], c) for c in schema if c.nullable}
    return Model(
        name=name or ("DataCo orders" if orders else "table"),
        schema=schema,
        categories=categories,
        dtypes={c.name: dtype_name(df[c.name].dtype) for c in schema},
        factors=tuple(_factors(find_steps(coded, together, keys), progress=progress)),
        formulas=tuple(formulas),
        delays=(_delay(categories),) if orders else (),
        on_request=tuple(c.name for c in schema if orders and c.name not in EVENT),
        rows=len(plain),
    )


def _are_orders(schema: Schema) -> bool:
    """Return whether a table has the columns of `df_cleaned`, each of its kind and without gaps."""
    if set(schema.names) != set(ORDERS.names):
        return False
    return all(
        not c.nullable
        and (c.kind == ORDERS[c.name].kind or (c.kind, ORDERS[c.name].kind) == ("integer", "number"))
        for c in schema
    )


def _factors(steps: Sequence[Step], *, progress: bool) -> list[Factor]:
    """Return a factor for each step, given all that were drawn before."""
    factors: list[Factor] = []
    drawn: dict[str, Coded] = {}
    console = Console(stderr=True)
    for step in track(steps, "learning", console=console, disable=not progress, transient=True):
        factors.append(grow(step.variable, list(drawn.values()), [drawn[name] for name in step.within]))
        drawn[step.variable.name] = step.variable
    return factors


_REAL_DAYS = {"Same Day": (0, 1), "First Class": (2, 2), "Second Class": (2, 6), "Standard Class": (2, 6)}
"""Fewest and most real shipping days of each mode of DataCo, evenly spread."""


def _delay(categories: dict[str, tuple[str, ...]]) -> Delay:
    """Return how delivery dates of DataCo orders follow the clock; the table itself has no booking date."""
    days = np.array([_REAL_DAYS.get(mode, (0, 6)) for mode in categories["Shipping Mode"]])
    return Delay(
        "shipping date (DateOrders)",
        "Shipping Mode",
        days[:, 0],
        days[:, 1],
        "Days for shipment (scheduled)",
        "Late_delivery_risk",
    )

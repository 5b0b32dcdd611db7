"""A table → a model: code the columns, take out what is determined, grow a tree for each variable."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from logistream.coding import Coded, code_column, code_together
from logistream.errors import DataError
from logistream.model import Delay, Emission, Factor, Formula, Model
from logistream.schema import EVENT, EVENT_TIME, ORDERS, Column, Schema
from logistream.trees import grow

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["fit"]

_MAX_DECIMALS = 8  # more digits than that are taken as full precision
_MIN_ROWS = 20


def fit(df: pd.DataFrame, *, name: str = "") -> Model:
    """Learn a table.

    Parameters
    ----------
    df : DataFrame of shape (n_rows, n_columns)
        `df_cleaned`, or any other table: texts, booleans, whole numbers, real numbers and timestamps, with
        or without missing values. It is not changed.
    name : str
        What to call the model.

    Returns
    -------
    Model
        Draws rows with the columns, dtypes and joint distribution of `df`.

    Raises
    ------
    DataError
        If there is nothing to learn from, or a column is of a kind that is not supported.
    """
    _check(df)
    orders = set(df.columns) == set(ORDERS.names)
    schema = ORDERS if orders else Schema(tuple(_column(df[label]) for label in df.columns))
    df = df[list(schema.names)].reset_index(drop=True)
    categories = {
        c.name: tuple(sorted(df[c.name].dropna().astype("str").unique()))
        for c in schema
        if c.kind == "category"
    }
    coded = {c.name: code_column(df[c.name], c, categories.get(c.name, ())) for c in schema}
    if orders:
        factors, formulas, delays = _fit_orders(df, coded)
    else:
        factors, formulas, delays = _chain(_by_kind(schema, coded)), [], []
    return Model(
        name=name or ("DataCo orders" if orders else "table"),
        schema=schema,
        categories=categories,
        dtypes={c.name: str(df[c.name].dtype) for c in schema},
        factors=tuple(factors),
        formulas=tuple(formulas),
        delays=tuple(delays),
        on_request=tuple(c.name for c in schema if orders and c.name not in EVENT),
        rows=len(df),
    )


def _check(df: pd.DataFrame) -> None:
    twice = df.columns[df.columns.duplicated()]
    if len(twice):
        raise DataError(f"column {twice[0]!r} occurs more than once: give each column a name of its own")
    if len(df.columns) == 0 or len(df) < _MIN_ROWS:
        raise DataError(
            f"nothing to learn from: the frame has {len(df):,} rows and {len(df.columns)} columns, "
            f"expected at least {_MIN_ROWS} rows and one column"
        )
    if EVENT_TIME.name in df.columns:
        raise DataError(f"column {EVENT_TIME.name!r} is what the stream adds: leave it out of the frame")


def _column(values: pd.Series) -> Column:
    """Return what a column of a foreign table is, by its dtype and values."""
    name, nullable = str(values.name), bool(values.isna().any())
    known = values.dropna()
    if known.empty:
        raise DataError(f"column {name!r} has no values at all: drop it")
    if pd.api.types.is_bool_dtype(known):
        return Column(name, "boolean", nullable=nullable)
    if pd.api.types.is_datetime64_any_dtype(known):
        return Column(name, "timestamp", nullable=nullable)
    if pd.api.types.is_integer_dtype(known):
        return Column(name, "integer", nullable=nullable)
    if pd.api.types.is_float_dtype(known):
        floats = known.to_numpy(dtype=np.float64)
        if not np.isfinite(floats).all():
            raise DataError(f"column {name!r} holds infinite numbers: replace or drop them")
        return Column(name, "number", nullable=nullable, decimals=_decimals(floats))
    kinds = known.map(type).unique()
    if isinstance(known.dtype, pd.CategoricalDtype) or all(issubclass(kind, str) for kind in kinds):
        return Column(name, "category", nullable=nullable)
    raise DataError(
        f"column {name!r} mixes {', '.join(sorted(kind.__name__ for kind in kinds))}: "
        f"expected one of text, boolean, whole number, real number, timestamp; convert it first"
    )


def _decimals(floats: np.ndarray) -> int | None:
    """Return how many digits after the point the values have, None for more than we keep count of."""
    for digits in range(_MAX_DECIMALS + 1):
        scaled = floats * 10.0**digits
        if np.all(np.abs(scaled) < 2**53) and np.array_equal(np.rint(scaled) / 10.0**digits, floats):
            return digits
    return None


def _chain(variables: Sequence[Coded]) -> list[Factor]:
    """Return a factor for each variable, given all before it."""
    return [grow(variable, variables[:i]) for i, variable in enumerate(variables)]


def _by_kind(schema: Schema, coded: dict[str, Coded]) -> list[Coded]:
    """Return the variables of a foreign table in an order that suits drawing: instants, few values, many."""
    instants = [coded[c.name] for c in schema if c.kind == "timestamp"]
    others = [coded[c.name] for c in schema if c.kind != "timestamp"]
    return [*instants, *sorted(others, key=lambda v: v.size)]


def _fit_orders(df: pd.DataFrame, coded: dict[str, Coded]) -> tuple[list[Factor], list[Formula], list[Delay]]:
    """Return the parts of a model of DataCo orders, whose structure is known."""

    def block(*names: str) -> Coded:
        return code_together([coded[name] for name in names])

    date = coded["shipping date (DateOrders)"]
    # A place is drawn from the large to the small: each step refines the one before. Only the last emits.
    place = block("Order City", "Order State", "Order Country", "Order Region", "Market")
    levels = [
        block(*names)
        for names in (("Market",), ("Order Region", "Market"), ("Order Country", "Order Region", "Market"))
    ]
    levels = [
        Coded(name, v.codes, v.size, ordered=False, emissions=())
        for name, v in zip(("market", "region", "country"), levels, strict=True)
    ]
    product = block("Product Category Id", "Department Id", "Product Price", "Product Status")
    service = block("Shipping Mode", "Days for shipment (scheduled)", "Late_delivery_risk")
    discount = coded["Order Item Discount Rate"]
    discount = discount.emitting(Emission(_PAID_SHARE, _paid_share(df, discount), None, (1, 1000)))
    margin = code_column(_margin(df), Column(_MARGIN, "number", decimals=3))
    variables: list[Coded] = [
        date,
        *levels,
        place,
        product,
        coded["Order Item Quantity"],
        block("Type", "Order Status"),
        service,
        discount,
        margin,
        block("Customer City", "Customer Country"),
        coded["Latitude"],
        coded["Longitude"],
    ]
    coarser = {id(fine): coarse for coarse, fine in zip(levels, [*levels[1:], place], strict=True)}
    factors = [grow(v, variables[:i], within=coarser.get(id(v))) for i, v in enumerate(variables)]
    formulas = [
        Formula("Sales", "product", "Product Price", "Order Item Quantity", 2),
        Formula("Sales per customer", "product", "Sales", _PAID_SHARE, 2),
        Formula("Benefit per order", "product", "Sales per customer", _MARGIN, 2),
    ]
    return factors, formulas, [_delay(df, service)]


_PAID_SHARE = "share of sales paid"
_MARGIN = "profit ratio"

_REAL_DAYS = {"Same Day": (0, 1), "First Class": (2, 2), "Second Class": (2, 6), "Standard Class": (2, 6)}
"""Fewest and most real shipping days of each mode, evenly spread; late means more than the scheduled days."""


def _paid_share(df: pd.DataFrame, discount: Coded) -> np.ndarray:
    """Return, for each discount rate, sales per customer as a share of sales, in thousandths.

    The published rates are rounded to two digits; the one shown as 0.06 is really 0.055.
    """
    share = (df["Sales per customer"] / df["Sales"]).to_numpy()
    medians = pd.Series(share).groupby(discount.codes).median().to_numpy()
    return np.asarray(np.rint(medians * 1000), dtype=np.int64)


def _margin(df: pd.DataFrame) -> pd.Series:
    """Return benefit as a share of sales per customer; 0 where nothing was paid."""
    paid = df["Sales per customer"]
    return (df["Benefit per order"] / paid.where(paid != 0, 1)).round(3)


def _delay(df: pd.DataFrame, service: Coded) -> Delay:
    """Return the real shipping days that each combination of mode and lateness allows."""
    first = pd.Series(service.codes).drop_duplicates().sort_values().index
    low, high = [], []
    for row in df.iloc[first].itertuples(index=False):
        values = dict(zip(df.columns, row, strict=True))
        fewest, most = _REAL_DAYS[values["Shipping Mode"]]
        scheduled = int(values["Days for shipment (scheduled)"])
        late = bool(values["Late_delivery_risk"])
        low.append(max(fewest, scheduled + 1) if late else fewest)
        high.append(most if late else min(most, scheduled))
    return Delay("shipping date (DateOrders)", service.name, np.array(low), np.array(high))

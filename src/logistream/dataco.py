"""Everything about DataCo orders: columns, published event, cleaning, and the rules that orders keep."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from logistream.errors import DataError, DataWarning
from logistream.schema import EVENT_TIME, Column, Schema
from logistream.tables.files import open_table, shipped_file
from logistream.tables.kinds import choose_columns, find_kinds

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from typing import Any

__all__ = [
    "DELIVERY_DATE",
    "DISPLAYED_AMOUNTS",
    "DISPLAYED_POSITIONS",
    "DISPLAYED_WORDS",
    "EVENT",
    "MODE",
    "ORDERS",
    "ORDER_DATE_FORMAT",
    "PROMISED_DAYS",
    "PUBLIC_NAMES",
    "REAL_DAYS",
    "TARGET",
    "UNKNOWN_AT_BOOKING",
    "are_orders",
    "booked_columns",
    "carrier_outage",
    "fraud_wave",
    "known_rules",
    "load_orders",
    "named_scenarios",
    "peak_season",
    "port_strike",
    "price_shock",
    "read_orders",
    "read_table",
]


ORDER_DATE_FORMAT = "%m/%d/%Y %H:%M"
"""How DataCo writes a date; UTC in a live stream."""


def _money(name: str, meaning: str) -> Column:
    return Column(name, "number", meaning, "USD", decimals=2)


_PUBLISHED = (
    Column("Type", "category", "how the order is paid"),
    Column("Days for shipment (scheduled)", "integer", "days promised by the shipping mode", "days"),
    _money("Benefit per order", "profit on the order line, negative for a loss"),
    _money("Sales per customer", "what the customer pays: sales less the discount"),
    Column("Late_delivery_risk", "integer", "1 if delivery takes longer than scheduled, else 0"),
    Column("Customer City", "category", "where the purchase was registered"),
    Column("Customer Country", "category", "country of the customer"),
    Column("Latitude", "number", "latitude of the purchase", "degrees"),
    Column("Longitude", "number", "longitude of the purchase", "degrees"),
    Column("Market", "category", "part of the world the order goes to"),
    Column("Order City", "category", "city the order goes to"),
    Column("Order Country", "category", "country the order goes to, in Spanish"),
    Column("Order Region", "category", "region of the world the order goes to"),
    Column("Order State", "category", "state or province the order goes to"),
    Column("Product Category Id", "integer", "category of the product"),
    _money("Product Price", "price of one piece"),
    Column("Product Status", "integer", "0 if the product is available, 1 if not"),
    Column("Shipping Mode", "category", "the service booked"),
    Column(
        "shipping date (DateOrders)",
        "timestamp",
        "when the order is delivered: booking plus the real shipping days",
        "UTC",
        text_format=ORDER_DATE_FORMAT,
    ),
    Column("Order Item Quantity", "integer", "pieces on the order line"),
    _money("Sales", "price times quantity"),
    Column("Order Status", "category", "state of the order"),
)
_UNPUBLISHED = (
    Column("Department Id", "integer", "department that sells the category"),
    Column("Order Item Discount Rate", "number", "discount as a fraction of sales", decimals=2),
)

ORDERS = Schema((*_PUBLISHED, *_UNPUBLISHED))
"""`df_cleaned`: the 22 columns that are published, then the two that a client can request."""

EVENT = Schema((*_PUBLISHED, EVENT_TIME))
"""The published event: 23 keys in this order."""

_STATUS = "Delivery Status"
_CANCELED = "Shipping canceled"
_READ = {*ORDERS.names, _STATUS}


def read_orders(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read orders and clean them: the `df_cleaned` of the project.

    Rows with Delivery Status "Shipping canceled" are dropped, the columns of the schema kept in its order,
    white space trimmed, money rounded to cents, columns typed.

    Parameters
    ----------
    path : path
        The raw DataCo CSV (latin-1, as published, or UTF-8), or a clean CSV or Parquet file.

    Returns
    -------
    DataFrame of shape (n_orders, 24)
        Strings as category, whole numbers as int64, other numbers as float64, dates as datetime64[us].

    Raises
    ------
    DataError
        If the file does not exist, is not a table, is empty, lacks columns, or has values that do not fit
        their column.
    """
    raw = open_table(path, lambda names: [name for name in names if name in _READ] or names)
    return _clean_orders(raw.frame, Path(path))


def load_orders() -> pd.DataFrame:
    """Return the orders that come with the package: 10,000 synthetic ones, drawn from the shipped model.

    Returns
    -------
    DataFrame of shape (10_000, 24)
        The columns and dtypes of `read_orders`.
    """
    return read_orders(shipped_file("df_cleaned.parquet"))


def read_table(
    path: str | os.PathLike[str],
    schema: Schema | None = None,
    *,
    columns: Iterable[str] | None = None,
    drop: Iterable[str] = (),
    types: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Read a table of any usual format; DataCo orders are recognised and cleaned.

    The format, the separator, the encoding, the way in which numbers are written and the pattern of dates are
    found. The frame remembers the patterns of its dates (`logistream.tables.kinds.text_formats`): a model
    that is fitted to it writes dates in the same form.

    Parameters
    ----------
    path : path
        Parquet, Feather, Excel (.xlsx), JSON lines, or text with fields between commas, semicolons, tabs or
        |; each of them also packed with gzip, bzip2, xz or zip.
    schema : Schema, optional
        What the columns are, if known: strings that look like numbers then stay strings.
    columns : iterable of str, optional
        The only columns to keep.
    drop : iterable of str
        Columns to leave out.
    types : mapping of str to str, optional
        For a column, what it is: category, boolean, integer, number, timestamp, or the pattern of its dates,
        such as `{"zip": "category", "sold": "%d/%m/%Y"}`.

    Returns
    -------
    DataFrame of shape (n_rows, n_columns)
        Whole numbers as int64 (Int64 with gaps), other numbers as float64, yes/no as bool (boolean with
        gaps), dates as datetime64[us], in UTC if they name a time zone, and str. ZIP codes and other digits
        with leading zeros are strings.

    Raises
    ------
    DataError
        If the file does not exist or is not a table, or a column does not have the type given in `types`.
    RequestError
        If `columns`, `drop` or `types` names an unknown column or type.

    Warns
    -----
    DataWarning
        If the file looks misread: one column, rows of different lengths, no header; or a date or a number
        can be read in two ways.

    Notes
    -----
    It is in this module, and not in `logistream.tables`, because it recognises DataCo orders.
    """

    def choose(names: Sequence[str]) -> list[str]:
        kept = choose_columns(names, columns=columns, drop=drop, types=types)
        return [name for name in kept if name in _READ] if holds_orders(kept) else kept

    def holds_orders(names: Iterable[str]) -> bool:
        return set(ORDERS.names) <= set(names) and not types

    raw = open_table(path, choose)
    frame = raw.frame
    if holds_orders(frame.columns):
        return _clean_orders(frame, Path(path))
    if frame.empty:
        raise DataError(f"{path} has a header but no rows: expected at least one")
    frame, notes = find_kinds(
        frame,
        separator=raw.separator,
        typed=raw.typed,
        whole_dates=not raw.columnar,
        schema=schema,
        types={name: kind for name, kind in (types or {}).items() if name in frame.columns},
    )
    for note in (*raw.notes, *notes):
        warnings.warn(f"{path}: {note}", DataWarning, stacklevel=2)
    return frame


def _clean_orders(frame: pd.DataFrame, source: Path) -> pd.DataFrame:
    missing = [name for name in ORDERS.names if name not in frame.columns]
    if missing:
        raise DataError(
            f"{source} lacks {len(missing)} of the {len(ORDERS)} columns of orders: {', '.join(missing)}; "
            f"expected the DataCo orders CSV or a table cleaned from it"
        )
    if _STATUS in frame.columns:
        frame = frame[frame[_STATUS].astype(str).str.strip() != _CANCELED]
    if frame.empty:
        raise DataError(
            f"{source} has a header but no orders: expected at least one row that is not canceled"
        )
    return pd.DataFrame({c.name: _clean(frame[c.name].reset_index(drop=True), c, source) for c in ORDERS})


def _clean(values: pd.Series, column: Column, source: Path) -> pd.Series:
    """Return one column in its type."""
    if not pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_datetime64_any_dtype(values):
        values = values.astype("str").str.strip()
        empty = values.isna() | (values == "")
    else:
        empty = values.isna()
    if empty.any():
        raise DataError(
            f"{source}: column {column.name!r} has no value in {int(empty.sum()):,} rows "
            f"(first in row {int(empty.to_numpy().argmax()) + 1:,}): fill or drop them first"
        )
    if column.kind == "category":
        return values.astype("str").astype("category")
    if column.kind == "timestamp":
        return _dates(values, column, source)
    numbers = pd.to_numeric(values, errors="coerce").astype("float64")
    wrong = numbers.isna() | numbers.isin([float("inf"), float("-inf")])
    if column.kind == "integer":
        wrong |= numbers != numbers.round()
    if wrong.any():
        expected = "whole numbers" if column.kind == "integer" else "numbers"
        raise _misfit(values, wrong, column, expected, source)
    if column.kind == "integer":
        return numbers.astype("int64")
    return numbers if column.decimals is None else numbers.round(column.decimals)


def _dates(values: pd.Series, column: Column, source: Path) -> pd.Series:
    if pd.api.types.is_datetime64_any_dtype(values):
        dates = values
    else:
        dates = pd.to_datetime(values, format=column.text_format, errors="coerce")
        if dates.isna().any():
            dates = pd.to_datetime(values, format="ISO8601", errors="coerce", utc=True)
    if dates.isna().any():
        raise _misfit(
            values, dates.isna(), column, f"dates such as 2/18/2016 2:02 ({column.text_format})", source
        )
    if dates.dt.tz is not None:
        dates = dates.dt.tz_convert("UTC").dt.tz_localize(None)
    return dates.astype("datetime64[us]")


def _misfit(values: pd.Series, wrong: pd.Series, column: Column, expected: str, source: Path) -> DataError:
    row = int(wrong.to_numpy().argmax())
    return DataError(
        f"{source}: column {column.name!r} should hold {expected}, "
        f"but row {row + 1:,} has {values.iloc[row]!r}"
    )


# What is known of the data set


PUBLIC_NAMES = (
    "Customer City",
    "Customer Country",
    "Order City",
    "Order State",
    "Order Country",
    "Order Region",
    "Market",
)
"""Columns of place names: public, so that a model keeps even those of a single order."""

TARGET = "Late_delivery_risk"
"""What is predicted of an order: 1 if delivery takes longer than promised."""

MODE = "Shipping Mode"
PROMISED_DAYS = "Days for shipment (scheduled)"
DELIVERY_DATE = "shipping date (DateOrders)"
"""The columns from which, in a live stream, the delivery date follows; the table has no booking date."""

UNKNOWN_AT_BOOKING = frozenset({TARGET, DELIVERY_DATE, "Benefit per order", "Order Status"})
"""Columns that are only known after an order is booked; predict `TARGET` from the others only.

The delivery date gives it away: less the time of the event it is the real shipping days, and an order is late
if these are more than the days promised.
"""

DISPLAYED_WORDS = {TARGET: ("Late deliveries", "late", "on time")}
"""Title of the drawn share, and the words for an order that counts and for one that does not."""

DISPLAYED_AMOUNTS = {"Sales": "Sales", "Benefit per order": "Profit"}
"""The amounts that are drawn over time, and their labels."""

DISPLAYED_POSITIONS = {"Latitude": "customers"}
"""Whose positions the columns of degrees hold, by the column of latitudes."""

REAL_DAYS = {"Same Day": (0, 1), "First Class": (2, 2), "Second Class": (2, 6), "Standard Class": (2, 6)}
"""Fewest and most real shipping days of each mode, uniformly distributed between them."""

_SCHEDULED_DAYS = {"Same Day": 0, "First Class": 1, "Second Class": 2, "Standard Class": 4}
_STATUSES: set[tuple[object, ...]] = {
    ("CASH", "CLOSED"),
    ("DEBIT", "COMPLETE"),
    ("DEBIT", "ON_HOLD"),
    ("PAYMENT", "PENDING_PAYMENT"),
    ("PAYMENT", "PAYMENT_REVIEW"),
    ("TRANSFER", "PENDING"),
    ("TRANSFER", "PROCESSING"),
}

_PLACE = ["Order City", "Order State", "Order Country", "Order Region", "Market"]
_PRODUCT = ["Product Category Id", "Department Id", "Product Price"]


def are_orders(schema: Schema) -> bool:
    """Return whether a table has exactly the columns of `df_cleaned`, in any order."""
    return set(schema.names) == set(ORDERS.names)


def booked_columns(schema: Schema) -> list[str]:
    """Return the columns of a table that are known when an order is booked; of other tables all."""
    hidden = UNKNOWN_AT_BOOKING if are_orders(schema) else frozenset()
    return [name for name in schema.names if name not in hidden]


def known_rules(real: pd.DataFrame) -> dict[str, Callable[[pd.DataFrame], pd.Series | np.ndarray]]:
    """Return the rules that every order keeps, each with a function that finds the rows that break it.

    Parameters
    ----------
    real : DataFrame of shape (n_rows, 24)
        All real orders at hand: the places and the products with their prices are those that occur there.

    Returns
    -------
    dict of str to callable
        From a rule in words to a function that takes orders and returns bool of shape (n_rows,): which break
        it.
    """
    return {
        "Sales = Product Price x Order Item Quantity": lambda f: (
            (f["Sales"] - f["Product Price"] * f["Order Item Quantity"]).abs() > 0.0051
        ),
        # published rates have two digits, which is half a hundredth of the sales
        "Sales per customer = Sales less the discount": lambda f: (
            (f["Sales"] * (1 - f["Order Item Discount Rate"]) - f["Sales per customer"]).abs()
            > 0.0051 * f["Sales"] + 0.0051
        ),
        "discount between 0 and 25 %": lambda f: ~f["Order Item Discount Rate"].between(0, 0.25),
        "Benefit per order between -2.75 and 0.5 of Sales per customer": lambda f: (
            ~f["Benefit per order"].between(
                -2.755 * f["Sales per customer"] - 0.005, 0.505 * f["Sales per customer"] + 0.005
            )
        ),
        "Shipping Mode fixes the days scheduled": lambda f: (
            f[MODE].astype("str").map(_SCHEDULED_DAYS) != f[PROMISED_DAYS]
        ),
        "First Class is always late": lambda f: (f[MODE].astype("str") == "First Class") & (f[TARGET] != 1),
        "Type allows the Order Status": _outside(_STATUSES, ["Type", "Order Status"]),
        "Product Status is 0": lambda f: f["Product Status"] != 0,
        "the place of the order exists": _outside(set(_combinations(real, _PLACE)), _PLACE),
        "the product exists at that price": _outside(set(_combinations(real, _PRODUCT)), _PRODUCT),
    }


def _outside(known: set[tuple[object, ...]], columns: list[str]) -> Callable[[pd.DataFrame], np.ndarray]:
    """Return a function that finds the rows whose values of these columns, together, are not known."""
    return lambda frame: np.array([row not in known for row in _combinations(frame, columns)], dtype=bool)


def _combinations(frame: pd.DataFrame, columns: list[str]) -> Iterator[tuple[object, ...]]:
    strings = [
        frame[name].astype("str") if isinstance(frame[name].dtype, pd.CategoricalDtype) else frame[name]
        for name in columns
    ]
    return zip(*strings, strict=True)


# Scenarios of the shipped model, in the form that `scenario=` and `logistream.Scenario.from_json` take


def peak_season() -> dict[str, Any]:
    """Return the weeks before a holiday: three times the orders, larger baskets, slower standard shipping.

    More is ordered and more of it at once, and carriers that work at their limit need a day longer for what
    was not paid to be fast.
    """
    return {
        "name": "peak season",
        "effects": [
            {"rate": 3},
            {"weight": 1.5, "where": ["Order Item Quantity>=3"]},
            {"delay": 1, "where": [f"{MODE}:Standard Class"]},
        ],
    }


def port_strike(
    region: str = "Western Europe", *, profile: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return a strike in the ports of a region: deliveries there take five more days, orders fall by half.

    Goods wait on board, so what was promised is not kept; and those who can wait order later.

    Parameters
    ----------
    region : str
        A value of `Order Region`, where the orders go.
    profile : mapping, optional
        When it holds, as in `logistream.Scenario`; by default always.
    """
    there = [f"Order Region:{region}"]
    return _scenario(
        f"port strike, {region}", [{"weight": 0.5, "where": there}, {"delay": 5, "where": there}], profile
    )


def carrier_outage(
    mode: str = "Standard Class", *, profile: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return an outage of the carrier of a shipping mode: three more days, and it is booked half as often.

    What is with the carrier stands still, and who sees that at booking takes another mode.

    Parameters
    ----------
    mode : str
        A value of `Shipping Mode`.
    profile : mapping, optional
        When it holds, as in `logistream.Scenario`; by default always.
    """
    booked = [f"{MODE}:{mode}"]
    return _scenario(
        f"carrier outage, {mode}", [{"weight": 0.5, "where": booked}, {"delay": 3, "where": booked}], profile
    )


def fraud_wave(*, profile: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a wave of fraud: eight times as many dear orders that are paid by transfer.

    All orders of the data set that were marked as fraud were paid by transfer, and fraud goes for dear goods.

    Parameters
    ----------
    profile : mapping, optional
        When it holds, as in `logistream.Scenario`; by default always.
    """
    return _scenario("fraud wave", [{"weight": 8, "where": ["Type:TRANSFER", "Sales>=300"]}], profile)


def price_shock(category: int = 17, *, profile: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a price shock in a product category: 40 % dearer, and ordered a third less often.

    What is computed from the price follows: sales, what the customer pays, and the profit.

    Parameters
    ----------
    category : int
        A value of `Product Category Id`.
    profile : mapping, optional
        When it holds, as in `logistream.Scenario`; by default always.
    """
    bought = [f"Product Category Id:{category}"]
    return _scenario(
        f"price shock, category {category}",
        [{"weight": 0.67, "where": bought}, {"scale": {"Product Price": 1.4}, "where": bought}],
        profile,
    )


_NAMED: Sequence[tuple[Callable[[], dict[str, Any]], str]] = (
    (peak_season, "Three times the orders, larger baskets; Standard Class takes a day longer."),
    (port_strike, "Deliveries to Western Europe take five more days; orders for it fall by half."),
    (carrier_outage, "Standard Class takes three more days and is booked half as often."),
    (fraud_wave, "Orders of 300 USD and more that are paid by transfer are eight times as likely."),
    (price_shock, "Category 17 is 40 % dearer and is ordered a third less often."),
)


def named_scenarios(schema: Schema) -> list[tuple[dict[str, Any], str]]:
    """Return the scenarios above with their default arguments, each with a sentence what it does.

    They are for tables with the columns of `df_cleaned`; for any other there are none.
    """
    return [(make(), sentence) for make, sentence in _NAMED] if are_orders(schema) else []


def _scenario(name: str, effects: list[dict[str, Any]], profile: Mapping[str, Any] | None) -> dict[str, Any]:
    return {"name": name, "effects": effects} | ({} if profile is None else {"profile": profile})

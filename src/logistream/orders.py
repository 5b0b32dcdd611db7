"""DataCo orders: the raw CSV as published, or an already clean table, to `df_cleaned`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from logistream.errors import DataError
from logistream.schema import ORDERS, Column, Schema
from logistream.tables import open_table

if TYPE_CHECKING:
    import os

__all__ = ["read_orders", "read_table"]

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
        Texts as category, whole numbers as int64, other numbers as float64, dates as datetime64[us].

    Raises
    ------
    DataError
        If there is no such file, it is not a table, is empty, lacks columns, or has values that do not
        fit their column.
    """
    source = Path(path)
    frame = open_table(source, dtype=str, keep_default_na=False, usecols=lambda name: name in _READ)
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


def read_table(path: str | os.PathLike[str], schema: Schema | None = None) -> pd.DataFrame:
    """Read any CSV or Parquet file: DataCo orders are cleaned, texts that are ISO dates become timestamps.

    Parameters
    ----------
    path : path
        The file.
    schema : Schema, optional
        What the columns are, if known: texts that look like numbers then stay texts.

    Returns
    -------
    DataFrame of shape (n_rows, n_columns)
        Texts, numbers, booleans and timestamps by what the columns hold.

    Raises
    ------
    DataError
        If there is no such file or it is not a table.
    """
    texts = {c.name: "str" for c in schema or () if c.kind == "category"}
    frame = open_table(path, low_memory=False, dtype=texts)
    if set(ORDERS.names) <= set(frame.columns):
        return read_orders(path)
    for name in frame.columns[frame.dtypes == "str"]:
        known = frame[name].dropna()
        if known.str.match(r"\d{4}-\d{2}-\d{2}").all() and len(known):
            dates = pd.to_datetime(frame[name], format="ISO8601", errors="coerce", utc=True)
            if dates.notna().sum() == len(known):
                frame[name] = dates
    return frame


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

"""DataCo orders: the raw CSV as published, or an already clean table, to `df_cleaned`."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from logistream.errors import DataError
from logistream.schema import ORDERS, Column

if TYPE_CHECKING:
    import os

__all__ = ["read_orders"]

_STATUS = "Delivery Status"
_CANCELED = "Shipping canceled"
_PARQUET_MAGIC = b"PAR1"


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
    try:
        with source.open("rb") as file:
            magic = file.read(4)
    except FileNotFoundError:
        raise DataError(f"no file at {source}: check the path") from None
    except OSError as exc:
        raise DataError(f"{source} cannot be read: {exc.strerror or exc}") from exc
    if not magic:
        raise DataError(f"{source} is empty: expected a table of orders")
    frame = _read_parquet(source) if magic == _PARQUET_MAGIC else _read_csv(source)
    missing = [name for name in ORDERS.names if name not in frame.columns]
    if missing:
        raise DataError(
            f"{source} lacks {len(missing)} of the {len(ORDERS)} columns of the schema: {', '.join(missing)}; "
            f"expected the DataCo orders CSV or a table cleaned from it"
        )
    if _STATUS in frame.columns:
        frame = frame[frame[_STATUS].astype(str).str.strip() != _CANCELED]
    if frame.empty:
        raise DataError(
            f"{source} has a header but no orders: expected at least one row that is not canceled"
        )
    return pd.DataFrame({c.name: _clean(frame[c.name].reset_index(drop=True), c, source) for c in ORDERS})


def _read_parquet(source: Path) -> pd.DataFrame:
    try:
        frame: pd.DataFrame = pq.read_table(source).to_pandas()
    except (pa.ArrowException, OSError) as exc:
        raise DataError(
            f"{source} starts like a Parquet file but cannot be read: it is damaged or cut short"
        ) from exc
    return frame


def _read_csv(source: Path) -> pd.DataFrame:
    encoding = _encoding(source)
    wanted = {*ORDERS.names, _STATUS}
    try:
        return pd.read_csv(
            source, encoding=encoding, dtype=str, keep_default_na=False, usecols=lambda name: name in wanted
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, csv.Error) as exc:
        raise DataError(f"{source} is not a table: {str(exc).strip().splitlines()[-1]}") from exc


def _encoding(source: Path) -> str:
    """Return UTF-8 if the whole file is, else latin-1, which is what DataCo is published in."""
    encoding = "utf-8-sig"
    with source.open("rb") as file:
        head = file.read(1 << 16)
        if b"\0" in head:
            raise DataError(f"{source} is not a table of text: it holds binary data; expected CSV or Parquet")
    try:
        with source.open(encoding=encoding, newline="") as text:
            while text.read(1 << 20):
                pass
    except UnicodeDecodeError:
        return "latin-1"
    return encoding


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

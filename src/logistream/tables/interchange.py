"""Tables of other libraries, such as polars, as DataFrames of pandas."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.interchange

from logistream.errors import DataError

__all__ = ["as_dataframe"]


def as_dataframe(table: object) -> pd.DataFrame:
    """Return any table as a DataFrame: one of pandas as it is, others through Arrow.

    Parameters
    ----------
    table : DataFrame or object
        Of pandas; or anything that gives itself as an Arrow stream (`__arrow_c_stream__`: polars, DuckDB,
        pyarrow) or through the interchange protocol of dataframes (`__dataframe__`).

    Returns
    -------
    DataFrame of shape (n_rows, n_columns)
        Whole numbers and booleans with gaps as Int64 and boolean, dictionaries as category, decimals as
        float64, days as datetime64.

    Raises
    ------
    DataError
        If it is no table, or a damaged one.
    """
    if isinstance(table, pd.DataFrame):
        return table
    streams, speaks = hasattr(table, "__arrow_c_stream__"), hasattr(table, "__dataframe__")
    if isinstance(table, pd.Series) or not (streams or speaks):
        raise DataError(
            f"expected a DataFrame of pandas or polars, or an Arrow table, got {type(table).__name__}"
        )
    try:
        arrow = pa.table(table) if streams else pyarrow.interchange.from_dataframe(table)
        # by position: names may occur twice, which is for others to refuse
        columns = [_column(column) for column in arrow.columns]
    except (pa.ArrowException, TypeError, ValueError, NotImplementedError) as exc:
        raise DataError(f"this {type(table).__name__} cannot be read as an Arrow table: {exc}") from exc
    frame = pd.concat(columns, axis=1) if columns else pd.DataFrame()
    frame.columns = pd.Index(arrow.column_names, dtype="str" if columns else None)
    return frame


def _column(values: pa.ChunkedArray) -> pd.Series[Any]:
    """Return a column in the dtype that pandas has for it."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        values = values.cast(pa.dictionary(pa.int32(), pa.string()))
    elif pa.types.is_decimal(kind):
        values = values.cast(pa.float64())
    elif pa.types.is_string_view(kind) or pa.types.is_large_string(kind):
        values = values.cast(pa.string())
    series: pd.Series[Any] = values.to_pandas(date_as_object=False)
    if values.null_count and pa.types.is_boolean(kind):
        return pd.Series(pd.array(values.to_pylist(), dtype="boolean"))
    if values.null_count and pa.types.is_integer(kind):
        missing = values.is_null().to_numpy()
        numbers = values.fill_null(0).to_numpy()
        dtype = "UInt64" if pa.types.is_uint64(kind) else "Int64"
        return pd.Series(pd.array(numbers, dtype=dtype)).mask(missing)
    return series

"""Columns of a batch in the dtypes of the frame that was fitted.

Not in `sampling`, because a server that only streams does not need pandas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

if TYPE_CHECKING:
    from logistream.model.network import Network
    from logistream.schema import Column

__all__ = ["as_fitted", "dtype_name", "to_frame"]

_ORDERED = "ordered category"
_ARROW_STRING = pd.ArrowDtype(pa.string())


def to_frame(model: Network, batch: pa.RecordBatch) -> pd.DataFrame:
    """Return table columns as a DataFrame with the dtypes of the frame that was fitted."""
    frame = {}
    for column in model.schema:
        frame[column.name] = as_fitted(
            batch.column(column.name).to_pandas(), column, model.dtypes[column.name]
        )
    return pd.DataFrame(frame)


def dtype_name(dtype: object) -> str:
    """Return the name by which `as_fitted` knows the dtype of a fitted column."""
    return _ORDERED if isinstance(dtype, pd.CategoricalDtype) and dtype.ordered else str(dtype)


def as_fitted(values: pd.Series[Any], column: Column, name: str) -> pd.Series[Any]:
    """Return values in the dtype of the fitted frame.

    Parameters
    ----------
    values : Series of shape (n_rows,)
        Strings as a category over the closed set, timestamps in UTC.
    column : Column
        What they are.
    name : str
        What `dtype_name` gave.
    """
    if column.kind == "category" and name in ("category", _ORDERED):
        return values.cat.as_ordered() if name == _ORDERED else values
    if name == str(_ARROW_STRING):  # by this name pandas makes another dtype
        return values.astype(_ARROW_STRING)
    dtype = pd.api.types.pandas_dtype("category" if name == _ORDERED else name)
    if column.kind == "timestamp":
        arrow = dtype.pyarrow_dtype if isinstance(dtype, pd.ArrowDtype) else None
        zone = getattr(dtype if arrow is None else arrow, "tz", None)
        values = values.dt.tz_localize(None) if zone is None else values.dt.tz_convert(zone)
    restored = values.astype(dtype)
    return restored.cat.as_ordered() if name == _ORDERED else restored

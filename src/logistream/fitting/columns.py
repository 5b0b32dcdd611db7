"""What the columns of any frame are, a sentence for those that cannot be learned, and the way back.

A model works on five kinds of columns. Pandas has many more dtypes; `plain_frame` leads from those to the
kinds, and `as_fitted` from values of a kind to the dtype that the fitted frame had.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from logistream.errors import DataError
from logistream.schema import EVENT_TIME, Column, Schema

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MIN_ROWS", "check_frame", "closed_set", "plain_frame"]


MIN_ROWS = 20
"""Fewest rows that can be learned from."""

_MAX_DECIMALS = 8  # more digits than that are taken as full precision
_ULPS = 4  # that a value may be off by, of a sum or product of rounded ones
_ARROW_TEXT = pd.ArrowDtype(pa.string())
_EXPECTED = "expected text, boolean, whole number, real number or timestamp"
_CURES = {
    "Timedelta": "turn it into a number, as with .dt.total_seconds()",
    "Decimal": "turn it into real numbers with .astype(float)",
    "date": "turn it into timestamps with pd.to_datetime",
    "Period": "turn it into timestamps with .dt.to_timestamp()",
    "complex": "split it into its real and its imaginary part",
}


def check_frame(df: object) -> pd.DataFrame:
    """Return `df` if it is a table that can be learned from, as far as its shape and names tell.

    Raises
    ------
    DataError
        It is no frame, is too small, or has names that are no texts, or one of them twice, or that of the
        event's time.
    """
    if not isinstance(df, pd.DataFrame):
        raise DataError(f"expected a pandas DataFrame to learn from, got {type(df).__name__}")
    if df.columns.nlevels > 1:
        raise DataError(
            f"the column names have {df.columns.nlevels} levels: expected plain ones; "
            f"join them, as with df.columns = df.columns.map(' '.join)"
        )
    for label in df.columns:
        if not isinstance(label, str):
            raise DataError(
                f"column names must be texts, and {label!r} is of type {type(label).__name__}: "
                f"rename, as with df.columns = df.columns.astype(str)"
            )
    twice = df.columns[df.columns.duplicated()]
    if len(twice):
        raise DataError(f"column {twice[0]!r} occurs more than once: give each column a name of its own")
    if len(df.columns) == 0 or len(df) < MIN_ROWS:
        raise DataError(
            f"nothing to learn from: the frame has {_count(len(df), 'row')} and "
            f"{_count(len(df.columns), 'column')}, expected at least {MIN_ROWS} rows and one column"
        )
    if EVENT_TIME.name in df.columns:
        raise DataError(f"column {EVENT_TIME.name!r} is what the stream adds: leave it out of the frame")
    return df


def plain_frame(df: pd.DataFrame) -> tuple[pd.DataFrame, Schema]:
    """Return the frame with a plain dtype for each column, and what the columns are.

    Objects become what they are: booleans, whole numbers, real numbers, timestamps or texts; so do
    categories that are no texts. The index is dropped. `df` is not changed.

    Raises
    ------
    DataError
        A column is of no kind that is supported, has no values, or values that cannot be served.
    """
    plain = {}
    columns = []
    for name in df.columns:
        values = _plain(df[name].reset_index(drop=True))
        plain[name] = values
        columns.append(_column(values))
    return pd.DataFrame(plain), Schema(tuple(columns))


def closed_set(values: pd.Series[Any]) -> tuple[str, ...]:
    """Return the texts that a category column can hold: in their own order, or else sorted."""
    if isinstance(values.dtype, pd.CategoricalDtype):
        return tuple(values.dtype.categories)
    return tuple(sorted(values.dropna().astype("str").unique()))


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _plain(values: pd.Series[Any]) -> pd.Series[Any]:
    """Return a column in a dtype that tells what it is."""
    dtype = values.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return values if _all_texts(pd.Series(dtype.categories)) else _plain(values.astype(object))
    if isinstance(dtype, pd.ArrowDtype) and pa.types.is_date(dtype.pyarrow_dtype):
        return values.astype("datetime64[us]")
    if not pd.api.types.is_object_dtype(dtype):
        return values
    kinds = set(map(type, values.dropna()))
    if kinds <= {bool, np.bool_}:
        return values.astype("boolean")
    try:
        if all(issubclass(kind, int | np.integer) for kind in kinds) and bool not in kinds:
            return values.astype("Int64")
        if all(issubclass(kind, int | float | np.number) for kind in kinds) and bool not in kinds:
            return values.astype("float64")
        if all(issubclass(kind, dt.datetime | np.datetime64) for kind in kinds):
            return pd.to_datetime(values)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"column {values.name!r} cannot be read: {error}") from error
    return values


def _all_texts(values: pd.Series[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def _column(values: pd.Series[Any]) -> Column:
    """Return what a column is, by its dtype and values."""
    name, nullable, known = str(values.name), bool(values.isna().any()), values.dropna()
    if known.empty:
        raise DataError(f"column {name!r} has no values at all: drop it")
    api = pd.api.types
    if api.is_bool_dtype(known):
        return Column(name, "boolean", nullable=nullable)
    if api.is_datetime64_any_dtype(known):
        return Column(name, "timestamp", nullable=nullable)
    if api.is_integer_dtype(known):
        if int(known.max()) > np.iinfo(np.int64).max:
            raise DataError(
                f"column {name!r} holds {known.max()}, more than 64 bits with a sign can: scale it"
            )
        return Column(name, "integer", nullable=nullable)
    if api.is_float_dtype(known):
        floats = known.to_numpy(dtype=np.float64)
        if not np.isfinite(floats).all():
            raise DataError(f"column {name!r} holds infinite numbers: replace or drop them")
        return Column(name, "number", nullable=nullable, decimals=_decimals(floats))
    if isinstance(known.dtype, pd.CategoricalDtype) or _all_texts(known):
        _check_texts(name, known.unique())
        return Column(name, "category", nullable=nullable)
    kinds = sorted({type(value).__name__ for value in known})
    if len(kinds) > 1:
        raise DataError(f"column {name!r} mixes {', '.join(kinds)}: {_EXPECTED}; convert it to one of them")
    cure = _CURES.get(kinds[0], "turn it into text with .astype(str), or drop it")
    raise DataError(f"column {name!r} holds values of type {kinds[0]}: {_EXPECTED}; {cure}")


def _check_texts(name: str, texts: Iterable[str]) -> None:
    """Raise `DataError` for texts that no message can hold."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"column {name!r} holds {text!r}, which is no valid Unicode: replace it"
            ) from None


def _decimals(floats: np.ndarray) -> int | None:
    """Return how many digits after the point the values have, None for more than we keep count of.

    Sums of such values are off in the last bits: 3.2 + 0.1 is 3.3000000000000003, and has one digit.
    """
    for digits in range(_MAX_DECIMALS + 1):
        scaled = floats * 10.0**digits
        off = np.abs(np.rint(scaled) / 10.0**digits - floats)
        if np.all(np.abs(scaled) < 2**53 / _ULPS) and np.all(off <= _ULPS * np.spacing(np.abs(floats))):
            return digits
    return None

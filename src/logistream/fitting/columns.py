"""Columns of any frame as plain numbers, and an error for those that cannot be learned.

A model knows five kinds of columns; pandas has many more dtypes. `read_columns` converts each column once, on
entry: every later step of a fit works on the numbers that it gives.
"""

from __future__ import annotations

import datetime as dt
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from logistream.errors import DataError, DataWarning
from logistream.schema import EVENT_TIME, Column
from logistream.times import micros

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["MIN_ROWS", "Values", "check_frame", "read_columns"]


MIN_ROWS = 20
"""Fewest rows that can be learned from."""

_MAX_DECIMALS = 8  # more digits than that are taken as full precision
_ULPS = 4  # that a value may be off by, of a sum or product of rounded ones
_EXPECTED = "expected text, boolean, whole number, real number or timestamp"
_CURES = {
    "Timedelta": "turn it into a number, as with .dt.total_seconds()",
    "Decimal": "turn it into real numbers with .astype(float)",
    "date": "turn it into timestamps with pd.to_datetime",
    "Period": "turn it into timestamps with .dt.to_timestamp()",
    "complex": "split it into its real and its imaginary part",
}


@dataclass(frozen=True, slots=True)
class Values:
    """One column as plain numbers.

    Parameters
    ----------
    column : Column
        What it is.
    numbers : ndarray of shape (n_rows,)
        Float64 for a number. Int64 for all other kinds: whole numbers, 0 or 1, microseconds since 1970 UTC,
        places in `strings`. 0 where the value is missing.
    missing : ndarray of bool of shape (n_rows,)
        Which values are missing.
    strings : tuple of str
        The closed set of a category column: in the order of its dtype, or else sorted.
    scale : bool
        Whether they are the levels of an ordered dtype.
    """

    column: Column
    numbers: np.ndarray
    missing: np.ndarray
    strings: tuple[str, ...] = ()
    scale: bool = False

    @property
    def known(self) -> np.ndarray:
        """The numbers that are not missing, shape (n_known,)."""
        return np.asarray(self.numbers[~self.missing])

    def at(self, rows: np.ndarray) -> Values:
        """Return the same column of these rows only."""
        return replace(self, numbers=self.numbers[rows], missing=self.missing[rows])


def check_frame(df: pd.DataFrame) -> pd.DataFrame:
    """Return `df` if its shape and names are those of a table that can be learned.

    Raises
    ------
    DataError
        It is too small, or has names that are no strings, or one of them twice, or that of the
        event's time.
    """
    if df.columns.nlevels > 1:
        raise DataError(
            f"the column names have {df.columns.nlevels} levels: expected plain ones; "
            f"join them, as with df.columns = df.columns.map(' '.join)"
        )
    for label in df.columns:
        if not isinstance(label, str):
            raise DataError(
                f"column names must be strings, and {label!r} is of type {type(label).__name__}: "
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
        raise DataError(f"the stream adds a column {EVENT_TIME.name!r}: leave it out of the frame")
    return df


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def read_columns(df: pd.DataFrame) -> list[Values]:
    """Return every column of a frame as plain numbers.

    Objects become what they hold: booleans, whole numbers, real numbers, timestamps or strings; so do
    categories that are no strings. The index is left out. `df` is not changed.

    Raises
    ------
    DataError
        No column is left.

    Warns
    -----
    DataWarning
        A column is of no kind that is supported, has no values, or values that cannot be served. It is left
        out.
    """
    columns: list[Values] = []
    odd: DataError | None = None
    for name in df.columns:
        try:
            columns.append(_read(df[name]))
        except DataError as error:
            odd = error
            warnings.warn(f"{error} (the model leaves it out)", DataWarning, stacklevel=3)
    if odd is not None and not columns:
        raise odd
    return columns


def _read(values: pd.Series[Any]) -> Values:
    values = _plain(values.reset_index(drop=True))
    column, missing = _column(values), values.isna().to_numpy()
    if column.kind == "category":
        categories = (
            values.dtype.categories
            if isinstance(values.dtype, pd.CategoricalDtype)
            else sorted(values[~missing].astype("str").unique())
        )
        strings = pd.Index(categories)
        numbers = strings.get_indexer(pd.Index(values.astype("str").where(~missing, None)))
        scale = isinstance(values.dtype, pd.CategoricalDtype) and bool(values.dtype.ordered)
        return Values(column, np.where(missing, 0, numbers), missing, tuple(strings), scale)
    numbers = np.zeros(len(values), np.float64 if column.kind == "number" else np.int64)
    known = values[~missing]
    if column.kind == "timestamp":
        numbers[~missing] = micros(known)
    else:
        numbers[~missing] = known.to_numpy(dtype=numbers.dtype)
    return Values(column, numbers, missing)


def _plain(values: pd.Series[Any]) -> pd.Series[Any]:
    """Return a column in a dtype that says what it holds."""
    dtype = values.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return values if _all_strings(dtype.categories) else _plain(values.astype(object))
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
    except OverflowError as error:
        raise DataError(
            f"column {values.name!r} holds whole numbers of more than 64 bits: scale them, or turn them into "
            f"text with .astype(str)"
        ) from error
    except (ValueError, TypeError) as error:
        raise DataError(f"column {values.name!r} cannot be read: {error}") from error
    return values


def _all_strings(values: Iterable[object]) -> bool:
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
    if isinstance(known.dtype, pd.CategoricalDtype) or _all_strings(known):
        _check_strings(name, known.unique())
        return Column(name, "category", nullable=nullable)
    kinds = sorted({type(value).__name__ for value in known})
    if len(kinds) > 1:
        raise DataError(f"column {name!r} mixes {', '.join(kinds)}: {_EXPECTED}; convert it to one of them")
    cure = _CURES.get(kinds[0], "turn it into text with .astype(str), or drop it")
    raise DataError(f"column {name!r} holds values of type {kinds[0]}: {_EXPECTED}; {cure}")


def _check_strings(name: str, strings: Iterable[str]) -> None:
    """Raise `DataError` for a string that no message can hold."""
    for string in strings:
        try:
            string.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"column {name!r} holds {string!r}, which is no valid Unicode: replace it"
            ) from None


def _decimals(floats: np.ndarray) -> int | None:
    """Return how many digits after the point the values have, None for more than `_MAX_DECIMALS`.

    Sums of such values are off in the last bits: 3.2 + 0.1 is 3.3000000000000003, and has one digit.
    """
    for digits in range(_MAX_DECIMALS + 1):
        scaled = floats * 10.0**digits
        off = np.abs(np.rint(scaled) / 10.0**digits - floats)
        if np.all(np.abs(scaled) < 2**53 / _ULPS) and np.all(off <= _ULPS * np.spacing(np.abs(floats))):
            return digits
    return None

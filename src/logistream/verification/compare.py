"""Compare the values of a sink with those of the stream, whatever types the sink stored them in.

A value counts, not its type: `"59.99"` is 59.99, 1.0 is 1 and `true`, and a timestamp may be a timestamp in
any unit, a string in RFC 3339 or in the published pattern, or a number since 1970. What is stored
with less precision, such as float32 or milliseconds, is compared with that precision. NaN is a missing value.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from logistream.tables.dates import parse_dates, write_dates
from logistream.times import MINUTE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from logistream.schema import Column, Kind

__all__ = ["MISSING", "instants", "unequal"]


_LAST_BITS = 1e-15  # of a float64, relative
_MILLISECONDS = r"\.\d{3}(\D|$)"
_UNITS = {"s": 1_000_000, "ms": 1000, "us": 1}  # microseconds
_UTC = pa.timestamp("us", tz="UTC")

MISSING = int(np.iinfo(np.int64).min)
"""An instant that is missing, as NaT."""


def unequal(values: pa.Array, truth: pa.Array, column: Column) -> NDArray[np.bool_] | None:
    """Return where the values of a sink are not those of the stream, bool of shape (n,); None for nowhere.

    Parameters
    ----------
    values : pyarrow.Array of n values
        Of the sink, of any type but a dictionary.
    truth : pyarrow.Array of n values
        Of the stream.
    column : Column
        Which column it is.
    """
    if pa.types.is_dictionary(truth.type):
        truth = truth.dictionary_decode()
    if values.type == truth.type and values.equals(truth):
        return None
    different = _COMPARISONS[column.kind](values, truth, column)
    return different if different.any() else None


def instants(values: pa.Array, pattern: str | None = None) -> NDArray[np.int64]:
    """Return timestamps of any type as microseconds since 1970 UTC, int64 of shape (n,).

    Parameters
    ----------
    values : pyarrow.Array of n values
        Timestamps, dates, or strings; whatever is none of them is missing.
    pattern : str, optional
        By which strings may be written, besides RFC 3339.

    Returns
    -------
    ndarray of int64, shape (n,)
        The smallest int64 stands for a missing value.
    """
    kind = values.type
    if pa.types.is_timestamp(kind):
        whole = _whole(pc.fill_null(values.cast(pa.int64()), MISSING))
        scaled = whole // 1000 if kind.unit == "ns" else whole * _UNITS[kind.unit]
        return np.where(whole == MISSING, MISSING, scaled)
    if pa.types.is_date(kind):
        return instants(values.cast(pa.timestamp("us")))
    if not _is_string(kind):
        return np.full(len(values), MISSING, np.int64)
    distinct = values.cast(pa.string()).dictionary_encode()
    found = _parsed(distinct.dictionary, pattern)
    codes = np.asarray(pc.fill_null(distinct.indices, -1))
    return np.where(codes < 0, MISSING, np.append(found, MISSING)[codes])


def _parsed(strings: pa.Array, pattern: str | None) -> NDArray[np.int64]:
    """Return distinct strings as microseconds."""
    if pattern is not None:
        found = parse_dates(strings, pattern).astype("datetime64[us]").astype(np.int64)
        if (found != MISSING).all():
            return found
    else:
        found = np.full(len(strings), MISSING, np.int64)
    for kind in (_UTC, pa.timestamp("us")):
        try:
            return np.where(found != MISSING, found, _whole(strings.cast(kind).cast(pa.int64())))
        except pa.ArrowInvalid:
            continue
    series = pd.Series(strings.to_pylist(), dtype="str")
    parsed = pd.to_datetime(series, format="ISO8601", utc=True, errors="coerce")
    others = parsed.to_numpy("datetime64[us]").astype(np.int64)
    return np.where(found != MISSING, found, others)


def _whole(array: pa.Array) -> NDArray[np.int64]:
    return np.asarray(array.to_numpy(zero_copy_only=False))


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _strings(values: pa.Array) -> pa.Array | None:
    """Return values as strings; None if their type has none."""
    if pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type):
        values = values.cast(pa.large_binary())
    try:
        return values.cast(pa.string())
    except pa.ArrowException:
        return None


def _unequal_categories(values: pa.Array, truth: pa.Array, column: Column) -> NDArray[np.bool_]:  # noqa: ARG001
    strings = _strings(values)
    if strings is None:
        return np.ones(len(values), bool)
    missing, absent = np.asarray(strings.is_null()), np.asarray(truth.is_null())
    same = np.asarray(pc.fill_null(pc.equal(strings, truth), False))
    return np.asarray(~(same | (missing & absent)))


def _numbers(values: pa.Array) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return values as float64, NaN if missing, and which of them are no numbers."""
    wrong = np.zeros(len(values), bool)
    kind = values.type
    if pa.types.is_boolean(kind):
        values = values.cast(pa.int8())
    elif _is_string(kind):
        lower = pc.utf8_lower(values.cast(pa.string()))
        series = pd.Series(lower.to_pylist(), dtype=object).replace({"true": "1", "false": "0"})
        found = np.array([_number(string) for string in series], np.float64)
        return found, np.isnan(found) & ~np.asarray(values.is_null()) & (series != "nan").to_numpy()
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        return np.full(len(values), np.nan), np.asarray(values.is_valid())
    return np.asarray(values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)), wrong


def _number(string: str | None) -> float:
    try:
        return float(string) if string is not None else np.nan
    except ValueError:
        return np.nan


def _unequal_numbers(values: pa.Array, truth: pa.Array, column: Column) -> NDArray[np.bool_]:  # noqa: ARG001
    if pa.types.is_integer(values.type) and pa.types.is_integer(truth.type):
        missing, absent = np.asarray(values.is_null()), np.asarray(truth.is_null())
        same = np.asarray(pc.fill_null(pc.equal(values, truth), False))
        return np.asarray(~(same | (missing & absent)))
    found, wrong = _numbers(values)
    expected, _ = _numbers(truth)
    if pa.types.is_float32(values.type) or pa.types.is_float16(values.type):
        small = values.type.to_pandas_dtype()
        expected = expected.astype(small).astype(np.float64)
    elif pa.types.is_decimal(values.type):  # of which Arrow makes floats that are off by their last bit
        half = 0.5 * 10.0**-values.type.scale
        found = np.where(np.isclose(found, expected, rtol=_LAST_BITS, atol=half), expected, found)
    same = (found == expected) | (np.isnan(found) & np.isnan(expected) & ~wrong)
    return np.asarray(~same)


def _unequal_timestamps(values: pa.Array, truth: pa.Array, column: Column) -> NDArray[np.bool_]:
    expected = instants(truth)
    if pa.types.is_integer(values.type):
        numbers = _whole(pc.fill_null(values, MISSING))
        forms = (expected // 1_000_000, expected // 1000, expected)
        same = (numbers == expected * 1000) & (expected != MISSING)
        for form in forms:
            same |= (numbers == form) & (expected != MISSING)
        return np.asarray(~(same | ((numbers == MISSING) & (expected == MISSING))))
    found = instants(values, column.text_format)
    different = found != expected
    if pa.types.is_timestamp(values.type) or pa.types.is_date(values.type):
        unit = 86_400_000_000 if pa.types.is_date(values.type) else _UNITS.get(values.type.unit, 1)
        if unit > 1:
            different &= found != expected // unit * unit
    elif _is_string(values.type) and different.any():
        strings = values.cast(pa.string())
        short = np.asarray(pc.fill_null(pc.match_substring_regex(strings, _MILLISECONDS), False))
        different &= ~short | (found != expected // 1000 * 1000)
    if column.text_format is not None and different.any():
        where = np.flatnonzero(different & (expected != MISSING))
        written = _as_written(expected[where], column.text_format)
        different[where] = found[where] != written
    if _is_string(values.type):  # neither is missing, but what stands there is no timestamp
        different |= (found == MISSING) & np.asarray(values.is_valid())
    return np.asarray(different)


def _as_written(micros: NDArray[np.int64], pattern: str) -> NDArray[np.int64]:
    """Return what is left of instants in a pattern: whole minutes, say."""
    step = 1 if re.search("%[Sfs]", pattern) else MINUTE
    distinct, places = np.unique(micros // step, return_inverse=True)
    strings = write_dates((distinct * step).view("datetime64[us]"), pattern)
    return parse_dates(strings, pattern).astype("datetime64[us]").astype(np.int64)[places.reshape(-1)]


_COMPARISONS: Mapping[Kind, Callable[[pa.Array, pa.Array, Column], NDArray[np.bool_]]] = {
    "category": _unequal_categories,
    "boolean": _unequal_numbers,
    "integer": _unequal_numbers,
    "number": _unequal_numbers,
    "timestamp": _unequal_timestamps,
}

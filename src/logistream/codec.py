"""Events as JSON texts: columns to one compact object per event, and texts back to columns.

Pure functions over Arrow record batches. A batch is encoded column by column and the pieces of all rows
are joined in one pass, so that no event is ever a Python object on its way out.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from logistream.errors import DataError, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from logistream.schema import Column, Kind, Schema

__all__ = ["decode", "encode", "from_events", "parse"]

ROWS_AT_ONCE = 16_384
"""Rows joined in one pass: far below the 2 GB that an Arrow text array can hold."""

_MINUTE = 60_000_000  # microseconds
_TWO_DIGITS = pa.array([f"{second:02d}." for second in range(60)])
_THREE_DIGITS = pa.array([f"{part:03d}" for part in range(1000)])
_COARSE = frozenset("aAbBdDeFhHIjmMpRuUVwWyY%")
"""strftime directives that do not change within a minute."""


# Columns to texts


def encode(batch: pa.RecordBatch, schema: Schema) -> list[bytes]:
    """Write each row as one JSON object.

    Parameters
    ----------
    batch : pyarrow.RecordBatch of n rows
        Holds at least the columns of `schema`, with its types; other columns are left out.
    schema : Schema
        The keys, in order.

    Returns
    -------
    list of bytes, length n
        UTF-8 texts without blanks between the tokens. `json.loads` of a number gives the very float64 that
        was in the column. Missing values (and NaN) of a nullable column are `null`.

    Raises
    ------
    DataError
        A column is absent, a column that is not nullable has missing values, or a number is infinite
        (JSON has no such number).

    Examples
    --------
    >>> from logistream.schema import Column, Schema
    >>> pair = Schema((Column("Market", "category"), Column("Sales", "number")))
    >>> encode(pa.record_batch({"Market": ["LATAM"], "Sales": [12.5]}), pair)
    [b'{"Market":"LATAM","Sales":12.5}']
    """
    if absent := [name for name in schema.names if name not in batch.schema.names]:
        raise DataError(f"cannot encode events: the batch lacks {', '.join(map(repr, absent))}")
    if not len(schema):
        return [b"{}"] * batch.num_rows
    texts: list[bytes] = []
    for start in range(0, batch.num_rows, ROWS_AT_ONCE):
        part = batch.slice(start, ROWS_AT_ONCE)
        pieces: list[pa.Array | pa.Scalar] = []
        for position, column in enumerate(schema):
            key = json.dumps(column.name, ensure_ascii=False)
            pieces.append(pa.scalar(f"{',' if position else '{'}{key}:"))
            pieces.extend(_value_pieces(part.column(column.name), column))
        texts.extend(_join(*pieces, pa.scalar("}")).cast(pa.binary()).to_pylist())
    return texts


def _value_pieces(values: pa.Array, column: Column) -> Sequence[pa.Array | pa.Scalar]:
    """Return arrays and scalars whose concatenation, row by row, is the JSON text of each value."""
    if column.kind == "number":
        values = _without_nan(values, column)
    elif pa.types.is_dictionary(values.type) and values.dictionary.null_count:
        values = values.dictionary_decode()  # a missing value in the dictionary is not counted in the array
    if values.null_count and not column.nullable:
        raise DataError(
            f"cannot encode events: column {column.name!r} has {values.null_count} missing values, "
            f"but its schema allows none"
        )
    pieces = _WRITERS[column.kind](values, column)
    if values.null_count:
        return [pc.fill_null(_join(*pieces), "null")]
    return pieces


def _join(*pieces: pa.Array | pa.Scalar) -> pa.Array:
    """Concatenate texts row by row; a row with a missing piece is missing."""
    return pieces[0] if len(pieces) == 1 else pc.binary_join_element_wise(*pieces, "")


def _without_nan(values: pa.Array, column: Column) -> pa.Array:
    """Make NaN missing, refuse infinities."""
    values = values.cast(pa.float64())
    floats = values.to_numpy(zero_copy_only=False)  # missing values are NaN here
    if np.isfinite(floats).all():
        return values
    if np.isinf(floats).any():
        raise DataError(f"cannot encode events: column {column.name!r} holds an infinite number")
    return pa.array(floats, mask=np.isnan(floats))


def _write_category(values: pa.Array, column: Column) -> Sequence[pa.Array]:  # noqa: ARG001
    if not pa.types.is_dictionary(values.type):
        return [_quote(values.cast(pa.string()))]
    texts, codes = values.dictionary.cast(pa.string()), values.indices
    # A model's dictionary may be far longer than a batch: quote whichever is shorter.
    return [_quote(texts).take(codes) if len(texts) <= len(codes) else _quote(texts.take(codes))]


def _quote(texts: pa.Array) -> pa.Array:
    """Return texts as JSON strings."""
    data = texts.buffers()[2]
    if data is not None:
        octets = np.frombuffer(data, np.uint8)
        if ((octets < 0x20) | (octets == ord('"')) | (octets == ord("\\"))).any():
            return pa.array(
                [
                    None if text is None else json.dumps(text, ensure_ascii=False)
                    for text in texts.to_pylist()
                ],
                pa.string(),
            )
    return pc.binary_join_element_wise('"', texts, '"', "")


def _write_boolean(values: pa.Array, column: Column) -> Sequence[pa.Array]:  # noqa: ARG001
    return [pc.if_else(values, "true", "false")]


def _write_integer(values: pa.Array, column: Column) -> Sequence[pa.Array]:  # noqa: ARG001
    return [values.cast(pa.string())]


def _write_number(values: pa.Array, column: Column) -> Sequence[pa.Array]:  # noqa: ARG001
    # Arrow writes the shortest digits that read back exactly, as Python does, but 12.0 as "12", which a
    # parser takes for an integer, and loses the sign of -0.0. Those, and very small and very large ones,
    # whose exponents differ between versions of Arrow, are written by Python.
    texts = values.cast(pa.string())
    floats = np.nan_to_num(values.to_numpy(zero_copy_only=False), nan=0.5)
    size = np.abs(floats)
    odd = (floats == np.trunc(floats)) | (size < 1e-4) | (size >= 1e6)
    if odd.any():
        texts = pc.replace_with_mask(texts, odd, pa.array([repr(x) for x in floats[odd].tolist()]))
    return [texts]


def _write_timestamp(values: pa.Array, column: Column) -> Sequence[pa.Array | pa.Scalar]:
    # strftime is slow, so it sees each minute (or, for a rare pattern, each second) only once.
    micros = values.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    if column.text_format is None:
        within = pc.subtract(micros, _floor(micros, _MINUTE)).cast(pa.int32())
        seconds = pc.divide(within, 1_000_000)
        fraction = pc.subtract(within, pc.multiply(seconds, 1_000_000))
        thousands = pc.divide(fraction, 1000)
        return [
            _strftime(micros, _MINUTE, '"%Y-%m-%dT%H:%M:'),
            _TWO_DIGITS.take(seconds),
            _THREE_DIGITS.take(thousands),
            _THREE_DIGITS.take(pc.subtract(fraction, pc.multiply(thousands, 1000))),
            pa.scalar('Z"'),
        ]
    directives = set(re.findall(r"%(.)", column.text_format))
    return [_quote(_strftime(micros, _MINUTE if directives <= _COARSE else 1_000_000, column.text_format))]


def _floor(micros: pa.Array, step: int) -> pa.Array:
    """Round down to a multiple of `step`; Arrow divides towards zero, so instants before 1970 need care."""
    down = pc.multiply(pc.divide(micros, step), step)
    return pc.if_else(pc.greater(down, micros), pc.subtract(down, step), down)


def _strftime(micros: pa.Array, step: int, pattern: str) -> pa.Array:
    distinct = _floor(micros, step).dictionary_encode()
    instants = pc.divide(distinct.dictionary, 1_000_000).cast(pa.timestamp("s", tz="UTC"))
    return pc.strftime(instants, pattern).take(distinct.indices)


_WRITERS: Mapping[Kind, Callable[[pa.Array, Column], Sequence[pa.Array | pa.Scalar]]] = {
    "category": _write_category,
    "boolean": _write_boolean,
    "integer": _write_integer,
    "number": _write_number,
    "timestamp": _write_timestamp,
}


# Texts to columns


def decode(texts: Iterable[str | bytes], schema: Schema) -> pa.RecordBatch:
    """Read JSON texts, one event each, into typed columns.

    Parameters
    ----------
    texts : iterable of n str or bytes
        JSON objects. Keys that `schema` does not know are ignored; a nullable key may be absent.
    schema : Schema
        The columns to read, in order.

    Returns
    -------
    pyarrow.RecordBatch of n rows
        With the types of `schema.arrow`.

    Raises
    ------
    RequestError
        A text is not a JSON object, or a key is absent or of another type; the sentence names it.

    Examples
    --------
    >>> from logistream.schema import Column, Schema
    >>> decode(['{"Sales":12.5}'], Schema((Column("Sales", "number"),)))["Sales"].to_pylist()
    [12.5]
    """
    return from_events([parse(text) for text in texts], schema)


def from_events(events: Iterable[Mapping[str, Any]], schema: Schema) -> pa.RecordBatch:
    """Put events, as `json.loads` gives them, into typed columns; see `decode` for the rules."""
    rows = events if isinstance(events, list) else list(events)
    arrays = []
    for column in schema:
        name = column.name
        try:
            values = [row.get(name) for row in rows] if column.nullable else [row[name] for row in rows]
            arrays.append(_read_column(values, column))
        except (KeyError, ValueError, TypeError, OverflowError, pa.ArrowException):
            _blame(rows, column)
    return pa.RecordBatch.from_arrays(arrays, schema=schema.arrow)


def parse(text: str | bytes) -> dict[str, Any]:
    """Read one event as a dict; `RequestError` for what is not a JSON object."""
    try:
        event = _JSON.decode(text if isinstance(text, str) else text.decode())
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        event = None
    if not isinstance(event, dict):
        raise RequestError(f"an event must be a JSON object, got {_shorten(text)}")
    return event


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_JSON = json.JSONDecoder(parse_constant=_refuse_constant)


def _read_column(values: list[Any], column: Column) -> pa.Array:
    """Return a typed array; raise some error if any value does not fit."""
    types = set(map(type, values))
    if column.nullable:
        types.discard(type(None))
    if not types <= _ACCEPTED[column.kind]:
        raise TypeError
    return _READERS[column.kind](values, column)


def _read_category(values: list[Any], column: Column) -> pa.Array:  # noqa: ARG001
    return pa.array(values, pa.string()).dictionary_encode()


def _read_boolean(values: list[Any], column: Column) -> pa.Array:  # noqa: ARG001
    return pa.array(values, pa.bool_())


def _read_integer(values: list[Any], column: Column) -> pa.Array:  # noqa: ARG001
    # JSON knows one kind of number, so 4.0 is a whole one; Arrow would cut 4.5 down to 4 without a word.
    if float in set(map(type, values)):
        if not all(value.is_integer() for value in values if isinstance(value, float)):
            raise ValueError
        values = [value if value is None else int(value) for value in values]
    return pa.array(values, pa.int64())


def _read_number(values: list[Any], column: Column) -> pa.Array:  # noqa: ARG001
    floats = pa.array([None if value is None else float(value) for value in values], pa.float64())
    if not pc.all(pc.is_finite(floats), min_count=0).as_py():
        raise ValueError
    return floats


def _read_timestamp(values: list[Any], column: Column) -> pa.Array:
    texts = pa.array(values, pa.string())
    if column.text_format is None:
        return texts.cast(pa.timestamp("us", tz="UTC"))
    return pc.strptime(texts, column.text_format, "us").cast(pa.timestamp("us", tz="UTC"))


_READERS: Mapping[Kind, Callable[[list[Any], Column], pa.Array]] = {
    "category": _read_category,
    "boolean": _read_boolean,
    "integer": _read_integer,
    "number": _read_number,
    "timestamp": _read_timestamp,
}
_ACCEPTED: Mapping[Kind, frozenset[type]] = {
    "category": frozenset({str}),
    "boolean": frozenset({bool}),
    "integer": frozenset({int, float}),
    "number": frozenset({int, float}),
    "timestamp": frozenset({str}),
}
_EXPECTED: Mapping[Kind, str] = {
    "category": "a text",
    "boolean": "true or false",
    "integer": "a whole number of 64 bits",
    "number": "a finite number",
    "timestamp": "a time such as 2026-11-24T06:23:00.123456Z",
}


def _blame(rows: Sequence[Mapping[str, Any]], column: Column) -> NoReturn:
    """Raise the error that names the first value of a column that does not fit."""
    expected = _EXPECTED[column.kind]
    if column.text_format is not None:
        expected = f"a time written as {column.text_format}"
    if column.nullable:
        expected += " or null"
    for row in rows:
        if column.name not in row and not column.nullable:
            raise RequestError(
                f"an event must have the key {column.name!r}; it has {', '.join(row) or 'none'}"
            )
        try:
            _read_column([row.get(column.name)], column)
        except (ValueError, TypeError, OverflowError, pa.ArrowException):
            got = _shorten(json.dumps(row.get(column.name), default=repr))
            raise RequestError(f"event key {column.name!r} must be {expected}, got {got}") from None
    raise AssertionError(f"no value of {column.name!r} is wrong on its own")


def _shorten(text: str | bytes, limit: int = 80) -> str:
    """Return a text as a sentence can quote it."""
    shown = text if isinstance(text, str) else text.decode("utf-8", "replace")
    return shown if len(shown) <= limit else f"{shown[:limit]}… ({len(shown)} characters)"

"""Events as JSON texts: columns to one compact object per event, and texts back to columns.

Pure functions over Arrow record batches.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NoReturn

import pyarrow as pa
import pyarrow.compute as pc

from logistream.encoding import Encoder
from logistream.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from logistream.schema import Column, Kind, Schema

__all__ = ["decode", "encode", "from_events", "parse"]


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
    return Encoder(schema).texts(batch)


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

"""Events as JSON or CSV: columns to one string for each event, and JSON back to columns.

All rows are written in one pass, so that no event is ever a Python object on its way out. Each column
becomes an Arrow array of strings, `"key":value` in JSON, and those of all columns are joined row by row into
one buffer: lines, or objects with room for a WebSocket frame header before each. The values of a dictionary,
which hardly ever changes, are written once.
"""

from __future__ import annotations

import functools
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from logistream.errors import DataError, RequestError, shorten
from logistream.schema import EVENT_TIME
from logistream.stream.coded import (
    Coded,
    DateParts,
    Decimals,
    Joiner,
    Lookup,
    concat,
    time_of_day,
)
from logistream.tables.dates import parse_dates, write_dates
from logistream.times import MINUTE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import TypeAlias

    from numpy.typing import NDArray

    from logistream.schema import Column, Kind, Schema

    Pieces: TypeAlias = "list[Coded | pa.Array | pa.Scalar]"

__all__ = [
    "ROWS_AT_ONCE",
    "CsvEncoder",
    "Encoder",
    "Strings",
    "Tables",
    "cloud_event_attributes",
    "decode",
    "from_events",
    "parse",
]


ROWS_AT_ONCE = 16_384
"""Rows joined in one pass: far below the 2 GB that an Arrow array of strings can hold."""

_STANDARD = frozenset("YymdHMS")
"""Directives of date patterns that Arrow reads, and quicker than `logistream.tables.dates`."""
_FEW = 0.25  # distinct numbers per row: then each is written once
_DICTIONARIES = 4  # of a column that are kept: each scenario may have its own
_ENOUGH = 256  # rows that show whether a column has few numbers


class _Notation(NamedTuple):
    """How values are written.

    Attributes
    ----------
    quote : callable
        Takes strings and returns them as they are written.
    true, false, missing : str
        How these values are written.
    mark : str
        Before and after a time in RFC 3339.
    value : str
        A pattern that matches a value as it is written.
    """

    quote: Callable[[pa.Array], pa.Array]
    true: str
    false: str
    missing: str
    mark: str
    value: str


class Strings(NamedTuple):
    """Strings that stand one after the other.

    Attributes
    ----------
    data : ndarray of uint8
        All bytes, in UTF-8.
    ends : ndarray of int64, shape (n_rows + 1,)
        Row `i` is `data[ends[i]:ends[i + 1]]`.
    """

    data: NDArray[np.uint8]
    ends: NDArray[np.int64]


class Encoder:
    """Writes rows as JSON objects.

    Parameters
    ----------
    schema : Schema
        The keys, in order.
    before, after : str
        Put before and after each object.
    tables : Tables, optional
        What it shares with other encoders of the same thread.

    Attributes
    ----------
    keys : list of str
        What stands before the value of each column.
    after : bytes
        What stands after the last value of each row.
    """

    def __init__(
        self, schema: Schema, before: str = "", after: str = "", *, tables: Tables | None = None
    ) -> None:
        keys = [f"{json.dumps(column.name, ensure_ascii=False)}:" for column in schema]
        self._set(schema, _JSON, keys, f"{before}{{", f"}}{after}", tables or Tables())

    def _set(
        self, schema: Schema, notation: _Notation, keys: list[str], before: str, after: str, tables: Tables
    ) -> None:
        """Set how rows are written: with a key before each value, between `before` and `after`."""
        self.schema = schema
        self._notation = notation
        self.keys, self.after = keys, after.encode()
        self._before = before
        self._after = tables.scalar(after)
        self._empty = before + after
        starts = [f"{',' if position else before}{key}" for position, key in enumerate(keys)]
        self._writers = [tables.writer(*each, notation) for each in zip(schema, starts, strict=True)]
        self._joiner = tables.joiner

    def join(self, batch: pa.RecordBatch, lead: pa.Array | None = None) -> Strings:
        """Write each row as one object.

        Parameters
        ----------
        batch : pyarrow.RecordBatch of n rows
            Holds at least the columns of `schema`, with its types; others are left out. At most
            `ROWS_AT_ONCE` rows.
        lead : pyarrow.StringArray of n rows, optional
            Put before each object.

        Raises
        ------
        DataError
            A column is absent, a column that is not nullable has missing values, or a number is infinite
            (JSON has no such number).
        """
        joined = self._join(batch, lead)
        _, offsets, data = joined.buffers()
        ends = np.frombuffer(offsets, np.int32, len(joined) + 1, joined.offset * 4).astype(np.int64)
        written = np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8)
        return Strings(written[ends[0] : ends[-1]], ends - ends[0])

    def encode(self, batch: pa.RecordBatch) -> list[bytes]:
        """Write each row of a batch of any length as one JSON object in UTF-8; see `join` for the errors.

        Numbers are written so that `json.loads` gives the same float64. Missing values, and NaN, of a
        nullable column are `null`.

        Examples
        --------
        >>> from logistream.schema import Column, Schema
        >>> pair = Schema((Column("Market", "category"), Column("Sales", "number")))
        >>> Encoder(pair).encode(pa.record_batch({"Market": ["LATAM"], "Sales": [12.5]}))
        [b'{"Market":"LATAM","Sales":12.5}']
        """
        if not batch.num_rows:
            self._check_columns(batch)
        strings: list[bytes] = []
        for start in range(0, batch.num_rows, ROWS_AT_ONCE):
            strings.extend(self._join(batch.slice(start, ROWS_AT_ONCE)).cast(pa.binary()).to_pylist())
        return strings

    def split(self, row: str) -> tuple[int, list[str]]:
        """Return where in a row that `join` wrote its fields begin, and these: in JSON keys with values."""
        found = self._row.search(row)
        if found is None:
            raise AssertionError(f"not a row of this encoder: {row!r}")
        return found.start() + len(self._before), list(found.groups())

    @functools.cached_property
    def _row(self) -> re.Pattern[str]:
        """What each row ends with: its fields, each a group."""
        fields = ",".join(f"({re.escape(key)}{self._notation.value})" for key in self.keys)
        return re.compile(f"{re.escape(self._before)}{fields}{re.escape(self.after.decode())}\\Z")

    @property
    def missing(self) -> str:
        """How a missing value is written."""
        return self._notation.missing

    def _check_columns(self, batch: pa.RecordBatch) -> None:
        if absent := [name for name in self.schema.names if name not in batch.schema.names]:
            raise DataError(f"cannot encode events: the batch lacks {', '.join(map(repr, absent))}")

    def _join(self, batch: pa.RecordBatch, lead: pa.Array | None = None) -> pa.Array:
        self._check_columns(batch)
        if not len(self.schema):
            return pa.array([self._empty] * batch.num_rows, pa.string())
        pieces = [
            piece for writer in self._writers for piece in writer.pieces(batch.column(writer.column.name))
        ]
        return self._joiner.join([*([] if lead is None else [lead]), *pieces, self._after])


class Tables:
    """The tables of strings that encoders share; those of one thread may, and then take little memory."""

    def __init__(self) -> None:
        self.joiner = Joiner()
        self._writers: dict[tuple[Column, str, _Notation], _Writer] = {}
        self._scalars: dict[str, pa.Scalar] = {}

    def writer(self, column: Column, key: str, notation: _Notation) -> _Writer:
        """Return what writes a column behind a key."""
        writer = self._writers.get((column, key, notation))
        if writer is None:
            writer = self._writers[column, key, notation] = _Writer(column, key, notation)
        return writer

    def scalar(self, string: str) -> pa.Scalar:
        """Return a string as a scalar, always the same one."""
        return self._scalars.setdefault(string, pa.scalar(string))


class _Writer:
    """Writes the values of a column, each with its key.

    Tables of strings are kept from batch to batch.
    """

    def __init__(self, column: Column, key: str, notation: _Notation) -> None:
        self.column = column
        self._key, self._notation = key, notation
        self._key_scalar = start = pa.scalar(key)
        self._dictionaries: dict[tuple[object, ...], tuple[pa.Array, pa.Array]] = {}  # as written, and itself
        self._few = True
        self._decimals = Decimals(key)
        self._whole = Lookup(lambda numbers: concat([start, pa.array(numbers).cast(pa.string())]))
        self._minutes = Lookup(lambda minutes: _write_minutes(minutes, key + notation.mark))
        self._dates = DateParts(column.text_format or "", notation.mark, key)
        self._truth = pa.array([key + notation.false, key + notation.true])

    def pieces(self, values: pa.Array) -> Pieces:
        """Return pieces whose concatenation, row by row, is key and value."""
        column = self.column
        if column.kind == "number":
            values = _without_nan(values, column)
        elif pa.types.is_dictionary(values.type) and values.dictionary.null_count:
            values = values.dictionary_decode()  # missing values of the dictionary itself are not counted
        if not values.null_count:
            return self._written(values)
        if not column.nullable:
            raise DataError(
                f"cannot encode events: column {column.name!r} has {values.null_count} missing values, "
                f"but its schema allows none"
            )
        known = concat(_strings(self._written(values.drop_null())))
        written = pa.repeat(self._key + self._notation.missing, len(values))
        return [pc.replace_with_mask(written, values.is_valid(), known)] if len(known) else [written]

    def _written(self, values: pa.Array) -> Pieces:
        """Write values of which none is missing."""
        if self.column.kind == "category":
            return self._category(values)
        if self.column.kind == "boolean":
            return [Coded(self._truth, values.cast(pa.int8()).to_numpy())]
        if self.column.kind == "integer":
            return self._integer(values)
        if self.column.kind == "number":
            return self._number(values)
        return self._timestamp(values)

    def _category(self, values: pa.Array) -> Pieces:
        quote = self._notation.quote
        if not pa.types.is_dictionary(values.type):
            return [self._key_scalar, quote(values.cast(pa.string()))]
        dictionary, codes = values.dictionary, values.indices
        memory = _memory(dictionary)
        known = self._dictionaries.get(memory) if memory is not None else None
        if known is None:
            if len(dictionary) > len(codes):  # far longer than the batch
                return [self._key_scalar, quote(dictionary.take(codes).cast(pa.string()))]
            # The dictionary must live as long as its memory is compared.
            known = concat([self._key_scalar, quote(dictionary.cast(pa.string()))]), dictionary
            if memory is not None:
                if len(self._dictionaries) >= _DICTIONARIES:
                    del self._dictionaries[next(iter(self._dictionaries))]
                self._dictionaries[memory] = known
        return [Coded(known[0], codes.to_numpy())]

    def _integer(self, values: pa.Array) -> Pieces:
        coded = self._whole.coded(values.to_numpy(), _FEW * len(values))
        return [self._key_scalar, values.cast(pa.string())] if coded is None else [coded]

    def _number(self, values: pa.Array) -> Pieces:
        coded = self._decimals.coded(values.to_numpy())
        if coded is not None:
            return list(coded)
        if self._few:  # if few differ, each is written once
            distinct = values.dictionary_encode()
            few = len(distinct.dictionary) < _FEW * len(values)
            if len(values) >= _ENOUGH:
                self._few = few
            if few:
                return [_taken(_write_number(distinct.dictionary), distinct.indices, self._key)]
        return [self._key_scalar, _write_number(values)]

    def _timestamp(self, values: pa.Array) -> Pieces:
        """Write times by minutes, since strftime is slow: it sees each minute only once."""
        micros = values.cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
        minutes = micros // MINUTE
        pattern = self.column.text_format
        if pattern is None:
            coded = self._minutes.coded(minutes, _FEW * len(minutes))
            if coded is None:
                distinct, codes = np.unique(minutes, return_inverse=True)
                coded = Coded(_write_minutes(distinct, self._key + self._notation.mark), codes)
            return [coded, *time_of_day(micros - minutes * MINUTE, self._notation.mark)]
        fine = re.search(r"%\d?[Sfs]", pattern)
        if not fine and (parts := self._dates.coded(micros)) is not None:
            return list(parts)
        distinct = pa.array(micros if fine else minutes * MINUTE).dictionary_encode()
        instants = np.asarray(distinct.dictionary).view("datetime64[us]")
        return [_taken(self._notation.quote(write_dates(instants, pattern)), distinct.indices, self._key)]


class CsvEncoder(Encoder):
    r"""Writes rows as lines of CSV (RFC 4180, but lines end with a line feed), without the header.

    Values are those that pandas writes, `True` and `False` among them; a missing value is an empty field, and
    a timestamp without a pattern of its own is in RFC 3339.

    Parameters
    ----------
    schema : Schema
        The columns, in order.
    tables : Tables, optional
        What it shares with other encoders of the same thread.

    Examples
    --------
    >>> from logistream.schema import Column, Schema
    >>> pair = CsvEncoder(Schema((Column("City", "category"), Column("Sales, USD", "number"))))
    >>> pair.header
    b'City,"Sales, USD"\n'
    >>> pair.encode(pa.record_batch({"City": ["Lyon"], "Sales, USD": [12.0]}))
    [b'Lyon,12.0\n']
    """

    def __init__(self, schema: Schema, *, tables: Tables | None = None) -> None:
        notation = _CSV if len(schema) > 1 else _CSV_OF_ONE
        self._set(schema, notation, [""] * len(schema), "", "\n", tables or Tables())

    @property
    def header(self) -> bytes:
        """The line with the names of the columns."""
        names = self._notation.quote(pa.array(self.schema.names, pa.string())).to_pylist()
        return (",".join(names) + "\n").encode()


def cloud_event_attributes(
    numbers: NDArray[np.int64], times: pa.Array, *, stream: str, source: str, before: str = ""
) -> pa.Array:
    """Return what stands before the data of CloudEvents 1.0 in structured mode; a brace must follow the data.

    Parameters
    ----------
    numbers : ndarray of int64, shape (n,)
        Event numbers; with the stream they are the ids.
    times : pyarrow.Array of n timestamps
        When the events happened.
    stream : str
        Identity of the stream.
    source : str
        URI reference.
    before : str
        Put before each event.
    """
    key = f'","source":{json.dumps(source)},"type":"logistream.event","time":'
    return concat(
        [
            pa.scalar(f'{before}{{"specversion":"1.0","id":"{stream}/'),
            pa.array(numbers).cast(pa.string()),
            *_strings(_Writer(EVENT_TIME, key, _JSON).pieces(times)),
            pa.scalar(',"datacontenttype":"application/json","data":'),
        ]
    )


def _memory(strings: pa.Array) -> tuple[object, ...] | None:
    """Return what is equal for two arrays, both alive, only if they share their memory; None if unknown."""
    validity, *buffers = strings.buffers()
    if validity is not None or any(buffer is None for buffer in buffers):
        return None
    return strings.type, len(strings), strings.offset, *(buffer.address for buffer in buffers)


def _strings(pieces: Pieces) -> list[pa.Array | pa.Scalar]:
    return [piece.strings() if isinstance(piece, Coded) else piece for piece in pieces]


def _without_nan(values: pa.Array, column: Column) -> pa.Array:
    """Make NaN missing, refuse infinities."""
    if not pa.types.is_float64(values.type):
        values = values.cast(pa.float64())
    floats = values.to_numpy(zero_copy_only=False)  # missing values are NaN here
    if np.isfinite(floats).all():
        return values
    if np.isinf(floats).any():
        raise DataError(f"cannot encode events: column {column.name!r} holds an infinite number")
    return pa.array(floats, mask=np.isnan(floats))


def _json_quoted(strings: pa.Array) -> pa.Array:
    """Return strings as JSON."""
    data = strings.buffers()[2]
    if data is not None:
        used = np.frombuffer(data, np.uint8)
        if ((used < 0x20) | (used == ord('"')) | (used == ord("\\"))).any():
            return pa.array(
                [
                    None if string is None else json.dumps(string, ensure_ascii=False)
                    for string in strings.to_pylist()
                ],
                pa.string(),
            )
    return pc.binary_join_element_wise('"', strings, '"', "")


def _csv_quoted(strings: pa.Array, special: str = '[,"\r\n]') -> pa.Array:
    """Return strings as fields of CSV: in double quotes where they match `special`."""
    special = pc.match_substring_regex(strings, special)
    if not pc.any(special, min_count=0).as_py():
        return strings
    doubled = pc.replace_substring(strings, '"', '""')
    return pc.if_else(special, pc.binary_join_element_wise('"', doubled, '"', ""), strings)


_JSON = _Notation(_json_quoted, "true", "false", "null", '"', r'(?:"(?:[^"\\]++|\\.)*+"|[^",{}]++)')
_CSV = _Notation(_csv_quoted, "True", "False", "", "", r'(?:"(?:[^"]++|"")*+"|[^",\n]*+)')
_CSV_OF_ONE = _CSV._replace(  # a line with nothing in it would be no row
    quote=lambda strings: _csv_quoted(strings, '[,"\r\n]|^$'), missing='""'
)


def _taken(table: pa.Array, indices: pa.Array, key: str) -> pa.Array:
    """Return key and string of each row, whose string is at its index in a table."""
    return concat([pa.scalar(key), table]).take(indices)


def _write_number(values: pa.Array) -> pa.Array:
    # Arrow writes the shortest digits that read back exactly, as Python does, but 12.0 as "12", which a
    # parser takes for an integer, and loses the sign of -0.0. Those, and very small and very large ones,
    # whose exponents differ between versions of Arrow, are written by Python.
    written = values.cast(pa.string())
    floats = values.to_numpy()
    size = np.abs(floats)
    odd = (floats == np.trunc(floats)) | (size < 1e-4) | (size >= 1e6)
    if odd.any():
        written = pc.replace_with_mask(written, odd, pa.array([repr(x) for x in floats[odd].tolist()]))
    return written


def _write_minutes(minutes: NDArray[np.int64], before: str) -> pa.Array:
    """Return times, in minutes since 1970, as they begin in RFC 3339."""
    instants = pa.array(minutes * 60).cast(pa.timestamp("s", tz="UTC"))
    return concat([pa.scalar(before), pc.strftime(instants, "%Y-%m-%dT%H:%M:")])


# JSON to columns


def decode(strings: Iterable[str | bytes], schema: Schema) -> pa.RecordBatch:
    """Read JSON objects, one event each, into typed columns.

    Parameters
    ----------
    strings : iterable of n str or bytes
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
        A string is not a JSON object, or a key is absent or of another type; the sentence names it.

    Examples
    --------
    >>> from logistream.schema import Column, Schema
    >>> decode(['{"Sales":12.5}'], Schema((Column("Sales", "number"),)))["Sales"].to_pylist()
    [12.5]
    """
    return from_events([parse(string) for string in strings], schema)


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
            _raise_first_misfit(rows, column)
    return pa.RecordBatch.from_arrays(arrays, schema=schema.arrow)


def parse(string: str | bytes) -> dict[str, Any]:
    """Read one event as a dict; `RequestError` for what is not a JSON object."""
    try:
        event = _DECODER.decode(string if isinstance(string, str) else string.decode())
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        event = None
    if not isinstance(event, dict):
        raise RequestError(f"an event must be a JSON object, got {shorten(string)}")
    return event


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


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
    strings = pa.array(values, pa.string())
    if column.text_format is None:
        return strings.cast(pa.timestamp("us", tz="UTC"))
    if set(re.findall(r"%(.)", column.text_format)) <= _STANDARD:  # Arrow is quicker
        return pc.strptime(strings, column.text_format, "us").cast(pa.timestamp("us", tz="UTC"))
    instants = parse_dates(strings, column.text_format)
    if np.isnat(instants).sum() > strings.null_count:
        raise ValueError
    return pa.array(instants).cast(pa.timestamp("us", tz="UTC"))


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
    "category": "a string",
    "boolean": "true or false",
    "integer": "a whole number of 64 bits",
    "number": "a finite number",
    "timestamp": "a time such as 2026-11-24T06:23:00.123456Z",
}


def _raise_first_misfit(rows: Sequence[Mapping[str, Any]], column: Column) -> NoReturn:
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
            got = shorten(json.dumps(row.get(column.name), default=repr))
            raise RequestError(f"event key {column.name!r} must be {expected}, got {got}") from None
    raise AssertionError(f"no value of {column.name!r} is wrong on its own")

"""Read the rows of a sink in pieces: frames, Parquet files, folders of them, NDJSON, and iterators."""

from __future__ import annotations

import io
import json
import os
from codecs import BOM_UTF8
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj
import pyarrow.parquet as pq

from logistream.errors import DataError, RequestError
from logistream.schema import EVENT_NUMBER

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from numpy.typing import NDArray

    from logistream.schema import Kind, Schema

__all__ = ["Sinkable", "StoredRows", "event_numbers"]


Sinkable: TypeAlias = (
    "str | os.PathLike[str] | pd.DataFrame | pa.Table | pa.RecordBatch | pa.RecordBatchReader | "
    "Iterable[str | os.PathLike[str] | Mapping[str, Any] | pd.DataFrame | pa.RecordBatch]"
)
"""What can be verified: a frame, Arrow columns, files, a folder, or an iterator of rows or of columns."""

_ROWS = 65_536  # of a piece
_BYTES = 8 << 20  # of the lines that are read at once
_BLOCK_BYTES = 1 << 20  # that one thread reads; no line is longer
_PROBED = 100  # lines whose keys are the columns of a file of lines
_LARGEST = 2**53  # of the event numbers of a stream
_NO_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_JSON: Mapping[Kind, pa.DataType] = {
    "category": pa.string(),
    "boolean": pa.bool_(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "timestamp": pa.string(),
}


class StoredRows:
    """The rows of a sink, piece by piece; a reader must go through them once.

    Parameters
    ----------
    what : Sinkable
        See `logistream.verification.verify.verify`.
    schema : Schema
        The columns of the stream; others are left out.
    more : iterable of str
        Names of further columns to keep.

    Attributes
    ----------
    unreadable : int
        Lines so far that are not JSON objects.
    """

    def __init__(self, what: Sinkable, schema: Schema, more: Iterable[str] = ()) -> None:
        self._what = what
        self._kinds = {column.name: column.kind for column in schema}
        self._more = tuple(more)
        self._wanted = {*schema.names, EVENT_NUMBER.name, *self._more}
        self._seen: dict[str, None] = {}  # keys of rows so far, in order, that are wanted
        self._keys: set[str] = set()  # all of them
        self.unreadable = 0

    def pieces(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        """Give the rows in order, each piece with the number of the file that it stands in.

        Raises
        ------
        DataError
            What was given cannot be read, or its rows have no event numbers.
        RequestError
            It is nothing that can hold rows.
        """
        for place, piece in self._pieces():
            if EVENT_NUMBER.name not in piece.schema.names:
                raise DataError(
                    f"the sink has no column {EVENT_NUMBER.name!r} ({_names(piece.schema.names)}): store it "
                    f"too, as readers get it with numbered=true"
                )
            yield place, piece

    def _pieces(self) -> Iterator[tuple[int, pa.RecordBatch]]:
        what = self._what
        if isinstance(what, str | os.PathLike):
            yield from self._files(_found(Path(what)))
        elif isinstance(what, pd.DataFrame):
            yield from ((0, piece) for piece in self._frame(what))
        elif isinstance(what, pa.RecordBatch):
            yield 0, self._kept(what)
        elif hasattr(what, "__arrow_c_stream__"):
            for batch in pa.RecordBatchReader.from_stream(what):
                yield from ((0, piece) for piece in self._cut(batch))
        elif isinstance(what, list | tuple) and what and all(isinstance(w, str | os.PathLike) for w in what):
            yield from self._files([file for path in what for file in _found(Path(path))])
        elif isinstance(what, Iterable) and not isinstance(what, bytes | Mapping):
            yield from ((0, piece) for piece in self._items(iter(what)))
        else:
            raise RequestError(
                f"no rows in {type(what).__name__}: expected a DataFrame, Parquet or NDJSON files, a folder "
                f"of them, or an iterator of dicts, DataFrames or record batches"
            )

    def _cut(self, batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        for start in range(0, batch.num_rows, _ROWS):
            yield self._kept(batch.slice(start, _ROWS))

    def _kept(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return the columns that matter, without dictionaries."""
        names = self._named(batch.schema.names)
        columns = [_plain(batch.column(batch.schema.get_field_index(name))) for name in names]
        return pa.RecordBatch.from_arrays(columns, names=names)

    def _named(self, names: Iterable[Hashable]) -> list[str]:
        """Return the columns that matter; `DataError` if there are two of a name."""
        found = [name for name in names if isinstance(name, str) and name in self._wanted]
        for name, times in Counter(found).items():
            if times > 1:
                raise DataError(f"the sink has {times} columns {name!r}: keep the one that is meant")
        return found

    def _frame(self, frame: pd.DataFrame) -> Iterator[pa.RecordBatch]:
        if EVENT_NUMBER.name in frame.index.names and EVENT_NUMBER.name not in frame.columns:
            frame = frame.reset_index()
        frame = frame[self._named(frame.columns)]
        for start in range(0, max(len(frame), 1), _ROWS):
            part = frame.iloc[start : start + _ROWS]
            columns = [_array(part[name]) for name in part.columns]
            yield self._kept(pa.RecordBatch.from_arrays(columns, names=list(part.columns)))

    def _items(self, items: Iterator[Any]) -> Iterator[pa.RecordBatch]:
        """Give the pieces of an iterator; rows that follow each other are put together."""
        rows: list[Any] = []
        for item in items:
            if isinstance(item, Mapping | str | bytes):
                rows.append(item)
                if len(rows) == _ROWS:
                    yield self._rows(rows)
                    rows = []
                continue
            if rows:
                yield self._rows(rows)
                rows = []
            if isinstance(item, pd.DataFrame):
                yield from self._frame(item)
            elif isinstance(item, pa.RecordBatch):
                yield from self._cut(item)
            elif hasattr(item, "__arrow_c_stream__"):
                for batch in pa.RecordBatchReader.from_stream(item):
                    yield from self._cut(batch)
            else:
                raise RequestError(
                    f"an iterator must give dicts, JSON strings, DataFrames or record batches, "
                    f"not {type(item).__name__}"
                )
        if rows:
            yield self._rows(rows)

    def _rows(self, items: list[Any]) -> pa.RecordBatch:
        """Return rows that are dicts or JSON strings as columns: all keys that came so far."""
        rows = []
        for item in items:
            row = _parsed(item) if isinstance(item, str | bytes) else item
            if row is None:
                self.unreadable += 1
            else:
                rows.append(row)
        for row in rows:
            if not row.keys() <= self._keys:
                self._keys.update(row)
                self._seen.update(dict.fromkeys(name for name in row if name in self._wanted))
        columns = [_column(_values(rows, name), self._kinds.get(name)) for name in self._seen]
        if not rows and not self._seen:  # nothing but lines that cannot be read
            return pa.record_batch({EVENT_NUMBER.name: pa.array([], pa.int64())})
        return pa.RecordBatch.from_arrays(columns, names=list(self._seen))

    def _files(self, files: list[Path]) -> Iterator[tuple[int, pa.RecordBatch]]:
        for place, path in enumerate(files):
            try:
                with path.open("rb") as file:
                    start = file.read(4)
                    begin = len(BOM_UTF8) if start.startswith(BOM_UTF8) else 0
                    file.seek(begin)
                    start = start[begin:]
                    if start == b"PAR1":
                        pieces = self._parquet(file, path)
                    elif not start or start.lstrip()[:1] in (b"{", b""):
                        pieces = self._lines(file)
                    else:
                        raise DataError(f"{path} is neither Parquet nor NDJSON: give the files of the sink")
                    for piece in pieces:
                        yield place, piece
            except (OSError, pa.ArrowException) as error:
                reason = str(getattr(error, "strerror", None) or error).partition("\n")[0]
                raise DataError(f"{path} cannot be read: {reason}") from error

    def _parquet(self, file: io.BufferedReader, path: Path) -> Iterator[pa.RecordBatch]:
        reader = pq.ParquetFile(file, pre_buffer=False, buffer_size=_BLOCK_BYTES)  # else it reads it all
        names = [name for name in reader.schema_arrow.names if name in self._wanted]
        folders = {n: v for n, v in _partitions(path).items() if n in self._wanted and n not in names}
        if EVENT_NUMBER.name not in names:
            names = names or reader.schema_arrow.names[:1]
        for batch in reader.iter_batches(_ROWS, columns=names):
            for name, value in folders.items():
                column = pa.array([value] * batch.num_rows, pa.string())
                batch = batch.append_column(name, column)
            yield self._kept(batch)

    def _lines(self, file: io.BufferedReader) -> Iterator[pa.RecordBatch]:
        columns: pa.Schema | None = None
        rest = b""
        while True:
            read = file.read(_BYTES)
            lines, newline, rest = (rest + read).rpartition(b"\n") if read else (rest, b"", b"")
            lines += newline
            if lines:
                columns = self._columns(lines) if columns is None else columns
                yield self._block(lines, columns)
            if not read:
                return

    def _columns(self, lines: bytes) -> pa.Schema:
        """Return the columns that the first lines hold, with the types that JSON gives them."""
        parsed = (_parsed(line) for line in islice(io.BytesIO(lines), _PROBED))
        names = dict.fromkeys(name for row in parsed if row for name in row if name in self._wanted)
        kinds: dict[str, Kind] = {EVENT_NUMBER.name: "integer", **self._kinds}
        return pa.schema([pa.field(name, _JSON[kinds.get(name, "category")]) for name in names])

    def _block(self, lines: bytes, columns: pa.Schema) -> pa.RecordBatch:
        """Return lines as columns; in one step if none is out of the ordinary."""
        if len(columns):
            options = pj.ParseOptions(explicit_schema=columns, unexpected_field_behavior="ignore")
            try:
                table = pj.read_json(
                    io.BytesIO(lines), pj.ReadOptions(block_size=_BLOCK_BYTES), parse_options=options
                )
                return table.combine_chunks().to_batches()[0].select(columns.names)
            except (pa.ArrowException, IndexError):
                pass
        self._seen.update(dict.fromkeys(columns.names))
        return self._rows([line for line in lines.split(b"\n") if line.strip()])


def event_numbers(column: pa.Array) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the numbers of a column, int64 of shape (n,), and which of them can be event numbers."""
    if not pa.types.is_integer(column.type):
        column = pa.array(
            pd.to_numeric(pd.Series(column.to_pylist(), dtype=object), errors="coerce"), pa.float64()
        )
        found = column.to_numpy(zero_copy_only=False)
        usable = (found == np.floor(found)) & (found >= 0) & (found <= _LARGEST)
    else:
        usable = np.asarray(
            pc.fill_null(pc.and_(pc.greater_equal(column, 0), pc.less_equal(column, _LARGEST)), False)
        )
        found = np.asarray(column.fill_null(0)) if column.null_count else np.asarray(column)
    return np.where(usable, found, 0).astype(np.int64), usable


def _found(path: Path) -> list[Path]:
    """Return the files at a path: itself, or those in a folder except what Spark keeps beside its rows."""
    if path.is_dir():
        files = [
            file
            for file in sorted(path.rglob("*"))
            if file.is_file()
            and not any(part.startswith(("_", ".")) for part in file.relative_to(path).parts)
        ]
        if not files:
            raise DataError(f"the folder {path} holds no files: expected Parquet or NDJSON files")
        return files
    if not path.exists():
        raise DataError(f"no file at {path}: check the path")
    return [path]


def _partitions(path: Path) -> dict[str, str | None]:
    """Return the values that the folders of a file name, as in `Market=Europe`."""
    pairs = (part.partition("=") for part in path.parent.parts)
    named = {unquote(name): unquote(value) for name, mark, value in pairs if mark}
    return {name: None if value == _NO_PARTITION else value for name, value in named.items()}


def _parsed(line: str | bytes) -> dict[str, Any] | None:
    """Return the JSON object of a line; None if it is not one."""
    try:
        row = json.loads(line if isinstance(line, str) else line.decode())
    except (ValueError, RecursionError):  # bytes that are not UTF-8 are a ValueError too
        return None
    return row if isinstance(row, dict) else None


def _array(values: pd.Series[Any]) -> pa.Array:
    """Return a column of pandas in Arrow; of values of several types their strings."""
    try:
        array = pa.array(values, from_pandas=True)
    except (pa.ArrowException, OverflowError):
        strings = [None if _missing(value) else str(value) for value in values]
        array = pa.array(strings, pa.string())
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _values(rows: list[Any], name: str) -> list[Any]:
    try:
        return list(map(itemgetter(name), rows))
    except KeyError:
        return [row.get(name) for row in rows]


def _column(values: list[Any], kind: Kind | None) -> pa.Array:
    """Return values from JSON as a column, if possible of the type of its kind."""
    types = set(map(type, values)) - {type(None)}
    try:
        if kind in ("number", "integer", "boolean"):
            if str in types:  # a number in quotes is that number
                values = [float(value) if type(value) is str else value for value in values]
            return pa.array(values, from_pandas=True)
        if kind is not None and types <= {str, int} and str in types:
            return pa.array([v if v is None or type(v) is str else str(v) for v in values], pa.string())
    except (ValueError, TypeError, OverflowError, pa.ArrowException):
        pass
    return _array(pd.Series(values, dtype=object))


def _missing(value: object) -> bool:
    return value is None or value is pd.NA or value != value


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _names(names: list[str]) -> str:
    return "there are none of the stream" if not names else f"there are {', '.join(names[:10])}"

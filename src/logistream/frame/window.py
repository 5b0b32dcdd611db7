"""The newest rows of a stream in columns: chunks of NumPy arrays, trimmed from the left.

Rows are written into chunks of fixed size: an append costs the same whatever is held, and old rows go with
their chunk. A cut shares the arrays, since rows below its end are never written again. No locks and no pandas
here; `frame` adds both.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from logistream.schema import EVENT_TIME

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from logistream.schema import Column, Kind, Schema

__all__ = ["CHUNK_ROWS", "Cut", "Window"]


CHUNK_ROWS = 4096
"""Rows per chunk, in which memory is allocated and freed."""

NO_TIME = np.iinfo(np.int64).min
"""A missing timestamp, as NumPy writes NaT."""

MISSING = -1
"""The code of a missing string."""

_NOT_LOOKED_UP = -2
_SHORT = 128  # strings of a dictionary

_DTYPES: Mapping[Kind, type] = {
    "category": np.int32,
    "boolean": np.bool_,
    "integer": np.int64,
    "number": np.float64,
    "timestamp": np.int64,
}
_FILL: Mapping[Kind, int | bool] = {"boolean": False, "integer": 0, "timestamp": NO_TIME}
"""What is stored for a missing value."""


class _Strings:
    """The strings of one category column, with codes in order of appearance."""

    def __init__(self) -> None:
        self.values: list[str] = []  # only ever appended to: cuts share it
        self._codes: dict[str | None, int] = {None: MISSING}
        self._dictionary: pa.Array | None = None  # of the last batch
        self._known = np.empty(0, np.int32)  # the code of each of its strings, then that of a missing one

    def encode(self, strings: pa.DictionaryArray) -> NDArray[np.int32]:
        """Return the codes of n strings, shape (n,), -1 for missing ones.

        Batches may share a long dictionary of which each uses a part: a string is looked up when it is first
        used.
        """
        dictionary, indices = strings.dictionary, strings.indices
        if self._dictionary is None or not dictionary.equals(self._dictionary):
            self._dictionary = dictionary
            self._known = np.full(len(dictionary) + 1, _NOT_LOOKED_UP, np.int32)
            self._known[-1] = MISSING
        if indices.null_count:
            indices = indices.fill_null(len(dictionary))
        positions: NDArray[np.int32] = indices.to_numpy()
        codes = self._known.take(positions)
        if len(codes) and codes.min() == _NOT_LOOKED_UP:
            fresh = list(set(positions[codes == _NOT_LOOKED_UP].tolist()))
            short = len(dictionary) <= _SHORT  # then it is quicker read as a whole
            read = (dictionary if short else dictionary.take(pa.array(fresh))).to_pylist()
            self._known[fresh] = [self._code(read[n]) for n in (fresh if short else range(len(fresh)))]
            codes = self._known.take(positions)
        return codes

    def _code(self, string: str | None) -> int:
        code = self._codes.get(string)
        if code is None:
            assert string is not None  # noqa: S101, None has its code from the start
            code = self._codes[string] = len(self.values)
            self.values.append(string)
        return code

    def only(self, used: NDArray[np.int32]) -> _Strings:
        """Return the strings with these codes, with new codes from 0."""
        fewer = _Strings()
        fewer.values = [self.values[code] for code in used.tolist()]
        fewer._codes.update({string: code for code, string in enumerate(fewer.values)})
        return fewer


@dataclass(slots=True)
class _Chunk:
    """Rows `start` to `stop` are held; `missing` is a mask where the dtype has no value for it."""

    columns: list[NDArray[Any]]
    missing: dict[int, NDArray[np.bool_]]  # by position of the column
    start: int = 0
    stop: int = 0
    latest: int = NO_TIME


@dataclass(frozen=True, slots=True)
class Cut:
    """Some rows of a window at one time; later appends do not change it.

    Attributes
    ----------
    schema : Schema
        The columns.
    parts : list of (values, missing, start, stop)
        Chunks, oldest first: an array of CHUNK_ROWS for each column, masks by position of the column, and
        the rows that count.
    strings : list of (list of str, int)
        Per column the strings that codes point to, and how many of them; empty for other columns.
    cutoff : int
        Rows with an earlier event time (microseconds since 1970) are to be left out, if `ragged`.
    """

    schema: Schema
    parts: list[tuple[list[NDArray[Any]], dict[int, NDArray[np.bool_]], int, int]]
    strings: list[tuple[list[str], int]]
    cutoff: int
    ragged: bool

    def column(self, position: int) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
        """Return values and mask (True: missing) of a column, newly made arrays of shape (rows,)."""
        column = self.schema.columns[position]
        values = [values[position][start:stop] for values, _, start, stop in self.parts]
        joined: NDArray[Any] = np.concatenate([np.empty(0, _DTYPES[column.kind]), *values])
        if not _has_mask(column):
            return joined, None
        masks = [missing[position][start:stop] for _, missing, start, stop in self.parts]
        return joined, np.concatenate([np.empty(0, np.bool_), *masks])


@dataclass(slots=True)
class Window:
    """The newest rows of a stream of batches.

    Parameters
    ----------
    schema : Schema
        The columns.
    rows : int or None
        Hold at most so many; None for any number.
    span : int or None
        Hold rows whose event time is at most so many microseconds before the newest one; None for any.

    Attributes
    ----------
    arrow : pyarrow.Schema
        The types that a batch must have.
    newest : int
        The newest event time ever appended, microseconds since 1970; NO_TIME before the first.
    ragged : bool
        Whether event times came out of order, so that rows that are too old may be among newer ones.
    """

    schema: Schema
    rows: int | None
    span: int | None
    newest: int = NO_TIME
    ragged: bool = False
    arrow: pa.Schema = field(init=False)
    _held: int = 0
    _chunks: deque[_Chunk] = field(default_factory=deque)
    _strings: list[_Strings] = field(init=False)
    _time: int | None = field(init=False)

    def __post_init__(self) -> None:
        self.arrow = self.schema.arrow
        self._strings = [_Strings() for _ in self.schema]
        self._time = self.schema.names.index(EVENT_TIME.name) if EVENT_TIME.name in self.schema else None

    def __len__(self) -> int:
        if not self.ragged or self._time is None:
            return self._held
        times = self.cut().column(self._time)[0]
        return int((times >= self.cutoff).sum())

    @property
    def cutoff(self) -> int:
        """Event times before this are too old."""
        return NO_TIME if self.span is None or self.newest == NO_TIME else self.newest - self.span

    def append(self, batch: pa.RecordBatch) -> None:
        """Add a batch that has the types of the schema."""
        arrays = [
            _to_numpy(batch.column(position), column, strings)
            for position, (column, strings) in enumerate(zip(self.schema, self._strings, strict=True))
        ]
        count = batch.num_rows
        if self._time is not None and count:
            times = arrays[self._time][0]
            if self.span is not None:
                self.ragged |= bool(times[0] < self.newest or (times[1:] < times[:-1]).any())
            self.newest = max(self.newest, int(times.max()))
        # Of a batch longer than the window only the end can stay.
        done = 0 if self.rows is None else max(0, count - self.rows)
        while done < count:
            chunk = self._chunks[-1] if self._chunks else None
            if chunk is None or chunk.stop == CHUNK_ROWS:
                chunk = self._new_chunk()
            step = min(count - done, CHUNK_ROWS - chunk.stop)
            self._write(chunk, arrays, done, step)
            done += step
        self._trim()

    def _new_chunk(self) -> _Chunk:
        columns: list[NDArray[Any]] = [np.empty(CHUNK_ROWS, _DTYPES[column.kind]) for column in self.schema]
        masked = [position for position, column in enumerate(self.schema) if _has_mask(column)]
        missing = {position: np.empty(CHUNK_ROWS, np.bool_) for position in masked}
        chunk = _Chunk(columns, missing)
        self._chunks.append(chunk)
        return chunk

    def _write(
        self,
        chunk: _Chunk,
        arrays: list[tuple[NDArray[Any], NDArray[np.bool_] | None]],
        start: int,
        count: int,
    ) -> None:
        target, source = slice(chunk.stop, chunk.stop + count), slice(start, start + count)
        for held, (values, _) in zip(chunk.columns, arrays, strict=True):
            held[target] = values[source]
        for position, held_mask in chunk.missing.items():
            mask = arrays[position][1]
            assert mask is not None  # noqa: S101, made for the same columns
            held_mask[target] = mask[source]
        chunk.stop += count
        self._held += count
        if self._time is not None:
            chunk.latest = max(chunk.latest, int(arrays[self._time][0][source].max()))

    def _trim(self) -> None:
        """Forget rows that are too many or too old, from the left."""
        chunks, cutoff = self._chunks, self.cutoff
        while chunks:
            chunk = chunks[0]
            drop = 0 if self.rows is None else min(self._held - self.rows, chunk.stop - chunk.start)
            if self._time is not None and chunk.latest < cutoff:
                drop = chunk.stop - chunk.start
            elif self._time is not None:
                fresh = chunk.columns[self._time][chunk.start : chunk.stop] >= cutoff
                drop = max(drop, int(fresh.argmax()))
            if drop <= 0:
                break
            chunk.start += drop
            self._held -= drop
            if chunk.start < chunk.stop:
                break
            chunks.popleft()
        if not chunks:
            self.ragged = False
        for position, strings in enumerate(self._strings):
            if len(strings.values) > 2 * self._held + CHUNK_ROWS:
                self._forget_strings(position)

    def _forget_strings(self, position: int) -> None:
        """Drop strings that no row holds, so that a column of ever new strings stays bounded."""
        live = [chunk.columns[position][chunk.start : chunk.stop] for chunk in self._chunks]
        used = np.unique(np.concatenate(live)) if live else np.empty(0, np.int32)
        used = used[used >= 0]
        renumber = np.full(len(self._strings[position].values) + 1, -1, np.int32)
        renumber[used] = np.arange(len(used), dtype=np.int32)
        self._strings[position] = self._strings[position].only(used)
        for chunk in self._chunks:  # new arrays, since cuts share the old ones
            values = np.empty(CHUNK_ROWS, np.int32)
            values[chunk.start : chunk.stop] = renumber[chunk.columns[position][chunk.start : chunk.stop]]
            chunk.columns[position] = values

    def cut(self, last: int | None = None) -> Cut:
        """Return the newest `last` rows, or all; costs no copy."""
        parts: list[tuple[list[NDArray[Any]], dict[int, NDArray[np.bool_]], int, int]] = []
        wanted = self._held if last is None else last
        for chunk in reversed(self._chunks):
            if wanted <= 0:
                break
            start = max(chunk.start, chunk.stop - wanted)
            wanted -= chunk.stop - start
            parts.append((list(chunk.columns), chunk.missing, start, chunk.stop))
        strings = [(strings.values, len(strings.values)) for strings in self._strings]
        return Cut(self.schema, parts[::-1], strings, self.cutoff, self.ragged)

    def recent_times(self, micros: int) -> NDArray[np.int64]:
        """Return the event times of the last `micros` microseconds, ascending; at least two if there are."""
        if self._time is None:
            return np.empty(0, np.int64)
        since, count = self.newest - micros, 0
        parts: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        for chunk in reversed(self._chunks):
            if count > 1 and chunk.latest < since:
                break
            parts.append(chunk.columns[self._time][chunk.start : chunk.stop])
            count += chunk.stop - chunk.start
        times = np.concatenate(parts[::-1])
        if self.ragged:
            times.sort()
        return times[min(int(np.searchsorted(times, since)), max(0, len(times) - 2)) :]


def _has_mask(column: Column) -> bool:
    return column.nullable and column.kind in ("boolean", "integer")


def _to_numpy(
    array: pa.Array, column: Column, strings: _Strings
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Return the values as they are held, and a mask if the dtype has no value for a missing one."""
    if column.kind == "category":
        return strings.encode(array), None
    if column.kind == "number":
        return array.to_numpy(zero_copy_only=False), None  # missing ones are NaN
    missing = array.null_count
    mask = None
    if _has_mask(column):
        mask = array.is_null().to_numpy(zero_copy_only=False) if missing else np.zeros(len(array), np.bool_)
    if column.kind == "timestamp":
        array = array.view(pa.int64())
    if missing:
        array = array.fill_null(_FILL[column.kind])
    return array.to_numpy(zero_copy_only=False), mask

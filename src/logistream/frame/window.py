"""Columns that remember the newest rows only: blocks of NumPy arrays, trimmed from the left.

Rows are written into blocks of fixed size, so appending costs the same whatever is held, every value is
copied once, and old rows go by dropping whole blocks. A cut shares those arrays: rows below its end are
never written again. No locks here and no pandas; `frame` adds both.
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

__all__ = ["BLOCK_ROWS", "Cut", "Window"]


BLOCK_ROWS = 4096
"""Rows per block: the grain in which memory is taken and given back."""

NO_TIME = np.iinfo(np.int64).min
"""A missing timestamp, as NumPy writes NaT."""

MISSING = -1
"""The number of a missing text."""

_NOT_LOOKED_UP = -2
_SHORT = 128  # texts of a dictionary

_DTYPES: Mapping[Kind, type] = {
    "category": np.int32,
    "boolean": np.bool_,
    "integer": np.int64,
    "number": np.float64,
    "timestamp": np.int64,
}
_FILL: Mapping[Kind, int | bool] = {"boolean": False, "integer": 0, "timestamp": NO_TIME}
"""What stands in the place of a missing value."""


class _Texts:
    """The texts of one category column, numbered as they come."""

    def __init__(self) -> None:
        self.values: list[str] = []  # only ever appended to: cuts share it
        self._codes: dict[str | None, int] = {None: MISSING}
        self._dictionary: pa.Array | None = None  # of the last batch
        self._known = np.empty(0, np.int32)  # the number of each of its texts, then that of a missing one

    def encode(self, texts: pa.DictionaryArray) -> NDArray[np.int32]:
        """Return the numbers of n texts, shape (n,), -1 for missing ones.

        Batches of a stream mostly share a long dictionary, of which each uses a part: a text of it is looked
        up when it is first used.
        """
        dictionary, places = texts.dictionary, texts.indices
        if self._dictionary is None or not dictionary.equals(self._dictionary):
            self._dictionary = dictionary
            self._known = np.full(len(dictionary) + 1, _NOT_LOOKED_UP, np.int32)
            self._known[-1] = MISSING
        if places.null_count:
            places = places.fill_null(len(dictionary))
        positions: NDArray[np.int32] = places.to_numpy()
        codes = self._known.take(positions)
        if len(codes) and codes.min() == _NOT_LOOKED_UP:
            fresh = np.unique(positions[codes == _NOT_LOOKED_UP])
            short = len(dictionary) <= _SHORT  # then it is quicker read as a whole
            read = (dictionary if short else dictionary.take(pa.array(fresh))).to_pylist()
            self._known[fresh] = [
                self._code(read[n]) for n in (fresh.tolist() if short else range(len(fresh)))
            ]
            codes = self._known.take(positions)
        return codes

    def _code(self, text: str | None) -> int:
        code = self._codes.get(text)
        if code is None:
            assert text is not None  # noqa: S101, None has its code from the start
            code = self._codes[text] = len(self.values)
            self.values.append(text)
        return code

    def only(self, used: NDArray[np.int32]) -> _Texts:
        """Return the texts with these numbers, numbered anew from 0."""
        fewer = _Texts()
        fewer.values = [self.values[code] for code in used.tolist()]
        fewer._codes.update({text: code for code, text in enumerate(fewer.values)})
        return fewer


@dataclass(slots=True)
class _Block:
    """Rows `start` to `stop` are held; `missing` is a mask where the dtype has no value for it."""

    columns: list[NDArray[Any]]
    missing: dict[int, NDArray[np.bool_]]  # by position of the column
    start: int = 0
    stop: int = 0
    latest: int = NO_TIME


@dataclass(frozen=True, slots=True)
class Cut:
    """Some rows of a window as they were at one moment; stays as it is whatever is appended.

    Attributes
    ----------
    schema : Schema
        The columns.
    parts : list of (values, missing, start, stop)
        Blocks, oldest first: an array of BLOCK_ROWS for each column, masks by position of the column, and
        the rows that count.
    texts : list of (list of str, int)
        Per column the texts that codes point to, and how many of them; empty for other columns.
    cutoff : int
        Rows with an earlier event time (microseconds since 1970) are to be left out, if `ragged`.
    """

    schema: Schema
    parts: list[tuple[list[NDArray[Any]], dict[int, NDArray[np.bool_]], int, int]]
    texts: list[tuple[list[str], int]]
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
        Whether a row that is too old may stand among newer ones, since some came out of order.
    """

    schema: Schema
    rows: int | None
    span: int | None
    newest: int = NO_TIME
    ragged: bool = False
    arrow: pa.Schema = field(init=False)
    _held: int = 0
    _blocks: deque[_Block] = field(default_factory=deque)
    _texts: list[_Texts] = field(init=False)
    _time: int | None = field(init=False)

    def __post_init__(self) -> None:
        self.arrow = self.schema.arrow
        self._texts = [_Texts() for _ in self.schema]
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
        """Take in a batch that has the types of the schema; its cost does not depend on what is held."""
        arrays = [
            _to_numpy(batch.column(position), column, texts)
            for position, (column, texts) in enumerate(zip(self.schema, self._texts, strict=True))
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
            block = self._blocks[-1] if self._blocks else None
            if block is None or block.stop == BLOCK_ROWS:
                block = self._new_block()
            step = min(count - done, BLOCK_ROWS - block.stop)
            self._write(block, arrays, done, step)
            done += step
        self._trim()

    def _new_block(self) -> _Block:
        columns: list[NDArray[Any]] = [np.empty(BLOCK_ROWS, _DTYPES[column.kind]) for column in self.schema]
        masked = [position for position, column in enumerate(self.schema) if _has_mask(column)]
        missing = {position: np.empty(BLOCK_ROWS, np.bool_) for position in masked}
        block = _Block(columns, missing)
        self._blocks.append(block)
        return block

    def _write(
        self,
        block: _Block,
        arrays: list[tuple[NDArray[Any], NDArray[np.bool_] | None]],
        start: int,
        count: int,
    ) -> None:
        target, source = slice(block.stop, block.stop + count), slice(start, start + count)
        for held, (values, _) in zip(block.columns, arrays, strict=True):
            held[target] = values[source]
        for position, held_mask in block.missing.items():
            mask = arrays[position][1]
            assert mask is not None  # noqa: S101, made for the same columns
            held_mask[target] = mask[source]
        block.stop += count
        self._held += count
        if self._time is not None:
            block.latest = max(block.latest, int(arrays[self._time][0][source].max()))

    def _trim(self) -> None:
        """Forget what is too much or too old, from the left."""
        blocks, cutoff = self._blocks, self.cutoff
        while blocks:
            block = blocks[0]
            drop = 0 if self.rows is None else min(self._held - self.rows, block.stop - block.start)
            if self._time is not None and block.latest < cutoff:
                drop = block.stop - block.start
            elif self._time is not None:
                fresh = block.columns[self._time][block.start : block.stop] >= cutoff
                drop = max(drop, int(fresh.argmax()))
            if drop <= 0:
                break
            block.start += drop
            self._held -= drop
            if block.start < block.stop:
                break
            blocks.popleft()
        if not blocks:
            self.ragged = False
        for position, texts in enumerate(self._texts):
            if len(texts.values) > 2 * self._held + BLOCK_ROWS:
                self._forget_texts(position)

    def _forget_texts(self, position: int) -> None:
        """Drop texts that no row holds, so that a column of ever new texts does not grow without end."""
        live = [block.columns[position][block.start : block.stop] for block in self._blocks]
        used = np.unique(np.concatenate(live)) if live else np.empty(0, np.int32)
        used = used[used >= 0]
        renumber = np.full(len(self._texts[position].values) + 1, -1, np.int32)
        renumber[used] = np.arange(len(used), dtype=np.int32)
        self._texts[position] = self._texts[position].only(used)
        for block in self._blocks:  # new arrays, since cuts share the old ones
            values = np.empty(BLOCK_ROWS, np.int32)
            values[block.start : block.stop] = renumber[block.columns[position][block.start : block.stop]]
            block.columns[position] = values

    def cut(self, last: int | None = None) -> Cut:
        """Return the newest `last` rows, or all; costs no copy."""
        parts: list[tuple[list[NDArray[Any]], dict[int, NDArray[np.bool_]], int, int]] = []
        wanted = self._held if last is None else last
        for block in reversed(self._blocks):
            if wanted <= 0:
                break
            start = max(block.start, block.stop - wanted)
            wanted -= block.stop - start
            parts.append((list(block.columns), block.missing, start, block.stop))
        texts = [(texts.values, len(texts.values)) for texts in self._texts]
        return Cut(self.schema, parts[::-1], texts, self.cutoff, self.ragged)

    def recent_times(self, micros: int) -> NDArray[np.int64]:
        """Return the event times of the last `micros` microseconds, ascending; at least two if there are."""
        if self._time is None:
            return np.empty(0, np.int64)
        since, count = self.newest - micros, 0
        parts: list[NDArray[np.int64]] = [np.empty(0, np.int64)]
        for block in reversed(self._blocks):
            if count > 1 and block.latest < since:
                break
            parts.append(block.columns[self._time][block.start : block.stop])
            count += block.stop - block.start
        times = np.concatenate(parts[::-1])
        if self.ragged:
            times.sort()
        return times[min(int(np.searchsorted(times, since)), max(0, len(times) - 2)) :]


def _has_mask(column: Column) -> bool:
    return column.nullable and column.kind in ("boolean", "integer")


def _to_numpy(
    array: pa.Array, column: Column, texts: _Texts
) -> tuple[NDArray[Any], NDArray[np.bool_] | None]:
    """Return the values as they are held, and a mask if the dtype has no value for a missing one."""
    if column.kind == "category":
        return texts.encode(array), None
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

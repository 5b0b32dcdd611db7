"""Count how often each event was seen, and put rows aside until those of the same events are together."""

from __future__ import annotations

import tempfile
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from logistream.errors import StreamError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType
    from typing import Self

    from numpy.typing import NDArray

__all__ = ["SPAN", "Seen", "Spill", "spans_of"]


SPAN = 1 << 16
"""Consecutive event numbers that are counted, and compared, together."""

_ONCE = np.ones(SPAN, np.uint8)
_NEVER = np.zeros(SPAN, np.uint8)
_HELD = 400_000  # rows put aside before they are written to files


class Seen:
    """How often each event number was seen: nothing to keep for spans that were seen whole and once.

    Else a byte for each number, or eight where one was seen more than 255 times.
    """

    def __init__(self) -> None:
        self._counts: dict[int, NDArray[np.integer[Any]]] = {}

    def add(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Count event numbers, and return how often each was seen before, int64 of shape (n,)."""
        before = np.zeros(len(numbers), np.int64)
        if (np.diff(numbers) > 0).all():
            for span, here in spans_of(numbers):
                before[here] = self._add(span, numbers[here] - span * SPAN)
            return before
        order = np.argsort(numbers, kind="stable")
        numbers = numbers[order]
        fresh = np.diff(numbers, prepend=-1) != 0
        starts = np.flatnonzero(fresh)
        ranks = np.arange(len(numbers)) - np.repeat(starts, np.diff(starts, append=len(numbers)))
        found = np.zeros(len(numbers), np.int64)
        for span, here in spans_of(numbers):
            found[here] = self._add(span, numbers[here] - span * SPAN)
        before[order] = found + ranks
        return before

    def _add(self, span: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Count sorted places of one span; return the counts that they had."""
        counts = self._counts.get(span)
        before = np.zeros(len(places), np.int64) if counts is None else counts[places].astype(np.int64)
        added = np.bincount(places, minlength=SPAN) + (0 if counts is None else counts)
        if (added == 1).all():
            self._counts[span] = _ONCE
        else:
            self._counts[span] = added.astype(np.uint8) if added.max() < 256 else added.astype(np.int64)
        return before

    def counts(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return how often each number of a range was seen, int64 of shape (stop - start,)."""
        spans = range(start // SPAN, -(-stop // SPAN))
        counts = [self._counts.get(span, _NEVER) for span in spans]
        return np.concatenate([_NEVER[:0], *counts])[start - spans.start * SPAN :][: stop - start].astype(
            np.int64
        )

    def unseen(self, start: int, stop: int, most: int) -> tuple[int, list[int]]:
        """Return how many numbers of a range were never seen, and the first of them, at most `most`."""
        total = max(stop - start, 0)
        examples: list[int] = []
        for span in sorted(self._counts):
            low, high = max(start, span * SPAN), min(stop, (span + 1) * SPAN)
            if low < high:
                total -= int(np.count_nonzero(self._counts[span][low - span * SPAN : high - span * SPAN]))
        number = start
        while len(examples) < min(most, total):
            counts = self._counts.get(number // SPAN, _NEVER)
            high = min(stop, (number // SPAN + 1) * SPAN)
            here = counts[number % SPAN : number % SPAN + high - number]
            examples += (np.flatnonzero(here == 0)[: most - len(examples)] + number).tolist()
            number = high
        return total, examples


class Spill:
    """Rows that are put aside by the span of their events, in files when they are many."""

    def __init__(self) -> None:
        self._parts: dict[int, list[pa.RecordBatch]] = {}
        self._held = 0
        self._written: set[int] = set()
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._folder is not None:
            self._folder.cleanup()

    def add(self, span: int, rows: pa.RecordBatch) -> None:
        """Put rows aside; `StreamError` if temporary files cannot be written."""
        self._parts.setdefault(span, []).append(rows)
        self._held += rows.num_rows
        if self._held >= _HELD:
            try:
                self._write()
            except OSError as error:
                raise StreamError(
                    f"temporary files cannot be written to {tempfile.gettempdir()} "
                    f"({error.strerror or error}): set TMPDIR to a folder with room"
                ) from error

    @property
    def spans(self) -> list[int]:
        """The spans of which there are rows, in order."""
        return sorted({*self._parts, *self._written})

    def take(self, span: int) -> Iterator[pa.RecordBatch]:
        """Give the rows of a span in the order in which they came, and drop them."""
        if span in self._written:
            path = self._path(span)
            with pa.OSFile(str(path)) as file:
                parts: list[pa.RecordBatch] = []
                while file.tell() < file.size():
                    parts += pa.ipc.open_stream(file)
                    if sum(part.num_rows for part in parts) >= 2 * SPAN:
                        yield from _joined(parts)
                        parts = []
                yield from _joined(parts)
            path.unlink()
            self._written.discard(span)
        yield from _joined(self._parts.pop(span, []))

    def scratch(self, rows: int, columns: int) -> NDArray[np.int64]:
        """Return room for whole numbers, in a file if there are many; its values are undefined."""
        if rows < _HELD:
            return np.empty((rows, columns), np.int64)
        path = self._path(-1)
        return np.memmap(path, np.int64, "w+", shape=(rows, columns))

    def _write(self) -> None:
        for span, parts in self._parts.items():
            with self._path(span).open("ab") as file:
                for rows in _joined(parts):
                    with pa.ipc.new_stream(file, rows.schema) as writer:
                        writer.write_batch(rows)
        self._written |= set(self._parts)
        self._parts, self._held = {}, 0

    def _path(self, span: int) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="logistream-verify-")
        return Path(self._folder.name) / str(span)


def _joined(parts: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Give rows in as few batches as their columns allow."""
    run: list[pa.RecordBatch] = []
    for rows in parts:
        if run and rows.schema != run[0].schema:
            yield pa.concat_batches(run)
            run = []
        run.append(rows)
    if run:
        yield pa.concat_batches(run)


def spans_of(numbers: NDArray[np.int64]) -> Iterator[tuple[int, slice]]:
    """Give the spans of sorted numbers, each with where its numbers stand."""
    if not len(numbers):
        return
    spans = numbers // SPAN
    cuts = [0, *(np.flatnonzero(np.diff(spans)) + 1).tolist(), len(numbers)]
    for low, high in pairwise(cuts):
        yield int(spans[low]), slice(low, high)

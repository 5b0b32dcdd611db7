"""Corrupted deliveries as they are written: JSON and CSV row by row, Arrow column by column.

What a type of Arrow does not allow is missing there, and a column `fault` says what JSON would have had.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from logistream.schema import Schema
from logistream.stream.encoding import CsvEncoder, Encoder, Strings
from logistream.stream.query import free_name

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeAlias

    from logistream.schema import Kind
    from logistream.stream.faults import CorruptionKind

    Corruptions: TypeAlias = "Mapping[int, tuple[Corruption, ...]]"

__all__ = [
    "FAULT",
    "UNEXPECTED",
    "Corruption",
    "corrupt_columns",
    "corrupt_strings",
    "described",
    "faulty_schema",
]


UNEXPECTED = "unexpected"
"""The key of a value that no event has; with underscores at its end if a column has this name."""

FAULT = "fault"
"""The Arrow column with what is corrupted in each row, a JSON object; null in a row that arrived whole."""

_STRINGS: frozenset[Kind] = frozenset({"category", "timestamp"})
"""Kinds of columns that are strings in JSON."""


@dataclass(frozen=True, slots=True)
class Corruption:
    """What is corrupted in one delivery.

    Attributes
    ----------
    kind : {"null", "type", "missing", "extra", "cut"}
        See `Fault.from_json`.
    column : str
        Which column; empty for "extra" and "cut".
    value : float
        For "type" the whole number that stands in the place of a string, for "extra" that of the unexpected
        key, for "cut" from 0 to below 1 where the text ends, between its first value and its end.
    """

    kind: CorruptionKind
    column: str = ""
    value: float = 0.0


def corrupt_strings(
    strings: Strings, encoder: Encoder, corruptions: Corruptions, *, placed: bool = False
) -> Strings:
    """Return rows that `encoder` has written, with some of them corrupted.

    What stands before an event, such as the attributes of a CloudEvent, stays whole, and so does its first
    key with its value. The end of a line stays too.

    Parameters
    ----------
    strings : Strings of n rows
        What `encoder.join` returned.
    encoder : Encoder
        Which wrote them.
    corruptions : mapping of int to tuple of Corruption
        What is corrupted, by row.
    placed : bool
        Whether the first column is the place of the delivery, which is no part of the event: the event is the
        same with it.
    """
    if not corruptions:
        return strings
    data, sizes = strings.data.data, np.diff(strings.ends)
    line_end = encoder.after[len(encoder.after.rstrip(b"\n")) :].decode()
    pieces: list[bytes | memoryview] = []
    begin = 0
    for row in sorted(corruptions):
        start, end = strings.ends[row : row + 2].tolist()
        clean = bytes(data[start:end]).decode()
        head, fields = encoder.split(clean)
        written, cut = _corrupted(encoder, fields, corruptions[row], int(placed))
        after = encoder.after.decode() if cut is None else line_end
        body = f"{clean[:head]}{','.join(written)[:cut]}{after}".encode()
        pieces += [data[begin:start], body]
        sizes[row] = len(body)
        begin = end
    pieces.append(data[begin:])
    return Strings(np.frombuffer(b"".join(pieces), np.uint8), np.concatenate([[0], np.cumsum(sizes)]))


def _corrupted(
    encoder: Encoder, fields: list[str], corruptions: tuple[Corruption, ...], first: int = 0
) -> tuple[list[str], int | None]:
    """Return the fields of a row, and after how many characters of all of them the row is cut, if it is.

    The event begins with the field `first`.
    """
    csv = isinstance(encoder, CsvEncoder)
    cut = None
    written: list[str | None] = [*fields]
    names = encoder.schema.names
    for corruption in corruptions:
        if corruption.kind == "cut":
            cut = corruption.value
        elif corruption.kind == "extra":
            key = "" if csv else f'"{free_name(UNEXPECTED, names)}":'
            written.append(f"{key}{corruption.value:.0f}")
        elif corruption.column in names:
            place = names.index(corruption.column)
            written[place] = _damaged(encoder, fields[place], place, corruption)
    left = [field for field in written if field is not None]
    if cut is None:
        return left, None
    before = sum(len(field) + 1 for field in left[:first])
    return left, before + _cut(left[first:], cut, csv=csv)


def _damaged(encoder: Encoder, field: str, place: int, corruption: Corruption) -> str | None:
    """Return a corrupted field of a row, None for a missing one."""
    if corruption.kind == "missing":
        return None
    string = encoder.schema.columns[place].kind in _STRINGS
    if isinstance(encoder, CsvEncoder):
        return (
            encoder.missing if corruption.kind == "null" else f"{corruption.value:.0f}" if string else field
        )
    key = encoder.keys[place]
    if corruption.kind == "null":
        return f"{key}null"
    value = field[len(key) :]
    return key + (f"{corruption.value:.0f}" if string else json.dumps("" if value == "null" else value))


def _cut(fields: list[str], share: float, *, csv: bool) -> int:
    """Return after how many characters of all fields a row ends; not within the first one."""
    whole = ",".join(fields)
    low, high = len(fields[0]) if fields else 0, len(whole)
    if csv:  # JSON lacks its brace in any case
        high = max(high - 1, 0)
        low = min(low, high)
    end = low + int(share * (high - low + 1))
    if csv and whole[:end].count('"') % 2:  # an open quotation mark would swallow the lines that follow
        end = next(start for start in reversed(_starts(fields)) if start <= end)
    return end


def _starts(fields: list[str]) -> list[int]:
    """Return where each field begins in a row."""
    starts, begin = [], 0
    for field in fields:
        starts.append(begin)
        begin += len(field) + 1
    return starts


@lru_cache(maxsize=64)
def faulty_schema(schema: Schema) -> pa.Schema:
    """Return the Arrow schema of columns where faults are in force: nullable, and with `fault` at its end.

    That gets an underscore at its end if a column has this name.
    """
    columns = [replace(column, nullable=True) for column in schema]
    return Schema(tuple(columns)).arrow.append(pa.field(free_name(FAULT, schema.names), pa.string()))


def corrupt_columns(batch: pa.RecordBatch, schema: Schema, corruptions: Corruptions) -> pa.RecordBatch:
    """Return events with the columns of `faulty_schema`, some of them corrupted.

    Parameters
    ----------
    batch : pyarrow.RecordBatch of n rows
        Holds at least the columns of `schema`, with its types.
    schema : Schema
        The columns, in order.
    corruptions : mapping of int to tuple of Corruption
        What is corrupted, by row.
    """
    empty: dict[str, list[int]] = {name: [] for name in schema.names}
    faults: list[str | None] = [None] * batch.num_rows
    for row, (description, lost) in _effects(batch, schema, corruptions, schema).items():
        faults[row] = json.dumps(description, ensure_ascii=False, separators=(",", ":"))
        for name in lost:
            empty[name].append(row)
    arrays = [_emptied(batch.column(name), empty[name]) for name in schema.names]
    return pa.RecordBatch.from_arrays([*arrays, pa.array(faults, pa.string())], schema=faulty_schema(schema))


def _emptied(array: pa.Array, rows: list[int]) -> pa.Array:
    """Return an array in which some rows are missing."""
    if not rows:
        return array
    if pa.types.is_dictionary(array.type):
        return pa.DictionaryArray.from_arrays(_emptied(array.indices, rows), array.dictionary, safe=False)
    keep = np.ones(array.offset + len(array), bool)
    keep[np.array(rows) + array.offset] = False
    if array.null_count:
        return pc.if_else(pa.array(keep[array.offset :]), array, pa.scalar(None, array.type))
    bitmap = pa.py_buffer(np.packbits(keep, bitorder="little"))
    return pa.Array.from_buffers(
        array.type, len(array), [bitmap, *array.buffers()[1:]], len(set(rows)), array.offset
    )


def described(
    batch: pa.RecordBatch, schema: Schema, corruptions: Corruptions, columns: Schema | None = None
) -> dict[int, dict[str, Any]]:
    """Return what JSON has of corrupted rows, such as `{"type": {"Sales": "59.99"}}`, by row.

    `null` and `missing` list columns, `type` and `extra` give values, and `cut` is how many bytes of the JSON
    object are left. A row is left out if nothing in the columns of `schema`, or in `columns` if they are
    given, is corrupted.
    """
    effects = _effects(batch, schema, corruptions, columns or schema)
    return {row: description for row, (description, _) in effects.items()}


def _effects(
    batch: pa.RecordBatch, schema: Schema, corruptions: Corruptions, columns: Schema
) -> dict[int, tuple[dict[str, Any], set[str]]]:
    """Return what JSON has of corrupted rows, and which columns cannot be read from it."""
    if not corruptions:
        return {}
    names = columns.names
    encoder = Encoder(schema)
    found: dict[int, tuple[dict[str, Any], set[str]]] = {}
    cut = sorted(row for row, damage in corruptions.items() if any(c.kind == "cut" for c in damage))
    written = dict(zip(cut, encoder.encode(batch.take(pa.array(cut, pa.int64()))), strict=True))
    for row, damage in sorted(corruptions.items()):
        description: dict[str, Any] = {}
        lost: set[str] = set()
        for corruption in damage:
            kind, name = corruption.kind, corruption.column
            if kind == "extra":
                description["extra"] = {free_name(UNEXPECTED, schema.names): int(corruption.value)}
            elif kind == "cut":
                description["cut"], unread = _cut_short(written[row].decode(), encoder, damage)
                lost |= unread
            elif name in names:
                lost.add(name)
                if kind == "type":
                    wrong = _wrong(batch.column(name)[row].as_py(), columns[name].kind, corruption)
                    description.setdefault("type", {})[name] = wrong
                else:
                    description.setdefault(kind, []).append(name)
        if description:
            found[row] = description, lost
    return found


def _wrong(value: object, kind: Kind, corruption: Corruption) -> str | int:
    """Return what JSON has in the place of a value of another type."""
    if kind in _STRINGS:
        return int(corruption.value)
    return "" if value is None or value != value else json.dumps(value)  # NaN is missing


def _cut_short(row: str, encoder: Encoder, corruptions: tuple[Corruption, ...]) -> tuple[int, set[str]]:
    """Return how many bytes are left of one event that is cut, and which columns are not."""
    head, fields = encoder.split(row)
    written, cut = _corrupted(encoder, fields, corruptions)
    missing = {c.column for c in corruptions if c.kind == "missing"}
    left = [name for name in encoder.schema.names if name not in missing]
    ends = [start + len(field) for start, field in zip(_starts(written), written, strict=True)]
    unread = {name for name, end in zip(left, ends, strict=False) if cut is not None and end > cut}
    return head + len(",".join(written)[:cut].encode()), unread

"""Arrow messages → record batches of events that were not taken before. No sockets here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from logistream.errors import RequestError
from logistream.schema import EVENT_NUMBER, Column, Schema

if TYPE_CHECKING:
    from logistream.position import Position
    from logistream.schema import Kind

__all__ = ["Batch", "read_batch", "schema_of"]


@dataclass(frozen=True, slots=True)
class Batch:
    """The events of one message.

    Attributes
    ----------
    rows : pyarrow.RecordBatch
        The events, one a row.
    first : int or None
        Number of the first event that the message covers; None if only the end is told.
    stop : int
        Number after the last event that the message covers, in `rows` or left out by a filter.
    missed : int
        Events that the server left out before this message because the reader was slow.
    """

    rows: pa.RecordBatch
    first: int | None
    stop: int
    missed: int = 0

    def fresh(self, position: Position, *, filtered: bool, numbered: bool) -> pa.RecordBatch:
        """Return the rows that were not taken before, and stand behind them.

        Parameters
        ----------
        position : Position
            Where the reader stands; it is moved on.
        filtered : bool
            Whether rows are a selection, which must have the column `event_number` then.
        numbered : bool
            Whether the column `event_number` is to stay.

        Raises
        ------
        RequestError
            The rows do not agree with the numbers that the message gives.
        """
        position.skip(self.missed)
        rows, expected = self.rows, position.next_number
        if filtered:
            numbers = _numbers(rows)
            taken = 0 if expected is None else int(np.searchsorted(numbers, expected))
            position.take_range(self.stop, self.stop)
        else:
            first = self.stop - rows.num_rows if self.first is None else self.first
            if self.stop - first != rows.num_rows:
                raise RequestError(
                    f"a message of events {first} to {self.stop - 1} holds {rows.num_rows} rows"
                )
            taken = position.take_range(first, self.stop)
        if taken:
            rows = rows.slice(taken)
        if filtered and not numbered:
            rows = rows.remove_column(rows.schema.names.index(EVENT_NUMBER.name))
        return rows


def read_batch(message: str | bytes) -> Batch:
    """Read a message, a complete Arrow IPC stream of one record batch.

    Raises
    ------
    RequestError
        The message is no such stream, or lacks the numbers of its events.
    """
    try:
        with pa.ipc.open_stream(message.encode() if isinstance(message, str) else message) as stream:
            rows = stream.read_next_batch()
        rows.validate(full=True)  # a damaged one could make others read outside of it
        told = rows.schema.metadata or {}
        first = told.get(b"first_event_number")
        return Batch(
            rows,
            None if first is None else int(first),
            int(told[b"next_event_number"]),
            int(told.get(b"missed_events", b"0")),
        )
    except (pa.ArrowException, OSError, ValueError, KeyError, StopIteration) as error:
        raise RequestError(
            f"a message must be an Arrow stream of one record batch with next_event_number in its metadata, "
            f"got {message[:40]!r} ({error!r})"
        ) from None


def schema_of(arrow: pa.Schema, published: Schema | None = None) -> Schema:
    """Return the columns of record batches.

    Parameters
    ----------
    arrow : pyarrow.Schema
        Their names, types and whether values may be missing.
    published : Schema, optional
        What the server says of its columns: meanings, units and text formats are taken from it.

    Raises
    ------
    RequestError
        A column has a type that no event has.
    """
    return Schema(tuple(_column(field, published) for field in arrow))


def _column(field: pa.Field, published: Schema | None) -> Column:
    kind = _kind(field.type)
    if kind is None:
        raise RequestError(f"column {field.name!r} is of the type {field.type}, which no event has")
    told = list(published.columns) if published is not None else []
    for known in [*told, EVENT_NUMBER]:
        if (known.name, known.kind, known.nullable) == (field.name, kind, field.nullable):
            return known
    return Column(field.name, kind, nullable=field.nullable)


def _kind(arrow: pa.DataType) -> Kind | None:
    if pa.types.is_dictionary(arrow):
        arrow = arrow.value_type
    if pa.types.is_string(arrow) or pa.types.is_large_string(arrow):
        return "category"
    if pa.types.is_boolean(arrow):
        return "boolean"
    if pa.types.is_integer(arrow):
        return "integer"
    if pa.types.is_floating(arrow):
        return "number"
    return "timestamp" if pa.types.is_timestamp(arrow) else None


def _numbers(rows: pa.RecordBatch) -> np.ndarray:
    """Return the numbers of events, ascending."""
    if EVENT_NUMBER.name not in rows.schema.names:
        raise RequestError(f"a selection of events lacks the column {EVENT_NUMBER.name!r}")
    numbers: np.ndarray = rows.column(EVENT_NUMBER.name).to_numpy(zero_copy_only=False)
    return numbers

"""The events that a sink is compared with: made here, or read from the server if the model is not here."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import pyarrow as pa

from logistream.client.ranges import read_json, read_range
from logistream.client.subscription import Subscription
from logistream.errors import RequestError, StreamError
from logistream.model.model import Model, load_model
from logistream.schema import EVENT_NUMBER, Column, Schema
from logistream.stream.arrivals import Arrivals
from logistream.stream.deliveries import Deliveries
from logistream.stream.stream import Stream
from logistream.stream.timeline import Entry, Timeline
from logistream.stream.timeline_file import FileTimeline
from logistream.times import wall_clock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from logistream.client.subscription import Source

__all__ = ["Reference", "open_reference", "plain_deliveries"]


_PART = 100_000  # events of one request: a server limits the length of a range

_KINDS = {"string": "category", "boolean": "boolean", "integer": "integer", "number": "number"}


class Reference(Protocol):
    """The events of a stream until now.

    Attributes
    ----------
    stream_id : str
        Identity of the stream.
    schema : Schema
        Its columns.
    timeline : Timeline
        When its events happen.
    newest : int
        The number after the newest event that has happened.
    """

    stream_id: str
    schema: Schema
    timeline: Timeline
    newest: int

    def refresh(self) -> None:
        """Find out what has happened meanwhile."""

    def rows(self, start: int, stop: int, names: Sequence[str]) -> pa.RecordBatch:
        """Return columns of the events `start` to `stop` (exclusive), which have happened."""

    def deliveries(self, start: int, stop: int) -> Deliveries:
        """Return when the events that are delivered in a range of slots are, and what is corrupted."""

    def delivered(self, start: int, stop: int, names: Sequence[str]) -> tuple[pa.RecordBatch, Deliveries]:
        """Return columns of these events, as they happened, and the same."""


def open_reference(
    source: Source | str | os.PathLike[str] | Stream,
    model: Model | str | os.PathLike[str] | None,
    token: str | None,
) -> Reference:
    """Return the events of a stream.

    Parameters
    ----------
    source : str, path, StreamServer or Stream
        The address of a server, a timeline file, or the stream itself.
    model : Model or path, optional
        What the events are drawn from, unless `source` knows it; the shipped model if it is not given.
    token : str, optional
        Required by servers on other machines.

    Raises
    ------
    RequestError
        The model is not that of the timeline, or the server refuses.
    StreamError, DataError
        The server cannot be reached, or the timeline cannot be read.
    """
    if all(hasattr(source, name) for name in ("model", "timeline", "seed")):
        if model is not None:
            raise RequestError("a server knows its model: leave out model")
        return _Living(source)
    if hasattr(source, "websocket_url") or (isinstance(source, str) and _is_address(source)):
        return _Served(Subscription.of(source, columns="all", token=token), model)  # type: ignore[arg-type]
    if isinstance(source, str | os.PathLike):
        return _Kept(Path(source), _model(model))
    raise RequestError(
        f"cannot compare with {type(source).__name__}: expected the address of a server, a StreamServer, or "
        f"a timeline file"
    )


def _deliveries(stream: Stream, start: int, stop: int) -> Deliveries:
    """Return the deliveries of slots; without faults in reach no event is made for that."""
    if stream.has_faults(start, stop):
        return stream.deliveries(start, stop)[1]
    return plain_deliveries(start, stop)


def plain_deliveries(start: int, stop: int) -> Deliveries:
    """Return the deliveries of slots without faults."""
    numbers, nothing = np.arange(start, stop), np.zeros(stop - start, np.int64)
    return Deliveries(numbers, nothing, numbers, nothing, {})


def _delivered(
    stream: Stream, start: int, stop: int, names: Sequence[str]
) -> tuple[pa.RecordBatch, Deliveries]:
    if not stream.has_faults(start, stop):
        return stream.batch(start, stop).select(list(names)), _deliveries(stream, start, stop)
    rows, deliveries = stream.deliveries(start, stop)
    return rows.select(list(names)), deliveries


def _is_address(source: str) -> bool:
    """Return whether a string is an address rather than a path: it has a scheme, or a port."""
    host, _, port = source.partition("/")[0].rpartition(":")
    return "://" in source or (bool(host) and port.isdecimal() and not Path(source).exists())


def _model(model: Model | str | os.PathLike[str] | None) -> Model:
    return model if isinstance(model, Model) else load_model(model)


class _Made:
    """Events that are made here."""

    def __init__(self, stream: Stream) -> None:
        if EVENT_NUMBER.name in stream.model.full_schema:
            raise RequestError(
                f"events of this table cannot be numbered: it has a column {EVENT_NUMBER.name!r} of its own"
            )
        self.stream = stream
        self.stream_id = stream.id
        self.schema = stream.model.full_schema
        self.timeline = stream.timeline

    def rows(self, start: int, stop: int, names: Sequence[str]) -> pa.RecordBatch:
        """Return columns of the events `start` to `stop` (exclusive)."""
        return self.stream.batch(start, stop).select(list(names))

    def deliveries(self, start: int, stop: int) -> Deliveries:
        """Return when the events that are delivered in a range of slots are, and what is corrupted."""
        return _deliveries(self.stream, start, stop)

    def delivered(self, start: int, stop: int, names: Sequence[str]) -> tuple[pa.RecordBatch, Deliveries]:
        """Return columns of these events, as they happened, and the same."""
        return _delivered(self.stream, start, stop, names)


class _Living(_Made):
    """The events of a server or stream of this process."""

    def __init__(self, source: Any) -> None:  # noqa: ANN401 - a server or a stream
        self._source = source
        made = isinstance(source, Stream)
        super().__init__(source if made else Stream(source.model, source.timeline, seed=source.seed))
        self.refresh()

    def refresh(self) -> None:
        """Find out what has happened meanwhile."""
        self.newest = int(self._source.state["next_event_number"])


class _Kept(_Made):
    """The events of a timeline file: those that may have been delivered."""

    def __init__(self, path: Path, model: Model) -> None:
        self._path, self._model = path.absolute(), model
        super().__init__(self._read())

    def _read(self) -> Stream:
        if not self._path.exists():
            raise StreamError(f"there is no timeline file at {self._path}: check the path")
        with closing(FileTimeline(self._path)) as timeline:
            promised = timeline.promised()
        if timeline.header.get("model", self._model.checksum) != self._model.checksum:
            raise RequestError(
                f"timeline {self._path} belongs to another model, "
                f"{timeline.header.get('model_name') or timeline.header['model']}: give its file as the model"
            )
        self.newest = timeline.count(promised or wall_clock())  # a copy may lack the file of promises
        return Stream(self._model, timeline, seed=int(timeline.header.get("seed", 0)))

    def refresh(self) -> None:
        """Find out what has happened meanwhile."""
        self.stream = self._read()
        self.timeline = self.stream.timeline


class _Served:
    """The events of a server: made here if the model is here, else read from it."""

    def __init__(self, subscription: Subscription, model: Model | str | os.PathLike[str] | None) -> None:
        self._subscription = subscription
        state = self._state()
        self._made: Stream | None = None
        found = _model(model)
        if found.checksum == state["model_checksum"]:
            self._made = Stream(found, self.timeline, seed=state["seed"])
            self.schema = found.full_schema
        elif model is not None:
            raise RequestError(
                f"{subscription.url} serves another model, {state['model']}: give its file, or leave out "
                f"the model"
            )
        else:
            self.schema = _schema(read_json(subscription, "schema", columns="all"))
        if EVENT_NUMBER.name in self.schema:
            raise RequestError(
                f"events of this table cannot be numbered: it has a column {EVENT_NUMBER.name!r} of its own"
            )

    def _state(self) -> dict[str, Any]:
        state: dict[str, Any] = read_json(self._subscription, "timeline")
        self.newest = int(read_json(self._subscription, "stream")["next_event_number"])
        self.timeline = Timeline(
            map(Entry.from_json, state["entries"]), Arrivals(state["arrivals"], state["seed"])
        )
        self.stream_id = state["stream"]
        return state

    def refresh(self) -> None:
        """Find out what has happened meanwhile."""
        before = self.stream_id
        state = self._state()
        if self.stream_id != before:
            raise RequestError(f"{self._subscription.url} serves another stream than before: verify again")
        if self._made is not None:
            self._made = Stream(self._made.model, self.timeline, seed=state["seed"])

    def rows(self, start: int, stop: int, names: Sequence[str]) -> pa.RecordBatch:
        """Return columns of the events `start` to `stop` (exclusive)."""
        if self._made is not None:
            return self._made.batch(start, stop).select(list(names))
        tables = [
            read_range(self._subscription, low, min(low + _PART, stop), stream_id=self.stream_id)
            for low in range(start, stop, _PART)
        ]
        return (
            pa.concat_tables(tables).select(list(names)).unify_dictionaries().combine_chunks().to_batches()[0]
        )

    def deliveries(self, start: int, stop: int) -> Deliveries:
        """Return when the events that are delivered in a range of slots are, and what is corrupted."""
        return _deliveries(self._stream(), start, stop)

    def delivered(self, start: int, stop: int, names: Sequence[str]) -> tuple[pa.RecordBatch, Deliveries]:
        """Return columns of these events, as they happened, and the same."""
        if self._made is None and not any(entry.faults for entry in self.timeline.entries):
            return self.rows(start, stop, names), plain_deliveries(start, stop)
        return _delivered(self._stream(), start, stop, names)

    def _stream(self) -> Stream:
        """Return the stream; without the model it is not known what the wire did to it."""
        if self._made is None:
            raise RequestError(
                f"the stream of {self._subscription.url} has faults, and what they did follows from its "
                f"model: give the file of the model"
            )
        return self._made


def _schema(described: dict[str, Any]) -> Schema:
    """Return the columns of a JSON Schema, as `Schema.json_schema` writes it."""
    columns = []
    for name, value in described["properties"].items():
        types = value["type"] if isinstance(value["type"], list) else [value["type"]]
        dates = "format" in value or "x-strftime" in value
        kind = "timestamp" if dates else _KINDS[types[0]]
        columns.append(Column(name, kind, nullable="null" in types, text_format=value.get("x-strftime")))  # type: ignore[arg-type]
    return Schema(tuple(columns))

"""Arrow messages → record batches of events that were not taken before. No sockets here.

A background consumer: a thread with its own loop that hands the events of a stream to a sink.

The thread makes it independent of the caller's loop and cells: a busy notebook does not stall it. A server of
this package is asked for record batches, which no event leaves as a Python object; any other one sends texts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
import pyarrow as pa

from logistream.client.client import Reader
from logistream.client.listener import Listener
from logistream.client.publication import ask_schema
from logistream.dataco import EVENT
from logistream.errors import RequestError
from logistream.schema import EVENT_NUMBER, Column, Schema

if TYPE_CHECKING:
    from logistream.client.position import Position
    from logistream.client.subscription import Subscription
    from logistream.schema import Kind

__all__ = ["Batch", "Follower", "Sink", "read_batch", "schema_of"]


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


logger = logging.getLogger(__name__)

GATHER_SECONDS = 0.02
"""Texts that come within this time are handed over together, which costs a fast stream far less."""

GATHER_MESSAGES = 2000
"""No more texts than this are handed over together."""

STOP_SECONDS = 1.0
"""How long `Follower.stop` waits for the thread; only the look-up of a host name may hold it longer."""


class Sink(Protocol):
    """What takes the events; `RollingFrame` is one."""

    @property
    def knows_columns(self) -> bool:
        """Whether the sink need not be told the schema."""

    def learn(self, schema: Schema) -> None:
        """Take note of the schema of what will come."""

    def append(self, events: pa.RecordBatch | list[str | bytes]) -> None:
        """Take events."""


class Follower(Reader):
    """Feeds a sink from a stream until stopped, refused for good, or the sink is gone.

    A context manager that stops at the end. The sink is held weakly: a frame that nobody holds any more is
    not fed for ever. After a break it asks for the event that comes next, so that the sink gets every event
    once, if the server numbers its events.

    Parameters
    ----------
    subscription : Subscription
        What is asked for.
    sink : Sink
        Takes the events, on the follower's thread.
    token : str, optional
        What a server off this machine demands.
    first_delay, max_delay, silence : float
        As in `connect`.

    Attributes
    ----------
    error : Exception or None
        What ended it, if it was not stopped.
    received : int
        Events handed to the sink so far.
    """

    def __init__(
        self,
        subscription: Subscription,
        sink: Sink,
        *,
        token: str | None = None,
        first_delay: float = 0.25,
        max_delay: float = 10.0,
        silence: float = 10.0,
    ) -> None:
        self._subscription = subscription
        # Trouble is shown by `trouble` and repr: what a thread prints lands in some unrelated cell.
        self._listener = Listener(
            subscription,
            "arrow",
            numbered=subscription.numbered or subscription.filtered,
            token=token,
            first_delay=first_delay,
            max_delay=max_delay,
            silence=silence,
            on_trouble=logger.debug,
        )
        self._token = token
        self._sink = weakref.ref(sink)
        self._texts: list[str | bytes] = []  # received, and not handed over yet
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"logistream follower {self.url}", daemon=True)
        self.error: Exception | None = None
        self.received = 0
        weakref.finalize(sink, self._ask_to_stop)

    def __repr__(self) -> str:
        state = (
            f"ended: {self.error}" if self.error is not None
            else "stopped" if not self.running
            else "connected" if self.connected
            else self.trouble or "connecting"
        )  # fmt: skip
        return f"<Follower {self.url}: {state}, {self.received:,} received, {self.reconnects} reconnects>"

    @property
    def url(self) -> str:
        """The address of the socket."""
        return self._subscription.url

    @property
    def running(self) -> bool:
        """Whether it still listens or tries to."""
        return self._thread.is_alive()

    def start(self) -> Self:
        """Begin; returns at once, whether or not the server is there."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End the connection and the thread, within about a second; harmless if called again."""
        self._ask_to_stop()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(STOP_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _ask_to_stop(self) -> None:
        with self._lock:
            first, self._stopping = not self._stopping, True
            loop = self._loop
        if first and loop is not None:  # a second cancel would interrupt the closing of the connection
            with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                loop.call_soon_threadsafe(self._task.cancel)

    def _run(self) -> None:
        try:
            # asyncio.run may have been replaced (nest-asyncio does), and would leave a thread behind.
            with asyncio.Runner() as runner:
                try:
                    with contextlib.suppress(asyncio.CancelledError):
                        runner.run(self._feed())
                finally:
                    runner.run(self._listener.close())  # which a stop must not interrupt
        except Exception as error:  # noqa: BLE001, a thread has no caller: kept for the owner to see
            self.error = error

    async def _feed(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101, for the type checker
        with self._lock:
            self._task, self._loop = task, asyncio.get_running_loop()
            if self._stopping:  # nobody could cancel this yet
                return
        listener = self._listener
        message = await listener.receive()
        while message is not None and not self._stopping:
            if listener.offers:
                await self._take_batch(message)
                message = await listener.receive()
            else:
                message = await self._gather(message)

    async def _take_batch(self, message: str | bytes) -> None:
        """Hand over the events of an Arrow message."""
        subscription = self._subscription
        try:
            rows = read_batch(message).fresh(
                self._listener.position, filtered=subscription.filtered, numbered=subscription.numbered
            )
        except RequestError as error:
            raise RequestError(f"{self.url} does not send events: {error}") from None
        published: Schema | None = None
        try:
            if rows.num_rows and (sink := self._sink()) is not None and not sink.knows_columns:
                del sink  # not held while waiting
                published = await ask_schema(self.url, token=self._token)
        except (OSError, RequestError) as error:  # names and types are known without it
            logger.debug("no meanings of the columns of %s: %s", self.url, error)
        finally:  # what came before a stop is not lost
            if (sink := self._sink()) is None:
                self._stopping = True
            elif rows.num_rows:
                if not sink.knows_columns:
                    sink.learn(schema_of(rows.schema, published))
                self.received += rows.num_rows
                sink.append(rows)

    async def _gather(self, message: str | bytes) -> str | bytes | None:
        """Hand over a text and those that come soon after it; return the message that comes then."""
        listener, texts = self._listener, self._texts
        texts.append(message)
        try:
            await self._settle_columns()
            async with asyncio.timeout(GATHER_SECONDS):
                while len(texts) < GATHER_MESSAGES:
                    following = await listener.receive()
                    if following is None or listener.offers:
                        return following
                    texts.append(following)
        except TimeoutError:
            pass
        finally:  # what came before a refusal or a stop is not lost
            self._hand_over()
        return await listener.receive()

    async def _settle_columns(self) -> None:
        """Tell the sink the server's schema, unless it has one or the server cannot be asked just now."""
        sink = self._sink()
        if sink is None or sink.knows_columns:
            return
        del sink  # not held while waiting
        try:
            schema = await ask_schema(self.url, token=self._token)
        except OSError as error:  # the next message will find the server back
            logger.debug("no schema from %s yet: %s", self.url, error)
            return
        sink = self._sink()
        if sink is not None:
            sink.learn(schema or EVENT)

    def _hand_over(self) -> None:
        """Give the sink the texts, unless it does not know their columns yet."""
        sink = self._sink()
        if sink is None:
            self._stopping = True
        elif self._texts and sink.knows_columns:
            texts, self._texts = self._texts, []
            self.received += len(texts)
            sink.append(texts)

"""A background reader: a thread with its own loop that passes the events of a stream to a sink, in batches.

The thread keeps it independent of the caller's loop and cells: a busy notebook does not stall it. No event
becomes a Python object on its way.
"""

from __future__ import annotations

import asyncio
import contextlib
import html
import logging
import threading
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
import pyarrow as pa

from logistream.client.listener import Listener
from logistream.client.reader import Reader
from logistream.errors import RequestError
from logistream.schema import EVENT_NUMBER

if TYPE_CHECKING:
    from logistream.client.position import Position
    from logistream.client.subscription import Subscription

__all__ = ["Follower", "Sink", "new_rows"]


logger = logging.getLogger(__name__)

_GATHER = "0.05"  # seconds: at 1,000 events/s, 20 messages cost a tenth of 500
_STOP_SECONDS = 1.0  # that `stop` waits for the thread; only the look-up of a host name can take longer


def new_rows(message: str | bytes, position: Position, *, filtered: bool, numbered: bool) -> pa.RecordBatch:
    """Read a message and return the events that were not taken before; move `position` behind them.

    Parameters
    ----------
    message : bytes
        An Arrow IPC stream of one record batch. Its metadata give the range of event numbers that it covers:
        `first_event_number`, `next_event_number` and, if the server left out events, `missed_events`.
    position : Position
        Where the reader is.
    filtered : bool
        Whether rows are a selection, which must have the column `event_number` then.
    numbered : bool
        Whether the column `event_number` is to stay.

    Raises
    ------
    RequestError
        The message is not such a stream, or its rows contradict the metadata.
    """
    try:
        with pa.ipc.open_stream(message.encode() if isinstance(message, str) else message) as stream:
            rows = stream.read_next_batch()
        rows.validate(full=True)  # offsets of a damaged one could point outside of it
        metadata = rows.schema.metadata or {}
        first, stop = int(metadata[b"first_event_number"]), int(metadata[b"next_event_number"])
        missed = int(metadata.get(b"missed_events", b"0"))
    except (pa.ArrowException, OSError, ValueError, KeyError, StopIteration) as error:
        raise RequestError(
            f"a message must be an Arrow stream of one record batch with its event numbers as metadata, "
            f"got {message[:40]!r} ({error!r})"
        ) from None
    position.skip(missed)
    if filtered:
        if EVENT_NUMBER.name not in rows.schema.names:
            raise RequestError(f"a selection of events lacks the column {EVENT_NUMBER.name!r}")
        numbers = rows.column(EVENT_NUMBER.name).to_numpy(zero_copy_only=False)
        expected = position.next_number
        repeated = 0 if expected is None else int(np.searchsorted(numbers, expected))
        position.take_range(stop, stop)
    elif stop - first != rows.num_rows:
        raise RequestError(f"a message of events {first} to {stop - 1} holds {rows.num_rows} rows")
    else:
        repeated = position.take_range(first, stop)
    if filtered and not numbered:
        rows = rows.drop_columns([EVENT_NUMBER.name])
    return rows.slice(repeated) if repeated else rows


class Sink(Protocol):
    """What takes the events; `RollingFrame` is one."""

    def take(self, rows: pa.RecordBatch) -> None:
        """Add events; all have the same columns."""

    def follower_ended(self) -> None:
        """Note that a follower has ended."""


class Follower(Reader):
    """Feeds a sink from a stream until stopped, refused for good, or the sink is gone.

    A context manager that stops at the end. The reference to the sink is weak, so that a follower ends when
    its frame is gone. After a break it requests the next event, so that the sink gets every event once.

    Parameters
    ----------
    subscription : Subscription
        What is requested.
    sink : Sink
        Takes the events, on the follower's thread.

    Attributes
    ----------
    error : Exception or None
        What ended it, if it was not stopped.
    received : int
        Events given to the sink so far.
    """

    def __init__(self, subscription: Subscription, sink: Sink) -> None:
        # `trouble` and repr show trouble: what a thread prints lands in some unrelated cell.
        self._listener = Listener(
            replace(subscription, gather=subscription.gather or _GATHER),
            "arrow",
            numbered=subscription.numbered or subscription.filtered,
            on_trouble=self._note,
        )
        self._sink = weakref.ref(sink)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._stopping = False
        self._answered = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"logistream follower {self.url}", daemon=True)
        self._refusal: Exception | None = None
        self.error: Exception | None = None
        self.received = 0
        weakref.finalize(sink, self._ask_to_stop)

    def __repr__(self) -> str:
        state = f"{self.state}: {detail}" if (detail := self.error or self.trouble) else self.state
        return f"<Follower {self.url}: {state}, {self.received:,} received, {self.reconnects} reconnects>"

    def _repr_html_(self) -> str:
        figures = {
            "address": self.url,
            "state": f"{self.state}: {self.reason}" if self.reason else self.state,
            "received": f"{self.received:,}",
            "missed": f"{self.missed:,}",
            "reconnects": self.reconnects,
            "restarts": self.restarts,
            "next event": "not known" if self.next_number is None else f"{self.next_number:,}",
        }
        rows = [
            f"<tr><th>{name}</th><td>{html.escape(str(value))}</td></tr>" for name, value in figures.items()
        ]
        return f"<table>{''.join(rows)}</table>"

    @property
    def state(self) -> str:
        """One of `connecting`, `live`, `reconnecting`, `stopped` and `refused`; `reason` explains it."""
        if self.error is not None:
            return "refused"
        if not self.running:
            return "stopped"
        if self.connected:
            return "live"
        return "connecting" if self.trouble is None else "reconnecting"

    @property
    def reason(self) -> str:
        """Why it is not live, in one phrase; empty if it is."""
        if self.error is not None:
            return str(self.error)
        if self.state == "reconnecting":
            wait = round(self.retry_in)
            lost = f"{self.missed:,} lost" if self.missed else "nothing lost"
            parts = [self.cause, f"next try in {wait} s" if wait else "trying now"]
            return ", ".join([*filter(None, parts), *([lost] if self.received else [])])
        return ""

    @property
    def running(self) -> bool:
        """Whether it still reads or tries to."""
        return self._thread.is_alive()

    @property
    def ended(self) -> bool:
        """Whether it was started and will give the sink no more events."""
        return self._ended.is_set()

    def start(self, answer_within: float = 0.0) -> Self:
        """Start the thread.

        Parameters
        ----------
        answer_within : float
            Seconds to wait for the outcome of the first attempt to connect. It is not an
            error if no server answers: the thread tries again.

        Raises
        ------
        RequestError
            The server refuses for good, within that time.
        """
        self._thread.start()
        self._answered.wait(answer_within)
        if self._refusal is not None:
            raise self._refusal
        return self

    def stop(self) -> None:
        """End the connection and the thread, within about a second; harmless if called again."""
        self._ask_to_stop()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join(_STOP_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _note(self, trouble: str) -> None:
        logger.debug("%s", trouble)
        self._answered.set()

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
        except Exception as error:  # noqa: BLE001 - a thread has no caller: kept for the owner to see
            self.error = error
            if not self._answered.is_set():
                self._refusal = error
        self._ended.set()
        self._answered.set()
        if (sink := self._sink()) is not None:
            sink.follower_ended()

    async def _feed(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - for the type checker
        with self._lock:
            self._task, self._loop = task, asyncio.get_running_loop()
            if self._stopping:  # before this could be cancelled
                return
        await self._listener.open()
        self._answered.set()
        while not self._stopping and (message := await self._listener.receive()) is not None:
            self._pass_on(message)

    def _pass_on(self, message: str | bytes) -> None:
        """Give the sink the events of a message."""
        subscription = self._listener.subscription
        try:
            rows = new_rows(
                message,
                self._listener.position,
                filtered=subscription.filtered,
                numbered=subscription.numbered,
            )
        except RequestError as error:
            raise RequestError(f"{self.url} does not send events: {error}") from None
        if (sink := self._sink()) is None:
            self._stopping = True
        elif rows.num_rows:
            self.received += rows.num_rows
            sink.take(rows)

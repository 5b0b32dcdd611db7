"""A background consumer: a thread with its own loop that hands the messages of a stream to a sink.

The thread makes it independent of the caller's loop and cells: a busy notebook does not stall it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import weakref
from typing import TYPE_CHECKING, Protocol, Self

from logistream.client import Messages, fetch_schema
from logistream.schema import EVENT

if TYPE_CHECKING:
    from logistream.schema import Schema

__all__ = ["Follower", "Sink"]

logger = logging.getLogger(__name__)

GATHER_SECONDS = 0.02
"""Messages that come within this time are handed over together, which costs a fast stream far less."""

GATHER_MESSAGES = 2000
"""No more messages than this are handed over together."""


class Sink(Protocol):
    """What takes the messages; `RollingFrame` is one."""

    @property
    def knows_columns(self) -> bool:
        """Whether the sink need not be told the schema."""

    def learn(self, schema: Schema) -> None:
        """Take note of the schema of what will come."""

    def append(self, events: list[str | bytes]) -> None:
        """Take messages."""


class Follower:
    """Feeds a sink from a stream until stopped, refused for good, or the sink is gone.

    A context manager that stops at the end. The sink is held weakly: a frame that nobody holds any more is
    not fed for ever.

    Parameters
    ----------
    url : str
        Any address that `connect` takes.
    sink : Sink
        Takes the messages, on the follower's thread.
    token : str, optional
        What a server off this machine demands.
    first_delay, max_delay : float
        As in `connect`.

    Attributes
    ----------
    error : Exception or None
        What ended it, if it was not stopped.
    """

    def __init__(
        self,
        url: str,
        sink: Sink,
        *,
        token: str | None = None,
        first_delay: float = 0.25,
        max_delay: float = 10.0,
    ) -> None:
        # Trouble is shown by `trouble` and repr: what a thread prints lands in some unrelated cell.
        self._messages = Messages(
            url, token=token, first_delay=first_delay, max_delay=max_delay, on_trouble=logger.debug
        )
        self._token = token
        self._sink = weakref.ref(sink)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"logistream follower {self.url}", daemon=True)
        self.error: Exception | None = None
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
        return self._messages.url

    @property
    def received(self) -> int:
        """Messages received so far."""
        return self._messages.received

    @property
    def reconnects(self) -> int:
        """Connections made after the first one."""
        return self._messages.reconnects

    @property
    def connected(self) -> bool:
        """Whether a connection is open now."""
        return self._messages.connected

    @property
    def trouble(self) -> str | None:
        """Why there is no connection, in one sentence; None after a received message."""
        return self._messages.trouble

    @property
    def running(self) -> bool:
        """Whether it still listens or tries to."""
        return self._thread.is_alive()

    def start(self) -> Self:
        """Begin; returns at once, whether or not the server is there."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End the connection and the thread; harmless if called again."""
        self._ask_to_stop()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

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
            with contextlib.suppress(asyncio.CancelledError), asyncio.Runner() as runner:
                runner.run(self._feed())
        except Exception as error:  # noqa: BLE001, a thread has no caller: kept for the owner to see
            self.error = error

    async def _feed(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101, for the type checker
        with self._lock:
            self._task, self._loop = task, asyncio.get_running_loop()
        pending: list[str | bytes] = []
        async with self._messages as messages:
            while not self._stopping:
                try:
                    pending.append(await anext(messages))
                    await self._settle_columns()
                    async with asyncio.timeout(GATHER_SECONDS):
                        while len(pending) < GATHER_MESSAGES:
                            pending.append(await anext(messages))
                except TimeoutError:
                    pass
                finally:  # what came before a refusal or a stop is not lost
                    pending = self._hand_over(pending)

    async def _settle_columns(self) -> None:
        """Tell the sink the server's schema, unless it has one or the server cannot be asked just now."""
        sink = self._sink()
        if sink is None or sink.knows_columns:
            return
        del sink  # not held while waiting
        try:
            schema = await asyncio.to_thread(fetch_schema, self.url, token=self._token)
        except OSError as error:  # the next message will find the server back
            logger.debug("no schema from %s yet: %s", self.url, error)
            return
        sink = self._sink()
        if sink is not None:
            sink.learn(schema or EVENT)

    def _hand_over(self, messages: list[str | bytes]) -> list[str | bytes]:
        """Give the sink what it can take, return what must wait."""
        sink = self._sink()
        if sink is None:
            self._stopping = True
        elif not sink.knows_columns:
            return messages
        elif messages:
            sink.append(messages)
        return []

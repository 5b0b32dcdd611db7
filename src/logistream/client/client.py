"""Read a stream over WebSocket: after a break, connect again and continue with the next delivery.

`connect` gives events as dicts, `Messages` as strings. What they read is what the wire delivers, faults
included, and each delivery has a place, by which they resume.
"""

from __future__ import annotations

import asyncio
import re
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from logistream.client.listener import Listener
from logistream.client.reader import Reader
from logistream.client.subscription import Subscription, with_read_options
from logistream.errors import RequestError, shorten
from logistream.schema import DELIVERY
from logistream.stream.encoding import parse
from logistream.stream.query import Place

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
    from typing import Unpack

    from logistream.client.subscription import ReadOptions, Source

__all__ = ["Messages", "connect", "place_of"]


T = TypeVar("T")

_PLACE = re.compile(rf'\{{"{DELIVERY.name}_*":"(\d+)\.(\d+)",?')
_MISSED = re.compile(r'\{\s*"missed_events"\s*:\s*(\d+)\s*\}\s*$')


def place_of(line: str) -> str | None:
    """Return the place with which a line begins; None if it does not."""
    found = _PLACE.match(line)
    return None if found is None else f"{found[1]}.{found[2]}"


class _Events(Reader, Generic[T]):
    """The events of a stream in order, each once; `connect` documents the parameters."""

    def __init__(
        self,
        source: Source,
        *,
        faults: bool = True,
        placed: bool = False,
        on_trouble: Callable[[str], None] | None = None,
        **options: Unpack[ReadOptions],
    ) -> None:
        subscription = Subscription.of(source, **options).of_deliveries(faults=faults, placed=placed)
        self.received = self.unreadable = 0
        self._subscription = subscription
        self._lines: deque[str] = deque()  # received, and not given to the caller yet
        self._entered = False
        self._listener = Listener(
            subscription, "ndjson", numbered=subscription.numbered, placed=True, on_trouble=on_trouble
        )

    def __repr__(self) -> str:
        state = "connected" if self.connected else "not connected"
        return f"<{type(self).__name__} {self.url}: {state}, {self.received} received>"

    @property
    def ahead(self) -> bool:
        """Whether the next event was received already."""
        return bool(self._lines)

    async def __aenter__(self) -> Self:
        self._entered = True
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def __aiter__(self) -> AsyncGenerator[T]:
        return self._iterate()

    async def _iterate(self) -> AsyncGenerator[T]:
        try:
            while True:
                try:
                    event = await anext(self)
                except StopAsyncIteration:
                    return
                yield event
        finally:
            # Without `async with`, leaving the loop is the only sign that the caller has finished.
            if not self._entered:
                await self.close()

    async def __anext__(self) -> T:
        """Return the next event; cancelling this loses nothing."""
        while True:
            try:
                for event in self._received():
                    return event
            except RequestError:
                await self.close()
                raise
            if not await self._receive():
                raise StopAsyncIteration

    def __iter__(self) -> Generator[T]:
        """Iterate without asyncio; a thread keeps the connection, and leaving the loop closes it."""
        loop = asyncio.new_event_loop()

        def wait_for(work: Coroutine[Any, Any, bool | None]) -> bool | None:
            return asyncio.run_coroutine_threadsafe(work, loop).result()

        thread = threading.Thread(target=loop.run_forever, name=f"logistream reader {self.url}", daemon=True)
        thread.start()
        try:
            while True:
                yield from self._received()
                if not wait_for(self._receive()):
                    return
        finally:
            wait_for(self.close())
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()

    async def close(self) -> None:
        """End the connection and the iteration; harmless if called again."""
        self._lines.clear()
        await self._listener.close()

    async def _receive(self) -> bool:
        """Wait for more lines; return False when closed."""
        message = await self._listener.receive()
        if message is None:
            return False
        lines = message if isinstance(message, str) else message.decode(errors="replace")
        self._lines.extend(line for line in lines.split("\n") if line)
        return True

    def _received(self) -> Generator[T]:
        """Yield the events that are there; `RequestError` for a line that is not an event."""
        while self._lines:
            try:
                event = self._take(self._lines.popleft())
            except RequestError as error:
                raise RequestError(f"{self.url} does not send events: {error}") from None
            if event is not None:
                self.received += 1
                yield event

    def _take(self, line: str) -> T | None:
        """Return the event of a line; None for a repeated one, a report of missed ones, or no event."""
        position = self._listener.position
        found = _PLACE.match(line)
        if found is None:
            if (report := _MISSED.match(line)) is None:
                raise RequestError(f"an event without {DELIVERY.name!r} came: {shorten(line)}")
            position.skip(int(report[1]))
            return None
        if not position.take(Place(int(found[1]), int(found[2]))):
            return None
        return self._read(line if self._subscription.placed else f"{{{line[found.end() :]}")

    def _read(self, line: str) -> T | None:
        """Return the event in the caller's form, None if the wire has made it unreadable.

        `RequestError` if the line is not an event.
        """
        raise NotImplementedError


class Messages(_Events[str]):
    """What is delivered, as strings; parameters and attributes are those of `connect`.

    A string is what the server sends: JSON unless the wire has cut it short. Without `placed`, it is exactly
    what a reader gets that does not request places.
    """

    def _read(self, line: str) -> str:
        return line


@with_read_options
class connect(_Events[dict[str, Any]]):  # noqa: N801 - spelled in lower case because it is used as a verb
    """Read the events of a stream, as they are delivered.

    An iterator of dicts, for `async for` (also inside `async with`) and for a plain `for`. It connects when
    the first event is requested, connects again after each break with a growing delay, and ends when closed.
    After a break it continues with the next event, so that nothing is lost or repeated, even if the server
    was killed and started again on the same timeline: each event comes once and in order, unless faults of
    the wire are set, which are part of the stream, and come once and in order too.

    Parameters
    ----------
    source : str or StreamServer
        `ws://host:port/ws`, the server's `http://host:port`, or a server of this process.
    **options : ReadOptions
    faults : bool, default=True
        Whether the faults of the wire act: events that are late, repeated or corrupted. False gives the
        events as they happened.
    placed : bool, default=False
        Whether each event begins with the key `delivery`, the place of its delivery, such as `"40.1"`.
    on_trouble : callable, optional
        Called with one sentence at each failed attempt, lost connection or restarted stream, in place of a
        logged warning.

    Attributes
    ----------
    url : str
        Address of the event socket.
    connected : bool
        Whether a connection is open now.
    received, reconnects : int
        Events given, and connections made after the first one.
    restarts : int
        How often another stream was found in place of the one that was read (the server was started again
        without its timeline): then reading starts again, with `start`.
    missed : int
        Events that the server left out.
    unreadable : int
        Deliveries that the wire has cut short, so that they are no JSON, and that are left out here.
    next_number : int or None
        Number of the event that happens next, or of a later one with `where`.
    next_place : str or None
        The `start` with which another process can continue: the place after the last delivery.
    stream_id : str or None
        Identity of the stream.
    silent_for : float
        Seconds since anything came from the server, be it the answer to a ping.
    trouble : str or None
        What is wrong, in one sentence; None after a received message.

    Raises
    ------
    RequestError
        At once for an impossible address or option; while iterating if the server refuses for good (in its
        own words), is not a Logistream server, or sends what is not an event.

    Examples
    --------
    >>> from itertools import islice
    >>> def first_cities(url, count):
    ...     return [event["Customer City"] for event in islice(connect(url), count)]
    """

    def _read(self, line: str) -> dict[str, Any] | None:
        try:
            return parse(line)
        except RequestError:
            if not self._subscription.faults:
                raise
            self.unreadable += 1
            return None

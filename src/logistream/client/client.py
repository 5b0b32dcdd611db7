"""Listen to a stream over WebSocket: connect, connect again, and go on where it was left.

`connect` gives events as dicts, `Messages` the texts of the events as they came.
"""

from __future__ import annotations

import re
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from logistream.client.listener import Listener
from logistream.client.subscription import Subscription
from logistream.errors import RequestError
from logistream.schema import EVENT_NUMBER
from logistream.stream.encoding import parse

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from logistream.client.subscription import Columns, Start, Where
    from logistream.stream.query import Lag

__all__ = ["Messages", "Reader", "connect"]


T = TypeVar("T")

_NUMBER_KEY = f'"{EVENT_NUMBER.name}":'
_NUMBER = re.compile(rf",?{_NUMBER_KEY}(\d+)}}$")
_MISSED = re.compile(r'\{\s*"missed_events"\s*:\s*(\d+)\s*\}\s*$')


class Reader:
    """Whoever owns a listener, and tells of it: how the connection is, and where in the stream it stands."""

    _listener: Listener

    @property
    def connected(self) -> bool:
        """Whether a connection is open now."""
        return self._listener.connected

    @property
    def trouble(self) -> str | None:
        """What is wrong, in one sentence; None after a received message."""
        return self._listener.trouble

    @property
    def reconnects(self) -> int:
        """Connections made after the first one."""
        return self._listener.reconnects

    @property
    def restarts(self) -> int:
        """How often another stream stood in the place of the one that was read."""
        return self._listener.position.restarts

    @property
    def missed(self) -> int:
        """Events that the server left out."""
        return self._listener.position.missed

    @property
    def next_number(self) -> int | None:
        """Number of the event that comes next; None if the server does not number its events."""
        return self._listener.position.next_number

    @property
    def stream_id(self) -> str | None:
        """Identity of the stream; None if the server gives none."""
        return self._listener.position.stream_id

    @property
    def silent_for(self) -> float:
        """Seconds since anything came from the server, be it the answer to a ping."""
        return self._listener.silent_for


class _Events(Reader, Generic[T]):
    """The events of a stream in order, each once; `connect` documents the parameters."""

    def __init__(
        self,
        url: str,
        *,
        start: Start | None = None,
        numbered: bool = False,
        columns: Columns | None = None,
        where: Where | None = None,
        lag: Lag | None = None,
        token: str | None = None,
        first_delay: float = 0.25,
        max_delay: float = 10.0,
        silence: float = 10.0,
        on_trouble: Callable[[str], None] | None = None,
    ) -> None:
        subscription = Subscription.of(
            url, start=start, numbered=numbered, columns=columns, where=where, lag=lag
        )
        self.url = subscription.url
        self.received = 0
        self._numbered = subscription.numbered
        self._lines: deque[str] = deque()  # received, and not given to the caller yet
        self._entered = False
        self._listener = Listener(
            subscription,
            "ndjson",
            numbered=True,
            token=token,
            first_delay=first_delay,
            max_delay=max_delay,
            silence=silence,
            on_trouble=on_trouble,
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
            # Without `async with`, leaving the loop is all that a caller does to be done with it.
            if not self._entered:
                await self.close()

    async def __anext__(self) -> T:
        """Return the next one; cancelling this loses nothing."""
        listener, lines = self._listener, self._lines
        while True:
            while lines:
                try:
                    event = self._take(lines.popleft())
                except RequestError as error:
                    await self.close()
                    raise RequestError(f"{self.url} does not send events: {error}") from None
                if event is not None:
                    self.received += 1
                    return event
            message = await listener.receive()
            if message is None:
                raise StopAsyncIteration
            if not listener.offers:
                event = await self._foreign(message)
                self.received += 1
                return event
            text = message if isinstance(message, str) else message.decode(errors="replace")
            lines.extend(line for line in text.split("\n") if line)

    async def close(self) -> None:
        """End the connection and the iteration; harmless if called again."""
        self._lines.clear()
        await self._listener.close()

    async def _foreign(self, message: str | bytes) -> T:
        """Read a message of a server that knows nothing of numbers and lines."""
        try:
            return self._read(message)
        except RequestError as error:
            await self.close()
            raise RequestError(f"{self.url} does not send events: {error}") from None

    def _take(self, line: str) -> T | None:
        """Return what a line holds; None for what was taken before, or is no event."""
        position = self._listener.position
        found = _NUMBER.search(line, max(0, len(line) - 40))
        if found is None:
            if (note := _MISSED.match(line)) is None:
                raise RequestError(f"an event without {EVENT_NUMBER.name!r} came: {line[:80]}")
            position.skip(int(note[1]))
            return None
        if not position.take(int(found[1])):
            return None
        return self._read(line if self._numbered else f"{line[: found.start()]}}}")

    def _read(self, text: str | bytes) -> T:
        """Turn the text of an event into what the caller asked for; `RequestError` if it cannot be one."""
        raise NotImplementedError


class Messages(_Events[str | bytes]):
    """The texts of the events as they came; parameters and attributes are those of `connect`.

    Without `numbered`, a text is what a server sends that was not asked for numbers.
    """

    def _read(self, text: str | bytes) -> str | bytes:
        return text


class connect(_Events[dict[str, Any]]):  # noqa: N801 - spelled in lower case because it is used as a verb
    """Listen to the events of a stream, each once and in order.

    An asynchronous context manager and iterator of dicts. It connects when the first event is asked for,
    connects again for ever with a growing delay, and ends when closed. After a break it asks for the event
    that comes next, so that nothing is lost or given twice, even if the server was killed and started again
    on the same timeline. A server that numbers nothing (another program, an older version) is listened to
    from the moment of each connection on.

    Parameters
    ----------
    url : str
        `ws://host:port/ws`, or the server's `http://host:port`.
    start : int, str or datetime, optional
        The first event: its number, `"earliest"`, `"latest"` (the next one that happens, as by default), or
        the first one after a moment (RFC 3339, or a datetime; without a zone it is UTC).
    numbered : bool, default=False
        Whether each event has its number as the last key, `event_number`.
    columns : str or iterable of str, optional
        `"all"`, or the keys wanted, in order; the published event by default.
    where : mapping or iterable of str, optional
        Only such events: for each column the value or the list of values it may have (None: missing), or
        texts `COLUMN:VALUE`. Numbers stay as they are.
    lag : {"wait", "skip"}, optional
        What comes next if this reader falls behind: what happened meanwhile (as by default), or the newest
        event; what was left out is counted in `missed`.
    token : str, optional
        What a server off this machine demands.
    first_delay, max_delay : float, default=0.25 and 10.0
        Seconds before the first new attempt, and at most. The delay grows with each attempt, is shortened at
        random by up to 30 %, and starts anew only after a received message.
    silence : float, default=10.0
        Seconds after which a server from which nothing comes, not even an answer to a ping, is given up and
        dialled again.
    on_trouble : callable, optional
        Called with one sentence at each failed attempt, lost connection or restarted stream, in place of a
        logged warning.

    Attributes
    ----------
    url : str
        The address of the socket.
    connected : bool
        Whether a connection is open now.
    received, reconnects : int
        Events given, and connections made after the first one.
    restarts : int
        How often another stream stood in the place of the one that was read (the server was started again
        without its timeline): then it begins again, with `start`.
    missed : int
        Events that the server left out.
    next_number : int or None
        Number of the event that comes next, or of a later one with `where`: what to give as `start` to go on
        in another process. None if the server numbers nothing.
    stream_id : str or None
        Identity of the stream.
    silent_for : float
        Seconds since anything came from the server, be it the answer to a ping.
    trouble : str or None
        What is wrong, in one sentence; None after a received message.

    Raises
    ------
    RequestError
        At once for an impossible address or parameter; while iterating if the server refuses for good (in
        its own words), does not know what was asked for, or sends what is not an event.

    Examples
    --------
    >>> async def first_cities(url, count):
    ...     cities = []
    ...     async with connect(url) as events:
    ...         async for event in events:
    ...             cities.append(event["Customer City"])
    ...             if len(cities) == count:
    ...                 return cities
    """

    def _read(self, text: str | bytes) -> dict[str, Any]:
        return parse(text)

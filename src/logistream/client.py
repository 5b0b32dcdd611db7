"""Listen to a stream over WebSocket: connect, and connect again for as long as it takes.

`connect` gives events as dicts. Underneath, `Messages` gives the message texts as they came; it owns the
socket and the policy of reconnecting. What will pass (nothing listens, connection lost, server full) is
tried again after a delay that grows, and that only a *received message* resets: a server that accepts and
closes at once must not be dialled hundreds of times a second. What will not pass (bad request, bad token,
not an event stream) is raised as one sentence.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import socket
import ssl
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar
from urllib.parse import urlsplit, urlunsplit

from websockets.asyncio.client import connect as dial
from websockets.exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
)

from logistream.access import is_loopback
from logistream.codec import parse
from logistream.errors import RequestError
from logistream.schema import Schema

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from websockets.asyncio.client import ClientConnection

__all__ = ["Messages", "connect", "fetch_schema", "websocket_url"]

logger = logging.getLogger(__name__)

OPEN_TIMEOUT = 10.0
"""Seconds that a server may take to answer a handshake or the question for its schema."""

_GROWTH = 1.618
_POLICY_VIOLATION = 1008
_TRANSIENT_STATUS = frozenset({408, 425, 429})  # timeout, too early, too many: worth another try, as all 5xx
_FINAL_CLOSE = frozenset({1002, 1003, 1007, 1008, 1009})  # the two sides do not agree, and never will


def websocket_url(url: str) -> str:
    """Return the address of the event socket for what a user may type.

    `localhost:8000`, `http://localhost:8000` and `ws://localhost:8000` all mean `ws://localhost:8000/ws`; a
    path and a query are kept. Raises `RequestError` for what cannot be an address.
    """
    shown = url if "://" in url else f"ws://{url}"
    try:
        parts = urlsplit(shown)
        valid = bool(parts.hostname) and parts.port != 0  # reading a port out of range raises
    except ValueError:
        valid = False
    scheme = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}.get(parts.scheme) if valid else None
    if scheme is None:
        raise RequestError(
            f"cannot connect to {url!r}: expected an address such as ws://127.0.0.1:8000/ws "
            f"or http://127.0.0.1:8000"
        )
    return urlunsplit((scheme, parts.netloc, parts.path if parts.path.strip("/") else "/ws", parts.query, ""))


T = TypeVar("T")


class _Listener(Generic[T]):
    """One socket at a time and the policy of reconnecting; `connect` documents the parameters."""

    def __init__(
        self,
        url: str,
        *,
        token: str | None = None,
        first_delay: float = 0.25,
        max_delay: float = 10.0,
        on_trouble: Callable[[str], None] | None = None,
    ) -> None:
        if not 0 < first_delay <= max_delay:
            raise RequestError(
                f"first_delay must be above 0 and not above max_delay (seconds), "
                f"got first_delay={first_delay!r} and max_delay={max_delay!r}"
            )
        self.url = websocket_url(url)
        self.token = token
        self.received = 0
        self.reconnects = 0
        self.trouble: str | None = None
        self._first_delay, self._max_delay = first_delay, max_delay
        self._on_trouble = on_trouble
        self._delay = first_delay
        self._not_before = 0.0  # on the clock of the loop
        self._socket: ClientConnection | None = None
        self._connections = 0
        self._entered = False
        self._closing = asyncio.Event()

    def __repr__(self) -> str:
        state = "connected" if self.connected else "not connected"
        return f"<{type(self).__name__} {self.url}: {state}, {self.received} received>"

    @property
    def connected(self) -> bool:
        """Whether a connection is open now."""
        return self._socket is not None

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
                    message = await anext(self)
                except StopAsyncIteration:
                    return
                yield message
        finally:
            # Without `async with`, leaving the loop is all that a caller does to be done with it.
            if not self._entered:
                await self.close()

    async def __anext__(self) -> T:
        """Return the next one; cancelling this loses nothing."""
        while not self._closing.is_set():
            try:
                if self._socket is None:
                    await self._open()
                    continue  # closed in the meantime?
                message = await self._socket.recv()
            except (OSError, TimeoutError, InvalidHandshake, ConnectionClosed) as error:
                if self._closing.is_set():
                    break
                self._socket = None
                if is_final(error):
                    await self.close()
                    raise RequestError(f"{self.url} {explain(error)}") from error
                self._postpone(explain(error))
            else:
                self.received += 1
                self._delay = self._first_delay
                self.trouble = None
                return await self._accept(message)
        await self.close()  # a connection may have been made while another task closed this
        raise StopAsyncIteration

    async def close(self) -> None:
        """End the connection and the iteration; harmless if called again."""
        self._closing.set()
        open_socket, self._socket = self._socket, None
        if open_socket is not None:
            # The server's answer stands behind messages that nobody has read yet: read them.
            closing = asyncio.ensure_future(open_socket.close())
            with contextlib.suppress(ConnectionClosed, ConcurrencyError):
                while True:
                    await open_socket.recv()
            await closing

    def _read(self, message: str | bytes) -> T:
        """Turn a message into what the caller asked for; `RequestError` if it cannot be one."""
        raise NotImplementedError

    async def _accept(self, message: str | bytes) -> T:
        try:
            return self._read(message)
        except RequestError as error:
            await self.close()
            raise RequestError(f"{self.url} does not send events: {error}") from None

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        if (wait := self._not_before - loop.time()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), wait)
                return
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else None
        self._socket = await dial(
            self.url,
            additional_headers=headers,
            compression=None,  # deflating short texts costs both sides more than it saves
            proxy=None if _is_local(self.url) else True,
            open_timeout=OPEN_TIMEOUT,
            close_timeout=1.0,
        )
        self.reconnects += self._connections > 0
        self._connections += 1

    def _postpone(self, reason: str) -> None:
        """Note why there is no connection and let the next attempt wait."""
        first = self.trouble is None
        wait = self._delay * random.uniform(0.7, 1.0)  # noqa: S311, so that many clients do not come at once
        self._delay = min(self._delay * _GROWTH, self._max_delay)
        self._not_before = asyncio.get_running_loop().time() + wait
        self.trouble = f"{self.url} {reason}; trying again in {wait:.1f} s"
        if self._on_trouble is not None:
            self._on_trouble(self.trouble)
        else:
            logger.log(logging.WARNING if first else logging.INFO, "%s", self.trouble)


class Messages(_Listener[str | bytes]):
    """The message texts of a stream as they came; parameters and attributes are those of `connect`."""

    def _read(self, message: str | bytes) -> str | bytes:
        return message


class connect(_Listener[dict[str, Any]]):  # noqa: N801, spelled in lower case because it is used as a verb
    """Listen to the events of a stream.

    An asynchronous context manager and iterator of dicts. It connects when the first event is asked for,
    reconnects for ever with a growing delay, and ends when closed.

    Parameters
    ----------
    url : str
        `ws://host:port/ws`, or the server's `http://host:port`.
    token : str, optional
        What a server off this machine demands.
    first_delay, max_delay : float, default=0.25 and 10.0
        Seconds before the first new attempt, and at most. The delay grows with each attempt, is shortened at
        random by up to 30 %, and starts anew only after a received event.
    on_trouble : callable, optional
        Called with one sentence at each failed attempt or lost connection, in place of a logged warning.

    Attributes
    ----------
    url : str
        The address of the socket.
    connected : bool
        Whether a connection is open now.
    received, reconnects : int
        Events received, and connections made after the first one.
    trouble : str or None
        Why there is no connection, in one sentence; None after a received event.

    Raises
    ------
    RequestError
        At once for an impossible address; while iterating if the server refuses for good (in its own words),
        or sends what is not an event.

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

    def _read(self, message: str | bytes) -> dict[str, Any]:
        return parse(message)


def is_final(error: Exception) -> bool:
    """Tell whether trying again is useless."""
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        return status < 500 and status not in _TRANSIENT_STATUS
    if isinstance(error, ConnectionClosed):
        return _close_frame(error)[0] in _FINAL_CLOSE
    if isinstance(error, InvalidMessage):
        return not isinstance(error.__cause__, EOFError)  # hung up without an answer: perhaps it is starting
    return isinstance(error, InvalidHandshake | ssl.SSLCertVerificationError)


def explain(error: Exception) -> str:
    """Say what happened, as the end of a sentence that begins with the address."""
    if isinstance(error, InvalidStatus):
        return f"refuses: {_detail(error)}"
    if isinstance(error, ConnectionClosed):
        code, reason = _close_frame(error)
        if code == _POLICY_VIOLATION:
            return f"refuses: {reason or 'policy violation'}"
        return f"closed the connection ({code}{': ' + reason if reason else ''})"
    if isinstance(error, InvalidHandshake):
        return "does not answer as a WebSocket server does"
    if isinstance(error, TimeoutError):
        return f"does not answer within {OPEN_TIMEOUT:.0f} s"
    if isinstance(error, ConnectionRefusedError) or "Connect call failed" in str(error):
        return "cannot be reached: nothing listens there"
    if isinstance(error, socket.gaierror):
        return "cannot be reached: the host name is not known"
    return f"cannot be reached: {error}"


def _close_frame(error: ConnectionClosed) -> tuple[int, str]:
    """Return code and reason of the close frame, whoever sent it first; 1006 stands for none."""
    frame = error.sent if error.rcvd_then_sent is False else error.rcvd or error.sent
    return (frame.code, frame.reason) if frame is not None else (1006, "")


def _detail(error: InvalidStatus) -> str:
    """Return the server's own sentence if its answer holds one."""
    status, body = error.response.status_code, error.response.body or b""
    try:
        detail = json.loads(body)["detail"]
    except (ValueError, KeyError, TypeError):
        detail = None
    return detail if isinstance(detail, str) else f"HTTP {status} {error.response.reason_phrase}".rstrip()


def fetch_schema(url: str, *, token: str | None = None) -> Schema | None:
    """Ask a server for the schema of its events; blocks.

    Parameters
    ----------
    url : str
        Any address that `connect` takes.
    token : str, optional
        What a server off this machine demands.

    Returns
    -------
    Schema or None
        None if the server does not publish one.

    Raises
    ------
    OSError
        The server cannot be reached at the moment.
    RequestError
        What it publishes is not the schema of an event.
    """
    parts = urlsplit(websocket_url(url))
    scheme = {"ws": "http", "wss": "https"}[parts.scheme]
    path = parts.path.rpartition("/")[0] + "/schema"
    request = urllib.request.Request(  # noqa: S310, the scheme is one of two
        urlunsplit((scheme, parts.netloc, path, parts.query, "")),
        headers={"Authorization": f"Bearer {token}"} if token else {},
    )
    # A proxy would look for loopback on its own machine.
    opener = urllib.request.build_opener(*[urllib.request.ProxyHandler({})] * _is_local(url))
    try:
        with opener.open(request, timeout=OPEN_TIMEOUT) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:
        error.close()
        if error.code >= 500:
            raise
        return None
    try:
        return Schema.from_json_schema(json.loads(body))
    except ValueError as error:
        raise RequestError(f"the schema at {request.full_url} cannot be used: {error}") from error


def _is_local(url: str) -> bool:
    return is_loopback(urlsplit(websocket_url(url)).hostname or "")

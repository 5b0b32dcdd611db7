"""One reader's WebSocket: it connects, reads, and connects again after a break, from the next event on.

After a failure that may pass (nothing listens, connection lost, server full) it tries again, after a growing
delay. Only a received message resets the delay: a server that accepts and closes at once must not get
hundreds of connections a second. A failure that will not pass (bad request, bad token, not a Logistream
server) ends the reading.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import socket
import ssl
import time
from typing import TYPE_CHECKING, NoReturn

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket
from websockets.exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
    InvalidURI,
    SecurityError,
)
from websockets.frames import CloseCode
from websockets.protocol import State

from logistream.client.position import Position
from logistream.errors import RequestError, shorten
from logistream.stream.query import EVENT_NUMBER_HEADER, STREAM_HEADER
from logistream.urls import is_local

if TYPE_CHECKING:
    from collections.abc import Callable

    from logistream.client.subscription import Subscription
    from logistream.stream.query import Format

__all__ = ["NOT_YET", "TRANSIENT_STATUS", "Listener", "explain", "not_ours", "refusal"]


logger = logging.getLogger(__name__)

TRANSIENT_STATUS = frozenset({408, 425, 429})
"""HTTP answers that are worth another try, as all 5xx are: timeout, too early, too many."""

NOT_YET = 416
"""The HTTP answer for events that have not happened yet."""

_OPEN_TIMEOUT = 10.0  # seconds that a server may take to answer a handshake
_REASON_TIMEOUT = 1.0  # seconds that a server without our header may take to close with its reason
_CLOSE_TIMEOUT = 0.5  # seconds that a server may take to answer a close frame
_LARGEST_MESSAGE = 64 * 1024 * 1024  # bytes: 16,384 rows of some hundred columns
_SMALL_BUFFER = 65_536  # bytes in the kernel for a reader with lag=skip: what lies there is already old
_MESSAGES_AHEAD = (4, 1)  # read ahead of the consumer: stop reading above, continue below
_TICKS = 4  # checks of a silent connection before it is cut
_GROWTH = 1.618  # of the delay between attempts
_FINAL_CLOSE = frozenset(
    {
        CloseCode.PROTOCOL_ERROR,
        CloseCode.UNSUPPORTED_DATA,
        CloseCode.INVALID_DATA,
        CloseCode.POLICY_VIOLATION,
        CloseCode.MESSAGE_TOO_BIG,
    }
)


class _Connection(ClientConnection):
    """A connection that records when bytes last came, as part of a message or as an answer to a ping."""

    heard: float = float("-inf")  # on the clock of time.monotonic

    def data_received(self, data: bytes) -> None:
        self.heard = time.monotonic()
        super().data_received(data)


class Listener:
    """Messages of a stream from one connection after the other.

    Parameters
    ----------
    subscription : Subscription
        What is requested.
    form : Format
        Format of the messages.
    numbered, placed : bool
        Whether each event has to bring its number, or the place of its delivery.
    on_trouble : callable, optional
        Called with one sentence at each failed attempt, lost connection or restarted stream, in place of a
        logged warning.

    Attributes
    ----------
    position : Position
        Where the reader is; the consumer of the messages advances it.
    reconnects : int
        Connections made after the first one.
    trouble : str or None
        What is wrong, in one sentence; None after a received message.
    cause : str or None
        Why the last attempt to connect failed or the last connection ended, as a phrase.
    """

    def __init__(
        self,
        subscription: Subscription,
        form: Format,
        *,
        numbered: bool,
        placed: bool = False,
        on_trouble: Callable[[str], None] | None = None,
    ) -> None:
        self.subscription = subscription
        self.position = Position(subscription.start, filtered=subscription.filtered or subscription.faults)
        self.reconnects = 0
        self.trouble: str | None = None
        self.cause: str | None = None
        self._form, self._on_trouble = form, on_trouble
        self._numbered, self._placed = numbered, placed
        self._delay = subscription.first_delay
        self._not_before = 0.0  # on the clock of time.monotonic
        self._socket: _Connection | None = None
        self._watching: asyncio.Task[None] | None = None
        self._waiting = False  # in `receive`, with nothing there
        self._heard: float | None = None  # on the clock of time.monotonic, before the present connection
        self._connections = 0
        self._closing = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether a connection is open now."""
        return self._socket is not None

    @property
    def retry_in(self) -> float:
        """Seconds until the next attempt to connect; 0 while connected or connecting."""
        return 0.0 if self._socket is not None else max(0.0, self._not_before - time.monotonic())

    @property
    def silent_for(self) -> float:
        """Seconds since anything came from the server; since the first attempt if nothing ever did."""
        heard, connection = self._heard, self._socket
        if heard is None:
            return 0.0
        return time.monotonic() - (heard if connection is None else max(heard, connection.heard))

    async def open(self) -> bool:
        """Return True once a connection is open, however many attempts it takes, and False after `close`.

        Raises
        ------
        RequestError
            The server refuses for good, in its own words.
        """
        while self._socket is None and not self._closing.is_set():
            try:
                await self._attempt()
            except (OSError, InvalidHandshake, ConnectionClosed, InvalidURI, SecurityError) as error:
                await self._lose(error)
        if not self._closing.is_set():
            return True
        await self.close()  # a connection may have been made while another task closed this
        return False

    async def receive(self) -> str | bytes | None:
        """Return the next message, None after `close`; cancelling this loses nothing.

        Raises
        ------
        RequestError
            The server refuses for good, in its own words.
        """
        while await self.open():
            assert self._socket is not None  # noqa: S101 - for the type checker
            self._waiting = True
            try:
                message = await self._socket.recv()
            except (OSError, ConnectionClosed) as error:
                await self._lose(error)
            else:
                self._delay = self.subscription.first_delay
                self.trouble = None
                return message
            finally:
                self._waiting = False
        return None

    async def close(self) -> None:
        """End the connection and the reading; harmless if called again."""
        self._closing.set()
        open_socket = self._socket
        self._drop()
        if open_socket is not None:
            # The server's close frame is queued behind unread messages: read them.
            closing = asyncio.ensure_future(open_socket.close())
            with contextlib.suppress(ConnectionClosed, ConcurrencyError):
                while True:
                    await open_socket.recv()
            await closing

    async def _attempt(self) -> None:
        """Try to connect once; without a connection and without an error, try again at once."""
        if (wait := self._not_before - time.monotonic()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), wait)
                return
        if self._heard is None:
            self._heard = time.monotonic()
        try:
            connection = await self._connect()
        except InvalidStatus as error:
            stream_id = error.response.headers.get(STREAM_HEADER)
            resuming = self.position.place is not None
            if resuming and stream_id is not None and not self._enter(stream_id, None):
                return
            raise
        entered = False
        try:
            headers = connection.response.headers if connection.response is not None else {}
            stream_id = headers.get(STREAM_HEADER)
            if stream_id is None:
                await self._refuse(connection)
            entered = self._enter(stream_id, int(headers[EVENT_NUMBER_HEADER]))
        finally:
            if not entered:
                connection.transport.abort()
        if entered:
            self._socket = connection
            self._watching = asyncio.create_task(self._watch(connection))
            self.reconnects += self._connections > 0
            self._connections += 1

    async def _connect(self) -> _Connection:
        subscription = self.subscription
        address = subscription.address(
            self._form,
            self.position.start,
            numbered=self._numbered,
            placed=self._placed,
            gather=subscription.gather,
        )
        connection = await open_websocket(
            address,
            additional_headers={"Authorization": f"Bearer {subscription.token}"}
            if subscription.token
            else None,
            compression=None,  # deflating short strings costs both sides more than it saves
            proxy=None if is_local(address) else True,
            open_timeout=_OPEN_TIMEOUT,
            close_timeout=_CLOSE_TIMEOUT,
            ping_interval=None,  # `_watch` pings, and only when nothing comes
            max_size=_LARGEST_MESSAGE,
            max_queue=_MESSAGES_AHEAD,
            create_connection=_Connection,
        )
        assert isinstance(connection, _Connection)  # noqa: S101 - for the type checker
        if subscription.lag == "skip":
            raw = connection.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
        return connection

    async def _refuse(self, connection: _Connection) -> NoReturn:
        """Raise for a server without our header: the reason with which it closes, or that it is another kind.

        Under an ASGI server that cannot answer a handshake with a refusal, ours accepts and closes.
        """
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(connection.recv(), _REASON_TIMEOUT)
        await self.close()
        raise not_ours(self.subscription.url)

    def _enter(self, stream_id: str, number: int | None) -> bool:
        """Record the stream that answers; return False if it is a new one, which needs another attempt."""
        restarts = self.position.restarts
        entered = self.position.enter(stream_id, number)
        if self.position.restarts > restarts:
            self._report(
                f"{self.subscription.url} serves another stream than before: "
                f"starting again with {self.subscription.start or 'its newest event'}"
            )
        return entered

    async def _lose(self, error: Exception) -> None:
        """Handle a failed connection or attempt; raise if another attempt would fail too."""
        silent_for, cut = self.silent_for, self._watching is not None and self._watching.done()
        self._drop()
        if self._closing.is_set():
            return
        if _is_final(error, resuming=self.position.stream_id is not None):
            await self.close()
            raise RequestError(f"{self.subscription.url} {explain(error)}") from error
        reason = self.cause = f"has been silent for {silent_for:.0f} s" if cut else explain(error)
        # Random, so that many clients do not connect at the same time.
        wait = self._delay * random.uniform(0.7, 1.0)  # noqa: S311 - no secret
        self._delay = min(self._delay * _GROWTH, self.subscription.max_delay)
        self._not_before = time.monotonic() + wait
        self._report(f"{self.subscription.url} {reason}; trying again in {wait:.1f} s")

    def _drop(self) -> None:
        """Forget the connection."""
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        if self._socket is not None:
            self._heard = max(self._heard or 0.0, self._socket.heard)
            self._socket = None

    def _report(self, trouble: str) -> None:
        first = self.trouble is None
        self.trouble = trouble
        if self._on_trouble is not None:
            self._on_trouble(trouble)
        else:
            logger.log(logging.WARNING if first else logging.INFO, "%s", trouble)

    async def _watch(self, connection: _Connection) -> None:
        """Ping a silent server, and cut the connection if it does not answer.

        Checks are counted, not seconds: the loop may have been blocked, or the machine asleep.
        """
        silent, heard, tick = 0, connection.heard, self.subscription.silence / _TICKS
        while silent < _TICKS:
            await asyncio.sleep(tick)
            # Without a consumer, answers wait behind messages.
            silent = silent + 1 if self._waiting and connection.heard == heard else 0
            heard = connection.heard
            if silent and connection.state is State.OPEN:
                with contextlib.suppress(ConnectionClosed, TimeoutError):
                    async with asyncio.timeout(tick):
                        await connection.ping()
        connection.transport.abort()


def _is_final(error: Exception, *, resuming: bool) -> bool:
    """Return whether trying again is useless.

    Parameters
    ----------
    error : Exception
        What ended a connection or an attempt.
    resuming : bool
        Whether a server has named the requested event before. Then a server that does not have it yet is only
        a little behind.
    """
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        return status < 500 and status not in TRANSIENT_STATUS and not (resuming and status == NOT_YET)
    if isinstance(error, ConnectionClosed):
        return _close_frame(error)[0] in _FINAL_CLOSE
    if isinstance(error, InvalidMessage):
        return not isinstance(error.__cause__, EOFError)  # hung up without an answer: perhaps it is starting
    redirected = isinstance(error, InvalidURI | SecurityError)
    return redirected or isinstance(error, InvalidHandshake | ssl.SSLCertVerificationError)


def explain(error: Exception) -> str:
    """Return what happened, as the end of a sentence that starts with the address."""
    if isinstance(error, InvalidStatus):
        answer = error.response
        return f"refuses: {refusal(answer.status_code, answer.reason_phrase, answer.body)}"
    if isinstance(error, ConnectionClosed):
        code, reason = _close_frame(error)
        if code == CloseCode.POLICY_VIOLATION:
            return f"refuses: {reason or 'policy violation'}"
        return f"closed the connection ({code}{': ' + reason if reason else ''})"
    if isinstance(error, InvalidURI):
        return f"redirects to {shorten(error.uri, 200)}: use that address if it is the stream you mean"
    if isinstance(error, SecurityError):
        return f"redirects in a way that is not followed: {error}"
    if isinstance(error, InvalidHandshake):
        return "does not answer as a WebSocket server does"
    if isinstance(error, TimeoutError):
        return f"does not answer within {_OPEN_TIMEOUT:.0f} s"
    if isinstance(error, ConnectionRefusedError) or "Connect call failed" in str(error):
        return "cannot be reached: nothing listens there"
    if isinstance(error, socket.gaierror):
        return "cannot be reached: the host name is not known"
    return f"cannot be reached: {error}"


def _close_frame(error: ConnectionClosed) -> tuple[int, str]:
    """Return code and reason of the close frame, whoever sent it first."""
    frame = error.sent if error.rcvd_then_sent is False else error.rcvd or error.sent
    return (frame.code, frame.reason) if frame is not None else (CloseCode.ABNORMAL_CLOSURE.value, "")


def refusal(status: int, phrase: str, body: bytes | bytearray | None) -> str:
    """Return the server's own sentence if its answer holds one, else the HTTP status."""
    try:
        detail = json.loads(body or b"")["detail"]
    except (ValueError, KeyError, TypeError):
        detail = None
    return detail if isinstance(detail, str) else f"HTTP {status} {phrase}".rstrip()


def not_ours(url: str) -> RequestError:
    """Return the error for a server that does not answer as ours does."""
    return RequestError(
        f"{url} is not a Logistream server: its answer lacks the header {STREAM_HEADER}; check host and port"
    )

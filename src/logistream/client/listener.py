"""When to connect again, and what to say of a connection that failed.

What will pass (nothing listens, connection lost, server full) is tried again after a delay that grows, and
that only a *received message* resets: a server that accepts and closes at once must not be dialled hundreds
of times a second. What will not pass (bad request, bad token, not an event stream) ends it. No sockets here.

One reader's WebSocket: dialled, listened to, and dialled again where it was left, for as long as it takes.

A `Listener` gives the messages of one connection after the other as they came. It asks a server of this
package for a form of its own (`ndjson` or `arrow`) and for the event that comes next; any other server, or an
older one, is dialled as it was typed and simply listened to.
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
from typing import TYPE_CHECKING, Any

from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as dial
from websockets.exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    InvalidHandshake,
    InvalidMessage,
    InvalidStatus,
)
from websockets.protocol import State

from logistream.client.position import Position
from logistream.errors import RequestError
from logistream.stream.query import EVENT_NUMBER_HEADER, STREAM_HEADER
from logistream.urls import is_local

if TYPE_CHECKING:
    from collections.abc import Callable

    from websockets.datastructures import Headers

    from logistream.client.subscription import Subscription
    from logistream.stream.query import Format

__all__ = [
    "LARGEST_MESSAGE",
    "OPEN_TIMEOUT",
    "POLICY_VIOLATION",
    "Backoff",
    "Listener",
    "close_code",
    "explain",
    "is_final",
]


OPEN_TIMEOUT = 10.0
"""Seconds that a server may take to answer a handshake or the question for its schema."""

POLICY_VIOLATION = 1008
"""The close code of a server that refuses after it has accepted."""

_GROWTH = 1.618
_NOT_YET = 416
_TRANSIENT_STATUS = frozenset({408, 425, 429})  # timeout, too early, too many: worth another try, as all 5xx
_FINAL_CLOSE = frozenset({1002, 1003, 1007, 1008, 1009})  # the two sides do not agree, and never will


class Backoff:
    """Delays between attempts: growing, and a little random so that many clients do not come at once.

    Parameters
    ----------
    first, most : float
        Seconds before the first new attempt, and at most. Each of them is shortened at random by up to 30 %.

    Raises
    ------
    RequestError
        For delays that would hammer the server, or never end.
    """

    def __init__(self, first: float, most: float) -> None:
        if not 0 < first <= most:
            raise RequestError(
                f"first_delay must be above 0 and not above max_delay (seconds), "
                f"got first_delay={first!r} and max_delay={most!r}"
            )
        self._first, self._most = first, most
        self._delay = first

    def reset(self) -> None:
        """Begin with the first delay again."""
        self._delay = self._first

    def next(self) -> float:
        """Return the seconds to wait now; the next ones will be longer."""
        wait = self._delay * random.uniform(0.7, 1.0)  # noqa: S311 - no secret
        self._delay = min(self._delay * _GROWTH, self._most)
        return wait


def is_final(error: Exception, *, resuming: bool = False) -> bool:
    """Tell whether trying again is useless.

    Parameters
    ----------
    error : Exception
        What ended a connection or an attempt.
    resuming : bool
        Whether the event asked for was promised before: then a server that does not have it yet is only a
        little behind.
    """
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        return status < 500 and status not in _TRANSIENT_STATUS and not (resuming and status == _NOT_YET)
    if isinstance(error, ConnectionClosed):
        return close_code(error) in _FINAL_CLOSE
    if isinstance(error, InvalidMessage):
        return not isinstance(error.__cause__, EOFError)  # hung up without an answer: perhaps it is starting
    return isinstance(error, InvalidHandshake | ssl.SSLCertVerificationError)


def explain(error: Exception) -> str:
    """Say what happened, as the end of a sentence that begins with the address."""
    if isinstance(error, InvalidStatus):
        return f"refuses: {_detail(error)}"
    if isinstance(error, ConnectionClosed):
        code, reason = _close_frame(error)
        if code == POLICY_VIOLATION:
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


def close_code(error: ConnectionClosed) -> int:
    """Return the code of the close frame, whoever sent it first; 1006 stands for none."""
    return _close_frame(error)[0]


def _close_frame(error: ConnectionClosed) -> tuple[int, str]:
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


logger = logging.getLogger(__name__)

LARGEST_MESSAGE = 64 * 1024 * 1024
"""Bytes of a message, at most: 16,384 rows of some hundred columns."""

_MESSAGES_AHEAD = (4, 1)  # read ahead of the consumer: stop reading above, go on below
_CLOSE_TIMEOUT = 0.5  # seconds that a server may take to take leave
_TICKS = 4  # looks at a silent connection before it is given up
_WHO_ASKS = frozenset({401, 407})  # refusals that are not about what was asked for


class _Connection(ClientConnection):
    """A connection that notes when something came, be it a part of a message or an answer to a ping."""

    heard: float = float("-inf")  # on the clock of time.monotonic

    def data_received(self, data: bytes) -> None:
        self.heard = time.monotonic()
        super().data_received(data)


class Listener:
    """Messages of a stream from one connection after the other.

    Parameters
    ----------
    subscription : Subscription
        What is asked for.
    form : Format
        In which form, of a server of this package.
    numbered : bool
        Whether each event has to bring its number.
    token : str, optional
        What a server off this machine demands.
    first_delay, max_delay : float
        Seconds between attempts, as in `Backoff`.
    silence : float
        Seconds after which a server from which nothing comes, not even an answer to a ping, is given up.
    on_trouble : callable, optional
        Called with one sentence at each failed attempt, lost connection or restarted stream, in place of a
        logged warning.

    Attributes
    ----------
    position : Position
        Where it stands; whoever takes the messages says what was taken.
    offers : bool
        Whether the last message came from a server that numbers its events and sends the form asked for.
    reconnects : int
        Connections made after the first one.
    trouble : str or None
        What is wrong, in one sentence; None after a received message.
    """

    def __init__(
        self,
        subscription: Subscription,
        form: Format,
        *,
        numbered: bool,
        token: str | None = None,
        first_delay: float = 0.25,
        max_delay: float = 10.0,
        silence: float = 10.0,
        on_trouble: Callable[[str], None] | None = None,
    ) -> None:
        if not 0 < silence < float("inf"):
            raise RequestError(f"silence must be a number of seconds above 0, got {silence!r}")
        self.subscription = subscription
        self.position = Position(subscription.start, filtered=subscription.filtered)
        self.offers = False
        self.reconnects = 0
        self.trouble: str | None = None
        self._form, self._numbered, self._token, self._silence = form, numbered, token, silence
        self._on_trouble = on_trouble
        self._backoff = Backoff(first_delay, max_delay)
        self._not_before = 0.0  # on the clock of the loop
        self._socket: _Connection | None = None
        self._watching: asyncio.Task[None] | None = None
        self._waiting = False  # in `receive`, with nothing there
        self._heard: float | None = None  # on the clock of time.monotonic, before the present connection
        self._connections = 0
        self._promised = False  # the present connection brings numbered events in the form asked for
        self._fresh = False  # nothing came over it yet
        self._plainly = False  # the server does not take our parameters
        self._closing = asyncio.Event()

    @property
    def connected(self) -> bool:
        """Whether a connection is open now."""
        return self._socket is not None

    @property
    def silent_for(self) -> float:
        """Seconds since anything came from the server; since the first attempt if nothing ever did."""
        heard, connection = self._heard, self._socket
        if heard is None:
            return 0.0
        return time.monotonic() - (heard if connection is None else max(heard, connection.heard))

    async def receive(self) -> str | bytes | None:
        """Return the next message, None after `close`; cancelling this loses nothing.

        Raises
        ------
        RequestError
            The server refuses for good, in its own words.
        """
        while not self._closing.is_set():
            try:
                if self._socket is None:
                    await self._open()
                    continue  # closed in the meantime?
                self._waiting = True
                try:
                    message = await self._socket.recv()
                finally:
                    self._waiting = False
            except (OSError, TimeoutError, InvalidHandshake, ConnectionClosed) as error:
                if self._closing.is_set():
                    break
                await self._lose(error)
            else:
                if self._fresh:
                    await self._begin()
                self._backoff.reset()
                self.trouble = None
                return message
        await self.close()  # a connection may have been made while another task closed this
        return None

    async def close(self) -> None:
        """End the connection and the listening; harmless if called again."""
        self._closing.set()
        open_socket = self._socket
        self._drop()
        if open_socket is not None:
            # The server's answer stands behind messages that nobody has read yet: read them.
            closing = asyncio.ensure_future(open_socket.close())
            with contextlib.suppress(ConnectionClosed, ConcurrencyError):
                while True:
                    await open_socket.recv()
            await closing

    async def _lose(self, error: Exception) -> None:
        """Note that a connection or an attempt has failed; raise if another would too."""
        silent_for, given_up = self.silent_for, self._watching is not None and self._watching.done()
        connected = self._socket is not None
        self._drop()
        resuming = self.position.stream_id is not None
        if isinstance(error, ConnectionClosed) and connected and self._may_mean_parameters(error):
            if not self.subscription.asked:
                self._plainly = True
                return
            final = not resuming
        else:
            final = is_final(error, resuming=resuming)
        if final:
            await self.close()
            raise RequestError(f"{self.subscription.url} {explain(error)}") from error
        self._postpone(f"has been silent for {silent_for:.0f} s" if given_up else explain(error))

    def _drop(self) -> None:
        """Forget the connection."""
        if self._watching is not None:
            self._watching.cancel()
            self._watching = None
        if self._socket is not None:
            self._heard = max(self._heard or 0.0, self._socket.heard)
            self._socket = None

    def _may_mean_parameters(self, error: ConnectionClosed) -> bool:
        """Tell whether a server has hung up because it does not know our parameters."""
        refused = self._fresh and close_code(error) == POLICY_VIOLATION
        return refused and not (self._promised or self._plainly)

    async def _open(self) -> None:
        """Make one attempt; without a connection and without an error, another one is due at once."""
        loop = asyncio.get_running_loop()
        if (wait := self._not_before - loop.time()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._closing.wait(), wait)
                return
        if self._heard is None:
            self._heard = time.monotonic()
        plainly, position = self._plainly, self.position
        try:
            connection = await self._dial(
                self.subscription.url
                if plainly
                else self.subscription.address(self._form, position.start, numbered=self._numbered)
            )
        except InvalidStatus as error:
            if not plainly and self._judge_refusal(error):
                return
            raise
        stream_id, number = _stream_of(connection.response.headers if connection.response else {})
        if not self._is_what_was_asked_for(stream_id, number, plainly=plainly):
            connection.transport.abort()
            return
        self._promised = stream_id is not None and not plainly
        self._socket, self._fresh = connection, True
        self._watching = asyncio.create_task(self._watch(connection))
        self.reconnects += self._connections > 0
        self._connections += 1

    def _is_what_was_asked_for(self, stream_id: str | None, number: int | None, *, plainly: bool) -> bool:
        """Tell whether a connection will do; if not, the next attempt asks otherwise."""
        if plainly:
            if stream_id is None or stream_id != self.position.stream_id:
                return True
            self._plainly = False  # it has taken our parameters before
            self._postpone("did not go on where it was left")
            return False
        if stream_id is not None:
            return self._enter(stream_id, number)
        self._plainly = self.subscription.rewrites and not self.subscription.asked
        return not self._plainly

    async def _begin(self) -> None:
        """Take note of the first message of a connection: it will stay."""
        self._fresh = self._plainly = False
        self.offers = self._promised
        if self.offers:
            return
        # Only now: who accepts and hangs up without a word may be a server of this package that is full.
        if self.subscription.asked:
            await self.close()
            raise RequestError(
                f"{self.subscription.url} does not know {', '.join(self.subscription.asked)}: "
                f"it is another kind of server, or an older one; ask for nothing but the address"
            )
        self._enter(None, None)

    async def _dial(self, url: str) -> _Connection:
        connection = await dial(
            url,
            additional_headers={"Authorization": f"Bearer {self._token}"} if self._token else None,
            compression=None,  # deflating short texts costs both sides more than it saves
            proxy=None if is_local(url) else True,
            open_timeout=OPEN_TIMEOUT,
            close_timeout=_CLOSE_TIMEOUT,
            ping_interval=None,  # `_watch` asks, and only when nothing comes
            max_size=LARGEST_MESSAGE,
            max_queue=_MESSAGES_AHEAD,
            create_connection=_Connection,
        )
        assert isinstance(connection, _Connection)  # noqa: S101 - for the type checker
        return connection

    def _judge_refusal(self, error: InvalidStatus) -> bool:
        """Tell whether another attempt, asking for something else, is due at once."""
        stream_id, _ = _stream_of(error.response.headers)
        resuming = self.position.next_number is not None
        if resuming and stream_id is not None:
            return not self._enter(stream_id, None)
        passes = not is_final(error, resuming=True)
        if passes or self.subscription.asked or error.response.status_code in _WHO_ASKS:
            return False
        self._plainly = True
        return True

    def _enter(self, stream_id: str | None, number: int | None) -> bool:
        """Note where the server stands; False if it is not where we asked to go on."""
        restarts = self.position.restarts
        entered = self.position.enter(stream_id, number)
        if self.position.restarts > restarts:
            self._tell(
                f"{self.subscription.url} serves another stream than before: "
                f"beginning again with {self.subscription.start or 'its newest event'}"
            )
        return entered

    def _postpone(self, reason: str) -> None:
        """Note why there is no connection and let the next attempt wait."""
        wait = self._backoff.next()
        self._not_before = asyncio.get_running_loop().time() + wait
        self._tell(f"{self.subscription.url} {reason}; trying again in {wait:.1f} s")

    def _tell(self, trouble: str) -> None:
        first = self.trouble is None
        self.trouble = trouble
        if self._on_trouble is not None:
            self._on_trouble(trouble)
        else:
            logger.log(logging.WARNING if first else logging.INFO, "%s", trouble)

    async def _watch(self, connection: _Connection) -> None:
        """Ask a silent server whether it is there, and cut a connection to one that does not answer.

        Looks are counted, not seconds: a loop that was held up, or a machine that slept, proves nothing.
        """
        silent, heard = 0, connection.heard
        while silent < _TICKS:
            await asyncio.sleep(self._silence / _TICKS)
            # While nobody reads, answers wait behind messages.
            silent = silent + 1 if self._waiting and connection.heard == heard else 0
            heard = connection.heard
            if silent and connection.state is State.OPEN:
                with contextlib.suppress(ConnectionClosed, TimeoutError):
                    async with asyncio.timeout(self._silence / _TICKS):
                        await connection.ping()
        connection.transport.abort()


def _stream_of(headers: Headers | dict[str, Any]) -> tuple[str | None, int | None]:
    """Return identity and event number from the headers of an answer; None for what is not there."""
    number = headers.get(EVENT_NUMBER_HEADER, "")
    known = number.isascii() and number.isdigit()
    return headers.get(STREAM_HEADER), int(number) if known else None

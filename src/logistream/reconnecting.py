"""When to connect again, and what to say of a connection that failed.

What will pass (nothing listens, connection lost, server full) is tried again after a delay that grows, and
that only a *received message* resets: a server that accepts and closes at once must not be dialled hundreds
of times a second. What will not pass (bad request, bad token, not an event stream) ends it. No sockets here.
"""

from __future__ import annotations

import json
import random
import socket
import ssl

from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage, InvalidStatus

from logistream.errors import RequestError

__all__ = ["OPEN_TIMEOUT", "POLICY_VIOLATION", "Backoff", "close_code", "explain", "is_final"]

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

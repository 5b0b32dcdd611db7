"""How many connections a server has, and whether their peers take what was written for them."""

from __future__ import annotations

import contextlib
import logging
import socket
import struct
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncio import BaseTransport, Transport

__all__ = ["ConnectionLimit", "drop", "pending_bytes", "set_unsent_limit"]


logger = logging.getLogger(__name__)

_RESERVE = 96  # descriptors for files, threads, and connections that are refused at the same moment
_FEWEST = 8
_LOG_EVERY = 60.0  # seconds

_SENTENCE = b'{"detail":"the server has all the connections that it may have, try again later"}'
_REFUSAL = (
    b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 1\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(_SENTENCE), _SENTENCE)
)


class ConnectionLimit:
    """Refuses connections beyond a number, and reports that once a minute.

    Parameters
    ----------
    wanted : int
        How many connections the server may have. If the system allows this process fewer open files than
        that takes, the process raises its limit as far as it may; then `most` is what is possible.
    """

    def __init__(self, wanted: int) -> None:
        self.most = min(wanted, _room_for(wanted))
        self._refused, self._logged = 0, -_LOG_EVERY
        if self.most < wanted:
            logger.warning(
                "at most %d connections can be served, not %d, because the system allows this process few "
                "open files: raise that limit (ulimit -n)",
                self.most,
                wanted,
            )

    def refuse(self, transport: Transport) -> None:
        """Answer 503 to a connection that is one too many, and close it."""
        transport.write(_REFUSAL)
        transport.close()
        self._report(f"the server has {self.most}, which is its limit")

    def out_of_descriptors(self) -> None:
        """Note that the system has refused a connection."""
        self._report("this process may open no more files (ulimit -n)")

    def _report(self, reason: str) -> None:
        """Log refusals, but not more than once a minute."""
        self._refused += 1
        now = time.monotonic()
        if now - self._logged >= _LOG_EVERY:
            logger.warning("connections are refused (%d since the last report): %s", self._refused, reason)
            self._refused, self._logged = 0, now


def _room_for(wanted: int) -> int:
    """Return how many connections this process may have, after raising its limit if it has to."""
    if sys.platform == "win32":
        return wanted
    import resource

    used = _RESERVE + _open_files()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted + used:
        possible = wanted + used if hard == resource.RLIM_INFINITY else min(hard, wanted + used)
        with contextlib.suppress(ValueError, OSError):  # macOS names a limit that it does not allow
            resource.setrlimit(resource.RLIMIT_NOFILE, (possible, hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return max(_FEWEST, soft - used)
    return wanted


def _open_files() -> int:
    """Return how many files this process has open."""
    try:
        return len(list(Path("/dev/fd").iterdir()))
    except OSError:
        return 32


def pending_bytes(transport: BaseTransport) -> int:
    """Return how much was written that the peer has not confirmed, as far as the system reports that."""
    size: int = transport.get_write_buffer_size()  # type: ignore[attr-defined] # a transport that writes
    try:
        import fcntl
        import termios

        queued = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
        return size + int(struct.unpack("i", queued)[0])
    except (ImportError, OSError, ValueError, AttributeError):  # ValueError: it is closed
        return size


def drop(transport: Transport) -> None:
    """Break a connection, so that the system too forgets what it holds for the peer."""
    sock = transport.get_extra_info("socket")
    if sock is not None:
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


def set_unsent_limit(transport: BaseTransport, size: int) -> None:
    """Have the system take no more than so many bytes that it cannot send yet; nothing where it cannot."""
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    sock = transport.get_extra_info("socket")
    if option is not None and sock is not None and sock.family != getattr(socket, "AF_UNIX", None):
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, option, size)

"""Listening sockets: bound to an address, on a port that other servers of this process give up for it."""

from __future__ import annotations

import errno
import os
import socket
from typing import Protocol

from logistream.errors import PortInUseError, StreamError

__all__ = ["PortHolder", "holders", "listen"]

_BACKLOG = 2048  # connections that wait to be accepted
_SEND_BUFFER = 262_144  # bytes in the kernel for each reader: a slow one waits for events, not behind them


class PortHolder(Protocol):
    """What holds a port of this machine and can be told to leave it; `StreamServer` is one."""

    @property
    def port(self) -> int:
        """The port it listens on."""

    def stop(self) -> None:
        """Free the port."""


holders: set[PortHolder] = set()
"""The servers of this process that hold a port."""


def listen(host: str, port: int, *, shared: bool = False, accept: bool = True) -> socket.socket:
    """Return a socket on an address; a server of this process that holds the port gives way.

    Parameters
    ----------
    host : str
        Name or address.
    port : int
        0 takes a free one.
    shared : bool
        Whether other sockets on the same port, shared too, get a part of the connections.
    accept : bool
        Whether to listen; if not, the port is only held.

    Raises
    ------
    PortInUseError
        If another program holds the port.
    StreamError
        If the host cannot be listened on.
    """
    try:
        return _bind(host, port, shared, accept)
    except PortInUseError:
        ours = [server for server in holders if server.port == port]
        if not ours:
            raise
        for server in ours:
            server.stop()
        return _bind(host, port, shared, accept)


def _bind(host: str, port: int, shared: bool, accept: bool) -> socket.socket:
    try:
        # IPv4 first where a name means both: clients that try IPv6 before fall back to it.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
        listener = socket.socket(family, kind, protocol)
        try:
            if os.name == "posix":  # a port that was used a moment ago is free
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)  # accepted ones inherit it
            listener.bind(address)
            if accept:
                listener.listen(_BACKLOG)
        except BaseException:
            listener.close()
            raise
    except socket.gaierror as exc:
        raise StreamError(
            f"host {host!r} is not known: use 127.0.0.1, or an address of this machine"
        ) from exc
    except OSError as exc:
        if exc.errno == errno.EADDRINUSE:
            raise PortInUseError(host, port) from None
        raise StreamError(
            f"cannot listen on {host}:{port}: {os.strerror(exc.errno or 0)}; choose another host or port"
        ) from exc
    return listener

"""A stream as lines of JSON over TCP, for programs that read sockets: the command `logistream bridge`."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from typing import TYPE_CHECKING

from logistream.client.client import Messages
from logistream.client.ranges import find_place
from logistream.client.subscription import Subscription
from logistream.errors import PortInUseError, RequestError, StreamError

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Unpack

    from logistream.client.subscription import ReadOptions, Source

__all__ = ["run"]


_HOST = "127.0.0.1"  # plain TCP has no token, so other machines must not reach it
_WRITE_CHARACTERS = 1 << 16  # written at once, roughly


def run(
    source: Source,
    port: int,
    *,
    on_ready: Callable[[int], None],
    on_trouble: Callable[[str], None],
    faults: bool = True,
    **options: Unpack[ReadOptions],
) -> None:
    """Send what a stream delivers to every program that connects, until interrupted.

    Each reader gets the events from `start` on, by default those that happen from now on, one JSON object a
    line. It has a connection of its own to the server: a slow one does not delay others, and after a lost
    connection to the server each continues with its next delivery.

    Parameters
    ----------
    source : str or StreamServer
        Any address that `connect` takes.
    port : int
        Where to listen, on this machine only; 0 takes a free port.
    on_ready : callable
        Called with the port when readers can connect.
    on_trouble : callable
        Called with one sentence when the server cannot be reached.
    faults : bool, default=True
        As in `connect`.
    **options : ReadOptions
        As in `connect`.

    Raises
    ------
    RequestError
        For an address, a port or an option that is not possible.
    PortInUseError
        If another program listens on the port.
    StreamError
        If the server refuses for good, or the system does not allow the port.
    """
    if not 0 <= port <= 65_535:
        raise RequestError(f"port must be a whole number from 0 to 65535, not {port}")
    subscription = Subscription.of(source, **options)
    try:
        find_place(subscription, subscription.start or "latest")
    except StreamError as error:  # it may come later
        on_trouble(f"{error}; trying again when a reader connects")
    except RequestError as error:
        raise StreamError(str(error)) from error
    try:
        listening = socket.create_server((_HOST, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(_HOST, port) from None
        reason = os.strerror(error.errno or 0)
        raise StreamError(f"cannot listen on {_HOST}:{port}: {reason}; choose another port") from error
    on_ready(listening.getsockname()[1])
    try:
        asyncio.run(
            _listen(listening, lambda: Messages(source, faults=faults, on_trouble=on_trouble, **options))
        )
    except* RequestError as refused:
        raise StreamError(str(refused.exceptions[0])) from refused


async def _listen(listening: socket.socket, read: Callable[[], Messages]) -> None:
    async with asyncio.TaskGroup() as group:

        def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            group.create_task(_send(read(), writer))

        async with await asyncio.start_server(connected, sock=listening) as server:
            await server.serve_forever()


async def _send(messages: Messages, writer: asyncio.StreamWriter) -> None:
    """Write the events to one reader until it leaves, which shows when it is written to.

    The end of what it sends says nothing: `nc` sends that at once if its input is empty.
    """
    lines: list[str] = []
    size = 0
    try:
        async with messages:
            async for line in messages:
                lines.append(line)
                size += len(line)
                if messages.ahead and size < _WRITE_CHARACTERS:
                    continue
                writer.write(("\n".join(lines) + "\n").encode())
                lines.clear()
                size = 0
                await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()

"""Real servers on loopback that misbehave on request."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from websockets.http11 import Request, Response


class EventServer:
    """A WebSocket server that calls `handler` for each client and dies at the end of the block.

    It knows nothing of numbers and parameters, and ignores what is asked of it.

    Parameters
    ----------
    handler : callable
        Gets the connection; when it returns, the connection is closed politely.
    port : int
        0 takes a free one; the port of a server that has died brings it back.
    refuse : (status, text), optional
        Answer each handshake with this HTTP error.
    """

    def __init__(
        self,
        handler: Callable[[ServerConnection], None],
        port: int = 0,
        refuse: tuple[int, str] | None = None,
    ) -> None:
        self.handler, self.refuse, self.dials = handler, refuse, 0
        self.authorizations: list[str | None] = []
        self._connections: list[ServerConnection] = []
        self._server = serve(
            self._handle, "127.0.0.1", port, process_request=self._process_request, close_timeout=0.5
        )
        self.port: int = self._server.socket.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}/ws"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._connections:  # as when the process is killed: no close frame
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)
        self._server.shutdown()
        self._thread.join()

    def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        if urlsplit(request.path).path != "/ws":
            return connection.respond(404, "there is only /ws")
        self.dials += 1
        self.authorizations.append(request.headers.get("Authorization"))
        return connection.respond(*self.refuse) if self.refuse else None

    def _handle(self, connection: ServerConnection) -> None:
        self._connections.append(connection)
        with contextlib.suppress(ConnectionClosed):
            self.handler(connection)


def until_closed(connection: ServerConnection) -> None:
    """Wait until the other side is gone."""
    for _ in connection:
        pass


def sending(
    *texts: str | bytes, then: Callable[[ServerConnection], None] = until_closed
) -> Callable[..., None]:
    """Return a handler that sends messages and then does something else."""

    def handler(connection: ServerConnection) -> None:
        for text in texts:
            connection.send(text)
        then(connection)

    return handler


@contextlib.contextmanager
def answering(octets: bytes) -> Iterator[str]:
    """Answer whatever is sent with some octets and hang up; yield the address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer:
                peer.recv(4096)
                peer.sendall(octets)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}/ws"
    finally:
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Proxy:
    """Passes TCP connections on to a port that can be switched, and cuts them then; a context manager."""

    def __init__(self, target: int) -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}/ws"
        self._lock = threading.Lock()
        self._ends: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._threads[0].join()
        self.switch(0)
        for thread in self._threads:
            thread.join()

    def switch(self, target: int) -> None:
        """Pass new connections on to another port, and cut those there are."""
        with self._lock:
            self.target = target
            for end in self._ends:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            self._ends.clear()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                try:
                    far = socket.create_connection(("127.0.0.1", self.target), 5)
                except OSError:  # nothing listens there: hang up
                    near.close()
                    continue
                far.settimeout(None)
                self._ends += near, far
            for ends in ((near, far), (far, near)):
                self._threads.append(threading.Thread(target=self._pass_on, args=ends))
                self._threads[-1].start()

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while octets := source.recv(65_536):
                target.sendall(octets)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()

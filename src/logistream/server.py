"""`StreamServer`: the application on a thread of its own, in a notebook's kernel or a process.

The thread has its own event loop, so that a cell that waits does not stop the stream.
"""

from __future__ import annotations

import asyncio
import atexit
import errno
import html
import os
import secrets
import socket
import threading
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from logistream.access import is_loopback
from logistream.app import create_app
from logistream.errors import PortInUseError, RequestError, StreamError
from logistream.model import load_model
from logistream.stream import Stream

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from uvicorn._types import ASGISendEvent

    from logistream.model import Model
    from logistream.timeline import Timeline

__all__ = ["StreamServer"]

_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised, not bound
_LARGEST_MESSAGE = 65_536  # bytes; readers have nothing to say
_SEND_BUFFER = 262_144  # bytes in the kernel for each reader: a slow one waits for events, not behind them
_PONG_WITHIN = 60  # seconds; what is gone for good without a word is given up after that
_GOODBYE = 0.5  # seconds for readers to take what was sent and leave
_GIVE_UP = 10  # seconds for everything else that ends with the server

_running: set[StreamServer] = set()
"""The servers of this process that hold a port."""


class StreamServer:
    """Serve a live stream over HTTP and WebSocket from a background thread.

    Parameters
    ----------
    model : Model or None
        What the events are drawn from; None for the shipped model of DataCo orders.
    rate : float
        Events per second at the start, from 0.001 to 1,000,000.
    seed : int
        Which of the model's streams.
    host : str
        Address or name to listen on. Anything but this machine itself demands a token.
    port : int
        0 takes a free one.
    allow_origins : iterable of str
        Origins of browser pages that may use the server, besides its own and those served by this machine:
        `https://example.org`, `null` for pages opened from a file, `*` for all.
    token : str or None
        Demanded of every caller; None makes one if the host is not this machine itself.

    Raises
    ------
    RequestError
        For a value that is not allowed.

    Examples
    --------
    >>> with StreamServer(rate=50, port=0) as server:
    ...     server.rate = 200
    ...     server.state["rate"]
    200.0
    """

    def __init__(
        self,
        model: Model | None = None,
        *,
        rate: float = 2.0,
        seed: int = 0,
        host: str = "127.0.0.1",
        port: int = 8000,
        allow_origins: Iterable[str] = (),
        token: str | None = None,
    ) -> None:
        if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65_535:
            raise RequestError(f"port must be a whole number from 0 to 65535, not {port!r}")
        self.host = host
        self.token = secrets.token_urlsafe(24) if token is None and not is_loopback(host) else token
        self._asked_port = port
        self._allow_origins = tuple(allow_origins)
        self._stream = Stream(model or load_model(), seed=seed, rate=rate)
        self._app = create_app(self._stream, allow_origins=self._allow_origins, token=self.token)
        self._lock = threading.RLock()  # start and stop come from any thread
        self._port: int | None = None
        self._server: _Uvicorn | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> Self:
        """Listen, begin the stream now with event 0, and return this server.

        A server of this same process that holds the port is stopped first, so that a notebook cell can be
        run again. Starting a running server does nothing.

        Raises
        ------
        PortInUseError
            If another program holds the port.
        StreamError
            If the host cannot be listened on.
        """
        with self._lock:
            if self.running:
                return self
            listener = _listen(self.host, self._asked_port)
            self._stream = self._stream.restarted()
            self._app = create_app(self._stream, allow_origins=self._allow_origins, token=self.token)
            self._port = int(listener.getsockname()[1])
            self._server = _Uvicorn(_config(self._app))
            self._thread = threading.Thread(
                target=self._server.run, args=([listener],), name=f"logistream-{self._port}", daemon=True
            )
            self._thread.start()
            self._server.serving.wait()
            _running.add(self)
            if not self._server.started:
                self.stop()
                raise StreamError(
                    f"the server on {self.host}:{self._asked_port} could not start: see the log"
                )
            return self

    def stop(self) -> None:
        """Say goodbye to all readers and free thread and port; a server that does not run stays as it is."""
        with self._lock:
            if self._server is not None and self._thread is not None:
                self._server.should_exit = True
                self._thread.join()
            self._server = self._thread = None
            _running.discard(self)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether it listens."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def port(self) -> int:
        """The port it listens on; before the start, the one that was asked for."""
        return self._asked_port if self._port is None else self._port

    @property
    def url(self) -> str:
        """Where to reach it from this machine, with the token if there is one."""
        return self._url("http", "")

    @property
    def websocket_url(self) -> str:
        """Where to read the events from this machine, with the token if there is one."""
        return self._url("ws", "/ws")

    @property
    def docs_url(self) -> str:
        """Where a browser shows the interface (Swagger UI)."""
        return self._url("http", "/docs", token=False)

    @property
    def rate(self) -> float:
        """Events per second; set it at any time, from any thread."""
        return self._stream.rate

    @rate.setter
    def rate(self, rate: float) -> None:
        self._stream.change(rate=rate)

    @property
    def paused(self) -> bool:
        """Whether the stream stands still; set it at any time, from any thread."""
        return self._stream.paused

    @paused.setter
    def paused(self, paused: bool) -> None:
        self._stream.change(paused=paused)

    @property
    def scenario(self) -> str | None:
        """Name of the what-if change in force; None for none."""
        return self._stream.scenario

    @scenario.setter
    def scenario(self, scenario: str | None) -> None:
        self._stream.change(scenario=scenario)

    @property
    def timeline(self) -> Timeline:
        """When the events of this stream happen, and at which rates."""
        return self._stream.timeline

    @property
    def model(self) -> Model:
        """What the events are drawn from."""
        return self._stream.model

    @property
    def connected_clients(self) -> int:
        """Readers of the WebSocket at this moment."""
        return len(self._app.state.readers.wakes) if self.running else 0

    @property
    def state(self) -> dict[str, Any]:
        """Status (running, paused or stopped), connected clients, and what `GET /stream` tells."""
        status = "stopped" if not self.running else "paused" if self.paused else "running"
        return {"status": status, "connected_clients": self.connected_clients, **self._stream.state}

    def __repr__(self) -> str:
        status = "running" if self.running else "stopped"
        return f"<StreamServer {status} on {self._url('http', '', token=False)}: {self.rate:g} events/s>"

    def _repr_html_(self) -> str:
        # A token has no place here: outputs are saved and shared with the notebook.
        state = self.state
        events, docs = self._url("ws", "/ws", token=False), self._url("http", "/docs", token=False)
        return (
            f"<div><b>StreamServer</b> {state['status']}: {state['rate']:g} events/s of "
            f"{html.escape(self.model.name)}, {state['connected_clients']} readers of "
            f"<code>{html.escape(events)}</code> · <a href='{html.escape(docs)}'>docs</a></div>"
        )

    def _url(self, scheme: str, path: str, *, token: bool = True) -> str:
        host = _WILDCARDS.get(self.host, self.host)
        query = f"?token={quote(self.token)}" if token and self.token is not None else ""
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}{path}{query}"


class _Uvicorn(uvicorn.Server):
    """A uvicorn server that tells when it serves, or that it never will."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.serving = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.serving.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # A reader that does not read would hold its connection, and with it the shutdown, for ever.
        timer = asyncio.get_running_loop().call_later(_GOODBYE, self._drop_connections)
        await super().shutdown(sockets)
        timer.cancel()

    def _drop_connections(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            # asyncio.run may have been replaced (nest-asyncio does, in a kernel); a runner is left alone.
            with asyncio.Runner(loop_factory=self.config.get_loop_factory()) as runner:
                runner.run(self.serve(sockets))
        finally:
            self.serving.set()


class _WebSocketProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, which takes a handshake answered with an HTTP error for a mistake."""

    async def send(self, message: ASGISendEvent) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and self.close_sent:
            self.handshake_complete = True  # else it logs an error for every refusal


def _config(app: Any) -> uvicorn.Config:  # noqa: ANN401 - any ASGI application
    return uvicorn.Config(
        app,
        loop="auto",  # uvloop where it is installed
        ws=_WebSocketProtocol,
        ws_max_size=_LARGEST_MESSAGE,
        ws_ping_timeout=_PONG_WITHIN,
        ws_per_message_deflate=False,  # a text is made once for all; compressing would be done for each
        log_config=None,  # a kernel's log is the user's notebook: only what goes wrong belongs there
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=_GIVE_UP,
    )


def _listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; a server of this process that holds the port gives way."""
    try:
        return _bind(host, port)
    except PortInUseError:
        ours = [server for server in _running if server.port == port]
        if not ours:
            raise
        for server in ours:
            server.stop()
        return _bind(host, port)


def _bind(host: str, port: int) -> socket.socket:
    try:
        # IPv4 first where a name means both: clients that try IPv6 before fall back to it.
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
        listener = socket.create_server(address[:2], family=family, backlog=2048)
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
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)  # accepted sockets inherit it
    return listener


@atexit.register
def _stop_all() -> None:
    """Free what is held when the process ends, so that readers get a proper goodbye."""
    for server in list(_running):
        server.stop()

"""`StreamServer`: the application on a thread of its own, in a notebook's kernel or a process.

The thread has its own event loop, so that a cell that waits does not stop the stream. A server that takes a
port stops another server of this process that holds it, so that a cell can be run again.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import errno
import html
import os
import re
import secrets
import socket
import sys
import threading
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

import uvicorn

from logistream.errors import PortInUseError, RequestError, StreamError
from logistream.model.model import Model, load_model
from logistream.model.sampling import require_range
from logistream.server.app import create_app
from logistream.server.connections import ConnectionLimit
from logistream.server.limits import Limits
from logistream.server.logs import log_access_to_stderr
from logistream.server.metrics import Gauges
from logistream.server.protocol import FrameProtocol, RequestProtocol
from logistream.server.unix_socket import UnixSocket
from logistream.stream.arrivals import Arrivals
from logistream.stream.stream import Stream
from logistream.stream.timeline import Timeline, first_entry
from logistream.stream.timeline_file import open_timeline_file
from logistream.times import parse_duration, parse_instant, rfc3339, wall_clock
from logistream.urls import is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import date, timedelta
    from pathlib import Path
    from types import TracebackType

    import pandas as pd
    from fastapi import FastAPI

    from logistream.model.scenario import Scenario, Scenarios
    from logistream.stream.faults import Fault, Faults
    from logistream.stream.timeline import Entry

__all__ = ["StreamServer", "listen"]


_BACKLOG = 2048  # connections that wait to be accepted
_ACCEPTED_AT_ONCE = 16  # so that those beyond the limit are refused before there are too many
_SEND_BUFFER = 262_144  # bytes in the kernel for each reader; more would only add to its delay


_running: set[StreamServer] = set()
"""The servers of this process that hold a port."""


def listen(host: str, port: int, *, shared: bool = False, accept: bool = True) -> socket.socket:
    """Return a socket on an address; a server of this process that holds the port is stopped.

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
        ours = [server for server in _running if server.unix_socket is None and server.port == port]
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
            if os.name == "posix":  # a port that was used just before is free
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


_NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised, not bound
_PING_EVERY = 20  # seconds; the heartbeat of a connection on which nothing happens
_PONG_WITHIN = 60  # seconds; a peer that vanished without closing is dropped after that
_CLOSE_WITHIN = 0.5  # seconds for readers to take what was sent and leave
_GIVE_UP = 10  # seconds for everything else that ends with the server

_SWITCH_INTERVAL = 0.0005
"""Seconds after which a thread that computes in Python lets another one in, while a server runs.

Each of the many calls into NumPy and Arrow that make a block of events gives up the interpreter and has to
get it back. With Python's usual 5 ms, a cell that loops in pure Python delayed the stream by many seconds.
"""

_usual_interval = sys.getswitchinterval()


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
        Address or name to listen on. Anything but this machine itself requires a token.
    port : int
        0 takes a free one.
    timeline : path or None
        A file that keeps when events happen. A server that is started with it again continues as if it had
        never stopped, and servers that share it serve the same stream. None keeps it in memory.
    history : str, timedelta or None
        How long before the server starts event 0 happened, such as `5min`, so that readers find a past. A
        timeline file that is there already has its own.
    start : str, date, datetime or None
        When event 0 happened, instead of `history`: a date such as `2020-01-01` or a time, from 1970 until
        now, in UTC unless it names a time zone. Times and numbers are exact however long ago that is.
    arrivals : str
        How events are spread over time: `even`, `poisson` (at random) or `bursts`, all at the same rate.
    allow_origins : iterable of str
        Origins of browser pages that may use the server, besides its own and those served by this machine:
        `https://example.org`, `null` for pages opened from a file, `*` for all.
    token : str or None
        Required of every caller; None makes one if the host is not this machine itself.
    limits : Limits or None
        How much callers may request; None for the default limits.
    access_log : bool
        Whether every request is written to stderr, one JSON object a line.
    read_only : bool
        Whether `PATCH /stream` is refused.
    root_path : str
        Path under which a proxy shows the server, such as `/orders`; it takes the path away from requests.
    unix_socket : path or None
        Listen on a Unix socket, a file that only its owner may use, in place of host and port. What a proxy
        there forwards of its caller (`X-Forwarded-Proto`) is believed.

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

    # What is not listed cannot be set: a misspelled setting is an error.
    __slots__ = (
        "__weakref__",
        "_allow_origins",
        "_arrivals",
        "_begin",
        "_file",
        "_gauges",
        "_history",
        "_limits",
        "_lock",
        "_port",
        "_read_only",
        "_requested_port",
        "_root_path",
        "_server",
        "_shared",
        "_stream",
        "_thread",
        "_unix_socket",
        "host",
        "token",
    )

    def __init__(
        self,
        model: Model | None = None,
        *,
        rate: float = 2.0,
        seed: int = 0,
        host: str = "127.0.0.1",
        port: int = 8000,
        timeline: str | os.PathLike[str] | None = None,
        history: str | timedelta | None = None,
        start: str | date | None = None,
        arrivals: str = "even",
        allow_origins: Iterable[str] = (),
        token: str | None = None,
        limits: Limits | None = None,
        access_log: bool = False,
        read_only: bool = False,
        root_path: str = "",
        unix_socket: str | os.PathLike[str] | None = None,
    ) -> None:
        if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65_535:
            raise RequestError(f"port must be a whole number from 0 to 65535, not {port!r}")
        self.host = host
        self.token = secrets.token_urlsafe(24) if token is None and not is_loopback(host) else token
        self._requested_port = port
        self._file = None if timeline is None else os.fspath(timeline)
        if history is not None and start is not None:
            raise RequestError("history and start both say when event 0 happened: give one of them")
        self._history = _micros(history)
        self._begin = None if start is None else _instant(start)
        self._arrivals = Arrivals(arrivals, seed)  # type: ignore[arg-type] # checks it
        self._allow_origins = tuple(allow_origins)
        self._limits = limits or Limits()
        self._read_only = read_only
        if root_path and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+", root_path):
            raise RequestError(f"root_path must be a path such as /orders, not {root_path!r}")
        self._root_path = root_path
        self._unix_socket = None if unix_socket is None else UnixSocket(unix_socket)
        self._shared: Gauges | None = None  # of processes that serve on one port
        if access_log:
            log_access_to_stderr()
        self._gauges = Gauges()
        entry = first_entry(wall_clock(), rate=rate, history=self._history, start=self._begin)
        self._stream = Stream(_fitted(model), Timeline([entry], self._arrivals), seed=seed)
        self._new_app()  # raises for settings that are not allowed
        self._lock = threading.RLock()  # start and stop come from any thread
        self._port: int | None = None
        self._server: _Uvicorn | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> Self:
        """Listen, begin the stream, and return this server.

        Event 0 happens now, unless `history`, `start` or a timeline file says otherwise. What was set before
        (rate, pause, scenarios, faults) holds from event 0 on.

        A server of this same process that holds the port is stopped first, so that a notebook cell can be
        run again. Starting a running server does nothing.

        Raises
        ------
        PortInUseError
            If another program holds the port.
        StreamError
            If the host cannot be listened on, or the timeline file cannot be opened.
        DataError
            If the timeline file is damaged, or is not a timeline.
        RequestError
            If the timeline file belongs to another stream.
        """
        with self._lock:
            if self.running:
                return self
            listener = self._listen()
            try:
                self._stream = self._new_stream()
            except BaseException:
                listener.close()
                if self._unix_socket is not None:
                    self._unix_socket.remove()
                raise
            self._gauges = self._shared or Gauges()
            app = self._new_app()
            if self._unix_socket is None:
                self._port = int(listener.getsockname()[1])
            limit = ConnectionLimit(self._limits.all_connections)
            # Who may open the file is trusted: a peer has no address there.
            proxies = None if self._unix_socket is None else "*"
            self._server = _Uvicorn(_config(app, self._limits, limit, proxies), limit)
            name = f"logistream-{self._port or 'unix-socket'}"
            self._thread = threading.Thread(
                target=self._server.run, args=([listener],), name=name, daemon=True
            )
            self._thread.start()
            self._server.serving.wait()
            _running.add(self)
            _share_interpreter()
            if not self._server.started:
                self.stop()
                raise StreamError(f"the server on {self._place} could not start: see the log")
            return self

    def _listen(self) -> socket.socket:
        """Return a socket on the file or the port; a server of this process that has it is stopped."""
        if self._unix_socket is None:
            return listen(self.host, self._requested_port, shared=self._shared is not None)
        for server in list(_running):
            if server.unix_socket == self.unix_socket:
                server.stop()
        return self._unix_socket.listen(_BACKLOG)

    def stop(self) -> None:
        """Close all connections and free thread and port; a server that does not run stays as it is."""
        with self._lock:
            if self._server is not None and self._thread is not None:
                self._server.ask_to_exit()
                self._thread.join()
                self._stream.timeline.close()
                if self._unix_socket is not None:
                    self._unix_socket.remove()
            self._server = self._thread = None
            _running.discard(self)
            _share_interpreter()

    def _new_app(self) -> FastAPI:
        return create_app(
            self._stream,
            allow_origins=self._allow_origins,
            token=self.token,
            limits=self._limits,
            gauges=self._gauges,
            read_only=self._read_only,
            root_path=self._root_path,
        )

    def _new_stream(self) -> Stream:
        """Return a stream that begins now, or continues the timeline file."""
        before = self._stream

        def entry(now: int) -> Entry:
            begun = first_entry(now, history=self._history, start=self._begin)
            return replace(before.timeline.last, first=begun.first, since=begun.since, start=begun.start)

        timeline: Timeline
        if self._file is None:
            timeline = Timeline([entry(wall_clock())], self._arrivals)
        else:
            header: dict[str, str | int] = {
                "model": self.model.checksum,
                "model_name": self.model.name,
                "seed": before.seed,
                "arrivals": self._arrivals.kind,
            }
            timeline = open_timeline_file(self._file, header=header, first_entry=entry)
        return Stream(self.model, timeline, seed=before.seed)

    def sharing(self, gauges: Gauges) -> Self:
        """Have it start as one of several processes on one port, which count together; return it."""
        self._shared = gauges
        return self

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
        """The port it listens on; before the start, the one that was requested."""
        return self._requested_port if self._port is None else self._port

    @property
    def unix_socket(self) -> Path | None:
        """The Unix socket that it listens on, in place of host and port."""
        return None if self._unix_socket is None else self._unix_socket.path

    @property
    def _place(self) -> str:
        return f"{self.host}:{self._requested_port}" if self.unix_socket is None else str(self.unix_socket)

    @property
    def url(self) -> str:
        """Where to reach it from this machine, with the token if there is one.

        With a Unix socket, the address to request over it: its host and port mean nothing.
        """
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
    def scenario(self) -> tuple[Scenario, ...]:
        """The scenarios in force; set one, or a list of them, at any time, and None to end them.

        A scenario begins with the next event, from which its profile counts.
        """
        return self._stream.scenarios

    @scenario.setter
    def scenario(self, scenario: Scenarios | None) -> None:
        self._stream.change(scenarios=() if scenario is None else scenario)

    @property
    def faults(self) -> tuple[Fault, ...]:
        """The faults of the wire in force; set one, or a list of them, at any time, and None to end them.

        They act on the events from the next one on. What they have held back is still delivered.
        """
        return self._stream.faults

    @faults.setter
    def faults(self, faults: Faults | None) -> None:
        self._stream.change(faults=() if faults is None else faults)

    @property
    def known_scenarios(self) -> tuple[tuple[Scenario, str], ...]:
        """The named scenarios that can be set for this model, each with a sentence what it does."""
        return self._stream.known_scenarios

    def truth(self, start: int, stop: int) -> pd.DataFrame:
        """Return what is true of events `start` to `stop` (exclusive) of the past; see `Model.truth`.

        Raises
        ------
        NotYetError
            If the range has not happened yet.
        RequestError
            If these are no event numbers in order, or are before the stream, or if the probability of a late
            delivery cannot be exact.
        """
        require_range(start, stop)
        return self._stream.truth(self._stream.resolve(start), self._stream.resolve_stop(stop))

    @property
    def seed(self) -> int:
        """Which of the model's streams; set when the server is made."""
        return self._stream.seed

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
        """How many readers the WebSocket and `GET /sse` have now."""
        return self._gauges.total("clients") if self.running else 0

    @property
    def state(self) -> dict[str, Any]:
        """Status (that of `GET /`, or stopped), connected clients, and what `GET /stream` returns."""
        status = self._stream.status if self.running else "stopped"
        return {"status": status, "connected_clients": self.connected_clients, **self._stream.state}

    def __repr__(self) -> str:
        status = "running" if self.running else "stopped"
        place = self.unix_socket or self._url("http", "", token=False)
        return f"<StreamServer {status} on {place}: {self.rate:g} events/s>"

    def _repr_html_(self) -> str:
        # A token has no place here: outputs are saved and shared with the notebook.
        state, running = self.state, self.running
        status = f"at {rfc3339(wall_clock())[:19]}Z: <b>{state['status']}</b>"
        stream = f"{state['rate']:,g} events/s of {html.escape(self.model.name)}, seed {self.seed}"
        if not running:
            return f"<div><b>StreamServer</b> {status}; {stream}</div>"
        clients = state["connected_clients"]
        events, docs = self._url("ws", "/ws", token=False), self._url("http", "/docs", token=False)
        return (
            f"<div><b>StreamServer</b> {status}, next event {state['next_event_number']:,}, "
            f"{clients} reader{'' if clients == 1 else 's'}; {stream}<br>"
            f"<code>{html.escape(events)}</code> · <a href='{html.escape(docs)}'>docs</a></div>"
        )

    def _url(self, scheme: str, path: str, *, token: bool = True) -> str:
        host = _WILDCARDS.get(self.host, self.host)
        query = f"?token={quote(self.token)}" if token and self.token is not None else ""
        if self.unix_socket is not None:
            return f"{scheme}://localhost{path}{query}"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}{path}{query}"


class _Uvicorn(uvicorn.Server):
    """A uvicorn server that sets `serving` when it serves, or when it never will."""

    def __init__(self, config: uvicorn.Config, limit: ConnectionLimit) -> None:
        super().__init__(config)
        self._limit = limit
        self.serving = threading.Event()
        self._exit_requested = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None

    def ask_to_exit(self) -> None:
        """Have it end; from any thread."""
        self.should_exit = True
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._exit_requested.set)

    async def main_loop(self) -> None:
        """Tick once a second, which keeps the date of the answers, until an exit is requested."""
        self._loop = asyncio.get_running_loop()
        ticks = 10  # of uvicorn, to the second
        while not await self.on_tick(ticks):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1):
                    await self._exit_requested.wait()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        asyncio.get_running_loop().set_exception_handler(self._on_loop_error)
        await super().startup(sockets)
        for listener in sockets or []:
            listener.listen(_BACKLOG)  # asyncio takes one number for this and for what is accepted at once
        self.serving.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # A reader that does not read would keep its connection open, and block the shutdown.
        timer = asyncio.get_running_loop().call_later(_CLOSE_WITHIN, self._drop_connections)
        await super().shutdown(sockets)
        timer.cancel()

    def _on_loop_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Report an error of the loop; asyncio would log thousands of lines where no file can be opened."""
        error = context.get("exception")
        if isinstance(error, OSError) and error.errno in _NO_DESCRIPTORS:
            self._limit.out_of_descriptors()
        elif not (isinstance(error, OSError) and error.errno == errno.ENOTCONN):
            # That one says that a reader was gone when its connection was half closed.
            loop.default_exception_handler(context)

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


def _config(
    app: Any,  # noqa: ANN401 - any ASGI application
    limits: Limits,
    limit: ConnectionLimit,
    proxies: str | None,
) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        loop="asyncio",  # uvloop was measured slower here: it holds every write back until its next round
        ws=FrameProtocol,
        http=partial(RequestProtocol, limit=limit),  # type: ignore[arg-type] # uvicorn only calls it
        backlog=_ACCEPTED_AT_ONCE,
        ws_max_size=limits.message,
        ws_ping_interval=_PING_EVERY,
        ws_ping_timeout=_PONG_WITHIN,
        ws_per_message_deflate=False,  # bytes are made once for all; they would be compressed for each
        log_config=None,  # a kernel's log is the user's notebook: only what goes wrong belongs there
        log_level="error",  # bad requests are answered and not logged
        access_log=False,
        timeout_graceful_shutdown=_GIVE_UP,
        forwarded_allow_ips=proxies,  # None: the environment names them, else those of this machine
    )


def _fitted(model: object) -> Model:
    """Return the model that was given, or the shipped one; refuse a path or a table in its place."""
    if model is None:
        return load_model()
    if isinstance(model, Model):
        return model
    kind = type(model).__name__
    raise RequestError(f"model must be what load_model(path) or fit(table) returns, not a {kind}")


def _micros(history: str | timedelta | None) -> int:
    """Return a length of time in microseconds."""
    if history is None:
        return 0
    try:
        return parse_duration(history)
    except ValueError:
        raise RequestError(f"history must be a length of time such as 5min or 2h, not {history!r}") from None


def _instant(start: str | date) -> int:
    """Return a time in microseconds since the Unix epoch."""
    try:
        return parse_instant(start)
    except (ValueError, OverflowError):
        raise RequestError(
            f"start must be a date or a time such as 2020-01-01 or 2020-01-01T06:23:00Z, not {start!r}"
        ) from None


def _share_interpreter() -> None:
    """Have threads take turns more often as long as a server runs here."""
    sys.setswitchinterval(min(_SWITCH_INTERVAL, _usual_interval) if _running else _usual_interval)


@atexit.register
def _stop_all() -> None:
    """Stop all servers when the process ends, so that their readers get a close frame."""
    for server in list(_running):
        server.stop()

"""Several processes behind one port, all on one timeline: they serve the same stream, each to its readers.

They need not talk to each other. What one changes stands in the timeline file, from which the others take it;
what they count lies in memory that they share.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from multiprocessing.connection import wait
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logistream.errors import LogistreamError, RequestError, StreamError
from logistream.server.logs import log_as_json
from logistream.server.metrics import Gauges
from logistream.server.server import StreamServer, listen

if TYPE_CHECKING:
    from ctypes import Array, c_char
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from logistream.model.scenario import Scenarios
    from logistream.stream.faults import Faults

__all__ = ["Workers"]


logger = logging.getLogger(__name__)

_MOST = 64
_STARTS_WITHIN = 30.0  # seconds
_STOPS_WITHIN = 15.0
_LIVES_AT_LEAST = 2.0  # seconds
_MOST_EARLY_DEATHS = 3  # in a row; after that, starting another would not help


class Workers:
    """Serve a stream from several processes; a context manager.

    Parameters
    ----------
    count : int
        How many processes, from 1 to 64. One that dies is replaced.
    model : path or None
        A fitted model; None for the shipped one.
    json_logs : bool
        Whether they log as JSON; see `log_as_json`.
    **settings
        What `StreamServer` takes, but the model.

    Raises
    ------
    RequestError
        For a number of processes that is not allowed, a Unix socket, or a system that cannot share a port.
    """

    def __init__(
        self,
        count: int,
        model: str | None = None,
        *,
        json_logs: bool = False,
        **settings: Any,  # noqa: ANN401 - as StreamServer has them
    ) -> None:
        if not 1 <= count <= _MOST:
            raise RequestError(f"the number of workers must be from 1 to {_MOST}, not {count}")
        if not hasattr(socket, "SO_REUSEPORT"):
            raise RequestError("this system cannot share a port between processes: leave out --workers")
        if settings.get("unix_socket") is not None:
            raise RequestError(
                "workers share a port, not a Unix socket: leave out --workers or --unix-socket"
            )
        self.count, self._json_logs = count, json_logs
        self._model, self._settings = model, settings
        self._stack = ExitStack()
        self._context = multiprocessing.get_context("spawn")
        self._server: StreamServer | None = None  # has their settings, and is not started
        self._folder: str | None = None  # for a timeline of their own
        self._processes: list[SpawnProcess] = []
        self._pipes: list[Connection] = []  # to each; a worker notices by the end of it that we are gone
        self._started: list[float] = []
        self._early_deaths = [0] * count

    def __enter__(self) -> StreamServer:
        """Start them; return a server with their addresses, which is not started itself."""
        try:
            return self._open()
        except OSError as error:
            if isinstance(error, LogistreamError):
                raise
            raise StreamError(
                f"workers need a temporary folder and shared memory, and the system allows none: {error}; "
                f"set TMPDIR to a folder that can be written, or leave out --workers"
            ) from error

    def _open(self) -> StreamServer:
        with ExitStack() as stack:
            if self._settings.get("timeline") is None:
                self._folder = str(Path(tempfile.gettempdir()) / f"logistream-{secrets.token_hex(8)}")
                self._settings["timeline"] = str(Path(self._folder) / "timeline")
            from logistream.model.model import load_model

            server = StreamServer(load_model(self._model), **self._settings)
            # Bound but not listening: it holds the port while a worker is replaced.
            listen(server.host, server.port).close()
            holder = stack.enter_context(listen(server.host, server.port, shared=True, accept=False))
            self._settings |= {"port": holder.getsockname()[1], "token": server.token}
            self._counts = RawArray("b", Gauges.size(self.count))
            stack.callback(self._stop)
            for row in range(self.count):
                process, pipe = self._start(row)
                self._processes.append(process)
                self._pipes.append(pipe)
            self._started = [time.monotonic()] * self.count
            if self._folder is not None:  # only now is there always a process that removes it
                Path(self._folder).mkdir(mode=0o700)
            for pipe in self._pipes:
                _send(pipe, b"begin")
            self._await_ready()
            self._stack = stack.pop_all()
        self._server = StreamServer(server.model, **self._settings)
        return self._server

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def change(self, *, scenario: Scenarios | None = None, faults: Faults | None = None) -> None:
        """Set scenarios or faults in the timeline that the workers share; only after they have started.

        Raises
        ------
        RequestError
            For scenarios or faults that are not allowed.
        StreamError
            If the timeline cannot be written.
        """
        if scenario is None and faults is None:
            return
        assert self._server is not None  # noqa: S101 - they have started
        stream = self._server._new_stream()  # noqa: SLF001 - opens the timeline, as each of them does
        try:
            stream.change(scenarios=scenario, faults=faults)
        finally:
            stream.timeline.close()

    def watch(self, stop: threading.Event) -> None:
        """Replace workers that die, until `stop` is set.

        Raises
        ------
        StreamError
            If one dies at once again and again.
        """
        while not stop.is_set():
            wait([process.sentinel for process in self._processes], timeout=0.2)
            for row, process in enumerate(self._processes):
                if process.exitcode is None or stop.is_set():
                    continue
                early = time.monotonic() - self._started[row] < _LIVES_AT_LEAST
                self._early_deaths[row] = self._early_deaths[row] + 1 if early else 0
                logger.warning("worker %d (process %d) %s", row, process.pid, _ended(process.exitcode))
                if self._early_deaths[row] > _MOST_EARLY_DEATHS:
                    raise StreamError(f"worker {row} ends right after its start: see the log above")
                Gauges(self._counts, row)  # the readers of a process that has died are gone
                self._started[row] = time.monotonic()
                self._pipes[row].close()
                self._processes[row], self._pipes[row] = self._start(row)
                _send(self._pipes[row], b"begin")

    def _start(self, row: int) -> tuple[SpawnProcess, Connection]:
        pipe, theirs = self._context.Pipe()
        process = self._context.Process(
            target=_work,
            args=(self._model, self._settings, self._counts, row, theirs, self._folder, self._json_logs),
            name=f"logistream-worker-{row}",
        )
        process.start()
        theirs.close()
        return process, pipe

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _STARTS_WITHIN
        for row, (process, pipe) in enumerate(zip(self._processes, self._pipes, strict=True)):
            if not pipe.poll(max(0.0, deadline - time.monotonic())):
                raise StreamError(f"worker {row} has not started within {_STARTS_WITHIN:.0f} s")
            try:
                pipe.recv_bytes()
            except (EOFError, OSError):
                process.join()
                raise StreamError(f"worker {row} {_ended(process.exitcode)}: see the log above") from None

    def _stop(self) -> None:
        for process in self._processes:
            process.terminate()
        deadline = time.monotonic() + _STOPS_WITHIN
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        for pipe in self._pipes:
            pipe.close()
        _remove(self._folder)


def _remove(folder: str | None) -> None:
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _send(pipe: Connection, message: bytes) -> None:
    """Send a message, unless the other process is gone, which is noticed elsewhere."""
    with suppress(OSError):
        pipe.send_bytes(message)


def _ended(code: int | None) -> str:
    """Return how a process ended, as the end of a sentence."""
    if code is not None and code < 0:
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
    return f"ended with code {code}"


def _work(
    model: str | None,
    settings: dict[str, Any],
    counts: Array[c_char],
    row: int,
    pipe: Connection,
    folder: str | None,
    json_logs: bool,
) -> None:
    """Serve until terminated, or until the parent is gone; then remove what it would have removed."""
    if json_logs:
        log_as_json()
    stop, orphaned, begun = threading.Event(), threading.Event(), threading.Event()

    def end(*_: object) -> None:
        stop.set()
        begun.set()

    signal.signal(signal.SIGTERM, end)
    for sent in ("SIGINT", "SIGHUP"):  # they reach the parent too, which terminates us
        if hasattr(signal, sent):
            signal.signal(getattr(signal, sent), signal.SIG_IGN)

    def watch_parent() -> None:
        with suppress(EOFError, OSError):
            while True:
                pipe.recv_bytes()
                begun.set()
        orphaned.set()
        end()
        time.sleep(_STOPS_WITHIN)  # the main thread ends the process before that, unless it hangs
        _remove(folder)
        os._exit(1)

    threading.Thread(target=watch_parent, name="logistream-parent", daemon=True).start()
    try:
        _serve(model, settings, Gauges(counts, row), pipe, stop, begun)
    except LogistreamError as error:
        if not orphaned.wait(1.0):  # else the others have removed the folder
            logger.error("worker %d cannot serve: %s", row, error)  # noqa: TRY400 - a sentence is enough
            sys.exit(1)
    finally:
        if orphaned.is_set():
            _remove(folder)


def _serve(
    model: str | None,
    settings: dict[str, Any],
    gauges: Gauges,
    pipe: Connection,
    stop: threading.Event,
    begun: threading.Event,
) -> None:
    from logistream.model.model import load_model

    server = StreamServer(load_model(model), **settings)
    begun.wait()
    if stop.is_set():
        return
    with server.sharing(gauges):
        _send(pipe, b"ready")
        while not stop.wait(0.5) and server.running:
            pass

"""Several processes behind one port, all on one timeline: they serve the same stream, each to its readers.

They need not talk to each other. What one changes stands in the timeline file, from which the others take it;
what they count lies in memory that they share.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import tempfile
import threading
import time
from contextlib import ExitStack
from multiprocessing.connection import wait
from multiprocessing.sharedctypes import RawArray
from pathlib import Path
from typing import TYPE_CHECKING, Any

from logistream.errors import RequestError, StreamError
from logistream.server.metrics import Gauges
from logistream.server.server import StreamServer, listen

if TYPE_CHECKING:
    from ctypes import Array, c_char
    from multiprocessing.context import SpawnProcess
    from multiprocessing.synchronize import Event

__all__ = ["Workers"]


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
    **settings
        What `StreamServer` takes, but the model.

    Raises
    ------
    RequestError
        For a number of processes that is not allowed, or where the system cannot share a port.
    """

    def __init__(self, count: int, model: str | None = None, **settings: Any) -> None:  # noqa: ANN401 - as StreamServer has them
        if not 1 <= count <= _MOST:
            raise RequestError(f"the number of workers must be from 1 to {_MOST}, not {count}")
        if not hasattr(socket, "SO_REUSEPORT"):
            raise RequestError("this system cannot share a port between processes: leave out --workers")
        self.count = count
        self._model, self._settings = model, settings
        self._stack = ExitStack()
        self._context = multiprocessing.get_context("spawn")
        self._processes: list[SpawnProcess] = []
        self._ready = [self._context.Event() for _ in range(count)]
        self._started: list[float] = []
        self._early_deaths = [0] * count

    def __enter__(self) -> StreamServer:
        """Start them; return a server with their addresses, which is not started itself."""
        with ExitStack() as stack:
            if self._settings.get("timeline") is None:
                folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="logistream-"))
                self._settings["timeline"] = str(Path(folder) / "timeline")
            from logistream.model.model import load_model

            server = StreamServer(load_model(self._model), **self._settings)
            # Bound but not listening: it holds the port while a worker is replaced.
            listen(server.host, server.port).close()
            holder = stack.enter_context(listen(server.host, server.port, shared=True, accept=False))
            self._settings |= {"port": holder.getsockname()[1], "token": server.token}
            self._counts = RawArray("b", Gauges.size(self.count))
            stack.callback(self._stop)
            self._processes = [self._start(row) for row in range(self.count)]
            self._started = [time.monotonic()] * self.count
            self._await_ready()
            self._stack = stack.pop_all()
        return StreamServer(server.model, **self._settings)

    def __exit__(self, *_: object) -> None:
        self._stack.close()

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
                if self._early_deaths[row] > _MOST_EARLY_DEATHS:
                    raise StreamError(f"worker {row} ends right after its start: see the log above")
                Gauges(self._counts, row)  # the readers of a process that has died are gone
                self._started[row] = time.monotonic()
                self._processes[row] = self._start(row)

    def _start(self, row: int) -> SpawnProcess:
        self._ready[row].clear()
        process = self._context.Process(
            target=_work,
            args=(self._model, self._settings, self._counts, row, self._ready[row], os.getpid()),
            name=f"logistream-worker-{row}",
        )
        process.start()
        return process

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _STARTS_WITHIN
        for row, (process, ready) in enumerate(zip(self._processes, self._ready, strict=True)):
            while not ready.wait(0.05):
                if process.exitcode is not None:
                    raise StreamError(f"worker {row} ended with code {process.exitcode}: see the log above")
                if time.monotonic() > deadline:
                    raise StreamError(f"worker {row} has not started within {_STARTS_WITHIN:.0f} s")

    def _stop(self) -> None:
        for process in self._processes:
            process.terminate()
        deadline = time.monotonic() + _STOPS_WITHIN
        for process in self._processes:
            process.join(max(0.0, deadline - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()


def _work(
    model: str | None,
    settings: dict[str, Any],
    counts: Array[c_char],
    row: int,
    ready: Event,
    parent: int,
) -> None:
    """Serve until terminated, or until the parent is gone."""
    from logistream.model.model import load_model

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent too, which terminates us
    server = StreamServer(load_model(model), **settings)
    with server.sharing(Gauges(counts, row)):
        ready.set()
        while not stop.wait(0.5) and os.getppid() == parent and server.running:
            pass

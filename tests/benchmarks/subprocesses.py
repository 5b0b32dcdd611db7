"""Servers and readers of the stream benchmark, each in a process of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

__all__ = [
    "Arrivals",
    "RawReader",
    "Server",
    "broadcast",
    "count",
    "fill_frame",
    "ours",
    "reference",
    "resident",
    "serving",
]

HERE = Path(__file__).parent
OURS = ("-m", "logistream", "serve", "--port", "0")
REFERENCE = (str(HERE / "contenders.py"), "reference")
BROADCAST = (str(HERE / "contenders.py"), "broadcast")


@dataclass(frozen=True)
class Server:
    """A server that runs: the address of its WebSocket and the number of its process."""

    url: str
    pid: int


@contextmanager
def serving(*arguments: str, stderr: IO[str] | None = None) -> Iterator[Server]:
    """Run a Python program that prints the address of a WebSocket, until the end of the block.

    Parameters
    ----------
    stderr : file or None
        Where it writes its errors; None for those of this program.
    """
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, stderr=stderr, text=True)
    assert process.stdout is not None
    try:
        found = None
        while found is None:
            line = process.stdout.readline()
            if not line:
                raise SystemExit(f"{' '.join(arguments)} has ended without an address")
            found = re.search(r"ws://\S+", line)
        yield Server(found[0], process.pid)
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def ours(*options: str) -> tuple[str, ...]:
    """Return what `serving` needs to run our server."""
    return *OURS, *options


def reference(*options: str) -> tuple[str, ...]:
    """Return what `serving` needs to run the reference design."""
    return *REFERENCE, *options


def broadcast() -> tuple[str, ...]:
    """Return what `serving` needs to run the server that broadcasts a ready-made text."""
    return BROADCAST


@dataclass(frozen=True)
class Arrivals:
    """What a reader has recorded, in microseconds since the Unix epoch.

    Attributes
    ----------
    arrived, happened : ndarray of float64 and int64, shape (n_messages,)
        When each message came, and when its first event happened.
    every : ndarray of int64, shape (n_events,)
        When each event happened, in the order of arrival; empty unless requested.
    """

    arrived: NDArray[np.float64]
    happened: NDArray[np.int64]
    every: NDArray[np.int64]

    @property
    def delays(self) -> NDArray[np.float64]:
        """Milliseconds from the first event of a message to its arrival."""
        return (self.arrived - self.happened) / 1e3

    def between(self, begin: float, end: float) -> Arrivals:
        """Return the messages that came between two times, in seconds since the Unix epoch."""
        inside = (self.arrived >= begin * 1e6) & (self.arrived < end * 1e6)
        return Arrivals(self.arrived[inside], self.happened[inside], self.every)


class RawReader:
    """A process that reads with raw sockets and records; it reads from the beginning of the block on."""

    def __init__(
        self, url: str, *, seconds: float, warm_up: float, clients: int = 1, every: bool = False
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._file = Path(self._folder.name) / "arrivals.npz"
        options = ["--seconds", str(seconds), "--warm-up", str(warm_up), "--clients", str(clients)]
        self._process = subprocess.Popen(
            [*_raw_reader(url), *options, "--record", str(self._file), *["--every"] * every],
            stdout=subprocess.PIPE,
            text=True,
        )
        self._patience = seconds + warm_up + 120

    def __enter__(self) -> RawReader:
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "reading":
            raise SystemExit("a reader could not connect")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def send_signal(self, number: int) -> None:
        """Stop the process or let it continue."""
        self._process.send_signal(number)

    def arrivals(self) -> Arrivals:
        """Wait until it has read for as long as it should and return what came."""
        if self._process.wait(self._patience):
            raise SystemExit("a reader has failed")
        with np.load(self._file) as arrays:
            return Arrivals(arrays["arrived"], arrays["happened"], arrays["every"])


def count(url: str, *, clients: int, seconds: float, lines: bool = False) -> float:
    """Return the events per second that raw sockets in one process receive together."""
    options = ["--clients", str(clients), "--seconds", str(seconds), *["--lines"] * lines]
    return _rate([*_raw_reader(url), *options], seconds)


def fill_frame(url: str, events: int) -> float:
    """Return the events per second that a `RollingFrame` in another process takes up."""
    return _rate([sys.executable, str(HERE / "frame_reader.py"), url, "--events", str(events)], 60)


def resident(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    done = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return int(done.stdout) / 1024


def _raw_reader(url: str) -> list[str]:
    return [sys.executable, str(HERE / "raw_reader.py"), url]


def _rate(command: list[str], seconds: float) -> float:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=seconds + 120)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} has failed")
    counted: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return float(counted["events_per_second"])

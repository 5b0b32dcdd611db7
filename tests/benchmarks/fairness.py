"""What readers of the past cost a live one: its events per second and delays, beside a crowd.

    python tests/benchmarks/fairness.py [--base SOURCES] [--seconds S] [--rounds N] [CROWD ...]

Every server has 3 hours of a past at 5,000 events a second. A live reader of the WebSocket records when each
event arrives, while a crowd in another process reads as fast as it can:

    alone    nobody else
    places   100 readers of the WebSocket, each from another place of the past on
    near     100 readers of the WebSocket, from places that are 1,000 events apart
    ranges   8 callers of `GET /events`, each asking for one range of 20,000 events after another
    all      places and ranges together

With `--base`, the sources of another version are measured too, in turns with ours; of several rounds the
median is printed. `past` is what the crowd receives.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np
from raw_reader import connect
from subprocesses import RawReader, ours, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

RATE, HOURS = 5000, 3
EVENTS = RATE * HOURS * 3600
READERS, CALLERS = 100, 8
RANGE = 20_000  # events
WARM_UP = 4.0  # seconds
CROWDS: dict[str, tuple[int, int, int]] = {
    "alone": (0, 0, 0),
    "places": (READERS, EVENTS // READERS, 0),
    "near": (READERS, 1000, 0),
    "ranges": (0, 0, CALLERS),
    "all": (READERS, EVENTS // READERS, CALLERS),
}
"""How many readers, how many events apart they begin, and how many callers of `GET /events`."""

SOURCES = Path(__file__).parents[2] / "src"


class Caller:
    """Asks for one range after another on a connection; counts bytes."""

    def __init__(self, host: str, port: int, index: int) -> None:
        self._place = index * (EVENTS // CALLERS)
        self._host, self._port = host, port
        self._begin()

    def _begin(self) -> None:
        self.socket = socket.create_connection((self._host, self._port), timeout=60)
        self._place = (self._place + RANGE) % (EVENTS - RANGE)
        target = f"/events?start={self._place}&stop={self._place + RANGE}&format=ndjson"
        self.socket.sendall(
            f"GET {target} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\nConnection: close\r\n\r\n".encode()
        )

    def again(self) -> None:
        """Ask for the next range."""
        self.socket.close()
        self._begin()


def crowd(url: str, readers: int, step: int, callers: int) -> None:
    """Read as fast as possible until a line comes on stdin; then print the bytes a second since `begin`."""
    place = urlsplit(url)
    assert place.hostname is not None
    assert place.port is not None
    buffer = bytearray(1 << 20)
    words = sys.stdin
    with selectors.DefaultSelector() as selector:
        selector.register(words, selectors.EVENT_READ, words)
        for index in range(readers):
            reader = connect(f"{url}?start={index * step}")
            selector.register(reader.socket, selectors.EVENT_READ)
        for index in range(callers):
            caller = Caller(place.hostname, place.port, index)
            selector.register(caller.socket, selectors.EVENT_READ, caller)
        print("reading", flush=True)
        began, size = time.perf_counter(), 0
        while True:
            for key, _ in selector.select():
                if key.data is words:
                    if sys.stdin.readline() == "begin\n":
                        began, size = time.perf_counter(), 0
                        continue
                    print(json.dumps(size / (time.perf_counter() - began)), flush=True)
                    return
                received = key.fileobj.recv_into(buffer)  # type: ignore[union-attr] # a socket
                size += received
                if not received:
                    if key.data is None:
                        raise SystemExit("the server has closed a connection")
                    selector.unregister(key.fileobj)
                    key.data.again()
                    selector.register(key.data.socket, selectors.EVENT_READ, key.data)


class Crowd:
    """A process that reads the past from the beginning of the block to its end."""

    def __init__(self, url: str, name: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--crowd-at", url, name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Crowd:
        assert self._process.stdout is not None
        if self._process.stdout.readline() != "reading\n":
            raise SystemExit("the crowd could not connect")
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def _say(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()

    def begin(self) -> None:
        """Count from now on."""
        self._say("begin")

    def end(self) -> float:
        """Return the megabytes a second that came."""
        self._say("end")
        assert self._process.stdout is not None
        return float(self._process.stdout.readline()) / 1e6


@contextmanager
def sources(path: Path) -> Iterator[None]:
    """Have the servers that are started meanwhile import the package from a folder."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = str(path)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


def measure(name: str, seconds: float) -> list[float]:
    """Return the events/s of a live reader, its delays p50, p99 and max in ms, and MB/s of the crowd."""
    with ExitStack() as stack:
        server = stack.enter_context(serving(*ours("--rate", str(RATE), "--history", f"{HOURS}h")))
        many = stack.enter_context(Crowd(server.url, name))
        live = stack.enter_context(RawReader(server.url, seconds=seconds, warm_up=WARM_UP))
        time.sleep(WARM_UP)
        many.begin()
        arrivals = live.arrivals()
        past = many.end()
    if not len(arrivals.delays):
        return [0.0, float("inf"), float("inf"), float("inf"), past]
    p50, p99, most = np.percentile(arrivals.delays, [50, 99, 100])
    return [len(arrivals.delays) / seconds, float(p50), float(p99), float(most), past]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("crowds", nargs="*", metavar="CROWD", help=", ".join(CROWDS))
    parser.add_argument("--base", type=Path, metavar="SOURCES", help="a folder `src` of another version")
    parser.add_argument("--seconds", type=float, default=8.0, help="of one measurement (default: 8)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts (default: 3)")
    parser.add_argument("--crowd-at", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if unknown := set(options.crowds) - set(CROWDS):
        parser.error(f"no crowd {', '.join(unknown)}: there are {', '.join(CROWDS)}")
    if options.crowd_at:
        crowd(options.crowd_at, *CROWDS[options.crowds[0]])
        return
    versions = {"base": options.base, "ours": SOURCES} if options.base else {"ours": SOURCES}
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; wanted: p99 <= 20 ms")
    print(f"{'crowd':<10}{'':<6}{'live/s':>10}{'p50 ms':>10}{'p99 ms':>10}{'max ms':>10}{'past MB/s':>12}")
    for name in options.crowds or CROWDS:
        found: dict[str, list[list[float]]] = {version: [] for version in versions}
        for _ in range(options.rounds):
            for version, path in versions.items():
                with sources(path):
                    found[version].append(measure(name, options.seconds))
        for version, rounds in found.items():
            rate, *delays, past = map(statistics.median, zip(*rounds, strict=True))
            print(
                f"{name:<10}{version:<6}{rate:>10,.0f}"
                + "".join(f"{delay:>10,.1f}" for delay in delays)
                + f"{past:>12,.0f}",
                flush=True,
            )
    print(f"load {os.getloadavg()[0]:.1f} at the end: times mean little where others use the cores")


if __name__ == "__main__":
    main()

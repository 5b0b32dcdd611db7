"""Readers of a WebSocket that do as little as possible, so that a benchmark measures the server.

    python tests/benchmarks/raw_reader.py URL [--clients N] [--seconds S] [--warm-up S] [--lines]
    python tests/benchmarks/raw_reader.py URL --record FILE [--every] ...

Without `--record` the events are counted, by going from frame header to frame header, and printed as JSON.
With it, FILE (.npz) gets when each message arrived and when its first event happened, in microseconds since
the Unix epoch, and with `--every` when each event happened. One process holds all the sockets. It prints
`reading` as soon as all of them are connected.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import selectors
import socket
import time
from itertools import chain
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Connection", "Counter", "Recorder", "connect"]

TEXT, CLOSE, PING, PONG = 0x81, 0x88, 0x89, 0x8A  # the first byte of a whole frame
LARGEST_HEADER = 10  # bytes
KEYS = 23
BUFFER = bytearray(1 << 20)
VIEW = memoryview(BUFFER)
HAPPENED = re.compile(rb'"event_time": ?"([^"]{26})Z"')


class Connection:
    """A socket after the handshake, with what came behind the server's answer."""

    def __init__(self, sock: socket.socket, early: bytes) -> None:
        self.socket, self.early = sock, early

    def pong(self, payload: bytes) -> None:
        """Answer a ping; the mask may be zero."""
        self.socket.sendall(bytes((PONG, 0x80 | len(payload))) + bytes(4) + payload)


def connect(url: str) -> Connection:
    """Connect and do the handshake by hand, offering no extension."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    sock = socket.create_connection((parts.hostname, parts.port or 80), timeout=30)
    target = f"{parts.path}?{parts.query}" if parts.query else parts.path
    key = base64.b64encode(os.urandom(16)).decode()
    sock.sendall(
        f"GET {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    answer = b""
    while b"\r\n\r\n" not in answer:
        piece = sock.recv(65_536)
        if not piece:
            break
        answer += piece
    if b" 101 " not in answer[:20]:
        raise SystemExit(f"{url} refused the handshake: {answer.decode('utf-8', 'replace')}")
    sock.settimeout(None)
    return Connection(sock, answer.partition(b"\r\n\r\n")[2])


class Counter:
    """Counts text frames, or lines in text frames, without taking a payload out of the buffer."""

    def __init__(self, connection: Connection, *, lines: bool) -> None:
        self.connection, self._lines = connection, lines
        self.events = self.size = 0  # size in bytes
        self.first: bytes | None = None
        self._left = 0  # bytes of the current payload that are still to come
        self._cut = b""  # the beginning of a frame that cannot be judged yet
        early = connection.early
        BUFFER[: len(early)] = early
        self._walk(len(early))

    def read(self) -> None:
        """Receive once and count what begins in it."""
        cut = len(self._cut)
        BUFFER[:cut] = self._cut
        received = self.connection.socket.recv_into(VIEW[cut:])
        if not received:
            raise SystemExit("the server has closed the connection")
        self.size += received
        self._walk(cut + received)

    def _walk(self, end: int) -> None:
        buffer, lines, at, events = BUFFER, self._lines, self._left, self.events
        if lines and at:
            events += buffer.count(b"\n", 0, min(at, end))
        while at + LARGEST_HEADER <= end:
            size = buffer[at + 1]
            if size == 126:
                start = at + 4
                size = buffer[at + 2] << 8 | buffer[at + 3]
            elif size == 127:
                start = at + 10
                size = int.from_bytes(buffer[at + 2 : start], "big")
            else:
                start = at + 2
            if buffer[at] != TEXT:
                if start + size > end:
                    break
                self._control(buffer[at], bytes(buffer[start : start + size]))
            else:
                if self.first is None:
                    self._look(start, min(start + size, end), whole=start + size <= end)
                events += buffer.count(b"\n", start, min(start + size, end)) if lines else 1
            at = start + size
        self._left, self._cut = (at - end, b"") if at >= end else (0, bytes(buffer[at:end]))
        self.events = events

    def _look(self, start: int, end: int, *, whole: bool) -> None:
        """Keep the first event that is in the buffer from its first byte to its last."""
        line, newline, _ = bytes(BUFFER[start:end]).partition(b"\n")
        if newline or (whole and not self._lines):
            self.first = line

    def _control(self, kind: int, payload: bytes) -> None:
        if kind != PING:
            raise SystemExit(f"a frame that begins with {kind:#x} has no place here: {payload!r}")
        self.connection.pong(payload)

    def check(self) -> None:
        """Raise unless an event came that is one."""
        event = json.loads(self.first or b"null")
        if not isinstance(event, dict) or len(event) != KEYS or not HAPPENED.search(self.first or b""):
            raise SystemExit(f"expected events of {KEYS} keys, got {self.first!r}")


class Recorder:
    """Keeps when each message came and when its first event, or every one, happened."""

    def __init__(self, connection: Connection, *, every: bool) -> None:
        self.connection, self._every = connection, every
        self.arrived: list[int] = []  # nanoseconds since the Unix epoch
        self.happened: list[bytes] = []
        self.every: list[bytes] = []
        self._rest = b""  # the beginning of a frame
        self._walk(time.time_ns(), connection.early)

    def read(self) -> None:
        """Receive once and note what is complete."""
        piece = self.connection.socket.recv(len(BUFFER))
        timestamp = time.time_ns()
        if not piece:
            raise SystemExit("the server has closed the connection")
        self._walk(timestamp, self._rest + piece if self._rest else piece)

    def _walk(self, timestamp: int, data: bytes) -> None:
        at = 0
        while at + 2 <= len(data):
            wide = {126: 2, 127: 8}.get(data[at + 1], 0)
            start = at + 2 + wide
            size = int.from_bytes(data[at + 2 : start], "big") if wide else data[at + 1]
            if start + size > len(data):
                break
            if data[at] == PING:
                self.connection.pong(data[start : start + size])
            elif data[at] != TEXT:
                raise SystemExit(f"a frame that begins with {data[at]:#x} has no place here")
            else:
                self._note(timestamp, data, start, start + size)
            at = start + size
        self._rest = data[at:]

    def _note(self, timestamp: int, data: bytes, start: int, end: int) -> None:
        key = data.find(b'"event_time":', start, end)  # a tenth of what the regular expression takes
        first = HAPPENED.match(data, max(key, start), end)
        if first is None:
            raise SystemExit(f"no event_time in {data[start:end]!r}")
        self.arrived.append(timestamp)
        self.happened.append(first[1])
        if self._every:
            self.every += HAPPENED.findall(data, start, end)


def read_all(readers: list[Counter] | list[Recorder], ready: Callable[[], bool]) -> None:
    """Read from whichever socket has something, until `ready`, which is called after each round."""
    if len(readers) == 1 and isinstance(readers[0], Counter):  # it never waits long
        read = readers[0].read
        while not ready():
            read()
        return
    with selectors.DefaultSelector() as selector:
        for reader in readers:
            selector.register(reader.connection.socket, selectors.EVENT_READ, reader.read)
        while not ready():
            for key, _ in selector.select(0.1):
                key.data()


def count(readers: list[Counter], warm_up: float, seconds: float) -> None:
    """Count for some seconds, after a warm-up, and print what came."""
    clock = time.perf_counter
    begin = clock() + warm_up
    read_all(readers, lambda: clock() >= begin and all(reader.first for reader in readers))
    events, size = sum(reader.events for reader in readers), sum(reader.size for reader in readers)
    begin = clock()
    read_all(readers, lambda: clock() - begin >= seconds)
    taken = clock() - begin
    for reader in readers:
        reader.check()
    events = sum(reader.events for reader in readers) - events
    size = sum(reader.size for reader in readers) - size
    print(json.dumps({"events_per_second": events / taken, "bytes": size / max(events, 1)}), flush=True)


def record(readers: list[Recorder], path: str, warm_up: float, seconds: float) -> None:
    """Record for some seconds and write the arrays; what comes during the warm-up is left out."""
    import numpy as np

    begin = time.time_ns() + int(warm_up * 1e9)
    read_all(readers, lambda: time.time_ns() - begin >= seconds * 1e9)
    arrived = np.array([timestamp for reader in readers for timestamp in reader.arrived])
    times = list(chain.from_iterable(reader.happened for reader in readers))
    happened = np.array(b" ".join(times).decode().split(" "), "M8[us]").astype(np.int64)
    every = np.array(b" ".join(readers[0].every).decode().split(), "M8[us]").astype(np.int64)
    kept = arrived >= begin
    np.savez(path, arrived=arrived[kept] / 1e3, happened=happened[kept], every=every)


def main() -> None:
    """Read as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--warm-up", type=float, default=0.5)
    parser.add_argument("--lines", action="store_true", help="a message may hold many events, one a line")
    parser.add_argument("--record", metavar="FILE")
    parser.add_argument("--every", action="store_true", help="record the time of every event of one client")
    options = parser.parse_args()
    connections = [connect(options.url) for _ in range(options.clients)]
    print("reading", flush=True)
    if options.record:
        recorders = [Recorder(connection, every=options.every) for connection in connections]
        record(recorders, options.record, options.warm_up, options.seconds)
    else:
        counters = [Counter(connection, lines=options.lines) for connection in connections]
        count(counters, options.warm_up, options.seconds)


if __name__ == "__main__":
    main()

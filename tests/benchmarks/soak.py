"""Does a server stay as it is for as long as it runs? Readers of all kinds at once, and what they cost.

    python tests/benchmarks/soak.py [--minutes M] [--every S] [--rate R] [--workers N]

A server with an hour of a past keeps its timeline in a file, and its rate changes every ten seconds. With it,
each in a process of its own:

    live      a reader that records when each event arrives
    churn     40 readers that stay for up to 3 s, leave politely or not, and return to where they were
    catch-up  8 readers that begin at any place of the past, and again when they have reached the present
    ranges    4 callers of `GET /events`, of any length in any format, and 4 who do not read the answer

All check that they get every event once. A line is printed every 30 s: memory, descriptors and processor time
of the server, events per second and delays of the live reader, what the others did, the longest time that a
range took, and how often events were missing. The exit code is 1 if any were, if the server has logged
something, or if it has more descriptors at the end than at the beginning.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import io
import json
import multiprocessing
import os
import random
import re
import selectors
import socket
import struct
import sys
import tempfile
import threading
import time
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import numpy as np
import pyarrow as pa
import pyarrow.csv
from raw_reader import Connection, Recorder, connect
from subprocesses import ours, resident, serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection as Pipe

HISTORY = 3600  # seconds
STEADY, PASSING, CATCHING_UP = 1, 40, 8  # readers
CALLERS, IDLE_CALLERS = 4, 4
STAYS = 3.0  # seconds at most
NUMBER = re.compile(rb'"event_number": ?(\d+)')
CLOSE = bytes((0x88, 0x82)) + bytes(4) + b"\x03\xe8"
RESET = struct.pack("ii", 1, 0)


class Tally:
    """What a process has seen since it was asked last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[str, int] = {}
        self._delays: list[float] = []

    def add(self, name: str, count: int = 1) -> None:
        """Count something."""
        with self._lock:
            self._counts[name] = self._counts.get(name, 0) + count

    def delay(self, milliseconds: float) -> None:
        """Note how late an event came."""
        with self._lock:
            self._delays.append(milliseconds)

    def take(self) -> tuple[dict[str, int], list[float]]:
        """Return counts and delays, and begin again."""
        with self._lock:
            taken = self._counts, self._delays
            self._counts, self._delays = {}, []
        return taken


class Reader(Recorder):
    """Checks that the numbers of its events follow each other."""

    def __init__(self, url: str, start: int | None, form: str, tally: Tally, *, timed: bool = False) -> None:
        query = f"?numbered=true&format={form}"
        self._tally, self._timed = tally, timed
        self.number, self.age = start, float("inf")  # of the next event; seconds since the last one happened
        super().__init__(connect(url + query + ("" if start is None else f"&start={start}")), every=False)

    def _note(self, timestamp: int, data: bytes, start: int, end: int) -> None:
        message = data[start:end]
        numbers = [int(number) for number in NUMBER.findall(message)]
        first = numbers[0] if self.number is None else self.number
        if numbers != list(range(first, first + len(numbers))):
            self._tally.add("gaps")
            print(f"expected events from {first} on, got {numbers[:3]} to {numbers[-1:]}", file=sys.stderr)
        self.number = numbers[-1] + 1
        self._tally.add("events", len(numbers))
        place = message.rfind(b'"event_time":')
        happened = datetime.fromisoformat(message[message.index(b":", place) + 1 :].split(b'"')[1].decode())
        self.age = timestamp / 1e9 - happened.timestamp()
        if self._timed:
            self._tally.delay(self.age * 1e3)


def live(url: str, tally: Tally) -> None:
    """Read the present."""
    reader = Reader(url, None, "json", tally, timed=True)
    while True:
        reader.read()


def serve_readers(
    count: int, begin: Callable[[int | None], Reader], is_over: Callable[[Reader], bool], tally: Tally
) -> None:
    """Keep a number of readers: who is over leaves, one way or another, and a new one takes its place."""
    with selectors.DefaultSelector() as selector:
        for _ in range(count):
            reader = begin(None)
            selector.register(reader.connection.socket, selectors.EVENT_READ, reader)
        while True:
            for key, _ in selector.select(0.1):
                reader = key.data
                reader.read()
                if is_over(reader):
                    selector.unregister(key.fileobj)
                    leave(reader.connection)
                    reader = begin(reader.number)
                    selector.register(reader.connection.socket, selectors.EVENT_READ, reader)
                    tally.add("turns")


def leave(connection: Connection) -> None:
    """Leave politely, without a word, or with unread data and a reset."""
    how = random.random()
    if how < 0.4:
        with suppress(OSError):
            connection.socket.sendall(CLOSE)
    elif how < 0.6:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    connection.socket.close()


def churn(url: str, tally: Tally) -> None:
    """Come, read, leave, and return to the event after the last one."""
    ends: dict[Reader, float] = {}

    def begin(number: int | None) -> Reader:
        reader = Reader(url, number, random.choice(("json", "ndjson")), tally)
        ends[reader] = time.monotonic() + random.uniform(0, STAYS)
        return reader

    def is_over(reader: Reader) -> bool:
        over = time.monotonic() > ends[reader]
        if over:
            del ends[reader]
        return over

    serve_readers(PASSING, begin, is_over, tally)


def catch_up(url: str, tally: Tally) -> None:
    """Read from any place of the past to the present."""

    def begin(number: int | None) -> Reader:
        return Reader(url, random.randrange(number or newest(url)), "ndjson", tally)

    serve_readers(CATCHING_UP, begin, lambda reader: reader.age < 0.2, tally)


def ranges(url: str, tally: Tally) -> None:
    """Ask for ranges, and read them or not."""
    for _ in range(IDLE_CALLERS):
        threading.Thread(target=_forever, args=(_leave_unread, url, tally), daemon=True).start()
    for _ in range(CALLERS - 1):
        threading.Thread(target=_forever, args=(_read_range, url, tally), daemon=True).start()
    _forever(_read_range, url, tally)


def _forever(function: Callable[[str, Tally], None], url: str, tally: Tally) -> None:
    while True:
        function(url, tally)


def _read_range(url: str, tally: Tally) -> None:
    form = random.choice(("ndjson", "json", "csv", "arrow"))
    began = time.monotonic()
    start = random.randrange(newest(url))
    stop = min(start + random.choice((1, 100, 5_000, 20_000)), newest(url))
    status, body = ask(
        url,
        f"/events?start={start}&stop={stop}&format={form}&numbered=true",
        {"Accept-Encoding": random.choice(("gzip", "identity"))},
    )
    tally.delay((time.monotonic() - began) * 1e3)
    tally.add("ranges" if status == 200 else f"status {status}")
    if status != 200:
        return
    if form == "arrow":
        with pa.ipc.open_stream(body) as stream:
            numbers = stream.read_all()["event_number"].to_pylist()
    elif form == "csv":
        numbers = pa.csv.read_csv(io.BytesIO(body))["event_number"].to_pylist()
    else:
        numbers = [int(number) for number in NUMBER.findall(body)]
    if numbers != list(range(start, stop)):
        tally.add("gaps")
        print(f"{form}: expected {start} to {stop}, got {len(numbers)} events", file=sys.stderr)
    tally.add("events", len(numbers))


def _leave_unread(url: str, tally: Tally) -> None:
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port), timeout=30) as raw:
        raw.sendall(b"GET /events?start=0&stop=500000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        raw.recv(12)
        time.sleep(random.uniform(0, 2 * STAYS))
    tally.add("unread")


def ask(
    url: str, path: str, headers: dict[str, str] | None = None, method: str = "GET", body: str | None = None
) -> tuple[int, bytes]:
    """Return status and body of an answer."""
    place = urlsplit(url)
    assert place.hostname is not None
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=120)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        found = answer.read()
        packed = answer.headers.get("Content-Encoding") == "gzip"
        return answer.status, gzip.decompress(found) if packed else found
    finally:
        connection.close()


def newest(url: str) -> int:
    """Return the number of the next event."""
    return int(json.loads(ask(url, "/stream")[1])["next_event_number"])


KINDS: dict[str, Callable[[str, Tally], None]] = {
    "live": live,
    "churn": churn,
    "catch-up": catch_up,
    "ranges": ranges,
}


def work(kind: str, url: str, pipe: Pipe) -> None:
    """Do one kind of reading until the process is ended; answer each message with what was seen since."""
    tally = Tally()

    def answer() -> None:
        with suppress(EOFError, OSError):
            while pipe.recv():
                pipe.send(tally.take())
        os._exit(0)

    threading.Thread(target=answer, daemon=True).start()
    try:
        KINDS[kind](url, tally)
    except BaseException as error:  # noqa: BLE001 - the parent notices by the end of the pipe
        print(f"{kind}: {error!r}", file=sys.stderr)
        os._exit(1)


class Kind:
    """A process of readers."""

    def __init__(self, kind: str, url: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.name = kind
        self._process = context.Process(target=work, args=(kind, url, theirs), daemon=True)
        self._process.start()
        theirs.close()

    def take(self) -> tuple[dict[str, int], list[float]]:
        """Return what was seen since this was called last."""
        try:
            self.pipe.send(True)
            return self.pipe.recv()  # type: ignore[no-any-return]
        except (EOFError, OSError):
            raise SystemExit(f"the readers of kind {self.name} have failed") from None

    def end(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.join()


def descriptors(pids: list[int]) -> int:
    """Return how many files some processes have open."""
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in pids)


def cpu(pids: list[int]) -> float:
    """Return the seconds of a processor that some processes have used."""
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """Return a process and those that it has started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += family(int(child))
    return found


def report(
    began: float, pids: list[int], kinds: list[Kind], seconds: float, before: float
) -> tuple[int, float]:
    """Print a line; return how often events were missing, and the processor time that the server has used."""
    seen = {kind.name: kind.take() for kind in kinds}
    counts = {name: each for name, (each, _) in seen.items()}
    delays = seen["live"][1] or [float("nan")]
    gaps = sum(each.get("gaps", 0) for each in counts.values())
    p50, p99, most = np.percentile(delays, [50, 99, 100])
    read = sum(each.get("events", 0) for each in counts.values())
    refused = sum(n for name, n in counts["ranges"].items() if name.startswith("status"))
    used = cpu(pids)
    print(
        f"{time.monotonic() - began:>6.0f}{sum(map(resident, pids)):>6.0f}{descriptors(pids):>6}"
        f"{(used - before) / seconds:>6.2f}{os.getloadavg()[0]:>6.1f}"
        f"{counts['live'].get('events', 0) / seconds:>8,.0f}{p50:>8.1f}{p99:>8.1f}{most:>8.0f}"
        f"{read / seconds:>10,.0f}{counts['churn'].get('turns', 0):>8}{counts['catch-up'].get('turns', 0):>7}"
        f"{counts['ranges'].get('ranges', 0):>8}{max(seen['ranges'][1], default=0) / 1e3:>10.1f}"
        f"{refused:>9}{counts['ranges'].get('unread', 0):>8}{gaps:>6}",
        flush=True,
    )
    return gaps, used


def soak(options: argparse.Namespace, timeline: str, log: io.TextIOWrapper) -> int:
    """Run it; return the exit code."""
    arguments = ours(
        *("--rate", str(options.rate), "--history", f"{HISTORY}s", "--timeline", timeline),
        *("--workers", str(options.workers)),
    )
    with serving(*arguments, stderr=log) as server:
        assert ask(server.url, "/events?stop=20000")[0] == 200
        time.sleep(2)  # that connection is closed
        pids = family(server.pid)
        before = descriptors(pids)
        print(f"before: {sum(map(resident, pids)):.0f} MiB, {before} descriptors")
        print(
            f"{'s':>6}{'MiB':>6}{'files':>6}{'cores':>6}{'load':>6}{'live/s':>8}{'p50 ms':>8}{'p99 ms':>8}"
            f"{'max ms':>8}{'events/s':>10}{'visits':>8}{'caught':>7}{'ranges':>8}{'longest s':>10}"
            f"{'refused':>9}{'unread':>8}{'gaps':>6}"
        )
        kinds = [Kind(kind, server.url) for kind in KINDS]
        try:
            began, gaps = time.monotonic(), 0
            reported, used = began, cpu(pids)
            while time.monotonic() < began + options.minutes * 60:
                time.sleep(min(10.0, options.every))
                rate = options.rate * random.choice((0.5, 1, 2))
                ask(
                    server.url,
                    "/stream",
                    {"Content-Type": "application/json"},
                    "PATCH",
                    json.dumps({"rate": rate}),
                )
                if time.monotonic() >= reported + options.every:
                    found, used = report(began, pids, kinds, time.monotonic() - reported, used)
                    gaps, reported = gaps + found, time.monotonic()
        finally:
            for kind in kinds:
                kind.end()
        deadline = time.monotonic() + 60
        while descriptors(pids) > before and time.monotonic() < deadline:
            time.sleep(1)
        after = descriptors(pids)
        print(f"after: {sum(map(resident, pids)):.0f} MiB, {after} descriptors, {gaps} gaps")
        log.seek(0)
        said = log.read()
        print(said or "the server has logged nothing")
    return int(bool(gaps or said or after > before))


def main() -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: 10)")
    parser.add_argument("--every", type=float, default=30.0, help="seconds between two lines (default: 30)")
    parser.add_argument("--rate", type=float, default=500.0, help="of the server (default: 500)")
    parser.add_argument("--workers", type=int, default=1, help="processes of the server (default: 1)")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as folder,
        open(Path(folder) / "log", "w+", encoding="utf-8") as log,  # noqa: PTH123 - for the server to write to
    ):
        raise SystemExit(soak(options, str(Path(folder) / "timeline"), log))


if __name__ == "__main__":
    main()

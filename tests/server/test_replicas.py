"""Servers on one timeline serve one stream, on ports of their own or behind one; and leave nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from helpers.processes import ServerProcess, children
from helpers.recording import SMALL, numbers_in
from helpers.waiting import at_best, until
from helpers.wire import CLOSE, TEXT, Peer
from logistream.server.server import StreamServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from logistream.model.model import Model

pytestmark = pytest.mark.slow

RATE = 2000


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[ServerProcess]]:
    """Give three servers on one timeline file; the first makes it."""
    file = str(tmp_path_factory.mktemp("replicas") / "timeline")
    with ExitStack() as stack:
        first = stack.enter_context(
            ServerProcess("--timeline", file, "--rate", str(RATE), "--history", "3s", "--arrivals", "poisson")
        )
        others = [
            stack.enter_context(ServerProcess("--timeline", file, "--arrivals", "poisson")) for _ in range(2)
        ]
        yield [first, *others]
        assert [server.log for server in (first, *others)] == ["", "", ""]


def bytes_of(port: int, form: str, start: int, stop: int) -> dict[int, bytes]:
    """Return what a server sends for each event number, to the byte; in Arrow, what it means."""
    came: dict[int, bytes] = {}
    at = start
    with Peer(port, f"?start={start}&format={form}&numbered=true") as peer:
        while at < stop:
            made = peer.receive()
            assert made is not None
            for number, data in pieces(form, made.payload):
                assert number == at, f"event {number} came in place of {at}"
                came[number] = data
                at = number + 1
    return {number: data for number, data in came.items() if number < stop}


def pieces(form: str, message: bytes) -> list[tuple[int, bytes]]:
    """Return the events of a message: the number of each and its bytes, or in Arrow its values as text."""
    if form == "arrow":
        with pa.ipc.open_stream(message) as stream:
            rows = stream.read_next_batch()
        numbers = rows.column("event_number").to_pylist()
        assert int(rows.schema.metadata[b"first_event_number"]) == numbers[0]
        assert int(rows.schema.metadata[b"next_event_number"]) == numbers[-1] + 1
        return [(number, repr(row).encode()) for number, row in zip(numbers, rows.to_pylist(), strict=True)]
    lines = message.splitlines(keepends=True)
    assert form == "ndjson" or len(lines) == 1
    return list(zip(numbers_in(message if form == "ndjson" else message + b"\n"), lines, strict=True))


@pytest.mark.parametrize("form", ["json", "ndjson", "arrow"])
def test_the_same_bytes_at_the_same_numbers(replicas: list[ServerProcess], form: str) -> None:
    """Of the past and live, over the WebSocket and as a range."""
    now = replicas[0].get("/stream")["next_event_number"]
    for start, stop in ((0, 1500), (now - 50, now + 250)):
        one, two, three = (bytes_of(server.port, form, start, stop) for server in replicas)
        assert list(one) == list(range(start, stop))
        assert one == two == three
    answers = {server.ask("GET", f"/events?start=1000&stop=5000&format={form}") for server in replicas}
    assert len(answers) == 1
    assert len({server.get("/timeline")["stream"] for server in replicas}) == 1


def test_a_change_reaches_all(replicas: list[ServerProcess], capsys: pytest.CaptureFixture[str]) -> None:
    """A PATCH at one is in force at all within 100 ms, whichever it is sent to."""
    rates = itertools.count(RATE + 1, 10)

    def median_delay() -> float:
        delays = []
        for number in range(9):
            rate = next(rates)
            changed, *others = replicas[number % 3 :] + replicas[: number % 3]
            state = changed.patch(rate=rate)
            answered = time.monotonic()
            for other in others:
                until(lambda other=other, rate=rate: other.get("/stream")["rate"] == rate)  # type: ignore[misc]
            delays.append(time.monotonic() - answered)
            assert state["rate"] == rate
        median = statistics.median(delays)
        with capsys.disabled():
            print(f"\n  a change is everywhere {median * 1e3:.0f} ms after the answer (median)")
        return median

    at_best(median_delay, below=0.1)
    timelines = [server.get("/timeline") for server in replicas]
    assert timelines[0] == timelines[1] == timelines[2]


@pytest.mark.parametrize("form", ["json", "ndjson", "arrow"])
def test_a_client_that_hops(replicas: list[ServerProcess], form: str) -> None:
    """Another server at each break, while the rate changes: every number once, as if it were one server."""
    start = at = replicas[0].get("/stream")["next_event_number"]
    came: list[tuple[int, bytes]] = []
    breaks = 24
    for number in range(breaks):
        if number % 4 == 0:
            replicas[(number // 4) % 3].patch(rate=RATE + 7 * number + 1)
        with Peer(replicas[number % 3].port, f"?start={at}&format={form}&numbered=true") as peer:
            for _ in range(1 + number % 5 * 3):
                made = peer.receive()
                assert made is not None
                came += pieces(form, made.payload)
            at = came[-1][0] + 1
            if number % 2:
                peer.reset()
    assert [number for number, _ in came] == list(range(start, at))
    until(lambda: all(server.get("/stream")["next_event_number"] >= at for server in replicas))
    for server in replicas:
        assert dict(came) == bytes_of(server.port, form, start, at)


# Workers

READERS = 40
"""So many that none of the workers is without one, however the system distributes them."""


def workers_of(pid: int) -> set[int]:
    """Return the worker processes of a server."""
    found = set()
    for child in children(pid):
        with contextlib.suppress(OSError):
            command = Path(f"/proc/{child}/cmdline").read_bytes()
            if b"multiprocessing.spawn" in command and b"State:\tZ" not in status(child):
                found.add(child)
    return found


def status(pid: int) -> bytes:
    """Return what the system reports of a process."""
    return Path(f"/proc/{pid}/status").read_bytes()


def is_there(pid: int) -> bool:
    """Tell whether a process still runs, or a thread of it, which keeps its sockets open."""
    try:
        return b"State:\tZ" not in status(pid) or len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
    except OSError:
        return False


def is_free(port: int) -> bool:
    """Tell whether a port can be taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def listeners(port: int) -> int:
    """Return how many sockets listen on a port."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
    return sum(line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "0A" for line in lines)


def connected(server: ServerProcess) -> set[int]:
    """Return the counts that the workers give; a connection gets to any of them."""
    return {server.get("/")["connected_clients"] for _ in range(12)}


@pytest.mark.slow
def test_workers(capsys: pytest.CaptureFixture[str]) -> None:
    """Three processes on one port: they count together, one that dies is replaced, and all end together."""
    with ServerProcess("--workers", "3", "--rate", "100") as server, ExitStack() as stack:
        port, parent = server.port, server.pid
        first = workers_of(parent)
        assert len(first) == 3
        readers = [stack.enter_context(Peer(port, SMALL)) for _ in range(READERS)]
        until(lambda: connected(server) == {READERS})
        assert len({reader.headers["logistream-stream"] for reader in readers}) == 1

        killed = min(first)
        cursors = [numbers_in(reader.until(TEXT).payload)[-1] + 1 for reader in readers]
        began = time.monotonic()
        os.kill(killed, signal.SIGKILL)
        until(lambda: not is_there(killed))  # its socket does not listen any more
        until(lambda: listeners(port) == 3 and len(workers_of(parent)) == 3)
        with capsys.disabled():
            print(f"\n  a killed worker is replaced after {time.monotonic() - began:.2f} s")
        assert len(workers_of(parent) - {killed}) == 3
        lost, due = 0, server.get("/stream")["next_event_number"]
        for place, reader in enumerate(readers):
            while cursors[place] < due and (made := reader.receive_or_break()) is not None:
                if made.opcode != TEXT:
                    continue
                numbers = numbers_in(made.payload)
                assert numbers == list(range(cursors[place], numbers[-1] + 1))
                cursors[place] = numbers[-1] + 1
            if reader.ended:
                lost += 1
                readers[place] = stack.enter_context(Peer(port, f"{SMALL}&start={cursors[place]}"))
                assert numbers_in(readers[place].until(TEXT).payload)[0] == cursors[place]
        assert 0 < lost < READERS
        until(lambda: connected(server) == {READERS})

        last = workers_of(parent)
        assert len(last) == 3
        assert server.terminate() == 0
        for reader in readers:
            assert reader.closed_with() == 1001
        assert not [pid for pid in (parent, *first, *last) if is_there(pid)]
        assert is_free(port)
    assert re.fullmatch(rf"worker \d \(process {killed}\) was ended by SIGKILL\n", server.log)


@pytest.mark.slow
def test_the_count_is_right_soon_after_a_worker_was_killed() -> None:
    """Readers of a killed process are counted no more soon after, be it replaced by then or not."""
    with ServerProcess("--workers", "2", "--rate", "10") as server, ExitStack() as stack:
        readers = [stack.enter_context(Peer(server.port, SMALL)) for _ in range(READERS)]
        until(lambda: connected(server) == {READERS})
        killed = max(workers_of(server.pid))
        os.kill(killed, signal.SIGKILL)
        until(lambda: not is_there(killed))  # from now on no connection goes to it
        due = server.get("/stream")["next_event_number"]  # which the dead one has not sent
        lost = 0
        for reader in readers:  # each gets an event, or an error
            while (made := reader.receive_or_break()) is not None:
                if numbers_in(made.payload)[-1] >= due:
                    break
            lost += reader.ended
        assert 0 < lost < READERS
        until(lambda: connected(server) == {READERS - lost})


def with_mark(mark: str) -> list[int]:
    """Return the processes that run with a variable of their environment."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if mark.encode() in (folder / "environ").read_bytes() and is_there(int(folder.name)):
                found.append(int(folder.name))
    return found


MOMENTS: dict[str, Callable[[int, Path], bool]] = {
    "a worker is there": lambda pid, _: len(workers_of(pid)) > 0,
    "both are there": lambda pid, _: len(workers_of(pid)) > 1,
    "the folder is there": lambda _, folder: any(folder.glob("logistream-*")),  # Python tries the other one
    "the timeline is there": lambda _, folder: any(folder.glob("*/timeline")),
    "the timeline is used": lambda _, folder: any(folder.glob("*/timeline-promised")),
}


@pytest.mark.parametrize("moment", [*MOMENTS, "they serve"])
def test_workers_do_not_outlive_their_parent(tmp_path: Path, moment: str) -> None:
    """If the process that started them is killed, at whichever moment, they end and leave no file."""
    mark, folder = f"LOGISTREAM_TEST={tmp_path}", tmp_path / "tmp"
    folder.mkdir()
    environment = os.environ | {"TMPDIR": str(folder), mark.partition("=")[0]: str(tmp_path)}
    command = [sys.executable, "-m", "logistream", "serve", "--port", "0", "--workers", "2"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=log)
    try:
        if moment in MOMENTS:
            until(lambda: MOMENTS[moment](process.pid, folder))
        else:
            assert process.stdout is not None
            process.stdout.readline()
        process.kill()
        process.communicate()
        # Both at once: a process that begins another program has no environment for a moment.
        until(lambda: not with_mark(mark) and not list(folder.iterdir()))
    finally:
        for pid in with_mark(mark):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    # Of a process that did not get its orders, Python's own; the last one may miss what another has removed.
    log_text = (tmp_path / "log").read_text()
    assert "Traceback" not in log_text or "EOFError: Ran out of input" in log_text


def test_workers_without_a_place_for_their_files() -> None:
    """A disk that cannot be written is one sentence, with two ways out."""
    script = (
        "import sys, tempfile; tempfile.tempdir = '/none'; from logistream.cli import main; sys.exit(main())"
    )
    command = [sys.executable, "-c", script, "serve", "--port", "0", "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("logistream: workers need a temporary folder and shared memory, and the ")
    assert done.stderr.endswith("set TMPDIR to a folder that can be written, or leave out --workers\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("workers", [1, 2])
def test_readers_are_told_when_the_server_ends(sent: signal.Signals, workers: int) -> None:
    """SIGTERM or SIGHUP: close code 1001 to all, of whatever format, reading or not; the port is free."""
    # A server waits for half a second until all have read all, which a busy machine may not manage.
    found: list[bool] = []
    while len(found) < 6 and not any(found):
        found.append(all_are_told(sent, workers))
    assert found[-1]


def all_are_told(sent: signal.Signals, workers: int) -> bool:
    """End a server with five readers; return whether the four that read have got the close frame."""
    with (
        ServerProcess("--rate", str(RATE), "--workers", str(workers)) as server,
        ExitStack() as stack,
        ThreadPoolExecutor() as pool,
    ):
        queries = [*(f"?format={form}" for form in ("json", "ndjson", "arrow")), "?where=Market:Africa"]
        readers = [stack.enter_context(Peer(server.port, query)) for query in queries]
        stack.enter_context(Peer(server.port, receive_buffer=4096))  # reads nothing
        until(lambda: server.get("/")["connected_clients"] == 5)
        ends = [pool.submit(end_of, reader) for reader in readers]
        assert server.end(sent) == 0
        codes = [end.result() for end in ends]
        assert set(codes) <= {(1001, b"the server stops"), None}
        assert is_free(server.port)
    assert server.log == ""
    return None not in codes


def end_of(reader: Peer) -> tuple[int | None, bytes] | None:
    """Read to the end; return code and reason of the close frame, None if there was none."""
    close = None
    while (made := reader.receive_or_break()) is not None:
        assert close is None, "a frame after the close frame"
        if made.opcode == CLOSE:
            close = made.code, made.payload[2:]
    return close


# In one process


def tasks_and_loops() -> list[Any]:
    """Return all that this process has, running or not."""
    kinds = (asyncio.Task, asyncio.AbstractEventLoop)
    # A weak proxy passes for what it points to, which may be gone: so this reads its own type.
    return [thing for thing in gc.get_objects() if issubclass(type(thing), kinds)]


def open_files() -> set[str]:
    """Return what this process holds open; skip the test where the system does not report it."""
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("needs /proc")
    found = set()
    for link in folder.iterdir():
        with contextlib.suppress(OSError):
            found.add(str(link.readlink()))
    return found


@pytest.mark.slow
def test_started_and_stopped_fifty_times(model: Model, tmp_path: Path) -> None:
    """No thread, no socket, no file, no task and no loop is left, with readers of each format connected."""
    server = StreamServer(model, rate=1000, port=0, timeline=tmp_path / "timeline")
    before = None
    foreign = set(map(id, tasks_and_loops()))  # of other tests
    for number in range(51):
        with server, ExitStack() as stack:
            for form in ("json", "ndjson", "arrow") if number % 5 == 0 else ():
                reader = stack.enter_context(Peer(server.port, f"?format={form}"))
                if number % 2 == 0:
                    assert reader.receive() is not None
            if number % 2:
                server.rate = 1000 + number
        if number == 0:  # what is made once for all stays
            gc.collect()
            before = open_files(), set(threading.enumerate())
    gc.collect()
    assert before is not None
    files, threads = before  # of other tests some may have ended
    assert not open_files() - files
    assert not set(threading.enumerate()) - threads
    left = [thing for thing in tasks_and_loops() if id(thing) not in foreign]
    assert not [thing for thing in left if isinstance(thing, asyncio.Task) and not thing.done()]
    assert not [
        thing for thing in left if isinstance(thing, asyncio.AbstractEventLoop) and not thing.is_closed()
    ]
    assert server.connected_clients == 0

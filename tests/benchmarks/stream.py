"""How fast, how punctual and how patient the stream server is, beside two others.

    python tests/benchmarks/stream.py [throughput] [latency] [stalled] [start] [--seconds S] [--rounds N]

All sections by default, in three to four minutes. Every server has a process of its own, and so have the
readers, which are raw sockets that only count or note the time (`raw_reader.py`). The other servers are
in `contenders.py`: the usual design, and `websockets.broadcast` of a ready-made text, which need not make
or encode anything. Of several rounds, in which the servers have their turns, the median is printed.

Our events are made and encoded while they are measured, from the beginning of a history that is longer than
anybody reads. A delay is from the event's own time to its arrival, on the clock of this machine; of a
message of many events, from the first one's time. Jitter is how far a delay is from the median delay.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from itertools import product
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from raw_reader import TEXT, connect
from subprocesses import (
    Arrivals,
    RawReader,
    broadcast,
    count,
    fill_frame,
    ours,
    reference,
    resident,
    serving,
)

if TYPE_CHECKING:
    from collections.abc import Callable

Program: TypeAlias = "Callable[..., tuple[str, ...]]"

UNBOUNDED = ("--rate", "1000000", "--history", "1h")
FRAME_EVENTS = 3_000_000
CROWD, CROWD_RATE = 1000, 20
SLOW, FAST = (0.1, 2.0), (1000.0, 10_000.0)
RATES = SLOW + FAST
STALL_RATE, STALL_READERS = 5000, 50
CATCH_UP = 10.0  # seconds in which the stopped reader must have caught up
IMPORTS = {
    "import logistream": "import logistream",
    "from logistream import StreamServer, RollingFrame": "from logistream import StreamServer, RollingFrame",
}


def row(
    name: str,
    figure: float | str,
    *,
    usual: float | None = None,
    broadcasting: float | None = None,
    digits: int = 0,
    wanted: str = "",
) -> None:
    """Print a line of the table; the ratios are ours to theirs."""
    others = [("" if other is None else f"{other:,.{digits}f}") for other in (usual, broadcasting)]
    ratios = [
        f"{figure / other:,.2f}" if other and isinstance(figure, float) else ""
        for other in (usual, broadcasting)
    ]
    shown = figure if isinstance(figure, str) else f"{figure:,.{digits}f}"
    print(
        f"{name:<52}{others[0]:>12}{others[1]:>12}{shown:>14}{ratios[0]:>9}{ratios[1]:>9}  {wanted}",
        flush=True,
    )


def throughput(seconds: float, rounds: int) -> None:
    """Print how many events a second leave the servers and arrive."""
    figures: dict[str, list[float]] = {}
    with ExitStack() as stack:
        usual, sending, made = (
            stack.enter_context(serving(*program)).url
            for program in (reference(), broadcast(), ours(*UNBOUNDED))
        )
        past = f"{made}?start=earliest"
        cells: dict[str, Callable[[], float]] = {}
        for clients in (1, 100):
            for name, url in (("usual", usual), ("broadcast", sending), ("ours", past)):
                cells[f"{name} {clients}"] = lambda url=url, clients=clients: count(  # type: ignore[misc]
                    url, clients=clients, seconds=seconds
                )
        cells["ndjson"] = lambda: count(f"{past}&format=ndjson", clients=1, seconds=seconds, lines=True)
        cells["arrow"] = lambda: fill_frame(made, FRAME_EVENTS)
        for _ in range(rounds):
            for name, measure in cells.items():
                figures.setdefault(name, []).append(measure())
    median = {name: statistics.median(found) for name, found in figures.items()}
    for clients, wanted in (
        (1, "20 × reference, 3 × broadcast"),
        (100, "4 × reference, more than broadcast"),
    ):
        row(
            f"json, {clients} client{'s' * (clients > 1)}, events/s",
            median[f"ours {clients}"],
            usual=median[f"usual {clients}"],
            broadcasting=median[f"broadcast {clients}"],
            wanted=wanted,
        )
    row("ndjson, 1 client, events/s", median["ndjson"], usual=median["usual 1"], wanted="300,000")
    row("arrow into RollingFrame.df, events/s", median["arrow"], usual=median["usual 1"], wanted="1,000,000")


def latency(seconds: float, _: int) -> None:
    """Print how punctual the servers are: for many readers, and at slow and fast rates."""
    crowds = []
    for program in (ours("--rate", str(CROWD_RATE)), reference("--rate", str(CROWD_RATE))):
        with (
            serving(*program) as server,
            RawReader(server.url, seconds=6 * seconds, warm_up=3, clients=CROWD) as reader,
        ):
            crowds.append(reader.arrivals())
    for q in (50, 99):
        mine, usual = (float(np.percentile(crowd.delays, q)) for crowd in crowds)
        row(
            f"{CROWD:,} clients at {CROWD_RATE} events/s: delay p{q}, ms",
            mine,
            usual=usual,
            digits=1,
            wanted="< 100" if q == 99 else "",
        )
    # The reference sleeps after its work, so it has less to deliver: its delays are those of a slower stream.
    mine, usual = (len(crowd.delays) / CROWD / (6 * seconds) for crowd in crowds)
    row("  events/s that each of them got", mine, usual=usual, digits=2, wanted=str(CROWD_RATE))
    recorded = record_rates(seconds)
    for rate in RATES:
        mine, usual = (abs(rate_error(recorded[program, rate], rate)) for program in (ours, reference))
        row(f"error of {rate:,g} events/s, %", mine, usual=usual, digits=4, wanted="< 0.1")
    for rate in FAST:
        for name, of, wanted in (("delay", delay, ""), ("jitter", jitter, "< 5" if rate == 1000 else "")):
            mine, usual = (of(recorded[program, rate]) for program in (ours, reference))
            row(f"{name} p99 at {rate:,g} events/s, ms", mine, usual=usual, digits=2, wanted=wanted)


def record_rates(seconds: float) -> dict[tuple[Program, float], Arrivals]:
    """Record a client at each rate: at the slow ones for as long as all the fast ones take in turn."""
    recorded = {}
    with ExitStack() as stack:
        slow = {}
        for program, rate in product((ours, reference), SLOW):
            server = stack.enter_context(serving(*program("--rate", str(rate))))
            length = max(7 * seconds * 2 * len(FAST), 4.2 / rate)
            slow[program, rate] = stack.enter_context(RawReader(server.url, seconds=length, warm_up=0))
        for program, rate in product((ours, reference), FAST):
            with (
                serving(*program("--rate", str(rate))) as server,
                RawReader(server.url, seconds=6 * seconds, warm_up=1) as reader,
            ):
                recorded[program, rate] = reader.arrivals()
        return recorded | {key: reader.arrivals() for key, reader in slow.items()}


def rate_error(arrivals: Arrivals, rate: float) -> float:
    """Return by how many percent the rate of arrivals is off.

    The rate is that of the middle one of the lines through messages that are half the recording apart, so
    that a few late ones, delayed by other work of the machine, do not count.
    """
    times = arrivals.arrived / 1e6
    half = len(times) // 2
    return float(half / np.median(times[half:] - times[: len(times) - half]) / rate - 1) * 100


def delay(arrivals: Arrivals) -> float:
    """Return the 99th percentile of the delays, in milliseconds."""
    return float(np.percentile(arrivals.delays, 99))


def jitter(arrivals: Arrivals) -> float:
    """Return the 99th percentile of the distance of a delay from the median delay, in milliseconds."""
    return float(np.percentile(np.abs(arrivals.delays - np.median(arrivals.delays)), 99))


def stalled(seconds: float, _: int) -> None:
    """Print what one stopped reader does to the others, and whether it comes after."""
    stop = 30 * seconds
    with serving(*ours("--rate", str(STALL_RATE))) as server:
        url = f"{server.url}?format=ndjson"
        with RawReader(url, seconds=10 * seconds, warm_up=2, clients=STALL_READERS + 1) as crowd:
            undisturbed = delay(crowd.arrivals())
        watch = Watch(server.pid)
        length = stop + CATCH_UP + 2
        with (
            RawReader(url, seconds=length, warm_up=0, every=True) as victim,
            RawReader(url, seconds=length, warm_up=0, clients=STALL_READERS) as crowd,
            watch,
        ):
            time.sleep(2)  # both have begun
            before, stopped = resident(server.pid), time.time()
            victim.send_signal(signal.SIGSTOP)
            time.sleep(stop)
            victim.send_signal(signal.SIGCONT)
            resumed = time.time()
            others, late = crowd.arrivals(), victim.arrivals()
    during = delay(others.between(stopped, resumed))
    after = delay(others.between(resumed, resumed + CATCH_UP))
    name = f"{STALL_READERS} ndjson readers at {STALL_RATE:,}/s: delay p99"
    row(f"{name}, ms", undisturbed, digits=2)
    row(
        f"  while another is stopped for {stop:g} s, ms",
        during,
        digits=2,
        wanted=f"< {1.5 * undisturbed:.2f}",
    )
    row("  while it catches up, ms", after, digits=2, wanted=f"< {1.5 * undisturbed:.2f}")
    row("  growth of the server's memory, MiB", watch.most - before, digits=1, wanted="< 20")
    row("  events that the stopped one lacks", float(missing(late.every)), wanted="0")
    caught = late.between(resumed, resumed + CATCH_UP + 2)
    behind = caught.arrived[caught.delays > 250]
    row("  until it has caught up, s", float(behind[-1] / 1e6 - resumed) if len(behind) else 0.0, digits=2)


class Watch:
    """Notes the most memory that a process holds, on a thread, from the beginning of the block to its end."""

    def __init__(self, pid: int) -> None:
        self.most = 0.0
        self._pid = pid
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(0.5):
            self.most = max(self.most, resident(self._pid))


def missing(happened: np.ndarray) -> int:
    """Return how many events are absent from, or twice in, a run of times that should be evenly spaced."""
    steps = np.rint(np.diff(happened) / (1e6 / STALL_RATE)).astype(np.int64)
    return int(np.abs(steps - 1).sum())


def start(_: float, rounds: int) -> None:
    """Print how long it takes until a server has sent its first event, and an import."""
    programs = {"ours": (ours(), "?start=earliest"), "usual": (reference("--rate", "2"), "")}
    taken: dict[str, list[float]] = {name: [] for name in (*programs, "nothing", *IMPORTS)}
    for _ in range(max(rounds, 5)):
        for name, (program, query) in programs.items():
            taken[name].append(first_event(program, query))
        for name, code in {"nothing": "pass", **IMPORTS}.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            taken[name].append(time.perf_counter() - begin)
    median = {name: statistics.median(found) for name, found in taken.items()}
    row(
        "server: from the command to the first event, s",
        median["ours"],
        usual=median["usual"],
        digits=2,
        wanted="< 1",
    )
    for name in IMPORTS:
        row(f"{name}, s", median[name] - median["nothing"], digits=3, wanted="< 0.5")


def first_event(program: tuple[str, ...], query: str) -> float:
    """Return the seconds from starting a server to its first event."""
    begin = time.perf_counter()
    with serving(*program) as server:
        connection = connect(server.url + query)
        piece = connection.early or connection.socket.recv(65_536)
        taken = time.perf_counter() - begin
        connection.socket.close()
    if piece[0] != TEXT:
        raise SystemExit(f"expected a text frame, got {piece!r}")
    return taken


SECTIONS = {"throughput": throughput, "latency": latency, "stalled": stalled, "start": start}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join(SECTIONS))
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="of one count; the rest scales with it (default: 1)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of which the median counts (default: 3)")
    options = parser.parse_args()
    if unknown := set(options.sections) - set(SECTIONS):
        parser.error(f"no section {', '.join(unknown)}: there are {', '.join(SECTIONS)}")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a socket for each client
    loop = "uvloop" if importlib.util.find_spec("uvloop") else "asyncio (uvloop is not installed)"
    load = os.getloadavg()[0]
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores, load {load:.1f}, all on {loop}")
    print(f"{'':<52}{'reference':>12}{'broadcast':>12}{'ours':>14}{'/ref.':>9}{'/broad.':>9}  wanted")
    for name in options.sections or SECTIONS:
        SECTIONS[name](options.seconds, options.rounds)
    print(f"load {os.getloadavg()[0]:.1f} at the end: times mean little where others use the cores")


if __name__ == "__main__":
    main()

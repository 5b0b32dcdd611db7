"""Does the rate mean what it says? Counts events over a minute through a real client.

Each rate has a server process of its own (`logistream serve`) and one reader here. After a warm-up, arrivals
are counted from half an interval after the time of an event on, so that a perfect stream gives exactly rate
times seconds. The delay is from the event's own time to its arrival, on the clock of this machine.

Run: python tests/benchmarks/rate.py [--seconds 60] [RATE ...]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
import sys
import time
from datetime import datetime

import websockets

WARM_UP = 3.0  # seconds: other servers are still starting


async def record(rate: float, seconds: float) -> list[tuple[float, str | bytes]]:
    """Return when each event that is counted arrived, in seconds since the Unix epoch, and its message."""
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "logistream", "serve", "--port", "0", "--rate", str(rate)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert server.stdout is not None
    arrived: list[tuple[float, str | bytes]] = []
    try:
        found = None
        while found is None:
            found = re.search(r"ws://\S+", (await server.stdout.readline()).decode())
        async with websockets.connect(found[0], max_queue=None) as reader:
            warm = time.time() + WARM_UP
            while time.time() < warm:
                message = await reader.recv()
            start = happened(message) + 0.5 / rate
            while time.time() < start + seconds:
                message = await reader.recv()
                arrived.append((time.time(), message))
    finally:
        server.terminate()
        await server.wait()
    return [(timestamp, message) for timestamp, message in arrived if start <= timestamp < start + seconds]


def happened(message: str | bytes) -> float:
    """Return the time of an event in seconds since the Unix epoch."""
    return datetime.fromisoformat(json.loads(message)["event_time"]).timestamp()


def line(rate: float, seconds: float, arrived: list[tuple[float, str | bytes]]) -> str:
    """Return one line of the table."""
    expected, counted = rate * seconds, len(arrived)
    delays = [timestamp - happened(message) for timestamp, message in arrived]
    median, p99 = statistics.median(delays), statistics.quantiles(delays, n=100)[98]
    return (
        f"{rate:g}\t{seconds:g}\t{expected:g}\t{counted}\t{(counted - expected) / expected:+.4%}\t"
        f"{median * 1e3:.1f}\t{p99 * 1e3:.1f}\t{max(delays) * 1e3:.1f}"
    )


async def main() -> None:
    """Measure all rates at the same time and print the table."""
    parser = argparse.ArgumentParser(description="Count events against rate times seconds.")
    parser.add_argument("rates", nargs="*", type=float, default=[2.0, 50.0, 1000.0], metavar="RATE")
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args()
    print("requested/s\tseconds\texpected\tcounted\terror\tmedian delay ms\tp99\tmax")
    # nothing is computed before all are done: it would hold up the readers that still count
    recorded = await asyncio.gather(*(record(rate, options.seconds) for rate in options.rates))
    for rate, arrived in zip(options.rates, recorded, strict=True):
        print(line(rate, options.seconds, arrived))


if __name__ == "__main__":
    asyncio.run(main())

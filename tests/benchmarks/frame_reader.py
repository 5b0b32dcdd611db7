"""How long a `RollingFrame` takes to hold the past of a stream: from `follow` to `df`, in its own process.

    python tests/benchmarks/frame_reader.py URL --events N [--rows R]

Prints the events per second as JSON.
"""

from __future__ import annotations

import argparse
import json
import time

import logistream as ls

KEYS = 23
PATIENCE = 60.0  # seconds


def main() -> None:
    """Follow, wait, look at the frame, and check it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    options = parser.parse_args()
    frame = ls.RollingFrame(rows=options.rows, window=None)
    begin = time.perf_counter()
    with frame.follow(options.url, start="earliest") as follower:
        if not frame.wait(options.events, PATIENCE):
            raise SystemExit(f"{frame.appended} of {options.events} events within {PATIENCE:g} s: {follower}")
        events, df = frame.appended, frame.df
        taken = time.perf_counter() - begin
    steps = df["event_time"].diff().dropna()
    if len(df) < min(options.rows, events) or len(df.columns) != KEYS or steps.nunique() != 1:
        raise SystemExit(f"expected consecutive events of {KEYS} columns, got {df}")
    print(json.dumps({"events_per_second": events / taken}))


if __name__ == "__main__":
    main()

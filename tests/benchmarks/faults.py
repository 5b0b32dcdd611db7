"""What faults of the wire cost beside plain events, read in sequence and written as JSON or Arrow.

    python tests/benchmarks/faults.py [--rounds N] [--blocks N]

For each list of faults: the median over the rounds of events per second of processor time, with and without
the faults in turns, and the median of the ratios of the times. Reading begins where delays of any length are
in their steady state; the first of its blocks, which looks back as far as the delays reach, is not timed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import TYPE_CHECKING, Any

import pyarrow as pa

import logistream as ls
from logistream.model.sampling import BLOCK
from logistream.stream.corruption import corrupt_columns, corrupt_strings
from logistream.stream.encoding import Encoder
from logistream.stream.stream import Stream
from logistream.stream.timeline import Timeline, first_entry

if TYPE_CHECKING:
    from logistream.model.model import Model

NOW = 1_795_000_000_000_000
FIRST = 30  # block
RATE = 20_000

CASES: dict[str, list[dict[str, Any]]] = {
    "5 % late by 1 to 500": [{"late": {"events": [1, 500]}, "share": 0.05}],
    "5 % late by 1 to 100,000": [{"late": {"events": [1, 100_000]}, "share": 0.05}],
    "all late by 1 to 100,000": [{"late": {"events": [1, 100_000]}, "share": 1}],
    "all late by 100,000": [{"late": {"events": 100_000}, "share": 1}],
    "5 % late by 1 to 5 s": [{"late": {"seconds": [1, 5]}, "share": 0.05}],
    "all late by 1 to 5 s": [{"late": {"seconds": [1, 5]}, "share": 1}],
    "all reordered within 50": [{"reorder": {"within": 50}, "share": 1}],
    "late, twice, dropped, corrupt": [
        {"late": {"events": [1, 100_000]}, "share": 0.05, "where": "Market:Europe"},
        {"duplicate": {"events": [0, 100]}, "share": 0.02},
        {"drop": True, "share": 0.01},
        {"corrupt": "type", "share": 0.01},
    ],
}


def read(stream: Stream, form: str, start: int, blocks: int) -> None:
    """Read and write some blocks, as a server does for one selection."""
    encoder = Encoder(stream.model.event_schema, after="\n")
    names = list(encoder.schema.names)
    for block in range(start, start + blocks):
        low, high = block * BLOCK, (block + 1) * BLOCK
        if not stream.has_faults(low, high):
            batch = stream.batch(low, high)
            if form == "json":
                encoder.join(batch)
            else:
                write_arrow(batch.select(names))
            continue
        batch, deliveries = stream.deliveries(low, high)
        corruptions = deliveries.corruptions
        if form == "arrow":
            write_arrow(corrupt_columns(batch, encoder.schema, corruptions))
            continue
        corrupt_strings(encoder.join(batch), encoder, corruptions)  # fewer rows than `ROWS_AT_ONCE`


def write_arrow(batch: pa.RecordBatch) -> None:
    """Write one message."""
    with pa.ipc.new_stream(pa.BufferOutputStream(), batch.schema) as writer:
        writer.write_batch(batch)


def seconds(model: Model, faults: list[dict[str, Any]], form: str, blocks: int, seed: int) -> float:
    """Return the processor time of one reading."""
    stream = Stream(model, Timeline([first_entry(NOW, rate=RATE)]), seed=seed, clock=lambda: NOW)
    stream.change(faults=faults)
    read(stream, form, FIRST - 1, 1)
    begun = time.process_time()
    read(stream, form, FIRST, blocks)
    return time.process_time() - begun


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="of which the median counts (default: 5)")
    parser.add_argument("--blocks", type=int, default=24, help="of 4,096 events (default: 24)")
    options = parser.parse_args()
    model = ls.load_model()
    events = options.blocks * BLOCK
    print(f"{'faults':<32}{'format':>8}{'plain, events/s':>18}{'with faults':>14}{'ratio':>8}")
    for name, faults in CASES.items():
        for form in ("json", "arrow"):
            plain, faulty = [], []
            for seed in range(options.rounds):
                plain.append(seconds(model, [], form, options.blocks, seed))
                faulty.append(seconds(model, faults, form, options.blocks, seed))
            ratio = statistics.median(b / a for a, b in zip(plain, faulty, strict=True))
            rates = [f"{events / statistics.median(times):,.0f}" for times in (plain, faulty)]
            print(f"{name:<32}{form:>8}{rates[0]:>18}{rates[1]:>14}{ratio:>8.2f}")


if __name__ == "__main__":
    main()

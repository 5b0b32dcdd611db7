"""How long it takes to verify a Parquet file, and in how much memory, beside reading it with pyarrow.

    python tests/benchmarks/verify.py [--rows N] [--sinks ordered shuffled faulty]

Each in a process of its own: rows per second of elapsed and of processor time, and the most memory that was
resident, as Linux counts it. The file has all columns of the shipped model. `shuffled` holds the same rows in
random order within stretches of half a million, the stretches in random order too; `faulty` is what a stream
with faults of every kind delivers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import logistream as ls
from logistream.schema import EVENT_NUMBER, Schema
from logistream.stream.corruption import corrupt_columns
from logistream.stream.stream import Stream
from logistream.stream.timeline import Entry, first_entry
from logistream.stream.timeline_file import open_timeline_file

FAULTS = [
    {"late": {"events": [1, 500]}, "share": 0.05},
    {"reorder": {"within": 50}, "share": 0.05},
    {"duplicate": {"copies": 1, "events": [0, 100]}, "share": 0.02},
    {"drop": True, "share": 0.01},
    {"corrupt": "null", "share": 0.001},
]
PIECE = 65_536
STRETCH = 8 * PIECE

READ = """
import pyarrow.parquet as pq
rows = sum(batch.num_rows for batch in pq.ParquetFile(sys.argv[1]).iter_batches(65536))
"""
VERIFY = """
import logistream as ls
found = ls.verify(sys.argv[1], Path(sys.argv[2]), ordered=len(sys.argv) == 3)
assert found.ok, found
rows = found.rows
"""
MEASURED = """
import json, re, sys, time
from pathlib import Path
begun = time.perf_counter()
{what}
peak = int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024
print(json.dumps([rows, time.perf_counter() - begun, time.process_time(), peak]))
"""


def stream_of(timeline: Path, rows: int, *, faulty: bool) -> Stream:
    """Return a stream of which so many events have happened."""
    model = ls.load_model()
    header: dict[str, str | int] = {"model": model.checksum, "model_name": model.name, "seed": 0}
    history = (rows + 2 * STRETCH) * 100  # microseconds, at 10,000 events per second
    file = open_timeline_file(
        timeline, header=header, first_entry=lambda now: first_entry(now, rate=10_000, history=history)
    )
    stream = Stream(model, file)
    if faulty:  # in place of the first entry, so that they hold from the first event on
        entry = stream.timeline.entries[0].to_json() | {"faults": FAULTS}
        file.close()
        timeline.unlink()
        file = open_timeline_file(timeline, header=header, first_entry=lambda _: Entry.from_json(entry))
        stream = Stream(model, file)
    return stream


def write(stream: Stream, path: Path, rows: int, kind: str) -> None:
    """Write a sink."""
    schema = Schema((*stream.model.full_schema, EVENT_NUMBER))
    rng = np.random.default_rng(0)
    step = STRETCH if kind == "shuffled" else PIECE
    starts = np.arange(0, rows, step)
    if kind == "shuffled":
        rng.shuffle(starts)
    writer = None
    for start in starts.tolist():
        stop = min(start + step, rows)
        if kind == "faulty":
            batch, deliveries = stream.deliveries(start, stop)
            batch = batch.append_column(EVENT_NUMBER.name, pa.array(deliveries.numbers))
            batch = corrupt_columns(batch, schema, deliveries.corruptions)
        else:
            parts = [stream.batch(low, min(low + PIECE, stop)) for low in range(start, stop, PIECE)]
            batch = pa.concat_batches(parts)
            batch = batch.append_column(EVENT_NUMBER.name, pa.array(np.arange(start, stop)))
        if kind == "shuffled":
            batch = batch.take(pa.array(rng.permutation(len(batch))))
        writer = writer or pq.ParquetWriter(path, batch.schema)
        writer.write_table(pa.Table.from_batches([batch]), row_group_size=PIECE)
    assert writer is not None
    writer.close()


def measured(what: str, *arguments: str) -> tuple[int, float, float, float]:
    """Run a piece of code in a process of its own; return rows, seconds, seconds of processor, and MiB."""
    command = [sys.executable, "-c", MEASURED.format(what=what), *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    rows, elapsed, used, peak = json.loads(done.stdout)
    return rows, elapsed, used, peak


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=10_000_000, help="of the sink (default: 10,000,000)")
    sinks = ("ordered", "shuffled", "faulty")
    parser.add_argument("--sinks", nargs="+", choices=sinks, default=sinks, help="(default: all)")
    options = parser.parse_args()
    print(f"{'':<20}{'rows':>12}{'s':>8}{'rows/s':>12}{'rows/s of CPU':>15}{'peak MiB':>10}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for kind in options.sinks:
            sink, timeline = Path(folder) / f"{kind}.parquet", Path(folder) / f"{kind}.timeline"
            write(stream_of(timeline, options.rows, faulty=kind == "faulty"), sink, options.rows, kind)
            for name, what, arguments in (
                ("read", READ, ()),
                ("verify", VERIFY, (str(timeline), *["any order"] * (kind == "shuffled"))),
            ):
                rows, elapsed, used, peak = measured(what, str(sink), *arguments)
                print(
                    f"{kind + ', ' + name:<20}{rows:>12,}{elapsed:>8.1f}{rows / elapsed:>12,.0f}"
                    f"{rows / used:>15,.0f}{peak:>10,.0f}",
                    flush=True,
                )
            sink.unlink()


if __name__ == "__main__":
    main()

"""How much an append costs, by how much the window holds; beside growing a DataFrame with `pd.concat`.

Run `python tests/benchmarks/frame.py`. Microseconds per event, medians of repeats. Appends are of one
event and of 100 of the published schema, ready-made in columns, so that neither side pays for parsing.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pyarrow as pa

from logistream.dataco import EVENT
from logistream.frame.frame import RollingFrame
from logistream.schema import EVENT_TIME

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

BATCH = 100
SIZES = (1_000, 10_000, 100_000, 1_000_000)


def batch(first: int, count: int) -> pa.RecordBatch:
    """Make events `first` to `first + count`, one a millisecond, with 12 strings a column."""
    rng = np.random.default_rng(first)
    arrays: list[pa.Array] = []
    values: NDArray[np.int64] | NDArray[np.float64]
    for column in EVENT:
        if column.name == EVENT_TIME.name:
            values = 1_790_000_000_000_000 + 1000 * np.arange(first, first + count)
        elif column.kind == "category":
            strings = pa.array([f"{column.name} {n}" for n in range(12)])
            codes = pa.array(rng.integers(0, 12, count).astype(np.int32))
            arrays.append(pa.DictionaryArray.from_arrays(codes, strings))
            continue
        elif column.kind == "number":
            values = rng.normal(100, 30, count).round(2)
        else:
            values = rng.integers(0, 60, count)
        arrays.append(pa.array(values, column.arrow_field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=EVENT.arrow)


def median(repeats: int, step: Callable[[int], object]) -> float:
    """Return the median duration of `step(0)`, `step(1)`, … in seconds."""
    durations = []
    for number in range(repeats):
        start = time.perf_counter()
        step(number)
        durations.append(time.perf_counter() - start)
    return statistics.median(durations)


def measure(rows: int, repeats: int, concat_repeats: int) -> tuple[float, float, float, float]:
    """Return seconds: append of one event, of BATCH, of BATCH by concat; snapshot."""
    old = batch(0, rows)
    frame = RollingFrame(rows=rows, window=None, schema=EVENT)
    frame.append(old)
    news = [batch(rows + n * BATCH, BATCH) for n in range(repeats)]
    singles = [batch(rows + n, 1) for n in range(repeats)]
    one = median(repeats, lambda n: frame.append(singles[n]))
    append = median(repeats, lambda n: frame.append(news[n]))

    def look(n: int) -> pd.DataFrame:
        frame.append(news[n])
        return frame.df

    snapshot = median(5, look)
    held = [RollingFrame(rows=None, window=None, schema=EVENT) for _ in range(2)]
    held[0].append(old)
    held[1].append(news[0])
    df, new = held[0].df, held[1].df
    concat = median(concat_repeats, lambda _: pd.concat([df, new], ignore_index=True).iloc[-rows:])
    return one, append, concat, snapshot


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=200)
    parser.add_argument("--concat-repeats", type=int, default=7)
    options = parser.parse_args()
    print(f"Python {platform.python_version()}, pandas {pd.__version__}, pyarrow {pa.__version__}")
    print(f"{len(EVENT)} columns; us per event, by events an append; medians")
    print(f"rows held\tappend of 1\tappend of {BATCH}\tpd.concat of {BATCH}\tsnapshot, ms")
    for rows in SIZES:
        one, append, concat, snapshot = measure(rows, options.repeats, options.concat_repeats)
        costs = (one, append / BATCH, concat / BATCH)
        print(f"{rows:,}", *(f"{cost * 1e6:.1f}" for cost in costs), f"{snapshot * 1e3:.1f}", sep="\t")


if __name__ == "__main__":
    main()

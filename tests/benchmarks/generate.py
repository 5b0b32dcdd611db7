"""How fast rows are made, a model is fitted, saved and loaded.

    python tests/benchmarks/generate.py [CSV] [--sdv PYTHON]

Prints one table, our figures beside those of Faker, if it is installed, and of SDV (neither is a
dependency). Medians of several runs on one core. Without a CSV the shipped synthetic orders are fitted.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pandas as pd

import logistream as ls
from logistream.model.sampling import BLOCK, Sampler

RUNS = 5


def median_seconds(work: Callable[[], object], runs: int = RUNS) -> float:
    """Return the median duration of a call."""
    taken = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def row(name: str, seconds: float, rows: int | None = None) -> None:
    """Print a line of the table."""
    rate = f"{rows / seconds:>14,.0f}" if rows else " " * 14
    print(f"{name:<58}{seconds * 1000:>12,.1f}{rate}")


def ours(df: pd.DataFrame, folder: Path) -> ls.Model:
    """Print our figures and return the model."""
    model = ls.fit(df)
    row(f"fit {len(df):,} rows of {len(df.columns)} columns", median_seconds(lambda: ls.fit(df), 3), len(df))
    large = model.sample(180_000)
    row(f"fit {len(large):,} rows, made by the model", median_seconds(lambda: ls.fit(large), 1), len(large))
    path = model.save(folder / "m.model")
    row(
        f"load the model ({path.stat().st_size / 1024:,.0f} KiB)", median_seconds(lambda: ls.load_model(path))
    )
    sampler, blocks = Sampler(model), iter(range(10**9))
    n = 100 * BLOCK

    def make() -> None:
        for _ in range(100):
            block = next(blocks)
            sampler.batch(block * BLOCK, (block + 1) * BLOCK)

    row("events into Arrow columns, one core", median_seconds(make), n)
    tracemalloc.start()
    make()
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    print(f"{'  memory above the start while doing so, MiB':<58}{peak:>12,.1f}")
    tracemalloc.stop()
    row("sample(100,000) as a DataFrame", median_seconds(lambda: model.sample(100_000)), 100_000)
    row(
        "one event far away: events(10**12, 10**12 + 1)",
        median_seconds(lambda: model.events(10**12, 10**12 + 1)),
    )
    return model


def faker(columns: int) -> None:
    """Print Faker's figure for rows of as many independent columns of like kinds."""
    from faker import Faker

    fake = Faker()
    Faker.seed(0)
    kinds = [fake.city, fake.country, fake.latitude, fake.random_int, fake.date_time_this_decade, fake.word]
    n = 2_000
    work = lambda: [[kinds[i % len(kinds)]() for i in range(columns)] for _ in range(n)]  # noqa: E731
    row(f"Faker, {columns} independent columns", median_seconds(work, 3), n)


def sdv(python: str, model: ls.Model, df: pd.DataFrame, folder: Path) -> None:
    """Print the figures of SDV's GaussianCopula, which runs under an interpreter of its own."""
    fitted, kinds, rows = folder / "fitted.parquet", folder / "kinds.json", 20_000
    plain = df.astype(dict.fromkeys(df.columns[df.dtypes == "category"], "str"))
    plain.to_parquet(fitted, index=False)
    kinds.write_text(json.dumps({c.name: c.kind for c in model.schema}))
    script = str(Path(__file__).with_name("sdv_rows.py"))
    call = [python, script, str(fitted), str(kinds), str(rows), str(folder / "out.parquet")]
    taken = json.loads(
        subprocess.run(call, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    )
    row(f"SDV GaussianCopula, fit {len(df):,} rows", taken["fit"], len(df))
    row(f"SDV GaussianCopula, sample {rows:,} rows", taken["sample"], rows)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    shipped = Path(__file__).parents[2] / "data" / "df_cleaned.parquet"
    parser.add_argument("csv", nargs="?", default=shipped)
    parser.add_argument("--sdv", metavar="PYTHON", help="an interpreter that has sdv, to compare with")
    options = parser.parse_args()
    df = ls.read_orders(options.csv)
    print(f"{'':<58}{'ms':>12}{'rows/s':>14}")
    with tempfile.TemporaryDirectory() as folder:
        model = ours(df, Path(folder))
        if importlib.util.find_spec("faker"):
            faker(len(df.columns))
        if options.sdv:
            sdv(options.sdv, model, df, Path(folder))


if __name__ == "__main__":
    main()

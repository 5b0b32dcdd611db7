"""Measure how close synthetic rows are to real ones, on tables that the package was not prepared for.

Each table is split: two thirds are fitted, with no option set, one third is compared with. There is a line
for each maker of rows: `logistream`; the fitted rows, resampled; the fitted rows themselves; SDV's
GaussianCopula if an interpreter that has it is named. Figures are those of `Model.report`, averaged over the
splits; shapes and pairs are divided by those of the fitted rows. C2ST is beside unseen rows, then beside
fitted ones. Copies and rules are per cent of the rows; seconds are for the fit.

Run: python tests/benchmarks/fidelity.py [--splits 3] [--sdv PYTHON] [TABLE ...]
     (orders are there if LOGISTREAM_SAMPLE names the real sample)
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import SOURCES, load, split

from logistream.dataco import read_orders
from logistream.evaluation.evaluate import report
from logistream.fitting.fit import fit
from logistream.schema import Schema

SDV_ROWS = 20_000
HEADS = ("shapes/real", "pairs/real", "C2ST", "C2ST fitted", "target", "rules %", "copies %", "balance")


@dataclass(frozen=True)
class Rows:
    """Rows that were made elsewhere."""

    name: str
    schema: Schema
    frame: pd.DataFrame

    def sample(self, n: int, seed: int = 0) -> pd.DataFrame:  # noqa: ARG002 - they are made already
        return self.frame.iloc[:n]


def from_sdv(python: str, fitted: pd.DataFrame, schema: Schema) -> Rows:
    """Return rows of SDV's GaussianCopula, made by another interpreter."""
    with tempfile.TemporaryDirectory() as folder:
        rows, kinds, out = (
            str(Path(folder) / name) for name in ("rows.parquet", "kinds.json", "out.parquet")
        )
        strings = {c.name: "str" for c in schema if c.kind == "category"}
        fitted.assign(**{name: fitted[name].astype("str") for name in strings}).to_parquet(rows)
        Path(kinds).write_text(json.dumps({c.name: c.kind for c in schema}))
        script = Path(__file__).with_name("sdv_rows.py")
        subprocess.run(
            [python, str(script), rows, kinds, str(SDV_ROWS), out],
            check=True,
            capture_output=True,
        )
        return Rows("GaussianCopula", schema, pd.read_parquet(out))


def measure(frame: pd.DataFrame, target: str | None, splits: int, sdv: str | None) -> dict[str, list[float]]:
    """Return the figures of each maker of rows: shapes, pairs, ... as in `HEADS`, then seconds."""
    figures: dict[str, list[list[float]]] = defaultdict(list)
    for seed in range(splits):
        fitted, held = split(frame, seed)
        started = time.perf_counter()
        model = fit(fitted)
        seconds = {"logistream": time.perf_counter() - started}
        reports = {"logistream": report(model, held, train=fitted, target=target, seed=seed)}
        if sdv is not None and seed == 0:  # it is slow, and far off at every split
            started = time.perf_counter()
            rows = from_sdv(sdv, fitted, model.schema)
            seconds["SDV"] = time.perf_counter() - started
            reports["SDV"] = report(rows, held, train=fitted, target=target, seed=seed)
        ours = reports["logistream"].figures
        columns = {name: made.figures["synthetic"] for name, made in reports.items()}
        columns |= {"resampled": ours["resampled"], "real": ours["real"]}
        for name, column in columns.items():
            c = column.reindex(
                ["shapes", "pairs", "c2st", "c2st_fitted", "target", "rules", "copies", "balance"]
            )
            scale = [ours.loc["shapes", "real"], ours.loc["pairs", "real"], 1, 1, 1, 0.01, 0.01, 1]
            figures[name].append([*(c.to_numpy() / scale), seconds.get(name, np.nan)])
    return {name: list(np.mean(rows, axis=0)) for name, rows in figures.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "tables", nargs="*", metavar="TABLE", help=f"orders, {', '.join(SOURCES)} (default: all)"
    )
    parser.add_argument("--splits", type=int, default=1, help="average over so many (default: 1)")
    parser.add_argument("--sdv", metavar="PYTHON", help="an interpreter that has SDV")
    options = parser.parse_args()
    head = "".join(f"{text:>13}" for text in (*HEADS, "seconds"))
    print(f"{'':10}{'':12}{head}", flush=True)
    for name in options.tables or ("orders", *SOURCES):
        target = None
        if name == "orders":
            path = os.environ.get("LOGISTREAM_SAMPLE")
            frame = read_orders(path) if path else None
        else:
            frame, target = load(name), SOURCES[name].target
        if frame is None:
            print(f"{name}: not here", file=sys.stderr)
            continue
        for maker, figures in measure(frame, target, options.splits, options.sdv).items():
            cells = "".join(f"{'' if np.isnan(value) else f'{value:.3f}':>13}" for value in figures)
            print(f"{name:10}{maker:12}{cells}", flush=True)


if __name__ == "__main__":
    main()

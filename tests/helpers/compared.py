"""Rows with a known structure, for everything that compares rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from logistream.evaluation.numeric import NumericTable, numeric_tables
from logistream.schema import Column, Schema

SCHEMA = Schema(
    (
        Column("town", "category"),
        Column("state", "category"),
        Column("x", "number", decimals=2),
        Column("n", "integer", nullable=True),
        Column("y", "number", decimals=2),
        Column("late", "boolean"),
        Column("when", "timestamp"),
    )
)
STATES = {"Ayr": "S", "Bath": "E", "Cork": "I", "Dover": "E"}


def rows(n: int, seed: int, *, missing: bool = False) -> pd.DataFrame:
    """Return rows in which town fixes state, y = x * n, and late follows x."""
    rng = np.random.default_rng(seed)
    town = rng.choice(list(STATES), n, p=[0.4, 0.3, 0.2, 0.1])
    x = rng.gamma(4, 25, n).round(2)
    count = rng.integers(1, 6, n)
    frame = pd.DataFrame(
        {
            "town": pd.Series(town, dtype="category"),
            "state": pd.Series([STATES[name] for name in town], dtype="category"),
            "x": x,
            "n": pd.Series(count, dtype="Int64" if missing else "int64"),
            "y": (x * count).round(2),
            "late": x + rng.normal(0, 20, n) > 100,
            "when": pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 10**6, n), unit="s"),
        }
    )
    if missing:
        frame.loc[rng.random(n) < 0.3, "n"] = pd.NA
        frame.loc[rng.random(n) < 0.3, "town"] = None
    return frame


def apart(frame: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Return the frame with each column shuffled by itself: same shapes, nothing hangs together."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame({name: frame[name].iloc[rng.permutation(len(frame))].to_numpy() for name in frame})


def tables(*frames: pd.DataFrame) -> list[NumericTable]:
    return numeric_tables(SCHEMA, frames)


@dataclass(frozen=True)
class Made:
    """A maker of rows for the report."""

    frame: pd.DataFrame
    schema: Schema = SCHEMA
    name: str = "made"

    def sample(self, n: int, seed: int = 0) -> pd.DataFrame:
        return self.frame.iloc[np.random.default_rng(seed).integers(len(self.frame), size=n)]

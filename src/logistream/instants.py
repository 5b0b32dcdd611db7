"""Instants as whole microseconds, and the parts of a calendar date."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pandas as pd

__all__ = ["CALENDAR", "DAY", "micros"]

DAY = 86_400_000_000
"""Microseconds of a day."""


def micros(values: pd.Series) -> np.ndarray:
    """Return instants as int64 microseconds since 1970 UTC, shape (n_rows,)."""
    naive = values.dt.tz_convert("UTC").dt.tz_localize(None) if values.dt.tz is not None else values
    return naive.astype("datetime64[us]").astype("int64").to_numpy()


def _dates(instants: np.ndarray) -> np.ndarray:
    return np.asarray(instants).astype(np.int64).view("datetime64[us]").astype("datetime64[D]")


def _months(instants: np.ndarray) -> np.ndarray:
    return _dates(instants).astype("datetime64[M]").astype(np.int64)


CALENDAR: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "year": lambda t: 1970 + _months(t) // 12,
    "month": lambda t: _months(t) % 12 + 1,
    "day": lambda t: (_dates(t) - _dates(t).astype("datetime64[M]")).astype(np.int64) + 1,
    "weekday": lambda t: (_dates(t).astype(np.int64) + 3) % 7,
    "hour": lambda t: t.astype(np.int64) % DAY // 3_600_000_000,
    "minute": lambda t: t.astype(np.int64) % 3_600_000_000 // 60_000_000,
    "quarter": lambda t: _months(t) % 12 // 3 + 1,
}
"""Parts of an instant by name: microseconds since 1970 UTC → int64; a week begins with Monday, 0."""

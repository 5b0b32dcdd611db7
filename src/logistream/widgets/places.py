"""Where countries lie: names in English and Spanish → degrees, from Natural Earth (public domain)."""

from __future__ import annotations

import functools
import json
import unicodedata
from importlib import resources
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["coastline", "is_place_column", "locate"]


_MAP = resources.files("logistream.widgets") / "static" / "map"
_ENOUGH = 0.7  # of the different names must be known
_UNITS_PER_DEGREE = 5  # of coastline.json


@functools.cache
def _places() -> dict[str, tuple[float, float]]:
    return {name: (lon, lat) for name, (lon, lat) in json.loads((_MAP / "places.json").read_text()).items()}


def locate(name: str) -> tuple[float, float] | None:
    """Return longitude and latitude of a country in degrees; None for a name that is not known."""
    plain = "".join(
        c if c.isalpha() else " "
        for c in unicodedata.normalize("NFD", name.lower())
        if not unicodedata.combining(c)
    )
    return _places().get(" ".join(plain.split()))


def is_place_column(values: pd.Series) -> bool:
    """Whether most of the different values, at least three, are names of countries."""
    names = values.dropna().astype("str").unique()
    return len(names) >= 3 and sum(locate(name) is not None for name in names) >= _ENOUGH * len(names)


@functools.cache
def coastline() -> tuple[NDArray[np.float64], ...]:
    """Return the rings of land, each of shape (n_points, 2): longitude and latitude in degrees."""
    rings = json.loads((_MAP / "coastline.json").read_text())
    return tuple(np.cumsum(np.reshape(steps, (-1, 2)), axis=0) / _UNITS_PER_DEGREE for steps in rings)

"""Numbers and instants that are never above another: the lowest temperature of a day and the highest.

The one that is drawn later knows the other, but only in ranges, at whose edges they can still come out in the
wrong order. Then one is put as far above the other as it lay below: `low + |high - low|`. So no row breaks
the order, and equal values are no more common than they were.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from logistream.instants import micros
from logistream.model import Formula

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd

    from logistream.coding import Coded
    from logistream.schema import Schema

__all__ = ["find_orders"]

_LEAST_ROWS = 100  # must bear witness
_SCREEN_ROWS = 64
_EASY = 0.05  # of rows put together at random: would break the order


def find_orders(
    df: pd.DataFrame, schema: Schema, coded: Mapping[str, Coded], formulas: Sequence[Formula]
) -> list[Formula]:
    """Return what keeps columns in order, in the order of computing, after all other formulas.

    Columns that are computed from others, or that others are computed from, are left as they are, and so are
    those of few values, which can be asked for.

    Parameters
    ----------
    df : DataFrame of shape (n_rows, n_columns)
        Columns in plain dtypes.
    schema : Schema
        What they are.
    coded : mapping of str to Coded
        The columns that are drawn.
    formulas : sequence of Formula
        What is computed.
    """
    read = {name for formula in formulas for name in (formula.left, formula.right)}
    movable = {name for name, variable in coded.items() if not variable.exact and name not in read}
    drawn = {formula.column for formula in formulas if formula.right and formula.left not in schema}
    whole = [c for c in schema if not c.nullable and c.kind != "category"]
    movable |= {c.name for c in whole if c.kind == "timestamp" and c.name in drawn and c.name not in read}
    numbers = {c.name: df[c.name].to_numpy(np.float64) for c in whole if c.kind in ("integer", "number")}
    instants = {c.name: micros(df[c.name]) for c in whole if c.kind == "timestamp"}
    digits = {c.name: c.decimals for c in whole}
    found: list[Formula] = []
    for columns in (numbers, instants):
        below = _below(columns)
        ascending = sorted(
            columns, key=lambda name: sum(name in lower for lower in below.values()), reverse=True
        )
        for name in ascending:
            if name in movable:
                found += [Formula(name, "at least", low, name, digits[name]) for low in _nearest(below, name)]
        for name in reversed(ascending):
            if name not in movable:
                lower = [low for low in _nearest(below, name) if low in movable]
                found += [Formula(low, "at most", name, low, digits[low]) for low in lower]
    return found


def _below(columns: Mapping[str, np.ndarray]) -> dict[str, set[str]]:
    """Return for each column those that are never above it, though they well might be."""
    below: dict[str, set[str]] = {name: set() for name in columns}
    n = len(next(iter(columns.values()), ()))
    if n < _LEAST_ROWS:
        return below
    few = np.linspace(0, n - 1, _SCREEN_ROWS).astype(np.int64)
    shuffled = np.argsort(np.random.Philox(0).random_raw(n), kind="stable")
    for low, high in itertools.permutations(columns, 2):
        x, y = columns[low], columns[high]
        ordered = (x[few] <= y[few]).all() and (x <= y).all() and (x < y).any()
        if ordered and (x > y[shuffled]).mean() >= _EASY:
            below[high].add(low)
    return below


def _nearest(below: Mapping[str, set[str]], name: str) -> list[str]:
    """Return which columns below need to be looked at: not those that are below another one of them."""
    lower = below[name]
    return sorted(low for low in lower if not any(low in below[between] for between in lower))

"""A table → a model: code the columns, take out what is determined, grow a tree for each variable."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
from rich.console import Console
from rich.progress import track

from logistream.coding import Coded, code_column, code_together, micros
from logistream.errors import DataError
from logistream.model import Delay, Factor, Model
from logistream.schema import EVENT, EVENT_TIME, ORDERS, Column, Schema
from logistream.structure import find_blocks, find_formulas, find_keys
from logistream.trees import grow

__all__ = ["fit"]

_MAX_DECIMALS = 8  # more digits than that are taken as full precision
_MIN_ROWS = 20


def fit(df: pd.DataFrame, *, name: str = "", progress: bool = False) -> Model:
    """Learn a table.

    Parameters
    ----------
    df : DataFrame of shape (n_rows, n_columns)
        `df_cleaned`, or any other table: texts, booleans, whole numbers, real numbers and timestamps, with
        or without missing values. It is not changed.
    name : str
        What to call the model.
    progress : bool
        Whether to show a progress bar, in a terminal or a notebook.

    Returns
    -------
    Model
        Draws rows with the columns, dtypes and joint distribution of `df`.

    Raises
    ------
    DataError
        If there is nothing to learn from, or a column is of a kind that is not supported.
    """
    _check(df)
    orders = set(df.columns) == set(ORDERS.names)
    schema = ORDERS if orders else Schema(tuple(_column(df[label]) for label in df.columns))
    df = df[list(schema.names)].reset_index(drop=True)
    categories = {
        c.name: tuple(sorted(df[c.name].dropna().astype("str").unique()))
        for c in schema
        if c.kind == "category"
    }
    relations = find_formulas(*_numbers(df, schema))
    computed = {relation.formula.column for relation in relations}
    coded = {
        c.name: code_column(df[c.name], c, categories.get(c.name, ()))
        for c in schema
        if c.name not in computed
    }
    for relation in relations:
        if relation.helper is not None:
            helper = Column(relation.formula.right, "number", decimals=relation.helper_decimals)
            coded[helper.name] = code_column(pd.Series(relation.helper), helper)
    return Model(
        name=name or ("DataCo orders" if orders else "table"),
        schema=schema,
        categories=categories,
        dtypes={c.name: str(df[c.name].dtype) for c in schema},
        factors=tuple(_factors(schema, coded, progress=progress)),
        formulas=tuple(relation.formula for relation in relations),
        delays=(_delay(categories),) if orders else (),
        on_request=tuple(c.name for c in schema if orders and c.name not in EVENT),
        rows=len(df),
    )


def _check(df: pd.DataFrame) -> None:
    twice = df.columns[df.columns.duplicated()]
    if len(twice):
        raise DataError(f"column {twice[0]!r} occurs more than once: give each column a name of its own")
    if len(df.columns) == 0 or len(df) < _MIN_ROWS:
        raise DataError(
            f"nothing to learn from: the frame has {len(df):,} rows and {len(df.columns)} columns, "
            f"expected at least {_MIN_ROWS} rows and one column"
        )
    if EVENT_TIME.name in df.columns:
        raise DataError(f"column {EVENT_TIME.name!r} is what the stream adds: leave it out of the frame")


def _column(values: pd.Series) -> Column:
    """Return what a column of a foreign table is, by its dtype and values."""
    name, nullable = str(values.name), bool(values.isna().any())
    known = values.dropna()
    if known.empty:
        raise DataError(f"column {name!r} has no values at all: drop it")
    if pd.api.types.is_bool_dtype(known):
        return Column(name, "boolean", nullable=nullable)
    if pd.api.types.is_datetime64_any_dtype(known):
        return Column(name, "timestamp", nullable=nullable)
    if pd.api.types.is_integer_dtype(known):
        return Column(name, "integer", nullable=nullable)
    if pd.api.types.is_float_dtype(known):
        floats = known.to_numpy(dtype=np.float64)
        if not np.isfinite(floats).all():
            raise DataError(f"column {name!r} holds infinite numbers: replace or drop them")
        return Column(name, "number", nullable=nullable, decimals=_decimals(floats))
    kinds = known.map(type).unique()
    if isinstance(known.dtype, pd.CategoricalDtype) or all(issubclass(kind, str) for kind in kinds):
        return Column(name, "category", nullable=nullable)
    raise DataError(
        f"column {name!r} mixes {', '.join(sorted(kind.__name__ for kind in kinds))}: "
        f"expected one of text, boolean, whole number, real number, timestamp; convert it first"
    )


def _decimals(floats: np.ndarray) -> int | None:
    """Return how many digits after the point the values have, None for more than we keep count of."""
    for digits in range(_MAX_DECIMALS + 1):
        scaled = floats * 10.0**digits
        if np.all(np.abs(scaled) < 2**53) and np.array_equal(np.rint(scaled) / 10.0**digits, floats):
            return digits
    return None


def _numbers(df: pd.DataFrame, schema: Schema) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """Return the numeric columns that formulas are looked for in, and their digits after the point."""
    columns, decimals = {}, {}
    for column in schema:
        if column.nullable:
            continue
        if column.kind == "timestamp":
            columns[column.name] = micros(df[column.name]).astype(np.float64)
            decimals[column.name] = 0
        elif column.kind == "integer" or (column.kind == "number" and column.decimals is not None):
            columns[column.name] = df[column.name].to_numpy(dtype=np.float64)
            decimals[column.name] = column.decimals or 0
    return columns, decimals


def _factors(schema: Schema, coded: dict[str, Coded], *, progress: bool) -> list[Factor]:
    """Return the factors: one or several for each block, key, or single column."""
    exact = {name: variable for name, variable in coded.items() if variable.exact}
    keys = find_keys(exact)
    owner = {other: name for name in reversed(keys) for other in keys[name]}
    free = {name: variable for name, variable in exact.items() if name not in owner}
    blocks = find_blocks(free)
    blocks += [(name,) for name in free if not any(name in block for block in blocks)]
    chains = []
    for block in blocks:
        members = [*block, *(other for name in block for other in keys.get(name, ()) if owner.get(other))]
        chains.append(_levels([coded[name] for name in dict.fromkeys(members)], block))
    instants = [c.name for c in schema if c.kind == "timestamp"]
    loose = [name for name in coded if name not in exact]
    singles = [[coded[name]] for name in loose]
    chains.sort(key=lambda chain: chain[-1].size)
    chains = [
        *(chain for chain in singles if chain[0].name in instants),
        *chains,
        *(chain for chain in singles if chain[0].name not in instants),
    ]
    factors: list[Factor] = []
    drawn: list[Coded] = []
    console = Console(stderr=True)
    for chain in track(chains, "learning", console=console, disable=not progress, transient=True):
        coarser: list[Coded] = []
        for level in chain:
            factors.append(grow(level, drawn, within=coarser))
            drawn.append(level)
            coarser = [level]
    return factors


_STEP = 1.5  # a level is worth a draw of its own if it has so many times the codes of the one before


def _levels(members: list[Coded], block: tuple[str, ...]) -> list[Coded]:
    """Return a block as refinements from the coarse to the fine; the last one gives all its columns."""
    whole = replace(code_together(members), name=", ".join(block), ordered=False)
    if len(block) == 1 and members[0].ordered:
        return [replace(whole, ordered=True)]  # the codes are those of the one that determines the others
    levels: list[Coded] = []
    behind: list[Coded] = []
    for member in sorted(members, key=lambda variable: variable.size):
        behind.append(member)
        level = code_together(behind)
        before = levels[-1].size if levels else 1
        if level.size >= _STEP * before and level.size * _STEP <= whole.size:
            levels.append(level.named(f"{member.name} of {whole.name}"))
    return [*levels, whole]


_REAL_DAYS = {"Same Day": (0, 1), "First Class": (2, 2), "Second Class": (2, 6), "Standard Class": (2, 6)}
"""Fewest and most real shipping days of each mode of DataCo, evenly spread."""


def _delay(categories: dict[str, tuple[str, ...]]) -> Delay:
    """Return how delivery dates of DataCo orders follow the clock; the table itself has no booking date."""
    days = np.array([_REAL_DAYS.get(mode, (0, 6)) for mode in categories["Shipping Mode"]])
    return Delay(
        "shipping date (DateOrders)",
        "Shipping Mode",
        days[:, 0],
        days[:, 1],
        "Days for shipment (scheduled)",
        "Late_delivery_risk",
    )

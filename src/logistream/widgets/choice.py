"""Which columns of a table the widgets draw, chosen by kind and by what a sample of rows shows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from logistream.dataco import DISPLAYED_AMOUNTS, DISPLAYED_POSITIONS, DISPLAYED_WORDS, TARGET
from logistream.errors import RequestError
from logistream.schema import EVENT_NUMBER, EVENT_TIME
from logistream.widgets.places import is_place_column

if TYPE_CHECKING:
    from logistream.schema import Column, Schema

__all__ = ["Amount", "Columns", "check_columns", "choose_columns", "same_columns"]


_FEWEST, _MOST = 2, 12  # as few or as many groups as a chart can show
_SHOWN = 7  # columns of the table of newest rows
_MONEY = frozenset({"USD", "EUR", "GBP", "JPY", "CHF", "CAD", "AUD", "CNY", "INR"})
_LATITUDE, _LONGITUDE = ("latitude", "lat"), ("longitude", "lon", "lng", "long")


@dataclass(frozen=True, slots=True)
class Amount:
    """A number column that is drawn over time.

    Attributes
    ----------
    column, label, unit : str
        Its name, how it is labelled, and its unit (may be empty).
    total : bool
        Whether its sum per minute is drawn; else its mean.
    """

    column: str
    label: str
    unit: str
    total: bool


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns that are drawn; None or empty where the table has none of the kind.

    Attributes
    ----------
    share : str or None
        Column of 0/1 or true/false whose share is drawn.
    by : str or None
        Category column to group by.
    groupings : tuple of str
        The category columns that may be grouped by, the best predictors of the share first.
    amounts : tuple of Amount
        At most two.
    place : str or None
        Category column that holds names of countries.
    latitude, longitude : str or None
        Number columns of degrees; both or none.
    positions : str
        Whose positions these are, else the names of the columns; empty without them.
    table : tuple of str
        Columns of the table of newest rows.
    title, hit, rest : str
        Words for the share, for a row that counts and for one that does not.
    """

    share: str | None
    by: str | None
    groupings: tuple[str, ...]
    amounts: tuple[Amount, ...]
    place: str | None
    latitude: str | None
    longitude: str | None
    positions: str
    table: tuple[str, ...]
    title: str
    hit: str
    rest: str

    def drawn(self, *more: str) -> tuple[str, ...]:
        """Return the names of all columns that are counted, and `more`, each once."""
        names = (
            EVENT_TIME.name,
            self.share,
            self.by,
            self.place,
            self.latitude,
            self.longitude,
            *(amount.column for amount in self.amounts),
            *more,
        )
        return tuple(dict.fromkeys(name for name in names if name is not None))


def same_columns(one: Schema, other: Schema) -> bool:
    """Whether two schemas have the same names and kinds of columns."""
    return [(c.name, c.kind) for c in one] == [(c.name, c.kind) for c in other]


def check_columns(schema: Schema, share: str | None, by: str | None) -> None:
    """Raise `RequestError` for columns that cannot be drawn so."""
    if share is not None and schema[share].kind not in ("integer", "boolean"):
        raise RequestError(
            f"share needs a column of 0/1 or true/false, and {share!r} is a {schema[share].kind}"
        )
    if by is not None and schema[by].kind != "category":
        raise RequestError(f"by needs a category column, and {by!r} is a {schema[by].kind}")


def choose_columns(
    schema: Schema, example: pd.DataFrame, *, share: str | None = None, by: str | None = None
) -> Columns:
    """Choose what to draw of a table.

    Parameters
    ----------
    schema : Schema
        The columns.
    example : DataFrame of shape (n_rows, n_columns)
        Some rows, or none at all. With too few rows the first suitable columns are taken.
    share, by : str or None
        Columns that the caller wants.
    """
    share = share or _share_column(schema, example)
    groupings = _groupings(schema, example, share)
    amounts = _amounts(schema)
    latitude, longitude = _named(schema, _LATITUDE), _named(schema, _LONGITUDE)
    if latitude is None or longitude is None:
        latitude = longitude = None
    by = by or next(iter(groupings), None)
    place = _place_column(schema, example)
    title, hit, rest = DISPLAYED_WORDS.get(share or "", (f"Share of {share}", str(share), f"not {share}"))
    return Columns(
        share=share,
        by=by,
        groupings=groupings,
        amounts=amounts,
        place=place,
        latitude=latitude,
        longitude=longitude,
        positions=DISPLAYED_POSITIONS.get(latitude, f"{latitude}, {longitude}") if latitude else "",
        table=_table_columns(schema, share, by, place, amounts, groupings),
        title=title,
        hit=hit,
        rest=rest,
    )


def _share_column(schema: Schema, example: pd.DataFrame) -> str | None:
    if TARGET in schema:
        return TARGET
    for column in schema:
        values = example.get(column.name)
        known = None if values is None else set(values.dropna().unique())
        if column.kind == "boolean" and (known is None or len(known) != 1):
            return column.name
        if column.kind == "integer" and known == {0, 1}:
            return column.name
    return None


def _groupings(schema: Schema, example: pd.DataFrame, share: str | None) -> tuple[str, ...]:
    """Return the category columns: those of few values by how well they predict the share, then the rest."""
    names = [column.name for column in schema if column.kind == "category"]
    if example.empty:
        return tuple(names)
    distinct = {name: int(example[name].nunique()) for name in names}
    few = [name for name in names if _FEWEST <= distinct[name] <= _MOST]
    if share is not None:
        hits = example[share].to_numpy(dtype=bool, na_value=False)
        information = {name: _information(example[name], hits) for name in few}
        few.sort(key=information.__getitem__, reverse=True)
    several = sorted((name for name in names if distinct[name] > _MOST), key=distinct.__getitem__)
    return (*few, *several)


def _information(groups: pd.Series, hits: np.ndarray) -> float:
    """Return the mutual information of a column and the share, in nats, less what chance gives."""
    table = pd.crosstab(groups.astype("str"), hits).to_numpy(dtype=float)
    total = table.sum()
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / total
    with np.errstate(divide="ignore", invalid="ignore"):
        nats = np.where(table > 0, table * np.log(table / expected), 0).sum() / total
    chance = (table.shape[0] - 1) * (table.shape[1] - 1) / (2 * total)
    return float(nats - chance)


def _amounts(schema: Schema) -> tuple[Amount, ...]:
    """Return up to two number columns: the known ones, else sums of money first, then means."""
    known = [(name, label) for name, label in DISPLAYED_AMOUNTS.items() if name in schema]
    if known:
        return tuple(_amount(schema[name], label) for name, label in known)
    degrees = {*_LATITUDE, *_LONGITUDE}
    numbers = [c for c in schema if c.kind == "number" and c.name.casefold() not in degrees]
    numbers.sort(key=lambda column: column.unit not in _MONEY)
    return tuple(_amount(column, column.name) for column in numbers[:2])


def _amount(column: Column, label: str) -> Amount:
    return Amount(column.name, label, column.unit, total=column.unit in _MONEY)


def _named(schema: Schema, names: tuple[str, ...]) -> str | None:
    return next((c.name for c in schema if c.kind == "number" and c.name.casefold() in names), None)


def _place_column(schema: Schema, example: pd.DataFrame) -> str | None:
    """Return the category column with the most different names of countries."""
    found = {
        column.name: int(example[column.name].nunique())
        for column in schema
        if column.kind == "category" and column.name in example and is_place_column(example[column.name])
    }
    return max(found, key=found.__getitem__) if found else None


def _table_columns(
    schema: Schema,
    share: str | None,
    by: str | None,
    place: str | None,
    amounts: tuple[Amount, ...],
    groupings: tuple[str, ...],
) -> tuple[str, ...]:
    """Return the columns of the table of newest rows: what is drawn, and the categories of most values."""
    first = groupings[0] if groupings else None
    wanted = [
        EVENT_TIME.name,
        by,
        first,
        *groupings[-1:],
        place,
        *(amount.column for amount in amounts),
        share,
    ]
    names = [name for name in dict.fromkeys(wanted) if name is not None and name in schema]
    rest = [name for name in schema.names if name not in names and name != EVENT_NUMBER.name]
    return (*names, *rest[: max(0, _SHOWN - len(names))])

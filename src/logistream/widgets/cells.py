"""Counts per short stretch of time, kept up to date event by event, without widgets and without a clock.

Time is cut into cells. Per cell there are counts of events and hits (late deliveries, say) per group and sums
of amounts; nothing is computed again from the whole window. The browser is sent the cells that changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from logistream.schema import EVENT_TIME
from logistream.widgets.places import locate

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from logistream.widgets.choice import Columns

__all__ = ["MISSING_LABEL", "MOST_GROUPS", "OTHERS", "Cells", "Tally", "matching"]


MOST_GROUPS = 24
"""Groups that are counted apart; all others together are one more."""

OTHERS = ""
"""Label of the group that gathers the others; always the first."""

MISSING_LABEL = "(missing)"
"""Label of rows without a value."""

_US = 1_000_000
_SPOT_DEGREES = 1  # side of the squares in which positions are counted
_MOST_SPOTS = 4000


def matching(events: pd.DataFrame, filters: Mapping[str, Iterable[str]]) -> pd.DataFrame:
    """Return the rows whose columns have one of the labels asked for."""
    for name, labels in filters.items():
        values = events[name]
        hit = (
            values.astype("str").isin(list(labels))
            if values.dtype != "category"
            else values.isin(list(labels))
        )
        if MISSING_LABEL in labels:
            hit |= values.isna()
        events = events[hit]
    return events


class Tally:
    """Counts per cell and value of one column, in a ring of cells.

    Attributes
    ----------
    keys : list
        The values met so far.
    events, hits : ndarray of int32, shape (size, room)
        Counts; the first `len(keys)` columns are in use.
    """

    def __init__(self, size: int, keys: Iterable[Any] = (), *, most: int | None = None) -> None:
        self.keys: list[Any] = list(keys)
        self._places = {key: place for place, key in enumerate(self.keys)}
        self._most = most
        self.events = np.zeros((size, max(8, len(self.keys))), np.int32)
        self.hits = np.zeros_like(self.events)

    def place(self, key: Any) -> int:  # noqa: ANN401 - any hashable value
        """Return the column of a value; 0 for a new one when there are too many."""
        place = self._places.get(key)
        if place is None:
            if self._most is not None and len(self.keys) >= self._most:
                return 0
            place = self._places[key] = len(self.keys)
            self.keys.append(key)
            if place == self.events.shape[1]:
                self.events, self.hits = (
                    np.hstack([counts, np.zeros_like(counts)]) for counts in (self.events, self.hits)
                )
        return place

    def add(self, rows: NDArray[np.int64], places: NDArray[np.int64], hit: NDArray[np.bool_]) -> None:
        """Count events in cells `rows`, all of shape (n,)."""
        room = self.events.shape[1]
        flat = rows * room + places
        cells, counts = np.unique(flat, return_counts=True)
        self.events.reshape(-1)[cells] += counts.astype(np.int32)
        cells, counts = np.unique(flat[hit], return_counts=True)
        self.hits.reshape(-1)[cells] += counts.astype(np.int32)

    def clear(self, rows: NDArray[np.int64]) -> None:
        """Empty some cells."""
        self.events[rows] = self.hits[rows] = 0

    def sums(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return events and hits over some cells, each of shape (len(keys),)."""
        used = len(self.keys)
        events, hits = self.events[rows, :used], self.hits[rows, :used]
        return events.sum(axis=0, dtype=np.int64), hits.sum(axis=0, dtype=np.int64)


class Cells:
    """Counts in a ring of time cells.

    Parameters
    ----------
    columns : Columns
        What is counted.
    step : float
        Length of a cell in seconds.
    size : int
        Cells that are held.
    filters : mapping of str to iterable of str
        Only events whose columns have one of these labels are counted. The groups of the column that is
        grouped by are all counted, so that another one can be chosen.
    labels : iterable of str
        Groups that get a column of their own first, in this order.

    Attributes
    ----------
    total : int
        Events counted that are not filtered out.
    newest : int or None
        Newest event time, microseconds since 1970, of all events seen, counted or filtered out.
    begin : int or None
        Number of the oldest cell whose counts are complete. Cell c covers `[c, c + 1) * step` seconds.
    """

    def __init__(
        self,
        columns: Columns,
        *,
        step: float,
        size: int,
        filters: Mapping[str, Iterable[str]] | None = None,
        labels: Iterable[str] = (),
    ) -> None:
        self.columns, self.step, self.size = columns, step, size
        self.filters = {name: tuple(wanted) for name, wanted in (filters or {}).items()}
        self.needs = columns.drawn(*self.filters)
        self._micros = round(step * _US)
        self._chosen = self.filters.get(columns.by or "")
        first = [OTHERS, *labels][: MOST_GROUPS + 1]
        unseen = [label for label in self._chosen or () if label not in first]
        first = [*first[: MOST_GROUPS + 1 - len(unseen)], *unseen[:MOST_GROUPS]]
        self._groups = Tally(size, first, most=MOST_GROUPS + 1)
        self._countries = Tally(size)
        self._spots = Tally(size, most=_MOST_SPOTS)
        self._sums = np.zeros((size, len(columns.amounts)))
        self._last = np.zeros(size, np.int64)  # newest event time in each cell, us; 0 for none
        self._head: int | None = None  # number of the newest cell held
        self._changed: int | None = None  # number of the oldest cell that `changes` has not returned
        self.total = 0
        self.newest: int | None = None
        self.begin: int | None = None

    @property
    def labels(self) -> list[str]:
        """The groups, `OTHERS` first."""
        return self._groups.keys

    @property
    def members(self) -> list[int]:
        """Places in `labels` of the groups that are not filtered out."""
        everyone = range(len(self.labels))
        return [place for place in everyone if self._chosen is None or self.labels[place] in self._chosen]

    @property
    def width(self) -> int:
        """Numbers per cell in `changes`: time of the newest event, amounts, events and hits per group."""
        return 1 + len(self.columns.amounts) + 2 * len(self.labels)

    def cell(self, micros: int) -> int:
        """Return the number of the cell that holds a time (microseconds since 1970)."""
        return micros // self._micros

    def update(self, events: pd.DataFrame, *, missed: int = 0) -> None:
        """Count events.

        Parameters
        ----------
        events : DataFrame
            With at least the columns `needs`; rows older than the ring are left out.
        missed : int
            Events just before these that could not be had: what is older is then known to be incomplete
            and is forgotten.
        """
        if events.empty:
            return
        micros = events[EVENT_TIME.name].to_numpy("datetime64[us]").astype(np.int64)
        newest, oldest = int(micros.max()), int(micros.min())
        self.newest = newest if self.newest is None else max(self.newest, newest)
        head = self._advance(self.cell(newest))
        if self.begin is None:
            self.begin = self.cell(oldest)
        if missed:
            self.begin = self.cell(oldest) + 1
            self._changed = min(head, self.begin)
        others = {name: labels for name, labels in self.filters.items() if name != self.columns.by}
        if others:
            events = matching(events, others)
            micros = events[EVENT_TIME.name].to_numpy("datetime64[us]").astype(np.int64)
        cells = micros // self._micros
        inside = cells > head - self.size
        if not inside.all():
            events, micros, cells = events[inside], micros[inside], cells[inside]
        if not len(cells):
            return
        first = int(cells.min())
        self._changed = first if self._changed is None else min(self._changed, first)
        self._count(events, micros, cells % self.size)

    def _count(self, events: pd.DataFrame, micros: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        columns = self.columns
        hit = np.zeros(len(rows), bool)
        if columns.share is not None:
            hit = events[columns.share].to_numpy(dtype=bool, na_value=False)
        places = np.zeros(len(rows), np.int64)
        if columns.by is not None:
            places = _places(events[columns.by], self._groups)
        self._groups.add(rows, places, hit)
        if self._chosen is not None:
            kept = np.isin(places, self.members)
            events, micros, rows, hit = events[kept], micros[kept], rows[kept], hit[kept]
        self.total += len(rows)
        if columns.place is not None:
            self._countries.add(rows, _places(events[columns.place], self._countries), hit)
        if columns.latitude is not None and columns.longitude is not None:
            at, spots = _spots(events[columns.longitude], events[columns.latitude], self._spots)
            self._spots.add(rows[at], spots, hit[at])
        for place, amount in enumerate(columns.amounts):
            values = np.nan_to_num(events[amount.column].to_numpy(float, na_value=np.nan))
            self._sums[:, place] += np.bincount(rows, values, self.size)
        np.maximum.at(self._last, rows, micros)

    def _advance(self, cell: int) -> int:
        """Move the ring on so that `cell` is its newest, if it is newer; return the newest."""
        if self._head is None:
            self._head = cell
        steps = min(cell - self._head, self.size)
        if steps > 0:
            freed = np.arange(cell - steps + 1, cell + 1) % self.size
            for tally in (self._groups, self._countries, self._spots):
                tally.clear(freed)
            self._sums[freed] = 0
            self._last[freed] = 0
            self._head = cell
        return self._head

    def complete(self, first: int, last: int) -> None:
        """Note that all events of the cells `first` to `last` were counted."""
        self._advance(last)
        self.begin = first

    def advance(self, now: int) -> None:
        """Let the ring end with the cell that holds `now` (microseconds), although no event came."""
        if self._head is not None:
            self._advance(self.cell(now))

    def _held(self, first: int, last: int) -> tuple[int, NDArray[np.int64]]:
        """Return the first cell of a range that is held and complete, and the places of the range."""
        if self._head is None or self.begin is None:
            return first, np.empty(0, np.int64)
        first = max(first, self._head - self.size + 1, self.begin)
        return first, np.arange(first, min(last, self._head) + 1) % self.size

    def rows(self, first: int, last: int) -> tuple[int, NDArray[np.float32]]:
        """Return the cells `first` to `last` that are held.

        Returns
        -------
        int
            Number of the first of them.
        ndarray of float32, shape (n_cells, width)
            Per cell: seconds from its start to its newest event (-1 if it has none), sums of the amounts,
            events per group, hits per group.
        """
        first, places = self._held(first, last)
        used = len(self.labels)
        numbers = first + np.arange(len(places))
        last_seen = (self._last[places] - numbers * self._micros) / _US
        table = np.empty((len(places), self.width), np.float32)
        table[:, 0] = np.where(self._last[places] > 0, last_seen, -1)
        amounts = len(self.columns.amounts)
        table[:, 1 : 1 + amounts] = self._sums[places]
        table[:, 1 + amounts : 1 + amounts + used] = self._groups.events[places, :used]
        table[:, 1 + amounts + used :] = self._groups.hits[places, :used]
        return first, table

    def changes(self) -> tuple[int, NDArray[np.float32]]:
        """Return the cells that changed since the last call, as `rows` does."""
        if self._changed is None or self._head is None:
            return 0, np.empty((0, self.width), np.float32)
        first, self._changed = self._changed, None
        return self.rows(first, self._head)

    def everything(self) -> tuple[int, NDArray[np.float32]]:
        """Return all cells that are held, as `rows` does; `changes` goes on from here."""
        self._changed = None
        return (0, np.empty((0, self.width), np.float32)) if self._head is None else self.rows(0, self._head)

    def countries(self, first: int, last: int) -> NDArray[np.float32]:
        """Return what the countries had over a range of cells.

        Returns
        -------
        ndarray of float32, shape (n_countries, 5)
            Place in `country_names`, longitude, latitude, events, hits; only of countries that had events
            and whose place is known.
        """
        _, places = self._held(first, last)
        events, hits = self._countries.sums(places)
        found = [
            (number, *at, events[number], hits[number])
            for number, name in enumerate(self._countries.keys)
            if events[number] and (at := locate(name)) is not None
        ]
        return np.array(found, np.float32).reshape(-1, 5)

    @property
    def country_names(self) -> list[str]:
        """The countries met so far."""
        return self._countries.keys

    def spots(self, first: int, last: int) -> NDArray[np.float32]:
        """Return how many events had which position, over a range of cells.

        Returns
        -------
        ndarray of float32, shape (n_spots, 3)
            Longitude and latitude of the middle of a square of one degree, events.
        """
        _, places = self._held(first, last)
        events, _hits = self._spots.sums(places)
        half = _SPOT_DEGREES / 2
        found = [
            (lon * _SPOT_DEGREES + half, lat * _SPOT_DEGREES + half, count)
            for (lon, lat), count in zip(self._spots.keys, events.tolist(), strict=True)
            if count
        ]
        return np.array(found, np.float32).reshape(-1, 3)


def _places(column: pd.Series, tally: Tally) -> NDArray[np.int64]:
    """Return the column in a tally of each value."""
    if isinstance(column.dtype, pd.CategoricalDtype):
        codes = column.cat.codes.to_numpy(np.int64)
        names = column.cat.categories
    else:
        codes, names = pd.factorize(column.astype("str"))
    used = np.unique(codes)
    where = np.zeros(len(names) + 1, np.int64)
    for code in used.tolist():
        where[code] = tally.place(MISSING_LABEL if code < 0 else str(names[code]))
    found: NDArray[np.int64] = where[codes]
    return found


def _spots(
    longitude: pd.Series, latitude: pd.Series, tally: Tally
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which rows have a position, and its column in a tally."""
    lon, lat = longitude.to_numpy(float, na_value=np.nan), latitude.to_numpy(float, na_value=np.nan)
    at = np.flatnonzero((np.abs(lon) <= 180) & (np.abs(lat) <= 90))
    squares = np.floor(np.column_stack([lon[at], lat[at]]) / _SPOT_DEGREES).astype(np.int64)
    flat, back = np.unique(squares[:, 0] * 1000 + squares[:, 1], return_inverse=True)
    first = np.zeros(len(flat), np.int64)
    first[back] = np.arange(len(back))
    keys = [tally.place((int(x), int(y))) for x, y in squares[first].tolist()] if len(flat) else []
    return at, np.array(keys, np.int64)[back]

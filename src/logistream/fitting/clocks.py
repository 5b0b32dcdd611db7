"""Columns that are a part of a timestamp: its year, its hour ..., on the clock that was used.

Hours and days are rarely those of UTC. The clock is found from the columns alone: the offsets from UTC with
which all of them are right, and when it was put forward or back. So no database of time zones is needed, and
nobody has to name the zone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from logistream.times import CALENDAR, DAY, HOUR, ahead_of_utc

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Clock", "read_clock"]


_OFFSETS = np.arange(-12 * 4, 14 * 4 + 1) * (HOUR // 4)
"""Offsets from UTC that are tried: from UTC-12 to UTC+14 by quarters of an hour, in microseconds."""

_LEAST_ROWS = 50
_SCREEN_ROWS = 256  # most columns are refused on so few rows
_CHANGES = 2  # of a clock in a year of 365 days, and so many more,
_ROWS_BETWEEN = 8  # two of them, on average, at least
_ROUND = (HOUR, HOUR // 2, HOUR // 60, HOUR // 3600, 1000)  # clocks are changed at such times
_ROUNDS = 30  # each with some of the rows that were wrong in the one before


@dataclass(frozen=True, slots=True)
class Clock:
    """A clock, and the columns that show parts of the time on it.

    Parameters
    ----------
    offsets : tuple of (int, int)
        From which microsecond since 1970, UTC, it was how many microseconds ahead of UTC; empty for UTC.
    parts : dict of str to str
        Which column is which part of the timestamp, as in `logistream.times.CALENDAR`.
    """

    offsets: tuple[tuple[int, int], ...]
    parts: dict[str, str]


def read_clock(instants: np.ndarray, integers: Mapping[str, np.ndarray]) -> Clock:
    """Return which columns are parts of a timestamp, on the clock with which most of them are.

    UTC if no other clock makes parts of more columns.

    Parameters
    ----------
    instants : ndarray of int64 of shape (n_rows,)
        Microseconds since 1970 UTC.
    integers : mapping of str to ndarray of int64 of shape (n_rows,)
        Columns that may be parts.
    """
    utc = Clock((), _parts(instants, integers))
    if len(instants) < _LEAST_ROWS:
        return utc
    order = np.argsort(instants, kind="stable")
    ascending = instants[order]
    columns = {name: column[order] for name, column in integers.items() if column.min() < column.max()}
    rows = np.unique(np.linspace(0, len(order) - 1, _SCREEN_ROWS).astype(np.int64))
    likely = [(name, part) for name in columns for part in CALENDAR]
    for _ in range(_ROUNDS):
        likely, parts, offsets = _joined(ascending[rows], {n: c[rows] for n, c in columns.items()}, likely)
        if len(parts) <= len(utc.parts):
            break
        local = ascending + ahead_of_utc(ascending, offsets)
        wrong = np.any([CALENDAR[part](local) != columns[name] for name, part in parts.items()], axis=0)
        if not wrong.any():
            found = _parts(instants + ahead_of_utc(instants, offsets), integers)
            return Clock(offsets, found) if len(found) > len(utc.parts) else utc
        against = np.flatnonzero(wrong)
        rows = np.union1d(rows, against[:: max(1, len(against) // _SCREEN_ROWS)])
    return utc


def _joined(
    instants: np.ndarray, columns: Mapping[str, np.ndarray], likely: Sequence[tuple[str, str]]
) -> tuple[list[tuple[str, str]], dict[str, str], tuple[tuple[int, int], ...]]:
    """Return what may be parts in these rows, what may be parts of one clock, and its offsets."""
    agreed = np.ones((len(instants), len(_OFFSETS)), bool)
    alone, parts = [], {}
    offsets: tuple[tuple[int, int], ...] = ()
    wanted = {part for _, part in likely}
    shown = {part: CALENDAR[part](instants[:, None] + _OFFSETS) for part in CALENDAR if part in wanted}
    for name, part in likely:
        right = shown[part] == columns[name][:, None]
        if _settings(instants, right):
            alone.append((name, part))
            settings = _settings(instants, agreed & right)
            if settings and name not in parts:
                agreed, parts[name], offsets = agreed & right, part, settings
    return alone, parts, offsets


def _parts(local: np.ndarray, integers: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Return which columns are which part of a timestamp in all rows; constant parts are left out."""
    parts: dict[str, str] = {}
    for part, of in CALENDAR.items():
        values = of(local)
        if len(values) and values.min() < values.max():
            parts |= {
                name: part
                for name, column in integers.items()
                if name not in parts and np.array_equal(column, values)
            }
    return parts


def _settings(instants: np.ndarray, right: np.ndarray) -> tuple[tuple[int, int], ...]:
    """Return from when on which offset is right; empty if the clock would be changed too often.

    Parameters
    ----------
    instants : ndarray of int64 of shape (n_rows,)
        Microseconds since 1970 UTC, in ascending order.
    right : ndarray of bool of shape (n_rows, n_offsets)
        Which of the offsets that are tried are right in which rows.

    Returns
    -------
    tuple of (int, int)
        Microseconds since 1970, UTC, and how many microseconds the clock is ahead from then on.
    """
    n = len(instants)
    years = int(instants[-1] - instants[0]) / (365 * DAY)
    most = min(1 + _CHANGES * (1 + years), n / _ROWS_BETWEEN)
    if not right.any(axis=1).all():
        return ()
    wrong = [np.append(np.flatnonzero(~fits), n) for fits in right.T]
    settings: list[tuple[int, int]] = []
    row = 0
    while row < n:  # each is kept for as long as possible: so they are as few as possible
        ends = np.array([rows[np.searchsorted(rows, row)] for rows in wrong])
        if ends.max() == row or len(settings) >= most:
            return ()
        offset = _plainest(_OFFSETS[ends == ends.max()], [offset for _, offset in settings])
        settings.append((_rounded(int(instants[row - 1]) if row else None, int(instants[row])), offset))
        row = int(ends.max())
    return tuple(settings)


def _rounded(before: int | None, instant: int) -> int:
    """Return the roundest time after one row and not after the next: no row's own is to be disclosed."""
    floors = [instant // step * step for step in _ROUND]
    return next((floor for floor in floors if before is None or floor > before), instant)


def _plainest(offsets: np.ndarray, used: Sequence[int]) -> int:
    """Return the most plausible of the offsets that are right: one used before, else of full hours."""
    for offset in used:
        if offset in offsets:
            return offset
    unusual = (offsets % (HOUR // 2) > 0) * 2 + (offsets % HOUR > 0)
    near = np.abs(offsets - (used[-1] if used else 0))
    return int(offsets[np.lexsort((near, unusual))[0]])

"""What the dashboard draws, kept up to date event by event: pure arithmetic, no widgets, no clock.

Time is cut into cells of `STEP` seconds. Per cell and group a ring holds how many events there were and how
many of them were hits (late deliveries, say); nothing is ever computed again from the whole window.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

__all__ = ["STEP", "Groups", "LiveAggregates", "Series", "wilson"]


STEP = 0.25
"""Length of a cell, in seconds: the finest step a chart line can take."""

_STANDS_STILL = 5  # intervals without an event after which the rate is called 0

_US = 1_000_000


def wilson(hits: np.ndarray, trials: np.ndarray, z: float = 1.96) -> tuple[np.ndarray, np.ndarray]:
    """Return the Wilson score interval of a share.

    Parameters
    ----------
    hits, trials : ndarray of shape (n,)
        Counts; `trials` may be 0.
    z : float
        Width in standard normal deviates; 1.96 for 95 %.

    Returns
    -------
    low, high : ndarray of float64, shape (n,)
        Bounds between 0 and 1; NaN where there were no trials.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        share = hits / trials
        centre = share + z * z / (2 * trials)
        half = z * np.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
        scale = 1 + z * z / trials
        low, high = ((centre - half) / scale).clip(0, 1), ((centre + half) / scale).clip(0, 1)
    none = trials == 0
    return np.where(none, np.nan, low), np.where(none, np.nan, high)


@dataclass(frozen=True, slots=True)
class Series:
    """The two lines of the chart over one time axis.

    Attributes
    ----------
    time : ndarray of float64, shape (n,)
        End of each cell, in seconds since the Unix epoch, UTC.
    rate : ndarray of float64, shape (n,)
        Events per second; NaN before the second event.
    share, low, high : ndarray of float64, shape (n,)
        Share of hits among the events of the trailing window, with its 95 % interval; NaN without events.
    """

    time: np.ndarray
    rate: np.ndarray
    share: np.ndarray
    low: np.ndarray
    high: np.ndarray


@dataclass(frozen=True, slots=True)
class Groups:
    """Events and hits per group over the span of the chart.

    Attributes
    ----------
    labels : tuple of str
        Groups in alphabetical order; if there are more than asked for, the most frequent ones and a last
        one that gathers the rest.
    events, hits : ndarray of int64, shape (n,)
        Counts per group.
    """

    labels: tuple[str, ...]
    events: np.ndarray
    hits: np.ndarray


class LiveAggregates:
    """Counts in a ring of time cells.

    Parameters
    ----------
    share : str or None
        Column of 0/1 or true/false whose share is followed; a missing value is no hit. None: nothing is one.
    by : str or None
        Category column to group by. None: all are one group.
    time : str
        Timestamp column that says when an event happened.
    span : float
        Seconds that the chart shows.
    share_window : float
        Seconds over which the share is taken.
    rate_window : float
        Seconds over which the rate is taken.
    """

    def __init__(
        self,
        share: str | None,
        by: str | None,
        *,
        time: str = "event_time",
        span: float = 120.0,
        share_window: float = 30.0,
        rate_window: float = 1.0,
    ) -> None:
        self.columns = tuple(dict.fromkeys(name for name in (time, share, by) if name is not None))
        self._time, self._share, self._by = time, share, by
        self.span, self.share_window, self.rate_window = span, share_window, rate_window
        self._shown = round(span / STEP)
        self._size = self._shown + round(max(share_window, rate_window) / STEP) + 1
        self._head: int | None = None  # number of the newest cell held; cell c covers [c, c + 1) * STEP
        self._codes: dict[str, int] = {} if by is not None else {"": 0}  # group -> column of the two arrays
        self._events = np.zeros((self._size, len(self._codes)), dtype=np.int64)
        self._hits = np.zeros((self._size, len(self._codes)), dtype=np.int64)
        self._last = np.zeros(self._size, dtype=np.int64)  # newest event time up to each cell's end, us
        self.total = 0
        self.newest: int | None = None

    def update(self, events: pd.DataFrame) -> None:
        """Take in new events, a DataFrame with the columns.

        Events older than the ring are only counted in `total`.
        """
        if events.empty:
            return
        micros = events[self._time].to_numpy("datetime64[us]").astype(np.int64)
        hit, group = np.zeros(len(micros), bool), np.zeros(len(micros), np.int64)
        if self._share is not None:
            hit = events[self._share].to_numpy(dtype=bool, na_value=False)
        if self._by is not None:
            group = self._group_codes(events[self._by])
        self.total += len(micros)
        self.newest = max(int(micros.max()), self.newest or 0)
        cells = micros // round(STEP * _US)
        head = self._advance(int(cells.max()))
        inside = cells > head - self._size
        rows = cells[inside] % self._size
        np.add.at(self._events, (rows, group[inside]), 1)
        np.add.at(self._hits, (rows, group[inside]), hit[inside].astype(np.int64))
        np.maximum.at(self._last, rows, micros[inside])

    def _group_codes(self, column: pd.Series[str]) -> np.ndarray:
        """Return the group number of each row, making room for groups not seen before."""
        codes, names = pd.factorize(column.astype("str").fillna("(missing)"))
        known = len(self._codes)
        for name in names:
            self._codes.setdefault(name, len(self._codes))
        if len(self._codes) > known:
            room = np.zeros((self._size, len(self._codes) - known), dtype=np.int64)
            self._events = np.hstack([self._events, room])
            self._hits = np.hstack([self._hits, room])
        places: np.ndarray = np.array([self._codes[name] for name in names], dtype=np.int64)[codes]
        return places

    def _advance(self, cell: int) -> int:
        """Move the ring on so that `cell` is its newest, if it is newer; return the newest."""
        if self._head is None:
            self._head = cell
        steps = min(cell - self._head, self._size)
        if steps > 0:
            freed = np.arange(cell - steps + 1, cell + 1) % self._size
            self._events[freed] = self._hits[freed] = 0
            self._last[freed] = 0
            self._head = cell
        return self._head

    def _cells(self, now: int) -> np.ndarray:
        """Return the numbers of the whole cells up to `now` (us), from the oldest held to the newest."""
        head = self._advance(now // round(STEP * _US))
        return np.arange(head - self._size + 1, head)

    def series(self, now: int) -> Series:
        """Return the lines up to `now`, in microseconds since the Unix epoch.

        The rate is exact for evenly spaced events at any speed: it counts the intervals between the last
        event of the window and the last one before it, not the events that happen to fall into a second.
        Without an event in the window it is the rate last seen, or less when the silence says so, and 0
        after a silence of five intervals.
        """
        cells = self._cells(now)
        order, ends = cells % self._size, (cells + 1) * STEP
        shown = slice(len(order) - self._shown, None)
        events = np.concatenate([[0], np.cumsum(self._events[order].sum(axis=1))])
        hits = np.concatenate([[0], np.cumsum(self._hits[order].sum(axis=1))])
        last = np.maximum.accumulate(self._last[order]) / _US
        w = round(self.share_window / STEP)
        trials = _trailing(events, w)
        low, high = wilson(_trailing(hits, w)[shown], trials[shown])
        with np.errstate(invalid="ignore", divide="ignore"):
            share = np.where(trials > 0, _trailing(hits, w) / trials, np.nan)
        rate = _interval_rate(events, last, ends, round(self.rate_window / STEP))
        return Series(ends[shown], rate[shown], share[shown], low, high)

    def groups(self, now: int, most: int = 8) -> Groups:
        """Return counts per group over the span that ends at `now`; at most `most` groups."""
        cells = self._cells(now)[-self._shown :]
        current = np.append(cells, cells[-1] + 1) % self._size  # and the cell that is still filling
        events, hits = self._events[current].sum(axis=0), self._hits[current].sum(axis=0)
        ranked = sorted((i for i in range(len(events)) if events[i]), key=lambda i: -events[i])
        kept, rest = (ranked, []) if len(ranked) <= most else (ranked[: most - 1], ranked[most - 1 :])
        names = list(self._codes)
        kept.sort(key=lambda i: names[i])
        labels = [names[i] for i in kept]
        if rest:
            labels.append(f"{len(rest)} others")
        sums = [np.append(counts[kept], counts[rest].sum() if rest else []) for counts in (events, hits)]
        return Groups(tuple(labels), sums[0].astype(np.int64), sums[1].astype(np.int64))


def _trailing(cumulative: np.ndarray, width: int) -> np.ndarray:
    """Return sums over the last `width` cells, fewer at the left end; cumulative has one more entry."""
    ends = np.arange(1, len(cumulative))
    sums: np.ndarray = cumulative[ends] - cumulative[np.maximum(ends - width, 0)]
    return sums


def _interval_rate(events: np.ndarray, last: np.ndarray, ends: np.ndarray, width: int) -> np.ndarray:
    """Return events per second at the end of each cell; see `LiveAggregates.series`."""
    before = np.concatenate([np.zeros(width), last])[: len(last)]  # newest event, one window earlier
    counted = _trailing(events, width)
    measured = (counted > 0) & (before > 0) & (last > before)  # the very first event ends no interval
    rate = np.divide(counted, last - before, out=np.full(len(last), np.nan), where=measured)
    held = np.maximum.accumulate(np.where(measured, np.arange(len(last)), -1))
    silence = np.maximum(ends - last, STEP)
    waited = np.where(counted > 0, 0, silence * rate[held])  # in intervals
    still = np.where(waited > _STANDS_STILL, 0, np.minimum(rate[held], 1 / silence))
    return np.where(held < 0, np.nan, np.where(counted > 0, rate[held], still))

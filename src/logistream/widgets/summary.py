"""The lines that are drawn: shares with their intervals, rates, amounts.

`static/series.js` computes the same lines for the live view; a test compares the two.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from logistream.widgets.cells import Cells

__all__ = ["FEWEST", "Groups", "Lines", "changed_at", "group_counts", "lines", "share_window", "wilson"]


FEWEST = 10
"""Events that a share needs to be shown at all."""

_SILENT_INTERVALS = 5  # without an event, after which the rate is called 0
_SHORTEST = 3.0  # seconds of data that an amount per minute needs
_US = 1_000_000
_WINDOWS = (10.0, 15.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 10800.0, 43200.0, 86400.0)


def share_window(span: float) -> float:
    """Return the seconds over which shares are taken on an axis of `span` seconds.

    It is a quarter of the axis up to a minute, then a twentieth, rounded down to a usual length.
    """
    wanted = max(10.0, min(60.0, span / 4), span / 20)
    return max(window for window in _WINDOWS if window <= wanted)


def wilson(
    hits: NDArray[np.float64], trials: NDArray[np.float64], z: float = 1.96
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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
class Lines:
    """The lines of the charts over one time axis of n points.

    Attributes
    ----------
    time : ndarray of float64, shape (n,)
        End of each cell, the last one cut at the right end; seconds since 1970, UTC.
    rate : ndarray of float64, shape (n,)
        Events per second; NaN before the second event.
    share, low, high : ndarray of float64, shape (n,)
        Share of hits over the trailing window with its 95 % interval; NaN under `FEWEST` events.
    groups : ndarray of float64, shape (n, n_groups)
        The same share per group.
    amounts : ndarray of float64, shape (n, n_amounts)
        Sum per minute, or mean, over the trailing window.
    """

    time: NDArray[np.float64]
    rate: NDArray[np.float64]
    share: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    groups: NDArray[np.float64]
    amounts: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Groups:
    """Counts per group, those with the largest share first.

    Attributes
    ----------
    labels : tuple of str
        The most frequent groups, and `OTHERS` last if there are more.
    events, hits : ndarray of float64, shape (n,)
        Counts.
    """

    labels: tuple[str, ...]
    events: NDArray[np.float64]
    hits: NDArray[np.float64]


def lines(
    cells: Cells,
    start: int,
    stop: int,
    *,
    window: float,
    rate_window: float = 1.0,
    asked: Sequence[tuple[float, float]] = (),
    weights: NDArray[np.float64] | None = None,
    begin: int = 0,
) -> Lines:
    """Return the lines from `start` to `stop`, in microseconds since 1970.

    The rate counts the intervals between the last event of the window and the last one before it, so an even
    stream shows exactly its rate. Without an event in the window it is the last rate, or one event
    per time waited if that is less, and 0 after five intervals without an event.

    Parameters
    ----------
    window, rate_window : float
        Seconds over which shares and amounts, and the rate, are taken.
    asked : sequence of (float, float)
        When which rate was asked for, in seconds and events per second, 0 in a pause; pauses do not count as
        time over which the rate is taken.
    weights : ndarray of float64 or None
        For each cell that is held, the events that each counted event stands for, if only a sample was
        counted: rates and sums are then those of all events, shares those of the sample.
    begin : int
        Number of the first cell that may be counted.
    """
    step, used, n_amounts = cells.step, len(cells.labels), len(cells.columns.amounts)
    w, rw = max(1, round(window / step)), max(1, round(rate_window / step))
    shown, head = cells.cell(start), cells.cell(max(start, stop - 1))
    first, held = cells.rows(max(begin, shown - max(w, 10 * rw)), head)
    table: NDArray[np.float64] = held.astype(np.float64)
    stands_for = np.ones(len(table)) if weights is None else weights[len(weights) - len(table) :]
    missing = head + 1 - first - len(table)  # cells after the newest event
    if missing > 0:
        stands_for = np.append(stands_for, np.ones(missing))
        empty = np.zeros((missing, cells.width))
        empty[:, 0] = -1
        table = np.vstack([table, empty])
    numbers = first + np.arange(len(table))
    ends = np.minimum((numbers + 1) * step, stop / _US)
    seen = np.where(table[:, 0] >= 0, numbers * step + table[:, 0], 0)
    latest = np.maximum.accumulate(seen) if len(seen) else seen
    events = table[:, 1 + n_amounts : 1 + n_amounts + used]
    hits = table[:, 1 + n_amounts + used :]
    trials, found = _trailing(events, w), _trailing(hits, w)
    with np.errstate(divide="ignore", invalid="ignore"):
        by_group = np.where(trials >= FEWEST, found / trials, np.nan)
        all_trials, all_found = trials[:, cells.members].sum(axis=1), found[:, cells.members].sum(axis=1)
        share = np.where(all_trials >= FEWEST, all_found / all_trials, np.nan)
        low, high = wilson(all_found, all_trials)
        sums = _trailing(table[:, 1 : 1 + n_amounts], w)
        scaled = _trailing(table[:, 1 : 1 + n_amounts] * stands_for[:, None], w)
        lasted = np.minimum(window, ends - max(first, cells.begin or 0) * step)[:, None]
        per_minute = np.where(lasted >= min(_SHORTEST, window), scaled * 60 / lasted, np.nan)
        mean = np.where(all_trials[:, None] >= FEWEST, sums / all_trials[:, None], np.nan)
    totals = np.array([amount.total for amount in cells.columns.amounts], bool)
    counted = events[:, cells.members].sum(axis=1)
    if weights is None:
        rate = _interval_rate(counted, latest, ends, rw, _pauses(asked))
    else:
        lengths = np.minimum(rw, np.arange(1, len(counted) + 1)) * step
        rate = _trailing((counted * stands_for)[:, None], rw)[:, 0] / lengths
    keep = numbers >= shown
    hidden = np.isnan(share)
    return Lines(
        time=ends[keep],
        rate=rate[keep],
        share=share[keep],
        low=np.where(hidden, np.nan, low)[keep],
        high=np.where(hidden, np.nan, high)[keep],
        groups=by_group[keep],
        amounts=np.where(totals, per_minute, mean)[keep],
    )


def changed_at(
    asked: Sequence[tuple[float, float]], marks: Sequence[tuple[float, str, str]], stop: float
) -> tuple[float, float]:
    """Return when the events last changed (by a scenario), and when those or their number did (rate, pause).

    Parameters
    ----------
    asked : sequence of (float, float)
        As for `lines`.
    marks : sequence of (float, str, str)
        Seconds since 1970, kind and text.
    stop : float
        Later changes do not count; seconds since 1970.

    Returns
    -------
    events, number : float
        Seconds since 1970; minus infinity without a change.
    """
    events = max((at for at, kind, _ in marks if kind == "scenario" and at <= stop), default=-np.inf)
    rates = (at for (_, before), (at, rate) in itertools.pairwise(asked) if rate != before and at <= stop)
    return events, max(events, max(rates, default=-np.inf))


def group_counts(cells: Cells, start: int, stop: int, *, most: int = 9) -> Groups:
    """Return counts per group from `start` to `stop` (microseconds); at most `most` rows."""
    _, table = cells.rows(cells.cell(start), cells.cell(max(start, stop - 1)))
    used, n_amounts = len(cells.labels), len(cells.columns.amounts)
    events = table[:, 1 + n_amounts : 1 + n_amounts + used].sum(axis=0, dtype=np.float64)
    hits = table[:, 1 + n_amounts + used :].sum(axis=0, dtype=np.float64)
    named = [place for place in np.argsort(-events[1:], kind="stable") + 1 if events[place]]
    fit = len(named) + bool(events[0]) <= most
    kept, rest = (named, []) if fit else (named[: most - 1], named[most - 1 :])
    kept.sort(key=lambda place: (-hits[place] / events[place], -events[place]))
    labels = [cells.labels[place] for place in kept]
    gathered = [events[0] + events[rest].sum(), hits[0] + hits[rest].sum()]
    if gathered[0]:
        labels.append(cells.labels[0])
    counts = [
        np.append(values[kept], extra if gathered[0] else [])
        for values, extra in zip((events, hits), gathered, strict=True)
    ]
    return Groups(tuple(labels), counts[0], counts[1])


def _pauses(asked: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return start and end of each pause."""
    pauses, since = list[tuple[float, float]](), None
    for at, rate in asked:
        if rate == 0:
            since = at if since is None else since
        elif since is not None:
            pauses.append((since, at))
            since = None
    return pauses if since is None else [*pauses, (since, np.inf)]


def _trailing(counts: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Return sums over the last `width` rows up to each row, fewer at the start."""
    cumulative = np.vstack([np.zeros((1, counts.shape[1])), np.cumsum(counts, axis=0)])
    ends = np.arange(1, len(cumulative))
    sums: NDArray[np.float64] = cumulative[ends] - cumulative[np.maximum(ends - width, 0)]
    return sums


def _interval_rate(
    events: NDArray[np.float64],
    latest: NDArray[np.float64],
    ends: NDArray[np.float64],
    width: int,
    pauses: list[tuple[float, float]],
) -> NDArray[np.float64]:
    """Return events per second at the end of each cell; see `lines`."""
    before = np.concatenate([np.zeros(width), latest])[: len(latest)]  # newest event, one window earlier
    counted = _trailing(events[:, None], width)[:, 0]
    measured = (counted > 0) & (before > 0) & (latest > before)  # the very first event ends no interval
    lasted = latest - before
    for begin, end in pauses:
        lasted = lasted - np.clip(np.minimum(end, latest) - np.maximum(begin, before), 0, None)
    rate = np.divide(counted, np.maximum(lasted, 1e-6), out=np.full(len(latest), np.nan), where=measured)
    held = np.maximum.accumulate(np.where(measured, np.arange(len(latest)), -1))
    silence = np.maximum(ends - latest, 1e-3)
    waited = np.where(counted > 0, 0, silence * rate[held])  # in intervals
    slowed = np.where(waited > _SILENT_INTERVALS, 0, np.minimum(rate[held], 1 / silence))
    return np.where(held < 0, np.nan, np.where(counted > 0, rate[held], slowed))

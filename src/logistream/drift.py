"""Drift with known truth: where a stream changes, and how well a detector found that."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
import pandas as pd

from logistream.errors import NotYetError, RequestError, shorten
from logistream.stream.stream import strengths_of
from logistream.stream.timeline import Timeline
from logistream.times import parse_instant, rfc3339, wall_clock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from logistream.server.server import StreamServer

__all__ = ["Detection", "changes", "evaluate_detector"]

Truth: TypeAlias = Union["StreamServer", Timeline, pd.DataFrame]
"""From which changes are derived."""

_PART = 1 << 20  # events whose strengths are computed at a time


def changes(truth: Truth, start: int | None = None, stop: int | None = None) -> pd.DataFrame:
    """Return where the strengths of scenarios change, abruptly or from one event to another.

    The change is abrupt where a scenario is set, ended or replaced, and where one that recurs begins or ends.
    A ramp is one change over many events. Changes of several scenarios at the same events are one change.

    Parameters
    ----------
    truth : StreamServer, Timeline or DataFrame
        A stream; or consecutive rows of what `Model.truth`, `server.truth` or `GET /truth` returned.
    start, stop : int, optional
        The range of events, by default all of the frame, or all that have happened. The first event of the
        range is no change, since there is none before it to compare with.

    Returns
    -------
    DataFrame of shape (n_changes, 5)
        - `begin`, `end`, int64: the first event with another strength, and the first with the strength that
          is reached; equal if the change is abrupt;
        - `before`, `after`, object: a dict of the scenarios in force by name, each with its strength;
        - `size`, float64: by how much a strength changes; of several scenarios the greatest.

    Raises
    ------
    RequestError
        If the truth is none of these, or does not cover the range.
    NotYetError
        If the range of a server has not happened yet.

    Examples
    --------
    >>> in_force = [{}, {}, {"strike": 1.0}, {"strike": 1.0}, {}]
    >>> changes(pd.DataFrame({"event_number": range(5), "in_force": in_force}))
       begin  end           before            after  size
    0      2    2               {}  {'strike': 1.0}   1.0
    1      4    4  {'strike': 1.0}               {}   1.0
    """
    return _derived(truth, start, stop)[2]


@dataclass(frozen=True, eq=False, repr=False)
class Detection:
    """How well a detector found the changes of a stream; `evaluate_detector` makes it.

    Each change has an episode: it begins where that of the change before it ends, and ends `max_delay` events
    after the change. An alarm of an episode is true if it does not come before the change.

    Attributes
    ----------
    n_episodes, n_alarms : int
        Changes; and alarms of their episodes.
    true_alarms, false_alarms, missed : int
        Alarms of either kind; and changes without a true alarm.
    precision, recall, f1 : float
        `true_alarms / n_alarms`, `true_alarms / (true_alarms + missed)`, and the harmonic mean of both; 0
        instead of a division by 0.
    episode_recall : float
        Share of the changes that were found.
    mean_delay : float
        Mean time to detection: events from the begin of a change to its first true alarm; NaN if none was
        found.
    false_alarm_rate, alarm_rate : float
        False alarms, and all alarms, in `rate_period` events.
    mean_time_between_false_alarms : float
        Events of the range for each false alarm; infinite if there is none.
    alarms_outside : int
        Alarms of no episode: after the last one, or at the first event of the range. No figure counts them.
    episodes : DataFrame of shape (n_episodes, 9)
        The columns of `changes`, and `true_alarms`, `false_alarms`, and `first_alarm` and `delay` of the
        first true alarm, missing if there is none.
    """

    n_episodes: int
    n_alarms: int
    true_alarms: int
    false_alarms: int
    missed: int
    precision: float
    recall: float
    f1: float
    episode_recall: float
    mean_delay: float
    false_alarm_rate: float
    alarm_rate: float
    mean_time_between_false_alarms: float
    alarms_outside: int
    episodes: pd.DataFrame

    @property
    def figures(self) -> dict[str, int | float]:
        """All but the episodes, by name."""
        return {name: value for name, value in vars(self).items() if name != "episodes"}

    def _strings(self) -> pd.Series[str]:
        return pd.Series(
            {n: f"{v:,.4g}" if isinstance(v, float) else f"{v:,}" for n, v in self.figures.items()}
        )

    def __repr__(self) -> str:
        return self._strings().to_string()

    def _repr_html_(self) -> str:
        return self._strings().to_frame().to_html(border=0, header=False)


def evaluate_detector(
    alarms: Iterable[int] | Iterable[datetime] | Iterable[str],
    truth: Truth | Sequence[int] | Sequence[tuple[int, int]],
    *,
    max_delay: int,
    start: int | None = None,
    stop: int | None = None,
    max_early_detection: int = 0,
    rate_period: int = 1000,
) -> Detection:
    """Compare the alarms of a drift detector with the changes that there were.

    The figures are defined as in `EvaluateDriftDetector` of CapyMOA (src/capymoa/drift/eval_detector.py of
    https://github.com/adaptive-machine-learning/CapyMOA, commit 0152c90); its instances are events here.

    Parameters
    ----------
    alarms : iterable of int or of times
        The numbers of the events at which the detector gave an alarm, in any order; or the times of alarms,
        as datetimes (without a zone they are UTC) or RFC 3339, if the truth is a server or a timeline.
    truth : StreamServer, Timeline, DataFrame, or sequence of int or of (int, int)
        As in `changes`, or what it returned; or event numbers at which something changes, or its begins and
        ends.
    max_delay : int
        How many events after the end of a change an alarm is still true, at least 1.
    start, stop : int, optional
        The range of events that the detector was given, by default as in `changes`. If the changes themselves
        are given, `start` is 0 by default, and `stop` is needed.
    max_early_detection : int, default=0
        How many events before the begin of a change an alarm is true already.
    rate_period : int, default=1000
        Events to which the rates relate.

    Returns
    -------
    Detection
        The figures as attributes, and `episodes`, a DataFrame with a row for each change.

    Raises
    ------
    RequestError
        If a value is not allowed, an alarm or a change is outside of the range, or nothing changes.
    NotYetError
        If the range of a server has not happened yet.

    Examples
    --------
    >>> found = evaluate_detector([500, 1200, 1250, 2100], [1000, 2000], max_delay=200, stop=3000)
    >>> found.precision, found.episode_recall, found.mean_delay
    (0.5, 1.0, 150.0)
    """
    for name, value, least in (
        ("max_delay", max_delay, 1),
        ("max_early_detection", max_early_detection, 0),
        ("rate_period", rate_period, 1),
    ):
        if not _is_whole(value) or value < least:
            raise RequestError(f"{name} must be a whole number from {least}, not {shorten(repr(value))}")
    low, high, found = _derived(truth, start, stop, given=True)
    if found.empty:
        raise RequestError(f"nothing changes from event {low} to {high - 1}, so any alarm is false")
    numbers = _numbers(alarms, truth)
    _require_within("an alarm", numbers, low, high)
    rows, inside, past = [], np.zeros(len(numbers), bool), low
    for begin, end in zip(found["begin"], found["end"], strict=True):
        here = (numbers > past) & (numbers <= end + max_delay)
        true = numbers[here & (numbers >= begin - max_early_detection)]
        first = int(true[0]) if len(true) else pd.NA
        rows.append((len(true), int(here.sum()) - len(true), first, first - begin))
        inside |= here
        past = end + max_delay
    names = ["true_alarms", "false_alarms", "first_alarm", "delay"]
    episodes = found.join(
        pd.DataFrame(rows, columns=names).astype({"first_alarm": "Int64", "delay": "Int64"})
    )
    return _detection(episodes, int((~inside).sum()), high - low, rate_period)


def _detection(episodes: pd.DataFrame, outside: int, n_events: int, rate_period: int) -> Detection:
    true, false = int(episodes["true_alarms"].sum()), int(episodes["false_alarms"].sum())
    missed = int((episodes["true_alarms"] == 0).sum())
    precision, recall = true / max(true + false, 1), true / max(true + missed, 1)
    delays = episodes["delay"].dropna()
    return Detection(
        n_episodes=len(episodes),
        n_alarms=true + false,
        true_alarms=true,
        false_alarms=false,
        missed=missed,
        precision=precision,
        recall=recall,
        f1=2 * precision * recall / (precision + recall) if true else 0.0,
        episode_recall=(len(episodes) - missed) / len(episodes),
        mean_delay=float(delays.mean()) if len(delays) else math.nan,
        false_alarm_rate=false / n_events * rate_period,
        alarm_rate=(true + false) / n_events * rate_period,
        mean_time_between_false_alarms=n_events / false if false else math.inf,
        alarms_outside=outside,
        episodes=episodes,
    )


def _derived(
    truth: Any,  # noqa: ANN401 - as users give it
    start: int | None,
    stop: int | None,
    *,
    given: bool = False,
) -> tuple[int, int, pd.DataFrame]:
    """Return the range of events and its changes; `given` allows the changes themselves as truth."""
    timeline = _timeline(truth)
    if timeline is not None:
        server = truth is not timeline
        happened = truth.state["next_event_number"] if server else timeline.count(wall_clock())
        timeline = timeline.snapshot()  # another thread may change it meanwhile
        low, high = _range(start, stop, timeline.entries[0].first, happened)
        if server and high > happened:
            raise NotYetError(f"event {high - 1}", happened - 1)
        names = list({scenario.name: None for entry in timeline.entries for scenario in entry.scenarios})
        return low, high, _changes(names, _strengths_of_timeline(timeline, names, low, high))
    if isinstance(truth, pd.DataFrame) and {"event_number", "in_force"} <= set(truth.columns):
        numbers = truth["event_number"].to_numpy()
        if not len(numbers) or (np.diff(numbers) != 1).any():
            raise RequestError("the truth must be a frame of at least one event, without gaps between events")
        first, last = int(numbers[0]), int(numbers[-1])
        low, high = _range(start, stop, first, last + 1)
        if high > last + 1:
            raise RequestError(f"the truth ends with event {last}, so stop cannot be {high}")
        names, strengths = _strengths_of_frame(truth["in_force"].iloc[low - first : high - first])
        return low, high, _changes(names, [(low, strengths)])
    if not given:
        raise RequestError(
            f"changes are derived from a server, a timeline, or a frame with the columns event_number and "
            f"in_force as truth() returns it, not from {_in_one_line(truth)}"
        )
    found = _given_changes(truth)
    if stop is None:
        raise RequestError("stop is needed beside the changes: the number of the event after the last one")
    low, high = _range(start, stop, 0, stop)
    _require_within("a change", found["begin"].to_numpy(), low, high)
    return low, high, found


def _timeline(truth: object) -> Timeline | None:
    timeline = getattr(truth, "timeline", truth)
    return timeline if isinstance(timeline, Timeline) else None


def _in_one_line(given: object) -> str:
    if isinstance(given, pd.DataFrame):
        return "one with the columns " + shorten(", ".join(map(str, given.columns)))
    return shorten(" ".join(repr(given).split()))


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _range(start: int | None, stop: int | None, first: int, end: int) -> tuple[int, int]:
    """Return the range that is asked for; by default all from `first` to `end` (exclusive)."""
    low, high = first if start is None else start, end if stop is None else stop
    if not (_is_whole(low) and _is_whole(high)) or not first <= low < high:
        raise RequestError(
            f"start and stop must be event numbers from {first}, the first less than the second; "
            f"got {shorten(repr(low))} and {shorten(repr(high))}"
        )
    return int(low), int(high)


def _require_within(what: str, numbers: np.ndarray, low: int, high: int) -> None:
    outside = numbers[(numbers < low) | (numbers >= high)]
    if len(outside):
        raise RequestError(f"{what} at event {outside[0]} is outside of the range from {low} to {high - 1}")


def _strengths_of_timeline(
    timeline: Timeline, names: list[str], start: int, stop: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Give parts of a range: the first event, and strengths of shape (n_names, n_events)."""
    for low in range(start, stop, _PART):
        for first, end, scenarios, begun in timeline.scenarios(low, min(stop, low + _PART)):
            strengths = np.zeros((len(names), end - first))
            found = strengths_of(scenarios, begun, first, timeline.times(first, end))
            for scenario, row in zip(scenarios, found, strict=True):
                place = names.index(scenario.name)
                strengths[place] = np.maximum(strengths[place], row)
            yield first, strengths


def _strengths_of_frame(in_force: pd.Series[Any]) -> tuple[list[str], np.ndarray]:
    """Return the names of scenarios, and their strengths of shape (n_names, n_events)."""
    try:
        values = [json.loads(value) if isinstance(value, str) else value for value in in_force]
        names = list(dict.fromkeys(name for value in values for name in value))
        strengths = np.array([value.get(name, 0.0) for name in names for value in values], float)
    except (AttributeError, TypeError, ValueError):
        raise RequestError(
            "the column in_force must hold objects such as {'strike': 1.0}, or {} where no scenario is, "
            "also as JSON strings"
        ) from None
    return names, strengths.reshape(len(names), len(values))


def _changes(names: list[str], parts: Iterable[tuple[int, np.ndarray]]) -> pd.DataFrame:
    """Return the changes of strengths that are given part by part, as `changes` does.

    A change goes on while each event differs from the one before it and no strength turns back.
    """
    begins: list[int] = []
    ends: list[int] = []
    before: list[np.ndarray] = []
    after: list[np.ndarray] = []
    last = turn = None
    for first, strengths in parts:
        if last is None or turn is None:
            last, turn = strengths[:, :1], np.zeros((len(names), 1))
        strengths = np.hstack([last, strengths])
        steps = np.hstack([turn, np.sign(np.diff(strengths))])
        last, turn = strengths[:, -1:], steps[:, -1:]
        differs = (steps != 0).any(axis=0)
        turns = (steps[:, 1:] * steps[:, :-1] < 0).any(axis=0)
        goes_on = differs[1:] & differs[:-1] & ~turns
        if goes_on[0]:
            ends.pop()
            after.pop()
        for place in np.flatnonzero(differs[1:] & ~goes_on):
            begins.append(first + int(place))
            before.append(strengths[:, place])
        for place in np.flatnonzero(differs[1:] & ~np.append(goes_on[1:], False)):
            ends.append(first + int(place))
            after.append(strengths[:, place + 1])

    def in_force(states: list[np.ndarray]) -> pd.Series[Any]:
        named = [{n: float(s) for n, s in zip(names, state, strict=True) if s > 0} for state in states]
        return pd.Series(named, dtype=object)

    return pd.DataFrame(
        {
            "begin": np.array(begins, np.int64),
            "end": np.array(ends, np.int64),
            "before": in_force(before),
            "after": in_force(after),
            "size": [float(np.abs(b - a).max()) for b, a in zip(before, after, strict=True)],
        }
    ).astype({"size": float})


def _given_changes(truth: Any) -> pd.DataFrame:  # noqa: ANN401 - as users give it
    """Return changes that a user gave, in order of their begin."""
    if isinstance(truth, pd.DataFrame):
        if not {"begin", "end"} <= set(truth.columns):
            raise RequestError(
                "the truth must have the columns event_number and in_force, or begin and end for changes, "
                f"not {shorten(', '.join(map(str, truth.columns)))}"
            )
        found = truth
    else:
        try:
            pairs = np.array(truth)
            found = pd.DataFrame(pairs if pairs.ndim == 2 else {"begin": pairs, "end": pairs})
            found.columns = pd.Index(["begin", "end"])
        except ValueError:  # not one or two columns
            found = pd.DataFrame({"begin": ["none"], "end": ["none"]})
    if len(found) == 0:
        return found
    numbers = found[["begin", "end"]].to_numpy()
    if numbers.dtype.kind not in "iu" or (numbers[:, 0] > numbers[:, 1]).any():
        raise RequestError(
            "the truth must be a server, a timeline, a frame, event numbers, or begins and ends of changes, "
            f"not {shorten(repr(truth))}"
        )
    return found.sort_values("begin", ignore_index=True, kind="stable")


def _numbers(alarms: Iterable[Any], truth: object) -> np.ndarray:
    """Return the event numbers of alarms, ascending; that of a time is the newest event then."""
    try:
        found = list(alarms)
        if all(map(_is_whole, found)):
            return np.sort(np.array(found, np.int64))
        instants = [parse_instant(instant) for instant in pd.Series(found)]  # which makes datetimes of times
    except (TypeError, ValueError, OverflowError):
        raise RequestError(f"alarms must be event numbers, or times, not {_in_one_line(alarms)}") from None
    timeline = _timeline(truth)
    if timeline is None:
        raise RequestError("alarms can be times if the truth is a server or a timeline: give event numbers")
    numbers = np.sort(np.array([timeline.count(instant) - 1 for instant in instants], np.int64))
    if len(numbers) and numbers[0] < timeline.entries[0].first:
        raise RequestError(f"an alarm at {rfc3339(min(instants))} is before the first event of the stream")
    return numbers

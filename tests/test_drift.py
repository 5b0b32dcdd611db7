"""Changes of a stream are those of its scenarios, and alarms are counted as CapyMOA counts them."""

from __future__ import annotations

import io
import json
import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.clocks import NOW, SECOND, Clock
from helpers.waiting import until
from logistream import drift
from logistream.drift import changes, evaluate_detector
from logistream.errors import NotYetError, RequestError
from logistream.model.scenario import Scenario
from logistream.server.server import StreamServer
from logistream.stream.stream import Stream
from logistream.stream.timeline import Entry, Timeline, first_entry

if TYPE_CHECKING:
    from logistream.model.model import Model

CASH = Scenario([{"set": {"Type": "CASH"}}], name="cash")
LATE = Scenario([{"set": {"Late_delivery_risk": 1}}], name="late")


def with_profile(scenario: Scenario, **profile: Any) -> Scenario:
    """Return a scenario with another profile."""
    return Scenario(scenario.effects, profile, name=scenario.name)


def by_definition(
    alarms: list[int], intervals: list[tuple[int, int]], n: int, delay: int, early: int, period: int
) -> dict[str, float]:
    """Return CapyMOA's figures by its names, counted alarm by alarm as its documentation defines them."""
    counts = dict.fromkeys(("tp", "fp", "fn", "found"), 0)
    waits = []
    opens = 0
    for begin, end in intervals:
        first = None
        for alarm in alarms:
            if not opens < alarm <= end + delay:
                continue
            if begin - early <= alarm <= end + delay:
                counts["tp"] += 1
                first = alarm if first is None else first
            else:
                counts["fp"] += 1
        if first is None:
            counts["fn"] += 1
        else:
            counts["found"] += 1
            waits.append(first - begin)
        opens = end + delay
    tp, fp, fn = counts["tp"], counts["fp"], counts["fn"]
    precision = tp / (tp + fp) if tp + fp else 0.0
    recall = tp / (tp + fn) if tp + fn else 0.0
    return {
        "true_alarms": tp,
        "false_alarms": fp,
        "missed": fn,
        "precision": precision,
        "recall": recall,
        "episode_recall": counts["found"] / len(intervals),
        "f1": 2 * precision * recall / (precision + recall) if precision + recall else 0.0,
        "mean_delay": float(np.mean(waits)) if waits else math.nan,
        "false_alarm_rate": fp / n * period,
        "alarm_rate": (tp + fp) / n * period,
        "n_episodes": len(intervals),
        "n_alarms": tp + fp,
    }


@settings(max_examples=50)
@given(
    st.lists(st.integers(0, 399), max_size=30),
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 99)), min_size=1, max_size=8),
    st.integers(1, 80),
    st.integers(0, 40),
    st.integers(1, 2000),
    st.integers(0, 10_000),
)
def test_the_figures_are_those_of_capymoa(
    alarms: list[int], changed: list[tuple[int, int]], delay: int, early: int, period: int, first: int
) -> None:
    """For any alarms and any changes, also those that overlap, wherever the range begins."""
    intervals = sorted((begin, begin + width) for begin, width in changed)
    expected = by_definition(sorted(alarms), intervals, 400, delay, early, period)
    found = evaluate_detector(
        [first + alarm for alarm in alarms],
        [(first + begin, first + end) for begin, end in intervals],
        max_delay=delay,
        start=first,
        stop=first + 400,
        max_early_detection=early,
        rate_period=period,
    )
    figures = {name: getattr(found, name) for name in expected}
    assert figures == pytest.approx(expected, nan_ok=True)
    assert found.mean_time_between_false_alarms == (
        400 / found.false_alarms if found.false_alarms else math.inf
    )
    assert len(found.episodes) == len(intervals)


def test_an_example_computed_by_hand() -> None:
    """Two changes, one of them gradual: delays count from the begin, and the window from the end."""
    found = evaluate_detector(
        [90, 100, 1180, 1500, 2300, 2301, 2900], [(2000, 2200), (100, 100)], max_delay=100, stop=3000
    )
    table = found.episodes
    assert table[["begin", "end", "true_alarms", "false_alarms"]].to_numpy().tolist() == [
        [100, 100, 1, 1],
        [2000, 2200, 1, 2],
    ]
    assert table["first_alarm"].tolist() == [100, 2300]
    assert table["delay"].tolist() == [0, 300]
    assert (found.n_alarms, found.alarms_outside, found.missed) == (5, 2, 0)
    assert (found.precision, found.recall, found.mean_delay) == (2 / 5, 1.0, 150.0)
    assert (found.false_alarm_rate, found.mean_time_between_false_alarms) == (1.0, 1000.0)
    missed = evaluate_detector([90], [100], max_delay=10, stop=200)
    assert (missed.missed, missed.f1) == (1, 0.0)
    assert missed.episodes["delay"].isna().all()
    assert "mean_delay" in repr(missed)
    assert "mean_delay" in missed._repr_html_()


def intervals_of(found: pd.DataFrame) -> list[tuple[int, int]]:
    """Return begins and ends of changes."""
    return list(zip(found["begin"].tolist(), found["end"].tolist(), strict=True))


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ({"shape": "abrupt"}, []),
        ({"shape": "abrupt", "at": 120}, [(120, 120)]),
        ({"shape": "ramp", "position": 200, "width": 100}, [(151, 250)]),
        ({"shape": "ramp", "position": 20, "width": 100}, [(1, 70)]),
        (
            {"shape": "recurring", "period": 150, "length": 50, "at": 100},
            [(100, 100), (150, 150), (250, 250), (300, 300)],
        ),
        ({"shape": "recurring", "period": 397, "length": 1}, [(1, 1), (397, 397), (398, 398)]),
    ],
)
def test_each_profile_has_its_changes(profile: dict[str, Any], expected: list[tuple[int, int]]) -> None:
    """Begin and end of each, and by how much the strength changes."""
    scenario = with_profile(CASH, **profile)
    found = changes(Timeline([Entry(0, NOW, NOW, 100.0, scenarios=(scenario,))]), stop=400)
    assert intervals_of(found) == expected
    states = zip(found["before"], found["after"], strict=True)
    assert found["size"].tolist() == [abs(a.get("cash", 0) - b.get("cash", 0)) for a, b in states]
    assert (found["size"] > 0).all()


def test_the_changes_of_a_table_without_a_stream(model: Model) -> None:
    """`Model.truth` is enough."""
    ramp = with_profile(CASH, shape="ramp", position=200, width=100)
    assert intervals_of(changes(model.truth(0, 300, scenario=ramp))) == [(151, 250)]
    assert changes(model.truth(0, 300)).empty


@pytest.fixture(scope="module")
def stream(model: Model) -> Stream:
    """Return a stream whose scenarios were set, replaced, joined and ended, with profiles of both units."""
    clock = Clock()
    stream = Stream(model, Timeline([first_entry(NOW, rate=100)]), seed=3, clock=clock)
    recurring = with_profile(CASH, shape="recurring", period=4, length=1, unit="seconds")
    ramp = with_profile(LATE, shape="ramp", position=150, width=200)
    for scenarios in (CASH, LATE, [CASH, ramp], (), recurring, ()):
        clock.now += 6 * SECOND
        stream.change(scenarios=scenarios)
    clock.now += SECOND
    return stream


EXPECTED = [
    (601, 601, {}, {"cash": 1.0}),
    (1201, 1201, {"cash": 1.0}, {"late": 1.0}),
    (1801, 1801, {"late": 1.0}, {"cash": 1.0}),
    (1852, 2051, {"cash": 1.0}, {"cash": 1.0, "late": 1.0}),
    (2401, 2401, {"cash": 1.0, "late": 1.0}, {}),
    (3001, 3001, {}, {"cash": 1.0}),
    (3100, 3100, {"cash": 1.0}, {}),
    (3400, 3400, {}, {"cash": 1.0}),
    (3500, 3500, {"cash": 1.0}, {}),
]


def rows(found: pd.DataFrame) -> list[tuple[Any, ...]]:
    """Return changes as tuples, without their size."""
    return list(found[["begin", "end", "before", "after"]].itertuples(index=False, name=None))


@pytest.mark.parametrize("part", [1, 97, 1 << 20])
def test_the_changes_of_a_timeline_are_those_of_the_truth(
    part: int, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scenarios that are set, replaced, joined and ended, and their profiles, in parts of any length."""
    monkeypatch.setattr(drift, "_PART", part)
    stop = stream.next_number()
    found = changes(stream.timeline, stop=stop)
    assert rows(found) == EXPECTED
    assert (found["size"] == 1).all()
    within = changes(stream.timeline, 1900, 3100)
    assert rows(within) == [(1901, 2051, {"cash": 1.0, "late": 0.245}, EXPECTED[3][3]), *EXPECTED[4:6]]
    assert within["size"][0] == 1 - 0.245


def test_the_truth_of_a_stream_has_the_same_changes(stream: Stream) -> None:
    """All of it or a part."""
    truth = stream.truth(0, stream.next_number())
    assert rows(changes(truth)) == EXPECTED
    assert changes(truth, 1900, 3100).equals(changes(stream.timeline, 1900, 3100))
    assert changes(stream.truth(1900, 3100)).equals(changes(stream.timeline, 1900, 3100))


def test_alarms_can_be_times(stream: Stream) -> None:
    """That of an event means this event, in any form of a time."""
    numbers, stop = [610, 1250], stream.next_number()
    times = pd.to_datetime(stream.timeline.times(0, 2000)[numbers], unit="us", utc=True)
    expected = evaluate_detector(numbers, stream.timeline, max_delay=100, stop=stop).figures
    forms: list[Any] = [
        times,
        list(times),
        [time.isoformat() for time in times],
        times.tz_localize(None).to_numpy(),
    ]
    for form in [*forms, [time.to_pydatetime() + timedelta(milliseconds=3) for time in times]]:
        assert evaluate_detector(form, stream.timeline, max_delay=100, stop=stop).figures == expected


@pytest.mark.slow
def test_the_truth_of_a_live_server(model: Model) -> None:
    """The server, its truth, and what `GET /truth` answers, page by page and in each format, agree."""
    with StreamServer(model, rate=500, port=0, history="1s") as server:
        server.scenario = CASH
        begun = server.timeline.last.first
        until(lambda: server.state["next_event_number"] > begun + 50)
        server.scenario = None
        ended = server.timeline.last.first
        until(lambda: server.state["next_event_number"] > ended + 50)
        stop = ended + 50
        expected = [(begun, begun, {}, {"cash": 1.0}), (ended, ended, {"cash": 1.0}, {})]
        assert rows(changes(server)) == expected
        assert rows(changes(server.truth(0, stop))) == expected
        pages = []
        for start, end in ((0, begun), (begun, stop)):
            with urlopen(f"{server.url}/truth?start={start}&stop={end}", timeout=60) as answer:
                pages.append(pd.DataFrame(json.load(answer)))
        assert rows(changes(pd.concat(pages, ignore_index=True))) == expected
        with urlopen(f"{server.url}/truth?start=0&stop={stop}&format=arrow", timeout=60) as answer:
            table = pa.ipc.open_stream(io.BytesIO(answer.read())).read_all().to_pandas()
        assert rows(changes(table)) == expected
        alarms = [begun + 10, ended + 20]
        found = evaluate_detector(alarms, server, max_delay=50)
        assert (found.mean_delay, found.precision, found.episode_recall) == (15.0, 1.0, 1.0)
        for same in (table, changes(server), [begun, ended]):
            again = evaluate_detector(alarms, same, max_delay=50, start=0, stop=stop)
            assert again.episodes[["first_alarm", "delay"]].equals(found.episodes[["first_alarm", "delay"]])
        with pytest.raises(NotYetError, match=r"^event 999999999 has not happened yet: the newest is \d+$"):
            changes(server, stop=10**9)


A_TRUTH = pd.DataFrame({"event_number": range(5, 9), "in_force": [{}, {"a": 1.0}, {"a": 1.0}, {}]})
NO_TRUTH = (
    r"^the truth must be a server, a timeline, a frame, event numbers, or begins and ends of changes, not "
)


@pytest.mark.parametrize(
    ("alarms", "truth", "options", "message"),
    [
        ([], "yes", {}, NO_TRUTH + "'yes'$"),
        ([], None, {}, NO_TRUTH + "None$"),
        ([], [1.5], {}, NO_TRUTH + r"\[1.5\]$"),
        ([], [(1, 2, 3)], {}, NO_TRUTH),
        ([], [(2, 1)], {}, NO_TRUTH),
        ([], [(1, 2), 3], {}, NO_TRUTH),
        (
            [],
            A_TRUTH[["in_force"]],
            {},
            r"^the truth must have the columns event_number and in_force, or begin and end for changes, not "
            r"in_force$",
        ),
        ([], A_TRUTH.drop(index=1), {}, r"^the truth must be a frame of at least one event, without gaps"),
        ([], A_TRUTH.head(0), {}, r"^the truth must be a frame of at least one event"),
        ([], A_TRUTH.head(1), {"stop": None}, r"^nothing changes from event 5 to 5, so any alarm is false$"),
        ([], A_TRUTH, {"stop": 12}, r"^the truth ends with event 8, so stop cannot be 12$"),
        (
            [],
            A_TRUTH,
            {"start": 3},
            r"^start and stop must be event numbers from 5, the first less than the second; got 3 and 9$",
        ),
        ([], [3], {"stop": None}, r"^stop is needed beside the changes: the number of the event after the"),
        ([], [30], {}, r"^a change at event 30 is outside of the range from 0 to 8$"),
        ([9], [3], {}, r"^an alarm at event 9 is outside of the range from 0 to 8$"),
        ([1.5], [3], {}, r"^alarms must be event numbers, or times, not \[1.5\]$"),
        ([True], [3], {}, r"^alarms must be event numbers, or times, not \[True\]$"),
        (
            pd.Series([3, None]),
            [3],
            {},
            r"^alarms must be event numbers, or times, not 0 3.0 1 NaN dtype: float64$",
        ),
        (7, [3], {}, r"^alarms must be event numbers, or times, not 7$"),
        (["yesterday"], [3], {}, r"^alarms must be event numbers, or times, not \['yesterday'\]$"),
        (
            ["2026-11-26T12:00:00Z"],
            [3],
            {},
            r"^alarms can be times if the truth is a server or a timeline: give event numbers$",
        ),
        ([], [3], {"max_delay": 0}, r"^max_delay must be a whole number from 1, not 0$"),
        ([], [3], {"max_delay": 1.5}, r"^max_delay must be a whole number from 1, not 1.5$"),
        (
            [],
            [3],
            {"max_early_detection": -1},
            r"^max_early_detection must be a whole number from 0, not -1$",
        ),
        ([], [3], {"rate_period": True}, r"^rate_period must be a whole number from 1, not True$"),
    ],
)
def test_what_is_not_allowed_is_named(alarms: Any, truth: Any, options: dict[str, Any], message: str) -> None:
    """In one sentence, with what came and what is expected."""
    with pytest.raises(RequestError, match=message):
        evaluate_detector(alarms, truth, **{"max_delay": 5, "stop": 9} | options)


def test_changes_are_not_derived_from_changes() -> None:
    """`changes` takes a stream or its truth."""
    with pytest.raises(
        RequestError, match=r"^changes are derived from a server, a timeline, or a frame with"
    ):
        changes([3])  # type: ignore[arg-type]


@pytest.mark.parametrize("in_force", [None, 5, "{'a': 1.0}", [1], {"a": "strong"}])
def test_a_truth_without_strengths_is_refused(in_force: object) -> None:
    """As from a file whose column is empty, or holds Python's notation in place of JSON."""
    truth = pd.DataFrame({"event_number": [0, 1], "in_force": [{}, in_force]})
    with pytest.raises(
        RequestError, match=r"^the column in_force must hold objects such as \{'strike': 1.0\},"
    ):
        changes(truth)


def test_another_frame_is_refused_in_one_line() -> None:
    """With its columns, not with its rows."""
    with pytest.raises(RequestError, match=r"not from one with the columns event_number, strength$"):
        changes(pd.DataFrame({"event_number": range(100), "strength": 0.0}))


def test_an_alarm_before_the_stream_is_refused(model: Model) -> None:
    """With its time: there is no event at it."""
    stream = Stream(model, Timeline([first_entry(NOW, rate=10)]), clock=Clock())
    stream.change(scenarios=[CASH])
    with pytest.raises(
        RequestError,
        match=r"^an alarm at 2026-11-01T00:00:00.000000Z is before the first event of the stream$",
    ):
        evaluate_detector(["2026-11-01T00:00:00Z"], stream.timeline, max_delay=5, stop=100)

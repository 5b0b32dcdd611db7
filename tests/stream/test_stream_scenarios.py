"""Scenarios of a stream: entries of its timeline, and events and truths that follow from them."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from helpers.clocks import NOW, SECOND, Clock
from logistream import dataco
from logistream.errors import RequestError
from logistream.model.mixture import Mixture
from logistream.model.scenario import Scenario
from logistream.stream.stream import Stream
from logistream.stream.timeline import Timeline, first_entry
from logistream.stream.timeline_file import open_timeline_file

if TYPE_CHECKING:
    from pathlib import Path

    from logistream.model.model import Model

CASH = Scenario([{"set": {"Type": "CASH"}}], name="cash")
LATE = Scenario([{"set": {"Late_delivery_risk": 1}}], name="late")


@pytest.fixture
def clock() -> Clock:
    """Return a clock at the beginning of the stream."""
    return Clock()


@pytest.fixture
def stream(model: Model, clock: Clock) -> Stream:
    """Return a hundred events a second from NOW."""
    return Stream(model, Timeline([first_entry(NOW, rate=100)]), seed=3, clock=clock)


def test_a_scenario_holds_from_an_event_to_another(stream: Stream, clock: Clock) -> None:
    """Events before it and after it are those of the plain stream; between them those of the scenario."""
    plain = Stream(stream.model, Timeline([first_entry(NOW, rate=100)]), seed=3, clock=clock)
    clock.now += 10 * SECOND
    first = stream.change(scenarios=CASH).first
    clock.now += 10 * SECOND
    stop = stream.change(scenarios=()).first
    clock.now += 10 * SECOND
    assert (first, stop) == (1001, 2001)
    # Changes keep the phase to the microsecond; what follows the clock is not compared.
    clocked = ["event_time", "shipping date (DateOrders)"]
    events, others = (s.batch(0, 3000).drop_columns(clocked) for s in (stream, plain))
    assert events.slice(0, first).equals(others.slice(0, first))
    assert events.slice(stop).equals(others.slice(stop))
    held = stream.batch(first, stop)
    assert set(held.column("Type").to_pylist()) == {"CASH"}
    unchanged = held.column("Product Price").equals(plain.batch(first, stop).column("Product Price"))
    assert unchanged
    mixture = Mixture(stream.model, CASH, 3, live=True)
    times = stream.timeline.times(first, stop)
    assert held.equals(mixture.batch(first, stop, np.ones((1, stop - first)), times))


def test_any_split_of_a_range_gives_the_same_events(stream: Stream, clock: Clock) -> None:
    """Also across entries with other scenarios and rates."""
    for change in ({"scenarios": [CASH]}, {"rate": 50.0}, {"scenarios": [CASH, LATE]}, {"scenarios": [LATE]}):
        clock.now += 3 * SECOND
        stream.change(**change)
    clock.now += 20 * SECOND
    whole = stream.batch(100, 1200)
    cuts = [100, 250, 301, 302, 700, 1200]
    parts = [row for a, b in itertools.pairwise(cuts) for row in stream.batch(a, b).to_pylist()]
    assert parts == whole.to_pylist()


def test_a_profile_counts_from_where_the_scenario_took_effect(stream: Stream, clock: Clock) -> None:
    """In events or in seconds, also after the rate or another scenario was changed meanwhile."""
    after_events = Scenario([{"set": {"Type": "CASH"}}], {"shape": "abrupt", "at": 500}, name="events")
    after_seconds = Scenario(
        [{"set": {"Late_delivery_risk": 1}}], {"unit": "seconds", "at": 4}, name="seconds"
    )
    clock.now += 2 * SECOND
    begun = stream.change(scenarios=[after_events, after_seconds])
    clock.now += SECOND
    stream.change(rate=200)
    clock.now += SECOND
    stream.change(scenarios=[after_events, after_seconds, Scenario([{"scale": {"Product Price": 2}}])])
    clock.now += 10 * SECOND
    stop = stream.next_number()
    truth = stream.truth(0, stop)
    names = truth["scenario"].fillna("")
    numbers = np.arange(stop)
    times = stream.timeline.times(0, stop)
    assert (names.str.contains("events") == (numbers >= begun.first + 500)).all()
    assert (names.str.contains("seconds") == (times >= begun.since + 4 * SECOND)).all()


def test_a_rate_effect_holds_with_its_scenario(stream: Stream) -> None:
    """The rate is multiplied while it is in force, and what was set meanwhile is kept in proportion."""
    stream.change(scenarios=dataco.peak_season())
    assert stream.rate == 300
    stream.change(scenarios=[dataco.peak_season(), CASH])
    assert stream.rate == 300
    stream.change(rate=600)
    stream.change(scenarios=[CASH])
    assert stream.rate == 200
    with pytest.raises(
        RequestError, match=r"^rate must be from 0.001 to 1,000,000 events per second, not 2000000"
    ):
        stream.change(scenarios={"effects": [{"rate": 10_000}]})
    assert stream.scenarios == (CASH,)


def test_the_same_scenario_again_is_no_change(stream: Stream) -> None:
    """One entry of the timeline for each change, and none without."""
    entry = stream.change(scenarios=CASH)
    assert stream.change(scenarios=CASH.to_json()) is entry
    assert [e.scenario for e in stream.timeline.entries] == [None, "cash"]
    assert stream.state["scenario"] == "cash"
    assert stream.state["scenarios"] == [CASH.to_json()]
    assert stream.change(scenarios=[]).scenarios == ()


def test_what_cannot_be_exact_changes_nothing(stream: Stream) -> None:
    """Not the rate that is given beside it either."""
    with pytest.raises(RequestError, match=r"^'Sales' cannot be set, since it is computed"):
        stream.change(rate=7, scenarios={"effects": [{"set": {"Sales": 1.0}}]})
    assert len(stream.timeline.entries) == 1


def test_the_truth_of_a_stream(stream: Stream, clock: Clock) -> None:
    """Twins are the events of the plain stream; probabilities are calibrated across a change."""
    clock.now += 10 * SECOND
    first = stream.change(scenarios=dataco.port_strike()).first
    clock.now += 20 * SECOND
    truth = stream.truth(0, 3000)
    assert truth["event_number"].tolist() == list(range(3000))
    assert truth["scenario"].isna().tolist() == [n < first for n in range(3000)]
    assert not truth["twin"][:first].map(len).any()
    events = stream.batch(0, 3000).to_pandas()
    late, p = events["Late_delivery_risk"], truth["late_probability"]
    for part in (slice(0, first), slice(first, 3000)):
        spread = math.sqrt((p[part] * (1 - p[part])).sum())
        assert abs(late[part].sum() - p[part].sum()) < 5 * spread
    there = (events["Order Region"] == "Western Europe") & (truth["event_number"] >= first)
    assert p[there].mean() > 0.9
    delayed = truth["twin"][there].map(lambda twin: "shipping date (DateOrders)" in twin)
    assert delayed.all()
    assert len(stream.truth(5, 5)) == 0


def test_a_file_keeps_scenarios(model: Model, tmp_path: Path, clock: Clock) -> None:
    """A stream that is opened again on its file has the same events, and its scenarios are in force."""
    path = tmp_path / "timeline"

    def opened() -> Stream:
        timeline = open_timeline_file(
            path, header={}, first_entry=lambda now: first_entry(now, rate=100), clock=clock
        )
        return Stream(model, timeline, clock=clock)

    stream, other = opened(), opened()
    clock.now += 5 * SECOND
    scenario = Scenario([{"set": {"Type": "CASH"}}], {"shape": "ramp", "position": 200, "width": 300})
    entry = stream.change(scenarios=[scenario, LATE])
    clock.now += 10 * SECOND
    other.refresh()
    assert other.scenarios == (scenario, LATE)
    again = opened()
    for copy in (other, again):
        assert copy.batch(0, 1400).equals(stream.batch(0, 1400))
        assert copy.truth(entry.first, 900).equals(stream.truth(entry.first, 900))

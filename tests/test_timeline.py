"""Event numbers and event times determine each other, through every change."""

from __future__ import annotations

import threading
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logistream.errors import StreamError
from logistream.timeline import MAX_RATE, MIN_RATE, Entry, Timeline

SECOND = 1_000_000
NOW = 1_795_000_000 * SECOND  # November 2026

rates = st.floats(0.01, MAX_RATE) | st.sampled_from([0.5, 1, 2, 3, 50, 1000, 300_000])
changes = st.lists(
    st.tuples(st.integers(0, 10 * SECOND), st.none() | rates, st.none() | st.booleans()), max_size=8
)


def build(rate: float, changed: list[tuple[int, float | None, bool | None]]) -> tuple[Timeline, int]:
    """Return a timeline with the changes made, each some microseconds after the one before, and the end."""
    timeline, now = Timeline.begin(NOW, rate=rate), NOW
    for wait, new_rate, paused in changed:
        now += wait
        timeline.change(now, rate=new_rate, paused=paused)
    return timeline, now


@given(rates, changes, st.integers(0, 5 * SECOND))
def test_times_strictly_increase_through_every_change(
    rate: float, changed: list[tuple[int, float | None, bool | None]], more: int
) -> None:
    """No change makes two events meet or swap, wherever one looks."""
    timeline, now = build(rate, changed)
    stop = timeline.count(now + more)
    for entry in timeline.entries:
        near = timeline.times(max(0, entry.first - 20), min(stop, entry.first + 20))
        assert (np.diff(near) > 0).all()


@given(rates, changes, st.integers(0, 60 * SECOND))
def test_count_is_the_exact_inverse_of_time(
    rate: float, changed: list[tuple[int, float | None, bool | None]], moment: int
) -> None:
    """At the time of event n, n + 1 events have happened; a microsecond before, n."""
    timeline, _ = build(rate, changed)
    number = timeline.count(NOW + moment)
    assert number > 0
    assert timeline.time(number - 1) <= NOW + moment
    assert timeline.count(timeline.time(number - 1)) == number
    assert timeline.count(timeline.time(number - 1) - 1) == number - 1
    if not (timeline.last.paused and number >= timeline.last.first):
        assert timeline.time(number) > NOW + moment


@given(rates, changes, st.integers(0, 5 * SECOND), rates, st.booleans())
def test_what_has_happened_never_changes(
    rate: float,
    changed: list[tuple[int, float | None, bool | None]],
    more: int,
    new_rate: float,
    paused: bool,
) -> None:
    """A change leaves every event that has happened where it was."""
    timeline, now = build(rate, changed)
    now += more
    stop = timeline.count(now)
    before = timeline.times(max(0, stop - 1000), stop)
    timeline.change(now, rate=new_rate, paused=paused)
    np.testing.assert_array_equal(timeline.times(max(0, stop - 1000), stop), before)
    assert timeline.count(now) == stop


@given(rates, st.integers(0, 10**9), st.integers(0, 500))
def test_a_range_is_the_same_however_it_is_cut(rate: float, start: int, length: int) -> None:
    """times() of a range equals time() of its numbers, far from the beginning too."""
    timeline = Timeline.begin(NOW, rate=rate)
    numbers = range(start, start + length)
    exact = [NOW + n * 10**12 // round(rate * 1e6) for n in numbers]
    assert timeline.times(start, start + length).tolist() == exact


@given(st.integers(1, 3_600 * SECOND), st.lists(st.tuples(st.integers(1, SECOND // 60), rates), max_size=40))
def test_a_dragged_slider_neither_bursts_nor_starves(quiet: int, drags: list[tuple[int, float]]) -> None:
    """Over any drag the count is the integral of the rate, to one event and the rounding to microseconds."""
    timeline, now, expected = Timeline.begin(NOW, rate=2), NOW + quiet, 2 * quiet / SECOND
    for wait, rate in drags:
        timeline.change(now, rate=rate)
        expected += timeline.last.rate * wait / SECOND
        now += wait
    rounding = sum(rate for _, rate in drags) / SECOND
    assert abs(timeline.count(now) - expected) <= 1 + rounding + 1e-6 * expected


def test_the_rate_is_exact_over_a_year() -> None:
    """There is no drift: a year at 50 events a second is exactly a year long."""
    timeline = Timeline.begin(NOW, rate=50)
    year = 365 * 24 * 3600
    assert timeline.time(50 * year) == NOW + year * SECOND
    assert timeline.count(NOW + year * SECOND - 1) == 50 * year


def test_the_first_event_happens_at_the_beginning() -> None:
    """A stream does not wait one interval for its first event, however slow it is."""
    timeline = Timeline.begin(NOW, rate=0.001, first=7)
    assert timeline.count(NOW) == 8
    assert timeline.count(NOW - 1) == 7
    assert timeline.time(7) == NOW


def test_a_rate_change_keeps_the_phase() -> None:
    """With a quarter of the wait left, a quarter of the new interval remains."""
    timeline = Timeline.begin(NOW, rate=1)
    entry = timeline.change(NOW + 750_000, rate=10)
    assert entry == Entry(1, NOW + 750_000, NOW + 775_000, 10.0)
    assert timeline.times(0, 3).tolist() == [NOW, NOW + 775_000, NOW + 875_000]


def test_a_pause_freezes_the_phase() -> None:
    """Nothing happens while paused; on resuming, what was left of the wait remains, at the rate in force."""
    timeline = Timeline.begin(NOW, rate=1)
    assert timeline.change(NOW + 250_000, paused=True).first == 1
    assert timeline.count(NOW + 3600 * SECOND) == 1
    timeline.change(NOW + 100 * SECOND, rate=2)
    assert timeline.count(NOW + 3600 * SECOND) == 1
    timeline.change(NOW + 200 * SECOND, paused=False)
    assert timeline.times(0, 3).tolist() == [NOW, NOW + 200_375_000, NOW + 200_875_000]


def test_an_event_that_a_pause_holds_back_has_no_time() -> None:
    """Asking for the time of such an event is an error that says so."""
    timeline = Timeline.begin(NOW, rate=1)
    timeline.change(NOW + 1, paused=True)
    assert timeline.times(0, 1).tolist() == [NOW]
    assert timeline.times(1, 1).tolist() == []
    with pytest.raises(StreamError, match=r"^event 1 has no time yet: the stream is paused before 1$"):
        timeline.time(1)


def test_an_event_before_the_stream_has_no_time() -> None:
    """Numbers before the first entry are refused."""
    with pytest.raises(StreamError, match=r"^event 4 is before the stream, which begins with 5$"):
        Timeline.begin(NOW, first=5).time(4)


def test_setting_what_is_in_force_adds_nothing() -> None:
    """The same rate again is no entry."""
    timeline = Timeline.begin(NOW, rate=2)
    assert timeline.change(NOW + 5 * SECOND, rate=2.0, paused=False) is timeline.last
    assert len(timeline.entries) == 1


def test_a_clock_set_back_does_not_rewrite_the_past() -> None:
    """A change that seems to come before the one before it is taken as coming with it."""
    timeline = Timeline.begin(NOW, rate=2)
    timeline.change(NOW + 10 * SECOND, rate=4)
    entry = timeline.change(NOW + 5 * SECOND, rate=8)
    assert entry.first == 21
    assert entry.since == NOW + 10 * SECOND


@pytest.mark.parametrize("rate", [0, -1, MIN_RATE / 2, MAX_RATE * 2, float("nan"), float("inf")])
def test_a_rate_that_cannot_be_held_is_refused(rate: float) -> None:
    """Rates outside the limits, and what is no number, raise and leave the timeline as it was."""
    timeline = Timeline.begin(NOW)
    with pytest.raises(StreamError, match=r"^a timeline holds rates from 1e-06 to 1000000 events/s, not "):
        timeline.change(NOW, rate=rate)
    assert len(timeline.entries) == 1


def test_a_timeline_is_rebuilt_from_its_entries() -> None:
    """The list of entries is all that there is."""
    timeline, _ = build(3, [(SECOND, 5, None), (SECOND, None, True), (SECOND, None, False)])
    again = Timeline(timeline.entries)
    np.testing.assert_array_equal(again.times(0, 20), timeline.times(0, 20))


def test_entries_that_do_not_follow_each_other_are_refused() -> None:
    """Entries out of order, and none at all, are no timeline."""
    timeline, _ = build(3, [(SECOND, 5, None), (SECOND, 7, None)])
    with pytest.raises(StreamError, match="does not follow"):
        Timeline(reversed(timeline.entries))
    with pytest.raises(StreamError, match=r"^a timeline needs at least one entry$"):
        Timeline([])


def test_changes_from_many_threads_make_one_list() -> None:
    """Concurrent changes are put in one order, each following the one before."""
    timeline = Timeline.begin(NOW, rate=1)

    def drag(offset: int) -> None:
        for step in range(50):
            timeline.change(NOW + step * 1000, rate=2 + offset + step / 100)

    threads = [threading.Thread(target=drag, args=(offset,)) for offset in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(timeline.entries) == 201
    assert all(a.since <= b.since and a.first <= b.first for a, b in pairwise(timeline.entries))
    Timeline(timeline.entries)

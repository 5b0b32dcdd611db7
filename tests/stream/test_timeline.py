"""Event numbers and event times determine each other, through every change."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from logistream.errors import DataError, RequestError, StreamError
from logistream.model.scenario import Scenario
from logistream.stream.arrivals import EVEN, SECTION, STEPS, Arrivals
from logistream.stream.faults import read_faults
from logistream.stream.timeline import MAX_RATE, MIN_RATE, Entry, Timeline, first_entry
from logistream.times import rfc3339, wall_clock

SECOND = 1_000_000
NOW = 1_795_000_000 * SECOND  # November 2026
POISSON, BURSTS = Arrivals("poisson", 7), Arrivals("bursts", 7)

rates = (
    st.floats(0.01, MAX_RATE)
    | st.floats(0.001, 10)
    | st.sampled_from([0.001, 0.5, 1, 2, 3, 50, 1000, 300_000, 999_999.999999, MAX_RATE])
)
changes = st.lists(
    st.tuples(st.integers(0, 10 * SECOND), st.none() | rates, st.none() | st.booleans()), max_size=8
)
kinds = st.sampled_from([EVEN, POISSON, BURSTS])


def begun(
    now: int, *, rate: float = 2.0, first: int = 0, paused: bool = False, arrivals: Arrivals = EVEN
) -> Timeline:
    """Return a timeline whose event `first` happens at `now`."""
    return Timeline([first_entry(now, rate=rate, first=first, paused=paused)], arrivals)


def build(
    rate: float, changed: list[tuple[int, float | None, bool | None]], arrivals: Arrivals = EVEN
) -> tuple[Timeline, int]:
    """Return a timeline with the changes made, each some microseconds after the one before, and the end."""
    timeline, now = begun(NOW, rate=rate, arrivals=arrivals), NOW
    for wait, new_rate, paused in changed:
        now += wait
        timeline.change(now, rate=new_rate, paused=paused)
    return timeline, now


@given(kinds, rates, changes, st.integers(0, 5 * SECOND))
def test_times_strictly_increase_through_every_change(
    arrivals: Arrivals, rate: float, changed: list[tuple[int, float | None, bool | None]], more: int
) -> None:
    """No change makes two events meet or swap, wherever one looks."""
    timeline, now = build(rate, changed, arrivals)
    stop = timeline.count(now + more)
    for number in [entry.first for entry in timeline.entries] + [stop]:
        near = timeline.times(max(0, number - 20), min(stop, number + 20))
        assert (np.diff(near) > 0).all()
    assert (np.diff(timeline.times(max(0, stop - 2 * SECTION), stop)) > 0).all()


@given(kinds, rates, st.integers(0, NOW), st.integers(0, 60 * SECOND))
@example(POISSON, MAX_RATE, 0, 60 * SECOND)
@example(EVEN, MAX_RATE, 0, 0)
@example(EVEN, 999_999.999999, 1, 59)
def test_a_start_long_ago_is_exact(arrivals: Arrivals, rate: float, start: int, more: int) -> None:
    """Number and time determine each other as exactly decades after the first event as at once."""
    timeline = Timeline([first_entry(NOW, rate=rate, start=start)], arrivals)
    now = NOW + more
    number = timeline.count(now)
    assert number <= 2**53
    low = max(0, number - SECTION - 1)
    times = timeline.times(low, number + 1)
    assert (np.diff(times) > 0).all()
    assert times[-1] > now
    assert number == 0 or times[-2] <= now
    for place in (low, (low + number) // 2, number):
        time = timeline.time(place)
        assert time == times[place - low]
        assert timeline.count(time) == place + 1
        assert timeline.count(time - 1) == place
        if arrivals is EVEN:
            assert time == start + Fraction(place * 10**12, round(rate * 10**6)) // 1


@given(kinds, rates, changes, st.integers(0, 60 * SECOND))
def test_count_is_the_exact_inverse_of_time(
    arrivals: Arrivals, rate: float, changed: list[tuple[int, float | None, bool | None]], later: int
) -> None:
    """At the time of event n, n + 1 events have happened; a microsecond before, n."""
    timeline, _ = build(rate, changed, arrivals)
    number = timeline.count(NOW + later)
    assert number > 0
    assert timeline.time(number - 1) <= NOW + later
    assert timeline.count(timeline.time(number - 1)) == number
    assert timeline.count(timeline.time(number - 1) - 1) == number - 1
    if not (timeline.last.paused and number >= timeline.last.first):
        assert timeline.time(number) > NOW + later


@given(kinds, rates, st.integers(0, 2**50), st.integers(0, 2 * SECTION))
@example(POISSON, MAX_RATE, 0, 2 * SECTION)
def test_count_inverts_time_far_out(arrivals: Arrivals, rate: float, first: int, ahead: int) -> None:
    """A stream may begin with any number, within a section or at its end, and count in the next."""
    timeline = begun(NOW, rate=rate, first=first, arrivals=arrivals)
    number = first + ahead
    time = timeline.time(number)
    assert timeline.time(first) == NOW
    assert timeline.count(time) == number + 1
    assert timeline.count(time - 1) == number
    assert timeline.times(number, number + 1).tolist() == [time]


@given(kinds, rates, changes, st.integers(0, 5 * SECOND), rates, st.booleans())
def test_what_has_happened_never_changes(
    arrivals: Arrivals,
    rate: float,
    changed: list[tuple[int, float | None, bool | None]],
    more: int,
    new_rate: float,
    paused: bool,
) -> None:
    """A change leaves every event that has happened where it was."""
    timeline, now = build(rate, changed, arrivals)
    now += more
    stop = timeline.count(now)
    before = timeline.times(max(0, stop - 1000), stop)
    timeline.change(now, rate=new_rate, paused=paused)
    np.testing.assert_array_equal(timeline.times(max(0, stop - 1000), stop), before)
    assert timeline.count(now) == stop


@given(kinds, rates, changes, st.lists(st.integers(0, 3 * SECTION), min_size=2, max_size=5))
def test_a_range_is_the_same_however_it_is_cut(
    arrivals: Arrivals, rate: float, changed: list[tuple[int, float | None, bool | None]], cuts: list[int]
) -> None:
    """Any pieces of a range are the whole of it, down to single events."""
    timeline, _ = build(rate, changed, arrivals)
    timeline.change(timeline.last.since, paused=False)
    cuts.sort()
    whole = timeline.times(cuts[0], cuts[-1])
    pieces = [timeline.times(a, b) for a, b in pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate(pieces), whole)
    for number in {*cuts, *(entry.first for entry in timeline.entries)}:
        if cuts[0] <= number < cuts[-1]:
            assert timeline.time(number) == whole[number - cuts[0]]


@given(kinds, rates, st.integers(0, 10**9), st.integers(0, 500))
def test_times_are_those_of_the_formula(arrivals: Arrivals, rate: float, first: int, length: int) -> None:
    """A dead time of one microsecond, and the rest of the mean distance as operational time passes."""
    timeline = begun(NOW, rate=rate, first=first, arrivals=arrivals)
    slack = Fraction(10**12, round(rate * 1e6)) - 1
    origin = arrivals.position(first)
    exact = [
        NOW + k + (Fraction(arrivals.position(first + k) - origin, STEPS) * slack).__floor__()
        for k in range(length)
    ]
    assert timeline.times(first, first + length).tolist() == exact


@given(rates, st.integers(0, 10**9), st.integers(0, 500))
def test_even_times_lie_on_a_line(rate: float, start: int, length: int) -> None:
    """Each time is the whole number of microseconds that its multiple of the distance reaches."""
    timeline = begun(NOW, rate=rate)
    numbers = range(start, start + length)
    exact = [NOW + n * 10**12 // round(rate * 1e6) for n in numbers]
    assert timeline.times(start, start + length).tolist() == exact


@given(st.sampled_from([POISSON, BURSTS]), rates, st.integers(0, 10**6), st.integers(1, 9))
def test_the_rate_is_exact_over_whole_blocks(
    arrivals: Arrivals, rate: float, section: int, sections: int
) -> None:
    """Sections begin at equal distances, and each has all of its events before the next begins."""
    timeline = begun(NOW, rate=rate, first=section * SECTION, arrivals=arrivals)
    length = SECTION * Fraction(10**12, round(rate * 1e6))
    before_first = Fraction(int(arrivals.positions(section)[0]), STEPS) * (length / SECTION - 1)
    end = NOW - before_first + sections * length
    assert timeline.count(end.__floor__() - 1) == (section + sections) * SECTION
    assert timeline.time((section + sections) * SECTION) >= end.__floor__()


@given(kinds, rates, changes, changes)
def test_an_entry_may_lie_in_the_future(
    arrivals: Arrivals,
    rate: float,
    changed: list[tuple[int, float | None, bool | None]],
    later: list[tuple[int, float | None, bool | None]],
) -> None:
    """Until an entry takes effect, what went before it counts, and counts the same as without it."""
    timeline, now = build(rate, changed, arrivals)
    before = Timeline(timeline.entries, arrivals)
    for wait, new_rate, paused in later:
        timeline.change(now + 100_000 + wait, rate=new_rate, paused=paused)
    known = now + 100_000
    for time in range(now, known + 1, 12_500):
        assert timeline.count(time) == before.count(time)
    stop = before.count(known)
    start = max(0, stop - 100)
    np.testing.assert_array_equal(timeline.times(start, stop), before.times(start, stop))


@given(kinds, rates, changes, st.integers(-SECOND, 20 * SECOND), st.integers(-5, 5))
def test_waiting_ends_with_the_event(
    arrivals: Arrivals,
    rate: float,
    changed: list[tuple[int, float | None, bool | None]],
    later: int,
    ahead: int,
) -> None:
    """The wait is until the event's time, 0 from then on, and None if a pause holds it back."""
    timeline, now = build(rate, changed, arrivals)
    number = max(0, timeline.count(now + later) + ahead)
    wait = timeline.wait(number, now + later)
    if timeline.last.paused and number >= timeline.last.first:
        assert wait is None
    else:
        assert wait == max(0, timeline.time(number) - now - later)


def test_a_wait_goes_through_a_pause_that_ends() -> None:
    """An event of which it is known that a pause ends before it is waited for."""
    timeline = begun(NOW, rate=1)
    timeline.change(NOW + 250_000, paused=True)
    assert timeline.wait(0, NOW + SECOND) == 0
    assert timeline.wait(1, NOW + SECOND) is None
    timeline.change(NOW + 5 * SECOND, paused=False)
    assert timeline.wait(1, NOW + SECOND) == 4 * SECOND + 750_000


@pytest.mark.parametrize("rate", [2.0, 1000.0, 100_000.0])
def test_poisson_times_are_those_of_a_poisson_process(rate: float) -> None:
    """Gaps less the dead time are exponential: Kolmogorov-Smirnov, level 0.001, 40,000 events."""
    gaps = np.diff(begun(NOW, rate=rate, arrivals=POISSON).times(100, 40_100)) - 1
    values, counts = np.unique(gaps, return_counts=True)  # whole microseconds: looked at between them
    distance = np.abs(np.cumsum(counts) / len(gaps) + np.expm1(-(values + 0.5) / (1e6 / rate - 1))).max()
    assert distance < 1.95 / np.sqrt(len(gaps))


def test_bursts_are_more_dispersed_than_poisson_and_even_times() -> None:
    """The index of dispersion of counts a minute at 2 events a second."""
    index = {}
    for arrivals in (EVEN, POISSON, BURSTS):
        times = begun(NOW, rate=2, arrivals=arrivals).times(0, 200_000)
        counts = np.bincount((times - NOW) // (60 * SECOND))[:-1]
        index[arrivals.kind] = counts.var() / counts.mean()
    assert index["even"] == 0
    assert 0.8 < index["poisson"] < 1.1
    assert index["bursts"] > 15


@pytest.mark.parametrize(
    ("arrivals", "first", "digest"),
    [
        (EVEN, [0, 333_333, 666_666, 1_000_000], "187d7656a69e5621e480d49fb814f760"),
        (POISSON, [0, 91_472, 110_678, 366_212], "3019a0fb03b10c24271f78e1937f5e0c"),
        (BURSTS, [0, 126_628, 543_620, 811_198], "9ea07de6a35787146fe2e71588fe6108"),
    ],
)
def test_times_are_for_ever(arrivals: Arrivals, first: list[int], digest: str) -> None:
    """What a timeline means never changes, on no machine and in no version."""
    timeline = begun(NOW, rate=3, first=4000, arrivals=arrivals)
    timeline.change(NOW + 40 * SECOND, rate=700.25)
    timeline.change(NOW + 50 * SECOND, paused=True)
    timeline.change(NOW + 60 * SECOND, paused=False, rate=250_000)
    times = timeline.times(4000, 40_000)
    assert (times[:4] - NOW).tolist() == first
    assert hashlib.sha256(times.astype("<i8").tobytes()).hexdigest()[:32] == digest


@given(st.integers(1, 3_600 * SECOND), st.lists(st.tuples(st.integers(1, SECOND // 60), rates), max_size=40))
def test_a_dragged_slider_neither_bursts_nor_starves(quiet: int, drags: list[tuple[int, float]]) -> None:
    """Over any drag the count is the integral of the rate, to one event and the rounding to microseconds."""
    timeline, now, expected = begun(NOW, rate=2), NOW + quiet, 2 * quiet / SECOND
    for wait, rate in drags:
        timeline.change(now, rate=rate)
        expected += timeline.last.rate * wait / SECOND
        now += wait
    rounding = sum(rate for _, rate in drags) / SECOND
    assert abs(timeline.count(now) - expected) <= 1 + rounding + 1e-6 * expected


def test_the_rate_is_exact_over_a_year() -> None:
    """There is no drift: a year at 50 events a second is exactly a year long."""
    timeline = begun(NOW, rate=50)
    year = 365 * 24 * 3600
    assert timeline.time(50 * year) == NOW + year * SECOND
    assert timeline.count(NOW + year * SECOND - 1) == 50 * year


@pytest.mark.parametrize("arrivals", [EVEN, POISSON, BURSTS])
def test_the_first_event_happens_at_the_beginning(arrivals: Arrivals) -> None:
    """A stream does not wait one interval for its first event, however slow it is."""
    timeline = begun(NOW, rate=0.001, first=7, arrivals=arrivals)
    assert timeline.count(NOW) == 8
    assert timeline.count(NOW - 1) == 7
    assert timeline.time(7) == NOW


def test_a_rate_change_keeps_the_phase() -> None:
    """With a quarter of the wait left, a quarter of the new interval remains."""
    timeline = begun(NOW, rate=1)
    entry = timeline.change(NOW + 750_000, rate=10)
    assert entry == Entry(1, NOW + 750_000, NOW + 775_000, 10.0)
    assert timeline.times(0, 3).tolist() == [NOW, NOW + 775_000, NOW + 875_000]


@pytest.mark.parametrize("arrivals", [POISSON, BURSTS])
def test_a_change_keeps_what_is_left_of_a_random_wait(arrivals: Arrivals) -> None:
    """At four times the rate a quarter of the rest remains; then the distances follow as they would have."""
    timeline = begun(NOW, rate=1, arrivals=arrivals)
    undisturbed = timeline.times(0, 200)
    now = int(undisturbed[99] + undisturbed[100]) // 2
    entry = timeline.change(now, rate=4)
    assert entry.first == 100
    assert entry.start == now - (-(undisturbed[100] - now) // 4)
    times = timeline.times(0, 200)
    np.testing.assert_array_equal(times[:100], undisturbed[:100])
    np.testing.assert_allclose(np.diff(times[100:]), np.diff(undisturbed[100:]) / 4, rtol=1e-5, atol=2)


def test_a_pause_freezes_the_phase() -> None:
    """Nothing happens while paused; on resuming, what was left of the wait remains, at the rate in force."""
    timeline = begun(NOW, rate=1)
    assert timeline.change(NOW + 250_000, paused=True).first == 1
    assert timeline.count(NOW + 3600 * SECOND) == 1
    timeline.change(NOW + 100 * SECOND, rate=2)
    assert timeline.count(NOW + 3600 * SECOND) == 1
    timeline.change(NOW + 200 * SECOND, paused=False)
    assert timeline.times(0, 3).tolist() == [NOW, NOW + 200_375_000, NOW + 200_875_000]


@pytest.mark.parametrize("arrivals", [EVEN, POISSON, BURSTS])
def test_a_stream_may_begin_with_a_pause(arrivals: Arrivals) -> None:
    """Its first event comes as soon as it continues, which is after the change."""
    timeline = begun(NOW, rate=3, paused=True, arrivals=arrivals)
    assert timeline.count(NOW + SECOND) == 0
    assert timeline.wait(0, NOW) is None
    timeline.change(NOW + SECOND, paused=False)
    assert timeline.time(0) == NOW + SECOND + 1
    Timeline(timeline.entries, arrivals)


def test_an_event_that_a_pause_holds_back_has_no_time() -> None:
    """Asking for the time of such an event is an error."""
    timeline = begun(NOW, rate=1)
    timeline.change(NOW + 1, paused=True)
    assert timeline.times(0, 1).tolist() == [NOW]
    assert timeline.times(1, 1).tolist() == []
    with pytest.raises(StreamError, match=r"^event 1 has no time yet: the stream is paused before 1$"):
        timeline.time(1)


def test_an_event_before_the_stream_has_no_time() -> None:
    """Numbers before the first entry are refused."""
    with pytest.raises(StreamError, match=r"^event 4 is before the stream, which begins with 5$"):
        begun(NOW, first=5).time(4)


def test_setting_what_is_in_force_adds_nothing() -> None:
    """Setting the same rate again adds no entry."""
    timeline = begun(NOW, rate=2)
    assert timeline.change(NOW + 5 * SECOND, rate=2.0, paused=False) is timeline.last
    assert len(timeline.entries) == 1


def test_a_clock_set_back_does_not_rewrite_the_past() -> None:
    """A change that seems to come before the one before it is taken as coming with it."""
    timeline = begun(NOW, rate=2)
    timeline.change(NOW + 10 * SECOND, rate=4)
    entry = timeline.change(NOW + 5 * SECOND, rate=8)
    assert entry.first == 21
    assert entry.since == NOW + 10 * SECOND


@pytest.mark.parametrize("rate", [0, -1, MIN_RATE / 2, MAX_RATE * 2, float("nan"), float("inf")])
def test_a_rate_that_is_not_allowed_is_refused(rate: float) -> None:
    """Rates outside the limits, and values that are not numbers, raise and leave the timeline as it was."""
    timeline = begun(NOW)
    with pytest.raises(RequestError, match=r"^rate must be (a number|from 0\.001 to 1,000,000) "):
        timeline.change(NOW, rate=rate)
    assert len(timeline.entries) == 1


def test_a_timeline_is_rebuilt_from_its_entries() -> None:
    """The list of entries is all that there is."""
    timeline, _ = build(3, [(SECOND, 5, None), (SECOND, None, True), (SECOND, None, False)], BURSTS)
    again = Timeline(timeline.entries, BURSTS)
    np.testing.assert_array_equal(again.times(0, 20), timeline.times(0, 20))


def test_entries_that_do_not_follow_each_other_are_refused() -> None:
    """Entries out of order, and no entries, are not a timeline."""
    timeline, _ = build(3, [(SECOND, 5, None), (SECOND, 7, None)])
    with pytest.raises(StreamError, match="does not follow"):
        Timeline(reversed(timeline.entries))
    with pytest.raises(StreamError, match=r"^a timeline needs at least one entry$"):
        Timeline([])


def test_entries_of_other_arrivals_are_refused() -> None:
    """A list of entries belongs to the arrivals with which it was made."""
    timeline, _ = build(300, [(SECOND, 5, None), (SECOND, 7, None)], BURSTS)
    with pytest.raises(StreamError, match="does not follow"):
        Timeline(timeline.entries, POISSON)


def test_a_timeline_in_memory_is_certain_up_to_now() -> None:
    """No other process changes it; it has no file to read or to close."""
    timeline = begun(NOW)
    assert timeline.known_until(NOW + 5) == NOW + 5
    assert not timeline.shared
    assert timeline.refresh()
    timeline.close()
    assert timeline.change(NOW, rate=5).rate == 5


@given(kinds, rates, changes)
def test_entries_come_back_from_json(
    arrivals: Arrivals, rate: float, changed: list[tuple[int, float | None, bool | None]]
) -> None:
    """The JSON text of an entry gives the same entry, to the microsecond and to the last bit of its rate."""
    timeline, _ = build(rate, changed, arrivals)
    for entry in timeline.entries:
        assert Entry.from_json(json.loads(json.dumps(entry.to_json()))) == entry


def test_the_json_form_of_an_entry() -> None:
    """The keys in their order, times as strings."""
    strike = Scenario([{"delay": 4}], name="strike")
    assert list(Entry(3, NOW, NOW + 5, 2.5, True, (strike,)).to_json().items()) == [
        ("first", 3),
        ("since", "2026-11-18T11:06:40.000000Z"),
        ("start", "2026-11-18T11:06:40.000005Z"),
        ("rate", 2.5),
        ("paused", True),
        ("scenario", [strike.to_json()]),
    ]
    assert Entry.from_json({**Entry(3, NOW, NOW, 2.0).to_json(), "rate": 2}) == Entry(3, NOW, NOW, 2.0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (None, "a timeline entry must be a JSON object, not [1, 2]"),
        ({"more": 1}, "a timeline entry has the keys first, since, start, rate, paused, scenario, "
         "not first, since, start, rate, paused, scenario, more"),
        ({"first": "3"}, "first of a timeline entry must be a whole number, not '3'"),
        ({"first": True}, "first of a timeline entry must be a whole number, not True"),
        ({"first": 3.0}, "first of a timeline entry must be a whole number, not 3.0"),
        ({"since": 5}, "since of a timeline entry must be an RFC 3339 time, not 5"),
        ({"start": None}, "start of a timeline entry must be an RFC 3339 time, not None"),
        ({"rate": "2"}, "rate of a timeline entry must be a number, not '2'"),
        ({"paused": 0}, "paused of a timeline entry must be true or false, not 0"),
        ({"scenario": 0}, "scenario of a timeline entry must be a list of scenarios or null, not 0"),
        ({"scenario": [{"effects": []}]}, "a timeline entry has a value that is not allowed: "
         "a scenario has from 1 to 16 effects, not 0"),
        ({"since": "today"}, "a timeline entry has a value that is not allowed: expected an RFC 3339 time "
         "such as 2026-11-24T06:23:00.5Z, not 'today'"),
        ({"rate": float("nan")}, "a timeline entry has a value that is not allowed: "
         "rate must be a number of events per second, not nan"),
        ({"first": -1}, "a timeline entry has a value that is not allowed: "
         "a timeline entry cannot have first=-1 or start before since"),
    ],
)  # fmt: skip
def test_json_that_is_no_entry_is_refused(change: dict[str, Any] | None, sentence: str) -> None:
    """One sentence names the key, what it must be, and what came."""
    obj: Any = [1, 2] if change is None else {**Entry(3, NOW, NOW, 2.0).to_json(), **change}
    with pytest.raises(DataError) as caught:
        Entry.from_json(obj)
    assert str(caught.value) == sentence


def test_a_huge_rate_in_json_is_refused() -> None:
    """A whole number that no float can hold is refused."""
    with pytest.raises(DataError, match=r"^a timeline entry has a value that is not allowed: "):
        Entry.from_json({**Entry(3, NOW, NOW, 2.0).to_json(), "rate": 10**400})


def test_changes_from_many_threads_make_one_list() -> None:
    """Concurrent changes are put in one order, each following the one before."""
    timeline = begun(NOW, rate=1)

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


def test_the_picture_of_a_timeline_is_a_table_of_its_entries() -> None:
    """The last ten, with how many events had happened and when that was."""
    now = wall_clock()
    timeline = begun(now - 1000 * SECOND, rate=1000)
    timeline.change(now - 10 * SECOND, paused=True)
    shown = timeline._repr_html_()
    count = timeline.last.first
    assert re.search(rf" of 2 entries; arrivals even; at \d{{4}}-\S+Z {count:,} events had happened<", shown)
    assert f"<td>{count:,}</td><td>{rfc3339(timeline.last.since)}</td><td>1,000</td><td>yes</td>" in shown
    timeline.change(now, faults=read_faults({"drop": True, "share": 0.01, "where": "Sales<5"}))
    assert "<td>none</td><td>drop, share 0.01 where Sales&lt;5</td></tr>" in timeline._repr_html_()
    for rate in range(2, 29):
        timeline.change(now, rate=rate, paused=False)
    shown = timeline._repr_html_()
    assert " of 30 entries, the last 10 of them; " in shown
    assert shown.count("<tr><td>") == 10

"""The lines are right for any stream."""

from __future__ import annotations

import numpy as np
import pytest

from logistream.widgets.summary import FEWEST, changed_at, group_counts, lines, wilson
from widgets.test_cells import START, even, events, fresh


def test_an_even_stream_shows_exactly_its_rate() -> None:
    """The rate is neither rounded to whole events nor off by the edge of a window."""
    for rate in (0.2, 0.7, 2.0, 3.3, 50.0, 1000.0):
        cells, times = fresh(), even(rate, 40)
        cells.update(events(times))
        measured = lines(cells, START, int(times[-1]), window=30).rate
        assert np.nanmin(measured) == pytest.approx(rate, rel=1e-3)
        assert np.nanmax(measured) == pytest.approx(rate, rel=1e-3)


def test_a_silent_stream_shows_no_rate() -> None:
    """After five intervals without an event the rate is 0, and the axis goes on."""
    cells, times = fresh(), even(2, 30)
    cells.update(events(times))
    stop = int(times[-1]) + 5_000_000
    cells.advance(stop)
    found = lines(cells, START, stop, window=30)
    assert found.rate[-1] == 0
    assert found.time[-1] == pytest.approx(stop / 1e6)


def test_a_pause_is_no_part_of_the_rate() -> None:
    """Just after a pause the rate is that of the stream, not diluted by the time without events."""
    cells = fresh()
    pause, resume = START / 1e6 + 10, START / 1e6 + 20
    cells.update(events(np.concatenate([even(50, 10), even(50, 5, START + 20_000_000)])))
    asked = [(START / 1e6, 50.0), (pause, 0.0), (resume, 50.0)]
    found = lines(cells, START, START + 25_000_000, window=30, asked=asked)
    after = found.rate[found.time > resume + 0.3]
    assert after == pytest.approx(50, rel=0.03)


def test_before_the_second_event_there_is_no_rate() -> None:
    """One event ends no interval, so its rate is unknown rather than made up."""
    cells = fresh()
    cells.update(events(np.array([START])))
    assert np.isnan(lines(cells, START, START + 900_000, window=30).rate).all()


def test_an_empty_frame_gives_empty_lines() -> None:
    """Nothing is drawn, and nothing fails, before the first event."""
    cells = fresh()
    found = lines(cells, START, START + 20_000_000, window=30)
    assert np.isnan(found.share).all()
    assert group_counts(cells, START, START + 20_000_000).labels == ()


def test_no_share_is_drawn_from_under_ten_events() -> None:
    """A share of a few events would be noise with many digits."""
    cells = fresh()
    cells.update(events(even(1, 30), late=1))
    found = lines(cells, START, START + 30_000_000, window=30)
    first = int(np.flatnonzero(np.isfinite(found.share))[0])
    assert found.time[first] - START / 1e6 == pytest.approx(FEWEST - 1, abs=0.5)
    assert np.isfinite(found.groups[first]).sum() == 1


def test_the_share_forgets_what_is_older_than_its_window() -> None:
    """Late orders of the past do not count any more when their window has passed."""
    cells, times = fresh(), even(10, 40)
    cells.update(events(times, late=(times < START + 20_000_000).astype(int)))
    found = lines(cells, START, START + 40_000_000, window=10)
    at = dict(zip((found.time - START / 1e6).round(2), found.share, strict=True))
    assert (at[20.0], at[25.0], at[30.0], at[40.0]) == (1.0, 0.5, 0.0, 0.0)


def test_an_amount_is_a_sum_per_minute() -> None:
    """Ten dollars ten times a second are 6,000 dollars a minute, also when the window is not full yet."""
    cells = fresh()
    cells.update(events(even(10, 40)))
    amounts = lines(cells, START, START + 40_000_000, window=30).amounts[:, 0]
    assert np.isnan(amounts[:10]).all()
    assert amounts[12:] == pytest.approx(6000, rel=0.02)


def test_an_amount_is_not_taken_across_a_change() -> None:
    """From the first cell after the change on, the sum per minute is that of the new rate alone."""
    before = np.arange(START, START + 10_000_000, 100_000)
    after = np.arange(START + 10_000_000, START + 14_000_000, 20_000)
    cells = fresh()
    cells.update(events(np.concatenate([before, after]), sales=1.0))
    stop = START + 14_000_000
    found = [
        lines(cells, stop - 1, stop, window=10, begin=begin).amounts[-1, 0]
        for begin in (0, cells.cell(START + 10_000_000))
    ]
    np.testing.assert_allclose(found, [60 * (60 + 200) / 10, 60 * 50])


def test_a_pause_and_a_rate_change_the_number_a_scenario_changes_the_events() -> None:
    """Times of the last changes, none later than what is looked at."""
    asked = [(0.0, 5.0), (10.0, 5.0), (20.0, 0.0), (30.0, 5.0), (99.0, 7.0)]
    marks = [(10.0, "scenario", "outage"), (20.0, "pause", "paused")]
    assert changed_at(asked, marks, 50) == (10, 30)
    assert changed_at(asked, [(40.0, "scenario", "outage")], 50) == (40, 40)
    assert changed_at(asked[:1], [], 50) == (-np.inf, -np.inf)


def test_groups_are_sorted_and_the_rest_is_last() -> None:
    """The groups come by their share; those beyond the limit are gathered at the end."""
    names = np.repeat([f"m{i}" for i in range(12)], np.arange(12, 0, -1))
    cells = fresh()
    cells.update(events(even(100, len(names) / 100), late=(names == "m2").astype(int), market=names))
    groups = group_counts(cells, START, START + 2_000_000, most=4)
    assert groups.labels == ("m2", "m0", "m1", "")
    assert groups.events.sum() == len(names)
    assert groups.hits.tolist() == [10, 0, 0, 0]


def test_the_interval_holds_the_share() -> None:
    """Wilson's interval stays within 0 and 1, holds the share, and narrows with more events."""
    low, high = wilson(np.array([0.0, 5, 10, 500, 0]), np.array([10.0, 10, 10, 1000, 0]))
    assert low[:4].min() >= 0
    assert high[:4].max() <= 1
    assert low[1] < 0.5 < high[1]
    assert high[3] - low[3] < high[1] - low[1]
    assert np.isnan(low[4])
    assert np.isnan(high[4])

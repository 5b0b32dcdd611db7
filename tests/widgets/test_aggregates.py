"""What the dashboard draws is right for any stream, and the same however the events come in."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logistream.widgets.aggregates import STEP, LiveAggregates, wilson

START = 1_700_000_000_000_000  # microseconds; any whole quarter second


def events(times: np.ndarray, late: object = 0, market: object = "Europe") -> pd.DataFrame:
    """Return events as a frame gives them."""
    return pd.DataFrame(
        {
            "event_time": pd.to_datetime(times, unit="us", utc=True).astype("datetime64[us, UTC]"),
            "Late_delivery_risk": np.broadcast_to(np.asarray(late, dtype=np.int64), len(times)),
            "Market": pd.Categorical(np.broadcast_to(np.asarray(market, dtype=object), len(times))),
        }
    )


def even(rate: float, seconds: float, start: int = START) -> np.ndarray:
    """Return the times of evenly spaced events."""
    return start + (np.arange(round(rate * seconds)) * 1e6 / rate).astype(np.int64)


def fresh(share_window: float = 30) -> LiveAggregates:
    """Return empty aggregates of the usual columns."""
    return LiveAggregates("Late_delivery_risk", "Market", share_window=share_window)


@pytest.mark.parametrize("rate", [0.2, 0.7, 2.0, 3.3, 50.0, 1000.0])
def test_an_even_stream_shows_exactly_its_rate(rate: float) -> None:
    """The rate is neither rounded to whole events nor off by the edge of a window."""
    counts = fresh()
    times = even(rate, 40)
    counts.update(events(times))
    measured = counts.series(int(times[-1])).rate
    assert np.nanmin(measured) == pytest.approx(rate, rel=1e-3)
    assert np.nanmax(measured) == pytest.approx(rate, rel=1e-3)


def test_a_silent_stream_shows_no_rate() -> None:
    """After five intervals without an event the rate is 0, and the axis goes on."""
    counts = fresh()
    times = even(2, 30)
    counts.update(events(times))
    series = counts.series(int(times[-1]) + 5_000_000)
    assert series.rate[-1] == 0
    assert series.time[-1] == pytest.approx(times[-1] / 1e6 + 5, abs=STEP)


def test_before_the_second_event_there_is_no_rate() -> None:
    """One event ends no interval, so its rate is unknown rather than made up."""
    counts = fresh()
    counts.update(events(np.array([START])))
    series = counts.series(START + 900_000)
    assert np.isnan(series.rate).all()
    assert series.share[-1] == 0


def test_an_empty_frame_gives_empty_lines() -> None:
    """Nothing is drawn, and nothing fails, before the first event."""
    counts = fresh()
    counts.update(events(np.array([], dtype=np.int64)))
    series = counts.series(START)
    assert np.isnan(series.rate).all()
    assert np.isnan(series.share).all()
    assert counts.groups(START).labels == ()
    assert counts.newest is None


def test_the_share_forgets_what_is_older_than_its_window() -> None:
    """Late orders of the past do not count any more when their window has passed."""
    counts = fresh(share_window=10)
    times = even(10, 40)
    counts.update(events(times, late=(times < START + 20_000_000).astype(int)))
    series = counts.series(START + 40_000_000)
    at = dict(zip((series.time - START / 1e6).round(2), series.share, strict=True))
    assert (at[20.0], at[25.0], at[30.0], at[40.0]) == (1.0, 0.5, 0.0, 0.0)


def test_groups_beyond_the_limit_are_gathered() -> None:
    """The most frequent groups keep their names, the rest is one bar, and no event is lost."""
    names = np.repeat([f"m{i}" for i in range(12)], np.arange(12, 0, -1))
    counts = fresh()
    counts.update(events(even(100, len(names) / 100), late=1, market=names))
    groups = counts.groups(START + 2_000_000, most=4)
    assert groups.labels == ("m0", "m1", "m2", "9 others")
    assert groups.events.sum() == groups.hits.sum() == len(names)


def test_a_long_absence_empties_the_ring() -> None:
    """Events from before a gap longer than the span are gone from lines and bars."""
    counts = fresh()
    counts.update(events(even(10, 5)))
    later = START + 3_600_000_000
    counts.update(events(even(10, 5, later), market="Africa"))
    assert counts.groups(later + 5_000_000).labels == ("Africa",)
    assert counts.total == 100


@given(
    gaps=st.lists(st.integers(0, 3_000_000), min_size=1, max_size=80),
    pieces=st.lists(st.integers(0, 80), max_size=6),
    shuffled=st.randoms(use_true_random=False),
)
def test_it_does_not_matter_how_events_come_in(gaps: list[int], pieces: list[int], shuffled: object) -> None:
    """One batch, many batches and batches out of order give the same picture as counting by hand."""
    times = START + np.cumsum(gaps)
    frame = events(
        times, late=np.arange(len(times)) % 3 == 0, market=np.array(["A", "B"])[np.arange(len(times)) % 2]
    )
    whole, parts = fresh(), fresh()
    whole.update(frame)
    cuts = [0, *sorted(min(cut, len(frame)) for cut in pieces), len(frame)]
    chunks = [frame.iloc[a:b] for a, b in itertools.pairwise(cuts)]
    shuffled.shuffle(chunks)  # type: ignore[attr-defined]
    for chunk in chunks:
        parts.update(chunk)
    now = int(times[-1])
    one, other = whole.groups(now), parts.groups(now)
    assert (one.labels, one.events.tolist(), one.hits.tolist()) == (
        other.labels,
        other.events.tolist(),
        other.hits.tolist(),
    )
    np.testing.assert_array_equal(whole.series(now).share, parts.series(now).share)
    first = now // 250_000 - 480  # the oldest whole cell of 120 s
    inside = frame[times // 250_000 >= first]
    assert one.events.sum() == len(inside)
    assert one.hits.sum() == inside["Late_delivery_risk"].sum()


def test_the_interval_holds_the_share() -> None:
    """Wilson's interval stays within 0 and 1, holds the share, and narrows with more events."""
    low, high = wilson(np.array([0, 5, 10, 500, 0]), np.array([10, 10, 10, 1000, 0]))
    assert low[:4].min() >= 0
    assert high[:4].max() <= 1
    assert low[1] < 0.5 < high[1]
    assert high[3] - low[3] < high[1] - low[1]
    assert np.isnan(low[4])
    assert np.isnan(high[4])

"""The rate meter reports the rate at which events reach readers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logistream.server.rate_meter import RateMeter

BEAT = 0.002
"""Least seconds between two calls of `hand`."""


def handed_evenly(meter: RateMeter, rate: float, seconds: float, events: int = 30) -> float:
    """Hand events at an even rate for some time, or until there are enough; return the last time."""
    number, time = 0, 0.0
    while time < seconds or number < events:
        time += max(1 / rate, BEAT)
        stop = math.floor(time * rate + 1e-6)
        meter.hand(number, stop, time)
        number = stop
    return time


@given(st.floats(-3, 6).map(lambda exponent: 10**exponent))
def test_an_even_stream_is_measured_as_it_is(rate: float) -> None:
    """From one in a quarter of an hour to a million a second, at an event and between two events."""
    meter = RateMeter()
    last = handed_evenly(meter, rate, seconds=1.0)
    number = math.floor(last * rate + 1e-6)
    for time in (last, last + 0.5 / rate):
        assert meter.rate(time, number) == pytest.approx(rate, rel=0.03)
    assert len(meter._points) < 150


def test_the_rate_falls_when_events_stop() -> None:
    """After a second without events the rate is lower, and after many it is next to nothing."""
    meter = RateMeter()
    last = handed_evenly(meter, 1000, seconds=20)
    seen = [meter.rate(last + late, 10**9) for late in (0, 1, 2, 5, 10, 20, 100)]
    assert seen == sorted(seen, reverse=True)
    assert seen[1] < 950
    assert seen[4] < 20


def test_a_server_that_sends_half_of_the_events_is_measured_at_half() -> None:
    """A reader that gets 500 of 1,000 events a second is measured at 500."""
    meter = RateMeter()
    for beat in range(1, 2000):
        meter.hand((beat - 1) * 5, beat * 5, beat * 0.01)
    assert meter.rate(20.0, 20_000) == pytest.approx(500, rel=0.02)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=50), st.randoms(use_true_random=False))
def test_an_event_counts_once_for_all_readers(pieces: list[int], shuffle: object) -> None:
    """The rate depends on the first reader of each event only, not on the pieces that the others get."""
    one, many = RateMeter(), RateMeter()
    number = 0
    cursors = [0, 0, 0]
    for step, size in enumerate(pieces):
        one.hand(number, number + size, step * 1.0)
        number += size
        first = shuffle.randrange(3)  # type: ignore[attr-defined]
        for reader in (first, *(r for r in range(3) if r != first)):
            stop = number if reader == first else shuffle.randint(cursors[reader], number)  # type: ignore[attr-defined]
            many.hand(cursors[reader], stop, step * 1.0)
            cursors[reader] = stop
    time = len(pieces) * 1.0
    assert one.rate(time, number) == pytest.approx(many.rate(time, number), nan_ok=True)


def test_the_rate_without_a_reader() -> None:
    """It is unknown before the first reader and after a change, and then counts new events only."""
    meter = RateMeter()
    assert math.isnan(meter.rate(0.0, 0))
    meter.restart(1000)
    assert math.isnan(meter.rate(5.0, 1000))
    assert meter.rate(5.0, 1001) == 0, "one has happened, and no reader has got it"
    meter.hand(1000, 1001, 5.1)
    assert math.isnan(meter.rate(5.2, 1001)), "one event has no rate"
    meter.hand(1001, 1003, 6.1)
    assert meter.rate(6.1, 1003) == pytest.approx(2)
    meter.restart(1003)
    assert math.isnan(meter.rate(6.2, 1003))


def test_skipped_events_do_not_count() -> None:
    """A reader that skips a thousand events is handed one."""
    meter = RateMeter()
    meter.hand(0, 1, 0.0)
    meter.hand(1, 2, 1.0)
    meter.hand(1002, 1003, 2.0)
    assert meter.rate(2.0, 1003) == pytest.approx(1)

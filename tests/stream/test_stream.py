"""A stream joins model, seed and timeline."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from helpers.clocks import NOW, SECOND, Clock
from logistream.errors import NotYetError, RequestError, StreamError
from logistream.stream.arrivals import Arrivals
from logistream.stream.query import Timestamp
from logistream.stream.stream import Stream
from logistream.stream.timeline import Timeline, first_entry
from logistream.times import rfc3339, wall_clock

if TYPE_CHECKING:
    from logistream.model.model import Model


@pytest.fixture
def clock() -> Clock:
    """Return a clock at the beginning of the stream."""
    return Clock()


@pytest.fixture
def stream(model: Model, clock: Clock) -> Stream:
    """Return two events a second from NOW."""
    return Stream(model, clock=clock)


def columns(stream: Stream, start: int, stop: int) -> list[dict[str, Any]]:
    """Return events as dicts."""
    rows: list[dict[str, Any]] = stream.batch(start, stop).to_pylist()
    return rows


def test_an_event_happens_at_its_time(stream: Stream, model: Model) -> None:
    """The columns are those of the model with the time, which is the event's own."""
    _, second = columns(stream, 0, 2)
    assert tuple(second) == model.full_schema.names
    assert second["event_time"] == datetime.fromtimestamp((NOW + SECOND // 2) / 1e6, UTC)


def test_a_change_alters_only_what_comes_after(stream: Stream, clock: Clock) -> None:
    """Events that have happened stay; those after have the times of the new rate."""
    before = columns(stream, 0, 40)
    clock.now += 10 * SECOND
    entry = stream.change(rate=4)
    after = columns(stream, 0, 40)
    assert entry.first == 21
    assert after[:21] == before[:21]
    times = [row["event_time"].timestamp() * 1e6 - NOW for row in after[21:23]]
    assert times == pytest.approx([10_250_000, 10_500_000], abs=1)


def test_events_differ_only_in_time_when_the_rate_differs(model: Model) -> None:
    """What event n holds depends on model, seed and n; the clock moves only what follows the clock."""
    streams = [Stream(model, Timeline([first_entry(NOW, rate=rate)]), clock=Clock()) for rate in (1, 500)]
    one, other = (columns(stream, 9, 10)[0] for stream in streams)
    moved = {key for key in one if one[key] != other[key]}
    assert moved <= {"event_time", "shipping date (DateOrders)"}


def test_seeds_give_different_streams(model: Model) -> None:
    """Another seed is another stream, the same seed the same; the identity agrees."""
    streams = [Stream(model, seed=seed, clock=Clock()) for seed in (1, 1, 2)]
    one, same, other = (columns(stream, 0, 20) for stream in streams)
    assert one == same != other
    assert streams[0].id == streams[1].id != streams[2].id


def test_the_identity_distinguishes_streams(model: Model) -> None:
    """By model, seed, arrivals and beginning, and not by what changes later."""
    timeline = Timeline([first_entry(NOW)])
    stream = Stream(model, timeline, clock=Clock())
    known = stream.id
    stream.change(rate=9)
    assert stream.id == known
    assert len(known) == 16
    other = [
        Stream(model, Timeline([first_entry(NOW + 1)]), clock=Clock()),
        Stream(model, Timeline([first_entry(NOW)], Arrivals("poisson")), clock=Clock()),
    ]
    assert len({known, *(stream.id for stream in other)}) == 3


def test_where_reading_begins(stream: Stream, clock: Clock) -> None:
    """At the first event, the next one, a number, or after a time; a little ahead is waited for."""
    clock.now += 10 * SECOND
    assert stream.resolve("earliest") == 0
    assert stream.resolve("latest") == 21
    assert stream.resolve(7) == 7
    assert stream.resolve(Timestamp(NOW + SECOND)) == 3
    assert stream.resolve(Timestamp(NOW + SECOND - 1)) == 2
    assert stream.resolve(Timestamp(0)) == 0
    assert stream.resolve(25) == 25
    with pytest.raises(NotYetError, match=r"^event 1000 has not happened yet: the newest is 20$"):
        stream.resolve(1000)


def test_a_history_lies_before_the_start(model: Model) -> None:
    """Event 0 happened so long ago, at the same rate."""
    stream = Stream(model, Timeline([first_entry(NOW, rate=10, history=60 * SECOND)]), clock=Clock())
    assert stream.next_number() == 601
    assert stream.state["started"] == rfc3339(NOW - 60 * SECOND)
    with pytest.raises(
        RequestError, match=r"^history must be from 0 to the .* days since 1970, not -1 seconds$"
    ):
        first_entry(NOW, history=-SECOND)


def test_a_pause_holds_events_back(stream: Stream, clock: Clock) -> None:
    """While paused no event happens, is waited for, or can be read; resuming continues with the next."""
    clock.now += 10 * SECOND + 1
    stream.change(paused=True)
    clock.now += 3600 * SECOND
    assert stream.next_number() == 21
    assert stream.wait(21) is None
    assert len(columns(stream, 0, 21)) == 21
    with pytest.raises(StreamError, match=r"^event 21 has no time yet: the stream is paused before 21$"):
        stream.batch(0, 22)
    stream.change(paused=False)
    assert stream.wait(21) == pytest.approx(0.5, abs=1e-5)
    assert len(columns(stream, 0, 100)) == 100


def test_waiting_ends_when_an_event_happens(stream: Stream, clock: Clock) -> None:
    """The wait is in seconds and never negative."""
    assert stream.wait(1) == 0.5
    clock.now += 5 * SECOND
    assert stream.wait(1) == 0


def test_the_clock_never_runs_backwards(stream: Stream, clock: Clock) -> None:
    """A clock that is set back stands still for the stream."""
    clock.now += 10 * SECOND
    assert stream.next_number() == 21
    clock.now -= 5 * SECOND
    assert stream.next_number() == 21
    assert stream.change(rate=7).first == 21


def test_state_holds_what_is_in_force(stream: Stream, model: Model, clock: Clock) -> None:
    """The state has the keys of the published interface."""
    clock.now += SECOND
    stream.change(rate=5, paused=True)
    assert stream.state == {
        "rate": 5.0,
        "paused": True,
        "scenario": None,
        "scenarios": [],
        "faults": [],
        "seed": 0,
        "next_event_number": 3,
        "started": rfc3339(NOW),
        "model": model.name,
    }


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rate": 0}, "rate must be from 0.001 to 1,000,000 events per second, not 0; "
         "to stop the stream for a while, pause it"),
        ({"rate": 1_000_001}, "rate must be from 0.001 to 1,000,000 events per second, not 1000001; "
         "to stop the stream for a while, pause it"),
        ({"rate": float("nan")}, "rate must be a number of events per second, not nan"),
        ({"rate": "fast"}, "rate must be a number of events per second, not 'fast'"),
        ({"rate": True}, "rate must be a number of events per second, not True"),
        ({"paused": 1}, "paused must be true or false, not 1"),
        ({"scenarios": "strike"}, "a scenario must be an object with effects, not the string 'strike': "
         "those that have names are in logistream.dataco and at GET /scenarios"),
        ({"scenarios": {"effects": [{"weight": 2, "where": "Market:Erope"}]}}, "'Market' is never 'Erope': "
         "it is 'Africa', 'Europe', 'LATAM', 'Pacific Asia', 'USCA'"),
    ],
)  # fmt: skip
def test_what_is_not_allowed_changes_nothing(
    stream: Stream, change: dict[str, object], sentence: str
) -> None:
    """A bad value is refused in one sentence, together with the good ones beside it."""
    with pytest.raises(RequestError) as caught:
        stream.change(**{"rate": 9.0, **change})  # type: ignore[arg-type]
    assert str(caught.value) == sentence
    assert len(stream.timeline.entries) == 1


def test_a_change_wakes_subscribers_until_they_leave(stream: Stream) -> None:
    """Listeners are called for every change, from the thread that makes it."""
    called: list[int] = []
    unsubscribe = stream.subscribe(lambda: called.append(threading.get_ident()))
    stream.change(rate=3)
    unsubscribe()
    stream.change(rate=4)
    assert called == [threading.get_ident()]


def test_readers_and_changes_from_many_threads(model: Model) -> None:
    """Whatever is read while the rate is dragged has strictly increasing times."""
    stream = Stream(model, Timeline([first_entry(wall_clock(), rate=50_000)]))
    done = threading.Event()

    def drag() -> None:
        rate = 50_000
        while not done.wait(0.001):
            rate = 50_000 if rate == 20_000 else 20_000
            stream.change(rate=rate)

    dragging = threading.Thread(target=drag)
    dragging.start()
    times: list[datetime] = []
    try:
        while len(times) < 5_000:
            times += stream.batch(len(times), stream.next_number())["event_time"].to_pylist()
    finally:
        done.set()
        dragging.join()
    assert times == sorted(set(times))


def test_the_clock_is_not_read_while_a_change_is_made(model: Model) -> None:
    """Else an event would be made known that the change then puts off."""
    clock, inside, release = Clock(), threading.Event(), threading.Event()

    def slow_clock() -> int:
        time = clock()
        if threading.current_thread() is changer:
            inside.set()
            release.wait(60)
        return time

    stream = Stream(model, Timeline([first_entry(NOW, rate=1000)]), clock=slow_clock)
    firsts: list[int] = []
    seen: list[int] = []
    changer = threading.Thread(target=lambda: firsts.append(stream.change(rate=0.001).first))
    looker = threading.Thread(target=lambda: seen.append(stream.next_number()))
    clock.now += 10_000
    changer.start()
    assert inside.wait(60)
    clock.now += 10_000
    looker.start()
    looker.join(0.05)  # long enough to see too much, if that were possible
    release.set()
    changer.join()
    looker.join()
    assert seen == firsts == [11]


def test_a_time_to_come_is_not_a_start(stream: Stream, clock: Clock) -> None:
    """Not even during a pause, when no event would come in between."""
    clock.now += SECOND
    stream.change(paused=True)
    sentence = rf"^an event after {rfc3339(NOW + 60 * SECOND)} has not happened yet: the newest is 2$"
    with pytest.raises(NotYetError, match=sentence):
        stream.resolve(Timestamp(NOW + 60 * SECOND))
    assert stream.resolve(Timestamp(NOW + 3 * SECOND)) == 3

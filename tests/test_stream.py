"""A stream joins model, seed and timeline, and makes each text once."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING

import pytest

from logistream.errors import RequestError, StreamError
from logistream.stream import Stream, rfc3339

if TYPE_CHECKING:
    from logistream.model import Model

SECOND = 1_000_000
NOW = 1_795_000_000 * SECOND


class Clock:
    """A clock that stands where it is put."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> int:
        """Return microseconds since the Unix epoch."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """Return a clock at the beginning of the stream."""
    return Clock()


@pytest.fixture
def stream(model: Model, clock: Clock) -> Stream:
    """Return two events a second from NOW."""
    return Stream(model, clock=clock)


def test_a_text_is_the_published_event(stream: Stream, model: Model) -> None:
    """The keys are those of the event schema in order, the time is the event's own."""
    first, second = stream.encoded(0, 2)
    assert tuple(json.loads(first)) == model.event_schema.names
    assert json.loads(second)["event_time"] == rfc3339(NOW + SECOND // 2)


def test_texts_are_the_same_however_a_range_is_cut(stream: Stream) -> None:
    """Chunks are not visible from outside."""
    whole = stream.encoded(500, 1600)
    assert len(whole) == 1100
    assert stream.encoded(500, 513) + stream.encoded(513, 1024) + stream.encoded(1024, 1600) == whole
    assert stream.encoded(7, 7) == []


def test_texts_are_made_once(stream: Stream) -> None:
    """Every reader gets the very same objects."""
    assert all(a is b for a, b in zip(stream.encoded(0, 100), stream.encoded(0, 100), strict=True))


def test_a_change_alters_only_what_comes_after(stream: Stream, clock: Clock) -> None:
    """Texts of events that have happened stay; those after have the times of the new rate."""
    before = stream.encoded(0, 40)
    clock.now += 10 * SECOND
    entry = stream.change(rate=4)
    after = stream.encoded(0, 40)
    assert entry.first == 21
    assert after[:21] == before[:21]
    times = [json.loads(text)["event_time"] for text in after[21:23]]
    assert times == [rfc3339(NOW + 10_250_000), rfc3339(NOW + 10_500_000)]


def test_events_differ_only_in_time_when_the_rate_differs(model: Model) -> None:
    """What event n holds depends on model, seed and n; the clock moves only what follows the clock."""
    events = [json.loads(Stream(model, rate=rate, clock=Clock()).encoded(9, 10)[0]) for rate in (1, 500)]
    moved = {key for key in events[0] if events[0][key] != events[1][key]}
    assert moved <= {"event_time", "shipping date (DateOrders)"}


def test_seeds_give_different_streams(model: Model) -> None:
    """Another seed is another stream, the same seed the same."""
    texts = [Stream(model, seed=seed, clock=Clock()).encoded(0, 20) for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_a_pause_holds_events_back(stream: Stream, clock: Clock) -> None:
    """While paused no event happens, is waited for, or can be had; resuming goes on with the next."""
    clock.now += 10 * SECOND + 1
    stream.change(paused=True)
    clock.now += 3600 * SECOND
    assert stream.next_number() == 21
    assert stream.wait(21) is None
    assert len(stream.encoded(0, 21)) == 21
    with pytest.raises(StreamError, match=r"^event 21 has no time yet: the stream is paused before 21$"):
        stream.encoded(0, 22)
    stream.change(paused=False)
    assert stream.wait(21) == pytest.approx(0.5, abs=1e-5)
    assert len(stream.encoded(0, 100)) == 100


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


def test_state_tells_what_is_in_force(stream: Stream, model: Model, clock: Clock) -> None:
    """The state has the keys of the published interface."""
    clock.now += SECOND
    stream.change(rate=5, paused=True)
    assert stream.state == {
        "rate": 5.0,
        "paused": True,
        "scenario": None,
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
        ({"scenario": "strike"}, "no scenario 'strike': this model has none, leave it null"),
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


def test_a_restarted_stream_begins_now_with_the_same_settings(stream: Stream, clock: Clock) -> None:
    """Rate, pause and seed stay, numbers begin with 0."""
    clock.now += 100 * SECOND
    stream.change(rate=8)
    again = stream.restarted()
    assert (again.rate, again.seed, again.next_number()) == (8, 0, 1)
    assert again.encoded(3, 4) != stream.encoded(3, 4)  # another time


def test_readers_and_changes_from_many_threads(model: Model) -> None:
    """Whatever is read while the rate is dragged has strictly increasing times."""
    stream = Stream(model, rate=50_000)
    done = threading.Event()

    def drag() -> None:
        rate = 50_000
        while not done.wait(0.001):
            rate = 50_000 if rate == 20_000 else 20_000
            stream.change(rate=rate)

    dragging = threading.Thread(target=drag)
    dragging.start()
    texts: list[bytes] = []
    try:
        while len(texts) < 5_000:
            texts += stream.encoded(len(texts), stream.next_number())
    finally:
        done.set()
        dragging.join()
    times = [json.loads(text)["event_time"] for text in texts]
    assert times == sorted(set(times))

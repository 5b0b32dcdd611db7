"""The same events in every form, made once, however they are cut."""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import logistream.server.feed as feed_module
from helpers.clocks import NOW, SECOND, Clock
from helpers.waiting import until
from helpers.wire import read_by_websockets
from logistream.model.model import load_model
from logistream.server.feed import WRITE_BYTES, Feed, Feeds, Part
from logistream.server.metrics import Gauges
from logistream.server.pump import Pump
from logistream.server.ranges import pieces, selection_for
from logistream.server.schemas import EventsQuery
from logistream.stream.encoding import decode
from logistream.stream.query import Place
from logistream.stream.stream import Stream
from logistream.stream.timeline import Timeline, first_entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from logistream.stream.query import Selection

MODEL = load_model()


def selection(*query: tuple[str, str]) -> Selection:
    """Return the selection of a query."""
    return EventsQuery.parse(query).selection(MODEL)


def stream_of(events: int, clock: Clock, rate: float = 1000) -> Stream:
    """Return a stream in which so many events have happened."""
    clock.now = NOW + int((events - 1) * SECOND / rate)
    return Stream(MODEL, Timeline([first_entry(NOW, rate=rate)]), clock=clock)


@pytest.fixture
def feeds() -> Iterator[Feeds]:
    """Give the feeds of a stream with 10,000 past events."""
    made = Feeds(stream_of(10_000, Clock()), lambda: None)
    yield made
    made.close()


def wait_for_part(feed: Feed, number: int, now: int) -> Part:
    """Return a part as soon as it is made."""
    until(lambda: feed.part(Place(number), now, live=True) is not None)
    part = feed.part(Place(number), now, live=True)
    assert part is not None
    return part


def sent(feed: Feed, start: int, stop: int, steps: list[int]) -> list[tuple[int, bytes]]:
    """Return the frames that a reader gets for a range, if it is given in steps of such lengths."""
    frames, turn = [], 0
    while start < stop:
        part = wait_for_part(feed, start, 10_000)
        end = feed.cut(part, Place(start), Place(min(stop, start + steps[turn % len(steps)])))
        frames += read_by_websockets(bytes(feed.wire(part, Place(start), end)))
        start, turn = end.slot, turn + 1
    return frames


def values(feed: Feed, frames: list[tuple[int, bytes]]) -> list[dict[str, Any]]:
    """Return the events that frames of any format hold."""
    if feed.selection.format == "arrow":
        assert {opcode for opcode, _ in frames} <= {2}
        tables = [pa.ipc.open_stream(payload).read_all() for _, payload in frames]
        return [row for table in tables for row in table.to_pylist()]
    assert {opcode for opcode, _ in frames} <= {1}
    strings = [text for _, payload in frames for text in payload.splitlines()]
    assert feed.selection.format == "ndjson" or len(strings) == len(frames)
    rows: list[dict[str, Any]] = decode(strings, feed.schema).to_pylist()
    return rows


def body(pump: Pump, wanted: Selection, start: int, stop: int) -> bytes:
    """Return a range as the body of an answer, whose pieces are as short as they should be."""

    async def read() -> bytes:
        running = asyncio.create_task(pump.run())
        await asyncio.sleep(0)  # it has begun
        feed = pump.feeds.open(selection_for(wanted))
        found = [piece async for piece in pieces(pump, feed, wanted.format, Place(start), stop)]
        pump.feeds.release(feed)
        running.cancel()
        if wanted.format != "arrow":  # whose first piece holds all strings that the model knows
            assert max(map(len, found), default=0) < 1.05 * WRITE_BYTES  # a comma a line is added
        return b"".join(found)

    return asyncio.run(read())


QUERIES = st.fixed_dictionaries(
    {},
    optional={
        "numbered": st.sampled_from(["true", "false"]),
        "columns": st.sampled_from(["all", "Market,Sales,event_time", "event_time", "Latitude"]),
        "where": st.sampled_from(["Market:Europe", "Sales>=200", "Market!=Europe", "Order City:Molfetta"]),
    },
)


@pytest.mark.slow
@settings(deadline=None, max_examples=40)  # threads make the parts
@given(
    QUERIES,
    st.integers(0, 9_000),
    st.integers(0, 900),
    st.lists(st.integers(1, 700), min_size=1, max_size=4),
)
def test_every_format_has_the_same_values(
    query: dict[str, str], start: int, length: int, steps: list[int]
) -> None:
    """Over the WebSocket in any steps, and as a body; those of the stream, to the last bit."""
    stream, stop = stream_of(10_000, Clock()), start + length
    pump = Pump(stream, Gauges(), catch_up=1e9, catch_up_total=1e9)
    feeds = pump.feeds
    try:
        found = {}
        for form in ("json", "ndjson", "arrow"):
            wanted = selection(("format", form), *query.items())
            feed = feeds.open(wanted)
            found[form] = values(feed, sent(feed, start, stop, steps))
            whole = body(pump, wanted, start, stop)
            if form == "json":
                assert decode(map(json.dumps, json.loads(whole)), feed.schema).to_pylist() == found[form]
            elif form == "ndjson":
                assert decode(whole.splitlines(), feed.schema).to_pylist() == found[form]
            else:
                assert pa.ipc.open_stream(whole).read_all().to_pylist() == found[form]
        # a shipping date has minutes as text
        clocked = [delay.column for delay in MODEL.days_after_event]
        for row in found["arrow"]:
            for name in clocked:
                if name in row:
                    row[name] = row[name].replace(second=0, microsecond=0)
        assert found["json"] == found["ndjson"] == found["arrow"]
        if "where" not in query:
            assert len(found["json"]) == length
            if query.get("numbered") == "true":
                assert [row["event_number"] for row in found["json"]] == list(range(start, stop))
    finally:
        feeds.close()


def test_events_are_made_once(feeds: Feeds) -> None:
    """Readers with the same wishes share one feed, and the very same bytes."""
    one, other = feeds.open(selection()), feeds.open(selection())
    assert one is other
    part = wait_for_part(one, 0, 10_000)
    assert one.part(Place(4095), 10_000, live=True) is part
    lines = feeds.open(selection(("format", "ndjson")))
    part = wait_for_part(lines, 0, 10_000)
    assert lines.wire(part, Place(3), Place(9)) is lines.wire(part, Place(3), Place(9))


def test_a_batch_holds_its_numbers(feeds: Feeds) -> None:
    """The first event number and the next `start`, also when only some events are in it."""
    feed = feeds.open(selection(("format", "arrow"), ("where", "Market:Europe"), ("numbered", "1")))
    part = wait_for_part(feed, 1000, 10_000)
    ((_, payload),) = read_by_websockets(bytes(feed.wire(part, Place(2000), Place(2100), missed=7)))
    table = pa.ipc.open_stream(payload).read_all()
    numbers = table["event_number"].to_pylist()
    assert table.schema.metadata == {
        b"first_event_number": str(numbers[0]).encode(),
        b"next_event_number": b"2100",
        b"missed_events": b"7",
    }
    assert set(table["Market"].to_pylist()) == {"Europe"}
    assert 2000 <= numbers[0] < numbers[-1] < 2100


@pytest.mark.parametrize("form", ["json", "ndjson"])
def test_missed_events_are_reported_in_a_message_of_their_own(feeds: Feeds, form: str) -> None:
    """Before the next event."""
    feed = feeds.open(selection(("format", form)))
    part = wait_for_part(feed, 0, 10_000)
    frames = read_by_websockets(bytes(feed.wire(part, Place(10), Place(12), missed=5)))
    lines = [line for _, payload in frames for line in payload.splitlines()]
    assert json.loads(lines[0]) == {"missed_events": 5}
    assert len(lines) == 3
    assert feed.messages(part, Place(10), Place(12), missed=5) == [payload.decode() for _, payload in frames]


def test_a_write_is_not_too_long(feeds: Feeds) -> None:
    """A quarter of a megabyte, or one event."""
    feed = feeds.open(selection())
    part = wait_for_part(feed, 0, 10_000)
    end = feed.cut(part, Place(0), Place(4096))
    assert 200_000 < len(feed.wire(part, Place(0), end)) <= 1 << 18


def test_a_write_ends_no_later_than_it_may(feeds: Feeds) -> None:
    """Also if its one event is longer than a write should be, and the next that is sent comes much later."""
    feed = feeds.open(selection(("where", "Market:Africa")))
    part = wait_for_part(feed, 0, 10_000)
    row = next(row for row in range(100) if part.place(row + 1).slot > part.place(row).slot + 1)
    start = part.place(row)
    assert feed.cut(part, start, Place(start.slot + 1), 1) == Place(start.slot + 1)
    assert feed.cut(part, start, Place(4096), 1) == part.place(row + 1)


def test_a_change_alters_only_what_comes_after() -> None:
    """Parts at the edge are made again, with the times of the new rate; events of the past stay."""
    clock = Clock()
    stream = stream_of(700, clock)
    feeds = Feeds(stream, lambda: None)
    try:
        feed = feeds.open(selection(("columns", "event_time"), ("numbered", "true")))
        before = bytes(feed.wire(wait_for_part(feed, 600, 700), Place(600), Place(700)))
        entry = stream.change(rate=10)
        clock.now += 10 * SECOND
        part = wait_for_part(feed, 600, stream.next_number())
        assert bytes(feed.wire(part, Place(600), Place(700))) == before
        assert feed.settled(part) == entry.first == 700  # made before the change, and right until it
        part = wait_for_part(feed, entry.first, stream.next_number())
        assert feed.settled(part) == part.stop == 1024
        after = read_by_websockets(bytes(feed.wire(part, Place(entry.first), Place(entry.first + 3))))
        times = [datetime.fromisoformat(json.loads(text)["event_time"]) for _, text in after]
        assert {(later - earlier).total_seconds() for earlier, later in pairwise(times)} == {0.1}
    finally:
        feeds.close()


def test_a_pause_holds_events_back_and_more_come_after_it() -> None:
    """A part at a pause is a short one, and is made again when events continue."""
    clock = Clock()
    stream = stream_of(700, clock)
    feeds = Feeds(stream, lambda: None)
    try:
        feed = feeds.open(selection())
        paused = stream.change(paused=True).first
        clock.now += 100 * SECOND
        assert wait_for_part(feed, 600, stream.next_number()).stop == paused == 700
        stream.change(paused=False)
        clock.now += SECOND
        assert wait_for_part(feed, 600, stream.next_number()).stop == 700
        assert wait_for_part(feed, 700, stream.next_number()).stop == 1024
    finally:
        feeds.close()


def test_a_live_reader_that_is_somewhat_behind_needs_no_other_part(feeds: Feeds) -> None:
    """What it reads from stays when a block of events ends meanwhile: a new part would have to be made."""
    feed = feeds.open(selection())
    spans = {feed.span(4095, now) for now in range(3500, 8192)}
    assert spans == {(3584, 4096)}
    assert feed.span(4095, 8192) == (0, 4096)


def test_a_part_stays_until_its_reader_has_it() -> None:
    """However much is made for live readers meanwhile: else it would be made again and again."""
    made: list[None] = []
    feeds = Feeds(stream_of(100_000, Clock()), lambda: made.append(None))
    try:
        feed = feeds.open(selection())
        assert feed.past(Place(0), 4096) is None
        until(lambda: len(made) == 1)
        for number in range(40_960, 90_000, 4096):
            wait_for_part(feed, number, 100_000)
        before = len(made)
        assert feed.past(Place(0), 4096) is not None
        assert len(made) == before
    finally:
        feeds.close()


def test_a_part_whose_reader_has_left_holds_back_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two parts that nobody fetches hold back the third, until their readers leave."""
    monkeypatch.setattr(feed_module, "_FETCHED_WITHIN", 1000.0)
    made: list[None] = []
    feeds = Feeds(stream_of(100_000, Clock()), lambda: made.append(None))
    try:
        feed = feeds.open(selection())
        for place in range(3):
            feed.past(Place(4096 * place), 4096 * (place + 1))
        until(lambda: len(feeds._unfetched) == 2)
        feeds.leave(feed, 0)
        feeds.leave(feed, 8191)
        until(lambda: len(made) == 3)
        assert list(feeds._unfetched) == [(feed.selection, 8192, 12_288, 0)]
    finally:
        feeds.close()


def test_memory_is_bounded_and_threads_end(feeds: Feeds) -> None:
    """Whatever is read, no more than 16 MiB and one part are kept; nothing is left when it is closed."""
    for query in ((), (("format", "ndjson"),), (("columns", "all"),)):
        feed = feeds.open(selection(*query))
        for number in range(0, 8192, 4096):
            wait_for_part(feed, number, 10_000)
    assert feeds._bytes <= 16 << 20
    assert any(thread.name.startswith("logistream-maker") for thread in threading.enumerate())
    for feed, users in list(feeds._feeds.values()):
        for _ in range(users):
            feeds.release(feed)
    assert (feeds._bytes, len(feeds._kept)) == (0, 0)
    feeds.close()
    assert not any(thread.name.startswith("logistream-maker") for thread in threading.enumerate())

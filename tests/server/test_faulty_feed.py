"""Deliveries with faults of the wire: the same bytes from any place on, however they are cut."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import logistream.server.ranges as ranges_module
from helpers.clocks import NOW, SECOND, Clock
from helpers.waiting import until
from helpers.wire import read_by_websockets
from logistream.model.model import load_model
from logistream.server.feed import Feeds
from logistream.server.metrics import Gauges
from logistream.server.pump import Pump
from logistream.server.ranges import pieces, selection_for
from logistream.server.schemas import RangeQuery
from logistream.stream.encoding import Encoder
from logistream.stream.faults import read_faults
from logistream.stream.query import Place
from logistream.stream.stream import Stream
from logistream.stream.timeline import Timeline, first_entry

if TYPE_CHECKING:
    from collections.abc import Iterator

    from logistream.server.feed import Feed, Part
    from logistream.stream.query import Selection

MODEL = load_model()
EVENTS = 6000
"""Which have happened; more than a part of the past has."""

FAULTS: list[dict[str, Any]] = [
    {"late": {"events": [1, 700]}, "share": 0.05},
    {"late": {"seconds": [0.01, 2]}, "share": 0.05, "where": "Market:Europe"},
    {"reorder": {"within": 20}, "share": 0.2},
    {"duplicate": {"copies": 2, "events": [0, 100]}, "share": 0.03},
    {"drop": True, "share": 0.02},
    *({"corrupt": kind, "share": 0.03} for kind in ("null", "type", "missing", "extra", "cut")),
]


def selection(*query: tuple[str, str]) -> Selection:
    """Return the selection of a query."""
    return RangeQuery.parse(query).selection(MODEL)


def faulty_stream(
    faults: list[dict[str, Any]] = FAULTS, rate: float = 1000, clock: Clock | None = None
) -> Stream:
    """Return a stream that has had faults since event 0."""
    clock = clock or Clock()
    clock.now = NOW + int((EVENTS - 1) * SECOND / rate)
    entry = replace(first_entry(NOW, rate=rate), faults=read_faults(faults))
    return Stream(MODEL, Timeline([entry]), clock=clock)


STREAM = faulty_stream()


@pytest.fixture(scope="module")
def feeds() -> Iterator[Feeds]:
    """Give the feeds of the faulty stream."""
    made = Feeds(STREAM, lambda: None)
    yield made
    made.close()


def part_at(feed: Feed, place: Place, now: int) -> Part:
    """Return the part that holds a place, as soon as it is made."""
    found: list[Part] = []

    def is_made() -> bool:
        part = feed.part(place, now, live=True)
        found.extend([] if part is None else [part])
        return part is not None

    until(is_made)
    return found[0]


def sent(feed: Feed, start: Place, stop: int, steps: list[int], now: int = EVENTS) -> list[bytes]:
    """Return the messages from a place on, if each write may have so many bytes."""
    messages, turn = [], 0
    while start < Place(stop):
        part = part_at(feed, start, now)
        end = feed.cut(part, start, Place(stop), steps[turn % len(steps)])
        assert start < end
        messages += [payload for _, payload in read_by_websockets(bytes(feed.wire(part, start, end)))]
        start, turn = end, turn + 1
    return messages


def lines(feed: Feed, messages: list[bytes]) -> list[bytes]:
    """Return the deliveries of messages, each as a line; in Arrow, as what it means."""
    if feed.selection.format == "arrow":
        tables = [pa.ipc.open_stream(message).read_all() for message in messages]
        return [repr(row).encode() for table in tables for row in table.to_pylist()]
    return [line for message in messages for line in message.split(b"\n") if line]


def body(pump: Pump, wanted: Selection, start: Place, stop: int) -> bytes:
    """Return a range as the body of an answer."""

    async def read() -> bytes:
        running = asyncio.create_task(pump.run())
        await asyncio.sleep(0)  # it has begun
        feed = pump.feeds.open(selection_for(wanted))
        found = [piece async for piece in pieces(pump, feed, wanted.format, start, stop)]
        pump.feeds.release(feed)
        running.cancel()
        return b"".join(found)

    return asyncio.run(read())


@pytest.mark.parametrize("query", [[], [("where", "Market:Europe"), ("faults", "false")]])
def test_a_slow_caller_gets_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch, query: list[tuple[str, str]]
) -> None:
    """An Arrow body is the same if the parts are made again, shorter ones, while it is taken."""
    wanted = selection(("format", "arrow"), *query)
    monkeypatch.setattr(ranges_module, "_HELD", 0.0)

    async def read(pump: Pump, wait: float) -> bytes:
        running = asyncio.create_task(pump.run())
        await asyncio.sleep(0)  # it has begun
        feed, found = pump.feeds.open(selection_for(wanted)), b""
        async for piece in pieces(pump, feed, "arrow", Place(0), EVENTS):
            found += piece
            if wait:
                await asyncio.sleep(wait)
        pump.feeds.release(feed)
        running.cancel()
        return found

    bodies = []
    for wait in (0.0, 0.01):
        pump = Pump(STREAM, Gauges(), catch_up=1e9, catch_up_total=1e9)
        bodies.append(asyncio.run(read(pump, wait)))
        pump.close()
    assert bodies[0] == bodies[1]


QUERIES = st.fixed_dictionaries(
    {},
    optional={
        "numbered": st.sampled_from(["true", "false"]),
        "columns": st.sampled_from(["all", "Market,Sales,event_time", "Sales"]),
        "where": st.sampled_from(["Market:Europe", "Sales>=200", "Order City:Molfetta"]),
        "envelope": st.just("cloudevents"),
        "placed": st.sampled_from(["true", "false"]),
    },
)


@pytest.mark.slow
@settings(deadline=None, max_examples=25)  # threads make the parts
@given(
    QUERIES,
    st.sampled_from(["json", "ndjson", "arrow", "csv"]),
    st.integers(0, EVENTS - 1),
    st.integers(0, 4),
    st.integers(1, 900),
    st.lists(st.integers(1, 200_000), min_size=1, max_size=4),
)
def test_the_same_deliveries_from_any_place_on(
    feeds: Feeds, query: dict[str, str], form: str, slot: int, index: int, length: int, steps: list[int]
) -> None:
    """Over the WebSocket in writes of any size, and as a body: those of one reader from event 0 on."""
    if form in ("arrow", "csv"):
        query.pop("envelope", None)
    stop, start = min(EVENTS, slot + length), Place(slot, index)
    wanted = selection(("format", form), *query.items())
    pump = Pump(STREAM, Gauges(), catch_up=1e9, catch_up_total=1e9)
    feed = feeds.open(replace(wanted, format="ndjson") if form == "csv" else wanted)
    try:
        whole = lines(feed, sent(feed, Place(0), stop, [1 << 18]))
        before = lines(feed, sent(feed, Place(0), slot, [1 << 18]))
        here = lines(feed, sent(feed, Place(slot), slot + 1, [1 << 18]))
        _, found = STREAM.deliveries(slot, slot + 1)
        if "where" not in query:
            assert len(here) == len(found)
            expected = whole[len(before) + min(index, len(found)) :]
            assert lines(feed, sent(feed, start, stop, steps)) == expected
        else:
            expected = lines(feed, sent(feed, start, stop, [1 << 18]))
            assert whole[len(whole) - len(expected) :] == expected
            assert lines(feed, sent(feed, start, stop, steps)) == expected
        made = body(pump, wanted, start, stop)
        if form == "arrow":
            table = pa.ipc.open_stream(made).read_all()
            assert [repr(row).encode() for row in table.to_pylist()] == expected
        elif form == "json":
            assert made == b"[" + b",\n".join(expected) + b"]"
        elif form == "ndjson":
            assert made.splitlines() == expected
        else:
            assert made.count(b"\n") == len(expected) + 1  # the header
    finally:
        feeds.release(feed)
        pump.close()


def test_what_is_sent_are_the_deliveries_of_the_stream(feeds: Feeds) -> None:
    """In their order and at their places; what is whole is written as without faults."""
    feed = feeds.open(selection(("format", "ndjson"), ("placed", "true"), ("numbered", "true")))
    found_lines = lines(feed, sent(feed, Place(0), EVENTS, [1 << 18]))
    plain = feeds.open(selection(("format", "ndjson"), ("numbered", "true")))
    without = [line.partition(b",")[2] for line in found_lines]
    assert [line[1:] for line in lines(plain, sent(plain, Place(0), EVENTS, [1 << 18]))] == without
    batch, found = STREAM.deliveries(0, EVENTS)
    assert len(found_lines) == len(found)
    assert len(found.corruptions) > 500
    clean = Encoder(MODEL.event_schema).encode(batch)
    for row, (line, place) in enumerate(zip(found_lines, found.places().to_pylist(), strict=True)):
        number = int(found.numbers[row])
        whole = b'{"delivery":"%b",%b,"event_number":%d}' % (place.encode(), clean[row][1:-1], number)
        assert line.startswith(b'{"delivery":"%b"' % place.encode())
        assert (line == whole) == (row not in found.corruptions)
    kinds = {corruption.kind for damage in found.corruptions.values() for corruption in damage}
    assert kinds == {"null", "type", "missing", "extra", "cut"}


def test_without_faults_the_bytes_are_those_of_the_clean_stream(feeds: Feeds) -> None:
    """`faults=false` gives what a stream gives that never had any, in each format."""
    entry = replace(STREAM.timeline.entries[0], faults=())
    clean = Feeds(Stream(MODEL, Timeline([entry]), clock=STREAM.now), lambda: None)
    try:
        for form in ("json", "ndjson", "arrow"):
            made = [
                sent(each.open(selection(("format", form), *query)), Place(0), EVENTS, [1 << 18])
                for each, query in ((feeds, [("faults", "false")]), (clean, []))
            ]
            assert made[0] == made[1]
            assert len(made[0]) == EVENTS or form != "json"
    finally:
        clean.close()


def test_arrow_says_what_its_columns_cannot_hold(feeds: Feeds) -> None:
    """A column `fault` has what JSON would have had, and batches name the place at which to continue."""
    query = [("placed", "true"), ("numbered", "true")]
    feed = feeds.open(selection(("format", "arrow"), *query))
    tables = [pa.ipc.open_stream(each).read_all() for each in sent(feed, Place(0), EVENTS, [1 << 18])]
    strings = feeds.open(selection(("format", "ndjson"), *query))
    texts = lines(strings, sent(strings, Place(0), EVENTS, [1 << 18]))
    rows = [row for table in tables for row in table.to_pylist()]
    assert [row["delivery"] for row in rows] == [
        json.loads(text.split(b",")[0] + b"}")["delivery"] for text in texts
    ]
    seen = set()
    for row, text in zip(rows, texts, strict=True):
        fault = json.loads(row["fault"] or "{}")
        seen |= set(fault)
        if "cut" not in fault:
            event = json.loads(text)
            assert not fault.get("null") or all(event[name] is row[name] is None for name in fault["null"])
            assert all(
                event[name] == value and row[name] is None for name, value in fault.get("type", {}).items()
            )
            assert all(name not in event and row[name] is None for name in fault.get("missing", ()))
            assert all(event[name] == value for name, value in fault.get("extra", {}).items())
            assert event.get("Market") == row["Market"] or "Market" in str(fault)
        else:
            with pytest.raises(json.JSONDecodeError):
                json.loads(text)
    assert seen == {"null", "type", "missing", "extra", "cut"}
    following = [table.schema.metadata[b"next_delivery"].decode() for table in tables]
    assert following[-1] == f"{EVENTS}.0"
    for place, table in zip(following, tables[1:], strict=False):
        assert Place(*map(int, table["delivery"][0].as_py().split("."))) >= Place(*map(int, place.split(".")))


def test_parts_made_ahead_are_made_again_when_faults_are_set() -> None:
    """What has happened stays as it was sent; from the next event on the faults hold."""
    clock = Clock()
    stream = faulty_stream([], clock=clock)
    feeds = Feeds(stream, lambda: None)
    try:
        feed = feeds.open(selection(("format", "ndjson"), ("placed", "true"), ("columns", "Market")))
        ahead = part_at(feed, Place(EVENTS - 1), EVENTS)
        assert ahead.stop > EVENTS
        before = bytes(ahead.rows(0, ahead.row(Place(EVENTS))))
        entry = stream.change(faults={"duplicate": {"copies": 1}, "share": 1})
        assert entry.first == EVENTS
        assert feed.settled(ahead) == EVENTS
        clock.now += 10 * SECOND
        part = part_at(feed, Place(EVENTS), stream.next_number())
        assert bytes(part.rows(0, part.row(Place(EVENTS)))).endswith(before)
        made = lines(feed, sent(feed, Place(EVENTS - 1), EVENTS + 2, [1 << 18], stream.next_number()))
        places = [json.loads(line)["delivery"] for line in made]
        assert places == [
            f"{EVENTS - 1}.0",
            *(f"{EVENTS + slot}.{index}" for slot in (0, 1) for index in (0, 1)),
        ]
        stream.change(faults=())
        assert stream.has_faults(EVENTS, EVENTS + 2)
        assert not stream.has_faults(0, EVENTS)
    finally:
        feeds.close()


def test_a_slot_with_very_many_deliveries_is_sent_in_parts() -> None:
    """What a delay in seconds has held back when the rate falls: no part or write has all of it."""
    clock = Clock()
    stream = faulty_stream([{"late": {"seconds": [0.1, 5]}, "share": 1}], rate=50_000, clock=clock)
    clock.now = NOW + SECOND
    slow = stream.change(rate=1).first
    clock.now += 7 * SECOND
    stop = stream.next_number()
    feeds = Feeds(stream, lambda: None)
    try:
        _, found = stream.deliveries(slow - 10, stop)
        assert (found.slots == slow).sum() > 8000
        for form in ("ndjson", "arrow"):
            feed = feeds.open(selection(("format", form), ("placed", "true"), ("columns", "Market")))
            start, places = Place(slow - 10), []
            while start < Place(stop):
                part = part_at(feed, start, stop)
                assert part.places is not None
                assert len(part.places) <= 16_384
                end = feed.cut(part, start, Place(stop))
                if form == "ndjson":
                    rows = bytes(part.rows(part.row(start), part.row(end))).splitlines()
                    places += [json.loads(row)["delivery"] for row in rows]
                else:
                    places += part.data["delivery"].to_pylist()[part.row(start) : part.row(end)]
                start = end
            assert places == found.places().to_pylist()
        middle = Place(slow, 20_000)
        deep = lines(feed, sent(feed, middle, stop, [1 << 18], stop))
        assert len(deep) == (found.slots > slow).sum() + max(0, (found.slots == slow).sum() - 20_000)
    finally:
        feeds.close()

"""Reading from any point: `/ws?start=`, `/events`, `/timeline`, over real sockets."""

from __future__ import annotations

import asyncio
import csv
import gc
import io
import json
import socket
import struct
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import httpx2
import pandas as pd
import pyarrow as pa
import pytest
from websockets.exceptions import InvalidStatus

from helpers import http
from helpers.waiting import until
from helpers.websocket import connect
from logistream.dataco import EVENT
from logistream.errors import StreamError
from logistream.server.app import create_app
from logistream.server.feed import Feeds
from logistream.server.server import StreamServer
from logistream.stream.stream import Stream
from logistream.stream.timeline import Entry, Timeline
from logistream.tables.files import write_table
from logistream.times import parse_rfc3339, rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from logistream.model.model import Model


@pytest.fixture
def server(model: Model) -> Iterator[StreamServer]:
    """Give a server that has 30 s of a past at 200 events a second."""
    with StreamServer(model, rate=200, port=0, history="30s") as running:
        yield running


def get(server: StreamServer, path: str) -> httpx2.Response:
    """Return the answer to a GET."""
    return http.get(server.url + path)


def read(server: StreamServer, query: str, count: int) -> list[dict[str, Any]]:
    """Return the first events of a reader, whatever its format."""
    events: list[dict[str, Any]] = []
    with connect(f"{server.websocket_url}?{query}", max_size=None) as reader:
        while len(events) < count:
            message = reader.recv(timeout=60)
            if isinstance(message, bytes):
                events += pa.ipc.open_stream(message).read_all().to_pylist()
            else:
                events += map(json.loads, message.splitlines())
    return events[:count]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["json", "ndjson", "arrow"])
def test_from_the_past_into_the_present_without_a_seam(server: StreamServer, form: str) -> None:
    """First what was missed, then live: every number once, in order, and past the newest at the start."""
    newest = server.state["next_event_number"]
    events = read(server, f"start=earliest&numbered=true&columns=Market&format={form}", newest + 300)
    assert [event["event_number"] for event in events] == list(range(newest + 300))


def test_the_handshake_names_number_and_stream(server: StreamServer) -> None:
    """So that a client can continue from there even if it is cut off before the first event."""
    before = server.state["next_event_number"]
    stream = get(server, "/timeline").json()["stream"]
    for query, low, high in (
        ("", before, before + 2000),
        ("?start=earliest", 0, 0),
        ("?start=17", 17, 17),
        ("?start=latest", before, before + 2000),
    ):
        with connect(server.websocket_url + query, max_size=None) as reader:
            assert reader.response is not None
            assert reader.response.headers["Logistream-Stream"] == stream
            assert low <= int(reader.response.headers["Logistream-Event-Number"]) <= high


def test_just_after_a_time(server: StreamServer) -> None:
    """The first event is the first one that happened later."""
    hundredth = get(server, "/events?start=100&stop=101").json()[0]["event_time"]
    (event,) = read(server, f"start={hundredth}&numbered=true", 1)
    assert event["event_number"] == 101
    earlier = rfc3339(parse_rfc3339(hundredth) - 1)
    (event,) = read(server, f"start={earlier}&numbered=true", 1)
    assert event["event_number"] == 100


def test_only_events_that_match(server: StreamServer) -> None:
    """Numbers are those of the whole stream."""
    events = read(server, "start=0&where=Market:Europe&where=Late_delivery_risk:1&numbered=true", 200)
    assert {event["Market"] for event in events} == {"Europe"}
    assert {event["Late_delivery_risk"] for event in events} == {1}
    every = get(server, f"/events?start=0&stop={events[-1]['event_number'] + 1}&numbered=true").json()
    assert [event for event in every if event["Market"] == "Europe" and event["Late_delivery_risk"]] == events


def test_ranges_computed_columns_and_exclusions(server: StreamServer) -> None:
    """The same events as a filter of all of them."""
    every = get(server, "/events?start=0&stop=2000&numbered=true").json()
    where = "where=Sales>=100&where=Benefit per order<0&where=Market!=Europe&where=Latitude between 18 and 30"
    found = get(server, f"/events?start=0&stop=2000&numbered=true&{where}").json()
    assert found == [
        event
        for event in every
        if event["Sales"] >= 100
        and event["Benefit per order"] < 0
        and event["Market"] != "Europe"
        and 18 <= event["Latitude"] <= 30
    ]
    assert found


def test_columns_are_those_asked_for(server: StreamServer, model: Model) -> None:
    """In their order; all are the published ones and the two on request."""
    (event,) = read(server, "start=0&columns=Sales,Market", 1)
    assert list(event) == ["Sales", "Market"]
    (event,) = read(server, "start=0&columns=all&numbered=1", 1)
    assert tuple(event) == (*EVENT.names, *model.on_request, "event_number")
    schema = get(server, "/schema?columns=Sales,Market&numbered=true").json()
    assert list(schema["properties"]) == ["Sales", "Market", "event_number"]


def test_a_range_of_the_past_in_every_format(server: StreamServer) -> None:
    """The same events, whenever and however they are requested."""
    query = "/events?start=4000&stop=5500&numbered=true"
    answers = {form: get(server, f"{query}&format={form}") for form in ("json", "ndjson", "arrow")}
    assert {form: answer.headers["content-type"] for form, answer in answers.items()} == {
        "json": "application/json",
        "ndjson": "application/x-ndjson",
        "arrow": "application/vnd.apache.arrow.stream",
    }
    events = answers["json"].json()
    assert [event["event_number"] for event in events] == list(range(4000, 5500))
    assert [json.loads(line) for line in answers["ndjson"].text.splitlines()] == events
    table = pa.ipc.open_stream(answers["arrow"].content).read_all()
    assert table["Sales"].to_pylist() == [event["Sales"] for event in events]
    assert get(server, query).content == answers["json"].content
    live = read(server, "start=4000&numbered=true", 1500)
    assert live == events
    assert get(server, "/events?start=7&stop=7").json() == []
    assert get(server, "/events?start=7&stop=7&format=arrow").status_code == 200


def test_a_range_between_two_times(server: StreamServer) -> None:
    """Events after `start` and up to `stop`, that very time included; the same bytes as by number."""
    times = [
        event["event_time"] for event in get(server, "/events?start=0&stop=100&columns=event_time").json()
    ]
    for start, stop in ((9, 59), (0, 99), (42, 42)):
        asked = get(server, f"/events?start={times[start]}&stop={times[stop]}&numbered=true")
        assert (
            asked.content == get(server, f"/events?start={start + 1}&stop={stop + 1}&numbered=true").content
        )
        assert asked.headers["Logistream-Event-Number"] == str(start + 1)
    assert (
        get(server, f"/events?start={times[5]}&stop=7").content
        == get(server, "/events?start=6&stop=7").content
    )
    assert get(server, "/events?start=earliest&stop=earliest").json() == []


def test_a_range_ends_with_the_newest_event(server: StreamServer) -> None:
    """`latest` is the default of `stop`, and a time in the past between two events ends between them."""
    server.paused = True
    everything = get(server, "/events?columns=event_time")
    assert get(server, "/events?columns=event_time&stop=latest").content == everything.content
    last = parse_rfc3339(everything.json()[-1]["event_time"])
    without = get(server, f"/events?columns=event_time&stop={rfc3339(last - 1)}").json()
    assert without == everything.json()[:-1]


def test_csv_has_a_header_and_the_values_of_a_sample_file(
    server: StreamServer, model: Model, tmp_path: Path
) -> None:
    """What pandas reads of it is what it reads of `logistream sample -o x.csv`, cut at any event."""
    answer = get(server, "/events?start=4000&stop=5500&format=csv&columns=all&numbered=true")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8; header=present"
    assert answer.headers["Logistream-Event-Number"] == "4000"
    events = pd.read_csv(io.StringIO(answer.text))
    assert list(events.columns) == [*model.full_schema.names, "event_number"]
    assert events["event_number"].tolist() == list(range(4000, 5500))
    patterns = {column.name: column.text_format for column in model.schema if column.text_format}
    written = write_table(model.sample(5500), tmp_path / "x.csv", patterns)
    sample = pd.read_csv(written).iloc[4000:].reset_index(drop=True)
    clock = {delay.column for delay in model.days_after_event}
    same = [name for name in model.schema.names if name not in clock]  # what does not follow the clock
    pd.testing.assert_frame_equal(events[same], sample[same])
    lines = get(server, "/events?start=4000&stop=5500&format=ndjson&columns=all&numbered=true").text
    objects = pd.DataFrame(map(json.loads, lines.splitlines()))
    for name in (*clock, "event_time"):
        assert events[name].tolist() == objects[name].tolist()
    assert get(server, "/events?start=7&stop=7&format=csv&columns=Sales,Market").text == "Sales,Market\n"


def test_the_csv_of_a_few_events_that_match(server: StreamServer) -> None:
    """Conditions and columns are as in the other formats."""
    query = "/events?start=0&stop=2000&where=Market:Europe&columns=Market,Order City"
    objects = get(server, query).json()
    rows = list(csv.DictReader(io.StringIO(get(server, f"{query}&format=csv").text)))
    assert rows == objects
    assert objects


def test_the_socket_sends_no_csv(server: StreamServer) -> None:
    """Its messages have no header line: that is for a finished range."""
    with pytest.raises(InvalidStatus) as refused, connect(f"{server.websocket_url}?format=csv"):
        pass
    assert b"format must be 'json', 'ndjson' or 'arrow'" in refused.value.response.body


def test_without_bounds_it_is_all_there_was(server: StreamServer) -> None:
    """From the first to the newest."""
    server.paused = True
    events = get(server, "/events?columns=event_time&numbered=true").json()
    assert len(events) == server.state["next_event_number"]


@pytest.mark.parametrize(
    ("query", "status", "sentence"),
    [
        ("start=5&stop=2", 422, "start must not be after stop: 5 is after 2"),
        ("stop=99999999", 416, "event 99999998 has not happened yet: the newest is "),
        ("start=99999999", 416, "event 99999999 has not happened yet: the newest is "),
        ("start=0&stop=newest", 422, "stop must be an event number, earliest, latest, or a time such as "),
        ("stop=2099-01-01T00:00:00Z", 416, "a range until 2099-01-01T00:00:00.000000Z has not happened yet"),
        ("start=2099-01-01T00:00:00Z", 416, "an event after 2099-01-01T00:00:00.000000Z has not happened"),
        ("start=5&stop=2020-01-01T00:00:00Z", 422, "start must not be after stop: 5 is after 0"),
        ("format=xlsx", 422, "format must be 'json', 'ndjson', 'arrow' or 'csv', not \"xlsx\""),
    ],
)
def test_what_cannot_be_had_is_said(server: StreamServer, query: str, status: int, sentence: str) -> None:
    """One sentence; for what has not happened, the newest number too."""
    answer = get(server, f"/events?{query}")
    assert answer.status_code == status
    assert answer.json()["detail"].startswith(sentence)
    if status == 416:
        newest = answer.json()["newest_event_number"]
        assert answer.json()["detail"].endswith(f" {newest}")


def test_a_range_has_a_limit(model: Model) -> None:
    """A longer range has to be requested in parts."""
    with StreamServer(model, rate=100_000, port=0, history="1min") as server:
        answer = get(server, "/events?start=0&stop=1000001")
        assert answer.status_code == 422
        assert answer.json()["detail"] == (
            "a range holds at most 1,000,000 events, not 1,000,001: ask for it in parts"
        )


def test_a_start_in_the_future_is_refused_in_the_handshake(server: StreamServer) -> None:
    """With the newest number; one that will happen within seconds is waited for."""
    with pytest.raises(InvalidStatus) as caught, connect(f"{server.websocket_url}?start=99999999"):
        pass
    assert caught.value.response.status_code == 416
    assert b"has not happened yet: the newest is" in caught.value.response.body
    soon = server.state["next_event_number"] + 100
    (event,) = read(server, f"start={soon}&numbered=true", 1)
    assert event["event_number"] == soon


def test_the_timeline_is_enough_to_make_the_stream_elsewhere(server: StreamServer, model: Model) -> None:
    """Entries, seed and model give the same numbers and times."""
    server.rate = 50
    server.paused = True
    published = get(server, "/timeline").json()
    assert (published["seed"], published["model_checksum"], published["arrivals"]) == (
        0,
        model.checksum,
        "even",
    )
    assert [entry["rate"] for entry in published["entries"]] == [200, 50, 50]
    timeline = Timeline([Entry.from_json(entry) for entry in published["entries"]])
    stop = server.state["next_event_number"]
    times = timeline.times(stop - 500, stop).tolist()
    events = get(server, f"/events?start={stop - 500}&columns=event_time").json()
    assert [parse_rfc3339(event["event_time"]) for event in events] == times
    assert get(server, "/timeline").json() == published


@pytest.mark.parametrize("arrivals", ["poisson", "bursts"])
def test_arrivals_at_random_keep_the_rate(model: Model, arrivals: str) -> None:
    """They are functions of the number too, and strictly increase."""
    with StreamServer(model, rate=500, port=0, history="30s", arrivals=arrivals) as server:
        published = get(server, "/timeline").json()
        assert published["arrivals"] == arrivals
        events = get(server, "/events?columns=event_time").json()
    times = [datetime.fromisoformat(event["event_time"]) for event in events]
    assert times == sorted(set(times))
    assert len(times) / (times[-1] - times[0]).total_seconds() == pytest.approx(500, rel=0.2)


def test_who_hangs_up_before_the_answer_leaves_nothing(server: StreamServer) -> None:
    """However often, and whatever was requested."""
    for number in range(20):
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            query = f"/events?start=0&stop=5000&columns=Sales&where=Product Category Id:{number}"
            raw.sendall(f"GET {quote(query, safe='/?=&')} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    (feeds,) = (
        thing for thing in gc.get_objects() if type(thing) is Feeds and thing._stream is server._stream
    )
    until(lambda: not feeds._feeds)


def test_an_application_that_has_ended_says_so(model: Model) -> None:
    """Its threads are gone: it cannot be begun again."""
    app = create_app(Stream(model))

    async def live() -> None:
        async with app.router.lifespan_context(app):
            pass

    asyncio.run(live())
    with pytest.raises(StreamError, match=r"^this application has ended: make another one with create_app$"):
        asyncio.run(live())


def test_a_finished_range_can_be_kept_for_ever(model: Model, tmp_path: Path) -> None:
    """It has a tag, by which it need not be sent again; with a timeline file no one need even ask."""
    path = "/events?start=10&stop=30&numbered=true"
    with StreamServer(model, rate=200, port=0, history="30s", timeline=tmp_path / "timeline") as server:
        answer = get(server, path)
        assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
        assert get(server, "/events?start=10").headers["cache-control"] == "private, no-cache"
        again = http.get(server.url + path, headers={"If-None-Match": answer.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        other = get(server, "/events?start=10&stop=31&numbered=true")
        lines = get(server, f"{path}&format=ndjson")
        assert len({one.headers["etag"] for one in (answer, other, lines)}) == 3
        with StreamServer(model, rate=1, port=0, timeline=tmp_path / "timeline") as replica:
            assert get(replica, path).headers["etag"] == answer.headers["etag"]
            assert get(replica, path).content == answer.content
    with StreamServer(model, rate=200, port=0, history="30s") as server:
        assert get(server, path).headers["etag"] != answer.headers["etag"]
        assert get(server, path).headers["cache-control"] == "private, no-cache"


def test_the_next_range_is_linked(server: StreamServer) -> None:
    """As long as this one, with the same columns and without the token; no event is repeated or left out."""
    url, numbers = f"{server.url}/events?start=0&stop=700&where=Market:Europe&numbered=true&token=x", []
    for _ in range(4):
        answer = http.get(url)
        numbers += [event["event_number"] for event in answer.json()]
        assert answer.links["next"]["url"].startswith("?")
        url = str(httpx2.URL(url).join(answer.links["next"]["url"]))
        assert "token" not in url
    assert numbers == [
        event["event_number"]
        for event in get(server, "/events?start=0&stop=2800&where=Market:Europe&numbered=true").json()
    ]


@pytest.mark.parametrize("form", ["json", "ndjson", "arrow", "csv"])
def test_a_range_is_compressed_for_who_takes_it(server: StreamServer, form: str) -> None:
    """The same bytes behind it; whoever does not ask for gzip gets none."""
    url = f"{server.url}/events?start=0&stop=3000&format={form}"
    plain = http.get(url, headers={"Accept-Encoding": "identity"})
    packed = http.get(url, headers={"Accept-Encoding": "br, gzip;q=0.5"})
    assert "content-encoding" not in plain.headers
    assert "content-encoding" not in http.get(url, headers={"Accept-Encoding": "gzip;q=0"}).headers
    assert packed.headers["content-encoding"] == "gzip"
    assert "Accept-Encoding" in packed.headers["vary"]
    assert packed.content == plain.content
    with http.stream("GET", url, headers={"Accept-Encoding": "gzip"}) as answer:
        assert sum(map(len, answer.iter_raw())) < len(plain.content) / 2


@pytest.mark.parametrize("path", ["/", "/events?start=0&stop=2000", "/schema", "/metrics", "/docs"])
def test_head_is_answered_like_get_without_a_body(server: StreamServer, path: str) -> None:
    """With its headers; and no browser guesses another content type."""
    full, head = get(server, path), httpx2.head(server.url + path, timeout=http.WAIT)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == full.headers["content-type"]
    assert head.headers["x-content-type-options"] == full.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("form", ["json", "ndjson", "arrow"])
def test_a_reading_ends_where_it_should(server: StreamServer, form: str) -> None:
    """Before a number or after a time, of the past or still to come: then the server closes with 1000."""
    newest = server.state["next_event_number"]
    times = get(server, "/events?start=0&stop=100&columns=event_time").json()
    soon = parse_rfc3339(get(server, "/events?columns=event_time").json()[-1]["event_time"]) + 500_000
    for query, first, last in (
        ("start=5&stop=2000", 5, 1999),
        (f"start={times[9]['event_time']}&stop={times[59]['event_time']}", 10, 59),
        (f"start={newest}&stop={newest + 50}", newest, newest + 49),
        (f"start={newest}&stop={rfc3339(soon)}", newest, None),
        ("start=7&stop=7", 7, 6),
    ):
        numbers: list[int] = []
        with connect(f"{server.websocket_url}?{query}&numbered=true&format={form}", max_size=None) as reader:
            for message in reader:  # ends with 1000, else it raises
                if isinstance(message, bytes):
                    events = pa.ipc.open_stream(message).read_all().to_pylist()
                else:
                    events = [json.loads(line) for line in message.splitlines()]
                numbers += [event["event_number"] for event in events]
            assert reader.close_code == 1000
        if last is None:
            last = len(get(server, f"/events?stop={rfc3339(soon)}&columns=Market").json()) - 1
        assert numbers == list(range(first, last + 1))
    until(lambda: server.connected_clients == 0)
    with pytest.raises(InvalidStatus) as caught, connect(f"{server.websocket_url}?start=9&stop=8"):
        pass
    assert b"start must not be after stop: 9 is after 8" in caught.value.response.body


@pytest.mark.slow
def test_the_past_at_a_multiple_of_its_tempo(server: StreamServer) -> None:
    """With speed=10, events that took 10 s come in one, each at its time and none before."""
    began = time.monotonic()
    with connect(f"{server.websocket_url}?start=0&stop=2001&speed=10&columns=event_time") as reader:
        arrived, happened = [], []
        for message in reader:
            arrived.append(time.monotonic() - began)
            happened.append(parse_rfc3339(json.loads(message)["event_time"]) / 1e6)
    assert len(arrived) == 2001
    early = max((when - happened[0]) / 10 - came for when, came in zip(happened, arrived, strict=True))
    assert early < 0.01
    assert 0.5 < arrived[-1] < 30

"""Faults of the wire of a running server: set from Python, over HTTP and on the command line, and read."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import TYPE_CHECKING, Any

import httpx2
import jsonschema
import pandas as pd
import pyarrow as pa
import pytest

import logistream as ls
from helpers import http
from helpers.processes import ServerProcess
from helpers.waiting import until
from helpers.wire import Peer
from logistream.cli import main
from logistream.client.client import Messages, connect
from logistream.fitting.fit import fit
from logistream.model.model import load_model
from logistream.server.server import StreamServer
from logistream.stream.encoding import Encoder
from logistream.stream.faults import Fault
from logistream.stream.stream import Stream
from logistream.stream.timeline import Entry, Timeline

if TYPE_CHECKING:
    from pathlib import Path

WAIT = 60.0
"""Seconds that a busy machine may take."""

DUPLICATE = {"duplicate": {"copies": 1}, "share": 1}
LATE = {"late": {"events": [1, 300]}, "share": 0.1, "where": ["Market:Europe"]}
FAULTS: list[dict[str, Any]] = [
    LATE,
    {"late": {"seconds": [0.01, 0.5]}, "share": 0.05},
    {"reorder": {"within": 20}, "share": 0.2},
    {"duplicate": {"copies": 2, "events": [0, 100]}, "share": 0.1},
    {"drop": True, "share": 0.02},
    *({"corrupt": kind, "share": 0.03} for kind in ("null", "type", "missing", "extra", "cut")),
]


def get(server: StreamServer | ServerProcess, path: str, **headers: str) -> httpx2.Response:
    """Return the answer to a GET."""
    answer = http.get(f"http://127.0.0.1:{server.port}{path}", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def patch(server: StreamServer, body: object) -> Any:
    """Change the stream; return what is answered."""
    return http.patch(f"{server.url}/stream", json=body).json()


def happened(server: StreamServer | ServerProcess, number: int) -> None:
    """Wait until an event has happened."""
    until(lambda: get(server, "/stream").json()["next_event_number"] > number)


def place_of(line: str) -> str:
    """Return the place of a delivery, which a cut line has too."""
    assert line.startswith('{"delivery":"')
    return line.split('"')[3]


def following(place: str) -> str:
    """Return the place after one."""
    slot, _, index = place.partition(".")
    return f"{slot}.{int(index) + 1}"


def read(url: str, start: object, count: int, **options: Any) -> list[str]:
    """Return what a client gets from some place on."""

    async def run() -> list[str]:
        async with (
            asyncio.timeout(WAIT),
            Messages(url, start=start, on_trouble=lambda _: None, **options) as messages,  # type: ignore[arg-type]
        ):
            return [await anext(messages) for _ in range(count)]

    return asyncio.run(run())


# Setting


def test_faults_are_set_live(server: StreamServer) -> None:
    """As an attribute: a fault, its JSON form, a list of them, and None to end them."""
    assert server.faults == ()
    server.faults = Fault.from_json(DUPLICATE)
    assert server.faults == (Fault.from_json(DUPLICATE),)
    first = server.timeline.last.first
    happened(server, first + 20)
    rows = get(server, f"/events?start={first}&stop={first + 20}&placed=true&numbered=true").json()
    assert [row["event_number"] for row in rows] == [first + slot // 2 for slot in range(40)]
    assert [row["delivery"] for row in rows] == [f"{first + slot // 2}.{slot % 2}" for slot in range(40)]
    server.faults = [DUPLICATE, LATE]
    assert [fault.kind for fault in server.faults] == ["duplicate", "late"]
    server.faults = None
    assert server.faults == ()
    assert server.state["faults"] == []


def test_faults_are_set_over_http(server: StreamServer) -> None:
    """One, several, or null to end them; the state and the timeline show them."""
    assert "faults" not in get(server, "/timeline").json()["entries"][0]
    state = patch(server, {"faults": LATE})
    assert state["faults"] == [LATE]
    assert state["from_event_number"] == server.timeline.last.first
    assert patch(server, {"rate": 300})["faults"] == [LATE]
    assert get(server, "/stream").json()["faults"] == [LATE]
    assert patch(server, {"faults": [LATE, DUPLICATE]})["faults"][0] == LATE
    assert patch(server, {"faults": None})["faults"] == []
    entries = get(server, "/timeline").json()["entries"]
    assert [len(entry.get("faults", ())) for entry in entries] == [0, 1, 1, 2, 0]
    assert tuple(Entry.from_json(entry) for entry in entries) == server.timeline.entries


@pytest.mark.parametrize(
    ("faults", "sentence"),
    [
        ({"lat": {"events": 5}, "share": 0.1}, "a fault has no \"lat\": did you mean 'late'?"),
        ({"late": {"events": 5}}, "share of a fault must be a number greater than 0 and at most 1, not null"),
        ({"late": {"event": 5}, "share": 1}, "the fault late has no \"event\": did you mean 'events'?"),
        ({"drop": True, "share": 1, "where": "Markt:Europe"}, "a condition is written COLUMN:VALUE or"),
        ({"drop": True, "share": 1, "where": "Market:Europ"}, "'Market' is never 'Europ'"),
        ({"corrupt": "nul", "share": 1}, "the fault corrupt needs null, type, missing, extra or cut, not"),
        ({"corrupt": "null", "column": "Sale", "share": 1}, 'a fault cannot corrupt "Sale"'),
        ([LATE] * 17, "at most 16 faults can hold at once, not 17"),
        ("late", "a fault must be an object such as"),
        (7, "a fault must be an object such as"),
    ],
)
def test_bad_faults_are_refused_in_a_sentence(server: StreamServer, faults: object, sentence: str) -> None:
    """Over HTTP, with the nearest names; nothing is changed."""
    answer = http.patch(f"{server.url}/stream", json={"faults": faults})
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(sentence)
    assert "\n" not in answer.json()["detail"]
    assert len(server.timeline.entries) == 1


def test_openapi_describes_faults(server: StreamServer) -> None:
    """With a schema that allows what is allowed, and refuses an unknown kind; and the parameters."""
    document = get(server, "/openapi.json").json()
    schema = document["components"]["schemas"]["StreamChange"]["properties"]["faults"]
    for allowed in (LATE, FAULTS, None, []):
        jsonschema.validate(allowed, schema)
    for refused in ({"lat": {"events": 5}, "share": 0.1}, {"drop": True}, [LATE] * 17):
        assert not jsonschema.Draft202012Validator(schema).is_valid(refused)
    for path in ("/events", "/sse"):
        names = [parameter["name"] for parameter in document["paths"][path]["get"]["parameters"]]
        assert {"faults", "placed"} <= set(names)
    websocket = get(server, "/asyncapi.json").json()["channels"]["events"]["bindings"]["ws"]["query"]
    assert {"faults", "placed"} <= set(websocket["properties"])


def test_a_read_only_server_has_faults_that_nobody_else_can_change(tmp_path: Path) -> None:
    """403 over HTTP; its own program can set them."""
    with StreamServer(rate=200, port=0, read_only=True, timeline=tmp_path / "timeline") as server:
        server.faults = LATE
        answer = http.patch(f"{server.url}/stream", json={"faults": None})
        assert answer.status_code == 403
        assert get(server, "/stream").json()["faults"] == [LATE]


def test_late_events_come_after_the_faults_have_ended(server: StreamServer) -> None:
    """Each with its number, in the slot that it was held back until."""
    server.faults = {"late": {"events": 50}, "share": 1}
    first = server.timeline.last.first
    happened(server, first + 5)
    server.faults = None
    last = server.timeline.last.first
    happened(server, last + 60)
    rows = get(server, f"/events?start={first}&stop={last + 60}&placed=true&numbered=true").json()
    places = {row["event_number"]: row["delivery"] for row in rows}
    assert all(places[number] == f"{number + 50}.1" for number in range(max(first, last - 50), last))
    assert all(places[number] == f"{number}.0" for number in range(last, last + 60))


# Places


@pytest.mark.parametrize(
    ("start", "first"),
    [
        ("{n}", "{n}.0"),
        ("{n}.0", "{n}.0"),
        ("{n}.1", "{n}.1"),
        ("{n}.2", "{m}.0"),
        ("{n}.4294967295", "{m}.0"),
    ],
)
def test_reading_starts_at_a_place(server: StreamServer, start: str, first: str) -> None:
    """Over the WebSocket, as server-sent events and as a range; behind the last one, with the next slot."""
    server.faults = DUPLICATE
    number = server.timeline.last.first + 5
    happened(server, number + 10)
    begin, expected = (text.format(n=number, m=number + 1) for text in (start, first))
    with Peer(server.port, f"?start={begin}&placed=true&columns=Market") as peer:
        assert peer.headers["logistream-event-number"] == str(number)
        frame = peer.receive()
        assert frame is not None
        assert json.loads(frame.payload)["delivery"] == expected
    query = f"start={begin}&stop={number + 3}&placed=true&columns=Market"
    rows = get(server, f"/events?{query}").json()
    assert rows[0]["delivery"] == expected
    sse = get(server, f"/sse?{query}").text.splitlines()
    assert [json.loads(line[6:]) for line in sse if line.startswith("data: ")] == rows
    assert next(line for line in sse if line.startswith("id: ")) == f"id: {expected.removesuffix('.0')}"


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("start=40.4294967296", "start must be an event number, or a place such as 40.1 with an index below"),
        ("start=99999999999999999.1", "start must be a whole event number from 0 to 2**53"),
        ("start=40.", "start must be an event number, earliest, latest, or a time such as"),
        ("start=4.1&stop=4", "start must not be after stop: 5 is after 4"),
        ("stop=40.1", "stop must be an event number, "),
        ("faults=no%20", 'faults must be true or false, not "no "'),
        ("placed=2", 'placed must be true or false, not "2"'),
        ("place=1", "unknown query parameter 'place': there are "),
    ],
)
def test_places_that_are_none_are_refused(server: StreamServer, query: str, sentence: str) -> None:
    """In one sentence, wherever they are given."""
    happened(server, 10)  # so that slot 4 has one delivery, and `4.1` is the next slot
    server.faults = DUPLICATE
    happened(server, server.timeline.last.first + 5)
    for path in ("/events", "/sse"):
        answer = http.get(f"{server.url}{path}?{query}")
        assert (answer.status_code, answer.json()["detail"][: len(sentence)]) == (422, sentence)
    with pytest.raises(ConnectionRefusedError) as caught:
        Peer(server.port, f"?{query}")
    assert json.loads(str(caught.value).partition(": ")[2])["detail"].startswith(sentence)


def test_a_place_without_faults_is_an_event_number(server: StreamServer) -> None:
    """An index above 0 is the next event."""
    happened(server, 20)
    clean = get(server, "/events?start=5&stop=9").content
    assert get(server, "/events?start=5.0&stop=9").content == clean
    assert get(server, "/events?start=4.1&stop=9").content == clean
    placed = get(server, "/events?start=4.7&stop=9&placed=true").json()
    assert [row.pop("delivery") for row in placed] == ["5.0", "6.0", "7.0", "8.0"]
    assert placed == json.loads(clean)
    server.faults = DUPLICATE
    first = server.timeline.last.first
    happened(server, first + 5)
    assert (
        get(server, f"/events?start={first}.1&stop={first + 2}&faults=false&numbered=true").json()[0][
            "event_number"
        ]
        == first + 1
    )


@pytest.mark.parametrize("columns", ["", "&columns=Sales", "&columns=delivery"])
def test_a_table_may_have_a_column_of_the_name_delivery(columns: str) -> None:
    """The place has an underscore more then, whichever columns are requested, in each format."""
    model = fit(pd.DataFrame({"delivery": ["van", "truck"] * 100, "Sales": range(200)}))
    with StreamServer(model, rate=500, port=0, history="2s") as server:
        clean = get(server, f"/events?start=0&stop=9{columns}").json()
        expected = [{"delivery_": f"{number}.0", **event} for number, event in enumerate(clean)]
        query = f"/events?start=0&stop=9&placed=true{columns}"
        assert get(server, query).json() == expected
        assert get(server, f"{query}&format=csv").text.splitlines()[0] == ",".join(expected[0])
        table = pa.ipc.open_stream(get(server, f"{query}&format=arrow").content).read_all()
        assert table.column_names == list(expected[0])
        names = [columns.partition("=")[2]] if columns else None

        async def run() -> list[dict[str, Any]]:
            async with asyncio.timeout(WAIT), connect(server, start=0, columns=names) as events:
                return [await anext(events) for _ in clean]

        assert asyncio.run(run()) == clean


def test_server_sent_events_resume_after_a_place(server: StreamServer) -> None:
    """By `Last-Event-ID`, whichever delivery of a slot it was; at the end a browser gives up."""
    server.faults = {"duplicate": {"copies": 2}, "share": 1}
    first = server.timeline.last.first
    happened(server, first + 10)
    for condition in ("", "&where=Market:Europe", "&where=Sales>=1e9"):
        query = f"/sse?start={first}&stop={first + 4}&columns=Market{condition}"
        sent = get(server, query).text.splitlines()
        ids = [line[4:] for line in sent if line.startswith("id: ")]
        data = [line for line in sent if line.startswith("data: ")]
        if not condition:
            places = [f"{first + slot}{end}" for slot in range(4) for end in ("", ".1", ".2")]
            assert ids[:-1] == places
        for count, seen in enumerate(ids[:-1], 1):
            after = get(server, query, **{"Last-Event-ID": seen}).text.splitlines()
            assert [line for line in after if line.startswith("data: ")] == data[count:]
        over = http.get(f"{server.url}{query}", headers={"Last-Event-ID": ids[-1]})
        assert over.status_code == 204


@pytest.mark.slow
def test_etags_tell_faulty_and_clean_ranges_apart(tmp_path: Path) -> None:
    """Both are kept for ever with a timeline file; a caller that has one of them is told so."""
    with StreamServer(rate=500, port=0, timeline=tmp_path / "timeline") as server:
        server.faults = FAULTS
        first = server.timeline.last.first
        happened(server, first + 300)
        query = f"/events?start={first}&stop={first + 300}&format=ndjson"
        tags = {}
        for more in ("", "&faults=false", "&placed=true"):
            answer = get(server, query + more)
            assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
            tags[answer.headers["etag"]] = answer.content
            known = {"If-None-Match": answer.headers["etag"]}
            assert http.get(f"{server.url}{query}{more}", headers=known).status_code == 304
        assert len(tags) == len(set(tags.values())) == 3
        following = get(server, f"/events?start={first}.1&stop={first + 50}&placed=true").headers["link"]
        assert following.startswith(f"<?start={first + 50}&stop={first + 100}&")
        server.faults = None
        happened(server, first + 600)
        assert tags[get(server, query).headers["etag"]] == get(server, query).content


# Clients and instruments


@pytest.mark.slow
def test_a_client_gets_deliveries_and_an_instrument_what_happened(server: StreamServer) -> None:
    """`connect` with what is late, repeated and corrupted, or without; frames and ranges always without."""
    server.faults = FAULTS
    first = server.timeline.last.first
    happened(server, first + 400)
    stop = first + 400
    clean = get(server, f"/events?start={first}&stop={stop}&faults=false").json()
    sent = get(server, f"/events?start={first}&stop={stop}&format=ndjson&placed=true").text.splitlines()

    async def run(count: int, **options: Any) -> tuple[list[dict[str, Any]], connect]:
        async with asyncio.timeout(WAIT), connect(server, start=first, **options) as events:
            return [await anext(events) for _ in range(count)], events

    made, _ = asyncio.run(run(400, faults=False))
    assert made == clean
    while not sent[-1].endswith("}"):  # so that the last one is whole
        sent.pop()
    whole = [json.loads(line) for line in sent if line.endswith("}")]
    made, events = asyncio.run(run(len(whole), placed=True))
    assert made == whole
    assert events.unreadable == len(sent) - len(whole) > 0
    assert events.next_place == following(place_of(sent[-1]))
    frame = ls.RollingFrame()
    with frame.follow(server, start=first):
        assert frame.wait(400, WAIT)
    assert frame.df["Sales"].head(400).tolist() == [event["Sales"] for event in clean]
    rows = ls.events(server, first, stop)
    assert rows["Sales"].tolist() == [event["Sales"] for event in clean]
    assert rows["event_time"].is_monotonic_increasing


# Replicas, restarts, processes


def rebuilt(server: ServerProcess) -> Stream:
    """Return the stream of a server, made here from what it publishes."""
    state = get(server, "/timeline").json()
    entries = [Entry.from_json(entry) for entry in state["entries"]]
    return Stream(load_model(), Timeline(entries), seed=state["seed"])


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_faulty_stream_holds_through_kill_and_replicas(tmp_path: Path) -> None:
    """A reader whose server is killed again and again gets, byte for byte, what a replica gives as a range.

    That is what `Stream.deliveries` gives for the timeline, in all formats.
    """
    file, form = str(tmp_path / "timeline"), tmp_path / "faults.json"
    form.write_text(json.dumps(FAULTS))
    options = ("--timeline", file, "--rate", "1000")
    got: list[str] = []
    enough = threading.Event()
    wanted = 6000

    async def reading(url: str) -> None:
        async with Messages(
            url,
            start=0,
            placed=True,
            numbered=True,
            first_delay=0.05,
            max_delay=0.2,
            on_trouble=lambda _: None,
        ) as messages:
            async for message in messages:
                got.append(message)
                if len(got) == wanted:
                    break
        enough.set()

    with (
        ServerProcess(*options, "--faults", str(form)) as one,
        ServerProcess("--timeline", file) as two,
    ):
        reader = threading.Thread(target=lambda: asyncio.run(reading(one.url)), daemon=True)
        reader.start()
        for kills in range(1, 4):
            until(lambda: len(got) > 1000 * kills or enough.is_set())  # noqa: B023
            one.kill()
            one.start()
        until(enough.is_set, within=2 * WAIT)
        reader.join()
        last = int(place_of(got[-1]).partition(".")[0])
        stop = last + 1
        happened(two, stop)
        happened(one, stop)
        query = f"/events?start=0&stop={stop}&placed=true&numbered=true"
        lines = get(two, f"{query}&format=ndjson").text.splitlines()
        assert lines[:wanted] == got
        stream = rebuilt(two)
        batch, found = stream.deliveries(0, stop)
        assert [place_of(line) for line in lines] == found.places().to_pylist()
        assert len(found.corruptions) > 400
        clean = Encoder(stream.model.event_schema).encode(batch)
        for row, line in enumerate(lines):
            same = (
                line.partition(",")[2].encode()
                == clean[row][1:-1] + b',"event_number":%d}' % found.numbers[row]
            )
            assert same == (row not in found.corruptions)
        for more in (
            "json",
            "ndjson",
            "arrow",
            "csv",
            "ndjson&envelope=cloudevents",
            "json&where=Market:Europe",
        ):
            assert get(one, f"{query}&format={more}").content == get(two, f"{query}&format={more}").content
        happening = Encoder(stream.model.event_schema, after="\n").encode(stream.batch(0, stop))
        assert get(one, f"/events?stop={stop}&format=ndjson&faults=false").content == b"".join(happening)
        table = pa.ipc.open_stream(get(one, f"{query}&format=arrow").content).read_all()
        assert table["delivery"].to_pylist() == found.places().to_pylist()
        numbers = zip(table["event_number"].to_pylist(), found.numbers.tolist(), strict=True)
        assert all(sent in (None, number) for sent, number in numbers)  # none where the wire has cut it off
        events = get(one, f"/sse?start=0&stop={stop}&placed=true&numbered=true").text.splitlines()
        assert [line[6:] for line in events if line.startswith("data: ")] == lines


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_workers_share_faults(tmp_path: Path) -> None:
    """`serve --workers 2 --faults FILE`, or LOGISTREAM_FAULTS: whichever answers, the same deliveries."""
    form = tmp_path / "faults.json"
    form.write_text(json.dumps(FAULTS))
    with ServerProcess(
        "--workers", "2", "--rate", "500", environment={"LOGISTREAM_FAULTS": str(form)}
    ) as server:
        assert get(server, "/stream").json()["faults"] == [
            Fault.from_json(fault).to_json() for fault in FAULTS
        ]
        happened(server, 700)
        bodies = {get(server, "/events?start=0&stop=700&placed=true&format=ndjson").content for _ in range(8)}
        assert len(bodies) == 1
        lines = bodies.pop().decode().splitlines()
        half = len(lines) // 2
        start = following(place_of(lines[half - 1]))
        resumed = read(server.url, start, len(lines) - half, placed=True)
        assert resumed == lines[half:]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "faults {path} cannot be read: No such file or directory"),
        ("{", "faults {path} cannot be used: it is not JSON: "),
        ("\udcff", "faults {path} cannot be used: it is not UTF-8 text, so it is not JSON"),
        (
            '{"dorp": true, "share": 1}',
            "faults {path} cannot be used: a fault has no \"dorp\": did you mean 'drop'?",
        ),
        ('{"drop": true, "share": 1, "where": "Market:Mars"}', "'Market' is never 'Mars'"),
    ],
)
def test_a_file_that_holds_no_faults_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, sentence: str
) -> None:
    """With exit code 2 and one sentence."""
    path = tmp_path / "faults.json"
    if content is not None:
        path.write_text(content, errors="surrogateescape")
    assert main(["serve", "--port", "0", "--faults", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("logistream: " + sentence.format(path=path))
    assert error.count("\n") == 1

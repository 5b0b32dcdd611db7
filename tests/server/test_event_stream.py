"""Server-sent events: the events of the WebSocket, with their numbers, over HTTP."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from helpers import http
from helpers.waiting import until
from logistream.server.limits import Limits
from logistream.server.server import StreamServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from logistream.model.model import Model

WAIT = 60.0
"""Seconds that a busy machine may take."""


@pytest.fixture
def server(model: Model) -> Iterator[StreamServer]:
    """Give a server that has 30 s of a past at 200 events a second."""
    with StreamServer(model, rate=200, port=0, history="30s") as running:
        yield running


def read(
    server: StreamServer, query: str, most: int | None = None, headers: dict[str, str] | None = None
) -> list[tuple[int, str]]:
    """Return id and data of the events of an answer, or of the first so many."""
    found: list[tuple[int, str]] = []
    url = f"{server.url}/sse?{query}"
    with http.stream("GET", url, headers=headers) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        number = -1
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if name == "id":
                number = int(value)
            elif name == "data":
                found.append((number, value))
                if len(found) == most:
                    break
    return found


@pytest.mark.slow
def test_the_events_are_those_of_a_range(server: StreamServer) -> None:
    """From the past into the present, each once, with its number as its id."""
    newest = server.state["next_event_number"]
    past = http.get(f"{server.url}/events?where=Market:Europe&columns=Market&stop={newest}").json()
    events = read(server, "start=earliest&numbered=true&where=Market:Europe", len(past) + 50)
    stop = events[-1][0] + 1
    assert stop > newest
    every = http.get(f"{server.url}/events?numbered=true&where=Market:Europe&stop={stop}").json()
    assert [json.loads(data) for _, data in events] == every
    assert [number for number, _ in events] == [event["event_number"] for event in every]
    until(lambda: server.connected_clients == 0)  # it has left


def test_it_goes_on_after_the_last_id(server: StreamServer) -> None:
    """Whatever the address says; at its end the answer is 204, at which a browser gives up."""
    query = "start=0&stop=50&columns=Market"
    events = read(server, query)
    assert [number for number, _ in events] == list(range(50))
    assert read(server, query, headers={"Last-Event-ID": "19"}) == events[20:]
    after = http.get(f"{server.url}/sse?{query}", headers={"Last-Event-ID": "49"})
    assert (after.status_code, after.content) == (204, b"")


@pytest.mark.slow
def test_a_browser_gives_up_at_every_kind_of_end(server: StreamServer) -> None:
    """Also if the last event does not match the conditions, if none does, or if the end is a time."""
    every = http.get(f"{server.url}/events?stop=50&columns=event_time,Market").json()
    conditions = [f"where=Market:{market}" for market in {event["Market"] for event in every}]
    for stop in ("50", every[-1]["event_time"]):
        for condition in ("", *conditions, "where=Sales>=1e9"):
            url = f"{server.url}/sse?start=0&stop={stop}&{condition}"
            ids = [line[4:] for line in http.get(url).text.splitlines() if line.startswith("id: ")]
            assert ids[-1] == "49"
            assert ids == sorted(set(ids), key=int)
            assert http.get(url, headers={"Last-Event-ID": ids[-1]}).status_code == 204
    assert http.get(f"{server.url}/sse?start=7&stop=7").status_code == 204


@pytest.mark.parametrize(
    ("query", "last", "status", "sentence"),
    [
        ("format=arrow", None, 422, "format must be 'json', not \"arrow\""),
        ("", "x", 422, "Last-Event-ID must be a whole event number from 0 to 2**53, not 'x'"),
        ("", "99999999", 416, "event 99999999 has not happened yet: the newest is "),
        ("start=9&stop=8", None, 422, "start must not be after stop: 9 is after 8"),
    ],
)
def test_what_cannot_be_had_is_refused(
    server: StreamServer, query: str, last: str | None, status: int, sentence: str
) -> None:
    """One sentence, before any event."""
    headers = {} if last is None else {"Last-Event-ID": last}
    answer = http.get(f"{server.url}/sse?{query}", headers=headers)
    assert answer.status_code == status
    assert answer.json()["detail"].startswith(sentence)


def test_its_readers_count(model: Model) -> None:
    """They are readers like those of the WebSocket, and no more than allowed."""
    with StreamServer(model, rate=100, port=0, limits=Limits(clients=1)) as server:
        with http.stream("GET", f"{server.url}/sse"):
            until(lambda: server.connected_clients == 1)
            refused = http.get(f"{server.url}/sse")
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        until(lambda: server.connected_clients == 0)

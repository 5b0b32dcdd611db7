"""CloudEvents: every event in an envelope of the specification, wherever JSON is sent."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from jsonschema import Draft7Validator

from helpers import http
from helpers.websocket import connect
from logistream.server.server import StreamServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from logistream.model.model import Model

COUNT = 700
"""Events: more than one part."""


@pytest.fixture(scope="module")
def server(model: Model) -> Iterator[StreamServer]:
    """Give a server with a past."""
    with StreamServer(model, rate=200, port=0, history="30s") as running:
        yield running


def plain(server: StreamServer, query: str = "") -> dict[int, Any]:
    """Return the first events without an envelope, by number."""
    address = f"{server.url}/events?numbered=true&stop={COUNT}{query}"
    return {event["event_number"]: event for event in http.get(address).json()}


def check(server: StreamServer, envelopes: list[Any], expected: dict[int, Any]) -> None:
    """Check that these are CloudEvents 1.0 whose data are the expected events."""
    stream = http.get(f"{server.url}/timeline").json()["stream"]
    assert [envelope["id"] for envelope in envelopes] == [f"{stream}/{number}" for number in expected]
    for envelope, event in zip(envelopes, expected.values(), strict=True):
        assert list(envelope) == ["specversion", "id", "source", "type", "time", "datacontenttype", "data"]
        assert (envelope["specversion"], envelope["type"]) == ("1.0", "logistream.event")
        assert envelope["datacontenttype"] == "application/json"
        assert re.fullmatch(r"/logistream/[A-Za-z0-9%._~-]+", envelope["source"])
        assert envelope["time"] == event["event_time"]
        assert envelope["data"] == event


@pytest.mark.parametrize("query", ["", "&where=Market:Europe"])
def test_a_range(server: StreamServer, query: str) -> None:
    """As a JSON array, which has a content type of its own, and as lines; the data are those without one."""
    expected = plain(server, query)
    address = f"{server.url}/events?envelope=cloudevents&numbered=true&stop={COUNT}{query}"
    batch = http.get(address)
    assert batch.headers["content-type"] == "application/cloudevents-batch+json"
    check(server, batch.json(), expected)
    lines = http.get(f"{address}&format=ndjson")
    assert lines.headers["content-type"] == "application/x-ndjson"
    check(server, [json.loads(line) for line in lines.text.splitlines()], expected)
    bare = http.get(address.replace("envelope=cloudevents&", ""))
    assert bare.headers["etag"] != batch.headers["etag"]


def test_the_websocket(server: StreamServer) -> None:
    """One a message, or one a line, as the AsyncAPI document describes them."""
    expected = plain(server)
    address = f"{server.websocket_url}?envelope=cloudevents&numbered=true&start=0&stop={COUNT}"
    with connect(address) as reader:
        messages = [json.loads(message) for message in reader]
    check(server, messages, expected)
    with connect(f"{address}&format=ndjson") as reader:
        check(
            server, [json.loads(line) for message in reader for line in str(message).splitlines()], expected
        )
    document = http.get(f"{server.url}/asyncapi.json").json()
    Draft7Validator({**document, **document["components"]["messages"]["cloud_event"]["payload"]}).validate(
        messages[0]
    )


def test_server_sent_events(server: StreamServer) -> None:
    """Each `data` is one, under the same id as without."""
    address = f"{server.url}/sse?envelope=cloudevents&numbered=true&start=0&stop={COUNT}"
    text = http.get(address).text
    check(
        server, [json.loads(data) for data in re.findall("^data: (.*)$", text, re.MULTILINE)], plain(server)
    )
    assert re.findall(r"^id: (\d+)$", text, re.MULTILINE) == [str(number) for number in range(COUNT)]


@pytest.mark.parametrize(
    ("path", "query", "sentence"),
    [
        ("events", "format=arrow", "envelope=cloudevents is possible with format=json or ndjson, not arrow"),
        ("events", "format=csv", "envelope=cloudevents is possible with format=json or ndjson, not csv"),
        (
            "sse",
            "lag=skip",
            "envelope=cloudevents is not possible with lag=skip, which sends other messages too",
        ),
    ],
)
def test_what_is_refused(server: StreamServer, path: str, query: str, sentence: str) -> None:
    """What has no envelope, in one sentence."""
    answer = http.get(f"{server.url}/{path}?envelope=cloudevents&{query}")
    assert (answer.status_code, answer.json()["detail"]) == (422, sentence)

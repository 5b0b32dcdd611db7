"""The interface over HTTP and WebSocket, spoken to through real sockets."""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import httpx2
import jsonschema
import pytest
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from helpers import http
from helpers.waiting import at_best, seconds_until, until
from helpers.websocket import connect
from logistream.dataco import EVENT
from logistream.server.server import StreamServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from logistream.model.model import Model


def get(server: StreamServer, path: str, **headers: str) -> httpx2.Response:
    """Return the answer to a GET."""
    return http.get(server.url + path, headers=headers)


def patch(server: StreamServer, body: str, **headers: str) -> httpx2.Response:
    """Return the answer to a PATCH of the stream."""
    headers = {"Content-Type": "application/json", **headers}
    return http.patch(f"{server.url}/stream", content=body, headers=headers)


def read(server: StreamServer, count: int) -> list[dict[str, Any]]:
    """Return the next events."""
    with connect(server.websocket_url) as reader:
        return [json.loads(reader.recv(timeout=60)) for _ in range(count)]


def clients(server: StreamServer) -> int:
    """Return how many clients the server reports."""
    return int(get(server, "/").json()["connected_clients"])


# Events


def test_an_event_has_the_published_keys_in_order(server: StreamServer) -> None:
    """Each message is one JSON object with the 23 keys and nothing else."""
    for event in read(server, 5):
        assert tuple(event) == EVENT.names
        assert len(event) == 23


def test_events_fit_their_schema(server: StreamServer) -> None:
    """GET /schema is a valid JSON Schema, and events are valid by it."""
    schema = get(server, "/schema").json()
    jsonschema.Draft202012Validator.check_schema(schema)
    for event in read(server, 20):
        jsonschema.validate(event, schema)


def test_events_come_at_their_time(server: StreamServer) -> None:
    """A reader gets events from now on, each when it happens, at the rate in force."""
    before = datetime.now(UTC)
    times = [datetime.fromisoformat(event["event_time"]) for event in read(server, 40)]
    after = datetime.now(UTC)
    assert before <= times[0]
    assert times[-1] <= after
    gaps = {(later - earlier).microseconds for earlier, later in pairwise(times)}
    assert gaps == {5000}


@pytest.mark.slow
def test_two_events_a_second_by_default(model: Model) -> None:
    """The default rate is 2 a second, exactly, from the start."""
    with StreamServer(model, port=0) as server:
        first, second = (datetime.fromisoformat(event["event_time"]) for event in read(server, 2))
        assert (second - first).total_seconds() == 0.5


def test_all_readers_get_the_same_events(server: StreamServer) -> None:
    """Several clients see one stream."""
    with connect(server.websocket_url) as one, connect(server.websocket_url) as two:
        first = two.recv(timeout=60)  # which began later
        while one.recv(timeout=60) != first:
            pass
        for _ in range(50):
            assert one.recv(timeout=60) == two.recv(timeout=60)


def test_a_reader_that_does_not_read_delays_no_other(model: Model) -> None:
    """A stalled client costs the others nothing."""
    with StreamServer(model, rate=20_000, port=0) as server, ExitStack() as stalled:
        for _ in range(3):
            raw = stalled.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.sendall(handshake(server.port))
        until(lambda: clients(server) == 3)
        with connect(server.websocket_url) as reader:
            for _ in range(10_000):
                text = reader.recv(timeout=60)
        delay = datetime.now(UTC) - datetime.fromisoformat(json.loads(text)["event_time"])
        assert delay.total_seconds() < 30
        until(lambda: clients(server) == 3)


def test_what_a_reader_sends_is_ignored(server: StreamServer) -> None:
    """Messages to the server change nothing."""
    with connect(server.websocket_url) as reader:
        for message in ("hello", b"\0\1", "{}"):
            reader.send(message)
        assert [tuple(json.loads(reader.recv(timeout=60))) for _ in range(50)] == [EVENT.names] * 50


# Coming and going


def handshake(port: int) -> bytes:
    """Return a WebSocket handshake as it goes over the wire."""
    return (
        f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


def test_a_close_frame_is_noticed_within_a_second(server: StreamServer) -> None:
    """The count follows clients that come and that close the connection."""
    server.rate = 1  # these clients do not read, and with events waiting to be read none can close politely
    assert clients(server) == 0

    def slowest() -> float:
        with connect(server.websocket_url):
            taken = [seconds_until(lambda: clients(server) == 1)]
            with connect(server.websocket_url):
                taken.append(seconds_until(lambda: clients(server) == 2))
            taken.append(seconds_until(lambda: clients(server) == 1))
        taken.append(seconds_until(lambda: clients(server) == 0))
        return max(taken)

    at_best(slowest, below=1)


@pytest.mark.parametrize("linger", [0, None], ids=["reset", "end of file"])
@pytest.mark.parametrize("rate", [0.001, 50_000], ids=["idle", "stalled"])
def test_a_broken_connection_is_noticed_within_a_second(
    model: Model, rate: float, linger: int | None
) -> None:
    """A socket that goes without a word is noticed, whether events are flowing, stuck, or none are due."""
    with StreamServer(model, rate=rate, port=0) as server:

        def taken() -> float:
            raw = socket.create_connection(("127.0.0.1", server.port))
            raw.sendall(handshake(server.port))
            until(lambda: clients(server) == 1)
            if rate > 1:
                received = time.monotonic()
                until(lambda: time.monotonic() - received > 0.2)  # let the buffers fill
            if linger is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, linger))
            raw.close()
            return seconds_until(lambda: clients(server) == 0)

        at_best(taken, below=1)


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_a_killed_client_is_noticed_within_a_second(server: StreamServer) -> None:
    """A client process that is killed sends no close frame, and is gone all the same."""
    script = "import sys; from websockets.sync.client import connect\nfor _ in connect(sys.argv[1]): pass"

    def taken() -> float:
        with subprocess.Popen([sys.executable, "-c", script, server.websocket_url]) as client:
            until(lambda: clients(server) == 1)
            os.kill(client.pid, signal.SIGKILL)
            return seconds_until(lambda: clients(server) == 0)

    at_best(taken, below=1)


# Status and state


def test_the_status_has_exactly_the_published_keys(server: StreamServer) -> None:
    """GET / returns status, clients, and the address that the caller used."""
    answer = get(server, "/")
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "status": "running",
        "connected_clients": 0,
        "websocket_url": f"ws://127.0.0.1:{server.port}/ws",
    }
    patch(server, '{"paused": true}')
    by_name = http.get(f"http://localhost:{server.port}/").json()
    assert by_name == {
        "status": "paused",
        "connected_clients": 0,
        "websocket_url": f"ws://localhost:{server.port}/ws",
    }


def test_the_state_can_be_read_and_changed(server: StreamServer, model: Model) -> None:
    """PATCH answers with the new state and the event number from which it holds; GET agrees."""
    before = get(server, "/stream").json()
    assert (before["rate"], before["paused"], before["scenario"]) == (200, False, None)
    assert (before["seed"], before["model"]) == (0, model.name)
    after = patch(server, '{"rate": 0.5, "paused": true}').json()
    assert after.pop("from_event_number") == after["next_event_number"] >= before["next_event_number"]
    assert after == {**before, "rate": 0.5, "paused": True, "next_event_number": after["next_event_number"]}
    assert get(server, "/stream").json() == after
    assert patch(server, "{}").json()["rate"] == 0.5


def test_a_rate_change_reaches_waiting_readers(model: Model) -> None:
    """A reader that waits minutes for its next event gets it at once when the rate is raised."""
    with StreamServer(model, rate=0.01, port=0) as server, connect(server.websocket_url) as reader:
        until(lambda: clients(server) == 1)
        patch(server, '{"rate": 1000}')
        for _ in range(100):  # at the old rate this would take hours
            reader.recv(timeout=60)


def test_a_pause_stops_the_events_and_resuming_goes_on(server: StreamServer) -> None:
    """Between pause and resumption nothing comes, and nothing is lost."""
    with connect(f"{server.websocket_url}?numbered=true") as reader:
        number = json.loads(reader.recv(timeout=60))["event_number"]
        paused = patch(server, '{"paused": true}').json()
        for expected in range(number + 1, paused["next_event_number"]):  # what is on its way
            assert json.loads(reader.recv(timeout=60))["event_number"] == expected
        with pytest.raises(TimeoutError):
            reader.recv(timeout=0.3)
        assert get(server, "/stream").json()["next_event_number"] == paused["next_event_number"]
        patch(server, '{"paused": false}')
        resumed = json.loads(reader.recv(timeout=60))
        assert resumed["event_number"] == paused["next_event_number"]
        gap = datetime.fromisoformat(resumed["event_time"]) - datetime.fromisoformat(paused["started"])
        assert gap.total_seconds() > 0.3


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ('{"rate": 0}', "rate must be from 0.001 to 1,000,000 events per second, not 0.0; "
         "to stop the stream for a while, pause it"),
        ('{"rate": NaN}', "rate must be a number of events per second, not nan"),
        ('{"rate": "5"}', 'rate must be a valid number, not "5"'),
        ('{"rate": true}', "rate must be a valid number, not true"),
        ('{"paused": 1}', "paused must be true or false, not 1"),
        ('{"scenario": "strike"}', "a scenario must be an object with effects, not the string 'strike': "
         "those that have names are in logistream.dataco and at GET /scenarios"),
        ('{"scenario": {"effects": [{"set": {"Type": "CASCH"}}]}}', "'Type' is never 'CASCH': "
         "it is 'CASH', 'DEBIT', 'PAYMENT', 'TRANSFER'"),
        ('{"speed": 5}', "unknown setting 'speed': there are rate, paused, scenario, faults"),
        ("{", "the body is not JSON: Expecting property name enclosed in double quotes"),
        ("[1]", 'the body must be a JSON object such as {"rate": 10}, sent as application/json'),
        ("", 'the body must be a JSON object such as {"rate": 10}, sent as application/json'),
    ],
)  # fmt: skip
def test_a_bad_change_is_refused_in_one_sentence(server: StreamServer, body: str, sentence: str) -> None:
    """What is wrong and what is allowed; nothing is changed."""
    answer = patch(server, body)
    assert answer.status_code == 422
    assert answer.json() == {"detail": sentence}
    assert server.rate == 200


@pytest.mark.parametrize(
    ("path", "known"),
    [
        ("/", "none here"),
        ("/stream", "none here"),
        ("/timeline", "none here"),
        ("/metrics", "none here"),
        ("/asyncapi.json", "none here"),
        ("/schema", "columns, numbered"),
        ("/events", "columns, numbered, start, format, envelope, where, faults, placed, stop"),
    ],
)
def test_an_unknown_query_parameter_is_refused(server: StreamServer, path: str, known: str) -> None:
    """A parameter that does nothing is not accepted in silence."""
    answer = get(server, f"{path}?colour=red")
    assert answer.status_code == 422
    assert answer.json() == {"detail": f"unknown query parameter 'colour': there are {known}"}


# Documentation


def test_the_docs_load_nothing_from_elsewhere(server: StreamServer) -> None:
    """Swagger UI and its files come from this server."""
    page = get(server, "/docs").text
    assert "SwaggerUIBundle" in page
    assert "http" not in page.replace(server.url, "")
    for file in ("swagger-ui-bundle.js", "swagger-ui.css", "favicon-32x32.png"):
        assert f"/docs/static/{file}" in page
        assert get(server, f"/docs/static/{file}").status_code == 200


def test_openapi_describes_every_call(server: StreamServer) -> None:
    """The description names the calls and the shape of a refusal."""
    described = get(server, "/openapi.json").json()
    assert {path: set(calls) for path, calls in described["paths"].items()} == {
        "/": {"get"},
        "/stream": {"get", "patch"},
        "/schema": {"get"},
        "/events": {"get"},
        "/scenarios": {"get"},
        "/timeline": {"get"},
        "/truth": {"get"},
        "/metrics": {"get"},
        "/asyncapi.json": {"get"},
        "/sse": {"get"},
        "/health": {"get"},
    }
    refusal = described["paths"]["/stream"]["patch"]["responses"]["422"]
    assert refusal["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Refusal"}


# Who may call


def refused(url: str, **options: Any) -> tuple[int, str]:
    """Return status and sentence with which a WebSocket handshake is refused."""
    with pytest.raises(InvalidStatus) as caught, connect(url, **options):
        pass
    response = caught.value.response
    return response.status_code, json.loads(response.body)["detail"]


FOREIGN = (
    "pages from origin 'https://example.org' are not allowed: add it to the allowed origins of the server"
)


def test_a_page_from_elsewhere_is_refused(server: StreamServer) -> None:
    """HTTP and WebSocket refuse another origin; one without an origin of its own too."""
    assert refused(server.websocket_url, origin="https://example.org") == (403, FOREIGN)
    assert get(server, "/", Origin="https://example.org").json() == {"detail": FOREIGN}
    assert patch(server, '{"rate": 1}', Origin="https://example.org").status_code == 403
    assert refused(server.websocket_url, origin="null")[0] == 403
    assert refused(server.websocket_url, origin="http://[nonsense")[0] == 403
    assert server.rate == 200


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "lab.localhost"])
def test_a_page_of_this_machine_is_served(server: StreamServer, host: str) -> None:
    """The server's own pages, and those of JupyterLab or another program on this machine, may read."""
    origin = Origin(f"http://{host}:8888")
    with connect(server.websocket_url, origin=origin) as reader:
        reader.recv(timeout=60)
    assert get(server, "/", Origin=origin).headers["access-control-allow-origin"] == origin


def test_an_allowed_page_is_served(model: Model) -> None:
    """Origins that were named may read and change, others still may not."""
    allowed = [Origin("https://example.org"), Origin("null")]
    with StreamServer(model, rate=200, port=0, allow_origins=allowed) as server:
        for origin in allowed:
            with connect(server.websocket_url, origin=origin) as reader:
                reader.recv(timeout=60)
        preflight = http.options(
            f"{server.url}/stream",
            headers={
                "Origin": "https://example.org",
                "Access-Control-Request-Method": "PATCH",
                "Access-Control-Request-Headers": "content-type",
            },
        )
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://example.org"
        assert refused(server.websocket_url, origin="https://example.com")[0] == 403


def test_a_name_that_was_made_to_point_here_is_refused(server: StreamServer) -> None:
    """A stranger's page that has its own name resolve to this machine (DNS rebinding) gets nothing."""
    answer = get(server, "/", Host="rebound.example", Origin="http://rebound.example")
    assert answer.status_code == 403
    assert answer.json()["detail"].startswith("host name 'rebound.example' is not known here")


def test_an_unknown_parameter_ends_the_handshake(server: StreamServer) -> None:
    """A reader that requests something unknown is refused before it is connected."""
    known = "columns, numbered, start, format, envelope, where, faults, placed, stop, speed, lag, gather"
    sentence = f"unknown query parameter 'tempo': there are {known}"
    assert refused(f"{server.websocket_url}?tempo=5") == (422, sentence)


@pytest.fixture
def guarded(model: Model) -> Iterator[StreamServer]:
    """Give a server that requires a token."""
    with StreamServer(model, rate=200, port=0, token="s3cret/+") as server:
        yield server


def test_a_token_is_required(guarded: StreamServer) -> None:
    """Without the token, or with a wrong one, nothing is served but the description of the interface."""
    base = f"127.0.0.1:{guarded.port}"
    missing = "a token is required: add ?token=... or the header Authorization: Bearer ..."
    wrong = "the token is not the one this server was started with"
    assert refused(f"ws://{base}/ws") == (401, missing)
    assert refused(f"ws://{base}/ws?token=guess") == (401, wrong)
    for path in ("/", "/stream", "/schema"):
        assert http.get(f"http://{base}{path}").json() == {"detail": missing}
    assert http.get(f"http://{base}/", headers={b"Authorization": "Bearer é".encode()}).status_code == 401
    assert http.get(f"http://{base}/docs").status_code == 200
    schemes = http.get(f"http://{base}/openapi.json").json()["components"]["securitySchemes"]
    assert schemes["HTTPBearer"]["scheme"] == "bearer"


def test_the_token_opens(guarded: StreamServer) -> None:
    """In the address or in the header, the token is enough."""
    assert http.get(guarded.url).json()["status"] == "running"
    with connect(guarded.websocket_url) as reader:
        reader.recv(timeout=60)
    header = {"Authorization": f"Bearer {guarded.token}"}
    assert http.get(f"http://127.0.0.1:{guarded.port}/stream", headers=header).status_code == 200
    with connect(f"ws://127.0.0.1:{guarded.port}/ws", additional_headers=header) as reader:
        reader.recv(timeout=60)


# Noise


def test_nothing_is_logged_when_nothing_is_wrong(
    server: StreamServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Readers that come, go and are refused leave no line in the notebook."""
    read(server, 3)
    refused(server.websocket_url, origin="https://example.org")
    refused(f"{server.websocket_url}?tempo=5")
    raw = socket.create_connection(("127.0.0.1", server.port))
    raw.sendall(b"nonsense\r\n\r\n")
    raw.close()
    until(lambda: clients(server) == 0)
    server.stop()
    assert [record.message for record in caplog.records if "Invalid HTTP" not in record.message] == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("logistream-")]

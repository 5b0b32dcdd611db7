"""Every HTTP request and every handshake gets an answer: never a failure, never a traceback."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections import Counter
from random import Random
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from helpers.processes import ServerProcess, resident
from helpers.recording import SMALL, Recorder
from helpers.waiting import until
from helpers.wire import CLOSE, Peer, frame, request

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.slow

LONGEST = 2000
"""Characters that a refusal may have."""

GROWTH = 4.0
"""MiB that the server may grow while it answers some thousand requests."""

quiet = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(scope="module")
def server() -> Iterator[ServerProcess]:
    """Give a server with a short past, so that even all events are a small answer."""
    with ServerProcess("--rate", "5", "--history", "5s") as running:
        yield running


@pytest.fixture(autouse=True)
def unharmed(server: ServerProcess) -> Iterator[None]:
    """Nothing is written to stderr, and afterwards the server still streams, without a gap."""
    yield
    assert server.news() == ""
    server.patch(rate=2000, paused=False)
    with Peer(server.port, SMALL) as peer, Recorder([peer]) as recorder:
        until(lambda: recorder.received > 5000)
        assert recorder.seen().stop > 50
    server.patch(rate=0.5)


def refusal(body: bytes) -> str:
    """Return the sentence of a refusal, after a look at its form."""
    answer = json.loads(body)
    assert set(answer) <= {"detail", "newest_event_number"}, answer
    sentence = answer["detail"]
    assert isinstance(sentence, str)
    assert 0 < len(sentence) <= LONGEST, f"{len(sentence)} characters: {sentence[:200]}"
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    return sentence


# By the description


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_call_by_its_description(server: ServerProcess, mode: GenerationMode) -> None:
    """Requests that fit the description, and those that do not, are answered as described."""
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    assert {"/", "/stream", "/events", "/schema", "/timeline"} <= {operation.path for operation in operations}
    checks = [
        not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_headers_conformance,
        response_schema_conformance,
    ]
    with requests.Session() as session:
        for operation in sorted(operations, key=lambda operation: operation.method == "patch"):
            if operation.path == "/sse":
                continue  # its answers do not end
            if mode is GenerationMode.NEGATIVE and not [*operation.iter_parameters(), *operation.body]:
                continue  # nothing is described that could be broken

            @settings(quiet, max_examples=60)
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: schemathesis.Case[Any]) -> None:
                response = case.call(session=session)
                case.validate_response(response, checks=checks)
                if response.status_code >= 400:
                    refusal(response.content)

            ask()


# Query strings

NAMES = [
    "start",
    "stop",
    "format",
    "envelope",
    "numbered",
    "columns",
    "lag",
    "gather",
    "where",
    "where",
    "where",
    "token",
]
ODD_NAMES = ["", "a", "Start", "start ", "\0", "é", "a" * 3000]
COLUMNS = ["Market", "Sales", "Order Item Quantity", "Late_delivery_risk", "event_time", "Latitude"]
NUMBERS = ["0", "-1", "1.5", "007", "1e3", "1e400", "nan", "inf", "1_0", "٣", f"{2**53}", f"{2**53 + 1}"]
NUMBERS += [f"{2**63 - 1}", f"{2**63}", f"{2**70}", "9" * 400, "9" * 5000, "0x10", "100000"]
TIMES = ["2026-11-24T06:23:00Z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:60Z", "2026-13-01T00:00:00Z"]
TIMES += ["2026-11-24T06:23:00", "2026-11-24T06:23:00.123456789+25:00", "1970-01-01T00:00:00-23:59"]
WORDS = ["earliest", "latest", "json", "ndjson", "arrow", "all", "true", "false", "wait", "skip", "none", ""]
TEXTS = [
    "\0",
    "\n",
    "\r\n",
    "%",
    "%%",
    "\x7f",
    "é",
    "\u2028",
    "\ufffe",
    "'",
    '"',
    '"a',
    ",",
    ",,",
    ":",
    "::",
    "{}",
]
TEXTS += [
    "../../etc/passwd",
    "' OR 1=1 --",
    "<script>",
    "${7*7}",
    "a" * 3000,
    "\0" * 1000,
    "é" * 1000,
    '"' * 999,
]
BROKEN = ["%", "%zz", "%c3", "%ed%a0%80", "%ff%fe", "&", ";", "?", "#", "=", "%00", "+", "&&=&"]


def value_for(name: str, draw: Random) -> str:
    """Return a value that fits a parameter, or does not."""
    odd = draw.choice([*NUMBERS, *TIMES, *WORDS, *TEXTS, *COLUMNS])
    if name in ("start", "stop") and draw.random() < 0.2:
        return str(draw.choice([0, 1, 10**6, 2**40]))
    if name == "where" and draw.random() < 0.9:
        compare = draw.choice([":", "==", "!=", "<", ">=", " in ", " between "])
        return f"{draw.choice(COLUMNS)}{compare}{draw.choice(['Europe', odd])}"
    if name == "columns" and draw.random() < 0.9:
        return ",".join(
            draw.choices([*COLUMNS, "all", "event_number", '"Market"', '"', " ", odd], k=draw.randrange(4))
        )
    return odd


def query_from(draw: Random) -> str:
    """Return a query string that is odd in one way or another, mostly."""
    parts = []
    for _ in range(draw.choice([1, 1, 1, 2, 2, 3])):
        kind = draw.random()
        if kind < 0.85:
            name = draw.choice(NAMES)
            parts.append(f"{name}{draw.choice(['='] * 9 + ['', '==', '%3D'])}{quote(value_for(name, draw))}")
        elif kind < 0.9:
            parts.append(f"{quote(draw.choice(ODD_NAMES))}={quote(value_for('start', draw))}")
        elif kind < 0.95:
            parts.append(draw.choice(BROKEN))
        else:
            parts.append("".join(chr(draw.randrange(0x21, 0x7F)) for _ in range(draw.randrange(1, 30))))
    return (
        "&".join(parts)
        if draw.random() < 0.98
        else "&".join([parts[0][:100]] * draw.choice([2, 32, 33, 200]))
    )


class Caller:
    """Sends requests written by hand over one connection, which is kept as long as the server keeps it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket: socket.socket | None = None
        self.connections = 0

    def ask(self, path: str) -> http.client.HTTPResponse:
        """Return the answer to a GET, whose body has not been read yet."""
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), 60)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections += 1
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode("ascii"))
        response = http.client.HTTPResponse(self._socket, method="GET")
        response.begin()
        return response

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def test_thousands_of_query_strings(server: ServerProcess) -> None:
    """Each is answered with what was requested, or refused in a sentence; memory does not grow."""
    caller, draw, statuses, memory = Caller(server.port), Random(6), [], []
    paths = ["/events", "/events", "/events", "/schema", "/schema", "/", "/stream", "/timeline"]
    try:
        for number in range(1, 5_001):
            path = f"{draw.choice(paths)}?{query_from(draw)}"
            with caller.ask(path) as response:
                body = response.read()
                if response.will_close:
                    caller.close()
            statuses.append(response.status)
            assert response.status in (200, 416, 422), (path, body[:300])
            if response.status >= 400:
                refusal(body)
            assert b"Traceback" not in body
            if number % 1250 == 0:
                memory.append(resident(server.pid))
    finally:
        caller.close()
    assert caller.connections < 100
    assert statuses.count(200) > 200
    assert statuses.count(416) > 5
    assert statuses.count(422) > 2500
    print(f"{dict(Counter(statuses))}, RSS in MiB after each 1,250: {memory}")
    assert memory[3] - memory[1] < GROWTH


def test_handshakes_with_any_query(server: ServerProcess) -> None:
    """A WebSocket is opened, or refused in a sentence; a reader with an odd wish is served all the same."""
    draw, statuses = Random(66), []
    for _ in range(1000):
        query = query_from(draw)
        with socket.create_connection(("127.0.0.1", server.port), 60) as raw:
            raw.sendall(request(server.port, f"?{query}"))
            response = http.client.HTTPResponse(raw, method="GET")
            response.begin()
            statuses.append(response.status)
            if response.status != 101:
                assert response.status in (416, 422, *[400, 414, 431] * (len(query) > 8000)), query
                body = response.read()
                assert b"Traceback" not in body
                if response.status in (416, 422):
                    refusal(body)
            response.close()
    assert {101, 416, 422} <= set(statuses)
    print(dict(Counter(statuses)))


@pytest.mark.parametrize("form", ["json", "ndjson", "arrow"])
@pytest.mark.parametrize(
    "condition",
    ["Order Item Quantity:" + str(2**70), "Order Item Quantity:-" + "9" * 400, "Sales:nan", "Sales:inf",
     "Sales:1e400", "Latitude:-0.0", "Late_delivery_risk:7", "Product Status:0"],
)  # fmt: skip
def test_conditions_at_the_edge(server: ServerProcess, condition: str, form: str) -> None:
    """A number that no event can have is refused, or no event has it; past and live agree."""
    query = f"?start=earliest&numbered=true&format={form}&where={quote(condition)}"
    status, body = server.ask("GET", f"/events{query}")
    if status == 200:
        with Peer(server.port, query) as peer:
            peer.send(frame(CLOSE, b"\x03\xe8"))
            assert peer.closed_with() == 1000
    else:
        assert status == 422
        refusal(body)
        with pytest.raises(ConnectionRefusedError, match=r" 422 "):
            Peer(server.port, query)


# Bodies

BODIES: dict[str, bytes] = {
    "not utf-8": b'{"rate": "\xff"}',
    "deep": b"[" * 100_000,
    "deep and closed": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "lone surrogate": b'{"scenario": "\\ud800"}',
    "lone surrogate as name": b'{"\\ud800": 1}',
    "huge number": b'{"rate": 1e999}',
    "many digits": b'{"rate": ' + b"9" * 6000 + b"}",
    "long text": b'{"rate": "' + b"a" * 100_000 + b'"}',
    "lone surrogate in a scenario": b'{"scenario": {"effects": [{"delay": 1}], "name": "\\ud800"}}',
    "a key that is a lone surrogate": b'{"scenario": {"effects": [{"\\ud800": 1}]}}',
    "not a number in a scenario": b'{"scenario": {"effects": [{"set": {"Type": NaN}}]}}',
    "a scenario within a scenario": b'{"scenario": ' + b"[" * 500 + b"]" * 500 + b"}",
    "long scenario": b'{"scenario": "' + b"a" * 100_000 + b'"}',
    "long name": b'{"' + b"a" * 100_000 + b'": 1}',
    "many names": json.dumps({f"a{number}": number for number in range(10_000)}).encode(),
    "twice": b'{"rate": 1, "rate": 2, "rate": "x"}',
    "null": b"null",
    "text": b'"rate"',
    "nothing": b"",
    "zeros": bytes(1000),
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("kind", ["application/json", "text/plain", "", "multipart/form-data; boundary=x"])
def test_bodies(server: ServerProcess, body: bytes, kind: str) -> None:
    """A change that cannot be read is refused in a sentence of bounded length."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("PATCH", "/stream", body, {"Content-Type": kind})
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    assert response.status in (400, 413, 415, 422), answer[:300]
    refusal(answer)
    state: dict[str, Any] = server.get("/stream")
    assert state["scenario"] is None


def test_a_body_without_end(server: ServerProcess) -> None:
    """It is refused long before it fills the memory."""
    before = resident(server.pid)
    with socket.create_connection(("127.0.0.1", server.port), 60) as raw:
        raw.sendall(
            b"PATCH /stream HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it hangs up
            for _ in range(400):
                raw.sendall(b"20000\r\n" + b"[" * 0x20000 + b"\r\n")
        assert resident(server.pid) - before < 10

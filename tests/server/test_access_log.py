"""What is logged of requests and connections, and what never is."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import socket
import urllib.error
import urllib.request
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.exceptions import InvalidStatus
from websockets.frames import CloseCode

from helpers.processes import give_readers_time
from helpers.waiting import until
from helpers.websocket import connect
from logistream.server.access_log import _without_secrets, with_access_log
from logistream.server.logs import log_access_to_stderr
from logistream.server.server import StreamServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import ASGIApp

    from logistream.model.model import Model

LOGGER = logging.getLogger("logistream.access")
SECRET = "s3cret/+ token"


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    def records(self) -> list[dict[str, Any]]:
        """Return what the lines hold."""
        return [json.loads(line) for line in self.lines]


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Leave the logger as it was found."""
    level, propagate, handlers = LOGGER.level, LOGGER.propagate, list(LOGGER.handlers)
    yield
    LOGGER.setLevel(level)
    LOGGER.propagate = propagate
    LOGGER.handlers[:] = handlers


@pytest.fixture
def log() -> Lines:
    """Switch the log on and return where it goes."""
    lines = Lines()
    LOGGER.addHandler(lines)
    LOGGER.setLevel(logging.INFO)
    return lines


def get(url: str, **headers: str) -> tuple[int, bytes]:
    """Return status and body."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_a_request_has_one_record(server: StreamServer, log: Lines) -> None:
    """Who requested what and when, how it was answered, how long it took and how much was sent."""
    _, body = get(f"{server.url}/schema?columns=Market,Sales&numbered=true")
    until(lambda: len(log.lines) == 1)
    (record,) = log.records()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", record.pop("time"))
    assert re.fullmatch(r"127\.0\.0\.1:\d+", record.pop("client"))
    assert 0 < record.pop("seconds") < 60
    assert record == {
        "method": "GET",
        "path": "/schema",
        "query": "columns=Market,Sales&numbered=true",
        "status": 200,
        "bytes": len(body),
    }


def test_refusals_are_logged_too(server: StreamServer, log: Lines) -> None:
    """A missing page, a value that is not allowed and a refused origin: each leaves a record."""
    get(f"{server.url}/nowhere")
    get(f"{server.url}/stream?rate=3")
    get(f"{server.url}/stream", Origin="https://example.org")
    until(lambda: len(log.lines) == 3)
    assert [record["status"] for record in log.records()] == [404, 422, 403]


def test_a_connection_has_a_record_when_it_begins_and_one_when_it_ends(
    server: StreamServer, log: Lines
) -> None:
    """With the close code, whoever closed."""
    with connect(f"{server.websocket_url}?numbered=true") as reader:
        reader.recv(timeout=60)
        until(lambda: len(log.lines) == 1)
    until(lambda: len(log.lines) == 2)
    begun, ended = log.records()
    assert begun["status"] == 101
    assert "code" not in begun
    assert ended["code"] == 1000
    assert "status" not in ended
    assert 0 <= begun["seconds"] <= ended["seconds"]
    for record in (begun, ended):
        assert record["method"] == "WEBSOCKET"
        assert (record["path"], record["query"]) == ("/ws", "numbered=true")
    assert begun["client"] == ended["client"]


def test_a_server_that_stops_says_so(model: Model, log: Lines, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code for going away stands in the log, as in what the reader gets."""
    give_readers_time(monkeypatch)
    with (
        StreamServer(model, rate=200, port=0) as server,
        connect(server.websocket_url) as reader,
    ):
        reader.recv(timeout=60)
        server.stop()
        for _ in reader:
            pass
        assert reader.close_code == CloseCode.GOING_AWAY
        until(lambda: len(log.lines) == 2)
    assert [record.get("code") for record in log.records()] == [None, CloseCode.GOING_AWAY]


def test_a_reader_that_vanishes_is_logged(server: StreamServer, log: Lines) -> None:
    """A connection that breaks has one of the codes that stand for no code (RFC 6455, section 7.4.1)."""
    with closing(socket.create_connection(("127.0.0.1", server.port))) as peer:
        peer.sendall(
            b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        assert peer.recv(4096).startswith(b"HTTP/1.1 101")
    until(lambda: len(log.lines) == 2)
    assert log.records()[1]["code"] in (1005, 1006)


@pytest.mark.parametrize("where", ["query", "header", "both, wrong", "not a query"])
def test_the_token_is_never_logged(model: Model, log: Lines, where: str) -> None:
    """Not of those who have the right one, nor of those who nearly have."""
    with StreamServer(model, rate=200, port=0, token=SECRET) as server:
        base, ws = f"http://127.0.0.1:{server.port}", f"ws://127.0.0.1:{server.port}/ws"
        if where == "query":
            assert get(f"{base}/stream?token={quote(SECRET, safe='')}")[0] == 200
            with connect(f"{ws}?start=latest&%74oken={quote_plus(SECRET)}"):
                pass
            until(lambda: len(log.lines) == 3)
            queries = [record["query"] for record in log.records()]
            assert queries == ["token=***", "start=latest&***", "start=latest&***"]
        elif where == "header":
            assert get(f"{base}/stream", Authorization=f"Bearer {SECRET}")[0] == 200
            with connect(ws, additional_headers={"Authorization": f"Bearer {SECRET}"}):
                pass
            until(lambda: len(log.lines) == 3)
        elif where == "both, wrong":
            wrong = f"{SECRET}x"
            assert get(f"{base}/?token={quote(wrong)}", Authorization=f"Bearer {wrong}")[0] == 401
            with pytest.raises(InvalidStatus, match="401"), connect(f"{ws}?token={quote(wrong)}"):
                pass
            until(lambda: len(log.lines) == 2)
            assert [record["status"] for record in log.records()] == [401, 401]
        else:
            assert get(f"{base}/?start=0?token={quote(SECRET)}")[0] == 401
            until(lambda: len(log.lines) == 1)
    for line in log.lines:
        for written in (SECRET, quote(SECRET), quote(SECRET, safe=""), quote_plus(SECRET), "s3cret"):
            assert written not in line


plain = st.text("abcdefghij0123456789%+-_.~:, /", max_size=12)


@given(
    st.lists(st.tuples(plain.filter(lambda name: "token" not in name), plain), max_size=4),
    st.sampled_from(["token", "Token", "%74oken", "to%6Ben", "access_token"]),
    st.text(min_size=1, max_size=20),
    st.integers(0, 4),
)
def test_only_the_token_is_left_out(
    others: list[tuple[str, str]], name: str, secret: str, place: int
) -> None:
    """Wherever it stands and however it is written; the rest stands as it was sent."""
    parts = [f"{quote(key)}={quote(value)}" for key, value in others]
    query = "&".join([*parts[:place], f"{name}={quote(secret, safe='')}", *parts[place:]])
    logged = _without_secrets(query.encode()).split("&")
    assert [part for part in logged if part not in ("***", "token=***", "Token=***")] == parts
    assert len(logged) == len(parts) + 1


@pytest.mark.parametrize(
    "forged",
    [
        '\n{"status": 200}',
        "\r\n\r\nHTTP/1.1 200 OK",
        "\x1b[2J\x1b]0;owned\x07",
        "\u2028\u2029\x85\x0b\x0c",
        '", "status": 200, "x": "',
        "\udcff".encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
)
def test_a_path_cannot_forge_a_record(server: StreamServer, log: Lines, forged: str) -> None:
    """Line breaks, quotes and terminal commands stay within the one string in which they belong."""
    get(f"{server.url}/{quote(forged)}")
    until(lambda: len(log.lines) == 1)
    (line,) = log.lines
    assert line.isascii()
    assert line.isprintable()
    assert len(line.splitlines()) == 1
    record = json.loads(line)
    assert record["path"] == f"/{forged}"
    assert record["status"] == 404
    assert list(record).count("status") == 1


def test_silent_unless_asked(server: StreamServer, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is logged, even in a program that shows its own INFO."""
    root, lines = logging.getLogger(), Lines()
    level = root.level
    root.addHandler(lines)
    root.setLevel(logging.INFO)
    try:
        get(f"{server.url}/stream")
        with connect(server.websocket_url) as reader:
            reader.recv(timeout=60)
        until(lambda: server.connected_clients == 0)
    finally:
        root.setLevel(level)
        root.removeHandler(lines)
    assert lines.lines == []
    assert capsys.readouterr().err == ""


def run(app: ASGIApp, *given: Any) -> None:
    """Have an ASGI application answer."""

    async def answer() -> None:
        await app(*given)

    asyncio.run(answer())


def test_it_costs_nothing_when_it_is_off(log: Lines) -> None:
    """The application gets the very functions that the server gave; and others if it is on."""
    got: list[tuple[object, ...]] = []

    async def app(*given: object) -> None:
        got.append(given)

    async def receive() -> dict[str, Any]:
        return {}

    async def send(message: object) -> None:
        pass

    scope = {"type": "http", "method": "GET", "path": "/", "query_string": b"", "client": None}
    middleware = with_access_log(app)
    LOGGER.setLevel(logging.WARNING)
    run(middleware, scope, receive, send)
    run(middleware, {"type": "lifespan"}, receive, send)
    assert got == [(scope, receive, send), ({"type": "lifespan"}, receive, send)]
    assert log.lines == []
    LOGGER.setLevel(logging.INFO)
    run(middleware, scope, receive, send)
    assert got[2][1:] != (receive, send)
    assert len(log.lines) == 1


@pytest.mark.parametrize(
    ("scope", "sent", "logged"),
    [
        ({"type": "http", "method": "GET"}, [], {"status": 500, "bytes": 0}),
        ({"type": "websocket"}, [], {"status": 500}),
        ({"type": "websocket"}, [{"type": "websocket.close", "code": 1008}], {"status": 403}),
    ],
)
def test_an_application_that_fails_is_logged(
    log: Lines, scope: dict[str, Any], sent: list[dict[str, Any]], logged: dict[str, int]
) -> None:
    """With the status that the server will answer; the error goes its way."""

    async def app(_: object, __: object, send: Any) -> None:
        for message in sent:
            await send(message)
        raise ZeroDivisionError

    async def send(message: object) -> None:
        pass

    whole = {"path": "/", "query_string": b"", "client": ("::1", 5), **scope}
    with pytest.raises(ZeroDivisionError):
        run(with_access_log(app), whole, None, send)
    (record,) = log.records()
    assert record["client"] == "[::1]:5"
    assert logged.items() <= record.items()


def test_to_stderr(server: StreamServer, capsys: pytest.CaptureFixture[str]) -> None:
    """One line a record, once however often it is switched on, and not on the root's handlers besides."""
    log_access_to_stderr()
    log_access_to_stderr()
    get(f"{server.url}/stream")
    written: list[str] = []

    def there() -> bool:
        written.append(capsys.readouterr().err)
        return "".join(written).endswith("\n")

    until(there)
    (line,) = "".join(written).splitlines()
    assert json.loads(line)["path"] == "/stream"
    assert not LOGGER.propagate

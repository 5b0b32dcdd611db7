"""Connections that cost something: too many of them, unfinished ones, and those whose peer does not read."""

from __future__ import annotations

import json
import resource
import socket
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest
from websockets.frames import CloseCode

import logistream.server.access as access_module
import logistream.server.protocol as protocol_module
from helpers import http
from helpers.processes import ServerProcess, resident
from helpers.recording import SMALL, Recorder, numbers_in
from helpers.waiting import at_best, until
from helpers.wire import CLOSE, CONT, PING, PONG, TEXT, Peer, frame
from logistream.server.connections import pending_bytes
from logistream.server.limits import Limits
from logistream.server.protocol import FrameProtocol
from logistream.server.server import StreamServer

if TYPE_CHECKING:
    from logistream.model.model import Model

TINY = 4096
"""Bytes of a receive buffer that make a server feel at once that a peer does not read."""

WAIT = 60.0
"""Seconds that a busy machine may take."""


def ask(port: int, path: str, *, receive_buffer: int | None = None, method: str = "GET") -> socket.socket:
    """Send a request and return the socket."""
    raw = socket.socket()
    raw.settimeout(WAIT)
    if receive_buffer is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    raw.connect(("127.0.0.1", port))
    raw.sendall(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return raw


def read_all(raw: socket.socket) -> bytes:
    """Return what comes until the server closes the connection."""
    found = b""
    try:
        while piece := raw.recv(1 << 16):
            found += piece
    except ConnectionResetError:
        pass
    return found


@pytest.mark.slow
def test_ranges_that_are_not_read_are_few_and_end(
    model: Model, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Beyond the limit a range is refused with 503; who takes nothing is dropped for the next one."""
    with (
        StreamServer(model, rate=5000, port=0, history="10s", limits=Limits(ranges=2)) as server,
        ExitStack() as stack,
    ):
        assert server._server is not None
        connections = server._server.server_state.connections
        for seconds in (1, 4, 16):  # a busy machine may take longer for the three requests
            until(lambda: not connections)  # of those before, one may still be there
            monkeypatch.setattr(protocol_module, "TAKE_WITHIN", seconds)
            unread = [
                stack.enter_context(ask(server.port, "/events?start=0&stop=40000", receive_buffer=TINY))
                for _ in range(2)
            ]
            for raw in unread:
                assert raw.recv(12) == b"HTTP/1.1 200"
            refused = http.get(f"{server.url}/events?start=0&stop=2")
            if refused.status_code != 200:
                break
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["detail"] == "the server is sending 2 ranges already, try again later"

        def served() -> bool:
            with ask(server.port, "/events?start=0&stop=2") as raw:
                return raw.recv(12) == b"HTTP/1.1 200"

        until(served)
        until(lambda: not connections)
    assert capsys.readouterr().err == ""


@pytest.mark.slow
def test_a_range_that_is_read_slowly_arrives(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress counts: a caller that takes longer than the deadline for all of it gets every event."""
    path = "/events?start=0&stop=4000&format=ndjson&numbered=true"
    with StreamServer(model, rate=5000, port=0, history="10s") as server:
        for limit in (0.5, 2, 8):  # a busy machine may not run this test at all for a while
            monkeypatch.setattr(protocol_module, "TAKE_WITHIN", limit)
            began, found = time.monotonic(), b""
            with (
                ask(server.port, path, receive_buffer=TINY) as raw,
                suppress(ConnectionResetError),  # it was not run for longer than the limit
            ):
                while not found.endswith(b"0\r\n\r\n") and (piece := raw.recv(1 << 15)):
                    found += piece
                    due = began + len(found) / 1e6 * limit
                    until(lambda: time.monotonic() > due)  # noqa: B023 - called at once
            taken = time.monotonic() - began
            if found.endswith(b"0\r\n\r\n"):
                break
    assert taken > 2 * limit
    lines = b"".join(found.partition(b"\r\n\r\n")[2].split(b"\r\n")[1::2])
    assert numbers_in(lines) == list(range(4000))


@pytest.mark.slow
def test_memory_comes_back_from_ranges_that_are_not_read() -> None:
    """Three hundred callers that do not read cost a few pieces, not their ranges; these are given back."""
    with ServerProcess("--rate", "5000", "--history", "30min") as server, ExitStack() as stack:
        assert server.ask("GET", "/events?start=0&stop=20000")[0] == 200
        before = resident(server.pid)
        unread = [
            stack.enter_context(
                ask(server.port, f"/events?start={20_000 * place}&stop={20_000 * place + 500_000}")
            )
            for place in range(300)
        ]
        for raw in unread:
            raw.recv(12)
        grown = resident(server.pid) - before
        assert grown < 150
        with Peer(server.port, SMALL) as peer:
            assert peer.until(TEXT).payload
        stack.close()
        until(lambda: server.ask("GET", "/events?start=0&stop=2")[0] == 200)
        # Not all of it: what the parts that are kept take differs, as they do.
        until(lambda: resident(server.pid) - before < 50)
        assert server.news() == ""


def test_a_body_that_does_not_come_is_given_up(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request without its body is answered 408, and its connection is closed."""
    monkeypatch.setattr(access_module, "BODY_WITHIN", 0.3)
    head = (
        b"PATCH /stream HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b'Content-Length: 100\r\n\r\n{"rate"'
    )
    with (
        StreamServer(model, port=0) as server,
        socket.create_connection(("127.0.0.1", server.port), WAIT) as raw,
    ):
        raw.sendall(head)
        answer = read_all(raw)
    assert answer.startswith(b"HTTP/1.1 408")
    assert b"the body of the request did not come within 0.3 s" in answer


def test_connections_beyond_the_limit_are_refused(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    """HTTP and WebSocket count together; who is in stays, and the log has one sentence."""
    with StreamServer(model, rate=100, port=0, limits=Limits(connections=3)) as server, ExitStack() as stack:
        reader = stack.enter_context(Peer(server.port, SMALL))
        idle = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), WAIT)) for _ in range(2)
        ]
        assert server._server is not None
        connections = server._server.server_state.connections
        until(lambda: len(connections) == 3)
        for _ in range(20):
            with socket.create_connection(("127.0.0.1", server.port), WAIT) as raw:
                assert read_all(raw).startswith(b"HTTP/1.1 503")
        reader.send(frame(PING, b"?"))
        assert reader.until(PONG).payload == b"?"
        idle[0].close()
        until(lambda: len(connections) == 2)
        with ask(server.port, "/") as raw:
            assert raw.recv(12) == b"HTTP/1.1 200"
    assert [record.getMessage() for record in caplog.records] == [
        "connections are refused (1 since the last report): the server has 3, which is its limit"
    ]


@pytest.mark.slow
def test_few_descriptors() -> None:
    """A server that may open few files says so, refuses who is too many, and its readers notice nothing."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2000:
        pytest.skip("needs 2,000 descriptors for itself")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2000), hard))
    with ServerProcess("--rate", "100", files=256) as server, ExitStack() as stack:
        most = _number(server.log)
        assert server.news() == (
            f"at most {most} connections can be served, not 2000, because the system allows this process few "
            f"open files: raise that limit (ulimit -n)\n"
        )
        assert 50 < most < 256
        recorder = stack.enter_context(Recorder([stack.enter_context(Peer(server.port, SMALL))]))
        many = [stack.enter_context(socket.create_connection(("127.0.0.1", server.port))) for _ in range(500)]
        answers = []
        for raw in many[most:]:
            raw.settimeout(WAIT)
            answers.append(read_all(raw)[:12])
        assert set(answers) <= {b"HTTP/1.1 503", b""}  # a connection may be reset before that is read
        assert answers.count(b"HTTP/1.1 503") > 100
        for raw in many:
            raw.close()
        until(lambda: _status(server) == "running")
        log = server.news()
        assert log.count("connections are refused") == log.count("\n") == 1
        seen = recorder.seen()
        assert seen.stop > seen.first


def _number(log: str) -> int:
    """Return the first number in a log."""
    return int(next(word for word in log.split() if word.isdigit()))


def _status(server: ServerProcess) -> str | None:
    """Return what `GET /` answers, None if it is refused."""
    try:
        status, body = server.ask("GET", "/")
    except OSError:
        return None
    return str(json.loads(body)["status"]) if status == 200 else None


@pytest.mark.slow
@pytest.mark.parametrize("form", ["json", "ndjson", "arrow"])
def test_little_is_on_its_way_to_a_slow_reader(model: Model, form: str) -> None:
    """A reader of the past that reads little gets the answer to its ping within 96 KiB."""
    with (
        StreamServer(model, rate=5000, port=0, history="1min") as server,
        Peer(server.port, f"?start=0&format={form}", receive_buffer=TINY) as peer,
    ):
        began = time.monotonic()
        until(lambda: time.monotonic() - began > 0.5)  # the buffers fill
        peer.send(frame(PING, b"?"))
        size = 0
        while (made := peer.receive()) is not None and made.opcode != PONG:
            size += len(made.payload)
        assert size < 96 * 1024


@pytest.mark.slow
@pytest.mark.parametrize("form", ["json", "ndjson", "arrow"])
def test_the_system_of_a_slow_reader_is_not_filled(model: Model, form: str) -> None:
    """With buffers of the usual size a reader of the past gets its pong within 96 KiB too.

    Its system would take more than half a megabyte, and who reads fast gets all.
    """
    # A test that a busy machine does not run for half a second seems to answer no pings.
    at_best(lambda: _before_the_pong(model, form), below=96 * 1024)


def _before_the_pong(model: Model, form: str) -> int:
    """Return how many bytes come before the answer to a ping of a reader that has paused."""
    with (
        StreamServer(model, rate=5000, port=0, history="1min") as server,
        Peer(server.port, f"?start=0&format={form}") as peer,
    ):
        _read(peer, 50_000)
        began = time.monotonic()
        until(lambda: time.monotonic() - began > 1)  # as much comes as may
        peer.send(frame(PING, b"?"))
        size = 0
        while (made := peer.receive()) is not None and made.opcode != PONG:
            size += len(made.payload)
        _read(peer, 3_000_000)
    return size


@pytest.mark.parametrize(
    ("sent", "code"),
    [(frame(CLOSE, b"\x03\xe8"), CloseCode.NORMAL_CLOSURE), (frame(CONT, b"?"), CloseCode.PROTOCOL_ERROR)],
    ids=["close", "error"],
)
def test_a_slow_reader_gets_the_close_frame(model: Model, sent: bytes, code: int) -> None:
    """A reader that still has to read much, and to answer pings on the way, reads all to the close frame."""
    with (
        StreamServer(model, rate=5000, port=0, history="1min") as server,
        Peer(server.port, "?start=0", receive_buffer=TINY) as peer,
    ):
        _read(peer, 1)
        peer.send(sent)
        until(lambda: server.connected_clients == 0)
        assert peer.closed_with() == code


def test_a_reader_may_break_as_the_server_stops(
    model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A connection that is reset between its close frame and its end is no error."""
    with (
        StreamServer(model, rate=5000, port=0, history="1min") as server,
        Peer(server.port, "?start=0") as peer,
    ):
        _read(peer, 1)
        write = FrameProtocol._write_the_end

        def write_and_break(connection: FrameProtocol) -> None:
            write(connection)
            peer.reset()

        monkeypatch.setattr(FrameProtocol, "_write_the_end", write_and_break)
        assert server._server is not None
        [connection] = server._server.server_state.connections
        assert isinstance(connection, FrameProtocol)
        until(lambda: not connection.takes_frames and not pending_bytes(connection.transport))
        server.stop()
    assert caplog.records == []


def _read(peer: Peer, least: int) -> int:
    """Read at least so many bytes; return how many."""
    size = 0
    while size < least:
        made = peer.receive()
        assert made is not None
        size += len(made.payload)
    return size


@pytest.mark.slow
def test_a_slow_reader_lives_as_long_as_it_reads(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who answers no pings but takes what is sent is not dropped; who takes nothing is."""
    import logistream.server.server as server_module

    monkeypatch.setattr(server_module, "_PING_EVERY", 0.2)
    for within in (1.0, 3.0, 9.0):  # a busy machine may not run this test at all for a while
        monkeypatch.setattr(server_module, "_PONG_WITHIN", within)
        with (
            StreamServer(model, rate=5000, port=0, history="5min") as server,
            Peer(server.port, "?start=0", receive_buffer=TINY) as peer,
        ):
            began = time.monotonic()
            made = peer.receive()
            while made is not None and (now := time.monotonic()) < began + 2 * within:
                until(lambda: time.monotonic() > now + 0.005)
                made = peer.receive_or_break()
            lived = made is not None and server.connected_clients == 1
            until(lambda: server.connected_clients == 0)
            while (made := peer.receive_or_break()) is not None:
                assert made.opcode != CLOSE
        if lived:
            break
    assert lived

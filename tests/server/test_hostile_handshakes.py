"""Handshakes that are none, and connections that break anywhere: no other reader notices."""

from __future__ import annotations

import contextlib
import socket
import struct
import time
from typing import TYPE_CHECKING

import pytest

import logistream.server.protocol as connection_module
from helpers.hostile import (
    CLOSE_1000,
    stays_open,
    unharmed,  # noqa: F401 - a fixture: pytest finds it by its being here
    watched,  # noqa: F401 - a fixture
)
from helpers.processes import ServerProcess
from helpers.recording import SMALL
from helpers.waiting import at_best, until
from helpers.wire import CLOSE, PING, TEXT, Peer, frame, request
from logistream.server.server import StreamServer

if TYPE_CHECKING:
    from logistream.model.model import Model


def answer_to(server: ServerProcess, data: bytes, *, half_closed: bool = False) -> bytes:
    """Return everything that the server answers until it closes the connection."""
    answer = b""
    with socket.create_connection(("127.0.0.1", server.port), 60) as raw:
        raw.sendall(data)
        if half_closed:
            with contextlib.suppress(OSError):  # it may have reset the connection already
                raw.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):  # it has not read everything
            while data := raw.recv(65_536):
                answer += data
    return answer


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Sec-WebSocket-Version": "12"}, b"4"),
        ({"Sec-WebSocket-Version": "x"}, b"4"),
        ({"Sec-WebSocket-Key": "short"}, b"400"),
        ({"Sec-WebSocket-Key": ""}, b"400"),
        ({"Sec-WebSocket-Extensions": "=;=,,"}, b"101"),
        ({"X-Long": "*" * 9000}, b"431"),
        ({f"X-{number}": "*" for number in range(300)}, b"431"),
        ({"X-Long": "*" * 70_000}, b"4"),
        ({"Host": "stranger.example"}, b"403"),
        ({"Origin": "https://stranger.example"}, b"403"),
        ({"X-Octets": "\xff\xfe\x80"}, b"101"),
        ({"X-Control": "a\x01b"}, b"4"),
        ({"Content-Length": "5"}, b"4"),
        ({"Transfer-Encoding": "chunked"}, b"4"),
    ],
)
def test_handshake_with_bad_headers(server: ServerProcess, headers: dict[str, str], status: bytes) -> None:
    """It is answered at once, with a refusal of the client's making."""
    data = request(server.port, SMALL, headers)
    if status == b"101":
        with socket.create_connection(("127.0.0.1", server.port), 60) as raw:
            raw.sendall(data)
            assert raw.recv(12) == b"HTTP/1.1 101"
        return
    answer = answer_to(server, data)
    assert answer.startswith(b"HTTP/1.1 " + status), answer[:300]
    assert b"Traceback" not in answer


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /ws HTTP/9.9\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nno colon\r\n\r\n",
        b"GET /ws HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),  # as TLS begins
        bytes(range(256)) * 300,
        b"GET /" + b"a" * 100_000,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x81\x80\0\0\0\0",
    ],
    ids=lambda data: ascii(data[:14])[2:-1],
)
def test_what_is_not_http(server: ServerProcess, data: bytes) -> None:
    """It is refused, or dropped without a word."""
    answer = answer_to(server, data, half_closed=True)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer[:300]
    assert b"Traceback" not in answer


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS", "NONSENSE"])
def test_handshake_with_another_method(server: ServerProcess, method: str) -> None:
    """Only GET opens a WebSocket."""
    data = request(server.port, SMALL).replace(b"GET", method.encode(), 1)
    assert answer_to(server, data, half_closed=True)[:10] in (b"", b"HTTP/1.1 4")


def test_handshakes_that_never_end(server: ServerProcess) -> None:
    """A hundred connections that send their request byte by byte delay no other."""
    data = request(server.port, SMALL)
    with contextlib.ExitStack() as stack:
        slow = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 60)) for _ in range(100)
        ]
        for byte in data[:60]:
            for raw in slow:
                raw.sendall(bytes((byte,)))

        def taken() -> float:
            began = time.monotonic()
            stays_open(server)
            return time.monotonic() - began

        at_best(taken, below=1)
        # And whoever ends it is let in; those above may have been given up meanwhile.
        last = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 60))
        for byte in data:
            last.sendall(bytes((byte,)))
        assert last.recv(12) == b"HTTP/1.1 101"


@pytest.mark.parametrize("begun", [b"", b"G", b"GET /ws HTTP/1.1\r\nHost: localhost\r\n"])
def test_handshake_that_is_given_up(model: Model, monkeypatch: pytest.MonkeyPatch, begun: bytes) -> None:
    """A connection on which no request is ended in time is closed, and one that reads is not."""
    with StreamServer(model, rate=100, port=0) as impatient, Peer(impatient.port, SMALL) as reader:
        monkeypatch.setattr(connection_module, "REQUEST_WITHIN", 0.2)
        with (
            socket.create_connection(("127.0.0.1", impatient.port), 60) as raw,
            contextlib.suppress(ConnectionResetError, BrokenPipeError),
        ):
            raw.sendall(begun)
            assert raw.recv(100) == b""
        for _ in range(20):
            assert reader.until(TEXT).payload


@pytest.mark.parametrize(
    "early",
    [
        frame(PING, b"too early"),
        frame(TEXT, b"too early"),
        frame(CLOSE, CLOSE_1000),
        bytes(100),
        b"\xff" * 100,
    ],
    ids=["ping", "text", "close", "zeros", "ones"],
)
@pytest.mark.parametrize("delay", [None, 0.0, 0.001])
def test_frames_before_the_answer(server: ServerProcess, early: bytes, delay: float | None) -> None:
    """A client must wait for the answer to its handshake; if it does not, it only harms itself."""
    with socket.create_connection(("127.0.0.1", server.port), 60) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if delay is None:
            raw.sendall(request(server.port, SMALL) + early)
        else:
            raw.sendall(request(server.port, SMALL))
            time.sleep(delay)  # where it falls does not matter
            raw.sendall(early)
        assert raw.recv(65_536)[:12] in (b"", b"HTTP/1.1 101", b"HTTP/1.1 400")


# Broken connections


@pytest.mark.parametrize("query", [SMALL, "?start=earliest"])
@pytest.mark.parametrize("cut", [1, 3, 7, 100])
def test_reset_amid_a_frame(server: ServerProcess, query: str, cut: int) -> None:
    """A connection may break anywhere."""
    with Peer(server.port, query) as peer:
        peer.send(frame(TEXT, b"*" * 200)[:cut])
        peer.reset()


@pytest.mark.parametrize("cut", [0, 1, 20, 100])
def test_reset_amid_the_handshake(server: ServerProcess, cut: int) -> None:
    """A client may leave before it has sent a request."""
    raw = socket.create_connection(("127.0.0.1", server.port), 60)
    raw.sendall(request(server.port, SMALL)[:cut])
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.close()


def test_reset_right_after_the_handshake(server: ServerProcess) -> None:
    """A client may leave before it is answered; a hundred of them too."""
    for number in range(100):
        raw = socket.create_connection(("127.0.0.1", server.port), 60)
        raw.sendall(request(server.port, SMALL))
        if number % 2:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raw.close()


@pytest.mark.parametrize("linger", [True, False])
def test_reset_amid_a_range(server: ServerProcess, linger: bool) -> None:
    """A long answer may be left unread, too."""
    with socket.create_connection(("127.0.0.1", server.port), 60) as raw:
        raw.sendall(b"GET /events?start=0&stop=300000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert raw.recv(12) == b"HTTP/1.1 200"
        if not linger:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@pytest.mark.parametrize(
    "sent", [b"", frame(TEXT, b"half")[:5], frame(PING, b"whole")], ids=["nothing", "half", "whole"]
)
def test_half_closed_connection(server: ServerProcess, sent: bytes) -> None:
    """A peer that ends its side has left: a WebSocket is closed on both sides."""
    with Peer(server.port, SMALL) as peer:
        peer.send(sent)
        peer.socket.shutdown(socket.SHUT_WR)
        while peer.receive() is not None:
            pass


@pytest.mark.parametrize(
    "data", [frame(CLOSE, CLOSE_1000), frame(TEXT, b"\xff"), frame(3)], ids=["close", "text", "opcode"]
)
def test_peer_that_ends_without_reading(server: ServerProcess, data: bytes) -> None:
    """A peer that never reads the answer to its close frame, or to its mistake, is counted no more."""
    with Peer(server.port, "?start=earliest", receive_buffer=4096) as peer:
        peer.send(data)
        until(lambda: server.get("/")["connected_clients"] == 1)

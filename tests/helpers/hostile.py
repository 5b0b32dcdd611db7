"""A server among hostile peers, beside a reader that reads all the time."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from helpers.processes import ServerProcess
from helpers.recording import SMALL, Recorder
from helpers.waiting import until
from helpers.wire import CLOSE, PING, PONG, TEXT, Peer, frame

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "CLOSE_1000",
    "WORD",
    "complaints",
    "outcome",
    "stays_open",
    "unharmed",
    "watched",
]

CLOSE_1000 = struct.pack("!H", 1000)
"""What a close frame holds for a normal end."""

WORD = b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5"
"""A Greek word in UTF-8, of characters that have two or three bytes."""

_RATE = 1000
_LINE = 60  # bytes of an event, at least


@pytest.fixture(scope="module", name="server")  # another name, which arguments of tests do not hide
def watched() -> Iterator[ServerProcess]:
    """Give a server with five minutes of past; one reader gets every event of it, in time, to the end."""
    with (
        ServerProcess("--rate", str(_RATE), "--history", "5min") as running,
        Peer(running.port, SMALL) as peer,
        Recorder([peer]) as recorder,
    ):
        first = running.get("/stream")["next_event_number"]
        yield running
        # A worker process may have run only one short test of a module.
        until(lambda: running.get("/stream")["next_event_number"] > first + _RATE)
        until(lambda: recorder.received > _RATE * _LINE)
        seen = recorder.seen()
        assert seen.stop - seen.first > _RATE / 2
        assert seen.silence < 10.0
    assert "Traceback" not in running.log


@pytest.fixture(autouse=True)
def unharmed(server: ServerProcess) -> Iterator[None]:
    """See after each case that the server answers, has one reader, and has complained of nothing."""
    yield
    until(lambda: server.get("/")["connected_clients"] == 1)
    assert complaints(server) == ""


def complaints(server: ServerProcess) -> str:
    """Return what the server has written to stderr since the last call.

    What is no HTTP may be noted, in one sentence.
    """
    return server.news().replace("Invalid HTTP request received.\n", "")


def outcome(server: ServerProcess, *data: bytes) -> int | None:
    """Connect, send, and return the code with which the server closes the connection, in silence."""
    with Peer(server.port, SMALL) as peer:
        peer.send(*data)
        code = peer.closed_with()
    assert complaints(server) == ""
    return code


def stays_open(server: ServerProcess, *data: bytes) -> None:
    """Connect, send, and check that the connection stays open: pings are answered, events come."""
    with Peer(server.port, SMALL) as peer:
        peer.send(*data, frame(PING, b"still there?"))
        assert peer.until(PONG).payload == b"still there?"
        assert peer.until(TEXT).payload
        peer.send(frame(CLOSE, CLOSE_1000))
        assert peer.closed_with() == 1000

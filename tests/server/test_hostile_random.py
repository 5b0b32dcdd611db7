"""Random bytes and frames: the server answers as RFC 6455 requires, and no other reader notices."""

from __future__ import annotations

import contextlib
import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.frames import CloseCode

from helpers.hostile import (
    CLOSE_1000,
    WORD,
    outcome,
    unharmed,  # noqa: F401 - a fixture: pytest finds it by its being here
    watched,  # noqa: F401 - a fixture
)
from helpers.processes import ServerProcess
from helpers.recording import SMALL
from helpers.wire import BINARY, CLOSE, CONT, PING, PONG, TEXT, Peer, frame


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.binary(min_size=1, max_size=400))
def test_random_bytes(server: ServerProcess, data: bytes) -> None:
    """Whatever comes after the handshake, the answer is correct frames, and then the end."""
    with Peer(server.port, SMALL) as peer:
        peer.send(data)
        with contextlib.suppress(OSError):  # it may have closed the connection already
            peer.socket.shutdown(socket.SHUT_WR)
        codes: list[int | None] = []
        with contextlib.suppress(ConnectionResetError):
            while (made := peer.receive()) is not None:
                assert not codes, "a frame after the close frame"
                if made.opcode == CLOSE:
                    codes.append(made.code)
        assert set(codes) <= {
            CloseCode.PROTOCOL_ERROR,
            CloseCode.INVALID_DATA,
            CloseCode.MESSAGE_TOO_BIG,
            *range(1000, 5000),
            None,
        }


frames: st.SearchStrategy[dict[str, object]] = st.builds(
    dict,
    opcode=st.sampled_from([TEXT, BINARY, CONT, CONT, PING, PONG]) | st.integers(0, 15),
    fin=st.booleans() | st.just(True),
    reserved=st.just(0) | st.just(0) | st.integers(0, 7),
    masked=st.just(True) | st.just(True) | st.booleans(),
    payload=st.sampled_from([b"", b"a", WORD, WORD[:1], WORD[1:], CLOSE_1000, b"\x07\xd0"])
    | st.binary(max_size=130),
)


def is_text(data: bytes) -> bool:
    """Tell whether bytes are UTF-8."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def judged(sent: list[dict[str, object]]) -> set[int | None] | None:
    """Return the codes with which a server may close after such frames; None if the connection stays open.

    Strings may be judged later than the frames that come with them.
    """
    opcode, message = None, b""  # of the message that is being continued
    for place, fields in enumerate(sent):
        kind, fin, payload = fields["opcode"], fields["fin"], fields["payload"]
        assert isinstance(payload, bytes)
        if fields["reserved"] or not fields["masked"] or kind not in (CONT, TEXT, BINARY, CLOSE, PING, PONG):
            return {CloseCode.PROTOCOL_ERROR}
        if kind in (CLOSE, PING, PONG):
            if not fin or len(payload) > 125:
                return {CloseCode.PROTOCOL_ERROR}
            if kind != CLOSE:
                continue
            code = int.from_bytes(payload[:2], "big")
            known = {*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)}
            if payload and (len(payload) == 1 or code not in known):
                return (
                    {CloseCode.PROTOCOL_ERROR}
                    if is_text(payload[2:])
                    else {CloseCode.PROTOCOL_ERROR, CloseCode.INVALID_DATA}
                )
            if not is_text(payload[2:]):
                return {CloseCode.INVALID_DATA}
            echo = code if payload else None
            return {echo} if opcode is None else {echo, CloseCode.PROTOCOL_ERROR}
        if (kind == CONT) == (opcode is None):
            return {CloseCode.PROTOCOL_ERROR}
        opcode, message = (kind, payload) if kind != CONT else (opcode, message + payload)
        if fin:
            if opcode == TEXT and not is_text(message):
                return {CloseCode.INVALID_DATA} | (judged(sent[place + 1 :]) or set())
            opcode = None
    return None


@pytest.mark.slow
@settings(max_examples=300, deadline=None, derandomize=True)
@given(sent=st.lists(frames, min_size=1, max_size=8))
def test_random_frames(server: ServerProcess, sent: list[dict[str, object]]) -> None:
    """Any sequence of frames ends as RFC 6455 requires."""
    codes = judged(sent)
    data = [frame(**fields) for fields in sent]  # type: ignore[arg-type] # drawn with its types
    if codes is None:
        stays_open_amid = any(not fields["fin"] for fields in sent)
        with Peer(server.port, SMALL) as peer:
            peer.send(*data, frame(PING, b"still there?"))
            while peer.until(PONG).payload != b"still there?":
                pass
            peer.send(frame(CLOSE, CLOSE_1000))
            assert peer.closed_with() in ((1000, CloseCode.PROTOCOL_ERROR) if stays_open_amid else (1000,))
    else:
        assert outcome(server, *data) in codes

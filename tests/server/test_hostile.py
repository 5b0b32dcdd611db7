"""Peers that break the WebSocket protocol: each gets what RFC 6455 requires, and no other reader notices.

The cases are those of the Autobahn test suite's fuzzing client, which runs under Python 2 only and so is no
part of these tests: framing, pings, reserved bits, opcodes, fragmentation, UTF-8, closing, limits. Beside
the peers another reads all the time, without a gap; the server is a process of its own, writes nothing to
stderr, and counts its readers right after each case.
"""

from __future__ import annotations

import itertools
import os
import socket
import struct

import pytest
from websockets.frames import CloseCode

from helpers.hostile import (
    CLOSE_1000,
    WORD,
    outcome,
    stays_open,
    unharmed,  # noqa: F401 - a fixture: pytest finds it by its being here
    watched,  # noqa: F401 - a fixture
)
from helpers.processes import ServerProcess
from helpers.recording import SMALL
from helpers.wire import BINARY, CLOSE, CONT, PING, PONG, TEXT, Peer, frame, request

LIMIT = 65_536
"""Bytes that a message may have."""


# 1: messages of all sizes


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, LIMIT])
def test_message_of_any_size_up_to_the_limit(server: ServerProcess, opcode: int, size: int) -> None:
    """What a reader sends is read and ignored."""
    stays_open(server, frame(opcode, b"*" * size))


def test_frames_in_pieces(server: ServerProcess) -> None:
    """Where a frame is cut on its way does not matter."""
    data = frame(TEXT, b"*" * 300) + frame(PING, b"in pieces")
    with Peer(server.port, SMALL) as peer:
        peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in data:
            peer.socket.sendall(bytes((byte,)))
        assert peer.until(PONG).payload == b"in pieces"


def test_many_messages_at_once(server: ServerProcess) -> None:
    """A thousand messages in one piece are all taken."""
    stays_open(server, *(frame(TEXT, b"%d" % number) for number in range(1000)))


# 2: pings and pongs


@pytest.mark.parametrize("query", [SMALL, "?start=earliest&numbered=true", "?start=earliest&format=arrow"])
def test_pongs_amid_the_stream(server: ServerProcess, query: str) -> None:
    """A ping of any size gets its payload back, in order, and cuts no event in two, at full speed as well."""
    payloads = [os.urandom(size) for size in range(126)]
    with Peer(server.port, query) as peer:
        pongs = []
        for payload in payloads:
            peer.send(frame(PING, payload))
            while (made := peer.receive()) is not None and made.opcode != PONG:
                assert made.opcode in (TEXT, BINARY)
            assert made is not None
            pongs.append(made.payload)
        assert pongs == payloads


def test_many_pings_at_once(server: ServerProcess) -> None:
    """Each is answered, in order."""
    with Peer(server.port, SMALL) as peer:
        peer.send(*(frame(PING, b"%d" % number) for number in range(500)))
        assert [peer.until(PONG).payload for _ in range(500)] == [b"%d" % number for number in range(500)]


@pytest.mark.parametrize("payload", [b"", b"never requested"])
def test_pong_without_a_ping(server: ServerProcess, payload: bytes) -> None:
    """It is ignored."""
    stays_open(server, frame(PONG, payload))


# 3 and 4: reserved bits and opcodes, masks


@pytest.mark.parametrize("reserved", range(1, 8))
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, PONG, CLOSE])
def test_reserved_bits(server: ServerProcess, opcode: int, reserved: int) -> None:
    """No extension was negotiated that would give them a meaning."""
    assert outcome(server, frame(opcode, b"", reserved=reserved)) == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize("opcode", [*range(3, 8), *range(11, 16)])
def test_reserved_opcodes(server: ServerProcess, opcode: int) -> None:
    """They have no meaning."""
    assert outcome(server, frame(opcode, b"what is this?")) == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, CLOSE])
def test_frame_without_a_mask(server: ServerProcess, opcode: int) -> None:
    """A client must mask what it sends."""
    assert outcome(server, frame(opcode, CLOSE_1000, masked=False)) == CloseCode.PROTOCOL_ERROR


def test_compression_is_not_negotiated(server: ServerProcess) -> None:
    """It can be offered, and is declined."""
    with socket.create_connection(("127.0.0.1", server.port), 60) as raw:
        raw.sendall(request(server.port, headers={"Sec-WebSocket-Extensions": "permessage-deflate"}))
        head = raw.recv(65_536).lower()
        assert head.startswith(b"http/1.1 101 ")
        assert b"extensions" not in head


# 5: fragments


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
@pytest.mark.parametrize("fin", [True, False])
def test_control_frames_are_short_and_whole(server: ServerProcess, opcode: int, fin: bool) -> None:
    """Neither a fragment nor more than 125 bytes; a close frame needs room for no more either."""
    data = frame(opcode, CLOSE_1000 + b"*" * 124 if fin else CLOSE_1000, fin=fin)
    assert outcome(server, data) == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize("size", [1, 2, 5, 400])
def test_message_in_fragments_with_pings_between(server: ServerProcess, size: int) -> None:
    """Control frames may come between the fragments of a message; the text may be cut amid a character."""
    text = WORD * 36
    pieces = [text[at : at + size] for at in range(0, len(text), size)]
    frames = [
        frame(TEXT if place == 0 else CONT, piece, fin=place == len(pieces) - 1)
        for place, piece in enumerate(pieces)
    ]
    with Peer(server.port, SMALL) as peer:
        peer.send(*itertools.chain.from_iterable((piece, frame(PING, b"between")) for piece in frames))
        for _ in frames:
            assert peer.until(PONG).payload == b"between"
        peer.send(frame(CLOSE, CLOSE_1000))
        assert peer.closed_with() == 1000


def test_empty_fragments(server: ServerProcess) -> None:
    """A message of nothing, in many frames."""
    stays_open(
        server, frame(TEXT, fin=False), *[frame(CONT, fin=False)] * 100, frame(CONT), frame(TEXT, b"x")
    )


@pytest.mark.parametrize(
    "data",
    [
        frame(CONT, b"of what?"),
        frame(CONT, b"of what?", fin=False),
        frame(TEXT, b"one") + frame(CONT, b"two"),
        frame(TEXT, b"one", fin=False) + frame(TEXT, b"two"),
        frame(TEXT, b"one", fin=False) + frame(BINARY, b"two", fin=False),
        frame(TEXT, b"one", fin=False) + frame(CONT, b"two") + frame(CONT, b"three"),
        frame(BINARY, b"one", fin=False) + frame(PING) + frame(TEXT, b"two"),
    ],
    ids=[
        "cont",
        "cont-open",
        "cont-after-whole",
        "text-in-text",
        "binary-in-text",
        "cont-after-last",
        "ping",
    ],
)
def test_fragments_in_disorder(server: ServerProcess, data: bytes) -> None:
    """A continuation needs a beginning, and a new message the end of the last one."""
    assert outcome(server, data) == CloseCode.PROTOCOL_ERROR


# 6: UTF-8

INVALID_TEXTS = {
    "cut": WORD[:-1],
    "overlong": b"\xc0\xaf",
    "overlong-3": b"\xe0\x80\xaf",
    "surrogate": b"\xed\xa0\x80",
    "above": b"\xf4\x90\x80\x80",
    "ff": b"\xff",
    "lone": b"\x80",
    "amid": WORD + b"\xed\xa0\x80" + b"edited",
}


@pytest.mark.parametrize("text", INVALID_TEXTS.values(), ids=INVALID_TEXTS)
@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_text_that_is_not_utf_8(server: ServerProcess, text: bytes, pieces: int) -> None:
    """Text must be UTF-8, however it is cut."""
    size = -(-len(text) // pieces)
    parts = [text[at : at + size] for at in range(0, len(text), size)]
    frames = [
        frame(TEXT if place == 0 else CONT, part, fin=place == len(parts) - 1)
        for place, part in enumerate(parts)
    ]
    assert outcome(server, *frames) == CloseCode.INVALID_DATA


@pytest.mark.parametrize(
    "text", ["\0", "\x7f", "\u07ff", "\uffff", "\U0010ffff", "\ufeff", WORD.decode() * 99]
)
def test_text_that_is_utf_8(server: ServerProcess, text: str) -> None:
    """Any character is allowed."""
    stays_open(server, frame(TEXT, text.encode()))


def test_binary_need_not_be_text(server: ServerProcess) -> None:
    """Any bytes are allowed in a binary message."""
    stays_open(server, frame(BINARY, bytes(range(256))))


# 7: closing


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999]
)
@pytest.mark.parametrize("reason", [b"", b"enough", b"*" * 123, WORD])
def test_polite_close(server: ServerProcess, code: int, reason: bytes) -> None:
    """It is answered with the same code."""
    assert outcome(server, frame(CLOSE, struct.pack("!H", code) + reason)) == code


def test_close_without_a_code(server: ServerProcess) -> None:
    """It is answered without one."""
    assert outcome(server, frame(CLOSE)) is None


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535])
def test_close_code_that_must_not_be_sent(server: ServerProcess, code: int) -> None:
    """Some codes are not for the wire, others have no meaning."""
    assert outcome(server, frame(CLOSE, struct.pack("!H", code))) == CloseCode.PROTOCOL_ERROR


def test_close_with_half_a_code(server: ServerProcess) -> None:
    """A code has two bytes."""
    assert outcome(server, frame(CLOSE, b"\x03")) == CloseCode.PROTOCOL_ERROR


@pytest.mark.parametrize("reason", INVALID_TEXTS.values(), ids=INVALID_TEXTS)
def test_close_reason_that_is_not_utf_8(server: ServerProcess, reason: bytes) -> None:
    """A reason is text."""
    assert outcome(server, frame(CLOSE, CLOSE_1000 + reason)) == CloseCode.INVALID_DATA


def test_close_right_after_a_text_that_is_not_utf_8(server: ServerProcess) -> None:
    """Either of them ends the connection."""
    data = frame(TEXT, b"\xff") + frame(CLOSE, CLOSE_1000)
    assert outcome(server, data) in (1000, CloseCode.INVALID_DATA)


@pytest.mark.parametrize(
    "after",
    [frame(TEXT, b"x"), frame(PING, b"x"), frame(CLOSE, CLOSE_1000), b"\xff" * 50, bytes(3000)],
    ids=["text", "ping", "close", "ones", "zeros"],  # frames are masked at random
)
def test_nothing_counts_after_the_close(server: ServerProcess, after: bytes) -> None:
    """Neither data nor pings nor nonsense."""
    assert outcome(server, frame(CLOSE, CLOSE_1000), after) == 1000


def test_close_amid_a_fragmented_message(server: ServerProcess) -> None:
    """A message that is never finished hinders no close; it may count as an error."""
    code = outcome(server, frame(TEXT, b"to be continued", fin=False), frame(CLOSE, CLOSE_1000))
    assert code in (1000, CloseCode.PROTOCOL_ERROR)


# 9: limits


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_message_above_the_limit(server: ServerProcess, opcode: int) -> None:
    """One byte too many is too many."""
    assert outcome(server, frame(opcode, b"*" * (LIMIT + 1))) == CloseCode.MESSAGE_TOO_BIG


def test_fragments_above_the_limit(server: ServerProcess) -> None:
    """The parts count together."""
    pieces = [frame(CONT, b"*" * 4096, fin=False) for _ in range(LIMIT // 4096)]
    assert outcome(server, frame(TEXT, b"*", fin=False), *pieces) == CloseCode.MESSAGE_TOO_BIG


@pytest.mark.parametrize("announced", [LIMIT + 1, 2**31, 2**32, 2**62, 2**63 - 1])
def test_length_that_is_only_announced(server: ServerProcess, announced: int) -> None:
    """It is refused before anything of it has come."""
    assert outcome(server, frame(BINARY, b"...", announced=announced)) == CloseCode.MESSAGE_TOO_BIG


@pytest.mark.parametrize("announced", [2**63, 2**64 - 1])
def test_length_that_cannot_be(server: ServerProcess, announced: int) -> None:
    """The highest bit of a length must be 0."""
    code = outcome(server, frame(BINARY, b"...", announced=announced))
    assert code in (CloseCode.PROTOCOL_ERROR, CloseCode.MESSAGE_TOO_BIG)

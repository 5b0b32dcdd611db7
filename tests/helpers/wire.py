"""WebSocket spoken by hand (RFC 6455): a client that may send anything and takes only correct frames."""

from __future__ import annotations

import base64
import contextlib
import os
import re
import socket
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from websockets.frames import Frame as LibraryFrame
from websockets.streams import StreamReader

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = [
    "BINARY",
    "CLOSE",
    "CONT",
    "PING",
    "PONG",
    "TEXT",
    "Frame",
    "Frames",
    "Peer",
    "frame",
    "read_by_websockets",
    "request",
]

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
"""Opcodes."""

_LARGEST_CONTROL = 125
_PIECE = 1 << 16


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole frame."""

    opcode: int
    payload: bytes

    @property
    def code(self) -> int | None:
        """The code of a close frame; None if it holds none."""
        assert self.opcode == CLOSE
        return int.from_bytes(self.payload[:2], "big") if self.payload else None


class Frames:
    """Bytes of a server → frames; an AssertionError for anything that a server must not send.

    Ours sends every message in one frame, so that a frame is a message.
    """

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._at = 0

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Give the frames that are complete with these bytes."""
        self._bytes += data
        while (made := self._next()) is not None:
            yield made
        del self._bytes[: self._at]
        self._at = 0

    @property
    def rest(self) -> bytes:
        """What is not a whole frame yet."""
        return bytes(self._bytes[self._at :])

    def _next(self) -> Frame | None:
        data, at = self._bytes, self._at
        if len(data) < at + 2:
            return None
        first, short = data[at], data[at + 1]
        opcode, wide = first & 0x0F, {126: 2, 127: 8}.get(short, 0)
        assert first & 0x80, "a message in several frames"
        assert not first & 0x70, f"reserved bits are set: {first:#x}"
        assert opcode in (TEXT, BINARY, CLOSE, PING, PONG), f"unknown opcode {opcode:#x}"
        assert not short & 0x80, "a server must not mask"
        if len(data) < at + 2 + wide:
            return None
        size = int.from_bytes(data[at + 2 : at + 2 + wide], "big") if wide else short
        assert size >= {0: 0, 2: 126, 8: 65_536}[wide], f"{size} bytes announced in {wide} bytes"
        assert opcode < CLOSE or size <= _LARGEST_CONTROL, f"a control frame of {size} bytes"
        start = at + 2 + wide
        if len(data) < start + size:
            return None
        payload = bytes(data[start : start + size])
        if opcode == TEXT:
            payload.decode()
        elif opcode == CLOSE:
            assert size != 1, "a close frame with half a code"
            payload[2:].decode()
        self._at = start + size
        return Frame(opcode, payload)


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    reserved: int = 0,
    masked: bool = True,
    announced: int | None = None,
) -> bytes:
    """Return a frame from a client, with whatever is wrong with it.

    Parameters
    ----------
    reserved : int
        The three reserved bits, 0 to 7.
    announced : int, optional
        The length to announce, instead of the true one.
    """
    size = len(payload) if announced is None else announced
    mask_bit = 0x80 * masked
    if size < 126:
        length = bytes((mask_bit | size,))
    elif size < 65_536:
        length = bytes((mask_bit | 126,)) + struct.pack("!H", size)
    else:
        length = bytes((mask_bit | 127,)) + struct.pack("!Q", size)
    head = bytes((0x80 * fin | reserved << 4 | opcode,)) + length
    if not masked:
        return head + payload
    mask = os.urandom(4)
    key = (mask * (len(payload) // 4 + 1))[: len(payload)]
    whole = int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")
    return head + mask + whole.to_bytes(len(payload), "big")


def read_by_websockets(data: bytes) -> list[tuple[int, bytes]]:
    """Return opcode and payload of each frame, as the websockets library reads them."""
    reader = StreamReader()
    reader.feed_data(data)
    reader.feed_eof()
    frames = []
    while reader.buffer:
        parsing = LibraryFrame.parse(reader.read_exact, mask=False)
        try:
            next(parsing)
        except StopIteration as done:
            frames.append((int(done.value.opcode), bytes(done.value.data)))
    return frames


def request(port: int, query: str = "", headers: Mapping[str, str] | None = None) -> bytes:
    """Return the bytes of a WebSocket handshake; `headers` replace the usual ones or are added."""
    fields = {
        "Host": f"127.0.0.1:{port}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Version": "13",
        **(headers or {}),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"GET /ws{query} HTTP/1.1\r\n{lines}\r\n".encode("latin-1")


class Peer:
    """A WebSocket client after its handshake; a context manager that closes the socket.

    Parameters
    ----------
    port : int
        On this machine.
    query : str
        The query, with its question mark.
    receive_buffer : int, optional
        Bytes that the kernel may hold for it.

    Attributes
    ----------
    headers : dict of str to str
        Of the server's answer, names in lower case.
    ended : bool
        Whether the server has closed the connection.
    """

    def __init__(self, port: int, query: str = "", *, receive_buffer: int | None = None) -> None:
        self.socket = socket.socket()
        self.socket.settimeout(60)
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.socket)
            self.socket.connect(("127.0.0.1", port))
            self.socket.sendall(request(port, query))
            head, _, self.early = self._head().partition(b"\r\n\r\n")
            status, *lines = head.decode("latin-1").split("\r\n")
            if not re.match(r"HTTP/1\.1 101 ", status):
                raise ConnectionRefusedError(f"{status}: {self.early.decode(errors='replace')}")
            stack.pop_all()
        self.headers = {
            name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
        }
        self.ended = False
        self._frames = Frames()
        self._waiting: list[Frame] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def _head(self) -> bytes:
        answer = b""
        while b"\r\n\r\n" not in answer and (data := self.socket.recv(_PIECE)):
            answer += data
        return answer

    def send(self, *frames: bytes) -> None:
        """Send bytes in one piece."""
        self.socket.sendall(b"".join(frames))

    def receive(self) -> Frame | None:
        """Return the next frame, None when the server has closed the connection after a whole frame.

        Pings are answered and not returned: one comes every 20 s, amid whatever a test reads.
        """
        while True:
            while not self._waiting:
                data, self.early = self.early or self.socket.recv(_PIECE), b""
                if not data:
                    self.ended = True
                    assert not self._frames.rest, f"half a frame at the end: {self._frames.rest!r}"
                    return None
                self._waiting = list(self._frames.feed(data))
            made = self._waiting.pop(0)
            if made.opcode != PING:
                return made
            with contextlib.suppress(OSError):  # the connection may be closed behind it
                self.send(frame(PONG, made.payload))

    def receive_or_break(self) -> Frame | None:
        """Return the next frame, None when the connection has ended, wherever it broke."""
        try:
            return self.receive()
        except ConnectionResetError:
            self.ended = True
        except AssertionError:
            if not self.ended:
                raise
        return None

    def until(self, opcode: int) -> Frame:
        """Return the next frame of this kind; others are dropped."""
        while (made := self.receive()) is not None:
            if made.opcode == opcode:
                return made
        raise AssertionError(f"the connection has ended before a frame of opcode {opcode:#x}")

    def closed_with(self) -> int | None:
        """Read until the server has closed the connection; return the code of its close frame.

        After a close frame nothing else may come. A server that has not read all that was sent to it may
        reset the connection afterwards.
        """
        code = self.until(CLOSE).code
        with contextlib.suppress(ConnectionResetError):
            assert self.receive() is None, "a frame after the close frame"
        return code

    def reset(self) -> None:
        """Break the connection with a RST instead of closing it."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def drain(self, seconds: float) -> int:
        """Read for some time and return how many bytes came."""
        deadline, count = time.monotonic() + seconds, 0
        while time.monotonic() < deadline:
            count += len(self.socket.recv(_PIECE))
        return count

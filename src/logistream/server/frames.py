"""WebSocket frames from server to client (RFC 6455, section 5.2): 2 to 10 bytes before a payload.

They are not masked, so the frames of an event are the same bytes for every reader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from logistream.stream.encoding import Strings

__all__ = ["BINARY", "LARGEST_HEADER", "ROOM", "TEXT", "frame", "frame_in_place", "frame_strings"]


TEXT, BINARY = 0x81, 0x82
"""First byte of a message in one frame."""

ROOM = "____"
"""Stands before each string in the place of its header, which has four bytes for 126 to 65,535."""

LARGEST_HEADER = 16
"""Bytes of room that `frame_in_place` needs: more than any header, and a multiple of Arrow's alignment."""

_SHORT, _LONG = 126, 65_536


def frame(opcode: int, payload: bytes | memoryview) -> bytes:
    """Return a message as one frame; `opcode` is `TEXT` or `BINARY`."""
    return b"".join((_header(opcode, len(payload)), payload))


def frame_in_place(opcode: int, message: memoryview, room: int) -> memoryview:
    """Return a message as one frame without copying it.

    Parameters
    ----------
    opcode : int
        `TEXT` or `BINARY`.
    message : writable memoryview
        `room` bytes that are overwritten, then the payload.
    room : int
        At least 10.
    """
    header = _header(opcode, len(message) - room)
    start = room - len(header)
    message[start:room] = header
    return message[start:]


def _header(opcode: int, size: int) -> bytes:
    if size < _SHORT:
        return bytes((opcode, size))
    if size < _LONG:
        return bytes((opcode, 126, *size.to_bytes(2, "big")))
    return bytes((opcode, 127, *size.to_bytes(8, "big")))


def frame_strings(strings: Strings) -> tuple[memoryview, NDArray[np.int64]]:
    """Turn strings into text frames that stand one after the other.

    Parameters
    ----------
    strings : Strings of n rows
        Each begins with `ROOM`. They are turned into frames where they stand, if that can be written to.

    Returns
    -------
    memoryview
        All frames.
    ndarray of int64, shape (n + 1,)
        Where each begins, and the end.
    """
    data, ends = strings
    sizes = np.diff(ends) - len(ROOM)
    if len(sizes) and (sizes.min() < _SHORT or sizes.max() >= _LONG):
        whole = data.tobytes()
        frames = [
            frame(TEXT, whole[start + len(ROOM) : end])
            for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
        ]
        return memoryview(b"".join(frames)), np.cumsum([0, *map(len, frames)])
    framed = data if data.flags.writeable else data.copy()  # a copy takes a fifth of encoding
    heads = ends[:-1]
    framed[heads] = TEXT
    framed[heads + 1] = 126
    framed[heads + 2] = sizes >> 8
    framed[heads + 3] = sizes & 255
    return framed.data, ends

"""WebSocket frames from server to client (RFC 6455, section 5.2): 2 to 10 octets before a payload.

They are not masked, so the frames of an event are the same octets for every reader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from logistream.encoding import Texts

__all__ = ["BINARY", "ROOM", "TEXT", "frame", "frame_texts"]

TEXT, BINARY = 0x81, 0x82
"""First octet of a message in one frame."""

ROOM = "____"
"""What stands before each text in the place of its header, which has four octets for 126 to 65,535."""

_SHORT, _LONG = 126, 65_536


def frame(opcode: int, payload: bytes | memoryview) -> bytes:
    """Return a message as one frame; `opcode` is `TEXT` or `BINARY`."""
    size = len(payload)
    if size < _SHORT:
        header = bytes((opcode, size))
    elif size < _LONG:
        header = bytes((opcode, 126, *size.to_bytes(2, "big")))
    else:
        header = bytes((opcode, 127, *size.to_bytes(8, "big")))
    return b"".join((header, payload))


def frame_texts(texts: Texts) -> tuple[memoryview, NDArray[np.int64]]:
    """Turn texts into text frames that stand one after the other.

    Parameters
    ----------
    texts : Texts of n rows
        Each begins with `ROOM`.

    Returns
    -------
    memoryview
        All frames.
    ndarray of int64, shape (n + 1,)
        Where each begins, and the end.
    """
    data, ends = texts
    sizes = np.diff(ends) - len(ROOM)
    if len(sizes) and (sizes.min() < _SHORT or sizes.max() >= _LONG):
        whole = data.tobytes()
        frames = [
            frame(TEXT, whole[start + len(ROOM) : end])
            for start, end in zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)
        ]
        return memoryview(b"".join(frames)), np.cumsum([0, *map(len, frames)])
    framed = data.copy()
    heads = ends[:-1]
    framed[heads] = TEXT
    framed[heads + 1] = 126
    framed[heads + 2] = sizes >> 8
    framed[heads + 3] = sizes & 255
    return framed.data, ends

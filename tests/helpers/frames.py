"""WebSocket frames as another implementation reads them."""

from __future__ import annotations

from websockets.frames import Frame
from websockets.streams import StreamReader


def read(octets: bytes) -> list[tuple[int, bytes]]:
    """Return opcode and payload of each frame, read by the websockets library."""
    reader = StreamReader()
    reader.feed_data(octets)
    reader.feed_eof()
    frames = []
    while reader.buffer:
        parsing = Frame.parse(reader.read_exact, mask=False)
        try:
            next(parsing)
        except StopIteration as done:
            frames.append((int(done.value.opcode), bytes(done.value.data)))
    return frames

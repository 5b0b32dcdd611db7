"""Frames are those of RFC 6455, as another implementation reads them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from helpers.wire import read_by_websockets
from logistream.server.frames import BINARY, LARGEST_HEADER, ROOM, TEXT, frame, frame_in_place, frame_strings
from logistream.stream.encoding import Strings


@given(st.binary(max_size=300) | st.integers(65_530, 65_540).map(bytes))
def test_a_message_is_one_frame(payload: bytes) -> None:
    """With the right header for every length."""
    assert read_by_websockets(frame(TEXT, payload)) == [(1, payload)]
    assert read_by_websockets(frame(BINARY, payload)) == [(2, payload)]
    message = memoryview(bytearray(LARGEST_HEADER) + payload)
    assert read_by_websockets(bytes(frame_in_place(BINARY, message, LARGEST_HEADER))) == [(2, payload)]


@given(st.lists(st.binary(min_size=100, max_size=300), max_size=5), st.booleans())
def test_texts_become_frames_that_stand_one_after_the_other(strings: list[bytes], long: bool) -> None:
    """Whether all headers are of the usual length, or some are shorter or longer."""
    strings = [*strings, bytes(70_000)] if long else strings
    joined = b"".join(ROOM.encode() + text for text in strings)
    sizes = [len(text) + len(ROOM) for text in strings]
    ends = np.cumsum([0, *sizes]).astype(np.int64)
    framed, places = frame_strings(Strings(np.frombuffer(joined, np.uint8), ends))
    assert read_by_websockets(bytes(framed)) == [(1, text) for text in strings]
    for start, end, text in zip(places[:-1], places[1:], strings, strict=True):
        assert read_by_websockets(bytes(framed[start:end])) == [(1, text)]

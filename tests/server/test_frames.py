"""Frames are those of RFC 6455, as another implementation reads them."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from helpers.frames import read
from logistream.server.frames import BINARY, LARGEST_HEADER, ROOM, TEXT, frame, frame_in_place, frame_texts
from logistream.stream.encoding import Texts


@given(st.binary(max_size=300) | st.integers(65_530, 65_540).map(bytes))
def test_a_message_is_one_frame(payload: bytes) -> None:
    """With the right header for every length."""
    assert read(frame(TEXT, payload)) == [(1, payload)]
    assert read(frame(BINARY, payload)) == [(2, payload)]
    message = memoryview(bytearray(LARGEST_HEADER) + payload)
    assert read(bytes(frame_in_place(BINARY, message, LARGEST_HEADER))) == [(2, payload)]


@given(st.lists(st.binary(min_size=100, max_size=300), max_size=5), st.booleans())
def test_texts_become_frames_that_stand_one_after_the_other(texts: list[bytes], long: bool) -> None:
    """Whether all headers are of the usual length, or some are shorter or longer."""
    texts = [*texts, bytes(70_000)] if long else texts
    joined = b"".join(ROOM.encode() + text for text in texts)
    sizes = [len(text) + len(ROOM) for text in texts]
    ends = np.cumsum([0, *sizes]).astype(np.int64)
    framed, places = frame_texts(Texts(np.frombuffer(joined, np.uint8), ends))
    assert read(bytes(framed)) == [(1, text) for text in texts]
    for start, end, text in zip(places[:-1], places[1:], texts, strict=True):
        assert read(bytes(framed[start:end])) == [(1, text)]

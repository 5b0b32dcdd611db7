"""A finished range of events as one body, made piece by piece while it is sent."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pyarrow as pa

from logistream.errors import NotYetError, RequestError
from logistream.reading import Selection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from logistream.feed import Feed, Part
    from logistream.reading import Reading
    from logistream.stream import Stream

__all__ = ["MEDIA_TYPES", "body", "finished_range", "selection_for"]

MEDIA_TYPES = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "arrow": "application/vnd.apache.arrow.stream",
}
"""Content type of each format."""

_STEP = 4096  # events made at once


def finished_range(stream: Stream, reading: Reading, most: int) -> tuple[int, int]:
    """Return first event number and stop of what is asked for.

    Raises
    ------
    RequestError
        The range runs backwards, is before the stream, or longer than `most`.
    NotYetError
        It has not happened yet.
    """
    start = stream.resolve(reading.start)
    newest = stream.next_number()
    stop = newest if reading.stop is None else reading.stop
    if stop > newest:
        raise NotYetError(f"event {stop - 1}", newest - 1)
    if start > stop:
        if reading.stop is None:
            raise NotYetError(f"event {start}", newest - 1)
        raise RequestError(f"start must not be after stop: {start} is after {stop}")
    if stop - start > most:
        raise RequestError(
            f"a range holds at most {most:,} events, not {stop - start:,}: ask for it in parts"
        )
    return start, stop


def selection_for(selection: Selection) -> Selection:
    """Return what has to be encoded for a body: an array of JSON texts is made of lines."""
    form = "ndjson" if selection.format == "json" else selection.format
    return Selection(form, selection.columns, selection.where)


def body(feed: Feed, form: str, start: int, stop: int) -> Iterator[bytes]:
    """Give the pieces of a body.

    Parameters
    ----------
    feed : Feed
        Of the selection that `selection_for` returned.
    form : str
        What was asked for: json, ndjson or arrow.
    start, stop : int
        Event numbers, all of which have happened.
    """
    parts = (feed.make(low, min(stop, low + _STEP)) for low in range(start, stop, _STEP))
    if form == "arrow":
        yield from _arrow(feed, parts)
    elif form == "ndjson":
        for part in parts:
            yield bytes(part.data)
    else:
        yield from _array(parts)


def _array(parts: Iterator[Part]) -> Iterator[bytes]:
    yield b"["
    before = b""
    for part in parts:
        if len(part.data):
            # a JSON text of ours has no line break
            yield before + bytes(part.data[:-1]).replace(b"\n", b",\n")
            before = b",\n"
    yield b"]"


def _arrow(feed: Feed, parts: Iterator[Part]) -> Iterator[bytes]:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, feed.schema.arrow) as writer:
        for part in parts:
            writer.write_batch(part.data)
            yield sink.getvalue()
            sink.seek(0)
            sink.truncate()
    yield sink.getvalue()

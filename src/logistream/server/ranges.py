"""Finished ranges of events as the body of an HTTP answer, made in pieces while it is sent.

The thread that makes events for the readers of the WebSocket makes these too, after what live readers need.
A piece is made when the one before it has been sent, so that a caller who does not read costs one piece.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import math
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pyarrow as pa
from fastapi.responses import StreamingResponse

import logistream
from logistream.errors import NotYetError, RequestError, StreamError
from logistream.model.sampling import BLOCK
from logistream.server.access import is_head
from logistream.server.feed import WRITE_BYTES, in_schema
from logistream.server.places import first_place
from logistream.server.pump import Allowance
from logistream.stream.query import EVENT_NUMBER_HEADER, STREAM_HEADER, Place

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from fastapi import Request
    from starlette.types import Receive, Scope, Send

    from logistream.server.feed import Feed, Part
    from logistream.server.pump import Pump
    from logistream.server.schemas import RangeQuery, TruthQuery
    from logistream.stream.query import Selection
    from logistream.stream.stream import Stream

__all__ = [
    "CLOUD_EVENTS",
    "MEDIA_TYPES",
    "RangeResponse",
    "Ranges",
    "finished_range",
    "is_known",
    "pieces",
    "range_headers",
    "selection_for",
]


MEDIA_TYPES = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "arrow": "application/vnd.apache.arrow.stream",
    "csv": "text/csv; charset=utf-8; header=present",
}
"""Content type of each format."""

CLOUD_EVENTS = "application/cloudevents-batch+json"
"""Content type of a JSON array of CloudEvents."""

_HELD = 1.0
"""Seconds for which a part is held while a caller takes a piece of it; then the rest is made again."""

_LEVEL = 5
"""Of compression: 12.4 MB of JSON become 1.4 MB in 0.1 s; the next level takes half as long again."""

_SLOW = 1024
"""Events that are made at once for a caller who takes longer than that; also the most in an Arrow batch."""


def finished_range(
    stream: Stream, query: RangeQuery | TruthQuery, most: int, *, faults: bool = False
) -> tuple[Place, int]:
    """Return where the requested range begins, and the slot or event number before which it ends.

    Parameters
    ----------
    most : int
        How long it may be.
    faults : bool
        Whether it is a range of the deliveries with the faults of the wire.

    Raises
    ------
    RequestError
        The range runs backwards, is before the stream, or longer than `most`.
    NotYetError
        It has not happened yet.
    """
    start, stop = first_place(stream, query.start, faults=faults), stream.resolve_stop(query.stop)
    if start > Place(stop):
        if query.stop in (None, "latest"):
            raise NotYetError(f"event {start.slot}", stop - 1)
        raise RequestError(f"start must not be after stop: {start.short} is after {stop}")
    if stop - start.slot > most:
        raise RequestError(
            f"a range holds at most {most:,} events, not {stop - start.slot:,}: ask for it in parts"
        )
    return start, stop


def selection_for(selection: Selection) -> Selection:
    """Return what has to be encoded for a body: a JSON array is made of lines."""
    form = "ndjson" if selection.format == "json" else selection.format
    return replace(selection, format=form)


@dataclass(slots=True)
class _Parts:
    """Gives the events of a range part by part, no more of each than fits into a piece.

    Attributes
    ----------
    pump : Pump
        Has the parts made.
    feed : Feed
        Of the selection.
    place : Place
        Of what is given next.
    stop : int
        The slot before which it ends.
    """

    pump: Pump
    feed: Feed
    place: Place
    stop: int
    _part: Part | None = None
    _allowance: Allowance = field(default_factory=Allowance)
    _most: int = BLOCK

    @property
    def over(self) -> bool:
        """Whether everything has been given."""
        return self.place >= Place(self.stop)

    async def next(self, end: Callable[[Part, Place, Place], Place]) -> tuple[Part, int, int]:
        """Return a part and from which row to which it is to be given; `end` returns the place to end at."""
        if self._part is None:
            most = self._most
            stop = min(self.stop, self.place.slot - self.place.slot % most + most)
            self._part = await self.pump.past(self.feed, self.place, stop)
        part, start = self._part, self.place
        self.place = end(part, start, part.end)
        first, last = part.row(start), part.row(self.place)
        await self.pump.allow(self._allowance, max(last - first, self.place.slot - start.slot))
        if self.place == part.end:
            self._part = None
        return part, first, last

    def forget(self) -> None:
        """Release the part, because the caller is slow; the rest is made again, in shorter parts."""
        self._part, self._most = None, _SLOW


async def pieces(pump: Pump, feed: Feed, form: str, start: Place, stop: int) -> AsyncIterator[bytes]:
    """Give a body in pieces of about 256 KiB, or of one event.

    Parameters
    ----------
    pump : Pump
        Has the events made.
    feed : Feed
        Of the selection that `selection_for` returned.
    form : str
        The requested format: json, ndjson, arrow or csv.
    start : Place
        Of the first delivery.
    stop : int
        The slot before which it ends; all of it has happened.
    """
    parts = _Parts(pump, feed, start, stop)
    made = (_arrow if form == "arrow" else _array if form == "json" else _lines)(parts)
    loop = asyncio.get_running_loop()
    async for piece in made:
        timer = loop.call_later(_HELD, parts.forget)
        yield piece
        timer.cancel()
        await asyncio.sleep(0)  # a part has many pieces: others have their turn, and who has left is noticed


async def _lines(parts: _Parts) -> AsyncIterator[bytes]:
    if parts.feed.header:
        yield parts.feed.header
    while not parts.over:
        part, first, last = await parts.next(parts.feed.cut)
        lines = bytes(part.rows(first, last))
        del part  # not held while the lines are sent
        if lines:
            yield lines


async def _array(parts: _Parts) -> AsyncIterator[bytes]:
    before = b"["
    async for lines in _lines(parts):
        # No JSON of ours has a line break in it.
        yield before + lines[:-1].replace(b"\n", b",\n")
        before = b",\n"
    yield b"]" if before != b"[" else b"[]"


async def _arrow(parts: _Parts) -> AsyncIterator[bytes]:
    faulty = parts.feed.has_faults(parts.place.slot, parts.stop)
    sink, schema = io.BytesIO(), parts.feed.arrow_schema(faulty=faulty)
    # A batch ends at a multiple of this number, or when it holds so many rows, so that the same range is
    # always the same bytes.
    most = max(1, min(_SLOW, 1 << int(math.log2(WRITE_BYTES / (8 * max(1, len(schema)))))))
    batch: list[pa.RecordBatch] = []  # in several pieces if a part ends within it
    rows = 0

    def end(part: Part, start: Place, stop: Place) -> Place:
        boundary = Place(start.slot - start.slot % most + most)
        full = part.place(part.row(start) + most - rows)
        return min(stop, boundary, full)

    with pa.ipc.new_stream(sink, schema) as writer:
        while not parts.over:
            part, first, last = await parts.next(end)
            if last > first:
                batch.append(in_schema(part.data.slice(first, last - first), schema))
                rows += last - first
            del part  # not held while the batch is sent
            at_boundary = not parts.place.index and parts.place.slot % most == 0
            if rows and (rows == most or at_boundary or parts.over):
                # A copy, even of one piece: how a slice of a part is padded depends on where it lies in it.
                writer.write_batch(pa.concat_batches(batch))
                batch, rows = [], 0
                yield sink.getvalue()
                sink.seek(0)
                sink.truncate()
    yield sink.getvalue()


class Ranges:
    """The finished ranges that are being sent.

    Parameters
    ----------
    pump : Pump
        Has their events made.
    most : int
        How many may be sent at a time.
    """

    def __init__(self, pump: Pump, most: int) -> None:
        self.pump, self._most = pump, most
        self._sent = 0

    @contextmanager
    def sending(self, selection: Selection) -> Iterator[Feed]:
        """Give the feed of a range for as long as it is sent.

        Raises
        ------
        StreamError
            If there are too many.
        """
        if self._sent >= self._most:
            raise StreamError(f"the server is sending {self._most} ranges already, try again later")
        self._sent += 1
        feed = self.pump.feeds.open(selection_for(selection))
        try:
            yield feed
        finally:
            self.pump.feeds.release(feed)
            self._sent -= 1


def range_headers(
    request: Request, query: RangeQuery, stream: Stream, selection: Selection, start: Place, stop: int
) -> dict[str, str]:
    """Return what an answer says of a finished range, which is the same bytes for ever."""
    packed = _accepts_gzip(request)
    described = repr((selection, logistream.__version__)).encode()
    tag = f"{stream.id}-{start.short}-{stop}-{hashlib.sha256(described).hexdigest()[:16]}"
    headers = {
        STREAM_HEADER: stream.id,
        EVENT_NUMBER_HEADER: str(start.slot),
        "ETag": f'"{tag}-gzip"' if packed else f'"{tag}"',
        "Cache-Control": "private, no-cache",
        "Vary": "Accept-Encoding, Authorization",
    }
    if packed:
        headers["Content-Encoding"] = "gzip"
    named = query.stop not in (None, "latest")
    if named and query.start != "latest" and stream.timeline.shared:
        # Without a file, the next server on this address has another stream, and other events.
        headers["Cache-Control"] = "private, max-age=31536000, immutable"
    if Place(stop) > start:
        others = [
            (name, value)
            for name, value in request.query_params.multi_items()
            if name not in ("start", "stop", "token")
        ]
        place = {"start": stop, "stop": 2 * stop - start.slot} if named else {"start": stop}
        headers["Link"] = f'<?{urlencode([*place.items(), *others])}>; rel="next"'
    return headers


def is_known(request: Request, etag: str) -> bool:
    """Return whether a caller has a body already, by the `If-None-Match` of its request."""
    tags = [tag.strip().removeprefix("W/") for tag in request.headers.get("if-none-match", "").split(",")]
    return etag in tags or "*" in tags


def _accepts_gzip(request: Request) -> bool:
    """Return whether a caller takes a body that is compressed with gzip."""
    for part in request.headers.get("accept-encoding", "").lower().split(","):
        name, _, options = part.partition(";")
        if name.strip() in ("gzip", "*"):
            return options.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


async def _packed(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Compress a body with gzip, on another thread, since it takes longer than to send it."""
    packer = zlib.compressobj(_LEVEL, wbits=31)
    async for piece in pieces:
        if done := await asyncio.to_thread(packer.compress, piece):
            yield done
    yield packer.flush()


def _media_type(selection: Selection) -> str:
    """Return the content type of a body; CloudEvents have one for a JSON array."""
    if selection.format == "json" and selection.envelope is not None:
        return CLOUD_EVENTS
    return MEDIA_TYPES[selection.format]


class RangeResponse(StreamingResponse):
    """A body that holds its feed for as long as it is sent, however that ends.

    A generator that is not read to its end is closed when it is collected: too late to release the feed.
    """

    def __init__(
        self, ranges: Ranges, selection: Selection, start: Place, stop: int, *, headers: dict[str, str]
    ) -> None:
        super().__init__((), media_type=_media_type(selection), headers=headers)
        self._ranges, self._selection, self._range = ranges, selection, (start, stop)
        self._packed = headers.get("Content-Encoding") == "gzip"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it; `StreamError` if too many are sent already."""
        with self._ranges.sending(self._selection) as feed:
            if not is_head(scope):
                body = pieces(self._ranges.pump, feed, self._selection.format, *self._range)
                self.body_iterator = _packed(body) if self._packed else body
            await super().__call__(scope, receive, send)

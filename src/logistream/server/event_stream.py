"""The events of a reader as `text/event-stream` (server-sent events), which browsers read and resume.

The id of an event is its number; with faults of the wire it is the place of the delivery. `EventSource` sends
the last one as `Last-Event-ID` when it connects again, and goes on after it.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from fastapi.responses import StreamingResponse

from logistream.server.access import is_head
from logistream.server.pump import Cursor
from logistream.stream.query import EVENT_NUMBER_HEADER, LAST_INDEX, STREAM_HEADER, Place, parse_place

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import HTTPConnection
    from starlette.types import Receive, Scope, Send

    from logistream.server.feed import Feed, Part
    from logistream.server.pump import Pump
    from logistream.server.schemas import EventStreamQuery
    from logistream.stream.query import Selection

__all__ = ["EventStreamResponse", "EventStreamSink", "last_event_id"]


_ROOM = 1 << 14  # bytes
_SILENCE = 15.0  # seconds after which a line is sent to show that the connection lives


def last_event_id(connection: HTTPConnection) -> Place | None:
    """Return the place of the last event that a browser has got; None if it begins.

    Raises
    ------
    RequestError
        For an id that is not one of ours.
    """
    value = connection.headers.get("last-event-id")
    return None if value is None else parse_place("Last-Event-ID", value)


class EventStreamSink:
    """Where the events of a reader go; `run` gives them as bytes."""

    def __init__(self, on_ready: Callable[[], None]) -> None:
        self._on_ready = on_ready
        self._some = asyncio.Event()
        self._waiting: list[bytes] = []
        self._next: Place | None = None  # after what was put last
        self._id: Place | None = None  # of the event that was put last
        self._faulty = False  # whether what was put last can have faults of the wire
        self._over = False

    @property
    def ready(self) -> bool:
        """Whether everything that was put has been sent."""
        return not self._waiting and not self._over

    @property
    def room(self) -> int:
        """Bytes that may be put at once, roughly."""
        return _ROOM

    def put(self, feed: Feed, part: Part, start: Place, stop: Place, missed: int | None) -> int:  # noqa: ARG002
        """Queue what is in a part from one place to another; return the number of bytes."""
        rows = range(part.row(start), part.row(stop))
        if rows:
            self._id = part.place(rows[-1])
        if missed is not None:
            self._waiting.append(b'data: {"missed_events":%d}\n\n' % missed)
        self._waiting += [
            b"id: %b\ndata: %b\n" % (part.place(row).short.encode(), bytes(part.rows(row, row + 1)))
            for row in rows
        ]
        self._next, self._faulty = stop, part.faulty
        if self._waiting:
            self._some.set()
        return sum(map(len, self._waiting))

    def end(self) -> None:
        """End the answer, since everything that was requested has been put."""
        self._over = True
        self._some.set()

    def fail(self) -> None:
        """End the answer because of an internal error; the browser connects again."""
        self.end()

    async def run(self) -> AsyncIterator[bytes]:
        """Give what is put, and after a silence and at the end the place that is reached."""
        yield b": events follow\n\n"
        while not (self._over and not self._waiting):
            try:
                async with asyncio.timeout(_SILENCE):
                    await self._some.wait()
            except TimeoutError:
                yield self._reached() or b":\n\n"
                continue
            self._some.clear()
            if self._waiting:
                yield b"".join(self._waiting)
                self._waiting = []
                self._on_ready()
                if self._over:
                    self._some.set()
        yield self._reached()

    def _reached(self) -> bytes:
        """Return an id without data, which moves the place from which a browser resumes, if it is not there.

        It means the whole of the last slot, of which nothing may have been requested.
        """
        if self._next is None or self._next.index or not self._next.slot:
            return b""
        last = Place(self._next.slot - 1, LAST_INDEX if self._faulty else 0)
        return b"" if self._id == last else b"id: %b\n\n" % last.short.encode()


class EventStreamResponse(StreamingResponse):
    """An answer that goes on as long as its reader reads.

    Parameters
    ----------
    pump : Pump
        Serves the reader.
    selection : Selection
        The events and columns.
    place : Place
        Of the first delivery.
    query : EventStreamQuery
        Everything else that was requested.
    """

    def __init__(self, pump: Pump, selection: Selection, place: Place, query: EventStreamQuery) -> None:
        headers = {
            STREAM_HEADER: pump.stream.id,
            EVENT_NUMBER_HEADER: str(place.slot),
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",  # for nginx, which would keep events back
        }
        super().__init__((), media_type="text/event-stream", headers=headers)
        self._pump, self._query, self._place = pump, query, place
        self._selection = replace(selection, format="ndjson")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the reader leaves, or until the end that it requested."""
        if is_head(scope):
            await super().__call__(scope, receive, send)
            return
        sink = EventStreamSink(self._pump.wake)
        feed = self._pump.feeds.open(self._selection)
        query = self._query
        cursor = Cursor(feed, sink, self._place, query.lag, stop=query.stop, gather=query.gather)
        self._pump.add(cursor, query.speed)
        try:
            self.body_iterator = sink.run()
            await super().__call__(scope, receive, send)
        finally:
            self._pump.remove(cursor)

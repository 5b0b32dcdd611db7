"""The events of a reader as `text/event-stream` (server-sent events), which browsers read and resume.

The id of an event is its number. `EventSource` sends the last one as `Last-Event-ID` when it connects again,
and goes on after it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from fastapi.responses import StreamingResponse

from logistream.server.access import is_head
from logistream.server.pump import Cursor
from logistream.stream.query import EVENT_NUMBER_HEADER, STREAM_HEADER, Selection, parse_number

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.requests import HTTPConnection
    from starlette.types import Receive, Scope, Send

    from logistream.server.feed import Feed, Part
    from logistream.server.pump import Pump
    from logistream.server.schemas import EventStreamQuery

__all__ = ["EventStreamResponse", "EventStreamSink", "last_event_id"]


_ROOM = 1 << 14  # bytes
_SILENCE = 15.0  # seconds after which a line is sent to show that the connection lives


def last_event_id(connection: HTTPConnection) -> int | None:
    """Return the number of the last event that a browser has got; None if it begins.

    Raises
    ------
    RequestError
        For an id that is not one of ours.
    """
    value = connection.headers.get("last-event-id")
    return None if value is None else parse_number("Last-Event-ID", value)


class EventStreamSink:
    """Where the events of a reader go; `run` gives them as bytes."""

    def __init__(self, on_ready: Callable[[], None]) -> None:
        self._on_ready = on_ready
        self._some = asyncio.Event()
        self._waiting: list[bytes] = []
        self._next: int | None = None  # number after what was put last
        self._id: int | None = None  # of the event that was put last
        self._over = False

    @property
    def ready(self) -> bool:
        """Whether everything that was put has been sent."""
        return not self._waiting and not self._over

    @property
    def room(self) -> int:
        """Bytes that may be put at once, roughly."""
        return _ROOM

    def put(self, feed: Feed, part: Part, start: int, stop: int, missed: int | None) -> int:  # noqa: ARG002
        """Queue events `start` to `stop`; return the number of bytes."""
        rows = range(part.row(start), part.row(stop))
        if rows:
            self._id = part.number(rows[-1])
        if missed is not None:
            self._waiting.append(b'data: {"missed_events":%d}\n\n' % missed)
        self._waiting += [
            b"id: %d\ndata: %b\n" % (part.number(row), bytes(part.rows(row, row + 1))) for row in rows
        ]
        self._next = stop
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
                # An id without data moves the place from which a browser resumes.
                yield b":\n\n" if not self._next else b"id: %d\n\n" % (self._next - 1)
                continue
            self._some.clear()
            if self._waiting:
                yield b"".join(self._waiting)
                self._waiting = []
                self._on_ready()
                if self._over:
                    self._some.set()
        if self._next is not None and self._id != self._next - 1:  # no event that was requested is at the end
            yield b"id: %d\n\n" % (self._next - 1)


class EventStreamResponse(StreamingResponse):
    """An answer that goes on as long as its reader reads.

    Parameters
    ----------
    pump : Pump
        Serves the reader.
    selection : Selection
        The events and columns.
    number : int
        The first event.
    query : EventStreamQuery
        Everything else that was requested.
    """

    def __init__(self, pump: Pump, selection: Selection, number: int, query: EventStreamQuery) -> None:
        headers = {
            STREAM_HEADER: pump.stream.id,
            EVENT_NUMBER_HEADER: str(number),
            "Cache-Control": "no-store",
            "X-Accel-Buffering": "no",  # for nginx, which would keep events back
        }
        super().__init__((), media_type="text/event-stream", headers=headers)
        self._pump, self._query, self._number = pump, query, number
        self._selection = Selection("ndjson", selection.columns, selection.where, selection.envelope)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the reader leaves, or until the end that it requested."""
        if is_head(scope):
            await super().__call__(scope, receive, send)
            return
        sink = EventStreamSink(self._pump.wake)
        feed = self._pump.feeds.open(self._selection)
        cursor = Cursor(feed, sink, self._number, self._query.lag, stop=self._query.stop)
        self._pump.add(cursor, self._query.speed)
        try:
            self.body_iterator = sink.run()
            await super().__call__(scope, receive, send)
        finally:
            self._pump.remove(cursor)

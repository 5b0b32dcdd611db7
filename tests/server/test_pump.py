"""What the pump gives to a reader that it reaches without a connection."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from helpers.clocks import NOW, Clock
from logistream.server.metrics import Gauges
from logistream.server.pump import Cursor, Pump
from logistream.server.schemas import LiveQuery
from logistream.stream.query import Place
from logistream.stream.stream import Stream
from logistream.stream.timeline import Timeline, first_entry

if TYPE_CHECKING:
    from logistream.model.model import Model
    from logistream.server.feed import Feed, Part

WAIT = 60.0
"""Seconds that a busy machine may take."""


class _Narrow:
    """A reader that takes some 16 KB at once; `puts` holds the slots of each."""

    ready = True
    room = 1 << 14

    def __init__(self) -> None:
        self.puts: list[int] = []

    def put(self, feed: Feed, part: Part, start: Place, stop: Place, missed: int | None) -> int:
        """Note the slots; return the number of bytes."""
        self.puts.append(stop.slot - start.slot)
        return len(feed.wire(part, start, stop, missed))

    def end(self) -> None:
        """Do nothing."""

    def fail(self) -> None:
        """Fail the test."""
        raise AssertionError(self.puts)


def test_what_is_too_much_for_one_message_does_not_wait(model: Model) -> None:
    """A reader gets all that has happened in several messages, though nothing more is due for an hour."""
    clock = Clock()
    clock.now = NOW + 400_000
    stream = Stream(model, Timeline([first_entry(NOW, rate=1000)]), clock=clock)
    happened = stream.next_number()

    async def read() -> list[int]:
        pump, sink = Pump(stream, Gauges(), catch_up=1e9, catch_up_total=1e9), _Narrow()
        selection = LiveQuery.parse([("format", "ndjson")]).selection(model)
        pump.add(Cursor(pump.feeds.open(selection), sink, Place(0), gather=3600.0))
        running = asyncio.create_task(pump.run())
        try:
            async with asyncio.timeout(WAIT):
                while sum(sink.puts) < happened:
                    await asyncio.sleep(0)
        finally:
            running.cancel()
            await asyncio.to_thread(pump.close)
        return sink.puts

    puts = asyncio.run(read())
    assert sum(puts) == happened
    assert len(puts) > 5

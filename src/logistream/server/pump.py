"""From the stream to its readers: one loop that sends each reader the events that are due.

A reader is a cursor, the place of its next delivery. There are no queues: a reader that does not read falls
behind, and delays no other, since any part of the stream can be made again. In each round live readers come
first, then those of the past in turns, and each gets a bounded piece.
"""

from __future__ import annotations

import asyncio
import logging
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from logistream.server.feed import WRITE_BYTES, Feeds
from logistream.server.rate_meter import RateMeter
from logistream.stream.query import Place, Timestamp

if TYPE_CHECKING:
    from logistream.server.feed import Feed, Part
    from logistream.server.metrics import Gauges
    from logistream.stream.query import Lag
    from logistream.stream.stream import Stream

__all__ = ["Allowance", "Cursor", "Pump", "Sink"]


logger = logging.getLogger(__name__)

_BEAT = 0.002
"""Seconds: above 1 / _BEAT events per second, the events of this time are sent together."""

_LONGEST_WAIT = 1.0
"""Seconds after which the clock is read again, because it may have been set."""

_LAG = 1_000_000
"""Microseconds that a reader with `lag=skip` may be behind before it skips what it has missed."""

_TURN = 0.005  # seconds of a round for readers of the past, so that live readers need not wait
_RECENT = 10.0  # seconds; a live reader that has fallen further behind is served as one of the past
_WRITES = 4  # of the most bytes, for a reader of the past in its turn
_AHEAD = 2  # parts made ahead for a reader that catches up
_ALLOWANCE = 0.1  # seconds' worth of events that a reader may take at once, beyond its speed limit


class Sink(Protocol):
    """Where a reader's events go."""

    @property
    def ready(self) -> bool:
        """Whether it can take more now."""

    @property
    def room(self) -> int:
        """How many bytes it may be given at once, roughly."""

    def put(self, feed: Feed, part: Part, start: Place, stop: Place, missed: int | None) -> int:
        """Send what is in a part from one place to another; return the number of bytes."""

    def end(self) -> None:
        """Close the connection, since everything that was requested has been sent."""

    def fail(self) -> None:
        """Close the connection because of an internal error."""


@dataclass(slots=True)
class Allowance:
    """How many events may be taken now by a speed limit.

    Attributes
    ----------
    events : float
        As of `counted`.
    counted : float
        On the loop's clock, in seconds.
    """

    events: float = 0.0
    counted: float = 0.0

    def at(self, time: float, speed: float) -> float:
        """Return the events that may be taken at a time, at so many events per second."""
        most = max(1.0, _ALLOWANCE * speed)
        self.events = min(most, self.events + (time - self.counted) * speed)
        self.counted = time
        return self.events

    def use(self, events: int) -> None:
        """Note that events have been taken; more than may be taken count against what may be taken later."""
        self.events -= events


@dataclass(frozen=True, slots=True)
class Replay:
    """The past at a multiple of its tempo.

    Attributes
    ----------
    speed : float
        How many times as fast as they happened events are sent.
    begin : int
        When the first of them happened, in microseconds since the Unix epoch.
    began : float
        When it is sent, on the loop's clock.
    """

    speed: float
    begin: int
    began: float

    def reached(self, time: float) -> int:
        """Return the time in the stream, in microseconds, that is reached at a time of the loop's clock."""
        return self.begin + int((time - self.began) * self.speed * 1e6)

    def wait(self, micros: int, time: float) -> float:
        """Return the seconds until a time in the stream is reached."""
        return max(0.0, (micros - self.reached(time)) / self.speed / 1e6)


@dataclass(eq=False, slots=True)
class Cursor:
    """One reader and how far it has come.

    Attributes
    ----------
    feed : Feed
        What it reads.
    sink : Sink
        Where it is sent.
    place : Place
        Of its next delivery.
    number : int
        The slot of that; without faults of the wire, the number of its next event.
    lag : Lag
        What it gets next if it has fallen behind.
    live : bool
        Whether it reads the present: it began there, or has caught up.
    missed : int or None
        How many events it has skipped that no message to it has reported yet.
    allowance : Allowance
        Of its own, while it catches up.
    stop : int, Timestamp or None
        Before which event, or after which time, it ends.
    replay : Replay or None
        How the past is sent at a tempo.
    gather : float
        Seconds for which events of the present are gathered before they are sent.
    sent : float
        When it last got all that had happened, on the loop's clock, if `gather` is not 0.
    ahead : tuple of int and Place, or None
        Entries of the timeline, and the place, when the parts from there on were last requested ahead.
    """

    feed: Feed
    sink: Sink
    place: Place
    lag: Lag = "wait"
    live: bool = False
    missed: int | None = None
    allowance: Allowance = field(default_factory=Allowance)
    stop: int | Timestamp | None = None
    replay: Replay | None = None
    gather: float = 0.0
    sent: float = -math.inf
    number: int = field(init=False)
    ahead: tuple[int, Place] | None = None

    def rest(self, time: float) -> float:
        """Return the seconds until it may get the next message of the present; not above 0 for now."""
        return self.sent + self.gather - time

    def __post_init__(self) -> None:
        self.number = self.place.slot

    def move(self, place: Place) -> None:
        """Note the place of its next delivery."""
        self.place, self.number = place, place.slot


class Pump:
    """Gives the readers of one stream their events; everything but `wake_soon` belongs to the loop's thread.

    Parameters
    ----------
    stream : Stream
        Whose events they are.
    gauges : Gauges
        Where it counts what it does.
    catch_up, catch_up_total : float
        Events per second that a reader gets at most while it catches up with the past, and that all such
        readers get together.
    """

    def __init__(self, stream: Stream, gauges: Gauges, *, catch_up: float, catch_up_total: float) -> None:
        self.cursors: set[Cursor] = set()
        self.stream, self._gauges = stream, gauges
        self._catch_up, self._catch_up_total = catch_up, catch_up_total
        self._total = Allowance()
        self._made = asyncio.Event()  # set, and replaced, whenever a part has become available
        self._loop: asyncio.AbstractEventLoop | None = None
        self.closed = False
        self._wake = asyncio.Event()
        self._meter, self._entry = RateMeter(), stream.timeline.last
        self._events = self._bytes = 0  # sent in this round
        self._writes: dict[tuple[Feed, Place, int, int], tuple[Part, Place, int]] = {}  # of this round
        self._round: float | None = None  # when readers were served last, on the loop's clock
        self._retry = math.inf  # seconds until a reader may take more by its speed limit
        self.feeds = Feeds(stream, self._made_soon)
        self._unsubscribe = stream.subscribe(self.wake_soon)

    def wake(self) -> None:
        """Make `run` check all readers at once."""
        self._wake.set()

    def wake_soon(self) -> None:
        """Make `run` check all readers at once; can be called from any thread."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake.set)

    def _made_soon(self) -> None:
        """Have readers and ranges look for a part that was just made; called by the thread that made it."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._on_made)

    def _on_made(self) -> None:
        self._wake.set()
        made, self._made = self._made, asyncio.Event()
        made.set()

    async def past(self, feed: Feed, start: Place, stop: int) -> Part:
        """Wait for events that have happened, within one part of the past; see `Feed.past`."""
        try:
            while (part := feed.past(start, stop)) is None:
                await self._made.wait()
        except asyncio.CancelledError:
            self.feeds.leave(feed, start.slot)
            raise
        return part

    async def allow(self, allowance: Allowance, events: int) -> None:
        """Wait until a reader of a range may have so many events, by its own speed limit and that of all."""
        while (wait := self._wait(allowance, asyncio.get_running_loop().time())) > 0:
            await asyncio.sleep(wait)
        allowance.use(events)
        self._total.use(events)

    def add(self, cursor: Cursor, speed: float | None = None) -> None:
        """Start to serve a reader; `speed` is how many times as fast as they happened it gets past events."""
        age = self.stream.age(cursor.number)
        cursor.live = age < _LAG
        if speed is not None and age:
            begin, time = self.stream.timeline.time(cursor.number), asyncio.get_running_loop().time()
            cursor.replay, cursor.live = Replay(speed, begin, time), False
        self.cursors.add(cursor)
        self._gauges.set("clients", len(self.cursors))
        self._wake.set()

    def remove(self, cursor: Cursor) -> None:
        """Stop serving a reader."""
        if cursor in self.cursors:
            self.cursors.discard(cursor)
            self._gauges.set("clients", len(self.cursors))
            self.feeds.leave(cursor.feed, cursor.number)
            self.feeds.release(cursor.feed)

    @property
    def silent(self) -> float:
        """Seconds since readers were served last; infinite if they never were."""
        if self._loop is None or self._round is None:
            return math.inf
        return self._loop.time() - self._round

    def close(self) -> None:
        """Stop the thread that makes events; this pump cannot run again."""
        self.closed = True
        self._unsubscribe()
        self.feeds.close()

    async def run(self) -> None:
        """Serve the readers until cancelled."""
        loop = self._loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()  # before the readers are checked, so that no later change is missed
            began = self._round = loop.time()
            now = self.stream.next_number()
            self._writes.clear()
            self._retry = math.inf
            behind = self._serve_all(now, began)
            self._measure(now, loop.time())
            if behind:
                await asyncio.sleep(0)  # let other connections have their turn
                continue
            spent = loop.time() - began
            rest = min((cursor.rest(began) for cursor in self.cursors), default=0.0)  # of all readers
            pause = min(max(self._pause(now), rest), self._retry)
            timer = loop.call_later(max(spent, pause), self._wake.set)
            await self._wake.wait()
            timer.cancel()

    def _pause(self, now: int) -> float:
        """Return the seconds until the next event, or until there is a beat's worth of them."""
        wait = self.stream.wait(now)
        if wait is None:
            return _LONGEST_WAIT
        # Not zero even if the event is due: a shared timeline may not be certain of it yet.
        return min(max(wait, _BEAT if self.stream.rate * _BEAT > 1 else 0.0005), _LONGEST_WAIT)

    def _serve_all(self, now: int, began: float) -> bool:
        """Serve live readers, then those of the past in turns; return whether any can take more at once."""
        behind = False
        past: list[Cursor] = []
        for cursor in tuple(self.cursors):
            if self._is_urgent(cursor, now):
                behind |= self._serve(cursor, now, began)
            else:
                past.append(cursor)
        past.sort(key=lambda cursor: cursor.allowance.counted)
        loop = asyncio.get_running_loop()
        for cursor in past:
            more = True
            for _ in range(_WRITES * WRITE_BYTES // cursor.sink.room):  # while its part is there
                if loop.time() > began + _TURN:
                    return True
                more = self._serve(cursor, now, began)
                if not more:
                    break
            behind |= more
        return behind

    def _serve(self, cursor: Cursor, now: int, time: float) -> bool:
        """Send a reader a piece of what is due; return whether there is more that it can take at once."""
        if cursor.stop is not None and self.is_over(cursor.number, cursor.stop):
            cursor.sink.end()
            self.remove(cursor)
            return False
        if cursor.number >= now:
            cursor.live, cursor.replay = True, None
            return False
        if not cursor.sink.ready:
            return False
        if cursor.live and (rest := cursor.rest(time)) > 0:
            self._retry = min(self._retry, rest)
            return False
        try:
            if cursor.lag == "skip" and cursor.live:
                self._skip(cursor, now)
            catches_up = self._catches_up(cursor, now)
            limit = self._allowed(cursor, now, time) if catches_up else now
            if cursor.stop is not None or cursor.replay is not None:
                limit = self._bounded(cursor, limit, time)
            key = (cursor.feed, cursor.place, limit, cursor.sink.room)
            write = self._writes.get(key)  # most readers need what another one has just got
            if write is None:
                write = self._next_write(cursor, now, limit)
                if write is None:
                    return False  # `wake_soon` is called when it is made
                self._writes[key] = write
            part, stop, rows = write
            size = cursor.sink.put(cursor.feed, part, cursor.place, stop, cursor.missed)
        except Exception:
            logger.exception("a reader at event %d was disconnected after an error", cursor.number)
            cursor.sink.fail()
            self.remove(cursor)
            return False
        self._events += rows
        self._bytes += size
        if catches_up:
            used = max(rows, stop.slot - cursor.number)
            cursor.allowance.use(used)
            self._total.use(used)
        if cursor.live:
            self._meter.hand(cursor.number, stop.slot, time)
        cursor.move(stop)
        cursor.missed = None
        if cursor.gather and stop.slot == now:  # else there is more than one message can hold
            cursor.sent = time
        cursor.live = cursor.live or stop.slot == now
        if cursor.stop is not None:
            self._wake.set()  # it may be over
        return stop.slot < now and cursor.sink.ready

    def _next_write(self, cursor: Cursor, now: int, limit: int) -> tuple[Part, Place, int] | None:
        """Return what to write next: a part, the place before which to stop, and how many rows that are."""
        if limit <= cursor.number:
            return None
        part = cursor.feed.part(cursor.place, now, live=self._is_urgent(cursor, now))
        if part is None:
            self._prefetch(cursor, cursor.place, now)
            return None
        limit = min(limit, cursor.feed.settled(part))
        stop = cursor.feed.cut(part, cursor.place, Place(limit), cursor.sink.room)
        if stop <= cursor.place:
            return None
        ahead = part.entries, part.end
        if cursor.live or cursor.ahead != ahead:  # once for each part of the past
            self._prefetch(cursor, part.end, now)
            cursor.ahead = ahead
        return part, stop, part.row(stop) - part.row(cursor.place)

    def _prefetch(self, cursor: Cursor, place: Place, now: int) -> None:
        """Request the parts that the reader needs next, early enough for one of the past to be made first."""
        urgent = self._is_urgent(cursor, now)
        for _ in range(_AHEAD):
            if place.slot > now and not self._will_happen(place.slot):
                return
            following = cursor.feed.prefetch(place, now, live=urgent)
            if place.slot > now:
                return
            place = following

    def _will_happen(self, number: int) -> bool:
        """Return whether no pause holds an event back."""
        last = self.stream.timeline.last
        return not last.paused or number < last.first

    def _skip(self, cursor: Cursor, now: int) -> None:
        """Move a reader to the newest event if it is too far behind."""
        if cursor.number < now - 1 and self.stream.age(cursor.number) > _LAG:
            cursor.missed = (cursor.missed or 0) + now - 1 - cursor.number
            cursor.move(Place(now - 1))

    def is_over(self, number: int, stop: int | Timestamp) -> bool:
        """Return whether a reader whose next event is `number` has got everything up to its end."""
        if isinstance(stop, Timestamp):
            timeline = self.stream.timeline
            known = timeline.known_until(self.stream.now())
            return known >= stop.micros and number >= timeline.count(stop.micros)
        return number >= stop

    def _bounded(self, cursor: Cursor, limit: int, time: float) -> int:
        """Return the event before which a reader must stop now, by its own end and tempo."""
        timeline = self.stream.timeline
        if isinstance(cursor.stop, Timestamp):
            limit = min(limit, timeline.count(cursor.stop.micros))
        elif cursor.stop is not None:
            limit = min(limit, cursor.stop)
        if cursor.replay is not None and limit > cursor.number:
            limit = min(limit, timeline.count(cursor.replay.reached(time)))
            if limit <= cursor.number:
                wait = cursor.replay.wait(timeline.time(cursor.number), time)
                self._retry = min(self._retry, max(wait, _BEAT))
        return limit

    def _catches_up(self, cursor: Cursor, now: int) -> bool:
        """Return whether the limits of speed apply to a reader."""
        if cursor.replay is not None:
            return True
        return not cursor.live or now - cursor.number > max(1.0, _ALLOWANCE * self._speed(self._catch_up))

    def _is_urgent(self, cursor: Cursor, now: int) -> bool:
        """Return whether a reader comes before those of the past: it is live and not long behind."""
        return cursor.live and now - cursor.number <= max(1.0, _RECENT * self.stream.rate)

    def _allowed(self, cursor: Cursor, now: int, time: float) -> int:
        """Return the event before which a reader must stop now, by its speed limit and that of all."""
        wait = self._wait(cursor.allowance, time)
        if wait > 0:
            self._retry = min(self._retry, wait)
            return cursor.number
        return min(now, cursor.number + int(min(cursor.allowance.events, self._total.events)))

    def _speed(self, limit: float) -> float:
        """Return a limit in events per second: who catches up no faster than events happen never would."""
        return max(limit, 2 * self.stream.rate)

    def _wait(self, allowance: Allowance, time: float) -> float:
        """Return the seconds until an event of the past may be taken."""
        waits = (
            (1 - each.at(time, speed)) / speed
            for each, speed in (
                (allowance, self._speed(self._catch_up)),
                (self._total, self._speed(self._catch_up_total)),
            )
        )
        return max(waits)

    def _measure(self, now: int, time: float) -> None:
        """Record what was sent, how far the slowest reader is behind, and the rate that readers get."""
        self._gauges.add("events_sent", self._events)
        self._gauges.add("bytes_sent", self._bytes)
        self._events = self._bytes = 0
        lag = max((now - cursor.number for cursor in self.cursors), default=0)
        self._gauges.set("lag_events", max(0, lag))
        entry = self.stream.timeline.last
        if entry is not self._entry or not any(cursor.live for cursor in self.cursors):
            self._entry = entry
            self._meter.restart(now)
        self._gauges.set("rate_measured", self._meter.rate(time, now))

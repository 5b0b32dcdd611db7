"""When each event happens: the append-only list that joins event numbers and time.

A stream needs no log of its events, only this short list. Between two entries the times lie on a straight
line; a rate change, a pause or a scenario appends one entry. Everything is computed with whole numbers, so
that number and time determine each other exactly, on any machine, for ever.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

import numpy as np

from logistream.errors import StreamError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

__all__ = ["MAX_RATE", "MIN_RATE", "Entry", "Timeline"]

MIN_RATE = 1e-6
"""Lowest rate that an entry can hold, in events per second: one millionth."""

MAX_RATE = 1e6
"""Highest rate that an entry can hold, in events per second: one event a microsecond."""

# A rate is held as whole millionths of an event per second and a time as whole microseconds, so the k-th
# event of an entry comes floor(k * SCALE / millionths) microseconds after its first.
_SCALE = 10**12

# j * _SCALE + remainder must fit a signed 64-bit integer: j below 9.2 million.
_PIECE = 1 << 22


@dataclass(frozen=True, slots=True)
class Entry:
    """One stretch of the timeline.

    Parameters
    ----------
    first : int
        The event number from which this entry holds.
    since : int
        The moment at which the entry was made, in microseconds since the Unix epoch. Every event before
        `first` has happened by then; `first` itself comes later, except in the entry that begins a stream.
    start : int
        The time of event `first`, in microseconds since the Unix epoch. If the entry is paused, the time it
        would have had without the pause: `start - since` is what was left to wait.
    rate : float
        Events per second.
    paused : bool
        Whether no event happens while this entry is the last one.
    scenario : str or None
        Name of the what-if change in force.
    """

    first: int
    since: int
    start: int
    rate: float
    paused: bool = False
    scenario: str | None = None

    def __post_init__(self) -> None:
        if not MIN_RATE <= self.rate <= MAX_RATE:  # also catches NaN
            raise StreamError(
                f"a timeline holds rates from {MIN_RATE} to {MAX_RATE:.0f} events/s, not {self.rate}"
            )
        if self.first < 0 or self.start < self.since:
            raise StreamError(f"a timeline entry cannot have first={self.first} or start before since")

    @property
    def millionths(self) -> int:
        """The rate as whole millionths of an event per second."""
        return round(self.rate * 1_000_000)

    def count(self, now: int) -> int:
        """Return how many events have happened by `now` (microseconds), if this entry is in force then."""
        if self.paused or now < self.start:
            return self.first
        return self.first + ((now - self.start + 1) * self.millionths - 1) // _SCALE + 1

    def time(self, number: int) -> int:
        """Return the time of an event from `first` on, in microseconds, as if this entry held for ever."""
        return self.start + (number - self.first) * _SCALE // self.millionths

    def remaining(self, now: int) -> int:
        """Return how long the next event is still to come, in microseconds, at `now` not before `since`."""
        return self.start - self.since if self.paused else self.time(self.count(now)) - now


class Timeline:
    """The append-only list of entries; safe to read and to change from any thread.

    Times are whole microseconds since the Unix epoch, UTC. They strictly increase with the event number,
    through every change.

    Parameters
    ----------
    entries : iterable of Entry
        At least one, in order.

    Examples
    --------
    >>> timeline = Timeline.begin(1_000_000, rate=4)
    >>> timeline.times(0, 4).tolist()
    [1000000, 1250000, 1500000, 1750000]
    >>> timeline.count(1_600_000)
    3
    >>> timeline.change(1_600_000, rate=40).first  # 0.6 of the way was left: 15 ms at the new rate
    3
    >>> timeline.times(2, 5).tolist()
    [1500000, 1615000, 1640000]
    """

    def __init__(self, entries: Iterable[Entry]) -> None:
        self._entries = tuple(entries)
        self._lock = threading.Lock()
        if not self._entries:
            raise StreamError("a timeline needs at least one entry")
        for before, after in zip(self._entries, self._entries[1:], strict=False):
            if (
                after.since < before.since
                or after.start <= after.since
                or after.first != before.count(after.since)
            ):
                raise StreamError(f"timeline entry {after} does not follow {before}")

    @classmethod
    def begin(cls, now: int, *, rate: float = 2.0, first: int = 0, paused: bool = False) -> Self:
        """Return a timeline whose event `first` happens at `now` (microseconds)."""
        return cls([Entry(first, now, now, rate, paused)])

    def __repr__(self) -> str:
        return f"<Timeline of {len(self._entries)} entries, last {self.last}>"

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries, oldest first."""
        return self._entries

    @property
    def last(self) -> Entry:
        """The entry in force."""
        return self._entries[-1]

    def count(self, now: int) -> int:
        """Return how many events have happened up to and including `now` (microseconds).

        This is the number of the next event, and the exact inverse of `time`.
        """
        entries = self._entries
        place = bisect_right(entries, now, key=_since)
        return entries[max(place - 1, 0)].count(now)

    def time(self, number: int) -> int:
        """Return the time of one event in microseconds; see `times`."""
        return int(self.times(number, number + 1)[0])

    def times(self, start: int, stop: int) -> NDArray[np.int64]:
        """Return the times of the events from `start` up to but not including `stop`.

        Numbers that are still to come follow the last entry: that is when they will happen unless the
        timeline changes.

        Returns
        -------
        ndarray of int64, shape (stop - start,)
            Microseconds since the Unix epoch, strictly increasing.

        Raises
        ------
        StreamError
            For numbers before the first entry, and for numbers that a pause holds back.
        """
        entries = self._entries
        if start < entries[0].first:
            raise StreamError(f"event {start} is before the stream, which begins with {entries[0].first}")
        last = entries[-1]
        if last.paused and stop > max(start, last.first):
            raise StreamError(f"event {stop - 1} has no time yet: the stream is paused before {last.first}")
        pieces = []
        place = bisect_right(entries, start, key=_first) - 1
        while start < stop:
            entry = entries[place]
            place += 1
            end = min(stop, entries[place].first) if place < len(entries) else stop
            while start < end:
                piece = min(end - start, _PIECE)
                pieces.append(_line(entry, start, piece))
                start += piece
        return np.concatenate(pieces) if pieces else np.empty(0, dtype=np.int64)

    def change(
        self, now: int, *, rate: float | None = None, paused: bool | None = None, scenario: str | None = None
    ) -> Entry:
        """Append an entry with the given settings changed and return it; the last one if nothing changes.

        The phase is kept: if a part of the wait for the next event has passed, only the rest of it remains,
        at the new rate, so that a dragged slider neither bursts nor starves; a pause freezes that rest.
        Events that have happened by `now` (microseconds) never change.

        Raises
        ------
        StreamError
            For a rate outside `MIN_RATE` to `MAX_RATE`.
        """
        with self._lock:
            last = self.last
            wanted = replace(
                last,
                rate=last.rate if rate is None else float(rate),
                paused=last.paused if paused is None else paused,
                scenario=last.scenario if scenario is None else scenario,
            )
            if wanted == last:
                return last
            now = max(now, last.since)  # a clock that was set back must not rewrite the past
            # Round up, and to at least 1 us: what is new must come after everything that has happened.
            left = max(1, -(-last.remaining(now) * last.millionths // wanted.millionths))
            entry = replace(wanted, first=last.count(now), since=now, start=now + left)
            self._entries = (*self._entries, entry)
            return entry


def _since(entry: Entry) -> int:
    return entry.since


def _first(entry: Entry) -> int:
    return entry.first


def _line(entry: Entry, start: int, length: int) -> NDArray[np.int64]:
    """Return the times of `length` events of one entry from number `start`; `length` up to `_PIECE`."""
    whole, rest = divmod((start - entry.first) * _SCALE, entry.millionths)
    steps: NDArray[np.int64] = np.arange(length, dtype=np.int64) * _SCALE
    steps += rest
    steps //= entry.millionths
    steps += entry.start + whole
    return steps

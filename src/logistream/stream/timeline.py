"""When each event happens: the append-only list of entries that joins event numbers and times.

A stream needs no log of its events, only this short list. Between two entries the times follow from the rate
and from where the events lie in operational time; a change of rate, a pause or a scenario appends one entry.
Everything is computed with whole numbers, so that number and time determine each other exactly, on any
machine.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_right
from dataclasses import dataclass, replace
from html import escape
from numbers import Real
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from logistream.errors import DataError, RequestError, StreamError
from logistream.model.scenario import Scenario, read_scenarios
from logistream.stream.arrivals import EVEN, SECTION, STEPS, Arrivals
from logistream.stream.faults import read_faults
from logistream.times import DAY, parse_rfc3339, rfc3339, wall_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from logistream.stream.faults import Fault

__all__ = ["MAX_RATE", "MIN_RATE", "Entry", "Timeline", "first_entry"]


MIN_RATE = 0.001
"""Lowest rate of a stream, in events per second."""

MAX_RATE = 1_000_000
"""Highest rate of a stream, in events per second: one event a microsecond."""

_MOST = 2**53  # events of a stream
_SHOWN_ENTRIES = 10  # of a timeline in a notebook


@dataclass(frozen=True, slots=True)
class Entry:
    """One stretch of the timeline; the one place where rate and pause are checked.

    Parameters
    ----------
    first : int
        Number of the first event that this entry applies to.
    since : int
        Time of the change: when this entry takes effect, in microseconds since the Unix epoch. All events
        before `first` have happened by then.
    start : int
        Time of event `first`, in microseconds since the Unix epoch. It is later than `since`, because part of
        the wait for that event is left when the rate changes; only in the first entry of a stream are both
        equal. If the entry is paused, it is the time that event would have had without the pause.
    rate : float
        Events per second, from `MIN_RATE` to `MAX_RATE`.
    paused : bool
        Whether no event happens while this entry is the last one.
    scenarios : tuple of Scenario
        The what-if scenarios in force.
    faults : tuple of Fault
        What goes wrong with the delivery of its events.

    Raises
    ------
    RequestError
        For a rate or a pause that is not allowed.
    StreamError
        For a negative `first`, or `start` before `since`.
    """

    first: int
    since: int
    start: int
    rate: float
    paused: bool = False
    scenarios: tuple[Scenario, ...] = ()
    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        rate: object = self.rate
        if isinstance(rate, bool) or not isinstance(rate, Real) or rate != rate:  # not NaN
            raise RequestError(f"rate must be a number of events per second, not {rate!r}")
        if not MIN_RATE <= self.rate <= MAX_RATE:
            raise RequestError(
                f"rate must be from {MIN_RATE} to {MAX_RATE:,} events per second, not {rate!r}; "
                f"to stop the stream for a while, pause it"
            )
        if not isinstance(self.paused, bool):
            raise RequestError(f"paused must be true or false, not {self.paused!r}")
        if not 0 <= self.first <= _MOST or self.start < self.since:
            raise StreamError(f"a timeline entry cannot have first={self.first:.6g} or start before since")
        object.__setattr__(self, "rate", float(self.rate))

    @property
    def scenario(self) -> str | None:
        """The names of the scenarios in force; None for none."""
        return "; ".join(scenario.name for scenario in self.scenarios) or None

    @property
    def millionths(self) -> int:
        """The rate as whole millionths of an event per second."""
        return round(self.rate * 1_000_000)

    def to_json(self) -> dict[str, Any]:
        """Return the entry as a JSON object, times as RFC 3339 in UTC with microseconds.

        Examples
        --------
        >>> Entry(0, 1_000_000, 1_000_000, 2.0).to_json()["since"]
        '1970-01-01T00:00:01.000000Z'
        """
        written = {
            "first": self.first,
            "since": rfc3339(self.since),
            "start": rfc3339(self.start),
            "rate": self.rate,
            "paused": self.paused,
            "scenario": [scenario.to_json() for scenario in self.scenarios] or None,
        }
        # Only if there are any, so that what earlier versions wrote stays what it is.
        return written | {"faults": [f.to_json() for f in self.faults]} if self.faults else written

    @classmethod
    def from_json(cls, obj: object) -> Self:
        """Return the entry of a JSON object; the exact inverse of `to_json`.

        Raises
        ------
        DataError
            If a key is missing or unknown, or a value is not of its type or not allowed.
        """
        if not isinstance(obj, dict):
            raise DataError(f"a timeline entry must be a JSON object, not {obj!r:.60}")
        keys = [key for key, _, _ in _TYPES]
        if obj.keys() - {"faults"} != set(keys):
            raise DataError(f"a timeline entry has the keys {', '.join(keys)}, not {', '.join(obj):.80}")
        for key, kinds, expected in _TYPES:
            if not isinstance(obj[key], kinds) or isinstance(obj[key], bool) != (kinds is bool):
                raise DataError(f"{key} of a timeline entry must be {expected}, not {obj[key]!r:.60}")
        try:
            since, start = parse_rfc3339(obj["since"]), parse_rfc3339(obj["start"])
            scenarios = read_scenarios(obj["scenario"])
            faults = read_faults(obj.get("faults"))
            return cls(obj["first"], since, start, obj["rate"], obj["paused"], scenarios, faults)
        except (ValueError, OverflowError, StreamError) as error:
            raise DataError(f"a timeline entry has a value that is not allowed: {error}") from None


def first_entry(
    now: int,
    *,
    rate: float = 2.0,
    first: int = 0,
    paused: bool = False,
    history: int = 0,
    start: int | None = None,
) -> Entry:
    """Return the first entry of a timeline.

    The first event happens between 1970 and `now`: even at the highest rate its numbers then stay below
    2**53, which every reader holds exactly, until the year 2255.

    Parameters
    ----------
    now : int
        The time in microseconds since the Unix epoch.
    rate : float
        Events per second.
    first : int
        The number of the first event.
    paused : bool
        Whether the stream begins paused.
    history : int
        Microseconds before `now` at which the first event happened.
    start : int or None
        The time at which it happened, in microseconds since the Unix epoch, instead of `history`.

    Raises
    ------
    RequestError
        For a value that is not allowed.
    """
    if not 0 <= history <= now:
        given = f"{history / DAY:,.6g} days" if history > DAY else f"{history / 1e6:,g} seconds"
        raise RequestError(f"history must be from 0 to the {now // DAY:,} days since 1970, not {given}")
    begin = now - history if start is None else start
    if not 0 <= begin <= now:
        raise RequestError(f"start must be a time from 1970 until now, not {_named(begin)}")
    return Entry(first, begin, begin, rate, paused)


def _named(instant: int) -> str:
    """Return a time as an error message names it."""
    try:
        return rfc3339(instant)
    except OverflowError:
        return f"{instant} us from 1970"


_TYPES: tuple[tuple[str, Any, str], ...] = (
    ("first", int, "a whole number"),
    ("since", str, "an RFC 3339 time"),
    ("start", str, "an RFC 3339 time"),
    ("rate", (int, float), "a number"),
    ("paused", bool, "true or false"),
    ("scenario", (list, type(None)), "a list of scenarios or null"),
)

# A rate is stored in whole millionths of an event per second and a time in whole microseconds, so the k-th of
# evenly spaced events comes floor(k * _SCALE / millionths) microseconds after the first of an entry.
_SCALE = 10**12

# j * _SCALE + remainder must fit a signed 64-bit integer: j below 9.2 million.
_PIECE = 1 << 22

_LENGTH = (
    SECTION * STEPS
)  # of a section in operational time; times _SCALE it fits a signed 64-bit integer too


class Timeline:
    """The append-only list of entries; safe to read and to change from any thread.

    Times are whole microseconds since the Unix epoch, UTC. They strictly increase with the event number,
    through every change.

    Parameters
    ----------
    entries : iterable of Entry
        At least one, in order.
    arrivals : Arrivals
        How the events follow each other.

    Raises
    ------
    StreamError
        If there are no entries, or one does not follow the one before it.

    Notes
    -----
    Event `n` of an entry happens at ``start + (n - first) + floor(u * (1 / rate - 1 us))``, where `u` is how
    far it lies behind `first` in operational time, counted in events on average (`Arrivals`): a point process
    with a dead time of one microsecond, which strictly increases at any rate, has exactly this rate, and is
    the straight line ``start + floor((n - first) / rate)`` if arrivals are even.

    Examples
    --------
    >>> timeline = Timeline([first_entry(1_000_000, rate=4)])
    >>> timeline.times(0, 4).tolist()
    [1000000, 1250000, 1500000, 1750000]
    >>> timeline.count(1_600_000)
    3
    >>> timeline.change(1_600_000, rate=40).first  # 0.6 of the way was left: 15 ms at the new rate
    3
    >>> timeline.times(2, 5).tolist()
    [1500000, 1615000, 1640000]
    """

    shared = False
    """Whether other processes can change it, so that `refresh` has something to do."""

    latest = 0
    """Microseconds since 1970: the latest time that was read, or that the processes before have reached."""

    @property
    def reached(self) -> int:
        """Microseconds since 1970: the latest time that the clock of any process has shown; 0 in memory."""
        return 0

    def __init__(self, entries: Iterable[Entry], arrivals: Arrivals = EVEN) -> None:
        self._entries: tuple[Entry, ...] = ()
        self._arrivals = arrivals
        self._origins: dict[int, int] = {}  # position in operational time by first event number of an entry
        self._lock = threading.Lock()
        self._extend(entries)
        if not self._entries:
            raise StreamError("a timeline needs at least one entry")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self._entries)} entries, last {self.last}>"

    def _repr_html_(self) -> str:
        now, entries = wall_clock(), self._entries
        shown = entries[-_SHOWN_ENTRIES:]
        number = "1 entry" if len(entries) == 1 else f"{len(entries):,} entries"
        older = f", the last {len(shown)} of them" if len(shown) < len(entries) else ""
        rows = "".join(
            f"<tr><td>{entry.first:,}</td><td>{rfc3339(entry.since)}</td><td>{entry.rate:,g}</td>"
            f"<td>{'yes' if entry.paused else 'no'}</td><td>{escape(entry.scenario or 'none')}</td>"
            f"<td>{escape('; '.join(fault.words for fault in entry.faults) or 'none')}</td></tr>"
            for entry in shown
        )
        return (
            f"<p><b>{type(self).__name__}</b> of {number}{older}; arrivals {self._arrivals.kind}; "
            f"at {rfc3339(now)[:19]}Z {self.count(self.known_until(now)):,} events had happened</p>"
            f"<table><thead><tr><th>from event</th><th>takes effect</th><th>events/s</th>"
            f"<th>paused</th><th>scenario</th><th>faults</th></tr></thead><tbody>{rows}</tbody></table>"
        )

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries, oldest first."""
        return self._entries

    @property
    def last(self) -> Entry:
        """The newest entry: in force, or about to be."""
        return self._entries[-1]

    @property
    def arrivals(self) -> Arrivals:
        """How the events follow each other."""
        return self._arrivals

    def known_until(self, now: int) -> int:
        """Return the time up to which this timeline is certain, at most `now` (microseconds).

        No entry that is still to come, from whichever process, changes what happens until then.
        """
        return now

    def refresh(self) -> bool:
        """Read entries that other processes have added; return whether that was possible at once."""
        return True

    def close(self) -> None:
        """Close the file, if there is one; the timeline can still be read, but not changed."""

    def count(self, now: int) -> int:
        """Return how many events have happened up to and including `now` (microseconds).

        This is the number of the next event, and the exact inverse of `time`.
        """
        entries = self._entries
        place = bisect_right(entries, now, key=_since)
        return self._count(entries[max(place - 1, 0)], now)

    def time(self, number: int) -> int:
        """Return the time of one event in microseconds; see `times`."""
        entries = self._entries
        _require(entries, number, number + 1)
        return self._time(entries[bisect_right(entries, number, key=_first) - 1], number)

    def wait(self, number: int, now: int) -> int | None:
        """Return how many microseconds after `now` an event will happen, 0 if it has happened.

        Returns
        -------
        int or None
            None if a pause holds the event back.

        Raises
        ------
        StreamError
            For a number before the first entry.
        """
        entries = self._entries
        if entries[-1].paused and number >= entries[-1].first:
            return None
        _require(entries, number, number + 1)
        return max(0, self._time(entries[bisect_right(entries, number, key=_first) - 1], number) - now)

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
        _require(entries, start, stop)
        times = np.empty(max(stop - start, 0), np.int64)
        number = start
        place = bisect_right(entries, start, key=_first) - 1
        while number < stop:
            entry = entries[place]
            place += 1
            end = min(stop, entries[place].first) if place < len(entries) else stop
            while number < end:
                left = _PIECE if self._arrivals.kind == "even" else SECTION - number % SECTION
                piece = min(end - number, left)
                self._fill(entry, number, times[number - start : number - start + piece])
                number += piece
        return times

    def scenarios(
        self, start: int, stop: int
    ) -> Iterator[tuple[int, int, tuple[Scenario, ...], tuple[Entry, ...]]]:
        """Give the parts of a range in which the same scenarios are in force.

        Yields
        ------
        tuple of (int, int, tuple of Scenario, tuple of Entry)
            First event number, the number after the last, the scenarios in force, and for each the entry
            with which it took effect.
        """
        entries = self._entries
        for low, high, place in _stretches(entries, start, stop, lambda entry: entry.scenarios):
            scenarios = entries[place].scenarios
            yield low, high, scenarios, tuple(self._begun(entries, place, s) for s in scenarios)

    def faults(self, start: int, stop: int) -> Iterator[tuple[int, int, tuple[Fault, ...]]]:
        """Give the parts of a range to whose events the same faults happen.

        Yields
        ------
        tuple of (int, int, tuple of Fault)
            First event number, the number after the last, and the faults.
        """
        entries = self._entries
        for low, high, place in _stretches(entries, start, stop, lambda entry: entry.faults):
            yield low, high, entries[place].faults

    def snapshot(self) -> Timeline:
        """Return a timeline that stays as this one is now, whatever other threads change."""
        taken = Timeline.__new__(Timeline)
        taken._entries, taken._arrivals = self._entries, self._arrivals  # noqa: SLF001 - of the same class
        taken._origins, taken._lock = self._origins, threading.Lock()  # noqa: SLF001
        return taken

    @staticmethod
    def _begun(entries: tuple[Entry, ...], place: int, scenario: Scenario) -> Entry:
        """Return the entry from which a scenario has been in force until that at `place`."""
        while place and scenario in entries[place - 1].scenarios:
            place -= 1
        return entries[place]

    def change(
        self,
        now: int,
        *,
        rate: float | None = None,
        paused: bool | None = None,
        scenarios: tuple[Scenario, ...] | None = None,
        faults: tuple[Fault, ...] | None = None,
    ) -> Entry:
        """Append an entry with the given settings changed and return it; the last one if nothing changes.

        Scenarios that change the rate multiply it while they are in force, unless it is given.

        The phase is kept: if a part of the wait for the next event has passed, only the rest of it remains,
        at the new rate, so that a dragged slider neither bursts nor starves; a pause freezes that rest.
        Events that have happened by `now` (microseconds) never change.

        Raises
        ------
        RequestError
            For a value that is not allowed.
        """
        with self._lock:
            entry = self._changed(now, rate, paused, scenarios, faults)
            if entry is not self.last:
                self._entries = (*self._entries, entry)
            return entry

    def _changed(
        self,
        now: int,
        rate: float | None,
        paused: bool | None,
        scenarios: tuple[Scenario, ...] | None,
        faults: tuple[Fault, ...] | None,
    ) -> Entry:
        """Return the entry that makes a change from `now` on; the last one if nothing changes."""
        last = self.last
        if scenarios is None:
            scenarios = last.scenarios
        if rate is None and scenarios != last.scenarios:
            before, after = (math.prod(s.rate for s in given) for given in (last.scenarios, scenarios))
            rate = round(last.rate / before * after, 6)
        wanted = replace(
            last,
            rate=last.rate if rate is None else rate,
            paused=last.paused if paused is None else paused,
            scenarios=scenarios,
            faults=last.faults if faults is None else faults,
        )
        if wanted == last:
            return last
        now = max(now, last.since)  # a clock that was set back must not rewrite the past
        first = self._count(last, now)
        remaining = last.start - last.since if last.paused else self._time(last, first) - now
        # Round up, and to at least 1 us: what is new must come after everything that has happened.
        left = max(1, -(-remaining * last.millionths // wanted.millionths))
        return replace(wanted, first=first, since=now, start=now + left)

    def _extend(self, entries: Iterable[Entry]) -> None:
        """Append entries if each follows the one before it."""
        known = list(self._entries)
        for entry in entries:
            if known and (
                entry.since < known[-1].since
                or entry.start <= entry.since
                or entry.first != self._count(known[-1], entry.since)
            ):
                raise StreamError(f"timeline entry {entry} does not follow {known[-1]}")
            known.append(entry)
        self._entries = tuple(known)

    def _origin(self, entry: Entry) -> int:
        """Return where the first event of an entry lies in operational time."""
        origin = self._origins.get(entry.first)
        if origin is None:
            origin = self._origins[entry.first] = self._arrivals.position(entry.first)
        return origin

    def _time(self, entry: Entry, number: int) -> int:
        """Return the time of an event from `entry.first` on, as if this entry were the last."""
        passed = self._arrivals.position(number) - self._origin(entry)
        waited = passed * (_SCALE - entry.millionths) // (STEPS * entry.millionths)
        return entry.start + number - entry.first + waited

    def _count(self, entry: Entry, now: int) -> int:
        """Return how many events have happened by `now`, if an entry is in force then."""
        if entry.paused or now < entry.start:
            return entry.first
        rate, passed = entry.millionths, now - entry.start
        if self._arrivals.kind == "even":
            return entry.first + ((passed + 1) * rate - 1) // _SCALE + 1
        # Sections begin at equal distances in time: the last that has begun, and then the place in it.
        origin, slack, unit = self._origin(entry), _SCALE - rate, STEPS * rate
        section = ((passed + entry.first + 1) * unit + origin * slack - 1) // (_LENGTH * _SCALE)
        positions = self._arrivals.positions(section)
        ahead, begun = section * SECTION - entry.first, section * _LENGTH - origin

        def delay(place: int) -> int:
            return ahead + place + (begun + int(positions[place])) * slack // unit

        return section * SECTION + bisect_right(range(SECTION), passed, key=delay)

    def _fill(self, entry: Entry, number: int, times: NDArray[np.int64]) -> None:
        """Fill in the times of one entry's events from `number` on, at most `_PIECE`, within one section."""
        rate, ahead = entry.millionths, number - entry.first
        if self._arrivals.kind == "even":
            whole, rest = divmod(ahead * _SCALE, rate)
            np.multiply(np.arange(len(times)), _SCALE, out=times)
            times += rest
            times //= rate
        else:
            section, place = divmod(number, SECTION)
            slack, unit = _SCALE - rate, STEPS * rate
            whole, rest = divmod((section * _LENGTH - self._origin(entry)) * slack, unit)
            np.multiply(self._arrivals.positions(section)[place : place + len(times)], slack, out=times)
            times += rest
            times //= unit
            times += np.arange(ahead, ahead + len(times))
        times += entry.start + whole


def _stretches(
    entries: tuple[Entry, ...], start: int, stop: int, setting: Callable[[Entry], object]
) -> Iterator[tuple[int, int, int]]:
    """Give the parts of a range in which a setting is the same, and where their first entries are."""
    place = max(bisect_right(entries, start, key=_first) - 1, 0)
    while start < stop:
        end = place + 1
        while end < len(entries) and entries[end].first < stop:
            if setting(entries[end]) != setting(entries[place]):
                break
            end += 1
        number = min(stop, entries[end].first) if end < len(entries) else stop
        if start < number:
            yield start, number, place
        start, place = number, end


def _require(entries: tuple[Entry, ...], start: int, stop: int) -> None:
    """Raise if events of a range have no time."""
    first, last = entries[0].first, entries[-1]
    if start < first:
        raise StreamError(f"event {start} is before the stream, which begins with {first}")
    if last.paused and stop > max(start, last.first):
        raise StreamError(f"event {stop - 1} has no time yet: the stream is paused before {last.first}")


def _since(entry: Entry) -> int:
    return entry.since


def _first(entry: Entry) -> int:
    return entry.first

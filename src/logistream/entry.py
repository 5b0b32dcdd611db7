"""One entry of a timeline, and its JSON form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from logistream.errors import DataError, StreamError
from logistream.instants import parse_rfc3339, rfc3339

__all__ = ["MAX_RATE", "MIN_RATE", "Entry"]

MIN_RATE = 1e-6
"""Lowest rate that an entry can hold, in events per second: one millionth."""

MAX_RATE = 1e6
"""Highest rate that an entry can hold, in events per second: one event a microsecond."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One stretch of the timeline.

    Parameters
    ----------
    first : int
        The event number from which this entry holds.
    since : int
        The moment at which the entry takes effect, in microseconds since the Unix epoch. Every event before
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

    Raises
    ------
    StreamError
        For a rate outside `MIN_RATE` to `MAX_RATE`, a negative `first`, or `start` before `since`.
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

    def to_json(self) -> dict[str, Any]:
        """Return the entry as a JSON object, times as RFC 3339 in UTC with microseconds.

        Examples
        --------
        >>> Entry(0, 1_000_000, 1_000_000, 2.0).to_json()["since"]
        '1970-01-01T00:00:01.000000Z'
        """
        return {
            "first": self.first,
            "since": rfc3339(self.since),
            "start": rfc3339(self.start),
            "rate": self.rate,
            "paused": self.paused,
            "scenario": self.scenario,
        }

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
        if obj.keys() != set(cls.__slots__):
            raise DataError(
                f"a timeline entry has the keys {', '.join(cls.__slots__)}, not {', '.join(obj):.80}"
            )
        for key, kinds, expected in _TYPES:
            if not isinstance(obj[key], kinds) or isinstance(obj[key], bool) != (kinds is bool):
                raise DataError(f"{key} of a timeline entry must be {expected}, not {obj[key]!r:.60}")
        try:
            since, start = parse_rfc3339(obj["since"]), parse_rfc3339(obj["start"])
            return cls(obj["first"], since, start, float(obj["rate"]), obj["paused"], obj["scenario"])
        except (ValueError, OverflowError, StreamError) as error:
            raise DataError(f"a timeline entry has a value that is not allowed: {error}") from None


_TYPES: tuple[tuple[str, Any, str], ...] = (
    ("first", int, "a whole number"),
    ("since", str, "an RFC 3339 time"),
    ("start", str, "an RFC 3339 time"),
    ("rate", (int, float), "a number"),
    ("paused", bool, "true or false"),
    ("scenario", (str, type(None)), "a text or null"),
)

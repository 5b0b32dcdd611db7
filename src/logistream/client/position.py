"""Where a reader is in a stream: the next event that it requests, and which events it drops as repeats.

After a break a reader requests what comes after its last event. A repeated event is recognised by its number,
and a repeated delivery by its place. No sockets here.
"""

from __future__ import annotations

from contextlib import suppress

from logistream.errors import RequestError
from logistream.stream.query import Place, parse_place

__all__ = ["Position"]


class Position:
    """What was taken of a stream, and what comes next.

    Parameters
    ----------
    start : str or None
        Where to start in a stream of which nothing was taken: a value of the parameter `start`, None for the
        next event that happens.
    filtered : bool
        Whether events are left out on purpose, or by faults of the wire: then a gap between two numbers does
        not mean a loss.

    Attributes
    ----------
    stream_id : str or None
        Identity of the stream; None before the first connection.
    place : Place or None
        Of the next delivery, or of a later one if filtered; None before the first connection. Without faults
        of the wire its slot is the number of the next event.
    restarts : int
        How often another stream was found in place of the one that was read.
    missed : int
        Events that were requested and left out; counted before filtering.
    """

    def __init__(self, start: str | None = None, *, filtered: bool = False) -> None:
        self._start = start
        self._filtered = filtered
        self.stream_id: str | None = None
        self.place: Place | None = None
        self.restarts = 0
        self.missed = 0

    @property
    def start(self) -> str | None:
        """What to request at the next connection."""
        return self._start if self.place is None else self.place.short

    @property
    def next_number(self) -> int | None:
        """Number of the next event, or of a later one if filtered; None before the first connection."""
        return None if self.place is None else self.place.slot + (self.place.index > 0)

    def enter(self, stream_id: str, number: int | None) -> bool:
        """Record the stream that answers.

        Parameters
        ----------
        stream_id : str
            Identity of the stream.
        number : int or None
            Number of the first event of this connection; None in a refusal.

        Returns
        -------
        bool
            False if the next number of another stream was requested: request again, with `start`.
        """
        known, requested = self.stream_id, self.place
        self.stream_id = stream_id
        if known not in (None, stream_id):
            self.restarts += 1
            self.place = None
            if requested is not None:
                return False
        if self.place is None and number is not None:
            begin = _begin(self._start)
            self.place = begin if begin is not None and begin.slot == number else Place(number)
        return True

    def take(self, place: Place) -> bool:
        """Move past a delivery; return False if it was taken before."""
        if self.place is not None and place < self.place:
            return False
        expected = self.next_number
        if expected is not None and place.slot > expected and not self._filtered:
            self.missed += place.slot - expected
        self.place = place.next
        return True

    def take_range(self, first: int, stop: int) -> int:
        """Move past events `first` to `stop` (exclusive); return how many of them were taken before."""
        expected = first if self.next_number is None else self.next_number
        if first > expected and not self._filtered:
            self.missed += first - expected
        self.place = Place(max(expected, stop))
        return min(max(0, expected - first), stop - first)

    def skip(self, count: int) -> None:
        """Count events that the server reports as left out."""
        if self._filtered:  # otherwise `take_range` counts them by the gap between the numbers
            self.missed += count


def _begin(start: str | None) -> Place | None:
    """Return the place that was requested; None if it was not a place or a number."""
    with suppress(RequestError):
        return None if start is None else parse_place("start", start)
    return None

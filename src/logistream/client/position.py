"""Where a reader stands in a numbered stream: what it asks for after a break, and what it drops.

Every event has a number, so a reader that was away asks for the next one that it is owed, and what it gets
twice is dropped by its number. No sockets here.
"""

from __future__ import annotations

__all__ = ["Position"]


class Position:
    """What was taken of a stream, and what comes next.

    Parameters
    ----------
    start : str or None
        Where to begin in a stream of which nothing was taken: a value of the parameter `start`, None for the
        next event that happens.
    filtered : bool
        Whether events are left out on purpose: then a gap between two numbers is no loss.

    Attributes
    ----------
    stream_id : str or None
        Which stream it is; None if the server does not number its events, or before the first connection.
    next_number : int or None
        The number that the next event has, or a later one if filtered; None if it is not known.
    restarts : int
        How often another stream stood in the place of the one that was read.
    missed : int
        Events that were left out though they were asked for; of all events, if filtered.
    """

    def __init__(self, start: str | None = None, *, filtered: bool = False) -> None:
        self._start = start
        self._filtered = filtered
        self.stream_id: str | None = None
        self.next_number: int | None = None
        self.restarts = 0
        self.missed = 0

    @property
    def start(self) -> str | None:
        """What to ask for at the next connection."""
        return self._start if self.next_number is None else str(self.next_number)

    def enter(self, stream_id: str | None, number: int | None) -> bool:
        """Note what a server says of its stream when it answers.

        Parameters
        ----------
        stream_id : str or None
            Identity of its stream; None if it numbers nothing.
        number : int or None
            Number of the event from which this connection reads, if it says.

        Returns
        -------
        bool
            False if this is another stream than the one whose next number was asked for: then the reader
            begins anew, and `start` says with what.
        """
        resumed = self.next_number is not None
        if self.stream_id not in (None, stream_id):
            self.restarts += 1
            self.next_number = None
            self.stream_id = stream_id
            if resumed and stream_id is not None:
                return False
        self.stream_id = stream_id
        if self.next_number is None and stream_id is not None:
            self.next_number = number
        return True

    def take(self, number: int) -> bool:
        """Tell whether an event is to be taken, and stand behind it; False for one that was taken before."""
        return self.take_range(number, number + 1) == 0

    def take_range(self, first: int, stop: int) -> int:
        """Stand behind events `first` to `stop` (exclusive); return how many of them were taken before."""
        expected = first if self.next_number is None else self.next_number
        if first > expected and not self._filtered:
            self.missed += first - expected
        self.next_number = max(expected, stop)
        return min(max(0, expected - first), stop - first)

    def skip(self, count: int) -> None:
        """Note that the server says it has left out so many events."""
        if self._filtered:  # else the gap between the numbers tells, and would be counted twice
            self.missed += count

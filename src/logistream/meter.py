"""The rate that readers really get, to hold against the one that was asked for."""

from __future__ import annotations

import math
from collections import deque

__all__ = ["RateMeter"]

_SPAN = 10.0  # seconds
_FEWEST = 10  # events: where they are rare, the span is as long as these took
_POINTS = 100  # kept for a span


class RateMeter:
    """Events per second that reach readers, over ten seconds, or over ten events where they are rare.

    What has happened in a stream tells nothing of a server: it would be the same if none were sent. So only
    what is handed to readers counts, each event once, whoever gets it first: the rate is that of the reader
    that is served best, however many there are.
    """

    def __init__(self) -> None:
        self._front = 0  # number after the newest event that was handed to anybody
        self._handed = 0  # events, each once
        self._points: deque[tuple[float, int]] = deque()  # moments of handing, and how many were handed then

    def restart(self, number: int) -> None:
        """Forget what was, because another rate is in force or nobody is there to be handed anything.

        Parameters
        ----------
        number : int
            Of the next event to happen.
        """
        self._front = number
        self._points.clear()

    def hand(self, start: int, stop: int, moment: float) -> None:
        """Count events `start` to `stop` as handed to a reader.

        Parameters
        ----------
        start, stop : int
            Event numbers, `stop` excluded.
        moment : float
            Seconds on a clock that never runs backwards.
        """
        if stop <= self._front:
            return
        self._handed += stop - max(start, self._front)
        self._front = stop
        points = self._points
        # The last of the points moves along until it is far enough from the one before it.
        if len(points) > 1 and points[-1][0] - points[-2][0] < _SPAN / _POINTS:
            points.pop()
        points.append((moment, self._handed))
        self._trim(moment)

    def rate(self, moment: float, number: int) -> float:
        """Return the events per second.

        Parameters
        ----------
        moment : float
            Now, on the clock of `hand`.
        number : int
            Of the next event to happen.

        Returns
        -------
        float
            NaN as long as too little has happened to tell; 0 if events have happened and nobody gets any.
        """
        self._trim(moment)
        points = self._points
        if len(points) < 2 or points[-1][0] <= points[0][0]:
            return 0.0 if number > self._front else math.nan
        (first, before), (last, after) = points[0], points[-1]
        count, seconds = after - before, last - first
        # The time since the last event counts only as far as it is longer than usual: then one is late.
        return count / max(seconds, moment - first - seconds / count)

    def _trim(self, moment: float) -> None:
        """Forget what lies before the span."""
        points = self._points
        while len(points) > 2 and points[1][0] < moment - _SPAN and points[-1][1] - points[1][1] >= _FEWEST:
            points.popleft()

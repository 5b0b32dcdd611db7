"""The rate that a server really reaches, measured by what its readers get."""

from __future__ import annotations

import math
from collections import deque

__all__ = ["RateMeter"]


_SPAN = 10.0  # seconds
_FEWEST = 10  # events: where they are rare, the span is as long as these took
_POINTS = 100  # kept for a span


class RateMeter:
    """Events per second that reach readers, over ten seconds, or over ten events where they are rare.

    How many events have happened says nothing about a server: it would be the same if none were sent. So only
    events that were handed to a reader count, each once. This is the rate of the reader that is served best.
    """

    def __init__(self) -> None:
        self._front = 0  # number after the newest event that was handed to a reader
        self._handed = 0  # events, each once
        self._points: deque[tuple[float, int]] = deque()  # when events were handed, and how many were by then

    def restart(self, number: int) -> None:
        """Start again, because another rate is in force or no reader is live.

        Parameters
        ----------
        number : int
            Of the next event to happen.
        """
        self._front = number
        self._points.clear()

    def hand(self, start: int, stop: int, now: float) -> None:
        """Count events `start` to `stop` as handed to a reader.

        Parameters
        ----------
        start, stop : int
            Event numbers, `stop` excluded.
        now : float
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
        points.append((now, self._handed))
        self._trim(now)

    def rate(self, now: float, number: int) -> float:
        """Return the events per second.

        Parameters
        ----------
        now : float
            Seconds on the clock of `hand`.
        number : int
            Of the next event to happen.

        Returns
        -------
        float
            NaN while too little has happened for a rate; 0 if events have happened and no reader gets any.
        """
        self._trim(now)
        points = self._points
        if len(points) < 2 or points[-1][0] <= points[0][0]:
            return 0.0 if number > self._front else math.nan
        (first, before), (last, after) = points[0], points[-1]
        count, seconds = after - before, last - first
        # The time since the last event counts only as far as it is longer than usual: then one is late.
        return count / max(seconds, now - first - seconds / count)

    def _trim(self, now: float) -> None:
        """Remove the points before the span."""
        points = self._points
        while len(points) > 2 and points[1][0] < now - _SPAN and points[-1][1] - points[1][1] >= _FEWEST:
            points.popleft()

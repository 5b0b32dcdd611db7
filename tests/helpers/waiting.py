"""Wait for states, never for durations; and measure durations where they are the claim."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["at_best", "seconds_until", "until"]


def until(condition: Callable[[], bool], *, within: float = 60.0) -> None:
    """Return as soon as the condition holds; fail if it does not `within` so many seconds."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {within} s"
        time.sleep(0.005)


def seconds_until(condition: Callable[[], bool]) -> float:
    """Wait until the condition holds; return how long that took."""
    began = time.monotonic()
    until(condition)
    return time.monotonic() - began


def at_best(measure: Callable[[], float], *, below: float) -> None:
    """Measure up to six times, until a measurement is below a limit; fail if none is.

    What the machine does besides makes some measurements worse, and none better.
    """
    measured: list[float] = []
    while len(measured) < 6 and min(measured, default=below) >= below:
        measured.append(measure())
    assert min(measured) < below, f"never below {below}: {measured}"

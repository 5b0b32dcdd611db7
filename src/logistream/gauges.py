"""What a server counts: a row of numbers for each of its processes, in memory that they can share."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import numpy as np

__all__ = ["Gauge", "Gauges"]

Gauge: TypeAlias = Literal[
    "clients", "events_sent", "bytes_sent", "connected", "refused", "lag_events", "rate_held"
]
"""Readers now; events and octets handed to readers, handshakes accepted and refused, all since the start;
how many events the slowest reader is behind; events per second that readers get, NaN if that is not known."""

_NAMES: tuple[str, ...] = get_args(Gauge)


class Gauges:
    """The counts of one process, and their sums over all that share the memory.

    Parameters
    ----------
    memory : writable buffer or None
        Of `Gauges.size(rows)` bytes; None for a process of its own.
    row : int
        Which of the rows this process writes.
    """

    def __init__(self, memory: Any = None, row: int = 0) -> None:  # noqa: ANN401 - any buffer
        buffer = bytearray(self.size(1)) if memory is None else memory
        self._all = np.frombuffer(buffer, np.float64).reshape(-1, len(_NAMES))
        self._own = self._all[row]
        self._own[:] = 0

    @staticmethod
    def size(rows: int) -> int:
        """Return how many bytes so many rows take."""
        return rows * len(_NAMES) * 8

    def set(self, name: Gauge, value: float) -> None:
        """Write a value of this process."""
        self._own[_NAMES.index(name)] = value

    def add(self, name: Gauge, amount: float = 1) -> None:
        """Count in this process."""
        self._own[_NAMES.index(name)] += amount

    def total(self, name: Gauge) -> int:
        """Return a value of all processes: the sum, or the largest for a lag."""
        column = self._all[:, _NAMES.index(name)]
        return int(column.max() if name == "lag_events" else column.sum())

    def least(self, name: Gauge) -> float:
        """Return the smallest value of a process; NaN if none has any."""
        return float(np.fmin.reduce(self._all[:, _NAMES.index(name)]))

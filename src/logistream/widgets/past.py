"""Count older stretches of a stream, which the server makes again."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from logistream.frame.events import events
from logistream.widgets.cells import MISSING_LABEL, OTHERS, Cells

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from logistream.stream.timeline import Timeline
    from logistream.widgets.choice import Columns

__all__ = ["Past", "count_past", "numbers_between"]


MOST_CELLS = 240
"""Cells of a stretch of the past, at most."""

MOST_SAMPLES = 60
"""Cells of a stretch of which only a sample is counted: each costs a request."""

MOST_EVENTS = 100_000
"""Events that are made again for one stretch; of a longer one each cell is represented by a sample."""

_SHORTEST = 0.25  # seconds of a cell


@dataclass(frozen=True, slots=True)
class Past:
    """Counts of an older stretch.

    Attributes
    ----------
    cells : Cells
        The counts, of a sample of each cell where there are too many events.
    weights : ndarray of float64, shape (n_cells,)
        Events that each counted event stands for.
    first : int
        Number of the first cell.
    """

    cells: Cells
    weights: NDArray[np.float64]
    first: int

    @property
    def stop(self) -> int:
        """End of the last cell, microseconds since 1970."""
        return round((self.first + len(self.weights)) * self.cells.step * 1e6)

    @property
    def is_sample(self) -> bool:
        """Whether not every event was counted."""
        return bool((self.weights > 1).any())


def numbers_between(timeline: Timeline, start: int, stop: int, newest: int) -> tuple[int, int]:
    """Return first and stop of the event numbers whose times are in `[start, stop)` microseconds."""
    first = timeline.count(start - 1)
    return first, max(first, min(timeline.count(stop - 1), newest))


def count_past(
    url: str,
    timeline: Timeline,
    start: int,
    stop: int,
    *,
    newest: int,
    columns: Columns,
    filters: Mapping[str, Iterable[str]],
    labels: Iterable[str],
) -> Past:
    """Count the events from `start` to `stop` (microseconds since 1970).

    Parameters
    ----------
    url : str
        HTTP address of the server.
    newest : int
        Number of the next event: later ones have not happened.
    labels : iterable of str
        Groups that get a column of their own.

    Raises
    ------
    RequestError, StreamError
        If the server refuses, or cannot be reached.
    """
    low, high = numbers_between(timeline, start, stop, newest)
    most_cells = MOST_CELLS if high - low <= MOST_EVENTS else MOST_SAMPLES
    step = max(1, -(-(stop - start) // round(most_cells * _SHORTEST * 1e6))) * _SHORTEST
    micros = round(step * 1e6)
    first = start // micros
    last = max(first, stop // micros - 1)  # a cell that is not over would show too low a rate
    count = last - first + 1
    cells = Cells(columns, step=step, size=count, filters=filters, labels=labels)
    wanted = {
        name: [None if value == MISSING_LABEL else value for value in values if value != OTHERS]
        for name, values in filters.items()
        if name != columns.by
    }
    low, high = numbers_between(timeline, first * micros, (last + 1) * micros, newest)
    weights = np.ones(count)
    if most_cells == MOST_CELLS:
        spans = [(low, high)] if high > low else []
    else:
        bounds = [timeline.count((first + place) * micros - 1) for place in range(count + 1)]
        bounds = [min(bound, newest) for bound in bounds]
        most = MOST_EVENTS // count
        spans = []
        for place, (begin, end) in enumerate(itertools.pairwise(bounds)):
            taken = min(end - begin, most)
            if taken > 0:
                spans.append((begin, begin + taken))
                weights[place] = (end - begin) / taken
    for begin, end in spans:
        cells.update(events(url, begin, end, columns=cells.needs, where=wanted))
    cells.complete(first, last)
    return Past(cells, weights, first)

"""The counts of a frame, with the columns, the filters and the stretch of time that a person looks at."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from logistream.errors import RequestError
from logistream.schema import EVENT_TIME
from logistream.widgets.cells import Cells, matching
from logistream.widgets.choice import Columns, check_columns, choose_columns, same_columns
from logistream.widgets.control import LocalControl
from logistream.widgets.summary import share_window

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import pandas as pd

    from logistream.frame.frame import RollingFrame
    from logistream.schema import Schema
    from logistream.widgets.watched import Watched

__all__ = ["SPANS", "Counts"]


SPANS = (30.0, 120.0, 300.0)
"""Lengths of the time axis that the bar offers, in seconds."""

_STEP = 0.25  # seconds per cell, on axes up to five minutes
_MOST_CELLS = 1200  # on the longest axis
_LONGEST_WINDOW = 60.0  # seconds over which shares are taken on the axes above
_SHORTEST_AXIS = 20_000_000  # microseconds, when the stream has just begun
_EXAMPLES = 2000  # rows from which the columns are chosen
_ENOUGH_EXAMPLES = 200  # with fewer the columns are chosen again later
_SEARCHED = 3000  # newest rows that are searched for those that match a filter


class Counts:
    """Counts of the events of a frame. The caller guards it by a lock.

    Parameters
    ----------
    watched : Watched
        The frame, and the server behind it.
    share, by : str or None
        Columns to draw; None chooses.
    span : float
        Seconds on the time axis at first.
    window : float or None
        Seconds over which shares and amounts are taken; None for a part of the axis.

    Attributes
    ----------
    columns : Columns
        The columns that are drawn.
    cells : Cells
        The counts.
    filters : dict of str to tuple of str
        Labels that are shown, by column.
    restarts : int
        How often the frame was counted from its start.
    position : int
        Events of the frame that were looked at.

    Raises
    ------
    RequestError
        For a frame without event times, and for columns that cannot be drawn.
    """

    def __init__(
        self, watched: Watched, *, share: str | None, by: str | None, span: float, window: float | None
    ) -> None:
        self._watched = watched
        self._wanted = {"share": share, "by": by}
        self.spans = sorted({*SPANS, span})
        self.window = window
        self.filters: dict[str, tuple[str, ...]] = {}
        self.restarts = 0
        self.position = 0
        self._span = span
        self.view: tuple[int, int] | None = None  # the axis in microseconds; None while it is live
        self._seen_at = time.monotonic()  # when the newest event was counted
        frame = watched.frame
        if frame is not None:
            self._learn(frame)

    @property
    def schema(self) -> Schema:
        """The columns of the frame."""
        return self._schema

    def _learn(self, frame: RollingFrame) -> None:
        """Choose the columns of a frame, and count it from its start."""
        control = self._watched.control
        if isinstance(control, LocalControl) and not frame.knows_columns:
            schema = control.server.model.event_schema
        else:
            schema = frame.schema
        if EVENT_TIME.name not in schema:
            raise RequestError(
                f"a dashboard needs the column {EVENT_TIME.name!r}, and the frame has only "
                f"{', '.join(schema.names)}"
            )
        check_columns(schema, **self._wanted)
        example = frame.tail(_EXAMPLES)
        if isinstance(control, LocalControl) and len(example) < _ENOUGH_EXAMPLES:
            model = control.server.model
            if same_columns(model.event_schema, schema):
                example = model.events(0, _EXAMPLES).to_pandas()
        self._schema, self._chosen_from = schema, len(example)
        self.columns: Columns = choose_columns(schema, example, **self._wanted)
        self._examples = example
        self._restart()

    def _restart(self) -> None:
        """Count the frame from its start, with the columns and filters now in force."""
        span = max(self.spans)
        step = max(_STEP, span / _MOST_CELLS)
        size = round((span + max(_LONGEST_WINDOW, self.window or 0.0)) / step) + 2
        by, labels = self.columns.by, list[str]()
        if by is not None and by in self._examples:
            counts = self._examples[by].astype("str").value_counts()
            labels = counts.index[counts > 0].tolist()
        self.cells = Cells(self.columns, step=step, size=size, filters=self.filters, labels=labels)
        self.position = 0
        self.restarts += 1

    def group_by(self, name: str) -> None:
        """Group by another column.

        Raises
        ------
        RequestError
            If it is not a category column.
        """
        check_columns(self._schema, None, name)
        self._wanted["by"] = name
        self.columns = choose_columns(self._schema, self._examples, **self._wanted)
        self._restart()

    def filter(self, wanted: Mapping[str, Iterable[str]]) -> None:
        """Count only events that have one of the labels in each of these columns."""
        known = {name: tuple(labels) for name, labels in wanted.items() if name in self._schema}
        self.filters = {name: labels for name, labels in known.items() if labels}
        self._restart()

    def look_at(self, view: tuple[int, int] | None, span: float | None) -> None:
        """Look at a stretch of time in microseconds since 1970, or (None) at the last `span` seconds."""
        self.view = view
        self._span = span or self._span

    def take_in(self) -> None:
        """Count what is new in the frame."""
        watched = self._watched
        frame = watched.frame
        if frame is None:
            return
        changed = frame.knows_columns and not same_columns(frame.schema, self._schema)
        undecided = self._chosen_from < _ENOUGH_EXAMPLES and frame.appended >= _ENOUGH_EXAMPLES
        if changed or undecided:
            try:
                self._learn(frame)
            except RequestError as error:  # too late to raise it: shown as the state
                watched.problem = str(error)
                self._wanted = {"share": None, "by": None}
                self._learn(frame)
        fresh, position = frame.since(self.position, self.cells.needs)
        missed = position - self.position - len(fresh)
        self.position = position
        before = self.cells.newest
        self.cells.update(fresh, missed=missed)
        if self.cells.newest != before:
            self._seen_at = time.monotonic()
        watched.note_reconnects(self.now())

    def now(self) -> int:
        """Return the right end of the live time axis, microseconds since 1970."""
        return self._watched.now(self.cells.newest, self._seen_at)

    def range(self) -> tuple[int, int]:
        """Return the stretch that is looked at, in microseconds since 1970."""
        if self.view is not None:
            return self.view
        now = self.now()
        start = now - round(self._span * 1e6)
        begun = self._watched.started
        if begun is None:
            begun = self.held_from()
        return max(start, min(begun or start, now - _SHORTEST_AXIS)), now

    def held_from(self) -> int | None:
        """Return since when all events are counted, microseconds since 1970; None without events."""
        begin = self.cells.begin
        return None if begin is None else round(begin * self.cells.step * 1e6)

    def window_of(self, start: int, stop: int) -> float:
        """Return over how many seconds shares are taken on an axis (microseconds)."""
        return self.window or share_window((stop - start) / 1e6)

    def newest_rows(self, frame: RollingFrame, most: int, *, fresh: int | None = None) -> pd.DataFrame:
        """Return up to `most` rows of a frame that match the filters, the newest last.

        With filters only the newest rows are searched, those that may be among the newest `fresh` first.
        """
        if not self.filters:
            return frame.tail(most if fresh is None else min(most, fresh))
        searched = _SEARCHED if fresh is None else min(_SEARCHED, max(fresh, _SEARCHED // 3))
        return matching(frame.tail(searched), self.filters).tail(most)

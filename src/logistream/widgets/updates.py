"""The messages that keep a page up to date: once everything, then what has changed."""

from __future__ import annotations

import functools
import json
import time
from typing import TYPE_CHECKING, Any

from logistream.dataco import TARGET
from logistream.schema import EVENT_TIME

if TYPE_CHECKING:
    import pandas as pd

    from logistream.schema import Schema
    from logistream.widgets.choice import Columns
    from logistream.widgets.control import Settings
    from logistream.widgets.counts import Counts
    from logistream.widgets.watched import Watched

__all__ = ["ROWS", "Updates", "headers_of"]


ROWS = 12
"""Rows of the table of newest rows."""

_HEARTBEAT = 1.0  # seconds after which a message is sent although nothing changed
_TABLE_EVERY = 0.9  # seconds between messages with rows
_MAP_EVERY = 2.0  # seconds between messages with the map


class Updates:
    """Makes the messages; the caller guards it by the lock of the counts.

    Each message has a number, one more than that of the message before. A page that misses one, or the
    first, asks for everything.

    Parameters
    ----------
    watched : Watched
        The frame, and the server behind it.
    counts : Counts or None
        What is counted; None for a widget that draws nothing.
    parts : tuple of str
        What is shown, of bar, state, tiles, time, groups, map and table.
    """

    def __init__(self, watched: Watched, counts: Counts | None, parts: tuple[str, ...]) -> None:
        self._watched, self._counts, self._parts = watched, counts, parts
        self._number = 0
        self._sent: dict[str, Any] = {}  # what the page has, by part
        self._sent_at = {"update": 0.0, "table": 0.0, "map": 0.0}
        self._restarts = 0  # of the counts, when the last message was made
        self._table_position = 0
        self.map_wanted = True

    def next(self, *, whole: bool = False) -> tuple[dict[str, Any], list[bytes]] | None:
        """Return the next message with its buffers; None if there is nothing new.

        Parameters
        ----------
        whole : bool
            Whether it holds everything, for a page that has nothing yet.
        """
        monotonic = time.monotonic()
        watched, counts = self._watched, self._counts
        content: dict[str, Any] = {"kind": "update"}
        buffers: dict[str, bytes] = {}
        if counts is not None:
            counts.take_in()
            counts.cells.advance(counts.now())
            if counts.restarts != self._restarts:
                self._restarts, self._table_position = counts.restarts, 0
                whole = True
        if whole:
            self._sent.clear()
            content["whole"] = True
        settings = watched.settings()
        parts: dict[str, Any] = {
            "state": list(watched.state()),
            "settings": _settings_message(settings),
            **watched.choices(),
            "marks": watched.marks(),
            "asked": watched.asked(),
        }
        if counts is not None:
            parts |= {
                "layout": self._layout(counts),
                "labels": counts.cells.labels[:],
                "begin": counts.cells.begin,
            }
            first, table = counts.cells.everything() if whole else counts.cells.changes()
            if len(table):
                content["cells"] = [first, *table.shape]
                buffers["cells"] = table.tobytes()
            if whole or monotonic - self._sent_at["table"] >= _TABLE_EVERY:
                content |= self._rows_message(counts, whole=whole)
            if whole or self.map_wanted or monotonic - self._sent_at["map"] >= _MAP_EVERY:
                self._sent_at["map"], self.map_wanted = monotonic, False
                self._add_map(counts, content, buffers)
        for name, value in parts.items():
            if name not in self._sent or self._sent[name] != value:
                content[name] = self._sent[name] = value
        if len(content) == 1 and monotonic - self._sent_at["update"] < _HEARTBEAT:
            return None
        self._sent_at["update"] = monotonic
        self._number += 1
        frame, follower = watched.frame, watched.follower
        content["number"] = self._number
        content["now"] = round((time.time() if counts is None else counts.now() / 1e6), 4)
        content["facts"] = [
            0 if frame is None else frame.appended,
            0 if frame is None else len(frame),
            watched.behind(settings),
            0 if follower is None else follower.missed,
            watched.lag(settings),
        ]
        content["buffers"] = list(buffers)
        return content, list(buffers.values())

    def _layout(self, counts: Counts) -> dict[str, Any]:
        """Return what the page must know to read the cells and to label them."""
        columns, schema, started = counts.columns, counts.schema, self._watched.started
        return {
            "step": counts.cells.step,
            "size": counts.cells.size,
            "share": columns.share,
            "title": columns.title,
            "hit": columns.hit,
            "rest": columns.rest,
            "by": columns.by,
            "groupings": list(columns.groupings),
            "amounts": [[a.label, a.unit, a.total] for a in columns.amounts],
            "place": columns.place,
            "spots": columns.positions,
            "names": [] if self._watched.frame is None else list(schema.names),
            "table": list(columns.table),
            "headers": headers_of(columns),
            "window": counts.window,
            "filters": {name: list(labels) for name, labels in counts.filters.items()},
            "started": None if started is None else started / 1e6,
            "noun": "orders" if TARGET in schema else "events",
            "units": {c.name: c.unit for c in schema if c.unit},
        }

    def _add_map(self, counts: Counts, content: dict[str, Any], buffers: dict[str, bytes]) -> None:
        columns, cells = counts.columns, counts.cells
        if "map" not in self._parts or (columns.place is None and columns.latitude is None):
            return
        start, stop = counts.range()
        first, last = cells.cell(start), cells.cell(stop)
        for name, found in (("countries", cells.countries(first, last)), ("spots", cells.spots(first, last))):
            data = found.tobytes()
            if self._sent.get(name) != data:
                self._sent[name] = buffers[name] = data
        if self._sent.get("countryNames") != len(cells.country_names):
            self._sent["countryNames"] = len(cells.country_names)
            content["countryNames"] = cells.country_names[:]

    def _rows_message(self, counts: Counts, *, whole: bool) -> dict[str, Any]:
        frame = self._watched.frame
        if frame is None or "table" not in self._parts:
            return {}
        fresh = frame.appended - self._table_position
        if not fresh and not whole:
            return {}
        self._sent_at["table"], self._table_position = time.monotonic(), frame.appended
        rows = counts.newest_rows(frame, ROWS, fresh=None if whole else fresh)
        return {"rows": _json_rows(rows, frame.schema), "allRows": bool(counts.filters) or whole}


def _settings_message(settings: Settings | None) -> dict[str, Any] | None:
    if settings is None:
        return None
    return {
        "reachable": settings.reachable,
        "rate": settings.rate,
        "paused": settings.paused,
        "clients": settings.clients,
    }


def headers_of(columns: Columns) -> dict[str, str]:
    """Return the headers of columns that are not shown by their names."""
    headers = {EVENT_TIME.name: "Time (UTC)"}
    if columns.share is not None:
        headers[columns.share] = columns.hit.capitalize() + "?"
    return headers | {amount.column: amount.label for amount in columns.amounts}


@functools.lru_cache(maxsize=8)
def _timestamp_formats(schema: Schema) -> dict[str, str | None]:
    return {column.name: column.text_format for column in schema if column.kind == "timestamp"}


def _json_rows(rows: pd.DataFrame, schema: Schema) -> list[list[Any]]:
    """Return rows as JSON values, timestamps as the published strings."""
    shown = rows.copy(deep=False)
    for name, form in _timestamp_formats(schema).items():
        if name in shown:
            shown[name] = shown[name].dt.strftime(form or "%Y-%m-%dT%H:%M:%S.%fZ")
    values: list[list[Any]] = json.loads(shown.to_json(orient="values", double_precision=6))
    return values

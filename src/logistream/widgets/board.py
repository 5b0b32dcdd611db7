"""The widget behind `Workbench`, `Dashboard` and `ControlPanel`: what it shows, sends and answers.

A thread counts what is new in the frame and sends the browser what changed, a few times a second and only
while somebody looks. The browser holds the counts, computes the lines and scrolls the time axis by itself.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import json
import logging
import sys
import threading
import time
import weakref
from importlib import resources
from typing import TYPE_CHECKING, Any

import anywidget
import numpy as np
import pandas as pd
import traitlets

from logistream.dataco import TARGET
from logistream.errors import RequestError, StreamError
from logistream.schema import EVENT_TIME
from logistream.widgets.cells import Cells, matching
from logistream.widgets.choice import Columns, check_columns, choose_columns, same_columns
from logistream.widgets.control import LocalControl
from logistream.widgets.export import copied_code, save_rows
from logistream.widgets.past import count_past
from logistream.widgets.static_image import HIDING_STYLE, Picture, draw_png

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from logistream.client.follower import Follower
    from logistream.frame.frame import RollingFrame
    from logistream.schema import Schema
    from logistream.widgets.control import Control, Settings

__all__ = ["SPANS", "Board"]

logger = logging.getLogger(__name__)

SPANS = (30.0, 120.0, 300.0)
"""Lengths of the time axis that the bar offers, in seconds."""

_STEP = 0.25  # seconds per cell, for spans up to five minutes
_MOST_CELLS = 1200  # on the longest span
_PERIOD = 0.15  # seconds between messages while somebody looks
_IDLE = 1.0  # seconds between counts while nobody does
_HEARTBEAT = 1.0  # seconds after which a message is sent although nothing changed
_TABLE_EVERY = 0.9  # seconds
_MAP_EVERY = 2.0
_IMAGE_EVERY = 10.0  # it is the largest of all messages
_IMAGE_SHARE = 15  # the thread draws images for no more than one part in so many of its time
_ROWS = 12  # of the table of newest rows
_SEARCHED = 3000  # newest rows that are searched for those that match a filter
_EXAMPLES = 2000  # rows looked at to choose columns
_ENOUGH_EXAMPLES = 200
_MOST_MARKS = 200
_PATIENCE = 5.0  # seconds for a thread that draws an image to come to its end
_SHORTEST = 20_000_000  # microseconds on the time axis at the least, when the stream has just begun
_STATIC = resources.files("logistream.widgets") / "static"
_SCRIPTS = (
    "format.js",
    "series.js",
    "bar.js",
    "tiles.js",
    "time.js",
    "groups.js",
    "map.js",
    "table.js",
    "board.js",
)


def _static(*names: str) -> str:
    return "\n".join(_STATIC.joinpath(*name.split("/")).read_text(encoding="utf-8") for name in names)


def _script() -> str:
    """Return uPlot, the coastline and our modules as one module: imports between them are left out."""
    modules = "\n".join(line for line in _static(*_SCRIPTS).splitlines() if not line.startswith("import "))
    land = _static("map/coastline.json")
    return f"{_static('uplot/uPlot.iife.min.js')}\nconst COASTLINE = {land};\n{modules}"


class Board(anywidget.AnyWidget):
    """A widget that shows a frame and steers a stream; its subclasses say with which parts.

    Parameters
    ----------
    parts : iterable of str
        What is shown, of bar (or state, its left end only), tiles, time, groups, map and table.
    frame : RollingFrame or None
        What is drawn.
    control : Control or None
        What is steered.
    hold : bool
        Whether the frame is kept alive by the widget.
    closing : iterable of callable
        Called when the widget is closed, in order.
    share, by : str or None
        Columns to draw; None chooses.
    span : float
        Seconds on the time axis at first.
    share_window : float or None
        Seconds over which shares and amounts are taken; None for a part of the span.
    """

    _esm = _script()
    _css = _static("uplot/uPlot.min.css", "board.css")
    config = traitlets.Dict().tag(sync=True)
    _closed = True  # until it is made: a widget whose making failed has nothing to close

    def __init__(
        self,
        parts: Iterable[str],
        *,
        frame: RollingFrame | None = None,
        control: Control | None = None,
        hold: bool = False,
        closing: Iterable[Callable[[], object]] = (),
        share: str | None = None,
        by: str | None = None,
        span: float = 120.0,
        share_window: float | None = None,
    ) -> None:
        self._control = control
        self._frame: Callable[[], RollingFrame | None] = lambda: None
        if frame is not None:
            self._frame = (lambda: frame) if hold else weakref.ref(frame)
        self._closing = list(closing)
        self._wanted = {"share": share, "by": by}
        self._spans = sorted({*SPANS, span})
        self._span, self._share_window = span, share_window
        self._view: tuple[int, int] | None = None  # of the time axis, us; None while it is live
        self._filters: dict[str, tuple[str, ...]] = {}
        self._lock = threading.RLock()  # guards what is counted against the threads of messages
        self._position = 0
        self._seen_at = time.monotonic()  # when the newest event was counted
        self._problem: str | None = None
        self._schema: Schema | None = None
        self._chosen_from = 0
        self._reconnects: list[int] = []  # when they were seen, us
        self._reconnects_seen = 0
        self._sent: dict[str, Any] = {}  # what the browser was told last, by part
        self._sent_at = {"update": 0.0, "table": 0.0, "map": 0.0, "image": 0.0}
        self._table_position = 0
        self._map_wanted = True
        self._image_state: object = None
        self._image_rest = _IMAGE_EVERY
        self._image_hidden = True  # by the page, while the widget lives
        self._views: set[str] = set()
        self._gone: set[str] = set()  # messages of a view may come in either order
        self._displayed = False
        self._closed = False
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._past_wanted: dict[str, Any] | None = None
        self._past_thread: threading.Thread | None = None
        self._display_id = f"logistream-{id(self)}"
        try:
            _check_length("span", span)
            _check_length("share_window", share_window)
            if frame is not None:
                self._learn(frame)
        except BaseException:
            for close in self._closing:
                close()
            raise
        super().__init__(
            config={
                "key": f"{id(self)}-{time.time_ns()}",
                "parts": list(parts),
                "spans": self._spans,
                "span": span,
                "steered": control is not None,
                "server": "" if control is None else control.url.partition("?")[0],
            }
        )
        self.on_msg(self._received)
        _open_boards.add(self)

    def __repr__(self) -> str:
        if self.comm is None:
            return f"<{type(self).__name__}, closed>"
        shown = self._frame()
        return f"<{type(self).__name__} of {shown if shown is not None else self.config['server']}>"

    # What is counted

    @property
    def columns(self) -> Columns | None:
        """The columns that are drawn; None for a widget that draws nothing."""
        return self._columns if self._schema is not None else None

    def _learn(self, frame: RollingFrame) -> None:
        """Choose the columns of a frame, and count it from its begin."""
        control = self._control
        if isinstance(control, LocalControl) and not frame.knows_columns:
            schema = control.server.model.event_schema
        else:
            schema = frame.schema
        if EVENT_TIME.name not in schema:
            raise RequestError(
                f"a dashboard needs the column {EVENT_TIME.name!r}, and the frame has only "
                f"{', '.join(schema.names)}"
            )
        share, by = self._wanted["share"], self._wanted["by"]
        check_columns(schema, share, by)
        example = frame.tail(_EXAMPLES)
        if isinstance(control, LocalControl) and len(example) < _ENOUGH_EXAMPLES:
            model = control.server.model
            if same_columns(model.event_schema, schema):
                example = model.events(0, _EXAMPLES).to_pandas()
        self._schema, self._chosen_from = schema, len(example)
        self._columns = choose_columns(schema, example, share=share, by=by)
        self._examples = example
        self._restart()

    def _restart(self) -> None:
        """Count the frame from its begin, with the columns and filters now in force."""
        span = max(self._spans)
        step = max(_STEP, span / _MOST_CELLS)
        window = max(60.0, self._share_window or 0.0)
        size = round((span + window) / step) + 2
        by, labels = self._columns.by, list[str]()
        if by is not None and by in self._examples:
            counts = self._examples[by].astype("str").value_counts()
            labels = counts.index[counts > 0].tolist()
        self._cells = Cells(self._columns, step=step, size=size, filters=self._filters, labels=labels)
        self._position = 0
        self._table_position = 0
        self._sent.clear()
        self._map_wanted = True

    def _take_in(self) -> None:
        """Count what is new in the frame."""
        frame = self._frame()
        if frame is None or self._schema is None:
            return
        changed = frame.knows_columns and not same_columns(frame.schema, self._schema)
        undecided = self._chosen_from < _ENOUGH_EXAMPLES and frame.appended >= _ENOUGH_EXAMPLES
        if changed or undecided:
            try:
                self._learn(frame)
            except RequestError as error:  # too late to raise it: shown as the state
                self._problem = str(error)
                self._wanted = {"share": None, "by": None}
                self._learn(frame)
        fresh, position = frame.since(self._position, self._cells.needs)
        missed = position - self._position - len(fresh)
        self._position = position
        before = self._cells.newest
        self._cells.update(fresh, missed=missed)
        if self._cells.newest != before:
            self._seen_at = time.monotonic()
        follower = self._follower()
        if follower is not None and follower.reconnects > self._reconnects_seen:
            self._reconnects_seen = follower.reconnects
            self._reconnects.append(self._now())

    def _follower(self) -> Follower | None:
        frame = self._frame()
        followers = () if frame is None else frame.followers
        return followers[-1] if followers else None

    def _now(self) -> int:
        """Return the right end of the live time axis, microseconds since 1970.

        It is the clock of the server if that is this machine's. Else it goes on from the newest event, and
        stands still when no event can come.
        """
        if self._control is not None and self._control.same_clock:
            return time.time_ns() // 1000
        newest = None if self._schema is None else self._cells.newest
        if newest is None:
            return time.time_ns() // 1000
        follower = self._follower()
        running = follower is not None and follower.running
        return newest + (round((time.monotonic() - self._seen_at) * 1e6) if running else 0)

    def _behind(self, settings: Settings | None) -> int | None:
        """Return how many events the server has that the frame has not; None if that is not known."""
        follower = self._follower()
        if settings is None or follower is None or follower.next_number is None:
            return None
        return max(0, settings.next_number - follower.next_number)

    def state(self) -> tuple[str, str]:
        """Return how the stream is, in one word, and why, in one phrase.

        Returns
        -------
        str
            live, paused, connecting, reconnecting, stopped, refused, or waiting.
        str
            The reason; may be empty.
        """
        if self._problem is not None:
            return "refused", self._problem
        settings = None if self._control is None else self._control.look()
        follower = self._follower()
        if follower is None:
            return self._state_without_follower(settings)
        state, reason = follower.state, follower.reason
        if isinstance(self._control, LocalControl) and not self._control.server.running:
            if state == "live":
                return "connecting", ""
            return "stopped", "the server was stopped"
        behind = self._behind(settings)
        if state in ("reconnecting", "connecting"):
            if behind:
                reason += f"{', ' if reason else ''}{behind:,} events behind"
            return state, reason
        if state == "live" and settings is not None:
            if behind and behind > max(100.0, settings.rate):
                return "live", f"catching up, {behind:,} events behind"
            if settings.paused:
                return "paused", "no event happens until it is resumed"
        return state, reason

    def _state_without_follower(self, settings: Settings | None) -> tuple[str, str]:
        if self._schema is not None:
            frame = self._frame()
            if frame is None:
                return "stopped", "the frame is gone"
            return ("stopped", "the frame follows no stream") if len(frame) else ("waiting", "for events")
        if settings is None:
            return "connecting", ""
        if not settings.reachable:
            local = isinstance(self._control, LocalControl)
            return "stopped", "the server was stopped" if local else "the server cannot be reached"
        return ("paused", "no event happens until it is resumed") if settings.paused else ("live", "")

    # What is sent

    def _marks(self) -> list[dict[str, Any]]:
        """Return what is marked on the time axis: changes of rate, pauses, scenarios, reconnects."""
        timeline = None if self._control is None else self._control.timeline()
        entries = () if timeline is None else timeline.entries
        marks: list[dict[str, Any]] = []
        for before, entry in itertools.pairwise(entries):
            at = entry.since / 1e6
            if entry.paused and not before.paused:
                marks.append({"kind": "pause", "at": at, "text": "paused"})
            elif before.paused and not entry.paused:
                marks.append({"kind": "resume", "at": at, "text": f"resumed, {entry.rate:,g}/s"})
            elif entry.rate != before.rate:
                marks.append({"kind": "rate", "at": at, "text": f"{before.rate:,g} → {entry.rate:,g}/s"})
            if entry.scenario != before.scenario:
                text = entry.scenario or "scenario ends"
                marks.append({"kind": "scenario", "at": at, "text": text})
        marks += [
            {"kind": "reconnect", "at": micros / 1e6, "text": "connected again"}
            for micros in self._reconnects
        ]
        return sorted(marks, key=lambda mark: mark["at"])[-_MOST_MARKS:]

    def _asked(self) -> list[list[float]]:
        """Return when which rate was asked for: pairs of seconds and events per second, 0 in a pause."""
        timeline = None if self._control is None else self._control.timeline()
        entries = () if timeline is None else timeline.entries
        return [[e.since / 1e6, 0.0 if e.paused else e.rate] for e in entries[-_MOST_MARKS:]]

    def _settings_message(self, settings: Settings | None) -> dict[str, Any] | None:
        if settings is None:
            return None
        return {
            "reachable": settings.reachable,
            "rate": settings.rate,
            "paused": settings.paused,
            "scenario": settings.scenario,
            "clients": settings.clients,
        }

    def _layout(self) -> dict[str, Any]:
        """Return what the browser must know to read the cells and to label them."""
        columns, frame = self._columns, self._frame()
        timeline = None if self._control is None else self._control.timeline()
        names = [] if frame is None or self._schema is None else list(self._schema.names)
        return {
            "step": self._cells.step,
            "size": self._cells.size,
            "share": columns.share,
            "title": columns.title,
            "hit": columns.hit,
            "rest": columns.rest,
            "by": columns.by,
            "groupings": list(columns.groupings),
            "amounts": [[a.label, a.unit, a.total] for a in columns.amounts],
            "place": columns.place,
            "spots": columns.latitude is not None,
            "names": names,
            "table": list(columns.table),
            "headers": _headers(columns),
            "window": self._share_window,
            "filters": {name: list(labels) for name, labels in self._filters.items()},
            "started": None if timeline is None else timeline.entries[0].since / 1e6,
            "noun": "orders" if TARGET in (self._schema or ()) else "events",
            "units": {c.name: c.unit for c in self._schema or () if c.unit},
        }

    def _message(self, *, whole: bool = False) -> tuple[dict[str, Any], list[bytes]] | None:
        """Return the next message with its buffers; None if there is nothing to say."""
        monotonic = time.monotonic()
        content: dict[str, Any] = {"kind": "update"}
        buffers: dict[str, bytes] = {}
        settings = None if self._control is None else self._control.look()
        state, reason = self.state()
        parts: dict[str, Any] = {
            "state": [state, reason],
            "settings": self._settings_message(settings),
            "marks": self._marks(),
            "asked": self._asked(),
        }
        if self._schema is not None:
            self._take_in()
            self._cells.advance(self._now())
            parts |= {
                "layout": self._layout(),
                "labels": self._cells.labels[:],
                "begin": self._cells.begin,
            }
            first, table = self._cells.everything() if whole else self._cells.changes()
            if len(table):
                content["cells"] = [first, *table.shape]
                buffers["cells"] = table.tobytes()
            if whole or monotonic - self._sent_at["table"] >= _TABLE_EVERY:
                content |= self._table_message(whole=whole)
            if whole or self._map_wanted or monotonic - self._sent_at["map"] >= _MAP_EVERY:
                self._sent_at["map"], self._map_wanted = monotonic, False
                self._add_map(content, buffers)
        if whole:
            self._sent.clear()
        for name, value in parts.items():
            if name not in self._sent or self._sent[name] != value:
                content[name] = self._sent[name] = value
        if len(content) == 1 and monotonic - self._sent_at["update"] < _HEARTBEAT:
            return None
        self._sent_at["update"] = monotonic
        frame, behind = self._frame(), self._behind(settings)
        follower = self._follower()
        content["now"] = round(self._now() / 1e6, 4)
        content["facts"] = [
            0 if frame is None else frame.appended,
            0 if frame is None else len(frame),
            behind,
            0 if follower is None else follower.missed,
        ]
        content["buffers"] = list(buffers)
        return content, list(buffers.values())

    def _range(self) -> tuple[int, int]:
        """Return the stretch that is looked at, in microseconds since 1970."""
        if self._view is not None:
            return self._view
        now = self._now()
        start = now - round(self._span * 1e6)
        timeline = None if self._control is None else self._control.timeline()
        begun = None if timeline is None else timeline.entries[0].since
        if begun is None and self._schema is not None and self._cells.begin is not None:
            begun = round(self._cells.begin * self._cells.step * 1e6)
        return max(start, min(begun or start, now - _SHORTEST)), now

    def _add_map(self, content: dict[str, Any], buffers: dict[str, bytes]) -> None:
        columns, cells = self._columns, self._cells
        if "map" not in self.config["parts"] or (columns.place is None and columns.latitude is None):
            return
        start, stop = self._range()
        first, last = cells.cell(start), cells.cell(stop)
        for name, found in (("countries", cells.countries(first, last)), ("spots", cells.spots(first, last))):
            told = found.tobytes()
            if self._sent.get(name) != told:
                self._sent[name] = buffers[name] = told
        if self._sent.get("countryNames") != len(cells.country_names):
            self._sent["countryNames"] = len(cells.country_names)
            content["countryNames"] = cells.country_names[:]

    def _table_message(self, *, whole: bool) -> dict[str, Any]:
        frame = self._frame()
        if frame is None or "table" not in self.config["parts"]:
            return {}
        now = frame.appended
        if now == self._table_position and not whole:
            return {}
        new = _ROWS if whole else min(_ROWS, now - self._table_position)
        self._sent_at["table"], self._table_position = time.monotonic(), now
        if self._filters:
            rows = matching(frame.tail(_SEARCHED if whole else min(_SEARCHED, max(new, 1000))), self._filters)
            rows = rows.tail(_ROWS)
        else:
            rows = frame.tail(new)
        return {"rows": _rows(rows, frame.schema), "allRows": bool(self._filters) or whole}

    def _push(self, *, whole: bool = False) -> None:
        with self._lock:  # also while it is sent: an older message must not come after a newer one
            message = self._message(whole=whole)
            if message is not None:
                self.send(*message)

    # What the browser asks for

    def _received(self, _: object, message: dict[str, Any], __: object) -> None:
        """Answer a message of the browser; only a person's action sends one, but for open and close."""
        kind = str(message.get("kind"))
        answer = getattr(self, f"_on_{kind}", None)
        if answer is None:
            return
        try:
            answer(message)
        except (RequestError, StreamError) as error:
            self.send({"kind": "refused", "about": kind, "text": str(error)})

    def _on_open(self, message: dict[str, Any]) -> None:
        with self._wake:
            if message["view"] not in self._gone:
                self._views.add(message["view"])
                self._begin()
        self._push(whole=True)

    def _on_close(self, message: dict[str, Any]) -> None:
        with self._wake:
            self._views.discard(message["view"])
            self._gone.add(message["view"])
            self._wake.notify_all()

    def _on_rate(self, message: dict[str, Any]) -> None:
        if self._control is not None:
            self._control.change(rate=message["value"])
        self._push()

    def _on_pause(self, message: dict[str, Any]) -> None:
        if self._control is not None:
            self._control.change(paused=bool(message["value"]))
        self._push()

    def _on_by(self, message: dict[str, Any]) -> None:
        with self._lock:
            if self._schema is None:
                return
            check_columns(self._schema, None, message["value"])
            self._wanted["by"] = message["value"]
            self._columns = choose_columns(self._schema, self._examples, **self._wanted)
            self._restart()
        self._push(whole=True)

    def _on_filter(self, message: dict[str, Any]) -> None:
        with self._lock:
            if self._schema is None:
                return
            wanted = {name: tuple(labels) for name, labels in message["value"].items() if labels}
            check_columns(self._schema, None, None)
            self._filters = {name: wanted[name] for name in wanted if name in self._schema}
            self._restart()
        self._push(whole=True)

    def _on_view(self, message: dict[str, Any]) -> None:
        view = message.get("range")
        with self._lock:
            self._span = float(message.get("span") or self._span)
            self._view = None if view is None else (round(view[0] * 1e6), round(view[1] * 1e6))
            self._map_wanted = True

    def _on_past(self, message: dict[str, Any]) -> None:
        with self._lock:
            self._past_wanted = message  # the newest question wins
            if self._past_thread is None:
                self._past_thread = threading.Thread(
                    target=self._answer_past, name="logistream past", daemon=True
                )
                self._past_thread.start()

    def _answer_past(self) -> None:
        while True:
            with self._lock:
                message, self._past_wanted = self._past_wanted, None
                if message is None or self._closed:
                    self._past_thread = None
                    return
            try:
                self._send_past(message)
            except (RequestError, StreamError) as error:
                self.send({"kind": "refused", "about": "past", "text": str(error), "id": message["id"]})

    def _send_past(self, message: dict[str, Any]) -> None:
        control = self._control
        settings = None if control is None else control.look()
        timeline = None if control is None else control.timeline()
        if control is None or settings is None or timeline is None:
            raise StreamError("what is older than the frame can only be had of a server")
        with self._lock:
            columns, filters, labels = self._columns, dict(self._filters), self._cells.labels[1:]
        start = max(round(message["from"] * 1e6), timeline.entries[0].since)
        stop = max(round(message["to"] * 1e6), start + 1_000_000)
        past = count_past(
            control.url,
            timeline,
            start,
            stop,
            newest=settings.next_number,
            columns=columns,
            filters=filters,
            labels=labels,
        )
        cells = past.cells
        last = past.first + len(past.weights) - 1
        first, table = cells.rows(past.first, last)
        content = {
            "kind": "past",
            "id": message["id"],
            "step": cells.step,
            "cells": [first, *table.shape],
            "labels": cells.labels,
            "countryNames": cells.country_names,
            "buffers": ["cells", "weights", "countries", "spots"],
        }
        weights = past.weights.astype(np.float32)
        countries, spots = cells.countries(first, last), cells.spots(first, last)
        self.send(content, [table.tobytes(), weights.tobytes(), countries.tobytes(), spots.tobytes()])

    def _on_export(self, message: dict[str, Any]) -> None:
        form = str(message["format"])
        with self._lock:
            start, stop = self._range()
            filters = dict(self._filters)
        if form == "png":
            path = f"{_file_stem(start)}.png"
            with open(path, "wb") as file:  # noqa: PTH123 - beside the notebook
                file.write(draw_png(self.picture(), dots=200))
            self.send({"kind": "saved", "text": f"saved {path}"})
            return
        if form == "pandas":
            code = copied_code(self._control, start, stop, filters)
            self.send({"kind": "code", "text": code})
            return
        path, count = save_rows(
            self._control, self._frame(), start, stop, filters, stem=_file_stem(start), form=form
        )
        self.send({"kind": "saved", "text": f"saved {path}: {count:,} rows"})

    def _on_hide(self, _: dict[str, Any]) -> None:
        self._write_image()

    def _on_image(self, message: dict[str, Any]) -> None:
        self._image_hidden = bool(message["hidden"])

    # The thread

    def _begin(self) -> None:
        """Start the thread unless it runs; `_wake` is held."""
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(target=self._run, name="logistream widget", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait(_PERIOD if self._views else _IDLE)
                if self._closed or not (self._views or self._displayed):
                    self._thread = None
                    return
                watched = bool(self._views)
            try:
                if watched:
                    self._push()
                else:
                    with self._lock:
                        self._take_in()
                if time.monotonic() - self._sent_at["image"] >= self._image_rest:
                    self._write_image()
            except Exception as error:
                logger.exception("the widget cannot be brought up to date")
                self._problem = f"{type(error).__name__}: {error}"
            if not watched and self._is_over():
                with self._wake:
                    if not self._views:
                        self._thread = None
                        return

    def _is_over(self) -> bool:
        """Whether nothing can change any more of what nobody looks at."""
        follower = self._follower()
        return self._frame() is None or (follower is not None and not follower.running)

    # The static image

    def picture(self) -> Picture:
        """Return all that is shown at this moment."""
        with self._lock:
            if self._schema is not None:
                self._take_in()
                self._cells.advance(self._now())
            settings = None if self._control is None else self._control.look()
            frame = self._frame()
            start, stop = self._range()
            return Picture(
                parts=tuple(self.config["parts"]),
                columns=self._columns if self._schema is not None else None,
                cells=self._cells if self._schema is not None else None,
                start=start,
                stop=stop,
                window=self._share_window or _window_of((stop - start) / 1e6),
                state=self.state(),
                settings=settings,
                behind=self._behind(settings),
                filters=dict(self._filters),
                asked=tuple((at, rate) for at, rate in self._asked()),
                marks=tuple((mark["at"], mark["kind"]) for mark in self._marks()),
                rows=pd.DataFrame()
                if frame is None
                else matching(frame.tail(_SEARCHED), self._filters).tail(_ROWS),
                headers={} if self._schema is None else _headers(self._columns),
                total=0 if frame is None else frame.appended,
            )

    def _write_image(self) -> None:
        """Bring the static image in the notebook up to date, if anything has changed."""
        if not self._displayed or self._closed or self.config["parts"] == ["bar"]:
            return
        state = (self._position, self.state()[0], self._view, str(self._filters), self._image_hidden)
        if state != self._image_state:
            self._image_state = state
            begin = time.thread_time()
            self._update_display()
            self._image_rest = max(_IMAGE_EVERY, _IMAGE_SHARE * (time.thread_time() - begin))
        self._sent_at["image"] = time.monotonic()

    def _image_bundle(self) -> tuple[dict[str, Any], dict[str, Any]]:
        import base64

        picture = self.picture()
        png = base64.b64encode(draw_png(picture)).decode("ascii")
        size = {"width": picture.width}
        return {"image/png": png, "text/plain": repr(self)}, {"image/png": size}

    def _update_display(self) -> None:
        from IPython import get_ipython
        from IPython.display import update_display

        if get_ipython() is None or sys.is_finalizing():
            return
        data, metadata = ({"text/plain": ""}, {}) if not self._image_hidden else self._image_bundle()
        update_display(data, metadata=metadata, raw=True, display_id=self._display_id)  # type: ignore[no-untyped-call]

    def _leave_image(self) -> None:
        """Take the live view out of the notebook and leave the image of this moment."""
        from IPython import get_ipython
        from IPython.display import update_display

        if not self._displayed or get_ipython() is None or sys.is_finalizing():
            return
        update_display({"text/plain": ""}, raw=True, display_id=f"{self._display_id}-view")  # type: ignore[no-untyped-call]
        if self.config["parts"] != ["bar"]:
            self._image_hidden = True
            self._update_display()

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:  # noqa: ANN401 - as inherited
        """Return the widget's view and, for wherever widgets cannot live, a static image."""
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        image, size = self._image_bundle()
        return {**data, **image}, {**metadata, **size}

    def _ipython_display_(self) -> None:
        """Display the live view and, after it, the static image that the live view hides."""
        from IPython.display import display

        bundle = super()._repr_mimebundle_()
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        data = {name: value for name, value in data.items() if name != "text/plain"}
        if self.config["parts"] != ["bar"]:
            display({"text/html": HIDING_STYLE}, raw=True)  # type: ignore[no-untyped-call]
        display(data, metadata=metadata, raw=True, display_id=f"{self._display_id}-view")  # type: ignore[no-untyped-call]
        if self.config["parts"] != ["bar"]:
            image, size = self._image_bundle()
            display(image, metadata=size, raw=True, display_id=self._display_id)  # type: ignore[no-untyped-call]
        with self._wake:
            self._displayed = True
            self._begin()
        _close_older(self)

    def end_thread(self) -> None:
        """End the thread for good."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_PATIENCE)

    def close(self, *, leave_image: bool = True) -> None:
        """End the live view, leave the static image of this moment, and close what the widget made."""
        if self._closed or self.comm is None:
            return
        self.end_thread()
        _open_boards.discard(self)
        if leave_image:
            self._leave_image()
        super().close()
        for close in self._closing:
            close()
        if self._control is not None:
            self._control.close()


_open_boards: weakref.WeakSet[Board] = weakref.WeakSet()
_cell_of: weakref.WeakKeyDictionary[Board, str] = weakref.WeakKeyDictionary()


def _close_older(board: Board) -> None:
    """Close the widget that the same cell displayed before, so that a cell can be run again."""
    from IPython import get_ipython

    shell = get_ipython()
    parent: dict[str, Any] = getattr(shell, "get_parent", dict)() if shell is not None else {}
    cell = (parent.get("metadata") or {}).get("cellId")
    if cell is None:
        return
    run = parent["header"]["msg_id"]
    for other, told in list(_cell_of.items()):
        if told.startswith(f"{cell} ") and told != f"{cell} {run}":
            del _cell_of[other]
            other.close(leave_image=False)  # its output is gone
    _cell_of[board] = f"{cell} {run}"


@atexit.register
def _end_threads() -> None:
    """End the threads before the interpreter takes their modules away."""
    for board in list(_open_boards):
        board.end_thread()


def _headers(columns: Columns) -> dict[str, str]:
    """Return the words for columns that are not shown by their names."""
    headers = {EVENT_TIME.name: "Time (UTC)"}
    if columns.share is not None:
        headers[columns.share] = columns.hit.capitalize() + "?"
    return headers | {amount.column: amount.label for amount in columns.amounts}


def _check_length(name: str, seconds: float | None) -> None:
    if seconds is not None and not 1 <= seconds <= 3600:
        raise RequestError(f"{name} must be from 1 to 3600 seconds, not {seconds}")


def _window_of(span: float) -> float:
    """Return over how many seconds shares are taken on an axis of so many seconds."""
    return max(10.0, min(60.0, span / 4), span / 20)


def _file_stem(start: int) -> str:
    return f"{pd.Timestamp(start, unit='us', tz='UTC'):logistream-%Y%m%d-%H%M%S}"


@functools.lru_cache(maxsize=8)
def _timestamp_formats(schema: Schema) -> dict[str, str | None]:
    return {column.name: column.text_format for column in schema if column.kind == "timestamp"}


def _rows(rows: pd.DataFrame, schema: Schema) -> list[list[Any]]:
    """Return rows as JSON values, timestamps as the published strings."""
    told = rows.copy(deep=False)
    for name, form in _timestamp_formats(schema).items():
        if name in told:
            told[name] = told[name].dt.strftime(form or "%Y-%m-%dT%H:%M:%S.%fZ")
    values: list[list[Any]] = json.loads(told.to_json(orient="values", double_precision=6))
    return values

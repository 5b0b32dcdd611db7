"""The widget behind `Workbench`, `Dashboard` and `ControlPanel`.

A thread counts what is new in the frame and sends the page what has changed, a few times a second and only
while somebody looks. The page holds the counts, computes the lines and scrolls the time axis by itself. Here
are the thread and the answers to what a person does; `counts` counts, `updates` makes the messages.
"""

from __future__ import annotations

import atexit
import logging
import threading
import time
import weakref
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import traitlets

from logistream.errors import RequestError, StreamError
from logistream.model.scenario import read_scenarios
from logistream.stream.faults import read_faults
from logistream.stream.timeline import MAX_RATE, MIN_RATE
from logistream.widgets.counts import SPANS, Counts
from logistream.widgets.display import Display, close_older, image_bundle
from logistream.widgets.export import copied_code, save_rows
from logistream.widgets.menus import toggled
from logistream.widgets.past import Past, count_past
from logistream.widgets.static_image import Picture, draw_png
from logistream.widgets.threaded import ThreadedWidget
from logistream.widgets.updates import ROWS, Updates, headers_of
from logistream.widgets.watched import Watched

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from logistream.frame.frame import RollingFrame
    from logistream.widgets.choice import Columns
    from logistream.widgets.control import Control

__all__ = ["Board"]

logger = logging.getLogger(__name__)

_PERIOD = 0.15  # seconds between messages while somebody looks
_IDLE = 1.0  # seconds between counts while nobody does
_IMAGE_EVERY = 15.0  # seconds between static images: they are the largest messages
_IMAGE_SHARE = 25  # at most one part in so many of the thread's time is spent on static images
_PATIENCE = 5.0  # seconds that `close` waits for the thread
_STATIC = resources.files("logistream.widgets") / "static"
_SCRIPTS = (
    "format.js",
    "series.js",
    "session.js",
    "look.js",
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


class Board(ThreadedWidget):
    """A widget that shows a frame and steers a stream; its subclasses choose the parts.

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
        Seconds over which shares and amounts are taken; None for a part of the axis.
    """

    _esm = _script()
    _css = _static("uplot/uPlot.min.css", "board.css")
    config = traitlets.Dict().tag(sync=True)
    _closed = True  # until `__init__` has run to its end

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
        parts = tuple(parts)
        self._control = control
        self._closing = list(closing)
        self._watched = Watched(frame, control, hold=hold)
        self._lock = threading.RLock()  # guards the counts and the messages made of them
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._views: set[str] = set()
        self._closed_views: set[str] = set()  # a view's messages may come in either order
        self._past_wanted: dict[str, Any] | None = None
        self._past_thread: threading.Thread | None = None
        self._past_counted: tuple[object, Past] | None = None  # for images, with what it was counted for
        self._display = Display(f"logistream-{id(self)}")
        self._has_image = parts != ("bar",)
        self._image_hidden = True  # by the page, while the live view is there
        self._image_state: object = None
        self._image_at = 0.0
        self._image_rest = _IMAGE_EVERY
        try:
            _check_length("span", span)
            _check_length("share_window", share_window)
            self._counts = (
                None
                if frame is None
                else Counts(self._watched, share=share, by=by, span=span, window=share_window)
            )
        except BaseException:
            for close in self._closing:
                close()
            raise
        self._updates = Updates(self._watched, self._counts, parts)
        self._closed = False
        super().__init__(
            config={
                "key": f"{id(self)}-{time.time_ns()}",
                "parts": list(parts),
                "spans": sorted({*SPANS, span}),
                "span": span,
                "steered": control is not None,
                "rates": [MIN_RATE, MAX_RATE],
                "server": "" if control is None else control.url.partition("?")[0],
            }
        )
        self.on_msg(self._received)
        _open_boards.add(self)

    def __repr__(self) -> str:
        if self.comm is None:
            return f"<{type(self).__name__}, closed>"
        frame = self._watched.frame
        return f"<{type(self).__name__} of {frame if frame is not None else self.config['server']}>"

    @property
    def columns(self) -> Columns | None:
        """The columns that are drawn; None for a widget that draws nothing."""
        return None if self._counts is None else self._counts.columns

    def state(self) -> tuple[str, str]:
        """Return the state of the stream in one word, and the reason in one phrase; see `Watched.state`."""
        return self._watched.state()

    def _push(self, *, whole: bool = False) -> None:
        with self._lock:  # also while it is sent: messages must leave in the order in which they are made
            message = self._updates.next(whole=whole)
            if message is not None:
                self.send(*message)

    # What the page asks for

    def _received(self, _: object, message: dict[str, Any], __: object) -> None:
        """Answer a message of the page."""
        kind = str(message.get("kind"))
        answer = getattr(self, f"_on_{kind}", None)
        if answer is None:
            return
        try:
            answer(message)
        except (RequestError, StreamError) as error:
            self.send({"kind": "refused", "about": kind, "text": str(error)})
        except OSError as error:  # a folder that cannot be written to, say
            self.send({"kind": "refused", "about": kind, "text": f"{kind} failed: {error}"})

    def _on_open(self, message: dict[str, Any]) -> None:
        with self._wake:
            if message["view"] not in self._closed_views:
                self._views.add(message["view"])
                self._begin()
        self._push(whole=True)

    def _on_everything(self, _: dict[str, Any]) -> None:
        self._push(whole=True)

    def _on_close(self, message: dict[str, Any]) -> None:
        with self._wake:
            self._views.discard(message["view"])
            self._closed_views.add(message["view"])
            self._wake.notify_all()

    def _on_rate(self, message: dict[str, Any]) -> None:
        if self._control is not None:
            self._control.change(rate=message["value"])
        self._push()

    def _on_pause(self, message: dict[str, Any]) -> None:
        if self._control is not None:
            self._control.change(paused=bool(message["value"]))
        self._push()

    def _on_scenario(self, message: dict[str, Any]) -> None:
        if self._control is not None:
            self._control.change(scenarios=read_scenarios(message["value"]))
        self._push()

    def _on_faults(self, message: dict[str, Any]) -> None:
        if self._control is not None:
            # Here and not in the page, which may not know yet what the click before has done.
            settings = self._control.look()
            current = () if settings is None else settings.faults or ()
            chosen = read_faults(message["value"])
            self._control.change(faults=toggled(current, chosen) if chosen else ())
        self._push()

    def _on_by(self, message: dict[str, Any]) -> None:
        with self._lock:
            if self._counts is not None:
                self._counts.group_by(message["value"])
        self._push()

    def _on_filter(self, message: dict[str, Any]) -> None:
        with self._lock:
            if self._counts is not None:
                self._counts.filter(message["value"])
        self._push()

    def _on_view(self, message: dict[str, Any]) -> None:
        view = message.get("range")
        with self._lock:
            if self._counts is not None:
                micros = None if view is None else (round(view[0] * 1e6), round(view[1] * 1e6))
                self._counts.look_at(micros, message.get("span"))
                self._updates.map_wanted = True

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

    def _count_past(self, start: int, stop: int) -> Past:
        """Count a stretch (microseconds since 1970) of what the server makes again."""
        control, counts = self._control, self._counts
        settings, timeline = self._watched.settings(), self._watched.timeline()
        if control is None or counts is None or settings is None or timeline is None:
            raise StreamError("only a server can give what is older than the frame")
        with self._lock:
            columns, filters, labels = counts.columns, dict(counts.filters), counts.cells.labels[1:]
        start = max(start, timeline.entries[0].since)
        stop = max(stop, start + 1_000_000)
        return count_past(
            control.url,
            timeline,
            start,
            stop,
            newest=settings.next_number,
            columns=columns,
            filters=filters,
            labels=labels,
        )

    def _send_past(self, message: dict[str, Any]) -> None:
        past = self._count_past(round(message["from"] * 1e6), round(message["to"] * 1e6))
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
        form, counts = str(message["format"]), self._counts
        if counts is None:
            return
        with self._lock:
            start, stop = counts.range()
            filters = dict(counts.filters)
        if form == "pandas":
            self.send({"kind": "code", "text": copied_code(self._control, start, stop, filters)})
            return
        stem = f"{pd.Timestamp(start, unit='us', tz='UTC'):logistream-%Y%m%d-%H%M%S}"
        if form == "png":
            path = Path(f"{stem}.png")  # beside the notebook
            path.write_bytes(draw_png(self.picture(), dots=200))
            self.send({"kind": "saved", "text": f"saved {path}"})
            return
        name, count = save_rows(
            self._control, self._watched.frame, start, stop, filters, stem=stem, form=form
        )
        self.send({"kind": "saved", "text": f"saved {name}: {count:,} rows"})

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
                if self._closed or not (self._views or self._display.shown):
                    self._thread = None
                    return
                looked_at = bool(self._views)
            try:
                if looked_at:
                    self._push()
                elif self._counts is not None:
                    with self._lock:
                        self._counts.take_in()
                if time.monotonic() - self._image_at >= self._image_rest:
                    self._write_image()
            except Exception as error:
                logger.exception("the widget cannot be brought up to date")
                self._watched.problem = f"{type(error).__name__}: {error}"
            if not looked_at and self._watched.is_over():
                with self._wake:
                    if not self._views:
                        self._thread = None
                        return

    def end_thread(self) -> None:
        """End the thread; it does not start again."""
        with self._wake:
            self._closed = True
            self._wake.notify_all()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(_PATIENCE)

    def close(self, *, leave_image: bool = True) -> None:
        """End the live view, leave the newest static image, and close what the widget made."""
        if self._closed or self.comm is None:
            return
        self.end_thread()
        _open_boards.discard(self)
        if leave_image:
            self._display.remove_view()
            if self._has_image and self._display.shown:
                self._display.replace_image(self._image())
        super().close()
        for close in self._closing:
            close()
        if self._control is not None:
            self._control.close()

    # The static image

    def picture(self) -> Picture:
        """Return all that is shown now. What is older than the frame is asked of the server."""
        watched, counts = self._watched, self._counts
        past = self._past_of_view()
        with self._lock:
            settings, frame = watched.settings(), watched.frame
            if counts is None:
                start, stop = time.time_ns() // 1000 - 1, time.time_ns() // 1000
            else:
                counts.take_in()
                counts.cells.advance(counts.now())
                start, stop = counts.range()
                held = counts.held_from()
                # The axis of an image ends where its lines do.
                if past is not None:
                    stop = min(stop, past.stop)
                elif held is not None and held < stop:
                    start = max(start, held)
            return Picture(
                parts=tuple(self.config["parts"]),
                columns=None if counts is None else counts.columns,
                cells=past.cells if past is not None else None if counts is None else counts.cells,
                start=start,
                stop=stop,
                window=1.0 if counts is None else counts.window_of(start, stop),
                state=watched.state(),
                settings=settings,
                behind=watched.behind(settings),
                filters={} if counts is None else dict(counts.filters),
                asked=tuple((at, rate) for at, rate in watched.asked()),
                marks=tuple((mark["at"], mark["kind"], mark["text"]) for mark in watched.marks()),
                rows=pd.DataFrame() if frame is None or counts is None else counts.newest_rows(frame, ROWS),
                headers={} if counts is None else headers_of(counts.columns),
                total=0 if frame is None else frame.appended,
                weights=past.weights if past is not None and past.is_sample else None,
            )

    def _past_of_view(self) -> Past | None:
        """Return the counts of the stretch that is looked at, if the frame does not hold all of it."""
        counts = self._counts
        if counts is None or counts.view is None:
            return None
        with self._lock:
            start, stop = counts.view
            held = counts.held_from()
            wanted = (start, stop, counts.restarts)
        if held is not None and held <= start:
            return None
        if self._past_counted is None or self._past_counted[0] != wanted:
            window = round(counts.window_of(start, stop) * 1e6)
            try:
                self._past_counted = (wanted, self._count_past(start - window, stop))
            except (RequestError, StreamError):
                return None  # an image of what the frame holds is better than none
        return self._past_counted[1]

    def _image(self) -> tuple[dict[str, Any], dict[str, Any]]:
        picture = self.picture()
        return image_bundle(draw_png(picture), picture.width, repr(self))

    def _write_image(self) -> None:
        """Bring the static image in the notebook up to date, if anything has changed."""
        if not self._display.shown or self._closed or not self._has_image:
            return
        counts = self._counts
        state: object = self._image_hidden
        if counts is not None:
            state = (state, counts.position, counts.view, str(counts.filters), self.state()[0])
        if state != self._image_state:
            self._image_state = state
            begin = time.thread_time()
            self._display.replace_image(self._image() if self._image_hidden else None)
            self._image_rest = max(_IMAGE_EVERY, _IMAGE_SHARE * (time.thread_time() - begin))
        self._image_at = time.monotonic()

    def _view_bundle(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:  # noqa: ANN401 - as inherited
        bundle = super()._repr_mimebundle_(**kwargs)
        return bundle if isinstance(bundle, tuple) else (bundle or {}, {})

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:  # noqa: ANN401 - as inherited
        """Return the widget's view and, for places that cannot run widgets, a static image."""
        data, metadata = self._view_bundle(**kwargs)
        image, size = self._image()
        return {**data, **image}, {**metadata, **size}

    def _ipython_display_(self) -> None:
        """Display the live view and, after it, the static image that the live view hides."""
        self._display.show(*self._view_bundle(), self._image() if self._has_image else None)
        with self._wake:
            self._begin()
        close_older(self)


_open_boards: weakref.WeakSet[Board] = weakref.WeakSet()


def _check_length(name: str, seconds: float | None) -> None:
    if seconds is not None and not 1 <= seconds <= 3600:
        raise RequestError(f"{name} must be from 1 to 3600 seconds, not {seconds}")


@atexit.register
def _end_threads() -> None:
    """End the threads before the interpreter takes their modules away."""
    for board in list(_open_boards):
        board.end_thread()

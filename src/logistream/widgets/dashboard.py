"""The live dashboard: one widget that draws a rolling frame while it fills."""

from __future__ import annotations

import threading
import time
import weakref
from importlib import resources
from typing import TYPE_CHECKING, Any

import anywidget
import numpy as np
import pandas as pd
import traitlets

from logistream.errors import RequestError
from logistream.widgets.aggregates import LiveAggregates
from logistream.widgets.choice import check_columns, same_columns, suggest_columns
from logistream.widgets.still import Picture, still_png

if TYPE_CHECKING:
    from logistream.frame.frame import RollingFrame
    from logistream.schema import Schema
    from logistream.server.server import StreamServer

__all__ = ["Dashboard"]


_PERIOD = 0.1  # seconds between pictures at the least: more than ten a second nobody sees
_GRACE = 300.0  # seconds for the first view to report: its message may wait behind busy cells
_EXAMPLES = 500  # events looked at to choose columns
_STATIC = resources.files("logistream.widgets") / "static"
_WORDS = {"Late_delivery_risk": ("Late-delivery share", "late", "on time")}


def _static(*names: str) -> str:
    """Return the named files of `static/`, one after the other."""
    return "\n".join(_STATIC.joinpath(*name.split("/")).read_text(encoding="utf-8") for name in names)


class Dashboard(anywidget.AnyWidget):
    """Events per second, the share of late deliveries and the markets, drawn live.

    A thread sums up what is new in the frame and sends the browser a whole picture, at most ten times a
    second and only while somebody looks; it ends with the last view, with `close`, and rests while nothing
    changes. The frame is held weakly: one that nobody else holds is not fed for the chart's sake, so that
    running a notebook's cells again leaves nothing behind.

    In a saved notebook, where no widget can live, a still picture stands in the chart's place; closing the
    dashboard leaves the picture of that moment.

    Parameters
    ----------
    frame : RollingFrame
        The frame to draw, usually one that follows a stream.
    server : StreamServer or None
        If given, the rate asked of it is drawn beside the measured one.
    share : str or None
        Column of 0/1 or true/false whose share is drawn. None takes late deliveries where there are any,
        else the first such column, else draws no share.
    by : str or None
        Category column to group by. None takes the market where there is one, else the first column of few
        texts, else draws no groups.
    span : float
        Seconds that the charts show.
    share_window : float
        Seconds over which the share is taken.

    Raises
    ------
    RequestError
        If the frame has no such columns, or they are of another kind.

    Examples
    --------
    >>> ls.Dashboard(frame, server)  # doctest: +SKIP
    >>> ls.Dashboard(frame, by="Shipping Mode", span=300)  # doctest: +SKIP
    """

    _esm = _static("uplot/uPlot.iife.min.js", "dashboard.js")
    _css = _static("uplot/uPlot.min.css", "dashboard.css")
    config = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        frame: RollingFrame,
        server: StreamServer | None = None,
        *,
        share: str | None = None,
        by: str | None = None,
        span: float = 120.0,
        share_window: float = 30.0,
    ) -> None:
        for name, seconds in (("span", span), ("share_window", share_window)):
            if not 1 <= seconds <= 3600:
                raise RequestError(f"{name} must be from 1 to 3600 seconds, not {seconds}")
        self.server = server
        self._frame = weakref.ref(frame)
        self._rows = 0
        self._wanted = (share, by, span, share_window)
        self._problem: str | None = None
        self._schema = frame.schema if frame.knows_columns or server is None else server.model.event_schema
        check_columns(self._schema, share, by)
        self._counts, config = self._begin_counts()
        self._position = 0
        self._seen_at = time.monotonic()  # when the newest event was seen
        self._views: set[str] = set()
        self._gone: set[str] = (
            set()
        )  # a view's farewell may overtake its greeting: they can take two channels
        self._expected_until = 0.0  # by when a displayed view should have reported
        self._lock = threading.Lock()  # guards all of the above against two drawing threads
        self._wake = threading.Condition()
        self._thread: threading.Thread | None = None
        self._display_id = f"logistream-dashboard-{id(self)}"
        super().__init__(config=config)
        self.on_msg(self._view_changed)

    def __repr__(self) -> str:
        return f"<Dashboard of {self._frame()!r}>"

    # What is drawn

    def _begin_counts(self) -> tuple[LiveAggregates, dict[str, Any]]:
        """Return empty counts of the columns wanted, or of those that suit best, and the words for them."""
        share, by, span, share_window = self._wanted
        frame = self._frame()
        if self.server is not None and same_columns(self.server.model.event_schema, self._schema):
            example = self.server.model.events(0, _EXAMPLES).to_pandas()
        else:
            example = pd.DataFrame() if frame is None else frame.tail(_EXAMPLES)
        best_share, best_by = suggest_columns(self._schema, example)
        share, by = share or best_share, by or best_by
        title, hit, rest = _WORDS.get(share or "", (f"Share of {share}", share, "other"))
        config = {
            "title": None if share is None else title,
            "hit": hit,
            "rest": rest,
            "by": by,
            "asks": self.server is not None,
            "shareWindow": round(share_window),
            "spanText": _duration(span),
        }
        return LiveAggregates(share, by, span=span, share_window=share_window), config

    def _learn(self, schema: Schema) -> None:
        """Begin anew: the server that the frame follows has other columns than was thought."""
        self._schema = schema
        try:
            check_columns(schema, *self._wanted[:2])
        except RequestError as error:  # too late to refuse it
            self._problem, self._wanted = str(error), (None, None, *self._wanted[2:])
        self._counts, self.config = self._begin_counts()
        self._position = 0

    def picture(self) -> Picture:
        """Sum up the frame as it is now; cheap, since only what is new is looked at."""
        with self._lock:
            self._take_in()
            now = self._now()
            series = self._counts.series(now)
            return Picture(
                config=self.config,
                series=series,
                asked=self._asked(series.time),
                groups=self._counts.groups(now),
                state=self._state(),
                total=self._counts.total,
                rows=self._rows,
                newest=self._counts.newest,
            )

    def _take_in(self) -> int:
        """Count what is new in the frame and return how many events were counted so far."""
        frame = self._frame()
        if frame is None:
            return self._counts.total
        if frame.knows_columns and not same_columns(frame.schema, self._schema):
            self._learn(frame.schema)
        fresh, self._position = frame.since(self._position, self._counts.columns)
        self._rows = len(frame)
        before = self._counts.newest
        self._counts.update(fresh)
        if self._counts.newest != before:
            self._seen_at = time.monotonic()
        return self._counts.total

    def _now(self) -> int:
        """Return the right end of the time axis, in microseconds.

        It goes on from the newest event by this machine's own clock, so that a server whose clock differs
        is drawn well too, and stands still when no event can come.
        """
        if self._counts.newest is None:
            return time.time_ns() // 1000
        elapsed = time.monotonic() - self._seen_at if self._state() != "stopped" else 0.0
        return self._counts.newest + round(elapsed * 1e6)

    def _state(self) -> str:
        frame = self._frame()
        if self._problem is not None:
            return self._problem
        if frame is None or not frame.following:
            return "stopped" if self._counts.total else "waiting"
        if self.server is not None and self.server.paused:
            return "paused"
        return "live" if self._counts.total else "waiting"

    def _asked(self, times: np.ndarray) -> np.ndarray:
        """Return the rate asked of the server at each time; NaN where none was, 0 in a pause."""
        if self.server is None:
            return np.full(len(times), np.nan)
        entries = self.server.timeline.entries
        place = np.searchsorted([entry.since / 1e6 for entry in entries], times, side="right")
        rates = np.array([np.nan, *(0.0 if entry.paused else entry.rate for entry in entries)])
        return rates[place]

    # Sending it

    def _view_changed(self, _: object, message: dict[str, Any], __: object) -> None:
        """Take note of a view that opens or closes in the browser."""
        view = str(message.get("view"))
        with self._wake:
            self._expected_until = 0.0
            if message.get("open") and view not in self._gone:
                self._views.add(view)
                self._begin()
            else:
                self._views.discard(view)
                self._gone.add(view)
            self._wake.notify_all()
        if message.get("open"):
            self._send_picture(self.picture())

    def _begin(self) -> None:
        """Start the drawing thread unless it runs; `_wake` is held."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._draw, name="logistream dashboard", daemon=True)
            self._thread.start()

    def _draw(self) -> None:
        """Send pictures while there are views; one a second is enough when only the clock has moved."""
        drawn_at, drawn = 0.0, (-1, "")
        while True:
            with self._wake:
                self._wake.wait(_PERIOD)
                expected = time.monotonic() < self._expected_until and drawn[1] != "stopped"
                if not self._views and not expected:
                    self._thread = None
                    return
            with self._lock:
                shown = self._take_in(), self._state()
            ticking = shown[1] not in ("stopped", "waiting") and time.monotonic() - drawn_at >= 1.0
            if shown != drawn or ticking:
                self._send_picture(self.picture())
                drawn_at, drawn = time.monotonic(), shown

    def _send_picture(self, picture: Picture) -> None:
        """Send all panels in one message, so that they always show the same moment."""
        s, g = picture.series, picture.groups
        lines = np.concatenate([s.time, picture.asked, s.rate, s.share, s.low, s.high])
        groups = np.concatenate([g.events, g.hits]).astype(np.float64)
        head = {
            "labels": list(g.labels),
            "state": picture.state,
            "total": picture.total,
            "rows": picture.rows,
            "newest": None if picture.newest is None else picture.newest / 1e6,
        }
        self.send(head, [lines.tobytes(), groups.tobytes()])

    # The still

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:  # noqa: ANN401 - as inherited
        """Return the widget's view and, for wherever widgets cannot live, a still picture."""
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        return {**data, "image/png": still_png(self.picture())}, metadata

    def _ipython_display_(self) -> None:
        from IPython.display import display

        data, metadata = self._repr_mimebundle_()
        display(data, metadata=metadata, raw=True, display_id=self._display_id)  # type: ignore[no-untyped-call]
        with self._wake:
            self._expected_until = time.monotonic() + _GRACE
            self._begin()

    def close(self) -> None:
        """End the live drawing and leave a still picture of this moment wherever it was displayed."""
        if self.comm is None:
            return
        with self._wake:
            self._views.clear()
            self._expected_until = 0.0
            self._wake.notify_all()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self._leave_still()
        super().close()

    def _leave_still(self) -> None:
        from IPython import get_ipython
        from IPython.display import update_display

        if get_ipython() is not None:
            data = {"text/plain": repr(self), "image/png": still_png(self.picture())}
            update_display(data, raw=True, display_id=self._display_id)  # type: ignore[no-untyped-call]


def _duration(seconds: float) -> str:
    return f"{seconds / 60:g} min" if seconds >= 60 else f"{seconds:g} s"

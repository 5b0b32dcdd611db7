"""`Workbench`: server, frame, controls and dashboard in one widget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from logistream.errors import RequestError
from logistream.frame.frame import RollingFrame
from logistream.model.model import Model
from logistream.server.server import StreamServer
from logistream.widgets.board import Board
from logistream.widgets.control import LocalControl, RemoteControl

if TYPE_CHECKING:
    from collections.abc import Callable

    from logistream.widgets.control import Control

__all__ = ["Workbench", "control_of", "followed"]


_ROWS, _WINDOW = 200_000, "5min"  # limits of a frame that is made here
_WINDOW_MICROS = 300_000_000


def control_of(source: StreamServer | str | RollingFrame) -> Control | None:
    """Return how to steer a server, the server at an address, or the server that a frame follows."""
    if isinstance(source, StreamServer):
        return LocalControl(source)
    if isinstance(source, str):
        return RemoteControl(source)
    if isinstance(source, RollingFrame):
        followers = source.followers
        return RemoteControl(followers[-1].url) if followers else None
    raise RequestError(f"expected a StreamServer, an address or a RollingFrame, not {source!r}")


def followed(source: StreamServer | str, closing: list[Callable[[], object]]) -> RollingFrame:
    """Return a new frame that follows a server; what ends it is added to `closing`."""
    frame = RollingFrame(rows=_ROWS, window=_WINDOW)
    address = source.websocket_url if isinstance(source, StreamServer) else source
    closing.insert(0, frame.follow(address, start=_first(source)).stop)
    return frame


class Workbench(Board):
    """Watch and steer a stream in one widget.

    It has a bar (state, pause, rate, length of the time axis), tiles, lines over time, groups, a map, the
    newest rows, and an export. A click on a group filters everything; dragging over the lines zooms in,
    and the strip below them shows older events, which the server makes again.

    A saved notebook shows a static image instead.

    Parameters
    ----------
    source : StreamServer, str, RollingFrame, Model or None
        A server of this process (it is started unless it runs), the address of any other, a frame, or a
        model. For None (the shipped model of DataCo orders)
        and for a model, a server is made on a free port, with five minutes of history.
    rate : float or None
        Events per second of a server that is made here; 20 by default.
    share : str or None
        Column of 0/1 or true/false whose share is drawn. None takes late deliveries where there are any,
        else the first such column.
    by : str or None
        Category column to group by. None takes the column that predicts the share best.
    span : float
        Seconds on the time axis at first, from 1 to 3600.
    share_window : float or None
        Seconds over which shares and amounts are taken. None takes a quarter of the axis, from 10 to 60 s.

    Attributes
    ----------
    server : StreamServer or None
        The server, if it is one of this process.
    frame : RollingFrame
        The frame that is drawn.

    Raises
    ------
    RequestError
        For a source, column or length that cannot be used.

    Examples
    --------
    >>> ls.Workbench()  # doctest: +SKIP
    >>> ls.Workbench("http://127.0.0.1:8000", by="Market")  # doctest: +SKIP
    """

    def __init__(
        self,
        source: StreamServer | str | RollingFrame | Model | None = None,
        *,
        rate: float | None = None,
        share: str | None = None,
        by: str | None = None,
        span: float = 120.0,
        share_window: float | None = None,
    ) -> None:
        closing: list[Callable[[], object]] = []
        if source is None or isinstance(source, Model):
            source = StreamServer(source, rate=20.0 if rate is None else rate, port=0, history=_WINDOW)
            closing.append(source.stop)
        elif rate is not None:
            raise RequestError("rate is for a server that is made here; set the rate of yours itself")
        if isinstance(source, StreamServer) and not source.running:
            source.start()
            closing[:] = [source.stop]
        control = control_of(source)
        frame = source if isinstance(source, RollingFrame) else followed(source, closing)
        self.server = source if isinstance(source, StreamServer) else None
        self.frame = frame
        super().__init__(
            ("bar", "tiles", "time", "groups", "map", "table"),
            frame=frame,
            control=control,
            hold=not isinstance(source, RollingFrame),
            closing=closing,
            share=share,
            by=by,
            span=span,
            share_window=share_window,
        )


def _first(source: StreamServer | str) -> Any:  # noqa: ANN401 - what `follow` takes
    """Return where to start: as far back as a frame can hold, or at the next event of a server elsewhere."""
    if isinstance(source, str):
        return None
    timeline, newest = source.timeline, int(source.state["next_event_number"])
    first = timeline.entries[0].first
    since = timeline.count(timeline.time(newest - 1) - _WINDOW_MICROS) if newest > first else first
    return max(first, since, newest - _ROWS)

"""`Dashboard`: a frame drawn live, without the controls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from logistream.errors import RequestError
from logistream.frame.frame import RollingFrame
from logistream.server.server import StreamServer
from logistream.widgets.board import Board
from logistream.widgets.control import LocalControl
from logistream.widgets.workbench import control_of, followed

if TYPE_CHECKING:
    from collections.abc import Callable

    from logistream.widgets.control import Control

__all__ = ["Dashboard"]


class Dashboard(Board):
    """Share, rate, amounts and groups of a stream, drawn live.

    It draws only while somebody looks. It does not keep a given frame alive, so that running a notebook's
    cells again leaves nothing behind. A saved notebook shows a static image instead.

    Parameters
    ----------
    source : RollingFrame, StreamServer or str
        A frame, usually one that follows a stream; or a server or an address, which the dashboard follows.
    server : StreamServer or None
        The server that a frame follows, if it is one of this process. None asks the server that the frame
        follows over HTTP for the rate in force.
    share, by, span, share_window
        As for `Workbench`.

    Raises
    ------
    RequestError
        If the frame has no such columns, or they are of another kind.

    Examples
    --------
    >>> ls.Dashboard(frame, server)  # doctest: +SKIP
    >>> ls.Dashboard(frame, by="Shipping Mode", span=300)  # doctest: +SKIP
    """

    def __init__(
        self,
        source: RollingFrame | StreamServer | str,
        server: StreamServer | None = None,
        *,
        share: str | None = None,
        by: str | None = None,
        span: float = 120.0,
        share_window: float | None = None,
    ) -> None:
        if server is not None and not isinstance(source, RollingFrame):
            raise RequestError("server is for a frame: a server or an address is followed by itself")
        control: Control | None = control_of(source) if server is None else LocalControl(server)
        closing: list[Callable[[], object]] = []
        frame = source if isinstance(source, RollingFrame) else followed(source, closing)
        self.server = source if isinstance(source, StreamServer) else server
        self.frame = frame if closing else None
        super().__init__(
            ("state", "tiles", "time", "groups"),
            frame=frame,
            control=control,
            hold=bool(closing),
            closing=closing,
            share=share,
            by=by,
            span=span,
            share_window=share_window,
        )

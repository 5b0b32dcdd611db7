"""`ControlPanel`: the rate of a stream, a button to pause it, and its scenarios."""

from __future__ import annotations

from typing import TYPE_CHECKING

from logistream.errors import RequestError
from logistream.server.server import StreamServer
from logistream.widgets.board import Board
from logistream.widgets.workbench import control_of

if TYPE_CHECKING:
    from logistream.frame.frame import RollingFrame

__all__ = ["ControlPanel"]


class ControlPanel(Board):
    """State, pause, rate and scenario of a stream in one line.

    The panel shows the settings of the server. It sends only what a person does: a rate that was typed, with
    all its digits, or a slider that was released. If the server refuses a rate, its message is shown.

    Parameters
    ----------
    source : StreamServer, str or RollingFrame
        A server of this process, the address of any other, or a frame that follows one.

    Raises
    ------
    RequestError
        For a source that cannot be steered.

    Examples
    --------
    >>> ControlPanel(server)  # doctest: +SKIP
    """

    def __init__(self, source: StreamServer | str | RollingFrame) -> None:
        control = control_of(source)
        if control is None:
            raise RequestError("the frame follows no stream that could be steered: follow one first")
        self.server = source if isinstance(source, StreamServer) else None
        super().__init__(("bar",), control=control)

"""A widget that sends from threads of its own."""

from __future__ import annotations

from typing import Any

import anywidget

__all__ = ["ThreadedWidget"]


class ThreadedWidget(anywidget.AnyWidget):
    """A widget that can be reached by the page while its threads send messages.

    ipykernel 7.4 gives the next messages of the page to the subshell that the parent of the last sent message
    belongs to. For a thread that parent is any message, and its subshell may have ended: all messages of the
    page would be lost. JupyterLab ends one whenever a page has been loaded.
    """

    def _send(self, msg: Any, buffers: Any = None) -> None:  # noqa: ANN401 - as inherited
        super()._send(msg, buffers)
        if self.comm is not None:
            self.comm.__dict__.pop("_reply_subshell_id", None)  # messages go to the subshell that they name

"""A widget that sends from threads of its own."""

from __future__ import annotations

from contextvars import Context, ContextVar, copy_context
from typing import Any

import anywidget

__all__ = ["ThreadedWidget"]


class ThreadedWidget(anywidget.AnyWidget):
    """A widget that the page can reach while threads of the widget send messages.

    ipykernel 7.4 gives the next messages of the page to the subshell of the message during which the widget
    has last sent something. For a thread that is any message, and its subshell may have ended: all messages
    of the page would be lost. JupyterLab ends one whenever it has loaded a page.
    """

    def _send(self, msg: Any, buffers: Any = None) -> None:  # noqa: ANN401 - as inherited
        send = super()._send
        parent = getattr(getattr(self.comm, "kernel", None), "_shell_parent", None)
        if isinstance(parent, ContextVar) and parent not in copy_context():  # in a thread of the widget
            context = Context()
            context.run(parent.set, {})  # sent during no message
            context.run(send, msg, buffers)
        else:
            send(msg, buffers)
        if self.comm is not None:
            self.comm.__dict__.pop("_reply_subshell_id", None)  # messages go to the subshell that they name

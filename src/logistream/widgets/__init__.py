"""Widgets for a notebook: `ControlPanel` steers a server, `Dashboard` draws a frame while it fills."""

from __future__ import annotations

try:
    import anywidget as _anywidget  # noqa: F401
    import ipywidgets as _ipywidgets  # noqa: F401
except ImportError as exc:
    raise ImportError("the widgets need ipywidgets and anywidget: pip install 'logistream[lab]'") from exc

from logistream.widgets.controls import ControlPanel
from logistream.widgets.dashboard import Dashboard

__all__ = ["ControlPanel", "Dashboard"]

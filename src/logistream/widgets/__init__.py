"""Widgets for a notebook: `Workbench` watches and steers a stream, `Dashboard` and `ControlPanel` do half."""

from __future__ import annotations

try:
    import anywidget as _anywidget  # noqa: F401
    import ipywidgets as _ipywidgets  # noqa: F401
except ImportError as exc:
    raise ImportError("the widgets need ipywidgets and anywidget: pip install 'logistream[lab]'") from exc

from logistream.widgets.controls import ControlPanel
from logistream.widgets.dashboard import Dashboard
from logistream.widgets.workbench import Workbench

__all__ = ["ControlPanel", "Dashboard", "Workbench"]

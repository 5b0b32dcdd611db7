"""Logistream: a Jupyter-first workbench for real-time logistics events.

Names are imported when they are first used, so that `import logistream` costs nothing a script does not need.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logistream.client import connect as connect
    from logistream.fitting import fit as fit
    from logistream.frame import RollingFrame as RollingFrame
    from logistream.interface import Limits as Limits
    from logistream.model import Model as Model
    from logistream.model import load_model as load_model
    from logistream.orders import read_orders as read_orders
    from logistream.orders import read_table as read_table
    from logistream.server import StreamServer as StreamServer
    from logistream.widgets import ControlPanel as ControlPanel
    from logistream.widgets import Dashboard as Dashboard

__version__ = "0.1.0"

_HOME = {
    "ControlPanel": "widgets",
    "Dashboard": "widgets",
    "Limits": "interface",
    "Model": "model",
    "RollingFrame": "frame",
    "StreamServer": "server",
    "connect": "client",
    "fit": "fitting",
    "load_model": "model",
    "read_orders": "orders",
    "read_table": "orders",
}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the names above
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

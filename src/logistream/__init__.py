"""Logistream: a Jupyter-first workbench for real-time logistics events.

Names are imported when they are first used, so that `import logistream` costs nothing a script does not need.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from logistream import dataco as dataco
    from logistream import spark as spark
    from logistream.client.client import connect as connect
    from logistream.dataco import load_orders as load_orders
    from logistream.dataco import read_orders as read_orders
    from logistream.dataco import read_table as read_table
    from logistream.drift import changes as changes
    from logistream.drift import evaluate_detector as evaluate_detector
    from logistream.fitting.fit import fit as fit
    from logistream.frame.events import events as events
    from logistream.frame.frame import RollingFrame as RollingFrame
    from logistream.model.model import Model as Model
    from logistream.model.model import load_model as load_model
    from logistream.model.scenario import Scenario as Scenario
    from logistream.server.limits import Limits as Limits
    from logistream.server.server import StreamServer as StreamServer
    from logistream.verification.verify import verify as verify
    from logistream.widgets.controls import ControlPanel as ControlPanel
    from logistream.widgets.dashboard import Dashboard as Dashboard
    from logistream.widgets.live import live as live
    from logistream.widgets.workbench import Workbench as Workbench

__version__ = "0.1.0"

_HOME = {
    "ControlPanel": "widgets.controls",
    "Dashboard": "widgets.dashboard",
    "Limits": "server.limits",
    "Model": "model.model",
    "RollingFrame": "frame.frame",
    "Scenario": "model.scenario",
    "StreamServer": "server.server",
    "Workbench": "widgets.workbench",
    "changes": "drift",
    "connect": "client.client",
    "evaluate_detector": "drift",
    "events": "frame.events",
    "fit": "fitting.fit",
    "live": "widgets.live",
    "load_model": "model.model",
    "load_orders": "dataco",
    "read_orders": "dataco",
    "read_table": "dataco",
    "verify": "verification.verify",
}

_MODULES = ("dataco", "spark")

__all__ = [*_HOME, *_MODULES]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - any of the names above
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

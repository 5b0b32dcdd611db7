"""The control panel: how fast the stream runs, and whether it does."""

from __future__ import annotations

import html
import math
import threading
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

if TYPE_CHECKING:
    from logistream.server.server import StreamServer

__all__ = ["ControlPanel"]


_TICK = 0.5  # seconds between looks at the server; a human reads the status line, nothing depends on it
_STEPS_PER_DECADE = 10
_STYLE = """<style>
.logistream-status { color: var(--jp-ui-font-color1, inherit); line-height: 1.5;
  font-variant-numeric: tabular-nums; white-space: nowrap; overflow: hidden; text-overflow: ellipsis; }
.logistream-status i { display: inline-block; width: 9px; height: 9px; border-radius: 50%; margin-right: 6px;
  background: var(--jp-border-color1, #999); }
.logistream-status .running { background: var(--jp-success-color1, #388e3c); }
.logistream-status .paused { background: var(--jp-warn-color1, #f57c00); }
.logistream-status span { color: var(--jp-ui-font-color2, inherit); margin-left: 14px; }
</style>"""


def _preferred(value: float) -> float:
    """Return the rate meant by a slider position: 2 where the logarithmic grid says 1.9953.

    The grid has ten steps in a decade, which two digits name without doubt. A value beside the grid was
    given by a program and is taken as it is.
    """
    position = math.log10(value) * _STEPS_PER_DECADE
    return float(f"{value:.1e}") if abs(position - round(position)) < 1e-6 else value


class ControlPanel(widgets.VBox):  # type: ignore[misc]
    """A slider for the rate, a pause button and a status line of a running server.

    The panel follows the server too: a rate set from a cell, or by an HTTP client, moves the slider.
    Callbacks only set two attributes of the server, so they are safe on whatever thread the front end runs
    them: JupyterLab moves the slider even while a cell is busy.

    Parameters
    ----------
    server : StreamServer
        The server to steer.
    max_rate : float
        Right end of the slider, in events per second. The left end is 0.1.

    Attributes
    ----------
    rate : ipywidgets.FloatLogSlider
        Events per second.
    pause : ipywidgets.ToggleButton
        Pressed while the stream is paused.
    status : ipywidgets.HTML
        State, next event number, clients, address.

    Examples
    --------
    >>> panel = ControlPanel(server)  # doctest: +SKIP
    >>> panel.rate.value = 50  # doctest: +SKIP
    """

    def __init__(self, server: StreamServer, *, max_rate: float = 1000.0) -> None:
        self.server = server
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._seen = (float(server.rate), bool(server.paused))
        self.rate = widgets.FloatLogSlider(
            base=10,
            min=-1,
            max=math.log10(max_rate),
            step=1 / _STEPS_PER_DECADE,
            description="Rate (events/s)",
            readout_format=".2r",
            style={"description_width": "initial"},
            layout=widgets.Layout(width="480px"),
        )
        self.pause = widgets.ToggleButton(layout=widgets.Layout(width="110px"))
        self.status = widgets.HTML()
        self._show_rate(self._seen[0])
        self._show_pause(self._seen[1])
        self.status.value = self._status_text()
        self.rate.observe(self._rate_moved, names="value")
        self.pause.observe(self._pause_pressed, names="value")
        row = widgets.HBox([self.rate, self.pause], layout=widgets.Layout(flex_flow="row wrap"))
        super().__init__([row, self.status])
        self._thread: threading.Thread | None = None
        self._watch()

    def close(self) -> None:
        """Remove the panel and end its watching thread; the server goes on."""
        self._closed.set()
        super().close()

    def __repr__(self) -> str:
        return f"<ControlPanel of {self.server!r}>"

    def _rate_moved(self, change: dict[str, Any]) -> None:
        with self._lock:
            rate = _preferred(change["new"])
            if rate != self._seen[0]:
                self._seen = (rate, self._seen[1])
                self.server.rate = rate
        self.refresh()
        self._watch()

    def _pause_pressed(self, change: dict[str, Any]) -> None:
        with self._lock:
            paused = bool(change["new"])
            if paused != self._seen[1]:
                self._seen = (self._seen[0], paused)
                self.server.paused = paused
        self._show_pause(paused)
        self.refresh()
        self._watch()

    def _show_rate(self, rate: float) -> None:
        position = math.log10(rate) * _STEPS_PER_DECADE
        self.rate.max = max(self.rate.max, math.ceil(position) / _STEPS_PER_DECADE)
        self.rate.min = min(self.rate.min, math.floor(position) / _STEPS_PER_DECADE)
        if _preferred(self.rate.value) != rate:
            self.rate.value = rate

    def _show_pause(self, paused: bool) -> None:
        self.pause.value = paused
        self.pause.description, self.pause.icon = ("Resume", "play") if paused else ("Pause", "pause")
        self.pause.tooltip = "Go on with the next event" if paused else "Hold the stream; no event is lost"

    def refresh(self) -> None:
        """Bring the panel up to the server's present state; it does so by itself twice a second."""
        with self._lock:
            # Compared with what was seen last, not with the slider: a value that is just on its way from the
            # browser to the server must not be taken back.
            now = (float(self.server.rate), bool(self.server.paused))
            changed, self._seen = now != self._seen, now
        if changed:
            self._show_rate(now[0])
            self._show_pause(now[1])
        self.rate.disabled = self.pause.disabled = not self.server.running
        self.status.value = self._status_text()

    def _status_text(self) -> str:
        state = "stopped" if not self.server.running else "paused" if self._seen[1] else "running"
        facts = [f"{self._seen[0]:,g} events/s"] if state == "running" else []
        if state != "stopped":
            clients = self.server.connected_clients
            facts += [
                f"next event {self.server.state['next_event_number']:,}",
                f"{clients} client{'' if clients == 1 else 's'}",
                html.escape(self.server.websocket_url.partition("?")[0]),
            ]
        spans = "".join(f"<span>{fact}</span>" for fact in facts)
        return f'{_STYLE}<div class="logistream-status"><i class="{state}"></i>{state}{spans}</div>'

    def _watch(self) -> None:
        """Start the thread that keeps the panel fresh, unless it runs; it ends with the server."""
        if self._closed.is_set() or (self._thread is not None and self._thread.is_alive()):
            return
        self._thread = threading.Thread(target=self._keep_fresh, name="logistream panel", daemon=True)
        self._thread.start()

    def _keep_fresh(self) -> None:
        while not self._closed.wait(_TICK):
            self.refresh()
            if not self.server.running:
                return

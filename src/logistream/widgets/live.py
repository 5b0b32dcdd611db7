"""`live`: a plot of one's own that is redrawn while events come in."""

from __future__ import annotations

import atexit
import base64
import inspect
import io
import sys
import threading
import time
import traceback
import uuid
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import traitlets

from logistream.errors import RequestError
from logistream.widgets.threaded import ThreadedWidget

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LivePlot", "live"]


_SHORTEST = 0.1  # seconds between two drawings: nobody sees more than ten a second
_GRACE = 5.0  # seconds without a view before drawing ends; a view that moves closes and opens
_END_WITHIN = 10.0  # seconds that `stop` waits for a drawing that has begun
_IMAGES = {"image/png": "_repr_png_", "image/jpeg": "_repr_jpeg_", "image/svg+xml": "_repr_svg_"}
_FORMS = {**_IMAGES, "text/html": "_repr_html_"}
"""What a browser shows without a library, the best first, and the methods that give it."""

_running: set[LivePlot] = set()
"""The plots that are being drawn."""


class _Shown(NamedTuple):
    """What a drawing is in the browser: bytes of an image, or text."""

    mime: str
    image: bytes = b""
    text: str = ""


def live(function: Callable[..., Any], *, frame: object = None, every: float = 1.0) -> LivePlot:
    """Show what a function draws, and redraw it regularly, without flicker.

    The last line of a cell, or `display`, shows it. It goes on until `stop()`, until the cell is run again,
    or until nobody has it on the screen. A saved notebook keeps the last image.

    Parameters
    ----------
    function : callable
        Takes nothing, or the `frame`, and returns a matplotlib Figure or Axes, or anything else that a
        notebook shows as an image or as HTML, such as a DataFrame. It runs on a thread of its own: let it
        make its figure with `matplotlib.figure.Figure()`, since pyplot is not made for threads. An exception
        is shown below the last good drawing, and the function is called again.
    frame : RollingFrame, optional
        What to call the function with.
    every : float
        Seconds from one drawing to the next, at least 0.1. A slow function is given half of the time at most.

    Returns
    -------
    LivePlot
        With `.stop()`.

    Raises
    ------
    RequestError
        If `every` is too short, or the function asks for something else.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> def sales(frame):
    ...     figure = Figure(figsize=(6, 2))
    ...     figure.add_subplot().plot(frame.last("1min")["Sales"].rolling(50).mean())
    ...     return figure
    >>> live(sales, frame=frame, every=0.5)  # doctest: +SKIP
    """
    plot = LivePlot(function, frame=frame, every=every)
    for other in list(_running):
        if other.is_replaced_by(plot):
            other.stop(leave_image=False)  # its output is gone
    return plot


class LivePlot(ThreadedWidget):
    """What `live` returns: a widget with the newest drawing; the parameters are those of `live`."""

    _esm = (resources.files("logistream.widgets") / "static" / "live.js").read_text(encoding="utf-8")
    mime = traitlets.Unicode("text/plain").tag(sync=True)
    image = traitlets.Bytes(b"").tag(sync=True)
    text = traitlets.Unicode("").tag(sync=True)
    problem = traitlets.Unicode("").tag(sync=True)
    shown = traitlets.Int(0).tag(sync=True)  # how many different drawings there were; changes last

    def __init__(self, function: Callable[..., Any], *, frame: object = None, every: float = 1.0) -> None:
        self._cell, self._run = _running_cell()
        self._wake = threading.Condition()
        self._drawing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = False
        self._views: set[str] = set()
        self._left_at: float | None = None  # when the last view was closed
        self._display_id, self._displayed = uuid.uuid4().hex, False
        if isinstance(every, bool) or not isinstance(every, int | float) or not _SHORTEST <= every < 1e6:
            raise RequestError(f"every must be a number of seconds from {_SHORTEST}, not {every!r}")
        self._function = function
        name = str(getattr(function, "__name__", type(function).__name__))
        self._name = "the function" if name == "<lambda>" else name
        self._arguments = _arguments(function, self._name, frame)
        self._every = float(every)
        super().__init__()
        self.on_msg(self._view_changed)

    def __repr__(self) -> str:
        return (
            f"<LivePlot of {self._name}, every {self._every:g} s: {'running' if self.running else 'stopped'}>"
        )

    @property
    def running(self) -> bool:
        """Whether it is being drawn."""
        return self._thread is not None

    def is_replaced_by(self, other: LivePlot) -> bool:
        """Return whether `other` comes from a later run of the same cell.

        Where the front end does not name its cells, a function of the same name and place is taken for it.
        """
        if self is other or other._run is None or other._run == self._run:
            return False
        if other._cell is not None or self._cell is not None:
            return other._cell == self._cell
        return _identity(self._function) == _identity(other._function)

    def start(self) -> Self:
        """Draw now and from now on; displaying it does the same. Returns this plot."""
        self._stopped = False
        self.draw()
        self._begin()
        return self

    def stop(self, *, leave_image: bool = True) -> None:
        """End the drawing; where it was displayed the last one stays, as a static image if `leave_image`."""
        with self._wake:
            self._stopped = True
            thread = self._thread
            self._wake.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_END_WITHIN)
        if self._displayed and leave_image:
            _replace_display(self._display_id, self._static())
            self._displayed = False

    def close(self) -> None:
        """Stop, and remove the widget."""
        self.stop()
        super().close()

    def draw(self) -> None:
        """Call the function once and show the result, or why there is none."""
        with self._drawing:
            try:
                shown, problem = _shown(self._function(*self._arguments), self._name), ""
            except Exception as error:  # noqa: BLE001 - a user's function may raise anything
                shown, problem = None, _explained(error, self._function, self._name)
            with self.hold_sync():
                if shown is not None and shown != (self.mime, self.image, self.text):
                    self.mime, self.image, self.text = shown
                    self.shown += 1
                self.problem = problem

    def _begin(self) -> None:
        """Start the thread unless it runs or should not."""
        with self._wake:
            if self._thread is None and not self._stopped:
                self._thread = threading.Thread(
                    target=self._keep_drawing, name="logistream live", daemon=True
                )
                self._thread.start()
                _running.add(self)

    def _keep_drawing(self) -> None:
        took = 0.0
        while self._is_due(max(self._every - took, took)):
            begun = time.monotonic()
            self.draw()
            took = time.monotonic() - begun

    def _is_due(self, wait: float) -> bool:
        """Wait for the next drawing; return False, once, if there will be none."""
        with self._wake:
            self._wake.wait_for(lambda: self._stopped, wait)
            left = self._left_at is not None and time.monotonic() - self._left_at > _GRACE
            if not self._stopped and not left:
                return True
            self._thread = None
            _running.discard(self)
            return False

    def _view_changed(self, _: object, message: dict[str, Any], __: object) -> None:
        """Take note of a view that opens or closes in the browser."""
        with self._wake:
            (self._views.add if message.get("open") else self._views.discard)(str(message.get("view")))
            self._left_at = None if self._views else time.monotonic()
        if message.get("open"):
            self._begin()

    def _static(self) -> dict[str, str]:
        """Return the last drawing for places where no widget can live."""
        data = {"text/plain": self.text if self.mime == "text/plain" and self.text else repr(self)}
        if self.mime == "image/svg+xml":
            data[self.mime] = self.image.decode()
        elif self.mime in _IMAGES:
            data[self.mime] = base64.b64encode(self.image).decode("ascii")
        elif self.mime == "text/html":
            data[self.mime] = self.text
        return data

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:  # noqa: ANN401 - as inherited
        """Return the widget's view and, for places that cannot run widgets, the last drawing."""
        if not self.shown and not self.problem:
            self.draw()
        bundle = super()._repr_mimebundle_(**kwargs)
        data, metadata = bundle if isinstance(bundle, tuple) else (bundle or {}, {})
        return {**data, **self._static()}, metadata

    def _ipython_display_(self) -> None:
        from IPython.display import display

        self.start()
        data, metadata = self._repr_mimebundle_()
        self._displayed = True
        display(data, metadata=metadata, raw=True, display_id=self._display_id)  # type: ignore[no-untyped-call]


def _arguments(function: Callable[..., Any], name: str, frame: object) -> tuple[object, ...]:
    """Return what to call a function with."""
    if not callable(function):
        raise RequestError(f"expected a function that draws, got {function!r:.60}: leave out its brackets")
    try:
        parameters = inspect.signature(function).parameters.values()
    except ValueError:  # written in C, without a signature
        parameters = {}.values()
    required = [
        p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    takes_frame = any(
        p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL) for p in parameters
    )
    if len(required) > 1:
        raise RequestError(
            f"{name} asks for {', '.join(required)}: expected a function of nothing, or of the frame alone"
        )
    if required and frame is None:
        raise RequestError(f"{name} asks for {required[0]}: give it a frame, as in live({name}, frame=frame)")
    return () if frame is None or not takes_frame else (frame,)


def _running_cell() -> tuple[str | None, str | None]:
    """Return what identifies the cell that runs, and this run of it; None where that is not known."""
    if "IPython" not in sys.modules:
        return None, None
    from IPython import get_ipython

    shell: Any = get_ipython()
    parent = shell.get_parent() if hasattr(shell, "get_parent") else {}
    cell = (parent.get("metadata") or {}).get("cellId")
    return cell, (parent.get("header") or {}).get("msg_id")


def _identity(function: Callable[..., Any]) -> tuple[object, ...]:
    """Return what stays the same if a cell that defines a function is run again."""
    name = getattr(function, "__qualname__", None)
    code = getattr(function, "__code__", None)
    if name is None or "<lambda>" in name:
        return (name, type(function), getattr(code, "co_code", None), getattr(code, "co_names", None))
    return (getattr(function, "__module__", None), name)


def _explained(error: Exception, function: Callable[..., Any], name: str) -> str:
    """Return an exception of a function as a sentence with the line of the function where it happened."""
    file = getattr(getattr(function, "__code__", None), "co_filename", None)
    lines = [entry.lineno for entry in traceback.extract_tb(error.__traceback__) if entry.filename == file]
    where = f" (line {lines[-1]})" if lines else ""
    message = str(error)
    if not lines and isinstance(error, RequestError):  # of `_shown`
        return message
    return f"{name}{where} raised {type(error).__name__}{': ' if message else ''}{message}"


def _shown(result: object, name: str) -> _Shown:
    """Return what a browser shows of what a function has returned.

    Raises
    ------
    RequestError
        If it can show nothing of it.
    """
    figure = result if hasattr(result, "savefig") else getattr(result, "figure", None)
    if hasattr(figure, "savefig") and not inspect.isclass(result):
        file = io.BytesIO()
        figure.savefig(file, format="png")
        _forget_figure(figure)
        return _Shown("image/png", file.getvalue())
    bundle = _bundle(result)
    for mime in _FORMS:
        value = bundle.get(mime)
        if value is None:
            continue
        if mime == "text/html":
            return _Shown(mime, text=str(value))
        if isinstance(value, str):
            return _Shown(mime, value.encode() if mime == "image/svg+xml" else base64.b64decode(value))
        return _Shown(mime, bytes(value))
    if isinstance(result, str):
        return _Shown("text/plain", text=result)
    got = "nothing" if result is None else f"{result!r:.60}"
    raise RequestError(
        f"{name} must return a matplotlib Figure, or what a notebook shows as an image; it returned {got}"
    )


def _bundle(result: object) -> dict[str, Any]:
    """Return the forms in which an object shows itself in a notebook, by MIME type."""
    if inspect.isclass(result):
        return {}
    bundle: Any = getattr(result, "_repr_mimebundle_", dict)()
    found = dict(bundle[0] if isinstance(bundle, tuple) else bundle or {})
    for mime, method in _FORMS.items():
        if mime not in found and hasattr(result, method):
            value = getattr(result, method)()
            found[mime] = value[0] if isinstance(value, tuple) else value
    return found


def _forget_figure(figure: Any) -> None:  # noqa: ANN401 - matplotlib may not be there
    """Take a figure of pyplot out of its list, or it would be shown again below the next cell."""
    pyplot = sys.modules.get("matplotlib.pyplot")
    if pyplot is not None and getattr(figure, "number", None) in pyplot.get_fignums():
        pyplot.close(figure)


def _replace_display(display_id: str, data: dict[str, str]) -> None:
    from IPython import get_ipython
    from IPython.display import update_display

    if get_ipython() is not None:
        update_display(data, raw=True, display_id=display_id)  # type: ignore[no-untyped-call]


@atexit.register
def _end_all() -> None:
    """End all drawing when the process ends, while the libraries that draw are still there."""
    for plot in list(_running):
        plot.stop(leave_image=False)

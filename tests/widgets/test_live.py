"""A plot of one's own, redrawn: without a browser, and in a real kernel."""

from __future__ import annotations

import base64
import io
import re
import threading
from functools import partial
from typing import TYPE_CHECKING, Any

import matplotlib.pyplot as plt
import nbclient
import nbformat
import pandas as pd
import pytest
from matplotlib import image
from matplotlib.figure import Figure
from traitlets.config import Config

import logistream as ls
from helpers.kernels import kernel_options
from helpers.waiting import until
from logistream.errors import RequestError
from logistream.widgets.live import LivePlot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

BLACK_DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SVG = '<svg xmlns="http://www.w3.org/2000/svg"/>'


def threads() -> list[threading.Thread]:
    """Return the threads that draw."""
    return [thread for thread in threading.enumerate() if thread.name == "logistream live"]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    """Look, after each test, that it has left no thread."""
    yield
    assert threads() == []


class Drawings:
    """A function that draws another figure at each call."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> Figure:
        """Draw as many points as there were calls."""
        self.count += 1
        figure = Figure(figsize=(2, 1), dpi=50)
        figure.add_subplot().plot(range(self.count))
        return figure


class Shows:
    """An object that shows itself in the given forms."""

    def __init__(self, **forms: Any) -> None:
        for name, value in forms.items():
            setattr(self, f"_repr_{name}_", lambda value=value: value)


def look(plot: LivePlot, *, open: bool) -> None:  # noqa: A002 - the key of the message
    """Do as a browser does when a view opens or closes."""
    plot._handle_custom_msg({"view": "v", "open": open}, [])


def test_it_is_drawn_again_and_again_until_it_is_stopped() -> None:
    """On one thread, which ends with it; each drawing is a new PNG."""
    drawings = Drawings()
    plot = ls.live(drawings, every=0.1).start()
    first = plot.image
    assert image.imread(io.BytesIO(first)).shape == (50, 100, 4)
    assert len(threads()) == 1
    until(lambda: plot.shown >= 3)
    plot.stop()
    assert plot.image != first
    assert plot.mime == "image/png"
    count = drawings.count
    assert threads() == []
    assert repr(plot) == "<LivePlot of Drawings, every 0.1 s: stopped>"
    plot.stop()
    assert drawings.count == count


def test_the_frame_is_handed_to_a_function_that_asks_for_it() -> None:
    """Of one argument; one of none is called without."""
    frame = ls.RollingFrame(window=None)
    given: list[Any] = []

    def draws(frame: ls.RollingFrame, size: int = 3) -> str:
        given.append(frame)
        return f"{len(frame)} {size}"

    plot = ls.live(draws, frame=frame)
    plot.draw()
    assert given == [frame]
    assert (plot.mime, plot.text) == ("text/plain", "0 3")
    ls.live(lambda: "x", frame=frame).draw()


def test_an_exception_is_a_sentence_below_the_last_drawing() -> None:
    """The thread goes on, and the sentence goes when the function works again."""
    works = threading.Event()
    works.set()

    def draws() -> str:
        if not works.is_set():
            raise ZeroDivisionError("no orders yet")
        return "drawn"

    plot = ls.live(draws, every=0.1).start()
    assert (plot.text, plot.problem) == ("drawn", "")
    works.clear()
    until(lambda: plot.problem != "")
    assert re.fullmatch(r"draws \(line \d+\) raised ZeroDivisionError: no orders yet", plot.problem)
    assert plot.text == "drawn"
    works.set()
    until(lambda: plot.problem == "")
    plot.stop()


@pytest.mark.parametrize(
    ("result", "mime", "shown"),
    [
        (Shows(png=base64.b64decode(BLACK_DOT)), "image/png", base64.b64decode(BLACK_DOT)),
        (Shows(png=BLACK_DOT, html="<b>x</b>"), "image/png", base64.b64decode(BLACK_DOT)),
        (Shows(svg=SVG), "image/svg+xml", SVG.encode()),
        (Shows(html="<b>x</b>", svg=None), "text/html", "<b>x</b>"),
        (Shows(mimebundle={"text/html": "<i>x</i>", "text/plain": "x"}), "text/html", "<i>x</i>"),
        (Shows(mimebundle=({"image/png": BLACK_DOT}, {})), "image/png", base64.b64decode(BLACK_DOT)),
        ("words", "text/plain", "words"),
    ],
)
def test_anything_that_a_notebook_shows(result: object, mime: str, shown: str | bytes) -> None:
    """As an image, as HTML, or as text; the saved notebook gets the same."""
    plot = ls.live(lambda: result)
    bundle, _ = plot._repr_mimebundle_()
    assert plot.mime == mime
    assert (plot.image or plot.text) == shown
    kept = bundle[mime]
    assert (base64.b64decode(kept) if mime == "image/png" else kept) == (
        shown.decode() if isinstance(shown, bytes) and mime != "image/png" else shown
    )
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_frames_axes_and_figures_of_pyplot() -> None:
    """A DataFrame is its table; axes are their figure; a figure of pyplot is not left open."""
    plot = ls.live(lambda: pd.DataFrame({"x": [1]}))
    plot.draw()
    assert "<table" in plot.text
    plot = ls.live(lambda: Figure().add_subplot())
    plot.draw()
    assert plot.mime == "image/png"

    def draws() -> Any:
        axes = plt.subplots()[1]
        axes.plot([1, 2])
        return axes

    before = plt.get_fignums()
    plot = ls.live(draws)
    plot.draw()
    assert plot.problem == ""
    assert plt.get_fignums() == before


@pytest.mark.parametrize(
    ("result", "got"), [(None, "nothing"), (3, "3"), (Figure, "<class 'matplotlib.figure.Figure'>")]
)
def test_what_cannot_be_shown_is_a_sentence(result: object, got: str) -> None:
    """The message holds what is expected and what came."""
    plot = ls.live(lambda: result)
    plot.draw()
    expected = "the function must return a matplotlib Figure, or what a notebook shows as an image"
    assert plot.problem == f"{expected}; it returned {got}"


def takes_two(one: object, two: object, three: object = None) -> None:
    """Ask for more than a frame."""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"function": 3}, "expected a function that draws, got 3: leave out its brackets"),
        ({"function": len, "every": 0}, "every must be a number of seconds from 0.1, not 0"),
        ({"function": len, "every": "1s"}, "every must be a number of seconds from 0.1, not '1s'"),
        ({"function": len}, "len asks for obj: give it a frame, as in live(len, frame=frame)"),
        (
            {"function": takes_two, "frame": 1},
            "takes_two asks for one, two: expected a function of nothing, or of the frame alone",
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(arguments: dict[str, Any], sentence: str) -> None:
    """Where it was asked for."""
    with pytest.raises(RequestError) as caught:
        ls.live(**arguments)
    assert str(caught.value) == sentence


def test_nothing_is_drawn_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """When the last view has been closed drawing ends, and begins again with the next view."""
    monkeypatch.setattr("logistream.widgets.live._GRACE", 0.0)
    plot = ls.live(Drawings(), every=0.1).start()
    look(plot, open=True)
    until(lambda: plot.shown >= 2)
    look(plot, open=False)
    until(lambda: not plot.running)
    count = plot.shown
    look(plot, open=True)
    until(lambda: plot.shown > count)
    plot.stop()
    look(plot, open=True)
    assert not plot.running


@pytest.mark.parametrize(
    "functions",
    [(Drawings(), Drawings()), (partial(len, ()), partial(len, ())), (lambda: "a", lambda: "a")],
    ids=["object", "partial", "lambda"],
)
def test_without_names_of_cells_a_function_stands_for_its_cell(
    functions: tuple[Callable[..., Any], Callable[..., Any]],
) -> None:
    """A later run replaces the plot of such a function; the same run does not, nor does another function."""
    old, new, other = LivePlot(functions[0]), LivePlot(functions[1]), LivePlot(lambda: "other")
    old._run, new._run, other._run = "1", "2", "2"
    assert old.is_replaced_by(new)
    assert not old.is_replaced_by(other)
    new._run = "1"
    assert not old.is_replaced_by(new)


CELLS = (
    "import threading, logistream as ls\n"
    "from matplotlib.figure import Figure\n"
    "calls = []\n"
    "def draws():\n"
    "    calls.append(1)\n"
    "    figure = Figure(figsize=(2, 1)); figure.add_subplot().plot(range(len(calls)))\n"
    "    return figure\n"
    "def alive(): return sum(t.name == 'logistream live' for t in threading.enumerate())",
    "plot = ls.live(draws, every=0.1)\nplot",
    "import time\nwhile len(calls) < 4: time.sleep(0.05)\nfirst = plot\nprint(alive())",
    "print(first.running, plot.running, alive())",
    "plot.stop()\nprint(plot.running, alive())",
)


@pytest.mark.slow
def test_in_a_kernel_a_cell_that_runs_again_replaces_its_plot() -> None:
    """One thread at any time, none in the end; the notebook keeps an image of the last drawing."""
    cells = [{"cell_type": "code", "id": f"cell-{i}", "source": source} for i, source in enumerate(CELLS)]
    blank: dict[str, Any] = {"metadata": {}, "outputs": [], "execution_count": None}
    notebook = nbformat.from_dict(  # type: ignore[no-untyped-call]
        {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell | blank for cell in cells]}
    )
    with kernel_options() as options:
        config = Config({"AsyncKernelManager": options})
        client = nbclient.NotebookClient(
            notebook,
            config=config,
            timeout=240,
            startup_timeout=240,
            iopub_timeout=240,
            store_widget_state=False,
        )
        with client.setup_kernel():
            for index in (0, 1, 2):
                client.execute_cell(notebook.cells[index], index)
            first = notebook.cells[1].outputs[0]["data"]["image/png"]
            assert "application/vnd.jupyter.widget-view+json" in notebook.cells[1].outputs[0]["data"]
            for index in (1, 3, 4):
                client.execute_cell(notebook.cells[index], index)
    printed = [
        "".join(output["text"] for output in cell.outputs if output.get("name") == "stdout")
        for cell in notebook.cells[2:]
    ]
    assert printed == ["1\n", "False True 1\n", "False 0\n"]
    (output,) = notebook.cells[1].outputs
    assert output["data"]["image/png"] != first
    assert image.imread(io.BytesIO(base64.b64decode(output["data"]["image/png"]))).shape == (100, 200, 4)
    assert "application/vnd.jupyter.widget-view+json" not in output["data"]

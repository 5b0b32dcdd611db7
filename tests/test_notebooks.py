"""Every notebook is a document in good order, and runs from top to bottom by itself."""

from __future__ import annotations

import copy
import re
import socket
from pathlib import Path
from typing import Any

import nbformat.v4
import papermill
import pytest
from traitlets.config import Config

import logistream
from helpers.kernels import kernel_options
from helpers.sockets import free_port
from helpers.waiting import until

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SHORT: dict[str, dict[str, Any]] = {
    "01_live_stream": {"port": 0, "client_events": 3, "keep_streaming": False},
    "02_explore_schema": {},
    "03_fit_your_own_data": {"rate": 200.0, "keep_streaming": False},
    "04_break_the_connection": {"outage": 0.5, "nap": 5.0, "keep_streaming": False},
    "05_spark_streaming": {"history": "1min", "trained_on": 3000, "rounds": 3},
    "06_score_late_deliveries": {"history": "8s", "stretch": 2000},
    "07_what_if": {"n": 4000, "seconds": 2},
    "08_break_the_pipeline": {"rate": 10.0},
}
"""Parameters that make a run short and unattended."""

WITHOUT_SPARK = [path for path in NOTEBOOKS if path.stem != "05_spark_streaming"]
"""`tests/spark/test_notebook.py` runs the other one."""

LIVE = {
    "01_live_stream": "display(workbench)",
    "03_fit_your_own_data": "display(workbench)",
    "04_break_the_connection": "display(widgets.HBox([kill, restart, sleep]), live)",
}
"""Notebooks that end with a live chart, and the line that displays it."""

WITH_FILES = ("02_explore_schema", "03_fit_your_own_data")
"""Notebooks that read or write files: they run in a folder with files, too."""

LONGEST_CELL = 15  # lines

pytestmark = pytest.mark.timeout(900)

every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def run(path: Path, target: Path, parameters: dict[str, Any], *, folder: Path | None = None) -> Any:
    """Run a notebook in a kernel of its own and return what would be saved; an unknown parameter fails.

    The working folder is that of the target, which holds nothing that a notebook could need, unless another
    one is given.
    """
    known = papermill.inspect_notebook(str(path))
    if unknown := sorted(set(parameters) - set(known)):
        raise ValueError(
            f"{path.name} has no parameter {', '.join(unknown)}; it has {', '.join(sorted(known))}"
        )
    with kernel_options() as options:
        return papermill.execute_notebook(
            str(path),
            str(target),
            parameters=parameters,
            cwd=str(folder or target.parent),
            progress_bar=False,
            start_timeout=240,
            iopub_timeout=240,
            config=Config({"AsyncKernelManager": options}),
            store_widget_state=False,
        )


def read(path: Path) -> Any:
    """Return a notebook as it stands in the repository."""
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call]


def notebook_path(stem: str) -> Path:
    """Return the path of the notebook with this name."""
    return ROOT / "notebooks" / f"{stem}.ipynb"


def code_cells(notebook: Any) -> list[Any]:
    """Return the code cells of a notebook."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def outputs(notebook: Any, mime: str) -> list[Any]:
    """Return all that the cells displayed as this MIME type."""
    return [
        output.data[mime]
        for cell in code_cells(notebook)
        for output in cell.outputs
        if mime in output.get("data", {})
    ]


@every_notebook
def test_is_in_good_order(path: Path) -> None:
    """A title first, short cells, one cell of parameters, a kernel that everybody has."""
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    assert [
        cell.source for cell in code_cells(notebook) if len(cell.source.splitlines()) > LONGEST_CELL
    ] == []
    assert len([cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]) == 1
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.metadata.kernelspec.language == "python"


@every_notebook
def test_is_stripped(path: Path) -> None:
    """No outputs, counts or widget state in git."""
    notebook = read(path)
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code_cells(notebook))
    assert "widgets" not in notebook.metadata


@every_notebook
def test_parameters_have_short_values_for_tests(path: Path) -> None:
    """Every notebook is run by the tests below."""
    assert path.stem in SHORT


@every_notebook
def test_imports_public_names_only(path: Path) -> None:
    """Of the package there is `import logistream as ls`, and every `ls.name` is public."""
    code = "\n".join(cell.source for cell in code_cells(read(path)))
    assert set(re.findall(r"^.*\bimport\b.*logistream.*$|^from logistream.*$", code, re.MULTILINE)) == {
        "import logistream as ls"
    }
    assert set(re.findall(r"\bls\.(\w+)", code)) <= set(logistream.__all__)


@every_notebook
def test_links_lead_somewhere(path: Path) -> None:
    """Links between notebooks and to headings of the same one are not broken."""
    notebook = read(path)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    headings = {line.lstrip("# ").replace(" ", "-") for line in text.splitlines() if line.startswith("#")}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings
        elif not target.startswith("https://"):
            assert (path.parent / target).exists()


@pytest.mark.slow
@pytest.mark.notebook
@pytest.mark.parametrize(
    ("path", "folder"),
    [
        *((path, None) for path in WITHOUT_SPARK),  # an empty folder
        *((path, ROOT) for path in WITHOUT_SPARK if path.stem in WITH_FILES),
    ],
    ids=lambda value: value.stem if isinstance(value, Path) else "empty",
)
def test_runs_from_top_to_bottom(path: Path, folder: Path | None, tmp_path: Path) -> None:
    """From any folder every cell runs without a warning, and pictures are saved without widget state."""
    saved = run(path, tmp_path / path.name, SHORT[path.stem], folder=folder)
    streams = [output for cell in code_cells(saved) for output in cell.outputs if "name" in output]
    assert [output.text for output in streams if output.name == "stderr"] == []
    assert outputs(saved, "image/png")
    assert "widgets" not in saved.metadata
    if path.stem == "02_explore_schema":  # its last table is the AUC without and with the trap
        without, trapped = map(float, re.findall(r">([01]\.\d{3})<", outputs(saved, "text/html")[-1]))
        assert 0.7 < without < 0.8
        assert trapped == 1.0
    if path.stem == "06_score_late_deliveries":  # its last table is that of the two changes
        episodes = outputs(saved, "text/html")[-1]
        assert re.findall(r"<th>(\d+)</th>", episodes) == ["0", "1"]
        assert episodes.count("delays in Europe") == 2
    if path.stem == "07_what_if":
        assert "all others are equal to their twins: True" in "".join(stream.text for stream in streams)
    if path.stem == "08_break_the_pipeline":  # on a clean wire, with its fault, mended
        verdicts = re.findall(r"<b>The pipeline (.*?)[.:]", "".join(outputs(saved, "text/html")))
        assert verdicts == ["did nothing wrong", "is at fault", "did nothing wrong"]
        text = "".join(stream.text for stream in streams)
        assert "the others hold orders that were corrupted on the wire: True" in text
    if path.stem in LIVE:  # an unattended run leaves an image in the chart's place, and no view of a widget
        chart = saved.cells[-1].outputs[-1].data
        assert len(chart["image/png"]) > 20_000  # an empty chart is smaller
        assert "application/vnd.jupyter.widget-view+json" not in chart


@pytest.mark.parametrize("stem", list(LIVE))
def test_running_all_cells_ends_at_the_live_chart(stem: str) -> None:
    """JupyterLab scrolls to the last cell; it is the one that displays the chart."""
    last = read(notebook_path(stem)).cells[-1]
    assert last.cell_type == "code"
    assert LIVE[stem] in last.source


STOPPED = """
follower.stop()
server.stop()
import threading, time
deadline = time.monotonic() + 90
while any("logistream" in thread.name for thread in threading.enumerate()):
    assert time.monotonic() < deadline, threading.enumerate()
    time.sleep(0.05)
"""


@pytest.mark.slow
@pytest.mark.notebook
def test_cells_of_the_live_notebook_can_be_run_again(tmp_path: Path) -> None:
    """Each cell runs twice in a row, and what is stopped then leaves no thread of ours."""
    notebook = read(notebook_path("01_live_stream"))
    twice = [copy.deepcopy(cell) for cell in notebook.cells for _ in range(1 + (cell.cell_type == "code"))]
    for number, cell in enumerate(twice):
        cell.id = f"twice-{number}"
    notebook.cells = [*twice, nbformat.v4.new_code_cell(STOPPED)]  # type: ignore[no-untyped-call]
    # Papermill takes the first of two cells of parameters.
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    notebook.cells.remove(tagged[1])
    nbformat.write(notebook, tmp_path / "twice.ipynb")  # type: ignore[no-untyped-call]
    # On a port of its own the second server takes the place of the first; port 0 would give each its own.
    run(tmp_path / "twice.ipynb", tmp_path / "out.ipynb", SHORT["01_live_stream"] | {"port": free_port()})


NOTHING_LOST = """
deadline = time.monotonic() + 90
while True:  # the two are counted one after the other
    table = account()
    all_of_them, newest = table.loc["wants all"], table.loc["wants the newest"]
    if newest["absent"] == newest["reported as missed"]:
        break
    assert time.monotonic() < deadline, table.to_string()
assert newest["absent"] > 0, table.to_string()
assert all_of_them["absent"] == all_of_them["reported as missed"] == 0, table.to_string()
assert (table["reconnects"] > 0).all() and [name for _, name in presses] == ["Kill", "Restart", "Sleep"]
assert one.equals(other) and one.equals(held) and len(one) > 100
assert reader.restarts == 1 and (numbers == 0).sum() == 2
"""
NOTHING_LEFT = """
import psutil, threading
assert psutil.Process().children(recursive=True) == [] and not timeline.parent.exists()
deadline = time.monotonic() + 90
while left := [t for t in threading.enumerate() if "logistream" in t.name or "keep_record" in t.name]:
    assert time.monotonic() < deadline, left
    time.sleep(0.05)
"""
FAILS = """
Path({place!r}).write_text(address_of(serve()).rpartition(":")[2])
raise RuntimeError("a cell fails")
"""


@pytest.mark.slow
@pytest.mark.notebook
def test_breaking_the_connection_loses_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    """Left half-way, run again from the top, and left by an error: what it states is true, and all stops."""
    notebook = read(notebook_path("04_break_the_connection"))
    cells = notebook.cells
    half = next(number for number, cell in enumerate(cells) if "address_of(serve())" in cell.source) + 1
    again = [copy.deepcopy(cell) for cell in cells if "parameters" not in cell.metadata.get("tags", [])]
    checks = [nbformat.v4.new_code_cell(code) for code in (NOTHING_LOST, NOTHING_LEFT)]  # type: ignore[no-untyped-call]
    setup = next(copy.deepcopy(cell) for cell in cells if "cleanup.close()  #" in cell.source)
    failing = nbformat.v4.new_code_cell(FAILS.format(place=str(tmp_path / "port")))  # type: ignore[no-untyped-call]
    notebook.cells = [*cells[:half], *again, *checks, setup, failing]
    for number, cell in enumerate(notebook.cells):
        cell.id = f"again-{number}"
    nbformat.write(notebook, tmp_path / "again.ipynb")  # type: ignore[no-untyped-call]
    with pytest.raises(papermill.PapermillExecutionError, match="a cell fails"):
        run(tmp_path / "again.ipynb", tmp_path / "out.ipynb", SHORT["04_break_the_connection"])

    def freed() -> bool:
        with socket.socket() as caller:
            return caller.connect_ex(("127.0.0.1", int((tmp_path / "port").read_text()))) != 0

    until(freed)


@pytest.mark.slow
@pytest.mark.notebook
@pytest.mark.sample
def test_the_schema_can_be_explored_on_real_orders(sample_path: Path, tmp_path: Path) -> None:
    """The second notebook runs on the CSV as it is published, too."""
    run(notebook_path("02_explore_schema"), tmp_path / "out.ipynb", {"orders_path": str(sample_path)})


def test_an_unknown_parameter_is_an_error(tmp_path: Path) -> None:
    """A misspelt parameter must not leave a test running with the default."""
    with pytest.raises(ValueError, match="has no parameter prot; it has client_events, keep_streaming"):
        run(NOTEBOOKS[0], tmp_path / "out.ipynb", {"prot": 0})

"""The notebook on Spark runs, says what is so, and leaves nothing running."""

from __future__ import annotations

from typing import TYPE_CHECKING

import nbformat.v4
import pytest

from test_notebooks import SHORT, code_cells, notebook_path, outputs, read, run

if TYPE_CHECKING:
    from pathlib import Path

STEM = "05_spark_streaming"
EXACTLY_ONCE = "assert once and after > before > 0 and len(scores) == after"
NOTHING_LEFT = """
import psutil
import threading

assert psutil.Process().children(recursive=True) == []
assert not [thread for thread in threading.enumerate() if "logistream" in thread.name]
"""


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.notebook
@pytest.mark.timeout(900)
def test_spark_reads_scores_and_writes_the_stream_and_ends(tmp_path: Path) -> None:
    """Each order is scored once, there are pictures, and the JVM is gone at the end."""
    path = notebook_path(STEM)
    notebook = read(path)
    for source in (EXACTLY_ONCE, NOTHING_LEFT):
        notebook.cells.append(nbformat.v4.new_code_cell(source))  # type: ignore[no-untyped-call]
    nbformat.write(notebook, tmp_path / path.name)  # type: ignore[no-untyped-call]
    saved = run(tmp_path / path.name, tmp_path / "out.ipynb", SHORT[STEM])
    streams = [output for cell in code_cells(saved) for output in cell.outputs if "name" in output]
    assert [output.text for output in streams if output.name == "stderr"] == []
    assert len(outputs(saved, "image/png")) == 2

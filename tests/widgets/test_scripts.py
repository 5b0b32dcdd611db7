"""The scripts of the widgets: whole, with nothing from elsewhere, and computing what Python computes."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from logistream.widgets.board import Board
from logistream.widgets.summary import lines, share_window
from widgets.test_cells import START, events, fresh

NODE = shutil.which("node")
STATIC = Path(__file__).parents[2] / "src" / "logistream" / "widgets" / "static"
needs_node = pytest.mark.skipif(NODE is None, reason="no node here: install Node.js 20.19 or later")


def run_node(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run Node.js and return what it printed."""
    return subprocess.run(
        [NODE or "node", *arguments], input=text, capture_output=True, text=True, timeout=240
    )


def test_scripts_and_styles_need_nothing_from_elsewhere() -> None:
    """All that the browser runs is in the package: no import, no fetch, no address but in comments."""
    script = "\n".join(
        line for line in str(Board._esm).splitlines() if not line.startswith(("/*!", "//", "const COASTLINE"))
    )
    for word in ("http", "\nimport ", "fetch(", "XMLHttpRequest"):
        assert word not in script
    assert "http" not in str(Board._css)
    assert "@import" not in str(Board._css)


def test_the_coastline_is_small() -> None:
    """The map costs less than 60 kB."""
    assert (STATIC / "map" / "coastline.json").stat().st_size < 60_000


@needs_node
def test_the_modules_make_one_module(tmp_path: Path) -> None:
    """No two modules declare the same name, and the whole is sound JavaScript."""
    path = tmp_path / "board.mjs"
    path.write_text(str(Board._esm), encoding="utf-8")
    checked = run_node("--check", str(path))
    assert checked.returncode == 0, checked.stderr


@needs_node
def test_the_pure_modules() -> None:
    """Formats, axes and sums: see scripts.test.mjs."""
    ran = run_node("--test", str(Path(__file__).with_name("scripts.test.mjs")))
    assert ran.returncode == 0, ran.stdout + ran.stderr


@needs_node
def test_browser_and_kernel_take_shares_over_the_same_window() -> None:
    """On axes of any length, and over a length that people use."""
    spans = [1, 20, 40, 59.9, 60, 119.7, 120, 300, 1263.9, 3600, 50_000, 10**7]
    program = f"""
        import {{ windowOf }} from {json.dumps((STATIC / "session.js").as_uri())};
        console.log(JSON.stringify({spans}.map(windowOf)));
    """
    ran = run_node("--input-type=module", "-", text=program)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == [share_window(span) for span in spans]
    assert share_window(1263.9) == 60


@needs_node
@pytest.mark.parametrize("filters", [{}, {"market": ["B", "C"]}])
def test_browser_and_kernel_compute_the_same_lines(filters: dict[str, list[str]]) -> None:
    """The live view and the static image agree, point by point."""
    rng = np.random.default_rng(3)
    times = START + np.sort(rng.integers(0, 60_000_000, 4000))
    times = times[(times < START + 30_000_000) | (times > START + 40_000_000)]
    n = len(times)
    cells = fresh(labels=["A", "B", "C"], filters=filters)
    cells.update(
        events(times, late=rng.integers(0, 2, n), market=rng.choice(["A", "B", "C"], n), sales=rng.random(n))
    )
    stop = START + 59_900_000
    asked = [(START / 1e6 - 9, 66.0), (START / 1e6 + 30, 0.0), (START / 1e6 + 40, 66.0)]
    start = START + 5_000_000
    found = lines(cells, start, stop, window=10, asked=asked)
    begin, table = cells.rows(cells.cell(start) - 40, cells.cell(stop - 1))
    given = {
        "cut": {
            "step": 0.25, "first": begin, "count": len(table), "amounts": 1, "groups": len(cells.labels),
            "data": table.ravel().tolist(), "weights": None,
        },
        "options": {
            "shown": cells.cell(start), "stop": stop / 1e6, "begin": cells.begin, "window": 10,
            "lines": [0, 1, 2, 3], "totals": [True], "members": cells.members, "asked": asked,
        },
    }  # fmt: skip
    program = f"""
        import {{ linesOf }} from {json.dumps((STATIC / "series.js").as_uri())};
        const given = {json.dumps(given)};
        given.cut.data = Float32Array.from(given.cut.data);
        console.log(JSON.stringify(linesOf(given.cut, given.options)));
    """
    ran = run_node("--input-type=module", "-", text=program)
    assert ran.returncode == 0, ran.stderr
    drawn = json.loads(ran.stdout)
    for name in ("time", "rate", "share", "low", "high"):
        np.testing.assert_allclose(
            np.array(drawn[name], dtype=float), getattr(found, name), rtol=1e-5, err_msg=name
        )
    np.testing.assert_allclose(np.array(drawn["groups"], dtype=float).T, found.groups, rtol=1e-5)
    np.testing.assert_allclose(np.array(drawn["amounts"], dtype=float).T, found.amounts, rtol=1e-5)

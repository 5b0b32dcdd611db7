"""Each notebook but that on Spark, in JupyterLab in a browser: all cells run, nothing leaves the host."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from papermill.iorw import load_notebook_node, write_ipynb
from papermill.parameterize import parameterize_notebook
from selenium.webdriver.common.by import By

import logistream
from browser.bench import LOOPBACK
from helpers.lab import until

if TYPE_CHECKING:
    from browser.bench import Bench, Desk

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("0[1-46-8]*.ipynb"))
SHORT: dict[str, dict[str, Any]] = {
    "01_live_stream": {"port": 0, "client_events": 3},
    "02_explore_schema": {},
    "03_fit_your_own_data": {"table_path": "orders.parquet"},
    "04_break_the_connection": {"outage": 0.5, "nap": 2.0},
    "06_score_late_deliveries": {"history": "8s", "stretch": 2000},
    "07_what_if": {"n": 4000, "seconds": 2},
    "08_break_the_pipeline": {"rate": 10.0},
}
"""Parameters that make a run short."""

NOTE_NAPS = """(
    globals().update(naps=[], clear=awake.clear),
    setattr(awake, "clear", lambda: (naps.append(1), clear())),
)"""
"""Makes the kernel note when its readers fall asleep."""

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def folder(desk: Desk) -> str:
    """Return the name of a folder of the desk with the notebooks, which have short parameters."""
    root = desk.root / "every_notebook"
    root.mkdir()
    for path in NOTEBOOKS:
        notebook = parameterize_notebook(load_notebook_node(str(path)), SHORT[path.stem])
        write_ipynb(notebook, str(root / path.name))
    logistream.load_orders().head(2000).to_parquet(root / "orders.parquet")
    return root.name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_all_cells_run_without_an_outside_request(desk: Desk, folder: str, path: Path) -> None:
    """Nor does anything complain on the console; the buttons of the fourth do what their names say."""
    with desk.opened(f"{folder}/{path.name}") as page:
        if path.stem == "04_break_the_connection":
            press_the_buttons(page)
        assert page.complaints() == []
        assert page.requested_hosts() <= LOOPBACK


def press_the_buttons(page: Bench) -> None:
    """Kill and restart the server, and let the readers sleep; the chart is drawn anew meanwhile."""

    def press(name: str) -> bool:
        button = page.browser.find_element(By.XPATH, f"//button[normalize-space()='{name}']")
        page.browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()
        return True

    until(lambda: press("Kill"))
    until(lambda: page.ask("{follower.state for follower in followers}") == "{'reconnecting'}")
    shown = int(page.ask("live.shown"))
    until(lambda: int(page.ask("live.shown")) > shown)
    until(lambda: press("Restart"))
    until(lambda: page.ask("{follower.state for follower in followers}") == "{'live'}")
    until(lambda: page.ask("max(map(lag, frames.values())) < 0.5") == "True")
    assert page.ask("followers[0].missed") == "0"
    page.ask(NOTE_NAPS)  # a nap may be over before one could ask for it
    until(lambda: press("Sleep"))
    until(lambda: page.ask("naps") == "[1]")
    until(lambda: page.ask("awake.is_set()") == "True")
    until(lambda: page.ask("[name for _, name in presses][3:]") == "['Kill', 'Restart', 'Sleep']")

"""The first notebook in a real JupyterLab in a real browser, used as a person would."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from helpers.lab import CHROMIUM, DRIVER, Lab, chromium, jupyterlab
from helpers.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from selenium.webdriver import Chrome

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "01_live_stream.ipynb"
LOOPBACK = {"127.0.0.1", "localhost", "::1"}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="no chromium and chromedriver here: install both to run this"
    ),
]


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    """Give a headless Chromium."""
    with chromium(tmp_path) as chrome:
        yield chrome


def test_the_slider_changes_the_stream_while_it_is_drawn(browser: Chrome, tmp_path: Path) -> None:
    """All cells run and end at the chart, the keyboard moves the slider, nothing leaves the machine."""
    root = tmp_path / "root"
    root.mkdir()
    source = NOTEBOOK.read_text(encoding="utf-8")
    assert '"port = 8000 ' in source
    (root / NOTEBOOK.name).write_text(source.replace('"port = 8000 ', '"port = 0 '), encoding="utf-8")

    with jupyterlab(root, tmp_path) as address:
        lab = Lab(browser, address.format(NOTEBOOK.name))
        lab.run_all()
        until(lambda: len(browser.find_elements(By.CSS_SELECTOR, ".ls-plot canvas")) == 3)
        until(lambda: lab.visible_part(".ls-time") > 0.5)  # without scrolling

        slider = browser.find_element(By.CSS_SELECTOR, ".ls-slider")
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", slider)
        slider.send_keys(Keys.ARROW_RIGHT * 3)
        until(lambda: lab.ask("server.rate") == "40.0")
        until(lambda: "40 asked" in lab.shown(".ls-tile-hint"))
        before = int(lab.ask("workbench.picture().total"))
        until(lambda: int(lab.ask("workbench.picture().total")) > before)
        until(lambda: "40" in lab.shown(".ls-tile-value").split())

        browser.find_element(By.XPATH, "//button[contains(., 'Pause')]").click()
        until(lambda: lab.ask("server.paused") == "True")
        until(lambda: "paused" in lab.shown(".ls-state-word"))

        assert lab.complaints() == []
        assert lab.requested_hosts() <= LOOPBACK

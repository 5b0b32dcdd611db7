"""The first notebook in a real JupyterLab in a real browser, used as a person would."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from browser.bench import LOOPBACK
from helpers.lab import until

if TYPE_CHECKING:
    from browser.bench import Desk

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "01_live_stream.ipynb"

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


def test_the_slider_changes_the_stream_while_it_is_drawn(desk: Desk) -> None:
    """All cells run and end at the chart, the keyboard moves the slider, nothing leaves the machine."""
    source = NOTEBOOK.read_text(encoding="utf-8")
    assert '"port = 8000 ' in source
    (desk.root / NOTEBOOK.name).write_text(source.replace('"port = 8000 ', '"port = 0 '), encoding="utf-8")

    with desk.opened(NOTEBOOK.name) as lab:
        browser = lab.browser
        until(lambda: len(browser.find_elements(By.CSS_SELECTOR, ".ls-plot canvas")) == 3)
        until(lambda: lab.visible_part(".ls-time") > 0.5)  # without scrolling

        slider = browser.find_element(By.CSS_SELECTOR, ".ls-slider")
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", slider)
        slider.send_keys(Keys.ARROW_RIGHT)
        until(lambda: lab.ask("server.rate") == "25.0")
        until(lambda: "25 asked" in lab.shown(".ls-tile-hint"))
        before = int(lab.ask("workbench.picture().total"))
        until(lambda: int(lab.ask("workbench.picture().total")) > before)
        until(lambda: "25" in lab.shown(".ls-tile-value").split())

        until(lambda: lab.click(".ls-pause"))
        until(lambda: lab.ask("server.paused") == "True")
        until(lambda: "paused" in lab.shown(".ls-state-word"))

        assert lab.complaints() == []
        assert lab.requested_hosts() <= LOOPBACK

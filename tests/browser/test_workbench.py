"""The workbench in a real JupyterLab in a real browser, used as a person would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from helpers.lab import CHROMIUM, DRIVER, Lab, chromium, jupyterlab
from helpers.sockets import free_port
from helpers.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from selenium.webdriver.remote.webelement import WebElement

LOOPBACK = {"127.0.0.1", "localhost", "::1"}
IMAGE = ".jp-OutputArea-child img[width='1111']"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="no chromium and chromedriver here: install both to run this"
    ),
]

# How many different colours the middle of each canvas has: one that is not painted has one.
PAINTED = """
return [...document.querySelectorAll('.ls-board canvas')].map((canvas) => {
  if (!canvas.width || canvas.offsetParent === null) return 0;
  const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  const colours = new Set();
  for (let i = 0; i < data.length; i += 40) colours.add(data.slice(i, i + 4).join());
  return colours.size;
})
"""


class Bench(Lab):
    """A notebook with a workbench, `w`."""

    def find(self, selector: str) -> WebElement:
        """Return the first match."""
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        """Return the text of the first match, shown or not; empty without one."""
        script = "return document.querySelector(arguments[0])?.textContent ?? ''"
        return str(self.browser.execute_script(script, selector))

    def shown(self, selector: str) -> str:
        """Return the text of all matches that are to be seen, at one moment."""
        script = (
            "return [...document.querySelectorAll(arguments[0])].filter((node) => node.offsetParent)"
            ".map((node) => node.innerText).join(' ')"
        )
        return str(self.browser.execute_script(script, selector))

    def image(self) -> tuple[str, bool]:
        """Return the address of the static image (empty without one), and whether it is to be seen."""
        script = (
            "const image = document.querySelector(arguments[0]);"
            "return [image?.src ?? '', Boolean(image?.offsetParent)]"
        )
        source, visible = self.browser.execute_script(script, IMAGE)
        return str(source), bool(visible)

    def look(self, expression: str) -> Any:
        """Return the value of an expression about `board`, `session` and `drawn`."""
        return self.browser.execute_script(
            "const board = document.querySelector('.ls-board'); const { session } = board;"
            f"const drawn = board.view.look(); return {expression}"
        )

    def act(self) -> ActionChains:
        """Return a chain of what the hands do."""
        return ActionChains(self.browser, duration=50)

    def type_rate(self, text: str) -> None:
        """Type a rate and press Enter."""
        self.find(".ls-rate").click()
        self.find(".ls-rate").send_keys(text, Keys.ENTER)

    def button(self, text: str) -> WebElement:
        """Return the button with a text."""
        return self.browser.find_element(By.XPATH, f"//button[.='{text}']")


def notebook(path: Path, *cells: str) -> None:
    """Write a notebook of code cells."""
    code: list[dict[str, Any]] = [
        {
            "cell_type": "code",
            "id": f"c{place}",
            "metadata": {},
            "execution_count": None,
            "outputs": [],
            "source": cell,
        }
        for place, cell in enumerate(cells)
    ]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    content = {"cells": code, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(content))


@contextmanager
def opened(tmp_path: Path, *cells: str) -> Iterator[Bench]:
    """Give a notebook that has run and shows a workbench."""
    root = tmp_path / "root"
    root.mkdir()
    notebook(root / "live.ipynb", *cells)
    with jupyterlab(root, tmp_path) as address, chromium(tmp_path) as browser:
        browser.set_window_size(1400, 1100)
        bench = Bench(browser, address.format("live.ipynb"))
        bench.run_all()
        until(lambda: bool(browser.find_elements(By.CSS_SELECTOR, ".ls-board canvas")), within=30)
        browser.execute_script("document.querySelector('.ls-board').scrollIntoView()")
        until(lambda: bench.look("Boolean(drawn.lines?.time.length)"))
        yield bench


def test_what_a_person_does_holds_to_the_digit(tmp_path: Path) -> None:
    """Rate typed, dragged and set from code; pause, filter, group, zoom, past, dark theme, static image."""
    server = "import logistream as ls\nserver = ls.StreamServer(rate=50, port=0, history='20min')"
    with opened(tmp_path, server, "w = ls.Workbench(server)\nw") as bench:
        # Everything is painted: three plots, the strip, the map, five sparklines.
        until(lambda: sum(colours > 1 for colours in bench.browser.execute_script(PAINTED)) >= 9)
        assert len(bench.browser.find_elements(By.CSS_SELECTOR, ".ls-group")) == 4
        assert len(bench.browser.find_elements(By.CSS_SELECTOR, ".ls-table tbody tr")) == 12
        assert bench.text(".ls-state-word") == "live"

        # The rate: typed, refused, set from code, dragged, by keys.
        bench.type_rate("700.25")
        until(lambda: bench.ask("w.server.rate") == "700.25")
        bench.type_rate("20000000")
        until(lambda: "1,000,000" in bench.text(".ls-alert"))
        bench.type_rate("quick")
        until(lambda: "is not a rate" in bench.text(".ls-alert"))
        bench.find(".ls-rate").send_keys(Keys.ESCAPE)
        assert bench.ask("w.server.rate") == "700.25"
        bench.ask("setattr(w.server, 'rate', 63.217)")
        until(lambda: bench.find(".ls-rate").get_attribute("value") == "63.217")
        entries = int(bench.ask("len(w.server.timeline.entries)"))
        drag = bench.act().click_and_hold(bench.find(".ls-slider"))
        for _ in range(6):
            drag.move_by_offset(8, 0)
        drag.release().perform()
        until(lambda: int(bench.ask("len(w.server.timeline.entries)")) == entries + 1)
        dragged = float(bench.ask("w.server.rate"))
        assert dragged > 100
        assert bench.find(".ls-rate").get_attribute("value") == f"{dragged:,g}"
        bench.find(".ls-slider").send_keys(Keys.ARROW_RIGHT * 3)
        until(lambda: int(bench.ask("len(w.server.timeline.entries)")) == entries + 2)
        bench.type_rate("100")
        until(lambda: "100 asked" in bench.shown(".ls-tile-hint"))

        bench.find(".ls-pause").click()
        until(lambda: bench.ask("w.server.paused") == "True")
        until(lambda: bench.text(".ls-state-word") == "paused")
        bench.find(".ls-pause").click()
        until(lambda: bench.ask("w.server.paused") == "False")
        assert [mark["kind"] for mark in bench.look("session.marks")][-2:] == ["pause", "resume"]

        # A click on a group filters all panels; Escape clears.
        bench.browser.find_element(
            By.XPATH, "//button[@class='ls-group'][contains(., 'First Class')]"
        ).click()
        until(lambda: "Shipping Mode: First Class" in bench.shown(".ls-chip"))
        mode = "session.layout.names.indexOf('Shipping Mode')"
        until(lambda: bench.look(f"session.rows.every((row) => row[{mode}] === 'First Class')"))
        until(lambda: bench.text(".ls-tile-value") == "100 %")
        bench.act().send_keys(Keys.ESCAPE).perform()
        until(lambda: not bench.shown(".ls-chip"))

        bench.browser.find_element(By.XPATH, "//select[@class='ls-select']/option[.='Market']").click()
        until(lambda: "Europe" in bench.shown(".ls-group-name"))
        assert bench.ask("w.columns.by") == "'Market'"

        # A click on a row shows the event; the table stands still meanwhile.
        bench.find(".ls-table tbody tr").click()
        until(lambda: "Late_delivery_risk" in bench.text(".ls-json"))
        assert len(json.loads(bench.text(".ls-json"))) == 23
        bench.act().send_keys(Keys.ESCAPE).perform()

        # Zoom, back by a double click, then to what is older than anything that was sent.
        plot = bench.find(".ls-plot-share")
        bench.act().move_to_element_with_offset(plot, -50, 0).click_and_hold().move_by_offset(
            60, 0
        ).move_by_offset(60, 0).release().perform()
        until(lambda: bench.look("session.range !== null"))
        assert 5 < bench.look("session.range[1] - session.range[0]") < 60
        until(lambda: bench.button("Back to live").is_displayed())
        bench.act().double_click(plot).perform()
        until(lambda: bench.look("session.range === null"))
        strip = bench.find(".ls-strip")
        bench.act().move_to_element_with_offset(strip, -200, 0).click().perform()
        until(lambda: bench.look("session.range !== null && session.past !== null"))
        until(lambda: bench.look("drawn.lines.share.filter(Number.isFinite).length > 20"))
        assert bench.look("session.range[1] < session.ring.begin * session.ring.step")
        bench.button("30 s").click()
        until(lambda: bench.look("session.range === null"))

        # Dark theme: the canvases are drawn in its colours.
        light = bench.look("board.session && getComputedStyle(board).getPropertyValue('--ls-rate')")
        bench.browser.execute_script(
            "window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})"
        )
        until(lambda: bench.look("getComputedStyle(board).getPropertyValue('--ls-rate')") != light)
        until(lambda: sum(colours > 1 for colours in bench.browser.execute_script(PAINTED)) >= 9)

        # The static image is in the notebook, hidden while the widget lives.
        until(lambda: bench.image()[0] != "", within=30)
        first, visible = bench.image()
        assert not visible
        until(lambda: bench.image()[0] != first, within=40)

        # The axis moves without messages, and a page that is loaded again has everything again.
        frames = bench.look("session.frames")
        until(lambda: bench.look("session.frames") > frames + 10)
        bench.browser.execute_script("window.jupyterapp.commands.execute('docmanager:save')")
        assert bench.complaints() == []
        assert bench.requested_hosts() <= LOOPBACK


SERVE = "import sys; from logistream.cli import main; sys.exit(main())"


def serve(port: int, timeline: Path) -> subprocess.Popen[bytes]:
    """Start a server that goes on with its timeline."""
    options = ["serve", f"--port={port}", "--rate=100", "--history=1min", f"--timeline={timeline}"]
    return subprocess.Popen(
        [sys.executable, "-c", SERVE, *options],
        env=os.environ,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def reload_until_drawn(bench: Bench) -> None:
    """Load the page again; once more if JupyterLab did not restore the widgets of the running kernel.

    Under load it sometimes asks the kernel for its widgets before it is connected, and shows none.
    """
    for _ in range(3):
        bench.browser.refresh()
        with suppress(AssertionError):
            until(lambda: bool(bench.browser.find_elements(By.CSS_SELECTOR, ".ls-board canvas")), within=25)
            return
    raise AssertionError("the widget is not drawn after three reloads")


def test_what_is_broken_is_not_shown_as_live(tmp_path: Path) -> None:
    """Server killed and back, page loaded again, kernel restarted, saved and opened without its kernel."""
    port, timeline = free_port(), tmp_path / "timeline"
    server = serve(port, timeline)
    try:
        cells = ("import logistream as ls", f"w = ls.Workbench('http://127.0.0.1:{port}')\nw")
        with opened(tmp_path, *cells) as bench:
            until(lambda: bench.text(".ls-state-word") == "live", within=30)
            until(lambda: int(bench.ask("w.frame.appended")) > 200, within=30)
            server.kill()
            server.wait()
            until(lambda: bench.text(".ls-state-word") == "reconnecting")
            until(lambda: "events behind" in bench.text(".ls-state-reason"))
            assert "nothing lost" in bench.text(".ls-state-reason")
            until(lambda: bench.find(".ls-pause").get_attribute("disabled") is not None)
            server = serve(port, timeline)
            until(lambda: bench.text(".ls-state-word") == "live", within=30)
            assert bench.ask("w.frame.followers[-1].missed") == "0"
            until(lambda: any(mark["kind"] == "reconnect" for mark in bench.look("session.marks")))

            # The page is loaded again: the kernel goes on, and its widget is shown anew.
            until(lambda: bench.image()[0] != "", within=30)
            bench.browser.execute_script("window.jupyterapp.commands.execute('docmanager:save')")
            until(lambda: "image/png" in (tmp_path / "root" / "live.ipynb").read_text())
            reload_until_drawn(bench)
            until(lambda: bench.text(".ls-state-word") == "live")

            # The kernel is restarted: what is shown is old, and says so.
            bench.browser.execute_script(
                "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()"
            )
            until(lambda: bench.text(".ls-state-word") == "no kernel", within=20)

            # Opened without its kernel there is the image, and no notice of a missing widget.
            bench.browser.refresh()
            until(lambda: bench.image()[1], within=60)
            assert "widget" not in bench.shown(".jp-OutputArea-output").lower()
    finally:
        server.kill()
        server.wait()

"""The workbench in a real JupyterLab in a real browser, used as a person would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from browser.bench import LOOPBACK, notebook
from helpers.lab import until
from helpers.sockets import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from browser.bench import Bench, Desk

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]


def test_what_a_person_does_holds_to_the_digit(desk: Desk) -> None:
    """Rate typed, dragged and set from code; pause, filter, group, zoom, past, dark theme, static image."""
    server = "import logistream as ls\nserver = ls.StreamServer(rate=50, port=0, history='20min')"
    with desk.workbench("hands.ipynb", server, "w = ls.Workbench(server)\nw") as bench:
        # Everything is painted: three plots, the strip, the map, five sparklines.
        until(lambda: bench.painted() >= 9)
        until(lambda: bench.unreadable() == {})
        until(lambda: len(bench.browser.find_elements(By.CSS_SELECTOR, ".ls-group")) == 4)
        until(lambda: len(bench.browser.find_elements(By.CSS_SELECTOR, ".ls-table tbody tr")) == 12)
        until(lambda: bench.text(".ls-state-word") == "live")

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
        until(lambda: bench.find(".ls-rate").get_attribute("value") == f"{dragged:,g}")
        bench.press(".ls-slider", "ArrowRight", 3)
        until(lambda: float(bench.ask("w.server.rate")) > dragged)
        assert int(bench.ask("len(w.server.timeline.entries)")) == entries + 2
        bench.find(".ls-slider").send_keys(Keys.ARROW_LEFT)
        until(lambda: int(bench.ask("len(w.server.timeline.entries)")) == entries + 3)
        bench.type_rate("100")
        until(lambda: "100 asked" in bench.shown(".ls-tile-hint"))

        until(lambda: bench.click(".ls-pause"))
        until(lambda: bench.ask("w.server.paused") == "True")
        until(lambda: bench.text(".ls-state-word") == "paused")
        until(lambda: bench.click(".ls-pause"))
        until(lambda: bench.ask("w.server.paused") == "False")
        until(lambda: [mark["kind"] for mark in bench.look("session.marks")][-2:] == ["pause", "resume"])

        # A click on a group filters all panels; Escape clears.
        until(lambda: bench.click_group("First Class"))
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
        until(lambda: bench.click(".ls-table tbody tr"))
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

        def goes_back() -> bool:
            bench.act().double_click(plot).perform()  # on a busy machine two clicks may be far apart
            return bool(bench.look("session.range === null"))

        until(goes_back)
        strip = bench.find(".ls-strip")
        bench.act().move_to_element_with_offset(strip, -200, 0).click().perform()
        until(lambda: bench.look("session.range !== null && session.past !== null"))
        until(lambda: bench.look("drawn.lines.share.filter(Number.isFinite).length > 20"))
        assert bench.look("session.range[1] < session.ring.begin * session.ring.step")
        bench.button("30 s").click()
        until(lambda: bench.look("session.range === null"))

        # Dark theme: the canvases are drawn in its colours.
        light = bench.look("board.session && getComputedStyle(board).getPropertyValue('--ls-rate')")
        bench.command("apputils:change-theme", theme="JupyterLab Dark")
        until(lambda: bench.look("getComputedStyle(board).getPropertyValue('--ls-rate')") != light)
        until(lambda: bench.painted() >= 9)
        until(lambda: bench.unreadable() == {})

        # The static image is in the notebook, hidden by the live view, and new when the page is hidden.
        until(lambda: bench.image()[0] != "" and not bench.image()[1])
        first, _ = bench.image()
        bench.browser.execute_script(
            "Object.defineProperty(document, 'hidden', {value: true, configurable: true});"
            "document.dispatchEvent(new Event('visibilitychange')); delete document.hidden"
        )
        until(lambda: bench.image()[0] != first)

        # The axis moves between messages.
        frames = bench.look("session.frames")
        until(lambda: bench.look("session.frames") > frames + 10)
        assert bench.complaints() == []
        assert bench.requested_hosts() <= LOOPBACK
        bench.command("apputils:change-theme", theme="JupyterLab Light")


def test_the_keyboard_reaches_everything_by_name(desk: Desk) -> None:
    """Tab goes through the panels in their order; all stops have names, and sliders values in words."""
    with desk.workbench("keys.ipynb", "import logistream as ls\nls.Workbench(rate=50)") as bench:
        order = [
            "Lines over time",
            "Stretch of time that is shown",
            "Group by",
            "Standard Class",
            "Time (UTC)",
        ]

        def all_there() -> bool:
            names = [name for _, _, name in bench.focusable()]
            return all(any(word in name for name in names) for word in order)

        until(all_there)
        stops = bench.focusable()
        assert [name for _, _, name in stops if not name] == []
        names = [name for _, _, name in stops]
        steering = ["Pause", "Rate, events per second, exact", "Rate, events per second"]
        assert names[:9] == [*steering, "Scenario: none", "Faults: none", "30 s", "2 min", "5 min", "all"]
        places = [next(i for i, name in enumerate(names) if word in name) for word in order]
        assert places == sorted(places)
        bench.find(".ls-slider").send_keys(Keys.ARROW_RIGHT)
        until(lambda: bench.find(".ls-slider").get_attribute("aria-valuetext") == "63 events per second")
        until(lambda: (bench.find(".ls-strip").get_attribute("aria-valuetext") or "").endswith("UTC, live"))
        bench.find(".ls-time").send_keys(Keys.ARROW_LEFT)
        until(lambda: bench.look("session.range !== null"))
        bench.find(".ls-time").send_keys(Keys.HOME)
        until(lambda: bench.look("session.range === null"))
        until(lambda: bench.type(".ls-table tbody tr", Keys.ENTER))
        until(lambda: "Late_delivery_risk" in bench.text(".ls-json"))
        until(lambda: bench.browser.switch_to.active_element.get_attribute("class") == "ls-json")
        bench.act().send_keys(Keys.ESCAPE).perform()
        until(lambda: bench.browser.switch_to.active_element.tag_name == "tr")


GROUPS = "return [...document.querySelectorAll('.ls-group-name')].map((each) => each.textContent)"
WIDTHS = "[...board.querySelectorAll('.ls-table th')].map((each) => each.offsetWidth)"
FITS = (
    "(({ scrollWidth, clientWidth }) => scrollWidth <= clientWidth)(board.querySelector('.ls-table-scroll'))"
)


def test_what_is_shown_stays_true_when_the_stream_changes(desk: Desk) -> None:
    """Focus, widths, tiles and alert are right when groups change places, the rate changes, in a pause."""
    server = "import logistream as ls\nserver = ls.StreamServer(rate=200, port=0, history='5min')"
    cell = "w = ls.Workbench(server, span=30, by='Market', share_window=10)\nw"
    with desk.workbench("true.ipynb", server, cell) as bench:
        until(lambda: len(bench.browser.execute_script(GROUPS)) == 5)
        until(lambda: "customers" in bench.text(".ls-map .ls-hint"))
        until(lambda: len(bench.browser.find_elements(By.CSS_SELECTOR, ".ls-table tbody tr")) == 12)

        # The columns of the newest rows keep their widths while rows come, and all of them are there.
        rows, widths = bench.look("session.rows[0]"), bench.look(WIDTHS)
        assert bench.look(FITS)
        until(lambda: bench.look("session.rows[0]") != rows)
        until(lambda: bench.look("session.rows[0].join() === board.querySelector('tbody tr').row.join()"))
        assert bench.look(WIDTHS) == widths

        # A group that moves keeps the focus, so that Escape clears the filter.
        last = bench.browser.execute_script(GROUPS)[-1]
        until(lambda: bench.click_group(last))
        until(lambda: f"Market: {last}" in bench.shown(".ls-chip"))
        place = bench.browser.execute_script(GROUPS).index(last)
        effect = {"set": {"Late_delivery_risk": 1}, "where": {"Market": last}}
        bench.ask(f"setattr(server, 'scenario', {{'name': 'fast', 'effects': [{effect}]}})")
        until(lambda: bench.browser.execute_script(GROUPS).index(last) != place)
        until(lambda: last in bench.browser.switch_to.active_element.text)
        bench.act().send_keys(Keys.ESCAPE).perform()
        until(lambda: not bench.shown(".ls-chip"))

        # The tiles never mix two rates, and say over which time they are taken.
        usual = "USD per minute, last 10 s"
        until(lambda: bench.tile("Sales")[1] == usual)
        bench.record_tile("Sales")
        before = money(bench.recorded()[0][0])
        bench.ask("setattr(server, 'rate', 2000)")
        until(lambda: sums_of(bench)[-1][1] == usual and sums_of(bench)[-1][0] > 3 * before)
        assert not [each for each, _ in sums_of(bench) if 1.5 * before < each < 3 * before]
        shorter = {hint for each, hint in sums_of(bench) if each > 3 * before} - {usual}
        assert shorter
        assert shorter <= {f"USD per minute, last {seconds} s" for seconds in range(3, 10)}

        # A refusal names both ranges where they are set, and goes with the next thing that is done.
        bench.type_rate("2000000")
        until(lambda: "1,000,000" in bench.shown(".ls-alert"))
        assert bench.find(".ls-rate").get_attribute("aria-invalid") is None
        for selector in (".ls-slider-box", ".ls-rate-box"):
            assert "0.001 to 1,000,000" in (bench.find(selector).get_attribute("title") or "")
        until(lambda: bench.click(".ls-pause"))
        until(lambda: bench.tile("Sales") == ("0", "USD per minute, paused"))
        until(lambda: bench.shown(".ls-alert") == "")
        assert bench.complaints() == []


def money(text: str) -> float:
    """Return a number as a tile shows it; not a number for a dash."""
    units = {"k": 1e3, "M": 1e6, "G": 1e9}
    if text == "–":
        return float("nan")
    return float(text.rstrip("kMG").replace(",", "")) * units.get(text[-1], 1)


def sums_of(bench: Bench) -> list[tuple[float, str]]:
    """Return the sums of sales that the recorded tile has shown, and over which time each was taken."""
    return [(money(value), hint) for value, hint in bench.recorded() if hint.startswith("USD")]


LIVE = """
import logistream as ls
from matplotlib.figure import Figure
calls = []
def draws():
    calls.append(1)
    figure = Figure(figsize=(2, 1))
    figure.add_subplot().plot(range(len(calls)))
    return figure
plot = ls.live(draws, every=0.2)
plot
"""
LIVE_IMAGE = "return document.querySelector('.jp-OutputArea-output img[alt=\"live plot\"]')?.src ?? ''"


def test_a_plot_of_one_s_own_is_redrawn(desk: Desk) -> None:
    """A plot of `live` changes in the page, and again after the page was loaded again."""
    notebook(desk.root / "plot.ipynb", LIVE)
    with desk.opened("plot.ipynb") as bench:

        def changes() -> None:
            until(lambda: bench.browser.execute_script(LIVE_IMAGE) != "")
            first = bench.browser.execute_script(LIVE_IMAGE)
            until(lambda: bench.browser.execute_script(LIVE_IMAGE) not in ("", first))

        changes()
        bench.command("docmanager:save")
        until(lambda: "image/png" in (desk.root / "plot.ipynb").read_text(encoding="utf-8"))
        bench.reload("img[alt='live plot']", lambda: bench.browser.execute_script(LIVE_IMAGE) != "")
        changes()
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


def test_what_is_broken_is_not_shown_as_live(desk: Desk, tmp_path: Path) -> None:
    """Server killed and back, page loaded again, kernel restarted, saved and opened without its kernel."""
    port, timeline = free_port(), tmp_path / "timeline"
    server = serve(port, timeline)
    try:
        cells = ("import logistream as ls", f"w = ls.Workbench('http://127.0.0.1:{port}')\nw")
        notebook(desk.root / "broken.ipynb", *cells)
        with desk.opened("broken.ipynb") as bench:
            bench.until_drawn()
            until(lambda: bench.text(".ls-state-word") == "live")
            until(lambda: int(bench.ask("w.frame.appended")) > 200)
            server.kill()
            server.wait()
            until(lambda: bench.text(".ls-state-word") == "reconnecting")
            wanted = ("nothing lost", "events behind")
            until(lambda: all(words in bench.text(".ls-state-reason") for words in wanted))
            until(lambda: bench.tile("Sales") == bench.tile("Events per second") == ("–", "reconnecting"))
            until(lambda: bench.find(".ls-pause").get_attribute("disabled") is not None)
            server = serve(port, timeline)
            until(lambda: bench.text(".ls-state-word") == "live")
            assert bench.ask("w.frame.followers[-1].missed") == "0"
            until(lambda: any(mark["kind"] == "reconnect" for mark in bench.look("session.marks")))

            # The page is loaded again: the kernel goes on, and its widget is shown anew.
            until(lambda: bench.image()[0] != "")
            bench.command("docmanager:save")
            until(lambda: "image/png" in (desk.root / "broken.ipynb").read_text(encoding="utf-8"))
            bench.reload(".ls-board", bench.drawn)
            until(lambda: bench.text(".ls-state-word") == "live")
            bench.type_rate("77.5")
            until(lambda: bench.ask("w._watched.settings().rate") == "77.5")

            # The kernel is restarted: what is shown is old, and says so.
            bench.browser.execute_script(
                "window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.restart()"
            )
            until(lambda: bench.text(".ls-state-word") == "no kernel")

            # Opened without its kernel there is the image, and no notice of a missing widget.
            bench.browser.refresh()
            until(lambda: bench.image()[1])
            until(lambda: "widget" not in bench.shown(".jp-OutputArea-output").lower())
    finally:
        server.kill()
        server.wait()

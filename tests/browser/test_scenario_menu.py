"""The menu of scenarios in a real JupyterLab in a real browser, used as a person would."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from browser.bench import LOOPBACK
from helpers.lab import until

if TYPE_CHECKING:
    from browser.bench import Bench, Desk

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

OUTAGE = "carrier outage, Standard Class"

# Whether the newest mark is painted in the colour of scenarios, in the plot of the rate.
PAINTED = """(() => {
  const { plots } = drawn.time, plot = plots.rate, { ctx, bbox } = plot;
  const x = Math.round(plot.valToPos(session.marks.at(-1).at, 'x', true));
  const { data } = ctx.getImageData(x - 2, bbox.top, 5, bbox.height);
  const hex = getComputedStyle(board).getPropertyValue('--ls-scenario').trim();
  const wanted = [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
  for (let i = 0; i < data.length; i += 4) {
    if (data[i + 3] > 60 && wanted.every((value, k) => Math.abs(value - data[i + k]) < 40)) return true;
  }
  return false;
})()"""
NEWEST_MARK = "session.marks.at(-1)"
SHARE = "drawn.lines.share.at(-1)"


# Whether the middle of each item of the open menu can be clicked.
CLICKABLE = """
const items = [...document.querySelectorAll('.ls-menu button')].filter((item) => item.offsetParent);
return items.length > 0 && items.every((item) => {
  const { left, top, width, height } = item.getBoundingClientRect();
  return item.contains(document.elementFromPoint(left + width / 2, top + height / 2))
    && item.contains(document.elementFromPoint(left + 8, top + 8));
})"""


def point_at_newest_mark(bench: Bench) -> str:
    """Move the pointer to the newest mark; return what the tooltip says about marks."""
    x = bench.look(f"drawn.time.plots.share.valToPos({NEWEST_MARK}.at, 'x')")
    over = bench.find(".ls-plot-share .u-over")
    bench.act().move_to_element_with_offset(over, round(x - over.size["width"] / 2), 0).perform()
    return bench.shown(".ls-tip-mark")


def test_a_scenario_is_chosen_seen_and_ended(desk: Desk) -> None:
    """The menu, the lines and the marks show what is in force, whoever has set it."""
    server = "import logistream as ls\nserver = ls.StreamServer(rate=200, port=0, history='5min')"
    cells = (server, "w = ls.Workbench(server, span=30)\nw", "p = ls.ControlPanel(server)\np")
    with desk.workbench("scenario.ipynb", *cells) as bench:
        menu = bench.find(".ls-scenario")
        until(lambda: menu.accessible_name == "Scenario: none")
        until(lambda: 0.4 < (bench.look(SHARE) or 0) < 0.7)

        # By keys: the menu opens at what is in force, arrows move, Enter chooses, Escape closes.
        menu.send_keys(Keys.ENTER)
        until(lambda: "booked half as often" in bench.shown(".ls-menu"))
        until(lambda: bench.unreadable() == {})
        bench.act().send_keys(Keys.ESCAPE).perform()
        until(lambda: bench.shown(".ls-menu") == "")
        until(lambda: bench.browser.switch_to.active_element == menu)
        menu.send_keys(Keys.ENTER)
        until(lambda: "booked half as often" in bench.shown(".ls-menu"))
        bench.act().send_keys(Keys.ARROW_DOWN * 3, Keys.ENTER).perform()
        until(lambda: bench.ask("[each.name for each in server.scenario]") == f"[{OUTAGE!r}]")
        until(lambda: menu.accessible_name == f"Scenario: {OUTAGE}")
        until(lambda: (bench.look(SHARE) or 0) > 0.75)
        until(lambda: bench.look(f"[{NEWEST_MARK}.kind, {NEWEST_MARK}.text]") == ["scenario", OUTAGE])
        bench.button("5 min").click()
        until(lambda: bool(bench.look(PAINTED)))
        until(lambda: point_at_newest_mark(bench) == OUTAGE)

        # A refusal is a sentence, and changes nothing.
        bench.look("session.ask({kind: 'scenario', value: [{name: 'empty', effects: []}]})")
        until(lambda: "from 1 to 16 effects" in bench.shown(".ls-alert"))
        assert bench.find(".ls-rate").get_attribute("aria-invalid") is None
        assert menu.accessible_name == f"Scenario: {OUTAGE}"

        # Set from code, then ended in the menu.
        own = {"name": "all cash", "effects": [{"set": {"Type": "CASH"}}]}
        bench.ask(f"setattr(server, 'scenario', {own})")
        until(lambda: menu.accessible_name == "Scenario: all cash")
        menu.click()
        until(lambda: "Type = CASH" in bench.shown(".ls-menu [aria-checked='true']"))
        until(lambda: bench.click(".ls-menu button"))
        until(lambda: menu.accessible_name == "Scenario: none")
        assert bench.ask("server.scenario") == "()"
        until(lambda: bench.shown(".ls-alert") == "")
        until(lambda: bench.look(f"{NEWEST_MARK}.text") == "end of all cash")

        # Whole in the panel, which is lower than the menu, and in a narrow workbench.
        panel = bench.browser.find_elements(By.CSS_SELECTOR, ".ls-scenario")[1]
        bench.browser.execute_script("arguments[0].scrollIntoView()", panel)
        panel.click()
        until(lambda: bool(bench.browser.execute_script(CLICKABLE)))
        panel.click()
        size = bench.browser.get_window_size()
        bench.browser.set_window_size(780, size["height"])
        try:
            until(lambda: bench.look("board.clientWidth <= 700"))
            bench.to_board()
            menu.click()
            until(lambda: bool(bench.browser.execute_script(CLICKABLE)))
        finally:
            bench.browser.set_window_size(size["width"], size["height"])
        assert bench.complaints() == []
        assert bench.requested_hosts() <= LOOPBACK

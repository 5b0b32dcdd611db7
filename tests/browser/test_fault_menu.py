"""The menu of faults of the wire in a real JupyterLab in a real browser, used as a person would."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from selenium.webdriver.common.keys import Keys

from browser.bench import LOOPBACK
from helpers.lab import until

if TYPE_CHECKING:
    from browser.bench import Desk

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

KINDS = "[[each.kind for each in server.faults], server.faults and server.faults[0].share]"
NEWEST_MARK = "(({ kind, text }) => [kind, text])(session.marks.at(-1))"


def test_faults_are_chosen_seen_and_ended(desk: Desk) -> None:
    """Several can be in force, whoever has set them; the workbench goes on showing what happened."""
    server = "import logistream as ls\nserver = ls.StreamServer(rate=200, port=0, history='1min')"
    with desk.workbench("faults.ipynb", server, "w = ls.Workbench(server, span=30)\nw") as bench:
        menu = bench.find(".ls-faults")
        until(lambda: menu.accessible_name == "Faults: none")

        # By keys: the menu says whom it concerns, and stays open while several are chosen.
        menu.send_keys(Keys.ENTER)
        until(lambda: "this workbench shows the events as they happened" in bench.shown(".ls-menu"))
        until(lambda: bench.unreadable() == {})
        bench.act().send_keys(Keys.ARROW_DOWN, Keys.ENTER).perform()
        until(lambda: menu.accessible_name == "Faults: late 5 %")
        assert bench.ask(KINDS) == "[['late'], 0.05]"
        bench.act().send_keys(Keys.ARROW_DOWN * 2, Keys.ENTER).perform()
        until(lambda: menu.accessible_name == "Faults: late 5 %, drops 1 %")
        until(lambda: bench.text(".ls-faults .ls-choice-name") == "2 faults")
        until(lambda: bench.look(NEWEST_MARK) == ["fault", "faults: late 5 %, drops 1 %"])
        until(lambda: bench.unreadable() == {})
        bench.act().send_keys(Keys.ENTER).perform()  # once more: it ends
        until(lambda: menu.accessible_name == "Faults: late 5 %")
        bench.act().send_keys(Keys.ESCAPE).perform()
        until(lambda: bench.shown(".ls-menu") == "")
        until(lambda: bench.browser.switch_to.active_element == menu)

        # The workbench reads the clean stream: one event after the other, none late, lost or twice.
        seen = int(bench.ask("w.frame.appended"))
        until(lambda: int(bench.ask("w.frame.appended")) > seen + 400)
        times = "w.frame['event_time'].diff().dropna()"
        assert bench.ask(f"{times}.min() > {times}.max() * 0.9") in ("True", "np.True_")

        # A refusal is a sentence, and changes nothing.
        bench.look("session.ask({kind: 'faults', value: [{drop: true, share: 2}]})")
        until(lambda: "share of a fault must be" in bench.shown(".ls-alert"))
        assert menu.accessible_name == "Faults: late 5 %"

        # Set from code, then all are ended in the menu.
        own = {"corrupt": "cut", "share": 0.25, "where": {"Market": "Europe"}}
        bench.ask(f"setattr(server, 'faults', {own})")
        until(lambda: menu.accessible_name == "Faults: corrupted 25 %")
        until(lambda: bench.shown(".ls-alert") == "")
        menu.click()
        until(lambda: "Market:Europe" in bench.shown(".ls-menu [aria-checked='true']"))
        until(lambda: bench.click(".ls-faults + .ls-menu button"))
        until(lambda: menu.accessible_name == "Faults: none")
        assert bench.ask("server.faults") == "()"
        until(lambda: bench.look(NEWEST_MARK) == ["fault", "end of faults"])
        assert bench.complaints() == []
        assert bench.requested_hosts() <= LOOPBACK

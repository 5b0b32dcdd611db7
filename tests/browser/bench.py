"""A workbench in a notebook in a real JupyterLab, as the tests in a browser see it."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from helpers.lab import Lab, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from selenium.webdriver import Chrome
    from selenium.webdriver.remote.webelement import WebElement

CONTRAST = 4.5  # of text, at least: WCAG 2, level AA
LOOPBACK = {"127.0.0.1", "localhost", "::1"}
IMAGE = ".jp-OutputArea-child img[width='1111']"
DRAWN = "return document.querySelector('.ls-board')?.view?.look().lines?.time.length > 0"

# How many different colours the middle of each canvas has: one that is not painted has one.
_PAINTED = """
return [...document.querySelectorAll('.ls-board canvas')].map((canvas) => {
  if (!canvas.width || canvas.offsetParent === null) return 0;
  const data = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  const colours = new Set();
  for (let i = 0; i < data.length; i += 40) colours.add(data.slice(i, i + 4).join());
  return colours.size;
}).filter((colours) => colours > 1).length
"""

# The least contrast (WCAG 2) of each visible text with what is behind it. Colours are blended by a canvas.
_CONTRASTS = """
const context = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
const luminance = (rgb) => rgb.map((v) => v / 255)
  .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const blend = (colours) => {
  context.clearRect(0, 0, 1, 1);
  for (const colour of colours) { context.fillStyle = colour; context.fillRect(0, 0, 1, 1); }
  return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
};
const found = [];
for (const node of document.querySelectorAll('.ls-board *')) {
  const texts = [...node.childNodes].filter((child) => child.nodeType === 3 && child.data.trim());
  if (!texts.length || !node.offsetParent || node.matches(':disabled, option')) continue;
  const behind = [];
  for (let each = node; each; each = each.parentElement) {
    behind.unshift(getComputedStyle(each).backgroundColor);
  }
  const text = blend(['white', ...behind, getComputedStyle(node).color]);
  const [light, dark] = [text, blend(['white', ...behind])].map(luminance).sort((a, b) => b - a);
  const name = `${node.className || node.tagName}: ${texts[0].data.trim()}`;
  found.push([name, (light + 0.05) / (dark + 0.05)]);
}
return found
"""

# What can be used with the keyboard, in the order of the Tab key: tag, class, name.
_FOCUSABLE = """
return [...document.querySelectorAll('.ls-board :is(button, input, select, [tabindex="0"])')]
  .filter((node) => node.offsetParent && !node.disabled)
  .map((node) => [node.tagName.toLowerCase(), node.className,
    node.getAttribute('aria-label') || node.textContent.trim() || node.title])
"""


class Bench(Lab):
    """A notebook with a workbench, `w`."""

    def find(self, selector: str) -> WebElement:
        """Return the first match."""
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def click(self, selector: str) -> bool:
        """Click the first match; false if it is disabled, as all are while the kernel is silent."""
        found = self.find(selector)
        if enabled := found.is_enabled():
            found.click()
        return enabled

    def click_group(self, name: str) -> bool:
        """Click the group whose row holds a text; true, as `click`."""
        path = f"//button[@class='ls-group'][contains(., '{name}')]"
        self.browser.find_element(By.XPATH, path).click()
        return True

    def type(self, selector: str, keys: str) -> bool:
        """Type keys on the first match; true, as `click`."""
        self.find(selector).send_keys(keys)
        return True

    def text(self, selector: str) -> str:
        """Return the text of the first match, visible or not; empty without one."""
        script = "return document.querySelector(arguments[0])?.textContent ?? ''"
        return str(self.browser.execute_script(script, selector))

    def shown(self, selector: str) -> str:
        """Return the text of all visible matches at the same time."""
        script = (
            "return [...document.querySelectorAll(arguments[0])].filter((node) => node.offsetParent)"
            ".map((node) => node.innerText).join(' ')"
        )
        return str(self.browser.execute_script(script, selector))

    def painted(self) -> int:
        """Return how many canvases show something."""
        return int(self.browser.execute_script(_PAINTED))

    def unreadable(self) -> dict[str, float]:
        """Return the visible texts with too little contrast."""
        found: dict[str, float] = dict(self.browser.execute_script(_CONTRASTS))
        assert len(found) > 50
        return {text: contrast for text, contrast in found.items() if contrast < CONTRAST}

    def focusable(self) -> list[tuple[str, str, str]]:
        """Return tag, class and name of what the Tab key reaches, in order."""
        return [tuple(each) for each in self.browser.execute_script(_FOCUSABLE)]

    def image(self) -> tuple[str, bool]:
        """Return the address of the static image (empty without one), and whether it is visible."""
        script = (
            "const image = document.querySelector(arguments[0]);"
            "return [image?.src ?? '', Boolean(image?.offsetParent)]"
        )
        source, visible = self.browser.execute_script(script, IMAGE)
        return str(source), bool(visible)

    def tile(self, title: str) -> tuple[str, str]:
        """Return value and hint of the tile with a title, as they stand together; empty without it."""
        script = (
            "const tile = [...document.querySelectorAll('.ls-tile')]"
            ".find((each) => each.querySelector('.ls-tile-title').textContent === arguments[0]);"
            "return ['value', 'hint']"
            ".map((part) => tile?.querySelector(`.ls-tile-${part}`).textContent ?? '')"
        )
        value, hint = self.browser.execute_script(script, title)
        return str(value), str(hint)

    def record_tile(self, title: str) -> None:
        """Keep from now on all that a tile shows, for `recorded`."""
        self.browser.execute_script(
            "const [title] = arguments;"
            "window.recorded = [];"
            "const tile = [...document.querySelectorAll('.ls-tile')]"
            ".find((each) => each.querySelector('.ls-tile-title').textContent === title);"
            "const keep = () => {"
            "  const of = (part) => tile.querySelector(`.ls-tile-${part}`).textContent;"
            "  const now = ['value', 'hint'].map(of);"
            "  if (now.join() !== window.recorded.at(-1)?.join()) window.recorded.push(now);"
            "};"
            "keep();"
            "setInterval(keep, 20);",
            title,
        )

    def recorded(self) -> list[tuple[str, str]]:
        """Return value and hint of the recorded tile, each time that one of them was another."""
        return [(value, hint) for value, hint in self.browser.execute_script("return window.recorded")]

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
        until(lambda: self.click(".ls-rate"))
        self.find(".ls-rate").send_keys(text, Keys.ENTER)

    def press(self, selector: str, key: str, times: int) -> None:
        """Press a key so many times in a moment: on a busy machine real presses are seconds apart."""
        self.browser.execute_script(
            "const [node, key, times] = [document.querySelector(arguments[0]), arguments[1], arguments[2]];"
            "const press = () => new KeyboardEvent('keydown', { key, bubbles: true, cancelable: true });"
            "for (let i = 0; i < times; i++) node.dispatchEvent(press());",
            selector,
            key,
            times,
        )

    def button(self, text: str) -> WebElement:
        """Return the button with a text."""
        return self.browser.find_element(By.XPATH, f"//button[.='{text}']")

    def command(self, name: str, **arguments: Any) -> None:
        """Run a command of JupyterLab."""
        script = "window.jupyterapp.commands.execute(arguments[0], arguments[1])"
        self.browser.execute_script(script, name, arguments)

    def to_board(self) -> None:
        """Bring the workbench into view."""
        self.browser.execute_script("document.querySelector('.ls-board').scrollIntoView()")

    def drawn(self) -> bool:
        """Return whether the lines of the workbench are drawn."""
        return bool(self.browser.execute_script(DRAWN))

    def until_drawn(self) -> None:
        """Wait until the lines of the workbench are drawn."""
        until(self.drawn)

    def reload(self, selector: str, shown: Callable[[], bool]) -> None:
        """Load the page again, and wait until a widget is shown there.

        Once, on a very busy machine, a page held no element of our widget after it was loaded again, and the
        cause was not found. Then it is loaded once more; a widget that is there must be shown.
        """
        for _ in range(3):
            self.browser.refresh()
            try:
                return until(shown)
            except AssertionError:
                if self.browser.find_elements(By.CSS_SELECTOR, selector):
                    raise
        raise AssertionError(self.browser.execute_script("return document.body.innerText"))


def notebook(path: Path, *cells: str) -> None:
    """Write a notebook of code cells."""
    blank: dict[str, Any] = {"cell_type": "code", "metadata": {}, "execution_count": None, "outputs": []}
    code = [blank | {"id": f"c{place}", "source": cell} for place, cell in enumerate(cells)]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    content = {"cells": code, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(content), encoding="utf-8")


@dataclass(frozen=True)
class Desk:
    """A JupyterLab in a browser.

    Attributes
    ----------
    browser : Chrome
        The browser.
    root : Path
        Folder of the notebooks.
    address : str
        Address of a notebook, with `{}` for its name.
    """

    browser: Chrome
    root: Path
    address: str

    @contextmanager
    def workbench(self, name: str, *cells: str) -> Iterator[Bench]:
        """Give a new notebook of these cells, after they have run, with its workbench drawn and in view."""
        notebook(self.root / name, *cells)
        with self.opened(name) as bench:
            bench.until_drawn()
            bench.to_board()
            yield bench

    @contextmanager
    def opened(self, name: str) -> Iterator[Bench]:
        """Give the notebook `name` of the folder, after all its cells have run; end its kernel after."""
        for log in ("browser", "performance"):  # what was before
            self.browser.get_log(log)  # type: ignore[no-untyped-call]
        bench = Bench(self.browser, self.address.format(name))
        try:
            bench.run_all()
            yield bench
        except BaseException:
            print(bench.complaints(), self.browser.execute_script("return document.body.innerText"))
            raise
        finally:
            self.browser.execute_async_script(
                "const [done] = arguments;"
                "window.jupyterapp.shell.currentWidget.sessionContext.shutdown().then(done, done)"
            )
            self.browser.get("about:blank")  # the page would go on drawing

"""A notebook in a real JupyterLab in a real browser."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from selenium import webdriver
from selenium.common import exceptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from helpers import waiting
from helpers.sockets import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["CHROMIUM", "DRIVER", "Lab", "chromium", "jupyterlab", "until"]


_PASSING = (
    exceptions.ElementClickInterceptedException,
    exceptions.ElementNotInteractableException,
    exceptions.JavascriptException,
    exceptions.MoveTargetOutOfBoundsException,
    exceptions.NoSuchElementException,
    exceptions.StaleElementReferenceException,
)
"""What is raised while a page is loaded, moves an element or replaces it."""


def until(condition: Callable[[], bool], *, within: float = 90.0) -> None:
    """Wait for a state of a page; an element that the page has just replaced is not there yet."""
    passing: exceptions.WebDriverException | None = None

    def now() -> bool:
        nonlocal passing
        try:
            return condition()
        except _PASSING as error:
            passing = error
            return False

    try:
        waiting.until(now, within=within)
    except AssertionError as error:
        raise error from passing


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")

_CELLS = """
return window.jupyterapp.shell.currentWidget.content.widgets
  .filter((cell) => cell.model.type === 'code')
  .map((cell) => [cell.model.executionCount,
                  cell.model.outputs.toJSON().filter((output) => output.output_type === 'error')])
"""
_IDLE = """
const panel = window.jupyterapp?.shell.currentWidget;
return Boolean(panel?.context?.isReady) && panel.sessionContext?.session?.kernel?.status === 'idle'
"""
_ASK = """
const [code, answer] = arguments;
const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
const content = {code: '', silent: true, store_history: false, user_expressions: {answer: code}};
kernel.requestExecute(content).done.then(
  ({ content }) => answer([content.user_expressions?.answer?.data?.['text/plain'], content]),
  (reason) => answer([null, String(reason)]),
);
"""


def _answers(url: str) -> bool:
    """Return whether something answers at `url` with success."""
    try:
        with urllib.request.urlopen(url, timeout=20) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _address(runtime: Path) -> str:
    """Return the address that a JupyterLab has noted in its folder; empty if it has not yet."""
    for noted in runtime.glob("jpserver-*.json"):
        with suppress(ValueError):  # it is being written
            return f"http://127.0.0.1:{json.loads(noted.read_text())['port']}"
    return ""


@contextmanager
def jupyterlab(root: Path, home: Path) -> Iterator[str]:
    """Serve `root` by a JupyterLab with settings of its own; give the address of its notebooks, with `{}`."""
    settings = home / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    token = secrets.token_hex(16)
    options = ["--no-browser", "--allow-root", "--expose-app-in-browser", "--ServerApp.ip=127.0.0.1"]
    # Another test may take the port before JupyterLab does, which then takes the next one that is free.
    options += [f"--ServerApp.port={free_port()}", "--ServerApp.port_retries=50"]
    # For the same reason the kernels are reached through sockets in a folder.
    options += [f"--ServerApp.root_dir={root}", "--KernelManager.transport=ipc"]
    with (
        tempfile.TemporaryDirectory(prefix="lab-", dir="/tmp") as runtime,  # a socket's name must be short
        (home / "jupyterlab.log").open("wb") as log,
    ):
        own = {
            "JUPYTER_TOKEN": token,
            "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
            "JUPYTER_RUNTIME_DIR": runtime,
        }
        lab = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], env=os.environ | own, stdout=log, stderr=log
        )

        address = ""

        def answers() -> bool:
            nonlocal address
            assert lab.poll() is None, (home / "jupyterlab.log").read_text(errors="replace")
            address = _address(Path(runtime))
            return address != "" and _answers(f"{address}/api/status?token={token}")

        try:
            until(answers, within=300)
            yield f"{address}/lab/tree/{{}}?token={token}&reset"
        finally:
            lab.terminate()  # it shuts its kernels down
            try:
                lab.wait(timeout=15)
            except subprocess.TimeoutExpired:  # now and then it waits for a thread of its own that never ends
                lab.kill()
                lab.wait()


@contextmanager
def chromium(home: Path) -> Iterator[webdriver.Chrome]:
    """Give a headless Chromium that keeps its console and its requests."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    flags = "no-sandbox headless disable-gpu disable-quic no-first-run disable-background-networking"
    for flag in [*flags.split(), "disable-component-update", "disable-sync", "window-size=1400,1000"]:
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={home / 'chromium'}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        chrome.set_script_timeout(90)
        yield chrome
    finally:
        chrome.quit()


class Lab:
    """A browser with an open notebook.

    Parameters
    ----------
    browser : Chrome
        What `chromium` gave.
    url : str
        Address of the notebook, which is opened.
    """

    def __init__(self, browser: webdriver.Chrome, url: str) -> None:
        self.browser = browser
        browser.get(url)
        try:
            until(self._idle, within=120)
        except AssertionError:  # JupyterLab may wait for the first answer of a kernel for ever
            browser.get(url)
            until(self._idle, within=120)

    def _idle(self) -> bool:
        return bool(self.browser.execute_script(_IDLE))

    def run_all(self, within: float = 240) -> None:
        """Run all cells as the menu does, and wait until they have run; a cell with an error fails."""
        self.browser.execute_script("window.jupyterapp.commands.execute('notebook:run-all-cells')")
        until(self._has_run, within=within)
        until(self._idle, within=240)
        assert [errors for _, errors in self.browser.execute_script(_CELLS) if errors] == []

    def _has_run(self) -> bool:
        cells = self.browser.execute_script(_CELLS)
        return all(count for count, _ in cells) or any(errors for _, errors in cells)

    def ask(self, expression: str) -> Any:
        """Return the `repr` of an expression in the kernel; an expression that raises an error fails."""
        found, reply = self.browser.execute_async_script(_ASK, expression)
        assert found is not None, f"{expression}: {reply}"
        return found

    def shown(self, selector: str) -> str:
        """Return the text of all elements that match."""
        return " ".join(node.text for node in self.browser.find_elements(By.CSS_SELECTOR, selector))

    def visible_part(self, selector: str) -> float:
        """Return how much of the height of the first match is inside the window, from 0 to 1."""
        top, bottom, height = self.browser.execute_script(
            "const box = document.querySelector(arguments[0]).getBoundingClientRect();"
            "return [box.top, box.bottom, window.innerHeight];",
            selector,
        )
        return float(max(0.0, min(bottom, height) - max(top, 0.0)) / (bottom - top))

    def complaints(self) -> list[str]:
        """Return the errors on the browser's console since the last call.

        JupyterLab asks before a notebook that has changed is left, which a browser without a person reports.
        """
        messages = [entry["message"] for entry in self._log("browser") if entry["level"] == "SEVERE"]
        return [message for message in messages if "'beforeunload' confirmation" not in message]

    def requested_hosts(self) -> set[str | None]:
        """Return the hosts to which the page sent requests."""
        events = [json.loads(entry["message"])["message"] for entry in self._log("performance")]
        urls = [
            event["params"]["request"]["url"]
            for event in events
            if event["method"] == "Network.requestWillBeSent"
        ]
        urls += [event["params"]["url"] for event in events if event["method"] == "Network.webSocketCreated"]
        return {urlsplit(url).hostname for url in urls if url.startswith(("http", "ws"))}

    def _log(self, kind: str) -> list[dict[str, Any]]:
        return list(self.browser.get_log(kind))  # type: ignore[no-untyped-call]

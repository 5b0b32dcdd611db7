"""The first notebook in a real JupyterLab in a real browser, used as a person would."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from helpers.sockets import free_port
from helpers.waiting import until

if TYPE_CHECKING:
    from collections.abc import Iterator

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DRIVER = shutil.which("chromedriver")
NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "01_live_stream.ipynb"
LOOPBACK = {"127.0.0.1", "localhost", "::1"}

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(240),
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="no chromium and chromedriver here: install both to run this"
    ),
]

CELLS = """
return window.jupyterapp.shell.currentWidget.content.widgets
  .filter((cell) => cell.model.type === 'code')
  .map((cell) => [cell.model.executionCount,
                  cell.model.outputs.toJSON().filter((output) => output.output_type === 'error')])
"""
IDLE = """
const panel = window.jupyterapp?.shell.currentWidget;
return Boolean(panel?.context?.isReady) && panel.sessionContext?.session?.kernel?.status === 'idle'
"""
ASK = """
const [code, answer] = arguments;
const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
const content = {code: '', silent: true, store_history: false, user_expressions: {answer: code}};
kernel.requestExecute(content).done
  .then((reply) => answer(reply.content.user_expressions.answer.data['text/plain']));
"""


def answers(url: str) -> bool:
    """Tell whether something answers at `url` with success."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


@contextmanager
def jupyterlab(root: Path, home: Path) -> Iterator[str]:
    """Serve `root` by a JupyterLab with settings of its own; give the address of its notebooks, with `{}`."""
    settings = home / "settings" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    port, token = free_port(), secrets.token_hex(16)
    options = ["--no-browser", "--allow-root", "--expose-app-in-browser", "--ServerApp.ip=127.0.0.1"]
    options += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={root}"]
    own = {
        "JUPYTER_TOKEN": token,
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
    }
    with (home / "jupyterlab.log").open("wb") as log:
        lab = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *options], env=os.environ | own, stdout=log, stderr=log
        )
        try:
            until(lambda: answers(f"http://127.0.0.1:{port}/api/status?token={token}"), within=120)
            yield f"http://127.0.0.1:{port}/lab/tree/{{}}?token={token}&reset"
        finally:
            lab.terminate()  # it shuts its kernels down
            lab.wait(timeout=20)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """Give a headless Chromium that keeps its console and its requests."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    flags = "no-sandbox headless disable-gpu disable-quic no-first-run disable-background-networking"
    for flag in [*flags.split(), "disable-component-update", "disable-sync", "window-size=1400,1000"]:
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path / 'chromium'}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    chrome = webdriver.Chrome(options=options, service=Service(DRIVER))
    chrome.set_script_timeout(30)
    yield chrome
    chrome.quit()


def is_run(cells: list[tuple[int | None, list[Any]]]) -> bool:
    """Tell whether all cells have run, or the run has stopped at an error."""
    return all(count for count, _ in cells) or any(errors for _, errors in cells)


def log(browser: webdriver.Chrome, kind: str) -> list[dict[str, Any]]:
    """Return what the browser wrote down."""
    return list(browser.get_log(kind))  # type: ignore[no-untyped-call]


def requested_hosts(browser: webdriver.Chrome) -> set[str | None]:
    """Return the hosts that the page asked for anything."""
    events = [json.loads(entry["message"])["message"] for entry in log(browser, "performance")]
    urls = [
        event["params"]["request"]["url"]
        for event in events
        if event["method"] == "Network.requestWillBeSent"
    ]
    urls += [event["params"]["url"] for event in events if event["method"] == "Network.webSocketCreated"]
    return {urlsplit(url).hostname for url in urls if url.startswith(("http", "ws"))}


def test_the_slider_changes_the_stream_while_it_is_drawn(browser: webdriver.Chrome, tmp_path: Path) -> None:
    """All cells run, the keyboard moves the slider, kernel and chart follow, nothing leaves the machine."""
    root = tmp_path / "root"
    root.mkdir()
    source = NOTEBOOK.read_text(encoding="utf-8")
    assert '"port = 8000 ' in source
    (root / NOTEBOOK.name).write_text(source.replace('"port = 8000 ', '"port = 0 '), encoding="utf-8")

    def ask(expression: str) -> Any:
        return browser.execute_async_script(ASK, expression)

    def shown(selector: str) -> str:
        return " ".join(node.text for node in browser.find_elements(By.CSS_SELECTOR, selector))

    with jupyterlab(root, tmp_path) as address:
        browser.get(address.format(NOTEBOOK.name))
        until(lambda: browser.execute_script(IDLE), within=60)
        browser.execute_script("window.jupyterapp.commands.execute('notebook:run-all-cells')")
        until(lambda: is_run(browser.execute_script(CELLS)), within=90)
        until(lambda: browser.execute_script(IDLE), within=60)
        assert [errors for _, errors in browser.execute_script(CELLS) if errors] == []

        slider = browser.find_element(By.CSS_SELECTOR, ".widget-slider [role=slider]")
        browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", slider)
        slider.send_keys(Keys.ARROW_RIGHT * 3)
        until(lambda: ask("server.rate") == "4.0")
        until(lambda: "asked 4.00" in shown(".ls-note"))
        assert len(browser.find_elements(By.CSS_SELECTOR, ".ls-dashboard canvas")) == 2
        before = int(ask("dashboard.picture().total"))
        until(lambda: int(ask("dashboard.picture().total")) > before)
        until(lambda: shown(".ls-value").split()[0] == "4.00")

        browser.find_element(By.XPATH, "//button[contains(., 'Pause')]").click()
        until(lambda: ask("server.paused") == "True")
        until(lambda: "paused" in shown(".ls-status"))

        assert [entry["message"] for entry in log(browser, "browser") if entry["level"] == "SEVERE"] == []
        assert requested_hosts(browser) <= LOOPBACK

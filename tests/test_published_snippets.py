"""The client snippets that have been published work unchanged."""

from __future__ import annotations

import functools
import http.server
import json
import shutil
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest

from helpers.kernels import kernel_options
from logistream.dataco import EVENT
from logistream.errors import PortInUseError
from logistream.server.server import StreamServer

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from selenium.webdriver import Chrome

    from logistream.model.model import Model

# helpers/scheduling.py lets no two of these tests run at a time: the snippets need port 8000.

PYTHON = """
import asyncio
import json
import websockets

async def consume_events():
    async with websockets.connect("ws://localhost:8000/ws") as ws:
        while True:
            event = json.loads(await ws.recv())
            print(event['Late_delivery_risk'], event['Customer City'])

asyncio.run(consume_events())
"""

JAVASCRIPT = """
const ws = new WebSocket('ws://localhost:8000/ws');
ws.onmessage = (event) => {
  const data = JSON.parse(event.data);
  console.log(data);
};
"""

PAGE = f"""<!doctype html>
<title>Events</title>
<link rel="icon" href="data:,">
<script>
window.received = [];
const log = console.log;
console.log = (...things) => {{ window.received.push(...things); log(...things); }};
</script>
<script>{JAVASCRIPT}</script>
"""


@pytest.fixture
def published(model: Model) -> Iterator[StreamServer]:
    """Give a server where the snippets look for it."""
    server = StreamServer(model, rate=50)
    try:
        server.start()
    except PortInUseError as error:
        pytest.skip(str(error))
    with server:
        yield server


def test_the_python_snippet_works_in_a_script(published: StreamServer) -> None:  # noqa: ARG001
    """A script of its own prints risk and city of event after event."""
    with subprocess.Popen(
        [sys.executable, "-u", "-c", PYTHON], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as script:
        assert script.stdout is not None
        try:
            lines = [script.stdout.readline() for _ in range(5)]
        finally:
            script.kill()
    for line in lines:
        risk, _, city = line.rstrip("\n").partition(" ")
        assert risk in {"0", "1"}
        assert city


@pytest.mark.notebook
def test_the_python_snippet_works_in_a_cell(published: StreamServer) -> None:  # noqa: ARG001
    """A kernel whose loop is running, once nest_asyncio2 is applied, runs the snippet as it stands."""
    manager = pytest.importorskip("jupyter_client.manager")
    with kernel_options() as options:
        kernel = manager.KernelManager(kernel_name="python3", **options)
        kernel.start_kernel()
        client = kernel.blocking_client()
        client.start_channels()
        try:
            client.wait_for_ready(timeout=240)
            client.execute("import nest_asyncio2; nest_asyncio2.apply()", reply=True, timeout=240)
            request = client.execute(PYTHON)
            printed = ""
            while printed.count("\n") < 5:
                message = client.get_iopub_msg(timeout=60)
                if message["parent_header"].get("msg_id") == request:
                    assert message["msg_type"] != "error", message["content"]
                    printed += message["content"].get("text", "")
            for line in printed.splitlines()[:5]:
                assert line.partition(" ")[0] in {"0", "1"}
        finally:
            client.stop_channels()
            kernel.shutdown_kernel(now=True)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as in the base
        """Print nothing."""


@pytest.fixture
def page(tmp_path: Path) -> Iterator[str]:
    """Give the address of a page with the snippet, on a web server of the user's own."""
    (tmp_path / "index.html").write_text(PAGE)
    handler = functools.partial(_Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as web:
        serving = threading.Thread(target=web.serve_forever)
        serving.start()
        yield f"http://localhost:{web.server_port}/"
        web.shutdown()
        serving.join()


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Chrome]:
    """Give a headless Chromium that sends nothing to its maker."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for switch in (
        "headless",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        f"user-data-dir={tmp_path / 'profile'}",
    ):
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    chrome = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        yield chrome
    finally:
        chrome.quit()


def _received(browser: Chrome) -> list[dict[str, Any]]:
    """Return five events as the page parsed them, waiting for them to come."""
    text = browser.execute_async_script(
        "const done = arguments[0];"
        "const look = () => received.length < 5 ? setTimeout(look, 20)"
        " : done(JSON.stringify(received.slice(0, 5)));"
        "look();"
    )
    events: list[dict[str, Any]] = json.loads(text)
    return events


def _errors(browser: Chrome) -> list[str]:
    """Return the errors on the browser's console, failed requests among them."""
    entries = browser.get_log("browser")  # type: ignore[no-untyped-call]
    return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]


@pytest.mark.browser
def test_the_javascript_snippet_works_in_a_page(
    published: StreamServer,  # noqa: ARG001
    browser: Chrome,
    page: str,
) -> None:
    """A page from the user's own web server on this machine receives whole events, without an error."""
    browser.get(page)
    for event in _received(browser):
        assert tuple(event) == EVENT.names
    assert _errors(browser) == []


@pytest.mark.browser
def test_the_javascript_snippet_works_in_the_console_of_the_servers_own_page(
    published: StreamServer, browser: Chrome
) -> None:
    """Typed into the developer tools on GET / or /docs, the snippet receives events."""
    browser.get(published.docs_url)
    browser.execute_script(
        "window.received = []; console.log = (thing) => received.push(thing);" + JAVASCRIPT
    )
    for event in _received(browser):
        assert tuple(event) == EVENT.names


@pytest.mark.browser
def test_a_page_opened_from_a_file_works_once_it_is_allowed(
    model: Model, browser: Chrome, tmp_path: Path
) -> None:
    """Such a page has no origin; allow_origins=["null"] admits it."""
    (tmp_path / "index.html").write_text(PAGE)
    try:
        server = StreamServer(model, rate=50, allow_origins=["null"]).start()
    except PortInUseError as error:
        pytest.skip(str(error))
    with server:
        browser.get((tmp_path / "index.html").as_uri())
        assert tuple(_received(browser)[0]) == EVENT.names


@pytest.mark.browser
def test_swagger_ui_is_drawn_without_the_internet(server: StreamServer, browser: Chrome) -> None:
    """The documentation shows its calls, and every request for it went to this server."""
    browser.get(server.docs_url)
    drawn = browser.execute_async_script(
        "const done = arguments[0];"
        "const look = () => document.querySelectorAll('.opblock').length < 4 ? setTimeout(look, 20)"
        " : done([location.origin, ...performance.getEntriesByType('resource').map((e) => e.name)]);"
        "look();"
    )
    assert {address.split("/")[2] for address in drawn if not address.startswith("data:")} == {
        f"127.0.0.1:{server.port}"
    }
    assert _errors(browser) == []

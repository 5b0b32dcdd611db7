"""A page in a browser that reads server-sent events without code of its own for broken connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from helpers.lab import CHROMIUM, DRIVER, chromium, until
from helpers.processes import ServerProcess

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [
    pytest.mark.browser,
    pytest.mark.timeout(600),
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason="needs Chromium and its driver"),
]

READ = """
window.seen = [];
new EventSource("/sse?start=0&columns=event_time&numbered=true").onmessage = (event) => {
    window.seen.push([Number(event.lastEventId), JSON.parse(event.data).event_number]);
};
"""


def test_a_page_survives_a_killed_server(tmp_path: Path) -> None:
    """`EventSource` gets every event once, in order, though the server is killed twice."""
    with (
        ServerProcess("--rate", "50", "--timeline", str(tmp_path / "timeline")) as server,
        chromium(tmp_path) as browser,
    ):

        def ask(expression: str) -> Any:
            return browser.execute_script(f"return {expression}")

        browser.get(f"http://127.0.0.1:{server.port}/docs")
        browser.execute_script(READ)
        for _ in range(2):
            before = ask("window.seen.length")
            until(lambda: ask("window.seen.length") > before + 20)  # noqa: B023 - called at once
            server.kill()
            server.start()
        before = ask("window.seen.length")
        until(lambda: ask("window.seen.length") > before + 20)
        seen = ask("window.seen")
    assert seen == [[number, number] for number in range(len(seen))]

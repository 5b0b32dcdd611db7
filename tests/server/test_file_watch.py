"""Changes of a file are noticed, on every system, and waiting for them costs nothing."""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import pytest

from helpers.processes import ServerProcess
from helpers.recording import SMALL
from helpers.waiting import at_best
from helpers.wire import Peer
from logistream.server import file_watch
from logistream.server.file_watch import FileWatch


@pytest.mark.parametrize("polling", [False, True])
def test_a_change_ends_the_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, polling: bool) -> None:
    """At once, also if it came before; without a change the wait ends by itself."""
    if polling:
        monkeypatch.setattr(file_watch, "_watch", lambda _: None)
    file = tmp_path / "file"
    file.write_text("1")

    async def watching() -> None:
        with FileWatch(file) as watch:
            for size in range(2, 5):
                file.write_text("1" * size)
                await asyncio.wait_for(watch.change(600), 60)
            began = time.monotonic()
            await watch.change(0.05)
            assert time.monotonic() - began >= 0.05

    asyncio.run(watching())


@pytest.mark.slow
def test_an_idle_server_sleeps(tmp_path: Path) -> None:
    """At 2 events a second on a timeline file it wakes a few times for each event, and not to look at it."""
    with (
        ServerProcess("--timeline", str(tmp_path / "timeline"), "--history", "10s") as server,
        Peer(server.port, SMALL) as reader,
    ):

        def switches() -> int:
            """Return how often its threads have begun to wait."""
            tasks = Path(f"/proc/{server.pid}/task")
            if not tasks.exists():
                pytest.skip("needs /proc")
            lines: list[str] = []
            for task in tasks.iterdir():
                with contextlib.suppress(OSError):  # a thread that has ended
                    lines += (task / "status").read_text().splitlines()
            return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary"))

        def spent() -> int:
            reader.receive()
            before = switches()
            for _ in range(6):
                reader.receive()
            return switches() - before

        at_best(spent, below=100)

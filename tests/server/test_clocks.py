"""Servers whose clocks are wrong: what was delivered never changes, and the fault is reported."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from helpers.processes import ServerProcess
from helpers.waiting import until

pytestmark = pytest.mark.slow

RATE = "200"
_LIBRARIES = sorted(Path("/usr/lib").glob("**/faketime/libfaketime.so.1"))


class WrongClock:
    """A clock that is set by writing a file, for processes that are started with its `environment`."""

    def __init__(self, folder: Path) -> None:
        if not _LIBRARIES:
            pytest.skip("libfaketime is not here: apt-get install libfaketime")
        self._file = folder / "clock"
        self.environment = {
            "LD_PRELOAD": str(_LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        self.set(0)

    def set(self, seconds: int) -> None:
        """Have it be so many seconds ahead of the real one."""
        written = self._file.with_suffix(".new")
        written.write_text(f"{seconds:+d}s\n")
        written.replace(self._file)


@pytest.fixture
def clock(tmp_path: Path) -> WrongClock:
    """Return a clock that can be set."""
    return WrongClock(tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Return where no timeline is yet."""
    return str(tmp_path / "timeline")


def events(server: ServerProcess, stop: int | str = "latest") -> list[bytes]:
    """Return all events of a server before a number, which must all have happened."""
    status, body = server.ask("GET", f"/events?start=earliest&stop={stop}&format=ndjson&numbered=true")
    assert status == 200, body
    return body.splitlines()


def happened(server: ServerProcess) -> int:
    """Return the number of the next event."""
    return int(server.get("/stream")["next_event_number"])


def clock_behind(server: ServerProcess) -> float:
    """Return the metric, in seconds."""
    found = re.search(rb"^logistream_clock_behind_seconds (\S+)", server.ask("GET", "/metrics")[1], re.M)
    assert found is not None
    return float(found[1])


def test_a_change_at_a_server_whose_clock_is_behind(clock: WrongClock, file: str) -> None:
    """What a server that is 2 s ahead has delivered stays as it was; the difference is reported."""
    with ServerProcess("--timeline", file, "--rate", RATE) as slow:
        clock.set(2)
        with ServerProcess("--timeline", file, environment=clock.environment) as fast:
            until(lambda: happened(fast) > happened(slow) + 200)
            until(lambda: clock_behind(slow) > 1)
            before = events(fast)
            changed = slow.patch(rate=50)
            assert changed["from_event_number"] >= len(before)
            until(lambda: fast.get("/stream")["rate"] == 50)
            assert events(fast)[: len(before)] == before
            until(lambda: happened(fast) >= changed["from_event_number"])
            assert events(fast, changed["from_event_number"])[: len(before)] == before
            until(lambda: happened(slow) > len(before))
            assert events(slow)[: len(before)] == before
            assert slow.get("/timeline") == fast.get("/timeline")
            assert slow.get("/")["status"] == fast.get("/")["status"] == "running"
            until(lambda: 1.5 < clock_behind(slow) < 2.5)
            assert clock_behind(fast) == 0
            assert fast.log == ""
        until(lambda: slow.log.count("\n") > 0)
        sentence = "a server that shares this timeline has a clock "
        assert all(line.startswith(sentence) for line in slow.log.splitlines())


def test_a_server_that_was_ahead_and_is_started_again(clock: WrongClock, file: str) -> None:
    """It continues from what it had delivered, waits for the clock, and a change does not reach behind it."""
    clock.set(600)
    with ServerProcess("--timeline", file, "--rate", RATE, environment=clock.environment) as server:
        until(lambda: happened(server) > 300)
        before = events(server)
        server.kill()
        clock.set(0)
        server.start()
        assert server.get("/")["status"] == "waiting for the clock"
        assert events(server, len(before)) == before
        changed = server.patch(rate=5)
        assert changed["from_event_number"] >= len(before)
        assert events(server, len(before)) == before
        until(lambda: "waiting for the clock: it is " in server.log)
        clock.set(1200)
        until(lambda: happened(server) > changed["from_event_number"])
        assert server.get("/")["status"] == "running"
        assert events(server)[: len(before)] == before


def test_a_change_that_would_come_too_late_is_refused(clock: WrongClock, file: str) -> None:
    """A server that is a day behind says why it cannot change the stream, and goes on."""
    with ServerProcess("--timeline", file, "--rate", "1") as slow:
        clock.set(86_400)
        with ServerProcess("--timeline", file, environment=clock.environment) as fast:
            until(lambda: happened(fast) > 86_000)
        status, body = slow.ask("PATCH", "/stream", '{"rate": 5}')
        assert status == 503
        sentence = rb"has a clock 86,\d\d\d s ahead of this one and may have delivered the events until 20"
        assert re.search(sentence, body)
        assert slow.get("/")["status"] == "running"
        assert slow.get("/stream")["rate"] == 1


@pytest.mark.parametrize("kept", [False, True], ids=["in memory", "in a file"])
def test_a_clock_that_is_set_back(clock: WrongClock, file: str, kept: bool) -> None:
    """No event happens until it has caught up; the status, the log and the metrics report it."""
    options = ["--timeline", file] if kept else []
    with ServerProcess(*options, "--rate", RATE, environment=clock.environment) as server:
        until(lambda: happened(server) > 10)
        assert server.get("/")["status"] == "running"
        assert clock_behind(server) == 0
        clock.set(-600)
        until(lambda: server.get("/")["status"] == "waiting for the clock")
        assert happened(server) == happened(server)
        assert clock_behind(server) == pytest.approx(600, abs=60)
        until(lambda: server.log.startswith("waiting for the clock: it is "))
        server.patch(paused=True)
        assert server.get("/")["status"] == "paused"
        server.patch(paused=False)
        clock.set(0)
        until(lambda: server.get("/")["status"] == "running")
        stopped = happened(server)
        until(lambda: happened(server) > stopped)
        assert server.log.count("\n") == 1

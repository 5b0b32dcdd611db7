"""What probes are told: whether events can happen, and if not, why."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from helpers import http
from helpers.waiting import until
from logistream.server.health import Health
from logistream.server.metrics import Gauges
from logistream.server.pump import Pump
from logistream.server.server import StreamServer
from logistream.stream.stream import Stream
from logistream.stream.timeline import Timeline, first_entry
from logistream.times import wall_clock

if TYPE_CHECKING:
    from pathlib import Path

    from logistream.model.model import Model

WAIT = 60.0
"""Seconds that a busy machine may take."""


def test_a_stream_that_runs_or_is_paused_is_healthy(model: Model) -> None:
    """Without a token too; the age of the newest event is in the metrics."""
    with StreamServer(model, rate=200, port=0, history="5s", token="secret") as server:
        url = server.url.partition("?")[0]
        for paused in (False, True):
            server.paused = paused
            answer = http.get(f"{url}/health")
            assert (answer.status_code, answer.json()) == (200, {"healthy": True, "reason": None})
        assert http.get(f"{url}/stream").status_code == 401
        metrics = http.get(f"{url}/metrics", headers={"Authorization": "Bearer secret"}).text
        (age,) = [
            line for line in metrics.splitlines() if line.startswith("logistream_newest_event_age_seconds ")
        ]
        assert 0 <= float(age.split()[1]) < WAIT


def test_a_timeline_that_cannot_be_read_is_not(model: Model, tmp_path: Path) -> None:
    """The reason is the sentence of the log."""
    path = tmp_path / "timeline"
    with StreamServer(model, rate=200, port=0, timeline=path) as server:
        assert http.get(f"{server.url}/health").status_code == 200
        path.write_bytes(b"no timeline")
        until(lambda: http.get(f"{server.url}/health").status_code == 503)
        found = http.get(f"{server.url}/health").json()
        assert not found["healthy"]
        assert str(path) in found["reason"]


def test_a_clock_that_was_set_back_is_not(model: Model) -> None:
    """The stream waits until the clock is again as late as before."""
    ahead = [60_000_000]
    start = first_entry(wall_clock() + ahead[0])
    stream = Stream(model, Timeline([start]), clock=lambda: wall_clock() + ahead[0])
    stream.now()
    ahead[0] = 0
    pump = Pump(stream, Gauges(), catch_up=1, catch_up_total=1)
    health = Health(stream, pump)
    pump._loop, pump._round = _Loop(), 0.0  # type: ignore[assignment] # it has just run
    assert re.match(r"the clock of this machine is (5\d|60)\.\d s behind the stream", str(health.reason()))
    pump.close()
    assert str(health.reason()).startswith("the thread that makes events has ended")


class _Loop:
    """A clock that stands still."""

    @staticmethod
    def time() -> float:
        """Return the time."""
        return 0.0


def test_an_application_that_has_not_begun_is_not(model: Model) -> None:
    """Without its lifespan nothing is served."""
    pump = Pump(Stream(model), Gauges(), catch_up=1, catch_up_total=1)
    assert str(Health(pump.stream, pump).reason()).startswith("no reader has been served")
    pump.close()

"""Driver, JVM and server are killed in turn; each event is in the result once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from itertools import cycle, islice
from pathlib import Path
from select import select
from typing import TYPE_CHECKING, Self

import pandas as pd
import pytest

from helpers.processes import ServerProcess
from helpers.spark import QUICK
from helpers.waiting import until

if TYPE_CHECKING:
    from collections.abc import Callable

    from pyspark.sql import SparkSession

KILLS = 6  # of each victim, two
PATIENCE = 300.0  # seconds, for a session to start on a busy machine

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(1800)]


class Driver:
    """The driver program; a context manager that starts it and kills it.

    Spark ends a query if a Python process takes more than ten seconds to start, which happens on a very busy
    machine. The driver is then started again, as whoever runs one would.

    Attributes
    ----------
    folder : Path
        Where it writes.
    """

    def __init__(self, url: str, folder: Path) -> None:
        script = Path(__file__).with_name("driver.py")
        self._command = [sys.executable, str(script), url, str(folder), json.dumps(QUICK)]
        self.folder = folder
        self._process: subprocess.Popen[str] | None = None
        self._jvm = 0

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> Self:
        """Start it and wait until its query runs."""
        with (self.folder / "stderr").open("w") as errors:
            process = subprocess.Popen(self._command, stdout=subprocess.PIPE, stderr=errors, text=True)
        self._process = process
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            return self._start_again()
        self._jvm = int(line)
        return self

    def _start_again(self) -> Self:
        """Start it after Spark has ended the query."""
        assert self._process is not None
        self._process.communicate()
        errors = (self.folder / "stderr").read_text()
        assert "Python worker failed to connect back" in errors, errors
        return self.start()

    def kill(self, *, jvm: bool = False) -> None:
        """End the driver, or its JVM, with SIGKILL; the other ends by itself."""
        assert self._process is not None
        ended = os.pidfd_open(self._jvm)  # can be read when the process has ended
        try:
            os.kill(self._jvm if jvm else self._process.pid, signal.SIGKILL)
            self._process.communicate()
            assert select([ended], [], [], PATIENCE)[0]
        finally:
            os.close(ended)

    def numbers(self, kind: str) -> set[int]:
        """Return the micro-batches that the checkpoint has as planned (`offsets`) or done (`commits`)."""
        return {int(path.name) for path in (self.folder / "checkpoint" / kind).glob("[0-9]*")}

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so, while the driver runs."""

        def so() -> bool:
            assert self._process is not None
            if self._process.poll() is not None:
                self._start_again()
            return condition()

        until(so, within=PATIENCE)

    def is_open(self) -> bool:
        """Return whether a micro-batch is under way."""
        return bool(self.numbers("offsets") - self.numbers("commits"))

    def next_number(self) -> int:
        """Return the event number that follows the last micro-batch that is done."""
        last = max(self.numbers("commits"))
        offset = (self.folder / "checkpoint" / "offsets" / str(last)).read_text().splitlines()[-1]
        return int(json.loads(offset)["next"])


def test_each_event_is_written_once_through_every_kill(spark: SparkSession, tmp_path: Path) -> None:
    """Each kill meets an open micro-batch; the files are complete for pandas and for Spark."""
    history = ("--rate", "200", "--history", "2min", "--timeline", str(tmp_path / "orders.timeline"))
    with ServerProcess(*history) as server, Driver(server.url, tmp_path) as driver:
        for victim in islice(cycle(("driver", "JVM", "server")), KILLS):
            before = driver.numbers("commits")
            driver.wait_for(lambda before=before: driver.numbers("commits") > before)  # type: ignore[misc]
            driver.wait_for(driver.is_open)
            if victim == "server":
                server.kill()
                server.start()
            else:
                driver.kill(jvm=victim == "JVM")
                driver.start()
        end = server.patch(paused=True)["from_event_number"]
        driver.wait_for(lambda: driver.next_number() >= end)
    written = pd.read_parquet(tmp_path / "out", columns=["event_number"])
    assert sorted(written["event_number"]) == list(range(end))
    assert end > 24_000
    numbers = spark.read.parquet(f"{tmp_path}/out").select("event_number")
    assert sorted(numbers.toArrow()["event_number"].to_pylist()) == list(range(end))

"""The recipe that pipes a stream into Kafka, as `logistream tail --help` shows it."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from helpers.numbered import NumberedServer, text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(shutil.which("kcat") is None, reason="needs kcat: apt-get install kcat")


@pytest.fixture
def broker() -> Iterator[str]:
    """Give the address of a broker: the one that librdkafka brings along for tests, served by a producer."""
    options = ["-X", "test.mock.num.brokers=1", "-d", "mock"]
    with subprocess.Popen(
        ["kcat", "-P", "-b", "none", "-t", "none", *options],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        found = None
        while found is None:
            found = re.search(r"bootstrap\.servers=(\S+)", process.stderr.readline())
        yield found[1]
        process.send_signal(signal.SIGKILL)
        process.stderr.read()


@pytest.mark.slow
def test_the_recipe_goes_on_after_the_newest_message(broker: str, tmp_path: Path) -> None:
    """Run twice, it leaves each event once in the topic, in order, under its number."""
    command = [sys.executable, "-m", "logistream", "tail"]
    shown = subprocess.run([*command, "--help"], capture_output=True, text=True, check=True).stdout
    recipe = (
        shown[shown.index("  last=") : shown.index("example:")]
        .replace("BROKER", broker)
        .replace("TOPIC", "orders")
    )
    program = tmp_path / "logistream"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m logistream "$@"\n')
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    with NumberedServer(60) as server:
        for count in (20, 25):
            script = recipe.replace("tail ", f"tail {server.url} --count {count} ")
            subprocess.run(["bash", "-ec", script], env=environment, check=True, timeout=60)
    consumer = ["kcat", "-C", "-b", broker, "-t", "orders", "-p", "0", "-e", "-q", "-f", "%k\t%s\n"]
    lines = subprocess.run(consumer, capture_output=True, text=True, check=True, timeout=60).stdout
    rows = [line.split("\t") for line in lines.splitlines()]
    assert [int(key) for key, _ in rows] == list(range(45))
    assert [json.loads(value) for _, value in rows] == [
        json.loads(text(n)) | {"event_number": n} for n in range(45)
    ]

"""Logs as JSON: every line that the server writes to stderr is one object."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

from helpers import http
from helpers.processes import children
from logistream.server.logs import json_line

if TYPE_CHECKING:
    from collections.abc import Iterator

SERVE = [sys.executable, "-m", "logistream", "serve", "--port", "0"]


def next_record(stream: IO[str]) -> dict[str, Any]:
    """Return what the next line holds."""
    found: dict[str, Any] = json.loads(stream.readline())
    return found


@contextmanager
def serving(*options: str) -> Iterator[tuple[subprocess.Popen[str], IO[str], str]]:
    """Run a server with JSON logs by its variable; give process, stderr and address."""
    with subprocess.Popen(
        [*SERVE, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "LOGISTREAM_LOG_FORMAT": "json"},
    ) as process:
        assert process.stderr is not None
        try:
            record = next_record(process.stderr)
            assert record["message"].startswith("Streaming ")
            assert list(record) == ["time", "level", "logger", "message"]
            yield process, process.stderr, record["message"].rpartition(" on ")[2]
        finally:
            process.kill()


@pytest.mark.slow
def test_every_line_is_an_object(tmp_path: Path) -> None:
    """Addresses, requests and warnings; nothing is written to stdout, and no token anywhere."""
    timeline = tmp_path / "timeline"
    options = ("--access-log", "--token", "s3cret", "--timeline", str(timeline))
    with serving(*options) as (process, errors, url):
        assert http.get(f"{url}/stream?token=s3cret").status_code == 200
        assert next_record(errors)["path"] == "/stream"
        timeline.write_bytes(b"not a timeline" * 1000)
        warning = next_record(errors)
        assert (warning["level"], warning["logger"]) == ("warning", "logistream.server.timeline_watch")
        assert warning["message"].startswith("no more events for now: ")
        process.send_signal(signal.SIGTERM)
        output, rest = process.communicate(timeout=60)
        assert (process.returncode, output) == (0, "")
        assert all(json.loads(line) for line in rest.splitlines())


@pytest.mark.slow
def test_workers_log_as_json_too() -> None:
    """The death of one is a record, and so are the requests that another one answers."""
    with serving("--workers", "2", "--access-log") as (process, errors, url):
        http.get(f"{url}/stream")
        assert next_record(errors)["path"] == "/stream"
        commands = {child: Path(f"/proc/{child}/cmdline").read_text() for child in children(process.pid)}
        worker = next(child for child, command in commands.items() if "spawn_main" in command)
        os.kill(worker, signal.SIGKILL)
        assert next_record(errors)["message"].endswith("was ended by SIGKILL")
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (("--rate", "0"), 2, "rate must be"),
        (("--timeline", "/nowhere/timeline"), 1, "/nowhere/timeline"),
        (("--host", "0.0.0.0"), 2, "a token is required and never logged: give one with --token-file or"),
    ],
)
def test_errors_are_records(options: tuple[str, ...], code: int, sentence: str) -> None:
    """Exit codes stay what they are; a token that nobody could read is not made."""
    done = subprocess.run(
        [*SERVE, "--log-format", "json", *options], capture_output=True, text=True, check=False, timeout=60
    )
    record = json.loads(done.stderr)
    assert (done.returncode, done.stdout, record["level"]) == (code, "", "error")
    assert sentence in record["message"]


def test_warnings_and_errors_of_python_are_records() -> None:
    """What Python would print over several lines stands on one, with its traceback."""
    program = (
        "import threading, warnings\n"
        "from logistream.server.logs import log_as_json\n"
        "log_as_json()\n"
        "warnings.warn('mind\\nthe gap')\n"
        "thread = threading.Thread(target=lambda: 1 / 0)\n"
        "thread.start(), thread.join()\n"
        "[][0]\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    warning, thread, end = map(json.loads, done.stderr.splitlines())
    assert warning["message"].startswith("UserWarning: mind\nthe gap (")
    assert thread["message"] == "unexpected error: division by zero"
    assert thread["traceback"].endswith("ZeroDivisionError: division by zero")
    assert (end["level"], end["message"]) == ("critical", "unexpected error: list index out of range")


def test_a_line_is_a_line() -> None:
    """Whatever a message holds, its record is one line of printable ASCII."""
    line = json_line(0, message="a\r\n\x1b[2J\u2028é")
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == {"time": "1970-01-01T00:00:00.000000Z", "message": "a\r\n\x1b[2J\u2028é"}

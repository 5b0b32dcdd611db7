"""The command line: what it prints, where, and with which exit code."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import logistream
from helpers import http
from helpers.websocket import connect
from logistream.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMAND = [sys.executable, "-m", "logistream"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def serving() -> Iterator[subprocess.Popen[str]]:
    """Give a running `logistream serve`."""
    with subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", "--rate", "200", "--seed", "7"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def addresses(process: subprocess.Popen[str]) -> dict[str, str]:
    """Return the addresses that the server prints when it is ready."""
    assert process.stdout is not None
    lines = [process.stdout.readline() for _ in range(5)]
    assert lines[0] == "Streaming DataCo orders at 200 events/s, seed 7\n"
    assert lines[4] == "Ctrl-C stops it.\n"
    return dict(line.split() for line in lines[1:4])


@pytest.mark.slow
def test_serve_prints_addresses_that_answer(serving: subprocess.Popen[str]) -> None:
    """What is printed can be used at once."""
    printed = addresses(serving)
    assert http.get(printed["status"]).json()["websocket_url"] == printed["events"]
    assert http.get(printed["docs"]).status_code == 200
    assert http.get(f"{printed['status']}/stream").json()["seed"] == 7
    with connect(printed["events"]) as reader:
        reader.recv(timeout=60)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)], ids=["Ctrl-C", "SIGTERM"]
)
def test_serve_ends_quietly(serving: subprocess.Popen[str], sent: signal.Signals, code: int) -> None:
    """Interrupted or terminated, with a reader connected: no traceback, no word."""
    with connect(addresses(serving)["events"], close_timeout=0.1) as reader:
        reader.recv(timeout=60)
        os.kill(serving.pid, sent)
        out, err = serving.communicate(timeout=60)
    assert (out, err, serving.returncode) == ("", "", code)


@pytest.mark.slow
def test_a_port_in_use_gets_a_sentence_with_two_ways_out() -> None:
    """The sentence names the port, goes to stderr, and the exit code is 1."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = run("serve", "--port", str(port))
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr == (
        f"logistream: port {port} on 127.0.0.1 is already in use: stop the program that uses it, "
        f"or choose another port (port=0 takes a free one)\n"
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "the following arguments are required: COMMAND; see logistream --help"),
        (["serve", "--rate", "0"], "rate must be from 0.001 to 1,000,000 events per second, not 0.0; "
         "to stop the stream for a while, pause it"),
        (["serve", "--rate", "fast"], "argument --rate: must be a number, not 'fast'; "
         "see logistream serve --help"),
        (["serve", "--port", "70000"], "port must be a whole number from 0 to 65535, not 70000"),
        (["serve", "--seed", "-1"], "seed must be a whole number from 0 to 2**64 - 1, not -1"),
        (["serve", "--max-clients", "0"], "argument --max-clients: must be a whole number of readers, "
         "at least 1, not '0'; see logistream serve --help"),
        (["serve", "--catch-up", "0"], "argument --catch-up: must be a number of events per second, "
         "at least 1, not '0'; see logistream serve --help"),
        (["serve", "--allow-origin", "x"], "an allowed origin is written like https://example.org or "
         "http://localhost:3000, without a path, or is null or *; not 'x'"),
    ],
)  # fmt: skip
def test_bad_usage_is_said_in_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, one line on stderr, nothing on stdout."""
    try:
        code: object = main(arguments)
    except SystemExit as ended:  # argparse ends the program itself
        code = ended.code
    assert code == 2
    assert capsys.readouterr() == ("", f"logistream: {sentence}\n")


def test_a_model_that_is_not_there_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1 and a sentence that names the file."""
    missing = tmp_path / "no.model"
    assert main(["serve", "--model", str(missing)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(rf"logistream: no model file at {re.escape(str(missing))}: .*\n", err)


def test_version_is_the_package_version() -> None:
    """--version names program and version."""
    done = run("--version")
    assert (done.stdout, done.stderr, done.returncode) == (f"logistream {logistream.__version__}\n", "", 0)


@pytest.mark.parametrize(
    "command", ["", "serve", "tail", "bridge", "timeline", "fit", "sample", "report", "verify"]
)
def test_help_ends_with_an_example(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every --help shows how the command is typed."""
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    assert re.search(rf"\nexample: logistream {command}(.+\n)+$", capsys.readouterr().out)


def test_a_pipe_that_closes_early_is_no_error() -> None:
    """`logistream --help | head -1` leaves no traceback."""
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        [*COMMAND, "--help"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=buffered
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_a_timeline_file_that_is_not_there_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentence says so in words of its own, and not in those of SQLite."""
    absent = tmp_path / "absent.timeline"
    assert main(["timeline", str(absent)]) == 1
    assert capsys.readouterr().err == f"logistream: there is no timeline file at {absent}: check the path\n"

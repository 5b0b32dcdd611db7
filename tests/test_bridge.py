"""`logistream bridge`: a stream as lines of JSON for programs that read plain sockets."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

import logistream as ls
from helpers.bridge import bridge
from helpers.processes import ServerProcess
from helpers.sockets import free_port
from helpers.waiting import until
from logistream.cli import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Lines:
    """A program that reads lines; a context manager that connects and leaves."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=60)
        self._file = self._socket.makefile("r")

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self._socket.close()

    def numbers(self, count: int) -> list[int]:
        """Return the numbers of the next events."""
        return [json.loads(self._file.readline())["event_number"] for _ in range(count)]

    def finish_sending(self) -> None:
        """End what this side sends, as `nc` does if its input is empty."""
        self._socket.shutdown(socket.SHUT_WR)


@pytest.fixture
def crowd() -> Iterator[ExitStack]:
    """Give what closes the readers at the end of a test."""
    with ExitStack() as stack:
        yield stack


def test_every_reader_gets_what_happens(server: ls.StreamServer, crowd: ExitStack) -> None:
    """Whoever connects later, stops reading or leaves; the events are those of the server."""
    with bridge(server.url, "--numbered") as port:
        first, second, leaving = (crowd.enter_context(Lines(port)) for _ in range(3))
        leaving.finish_sending()
        assert len(leaving.numbers(3)) == 3
        leaving.__exit__()
        read = first.numbers(50), second.numbers(50)
        late = crowd.enter_context(Lines(port)).numbers(20)
        read[0].extend(first.numbers(50))
        assert len(ls.events(server, late[0], late[-1] + 1)) == 20
    for numbers in (*read, late):
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert late[0] > read[1][-1]


@pytest.mark.slow
def test_lines_are_those_that_tail_prints(server: ls.StreamServer) -> None:
    """With the columns, the beginning and the condition that were asked for."""
    options = ("--start", "0", "--columns", "Market,Sales", "--where", "Market:Europe")
    until(lambda: server.state["next_event_number"] > 100)
    with bridge(server.url, *options) as port, socket.create_connection(("127.0.0.1", port), 60) as reader:
        sent = reader.makefile().readline()
    command = [sys.executable, "-m", "logistream", "tail", server.url, "--count", "1", *options]
    assert sent == subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.slow
def test_a_bridge_outlives_its_server(tmp_path: Path, crowd: ExitStack) -> None:
    """Those who are connected lose nothing while the server is killed and started again."""
    timeline = str(tmp_path / "orders.timeline")
    server = crowd.enter_context(ServerProcess("--rate", "500", "--timeline", timeline))
    port = crowd.enter_context(bridge(server.url, "--numbered"))
    readers = [crowd.enter_context(Lines(port)) for _ in range(3)]
    numbers = [reader.numbers(20) for reader in readers]
    server.kill()
    server.start()
    for reader, before in zip(readers, numbers, strict=True):
        before.extend(reader.numbers(2000))
        assert before == list(range(before[0], before[0] + 2020))


@pytest.mark.slow
def test_a_bridge_waits_for_its_server(crowd: ExitStack) -> None:
    """It may be started before the server."""
    free = free_port()
    port = crowd.enter_context(bridge(f"localhost:{free}", "--numbered", "--start", "earliest"))
    reader = crowd.enter_context(Lines(port))
    crowd.enter_context(ServerProcess("--rate", "200", port=free))
    assert reader.numbers(5) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("options", "sentence", "code"),
    [
        (["--columns", "x"], "refuses: no column 'x': there are Type,", 1),
        (["--port", "70000"], "port must be a whole number from 0 to 65535, not 70000", 2),
        (["--port", "{server}"], "is already in use: stop the program that uses it", 1),
    ],
)
def test_what_cannot_work_is_said_at_once(
    server: ls.StreamServer, options: list[str], sentence: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one sentence on stderr, before anybody connects."""
    arguments = [option.replace("{server}", str(server.port)) for option in options]
    assert main(["bridge", server.url, *arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert re.fullmatch(r"logistream: .*\n", err)
    assert sentence in err


@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")
def test_a_bridge_ends_quietly(server: ls.StreamServer) -> None:
    """Interrupted while somebody reads: no traceback, no word."""
    command = [sys.executable, "-m", "logistream", "bridge", server.url, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline().split(",")[0].rpartition(":")[2])
        assert process.stdout.readline() == "Ctrl-C stops it.\n"
        with socket.create_connection(("127.0.0.1", port), timeout=60) as reader:
            assert reader.recv(10)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
    assert (out, err, process.returncode) == ("", "", 130)

"""`logistream tail` in a pipe and in a terminal."""

from __future__ import annotations

import io
import signal
import subprocess
import sys

import pytest
from rich.console import Console

from helpers.numbered import NumberedServer, text
from helpers.sockets import free_port
from logistream.cli import main
from logistream.tail import run


def program(url: str) -> subprocess.Popen[str]:
    """Start tail as a program of its own."""
    command = [sys.executable, "-m", "logistream", "tail", url, "--start", "0"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def table(width: int, height: int = 40, count: int = 30) -> list[str]:
    """Return the lines of the last table that a terminal of that size shows."""
    console = Console(file=io.StringIO(), force_terminal=True, width=width, height=height, color_system=None)
    with NumberedServer(30) as server:
        run(server.url, count, console=console, start=0)
    drawn = console.file.getvalue()  # type: ignore[attr-defined]
    return [line.rstrip() for line in drawn[drawn.rindex("┏") :].splitlines()]


def cells(line: str) -> list[str]:
    """Return what is between the rules of a line."""
    return [cell.strip() for cell in line.replace("┃", "│").split("│")[1:-1]]


def test_terminal_gets_a_table() -> None:
    """A terminal shows the newest events, time first, and how many came."""
    lines = table(width=100)
    assert cells(lines[1]) == ["event_time", "n", "text"]
    rows = [cells(line) for line in lines if line.startswith("│")]
    assert rows[-1] == ["00:00:00.029", "29", "t1"]
    assert len(rows) == 30
    assert "/ws: 30 events," in " ".join(" ".join(lines).split())


def test_table_fits_the_terminal() -> None:
    """What does not fit is left out: old rows and the last columns."""
    lines = table(width=23, height=12)
    assert cells(lines[1]) == ["event_time", "n"]
    rows = [cells(line) for line in lines if line.startswith("│")]
    assert [row[0] for row in rows] == [f"00:00:00.{n:03d}" for n in range(23, 30)]


def test_refusal_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    """A final refusal goes to stderr in one sentence, with exit code 1."""
    with NumberedServer(0, refuse=(403, '{"detail": "a token is needed"}')) as server:
        assert main(["tail", server.url]) == 1
    assert capsys.readouterr().err == f"logistream: {server.url} refuses: a token is needed\n"


def test_token_is_passed_on() -> None:
    """The token reaches the server."""
    with NumberedServer(1) as server:
        run(server.url, 1, start=0, token="secret")
        assert server.authorizations == ["Bearer secret"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["ftp://x"], "cannot connect to 'ftp://x': expected an address such as ws://127.0.0.1:8000/ws or "),
        (["localhost:1", "--count", "0"], "count must be at least 1, got 0"),
        (["localhost:1", "--start=-1"], "start must be an event number from 0"),
    ],
)
def test_bad_usage(capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str) -> None:
    """An impossible address, count or start is exit code 2 and one sentence."""
    assert main(["tail", *arguments]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"logistream: {sentence}")
    assert err.count("\n") == 1


def test_waits_for_a_server_and_reports_it() -> None:
    """Where nothing listens yet, stderr reports each attempt; the events come when the server does."""
    port = free_port()
    with program(f"127.0.0.1:{port}") as process:
        assert process.stderr is not None
        assert process.stdout is not None
        trouble = process.stderr.readline()
        with NumberedServer(1, port=port):
            assert process.stdout.readline() == text(0) + "\n"
            process.terminate()
    assert trouble.startswith(
        f"logistream: ws://127.0.0.1:{port}/ws cannot be reached: nothing listens there"
    )


def test_interrupt_ends_quietly() -> None:
    """Ctrl-C is exit code 130 without a traceback."""
    with NumberedServer(1) as server, program(server.url) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == text(0) + "\n"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, "")


def test_reader_that_has_seen_enough_ends_it_quietly() -> None:
    """Like `logistream tail | head -1`: a closed pipe ends the command without a traceback."""
    with NumberedServer(1) as server, program(server.url) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        server.happen(30)
        assert process.wait(20) == 0
        assert process.stderr.read() == ""


def test_pipe_gets_one_line_per_event_exactly_as_sent(capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe each event is a line, byte for byte what the server sends, also across breaks."""
    with NumberedServer(40, most=[2, 0, 1], back=3) as server:
        assert main(["tail", server.url, "--count", "40", "--start", "earliest"]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [text(n) for n in range(40)]
    assert all("trying again in" in line for line in err.splitlines())


def test_what_is_printed_can_be_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns, conditions and numbers."""
    with NumberedServer(40) as server:
        chosen = ["--start", "5", "--columns", "n,more", "--where", "text:t2", "--numbered"]
        assert main(["tail", server.url, "--count", "2", *chosen]) == 0
    assert capsys.readouterr().out.splitlines() == [
        '{"n":9,"more":4.5,"event_number":9}',
        '{"n":16,"more":8.0,"event_number":16}',
    ]

"""`logistream tail` in a pipe and in a terminal."""

from __future__ import annotations

import io
import json
import re
import shlex
import signal
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from urllib.request import urlopen

import pytest
from rich.console import Console

from helpers.numbered import NumberedServer, text
from helpers.sockets import free_port
from helpers.waiting import until
from logistream.cli import main
from logistream.server.server import StreamServer
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
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")


def test_reader_that_has_seen_enough_ends_it_quietly() -> None:
    """Like `logistream tail | head -1`: a closed pipe ends the command without a traceback."""
    with NumberedServer(1) as server, program(server.url) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        server.happen(30)
        assert process.wait(60) == 0
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


# Where the output goes, and what stands in the way


def finished(*arguments: str, output: str) -> subprocess.CompletedProcess[str]:
    """Run tail to its end, in a shell that sends its output somewhere."""
    command = shlex.join([sys.executable, "-m", "logistream", "tail", *arguments])
    return subprocess.run(
        ["sh", "-c", f"{command} {output}"], capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize(
    ("location", "sentence"),
    [
        ("https://example.org/ws", "redirects to https://example.org/ws: use that address if it is the"),
        ("/ws", "redirects in a way that is not followed: more than 10 redirects"),
    ],
)
def test_a_redirect_is_a_sentence(capsys: pytest.CaptureFixture[str], location: str, sentence: str) -> None:
    """To another kind of address, or in a circle."""

    class Redirecting(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(301)
            self.send_header("Location", location)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Redirecting) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            assert main(["tail", f"127.0.0.1:{server.server_address[1]}"]) == 1
        finally:
            server.shutdown()
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        (">/dev/full", "logistream: the output cannot be read or written: No space left on device\n"),
        (">&-", "logistream: there is no output: it was closed\n"),
    ],
)
def test_an_output_that_takes_nothing_is_a_sentence(output: str, sentence: str) -> None:
    """A full disk, and a stdout that was closed before the start."""
    with NumberedServer(3) as server:
        done = finished(server.url, "--count", "1", "--start", "0", output=output)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", sentence)


def test_a_terminal_shows_the_numbers_first() -> None:
    """However narrow it is."""
    console = Console(file=io.StringIO(), force_terminal=True, width=40, height=40, color_system=None)
    with NumberedServer(30) as server:
        run(server.url, 30, console=console, start=0, numbered=True)
    drawn = console.file.getvalue()  # type: ignore[attr-defined]
    lines = [line.rstrip() for line in drawn[drawn.rindex("┏") :].splitlines()]
    assert cells(lines[1])[:2] == ["event_number", "event_time"]
    assert [cells(line)[0] for line in lines if line.startswith("│")] == [str(n) for n in range(30)]


def test_it_starts_without_pandas() -> None:
    """Which takes longer to import than all else together."""
    script = "import sys; from logistream.cli import main; main(sys.argv[1:]); print('pandas' in sys.modules)"
    with NumberedServer(1) as server:
        command = [sys.executable, "-c", script, "tail", server.url, "--count", "1", "--start", "0"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == [text(0), "False"]


def test_append_goes_on_after_the_last_number(tmp_path: Path) -> None:
    """In a new file, in one that was continued, and in one whose writer was killed within a line."""
    file = tmp_path / "events.ndjson"
    with NumberedServer(40) as server:
        append = ["tail", server.url, "--append", str(file), "--count"]
        assert main([*append, "5", "--start", "3"]) == 0
        assert main([*append, "10"]) == 0
        with file.open("a") as writer:
            writer.write('{"n":18,"te')
        assert main([*append, "2"]) == 0
    events = [json.loads(line) for line in file.read_text().splitlines()]
    assert [event["event_number"] for event in events] == list(range(3, 20))
    assert [event["delivery"] for event in events] == [f"{number}.0" for number in range(3, 20)]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("hello", "does not end with an event and its number"),
        ('{"a": 1}\n', "does not end with an event and its number"),
        ('{"n":5}\n{"event_number":', "does not end with an event and its number"),
        ('{"delivery":"5.0","n":7,"event_number":5}\n', "ends with another event than ws://"),
        ('{"delivery":"5.0","n":7,"event_number":5}\n{"deli', "ends with another event than ws://"),
        ('{"n":5,"event_number":5}\n', "was made with --no-faults: give it again, or append to another"),
    ],
)
def test_another_file_is_not_appended_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, sentence: str
) -> None:
    """It stays as it is."""
    file = tmp_path / "file"
    file.write_text(content)
    with NumberedServer(40) as server:
        assert main(["tail", server.url, "--append", str(file), "--count", "5"]) == 1
    assert file.read_text() == content
    assert sentence in capsys.readouterr().err
    assert main(["tail", "localhost:1", "--append", str(tmp_path)]) == 1
    assert "cannot be written: Is a directory" in capsys.readouterr().err


FAULTS = [
    {"duplicate": {"copies": 2, "events": [0, 30]}, "share": 0.3},
    {"corrupt": "cut", "share": 0.2},
    {"corrupt": "missing", "share": 0.3},
]


def ranged(server: StreamServer, first: int, query: str) -> list[str]:
    """Return 100 slots of a server's past as lines."""
    until(lambda: server.state["next_event_number"] > first + 100)
    url = f"{server.url}/events?start={first}&stop={first + 100}&format=ndjson&{query}"
    with urlopen(url, timeout=60) as answer:
        return answer.read().decode().splitlines()  # type: ignore[no-any-return]


def test_append_goes_on_after_the_last_delivery(
    server: StreamServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether it was whole, a duplicate or cut short: the file holds each delivery once."""
    server.faults = FAULTS
    first = server.timeline.last.first
    lines = ranged(server, first, "placed=true&numbered=true")
    cut = [place for place, line in enumerate(lines) if not line.endswith("}")]
    assert len(cut) > 5
    file = tmp_path / "events.ndjson"
    append = ["tail", server.url, "--start", str(first), "--append", str(file), "--count"]
    for begin, end in pairwise(sorted({0, 1, 30, cut[3] + 1, cut[4] + 1, len(lines)})):
        assert main([*append, str(end - begin)]) == 0
        assert file.read_text().splitlines() == lines[:end]
    assert main([*append, "1", "--no-faults"]) == 1
    assert "was made without --no-faults: leave it out, or append to another" in capsys.readouterr().err


def test_tail_shows_deliveries_or_what_happened(
    server: StreamServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines as they are delivered, or those of a stream without faults; a table counts those cut short."""
    server.faults = FAULTS
    first = server.timeline.last.first
    delivered, clean = (ranged(server, first, query) for query in ("", "faults=false"))
    tail = ["tail", server.url, "--start", str(first), "--count", "100"]
    assert main(tail) == 0
    assert capsys.readouterr().out.splitlines() == delivered[:100]
    assert main([*tail, "--no-faults"]) == 0
    assert capsys.readouterr().out.splitlines() == clean
    assert main([*tail[:1], f"{server.url}?faults=false", *tail[2:]]) == 0
    assert capsys.readouterr().out.splitlines() == clean
    console = Console(file=io.StringIO(), force_terminal=True, width=200, height=20, color_system=None)
    run(server, 100, console=console, start=first)
    cut = sum(not line.endswith("}") for line in delivered[:100])
    drawn = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"100 events, {cut} of them cut short" in re.sub(r"events, [0-9.,]+/s", "events", drawn).replace(
        "\n", ""
    )

"""README and CHANGELOG say what is so: names, commands, options, calls, keys, code and links."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from websockets.sync.client import connect

import logistream
from logistream.cli import _parser
from logistream.dataco import EVENT
from logistream.server.app import create_app
from logistream.stream.encoding import decode
from logistream.stream.stream import Stream
from test_published_snippets import JAVASCRIPT, PYTHON

if TYPE_CHECKING:
    from logistream.model.model import Model
    from logistream.server.server import StreamServer

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", ROOT / "data" / "README.md"]


def blocks(language: str, text: str = README) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def block(containing: str) -> str:
    """Return the one Python block of the README that contains a text."""
    (found,) = (code for code in blocks("python") if containing in code)
    return found


def commands(text: str = README) -> list[str]:
    """Return the command lines that a reader is told to type."""
    lines = [line for block in blocks("console", text) for line in block.splitlines()]
    assert all(line.startswith("$ ") for line in lines)
    spans = re.findall(r"`(logistream [a-z]+ -[^`]*)`", text)
    return [line.removeprefix("$ ") for line in lines] + spans


def subcommands() -> dict[str, argparse.ArgumentParser]:
    """Return the parser of each subcommand."""
    (action,) = (a for a in _parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


def run(code: str, folder: Path) -> str:
    """Run code as a script of its own, where a warning is an error, and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_python_blocks_compile(path: Path) -> None:
    """No block has a slip that a reader would copy."""
    for code in blocks("python", path.read_text(encoding="utf-8")):
        compile(code, str(path), "exec")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    """Links to files and to headings are not broken."""
    text = path.read_text(encoding="utf-8")
    headings = {
        re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")
        for line in text.splitlines()
        if line.startswith("#")
    }
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings
        elif not target.startswith("https://"):
            assert (path.parent / target).exists(), target


def test_every_public_name_is_mentioned() -> None:
    """A reader finds everything that `import logistream as ls` gives."""
    assert [name for name in logistream.__all__ if not re.search(rf"\bls\.{name}\b", README)] == []


def test_every_subcommand_and_option_is_mentioned() -> None:
    """The table of the command line has all of them, and none that is not there."""
    rows = {
        match[1]: set(match[2].split())
        for match in re.finditer(r"^\| `(\w+)[^`]*` \|.*\| `(-[^`]*)` \|$", README, re.MULTILINE)
    }
    assert rows == {
        name: {option for action in parser._actions for option in action.option_strings[:1]} - {"-h"}
        for name, parser in subcommands().items()
    }


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_are_understood(path: Path) -> None:
    """Each `logistream` line parses, each make target and each script exists."""
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for command in commands(path.read_text(encoding="utf-8")):
        program, *arguments = shlex.split(command.partition(" > ")[0])
        if program == "logistream":
            assert _parser().parse_args(arguments).run
        elif program == "make":
            assert arguments[0] in targets
        elif program in ("python", "jupyter"):
            assert any((ROOT / argument).exists() for argument in arguments)
        else:
            assert program in ("conda", "curl")


def test_every_notebook_is_mentioned() -> None:
    """With a link."""
    linked = re.findall(r"\]\((notebooks/[^)]+)\)", README)
    assert sorted(linked) == sorted(f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb"))


def test_every_call_is_mentioned(model: Model) -> None:
    """The table of HTTP and WebSocket calls has all that the application answers, and no more."""
    app = create_app(Stream(model))
    answered = {
        f"{method.upper()} {path}" for path, calls in app.openapi()["paths"].items() for method in calls
    }
    told = set(re.findall(r"`((?:GET|PATCH|WS) /[^`]*)`", README.partition("### HTTP and WebSocket")[2]))
    assert told == answered | {"WS /ws", "GET /docs", "GET /openapi.json"}


def test_the_event_shown_is_one() -> None:
    """It has the 23 keys in their order, with values of their types."""
    (shown,) = blocks("json")
    assert re.findall(r'^  "([^"]+)":', shown, re.MULTILINE) == list(EVENT.names)
    assert decode([shown], EVENT).num_rows == 1


def test_the_published_snippets_are_shown_unchanged() -> None:
    """What is tested in a script and in a browser is what a reader copies."""
    assert PYTHON.strip() + "\n" in blocks("python")
    assert blocks("javascript") == [JAVASCRIPT.lstrip()]


def test_the_first_block_prints_what_is_shown_below_it(tmp_path: Path) -> None:
    """Same heading and modes; the figures depend on the moment."""
    code = block("frame.wait(events=1_000)")
    assert code == blocks("python")[0]
    (shown,) = blocks("text")
    printed = run(code.replace("(rate=200)", "(rate=200, port=0)"), tmp_path)
    words = re.compile(r"[A-Za-z]\S*")
    assert words.findall(printed) == words.findall(shown)
    assert len(printed.splitlines()) == len(shown.splitlines())


def test_the_client_shown_reads_cities(server: StreamServer, tmp_path: Path) -> None:
    """The block with `ls.connect` prints five of them."""
    printed = run(block("first_cities").replace("http://localhost:8000", server.url), tmp_path)
    assert len(eval(printed)) == 5


def test_a_table_of_your_own_is_fitted_and_served(tmp_path: Path) -> None:
    """The block runs on the table that it talks of, and the server streams that table."""
    rng = np.random.default_rng(0)
    trips = pd.DataFrame(
        {
            "pickup": pd.date_range("2026-01-01", periods=300, freq="37min"),
            "zone": rng.choice(["Airport", "Harbour", "Old town"], 300),
            "tip": np.where(rng.random(300) < 0.2, np.nan, rng.gamma(1, 2, 300).round(2)),
        }
    )
    trips.to_csv(tmp_path / "trips.csv", index=False)
    code = block("trips.csv").replace("port=8001", "port=0")
    told = run(code + "\nprint(list(rows), len(rows), server.model.name)\n", tmp_path)
    assert told.splitlines()[-1] == "['pickup', 'zone', 'tip'] 10000 trips"
    model = logistream.load_model(tmp_path / "trips.model")
    with (
        logistream.StreamServer(model, rate=200, port=0) as server,
        connect(server.websocket_url) as reader,
    ):
        assert re.match(r'\{"pickup":"[^"]+","zone":"[^"]+","tip":', str(reader.recv(timeout=10)))

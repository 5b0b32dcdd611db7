"""What README and CHANGELOG state is true: names, commands, options, calls, keys, code and links."""

from __future__ import annotations

import argparse
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

import logistream
from helpers.waiting import at_best, until
from helpers.websocket import connect
from logistream.cli import _parser
from logistream.server.app import create_app
from logistream.stream.stream import Stream
from test_published_snippets import JAVASCRIPT, PYTHON

if TYPE_CHECKING:
    from logistream.model.model import Model

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
NOT_MADE_BY_HAND = {"Model"}
"""Public classes whose objects `fit` and `load_model` make."""

DOCUMENTS = [ROOT / name for name in ("README.md", "CHANGELOG.md", "data/README.md", "notebooks/README.md")]


def blocks(language: str, text: str = README) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def block(containing: str) -> str:
    """Return the one Python block of the README that contains a text."""
    (found,) = (code for code in blocks("python") if containing in code)
    return found


def commands(text: str = README) -> list[str]:
    """Return the command lines that a reader is to type."""
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


def test_every_subcommand_is_shown() -> None:
    """With an example of its use."""
    assert {command.split()[1] for command in commands() if command.startswith("logistream ")} >= set(
        subcommands()
    )


def test_what_an_option_or_parameter_means_is_where_one_looks_it_up(model: Model) -> None:
    """Each option has a help text, each parameter of a call a description, each public name a docstring."""
    for name, parser in subcommands().items():
        options = [action for action in parser._actions if action.option_strings]
        assert all(action.help for action in options), name
        assert f"example: logistream {name} " in parser.format_help()
    for path, calls in create_app(Stream(model)).openapi()["paths"].items():
        for call in calls.values():
            assert all(parameter.get("description") for parameter in call.get("parameters", [])), path
    for name in logistream.__all__:
        value = getattr(logistream, name)
        if inspect.ismodule(value):
            continue
        documented = str(value.__doc__)
        parameters = [
            parameter.name
            for parameter in inspect.signature(value).parameters.values()
            if parameter.kind is not parameter.VAR_KEYWORD
        ]
        if name not in NOT_MADE_BY_HAND:
            assert [each for each in parameters if not re.search(rf"\b{each}\b", documented)] == [], name


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
        elif program in ("python", "jupyter", "papermill"):
            assert any((ROOT / argument).exists() for argument in arguments)
        else:
            assert program == "conda"


def test_what_pip_is_asked_for_exists() -> None:
    """The extras named in the README are those of pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = re.findall(r"`pip install \"?\.(?:\[([a-z,]+)\])?\"?`", README)
    assert named == ["lab,report", "", "spark"]
    assert {*named[0].split(","), "spark"} <= set(project["optional-dependencies"])
    assert project["requires-python"] == ">=3.11"
    assert "Python 3.11 or later" in README


def test_it_is_short() -> None:
    """At most 150 lines, and two small pictures."""
    assert len(README.splitlines()) <= 150
    pictures = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)
    assert len(pictures) == 2
    assert all(10_000 < (ROOT / picture).stat().st_size < 150_000 for picture in pictures)


def test_every_notebook_is_mentioned() -> None:
    """With a link."""
    linked = re.findall(r"\]\((notebooks/[^)]+\.ipynb)\)", README)
    assert sorted(linked) == sorted(f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb"))


def test_every_call_is_mentioned(model: Model) -> None:
    """The README names every call that the application answers, and no other."""
    app = create_app(Stream(model))
    answered = {
        f"{method.upper()} {path}" for path, calls in app.openapi()["paths"].items() for method in calls
    }
    named = set(re.findall(r"`((?:GET|PATCH|WS) /[^`]*)`", README))
    assert named == answered | {"WS /ws"}


def test_the_published_snippets_are_shown_unchanged() -> None:
    """What is tested in a script and in a browser is what a reader copies."""
    assert PYTHON.strip() + "\n" in blocks("python")
    assert blocks("javascript") == [JAVASCRIPT.lstrip()]


@pytest.mark.slow
def test_the_first_block_prints_what_is_shown_below_it(tmp_path: Path) -> None:
    """Same heading and modes; the figures depend on the time."""
    code = block("frame.wait(events=1_000)")
    assert code == blocks("python")[0]
    (shown,) = blocks("text")
    printed = run(code.replace("(rate=200)", "(rate=200, port=0)"), tmp_path)
    words = re.compile(r"[A-Za-z]\S*")
    assert words.findall(printed) == words.findall(shown)
    assert len(printed.splitlines()) == len(shown.splitlines())


@pytest.mark.slow
def test_a_table_of_your_own_is_fitted_and_served(tmp_path: Path) -> None:
    """The block runs on a table of that name, and the server streams that table."""
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
    printed = run(code + "\nprint(list(rows), len(rows), server.model.name)\n", tmp_path)
    assert printed.splitlines()[-1] == "['pickup', 'zone', 'tip'] 10000 trips"
    model = logistream.load_model(tmp_path / "trips.model")
    with (
        logistream.StreamServer(model, rate=200, port=0) as server,
        connect(server.websocket_url) as reader,
    ):
        assert re.match(r'\{"pickup":"[^"]+","zone":"[^"]+","tip":', str(reader.recv(timeout=60)))


CLAIMS = {
    # How it works
    "Event number *n* is a function of the model": "test_events_differ_only_in_time_when_the_rate_differs",
    "When it happens follows from the *timeline*": "test_the_timeline_is_enough_to_make_the_stream_elsewhere",
    "every event can be computed again:": "test_a_range_of_the_past_in_every_format",
    "A reader can begin at any number or time": "test_just_after_a_time",
    "A client that was disconnected asks": "test_killed_again_and_again",
    "It misses nothing and gets nothing twice": "test_killed_again_and_again",
    "Servers that share a timeline file": "test_a_client_that_hops",
    "A change at one of them takes effect": "test_a_change_reaches_all",
    "A slow reader does not delay": "test_a_stopped_reader_disturbs_no_other_and_catches_up",
    # Who may connect
    "refuses browser pages from elsewhere": "test_a_page_from_elsewhere_is_refused",
    "it requires a token": "test_a_server_off_this_machine_requires_a_token",
    # When to use it, and when not
    "The columns agree": "test_fitted_orders_keep_every_rule",
    "delays do not add up": "test_the_rate_is_exact_over_a_year",
    "The same seed gives the same orders": "test_other_process_gives_the_same_events",
    "a model fitted to 4,299 real orders": "test_the_shipped_model_is_as_described",
    # Troubleshooting
    "is already in use": "test_a_port_in_use_gets_a_sentence_with_two_ways_out",
    "A stream that is `paused` sends nothing": "test_a_pause_stops_the_events_and_resuming_goes_on",
    "`where` leaves out what does not match": "test_only_events_that_match",
    "`follower.trouble` or `follower.error` is a sentence": "test_a_later_refusal_ends_the_waiting",
    "reconnect by themselves": "test_reconnects_when_the_server_dies_and_returns",
    "A client of your own asks for": "test_a_client_that_hops",
    "Close code 1001 means": "test_stopping_leaves_no_thread_and_no_port",
    "status 503": "test_no_more_readers_than_allowed",
    "the server was started without its timeline": "test_restarted_stream_begins_again",
    "stops all threads of its kernel": "test_one_call_into_c_stops_the_server_too",
    # Elsewhere
    "your cells do not stall it": "test_a_blocking_cell_does_not_stop_the_stream",
    "the newest events, never more": "test_frame_keeps_exactly_the_newest_rows",
    "the same columns and dtypes": "test_fitted_orders_have_the_dtypes_and_shares_of_the_real_ones",
    "It installs into the active environment": "test_make_installs_where_it_says",
    "returns 10,000 synthetic orders": "test_the_shipped_orders_are_a_clean_table",
}
"""What the README claims, and the name of the test that holds it to that."""


SAYS_WHAT_TO_DO = (
    "So no event is stored",
    "`--allow-origin` names exceptions",
    "It does not encrypt",
    "Use it to build",
    "Do not use it to learn",
    "It is not a message broker",
    "Stop it, or choose",
    "look at the status",
    "Give it one",
    "Run `logistream serve` in a terminal",
)
"""Sentences of the sections below that claim nothing which a test could show."""


def plain(text: str) -> str:
    """Return a text with single blanks between its words."""
    return " ".join(text.split())


def sentences(heading: str) -> list[str]:
    """Return the sentences of a section of the README."""
    section = re.split(r"^## ", README.partition(f"## {heading}\n")[2], flags=re.MULTILINE)[0]
    parts = re.split(r"(?<=[.!])\s+(?=[A-Z`])|\n+(?:- )?", section)
    return [plain(part) for part in parts if part.strip()]


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_is_held_by_a_test(claim: str) -> None:
    """The words are in the README, and one test has that name."""
    assert claim in plain(README)
    files = (ROOT / "tests").rglob("test_*.py")
    found = [path for path in files if f"def {CLAIMS[claim]}(" in path.read_text(encoding="utf-8")]
    assert len(found) == 1, CLAIMS[claim]


@pytest.mark.parametrize(
    "heading",
    [
        "How it works: every event can be computed again",
        "Who may connect",
        "When to use it, and when not",
        "Troubleshooting",
    ],
)
def test_each_sentence_is_held_by_a_test(heading: str) -> None:
    """In the sections that claim something, no sentence is left out of the map."""
    known = (*CLAIMS, *SAYS_WHAT_TO_DO)
    assert sentences(heading)
    assert [each for each in sentences(heading) if not any(words in each for words in known)] == []


def test_the_shipped_model_is_as_described(model: Model) -> None:
    """It was fitted on as many rows as README and data card say, and streams 23 keys."""
    card = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    assert f"{model.rows:,} real orders" in README
    assert f"{model.rows:,} real orders" in card
    assert len(model.event_schema) == 23
    assert "describes its 23 keys" in README


@pytest.mark.slow
def test_one_call_into_c_stops_the_server_too(model: Model) -> None:
    """While one call holds the interpreter for seconds, a reader in another process gets nothing."""
    reader = [sys.executable, "-m", "helpers.silence"]

    def length_of_the_call() -> float:
        """Return how long it takes, in silences of the reader."""
        with logistream.StreamServer(model, rate=100, port=0) as server:
            command = [*reader, str(server.port), "5.0"]
            with subprocess.Popen(command, cwd=Path(__file__).parent, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == b"reading\n"
                soon = server.state["next_event_number"] + 50  # it has read some of them before
                until(lambda: server.state["next_event_number"] > soon)
                began = time.monotonic()
                sum(range(40_000_000))  # does not let other threads in
                took = time.monotonic() - began
                seen = json.loads(process.stdout.read())
        return took / float(seen["silence"])

    at_best(length_of_the_call, below=2)  # on a busy machine it may take longer than the reader reads


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
@pytest.mark.parametrize(
    ("active", "folder"),
    [
        ({}, ROOT / ".venv"),
        ({"VIRTUAL_ENV": "/somewhere/venv"}, "/somewhere/venv"),
        ({"CONDA_DEFAULT_ENV": "work", "CONDA_PREFIX": "/conda/envs/work"}, "/conda/envs/work"),
        ({"CONDA_DEFAULT_ENV": "base", "CONDA_PREFIX": "/conda"}, ROOT / ".venv"),
    ],
    ids=["none", "a virtual environment", "a conda environment", "conda's base"],
)
def test_make_installs_where_it_says(active: dict[str, str], folder: Path | str) -> None:
    """Into the active environment, but not into conda's base, or else into .venv."""
    names = {"VIRTUAL_ENV", "CONDA_DEFAULT_ENV", "CONDA_PREFIX", "MAKEFLAGS", "MAKELEVEL", "MORE"}
    environment = {name: value for name, value in os.environ.items() if name not in names} | active
    done = subprocess.run(
        ["make", "--dry-run", "--always-make", "lab"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert f'"{folder}/bin/python" -m pip install' in done.stdout
    assert f'touch "{folder}/.logistream-installed"' in done.stdout

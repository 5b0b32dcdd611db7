"""How a server is set up for a platform: environment, files of secrets, proxies, replicas."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import httpx2
import pytest

from helpers import http
from helpers.processes import ServerProcess
from helpers.waiting import until
from logistream.errors import RequestError
from logistream.server.server import StreamServer

if TYPE_CHECKING:
    from pathlib import Path

    from logistream.model.model import Model


def run(*options: str, **environment: str) -> tuple[int, str]:
    """Run `logistream serve` with options that it refuses; return exit code and what it has written."""
    done = subprocess.run(
        [sys.executable, "-m", "logistream", "serve", *options],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.slow
def test_options_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each option has a variable; what is given on the command line comes first."""
    secret = tmp_path / "token"
    secret.write_text("open sesame\n")
    monkeypatch.setenv("LOGISTREAM_RATE", "7.5")
    monkeypatch.setenv("LOGISTREAM_SEED", "3")
    monkeypatch.setenv("LOGISTREAM_READ_ONLY", "1")
    monkeypatch.setenv("LOGISTREAM_TOKEN_FILE", str(secret))
    monkeypatch.setenv("LOGISTREAM_ALLOW_ORIGIN", "https://one.example https://two.example")
    with ServerProcess("--seed", "4") as server:
        url = f"http://127.0.0.1:{server.port}"
        assert http.get(f"{url}/stream").status_code == 401
        headers = {"Authorization": "Bearer open sesame", "Origin": "https://two.example"}
        state = http.get(f"{url}/stream", headers=headers).json()
        assert (state["rate"], state["seed"]) == (7.5, 4)
        refused = http.patch(f"{url}/stream", json={"rate": 5}, headers=headers)
        assert (refused.status_code, refused.json()) == (
            403,
            {"detail": "this server is read-only: change the stream at another one"},
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "environment", "sentence"),
    [
        ((), {"LOGISTREAM_RATE": "fast"}, "LOGISTREAM_RATE: must be a number, not 'fast'"),
        ((), {"LOGISTREAM_READ_ONLY": "yes"}, "LOGISTREAM_READ_ONLY must be 0 or 1, not 'yes'"),
        ((), {"LOGISTREAM_ARRIVALS": "odd"}, "LOGISTREAM_ARRIVALS must be even, poisson, bursts, not 'odd'"),
        (("--token-file", "nowhere"), {}, "cannot read the token from nowhere: No such file or directory"),
        (
            ("--token-file", "a", "--token", "b"),
            {},
            "the token is given twice: leave out --token or --token-file",
        ),
        (("--root-path", "orders"), {}, "root_path must be a path such as /orders, not 'orders'"),
    ],
)
def test_what_is_not_allowed_is_one_sentence(
    options: tuple[str, ...], environment: dict[str, str], sentence: str
) -> None:
    """With exit code 2."""
    code, errors = run(*options, **environment)
    assert (code, errors.partition(";")[0].strip()) == (2, f"logistream: {sentence}")


@pytest.mark.slow
def test_options_for_a_new_timeline_are_named_if_it_is_not_new(tmp_path: Path) -> None:
    """The timeline goes on as it was, and the log says which options had no effect."""
    timeline = ("--timeline", str(tmp_path / "timeline"))
    with ServerProcess(*timeline, "--rate", "5", "--history", "1min") as server:
        assert server.get("/stream")["rate"] == 5
    assert "had no effect" not in server.log
    with ServerProcess(*timeline, "--rate", "7", "--history", "1min") as server:
        until(lambda: "had no effect" in server.log, within=60)
        assert server.get("/stream")["rate"] == 5
    sentence = (
        f"--rate and --history had no effect: timeline {timeline[1]} goes on as it was, at 5 events/s\n"
    )
    assert sentence in server.log
    with ServerProcess(*timeline, "--rate", "5") as server:
        assert server.get("/stream")["rate"] == 5
    assert "had no effect" not in server.log


@pytest.mark.slow
def test_behind_a_proxy(model: Model) -> None:
    """A proxy that takes the prefix away and ends TLS: all addresses are those that the caller sees."""
    headers = {"Host": "example.org", "X-Forwarded-Proto": "https"}
    with StreamServer(model, port=0, root_path="/orders", token="secret") as server:
        url = server.url.partition("?")[0]

        def get(path: str) -> httpx2.Response:
            return http.get(url + path, headers={**headers, "Authorization": "Bearer secret"})

        assert get("/").json()["websocket_url"] == "wss://example.org/orders/ws"
        described = get("/asyncapi.json").json()["servers"]["this"]
        assert (described["host"], described["pathname"], described["protocol"]) == (
            "example.org",
            "/orders",
            "wss",
        )
        page = get("/docs").text
        assert "/orders/docs/static/swagger-ui-bundle.js" in page
        assert "/orders/openapi.json" in page
        assert get("/openapi.json").json()["servers"] == [{"url": "/orders"}]


def test_a_root_path_must_be_one(model: Model) -> None:
    """It begins with a slash and does not end with one."""
    for path in ("orders", "/orders/", "/", "/a b"):
        with pytest.raises(RequestError, match=r"^root_path must be a path such as /orders, not "):
            StreamServer(model, port=0, root_path=path)

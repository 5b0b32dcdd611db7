"""Servers that stop answering: silence is noticed, and stopping a follower never waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

import logistream.frame.frame as frame_module
from helpers.numbered import SCHEMA, NumberedServer, process
from helpers.waiting import at_best, until
from logistream.client.client import connect
from logistream.errors import RequestError
from logistream.frame.frame import RollingFrame

if TYPE_CHECKING:
    from collections.abc import Iterator

    from logistream.client.follower import Follower

FAST: dict[str, Any] = {"first_delay": 0.005, "max_delay": 0.02}
SILENCE = 0.6
"""Seconds, scaled down."""


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    """Stop a process for a while, as if its machine had gone: its sockets stay open."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def seconds_to_stop(follower: Follower) -> float:
    """Stop a follower and return how long that took."""
    start = time.monotonic()
    follower.stop()
    took = time.monotonic() - start
    assert not follower.running
    return took


@pytest.mark.slow
def test_silent_server_is_given_up_and_dialled_again() -> None:
    """A server that does not answer pings is reported and left; when it is back, nothing is missing."""
    frame = RollingFrame(window=None)
    with process(600, pause=0.003) as (server, port):
        follower = frame.follow(f"127.0.0.1:{port}", start=0, silence=SILENCE, **FAST)
        with follower:
            assert frame.wait(100, timeout=60)
            with stopped(server.pid):
                until(lambda: "has been silent for" in (follower.trouble or ""))
                trouble = follower.trouble
                assert not follower.connected
                assert follower.silent_for >= SILENCE
            assert frame.wait(600, timeout=60)
            assert follower.silent_for < 30
        assert trouble is not None
        assert re.match(rf"{re.escape(follower.url)} has been silent for \d+ s; trying again in ", trouble)
    assert frame.df["n"].tolist() == list(range(600))


@pytest.mark.slow
def test_client_says_that_the_server_is_silent() -> None:
    """The same for `connect`."""

    async def run(pid: int, url: str) -> None:
        troubles: list[str] = []
        got: list[int] = []

        async def read() -> None:
            async for event in events:
                got.append(event["n"])  # noqa: PERF401 - looked at meanwhile

        async with connect(url, start=0, silence=SILENCE, **FAST, on_trouble=troubles.append) as events:
            reading = asyncio.create_task(read())
            while len(got) < 20:
                await asyncio.sleep(0.001)
            with stopped(pid):
                troubles.clear()
                while not troubles:
                    await asyncio.sleep(0.001)
                before = len(got)
            while len(got) < before + 20:
                await asyncio.sleep(0.001)
            assert re.search(r"has been silent for \d+ s", troubles[0])
            reading.cancel()
        assert got == list(range(len(got)))

    with process(100_000, pause=0.003) as (server, port):
        asyncio.run(run(server.pid, f"ws://127.0.0.1:{port}/ws"))


@pytest.mark.slow
def test_idle_server_that_answers_is_kept() -> None:
    """Nothing happens for many times the silence allowed, but pings are answered."""
    outcomes: list[object] = []
    kept = (0, None, 1)
    while len(outcomes) < 6 and kept not in outcomes:
        frame = RollingFrame(window=None, schema=SCHEMA)
        # A busy machine may not run the server for a while, which is silence then.
        silence = 0.2 * 2 ** len(outcomes)
        with (
            NumberedServer(5) as server,
            frame.follow(server.url, silence=silence) as follower,
        ):
            until(lambda: follower.connected)
            answers, before = 0, 0.0
            while answers < 10 and follower.reconnects == 0:
                now = follower.silent_for
                answers, before = answers + (now < before), now
                time.sleep(0.005)
            server.happen(1)
            assert frame.wait(1, timeout=60)
            outcomes.append((follower.reconnects, follower.trouble, len(server.queries)))
    assert kept in outcomes, outcomes


def test_reader_that_takes_its_time_is_not_silence() -> None:
    """Answers wait behind unread messages, which is not a fault of the server."""

    async def run(url: str, silence: float) -> bool:
        options = FAST | {"on_trouble": lambda _: None}
        async with connect(url, start=0, silence=silence, **options) as events:
            first = await anext(events)
            await asyncio.sleep(5 * silence)  # the very thing: a reader that does not read
            assert [first["n"], *[(await anext(events))["n"] for _ in range(4999)]] == list(range(5000))
            return (events.reconnects, events.trouble) == (0, None)

    kept: list[bool] = []
    while len(kept) < 4 and not any(kept):
        with NumberedServer(5000, per_message=1) as server:
            # A busy machine may not run the server for a while, which is silence then.
            kept.append(asyncio.run(run(server.url, 0.1 * 3 ** len(kept))))
    assert any(kept)


@pytest.mark.parametrize("silence", [0, -1, float("inf"), float("nan")])
def test_impossible_silence_is_refused(silence: float) -> None:
    """One sentence."""
    with pytest.raises(RequestError, match="silence must be a number of seconds above 0, got"):
        connect("localhost:1", silence=silence)


def test_stopping_does_not_wait_for_a_silent_server() -> None:
    """A server that does not answer the close frame is left alone."""
    with process(100_000, pause=0.003) as (server, port):

        def taken() -> float:
            frame = RollingFrame(window=None)
            follower = frame.follow(f"127.0.0.1:{port}", start=0)
            assert frame.wait(20, timeout=60)
            with stopped(server.pid):
                return seconds_to_stop(follower)

        at_best(taken, below=1)


def test_stopping_does_not_wait_for_a_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that accepts and sends nothing is left alone."""
    monkeypatch.setattr(frame_module, "_ANSWER_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def taken() -> float:
            follower = RollingFrame().follow(f"127.0.0.1:{listener.getsockname()[1]}")
            peer, _ = listener.accept()
            with peer:
                peer.recv(65_536)
                return seconds_to_stop(follower)

        at_best(taken, below=1)


def test_stopping_does_not_wait_for_a_flood() -> None:
    """A server that sends as fast as it can."""
    with NumberedServer(10_000_000, per_message=2000) as server:

        def taken() -> float:
            frame = RollingFrame(rows=1000, window=None)
            follower = frame.follow(server.url, start=0)
            assert frame.wait(10_000, timeout=60)
            return seconds_to_stop(follower)

        at_best(taken, below=1)

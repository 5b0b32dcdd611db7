"""Readers that want few messages of many events get them, and miss nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from helpers.waiting import at_best, until
from helpers.websocket import connect
from logistream.server.server import StreamServer

if TYPE_CHECKING:
    from logistream.model.model import Model

WAIT = 60.0
"""Seconds that a busy machine may take."""


@pytest.mark.slow
def test_gathered_events_come_in_few_messages(model: Model) -> None:
    """At 2,000 events a second ten messages a second hold all events in order, a busy machine fewer."""
    query = "start=0&format=ndjson&columns=Sales&numbered=true&gather=0.1"
    with (
        StreamServer(model, rate=2000, port=0) as server,
        connect(f"{server.websocket_url}?{query}") as reader,
    ):
        sizes: list[int] = []
        numbers: list[int] = []
        while len(numbers) < 2000:
            lines = str(reader.recv(WAIT)).splitlines()
            sizes.append(len(lines))
            numbers += [json.loads(line)["event_number"] for line in lines]
    assert numbers == list(range(len(numbers)))
    assert len(sizes) < len(numbers) / 50


@pytest.mark.slow
def test_what_does_not_fit_into_one_message_follows_at_once(model: Model) -> None:
    """A reader that gathers is not behind at a rate at which its messages are as long as they may be."""

    def behind() -> float:
        with (
            StreamServer(model, rate=2000, port=0) as server,
            connect(f"{server.websocket_url}?start=0&format=ndjson&gather=0.1") as reader,
        ):
            lines: list[str] = []
            while len(lines) < 2000:
                lines += str(reader.recv(WAIT)).splitlines()
            newest = datetime.fromisoformat(json.loads(lines[-1])["event_time"])
            return (datetime.now(UTC) - newest).total_seconds()

    at_best(behind, below=2)


def test_a_pause_keeps_nothing_back(model: Model) -> None:
    """The last events before a pause arrive although nothing comes after them."""
    with (
        StreamServer(model, rate=1000, port=0) as server,
        connect(f"{server.websocket_url}?start=0&format=ndjson&numbered=true&gather=0.1") as reader,
    ):
        until(lambda: int(server.state["next_event_number"]) > 500)
        server.paused = True
        happened = int(server.state["next_event_number"])
        last = -1
        while last < happened - 1:
            last = json.loads(str(reader.recv(WAIT)).splitlines()[-1])["event_number"]
    assert last == happened - 1

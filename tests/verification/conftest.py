"""A stream of the past, without faults and with them."""

from __future__ import annotations

from typing import Any

import pytest

from helpers.clocks import NOW, SECOND, Clock
from logistream.model.model import Model
from logistream.stream.stream import Stream
from logistream.stream.timeline import Timeline, first_entry

FAULTS: list[dict[str, Any]] = [
    {"late": {"events": [1, 500]}, "share": 0.05},
    {"reorder": {"within": 20}, "share": 0.1},
    {"duplicate": {"copies": 2, "events": [0, 60]}, "share": 0.03},
    {"drop": True, "share": 0.02},
    *({"corrupt": kind, "share": 0.02} for kind in ("null", "type", "missing", "extra", "cut")),
]


@pytest.fixture(scope="session")
def stream(model: Model) -> Stream:
    """Return a stream of 100 events a second that began an hour ago."""
    clock = Clock()
    made = Stream(model, Timeline([first_entry(NOW, rate=100)]), seed=5, clock=clock)
    clock.now += 3600 * SECOND
    return made


@pytest.fixture(scope="session")
def faulty(model: Model) -> Stream:
    """Return a stream whose events have all faults from event 1,001 on."""
    clock = Clock()
    made = Stream(model, Timeline([first_entry(NOW, rate=100)]), seed=5, clock=clock)
    clock.now += 10 * SECOND
    assert made.change(faults=FAULTS).first == 1001
    clock.now += 3600 * SECOND
    return made

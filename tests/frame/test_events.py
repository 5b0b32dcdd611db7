"""A range of a stream's past as a DataFrame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest

import logistream as ls
from helpers.numbered import NumberedServer
from helpers.sockets import answering, free_port
from helpers.waiting import until
from logistream.dataco import EVENT
from logistream.errors import RequestError, StreamError
from logistream.frame import events as module

if TYPE_CHECKING:
    from collections.abc import Iterator

    from logistream.model.model import Model


@pytest.fixture(scope="module")
def past(model: Model) -> Iterator[ls.StreamServer]:
    """Give a paused stream with a minute of history, 100 events a second."""
    with ls.StreamServer(model, rate=100, port=0, history="1min") as running:
        running.paused = True
        yield running


def test_the_whole_past(past: ls.StreamServer) -> None:
    """All events that have happened, in order, as a frame that follows gets them."""
    frame = ls.RollingFrame(rows=None, window=None)
    with frame.follow(past, start="earliest") as follower:
        assert frame.wait(6000, timeout=60)
        until(lambda: follower.next_number == past.state["next_event_number"])
        pd.testing.assert_frame_equal(ls.events(past), frame.df)


def test_a_range_by_number(past: ls.StreamServer) -> None:
    """`stop` is excluded; an empty range has its columns still."""
    assert ls.events(past.url, 5, 9, numbered=True)["event_number"].tolist() == [5, 6, 7, 8]
    empty = ls.events(past, 5, 5)
    assert {name: str(dtype) for name, dtype in empty.dtypes.items()} == EVENT.pandas_dtypes
    assert len(empty) == 0


def test_a_range_by_time(past: ls.StreamServer) -> None:
    """After `start`, and up to `stop` inclusive; with or without a zone, or as a time before now."""
    times = ls.events(past)["event_time"]
    for stop in (times[99], times[99].tz_localize(None), times[99].isoformat()):
        numbers = ls.events(past, times[49], stop, numbered=True)["event_number"]
        assert numbers.tolist() == list(range(50, 100))
    assert len(ls.events(past, "-10min")) == past.state["next_event_number"]


def test_columns_and_conditions(past: ls.StreamServer) -> None:
    """Of all events, or of those that match."""
    chosen = ls.events(past, 0, 2000, columns=["Market"], where={"Market": ["Europe", "LATAM"]})
    assert list(chosen) == ["Market"]
    whole = ls.events(past, 0, 2000)["Market"]
    assert len(chosen) == whole.isin(["Europe", "LATAM"]).sum() > 0


def test_a_long_range_is_read_in_parts(past: ls.StreamServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit into one request comes in several, without a seam."""
    whole = ls.events(past, 10, 1000)
    monkeypatch.setattr(module, "_PART", 99)
    pd.testing.assert_frame_equal(ls.events(past, 10, 1000), whole)


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"start": 5, "stop": 3}, "start must not be after stop: 5 is after 3"),
        ({"stop": 10**9}, "event 99999 has not happened yet"),
        ({"start": "2099-01-01T00:00:00Z"}, "has not happened yet"),
        ({"start": "-soon"}, "start must be an event number from 0"),
        ({"where": {"market": "x"}}, "a condition is written COLUMN:VALUE"),
        ({"columns": ["x"]}, "no column 'x': there are Type,"),
    ],
)
def test_an_impossible_range_is_refused(past: ls.StreamServer, asked: Any, sentence: str) -> None:
    """One sentence, of the client or of the server."""
    with pytest.raises(RequestError) as caught:
        ls.events(past, **asked)
    assert sentence in str(caught.value)


def test_a_server_that_is_not_there_is_an_error() -> None:
    """It is not waited for."""
    url = f"localhost:{free_port()}"
    for stop in (5, None):
        with pytest.raises(StreamError, match="cannot be reached: nothing listens there"):
            ls.events(url, 0, stop)


def test_another_server_is_refused() -> None:
    """One that has no such call, one that answers anything else, and one whose proxy fails."""
    with NumberedServer(0, foreign=True) as server:
        for start in (0, "earliest"):
            with pytest.raises(RequestError, match="refuses: HTTP 404 Not Found"):
                ls.events(server.url, start, 5)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]"
    with answering(answer) as url, pytest.raises(RequestError, match="is not a Logistream server"):
        ls.events(url, "earliest", 5)
    answer = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    with answering(answer) as url, pytest.raises(StreamError, match="refuses: HTTP 502 Bad Gateway"):
        ls.events(url, 0, 5)


def test_a_token_is_passed_on(model: Model) -> None:
    """To a server that demands one."""
    with ls.StreamServer(model, rate=100, port=0, history="1min", token="secret") as server:
        url = f"localhost:{server.port}"
        for start in (0, "earliest"):
            with pytest.raises(RequestError, match=r"refuses: .*token"):
                ls.events(url, start, 5)
            assert len(ls.events(url, start, 5, token="secret")) == len(ls.events(server, start, 5)) == 5

"""A frame that follows a stream in the background."""

from __future__ import annotations

import gc
import json
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from helpers.sockets import EventServer, free_port, sending, until_closed
from helpers.waiting import until
from logistream.dataco import EVENT
from logistream.errors import RequestError
from logistream.frame.frame import RollingFrame
from logistream.schema import EVENT_TIME, Column, Schema
from logistream.server.server import StreamServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from logistream.model.model import Model

SMALL = Schema((Column("n", "integer"), EVENT_TIME))
FAST: dict[str, Any] = {"first_delay": 0.01, "max_delay": 0.05}


def event(number: int) -> str:
    """Write event `number`, one a second."""
    return f'{{"n":{number},"event_time":"2026-11-24T00:{number // 60:02d}:{number % 60:02d}.000000Z"}}'


def followers() -> list[str]:
    """Return the names of threads that follow a stream."""
    return [thread.name for thread in threading.enumerate() if "follower" in thread.name]


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Every test ends without a follower's thread."""
    yield
    assert followers() == []


def test_follows_and_stops() -> None:
    """Events come into the frame by themselves; after stop nothing runs any more."""
    frame = RollingFrame(schema=SMALL)
    with EventServer(sending(*map(event, range(50)))) as server:
        follower = frame.follow(server.url)
        assert frame.wait(50, timeout=20)
        assert frame.df["n"].tolist() == list(range(50))
        assert (follower.received, follower.reconnects, follower.connected, follower.error) == (
            50,
            0,
            True,
            None,
        )
        assert frame.following
        assert repr(follower) == f"<Follower {server.url}: connected, 50 received, 0 reconnects>"
        follower.stop()
        follower.stop()
        assert followers() == []
        assert repr(follower) == f"<Follower {server.url}: stopped, 50 received, 0 reconnects>"


def test_many_messages_are_handed_over_together() -> None:
    """A fast stream loses nothing and keeps its order."""
    frame = RollingFrame(rows=None, window=None, schema=SMALL)
    with EventServer(sending(*(event(n % 3000) for n in range(20_000)))) as server, frame.follow(server.url):
        assert frame.wait(20_000, timeout=30)
    assert frame.df["n"].tolist() == [n % 3000 for n in range(20_000)]


def test_survives_the_death_of_the_server() -> None:
    """A server that dies and comes back is followed on; the trouble is shown in between."""
    frame = RollingFrame(schema=SMALL)
    with EventServer(sending(event(0))) as server:
        follower = frame.follow(server.url, **FAST)
        assert frame.wait(1, timeout=20)
    with follower:
        until(lambda: "nothing listens there" in (follower.trouble or ""))
        assert "nothing listens there" in repr(follower)
        assert follower.running
        assert not follower.connected
        with EventServer(sending(event(1)), port=server.port):
            assert frame.wait(2, timeout=20)
            assert (follower.reconnects, follower.trouble) == (1, None)
    assert frame.df["n"].tolist() == [0, 1]


def test_follower_may_come_before_the_server() -> None:
    """Following returns at once when nothing is there, and begins when the server does."""
    frame = RollingFrame(schema=SMALL)
    port = free_port()
    with frame.follow(f"http://127.0.0.1:{port}", **FAST) as follower:
        until(lambda: follower.trouble is not None)
        with EventServer(sending(event(0)), port=port):
            assert frame.wait(1, timeout=20)


def test_refusal_ends_it_and_is_kept() -> None:
    """A final refusal stops the thread and is found in `error`."""
    frame = RollingFrame(schema=SMALL)
    with EventServer(until_closed, refuse=(403, '{"detail": "a token is needed"}')) as server:
        follower = frame.follow(server.url)
        until(lambda: not follower.running)
        assert isinstance(follower.error, RequestError)
        assert str(follower.error) == f"{server.url} refuses: a token is needed"
        assert repr(follower).endswith("ended: " + str(follower.error) + ", 0 received, 0 reconnects>")


@pytest.mark.parametrize("garbage", ["hello", '{"n":"x"}', '{"n":1}'])
def test_garbage_ends_it_and_leaves_the_frame_usable(garbage: str) -> None:
    """What is not an event of the frame's schema ends the follower with a sentence."""
    frame = RollingFrame(schema=SMALL)
    with EventServer(sending(garbage)) as server:
        follower = frame.follow(server.url)
        until(lambda: not follower.running)
    assert isinstance(follower.error, RequestError)
    frame.append(event(1))
    assert frame.df["n"].tolist() == [1]


def test_same_address_again_replaces_the_follower() -> None:
    """Running the cell again does not feed the frame twice."""
    frame = RollingFrame(schema=SMALL)
    with EventServer(sending(event(0))) as server:
        first = frame.follow(server.url)
        assert frame.wait(1, timeout=20)
        with frame.follow(server.url) as second:
            assert frame.wait(2, timeout=20)
            assert not first.running
            assert second.running


def test_follower_of_a_forgotten_frame_ends() -> None:
    """A frame that nobody holds is not fed for ever."""
    with EventServer(sending(event(0))) as server:
        frame = RollingFrame(schema=SMALL)
        frame.follow(server.url)
        assert frame.wait(1, timeout=20)
        del frame
        gc.collect()
        until(lambda: not followers())


def test_stop_does_not_wait_for_a_pause_between_attempts() -> None:
    """Stopping is quick while the next attempt is a minute away."""
    frame = RollingFrame(schema=SMALL)
    follower = frame.follow(f"127.0.0.1:{free_port()}", first_delay=60, max_delay=60)
    until(lambda: follower.trouble is not None)
    start = time.monotonic()
    follower.stop()
    assert time.monotonic() - start < 5


class Publishing(EventServer):
    """A server that also answers `GET /schema`."""

    schema: Any = SMALL.json_schema("Reading")

    def _process_request(self, connection: Any, request: Any) -> Any:
        if request.path.startswith("/schema"):
            return connection.respond(200, json.dumps(self.schema))
        return super()._process_request(connection, request)


def test_columns_are_learned_from_the_server() -> None:
    """A frame without a schema takes the one that the server publishes, before the first event."""
    frame = RollingFrame()
    with Publishing(sending(event(0), event(1))) as server, frame.follow(server.url):
        assert frame.wait(2, timeout=20)
    assert frame.schema.names == SMALL.names
    assert {name: str(dtype) for name, dtype in frame.df.dtypes.items()} == SMALL.pandas_dtypes


def test_server_without_a_schema_sends_the_published_event() -> None:
    """A server that publishes no schema is taken to send the published event."""
    sample: dict[str, Any] = {"category": "a", "integer": 1, "number": 1.5}
    values = {column.name: sample.get(column.kind, "2026-11-24T06:23:00.123456Z") for column in EVENT}
    values["shipping date (DateOrders)"] = "11/24/2026 06:23"
    frame = RollingFrame()
    with EventServer(sending(json.dumps(values))) as server, frame.follow(server.url):
        assert frame.wait(1, timeout=20)
    assert {name: str(dtype) for name, dtype in frame.df.dtypes.items()} == EVENT.pandas_dtypes


def test_window_without_event_times_is_explained() -> None:
    """A stream without event times cannot be bounded by time: the follower ends with the way out."""
    frame = RollingFrame()
    with Publishing(sending('{"n":1}')) as server:
        server.schema = Schema((Column("n", "integer"),)).json_schema("Bare")
        follower = frame.follow(server.url)
        until(lambda: not follower.running)
    assert "use window=None" in str(follower.error)


def test_stopping_from_a_busy_thread_loses_nothing_received() -> None:
    """What was received before a stop is in the frame."""
    frame = RollingFrame(rows=None, window=None, schema=SMALL)
    with EventServer(sending(*map(event, range(3000)))) as server:
        follower = frame.follow(server.url)
        until(lambda: follower.received > 100)
        follower.stop()
    assert frame.appended == follower.received
    assert frame.df["n"].tolist() == list(range(follower.received))


def test_stream_server_fills_a_frame(server: StreamServer) -> None:
    """A frame that follows a stream has its columns and types, and event times at the rate asked for."""
    frame = RollingFrame()
    with frame.follow(server.url):
        assert frame.wait(100, timeout=20)
    df = frame.df
    assert {name: str(dtype) for name, dtype in df.dtypes.items()} == EVENT.pandas_dtypes
    assert df[EVENT_TIME.name].diff().dropna().dt.total_seconds().to_numpy() == pytest.approx(
        1 / 200, abs=2e-6
    )
    assert set(df["Late_delivery_risk"]) <= {0, 1}
    assert frame.rate == pytest.approx(200, rel=1e-3)


def test_stream_server_stops_and_starts_again(model: Model) -> None:
    """A frame follows on when the server is stopped and another one starts on its port."""
    frame = RollingFrame()
    with StreamServer(model, rate=200, port=0) as server:
        follower = frame.follow(server.url, **FAST)
        assert frame.wait(10, timeout=20)
    with follower:
        until(lambda: not follower.connected and follower.trouble is not None)
        before = frame.appended
        with StreamServer(model, rate=200, port=server.port):
            assert frame.wait(before + 10, timeout=20)
    assert (follower.reconnects, follower.error) == (1, None)


def test_pause_holds_the_frame(server: StreamServer) -> None:
    """A paused stream sends nothing and keeps its followers; resumed, it goes on."""
    frame = RollingFrame()
    with frame.follow(server.url) as follower:
        assert frame.wait(10, timeout=20)
        server.paused = True
        until(lambda: frame.appended == follower.received)
        server.paused = False
        assert frame.wait(frame.appended + 10, timeout=20)
        assert follower.reconnects == 0

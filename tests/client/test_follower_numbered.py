"""A frame that follows a server of numbered events: record batches, each event once."""

from __future__ import annotations

import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.numbered import FULL_SCHEMA, SCHEMA, START, NumberedServer, event, process
from helpers.sockets import EventServer, Proxy, sending
from helpers.waiting import until
from logistream.errors import DataError, RequestError
from logistream.frame.frame import RollingFrame
from logistream.schema import EVENT_NUMBER, Schema

if TYPE_CHECKING:
    from collections.abc import Iterator

    from logistream.client.follower import Follower

FAST: dict[str, Any] = {"first_delay": 0.005, "max_delay": 0.02}


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Every test ends without a follower's thread."""
    yield
    assert [thread.name for thread in threading.enumerate() if "follower" in thread.name] == []


@settings(max_examples=20, deadline=None)
@given(
    most=st.lists(st.integers(0, 4), max_size=8),
    back=st.integers(0, 25),
    per_message=st.integers(1, 20),
    where=st.sampled_from([None, {"text": ["t1", "t5"]}]),
)
def test_every_event_is_in_the_frame_once(most: list[int], back: int, per_message: int, where: Any) -> None:
    """Breaks at any place and messages that overlap what was taken leave no gap and no repeat."""
    wanted = [n for n in range(60) if where is None or n % 7 in (1, 5)]
    frame = RollingFrame(window=None)
    with (
        NumberedServer(60, most=most, back=back, per_message=per_message) as server,
        frame.follow(server.url, start="earliest", where=where, **FAST) as follower,
    ):
        until(lambda: follower.next_number == 60)
        until(lambda: frame.appended == len(wanted))
        assert (follower.received, follower.missed, follower.restarts) == (len(wanted), 0, 0)
    assert frame.df["n"].tolist() == wanted
    assert frame.schema.names == SCHEMA.names


def test_batches_bring_columns_and_what_is_published_their_meanings() -> None:
    """Names and types are those of the batches; meanings come from the schema, asked for once."""
    frame = RollingFrame()
    with NumberedServer(20) as server, frame.follow(server.url, start=0) as follower:
        assert frame.wait(20)
        assert server.queries == [{"format": ["arrow"], "start": ["0"]}]
        assert server.schemas == 1
        assert follower.stream_id == server.stream_id
    assert frame.schema == SCHEMA
    assert {name: str(dtype) for name, dtype in frame.df.dtypes.items()} == SCHEMA.pandas_dtypes
    assert frame.df["event_time"].tolist()[4].to_pydatetime() == START.replace(microsecond=4000)


def test_server_without_a_schema_is_no_obstacle() -> None:
    """Batches tell enough."""
    frame = RollingFrame()
    with NumberedServer(20, publishes=False) as server, frame.follow(server.url, start=0):
        assert frame.wait(20)
    assert frame.schema.arrow.equals(SCHEMA.arrow)


def test_columns_and_numbers() -> None:
    """Columns are those asked for, in order; the number is the last if it is asked for."""
    frame = RollingFrame(window=None)
    with (
        NumberedServer(20) as server,
        frame.follow(server.url, start=3, columns=["more", "n"], where={"text": "t1"}, numbered=True),
    ):
        assert frame.wait(2)
    assert frame.df.to_dict("list") == {"more": [4.0, 7.5], "n": [8, 15], "event_number": [8, 15]}
    assert frame.schema["event_number"] == EVENT_NUMBER
    whole = RollingFrame()
    with NumberedServer(20) as server, whole.follow(server.url, start=3, columns="all"):
        assert whole.wait(17)
    assert whole.schema.names == FULL_SCHEMA.names


def test_window_without_event_times_is_explained() -> None:
    """Columns without the event time cannot be bounded by time: the follower ends with the way out."""
    frame = RollingFrame()
    with NumberedServer(20) as server:
        follower = frame.follow(server.url, start=0, columns=["n"])
        until(lambda: not follower.running)
    assert "use window=None" in str(follower.error)


def test_frame_with_a_schema_takes_its_own_columns() -> None:
    """Columns that the caller has chosen are picked out of what comes; one that does not come is named."""
    frame = RollingFrame(schema=SCHEMA.select(["event_time", "n"]))
    with NumberedServer(20) as server, frame.follow(server.url, start=0):
        assert frame.wait(20)
        assert list(frame.df) == ["event_time", "n"]
        assert server.schemas == 0
    frame = RollingFrame(schema=FULL_SCHEMA)
    with NumberedServer(20) as server, frame.follow(server.url, start=0) as follower:
        until(lambda: not follower.running)
        assert isinstance(follower.error, DataError)
        assert str(follower.error) == "cannot append: no column 'more'"


def test_earliest_fills_the_window_at_once() -> None:
    """History and present without a seam."""
    frame = RollingFrame(rows=15)
    with NumberedServer(40) as server, frame.follow(server.url, start="earliest"):
        assert frame.wait(40)
        server.happen(5)
        assert frame.wait(45)
    assert frame.df["n"].tolist() == list(range(30, 45))


def test_what_the_server_leaves_out_is_counted() -> None:
    """A follower that may be skipped ahead says how many events it missed."""
    frame = RollingFrame()
    with (
        NumberedServer(60, skip={20: 15}) as server,
        frame.follow(server.url, start=0, lag="skip") as follower,
    ):
        assert frame.wait(45)
        assert follower.missed == 15
    assert frame.df["n"].tolist() == [*range(20), *range(35, 60)]


def test_restarted_stream_begins_again() -> None:
    """Without its timeline the server has another stream: its numbers are not those of the old one."""
    frame = RollingFrame(window=None)
    with NumberedServer(20) as old:
        follower = frame.follow(old.url, start="earliest", numbered=True, **FAST)
        assert frame.wait(20)
    with follower, NumberedServer(5, port=old.port, stream_id="bb") as new:
        assert frame.wait(25)
        assert (follower.restarts, follower.stream_id, follower.reconnects) == (1, new.stream_id, 1)
    assert frame.df["event_number"].tolist() == [*range(20), *range(5)]


def test_server_may_be_replaced_by_an_older_one_and_back() -> None:
    """Texts and batches go into the same frame, in order of arrival."""
    frame = RollingFrame(window=None)
    with ExitStack() as stack:
        new = stack.enter_context(NumberedServer(10))
        older = stack.enter_context(NumberedServer(100, knows=False))
        proxy = stack.enter_context(Proxy(new.port))
        follower = stack.enter_context(frame.follow(proxy.url, start="earliest", **FAST))
        assert frame.wait(10)
        follower.stop()
        follower = stack.enter_context(frame.follow(proxy.url, **FAST))
        until(lambda: follower.next_number == 10)
        proxy.switch(older.port)
        until(lambda: follower.connected and len(older.queries) == 2)
        older.happen(2)
        assert frame.wait(12)
        proxy.switch(new.port)
        until(lambda: follower.connected and follower.next_number == 10)
        new.happen(2)
        assert frame.wait(14)
        assert follower.restarts == 1
    assert frame.df["n"].tolist() == [*range(10), 100, 101, 10, 11]


@pytest.mark.parametrize("older", [True, False])
def test_server_that_cannot_do_what_was_asked_ends_it(older: bool) -> None:
    """An older or foreign server is not followed without what was asked for."""
    frame = RollingFrame(schema=SCHEMA)
    with ExitStack() as stack:
        server: NumberedServer | EventServer
        server = NumberedServer(5, knows=False) if older else EventServer(sending('{"n":0}'))
        stack.enter_context(server)
        follower = frame.follow(server.url, start="earliest")
        until(lambda: not follower.running)
        assert isinstance(follower.error, RequestError)
        assert ("unknown query parameter" if older else "does not know start") in str(follower.error)


def test_impossible_parameter_is_refused_at_once() -> None:
    """Before a thread is started."""
    with pytest.raises(RequestError, match="start must be an event number from 0"):
        RollingFrame().follow("localhost:1", start=-1)


@pytest.mark.parametrize("sent", [b"hello", "hello"])
def test_garbage_from_a_numbered_server_is_explained(sent: str | bytes) -> None:
    """A server that says it sends batches has to."""

    class Lying(NumberedServer):
        def _handle(self, connection: Any) -> None:
            connection.send(sent)

    frame = RollingFrame()
    with Lying(5) as server:
        follower = frame.follow(server.url)
        until(lambda: not follower.running)
        assert str(follower.error).startswith(
            f"{server.url} does not send events: a message must be an Arrow stream of one record batch"
        )


def test_message_of_more_than_a_mebibyte() -> None:
    """Large batches come through."""
    frame = RollingFrame(rows=None, window=None)
    with NumberedServer(60_000, per_message=60_000) as server, frame.follow(server.url, start=0):
        assert frame.wait(60_000)
    assert (frame.df["n"].to_numpy() == range(60_000)).all()


def kill_and_restart(stack: ExitStack, frame: RollingFrame, count: int, start: Any) -> Follower:
    """Follow a server that is killed three times on the way to `count` events."""
    server, port = stack.enter_context(process(count, pause=0.003))
    follower = stack.enter_context(frame.follow(f"127.0.0.1:{port}", start=start, **FAST))
    for share in (1, 2, 3):
        assert frame.wait(share * count // 4)
        server.kill()
        server.wait()
        server, port = stack.enter_context(process(count, port, pause=0.003))
    assert frame.wait(count)
    return follower


def test_killed_server_costs_nothing() -> None:
    """A server killed three times while it sends leaves every event in the frame once."""
    count = 1500
    frame = RollingFrame(window=None)
    with ExitStack() as stack:
        follower = kill_and_restart(stack, frame, count, start=0)
        assert follower.reconnects >= 3
        assert (follower.restarts, follower.missed, follower.received) == (0, 0, count)
    assert frame.df["n"].tolist() == list(range(count))
    assert frame.df["text"].tolist() == [event(n)["text"] for n in range(count)]


def test_schema_of_the_frame_is_kept_through_a_restart() -> None:
    """The columns of the first connection are those of the frame."""
    frame = RollingFrame(window=None)
    with NumberedServer(5) as old:
        follower = frame.follow(old.url, start="earliest", **FAST)
        assert frame.wait(5)
    with follower, NumberedServer(5, port=old.port, stream_id="bb", publishes=False):
        assert frame.wait(10)
    assert frame.schema == Schema(SCHEMA.columns)

"""A frame that follows a stream in the background: each event once, whatever breaks."""

from __future__ import annotations

import gc
import re
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import logistream.frame.frame as frame_module
from helpers.numbered import FULL_SCHEMA, SCHEMA, START, NumberedServer, event, process
from helpers.sockets import free_port
from helpers.waiting import until
from logistream.dataco import EVENT
from logistream.errors import DataError, RequestError
from logistream.frame.frame import RollingFrame
from logistream.schema import EVENT_NUMBER, EVENT_TIME
from logistream.server.server import StreamServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from logistream.client.follower import Follower
    from logistream.model.model import Model

FAST: dict[str, Any] = {"first_delay": 0.005, "max_delay": 0.02}


def followers() -> list[str]:
    """Return the names of threads that follow a stream."""
    return [thread.name for thread in threading.enumerate() if "follower" in thread.name]


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    """Every test ends without a follower's thread."""
    yield
    until(lambda: followers() == [])


def test_follows_and_stops() -> None:
    """Events come into the frame by themselves; after stop nothing runs any more."""
    frame = RollingFrame()
    with NumberedServer(50) as server:
        follower = frame.follow(server.url, start=0)
        assert frame.wait(50, timeout=60)
        assert frame.df["n"].tolist() == list(range(50))
        assert (follower.received, follower.reconnects, follower.connected) == (50, 0, True)
        assert follower.error is None
        assert frame.following
        assert repr(follower) == f"<Follower {server.url}: live, 50 received, 0 reconnects>"
        follower.stop()
        follower.stop()
        assert followers() == []
        assert repr(follower) == f"<Follower {server.url}: stopped, 50 received, 0 reconnects>"


def test_a_notebook_shows_the_state() -> None:
    """The HTML has the current state and figures."""
    frame = RollingFrame()
    with NumberedServer(1500) as server, frame.follow(server.url, start=0) as follower:
        assert frame.wait(1500, timeout=60)
        page = follower._repr_html_()
        assert "<th>state</th><td>live</td>" in page
        assert "<th>received</th><td>1,500</td>" in page
    until(lambda: "<th>state</th><td>stopped</td>" in follower._repr_html_())


def test_survives_the_death_of_the_server() -> None:
    """A server that dies and comes back is followed on; the trouble is shown in between."""
    frame = RollingFrame()
    with NumberedServer(1, port=free_port()) as server:
        follower = frame.follow(server.url, start=0, **FAST)
        assert frame.wait(1, timeout=60)
    with follower:
        until(lambda: "nothing listens there" in (follower.trouble or ""))
        assert "reconnecting: ws://" in repr(follower)
        assert "nothing listens there" in repr(follower)
        assert follower.state == "reconnecting"
        assert re.fullmatch(
            r"cannot be reached: nothing listens there, (trying now|next try in \d s), nothing lost",
            follower.reason,
        )
        assert follower.running
        assert not follower.connected
        with NumberedServer(2, port=server.port):
            assert frame.wait(2, timeout=60)
            assert (follower.reconnects, follower.trouble) == (1, None)
    assert frame.df["n"].tolist() == [0, 1]


def test_follower_may_come_before_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Following returns at once when nothing is there, and begins when the server does."""
    frame = RollingFrame()
    port = free_port()
    monkeypatch.setattr(frame_module, "_ANSWER_SECONDS", 1000.0)
    with frame.follow(f"http://127.0.0.1:{port}", start=0, **FAST) as follower:
        assert "nothing listens there" in (follower.trouble or "")
        with NumberedServer(1, port=port):
            assert frame.wait(1, timeout=60)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"start": 9}, "refuses: event 9 has not happened yet: the newest is 4"),
        ({"columns": "Markt"}, "refuses: no column 'Markt'"),
    ],
)
@pytest.mark.parametrize("denies", [True, False])
def test_what_the_server_refuses_at_once_is_raised_by_follow(
    options: dict[str, Any], sentence: str, denies: bool
) -> None:
    """A refused handshake, or a close right after it, is an error of the call; the frame stays usable."""
    frame = RollingFrame()
    with NumberedServer(5, denies=denies) as server:
        with pytest.raises(RequestError) as caught:
            frame.follow(server.url, **options)
        assert str(caught.value) == f"{server.url} {sentence}"
        assert not frame.following
        with frame.follow(server.url, start=0):
            assert frame.wait(5, timeout=60)


def test_what_the_stream_server_refuses_is_raised_by_follow(server: StreamServer) -> None:
    """A condition that no event meets is an error of the call, in the server's words."""
    with pytest.raises(
        RequestError, match="a condition is written COLUMN:VALUE or COLUMN>=VALUE, and 'market:Europe'"
    ):
        RollingFrame().follow(server.url, where={"market": "Europe"})


def test_a_later_refusal_ends_the_waiting() -> None:
    """`wait` raises what has ended the last follower, which keeps it in `error`."""
    frame = RollingFrame()
    with NumberedServer(5) as server:
        follower = frame.follow(server.url, start=0, **FAST)
        assert frame.wait(5, timeout=60)
        server.refuse = (403, '{"detail": "a token is needed"}')
        server.cut()
        with pytest.raises(RequestError) as caught:
            frame.wait(6, timeout=60)
        assert caught.value is follower.error
        assert str(follower.error) == f"{server.url} refuses: a token is needed"
        assert (follower.state, follower.reason) == ("refused", str(follower.error))
        assert repr(follower).startswith(f"<Follower {server.url}: refused: {follower.error}, 5 received, ")
        assert frame.wait(5, timeout=60)  # what has come is there


def test_waiting_ends_when_the_follower_is_stopped() -> None:
    """`wait` returns False as soon as no follower is left, without an error."""
    frame = RollingFrame()
    with NumberedServer(5) as server:
        follower = frame.follow(server.url, start=0)
        assert frame.wait(5, timeout=60)
        threading.Timer(0.05, follower.stop).start()
        assert not frame.wait(6, timeout=1000)


def test_same_address_again_replaces_the_follower() -> None:
    """Running the cell again does not feed the frame twice."""
    frame = RollingFrame()
    with NumberedServer(1) as server:
        first = frame.follow(server.url, start=0)
        assert frame.wait(1, timeout=60)
        with frame.follow(server.url, start=0) as second:
            assert frame.wait(2, timeout=60)
            assert not first.running
            assert second.running


def test_follower_of_a_forgotten_frame_ends() -> None:
    """A follower ends when nothing refers to its frame any more."""
    with NumberedServer(1) as server:
        frame = RollingFrame()
        frame.follow(server.url, start=0)
        assert frame.wait(1, timeout=60)
        del frame
        gc.collect()
        until(lambda: not followers())


def test_stop_does_not_wait_for_a_pause_between_attempts() -> None:
    """Stopping is quick while the next attempt is minutes away."""
    frame = RollingFrame()
    follower = frame.follow(f"127.0.0.1:{free_port()}", first_delay=600, max_delay=600)
    until(lambda: follower.trouble is not None)
    follower.stop()  # which waits for the thread for a minute at most
    assert not follower.running


@pytest.mark.slow
@settings(max_examples=20, deadline=None)
@given(
    most=st.lists(st.integers(0, 4), max_size=8),
    back=st.integers(0, 25),
    per_message=st.integers(1, 20),
    where=st.sampled_from([None, {"text": ["t1", "t5"]}]),
)
def test_every_event_is_in_the_frame_once(most: list[int], back: int, per_message: int, where: Any) -> None:
    """Breaks anywhere and messages that overlap what was taken leave no gap and no repeat."""
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


def test_a_frame_takes_the_columns_of_the_stream() -> None:
    """Names and types are those of the batches; nothing is requested but the events."""
    frame = RollingFrame()
    with NumberedServer(20) as server, frame.follow(server.url, start=0) as follower:
        assert frame.wait(20, timeout=60)
        query = {"format": ["arrow"], "start": ["0"], "faults": ["false"], "gather": ["0.05"]}
        assert server.queries == [query]
        assert follower.stream_id == server.stream_id
    assert frame.schema.arrow.equals(SCHEMA.arrow)
    assert {name: str(dtype) for name, dtype in frame.df.dtypes.items()} == SCHEMA.pandas_dtypes
    assert frame.df["event_time"].tolist()[4].to_pydatetime() == START.replace(microsecond=4000)


def test_columns_and_numbers() -> None:
    """Columns are those requested, in order; a requested number is the last."""
    frame = RollingFrame(window=None)
    with (
        NumberedServer(20) as server,
        frame.follow(server.url, start=3, columns=["more", "n"], where={"text": "t1"}, numbered=True),
    ):
        assert frame.wait(2, timeout=60)
    assert frame.df.to_dict("list") == {"more": [4.0, 7.5], "n": [8, 15], "event_number": [8, 15]}
    assert frame.schema["event_number"] == EVENT_NUMBER
    whole = RollingFrame()
    with NumberedServer(20) as server, whole.follow(server.url, start=3, columns="all"):
        assert whole.wait(17, timeout=60)
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
        assert frame.wait(20, timeout=60)
        assert list(frame.df) == ["event_time", "n"]
    frame = RollingFrame(schema=FULL_SCHEMA)
    with NumberedServer(20) as server, frame.follow(server.url, start=0) as follower:
        until(lambda: not follower.running)
        assert isinstance(follower.error, DataError)
        with pytest.raises(DataError, match="no column 'more'"):
            frame.wait(21, timeout=60)
        assert str(follower.error) == "cannot append: no column 'more'"


def test_earliest_fills_the_window_at_once() -> None:
    """History and present without a seam."""
    frame = RollingFrame(rows=15)
    with NumberedServer(40) as server, frame.follow(server.url, start="earliest"):
        assert frame.wait(40, timeout=60)
        server.happen(5)
        assert frame.wait(45, timeout=60)
    assert frame.df["n"].tolist() == list(range(30, 45))


def test_what_the_server_leaves_out_is_counted() -> None:
    """A follower with `lag="skip"` counts how many events it missed."""
    frame = RollingFrame()
    with (
        NumberedServer(60, skip={20: 15}) as server,
        frame.follow(server.url, start=0, lag="skip") as follower,
    ):
        assert frame.wait(45, timeout=60)
        assert follower.missed == 15
    assert frame.df["n"].tolist() == [*range(20), *range(35, 60)]


def test_restarted_stream_begins_again() -> None:
    """Without its timeline the server has another stream: its numbers are not those of the old one."""
    frame = RollingFrame(window=None)
    with NumberedServer(20, port=free_port()) as old:
        follower = frame.follow(old.url, start="earliest", numbered=True, **FAST)
        assert frame.wait(20, timeout=60)
    with follower, NumberedServer(5, port=old.port, stream_id="bb") as new:
        assert frame.wait(25, timeout=60)
        assert (follower.restarts, follower.stream_id, follower.reconnects) == (1, new.stream_id, 1)
    assert frame.df["event_number"].tolist() == [*range(20), *range(5)]


def test_impossible_parameter_is_refused_at_once() -> None:
    """Before a thread is started."""
    with pytest.raises(RequestError, match="start must be an event number from 0"):
        RollingFrame().follow("localhost:1", start=-1)


@pytest.mark.parametrize("sent", [b"hello", "hello"])
def test_garbage_is_explained(sent: str | bytes) -> None:
    """What is not a batch ends the follower with a sentence."""
    frame = RollingFrame()
    with NumberedServer(5, handle=lambda connection: connection.send(sent)) as server:
        follower = frame.follow(server.url)
        until(lambda: not follower.running)
        assert str(follower.error).startswith(
            f"{server.url} does not send events: a message must be an Arrow stream of one record batch"
        )


def test_message_of_more_than_a_mebibyte() -> None:
    """Large batches come through."""
    frame = RollingFrame(rows=None, window=None)
    with NumberedServer(60_000, per_message=60_000) as server, frame.follow(server.url, start=0):
        assert frame.wait(60_000, timeout=60)
    assert (frame.df["n"].to_numpy() == range(60_000)).all()


def kill_and_restart(stack: ExitStack, frame: RollingFrame, count: int, start: Any) -> Follower:
    """Follow a server that is killed three times on the way to `count` events."""
    port = free_port()
    server, _ = stack.enter_context(process(count // 2, port, pause=0.003))
    follower = stack.enter_context(frame.follow(f"127.0.0.1:{port}", start=start, **FAST))
    for share in (1, 2, 3):
        assert frame.wait(share * count // 4, timeout=60)
        until(lambda: follower.connected and follower.reconnects >= share - 1)  # noqa: B023 - called at once
        server.kill()
        server.wait()
        happened = min(share + 2, 4) * count // 4 - (share < 3)  # only the last one has all
        server, _ = stack.enter_context(process(happened, port, pause=0.003))
    assert frame.wait(count, timeout=60)
    return follower


@pytest.mark.slow
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


def test_stopping_from_a_busy_thread_loses_nothing_received() -> None:
    """What was received before a stop is in the frame."""
    frame = RollingFrame(rows=None, window=None)
    with NumberedServer(3000) as server:
        follower = frame.follow(server.url, start=0)
        until(lambda: follower.received > 100)
        follower.stop()
    assert frame.appended == follower.received
    assert frame.df["n"].tolist() == list(range(follower.received))


def test_stream_server_fills_a_frame(server: StreamServer) -> None:
    """A frame that follows a stream has its columns and types, and event times at the requested rate."""
    frame = RollingFrame()
    with frame.follow(server):
        assert frame.wait(100, timeout=60)
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
    with StreamServer(model, rate=200, port=free_port()) as server:
        follower = frame.follow(server.url, **FAST)
        assert frame.wait(10, timeout=60)
    with follower:
        until(lambda: not follower.connected and follower.trouble is not None)
        before = frame.appended
        with StreamServer(model, rate=200, port=server.port):
            assert frame.wait(before + 10, timeout=60)
    assert (follower.reconnects, follower.error) == (1, None)


def test_pause_holds_the_frame(server: StreamServer) -> None:
    """A paused stream sends nothing and keeps its followers; resumed, it continues."""
    frame = RollingFrame()
    with frame.follow(server.url) as follower:
        assert frame.wait(10, timeout=60)
        server.paused = True
        until(lambda: frame.appended == follower.received)
        server.paused = False
        assert frame.wait(frame.appended + 10, timeout=60)
        assert follower.reconnects == 0

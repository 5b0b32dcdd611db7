"""A reader that does not read costs the others nothing, and loses nothing unless it requested that."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from websockets.sync.client import connect

import logistream.server.protocol as connection_module
import logistream.server.server as server_module
from helpers import http
from helpers.processes import ServerProcess, give_readers_time, resident
from helpers.recording import SMALL, Recorder, numbers_in
from helpers.waiting import at_best, until
from helpers.wire import BINARY, CLOSE, PING, PONG, TEXT, Peer, frame
from logistream.errors import RequestError
from logistream.server.limits import Limits, limits_from
from logistream.server.server import StreamServer

if TYPE_CHECKING:
    import uvicorn

    from logistream.model.model import Model

pytestmark = pytest.mark.slow

RATE = 5000
"""Events per second."""

STOPPED = 2.0
"""Seconds for which a reader does not read."""

TINY = 4096
"""Bytes of a receive buffer that make a reader feel at once that it does not read."""


def batch_of(message: bytes) -> tuple[list[int], dict[str, int]]:
    """Return the event numbers of an Arrow message and its metadata."""
    with pa.ipc.open_stream(message) as stream:
        batch = stream.read_next_batch()
    metadata = {key.decode(): int(value) for key, value in batch.schema.metadata.items()}
    return batch.column("event_number").to_pylist(), metadata


def test_a_reader_that_is_behind_gets_the_close_frame(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answers to pings, which it reads after the server has stopped, do not reset the connection."""
    give_readers_time(monkeypatch)
    for _ in range(12):
        with (
            StreamServer(model, rate=2000, port=0, history="60s") as server,
            connect(f"{server.websocket_url}?start=earliest", max_queue=4) as reader,
        ):
            for _ in range(40):
                reader.recv(timeout=60)
            stopping = threading.Thread(target=server.stop)
            stopping.start()
            for _ in reader:  # until it is closed; a reset would raise
                pass
            stopping.join()
            assert reader.close_code == 1001


@pytest.mark.timeout(400)
def test_a_stopped_reader_disturbs_no_other_and_catches_up(capsys: pytest.CaptureFixture[str]) -> None:
    """Ten readers at 5,000 events a second do not notice the one that stops, which then gets all it missed.

    What it has not taken is nowhere kept for it: the server hardly grows.
    """
    at_best(lambda: _cost_of_a_stopped_reader(capsys), below=1)


def _cost_of_a_stopped_reader(capsys: pytest.CaptureFixture[str]) -> float:
    """Return how late others are and how much the server grows, as shares of what is allowed."""
    with ServerProcess("--rate", str(RATE)) as server, ExitStack() as stack:
        stopped = stack.enter_context(Peer(server.port, "?format=ndjson&numbered=true", receive_buffer=TINY))
        readers = [stack.enter_context(Peer(server.port, SMALL)) for _ in range(10)]
        with Recorder(readers) as recorder:
            until(lambda: recorder.received > 2_000_000)  # the server has all that it needs to write events
            before = resident(server.pid)
            began = time.monotonic()
            until(lambda: time.monotonic() - began > STOPPED)
            grown = resident(server.pid) - before
            due = server.get("/stream")["next_event_number"]
            numbers: list[int] = []
            caught_up = time.monotonic()
            while not numbers or numbers[-1] < due:  # at first hand, while the others go on reading
                numbers += numbers_in(stopped.until(TEXT).payload)
            caught_up = time.monotonic() - caught_up
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        assert len(numbers) > RATE * STOPPED * 0.8
        seen = [recorder.seen(place) for place in range(len(readers))]
        assert server.news() == ""
    with capsys.disabled():
        print(
            f"\n  others: p50 {max(one.late(0.5) for one in seen) * 1e3:.1f} ms, "
            f"p99 {max(one.late(0.99) for one in seen) * 1e3:.1f} ms, longest silence "
            f"{max(one.silence for one in seen) * 1e3:.0f} ms; {len(numbers)} events caught up in "
            f"{caught_up:.2f} s; server grew by {grown:.1f} MiB"
        )
    got_all = all(one.stop - one.first > RATE * STOPPED * 0.8 for one in seen)
    late = max(one.late(0.99) for one in seen) if got_all else STOPPED
    return max(late / (STOPPED / 2), grown / 5)  # behind the stopped reader they would be late by all of it


@pytest.mark.timeout(400)
def test_readers_of_the_past_do_not_delay_a_live_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Eighty read as fast as they can at eighty places of an hour; a live reader is never far behind."""
    at_best(lambda: _lateness_beside_readers_of_the_past(capsys), below=1)


def _lateness_beside_readers_of_the_past(capsys: pytest.CaptureFixture[str]) -> float:
    """Return how late the events of a live reader are, as a share of what is allowed."""
    with ServerProcess("--rate", "1000", "--history", "1h") as server, ExitStack() as stack:
        recorder = stack.enter_context(Recorder([stack.enter_context(Peer(server.port, SMALL))]))
        past = [stack.enter_context(Peer(server.port, f"?start={40_000 * place}")) for place in range(80)]
        with Recorder(past) as others:
            began = time.monotonic()
            until(lambda: time.monotonic() - began > 3)
            until(lambda: others.received > 1_000_000)
            due = server.get("/stream")["next_event_number"]
            seen = recorder.seen()
            read = others.received
    with capsys.disabled():
        print(
            f"\n  beside readers of the past ({read / 4e6:.0f} MB/s): p50 {seen.late(0.5) * 1e3:.1f} ms, "
            f"p99 {seen.late(0.99) * 1e3:.1f} ms, longest {max(seen.delays) * 1e3:.0f} ms"
        )
    return float(max(seen.late(0.5) / 0.2, max(seen.delays) / 2.0, (due - seen.stop) / 2000))


@pytest.mark.parametrize("form", ["json", "ndjson", "arrow"])
def test_a_reader_may_skip_what_it_missed(model: Model, form: str) -> None:
    """With lag=skip a reader that was away continues with the newest event and a count of those it missed."""
    with (
        StreamServer(model, rate=RATE, port=0) as server,
        Peer(server.port, f"?format={form}&numbered=true&lag=skip", receive_buffer=TINY) as peer,
    ):
        expected = int(peer.headers["logistream-event-number"])
        jumps = []

        def take() -> None:
            nonlocal expected
            made = peer.receive()
            assert made is not None
            if form == "arrow":
                assert made.opcode == BINARY
                numbers, metadata = batch_of(made.payload)
                missed = metadata.get("missed_events")
                assert metadata["next_event_number"] == metadata["first_event_number"] + len(numbers)
                assert metadata["first_event_number"] == numbers[0]
            else:
                lines = made.payload.splitlines()
                assert form == "ndjson" or len(lines) == 1
                notes = [json.loads(line) for line in lines if line.startswith(b'{"missed_events"')]
                assert all(set(note) == {"missed_events"} for note in notes)
                assert len(notes) <= 1
                assert not notes or lines[0].startswith(b'{"missed_events"')
                missed = notes[0]["missed_events"] if notes else None
                numbers = [json.loads(line)["event_number"] for line in lines[len(notes) :]]
            if missed is not None:
                assert missed > 0
                jumps.append(missed)
                expected += missed
            assert numbers == list(range(expected, expected + len(numbers)))
            expected += len(numbers)

        def keeps_up() -> bool:
            before = len(jumps)
            take()
            return len(jumps) == before

        until(keeps_up)  # and misses nothing then
        jumps.clear()
        began = time.monotonic()
        until(lambda: time.monotonic() - began > STOPPED)
        newest = server.state["next_event_number"]
        while expected < newest + RATE // 10:
            take()
        assert jumps, "it has skipped nothing"
        assert sum(jumps) > RATE * (STOPPED - 1.5)
        assert server.connected_clients == 1


def test_skipping_is_for_those_who_ask(model: Model) -> None:
    """Requested past events are not missed events: lag=skip leaves none of them out."""
    with StreamServer(model, rate=RATE, port=0, history="10s") as server:
        numbers: list[int] = []
        with Peer(server.port, "?start=0&format=ndjson&numbered=true&lag=skip") as peer:
            while len(numbers) < 10 * RATE:
                text = peer.until(TEXT).payload
                assert b"missed_events" not in text
                numbers += numbers_in(text)
        assert numbers == list(range(len(numbers)))


@pytest.mark.parametrize("form", ["json", "ndjson", "arrow"])
def test_the_speed_of_catching_up_can_be_limited(model: Model, form: str) -> None:
    """A reader of the past gets no more events a second than allowed."""
    limit, past = 20_000, 20_000

    def taken() -> float:
        with StreamServer(
            model, rate=1000, port=0, history=f"{past // 1000}s", limits=Limits(catch_up=limit)
        ) as server:
            began, count = time.monotonic(), 0
            with Peer(server.port, f"?start=earliest&format={form}&numbered=true") as peer:
                while count < past:
                    made = peer.receive()
                    assert made is not None
                    if form == "arrow":
                        count += len(batch_of(made.payload)[0])
                    else:
                        count += made.payload.count(b'"event_number"')
        seconds = time.monotonic() - began
        # What may be taken at once comes on top, and events go on happening.
        assert seconds > past / limit * 0.7
        return seconds

    at_best(taken, below=past / limit * 10)


def test_the_limit_never_holds_back_the_stream_itself(model: Model) -> None:
    """A limit below the rate lets a reader that was away for a short time catch up all the same."""
    with (
        StreamServer(model, rate=RATE, port=0, limits=Limits(catch_up=1)) as server,
        Peer(server.port, SMALL, receive_buffer=TINY) as peer,
    ):
        began, newest = time.monotonic(), 0
        until(lambda: time.monotonic() - began > 0.5)
        while newest < server.state["next_event_number"] - RATE // 10:
            newest = numbers_in(peer.until(TEXT).payload)[-1]
            assert time.monotonic() - began < 60, "it falls further behind"


@pytest.mark.parametrize("name", ["clients", "range", "ranges", "catch_up", "catch_up_total", "message"])
@pytest.mark.parametrize("value", [0, -1, "many", None])
def test_a_limit_must_be_one(name: str, value: object) -> None:
    """A limit that lets no reader in is refused by name."""
    with pytest.raises(RequestError, match=f"^limit {name} must be "):
        limits_from(**{name: value})


def test_no_more_readers_than_allowed(model: Model) -> None:
    """A reader that comes too late is refused, and let in when another has left, however it left."""
    with StreamServer(model, rate=100, port=0, limits=Limits(clients=2)) as server, ExitStack() as stack:
        first, second = (stack.enter_context(Peer(server.port, SMALL)) for _ in range(2))
        full = r'503 .*\{"detail":"the server is full: it has 2 readers, try again later"\}$'
        with pytest.raises(ConnectionRefusedError, match=full):
            Peer(server.port, SMALL)
        first.reset()
        until(lambda: server.connected_clients == 1)
        third = stack.enter_context(Peer(server.port, SMALL))
        with pytest.raises(ConnectionRefusedError, match=full):
            Peer(server.port, SMALL)
        for peer in (second, third):  # a refusal does those no harm who are in
            peer.send(frame(PING, b"?"))
            assert peer.until(PONG).payload == b"?"


def test_a_reader_that_answers_nothing_is_given_up(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who neither reads nor answers pings is counted no more, though its end never closes the connection."""
    usual = server_module._config

    def impatient(*options: Any) -> uvicorn.Config:
        config = usual(*options)
        config.ws_ping_interval, config.ws_ping_timeout = 0.1, 0.2
        return config

    monkeypatch.setattr(server_module, "_config", impatient)
    with StreamServer(model, rate=20_000, port=0) as server, Peer(server.port, receive_buffer=TINY):
        # The time for which it is counted may be too short to be seen.
        until(lambda: "\nlogistream_connections_total 1.0\n" in http.get(f"{server.url}/metrics").text)
        until(lambda: server.connected_clients == 0)


def test_a_reader_that_leaves_without_reading_holds_no_socket(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What waits for a reader that has sent a close frame is dropped after a while, and its connection."""
    monkeypatch.setattr(connection_module, "LINGER", 0.3)
    with StreamServer(model, rate=20_000, port=0) as server, Peer(server.port, receive_buffer=TINY) as peer:
        began = time.monotonic()
        until(lambda: time.monotonic() - began > 0.5)  # let the buffers fill
        peer.send(frame(CLOSE, b"\x03\xe8"))
        until(lambda: server.connected_clients == 0)
        assert server._server is not None
        connections = server._server.server_state.connections
        until(lambda: not connections)


def test_a_hundred_at_once_for_ten_places(model: Model) -> None:
    """However fast they come, no more are let in than allowed."""
    with StreamServer(model, rate=100, port=0, limits=Limits(clients=10)) as server, ExitStack() as stack:
        raws = [
            stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 60)) for _ in range(100)
        ]
        from helpers.wire import request

        for raw in raws:
            raw.sendall(request(server.port, SMALL))
        answers = [raw.recv(12) for raw in raws]
        assert answers.count(b"HTTP/1.1 101") == 10
        assert answers.count(b"HTTP/1.1 503") == 90
        assert server.connected_clients == 10

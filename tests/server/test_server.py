"""A server on a thread of a notebook's kernel: it starts, is steered, stops, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import collections
import itertools
import json
import re
import socket
import subprocess
import sys
import threading
import time
from datetime import UTC, date, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
import websockets
from websockets.exceptions import ConnectionClosed

from helpers import http
from helpers.processes import give_readers_time, run_python
from helpers.waiting import at_best, until
from helpers.websocket import FEW, connect
from logistream.errors import PortInUseError, RequestError, StreamError
from logistream.server.server import StreamServer
from logistream.times import parse_rfc3339

if TYPE_CHECKING:
    from pathlib import Path

    from logistream.model.model import Model


HISTORY = "history must be from 0 to the {days:,} days since 1970, not"
START = "start must be a time from 1970 until now, not"
START_FORM = "start must be a date or a time such as 2020-01-01 or 2020-01-01T06:23:00Z, not"
NO_TIMES = ("soon", "2020-02-30", "2020", "", "0001-01-01T00:00:00+99:00", 2020, pd.NaT)


def server_threads() -> list[threading.Thread]:
    """Return the threads that servers run on."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("logistream-")]


def listens(port: int) -> bool:
    """Return whether a program listens on a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_a_started_server_answers_at_once(model: Model) -> None:
    """start() returns the server when the port listens, and event 0 has happened."""
    server = StreamServer(model, port=0)
    assert server.state["status"] == "stopped"
    try:
        assert server.start() is server
        assert http.get(server.url).json()["status"] == "running"
        assert server.state["next_event_number"] >= 1
        assert server.start() is server  # starting what runs changes nothing
        assert len(server_threads()) == 1
    finally:
        server.stop()


def test_stopping_leaves_no_thread_and_no_port(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """After stop() with readers connected, thread and port are free and the readers know."""
    give_readers_time(monkeypatch)
    with (
        StreamServer(model, rate=100, port=0) as server,
        connect(server.websocket_url) as reader,
    ):
        reader.recv(timeout=60)
        server.stop()
        assert server_threads() == []
        assert not listens(server.port)
        with pytest.raises(ConnectionClosed) as caught:
            collections.deque((reader.recv(timeout=60) for _ in itertools.count()), maxlen=0)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1001  # going away
        server.stop()  # twice is fine
    assert not server.running


def test_a_stalled_reader_does_not_hold_up_the_stop(model: Model) -> None:
    """A client that does not read is not waited for."""

    def taken() -> float:
        with (
            StreamServer(model, rate=50_000, port=0) as server,
            connect(server.websocket_url, close_timeout=0.1, max_queue=FEW),
        ):
            until(lambda: server.connected_clients == 1)
            started = time.monotonic()
            server.stop()
            seconds = time.monotonic() - started
            assert server_threads() == []
            return seconds

    at_best(taken, below=5)


def test_running_the_cell_again_works(model: Model) -> None:
    """A second server of the same process on the same port takes over from the first."""
    first = StreamServer(model, port=0).start()
    port = first.port
    try:
        second = StreamServer(model, port=port).start()
        try:
            assert not first.running
            assert second.running
            assert len(server_threads()) == 1
            assert http.get(second.url).json()["status"] == "running"
        finally:
            second.stop()
    finally:
        first.stop()
    assert not listens(port)


def test_a_port_in_use_by_another_program_is_named_with_two_ways_out(model: Model) -> None:
    """The error names the port, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortInUseError) as caught:
            StreamServer(model, port=port).start()
    assert str(caught.value) == (
        f"port {port} on 127.0.0.1 is already in use: stop the program that uses it, "
        f"or choose another port (port=0 takes a free one)"
    )
    assert server_threads() == []


def test_a_stopped_server_can_be_started_again(model: Model) -> None:
    """The settings stay, the stream begins anew with event 0, the requested port is used again."""
    server = StreamServer(model, rate=10, port=0)
    with server:
        server.rate = 0.001  # the next event comes after a quarter of an hour
        first = server.state
    with server:
        assert server.rate == 0.001
        assert server.state["started"] > first["started"]
        assert server.state["next_event_number"] == 1
        assert http.get(server.url).json()["status"] == "running"


def test_rate_and_pause_are_set_live(server: StreamServer) -> None:
    """What is set on the object holds for readers, and what is set over HTTP shows on the object."""
    with connect(f"{server.websocket_url}?numbered=true") as reader:
        server.rate = 1000
        first = server.timeline.last.first
        events = [json.loads(reader.recv(timeout=60))]
        while events[-1]["event_number"] < first + 100:
            events.append(json.loads(reader.recv(timeout=60)))
    times = [datetime.fromisoformat(event["event_time"]) for event in events[-100:]]
    assert {(b - a).microseconds for a, b in itertools.pairwise(times)} == {1000}
    server.paused = True
    assert server.state["status"] == "paused"
    assert http.get(server.url).json()["status"] == "paused"
    http.patch(f"{server.url}/stream", json={"paused": False, "rate": 7})
    assert (server.rate, server.paused) == (7, False)


@pytest.mark.slow
def test_the_rate_is_set_from_any_thread_while_streaming(server: StreamServer) -> None:
    """A slider that is dragged from a widget's thread neither loses nor repeats an event."""
    done = threading.Event()

    def drag() -> None:
        rate = 500
        while not done.wait(0.003):
            rate = 500 if rate == 2000 else 2000
            server.rate = rate

    dragging = threading.Thread(target=drag)
    before = server.state["next_event_number"]
    with connect(server.websocket_url) as reader:
        dragging.start()
        try:
            strings = [str(reader.recv(timeout=60)) for _ in range(1500)]
        finally:
            done.set()
            dragging.join()
    times = [json.loads(text)["event_time"] for text in strings]
    assert times == sorted(set(times))
    # what the clock does not move is that of the model's events, from some number on without a gap
    made = server.model.events(before, before + 4000).to_pylist()
    clocked = {"event_time", *(delay.column for delay in server.model.days_after_event)}
    events = [without(clocked, json.loads(text)) for text in strings]
    published = [without(clocked, {name: row.get(name) for name in events[0]}) for row in made]
    first = published.index(events[0])
    assert published[first : first + len(events)] == events


def without(names: set[str], event: dict[str, Any]) -> dict[str, Any]:
    """Return an event without some keys."""
    return {name: value for name, value in event.items() if name not in names}


def test_a_setting_that_there_is_not_cannot_be_set(server: StreamServer) -> None:
    """Neither a misspelled one, nor one that holds from the start on."""
    for name in ("paus", "seed", "model"):
        with pytest.raises(AttributeError, match=name):
            setattr(server, name, 3)
    assert server.seed == 0


def test_a_history_is_a_length_of_time(model: Model) -> None:
    """As a string or a timedelta, which pandas' are too; no part of pandas warns of it."""
    for history in ("365d", timedelta(days=365), pd.Timedelta(365, "D")):
        server = StreamServer(model, port=0, history=history)
        assert server.state["next_event_number"] >= 365 * 86_400 * 2


@pytest.mark.parametrize(
    "start",
    [
        "2020-01-01",
        "2020-01-01T00:00:00Z",
        "2019-12-31 19:00:00-05:00",
        date(2020, 1, 1),
        datetime(2020, 1, 1),
        datetime(2020, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))),
        pd.Timestamp("2020-01-01"),
        pd.Timestamp("2020-01-01 05:30", tz="Asia/Kolkata"),
    ],
    ids=str,
)
def test_a_start_is_when_event_0_happened(model: Model, start: str | date) -> None:
    """As a string, a date or a time, in UTC unless it says otherwise; every run has the same."""
    server = StreamServer(model, port=0, start=start)
    assert server.state["started"] == "2020-01-01T00:00:00.000000Z"
    with server:
        server.paused = True
        (first,) = http.get(f"{server.url}/events?stop=1").json()
        assert first["event_time"] == server.state["started"] == "2020-01-01T00:00:00.000000Z"
        newest = server.state["next_event_number"] - 1
        (last,) = http.get(f"{server.url}/events?start={newest}").json()
        assert newest > 2 * 86_400 * 365 * 6
        assert parse_rfc3339(last["event_time"]) == parse_rfc3339("2020-01-01T00:00:00Z") + newest * 500_000


def test_a_timeline_file_has_its_own_start(model: Model, tmp_path: Path) -> None:
    """What is given when it is opened again does not count."""
    file = tmp_path / "stream.timeline"
    for start in ("2020-01-01", "2021-01-01"):
        with StreamServer(model, port=0, timeline=file, start=start) as server:
            assert server.state["started"] == "2020-01-01T00:00:00.000000Z"


@pytest.mark.slow
def test_a_blocking_cell_does_not_stop_the_stream(model: Model) -> None:
    """While a cell blocks the main thread, another process continues to receive."""
    script = (
        "import sys, time; from websockets.sync.client import connect\n"
        "with connect(sys.argv[1]) as ws:\n"
        "    ws.recv(); print('ready', flush=True); times = []\n"
        "    for _ in range(150): ws.recv(); times.append(time.monotonic())\n"
        "print(max(b - a for a, b in zip(times, times[1:])))"
    )

    def longest_silence() -> float:
        with (
            StreamServer(model, rate=100, port=0) as server,
            subprocess.Popen(
                [sys.executable, "-c", script, server.websocket_url], stdout=subprocess.PIPE, text=True
            ) as reader,
        ):
            assert reader.stdout is not None
            assert reader.stdout.readline() == "ready\n"
            reader.wait()  # as a cell does that waits, without a loop
            return float(reader.stdout.read())

    at_best(longest_silence, below=1)


def test_a_server_starts_and_stops_inside_a_running_loop(model: Model) -> None:
    """In a kernel a loop already runs on the main thread."""

    async def cell() -> str:
        with StreamServer(model, rate=100, port=0) as server:
            async with asyncio.timeout(60), websockets.connect(server.websocket_url) as reader:
                return str(await reader.recv())

    assert json.loads(asyncio.run(cell()))["Type"]


@pytest.mark.slow
def test_a_server_runs_beside_nest_asyncio() -> None:
    """The patch that lets asyncio.run work in a cell does not disturb the server's loop."""
    pytest.importorskip("nest_asyncio2")
    script = (
        "import asyncio, nest_asyncio2, websockets; nest_asyncio2.apply()\n"
        "from logistream.server.server import StreamServer\n"
        "async def consume(url):\n"
        "    async with websockets.connect(url) as ws: return [await ws.recv() for _ in range(20)]\n"
        "async def cell():\n"
        "    with StreamServer(rate=100, port=0) as server:\n"
        "        return asyncio.run(consume(server.websocket_url))\n"
        "print(len(asyncio.run(cell())))"
    )
    done = run_python(script)
    assert (done.stdout, done.returncode) == ("20\n", 0), done.stderr


@pytest.mark.slow
def test_a_forgotten_server_does_not_hang_the_process() -> None:
    """A program that ends without stop() ends, in silence."""
    script = "from logistream.server.server import StreamServer; StreamServer(port=0).start(); print('end')"
    done = run_python(script)
    assert (done.stdout, done.stderr, done.returncode) == ("end\n", "", 0)


def test_a_server_off_this_machine_requires_a_token(model: Model) -> None:
    """On all addresses, a token is made; the addresses that it gives hold it, its picture does not."""
    with StreamServer(model, rate=100, port=0, host="0.0.0.0") as server:
        assert server.token is not None
        assert len(server.token) >= 24
        assert server.url == f"http://127.0.0.1:{server.port}?token={server.token}"
        with connect(server.websocket_url) as reader:
            reader.recv(timeout=60)
        assert http.get(f"http://127.0.0.1:{server.port}/").status_code == 401
        assert server.token not in repr(server) + server._repr_html_()


def test_localhost_needs_no_token(model: Model) -> None:
    """By name or by number, this machine is this machine."""
    with StreamServer(model, rate=100, port=0, host="localhost") as server:
        assert server.token is None
        assert http.get(server.url).json()["websocket_url"] == server.websocket_url


def test_the_picture_is_small_and_shows_the_address(server: StreamServer) -> None:
    """Text and HTML show state, address and rate."""
    assert repr(server) == f"<StreamServer running on http://127.0.0.1:{server.port}: 200 events/s>"
    before = datetime.now(UTC).replace(microsecond=0)
    shown = server._repr_html_()
    assert server.websocket_url in shown
    assert len(shown) < 500
    at = re.search(r"at (\S+Z): <b>running</b>, next event [\d,]+, 0 readers; 200 events/s of ", shown)
    assert at is not None
    assert before <= datetime.fromisoformat(at[1]) <= datetime.now(UTC)


def test_the_picture_of_a_stopped_server_has_no_address(server: StreamServer) -> None:
    """Nothing answers there."""
    server.paused = True
    assert "<b>paused</b>" in server._repr_html_()
    server.stop()
    assert "<b>stopped</b>" in server._repr_html_()
    assert str(server.port) not in server._repr_html_()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"port": 65_536}, "port must be a whole number from 0 to 65535, not 65536"),
        ({"port": "8000"}, "port must be a whole number from 0 to 65535, not '8000'"),
        ({"history": "soon"}, "history must be a length of time such as 5min or 2h, not 'soon'"),
        ({"history": 5}, "history must be a length of time such as 5min or 2h, not 5"),
        ({"history": "9999w"}, f"{HISTORY} 69,993 days"),
        ({"history": timedelta(-1)}, f"{HISTORY} -86,400 seconds"),
        ({"history": "1h", "start": "2020-01-01"},
         "history and start both say when event 0 happened: give one of them"),
        ({"start": "1969-12-31T23:59:59Z"}, f"{START} 1969-12-31T23:59:59.000000Z"),
        ({"start": "2199-01-01"}, f"{START} 2199-01-01T00:00:00.000000Z"),
        *(({"start": start}, f"{START_FORM} {start!r}") for start in NO_TIMES),
        ({"seed": -1}, "seed must be a whole number from 0 to 2**64 - 1, not -1"),
        ({"rate": 0}, "rate must be from 0.001 to 1,000,000 events per second, not 0; "
         "to stop the stream for a while, pause it"),
        ({"token": ""}, "a token is made of printable ASCII characters and is not empty"),
        ({"allow_origins": ["example.org"]}, "an allowed origin is written like https://example.org or "
         "http://localhost:3000, without a path, or is null or *; not 'example.org'"),
    ],
)  # fmt: skip
def test_what_is_not_allowed_is_said_before_the_start(
    model: Model, options: dict[str, Any], sentence: str
) -> None:
    """Bad options raise where they are given."""
    with pytest.raises(RequestError) as caught:
        StreamServer(model, **options)
    assert str(caught.value) == sentence.format(days=int(time.time() // 86_400))


def test_a_model_is_a_model(tmp_path: Path) -> None:
    """The path of a model, or a table, is refused with what gives a model."""
    for given in (tmp_path / "orders.model", "orders.model", pd.DataFrame({"a": [1]})):
        with pytest.raises(RequestError, match="model must be what load_model"):
            StreamServer(given)  # type: ignore[arg-type]


def test_a_host_that_is_not_of_this_machine_is_refused(model: Model) -> None:
    """An address that cannot be listened on gets a sentence."""
    with pytest.raises(
        StreamError, match=r"^cannot listen on 192\.0\.2\.1:0: .*; choose another host or port$"
    ):
        StreamServer(model, host="192.0.2.1", port=0).start()
    with pytest.raises(
        StreamError, match=r"^host 'no\.such\.host\.invalid' is not known: use 127\.0\.0\.1, "
    ):
        StreamServer(model, host="no.such.host.invalid", port=0).start()

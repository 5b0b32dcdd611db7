"""The server dies and comes back: every reader holds every event once, whoever wrote the reader.

And it shares a kernel with cells that compute: the stream continues meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from helpers.processes import ServerProcess
from helpers.waiting import until
from helpers.wire import BINARY, TEXT, Peer
from logistream.client.client import connect
from logistream.frame.frame import RollingFrame
from logistream.server.server import StreamServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from logistream.model.model import Model

pytestmark = pytest.mark.slow

KILLS = 8
FAST: dict[str, Any] = {"first_delay": 0.02, "max_delay": 0.1}
"""Seconds between attempts to reconnect, scaled down."""


class Resumer:
    """The least that a client can do: request the next number, again and again.

    It takes what comes as it stands and drops nothing, so that a repeat would show.
    """

    def __init__(self, port: int, form: str) -> None:
        self._port, self._form = port, form
        self.messages: list[bytes] = []
        self.stop = 0  # the number that comes next
        self.connections = 0
        self.streams: set[str] = set()
        self._ending = threading.Event()
        self.error: AssertionError | None = None
        self._thread = threading.Thread(target=self._run, name=f"resumer {form}")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._ending.is_set():
                try:
                    self._read()
                except OSError:  # no server there, or not any more
                    time.sleep(0.01)
        except AssertionError as error:
            self.error = error

    def _read(self) -> None:
        query = f"?start={self.stop}&format={self._form}&numbered=true"
        with Peer(self._port, query) as peer:
            assert int(peer.headers["logistream-event-number"]) == self.stop
            self.connections += 1
            self.streams.add(peer.headers["logistream-stream"])
            peer.socket.settimeout(0.5)
            while not self._ending.is_set():
                made = peer.receive_or_break()  # half a frame is lost as a whole
                if made is None:
                    return
                if made.opcode not in (TEXT, BINARY):  # after 20 s there is a ping
                    continue
                self.messages.append(made.payload)
                self.stop = self._end_of(made.payload)

    def _end_of(self, message: bytes) -> int:
        if self._form == "ndjson":
            return int(message[message.rindex(b":") + 1 : -2]) + 1
        with pa.ipc.open_stream(message) as stream:
            return int(stream.schema.metadata[b"next_event_number"])


class Listening:
    """`connect` on a thread."""

    def __init__(self, url: str) -> None:
        self.events: list[dict[str, Any]] = []
        self._client = connect(url, start=0, numbered=True, on_trouble=lambda _: None, **FAST)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=asyncio.run, args=(self._listen(),), name="listening")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    @property
    def reconnects(self) -> int:
        """Connections made after the first one."""
        return self._client.reconnects

    async def _listen(self) -> None:
        async with self._client as events:
            while not self._ending.is_set():
                try:
                    async with asyncio.timeout(0.2):  # loses nothing
                        while not self._ending.is_set():
                            self.events.append(await anext(events))
                except TimeoutError:
                    pass


@pytest.mark.timeout(400)
def test_killed_again_and_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever kills the server, after the restart on its timeline file every client holds every event once.

    The rate is changed before each kill: what was answered for is not forgotten either.
    """
    file = tmp_path / "timeline"
    server = ServerProcess("--timeline", str(file), "--rate", "500")
    frame = RollingFrame(rows=None, window=None)
    promised: list[tuple[int, float]] = []
    restarts = []
    began = time.monotonic()
    with (
        server,
        Resumer(server.port, "ndjson") as lines,
        Resumer(server.port, "arrow") as batches,
        Listening(server.url) as listening,
        frame.follow(server.url, start=0, numbered=True, **FAST) as follower,
    ):

        def least() -> int:
            """Return how many events the client has that has the fewest."""
            for resumer in (lines, batches):
                if resumer.error is not None:
                    raise resumer.error
            assert follower.error is None
            return min(lines.stop, batches.stop, len(listening.events), frame.appended)

        for number in range(KILLS):
            state = server.patch(rate=501 + 50 * (number % 7) + number)
            promised.append((state["from_event_number"], state["rate"]))
            until(lambda: least() > promised[-1][0])  # all of them get events of this life
            server.kill()
            killed = time.monotonic()
            server.start()
            restarts.append(time.monotonic() - killed)
        due = server.get("/stream")["next_event_number"]
        until(lambda: least() >= due)
        reconnects = (
            lines.connections - 1,
            batches.connections - 1,
            listening.reconnects,
            follower.reconnects,
        )
        assert min(reconnects) >= KILLS
        assert follower.missed == 0
        assert lines.streams == batches.streams == {follower.stream_id}
        entries = [(entry["first"], entry["rate"]) for entry in server.get("/timeline")["entries"]]
        assert entries[1:] == promised
        status, body = server.ask("GET", f"/events?start=0&stop={due}&format=ndjson&numbered=true")
        assert status == 200
        assert all(line.startswith("--rate had no effect: ") for line in server.log.splitlines())

    lines_due = body.splitlines()
    assert [json.loads(line)["event_number"] for line in lines_due] == list(range(due))
    assert b"".join(lines.messages).splitlines()[:due] == lines_due
    assert listening.events[:due] == [json.loads(line) for line in lines_due]

    from_arrow = pa.concat_tables(pa.ipc.open_stream(message).read_all() for message in batches.messages)
    whole = pa.ipc.open_stream(reread(file, due)).read_all()
    plain = [
        field.type.value_type if pa.types.is_dictionary(field.type) else field.type for field in whole.schema
    ]
    schema = pa.schema(list(zip(whole.schema.names, plain, strict=True)))
    assert decoded(from_arrow, schema).slice(0, due).equals(decoded(whole, schema))
    made = frame.df
    made = made[made["event_number"] < due]
    expected = RollingFrame(rows=None, window=None, schema=frame.schema)
    expected.append(whole)
    pd.testing.assert_frame_equal(without_unused(made), without_unused(expected.df))
    with capsys.disabled():
        print(
            f"\n  {KILLS} kills in {time.monotonic() - began:.1f} s, restart {np.median(restarts):.2f} s, "
            f"{due} events, reconnects {reconnects}"
        )


def reread(file: Path, stop: int) -> bytes:
    """Return the events of a timeline file as Arrow, from one more server."""
    with ServerProcess("--timeline", str(file)) as server:
        status, body = server.ask("GET", f"/events?start=0&stop={stop}&format=arrow&numbered=true")
        assert status == 200
        return body


def without_unused(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a DataFrame whose categories are those that occur."""
    strings = rows.select_dtypes("category")
    used = {str(name): column.cat.remove_unused_categories() for name, column in strings.items()}
    return rows.assign(**used).reset_index(drop=True)


def decoded(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Return a table without dictionaries and metadata, so that only values count."""
    arrays = [
        pa.chunked_array(
            [
                chunk.dictionary_decode() if pa.types.is_dictionary(chunk.type) else chunk
                for chunk in table.column(name).chunks
            ]
        )
        for name in schema.names
    ]
    return pa.Table.from_arrays(arrays, schema=schema).combine_chunks()


@pytest.mark.parametrize("how", ["deleted", "cut"])
def test_a_timeline_file_that_is_damaged_in_use(tmp_path: Path, how: str) -> None:
    """It is reported in one sentence, to a caller that wants to change the stream, and in the log."""
    file = tmp_path / "timeline"
    with ServerProcess("--timeline", str(file), "--rate", "100") as server:
        if how == "deleted":
            file.unlink()
        else:
            os.truncate(file, 10)
        status, body = server.ask("PATCH", "/stream", '{"rate": 5}')
        assert status == 503
        assert json.loads(body)["detail"].startswith(f"timeline {file} ")
        assert server.get("/stream")["rate"] == 100
        assert server.terminate() == 0
        assert "Traceback" not in server.log
        assert server.log.count("\n") <= 1


# In a busy kernel


def compute_in_python(deadline: float) -> int:
    """Keep the interpreter busy."""
    count = 0
    while time.monotonic() < deadline:
        for number in range(1000):
            count += number * number % 7
    return count


def compute_in_pandas(deadline: float) -> int:
    """Sort and group a hundred thousand rows, over and over."""
    keys = np.random.default_rng(0).integers(0, 1000, 100_000)
    table = pd.DataFrame({"key": keys, "text": keys.astype(str), "value": keys * 0.5})
    count = 0
    while time.monotonic() < deadline:
        table.sort_values(["text", "value"])
        count += len(table.groupby("text")["value"].agg(["mean", "std", "median"]))
    return count


@pytest.mark.parametrize("rate", [100, 1000])
@pytest.mark.parametrize("compute", [compute_in_python, compute_in_pandas])
def test_a_computing_cell_leaves_no_silence(
    model: Model, rate: int, compute: Callable[[float], int], capsys: pytest.CaptureFixture[str]
) -> None:
    """While the main thread computes, a reader in another process waits 0.3 s at most for the next event."""
    reader = [sys.executable, "-m", "helpers.silence"]
    silences: list[float] = []
    # What the machine does besides makes some measurements worse, and none better.
    while len(silences) < 6 and min(silences, default=1.0) > 0.3:
        with (
            StreamServer(model, rate=rate, port=0) as server,
            subprocess.Popen(
                [*reader, str(server.port), "2.0"], cwd=Path(__file__).parent, stdout=subprocess.PIPE
            ) as process,
        ):
            assert process.stdout is not None
            assert process.stdout.readline() == b"reading\n"
            compute(time.monotonic() + 2.2)
            measured = json.loads(process.stdout.read())
        silences.append(measured["silence"] if measured["events"] > rate else 2.0)
    with capsys.disabled():
        print(f"\n  {compute.__name__} at {rate}/s: longest silence in s {silences}")
    assert min(silences) <= 0.3

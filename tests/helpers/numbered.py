"""The WebSocket server of the client's tests: numbered events, and any misbehaviour on request.

Event `n` is a function of `n`. `NumberedServer` runs in this process, `process` in another one, which can be
killed or stopped by signals.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

import pyarrow as pa
from websockets.exceptions import ConnectionClosed
from websockets.protocol import State
from websockets.sync.server import ServerConnection, serve

from logistream.schema import EVENT_NUMBER, EVENT_TIME, Column, Schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from websockets.http11 import Request, Response

SCHEMA = Schema((Column("n", "integer", "its number"), Column("text", "category"), EVENT_TIME))
FULL_SCHEMA = Schema((*SCHEMA, Column("more", "number", "a half of it", "apples")))
START = datetime(2026, 11, 24, tzinfo=UTC)
PARAMETERS = {"start", "format", "numbered", "placed", "faults", "columns", "where", "lag", "gather", "token"}


def event(number: int) -> dict[str, Any]:
    """Return event `number`, as JSON has it."""
    return {
        "n": number,
        "text": f"t{number % 7}",
        "event_time": f"{START + timedelta(milliseconds=number):%Y-%m-%dT%H:%M:%S.%f}Z",
    }


def text(number: int, extra: dict[str, Any] | None = None) -> str:
    """Write event `number` as the server does."""
    return json.dumps({**event(number), **(extra or {})}, separators=(",", ":"))


@dataclass
class Asked:
    """What one connection has requested."""

    form: str = "json"
    start: int = 0
    numbered: bool = False
    placed: bool = False
    columns: tuple[str, ...] = SCHEMA.names
    texts: frozenset[str] | None = None  # of the column `text`

    def wants(self, number: int) -> bool:
        """Return whether an event meets the conditions."""
        return self.texts is None or f"t{number % 7}" in self.texts

    def values(self, number: int) -> dict[str, Any]:
        """Return an event in the requested columns, as JSON has it."""
        whole = {**event(number), "more": number / 2}
        chosen = {name: whole[name] for name in self.columns}
        place = {"delivery": f"{number}.0"} if self.placed else {}
        return {**place, **chosen, **({"event_number": number} if self.numbered else {})}


def batch(numbers: Sequence[int], asked: Asked) -> pa.RecordBatch:
    """Return events as columns."""
    schema = Schema((*FULL_SCHEMA.select(asked.columns), *[EVENT_NUMBER] * asked.numbered))
    rows = [asked.values(number) for number in numbers]
    for row, number in zip(rows, numbers, strict=True):
        row["event_time"] = START + timedelta(milliseconds=number)
    arrays = [pa.array([row[column.name] for row in rows], column.arrow_field.type) for column in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema.arrow)


def messages(first: int, stop: int, asked: Asked, missed: int = 0) -> list[str | bytes]:
    """Return the messages that cover events `first` to `stop` (exclusive)."""
    numbers = [number for number in range(first, stop) if asked.wants(number)]
    if asked.form == "arrow":
        metadata = {"first_event_number": str(first), "next_event_number": str(stop)}
        if missed:
            metadata["missed_events"] = str(missed)
        rows = batch(numbers, asked).replace_schema_metadata(metadata)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, rows.schema) as stream:
            stream.write_batch(rows)
        return [sink.getvalue().to_pybytes()]
    lines = [json.dumps(asked.values(number), separators=(",", ":")) for number in numbers]
    lines = [f'{{"missed_events": {missed}}}'] * bool(missed) + lines
    return ["".join(f"{line}\n" for line in lines)] if lines else []


@dataclass
class NumberedServer:
    """Serves events 0 to `count` (exclusive); more of them happen on request.

    Attributes
    ----------
    count : int
        How many have happened; `happen` makes it more.
    stream_id : str
        Identity of the stream.
    per_message : int
        Events in a message.
    most : list of int
        Messages that the next connections get before they are cut; when it is used up, any number.
    back : int
        Begin so many events before the requested start.
    skip : dict of int to int
        On reaching an event, leave out so many.
    pause : float
        Seconds between messages.
    refuse : (status, body), optional
        Answer each handshake with this.
    denies : bool
        False: it cannot answer a handshake with a refusal, only accept and close.
    foreign : bool
        True: its answers lack our headers.
    handle : callable, optional
        Called with each connection in place of sending events; when it returns, the connection is closed.

    Attributes
    ----------
    queries : list of dict
        Of every handshake.
    authorizations : list of str or None
        Header of every handshake.
    """

    count: int
    port: int = 0
    stream_id: str = "00000000000000aa"
    per_message: int = 10
    most: list[int] = field(default_factory=list)
    back: int = 0
    skip: dict[int, int] = field(default_factory=dict)
    pause: float = 0.0
    refuse: tuple[int, str] | None = None
    denies: bool = True
    foreign: bool = False
    handle: Callable[[ServerConnection], None] | None = None

    def __post_init__(self) -> None:
        self.queries: list[dict[str, list[str]]] = []
        self.authorizations: list[str | None] = []
        self._happened = threading.Condition()
        self._ended = False
        self._connections: list[ServerConnection] = []
        self._asked: dict[ServerConnection, Asked] = {}
        self._refused: dict[ServerConnection, str] = {}
        self._server = serve(
            self._handle,
            "127.0.0.1",
            self.port,
            process_request=self._process_request,
            process_response=self._process_response,
            close_timeout=0.5,
            compression=None,
        )
        self.port = self._server.socket.getsockname()[1]
        self.url = f"ws://127.0.0.1:{self.port}/ws"
        self._thread = threading.Thread(target=self._server.serve_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.socket.close()  # first: who is cut would connect again at once
        self.cut()  # before a handler ends, which would close its connection politely
        with self._happened:
            self._ended = True
            self._happened.notify_all()
        self._server.shutdown()
        self._thread.join()

    def happen(self, count: int) -> None:
        """Let so many events happen."""
        with self._happened:
            self.count += count
            self._happened.notify_all()

    @property
    def reading(self) -> bool:
        """Whether a handshake with a start has been accepted."""
        return bool(self._asked)

    def cut(self) -> None:
        """Cut all connections, as when the process is killed: without a close frame."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)

    def _process_request(self, connection: ServerConnection, request: Request) -> Response | None:
        parts = urlsplit(request.path)
        query = parse_qs(parts.query, keep_blank_values=True)
        if parts.path != "/ws":
            return connection.respond(404, "there is only /ws")
        self.queries.append(query)
        self.authorizations.append(request.headers.get("Authorization"))
        if self.refuse is not None:
            return connection.respond(*self.refuse)
        self._connections.append(connection)
        if unknown := set(query) - PARAMETERS:
            return self._deny(connection, 422, f"unknown query parameter {min(unknown)!r}")
        start = self._number(query.get("start", ["latest"])[0])
        if start > self.count:
            return self._deny(
                connection, 416, f"event {start} has not happened yet: the newest is {self.count - 1}"
            )
        chosen = query.get("columns", [",".join(SCHEMA.names)])[0]
        columns = FULL_SCHEMA.names if chosen == "all" else tuple(chosen.split(","))
        if unknown := set(columns) - set(FULL_SCHEMA.names):
            return self._deny(connection, 422, f"no column {min(unknown)!r}")
        texts = {condition.removeprefix("text:") for condition in query.get("where", [])}
        self._asked[connection] = Asked(
            query.get("format", ["json"])[0],
            start,
            query.get("numbered") == ["true"],
            query.get("placed") == ["true"],
            columns,
            frozenset(texts) if texts else None,
        )
        return None

    def _number(self, start: str) -> int:
        if start in ("earliest", "latest"):
            return 0 if start == "earliest" else self.count
        if start.isdigit():
            return int(start)
        slot, _, index = start.partition(".")
        if slot.isdigit() and index.isdigit():
            return int(slot) + (int(index) > 0)
        return (datetime.fromisoformat(start) - START) // timedelta(milliseconds=1) + 1

    def _deny(self, connection: ServerConnection, status: int, sentence: str) -> Response | None:
        if not self.denies:
            self._refused[connection] = sentence
            return None
        response = connection.respond(status, json.dumps({"detail": sentence}))
        response.headers["Logistream-Stream"] = self.stream_id
        return response

    def _process_response(self, connection: ServerConnection, request: Request, response: Response) -> None:  # noqa: ARG002
        if not self.foreign and response.status_code == 101 and connection not in self._refused:
            response.headers["Logistream-Stream"] = self.stream_id
            response.headers["Logistream-Event-Number"] = str(self._asked[connection].start)

    def _handle(self, connection: ServerConnection) -> None:
        if connection in self._refused:
            connection.close(1008, self._refused[connection])
            return
        if self.handle is not None:
            with contextlib.suppress(ConnectionClosed):
                self.handle(connection)
            return
        most = self.most.pop(0) if self.most else None
        asked = self._asked[connection]
        cursor, sent, missed = max(0, asked.start - self.back), 0, 0
        with contextlib.suppress(ConnectionClosed, OSError):
            while sent != most:
                with self._happened:
                    while cursor >= self.count and not self._ended:
                        if connection.protocol.state is not State.OPEN:
                            return
                        self._happened.wait(0.02)
                    stop = min(cursor + self.per_message, self.count)
                if self._ended:
                    return
                if jump := self.skip.pop(cursor, 0):
                    missed, cursor = jump, cursor + jump
                    stop = min(cursor + self.per_message, self.count)
                for message in messages(cursor, stop, asked, missed):
                    connection.send(message)
                cursor, missed, sent = stop, 0, sent + 1
                if self.pause:
                    threading.Event().wait(self.pause)
            connection.socket.shutdown(socket.SHUT_RDWR)


def until_closed(connection: ServerConnection) -> None:
    """Wait until the other side is gone."""
    for _ in connection:
        pass


@contextlib.contextmanager
def process(count: int, port: int = 0, pause: float = 0.0) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Run a `NumberedServer` in a process of its own, killed at the end; yield the process and its port."""
    command = [sys.executable, "-m", "helpers.numbered", str(count), str(port), str(pause)]
    with subprocess.Popen(
        command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            yield server, int(server.stdout.readline())
        finally:
            server.kill()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("port", type=int)
    parser.add_argument("pause", type=float)
    options = parser.parse_args()
    with NumberedServer(options.count, port=options.port, pause=options.pause) as server:
        print(server.port, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()

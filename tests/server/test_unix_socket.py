"""A server on a Unix socket: private, used like any other, and gone when the server ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest
from websockets.sync.client import unix_connect

from helpers.waiting import until
from logistream.errors import PortInUseError, RequestError, StreamError
from logistream.server.server import StreamServer
from logistream.server.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from logistream.model.model import Model

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")


@pytest.fixture
def path() -> Iterator[Path]:
    """Give a path for a socket, short enough for every system."""
    with tempfile.TemporaryDirectory(prefix="ls-") as folder:
        yield Path(folder) / "socket"


def client(path: Path) -> httpx2.Client:
    """Return an HTTP client of the socket."""
    return httpx2.Client(
        transport=httpx2.HTTPTransport(uds=str(path)), base_url="http://localhost", timeout=60
    )


def test_it_serves_as_over_a_port(model: Model, path: Path) -> None:
    """HTTP, the WebSocket and a proxy's headers; the file is private, and there only while it runs."""
    with StreamServer(model, rate=200, unix_socket=path) as server:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert server.unix_socket == path
        assert str(path) in repr(server)
        with (
            client(path) as http,
            unix_connect(str(path), "ws://localhost/ws?numbered=true&start=0", max_queue=None) as reader,
        ):
            events = [json.loads(reader.recv(timeout=60)) for _ in range(20)]
            assert [event["event_number"] for event in events] == list(range(20))
            assert http.get("/events?numbered=true&stop=20").json() == events
            assert http.patch("/stream", json={"rate": 100}).json()["rate"] == 100
            assert http.get("/").json()["websocket_url"] == "ws://localhost/ws"
            secure = http.get("/", headers={"X-Forwarded-Proto": "https"}).json()
            assert secure["websocket_url"] == "wss://localhost/ws"
    assert not path.exists()


def test_a_cell_can_be_run_again(model: Model, path: Path) -> None:
    """A server of this process that has the socket is stopped, and does not remove the new file."""
    first = StreamServer(model, unix_socket=path).start()
    with StreamServer(model, unix_socket=path), client(path) as http:
        assert not first.running
        first.stop()
        assert http.get("/health").status_code == 200
    assert not path.exists()


def test_a_port_of_another_program_stops_no_server(model: Model, path: Path) -> None:
    """A server on a Unix socket holds no port, whatever its setting is."""
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        StreamServer(model, unix_socket=path, port=other.getsockname()[1]) as server,
    ):
        with pytest.raises(PortInUseError):
            StreamServer(model, port=server.port).start()
        assert server.running


def test_a_file_of_another_is_left_alone(model: Model, path: Path) -> None:
    """A socket on which another program listens, a file, a folder that is not there, too long a path."""
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(StreamError, match=f"^cannot listen on {path}: another server listens there, or"):
            StreamServer(model, unix_socket=path).start()
    path.unlink()
    path.write_text("mine")
    with pytest.raises(StreamError, match="another server listens there, or it is another file; choose"):
        StreamServer(model, unix_socket=path).start()
    assert path.read_text() == "mine"
    with pytest.raises(StreamError, match="nowhere/socket: No such file or directory; choose another path"):
        StreamServer(model, unix_socket=path.parent / "nowhere" / "socket").start()
    with pytest.raises(StreamError, match="AF_UNIX path too long; choose another path"):
        StreamServer(model, unix_socket=path.parent / ("x" * 200)).start()
    with pytest.raises(
        RequestError, match=r"^workers share a port, not a Unix socket: leave out --workers or"
    ):
        Workers(2, unix_socket=path)


@pytest.mark.slow
def test_from_the_command_line(path: Path) -> None:
    """SIGTERM removes the file; after a kill, the next server replaces it."""
    command = [sys.executable, "-m", "logistream", "serve", "--unix-socket", str(path)]
    for end in (signal.SIGKILL, signal.SIGTERM):
        # After a kill the file is there, and nobody listens.
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline().startswith("Streaming ")
                assert process.stdout.readline().strip() == f"socket  {path}"
                with client(path) as http:
                    assert http.get("/stream").json()["rate"] == 2
                os.kill(process.pid, end)
                process.communicate(timeout=60)
            finally:
                process.kill()
        assert path.exists() == (end == signal.SIGKILL)


@pytest.mark.slow
def test_a_reader_that_does_not_read_is_bounded(model: Model, path: Path) -> None:
    """It is a cursor, as over TCP: another one gets its events meanwhile, and the server ends at once."""
    with (
        StreamServer(model, rate=20_000, unix_socket=path) as server,
        unix_connect(str(path), "ws://localhost/ws", max_queue=1, close_timeout=0.1),
        unix_connect(str(path), "ws://localhost/ws?format=ndjson&numbered=true", max_queue=None) as reader,
    ):
        until(lambda: server.connected_clients == 2)
        number = -1
        while number < 20_000:
            number = json.loads(str(reader.recv(timeout=60)).splitlines()[-1])["event_number"]
    assert not path.exists()

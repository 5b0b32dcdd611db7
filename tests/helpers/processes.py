"""The server as users run it, `logistream serve`, and other programs in processes of their own."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import pytest

import logistream.server.protocol as protocol_module
import logistream.server.server as server_module
from helpers.sockets import free_port

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ServerProcess", "children", "give_readers_time", "resident", "run_python"]

_ANNOUNCED = re.compile(r"ws://127\.0\.0\.1:(\d+)/ws")
_ENDS_WITHIN = 60.0  # seconds
_PROGRAM = [sys.executable, "-m", "logistream"]


class ServerProcess:
    """`logistream serve` with some options; a context manager that starts it and ends it with SIGTERM.

    Parameters
    ----------
    *options : str
        Of `logistream serve`, but not `--port`.
    port : int, optional
        The same when it is started again; without one, a free one is taken.
    environment : mapping of str to str
        Variables in addition to those of this process.
    files : int or None
        How many files it may open, if not as many as this process.
    """

    def __init__(
        self,
        *options: str,
        port: int | None = None,
        environment: Mapping[str, str] | None = None,
        files: int | None = None,
    ) -> None:
        self._files = files
        self._options, self.port = options, free_port() if port is None else port
        self._environment = {**os.environ, **(environment or {})}
        self._folder = tempfile.TemporaryDirectory(prefix="logistream-test-")
        self._errors = Path(self._folder.name) / "stderr"
        self._process: subprocess.Popen[str] | None = None
        self._reported = 0  # characters of the log
        self._whole: str | None = None  # the log, when all is over

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            try:
                self.terminate()
            except subprocess.TimeoutExpired:
                self.kill()
        self._whole = self.log
        self._folder.cleanup()

    @property
    def pid(self) -> int:
        """Number of the process."""
        assert self._process is not None
        return self._process.pid

    @property
    def url(self) -> str:
        """Address of the WebSocket."""
        return f"ws://127.0.0.1:{self.port}/ws"

    @property
    def log(self) -> str:
        """What it has written to stderr so far, through all restarts."""
        return self._errors.read_text() if self._whole is None else self._whole

    def news(self) -> str:
        """Return what it has written to stderr since this was called last."""
        log = self.log
        begin, self._reported = self._reported, len(log)
        return log[begin:]

    def start(self) -> Self:
        """Start it and wait until it listens."""
        command = [*_PROGRAM, "serve", "--port", str(self.port), *self._options]
        with self._errors.open("a") as errors:
            if self._files is not None:
                command = ["sh", "-c", f'ulimit -n {self._files} && exec "$@"', "sh", *command]
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, text=True, env=self._environment
            )
        found = None
        while found is None:
            line = self._output.readline()
            assert line, f"the server has ended without an address: {self.log}"
            found = _ANNOUNCED.search(line)
        self.port = int(found[1])
        return self

    def kill(self) -> None:
        """End it with SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._output.close()
        self._process = None

    def terminate(self) -> int:
        """End it with SIGTERM; return the exit code."""
        return self.end(signal.SIGTERM)

    def end(self, sent: signal.Signals) -> int:
        """End it with a signal; return the exit code."""
        assert self._process is not None
        self._process.send_signal(sent)
        code = self._process.wait(_ENDS_WITHIN)
        self._output.close()
        self._process = None
        return code

    def get(self, path: str) -> Any:
        """Return the JSON that a GET answers."""
        return json.loads(self.ask("GET", path)[1])

    def patch(self, **settings: object) -> Any:
        """Change the stream; return the answer."""
        status, body = self.ask("PATCH", "/stream", json.dumps(settings))
        assert status == 200, body
        return json.loads(body)

    def ask(self, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
        """Return status and body of the answer to one request."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()

    @property
    def _output(self) -> IO[str]:
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout


def give_readers_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a server of this process wait, when it stops, until its readers have read all and closed, too."""
    monkeypatch.setattr(server_module, "_CLOSE_WITHIN", 60.0)
    monkeypatch.setattr(protocol_module, "LINGER", 60.0)


def run_python(program: str, *, within: float = 100) -> subprocess.CompletedProcess[str]:
    """Run a program in a Python of its own, for at most `within` seconds; return its code and its output."""
    command = [sys.executable, "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=within, check=False)


def resident(pid: int) -> float:
    """Return the resident memory of a process in MiB; skip the test where the system does not report it."""
    status = Path(f"/proc/{pid}/status")
    if not status.exists():
        pytest.skip("needs /proc")
    found = re.search(r"VmRSS:\s+(\d+) kB", status.read_text())
    assert found is not None
    return int(found[1]) / 1024


def children(pid: int) -> list[int]:
    """Return the processes that a process has started; skip the test where the system does not report it."""
    tasks = Path(f"/proc/{pid}/task")
    if not tasks.exists():
        pytest.skip("needs /proc")
    return [int(child) for task in tasks.iterdir() for child in (task / "children").read_text().split()]

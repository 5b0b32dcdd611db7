"""The schema that a server publishes: asked for over HTTP, on a thread that can be called off."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import urllib.request
from typing import TYPE_CHECKING, Any

from logistream.client.listener import OPEN_TIMEOUT
from logistream.errors import RequestError
from logistream.schema import Schema
from logistream.stream.query import PARAMETERS
from logistream.urls import is_local, schema_url, websocket_url

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ask_schema", "fetch_schema"]


_LARGEST_SCHEMA = 64 * 1024 * 1024  # bytes


def fetch_schema(url: str, *, token: str | None = None) -> Schema | None:
    """Ask a server for the schema of its events; blocks.

    Parameters
    ----------
    url : str
        Any address that `connect` takes.
    token : str, optional
        What a server off this machine demands.

    Returns
    -------
    Schema or None
        None if the server does not publish one.

    Raises
    ------
    OSError
        The server cannot be reached at the moment.
    RequestError
        What it publishes is not the schema of an event.
    """
    return _Request(url, token).answer()


async def ask_schema(url: str, *, token: str | None = None) -> Schema | None:
    """Do what `fetch_schema` does without holding up the loop; ends at once when cancelled."""
    request = _Request(url, token)
    loop, answered = asyncio.get_running_loop(), asyncio.Event()
    outcome: list[Schema | Exception | None] = []

    def run() -> None:
        try:
            outcome.append(request.answer())
        except Exception as error:  # noqa: BLE001 - raised again where it was asked for
            outcome.append(error)
        with contextlib.suppress(RuntimeError):  # called off, and the loop has ended
            loop.call_soon_threadsafe(answered.set)

    # Not a thread of the loop's pool, for which the loop would wait at its end.
    threading.Thread(target=run, name=f"logistream schema of {url}", daemon=True).start()
    try:
        await answered.wait()
    finally:
        request.call_off()
    if isinstance(outcome[0], Exception):
        raise outcome[0]
    return outcome[0]


class _Request:
    """One request for a schema, which another thread can call off."""

    def __init__(self, url: str, token: str | None) -> None:
        typed = websocket_url(url)
        self._url = schema_url(typed, leave_out=PARAMETERS)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        # A proxy would look for loopback on its own machine.
        handlers = [urllib.request.ProxyHandler({})] if is_local(typed) else []
        self._opener = urllib.request.build_opener(*handlers, *_handlers(self._note))
        self._sockets: list[socket.socket] = []
        self._called_off = False

    def answer(self) -> Schema | None:
        """Return the schema; see `fetch_schema`."""
        request = urllib.request.Request(self._url, headers=self._headers)  # noqa: S310 - one of two schemes
        try:
            with self._opener.open(request, timeout=OPEN_TIMEOUT) as answer:
                body = answer.read(_LARGEST_SCHEMA)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code >= 500:
                raise
            return None
        except http.client.HTTPException as error:
            raise OSError(f"no answer from {self._url}: {error!r}") from error
        try:
            return Schema.from_json_schema(json.loads(body))
        except ValueError as error:
            raise RequestError(f"the schema at {self._url} cannot be used: {error}") from error

    def call_off(self) -> None:
        """Have `answer` end at once, with whatever error."""
        self._called_off = True
        for connected in self._sockets:
            with contextlib.suppress(OSError):
                connected.shutdown(socket.SHUT_RDWR)

    def _note(self, connected: socket.socket) -> None:
        self._sockets.append(connected)
        if self._called_off:
            self.call_off()


def _handlers(note: Callable[[socket.socket], None]) -> list[urllib.request.BaseHandler]:
    """Return what opens addresses as usual and tells which sockets it does that with."""

    class Plain(http.client.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            note(self.sock)

    class Secure(http.client.HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            note(self.sock)

    class PlainHandler(urllib.request.HTTPHandler):
        def http_open(self, request: urllib.request.Request) -> Any:  # noqa: ANN401 - as its base
            return self.do_open(Plain, request)

    class SecureHandler(urllib.request.HTTPSHandler):
        def https_open(self, request: urllib.request.Request) -> Any:  # noqa: ANN401 - as its base
            return self.do_open(Secure, request)

    return [PlainHandler(), SecureHandler()]

"""A record of each request and each WebSocket connection, as one line of JSON.

The logger `logistream.access` is silent until somebody sets its level to INFO: in a notebook every line would
land in a cell. Secrets are left out, and JSON in ASCII leaves a stranger no character with which to end a
line and begin a record of its own, or to steer a terminal.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from logistream.times import rfc3339, wall_clock

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["AccessLogMiddleware", "log_to_stderr"]


logger = logging.getLogger("logistream.access")
if logger.level == logging.NOTSET:  # a program that wants to see its own INFO does not ask for ours
    logger.setLevel(logging.WARNING)

_SECRET = "***"  # noqa: S105 - what stands in its place
_SWITCHING_PROTOCOLS, _FORBIDDEN, _FAILED = 101, 403, 500


class _StderrHandler(logging.StreamHandler[Any]):
    """Ours, so that it can be told from those of others."""


def log_to_stderr() -> None:
    """Write the records to stderr, each on a line, and nowhere else; calling it again changes nothing."""
    for handler in list(logger.handlers):
        if isinstance(handler, _StderrHandler):
            logger.removeHandler(handler)
    handler = _StderrHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False


class AccessLogMiddleware:
    """Log what is asked of an ASGI application and how it was answered; to be the outermost middleware.

    A record of a request has these keys: `time` (RFC 3339, when it was answered in full), `client` (address
    and port), `method`, `path`, `query` (as it was sent, without secrets), `status`, `seconds` (from the
    request on) and `bytes` (of the body). A WebSocket, with method `WEBSOCKET`, has a record with `status`
    when it is accepted (101) or refused, and after an acceptance another with the close `code` when it ends.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a connection on, and note what becomes of it if anybody wants to know."""
        if logger.isEnabledFor(logging.INFO) and scope["type"] in ("http", "websocket"):
            record = _Request(scope) if scope["type"] == "http" else _Connection(scope)
            await record.run(self.app, receive, send)
        else:
            await self.app(scope, receive, send)


class _Exchange:
    """One request or connection, while it lasts."""

    def __init__(self, scope: Scope, method: str) -> None:
        self._began = time.monotonic()
        self._scope = scope
        self._asked = {
            "client": _address(scope.get("client")),
            "method": method,
            "path": scope["path"],
            "query": _without_secrets(scope.get("query_string", b"")),
        }

    async def run(self, app: ASGIApp, receive: Receive, send: Send) -> None:
        """Have the application answer."""

        async def heard() -> MutableMapping[str, Any]:
            message = await receive()
            self.received(message)
            return message

        async def said(message: MutableMapping[str, Any]) -> None:
            await send(message)
            self.sent(message)

        failed = True
        try:
            await app(self._scope, heard, said)
            failed = False
        finally:
            self.ended(failed)

    def received(self, message: MutableMapping[str, Any]) -> None:
        """Take note of what the client says."""

    def sent(self, message: MutableMapping[str, Any]) -> None:
        """Take note of what the application says."""

    def ended(self, failed: bool) -> None:
        """Take note that the application is done, or has failed."""

    def log(self, **told: int | None) -> None:
        """Write a record."""
        record = {
            "time": rfc3339(wall_clock()),
            **self._asked,
            **told,
            "seconds": round(time.monotonic() - self._began, 6),
        }
        logger.info(json.dumps(record))


class _Request(_Exchange):
    """An HTTP request."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope, scope["method"])
        self._status: int | None = None
        self._bytes = 0

    def sent(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
        elif message["type"] == "http.response.body":
            self._bytes += len(message.get("body", b""))

    def ended(self, failed: bool) -> None:
        # What fails before it has answered is answered further out.
        self.log(status=_FAILED if failed and self._status is None else self._status, bytes=self._bytes)


class _Connection(_Exchange):
    """A WebSocket connection."""

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope, "WEBSOCKET")
        self._accepted = self._answered = False
        self._code: int | None = None

    def received(self, message: MutableMapping[str, Any]) -> None:
        if message["type"] == "websocket.disconnect" and self._code is None:
            self._code = message.get("code")

    def sent(self, message: MutableMapping[str, Any]) -> None:
        kind = message["type"]
        if kind == "websocket.accept":
            self._accepted = True
            self._answer(_SWITCHING_PROTOCOLS)
        elif kind == "websocket.http.response.start":
            self._answer(message["status"])
        elif kind == "websocket.close":
            if self._answered:
                self._code = message.get("code", 1000)
            else:
                self._answer(_FORBIDDEN)  # what a server makes of it, by the ASGI specification

    def ended(self, failed: bool) -> None:
        if self._accepted:
            self.log(code=self._code)
        elif failed and not self._answered:
            self._answer(_FAILED)

    def _answer(self, status: int) -> None:
        self._answered = True
        self.log(status=status)


def _address(client: tuple[str, int] | None) -> str | None:
    """Return address and port of the other side, as in a URL; None if it has none."""
    if client is None:
        return None
    host, port = client
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _without_secrets(query: bytes) -> str:
    """Return a query string without what is, or is meant to be, a token."""
    return "&".join(map(_without_token, query.decode("latin-1").split("&")))


def _without_token(part: str) -> str:
    name, equals, _ = part.partition("=")
    if "token" not in unquote_plus(part).lower():
        return part
    # `?start=0?token=...` and the like are refused, but the token in them is no less secret.
    return f"{name}={_SECRET}" if equals and name.lower() == "token" else _SECRET

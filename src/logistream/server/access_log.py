"""A record of each request and each WebSocket connection, as one line of JSON.

The logger `logistream.access` is silent until its level is set to INFO: in a notebook every line would land
in a cell. Secrets are left out. JSON in ASCII holds no character with which a request could end a line, forge
a record, or control a terminal.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

from logistream.server.logs import ACCESS_LOGGER, json_line
from logistream.times import wall_clock

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["with_access_log"]


logger = logging.getLogger(ACCESS_LOGGER)
if logger.level == logging.NOTSET:  # a program that shows its own INFO records need not show ours
    logger.setLevel(logging.WARNING)

_SECRET = "***"  # noqa: S105 - what stands in its place
_ANSWERS = {"websocket.accept": 101, "websocket.close": 403, "websocket.http.response.start": 0}
"""HTTP status of each message that answers a handshake; the last names its own."""


def with_access_log(app: ASGIApp) -> ASGIApp:
    """Return an ASGI application that logs the requests to another; it must be the outermost middleware.

    A record of a request has these keys: `time` (RFC 3339, when it was answered in full), `client` (address
    and port), `method`, `path`, `query` (as it was sent, without secrets), `status`, `bytes` (of the body)
    and `seconds` (from the request on). A WebSocket, with method `WEBSOCKET`, has a record with `status`
    when it is accepted (101) or refused, and after an acceptance another with the close `code` when it ends.
    """

    async def logged(scope: Scope, receive: Receive, send: Send) -> None:
        if not logger.isEnabledFor(logging.INFO) or scope["type"] not in ("http", "websocket"):
            await app(scope, receive, send)
            return
        began = time.monotonic()
        request = {
            "client": _address(scope.get("client")),
            "method": scope.get("method", "WEBSOCKET"),
            "path": scope["path"],
            "query": _without_secrets(scope.get("query_string", b"")),
        }
        status: int | None = None
        code: int | None = None
        size = 0

        def log(**found: int | None) -> None:
            seconds = round(time.monotonic() - began, 6)
            logger.info(json_line(wall_clock(), **request, **found, seconds=seconds))

        async def receive_and_note() -> Message:
            nonlocal code
            message = await receive()
            if message["type"] == "websocket.disconnect" and code is None:
                code = message.get("code")
            return message

        async def send_and_note(message: Message) -> None:
            nonlocal status, code, size
            await send(message)
            kind = message["type"]
            if kind == "http.response.body":
                size += len(message.get("body", b""))
            elif kind == "http.response.start":
                status = message["status"]
            elif kind == "websocket.close" and status is not None:
                code = message.get("code", 1000)
            elif kind in _ANSWERS:
                status = message.get("status", _ANSWERS[kind])
                log(status=status)

        failed = True
        try:
            await app(scope, receive_and_note, send_and_note)
            failed = False
        finally:
            if scope["type"] == "http":
                # What fails before it has answered is answered further out.
                log(status=500 if failed and status is None else status, bytes=size)
            elif status == 101:
                log(code=code)
            elif failed and status is None:
                log(status=500)

    return logged


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
    # `?start=0?token=...` and the like are refused, but the token in them is still secret.
    return f"{name}={_SECRET}" if equals and name.lower() == "token" else _SECRET

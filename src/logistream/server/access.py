"""Who may use the server: origins of browser pages, host names, token.

The server listens on loopback, where every page in a browser could reach it. So a page is served
only if it comes from this server, from a server on the same machine (JupyterLab, a development server), or
from an origin that was allowed by name. A page without an origin (opened from a file, or sandboxed by
another page: the origin of both is `null`) must be allowed by that name too.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.responses import JSONResponse
from starlette.websockets import WebSocket
from websockets.frames import CloseCode

from logistream.errors import RequestError, shorten
from logistream.urls import is_address, is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = [
    "BODY_WITHIN",
    "LONGEST_DETAIL",
    "AccessMiddleware",
    "AccessRules",
    "AllowedPagesMiddleware",
    "AnswerMiddleware",
    "BodyLimitMiddleware",
    "is_head",
    "refuse",
]


_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
BODY_WITHIN = 10.0
"""Seconds that a request has to send its body."""

LONGEST_DETAIL = 1000
"""Characters of the sentence that refuses an HTTP request; it may quote a long value of the caller."""

_HEAD = "logistream.head"
_REASON_BYTES = 123  # what a WebSocket close frame has room for

_ORIGIN = re.compile(r"https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?")

_NO_SECRETS = ("/docs", "/openapi.json", "/health")
"""The description of the interface is open, so that Swagger UI can be loaded and then given the token. What
probes ask is open too."""


@dataclass(frozen=True)
class AccessRules:
    """What a caller must have to be served.

    Parameters
    ----------
    allow_origins : tuple of str
        Origins of pages that may talk to the server besides those on this machine, such as
        `https://example.org`; `null` for pages without an origin; `*` for all.
    token : str or None
        Required as `?token=` or `Authorization: Bearer`; None requires no token.

    Raises
    ------
    RequestError
        For something that is not an origin, or a token that could not be sent.
    """

    allow_origins: tuple[str, ...] = ()
    token: str | None = None

    def __post_init__(self) -> None:
        for origin in self.allow_origins:
            if origin not in ("*", "null") and not _ORIGIN.fullmatch(origin):
                raise RequestError(
                    f"an allowed origin is written like https://example.org or http://localhost:3000, "
                    f"without a path, or is null or *; not {origin!r}"
                )
        if self.token is not None and not (
            self.token.isascii() and self.token.isprintable() and self.token.strip()
        ):
            raise RequestError("a token is made of printable ASCII characters and is not empty")

    def refusal(self, connection: HTTPConnection) -> tuple[int, str] | None:
        """Return the HTTP status and the sentence of a refusal, None if the caller may pass."""
        host, origin = connection.headers.get("host"), connection.headers.get("origin")
        # Without this, any page could be served under a name that points to this machine and pass as the
        # server's own (DNS rebinding). A token makes that useless.
        if self.token is None and host is not None and not self._is_known_host(host):
            return (
                403,
                f"host name {host!r} is not known here: use localhost or the address, or allow its origin",
            )
        if origin is not None and not self.allows_origin(origin, host or ""):
            return (
                403,
                f"pages from origin {origin!r} are not allowed: add it to the allowed origins of the server",
            )
        if self.token is not None and not _path(connection.scope).startswith(_NO_SECRETS):
            given = _given_token(connection)
            if given is None:
                return 401, "a token is required: add ?token=... or the header Authorization: Bearer ..."
            if not hmac.compare_digest(given.encode(), self.token.encode()):
                return 401, "the token is not the one this server was started with"
        return None

    def allows_origin(self, origin: str, host: str = "") -> bool:
        """Return whether a page from `origin` may use the server that its browser calls `host`."""
        if origin in self.allow_origins or "*" in self.allow_origins:
            return True
        scheme = origin.partition(":")[0]
        name, port = _address(origin)
        return name is not None and (is_loopback(name) or (name, port) == _address(f"{scheme}://{host}"))

    def _is_known_host(self, host: str) -> bool:
        name, _ = _address(f"//{host}")
        if "*" in self.allow_origins or name in {_address(origin)[0] for origin in self.allow_origins}:
            return True
        return name is not None and (is_loopback(name) or is_address(name))


class AccessMiddleware:
    """Refuse HTTP requests and WebSocket handshakes that break the rules, before anything else runs."""

    def __init__(self, app: ASGIApp, *, rules: AccessRules, on_refusal: Callable[[], None]) -> None:
        self.app = app
        self.rules = rules
        self.on_refusal = on_refusal  # of a WebSocket

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a connection on, or answer it with the refusal."""
        if scope["type"] in ("http", "websocket") and (refusal := self.rules.refusal(HTTPConnection(scope))):
            status, sentence = refusal
            if scope["type"] == "websocket":
                self.on_refusal()
                await refuse(WebSocket(scope, receive, send), status, sentence)
            else:
                await _answer(status, sentence)(scope, receive, send)
            return
        await self.app(scope, receive, send)


class BodyLimitMiddleware:
    """Refuse a body that is larger than `limit` bytes, or takes longer than `BODY_WITHIN` seconds to come."""

    def __init__(self, app: ASGIApp, *, limit: int) -> None:
        self.app = app
        self.limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and count the bytes of its body."""
        size, complete = 0, False
        deadline = asyncio.get_running_loop().time() + BODY_WITHIN

        async def counted() -> Message:
            nonlocal size, complete
            try:
                async with asyncio.timeout_at(None if complete else deadline):
                    message = await receive()
            except TimeoutError:
                sentence = f"the body of the request did not come within {BODY_WITHIN:g} s"
                raise HTTPException(408, sentence, {"Connection": "close"}) from None
            complete = not message.get("more_body", False)
            size += len(message.get("body", b""))
            if size > self.limit:
                raise HTTPException(413, f"the body of a request may have {self.limit:,} bytes at most")
            return message

        await self.app(scope, counted if scope["type"] == "http" else receive, send)


class AnswerMiddleware:
    """Answer HEAD as GET without the body, and have browsers believe the content type of every answer.

    `root_path` is the path under which a proxy shows the application; addresses in answers begin with it.
    """

    def __init__(self, app: ASGIApp, *, root_path: str) -> None:
        self.app, self.root_path = app, root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if self.root_path and scope["type"] in ("http", "websocket"):  # by ASGI the path has the root path
            scope = {**scope, "root_path": self.root_path, "path": self.root_path + scope["path"]}
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        head = scope["method"] == "HEAD"

        async def send_it(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Content-Type-Options"] = "nosniff"
            elif head:
                message = {**message, "body": b""}
            await send(message)

        await self.app({**scope, "method": "GET", _HEAD: True} if head else scope, receive, send_it)


def is_head(scope: Scope) -> bool:
    """Return whether the body of an answer will not be sent."""
    return _HEAD in scope


class AllowedPagesMiddleware(CORSMiddleware):
    """Let pages of other origins, where the rules allow them, read the answers and change the stream."""

    def __init__(self, app: ASGIApp, *, rules: AccessRules) -> None:
        super().__init__(app, allow_methods=["GET", "PATCH"], allow_headers=["Authorization", "Content-Type"])
        self.rules = rules

    def is_allowed_origin(self, origin: str) -> bool:
        """Return whether a page from this origin may read answers."""
        return self.rules.allows_origin(origin)


async def refuse(
    websocket: WebSocket, status: int, sentence: str, headers: Mapping[str, str] | None = None
) -> None:
    """End a WebSocket handshake with an HTTP answer, or with a close code where none is possible."""
    if "websocket.http.response" in websocket.scope.get("extensions", {}):
        await websocket.send_denial_response(_answer(status, sentence, headers))
        return
    await websocket.accept()
    code = CloseCode.TRY_AGAIN_LATER if status == 503 else CloseCode.POLICY_VIOLATION
    await websocket.close(code, sentence.encode()[:_REASON_BYTES].decode(errors="ignore"))


def _address(url: str) -> tuple[str | None, int | None]:
    """Return host and port of a URL; no host if it is not one."""
    try:
        parts = urlsplit(url)
        return parts.hostname, parts.port or _DEFAULT_PORTS.get(parts.scheme)
    except ValueError:
        return None, None


def _path(scope: Scope) -> str:
    """Return the path below the one under which a proxy shows the application."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))


def _given_token(connection: HTTPConnection) -> str | None:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return connection.query_params.get("token")


def _answer(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    needed = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return JSONResponse({"detail": shorten(sentence, LONGEST_DETAIL)}, status, {**needed, **(headers or {})})

"""The FastAPI application: one stream over HTTP and WebSocket.

Every reader of `/ws` is one task with one cursor, the number of its next event. There is no queue: a slow
reader is only further behind in a stream that can be made again at any place, and delays nobody.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from importlib import resources
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Depends, FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel, ConfigDict, Field

import logistream
from logistream.access import AccessMiddleware, AccessRules, AllowedPagesMiddleware, refuse
from logistream.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from logistream.stream import Stream

__all__ = ["create_app"]

_BEAT = 0.01
"""Seconds: above 1 / _BEAT events per second, what falls due within a beat is sent together."""

_LONGEST_WAIT = 1.0
"""Seconds after which a reader looks at the clock again, in case somebody has set it."""

_BURST = 256
"""Events sent to one reader before the others have their turn."""


class Refusal(BaseModel):
    """Why a request was refused."""

    detail: str = Field(description="one sentence: what came, and what is allowed")


class Status(BaseModel):
    """Whether the stream runs and where to read it."""

    status: Annotated[str, Field(pattern="^(running|paused)$")]
    connected_clients: int = Field(description="readers of the WebSocket at this moment")
    websocket_url: str = Field(description="with the host and port that the caller used")


class StreamState(BaseModel):
    """What is in force."""

    rate: float = Field(description="events per second")
    paused: bool
    scenario: str | None = Field(description="what-if change in force")
    seed: int
    next_event_number: int = Field(description="how many events have happened since event 0")
    started: str = Field(description="when event 0 happened, RFC 3339 in UTC")
    model: str = Field(description="name of the fitted model")


class ChangedState(StreamState):
    """The new state."""

    from_event_number: int = Field(description="the first event to which it applies")


class StreamChange(BaseModel):
    """What to set; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", strict=True)

    rate: float | None = Field(None, description="events per second, from 0.001 to 1,000,000")
    paused: bool | None = None
    scenario: str | None = Field(None, description="name of a what-if change")


class _Readers:
    """The readers of one application: how many there are, and a way to wake them all."""

    def __init__(self) -> None:
        self.wakes: set[asyncio.Event] = set()

    def wake_all(self) -> None:
        for wake in self.wakes:
            wake.set()


def create_app(stream: Stream, *, allow_origins: Iterable[str] = (), token: str | None = None) -> FastAPI:
    """Return the application that serves a stream.

    Parameters
    ----------
    stream : Stream
        What is served.
    allow_origins : iterable of str
        Origins of browser pages that may use the server, besides its own and those of this machine.
    token : str or None
        Demanded of every caller if given.

    Returns
    -------
    FastAPI
        With `app.state.readers.wakes` holding one item per connected reader.

    Raises
    ------
    RequestError
        For an origin or a token that cannot be.
    """
    rules = AccessRules(tuple(allow_origins), token)
    readers = _Readers()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        unsubscribe = stream.subscribe(lambda: loop.call_soon_threadsafe(readers.wake_all))
        yield
        unsubscribe()

    app = FastAPI(
        title="Logistream",
        version=logistream.__version__,
        summary="Synthetic logistics events, live.",
        description=_DESCRIPTION,
        docs_url=None,  # ours loads nothing from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        responses={422: {"model": Refusal, "description": "a sentence that says what is allowed"}},
    )
    app.state.readers = readers
    app.add_middleware(AccessMiddleware, rules=rules)
    app.add_middleware(AllowedPagesMiddleware, rules=rules)
    app.add_exception_handler(RequestError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.include_router(
        _http_routes(stream, readers),
        dependencies=[Depends(HTTPBearer(auto_error=False))] * (token is not None),
    )
    _add_docs(app)

    @app.websocket("/ws")
    async def events(websocket: WebSocket) -> None:
        try:
            _check_query(websocket.query_params.keys())
        except RequestError as error:
            await refuse(websocket, 422, str(error))
            return
        await websocket.accept()
        await _serve_reader(websocket, stream, readers)

    return app


_DESCRIPTION = """
Events come over the WebSocket `/ws`: from the moment of connecting on, one JSON text message per event, at
the rate in force. `GET /schema` says what an event holds.
"""


def _http_routes(stream: Stream, readers: _Readers) -> APIRouter:
    router = APIRouter()

    @router.get("/", summary="Is it running?")
    async def status(request: Request) -> Status:
        """Tell whether the stream runs, how many read it, and where."""
        _check_query(request.query_params.keys())
        scheme = "wss" if request.url.scheme == "https" else "ws"
        return Status(
            status="paused" if stream.paused else "running",
            connected_clients=len(readers.wakes),
            websocket_url=f"{scheme}://{request.url.netloc}/ws",
        )

    @router.get("/stream", summary="What is in force")
    async def state(request: Request) -> StreamState:
        """Tell rate, pause, seed, model, and the number of the next event."""
        _check_query(request.query_params.keys())
        return StreamState(**stream.state)

    @router.patch("/stream", summary="Set rate or pause")
    async def change(request: Request, wanted: Annotated[StreamChange, Body()]) -> ChangedState:
        """Set what is given, from now on, for all readers."""
        _check_query(request.query_params.keys())
        entry = stream.change(**wanted.model_dump())
        return ChangedState(**stream.state, from_event_number=entry.first)

    @router.get("/schema", summary="JSON Schema of an event")
    async def schema(request: Request) -> dict[str, Any]:
        """Tell keys, types, units and closed sets of values of an event, as JSON Schema 2020-12."""
        _check_query(request.query_params.keys())
        model = stream.model
        return model.event_schema.json_schema(f"event of {model.name}", model.categories)

    return router


def _add_docs(app: FastAPI) -> None:
    """Serve Swagger UI from the copy in this package."""
    files = str(resources.files("logistream") / "static" / "swagger-ui")
    app.mount("/docs/static", StaticFiles(directory=files), name="docs-static")

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        root = request.scope.get("root_path", "")
        return get_swagger_ui_html(
            openapi_url=f"{root}/openapi.json",
            title="Logistream",
            swagger_js_url=f"{root}/docs/static/swagger-ui-bundle.js",
            swagger_css_url=f"{root}/docs/static/swagger-ui.css",
            swagger_favicon_url=f"{root}/docs/static/favicon-32x32.png",
        )


async def _serve_reader(websocket: WebSocket, stream: Stream, readers: _Readers) -> None:
    """Send events until the reader goes away."""
    wake = asyncio.Event()
    readers.wakes.add(wake)
    try:
        async with asyncio.TaskGroup() as group:
            sender = group.create_task(_send_events(websocket, stream, wake))
            # Nothing that a reader sends matters, but only who listens notices that it has left.
            while (await websocket.receive())["type"] != "websocket.disconnect":
                pass
            sender.cancel()
    finally:
        readers.wakes.discard(wake)


async def _send_events(websocket: WebSocket, stream: Stream, wake: asyncio.Event) -> None:
    """Send every event from now on at its time, for ever or until the reader is gone."""
    loop = asyncio.get_running_loop()
    cursor = stream.next_number()
    with suppress(WebSocketDisconnect):
        while True:
            wake.clear()  # before looking, so that a change after the look is not missed
            stop = min(stream.next_number(), cursor + _BURST)
            if cursor < stop:
                for text in stream.encoded(cursor, stop):
                    await websocket.send_text(text.decode())
                cursor = stop
                await asyncio.sleep(0)  # a send that need not wait gives nobody else a turn
                continue
            timer = loop.call_later(_pause_before(stream, cursor), wake.set)
            await wake.wait()
            timer.cancel()


def _pause_before(stream: Stream, number: int) -> float:
    """Return how many seconds to sleep before looking for an event again."""
    wait = stream.wait(number)
    if wait is None:
        return _LONGEST_WAIT
    if stream.rate * _BEAT > 1:
        wait = max(wait, _BEAT)
    return min(wait, _LONGEST_WAIT)


def _check_query(given: Iterable[str], allowed: tuple[str, ...] = ()) -> None:
    """Raise `RequestError` for a query parameter that is not known; `token` always is."""
    for name in given:
        if name not in (*allowed, "token"):
            known = f"there are {', '.join(allowed)}" if allowed else "there are none here"
            raise RequestError(f"unknown query parameter {name!r}: {known}")


async def _refused(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(error)}, 422)


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    """Put the first finding of the validation into a sentence."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this type only
    finding = error.errors()[0]
    name = ".".join(str(part) for part in finding["loc"][1:])
    if finding["type"] == "json_invalid":
        sentence = f"the body is not JSON: {finding['ctx']['error']}"
    elif finding["type"] == "extra_forbidden":
        sentence = f"unknown setting {name!r}: there are {', '.join(StreamChange.model_fields)}"
    elif finding["type"] == "missing" or not name:
        sentence = 'the body must be a JSON object such as {"rate": 10}, sent as application/json'
    else:
        sentence = (
            f"{name}: {finding['msg'][0].lower()}{finding['msg'][1:]}, not {json.dumps(finding['input'])}"
        )
    return JSONResponse({"detail": sentence}, 422)

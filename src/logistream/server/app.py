"""The FastAPI application: one stream over HTTP and WebSocket."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from importlib import resources
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI, Request, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response, StreamingResponse
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles

import logistream
from logistream.errors import DataError, NotYetError, RequestError, StreamError
from logistream.server.access import (
    AccessMiddleware,
    AccessRules,
    AllowedPagesMiddleware,
    AnswerMiddleware,
    BodyLimitMiddleware,
    refuse,
)
from logistream.server.access_log import with_access_log
from logistream.server.asyncapi import asyncapi_document
from logistream.server.event_stream import EventStreamResponse, last_event_id
from logistream.server.health import Health
from logistream.server.limits import Limits
from logistream.server.metrics import Gauges
from logistream.server.places import first_place
from logistream.server.protocol import sink_for
from logistream.server.pump import Cursor, Pump
from logistream.server.routes import failed, http_routes, invalid, not_yet, refused
from logistream.server.schemas import EventStreamQuery, HealthState, LiveQuery, NoQuery, Refusal
from logistream.server.timeline_watch import watch_timeline
from logistream.stream.query import EVENT_NUMBER_HEADER, STREAM_HEADER, Place

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from logistream.stream.query import Selection
    from logistream.stream.stream import Stream

__all__ = ["create_app"]


_EVENT_STREAM: dict[int | str, dict[str, Any]] = {
    200: {"description": "events without end, or until `stop`", "content": {"text/event-stream": {}}},
    204: {"description": "all events before `stop` have been sent"},
    416: {"model": Refusal, "description": "events that have not happened yet"},
    503: {"model": Refusal, "description": "too many readers: try again after `Retry-After`"},
}

_DESCRIPTION = """
Events come over the WebSocket `/ws`, from the next one on, at the rate in force: one JSON message per event.
`start`, `stop`, `speed`, `format`, `envelope`, `numbered`, `placed`, `faults`, `columns`, `where` and `lag`
change what is sent, see `/asyncapi.json`.
`GET /schema` describes an event, `GET /events` returns events of the past, `GET /sse` is for browsers.
"""


def create_app(
    stream: Stream,
    *,
    allow_origins: Iterable[str] = (),
    token: str | None = None,
    limits: Limits | None = None,
    gauges: Gauges | None = None,
    read_only: bool = False,
    root_path: str = "",
) -> FastAPI:
    """Return the application that serves a stream.

    Parameters
    ----------
    stream : Stream
        What is served.
    allow_origins : iterable of str
        Origins of browser pages that may use the server, besides its own and those of this machine.
    token : str or None
        Required of every caller if given.
    limits : Limits or None
        How much callers may request; None for the default limits.
    gauges : Gauges or None
        Where it counts, if processes count together.
    read_only : bool
        Whether to refuse changes of the stream.
    root_path : str
        Path under which a proxy shows the application, such as `/orders`, and which it takes away.

    Returns
    -------
    FastAPI
        An ASGI application; it needs the lifespan events.

    Raises
    ------
    RequestError
        For an origin or a token that is not allowed.
    """
    rules = AccessRules(tuple(allow_origins), token)
    limits = limits or Limits()
    gauges = gauges or Gauges()
    pump = Pump(stream, gauges, catch_up=limits.catch_up, catch_up_total=limits.catch_up_total)
    health = Health(stream, pump)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if pump.closed:
            raise StreamError("this application has ended: make another one with create_app")
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(pump.run()), group.create_task(watch_timeline(stream, health))]
                yield
                for task in tasks:
                    task.cancel()
        finally:
            pump.close()

    app = FastAPI(
        title="Logistream",
        version=logistream.__version__,
        summary="Synthetic logistics events, live.",
        description=_DESCRIPTION,
        docs_url=None,  # ours loads nothing from elsewhere
        redoc_url=None,
        lifespan=lifespan,
        responses={422: {"model": Refusal, "description": "a sentence about what is allowed"}},
    )
    app.add_middleware(BodyLimitMiddleware, limit=limits.message)
    app.add_middleware(AccessMiddleware, rules=rules, on_refusal=lambda: gauges.add("refused"))
    app.add_middleware(AllowedPagesMiddleware, rules=rules)
    app.add_middleware(AnswerMiddleware, root_path=root_path)
    app.add_middleware(with_access_log)  # the last is the outermost: it sees what the others refuse
    app.add_exception_handler(RequestError, refused)
    app.add_exception_handler(NotYetError, not_yet)
    app.add_exception_handler(StreamError, failed)
    app.add_exception_handler(DataError, failed)
    app.add_exception_handler(RequestValidationError, invalid)
    secured = [Depends(HTTPBearer(auto_error=False))] * (token is not None)  # a lock in Swagger UI
    app.include_router(
        http_routes(stream, gauges, pump, limits, read_only=read_only),
        dependencies=secured,
    )
    _add_docs(app)

    @app.get(
        "/asyncapi.json",
        summary="AsyncAPI of the WebSocket",
        dependencies=[Depends(NoQuery.of), *secured],
    )
    async def asyncapi(request: Request) -> dict[str, Any]:
        """Describe `/ws`: its parameters, what it sends, and how it ends."""
        url, version = str(request.base_url), logistream.__version__
        return asyncapi_document(stream.model, url=url, version=version, token=token is not None)

    @app.get(
        "/health",
        summary="Can events happen?",
        responses={503: {"model": HealthState, "description": "no event can happen"}},
        dependencies=[Depends(NoQuery.of)],
    )
    def health_state(response: Response) -> HealthState:
        """Return whether events can happen, and if not, why; for probes, which need no token."""
        reason = health.reason()
        response.status_code = 200 if reason is None else 503
        return HealthState(healthy=reason is None, reason=reason)

    @app.get(
        "/sse",
        summary="Events as they happen",
        response_class=StreamingResponse,
        responses=_EVENT_STREAM,
        openapi_extra=EventStreamQuery.openapi(),
        dependencies=secured,
    )
    async def event_stream(
        request: Request, query: Annotated[EventStreamQuery, Depends(EventStreamQuery.of)]
    ) -> Response:
        """Return events as server-sent events, for `EventSource` in a browser, which resumes by itself.

        They are those of the WebSocket, with the number of each as its `id`, or the place of its delivery if
        there are faults of the wire. An answer that has come to its `stop` is followed by 204, so that the
        browser does not ask again.
        """
        selection = query.selection(stream.model)
        seen = last_event_id(request)
        place = _first_place(stream, query if seen is None else query.model_copy(update={"start": seen.next}))
        if query.stop is not None and pump.is_over(place.slot, query.stop):
            return Response(status_code=204)
        if gauges.total("clients") >= limits.clients:
            gauges.add("refused")
            raise StreamError(_full(limits))
        gauges.add("connected")
        return EventStreamResponse(pump, selection, place, query)

    @app.websocket("/ws")
    async def events(websocket: WebSocket) -> None:
        headers = {STREAM_HEADER: stream.id}
        try:
            query = await LiveQuery.of(websocket)
            selection = query.selection(stream.model)
            place = _first_place(stream, query)
        except RequestError as error:
            gauges.add("refused")
            status = 416 if isinstance(error, NotYetError) else 422
            await refuse(websocket, status, str(error), headers)
            return
        if gauges.total("clients") >= limits.clients:
            gauges.add("refused")
            await refuse(websocket, 503, _full(limits), headers)
            return
        headers[EVENT_NUMBER_HEADER] = str(place.slot)
        await websocket.accept(headers=[(name.encode(), value.encode()) for name, value in headers.items()])
        gauges.add("connected")
        await _serve(websocket, pump, selection, place, query)

    return app


def _full(limits: Limits) -> str:
    """Return the sentence for a reader that is one too many."""
    return f"the server is full: it has {limits.clients} readers, try again later"


def _first_place(stream: Stream, query: LiveQuery) -> Place:
    """Return the place at which a reader begins; `RequestError` if it may not."""
    place = first_place(stream, query.start, faults=query.faults)
    if isinstance(query.stop, int) and Place(query.stop) < place:
        raise RequestError(f"start must not be after stop: {place.short} is after {query.stop}")
    return place


async def _serve(
    websocket: WebSocket, pump: Pump, selection: Selection, place: Place, query: LiveQuery
) -> None:
    """Serve a reader until it leaves, or until the end that it requested."""
    sink = sink_for(websocket, pump.wake)
    cursor = Cursor(pump.feeds.open(selection), sink, place, query.lag, stop=query.stop, gather=query.gather)
    pump.add(cursor, query.speed)
    try:
        async with asyncio.TaskGroup() as group:
            sending = group.create_task(sink.run())
            # What a reader sends is ignored, but one must receive to notice that it has left.
            while (await websocket.receive())["type"] != "websocket.disconnect":
                pass
            sending.cancel()
    finally:
        pump.remove(cursor)


def _add_docs(app: FastAPI) -> None:
    """Serve Swagger UI from the copy in this package."""
    files = str(resources.files("logistream.server") / "static" / "swagger-ui")
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

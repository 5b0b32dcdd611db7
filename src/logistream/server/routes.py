"""The HTTP calls of a stream."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Depends, HTTPException, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from logistream.errors import NotYetError, shorten
from logistream.server.access import LONGEST_DETAIL
from logistream.server.metrics import metrics_text
from logistream.server.ranges import (
    CLOUD_EVENTS,
    MEDIA_TYPES,
    RangeResponse,
    Ranges,
    finished_range,
    is_known,
    range_headers,
)
from logistream.server.schemas import (
    ChangedState,
    ColumnsQuery,
    KnownScenario,
    NoQuery,
    RangeQuery,
    Refusal,
    Status,
    StreamChange,
    StreamState,
    TimelineEntry,
    TimelineState,
    TruthQuery,
    explain,
)
from logistream.server.truth import MOST_TRUTHS, truth_body
from logistream.stream.query import EVENT_NUMBER_HEADER, STREAM_HEADER

if TYPE_CHECKING:
    from logistream.server.limits import Limits
    from logistream.server.metrics import Gauges
    from logistream.server.pump import Pump
    from logistream.stream.stream import Stream

__all__ = ["failed", "http_routes", "invalid", "not_yet", "refused"]


_BODIES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the events: a JSON array, lines of JSON, an Arrow IPC stream, or CSV with a header",
        "content": {media.partition(";")[0]: {} for media in (*MEDIA_TYPES.values(), CLOUD_EVENTS)},
    },
    304: {"description": "the caller has these bytes: `If-None-Match` names their `ETag`"},
    416: {"model": Refusal, "description": "events that have not happened yet"},
    503: {"model": Refusal, "description": "too many ranges are being sent: try again after `Retry-After`"},
}

_TRUTHS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "for each event `event_number`, `strength` (how probable it is that it is drawn from "
        "a scenario), `scenario` (from which it was drawn), `in_force` (the scenarios with their strengths), "
        "`twin` (the values that it would have without scenarios, where they differ), `late_probability` "
        "(given what is known at booking) and `delivery` (what faults of the wire do to it)",
        "content": {MEDIA_TYPES[form].partition(";")[0]: {} for form in ("json", "ndjson", "arrow")},
    },
    416: {"model": Refusal, "description": "events that have not happened yet"},
}

_METRICS: dict[int | str, dict[str, Any]] = {
    200: {"description": "in Prometheus' text format", "content": {"text/plain": {}}}
}

_CHANGES: dict[int | str, dict[str, Any]] = {
    400: {"model": Refusal, "description": "a body that cannot be read"},
    403: {"model": Refusal, "description": "a server that is read-only"},
    408: {"model": Refusal, "description": "a body that does not come in time"},
    413: {"model": Refusal, "description": "a body that is too large"},
    503: {"model": Refusal, "description": "a timeline that cannot be written"},
}


def http_routes(stream: Stream, gauges: Gauges, pump: Pump, limits: Limits, *, read_only: bool) -> APIRouter:
    """Return the calls that need what others need too: the stream, its counts and its pump."""
    ranges = Ranges(pump, limits.ranges)
    router = APIRouter()
    plain = APIRouter(dependencies=[Depends(NoQuery.of)])  # calls without parameters
    model = stream.model

    @plain.get("/", summary="Is it running?")
    async def status(request: Request) -> Status:
        """Return whether the stream runs, how many read it, and where."""
        scheme = "wss" if request.url.scheme == "https" else "ws"
        return Status(
            status=stream.status,
            connected_clients=gauges.total("clients"),
            websocket_url=f"{scheme}://{request.url.netloc}{request.scope.get('root_path', '')}/ws",
        )

    @plain.get("/stream", summary="What is in force")
    async def state() -> StreamState:
        """Return rate, pause, seed, model, and the number of the next event."""
        return StreamState(**stream.state)

    @plain.patch("/stream", summary="Set rate, pause, scenarios or faults", responses=_CHANGES)
    def change(wanted: Annotated[StreamChange, Body()]) -> ChangedState:
        """Set what is given for all readers: now, or 50 ms later if other servers may share the timeline."""
        if read_only:
            raise HTTPException(403, "this server is read-only: change the stream at another one")
        # Why 50 ms: see the top of `logistream.stream.timeline_file`.
        settings = wanted.model_dump(exclude_unset=True)
        if "scenario" in settings:
            given = settings.pop("scenario")
            settings["scenarios"] = () if given is None else given
        if "faults" in settings and settings["faults"] is None:
            settings["faults"] = ()
        entry = stream.change(**settings)
        return ChangedState(**stream.state, from_event_number=entry.first)

    @plain.get("/scenarios", summary="Scenarios to choose from")
    def scenarios() -> list[KnownScenario]:
        """Return the named scenarios that can be set for this model; none for a model of other tables."""
        return [
            KnownScenario(description=sentence, scenario=scenario.to_json())
            for scenario, sentence in stream.known_scenarios
        ]

    @plain.get("/timeline", summary="When events happen", response_model_exclude_unset=True)
    async def timeline() -> TimelineState:
        """Return all rates, pauses, scenarios and faults: enough to make the same stream elsewhere."""
        return TimelineState(
            stream=stream.id,
            model=model.name,
            model_checksum=model.checksum,
            seed=stream.seed,
            arrivals=stream.timeline.arrivals.kind,
            entries=[TimelineEntry(**entry.to_json()) for entry in stream.timeline.entries],
        )

    @plain.get("/metrics", summary="Figures for Prometheus", response_class=Response, responses=_METRICS)
    async def metrics(request: Request) -> Response:
        """Return events, clients, the lag of the slowest reader, and the rates requested and measured."""
        body, media_type = metrics_text(stream, gauges, request.headers.get("accept", ""))
        return Response(body, media_type=media_type)

    @router.get("/schema", summary="JSON Schema of an event", openapi_extra=ColumnsQuery.openapi())
    async def schema(query: Annotated[ColumnsQuery, Depends(ColumnsQuery.of)]) -> dict[str, Any]:
        """Return keys, types, units and closed sets of values of an event, as JSON Schema 2020-12."""
        columns = query.selection(model).schema(model)
        return columns.json_schema(f"event of {model.name}", model.categories)

    @router.get(
        "/events",
        summary="Events of the past",
        response_class=StreamingResponse,
        responses=_BODIES,
        openapi_extra=RangeQuery.openapi(),
    )
    def events(request: Request, query: Annotated[RangeQuery, Depends(RangeQuery.of)]) -> Response:
        """Return a finished range of events, `stop` excluded; the same bytes whenever it is requested.

        `ETag` names them, `Link` the range that follows. The bytes may be kept for ever if the server has a
        timeline file and the request names both ends.
        """
        selection = query.selection(model)
        first, last = finished_range(stream, query, limits.range, faults=query.faults)
        headers = range_headers(request, query, stream, selection, first, last)
        if is_known(request, headers["ETag"]):
            return Response(status_code=304, headers=headers)
        return RangeResponse(ranges, selection, first, last, headers=headers)

    @router.get(
        "/truth",
        summary="What is true of events of the past",
        response_class=Response,
        responses=_TRUTHS,
        openapi_extra=TruthQuery.openapi(),
    )
    def truth(query: Annotated[TruthQuery, Depends(TruthQuery.of)]) -> Response:
        """Return of each event its scenarios, its twin without them, and how probable it was to be late."""
        (first, _), last = finished_range(stream, query, min(limits.range, MOST_TRUTHS))
        content = truth_body(stream.truth(first, last), model.full_schema, query.format)
        headers = {STREAM_HEADER: stream.id, EVENT_NUMBER_HEADER: str(first)}
        return Response(content, media_type=MEDIA_TYPES[query.format], headers=headers)

    router.include_router(plain)
    return router


async def refused(_: Request, error: Exception) -> JSONResponse:
    """Answer for a value that is not allowed."""
    return JSONResponse({"detail": shorten(str(error), LONGEST_DETAIL)}, 422)


async def failed(_: Request, error: Exception) -> JSONResponse:
    """Answer for what the stream cannot do now: its timeline cannot be written or read, or it is busy."""
    return JSONResponse({"detail": shorten(str(error), LONGEST_DETAIL)}, 503, {"Retry-After": "1"})


async def not_yet(_: Request, error: Exception) -> JSONResponse:
    """Answer for events that have not happened."""
    assert isinstance(error, NotYetError)  # noqa: S101 - registered for this type only
    return JSONResponse({"detail": str(error), "newest_event_number": error.newest}, 416)


async def invalid(_: Request, error: Exception) -> JSONResponse:
    """Answer for a body that is not valid with its first fault as a sentence."""
    finding = dict(error.errors()[0])  # type: ignore[attr-defined] # registered for this type only
    finding["loc"] = finding["loc"][1:]  # without "body"
    if finding["type"] == "json_invalid":
        sentence = f"the body is not JSON: {finding['ctx']['error']}"
    elif finding["type"] == "missing" or not finding["loc"]:
        sentence = 'the body must be a JSON object such as {"rate": 10}, sent as application/json'
    else:
        sentence = explain(finding, "setting", StreamChange.model_fields)
    return JSONResponse({"detail": shorten(sentence, LONGEST_DETAIL)}, 422)

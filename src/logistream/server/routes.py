"""The HTTP calls of a stream.

A finished range of events as one body, made piece by piece while it is sent.
"""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Annotated, Any

import pyarrow as pa
from fastapi import APIRouter, Body, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from logistream.errors import NotYetError, RequestError, bounded
from logistream.server.metrics import metrics_text
from logistream.server.schemas import (
    ChangedState,
    Limits,
    Refusal,
    Status,
    StreamChange,
    StreamState,
    TimelineEntry,
    TimelineState,
)
from logistream.stream.query import EVENT_NUMBER_HEADER, STREAM_HEADER, Selection, parse_reading

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastapi.exceptions import RequestValidationError

    from logistream.server.feed import Feed, Feeds, Part
    from logistream.server.metrics import Gauges
    from logistream.stream.query import Reading
    from logistream.stream.stream import Stream

__all__ = [
    "MEDIA_TYPES",
    "body",
    "failed",
    "finished_range",
    "http_routes",
    "invalid",
    "not_yet",
    "refused",
    "selection_for",
]


MEDIA_TYPES = {
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "arrow": "application/vnd.apache.arrow.stream",
}
"""Content type of each format."""

_STEP = 4096  # events made at once


def finished_range(stream: Stream, reading: Reading, most: int) -> tuple[int, int]:
    """Return first event number and stop of what is asked for.

    Raises
    ------
    RequestError
        The range runs backwards, is before the stream, or longer than `most`.
    NotYetError
        It has not happened yet.
    """
    start = stream.resolve(reading.start)
    newest = stream.next_number()
    stop = newest if reading.stop is None else reading.stop
    if stop > newest:
        raise NotYetError(f"event {stop - 1}", newest - 1)
    if start > stop:
        if reading.stop is None:
            raise NotYetError(f"event {start}", newest - 1)
        raise RequestError(f"start must not be after stop: {start} is after {stop}")
    if stop - start > most:
        raise RequestError(
            f"a range holds at most {most:,} events, not {stop - start:,}: ask for it in parts"
        )
    return start, stop


def selection_for(selection: Selection) -> Selection:
    """Return what has to be encoded for a body: an array of JSON texts is made of lines."""
    form = "ndjson" if selection.format == "json" else selection.format
    return Selection(form, selection.columns, selection.where)


def body(feed: Feed, form: str, start: int, stop: int) -> Iterator[bytes]:
    """Give the pieces of a body.

    Parameters
    ----------
    feed : Feed
        Of the selection that `selection_for` returned.
    form : str
        What was asked for: json, ndjson or arrow.
    start, stop : int
        Event numbers, all of which have happened.
    """
    parts = (feed.make(low, min(stop, low + _STEP)) for low in range(start, stop, _STEP))
    if form == "arrow":
        yield from _arrow(feed, parts)
    elif form == "ndjson":
        for part in parts:
            yield bytes(part.data)
    else:
        yield from _array(parts)


def _array(parts: Iterator[Part]) -> Iterator[bytes]:
    yield b"["
    before = b""
    for part in parts:
        if len(part.data):
            # a JSON text of ours has no line break
            yield before + bytes(part.data[:-1]).replace(b"\n", b",\n")
            before = b",\n"
    yield b"]"


def _arrow(feed: Feed, parts: Iterator[Part]) -> Iterator[bytes]:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, feed.schema.arrow) as writer:
        for part in parts:
            writer.write_batch(part.data)
            yield sink.getvalue()
            sink.seek(0)
            sink.truncate()
    yield sink.getvalue()


_BODIES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the events: a JSON array, lines of JSON, or an Arrow IPC stream",
        "content": {media: {} for media in MEDIA_TYPES.values()},
    },
    416: {"model": Refusal, "description": "events that have not happened yet"},
}

_METRICS: dict[int | str, dict[str, Any]] = {
    200: {"description": "in Prometheus' text format", "content": {"text/plain": {}}}
}

_CHANGES: dict[int | str, dict[str, Any]] = {
    400: {"model": Refusal, "description": "a body that cannot be read"},
    413: {"model": Refusal, "description": "a body that is too large"},
    503: {"model": Refusal, "description": "a timeline that cannot be written"},
}

Start = Annotated[str, Query(description="an event number, earliest, latest, or a time (RFC 3339)")]
Stop = Annotated[str, Query(description="the event number before which to end; the newest is the default")]
Format = Annotated[str, Query(description="json, ndjson or arrow")]
Numbered = Annotated[str, Query(description="true adds event_number")]
Columns = Annotated[str, Query(description="all, or names with commas between")]
Where = Annotated[list[str], Query(description="only events in which COLUMN:VALUE; can be given again")]


def http_routes(stream: Stream, gauges: Gauges, feeds: Feeds, limits: Limits) -> APIRouter:
    """Return the calls that need what others need too: the stream, its counts and its feeds."""
    router = APIRouter()
    model = stream.model

    @router.get("/", summary="Is it running?")
    async def status(request: Request) -> Status:
        """Tell whether the stream runs, how many read it, and where."""
        parse_reading(request.query_params.multi_items(), model, ())
        scheme = "wss" if request.url.scheme == "https" else "ws"
        return Status(
            status="paused" if stream.paused else "running",
            connected_clients=gauges.total("clients"),
            websocket_url=f"{scheme}://{request.url.netloc}/ws",
        )

    @router.get("/stream", summary="What is in force")
    async def state(request: Request) -> StreamState:
        """Tell rate, pause, seed, model, and the number of the next event."""
        parse_reading(request.query_params.multi_items(), model, ())
        return StreamState(**stream.state)

    @router.patch("/stream", summary="Set rate or pause", responses=_CHANGES)
    def change(request: Request, wanted: Annotated[StreamChange, Body()]) -> ChangedState:
        """Set what is given, from now on, for all readers."""
        parse_reading(request.query_params.multi_items(), model, ())
        entry = stream.change(**wanted.model_dump())
        return ChangedState(**stream.state, from_event_number=entry.first)

    @router.get("/schema", summary="JSON Schema of an event")
    async def schema(request: Request, columns: Columns = "", numbered: Numbered = "false") -> dict[str, Any]:  # noqa: ARG001 - for the description
        """Tell keys, types, units and closed sets of values of an event, as JSON Schema 2020-12."""
        reading = parse_reading(request.query_params.multi_items(), model, ("columns", "numbered"))
        return reading.selection.schema(model).json_schema(f"event of {model.name}", model.categories)

    @router.get("/timeline", summary="When events happen")
    async def timeline(request: Request) -> TimelineState:
        """Tell the whole list of rates, pauses and scenarios: enough to make the same stream elsewhere."""
        parse_reading(request.query_params.multi_items(), model, ())
        return TimelineState(
            stream=stream.id,
            model=model.name,
            model_checksum=model.checksum,
            seed=stream.seed,
            arrivals=stream.timeline.arrivals.kind,
            entries=[TimelineEntry(**entry.to_json()) for entry in stream.timeline.entries],
        )

    @router.get("/events", summary="Events of the past", response_class=StreamingResponse, responses=_BODIES)
    def events(
        request: Request,
        start: Start = "earliest",  # noqa: ARG001 - these stand here for the description
        stop: Stop = "",  # noqa: ARG001
        format: Format = "json",  # noqa: A002, ARG001
        numbered: Numbered = "false",  # noqa: ARG001
        columns: Columns = "",  # noqa: ARG001
        where: Where = [],  # noqa: B006, ARG001
    ) -> StreamingResponse:
        """Give a finished range of events, `stop` excluded; the same bytes whenever it is asked for."""
        allowed = ("start", "stop", "format", "numbered", "columns", "where")
        reading = parse_reading(request.query_params.multi_items(), model, allowed)
        first, last = finished_range(stream, reading, limits.range)

        def pieces() -> Iterator[bytes]:
            # Not opened before: who has gone already never makes this begin, and so never end.
            feed = feeds.open(selection_for(reading.selection))
            try:
                yield from body(feed, reading.selection.format, first, last)
            finally:
                feeds.release(feed)

        return StreamingResponse(
            pieces(),
            media_type=MEDIA_TYPES[reading.selection.format],
            headers={STREAM_HEADER: stream.id, EVENT_NUMBER_HEADER: str(first)},
        )

    @router.get("/metrics", summary="Figures for Prometheus", response_class=Response, responses=_METRICS)
    async def metrics(request: Request) -> Response:
        """Tell events, clients, the lag of the slowest reader, and the rate asked for and held."""
        parse_reading(request.query_params.multi_items(), model, ())
        text, media_type = metrics_text(stream, gauges, request.headers.get("accept", ""))
        return Response(text, media_type=media_type)

    return router


async def refused(_: Request, error: Exception) -> JSONResponse:
    """Answer for a value that is not allowed."""
    return JSONResponse({"detail": bounded(str(error))}, 422)


async def failed(_: Request, error: Exception) -> JSONResponse:
    """Answer for a stream that cannot do what was asked: its timeline cannot be written, or read."""
    return JSONResponse({"detail": bounded(str(error))}, 503)


async def not_yet(_: Request, error: Exception) -> JSONResponse:
    """Answer for events that have not happened."""
    assert isinstance(error, NotYetError)  # noqa: S101 - registered for this type only
    return JSONResponse({"detail": str(error), "newest_event_number": error.newest}, 416)


async def invalid(_: Request, error: Exception) -> JSONResponse:
    """Put the first finding of the validation into a sentence."""
    finding = _first(error)  # type: ignore[arg-type] # registered for this type only
    name = ".".join(str(part) for part in finding["loc"][1:])
    if finding["type"] == "json_invalid":
        sentence = f"the body is not JSON: {finding['ctx']['error']}"
    elif finding["type"] == "extra_forbidden":
        sentence = f"unknown setting {name!r}: there are {', '.join(StreamChange.model_fields)}"
    elif finding["type"] == "missing" or not name:
        sentence = 'the body must be a JSON object such as {"rate": 10}, sent as application/json'
    else:
        given = json.dumps(finding["input"], default=repr)
        sentence = f"{name}: {finding['msg'][0].lower()}{finding['msg'][1:]}, not {given}"
    return JSONResponse({"detail": bounded(sentence)}, 422)


def _first(error: RequestValidationError) -> dict[str, Any]:
    return dict(error.errors()[0])

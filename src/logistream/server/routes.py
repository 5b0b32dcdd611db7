"""The HTTP calls of a stream; a finished range of events is made piece by piece while it is sent."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Annotated, Any

import pyarrow as pa
from fastapi import APIRouter, Body, Depends, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.concurrency import iterate_in_threadpool

from logistream.errors import NotYetError, RequestError, shorten
from logistream.server.access import LONGEST_DETAIL
from logistream.server.metrics import metrics_text
from logistream.server.schemas import (
    ChangedState,
    ColumnsQuery,
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
from logistream.stream.query import EVENT_NUMBER_HEADER, STREAM_HEADER, Selection

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import Receive, Scope, Send

    from logistream.server.feed import Feed, Feeds, Part
    from logistream.server.limits import Limits
    from logistream.server.metrics import Gauges
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
    "csv": "text/csv; charset=utf-8; header=present",
}
"""Content type of each format."""

_STEP = 4096  # events made at once


def finished_range(stream: Stream, query: RangeQuery | TruthQuery, most: int) -> tuple[int, int]:
    """Return first event number and stop of the requested range.

    Raises
    ------
    RequestError
        The range runs backwards, is before the stream, or longer than `most`.
    NotYetError
        It has not happened yet.
    """
    start, stop = stream.resolve(query.start), stream.resolve_stop(query.stop)
    if start > stop:
        if query.stop in (None, "latest"):
            raise NotYetError(f"event {start}", stop - 1)
        raise RequestError(f"start must not be after stop: {start} is after {stop}")
    if stop - start > most:
        raise RequestError(
            f"a range holds at most {most:,} events, not {stop - start:,}: ask for it in parts"
        )
    return start, stop


def selection_for(selection: Selection) -> Selection:
    """Return what has to be encoded for a body: a JSON array is made of lines."""
    form = "ndjson" if selection.format == "json" else selection.format
    return Selection(form, selection.columns, selection.where)


def body(feed: Feed, form: str, start: int, stop: int) -> Iterator[bytes]:
    """Give the pieces of a body.

    Parameters
    ----------
    feed : Feed
        Of the selection that `selection_for` returned.
    form : str
        The requested format: json, ndjson, arrow or csv.
    start, stop : int
        Event numbers, all of which have happened.
    """
    parts = (feed.make(low, min(stop, low + _STEP)) for low in range(start, stop, _STEP))
    if form == "arrow":
        yield from _arrow(feed, parts)
    elif form in ("ndjson", "csv"):
        yield feed.header
        for part in parts:
            yield bytes(part.data)
    else:
        yield from _array(parts)


class _RangeResponse(StreamingResponse):
    """A body that holds its feed for as long as it is sent, however that ends.

    A generator that is not read to its end is closed when it is collected: too late to release the feed.
    """

    def __init__(
        self,
        feeds: Feeds,
        selection: Selection,
        start: int,
        stop: int,
        *,
        media_type: str,
        headers: dict[str, str],
    ) -> None:
        super().__init__((), media_type=media_type, headers=headers)
        self._feeds, self._selection, self._range = feeds, selection, (start, stop)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        feed = self._feeds.open(selection_for(self._selection))
        self.body_iterator = iterate_in_threadpool(body(feed, self._selection.format, *self._range))
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._feeds.release(feed)


def _array(parts: Iterator[Part]) -> Iterator[bytes]:
    yield b"["
    before = b""
    for part in parts:
        if len(part.data):
            # no JSON of ours has a line break in it
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
        "description": "the events: a JSON array, lines of JSON, an Arrow IPC stream, or CSV with a header",
        "content": {media.partition(";")[0]: {} for media in MEDIA_TYPES.values()},
    },
    416: {"model": Refusal, "description": "events that have not happened yet"},
}

_TRUTHS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "for each event `event_number`, `strength` (how probable it is that it is drawn from "
        "a scenario), `scenario` (from which it was drawn), `twin` (the values that it would have without "
        "scenarios, where they differ) and `late_probability` (given what is known at booking)",
        "content": {MEDIA_TYPES[form].partition(";")[0]: {} for form in ("json", "ndjson", "arrow")},
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


def http_routes(stream: Stream, gauges: Gauges, feeds: Feeds, limits: Limits) -> APIRouter:
    """Return the calls that need what others need too: the stream, its counts and its feeds."""
    router = APIRouter()
    plain = APIRouter(dependencies=[Depends(NoQuery.of)])  # calls without parameters
    model = stream.model

    @plain.get("/", summary="Is it running?")
    async def status(request: Request) -> Status:
        """Return whether the stream runs, how many read it, and where."""
        scheme = "wss" if request.url.scheme == "https" else "ws"
        return Status(
            status="paused" if stream.paused else "running",
            connected_clients=gauges.total("clients"),
            websocket_url=f"{scheme}://{request.url.netloc}/ws",
        )

    @plain.get("/stream", summary="What is in force")
    async def state() -> StreamState:
        """Return rate, pause, seed, model, and the number of the next event."""
        return StreamState(**stream.state)

    @plain.patch("/stream", summary="Set rate, pause or scenarios", responses=_CHANGES)
    def change(wanted: Annotated[StreamChange, Body()]) -> ChangedState:
        """Set what is given for all readers: now, or 50 ms later if other servers may share the timeline."""
        # Why 50 ms: see the top of `logistream.stream.timeline_file`.
        settings = wanted.model_dump(exclude_unset=True)
        if "scenario" in settings:
            given = settings.pop("scenario")
            settings["scenarios"] = () if given is None else given
        entry = stream.change(**settings)
        return ChangedState(**stream.state, from_event_number=entry.first)

    @plain.get("/timeline", summary="When events happen")
    async def timeline() -> TimelineState:
        """Return the whole list of rates, pauses and scenarios: enough to make the same stream elsewhere."""
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
    def events(query: Annotated[RangeQuery, Depends(RangeQuery.of)]) -> StreamingResponse:
        """Return a finished range of events, `stop` excluded; the same bytes whenever it is requested."""
        selection = query.selection(model)
        first, last = finished_range(stream, query, limits.range)

        return _RangeResponse(
            feeds,
            selection,
            first,
            last,
            media_type=MEDIA_TYPES[selection.format],
            headers={STREAM_HEADER: stream.id, EVENT_NUMBER_HEADER: str(first)},
        )

    @router.get(
        "/truth",
        summary="What is true of events of the past",
        response_class=Response,
        responses=_TRUTHS,
        openapi_extra=TruthQuery.openapi(),
    )
    def truth(query: Annotated[TruthQuery, Depends(TruthQuery.of)]) -> Response:
        """Return of each event its scenarios, its twin without them, and how probable it was to be late."""
        first, last = finished_range(stream, query, min(limits.range, MOST_TRUTHS))
        content = truth_body(stream.truth(first, last), model.full_schema, query.format)
        headers = {STREAM_HEADER: stream.id, EVENT_NUMBER_HEADER: str(first)}
        return Response(content, media_type=MEDIA_TYPES[query.format], headers=headers)

    router.include_router(plain)
    return router


async def refused(_: Request, error: Exception) -> JSONResponse:
    """Answer for a value that is not allowed."""
    return JSONResponse({"detail": shorten(str(error), LONGEST_DETAIL)}, 422)


async def failed(_: Request, error: Exception) -> JSONResponse:
    """Answer for a stream whose timeline cannot be written, or read."""
    return JSONResponse({"detail": shorten(str(error), LONGEST_DETAIL)}, 503)


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

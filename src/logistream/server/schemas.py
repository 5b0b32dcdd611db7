"""What the HTTP interface takes and gives: query strings, bodies and limits, as OpenAPI describes them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self, get_args

from fastapi.requests import HTTPConnection  # noqa: TC002 - FastAPI reads the annotation
from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError, WithJsonSchema

from logistream.errors import RequestError, shorten
from logistream.model.conditions import WRITTEN
from logistream.model.scenario import MOST_SCENARIOS, json_schema
from logistream.stream.faults import MOST_FAULTS
from logistream.stream.faults import json_schema as fault_schema
from logistream.stream.query import (
    MOST_GATHERED,
    Envelope,
    Format,
    Lag,
    Place,
    RangeFormat,
    Selection,
    Timestamp,
    parse_begin,
    parse_conditions,
    parse_start,
    parse_stop,
    selected_columns,
)
from logistream.stream.timeline import MAX_RATE, MIN_RATE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from logistream.model.model import Model

__all__ = [
    "ChangedState",
    "ColumnsQuery",
    "EventStreamQuery",
    "EventsQuery",
    "HealthState",
    "KnownScenario",
    "LiveQuery",
    "NoQuery",
    "RangeQuery",
    "Refusal",
    "Status",
    "StreamChange",
    "StreamState",
    "TimelineEntry",
    "TimelineState",
    "TruthQuery",
    "explain",
]


def explain(finding: Mapping[str, Any], what: str, names: Iterable[str]) -> str:
    """Return a finding of pydantic as one sentence.

    Parameters
    ----------
    finding : mapping
        One of `ValidationError.errors()`, with the name alone as its `loc`.
    what : str
        What an unknown name would be, such as `query parameter`.
    names : iterable of str
        The names that there are.
    """
    name = ".".join(map(str, finding["loc"]))
    match finding["type"]:
        case "value_error":
            return str(finding["ctx"]["error"])
        case "extra_forbidden":
            known = ", ".join(names)
            there_are = f"there are {known}" if known else "there are none here"
            return f"unknown {what} {shorten(name)!r}: {there_are}"
        case "literal_error":
            expected = f"must be {finding['ctx']['expected']}"
        case "bool_parsing" | "bool_type":
            expected = "must be true or false"
        case _:
            expected = finding["msg"].replace("Input should", "must", 1)
    return f"{name} {expected}, not {shorten(json.dumps(finding['input'], default=repr))}"


class NoQuery(BaseModel):
    """The query string of a call without parameters; the token is understood everywhere."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def parse(cls, query: Iterable[tuple[str, str]]) -> Self:
        """Read names and values as they were sent.

        Raises
        ------
        RequestError
            A parameter is unknown, was given twice, or has a value that is not allowed.
        """
        given: dict[str, Any] = {}
        for name, value in query:
            given.setdefault(name, []).append(value)
        given.pop("token", None)
        for name in (given.keys() & cls.model_fields.keys()) - {"where"}:
            if len(given[name]) > 1:
                raise RequestError(
                    f"query parameter {name!r} was given {len(given[name])} times: give it once"
                )
            (given[name],) = given[name]
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            raise RequestError(explain(error.errors()[0], "query parameter", cls.model_fields)) from None

    @classmethod
    async def of(cls, connection: HTTPConnection) -> Self:
        """Read the query string of a request or a handshake; see `parse`."""
        return cls.parse(connection.query_params.multi_items())

    @classmethod
    def described(cls) -> dict[str, Any]:
        """Return the JSON Schema of each parameter, with its description."""
        properties = cls.model_json_schema()["properties"]
        unset = {"default": None}
        return {
            name: {key: value for key, value in schema.items() if key != "title" and {key: value} != unset}
            for name, schema in properties.items()
        }

    @classmethod
    def openapi(cls) -> dict[str, Any]:
        """Return the parameters as a part of a call's OpenAPI description."""
        return {
            "parameters": [
                {"name": name, "in": "query", "description": schema.pop("description"), "schema": schema}
                for name, schema in cls.described().items()
            ]
        }


_PLACE = {
    "anyOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "enum": ["earliest", "latest"]},
        {"type": "string", "format": "date-time"},
    ]
}
Start = Annotated[
    int | Literal["earliest", "latest"] | Timestamp,
    PlainValidator(parse_start),
    WithJsonSchema(_PLACE),
    Field(description="an event number, earliest, latest, or a time (RFC 3339): the first event after it"),
]
Begin = Annotated[
    int | Literal["earliest", "latest"] | Timestamp | Place,
    PlainValidator(parse_begin),
    WithJsonSchema({"anyOf": [*_PLACE["anyOf"], {"type": "string", "pattern": r"^[0-9]+\.[0-9]+$"}]}),
    Field(
        description="an event number, earliest, latest, or a time (RFC 3339): the first event after it; or a "
        "place such as 40.1, the second delivery in the slot of event 40"
    ),
]
Stop = Annotated[
    int | Literal["earliest", "latest"] | Timestamp | None,
    PlainValidator(lambda value: parse_start(value, "stop")),
    WithJsonSchema(_PLACE),
    Field(
        description="the event number before which to end, or a time (RFC 3339): with the events that "
        "happened at that very time; latest, the default, ends with the newest event"
    ),
]


class ColumnsQuery(NoQuery):
    """Which columns."""

    columns: Annotated[str | None, WithJsonSchema({"type": "string"})] = Field(
        None,
        description="all, or names with commas between; a name that holds a comma stands in double quotes",
    )
    numbered: bool = Field(False, description="true adds event_number")

    def selection(self, model: Model) -> Selection:
        """Return the requested columns and events of a model; `RequestError` for unknown ones."""
        return Selection("json", selected_columns(self.columns, self.numbered, model))


class EventsQuery(ColumnsQuery):
    """Which events from where on, and in which form."""

    start: Begin = "latest"
    format: Format = Field("json", description="json: one object an event; ndjson: lines; arrow: columns")
    envelope: Annotated[
        Envelope | None, WithJsonSchema({"type": "string", "enum": list(get_args(Envelope))})
    ] = Field(
        None,
        description="cloudevents: each event is a CloudEvent (1.0, structured mode), whose id is the stream "
        "and the event number; with the formats json and ndjson",
    )
    where: list[Annotated[str, Field(json_schema_extra={"pattern": WRITTEN})]] = Field(
        [],
        description="only events that fulfil a condition such as Market:Europe, Market!=Europe or "
        "Sales>=100; can be given again: values of one column after : are alternatives, all else must hold "
        "together",
    )
    faults: bool = Field(
        True, description="false: the events as they happened, without the faults of the wire"
    )
    placed: bool = Field(
        False,
        description="true adds delivery before all else: the place of the delivery, such as 40.1 for the "
        "second one in the slot of event 40; a reader resumes after it with start=40.2",
    )

    def selection(self, model: Model) -> Selection:
        """Return the requested columns and events of a model; `RequestError` for unknown ones."""
        if self.envelope is not None and self.format not in ("json", "ndjson"):
            raise RequestError(
                f"envelope={self.envelope} is possible with format=json or ndjson, not {self.format}"
            )
        columns = selected_columns(self.columns, self.numbered, model)
        where = parse_conditions(self.where, model)
        return Selection(self.format, columns, where, self.envelope, self.faults, self.placed)


class RangeQuery(EventsQuery):
    """A finished range of events."""

    start: Begin = "earliest"
    stop: Stop = None
    format: RangeFormat = Field(  # type: ignore[assignment] # the two it adds to are not enough
        "json",
        description="json: an array of objects; ndjson: an object a line; arrow: an Arrow IPC stream; csv: a "
        "line with the names, then a line an event, with empty fields for missing values",
    )


class TruthQuery(NoQuery):
    """A finished range of events, of which the truth is returned."""

    start: Start = "earliest"
    stop: Stop = None
    format: Format = Field(
        "json",
        description="json: an array of objects; ndjson: an object a line; arrow: an Arrow IPC stream, in "
        "which an object is a string of JSON",
    )


class LiveQuery(EventsQuery):
    """Events from some place on, without end or until a place that may be still to come."""

    stop: Annotated[
        int | Timestamp | None,
        PlainValidator(lambda value: parse_stop(value)),
        WithJsonSchema({"anyOf": [_PLACE["anyOf"][0], _PLACE["anyOf"][2]]}),
    ] = Field(
        None,
        description="the event number before which to end, or a time (RFC 3339): with the events that happen "
        "at that very time; both may be still to come. Without it there is no end",
    )
    speed: float | None = Field(
        None,
        gt=0,
        le=1e6,
        allow_inf_nan=False,
        description="how many times as fast as they happened events of the past are sent, until the present "
        "is reached; without it, as fast as the reader takes them",
        json_schema_extra={"examples": [1, 10]},
    )
    lag: Lag = Field(
        "wait",
        description="what a reader gets that has fallen more than a second behind: all that it has missed "
        "(wait), or a message with the number of events that it has missed, and the newest (skip); this "
        "number counts all events, also those that `where` leaves out",
    )

    gather: float = Field(
        0.0,
        ge=0,
        le=MOST_GATHERED,
        allow_inf_nan=False,
        description="seconds for which events are gathered before they are sent together: many events in one "
        "message cost both sides less than as many messages. What is too much for one message comes in "
        "several, and an event after a silence is sent at once",
        json_schema_extra={"examples": [0.05]},
    )

    def selection(self, model: Model) -> Selection:
        """Return the requested columns and events of a model; `RequestError` for unknown ones."""
        if self.envelope is not None and self.lag == "skip":
            raise RequestError(
                f"envelope={self.envelope} is not possible with lag=skip, which sends other messages too"
            )
        return super().selection(model)


class EventStreamQuery(LiveQuery):
    """Events from some place on, as server-sent events."""

    format: Literal["json"] = Field("json", description="json: one object an event")


class Refusal(BaseModel):
    """Why a request was refused."""

    detail: str = Field(description="one sentence: what came, and what is allowed")


class HealthState(BaseModel):
    """Whether events can happen."""

    healthy: bool
    reason: str | None = Field(description="why no event can happen, in a sentence")


class Status(BaseModel):
    """Whether the stream runs and where to read it."""

    status: Literal["running", "paused", "waiting for the clock"]
    connected_clients: int = Field(description="readers of the WebSocket and of `GET /sse` now")
    websocket_url: str = Field(description="with the host and port that the caller used")


class StreamState(BaseModel):
    """What is in force."""

    rate: float = Field(description="events per second")
    paused: bool
    scenario: str | None = Field(description="names of the what-if scenarios in force")
    scenarios: list[dict[str, Any]] = Field(description="the scenarios themselves")
    faults: list[dict[str, Any]] = Field(description="the faults of the wire in force")
    seed: int
    next_event_number: int = Field(description="how many events have happened since event 0")
    started: str = Field(description="when event 0 happened, RFC 3339 in UTC")
    model: str = Field(description="name of the fitted model")


class ChangedState(StreamState):
    """The new state."""

    from_event_number: int = Field(
        description="the first event to which it applies; with a timeline file that is the first one later "
        "than 50 ms from now, so that all servers that share the file agree"
    )


_SCENARIOS = {
    "anyOf": [
        json_schema(),
        {"type": "array", "items": json_schema(), "maxItems": MOST_SCENARIOS},
        {"type": "null"},
    ]
}


_FAULTS = {
    "anyOf": [
        fault_schema(),
        {"type": "array", "items": fault_schema(), "maxItems": MOST_FAULTS},
        {"type": "null"},
    ]
}


class StreamChange(BaseModel):
    """What to set; what is left out stays as it is."""

    model_config = ConfigDict(extra="forbid", strict=True)

    rate: float | None = Field(None, description=f"events per second, from {MIN_RATE} to {MAX_RATE:,}")
    paused: bool | None = None
    scenario: Annotated[Any, WithJsonSchema(_SCENARIOS)] = Field(
        None, description="what-if scenarios: one, a list of them, or null to end them"
    )
    faults: Annotated[Any, WithJsonSchema(_FAULTS)] = Field(
        None,
        description="faults of the wire: one, a list of them, or null to end them; what they have held back "
        "is still delivered",
    )


class KnownScenario(BaseModel):
    """A scenario that can be set as it is."""

    description: str = Field(description="what it does, in one sentence")
    scenario: dict[str, Any] = Field(description="what `PATCH /stream` takes")


class TimelineEntry(BaseModel):
    """From an event on, what holds; times between two entries follow from `start` and `rate`."""

    first: int = Field(description="the first event to which it applies")
    since: str = Field(description="when it takes effect, RFC 3339 in UTC")
    start: str = Field(description="when its first event happens, RFC 3339 in UTC")
    rate: float = Field(description="events per second")
    paused: bool
    scenario: list[dict[str, Any]] | None = Field(description="the what-if scenarios in force")
    faults: list[dict[str, Any]] = Field(
        [], description="the faults of the wire in force; left out if there are none"
    )


class TimelineState(BaseModel):
    """Enough to make the same stream elsewhere."""

    stream: str = Field(description="identity of the stream")
    model: str = Field(description="name of the fitted model")
    model_checksum: str = Field(description="SHA-256 of what it has learned")
    seed: int
    arrivals: str = Field(description="even, poisson or bursts")
    entries: list[TimelineEntry]

"""What the HTTP interface takes and gives, as it is described in OpenAPI."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from logistream.errors import RequestError

__all__ = [
    "ChangedState",
    "Limits",
    "Refusal",
    "Status",
    "StreamChange",
    "StreamState",
    "TimelineEntry",
    "TimelineState",
    "limits_from",
]


class Limits(BaseModel):
    """How much a server lets be asked of it.

    Parameters
    ----------
    clients : int
        Readers of the WebSocket at a time.
    range : int
        Events in one answer to `GET /events`.
    catch_up : float
        Events per second that a reader gets while it catches up with the past; never less than twice the
        rate in force, or it would not.
    message : int
        Bytes of a message that a reader sends.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    clients: Annotated[int, Field(ge=1)] = 1000
    range: Annotated[int, Field(ge=1)] = 1_000_000
    catch_up: Annotated[float, Field(ge=1)] = 2_000_000
    message: Annotated[int, Field(ge=1)] = 65_536


def limits_from(**given: object) -> Limits:
    """Return limits of which some are given; `RequestError` for one that is not allowed."""
    try:
        return Limits(**given)  # type: ignore[arg-type] # checked here
    except ValidationError as error:
        finding = error.errors()[0]
        name = ".".join(map(str, finding["loc"]))
        raise RequestError(f"limit {name}: {finding['msg'].lower()}, not {finding['input']!r}") from None


class Refusal(BaseModel):
    """Why a request was refused."""

    detail: str = Field(description="one sentence: what came, and what is allowed")


class Status(BaseModel):
    """Whether the stream runs and where to read it."""

    status: Literal["running", "paused"]
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


class TimelineEntry(BaseModel):
    """From an event on, what holds; times between two entries follow from `start` and `rate`."""

    first: int = Field(description="the first event to which it applies")
    since: str = Field(description="when it was made, RFC 3339 in UTC")
    start: str = Field(description="when its first event happens, RFC 3339 in UTC")
    rate: float = Field(description="events per second")
    paused: bool
    scenario: str | None


class TimelineState(BaseModel):
    """Enough to make the same stream elsewhere."""

    stream: str = Field(description="identity of the stream")
    model: str = Field(description="name of the fitted model")
    model_checksum: str = Field(description="SHA-256 of what it has learned")
    seed: int
    arrivals: str = Field(description="even, poisson or bursts")
    entries: list[TimelineEntry]

"""How much callers may request of a server."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from logistream.errors import RequestError
from logistream.server.defaults import CATCH_UP, CATCH_UP_TOTAL, CLIENTS, OTHER_CONNECTIONS
from logistream.server.schemas import explain

__all__ = ["Limits", "limits_from"]


class Limits(BaseModel):
    """How much callers may request of a server.

    Parameters
    ----------
    clients : int
        Readers at a time, of the WebSocket and of `GET /sse` together.
    connections : int or None
        Connections at a time, of the WebSocket and of HTTP together; None for 1,000 more than `clients`. No
        more than the system allows the process to have.
    range : int
        Events in one answer to `GET /events`.
    ranges : int
        Answers to `GET /events` at a time.
    catch_up : float
        Events per second that a reader gets while it catches up with the past; never less than twice the
        rate in force, or it would not.
    catch_up_total : float
        Events per second that all readers of the past get together, those of `GET /events` among them; never
        less than twice the rate in force.
    message : int
        Bytes of a message that a reader sends.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    clients: Annotated[int, Field(ge=1)] = CLIENTS
    connections: Annotated[int, Field(ge=1)] | None = None
    range: Annotated[int, Field(ge=1)] = 1_000_000
    ranges: Annotated[int, Field(ge=1)] = 32
    catch_up: Annotated[float, Field(ge=1)] = CATCH_UP
    catch_up_total: Annotated[float, Field(ge=1)] = CATCH_UP_TOTAL
    message: Annotated[int, Field(ge=1)] = 65_536

    @property
    def all_connections(self) -> int:
        """Connections of the WebSocket and of HTTP together."""
        return self.clients + OTHER_CONNECTIONS if self.connections is None else self.connections


def limits_from(**given: object) -> Limits:
    """Return limits of which some are given; `RequestError` for one that is not allowed."""
    try:
        return Limits(**given)  # type: ignore[arg-type] # checked here
    except ValidationError as error:
        raise RequestError(f"limit {explain(error.errors()[0], 'limit', Limits.model_fields)}") from None

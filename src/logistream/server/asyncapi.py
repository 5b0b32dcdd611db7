"""The WebSocket as an AsyncAPI 3 document: what may be asked for, and what then comes.

OpenAPI has no words for messages that a server sends on its own. https://www.asyncapi.com/docs/reference has:
a channel is the connection, its bindings describe the handshake, and an operation is seen from the
application that the document is about, so that our events are what it *sends*.
"""

from __future__ import annotations

import csv
import io
from itertools import islice
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import quote, urlsplit

from logistream.schema import EVENT_NUMBER
from logistream.server.protocol import GOING_AWAY
from logistream.server.routes import MEDIA_TYPES, Columns, Numbered, Start, Where
from logistream.server.schemas import Refusal
from logistream.stream.query import EVENT_NUMBER_HEADER, PARAMETERS, STREAM_HEADER, Format, Lag, parse_reading

if TYPE_CHECKING:
    from collections.abc import Iterable

    from logistream.model.model import Model

__all__ = ["asyncapi_document"]


_ADDRESS = "/ws"
_PROTOCOLS = {"http": "ws", "https": "wss"}

_DESCRIPTION = """\
Synthetic logistics events, live. Connect and read: from then on each event comes as one JSON text message.
The query of the handshake changes where that begins and what is sent. Nothing that a reader sends matters."""

_CHANNEL = f"""\
All readers get the same stream, each from where it begins: first what has happened since, as fast as it
takes it, then each event at its time, without a gap or a repeat. To go on after a broken connection, connect
again with the number after the last event received as `start`, and compare `{STREAM_HEADER}`: if it has
changed, the numbers mean other events. A server that stops closes with code {GOING_AWAY}."""


def asyncapi_document(model: Model, *, url: str, version: str, token: bool) -> dict[str, Any]:
    """Describe the WebSocket of a server in AsyncAPI 3.0.0.

    Parameters
    ----------
    model : Model
        Says which keys an event has, with which values.
    url : str
        Where the server is, `http` or `https`, as the caller sees it: `http://127.0.0.1:8000/`.
    version : str
        Of the server.
    token : bool
        Whether it demands one.

    Returns
    -------
    dict of str to Any
        What a JSON file of it holds.
    """
    place = urlsplit(url)
    server: dict[str, Any] = {"host": place.netloc, "protocol": _PROTOCOLS[place.scheme]}
    if place.path.strip("/"):  # behind a proxy
        server["pathname"] = place.path.rstrip("/")
    components: dict[str, Any] = {"schemas": _schemas(model), "messages": _messages(model)}
    if token:
        components["securitySchemes"] = {
            "query": {"type": "httpApiKey", "in": "query", "name": "token"},
            "header": {"type": "http", "scheme": "bearer"},
        }
        server["security"] = _references("components/securitySchemes", components["securitySchemes"])
    names = tuple(components["messages"])
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Logistream",
            "version": version,
            "description": _DESCRIPTION,
            "externalDocs": {"description": "The HTTP calls", "url": f"{url.rstrip('/')}/docs"},
        },
        "defaultContentType": MEDIA_TYPES["json"],
        "servers": {"this": server},
        "channels": {
            "events": {
                "address": _ADDRESS,
                "title": "Events",
                "description": _CHANNEL,
                "messages": dict(zip(names, _references("components/messages", names), strict=True)),
                "bindings": {"ws": _handshake(model, token)},
                "x-handshake-answers": _answers(token),
            }
        },
        "operations": {
            "sendEvents": {
                "action": "send",
                "channel": _reference("channels/events"),
                "summary": "Send a reader what it asked for, from where it begins, for as long as it stays.",
                "messages": _references("channels/events/messages", names),
            }
        },
        "components": components,
    }


def _handshake(model: Model, token: bool) -> dict[str, Any]:
    """Describe the request that opens the connection."""
    default = parse_reading((), model, PARAMETERS)
    conditions = (f"{name}:{text}" for name, texts in model.categories.items() for text in texts if text)
    described: dict[str, dict[str, Any]] = {
        "start": {
            "description": _description(Start),
            "default": default.start,
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "enum": ["earliest", "latest"]},
                {"type": "string", "format": "date-time"},
            ],
        },
        "format": {
            "description": "which messages come: event (json), lines (ndjson) or batch (arrow)",
            "default": default.selection.format,
            "type": "string",
            "enum": list(get_args(Format)),
        },
        "numbered": {
            "description": _description(Numbered),
            "default": False,
            "type": "boolean",
            **({"enum": [False]} if EVENT_NUMBER.name in model.full_schema else {}),
        },
        "columns": {
            "description": f"{_description(Columns)}; a name that holds a comma stands in double quotes",
            "type": "string",
            "examples": ["all", _comma_separated(model.full_schema.names[:2])],
        },
        "where": {
            "description": _description(Where),
            "type": "array",
            "items": {"type": "string", "pattern": ":"},
            "examples": [list(islice(conditions, 1))],
        },
        "lag": {
            "description": "what a reader gets that has fallen more than a second behind: all that it has "
            "missed (wait), or a message that tells how many events that is, and the newest (skip)",
            "default": default.lag,
            "type": "string",
            "enum": list(get_args(Lag)),
        },
    }
    query = {name: described[name] for name in PARAMETERS}
    headers = {
        "Origin": {
            "description": "where a page comes from, as browsers tell; must be allowed by the server",
            "type": "string",
        }
    }
    if token:
        query["token"] = {"description": "what the server demands, if not in a header", "type": "string"}
        headers["Authorization"] = {
            "description": "`Bearer` and the token, if it is not in the query",
            "type": "string",
        }
    return {
        "bindingVersion": "0.1.0",
        "method": "GET",
        "query": {"type": "object", "properties": query, "additionalProperties": False},
        "headers": {"type": "object", "properties": headers},
    }


def _answers(token: bool) -> dict[str, Any]:
    """Describe how the server answers a handshake, for which the binding has no place."""
    stream = {
        "description": "which stream this is: equal only if the same number is the same event",
        "type": "string",
        "pattern": "^[0-9a-f]{16}$",
    }
    number = {
        "description": "the event number from which the connection reads, whatever `start` was",
        "type": "integer",
        "minimum": 0,
    }
    refusal = {"body": _reference("components/schemas/refusal")}
    refused_later = {"headers": {STREAM_HEADER: stream}, **refusal}
    answers = {
        "101": {
            "description": "events follow",
            "headers": {STREAM_HEADER: stream, EVENT_NUMBER_HEADER: number},
        },
        "401": {"description": "a token is required, or is another", **refusal},
        "403": {"description": "the page's origin, or the host name, is not allowed", **refusal},
        "416": {"description": "the event of `start` has not happened yet", **refused_later},
        "422": {"description": "a parameter is unknown or has a value that is not allowed", **refused_later},
        "503": {"description": "the server has as many readers as it may", **refused_later},
    }
    if not token:
        del answers["401"]
    return answers


def _messages(model: Model) -> dict[str, Any]:
    """Describe what comes over the connection."""
    objects = [_reference("components/schemas/event"), _reference("components/schemas/selected")]
    missed = _reference("components/schemas/missed_events")
    whole_number = {"type": "string", "pattern": "^[0-9]+$"}
    return {
        "event": {
            "title": "One event",
            "summary": "A text message: the event as a JSON object. Sent for format=json.",
            "contentType": MEDIA_TYPES["json"],
            "payload": {
                "description": "`event`, or `selected` if `columns` or `numbered` ask for other keys",
                "anyOf": objects,
            },
        },
        "lines": {
            "title": "Events as lines",
            "summary": "A text message: one or more lines, each a JSON object and a line feed. "
            "Sent for format=ndjson.",
            "contentType": MEDIA_TYPES["ndjson"],
            "payload": {
                "type": "string",
                "pattern": r"^(\{[^\n]*\}\n)+$",
                "x-each-line": {"anyOf": [*objects, missed]},
            },
        },
        "batch": {
            "title": "Events as columns",
            "summary": "A binary message: a whole Arrow IPC stream of schema, dictionaries and one record "
            "batch. Sent for format=arrow.",
            "contentType": MEDIA_TYPES["arrow"],
            "headers": {
                "description": "metadata of the schema in the Arrow stream; texts, as Arrow has no others",
                "type": "object",
                "properties": {
                    "first_event_number": {"description": "of the first row", **whole_number},
                    "next_event_number": {"description": "where to go on: the next `start`", **whole_number},
                    "missed_events": {"description": "left out before this batch, lag=skip", **whole_number},
                },
                "required": ["first_event_number", "next_event_number"],
            },
            "payload": {
                "type": "string",
                "format": "binary",
                "x-arrow-fields": [
                    {"name": field.name, "type": str(field.type), "nullable": field.nullable}
                    for field in model.event_schema.arrow
                ],
            },
        },
        "missed_events": {
            "title": "Events left out",
            "summary": "A text message of its own: how many events were left out before the next one. "
            "Sent for format=json and lag=skip.",
            "contentType": MEDIA_TYPES["json"],
            "payload": missed,
        },
    }


def _schemas(model: Model) -> dict[str, Any]:
    """Return what an event, and everything else that is JSON, looks like."""
    event = model.event_schema.json_schema(f"event of {model.name}", model.categories)
    del event["$schema"]  # AsyncAPI's own dialect, draft 7, has all of its keywords with the same meaning
    selected = {
        column.name: _reference(f"components/schemas/event/properties/{_token(column.name)}")
        if column.name in model.event_schema
        else column.json_schema(model.categories.get(column.name))
        for column in model.full_schema
    }
    selected.setdefault(EVENT_NUMBER.name, EVENT_NUMBER.json_schema())
    refusal = Refusal.model_json_schema()
    return {
        "event": event,
        "selected": {
            "title": f"keys of an event of {model.name} that were asked for",
            "description": "those of `columns`, in that order, then `event_number` if `numbered`; "
            "`GET /schema?columns=...&numbered=...` tells the exact schema",
            "type": "object",
            "properties": selected,
            "minProperties": 1,
            "additionalProperties": False,
        },
        "missed_events": {
            "type": "object",
            "properties": {
                "missed_events": {
                    "description": "how many events were left out before the next one",
                    "type": "integer",
                    "minimum": 1,
                }
            },
            "required": ["missed_events"],
            "additionalProperties": False,
        },
        "refusal": refusal,
    }


def _reference(place: str) -> dict[str, str]:
    return {"$ref": f"#/{place}"}


def _references(place: str, names: Iterable[str]) -> list[dict[str, str]]:
    return [_reference(f"{place}/{name}") for name in names]


def _token(name: str) -> str:
    """Return a name as a part of a JSON pointer (RFC 6901) in the fragment of a URI."""
    return quote(name.replace("~", "~0").replace("/", "~1"), safe="~")


def _comma_separated(names: Iterable[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(names)
    return text.getvalue()


def _description(parameter: Any) -> str:  # noqa: ANN401 - an Annotated type
    """Return what OpenAPI says of a parameter that the HTTP calls have too."""
    return str(get_args(parameter)[1].description)

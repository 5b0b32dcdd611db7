"""The WebSocket as an AsyncAPI 3 document: the parameters of the handshake, and the messages.

OpenAPI cannot describe messages that a server sends on its own; https://www.asyncapi.com/docs/reference can:
a channel is the connection, its bindings describe the handshake, and an operation is seen from the
application that the document is about, so that our events are what it *sends*.

`static/asyncapi.json` holds what is the same for every server.
"""

from __future__ import annotations

import csv
import io
import json
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from logistream.schema import DELIVERY, EVENT_NUMBER
from logistream.server.schemas import LiveQuery, Refusal
from logistream.stream.query import free_name

if TYPE_CHECKING:
    from logistream.model.model import Model

__all__ = ["asyncapi_document"]


def asyncapi_document(model: Model, *, url: str, version: str, token: bool) -> dict[str, Any]:
    """Describe the WebSocket of a server in AsyncAPI 3.0.0.

    Parameters
    ----------
    model : Model
        Gives the keys of an event and their values.
    url : str
        Where the server is, `http` or `https`, as the caller sees it: `http://127.0.0.1:8000/`.
    version : str
        Of the server.
    token : bool
        Whether it requires one.

    Returns
    -------
    dict of str to Any
        What a JSON file of it holds.
    """
    template = resources.files("logistream.server") / "static" / "asyncapi.json"
    document: dict[str, Any] = json.loads(template.read_text(encoding="utf-8"))
    place = urlsplit(url)
    document["info"]["version"] = version
    document["info"]["externalDocs"]["url"] = f"{url.rstrip('/')}/docs"
    server = document["servers"]["this"]
    server |= {"host": place.netloc, "protocol": {"http": "ws", "https": "wss"}[place.scheme]}
    if place.path.strip("/"):  # behind a proxy
        server["pathname"] = place.path.rstrip("/")

    channel, components = document["channels"]["events"], document["components"]
    handshake = channel["bindings"]["ws"]
    handshake["query"]["properties"] = {**_parameters(model), **handshake["query"]["properties"]}
    components["messages"]["batch"]["payload"]["x-arrow-fields"] = [
        {"name": field.name, "type": str(field.type), "nullable": field.nullable}
        for field in model.event_schema.arrow
    ]
    event = model.event_schema.json_schema(f"event of {model.name}", model.categories)
    del event["$schema"]  # AsyncAPI's own dialect, draft 7, has all of its keywords with the same meaning
    components["schemas"] |= {"event": event, "refusal": Refusal.model_json_schema()}
    components["schemas"]["selected"] |= {
        "title": f"keys of an event of {model.name} that were requested",
        "properties": _properties(model),
    }
    if not token:
        del server["security"], components["securitySchemes"], channel["x-handshake-answers"]["401"]
        del handshake["query"]["properties"]["token"], handshake["headers"]["properties"]["Authorization"]
    return document


def _parameters(model: Model) -> dict[str, Any]:
    """Return the parameters of the handshake, with examples of the model's columns and values."""
    described = LiveQuery.described()
    columns = io.StringIO()
    csv.writer(columns, lineterminator="").writerow(model.full_schema.names[:2])
    described["columns"]["examples"] = ["all", columns.getvalue()]
    values = ((name, value) for name, values in model.categories.items() for value in values if value)
    described["where"]["examples"] = [[f"{name}:{value}"] for name, value in values][:1] or [[]]
    if EVENT_NUMBER.name in model.full_schema:
        described["numbered"]["enum"] = [False]
    return described


def _properties(model: Model) -> dict[str, Any]:
    """Return the schema of each key that can be requested; by reference if every event has the key."""
    properties: dict[str, Any] = {}
    for column in model.full_schema:
        if column.name in model.event_schema:
            # As a part of a JSON pointer (RFC 6901) in the fragment of a URI.
            place = quote(column.name.replace("~", "~0").replace("/", "~1"), safe="~")
            properties[column.name] = {"$ref": f"#/components/schemas/event/properties/{place}"}
        else:
            properties[column.name] = column.json_schema(model.categories.get(column.name))
    properties.setdefault(EVENT_NUMBER.name, EVENT_NUMBER.json_schema())
    properties.setdefault(free_name(DELIVERY.name, properties), DELIVERY.json_schema())
    return properties

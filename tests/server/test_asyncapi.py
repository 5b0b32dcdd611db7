"""The AsyncAPI document is valid, and true.

`asyncapi-3.0.0.json.gz` is schemas/3.0.0.json of https://github.com/asyncapi/spec-json-schemas (npm package
@asyncapi/specs 6.11.1), without its blanks; Apache License 2.0, Copyright 2016-2025 AsyncAPI Initiative. It
holds all that it refers to.
"""

from __future__ import annotations

import gzip
import json
import re
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import unquote, urlencode

import jsonschema
import pandas as pd
import pyarrow as pa
import pytest
from referencing import Registry
from referencing.jsonschema import DRAFT7

import logistream
from helpers.processes import give_readers_time
from helpers.waiting import until
from helpers.websocket import FEW, connect
from logistream.errors import RequestError
from logistream.fitting.fit import fit
from logistream.model.model import Model, load_model
from logistream.server.asyncapi import asyncapi_document
from logistream.server.ranges import MEDIA_TYPES
from logistream.server.schemas import LiveQuery
from logistream.server.server import StreamServer
from logistream.stream.query import PARAMETERS, Format, Lag

if TYPE_CHECKING:
    from collections.abc import Iterator

    from websockets.datastructures import Headers

MODEL = load_model()
URL = "http://127.0.0.1:8000/"


def document(model: Model = MODEL, *, url: str = URL, token: bool = False) -> dict[str, Any]:
    """Return what a server would publish, after a journey as JSON."""
    published = asyncapi_document(model, url=url, version="1.2.3", token=token)
    return json.loads(json.dumps(published))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def specification() -> jsonschema.Draft7Validator:
    """Return what checks a document against AsyncAPI 3.0.0, and looks up nothing anywhere else."""
    packed = (Path(__file__).parent / "asyncapi-3.0.0.json.gz").read_bytes()
    return jsonschema.Draft7Validator(json.loads(gzip.decompress(packed)), registry=Registry())


@pytest.fixture(scope="module")
def odd() -> Model:
    """Return a model of a table whose names are hard to quote, and that numbers its rows itself."""
    rows = 200
    return fit(
        pd.DataFrame(
            {
                'a/b, "c"~d %': ["x", "y"] * (rows // 2),
                "event_number": range(rows),
                "größe [m²]": [0.5, 1.5, 2.5, 3.5] * (rows // 4),
            }
        ),
        name="odd",
    )


def references(part: Any) -> Iterator[str]:
    """Give all references in a document."""
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "$ref" and isinstance(value, str):
                yield value
            else:
                yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def look_up(whole: dict[str, Any], reference: str) -> Any:
    """Return what a reference within a document means."""
    assert reference.startswith("#/")
    found: Any = whole
    for part in reference[2:].split("/"):
        found = found[unquote(part).replace("~1", "/").replace("~0", "~")]
    return found


def validator(whole: dict[str, Any], place: str) -> jsonschema.Draft7Validator:
    """Return what checks against the JSON Schema at some place of a document."""
    registry = Registry().with_resource("urn:doc", DRAFT7.create_resource(whole))
    return jsonschema.Draft7Validator({"$ref": f"urn:doc{place}"}, registry=registry)


@pytest.mark.parametrize("token", [False, True])
def test_it_is_valid(specification: jsonschema.Draft7Validator, odd: Model, token: bool) -> None:
    """By the published JSON Schema of AsyncAPI 3.0.0, for any model; and no reference leads nowhere."""
    for model in (MODEL, odd):
        whole = document(model, token=token)
        specification.validate(whole)
        for reference in references(whole):
            assert isinstance(look_up(whole, reference), dict)


def test_what_is_wrong_would_be_found(specification: jsonschema.Draft7Validator) -> None:
    """The check is not one that lets everything pass."""
    for place, spoilt in (
        ("#/operations/sendEvents", {"action": "publish"}),
        ("#/servers/this", {"host": None}),
        ("#/channels/events/bindings/ws", {"qeury": {}}),
        ("#/components/schemas/event", {"type": "objekt"}),
        ("#/components/messages/batch", {"headers": []}),
    ):
        whole = document()
        look_up(whole, place).update(spoilt)
        assert not specification.is_valid(whole)


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("http://127.0.0.1:8000/", {"host": "127.0.0.1:8000", "protocol": "ws"}),
        ("https://example.org/", {"host": "example.org", "protocol": "wss"}),
        (
            "https://example.org/streams/7/",
            {"host": "example.org", "protocol": "wss", "pathname": "/streams/7"},
        ),
        ("http://[::1]:9", {"host": "[::1]:9", "protocol": "ws"}),
    ],
)
def test_the_server_is_where_the_caller_sees_it(url: str, server: dict[str, str]) -> None:
    """Also behind a proxy, with and without encryption; the channel's address follows the path."""
    whole = document(url=url)
    assert whole["servers"] == {"this": server}
    assert whole["channels"]["events"]["address"] == "/ws"
    assert whole["info"]["version"] == "1.2.3"
    assert whole["info"]["externalDocs"]["url"] == f"{url.rstrip('/')}/docs"


def test_the_server_is_what_sends() -> None:
    """AsyncAPI speaks for the application that a document is about; it sends all that the channel has."""
    whole = document()
    (operation,) = whole["operations"].values()
    assert operation["action"] == "send"
    channel = look_up(whole, operation["channel"]["$ref"])
    sent = [look_up(whole, reference["$ref"]) for reference in operation["messages"]]
    assert sent == list(channel["messages"].values())
    kinds = {look_up(whole, reference["$ref"])["contentType"] for reference in sent}
    assert kinds == {"application/cloudevents+json", *(MEDIA_TYPES[form] for form in get_args(Format))}


def test_the_token() -> None:
    """Both ways of giving a token are described where one is required, and none where it is not."""
    whole = document(token=True)
    schemes = [look_up(whole, reference["$ref"]) for reference in whole["servers"]["this"]["security"]]
    assert schemes == [
        {"type": "httpApiKey", "in": "query", "name": "token"},
        {"type": "http", "scheme": "bearer"},
    ]
    binding = whole["channels"]["events"]["bindings"]["ws"]
    assert "token" in binding["query"]["properties"]
    assert "Authorization" in binding["headers"]["properties"]
    assert "401" in whole["channels"]["events"]["x-handshake-answers"]
    assert '"token' not in json.dumps({**document(), "components": {}})


def query_of(whole: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON Schema of the query."""
    schema: dict[str, Any] = whole["channels"]["events"]["bindings"]["ws"]["query"]
    return schema


def written(value: Any) -> list[str]:
    """Return how a value stands in a query string, once for each time that the parameter is given."""
    if isinstance(value, list):
        return [text for item in value for text in written(item)]
    return [str(value).lower() if isinstance(value, bool) else str(value)]


def documented(name: str, schema: dict[str, Any]) -> list[Any]:
    """Return values that a document allows for a parameter."""
    values = [*schema.get("enum", ()), *schema.get("examples", ())]
    if "default" in schema:
        values.append(schema["default"])
    if schema.get("type") == "boolean" and "enum" not in schema:
        values += [True, False]
    for choice in schema.get("anyOf", ()):
        values += choice.get("enum", ())
        values += [0, 12345, 2**53] if choice.get("type") == "integer" else []
        values += ["2026-11-24T06:23:00Z"] if choice.get("format") == "date-time" else []
    assert values, name
    return values


def test_each_documented_parameter_is_taken(odd: Model) -> None:
    """With each value that is listed or given as an example, and those are values by their own schema."""
    for model in (MODEL, odd):
        query = query_of(document(model))
        assert sorted(query["properties"]) == sorted(PARAMETERS)
        for name, schema in query["properties"].items():
            assert schema["description"]
            for value in documented(name, schema):
                jsonschema.Draft7Validator(query).validate({name: value})
                LiveQuery.parse((name, text) for text in written(value)).selection(model)
    assert query_of(document())["properties"]["format"]["enum"] == list(get_args(Format))
    assert query_of(document())["properties"]["lag"]["enum"] == list(get_args(Lag))
    assert query_of(document())["properties"]["start"]["default"] == "latest"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("stop", "latest"),
        ("speed", "0"),
        ("rate", "5"),
        ("format", "xml"),
        ("lag", "drop"),
        ("gather", "1"),
        ("numbered", "perhaps"),
        ("start", "-1"),
        ("start", "first"),
        ("where", "Market"),
    ],
)
def test_what_is_not_documented_is_refused(name: str, value: str) -> None:
    """Unknown parameters and values, by the document as by the server."""
    given: Any = [value] if name == "where" else value
    query = {**query_of(document())}
    checked = jsonschema.Draft7Validator(query, format_checker=jsonschema.Draft7Validator.FORMAT_CHECKER)
    if (name, value) != ("start", "first"):  # needs a package that knows RFC 3339
        assert name == "start" or not checked.is_valid({name: given})
    with pytest.raises(RequestError):
        LiveQuery.parse([(name, value)]).selection(MODEL)


def test_a_table_with_numbers_of_its_own_is_not_numbered(odd: Model) -> None:
    """The document does not offer what the server refuses."""
    assert query_of(document(odd))["properties"]["numbered"]["enum"] == [False]
    with pytest.raises(RequestError, match="cannot be numbered"):
        LiveQuery.parse([("numbered", "true")]).selection(odd)


@pytest.fixture(scope="module")
def server() -> Iterator[StreamServer]:
    """Give a running server with a past."""
    with StreamServer(MODEL, rate=500, port=0, history="2s") as running:
        yield running


@pytest.fixture(scope="module")
def served(server: StreamServer) -> dict[str, Any]:
    """Return the document that the server gives."""
    with urllib.request.urlopen(f"{server.url}/asyncapi.json") as answer:
        assert answer.headers["content-type"] == MEDIA_TYPES["json"]
        return json.load(answer)  # type: ignore[no-any-return]


def receive(whole: dict[str, Any], **query: Any) -> tuple[list[Any], Headers]:
    """Connect as a document describes it and return some messages and the headers of the answer."""
    (place,) = whole["servers"].values()
    (channel,) = whole["channels"].values()
    jsonschema.Draft7Validator(channel["bindings"]["ws"]["query"]).validate(query)
    url = f"{place['protocol']}://{place['host']}{place.get('pathname', '')}{channel['address']}"
    pairs = [(name, text) for name, value in query.items() for text in written(value)]
    with connect(f"{url}?{urlencode(pairs)}", close_timeout=0.1) as reader:
        assert reader.response is not None
        return [reader.recv(timeout=60) for _ in range(20)], reader.response.headers


def test_a_server_publishes_it(served: dict[str, Any], specification: jsonschema.Draft7Validator) -> None:
    """With its own address and version."""
    specification.validate(served)
    assert served["info"]["version"] == logistream.__version__
    assert served == {
        **document(url=f"http://{served['servers']['this']['host']}/"),
        "info": served["info"],
    }


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"numbered": True},
        {"columns": "all", "start": "earliest"},
        {"columns": "Market,Sales", "numbered": True},
        {"where": ["Market:Europe", "Market:LATAM"], "start": 0},
    ],
)
def test_events_are_as_documented(served: dict[str, Any], query: dict[str, Any]) -> None:
    """As JSON and as lines, whatever was requested; one kind of message and no other."""
    messages, _ = receive(served, **query)
    event = validator(served, "#/components/messages/event/payload")
    missed = validator(served, "#/components/messages/missed_events/payload")
    for message in messages:
        event.validate(json.loads(message))
        assert not missed.is_valid(json.loads(message))
    if not query.keys() & {"numbered", "columns"}:
        assert validator(served, "#/components/schemas/event").is_valid(json.loads(messages[0]))

    messages, _ = receive(served, format="ndjson", **query)
    lines = validator(served, "#/components/messages/lines/payload")
    line = validator(served, "#/components/messages/lines/payload/x-each-line")
    for message in messages:
        lines.validate(message)
        for text in message.split("\n")[:20]:  # of thousands, which take long to check
            assert not text or line.is_valid(json.loads(text))


def test_batches_are_as_documented(served: dict[str, Any]) -> None:
    """Columns with their types, and the metadata of the schema."""
    messages, _ = receive(served, format="arrow", start="earliest")
    headers = validator(served, "#/components/messages/batch/headers")
    expected = look_up(served, "#/components/messages/batch/payload/x-arrow-fields")
    for message in messages:
        assert isinstance(message, bytes)
        with pa.ipc.open_stream(message) as stream:
            fields = [
                {"name": field.name, "type": str(field.type), "nullable": field.nullable}
                for field in stream.schema
            ]
            headers.validate({key.decode(): value.decode() for key, value in stream.schema.metadata.items()})
            assert fields == expected
            assert len(list(stream)) == 1


def test_the_handshake_is_as_documented(served: dict[str, Any]) -> None:
    """The headers of the answer, and of each refusal its status and sentence."""
    (channel,) = served["channels"].values()
    answers = channel["x-handshake-answers"]
    _, got = receive(served)
    for name, schema in answers["101"]["headers"].items():
        value: Any = int(got[name]) if schema["type"] == "integer" else got[name]
        jsonschema.Draft7Validator(schema).validate(value)

    refusal = validator(served, answers["422"]["body"]["$ref"])
    place = served["servers"]["this"]
    for status, query in (("422", "format=xml"), ("416", "start=999999999999")):
        url = f"{place['protocol']}://{place['host']}{channel['address']}?{query}"
        with pytest.raises(Exception, match=status) as caught, connect(url):
            pass
        response = caught.value.response  # type: ignore[attr-defined]
        refusal.validate(json.loads(response.body))
        assert all(name in response.headers for name in answers[status]["headers"])


@pytest.mark.slow
def test_a_gap_is_as_documented() -> None:
    """A reader that has fallen behind gets a message with the number of events it has skipped."""
    with StreamServer(MODEL, rate=20_000, port=0) as server:
        whole = document(url=f"http://127.0.0.1:{server.port}")
        missed = validator(whole, "#/components/messages/missed_events/payload")
        with connect(f"{server.websocket_url}?lag=skip", close_timeout=0.1, max_queue=FEW) as reader:
            reader.recv(timeout=60)

            def behind() -> bool:
                with urllib.request.urlopen(f"{server.url}/metrics") as answer:
                    lag = re.search(r"^logistream_lag_seconds (.*)$", answer.read().decode(), re.MULTILINE)
                return lag is not None and float(lag[1]) > 1.5

            until(behind)
            messages = (json.loads(reader.recv(timeout=60)) for _ in range(10_000_000))
            gap = next(message for message in messages if "missed_events" in message)
            missed.validate(gap)
            event = validator(whole, "#/components/messages/event/payload")
            assert not event.is_valid(gap)
            event.validate(next(messages))


def test_going_away_is_as_documented(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that stops closes with the code that the document names."""
    give_readers_time(monkeypatch)
    with (
        StreamServer(MODEL, rate=200, port=0) as server,
        connect(server.websocket_url) as reader,
    ):
        reader.recv(timeout=60)
        server.stop()
        for _ in reader:
            pass
        description = document()["channels"]["events"]["description"]
        assert f"closes with code {reader.close_code}." in description

"""Scenarios of a running server: set from Python, over HTTP and on the command line, and their truth."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

import jsonschema
import pyarrow as pa
import pytest

from helpers.networks import random_network
from helpers.processes import ServerProcess
from helpers.waiting import until
from logistream import dataco
from logistream.cli import main
from logistream.errors import NotYetError, RequestError
from logistream.fitting.fit import fit
from logistream.model.scenario import Scenario
from logistream.server.server import StreamServer

if TYPE_CHECKING:
    from pathlib import Path

    from logistream.model.model import Model

CASH = {"name": "cash", "effects": [{"set": {"Type": "CASH"}}]}


def get(server: StreamServer | ServerProcess, path: str) -> Any:
    """Return the answer to a request, as plain data."""
    with urlopen(f"http://127.0.0.1:{server.port}{path}", timeout=60) as answer:
        return json.load(answer)


def patch(server: StreamServer | ServerProcess, body: object) -> dict[str, Any]:
    """Change the stream and return the answer."""
    url = f"http://127.0.0.1:{server.port}/stream"
    request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="PATCH")
    with urlopen(request, timeout=60) as answer:
        state: dict[str, Any] = json.load(answer)
    return state


def test_a_scenario_is_set_live(server: StreamServer) -> None:
    """As an attribute: a scenario, its JSON form, a list of them, and None to end them."""
    server.scenario = Scenario.from_json(CASH)
    assert server.scenario == (Scenario.from_json(CASH),)
    first = server.timeline.last.first
    until(lambda: server.state["next_event_number"] > first + 20)
    events = get(server, f"/events?start={first}&stop={first + 20}")
    assert {event["Type"] for event in events} == {"CASH"}
    server.scenario = [CASH, dataco.fraud_wave()]
    assert server.state["scenario"] == "cash; fraud wave"
    server.scenario = None
    assert server.scenario == ()


def test_a_scenario_is_set_over_http(server: StreamServer) -> None:
    """One, several, or null to end them; the state and the timeline show them."""
    state = patch(server, {"scenario": CASH})
    assert state["scenario"] == "cash"
    assert Scenario.from_json(state["scenarios"][0]) == Scenario.from_json(CASH)
    assert state["from_event_number"] == server.timeline.last.first
    entries = get(server, "/timeline")["entries"]
    assert [entry["scenario"] for entry in entries] == [None, state["scenarios"]]
    assert patch(server, {"rate": 300})["scenario"] == "cash"
    peak = patch(server, {"scenario": [dataco.peak_season(), CASH]})
    assert (peak["rate"], peak["scenario"]) == (900, "peak season; cash")
    ended = patch(server, {"scenario": None})
    assert (ended["rate"], ended["scenario"], ended["scenarios"]) == (300, None, [])
    assert get(server, "/stream")["scenarios"] == []


def test_the_known_scenarios_over_http(server: StreamServer) -> None:
    """Each with a sentence; `PATCH /stream` takes each as it is."""
    known = get(server, "/scenarios")
    assert len(known) == len(server.known_scenarios) == 5
    for each in known:
        assert each["description"].endswith(".")
        assert patch(server, {"scenario": each["scenario"]})["scenarios"] == [each["scenario"]]


@pytest.mark.slow
def test_a_model_knows_the_named_scenarios_that_fit_it() -> None:
    """Of orders without Western Europe and category 17 neither the strike nor the price shock."""
    away = {"Order Region": "Western Europe", "Product Category Id": 17}
    orders = dataco.load_orders().head(3000)
    for column, value in away.items():
        orders = orders[orders[column] != value]
    with StreamServer(fit(orders), port=0) as server:
        names = [scenario.name for scenario, _ in server.known_scenarios]
    assert names == ["peak season", "carrier outage, Standard Class", "fraud wave"]
    other, _ = random_network(1)
    assert StreamServer(other, port=0).known_scenarios == ()


def test_openapi_describes_scenarios(server: StreamServer) -> None:
    """With a schema that allows what is allowed, and refuses an unknown effect."""
    schemas = get(server, "/openapi.json")["components"]["schemas"]
    schema = schemas["StreamChange"]["properties"]["scenario"]
    for allowed in (CASH, [CASH, dataco.port_strike()], None, dataco.price_shock()):
        jsonschema.validate(allowed, schema)
    assert not jsonschema.Draft202012Validator(schema).is_valid({"effects": [{"wieght": 2}]})


def test_the_truth_over_http(server: StreamServer) -> None:
    """In three formats the same; and that of `server.truth`."""
    strike = dataco.port_strike()
    first = patch(server, {"scenario": strike})["from_event_number"]
    until(lambda: server.state["next_event_number"] > first + 60)
    query = f"start={first}&stop={first + 50}"
    rows = get(server, f"/truth?{query}")
    assert [row["event_number"] for row in rows] == list(range(first, first + 50))
    assert {row["scenario"] for row in rows} == {strike["name"]}
    assert all(row["in_force"] == {strike["name"]: 1.0} for row in rows)
    assert [row["late_probability"] for row in rows] == server.truth(first, first + 50)[
        "late_probability"
    ].tolist()
    with urlopen(f"{server.url}/truth?{query}&format=ndjson", timeout=60) as answer:
        assert [json.loads(line) for line in answer.read().splitlines()] == rows
    with urlopen(f"{server.url}/truth?{query}&format=arrow", timeout=60) as answer:
        table = pa.ipc.open_stream(io.BytesIO(answer.read())).read_all()
    written = ("in_force", "twin", "delivery")
    assert [row | {name: json.loads(row[name]) for name in written} for row in table.to_pylist()] == rows
    server.scenario = None
    until(lambda: server.state["next_event_number"] > first + 100)
    plain = get(server, f"/events?start={first}&stop={first + 50}")
    for row, event in zip(rows, plain, strict=True):
        assert row["twin"].keys() <= event.keys() | {"Department Id", "Order Item Discount Rate"}
    dates = [row["twin"]["shipping date (DateOrders)"] for row in rows if len(row["twin"]) == 1]
    assert all(len(date) == len("11/26/2026 18:00") for date in dates)
    with pytest.raises(NotYetError):
        server.truth(0, 10**9)
    with pytest.raises(RequestError, match="event numbers must satisfy 0 <= start <= stop"):
        server.truth(5, 2)
    with pytest.raises(RequestError, match="an event number must be a whole number, not '-5s'"):
        server.truth("-5s", 5)  # type: ignore[arg-type]


def test_what_is_set_before_the_start_holds_from_event_0(model: Model) -> None:
    """Also for a history, and when a stopped server is started again."""
    strike = dataco.port_strike()
    server = StreamServer(model, rate=500, port=0, history="2s")
    server.scenario = strike
    server.faults = {"drop": True, "share": 0.1}
    for _ in range(2):
        with server:
            assert [entry.scenario for entry in server.timeline.entries] == [strike["name"]]
            assert (server.rate, len(server.faults)) == (500, 1)
            assert {"dropped": True} in server.truth(0, 500)["delivery"].tolist()
            assert set(server.truth(0, 500)["scenario"]) == {strike["name"]}
    server.scenario = None
    with server:
        assert server.truth(0, 500)["scenario"].isna().all()


@pytest.mark.slow
def test_replicas_and_a_restart_hold_a_scenario(tmp_path: Path) -> None:
    """Servers on one timeline serve the same events and truths under it, also after kill -9."""
    file, form = str(tmp_path / "timeline"), tmp_path / "scenario.json"
    profile = {"shape": "ramp", "position": 200, "width": 200}
    form.write_text(json.dumps([dataco.port_strike(profile=profile), CASH]))
    options = ("--timeline", file, "--rate", "200")
    with ServerProcess(*options, "--scenario", str(form)) as one, ServerProcess("--timeline", file) as two:
        until(lambda: get(two, "/stream")["scenario"] == "port strike, Western Europe; cash")
        first = get(two, "/timeline")["entries"][1]["first"]
        for server in (one, two):
            until(lambda: get(server, "/stream")["next_event_number"] > first + 400)  # noqa: B023
        events, truth = f"/events?start=0&stop={first + 400}", f"/truth?start={first}&stop={first + 300}"
        bodies = [get(server, events) for server in (one, two)]
        truths = [get(server, truth) for server in (one, two)]
        one.kill()
    with ServerProcess("--timeline", file) as again:
        bodies.append(get(again, events))
        truths.append(get(again, truth))
        assert len(get(again, "/timeline")["entries"]) == 2
        assert get(again, "/stream")["scenario"] == "port strike, Western Europe; cash"
    assert bodies[0] == bodies[1] == bodies[2]
    assert truths[0] == truths[1] == truths[2]
    assert {event["Type"] for event in bodies[0][first:]} == {"CASH"}


@pytest.mark.slow
def test_workers_hold_a_scenario(tmp_path: Path) -> None:
    """With several processes on one port too, though nobody may change it and a proxy is configured."""
    form = tmp_path / "scenario.json"
    form.write_text(json.dumps(CASH))
    options = ("--workers", "2", "--rate", "200", "--read-only", "--scenario", str(form))
    with ServerProcess(*options, environment={"http_proxy": "http://127.0.0.1:9"}) as server:
        until(lambda: get(server, "/stream")["scenario"] == "cash")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "scenario {} cannot be read: No such file or directory"),
        (
            "{",
            "scenario {} cannot be used: it is not JSON: Expecting property name",
        ),
        ("[" * 100_000, "scenario {} cannot be used: it is not JSON: "),
        ('{"effects": []}', "scenario {} cannot be used: a scenario has from 1 to 16 effects, not 0"),
        ('{"effects": [{"set": {"Type": "CASCH"}}]}', "'Type' is never 'CASCH': it is 'CASH', 'DEBIT', "),
    ],
)
def test_a_file_that_holds_no_scenario(
    content: str | None, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`serve --scenario` ends with a sentence and the code for bad usage."""
    path = tmp_path / "scenario.json"
    if content is not None:
        path.write_text(content)
    assert main(["serve", "--port", "0", "--scenario", str(path)]) == 2
    assert capsys.readouterr().err.startswith(f"logistream: {sentence.format(path)}")

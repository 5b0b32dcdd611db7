"""The body of `GET /truth`: what is done to deliveries, in each format."""

from __future__ import annotations

import io
import json

import pyarrow as pa

from helpers.clocks import NOW, SECOND, Clock
from logistream.model.model import Model
from logistream.server.truth import truth_body
from logistream.stream.stream import Stream
from logistream.stream.timeline import Timeline, first_entry


def test_what_is_done_to_deliveries_is_the_same_in_each_format(model: Model) -> None:
    """An object in JSON, and a string that holds it in Arrow."""
    clock = Clock()
    stream = Stream(model, Timeline([first_entry(NOW, rate=100)]), clock=clock)
    stream.change(
        faults=[
            {"duplicate": {"events": 3}, "share": 0.5},
            {"drop": True, "share": 0.2},
            {"corrupt": "type", "column": "Sales", "share": 0.5},
        ]
    )
    clock.now += SECOND
    truth = stream.truth(0, 60)
    done = truth["delivery"].tolist()
    assert done[0] == {}
    assert {"dropped": True} in done
    rows = json.loads(truth_body(truth, model.full_schema, "json"))
    assert [row["delivery"] for row in rows] == done
    lines = truth_body(truth, model.full_schema, "ndjson").splitlines()
    assert [json.loads(line) for line in lines] == rows
    table = pa.ipc.open_stream(io.BytesIO(truth_body(truth, model.full_schema, "arrow"))).read_all()
    assert [json.loads(row) for row in table.column("delivery").to_pylist()] == done
    sales = stream.batch(0, 60).column("Sales").to_pylist()
    damaged = [(n, d) for n, of in enumerate(done) for d in of.get("corrupt", ()) if d is not None]
    assert damaged == [(n, {"type": {"Sales": str(sales[n])}}) for n, _ in damaged] != []

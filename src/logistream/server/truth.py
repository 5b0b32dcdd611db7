"""`GET /truth`: what is true of each event of the past, as a body."""

from __future__ import annotations

import io
import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from logistream.model.truth import PROBABILITY
from logistream.tables.dates import write_dates
from logistream.times import rfc3339

if TYPE_CHECKING:
    import pandas as pd

    from logistream.schema import Schema
    from logistream.stream.query import Format

__all__ = ["MOST_TRUTHS", "truth_body"]

MOST_TRUTHS = 100_000
"""Events of one request: their probabilities take longer than the events."""


def truth_body(truth: pd.DataFrame, schema: Schema, form: Format) -> bytes:
    """Return what `Stream.truth` gave as a JSON array, as lines of JSON, or as an Arrow IPC stream.

    Values of twins are written as in events; in Arrow objects are strings of JSON.
    """
    rows = [_row({str(k): v for k, v in record.items()}, schema) for record in truth.to_dict("records")]
    if form == "arrow":
        columns = [
            pa.field("event_number", pa.int64(), nullable=False),
            pa.field("strength", pa.float64(), nullable=False),
            pa.field("scenario", pa.string()),
            pa.field("in_force", pa.string(), nullable=False),
            pa.field("twin", pa.string(), nullable=False),
        ]
        if PROBABILITY in truth:
            columns.append(pa.field(PROBABILITY, pa.float64(), nullable=False))
        columns.append(pa.field("delivery", pa.string(), nullable=False))
        rows = [row | {name: _json(row[name]) for name in ("in_force", "twin", "delivery")} for row in rows]
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, pa.schema(columns)) as writer:
            writer.write_batch(pa.RecordBatch.from_pylist(rows, schema=pa.schema(columns)))
        return sink.getvalue()
    lines = [_json(row) for row in rows]
    if form == "ndjson":
        return "".join(f"{line}\n" for line in lines).encode()
    array = ",\n".join(lines)
    return f"[{array}]".encode()


def _row(record: dict[str, Any], schema: Schema) -> dict[str, Any]:
    """Return one event's truth as JSON has it."""
    twin = {name: _value(value, schema, name) for name, value in record["twin"].items()}
    scenario = record["scenario"] if isinstance(record["scenario"], str) else None
    return record | {"scenario": scenario, "twin": twin}


def _value(value: object, schema: Schema, name: str) -> object:
    if not isinstance(value, datetime):
        return value
    micros = round(value.timestamp() * 1e6)
    pattern = schema[name].text_format
    if pattern is None:
        return rfc3339(micros)
    return write_dates(np.array([micros], "datetime64[us]"), pattern)[0].as_py()


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

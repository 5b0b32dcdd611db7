"""Corrupted deliveries in each format: what is damaged, and that nothing else is."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logistream.model.model import Model
from logistream.schema import DELIVERY, EVENT_NUMBER, EVENT_TIME, Column, Schema
from logistream.stream.corruption import (
    FAULT,
    Corruption,
    corrupt_columns,
    corrupt_strings,
    described,
    faulty_schema,
)
from logistream.stream.encoding import CsvEncoder, Encoder, Strings, cloud_event_attributes
from logistream.stream.stream import Stream
from logistream.stream.timeline import Timeline, first_entry

SCHEMA = Schema(
    (
        DELIVERY,
        Column('town, or "city"', "category"),
        Column("note", "category", nullable=True),
        Column("late", "boolean"),
        Column("n", "integer", nullable=True),
        Column("x", "number", nullable=True),
        Column("day", "timestamp", text_format="%m/%d/%Y"),
        EVENT_TIME,
        EVENT_NUMBER,
    )
)
strings = st.text(max_size=8) | st.sampled_from(
    ['a,"b"', 'say ""', "\\", '","note":"x', "line\nbreak", "é🚚", "}"]
)
rows = st.tuples(
    strings,
    st.none() | strings,
    st.booleans(),
    st.none() | st.integers(-(2**53), 2**53),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
)
corruptions = st.lists(
    st.one_of(
        st.builds(
            Corruption,
            st.sampled_from(["null", "type", "missing"]),
            st.sampled_from([*SCHEMA.names[1:-1], "no column of the reader"]),
            st.integers(0, 999).map(float),
        ),
        st.integers(0, 999).map(lambda value: Corruption("extra", "", float(value))),
        st.floats(0, 1, exclude_max=True).map(lambda share: Corruption("cut", "", share)),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda c: c.column or c.kind,
).map(tuple)


def batch_of(values: list[tuple[Any, ...]]) -> pa.RecordBatch:
    """Return rows with the columns of the schema."""
    n = len(values)
    columns = list(zip(*values, strict=True))
    time = datetime(2026, 11, 24, 6, 23, tzinfo=UTC)
    arrays = [
        pa.array([f"{place}.0" for place in range(n)]).dictionary_encode(),
        *(pa.array(column, pa.string()).dictionary_encode() for column in columns[:2]),
        pa.array(columns[2], pa.bool_()),
        pa.array(columns[3], pa.int64()),
        pa.array(columns[4], pa.float64()),
        *[pa.array([time] * n, pa.timestamp("us", tz="UTC"))] * 2,
        pa.array(range(n)),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA.arrow)


def split(written: Strings) -> list[bytes]:
    """Return each row."""
    return [bytes(written.data[a:b]) for a, b in zip(written.ends[:-1], written.ends[1:], strict=True)]


def damaged(event: dict[str, Any], damage: tuple[Corruption, ...]) -> dict[str, Any]:
    """Return an event as it is delivered, but for a cut."""
    found = dict(event)
    for c in damage:
        if c.kind == "extra":
            found["unexpected"] = int(c.value)
        elif c.column in event:
            if c.kind == "missing":
                del found[c.column]
            elif c.kind == "null":
                found[c.column] = None
            elif SCHEMA[c.column].kind in ("category", "timestamp"):
                found[c.column] = int(c.value)
            else:
                found[c.column] = "" if event[c.column] is None else json.dumps(event[c.column])
    return found


def ends(text: str, whole: dict[str, Any]) -> bool:
    """Return whether a text is the beginning of an object, with at least its first key and value."""
    [(key, value), *_] = whole.items()
    least = "{" + json.dumps({key: value}, ensure_ascii=False, separators=(",", ":"))[1:-1]
    return text.startswith(least)


@given(
    st.lists(st.tuples(rows, st.none() | corruptions), min_size=1, max_size=6), st.booleans(), st.booleans()
)
def test_json_is_damaged_as_described_and_not_otherwise(
    given: list[tuple[Any, Any]], enveloped: bool, lines: bool
) -> None:
    """Whole rows keep their bytes, envelopes their attributes, lines their ends; only a cut is no JSON."""
    batch = batch_of([row for row, _ in given])
    damage = {i: c for i, (_, c) in enumerate(given) if c is not None}
    end = "\n" if lines else ""
    before = "" if enveloped else "____"
    encoder = Encoder(SCHEMA, before, ("}" if enveloped else "") + end)
    lead = None
    if enveloped:
        numbers = np.arange(batch.num_rows)
        lead = cloud_event_attributes(
            numbers, batch.column("event_time"), stream="s", source="/x", before="____"
        )
    clean = encoder.join(batch, lead)
    wire = split(corrupt_strings(clean, encoder, damage))
    effects = described(batch, SCHEMA, damage)
    for i, (old, new) in enumerate(zip(split(clean), wire, strict=True)):
        if i not in damage:
            assert new == old
            continue
        assert new.startswith(b"____")
        assert new.endswith(end.encode())
        text = new[4:].decode().removesuffix(end)
        event = json.loads(old[4:])
        head = ""
        if enveloped:
            head = old[4:].decode()[: old[4:].decode().index('"data":') + len('"data":')]
            assert text.startswith(head)
            event = event["data"]
        expected = damaged(event, damage[i])
        if not any(c.kind == "cut" for c in damage[i]):
            found = json.loads(text)
            assert (found["data"] if enveloped else found) == expected
            assert "cut" not in effects.get(i, {})
            continue
        with pytest.raises(json.JSONDecodeError):
            json.loads(text)
        body = text[len(head) :]
        assert len(body.encode()) == effects[i]["cut"]
        assert ends(body, event)
        others = tuple(c for c in damage[i] if c.kind != "cut")
        uncut = split(corrupt_strings(clean, encoder, {i: others}))[i] if others else old
        assert uncut.decode()[4:].startswith(text)
        found = json.loads(uncut[4:])
        assert (found["data"] if enveloped else found) == expected


@given(st.lists(st.tuples(rows, st.none() | corruptions), min_size=1, max_size=6))
def test_csv_is_damaged_as_described_and_not_otherwise(given: list[tuple[Any, Any]]) -> None:
    """A missing key leaves out its field, an unexpected one adds a field, and a cut harms no other line."""
    batch = batch_of([row for row, _ in given])
    damage = {i: c for i, (_, c) in enumerate(given) if c is not None}
    encoder = CsvEncoder(SCHEMA)
    clean = encoder.join(batch)
    wire = split(corrupt_strings(clean, encoder, damage))
    records = list(csv.reader(io.StringIO(b"".join(wire).decode(), newline="")))
    assert len(records) == batch.num_rows
    for i, (old, new) in enumerate(zip(split(clean), wire, strict=True)):
        if i not in damage:
            assert new == old
            continue
        [fields] = csv.reader(io.StringIO(old.decode(), newline=""))
        event: dict[str, Any] = dict(zip(SCHEMA.names, fields, strict=True))
        for c in damage[i]:
            if c.kind == "extra":
                event["unexpected"] = f"{c.value:.0f}"
            elif c.column in event:
                if c.kind == "missing":
                    del event[c.column]
                elif c.kind == "null":
                    event[c.column] = ""
                elif SCHEMA[c.column].kind in ("category", "timestamp"):
                    event[c.column] = f"{c.value:.0f}"
        expected = list(event.values())
        if not any(c.kind == "cut" for c in damage[i]):
            assert records[i] == expected
            continue
        assert new.endswith(b"\n")
        found = records[i]
        assert found[0] == expected[0]
        assert len(found) <= len(expected)
        assert found != expected
        assert found[:-1] == expected[: len(found) - 1]
        assert expected[len(found) - 1].startswith(found[-1])


@given(st.lists(st.tuples(rows, st.none() | corruptions), min_size=1, max_size=6), st.integers(0, 2))
def test_arrow_has_nulls_and_a_description(given: list[tuple[Any, Any]], offset: int) -> None:
    """What cannot be read from JSON is null, what can be is there, and a whole row has no description."""
    batch = batch_of([given[0][0]] * offset + [row for row, _ in given]).slice(offset)
    damage = {i: c for i, (_, c) in enumerate(given) if c is not None}
    found = corrupt_columns(batch, SCHEMA, damage)
    found.validate(full=True)
    assert found.schema == faulty_schema(SCHEMA)
    assert found.schema.names == [*SCHEMA.names, FAULT]
    effects = described(batch, SCHEMA, damage)
    clean = batch.to_pylist()
    for i, row in enumerate(found.to_pylist()):
        description = row.pop(FAULT)
        assert (None if description is None else json.loads(description)) == effects.get(i)
        lost = {name for name in row if row[name] is None and clean[i][name] is not None}
        assert {name: value for name, value in row.items() if name not in lost} == {
            name: value for name, value in clean[i].items() if name not in lost
        }
        known = {c.column for c in damage.get(i, ()) if c.column in SCHEMA}
        assert {name for name in known if clean[i][name] is not None} <= lost
        if "cut" not in effects.get(i, {}):
            assert lost <= known
        assert DELIVERY.name not in lost
        # Whole rows, and rows in which only other columns are damaged, are described as whole.
        assert (description is None) == (not known and not any(not c.column for c in damage.get(i, ())))


def test_one_column_can_be_damaged_too() -> None:
    """In every format, also to an empty object or line."""
    schema = Schema((Column("town", "category"),))
    batch = pa.RecordBatch.from_arrays(
        [pa.array(["Ayr", 'B"', "C"]).dictionary_encode()], schema=schema.arrow
    )
    damage = {
        0: (Corruption("missing", "town"),),
        1: (Corruption("cut", "", 0.9),),
        2: (Corruption("extra", "", 7.0),),
    }
    for encoder, expected in (
        (Encoder(schema), [b"{}", b'{"town":"B\\""', b'{"town":"C","unexpected":7}']),
        (CsvEncoder(schema), [b"\n", b"\n", b"C,7\n"]),
    ):
        assert split(corrupt_strings(encoder.join(batch), encoder, damage)) == expected
    assert corrupt_columns(batch, schema, damage).to_pydict() == {
        "town": [None, 'B"', "C"],
        FAULT: ['{"missing":["town"]}', '{"cut":13}', '{"extra":{"unexpected":7}}'],
    }


def test_a_table_may_have_a_column_of_the_name_fault() -> None:
    """What is corrupted is in another one then: no two columns of a batch have the same name."""
    schema = Schema((Column(FAULT, "category"),))
    batch = pa.RecordBatch.from_arrays([pa.array(["no", "yes"]).dictionary_encode()], schema=schema.arrow)
    assert corrupt_columns(batch, schema, {1: (Corruption("null", FAULT),)}).to_pydict() == {
        "fault": ["no", None],
        "fault_": [None, '{"null":["fault"]}'],
    }


def test_the_events_of_a_stream_are_damaged_as_its_faults_say(model: Model) -> None:
    """A wrong type of a number is its digits in quotes; the example of the documentation, on real rows."""
    now = 1_795_000_000_000_000
    stream = Stream(model, Timeline([first_entry(now, rate=100)]), clock=lambda: now)
    stream.change(faults=[{"corrupt": "type", "column": "Sales", "share": 0.5}])
    batch, delivered = stream.deliveries(1, 2001)
    encoder = Encoder(model.event_schema)
    events = [
        json.loads(row) for row in split(corrupt_strings(encoder.join(batch), encoder, delivered.corruptions))
    ]
    sales = batch.column("Sales").to_pylist()
    assert 900 < len(delivered.corruptions) < 1100
    assert [event["Sales"] for event in events] == [
        str(value) if row in delivered.corruptions else value for row, value in enumerate(sales)
    ]
    columns = corrupt_columns(batch, model.event_schema, delivered.corruptions)
    assert columns.column("Sales").null_count == len(delivered.corruptions)
    row = min(delivered.corruptions)
    assert json.loads(columns.column(FAULT)[row].as_py()) == {"type": {"Sales": str(sales[row])}}
    assert (
        columns.drop_columns([FAULT, "Sales"]).to_pylist()
        == batch.select([name for name in model.event_schema.names if name != "Sales"]).to_pylist()
    )


def test_a_key_too_many_is_one_that_no_column_has() -> None:
    """Two equal keys would be a changed value to most readers of JSON."""
    schema = Schema((Column("unexpected", "integer"), Column("n", "integer")))
    batch = pa.RecordBatch.from_arrays([pa.array([1]), pa.array([2])], schema=schema.arrow)
    damage = {0: (Corruption("extra", "", 7.0),)}
    encoder = Encoder(schema)
    written = corrupt_strings(encoder.join(batch), encoder, damage)
    pairs = json.loads(bytes(written.data), object_pairs_hook=list)
    assert pairs == [("unexpected", 1), ("n", 2), ("unexpected_", 7)]
    assert described(batch, schema, damage) == {0: {"extra": {"unexpected_": 7}}}

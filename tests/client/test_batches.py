"""Arrow messages as record batches."""

from __future__ import annotations

import pyarrow as pa
import pytest

from helpers.numbered import FULL_SCHEMA, SCHEMA, Asked, messages
from logistream.client.follower import new_rows
from logistream.client.position import Position
from logistream.dataco import ORDERS
from logistream.errors import RequestError
from logistream.frame.convert import schema_of
from logistream.schema import EVENT_TIME, Schema


def message(first: int, stop: int, asked: Asked | None = None, missed: int = 0) -> bytes:
    """Return the message of some events."""
    [made] = messages(first, stop, asked or Asked("arrow"), missed)
    assert isinstance(made, bytes)
    return made


def test_message_is_read() -> None:
    """The rows come back with their types, and the position is behind them; what was left out counts."""
    position = Position()
    position.enter("a", 7)
    rows = new_rows(message(10, 14, missed=3), position, filtered=False, numbered=False)
    assert rows.column("n").to_pylist() == [10, 11, 12, 13]
    assert rows.schema.equals(SCHEMA.arrow)
    assert (position.next_number, position.missed) == (14, 3)


def test_numbers_of_a_selection_are_removed_after_use() -> None:
    """They show which rows are repeats, and stay only if the caller wants them."""
    asked = Asked("arrow", numbered=True, texts=frozenset({"t1"}))
    position = Position(filtered=True)
    position.enter("a", 5)
    rows = new_rows(message(0, 20, asked), position, filtered=True, numbered=False)
    assert rows.to_pydict()["n"] == [8, 15]
    assert "event_number" not in rows.schema.names
    assert position.next_number == 20
    kept = new_rows(message(0, 20, asked), Position(filtered=True), filtered=True, numbered=True)
    assert kept.column("event_number").to_pylist() == [1, 8, 15]


def test_empty_selection_moves_on() -> None:
    """A message without rows still shows how far the stream was read."""
    position = Position(filtered=True)
    asked = Asked("arrow", numbered=True, texts=frozenset({"no"}))
    assert new_rows(message(0, 9, asked), position, filtered=True, numbered=False).num_rows == 0
    assert position.start == "9"


def without_metadata() -> bytes:
    """Write a stream without the event numbers."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA.arrow) as stream:
        stream.write_batch(pa.RecordBatch.from_pylist([], schema=SCHEMA.arrow))
    return bytes(sink.getvalue().to_pybytes())


def pointing_outside() -> bytes:
    """Write a stream whose codes point behind the end of their dictionary."""
    whole = message(0, 4)
    codes = b"".join(n.to_bytes(4, "little") for n in range(4))
    assert whole.count(codes) == 1
    return whole.replace(codes, b"\x63" + codes[1:])


@pytest.mark.parametrize(
    "damaged",
    ['{"n":0}', b"", b"hello", message(0, 4)[:-60], without_metadata(), pointing_outside()],
    ids=["string", "nothing", "garbage", "cut", "no numbers", "outside"],
)
def test_what_is_no_such_message_is_explained(damaged: str | bytes) -> None:
    """One sentence, no crash."""
    with pytest.raises(
        RequestError, match="must be an Arrow stream of one record batch with its event numbers"
    ):
        new_rows(damaged, Position(), filtered=False, numbered=False)


def test_message_that_contradicts_itself_is_refused() -> None:
    """A message has as many rows as event numbers."""
    short = message(0, 5, Asked("arrow", texts=frozenset({"t1"})))
    with pytest.raises(RequestError, match="a message of events 0 to 4 holds 1 rows"):
        new_rows(short, Position(), filtered=False, numbered=False)


def test_selection_without_numbers_is_explained() -> None:
    """Without numbers repeats cannot be recognised."""
    selection = message(0, 9, Asked("arrow", texts=frozenset({"t1"})))
    with pytest.raises(RequestError, match="a selection of events lacks the column 'event_number'"):
        new_rows(selection, Position(filtered=True), filtered=True, numbered=False)


@pytest.mark.parametrize("schema", [SCHEMA, FULL_SCHEMA, ORDERS])
def test_columns_come_from_the_types(schema: Schema) -> None:
    """Names, types and missing values are those of the batch; what the columns of orders mean is known."""
    made = schema_of(schema.arrow)
    assert made.arrow.equals(schema.arrow)
    assert made.pandas_dtypes == schema.pandas_dtypes
    assert made["event_time" if "event_time" in schema else "Sales"].unit in ("UTC", "USD")
    assert (made == schema) == (schema is ORDERS)


def test_a_type_that_no_event_has_is_explained() -> None:
    """A list, for example."""
    arrow = pa.schema([EVENT_TIME.arrow_field, pa.field("tags", pa.list_(pa.string()))])
    with pytest.raises(RequestError, match="column 'tags' is of the type list"):
        schema_of(arrow)

"""Arrow messages as record batches."""

from __future__ import annotations

import pyarrow as pa
import pytest

from helpers.numbered import FULL_SCHEMA, SCHEMA, Asked, messages
from logistream.client.follower import read_batch, schema_of
from logistream.client.position import Position
from logistream.dataco import ORDERS
from logistream.errors import RequestError
from logistream.schema import EVENT_TIME, Column, Schema


def message(first: int, stop: int, asked: Asked | None = None, missed: int = 0) -> bytes:
    """Return the message of some events."""
    [made] = messages(first, stop, asked or Asked("arrow"), missed)
    assert isinstance(made, bytes)
    return made


def test_message_is_read() -> None:
    """Rows, range and what was left out."""
    batch = read_batch(message(10, 14, missed=3))
    assert (batch.first, batch.stop, batch.missed) == (10, 14, 3)
    assert batch.rows.column("n").to_pylist() == [10, 11, 12, 13]
    assert batch.rows.schema.equals(SCHEMA.arrow)


def test_numbers_of_a_selection_are_taken_away_after_use() -> None:
    """They are asked for to tell what was taken before, and only stay if the caller wants them."""
    asked = Asked("arrow", numbered=True, texts=frozenset({"t1"}))
    position = Position(filtered=True)
    position.enter("a", 5)
    batch = read_batch(message(0, 20, asked))
    assert batch.fresh(position, filtered=True, numbered=False).to_pydict()["n"] == [8, 15]
    assert position.next_number == 20
    kept = batch.fresh(Position(filtered=True), filtered=True, numbered=True)
    assert kept.column("event_number").to_pylist() == [1, 8, 15]


def test_empty_selection_moves_on() -> None:
    """A message without rows still tells how far the stream was read."""
    position = Position(filtered=True)
    asked = Asked("arrow", numbered=True, texts=frozenset({"no"}))
    assert read_batch(message(0, 9, asked)).fresh(position, filtered=True, numbered=False).num_rows == 0
    assert position.start == "9"


def without_metadata() -> bytes:
    """Write a stream that does not tell its numbers."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA.arrow) as stream:
        stream.write_batch(pa.RecordBatch.from_pylist([], schema=SCHEMA.arrow))
    return bytes(sink.getvalue().to_pybytes())


def pointing_outside() -> bytes:
    """Write a stream whose texts point behind the end of their dictionary."""
    whole = message(0, 4)
    places = b"".join(n.to_bytes(4, "little") for n in range(4))
    assert whole.count(places) == 1
    return whole.replace(places, b"\x63" + places[1:])


@pytest.mark.parametrize(
    "damaged",
    ['{"n":0}', b"", b"hello", message(0, 4)[:-60], without_metadata(), pointing_outside()],
    ids=["text", "nothing", "garbage", "cut", "no numbers", "outside"],
)
def test_what_is_no_such_message_is_explained(damaged: str | bytes) -> None:
    """One sentence, no crash."""
    with pytest.raises(
        RequestError, match="must be an Arrow stream of one record batch with next_event_number"
    ):
        read_batch(damaged)


def test_selection_without_numbers_is_explained() -> None:
    """Without numbers nobody can tell what was taken before."""
    batch = read_batch(message(0, 9, Asked("arrow", texts=frozenset({"t1"}))))
    with pytest.raises(RequestError, match="a selection of events lacks the column 'event_number'"):
        batch.fresh(Position(filtered=True), filtered=True, numbered=False)


@pytest.mark.parametrize("schema", [SCHEMA, FULL_SCHEMA, ORDERS])
def test_columns_come_from_types_and_their_meanings_from_what_is_published(schema: Schema) -> None:
    """Types are enough; where the server publishes the column, the rest is known too."""
    assert schema_of(schema.arrow, schema) == schema
    bare = schema_of(schema.arrow)
    assert bare.arrow.equals(schema.arrow)
    assert bare.pandas_dtypes == schema.pandas_dtypes
    assert schema_of(schema.arrow, Schema((Column("n", "number", "something else"),))) == bare


def test_a_type_that_no_event_has_is_explained() -> None:
    """A list, say."""
    arrow = pa.schema([EVENT_TIME.arrow_field, pa.field("tags", pa.list_(pa.string()))])
    with pytest.raises(RequestError, match="column 'tags' is of the type list"):
        schema_of(arrow)

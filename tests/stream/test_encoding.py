"""Columns to JSON strings and back."""

from __future__ import annotations

import csv
import io
import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.strategies import batches, schemas
from logistream.dataco import EVENT, ORDER_DATE_FORMAT
from logistream.errors import DataError, RequestError
from logistream.schema import Column, Schema
from logistream.stream.encoding import CsvEncoder, Encoder, decode, from_events


def encode(batch: pa.RecordBatch, schema: Schema) -> list[bytes]:
    """Write each row as a JSON object."""
    return Encoder(schema).encode(batch)


def one(kind: Any, values: list[Any], **options: Any) -> list[bytes]:
    """Encode one column named `x`."""
    schema = Schema((Column("x", kind, **options),))
    array = pa.array(values, schema.arrow[0].type)
    return encode(pa.RecordBatch.from_arrays([array], schema=schema.arrow), schema)


def values_of(strings: list[bytes]) -> list[str]:
    """Return what stands after `"x":` in each text."""
    return [text.decode()[5:-1] for text in strings]


def event_batch(rows: int) -> pa.RecordBatch:
    """Make a batch of the published event."""
    made: dict[str, list[Any]] = {
        "category": [f"Ciudad de México {i % 3}" for i in range(rows)],
        "integer": [i % 5 for i in range(rows)],
        "number": [i / 100 for i in range(rows)],
        "timestamp": [60_000_000 * i for i in range(rows)],
    }
    arrays = [pa.array(made[column.kind], column.arrow_field.type) for column in EVENT]
    return pa.RecordBatch.from_arrays(arrays, schema=EVENT.arrow)


@pytest.mark.slow
@given(st.data())
def test_decode_undoes_encode(data: Any) -> None:
    """Any batch of any schema comes back unchanged, types, signs and missing values included."""
    schema = data.draw(schemas())
    batch = data.draw(batches(schema))
    strings = encode(batch, schema)
    back = decode(strings, schema)
    assert back.schema.equals(schema.arrow)
    assert len(strings) == batch.num_rows
    for column in schema:
        before, after = batch[column.name].to_pylist(), back[column.name].to_pylist()
        assert list(map(repr, after)) == list(map(repr, before))


@given(st.data())
def test_a_csv_reader_gets_the_values_of_the_json(data: Any) -> None:
    """Numbers, strings and times are the same, `True` and `False` as in pandas, a missing value is empty."""
    schema = data.draw(schemas(min_size=1))
    batch = data.draw(batches(schema))
    encoder = CsvEncoder(schema)
    text = (encoder.header + b"".join(encoder.encode(batch))).decode()
    header, *rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    assert tuple(header) == schema.names
    objects = [json.loads(string, parse_int=str, parse_float=str) for string in encode(batch, schema)]
    written = {None: "", True: "True", False: "False"}
    assert rows == [[written.get(value, value) for value in row.values()] for row in objects]


def test_csv_quotes_what_needs_it_and_no_more() -> None:
    """As pandas writes it: commas, quotes and line breaks are quoted, a lone empty field too."""
    frame = pd.DataFrame(
        {"a, b": ["plain", "x,y", 'say "so"', "two\nlines", " ", None], "n": [1.0, 1e16, 1e-7] * 2}
    )
    schema = Schema((Column("a, b", "category", nullable=True), Column("n", "number")))
    batch = pa.RecordBatch.from_pandas(frame, schema=schema.arrow)
    for chosen in (schema, schema.select(["a, b"])):
        encoder = CsvEncoder(chosen)
        text = (encoder.header + b"".join(encoder.encode(batch))).decode()
        assert text == frame[list(chosen.names)].to_csv(index=False)


@given(st.data())
def test_text_is_what_python_would_write(data: Any) -> None:
    """A text equals compact `json.dumps` of the same event, so any JSON parser reads it."""
    schema = data.draw(schemas())
    batch = data.draw(batches(schema))
    for text in encode(batch, schema):
        event = json.loads(text)
        assert tuple(event) == schema.names
        again = json.dumps(event, ensure_ascii=False, separators=(",", ":"))
        assert json.loads(again) == event
        if not any(column.kind == "number" for column in schema):
            assert text.decode() == again


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_number_reads_back_as_the_same_float(number: float) -> None:
    """A number is written as a JSON float, never as an integer, and keeps every bit."""
    (text,) = values_of(one("number", [number]))
    read = json.loads(text)
    assert isinstance(read, float)
    assert (read, math.copysign(1, read)) == (number, math.copysign(1, number))


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (12.5, "12.5"),
        (12.0, "12.0"),
        (-0.0, "-0.0"),
        (0.1, "0.1"),
        (59.99000168, "59.99000168"),
        (1e6, "1000000.0"),
        (1234567.5, "1234567.5"),
        (1e22, "1e+22"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
    ],
)
def test_number_text(number: float, text: str) -> None:
    """Numbers look as Python and people write them; exponents appear only where digits would be endless."""
    assert values_of(one("number", [number])) == [text]


def test_event_has_the_keys_in_order_without_blanks() -> None:
    """An event is one compact object with the 23 published keys in their order."""
    (text,) = encode(event_batch(1), EVENT)
    assert tuple(json.loads(text)) == EVENT.names
    assert text.startswith(b'{"Type":"Ciudad de M\xc3\xa9xico 0","Days for shipment (scheduled)":0,')
    assert text.endswith(b',"event_time":"1970-01-01T00:00:00.000000Z"}')


def test_columns_may_stand_in_another_order_and_be_more() -> None:
    """Columns are found by name; those that the schema does not name are left out."""
    batch = pa.record_batch({"b": [1], "c": [2], "a": [3]})
    schema = Schema((Column("a", "integer"), Column("b", "integer")))
    assert encode(batch, schema) == [b'{"a":3,"b":1}']


def test_batch_longer_than_one_pass() -> None:
    """A batch of many passes gives every row once, in order."""
    count = 40_000
    strings = one("integer", list(range(count)))
    assert [json.loads(text)["x"] for text in strings] == list(range(count))


def test_slice_of_a_batch() -> None:
    """A slice of a batch gives the same strings as the slice of all strings."""
    batch = event_batch(100)
    assert encode(batch.slice(30, 20), EVENT) == encode(batch, EVENT)[30:50]


@pytest.mark.parametrize("values", [["a", None, 'say "hi"'], ["a", None, "b"]])
def test_plain_and_dictionary_texts_are_the_same(values: list[str | None]) -> None:
    """A category column may be dictionary-encoded or not, with missing values in either."""
    schema = Schema((Column("x", "category", nullable=True),))
    plain = pa.array(values, pa.string())
    in_dictionary = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2], pa.int32()), plain)
    expected = [json.dumps({"x": value}, separators=(",", ":")).encode() for value in values]
    for array in (plain, plain.dictionary_encode(), in_dictionary, plain.cast(pa.large_string())):
        assert encode(pa.record_batch({"x": array}), schema) == expected


def test_nan_is_null_where_values_may_be_missing() -> None:
    """NaN and a missing value both become null."""
    assert values_of(one("number", [1.5, float("nan"), None], nullable=True)) == ["1.5", "null", "null"]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ([1.0, None], "cannot encode events: column 'x' has 1 missing values, but its schema allows none"),
        ([math.nan], "cannot encode events: column 'x' has 1 missing values, but its schema allows none"),
        ([math.inf], "cannot encode events: column 'x' holds an infinite number"),
    ],
)
def test_numbers_that_json_does_not_have_are_refused(values: list[float | None], sentence: str) -> None:
    """What JSON cannot hold is an error, never a silent NaN."""
    with pytest.raises(DataError) as caught:
        one("number", values)
    assert str(caught.value) == sentence


def test_missing_column_is_named() -> None:
    """A batch without a column of the schema is refused by name."""
    with pytest.raises(DataError, match="the batch lacks 'b'"):
        encode(pa.record_batch({"a": [1]}), Schema((Column("a", "integer"), Column("b", "integer"))))


def test_time_before_1970() -> None:
    """Instants before the epoch are written right, to the microsecond."""
    assert values_of(one("timestamp", [-1, -60_000_001])) == [
        '"1969-12-31T23:59:59.999999Z"',
        '"1969-12-31T23:58:59.999999Z"',
    ]


def test_time_with_a_pattern() -> None:
    """A pattern without seconds drops them; one with seconds keeps whole ones."""
    instant = [61_500_000]
    assert values_of(one("timestamp", instant, text_format=ORDER_DATE_FORMAT)) == ['"01/01/1970 00:01"']
    assert values_of(one("timestamp", instant, text_format="%H:%M:%S")) == ['"00:01:01"']


def test_no_rows() -> None:
    """An empty batch gives no strings, and no strings an empty batch."""
    assert encode(event_batch(0), EVENT) == []
    assert decode([], EVENT).schema.equals(EVENT.arrow)


def test_unknown_keys_are_ignored_and_whole_floats_are_integers() -> None:
    """A newer server may add keys, and a JavaScript one may write 4.0 for 4."""
    schema = Schema((Column("n", "integer"), Column("x", "number"), Column("m", "category", nullable=True)))
    batch = decode(['{"n":4.0,"x":2,"event_number":7}', b'{"x":2.5,"n":3,"m":null}'], schema)
    assert batch.to_pylist() == [{"n": 4, "x": 2.0, "m": None}, {"n": 3, "x": 2.5, "m": None}]


NUMBER = "a finite number"
WHOLE = "a whole number of 64 bits"
TIME = "a time such as 2026-11-24T06:23:00.123456Z"


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("number", "null", NUMBER),
        ("number", '"12"', NUMBER),
        ("number", "true", NUMBER),
        ("integer", "1.5", WHOLE),
        ("integer", "9223372036854775808", WHOLE),
        ("boolean", "1", "true or false"),
        ("category", "1", "a string"),
        ("category", '"\\ud800"', "a string"),
        ("timestamp", '"now"', TIME),
        ("timestamp", '"2026-11-24T06:23:00"', TIME),
    ],
)
def test_bad_value_is_explained(kind: Any, value: str, expected: str) -> None:
    """A value of another type is refused with the key, what was expected and what came."""
    good = {"category": '"a"', "boolean": "true", "timestamp": '"2026-11-24T06:23:00Z"'}.get(kind, "1")
    with pytest.raises(RequestError) as caught:
        decode([f'{{"x":{good}}}', f'{{"x":{value}}}'], Schema((Column("x", kind),)))
    assert str(caught.value) == f"event key 'x' must be {expected}, got {value}"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("hello", "an event must be a JSON object, got hello"),
        ("[1]", "an event must be a JSON object, got [1]"),
        (b"\xff", "an event must be a JSON object, got \ufffd"),
        ('{"x":NaN}', 'an event must be a JSON object, got {"x":NaN}'),
        ("[" * 100_000, f"an event must be a JSON object, got {'[' * 30} ... {'[' * 30}"),
        ('{"y":1}', "an event must have the key 'x'; it has y"),
        ("{}", "an event must have the key 'x'; it has none"),
        ('{"x":1e400}', "event key 'x' must be a finite number, got Infinity"),
    ],
    ids=["word", "list", "bytes", "nan", "deep", "other key", "no key", "huge"],
)
def test_bad_message_is_explained(text: str | bytes, sentence: str) -> None:
    """A text that is not an event of the schema is refused in one sentence that quotes it."""
    with pytest.raises(RequestError) as caught:
        decode(['{"x":1}', text], Schema((Column("x", "number"),)))
    assert str(caught.value) == sentence


def test_bad_time_of_a_pattern_is_explained() -> None:
    """The sentence shows the pattern, and null where it is allowed."""
    schema = Schema((Column("d", "timestamp", text_format=ORDER_DATE_FORMAT, nullable=True),))
    with pytest.raises(RequestError) as caught:
        from_events([{"d": None}, {"d": "2026-11-24"}], schema)
    expected = "event key 'd' must be a time written as %m/%d/%Y %H:%M or null, got \"2026-11-24\""
    assert str(caught.value) == expected


def test_shuffled_rows_decode_to_the_same_columns() -> None:
    """Rows are independent: decoding in any order gives the same rows."""
    batch = event_batch(60)
    order = np.random.default_rng(0).permutation(60)
    strings = encode(batch, EVENT)
    assert decode([strings[i] for i in order], EVENT).to_pylist() == batch.take(pa.array(order)).to_pylist()

"""Strings from tables are those that are written without them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.strategies import batches, schemas
from logistream.schema import Column, Schema
from logistream.stream.encoding import CsvEncoder, Encoder

ROWS = 300  # enough for tables


def encoded(values: list[Any], *, known: Encoder | None = None, **options: Any) -> list[str]:
    """Write one column, `x`, and return its values as they stand in the JSON."""
    encoder = encoder_of(**options) if known is None else known
    array = pa.array(values, encoder.schema.arrow[0].type)
    batch = pa.RecordBatch.from_arrays([array], schema=encoder.schema.arrow)
    return [line.decode()[5:-1] for line in encoder.encode(batch)]


def encoder_of(kind: Any = "number", **options: Any) -> Encoder:
    """Return what writes one column named `x`."""
    return Encoder(Schema((Column("x", kind, **options),)))


@settings(max_examples=40)
@given(st.data())
def test_many_rows_are_written_like_few(data: Any) -> None:
    """Any batch of any schema, repeated in any order, has the strings of its rows, as JSON and as CSV."""
    schema = data.draw(schemas(min_size=1))
    batch = data.draw(batches(schema, rows=data.draw(st.integers(1, 12))))
    order = np.random.default_rng(data.draw(st.integers(0, 9))).integers(0, batch.num_rows, ROWS)
    many = batch.take(pa.array(order))
    for make in (Encoder, CsvEncoder):
        few, encoder = make(schema).encode(batch), make(schema)
        for _ in range(2):  # with new tables, and with known ones
            assert encoder.encode(many) == [few[row] for row in order]


@given(
    st.lists(
        st.tuples(st.integers(-(10**15), 10**15), st.sampled_from([1, 10, 100, 10**4, 10**8, 10**10])),
        min_size=1,
        max_size=8,
    ),
    st.lists(st.sampled_from([-0.0, 1e-5, 9.99e-5, 1e-4, 123456.5, 1e16, 5e-324, 0.1 + 0.2]), max_size=2),
)
def test_decimals_are_written_as_python_writes_them(parts: list[tuple[int, int]], odd: list[float]) -> None:
    """With a few decimals or many, negative ones and minus zero, beside numbers of another kind."""
    encoder = encoder_of()
    for numbers in ([number / scale for number, scale in parts], [*odd, *(n / s for n, s in parts)]):
        values = (numbers * ROWS)[:ROWS]
        assert encoded(values, known=encoder) == list(map(repr, values))


@pytest.mark.parametrize("digits", [1, 2, 4, 8])
def test_a_table_of_decimals_grows(digits: int) -> None:
    """Batch after batch, to both sides."""
    encoder = encoder_of()
    rng = np.random.default_rng(1)
    for width in (1, 3, 40, 500, 3_000, 20_000, 100):
        for centre in (0, -width, width):
            values = np.round(rng.uniform(centre - width, centre + width, ROWS), digits).tolist()
            assert encoded(values, known=encoder) == list(map(repr, values))


def test_whole_numbers_of_any_size() -> None:
    """Near the ends of their type, and where they move on from batch to batch."""
    encoder = encoder_of("integer")
    for first in (0, 40, -40, 500, 2**63 - 10, -(2**63), *range(10_000, 60_000, 3_000)):
        values = [first + row % 10 for row in range(ROWS)]
        assert encoded(values, known=encoder) == list(map(str, values))


PATTERNS = [
    "%Y-%m-%d",
    "%m/%d/%Y %H:%M",
    "%-d. %B %Y, %I:%M %p",
    "%d%%%m%%%Y",
    "%H:%M %d.%m.%Y",
    "%d %b %Y %H h %M",
]


@pytest.mark.parametrize("pattern", [*PATTERNS, '%Y"%m"%d', "%Y-%m-%d %H:%M:%S", "%s"])
def test_dates_of_any_pattern(pattern: str) -> None:
    """Those near the first and the last year too, in any order of the batches."""
    encoder = encoder_of("timestamp", text_format=pattern)
    begins = [datetime(year, 1, 5, tzinfo=UTC) for year in (2026, 2025, 1969, 1970, 1001, 1000, 9999, 9998)]
    for begin in [*begins, *(begins[-2] + timedelta(days=days) for days in (100, 300, 340))]:
        times = [begin + timedelta(minutes=997 * row % 10_000) for row in range(15)]
        few = encoded(times, kind="timestamp", text_format=pattern)
        assert encoded(times * 20, known=encoder) == few * 20
        if pattern == "%m/%d/%Y %H:%M":
            assert few == [json.dumps(time.strftime(pattern)) for time in times]

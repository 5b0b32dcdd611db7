"""Values count, not types: what a sink stored is compared with what the stream has."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.strategies import batches, schemas
from logistream.schema import Column, Kind
from logistream.stream.encoding import Encoder, decode
from logistream.verification.compare import instants, unequal

INSTANT = datetime(2026, 11, 24, 6, 23, 1, 250_001, tzinfo=UTC)
MICROS = 1_795_501_381_250_001
PATTERN = "%m/%d/%Y %H:%M"


def differs(kind: Kind, truth: Any, value: pa.Array, pattern: str | None = None) -> bool:
    """Return whether a value of a sink is not that of the stream."""
    column = Column("x", kind, nullable=True, text_format=pattern)
    expected = pa.array([truth], column.arrow_field.type)
    found = unequal(value, expected, column)
    return found is not None and bool(found[0])


SAME: list[tuple[Kind, Any, pa.Array]] = [
    ("category", "LATAM", pa.array(["LATAM"], pa.large_string())),
    ("category", "LATAM", pa.array(["LATAM"], pa.string_view())),
    ("category", None, pa.array([None], pa.string())),
    ("category", None, pa.array([None], pa.null())),
    ("integer", 3, pa.array([3], pa.int32())),
    ("integer", 3, pa.array([3.0])),
    ("integer", 3, pa.array(["3"])),
    ("integer", 1, pa.array([True])),
    ("integer", 3, pa.array([Decimal("3.00")])),
    ("boolean", True, pa.array([1])),
    ("boolean", False, pa.array(["False"])),
    ("number", 59.99, pa.array(["59.99"])),
    ("number", 59.99, pa.array([59.99], pa.float32())),
    ("number", 59.99, pa.array([Decimal("59.99")])),
    ("number", 250.1, pa.array([Decimal("250.1")], pa.decimal128(38, 10))),
    ("number", 19.99, pa.array([Decimal("19.99")])),
    ("number", 0.125, pa.array([Decimal("0.13")])),
    ("number", 0.125, pa.array([Decimal("0.12")])),
    ("number", 12.0, pa.array([12])),
    ("number", None, pa.array([float("nan")])),
    ("number", float("nan"), pa.array([None], pa.float64())),
    ("timestamp", INSTANT, pa.array([MICROS])),
    ("timestamp", INSTANT, pa.array([MICROS // 1000])),
    ("timestamp", INSTANT, pa.array([MICROS * 1000], pa.timestamp("ns"))),
    ("timestamp", INSTANT, pa.array([MICROS // 1000], pa.timestamp("ms", "UTC"))),
    ("timestamp", INSTANT, pa.array([MICROS // 10**6], pa.timestamp("s"))),
    ("timestamp", INSTANT, pa.array([MICROS], pa.timestamp("us", "Asia/Tokyo"))),
    ("timestamp", INSTANT, pa.array(["2026-11-24T06:23:01.250001Z"])),
    ("timestamp", INSTANT, pa.array(["2026-11-24 06:23:01.250001+00:00"])),
    ("timestamp", INSTANT, pa.array(["2026-11-24 06:23:01.250001"])),
    ("timestamp", INSTANT, pa.array(["2026-11-24T07:23:01.250001+01:00"])),
    ("timestamp", INSTANT, pa.array(["2026-11-24T06:23:01.250Z"])),
    ("timestamp", INSTANT, pa.array(["2026-11-24 07:23:01.250+01:00"], pa.string_view())),
    ("timestamp", None, pa.array([None], pa.string())),
]  # fmt: skip

OTHER: list[tuple[Kind, Any, pa.Array]] = [
    ("category", "LATAM", pa.array(["latam"])),
    ("category", "LATAM", pa.array([None], pa.string())),
    ("category", None, pa.array([""])),
    ("category", "LATAM", pa.array([["LATAM"]])),
    ("integer", 3, pa.array([4])),
    ("integer", 3, pa.array([3.5])),
    ("integer", 3, pa.array([None], pa.int64())),
    ("integer", None, pa.array([0])),
    ("boolean", True, pa.array(["no"])),
    ("number", 59.99, pa.array([59.99000001])),
    ("number", 59.99, pa.array([60.0], pa.float32())),
    ("number", 59.99, pa.array([Decimal("60.00")])),
    ("number", 0.125, pa.array([Decimal("0.14")])),
    ("number", 59.99, pa.array(["much"])),
    ("number", None, pa.array(["much"])),
    ("number", None, pa.array([INSTANT])),
    ("number", 59.99, pa.array([None], pa.float64())),
    ("timestamp", INSTANT, pa.array([MICROS + 1])),
    ("timestamp", INSTANT, pa.array([MICROS + 1], pa.timestamp("us"))),
    ("timestamp", INSTANT, pa.array(["2026-11-24T06:23:01.250002Z"])),
    ("timestamp", INSTANT, pa.array(["2026-11-24T06:23:01.251Z"])),
    ("timestamp", INSTANT, pa.array(["2026-11-24T06:23:01.250000Z"])),
    ("timestamp", INSTANT, pa.array(["soon"])),
    ("timestamp", INSTANT, pa.array([1.5])),
    ("timestamp", None, pa.array(["soon"])),
]  # fmt: skip


def named(cases: list[tuple[Kind, Any, pa.Array]]) -> list[str]:
    """Return a name of each case; how Arrow shows an array differs from process to process."""
    return [f"{kind}-{truth}-{value.type}-{value[0]}" for kind, truth, value in cases]


@pytest.mark.parametrize(("kind", "truth", "value"), SAME, ids=named(SAME))
def test_the_same_value_in_another_type(kind: Kind, truth: Any, value: pa.Array) -> None:
    """No difference is found."""
    assert not differs(kind, truth, value)


@pytest.mark.parametrize(("kind", "truth", "value"), OTHER, ids=named(OTHER))
def test_another_value(kind: Kind, truth: Any, value: pa.Array) -> None:
    """The difference is found."""
    assert differs(kind, truth, value)


@pytest.mark.parametrize(
    ("value", "other"),
    [
        (pa.array(["11/24/2026 06:23"]), False),
        (pa.array(["11/24/2026 06:24"]), True),
        (pa.array(["2026-11-24T06:23:01.250001Z"]), False),
        (pa.array([datetime(2026, 11, 24, 6, 23)]), False),
        (pa.array([INSTANT]), False),
        (pa.array([datetime(2026, 11, 24, 6, 23, 1)]), True),
    ],
)
def test_a_timestamp_that_is_published_by_a_pattern(value: pa.Array, *, other: bool) -> None:
    """Whole, or as much as the pattern leaves of it, be it a string or a timestamp."""
    assert differs("timestamp", INSTANT, value, PATTERN) == other


def test_only_the_rows_that_differ_are_marked() -> None:
    """In a column of strings and gaps."""
    column = Column("Market", "category", nullable=True)
    truth = pa.array(["a", "b", None, "d", None]).dictionary_encode()
    found = unequal(pa.array(["a", "x", None, None, "e"]), truth, column)
    assert found is not None
    assert found.tolist() == [False, True, False, True, True]


def test_instants_of_a_column_with_other_strings() -> None:
    """What is no time is missing."""
    found = instants(pa.array(["1970-01-01T00:00:01Z", "1970-01-01T01:00:01+01:00", "no", None]))
    assert found.tolist() == [10**6, 10**6, np.iinfo(np.int64).min, np.iinfo(np.int64).min]


@given(st.data())
def test_any_batch_is_equal_to_itself_after_json(data: st.DataObject) -> None:
    """Whatever is encoded and read again has no difference."""
    schema = data.draw(schemas(min_size=1))
    rows = data.draw(batches(schema))
    again = decode(Encoder(schema).encode(rows), schema)
    for column in schema:
        values = again.column(column.name)
        values = values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
        assert unequal(values, rows.column(column.name), column) is None

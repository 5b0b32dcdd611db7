"""Hypothesis strategies shared by the property tests: any schema, and any batch of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from hypothesis import strategies as st

from logistream.dataco import ORDER_DATE_FORMAT
from logistream.schema import Column, Kind, Schema

if TYPE_CHECKING:
    from collections.abc import Callable

strings = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
"""Any Unicode text that UTF-8 can hold: quotes, control characters, other scripts, emoji."""

_VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    "category": strings,
    "boolean": st.booleans(),
    "integer": st.integers(-(2**63), 2**63 - 1),
    "number": st.floats(allow_nan=False, allow_infinity=False)
    | st.integers(-(10**7), 10**7).map(lambda n: n / 100),
    "timestamp": st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)),
}


@st.composite
def columns(draw: Callable[..., Any]) -> Column:
    """Draw a column of any kind, nullable or not."""
    kind = draw(st.sampled_from(sorted(_VALUES)))
    formats = st.sampled_from([None, ORDER_DATE_FORMAT, "%Y-%m-%dT%H:%M:%S", "%d.%m.%Y"])
    return Column(
        draw(strings),
        kind,
        nullable=draw(st.booleans()),
        text_format=draw(formats) if kind == "timestamp" else None,
    )


def schemas(min_size: int = 0) -> st.SearchStrategy[Schema]:
    """Draw a schema of up to 6 columns of any kind."""
    distinct = st.lists(columns(), min_size=min_size, max_size=6, unique_by=lambda column: column.name)
    return distinct.map(lambda drawn: Schema(tuple(drawn)))


def as_written(pattern: str) -> Callable[[datetime], datetime]:
    """Return a function that drops from an instant what `pattern` does not write."""
    return lambda instant: datetime.strptime(instant.strftime(pattern), pattern).replace(tzinfo=UTC)


@st.composite
def batches(draw: Callable[..., Any], schema: Schema, rows: int | None = None) -> pa.RecordBatch:
    """Draw a batch of `rows` or up to 12 rows; timestamps are as precise as their text format."""
    rows = draw(st.integers(0, 12)) if rows is None else rows
    arrays = []
    for field, column in zip(schema.arrow, schema, strict=True):
        value = _VALUES[column.kind]
        if column.text_format is not None:
            value = value.filter(lambda instant: instant.year > 999).map(as_written(column.text_format))
        if column.nullable:
            value |= st.none()
        arrays.append(pa.array(draw(st.lists(value, min_size=rows, max_size=rows)), field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema.arrow)

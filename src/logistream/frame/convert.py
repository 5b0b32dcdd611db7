"""Turn what is appended to a frame into record batches, and what it holds into a DataFrame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from logistream.dataco import ORDERS
from logistream.errors import DataError, RequestError
from logistream.schema import EVENT_NUMBER, EVENT_TIME, Column, Schema
from logistream.stream.encoding import decode, from_events, parse

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from logistream.frame.window import Cut
    from logistream.schema import Kind

__all__ = ["Events", "schema_of", "to_batches", "to_pandas"]


_KNOWN: tuple[Column, ...] = (*ORDERS, EVENT_TIME, EVENT_NUMBER)  # a batch lacks their meanings and units

Events: TypeAlias = "pa.RecordBatch | pa.Table | pd.DataFrame | Iterable[Mapping[str, Any] | str | bytes]"
"""What can be appended: columns, or events as dicts or JSON strings."""


def to_batches(events: Events, schema: Schema, arrow: pa.Schema) -> list[pa.RecordBatch]:
    """Return record batches that have exactly the types of a schema.

    Parameters
    ----------
    events : RecordBatch, Table, DataFrame or iterable
        Columns with the names of the schema (more are ignored), or events as dicts or JSON strings.
    schema : Schema
        The columns.
    arrow : pyarrow.Schema
        Its Arrow form.

    Raises
    ------
    DataError
        A column is absent or cannot be turned into its type.
    RequestError
        An event lacks a key or holds a value of another type.
    """
    if isinstance(events, pd.DataFrame):
        known = [name for name in schema.names if name in events.columns]
        events = pa.Table.from_pandas(events[known], preserve_index=False)
    if isinstance(events, pa.Table):
        return [_conform(batch, schema, arrow) for batch in events.to_batches()]
    if isinstance(events, pa.RecordBatch):
        return [_conform(events, schema, arrow)]
    items: list[Any] = [events] if isinstance(events, str | bytes | Mapping) else list(events)
    if all(isinstance(item, str | bytes) for item in items):
        return [decode(items, schema)]
    if not all(isinstance(item, str | bytes | Mapping) for item in items):
        raise DataError(
            "expected a record batch, a DataFrame, or an iterable of dicts or JSON strings to append; got "
            + ", ".join(sorted({type(item).__name__ for item in items}))
        )
    return [from_events([parse(item) if isinstance(item, str | bytes) else item for item in items], schema)]


def _conform(batch: pa.RecordBatch, schema: Schema, arrow: pa.Schema) -> pa.RecordBatch:
    if batch.schema.equals(arrow):
        for position, column in enumerate(schema):
            if not column.nullable:
                _check_complete(batch.column(position), column)
        return batch
    if absent := [name for name in schema.names if name not in batch.schema.names]:
        raise DataError(f"cannot append: no column {', '.join(map(repr, absent))}")
    arrays = [_conform_column(batch.column(column.name), column) for column in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=arrow)


def _conform_column(array: pa.Array, column: Column) -> pa.Array:
    wanted = column.arrow_field.type
    try:
        if array.type != wanted and column.kind == "category":
            if pa.types.is_dictionary(array.type):
                array = array.dictionary_decode()
            array = array.cast(pa.string()).dictionary_encode()
        elif array.type != wanted:
            # Arrow calls it unsafe to drop nanoseconds.
            array = array.cast(wanted, safe=column.kind != "timestamp")
    except pa.ArrowException as error:
        raise DataError(
            f"cannot append: column {column.name!r} should be {wanted}, got {array.type} ({error})"
        ) from None
    if not column.nullable:
        _check_complete(array, column)
    return array


def _check_complete(array: pa.Array, column: Column) -> None:
    if array.null_count:
        raise DataError(f"cannot append: column {column.name!r} has {array.null_count} missing values")


def schema_of(arrow: pa.Schema) -> Schema:
    """Return the columns of the record batches of a stream; `RequestError` for a type that no event has."""
    return Schema(tuple(map(_column, arrow)))


def _column(field: pa.Field) -> Column:
    kind = _kind(field.type.value_type if pa.types.is_dictionary(field.type) else field.type)
    if kind is None:
        raise RequestError(f"column {field.name!r} is of the type {field.type}, which no event has")
    nullable = bool(field.nullable)
    for known in _KNOWN:
        if (known.name, known.kind, known.nullable) == (field.name, kind, nullable):
            return known
    return Column(str(field.name), kind, nullable=nullable)


def _kind(arrow: pa.DataType) -> Kind | None:
    if pa.types.is_string(arrow) or pa.types.is_large_string(arrow):
        return "category"
    if pa.types.is_boolean(arrow):
        return "boolean"
    if pa.types.is_integer(arrow):
        return "integer"
    if pa.types.is_floating(arrow):
        return "number"
    return "timestamp" if pa.types.is_timestamp(arrow) else None


def to_pandas(cut: Cut, names: Iterable[str] | None = None) -> pd.DataFrame:
    """Return the rows of a cut as a DataFrame, in the columns `names` or all."""
    wanted = cut.schema.names if names is None else cut.schema.select(names).names
    columns: dict[str, Any] = {}
    for position, column in enumerate(cut.schema):
        if column.name not in wanted and not (cut.ragged and column.name == EVENT_TIME.name):
            continue
        values, mask = cut.column(position)
        if column.kind == "category":
            strings, count = cut.strings[position]
            columns[column.name] = _categorical(values, strings[:count])
        elif column.kind == "timestamp":
            columns[column.name] = pd.DatetimeIndex(values.view("M8[us]")).tz_localize("UTC")
        elif mask is None:
            columns[column.name] = values
        elif column.kind == "integer":
            columns[column.name] = pd.arrays.IntegerArray(values, mask)
        else:
            columns[column.name] = pd.arrays.BooleanArray(values, mask)
    df = pd.DataFrame(columns, copy=False)
    if cut.ragged:
        fresh = df[EVENT_TIME.name] >= pd.Timestamp(cut.cutoff, unit="us", tz="UTC")
        df = df[fresh].reset_index(drop=True)
    return df if df.columns.tolist() == list(wanted) else df[list(wanted)]


def _categorical(codes: NDArray[np.int32], strings: list[str]) -> pd.Categorical:
    """Return codes as a categorical whose categories are sorted, as pandas users expect."""
    order = sorted(range(len(strings)), key=strings.__getitem__)
    rank = np.empty(len(strings) + 1, np.int32)
    rank[order] = np.arange(len(strings), dtype=np.int32)
    rank[-1] = -1  # where the code of a missing string, -1, points
    dtype = pd.CategoricalDtype(pd.Index([strings[i] for i in order], dtype="str"))
    return pd.Categorical.from_codes(rank[codes], dtype=dtype, validate=False)

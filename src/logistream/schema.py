"""The columns of a table or of an event: the one list from which every other form is derived.

A `Column` describes one column. A `Schema` is an ordered tuple of columns and gives their pandas, Arrow and
JSON Schema forms. Every model carries the schema of its table; that of the published event is in
`logistream.dataco`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import pyarrow as pa

from logistream.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["DELIVERY", "EVENT_NUMBER", "EVENT_TIME", "Column", "Kind", "Schema"]


Kind = Literal["category", "boolean", "integer", "number", "timestamp"]
"""How a column's values behave: strings from a finite set, yes/no, whole numbers, real numbers, instants."""

_ARROW: Mapping[Kind, pa.DataType] = {
    "category": pa.dictionary(pa.int32(), pa.string()),
    "boolean": pa.bool_(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}
_PANDAS: Mapping[Kind, str] = {
    "category": "category",
    "boolean": "bool",
    "integer": "int64",
    "number": "float64",
    "timestamp": "datetime64[us, UTC]",
}
_PANDAS_NULLABLE: Mapping[Kind, str] = {**_PANDAS, "boolean": "boolean", "integer": "Int64"}
_JSON_TYPE: Mapping[Kind, str] = {
    "category": "string",
    "boolean": "boolean",
    "integer": "integer",
    "number": "number",
    "timestamp": "string",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table or key of an event.

    Parameters
    ----------
    name : str
        Name as it stands in the data; may hold blanks and brackets.
    kind : Kind
        How the values behave.
    meaning : str
        One phrase for a reader.
    unit : str
        Unit of the values, empty if they have none.
    nullable : bool
        Whether values may be missing (`null` in JSON).
    decimals : int or None
        For numbers: digits after the point that values are rounded to; None for full precision.
    text_format : str or None
        For timestamps: pattern (`logistream.tables.dates`) by which they are written in JSON and CSV; None
        for RFC 3339 in UTC with microseconds.
    """

    name: str
    kind: Kind
    meaning: str = ""
    unit: str = ""
    nullable: bool = False
    decimals: int | None = None
    text_format: str | None = None

    @property
    def arrow_field(self) -> pa.Field:
        """The column as an Arrow field."""
        return pa.field(self.name, _ARROW[self.kind], nullable=self.nullable)

    @property
    def pandas_dtype(self) -> str:
        """The dtype of the column in a live pandas DataFrame."""
        return (_PANDAS_NULLABLE if self.nullable else _PANDAS)[self.kind]

    def json_schema(self, values: Sequence[str] | None = None) -> dict[str, Any]:
        """Return the JSON Schema of one value; `values` lists all strings that occur."""
        json_type = _JSON_TYPE[self.kind]
        schema: dict[str, Any] = {"type": [json_type, "null"] if self.nullable else json_type}
        if self.meaning:
            schema["description"] = f"{self.meaning} ({self.unit})" if self.unit else self.meaning
        if self.kind == "timestamp":
            if self.text_format is None:
                schema["format"] = "date-time"
            else:
                schema["x-strftime"] = self.text_format
        if values is not None:
            schema["enum"] = [*values, None] if self.nullable else list(values)
        return schema


@dataclass(frozen=True, slots=True)
class Schema:
    """An ordered set of columns.

    Examples
    --------
    >>> schema = Schema((Column("Market", "category"), Column("Sales", "number", unit="USD")))
    >>> schema.names, schema["Sales"].unit
    (('Market', 'Sales'), 'USD')
    """

    columns: tuple[Column, ...]

    def __iter__(self) -> Iterator[Column]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def __contains__(self, name: object) -> bool:
        return any(column.name == name for column in self.columns)

    def __getitem__(self, name: str) -> Column:
        for column in self.columns:
            if column.name == name:
                return column
        raise RequestError(f"no column {name!r}; there are {', '.join(self.names)}")

    def __add__(self, more: Iterable[Column]) -> Schema:
        return Schema((*self.columns, *more))

    @property
    def names(self) -> tuple[str, ...]:
        """Column names in order."""
        return tuple(column.name for column in self.columns)

    def select(self, names: Iterable[str]) -> Schema:
        """Return the named columns, in the order of `names`; `RequestError` for an unknown one."""
        return Schema(tuple(self[name] for name in names))

    @property
    def arrow(self) -> pa.Schema:
        """The Arrow schema: strings dictionary-encoded, timestamps in UTC with microseconds."""
        return pa.schema([column.arrow_field for column in self.columns])

    @property
    def pandas_dtypes(self) -> dict[str, str]:
        """Column name to dtype of a live pandas DataFrame."""
        return {column.name: column.pandas_dtype for column in self.columns}

    def json_schema(self, title: str, values: Mapping[str, Sequence[str]] | None = None) -> dict[str, Any]:
        """Return the JSON Schema (2020-12) of one event as an object with exactly these keys."""
        known = values or {}
        return {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": title,
            "type": "object",
            "properties": {
                column.name: column.json_schema(known.get(column.name)) for column in self.columns
            },
            "required": list(self.names),
            "additionalProperties": False,
        }

    def to_list(self) -> list[dict[str, Any]]:
        """Return plain data for a model file."""
        return [asdict(column) for column in self.columns]

    @classmethod
    def from_list(cls, columns: Iterable[Mapping[str, Any]]) -> Self:
        """Rebuild what `to_list` gave."""
        return cls(tuple(Column(**column) for column in columns))


EVENT_TIME = Column("event_time", "timestamp", "time of the event, when the order is booked", "UTC")
"""The one key of an event that the table does not have."""

EVENT_NUMBER = Column("event_number", "integer", "position in the stream, from 0")
"""Added on request: `numbered=true`."""

DELIVERY = Column("delivery", "category", "place in the stream: slot and index, such as 40.1")
"""Added on request: `placed=true`."""

"""What a reader can request: where to begin, which events and columns, and in which form.

Names and values only, so that a client can import them; `logistream.server.schemas` reads query strings.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, Self, TypeAlias

from logistream.errors import RequestError, shorten
from logistream.model.conditions import read_conditions
from logistream.schema import DELIVERY, EVENT_NUMBER, EVENT_TIME, Schema
from logistream.times import parse_rfc3339, rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable

    from logistream.model.conditions import Condition
    from logistream.model.model import Model

__all__ = [
    "EVENT_NUMBER_HEADER",
    "LAST_INDEX",
    "MOST_GATHERED",
    "PARAMETERS",
    "STREAM_HEADER",
    "Begin",
    "Envelope",
    "Format",
    "Lag",
    "Place",
    "RangeFormat",
    "Selection",
    "Start",
    "Timestamp",
    "free_name",
    "parse_begin",
    "parse_conditions",
    "parse_number",
    "parse_place",
    "parse_start",
    "parse_stop",
    "selected_columns",
]


Format = Literal["json", "ndjson", "arrow"]
"""One JSON object a message, messages of many lines, or Arrow record batches."""

Envelope = Literal["cloudevents"]
"""What an event is wrapped in: CloudEvents 1.0 in structured mode."""

RangeFormat = Literal["json", "ndjson", "arrow", "csv"]
"""The same, and lines of CSV, for a finished range of events."""

Lag = Literal["wait", "skip"]
"""What a reader that has fallen behind gets next: what it has missed, or the newest."""

Start: TypeAlias = 'int | Literal["earliest", "latest"] | Timestamp'
"""Where to begin: event number, first or next event, or just after a time."""

Begin: TypeAlias = "Start | Place"
"""The same, and a place within a slot."""

PARAMETERS = (
    "start",
    "stop",
    "speed",
    "format",
    "envelope",
    "numbered",
    "placed",
    "faults",
    "columns",
    "where",
    "lag",
    "gather",
)
"""What the query of the WebSocket may hold, besides the token."""

MOST_GATHERED = 0.1
"""Seconds for which a reader may have events gathered, at most: above it would seem to have fallen behind."""

STREAM_HEADER = "Logistream-Stream"
"""Names the stream that an answer is about: equal only if the same number is the same event."""

EVENT_NUMBER_HEADER = "Logistream-Event-Number"
"""Holds the event number with which an answer begins: the slot, if there are faults of the wire."""

LAST_INDEX = 2**32 - 1
"""Largest index of a place, and greater than that of any delivery: the place after it is the next slot."""

_MOST_CONDITIONS = 32
_LARGEST_NUMBER = 2**53  # that a JSON reader in a browser holds exactly, and the sampler makes


class Place(NamedTuple):
    """A place among the deliveries of a stream; without faults of the wire, each slot has one delivery.

    Attributes
    ----------
    slot : int
        The moment of the event with this number.
    index : int
        Of the delivery within the slot. An index after the last one means the next slot.

    Examples
    --------
    >>> str(Place(40, 1)), Place(40, 1).next, Place(40).short
    ('40.1', Place(slot=40, index=2), '40')
    """

    slot: int
    index: int = 0  # type: ignore[assignment] # hides a method of tuples that has no use here

    def __str__(self) -> str:
        return f"{self.slot}.{self.index}"

    @property
    def short(self) -> str:
        """The place as short as it can be written: the slot alone for its first delivery."""
        return str(self) if self.index else str(self.slot)

    @property
    def next(self) -> Self:
        """The place after this one."""
        if self.index < LAST_INDEX:
            return type(self)(self.slot, self.index + 1)
        return type(self)(self.slot + 1)


@dataclass(frozen=True, slots=True)
class Timestamp:
    """Just after a time, in microseconds since the Unix epoch."""

    micros: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events, and in which form; readers with the same selection get the same bytes.

    Attributes
    ----------
    format : RangeFormat
        How they are sent.
    columns : tuple of str
        Keys or columns, in order; `event_number` last if it was requested.
    where : tuple of Condition
        Only events that fulfil all of them, in the order of `read_conditions`.
    envelope : Envelope or None
        What each event is wrapped in, if it is JSON.
    faults : bool
        Whether the faults of the wire act on what is sent.
    placed : bool
        Whether the place of each delivery comes first.
    """

    format: RangeFormat
    columns: tuple[str, ...]
    where: tuple[Condition, ...] = ()
    envelope: Envelope | None = None
    faults: bool = True
    placed: bool = False

    def schema(self, model: Model) -> Schema:
        """Return the columns with their kinds and meanings, without the place of a delivery."""
        return Schema((*model.full_schema, EVENT_NUMBER)).select(self.columns)

    def placed_schema(self, model: Model) -> Schema:
        """Return all columns that are sent, the place of a delivery first if it was requested.

        Its name gets an underscore at its end if the table has a column with this name, requested or not.
        """
        schema = self.schema(model)
        if not self.placed:
            return schema
        name = free_name(DELIVERY.name, model.full_schema.names)
        return Schema((replace(DELIVERY, name=name), *schema))


def free_name(name: str, taken: Iterable[str]) -> str:
    """Return a name with as many underscores at its end as are needed so that no column has it."""
    taken = set(taken)
    while name in taken:
        name += "_"
    return name


def parse_number(name: str, value: str) -> int:
    """Return an event number; `RequestError` for anything else."""
    if not (value.isascii() and value.isdigit() and len(value) <= 16 and int(value) <= _LARGEST_NUMBER):
        raise RequestError(f"{name} must be a whole event number from 0 to 2**53, not {shorten(value)!r}")
    return int(value)


def parse_place(name: str, value: str) -> Place:
    """Return a place such as `40.1`, or `40` for the first one of a slot; `RequestError` for others."""
    slot, point, index = value.partition(".")
    if point and not (index.isascii() and index.isdigit() and len(index) <= 10 and int(index) <= LAST_INDEX):
        raise RequestError(
            f"{name} must be an event number, or a place such as 40.1 with an index below 2**32, "
            f"not {shorten(value)!r}"
        )
    return Place(parse_number(name, slot), int(index) if point else 0)


def parse_begin(value: str) -> Begin:
    """Return where to begin, which may be a place; `RequestError` for anything else."""
    if re.fullmatch(r"[0-9]+\.[0-9]+", value):
        place = parse_place("start", value)
        return place if place.index else place.slot
    return parse_start(value)


def parse_start(value: str, name: str = "start") -> Start:
    """Return where to begin, or to end; `RequestError` for anything that is not a place in a stream."""
    if value in ("earliest", "latest"):
        return value  # type: ignore[return-value] # narrowed by the line above
    if value.isascii() and value.isdigit():
        return parse_number(name, value)
    try:
        # In a query string a plus sign means a blank, unless it was quoted.
        timestamp = Timestamp(parse_rfc3339(re.sub(r" (\d\d:\d\d)$", r"+\1", value)))
        rfc3339(timestamp.micros)  # by its offset, or a leap second, it may be in a year of five digits
    except (ValueError, OverflowError):
        raise RequestError(
            f"{name} must be an event number, earliest, latest, or a time such as "
            f"2026-11-24T06:23:00Z, not {shorten(value)!r}"
        ) from None
    return timestamp


def parse_stop(value: str) -> int | Timestamp:
    """Return where a reading of the live stream is to end; `RequestError` for anything else."""
    if value in ("earliest", "latest"):
        raise RequestError(
            f"stop must be an event number, or a time such as 2026-11-24T06:23:00Z, not {value!r}"
        )
    return parse_start(value, "stop")  # type: ignore[return-value] # narrowed by the line above


def selected_columns(value: str | None, numbered: bool, model: Model) -> tuple[str, ...]:
    """Return the columns that `columns` and `numbered` select; `RequestError` for unknown ones."""
    full = model.full_schema
    if value is None:
        names = model.event_schema.names
    elif value == "all":
        names = full.names
    else:
        try:
            names = tuple(next(csv.reader([value], skipinitialspace=True, strict=True), []))
        except csv.Error:
            raise RequestError(
                f"columns must be all or names with commas between, not {shorten(value)!r}"
            ) from None
        numbered |= EVENT_NUMBER.name in names and EVENT_NUMBER.name not in full
        names = tuple(name for name in names if name != EVENT_NUMBER.name or name in full)
        for name in names:
            if name not in full:
                raise RequestError(f"no column {shorten(name)!r}: there are {', '.join(full.names)}")
        if not names and not numbered:
            raise RequestError("columns must name at least one column, or be all")
        if len(set(names)) < len(names):
            raise RequestError(f"columns names a column twice: {shorten(value)!r}")
    if numbered and EVENT_NUMBER.name in full:
        raise RequestError(
            f"events of this table cannot be numbered: it has a column {EVENT_NUMBER.name!r} of its own"
        )
    return (*names, EVENT_NUMBER.name) if numbered else names


def parse_conditions(strings: list[str], model: Model) -> tuple[Condition, ...]:
    """Return the conditions of a `Selection`; `RequestError` for one that no event could fulfil."""
    if len(strings) > _MOST_CONDITIONS:
        raise RequestError(f"at most {_MOST_CONDITIONS} conditions can be given, not {len(strings)}")
    conditions = read_conditions(strings, model.full_schema)
    follow_the_clock = {delay.column for delay in model.days_after_event}
    for condition in conditions:
        name, column = condition.column, model.full_schema[condition.column]
        if name == EVENT_TIME.name:
            raise RequestError(f"a condition on {name!r} is not possible: begin at a time with start=")
        if name in follow_the_clock:
            raise RequestError(f"a condition on {name!r} is not possible, it follows the clock")
        if None in condition.values and not column.nullable:
            raise RequestError(f"{name!r} is never missing: give a value after the operator")
        known = model.categories.get(name)
        if known is None or condition.operator not in ("in", "not in"):
            continue
        for value in condition.values:
            if value is not None and value not in known:
                raise RequestError(f"{name!r} is never {shorten(str(value))!r}: GET /schema lists its values")
    return conditions

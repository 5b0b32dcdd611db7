"""What a reader asks for: which events, from where on, and in which form.

A query string becomes a `Reading`. Its `Selection` is what readers can share: events with the same selection
are the same bytes for all of them.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from logistream.errors import RequestError, listed
from logistream.schema import EVENT_NUMBER, EVENT_TIME, Schema
from logistream.times import parse_rfc3339, rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterable

    from logistream.model.model import Model
    from logistream.schema import Column

__all__ = [
    "EVENT_NUMBER_HEADER",
    "PARAMETERS",
    "STREAM_HEADER",
    "Format",
    "Lag",
    "Moment",
    "Reading",
    "Selection",
    "Start",
    "parse_reading",
    "parse_where",
]


Format = Literal["json", "ndjson", "arrow"]
"""One JSON text an event, JSON texts of many lines, or Arrow record batches."""

Lag = Literal["wait", "skip"]
"""What a reader that has fallen behind gets next: what it has missed, or the newest."""

Start: TypeAlias = 'int | Literal["earliest", "latest"] | Moment'
"""Where to begin: event number, first or next event, or just after a moment."""

PARAMETERS = ("start", "format", "numbered", "columns", "where", "lag")
"""What the query of the WebSocket may hold, besides the token."""

STREAM_HEADER = "Logistream-Stream"
"""Tells which stream an answer is about: equal only if the same number is the same event."""

EVENT_NUMBER_HEADER = "Logistream-Event-Number"
"""Tells with which event number an answer begins."""

_MOST_CONDITIONS = 32
_TRUTH = {"true": True, "1": True, "false": False, "0": False}
_LARGEST_NUMBER = 2**53  # that a JSON reader in a browser holds exactly, and the sampler makes


@dataclass(frozen=True, slots=True)
class Moment:
    """Just after an instant, in microseconds since the Unix epoch."""

    micros: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events, and in which form.

    Attributes
    ----------
    format : Format
        How they are sent.
    columns : tuple of str
        Keys or columns, in order; `event_number` last if it was asked for.
    where : tuple of (str, tuple)
        For each column with a condition, the values that it may have, None for a missing one.
    """

    format: Format
    columns: tuple[str, ...]
    where: tuple[tuple[str, tuple[Any, ...]], ...] = ()

    def schema(self, model: Model) -> Schema:
        """Return the columns with their kinds and meanings."""
        return Schema((*model.full_schema, EVENT_NUMBER)).select(self.columns)


@dataclass(frozen=True, slots=True)
class Reading:
    """What one reader asks for."""

    selection: Selection
    start: Start = "latest"
    stop: int | None = None
    lag: Lag = "wait"


def parse_reading(query: Iterable[tuple[str, str]], model: Model, allowed: tuple[str, ...]) -> Reading:
    """Read a query string.

    Parameters
    ----------
    query : iterable of (str, str)
        Names and values as they were sent, in order.
    model : Model
        Says which columns there are.
    allowed : tuple of str
        The parameters that the call takes, out of start, stop, format, numbered, columns, where and lag.

    Raises
    ------
    RequestError
        A parameter is unknown, given twice, or has a value that is not allowed.
    """
    given: dict[str, list[str]] = {}
    for name, value in query:
        if name not in (*allowed, "token"):
            known = f"there are {', '.join(allowed)}" if allowed else "there are none here"
            raise RequestError(f"unknown query parameter {_shorten(name)!r}: {known}")
        given.setdefault(name, []).append(value)
    given.pop("token", None)
    conditions = given.pop("where", [])
    if len(conditions) > _MOST_CONDITIONS:
        raise RequestError(f"at most {_MOST_CONDITIONS} conditions can be given, not {len(conditions)}")
    for name, values in given.items():
        if len(values) > 1:
            raise RequestError(f"query parameter {name!r} was given {len(values)} times: give it once")
    single = {name: values[0] for name, values in given.items()}
    return Reading(
        Selection(
            format=_one_of("format", single.get("format", "json"), get_args(Format)),
            columns=_columns(single.get("columns"), _truth("numbered", single.get("numbered")), model),
            where=_conditions(conditions, model),
        ),
        start=_start(single.get("start", "latest" if "stop" not in allowed else "earliest")),
        stop=_number("stop", single["stop"]) if "stop" in single else None,
        lag=_one_of("lag", single.get("lag", "wait"), get_args(Lag)),
    )


def _one_of(name: str, value: str, allowed: tuple[Any, ...]) -> Any:  # noqa: ANN401 - one of a Literal
    if value not in allowed:
        raise RequestError(f"{name} must be one of {', '.join(allowed)}, not {_shorten(value)!r}")
    return value


def _truth(name: str, value: str | None) -> bool:
    if value is None:
        return False
    if value.lower() not in _TRUTH:
        raise RequestError(f"{name} must be true or false, not {_shorten(value)!r}")
    return _TRUTH[value.lower()]


def _number(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) <= 16 and int(value) <= _LARGEST_NUMBER):
        raise RequestError(f"{name} must be a whole event number from 0 to 2**53, not {_shorten(value)!r}")
    return int(value)


def _start(value: str) -> Start:
    if value in ("earliest", "latest"):
        return value  # type: ignore[return-value] # narrowed by the line above
    if value.isascii() and value.isdigit():
        return _number("start", value)
    try:
        # In a query string a plus sign means a blank, unless it was quoted.
        moment = Moment(parse_rfc3339(re.sub(r" (\d\d:\d\d)$", r"+\1", value)))
        rfc3339(moment.micros)  # by its offset, or a leap second, it may be in a year of five digits
    except (ValueError, OverflowError):
        raise RequestError(
            f"start must be an event number, earliest, latest, or a time such as "
            f"2026-11-24T06:23:00Z, not {_shorten(value)!r}"
        ) from None
    return moment


def _columns(value: str | None, numbered: bool, model: Model) -> tuple[str, ...]:
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
                f"columns must be all or names with commas between, not {_shorten(value)!r}"
            ) from None
        numbered |= EVENT_NUMBER.name in names and EVENT_NUMBER.name not in full
        names = tuple(name for name in names if name != EVENT_NUMBER.name or name in full)
        for name in names:
            if name not in full:
                raise RequestError(f"no column {_shorten(name)!r}: there are {', '.join(full.names)}")
        if not names and not numbered:
            raise RequestError("columns must name at least one column, or be all")
        if len(set(names)) < len(names):
            raise RequestError(f"columns names a column twice: {_shorten(value)!r}")
    if numbered and EVENT_NUMBER.name in full:
        raise RequestError(
            f"events of this table cannot be numbered: it has a column {EVENT_NUMBER.name!r} of its own"
        )
    return (*names, EVENT_NUMBER.name) if numbered else names


def _conditions(texts: list[str], model: Model) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    asked = parse_where(model.full_schema, texts)
    for name, values in asked.items():
        if name == EVENT_TIME.name:
            raise RequestError(f"a condition on {name!r} is not possible: begin at a time with start=")
        column = model.full_schema[name]
        if column.kind == "timestamp":
            raise RequestError(f"a condition on {name!r} is not possible, it follows the clock")
        if any(isinstance(value, int) and not -(2**63) <= value < 2**63 for value in values):
            raise RequestError(f"a condition on {name!r} needs a whole number of 64 bits")
        if None in values and not column.nullable:
            raise RequestError(f"{name!r} is never missing: give a value after the colon")
        known = model.categories.get(name)
        unknown = [
            value for value in values if known is not None and value is not None and value not in known
        ]
        if unknown:
            raise RequestError(
                f"{name!r} is never {_shorten(str(unknown[0]))!r}: GET /schema lists its values"
            )
    return tuple((name, tuple(values)) for name, values in sorted(asked.items()))


def _shorten(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else f"{text[:limit]}…"


def parse_where(schema: Schema, texts: Iterable[str]) -> dict[str, list[Any]]:
    """Read conditions written as `COLUMN:VALUE`; nothing after the colon is a missing value.

    Parameters
    ----------
    schema : Schema
        Says of what kind each column is.
    texts : iterable of str
        One condition each; several on one column are alternatives.

    Returns
    -------
    dict of str to list
        What `Model.sample` takes as `where`.

    Raises
    ------
    RequestError
        If a text does not begin with the name of a column, or its value is not of the column's kind.
    """
    where: dict[str, list[Any]] = {}
    for text in texts:
        # names may hold colons themselves: the longest that fits
        names = [name for name in schema.names if text.startswith(f"{name}:")]
        if not names:
            raise RequestError(
                f"a condition is written COLUMN:VALUE, and {text!r} begins with no column and colon: "
                f"there are {listed(schema.names, text)}"
            )
        name = max(names, key=len)
        where.setdefault(name, []).append(_parsed(schema[name], text[len(name) + 1 :]))
    return where


def _parsed(column: Column, text: str) -> str | float | bool | None:
    """Return the value of the column's kind that a text stands for."""
    if not text:
        return None
    try:
        if column.kind == "boolean":
            return _TRUTH[text.lower()]
        if column.kind == "integer":
            return int(text)
        if column.kind == "number":
            return float(text)
    except (KeyError, ValueError):
        expected = {"boolean": "true or false", "integer": "a whole number"}.get(column.kind, "a number")
        raise RequestError(f"a condition on {column.name!r} needs {expected}, not {text!r}") from None
    return text

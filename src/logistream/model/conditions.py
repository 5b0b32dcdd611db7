"""Conditions on the values of columns: how they are written, and which rows fulfil them.

`read_conditions` takes strings (`Sales>=100`, `Market:Europe`), mappings (`{"Sales": slice(100, 500)}`) and
tuples (`("Sales", ">=", 100)`) and checks them against a schema. `write_conditions` gives the strings that
say the same. Nothing here samples, so clients and servers can import it.
"""

from __future__ import annotations

import contextlib
import csv
import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from logistream.errors import RequestError, listed

if TYPE_CHECKING:
    from logistream.schema import Column, Schema

__all__ = [
    "FORMS",
    "WRITTEN",
    "Condition",
    "Value",
    "Where",
    "operand",
    "quoted",
    "read_conditions",
    "string_of",
    "write_conditions",
]


Operator = Literal["in", "not in", "<", "<=", ">", ">="]

Value: TypeAlias = "str | bool | int | float | datetime | None"
"""A value of a column; None is a missing one, and a datetime has a time zone."""

Where: TypeAlias = (
    "Mapping[str, Any] | str | tuple[str, str, Any] | Iterable[str | tuple[str, str, Any] | Condition]"
)
"""Conditions as people write them; see `read_conditions`."""

FORMS = "'Market:Europe', 'Sales>=100', {'Market': 'Europe'} or ('Sales', '>=', 100)"
"""Examples of what `where` takes, for messages."""

WRITTEN = r"[:=<>]|\s(not\s+in|in|between)\s"
"""A pattern that every condition in a string holds."""

_OPERATORS = ("==", "!=", "<", "<=", ">", ">=", "in", "not in", "between")
_SAME = {"=": "==", ":": "=="}
_WRITTEN = re.compile(r"\s*(==|!=|<=|>=|[:=<>]|(?<=\s)(?:not\s+in|in|between)(?=\s))", re.IGNORECASE)
_QUOTED = re.compile(r'"((?:[^"]|"")*)"')
_TRUTH = {"true": True, "1": True, "false": False, "0": False}
_MOST_SHOWN = 80  # characters of a value in an error
_MOST_BITS = 1023  # of a whole number: a larger one is no real number either
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_ORDERS = {"<": pc.less, "<=": pc.less_equal, ">": pc.greater, ">=": pc.greater_equal}


@dataclass(frozen=True, slots=True)
class Condition:
    """What the values of one column must be like.

    Parameters
    ----------
    column : str
        Name of the column.
    operator : {"in", "not in", "<", "<=", ">", ">="}
        How a value is compared. No missing value fulfils an order; `not in` is the opposite of `in`, so a
        missing value fulfils it unless None is among the values.
    values : tuple of Value
        What it is compared with: any number of values for `in` and `not in`, otherwise one.
    """

    column: str
    operator: Operator
    values: tuple[Value, ...]

    def __str__(self) -> str:
        symbol = {"in": "==", "not in": "!="}.get(self.operator, self.operator)
        if len(self.values) > 1:
            return f"{self.column} {self.operator} {', '.join(map(string_of, self.values))}"
        return f"{self.column} {symbol} {string_of(self.values[0]) or 'missing'}"

    @property
    def allows_missing(self) -> bool:
        """Whether a missing value fulfils it."""
        return (None in self.values) == (self.operator == "in") and self.operator in ("in", "not in")

    def strings(self) -> Iterator[str]:
        """Return it as `read_conditions` takes it in strings, one for each value."""
        for value in self.values:
            written = string_of(value)
            short = f"{self.column}:{written}"
            # Three strings of which the second is an operator would be taken for one condition.
            if (
                self.operator == "in"
                and not _operator(short)
                and (value is None or _is_simple(self.column, written))
            ):
                yield short
                continue
            name = quoted(self.column)
            if value is None:
                written = ""
            elif written == "" or written != written.strip() or written.startswith(('"', "=")):
                written = quoted(written)
            symbol = {"in": "==", "not in": "!="}.get(self.operator, self.operator)
            yield f"{name}{symbol}{written}"

    def mask(self, batch: pa.RecordBatch) -> np.ndarray:
        """Return which rows of a batch fulfil it, (n_rows,) bool."""
        array = batch.column(self.column)
        values = array.dictionary if pa.types.is_dictionary(array.type) else array
        if self.operator in ("in", "not in"):
            known = pa.array([value for value in self.values if value is not None], values.type)
            hit = pc.is_in(values, known)
            hit = pc.invert(hit) if self.operator == "not in" else hit
        else:
            hit = _ORDERS[self.operator](values, pa.scalar(self.values[0], values.type))
        if values is not array:
            hit = hit.take(array.indices)
        fulfils = pc.if_else(array.is_valid(), hit, pa.scalar(self.allows_missing))
        return np.asarray(fulfils.to_numpy(zero_copy_only=False))

    def between(
        self, low: np.ndarray, high: np.ndarray, missing: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return whether a value between two bounds, both included, can fulfil it, and whether each does.

        Parameters
        ----------
        low, high : ndarray
            Strings, or numbers; timestamps in microseconds since 1970 UTC.
        missing : ndarray of bool of the same shape
            Where the value is missing instead.

        Returns
        -------
        tuple of two ndarrays of bool of that shape
        """
        known = [operand(value) for value in self.values if value is not None]
        if self.operator in ("in", "not in"):
            can = np.zeros(low.shape, bool)
            for value in known:
                can |= np.asarray((low <= value) & (high >= value), bool)
            must = can & np.asarray(low == high, bool)
            if self.operator == "not in":
                can, must = ~must, ~can
        else:
            compare = {"<": np.less, "<=": np.less_equal, ">": np.greater, ">=": np.greater_equal}
            ends = [np.asarray(compare[self.operator](end, known[0]), bool) for end in (low, high)]
            can, must = ends[0] | ends[1], ends[0] & ends[1]
        return np.where(missing, self.allows_missing, can), np.where(missing, self.allows_missing, must)


def read_conditions(where: Where, schema: Schema) -> tuple[Condition, ...]:
    """Check conditions against the columns of a table.

    Parameters
    ----------
    where : mapping, string, tuple, or iterable of strings and tuples
        A mapping gives for each column a value, a list or set of values of which any will do, None for a
        missing one, or a `slice`, whose two ends are included. A tuple is `(COLUMN, OPERATOR, VALUE)` with
        one of the operators `==`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `not in`, `between`. A string is the
        same without brackets, where `COLUMN:VALUE` also means `==`, and no value means a missing one.
    schema : Schema
        The columns and their kinds.

    Returns
    -------
    tuple of Condition
        In a fixed order. A row must fulfil all of them; values that are asked of one column by `==` or `in`
        are alternatives.

    Raises
    ------
    RequestError
        If a condition cannot be read, names no column, or has a value that is not of the column's kind.
    """
    found = [
        condition
        for item in _items(where)
        for condition in (_parsed(item, schema) if isinstance(item, str) else _checked(item, schema))
    ]
    merged: dict[tuple[str, Operator], dict[Value, None]] = {}
    orders: dict[Condition, None] = {}
    for condition in found:
        if condition.operator in ("in", "not in"):
            merged.setdefault((condition.column, condition.operator), {}).update(
                dict.fromkeys(condition.values)
            )
        else:
            orders[condition] = None
    _check_ranges(orders)
    lists = [Condition(*key, tuple(sorted(values, key=_sorting))) for key, values in merged.items()]
    return tuple(sorted([*lists, *orders], key=str))


def write_conditions(where: Where | None) -> tuple[str, ...]:
    """Return conditions as strings, for a query; `RequestError` for what no table could fulfil."""
    return tuple(
        string
        for item in _items(() if where is None else where)
        for string in ([item] if isinstance(item, str) else [s for c in item for s in c.strings()])
    )


def _check_ranges(orders: Iterable[Condition]) -> None:
    """Raise `RequestError` if no value lies between the bounds that are asked of a column."""
    for low, high in itertools.permutations(orders, 2):
        if low.column == high.column and low.operator in (">", ">=") and high.operator in ("<", "<="):
            least: Any = low.values[0]
            most: Any = high.values[0]
            if least > most or (least == most and (low.operator, high.operator) != (">=", "<=")):
                raise RequestError(
                    f"no value fulfils both {low} and {high}: give a lower bound below the upper one"
                )


def _sorting(value: Value) -> tuple[bool, Any]:
    return value is None, 0 if value is None else value


def _items(where: Where) -> Iterator[str | list[Condition]]:
    """Yield strings as they are, and what Python has, as conditions without a schema."""
    if isinstance(where, Mapping):
        for name, asked in where.items():
            yield _of_mapping(name, asked)
        return
    if isinstance(where, str) or (isinstance(where, tuple) and _is_condition(where)):
        where = (where,)
    if not isinstance(where, Iterable):
        raise RequestError(f"where must be like {FORMS}, not {where!r}")
    for item in where:
        if isinstance(item, str):
            yield item
        elif isinstance(item, Condition):
            yield [item]
        elif isinstance(item, Mapping):
            yield from _items(item)
        elif isinstance(item, tuple) and _is_condition(item):
            yield _of_tuple(*item)
        else:
            raise RequestError(f"a condition must be like {FORMS}, not {item!r}")


def _is_condition(item: tuple[Any, ...]) -> bool:
    """Return whether a tuple is one condition, maybe with an unknown operator, and not three strings."""
    if len(item) != 3 or not all(isinstance(part, str) for part in item[:2]):
        return False
    return _operator(item[1]) != "" or not isinstance(item[2], str)


def _operator(written: str) -> str:
    """Return the operator that a string stands for, or the empty string."""
    plain = " ".join(written.lower().split())
    plain = _SAME.get(plain, plain)
    return plain if plain in _OPERATORS else ""


def _of_mapping(name: object, asked: Any) -> list[Condition]:  # noqa: ANN401 - as users write it
    """Return the conditions that one entry of a mapping stands for."""
    if not isinstance(name, str):
        raise RequestError(f"where must name columns by strings, not {name!r}")
    if isinstance(asked, slice):
        if asked.step is not None or (_is_missing(asked.start) and _is_missing(asked.stop)):
            raise RequestError(
                f"a range of {name!r} must be slice(low, high), with None for an open end, not {asked!r}"
            )
        ends: list[tuple[Operator, Any]] = [(">=", asked.start), ("<=", asked.stop)]
        return [Condition(name, order, (_plain(name, end),)) for order, end in ends if not _is_missing(end)]
    if isinstance(asked, tuple):
        pair = ", ".join(repr(value) for value in asked)
        raise RequestError(
            f"({pair}) for {name!r} could mean a range or a list: write slice({pair}) for a range, [{pair}] "
            f"for a list of values, or a condition such as ({name!r}, '>=', 1)"
        )
    return _of_tuple(name, "in" if _is_list(asked) else "==", asked)


def _of_tuple(name: str, operator: str, asked: Any) -> list[Condition]:  # noqa: ANN401 - as users write it
    """Return the conditions that a column, an operator and a value stand for."""
    known = _operator(operator)
    if not known:
        raise RequestError(f"{operator!r} is no operator: there are {', '.join(_OPERATORS)}")
    if known == "between":
        pair = [asked.start, asked.stop] if isinstance(asked, slice) else asked
        if not _is_list(pair) or len(pair := list(pair)) != 2 or any(map(_is_missing, pair)):
            raise RequestError(f"between needs two values for {name!r}, as in (100, 500), not {asked!r}")
        return _of_mapping(name, slice(*pair))
    if known in ("in", "not in"):
        if not _is_list(asked):
            raise RequestError(f"{known!r} needs a list of values for {name!r}, as in [1, 2], not {asked!r}")
        values = tuple(_plain(name, value) for value in asked)
        if not values:
            raise RequestError(f"no value is given for {name!r}: expected one, or a list of those allowed")
        return [Condition(name, known, values)]  # type: ignore[arg-type] # narrowed above
    value = _plain(name, asked)
    if known in ("==", "!="):
        return [Condition(name, "in" if known == "==" else "not in", (value,))]
    return [Condition(name, known, (value,))]  # type: ignore[arg-type] # the other operators are orders


def _is_list(asked: object) -> bool:
    return isinstance(asked, Iterable) and not isinstance(asked, str | bytes | Mapping)


def _is_simple(name: str, written: str) -> bool:
    """Return whether `name:written` can be read in one way only, whatever other columns there are."""
    return written != "" and not name.startswith('"') and not re.search(WRITTEN, written, re.IGNORECASE)


def _is_missing(value: Any) -> bool:  # noqa: ANN401 - as users write it
    """Return whether a value is what Python, NumPy and pandas write for a missing one."""
    if isinstance(value, int | Iterable):
        return False
    return value is None or str(value) in ("nan", "NaT", "<NA>")


def _plain(name: str, value: Any) -> Value:  # noqa: ANN401 - as users write it
    """Return a value in a type of Python, whatever the column."""
    if _is_missing(value):
        return None
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    elif isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, datetime):
        # pandas' Timestamp is one too, with nanoseconds
        zone = UTC if value.tzinfo is None else value.tzinfo
        plain = datetime(*value.timetuple()[:6], value.microsecond, zone, fold=value.fold)
        return plain.astimezone(UTC)
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day, tzinfo=UTC)
    if isinstance(value, int) and value.bit_length() > _MOST_BITS:
        raise RequestError(
            f"a condition on {name!r} needs a number of at most 64 bits, not one of {value.bit_length():,}"
        )
    if isinstance(value, str | bool | int | float):
        return value
    try:
        return float(value)  # a Decimal or a Fraction
    except (TypeError, ValueError, OverflowError):
        raise RequestError(
            f"a condition on {name!r} needs a string, a number, a truth value, a time or None, not {value!r}"
        ) from None


def quoted(string: str) -> str:
    """Return a name or a value in quotation marks, as a query may write it."""
    return '"' + string.replace('"', '""') + '"'


def string_of(value: Value) -> str:
    """Return a value as a query writes it; a missing one is the empty string."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ").rjust(27, "0")
    return str(value)


def operand(value: Value) -> Any:  # noqa: ANN401 - what an array of values is compared with
    """Return a value as arrays of the column hold it: timestamps are microseconds since 1970 UTC."""
    return (value - _EPOCH) // timedelta(microseconds=1) if isinstance(value, datetime) else value


def _parsed(string: str, schema: Schema) -> list[Condition]:
    """Read one condition from a string."""
    name, match = _split(string, schema)
    written, column = string[match.end() :], schema[name]
    operator = _operator(match[1])
    if match[1] == ":":
        values = (_of_string(column, written) if written else None,)
        return _checked([Condition(name, "in", values)], schema)
    written = written.strip()
    if operator in ("in", "not in"):
        fields = next(csv.reader([written], skipinitialspace=True), [])
        return _checked(
            _of_tuple(name, operator, [_of_string(column, f) if f else None for f in fields]), schema
        )
    if operator == "between":
        ends = re.split(r"\s+and\s+", written, flags=re.IGNORECASE)
        return _checked(_of_tuple(name, operator, [_of_string(column, end) for end in ends]), schema)
    whole = _QUOTED.fullmatch(written)
    order = operator not in ("==", "!=")
    if whole:
        value = _of_string(column, whole[1].replace('""', '"'), order=order)
    else:
        value = _of_string(column, written, order=order) if written else None
    return _checked(_of_tuple(name, operator, value), schema)


def _split(string: str, schema: Schema) -> tuple[str, re.Match[str]]:
    """Return the column with which a condition begins, and the operator behind it."""
    if begun := _QUOTED.match(string):
        name = begun[1].replace('""', '"')
        match = _WRITTEN.match(string, begun.end())
        if match and name in schema:
            return name, match
    # names may hold operators themselves: the longest that fits
    for name in sorted(schema.names, key=len, reverse=True):
        if string.startswith(name) and (match := _WRITTEN.match(string, len(name))):
            return name, match
    raise RequestError(
        f"a condition is written COLUMN:VALUE or COLUMN>=VALUE, and {string!r} begins with no column and "
        f"operator: there are {listed(schema.names, string)}"
    )


def _of_string(column: Column, written: str, *, order: bool = False) -> Value:
    """Return a value that a string gives, as the column's kind has it; `order` allows fractions as bounds."""
    try:
        if column.kind == "boolean":
            return _TRUTH[written.strip().lower()]
        if column.kind == "integer":
            try:
                return int(written)
            except ValueError:
                if not order:
                    raise
                return float(written)
        if column.kind == "number":
            return float(written)
    except (KeyError, ValueError):
        raise _wrong_kind(column, written) from None
    return written


def _wrong_kind(column: Column, value: object, *, order: bool = False) -> RequestError:
    expected = {
        "boolean": "true or false",
        "integer": "a number" if order else "a whole number",
        "number": "a number",
        "category": "a string",
        "timestamp": "a time such as 2026-11-24T06:23:00Z",
    }[column.kind]
    return RequestError(f"a condition on {column.name!r} needs {expected}, not {_shown(value)}")


def _shown(value: object) -> str:
    """Return a value as an error names it: a long one in part."""
    shown = repr(value)
    return shown if len(shown) <= _MOST_SHOWN else f"{shown[:_MOST_SHOWN]}..."


def _checked(conditions: list[Condition], schema: Schema) -> list[Condition]:
    """Return conditions with values of the column's kind."""
    checked = []
    for condition in conditions:
        if condition.column not in schema:
            there = listed(schema.names, condition.column)
            raise RequestError(f"no column is called {condition.column!r}: there are {there}")
        column, operator = schema[condition.column], condition.operator
        if operator in ("in", "not in"):
            values = tuple(None if v is None else _of_kind(column, v) for v in condition.values)
            checked.append(Condition(column.name, operator, values))
            continue
        [value] = condition.values
        if column.kind == "boolean":
            raise RequestError(f"{column.name!r} is true or false and has no order: ask with == or !=")
        if value is None:
            raise RequestError(f"a condition on {column.name!r} needs a value after {operator}")
        checked.append(_bound(column, operator, value))
    return checked


def _bound(column: Column, operator: Operator, value: Value) -> Condition:
    """Return an order with a bound of the column's kind: of whole numbers a whole one."""
    if column.kind == "integer" and isinstance(value, float) and math.isfinite(value):
        value = math.ceil(value) if operator in (">=", "<") else math.floor(value)
    return Condition(column.name, operator, (_of_kind(column, value, order=True),))


def _of_kind(column: Column, value: Value, *, order: bool = False) -> Value:
    """Return a value of Python as the column's kind has it; `RequestError` if it is of another kind."""
    wrong = _wrong_kind(column, value, order=order)
    if column.kind == "category":
        if isinstance(value, str):
            return value
        raise wrong
    if column.kind == "timestamp":
        timestamp = value if isinstance(value, datetime) else _time(column, value)
        if timestamp is None:
            raise wrong
        return timestamp
    if isinstance(value, str | datetime) or value is None or value != value:
        raise wrong
    if column.kind == "boolean":
        if value not in (0, 1):
            raise wrong
        return bool(value)
    try:
        if column.kind == "number":
            return float(value)
        if value != int(value):
            raise wrong
    except (OverflowError, ValueError):
        raise wrong from None
    if not -(2**63) <= value < 2**63:
        raise RequestError(
            f"a condition on {column.name!r} needs a whole number of 64 bits, not {_shown(value)}"
        )
    return int(value)


def _time(column: Column, written: Value) -> datetime | None:
    """Return the time that a string gives, UTC unless it says otherwise; None if it gives none."""
    if not isinstance(written, str):
        return None
    # In a query string a plus sign means a blank, unless it was quoted.
    plain = re.sub(r"(:\d\d\S*) (\d\d:\d\d)$", r"\1+\2", written.strip())
    if re.fullmatch(r"\d{4}(-\d\d)?", plain):
        plain += "-01-01" if len(plain) == 4 else "-01"
    timestamp = None
    for pattern in (None, column.text_format):
        with contextlib.suppress(ValueError):
            if pattern is None:
                timestamp = datetime.fromisoformat(plain)
            else:
                timestamp = timestamp or datetime.strptime(plain, pattern)
    if timestamp is None:
        return None
    return (timestamp.replace(tzinfo=UTC) if timestamp.tzinfo is None else timestamp).astimezone(UTC)

"""Conditions on rows, as people write them → the codes of the model's factors that fulfil them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from logistream.errors import RequestError
from logistream.instants import CALENDAR, micros
from logistream.sampling import compute, scaled

if TYPE_CHECKING:
    from logistream.model import Model
    from logistream.schema import Column, Schema

__all__ = ["allowed_codes", "parse_where"]

_MAX_SHOWN = 10  # values or columns that a refusal lists
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


@dataclass(frozen=True, slots=True)
class _Reading:
    """What each code of a factor says of one column."""

    factor: str
    value: np.ndarray  # (n_codes,) text or number; instants in microseconds
    missing: np.ndarray  # (n_codes,) bool


def allowed_codes(model: Model, where: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return which codes fulfil the conditions.

    Parameters
    ----------
    model : Model
        What the conditions are about.
    where : mapping of str to value or list of values
        For each column concerned, the value or values it may take; None is a missing value.

    Returns
    -------
    dict of str to ndarray of bool of shape (n_codes,)
        For each factor with a condition, by its name, whether a code is allowed.

    Raises
    ------
    RequestError
        If a column is unknown or no factor's codes are single values of it, or a value never occurs.
    """
    import pandas as pd  # a server needs none

    if not isinstance(where, Mapping):
        raise RequestError(f"where must name columns and values, as in {{'Market': 'Europe'}}, not {where!r}")
    readings = _readings(model)
    allowed: dict[str, np.ndarray] = {}
    for name, asked in where.items():
        if name not in model.schema:
            raise RequestError(f"no column is called {name!r}: there are {_some(model.schema.names, name)}")
        if name not in readings:
            raise _refusal(model, name, readings)
        reading, column = readings[name], model.schema[name]
        values = list(asked) if pd.api.types.is_list_like(asked) else [asked]
        if not values:
            raise RequestError(f"no value is given for {name!r}: expected one, or a list of those allowed")
        fulfil = np.any([_matching(reading, column, value) for value in values], axis=0)
        allowed[reading.factor] = allowed.get(reading.factor, True) & fulfil
    return allowed


def _readings(model: Model) -> dict[str, _Reading]:
    """Return the columns and helpers that a single factor decides, with a single value for each code."""
    readings: dict[str, _Reading] = {}
    ranges: dict[str, tuple[str, list[np.ndarray]]] = {}
    for factor in model.factors:
        for emission in factor.emissions:
            if emission.high is None:
                categories = model.categories.get(emission.column)
                value = (
                    scaled(emission, emission.low)
                    if categories is None
                    else np.array(categories, dtype=object)[emission.low]
                )
                missing = np.zeros(factor.size, bool) if emission.missing is None else emission.missing
                readings[emission.column] = _Reading(factor.name, value, missing)
            elif emission.missing is None:
                ranges[emission.column] = (
                    factor.name,
                    [scaled(emission, e) for e in (emission.low, emission.high)],
                )
    for formula in model.formulas:
        if (
            formula.operation in CALENDAR and formula.left in ranges
        ):  # of a range of dates that lies in a month
            name, ends = ranges[formula.left]
            first, last = (compute(formula, {formula.left: end}) for end in ends)
            if (first == last).all():
                readings[formula.column] = _Reading(name, first, np.zeros(len(first), bool))
            continue
        inputs = {name: readings.get(name) for name in (formula.left, formula.right) if name}
        found = {name: reading for name, reading in inputs.items() if reading is not None}
        decisive = [reading for reading in found.values() if len(reading.value) > 1]  # not constant
        if len(found) == len(inputs) and len({reading.factor for reading in decisive}) <= 1:
            name = (decisive or list(found.values()))[0].factor
            value = compute(formula, {name: reading.value for name, reading in found.items()})
            missing = np.zeros(len(value), bool)
            for reading in found.values():
                missing = missing | reading.missing
            readings[formula.column] = _Reading(name, value, missing)
    return readings


def _matching(reading: _Reading, column: Column, wanted: Any) -> np.ndarray:  # noqa: ANN401 - as users write it
    """Return which codes stand for the value, (n_codes,) bool; at least one does."""
    import pandas as pd

    if not pd.api.types.is_scalar(wanted):
        found = np.zeros_like(reading.missing)
    elif pd.isna(wanted):
        found = reading.missing
    else:
        value = _micros(column, wanted) if column.kind == "timestamp" else wanted
        comparable = isinstance(value, str) == (column.kind == "category")
        found = ~reading.missing & comparable & (reading.value == value)
    if not found.any():
        occurring: list[Any] = np.unique(reading.value[~reading.missing]).tolist()
        if column.kind == "timestamp":
            occurring = [str(pd.Timestamp(moment, unit="us")) for moment in occurring]
        elif column.kind == "boolean":
            occurring = [bool(number) for number in occurring]
        if reading.missing.any():
            occurring.append(None)
        raise RequestError(f"{column.name!r} is never {wanted!r}: it is {_some(occurring, wanted)}")
    return np.asarray(found)


def _micros(column: Column, wanted: Any) -> int:  # noqa: ANN401 - as users write it
    """Return an instant as microseconds since 1970 UTC; without a time zone it is taken as UTC."""
    import pandas as pd

    try:
        return int(micros(pd.Series([pd.Timestamp(wanted)]))[0])
    except (ValueError, TypeError):
        raise RequestError(
            f"{column.name!r} is a timestamp: expected one like '2017-03-31 12:00', not {wanted!r}"
        ) from None


def _refusal(model: Model, name: str, readings: Mapping[str, _Reading]) -> RequestError:
    """Return why no condition on this column can be met exactly, and on which it can."""
    formula = next((f for f in model.formulas if f.column == name and not f.keeps_order), None)
    reason = "computed from columns that are drawn apart" if formula else "continuous"
    if name in model.categories:
        reason = "made up anew, since it names the rows"
    columns = [column for column in model.schema.names if column in readings]
    if formula is not None:
        columns = [column for column in columns if column in (formula.left, formula.right)] or columns
    instead = f"ask for {_some(columns, None)} instead, or filter" if columns else "filter"
    return RequestError(f"{name!r} is {reason}, so its values cannot be asked for: {instead} the rows")


def _some(values: Iterable[Any], near: Any) -> str:  # noqa: ANN401 - as users write it
    """Return values in words; of many, the texts most like `near`, else the first."""
    values = list(values)
    if len(values) <= _MAX_SHOWN:
        return ", ".join(repr(value) for value in values)
    shown = values[:_MAX_SHOWN]
    if isinstance(near, str) and isinstance(values[0], str):
        shown = difflib.get_close_matches(near, [v for v in values if v is not None], _MAX_SHOWN, cutoff=0)
    return f"{', '.join(repr(value) for value in shown)} and {len(values) - len(shown):,} more"


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
                f"there are {_some(schema.names, text)}"
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

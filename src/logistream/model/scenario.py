"""What if: a list of effects on a model, and a profile that says when they hold.

This module holds the form of a scenario: how it is written, checked and kept as JSON. What it does to the
events of a model is in `logistream.model.effects`.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias

import numpy as np

from logistream.errors import RequestError, shorten
from logistream.model.conditions import string_of, write_conditions

if TYPE_CHECKING:
    from logistream.model.network import Network

__all__ = [
    "MOST_SCENARIOS",
    "Effect",
    "Profile",
    "Scenario",
    "Scenarios",
    "either",
    "is_number",
    "json_schema",
    "read_scenarios",
    "require_keys",
    "shown",
    "whole",
]

Kind = Literal["weight", "share", "set", "scale", "delay", "rate"]

Scenarios: TypeAlias = "Scenario | Mapping[str, Any] | Iterable[Scenario | Mapping[str, Any]]"
"""One or several scenarios as people write them."""

MOST_SCENARIOS = 8
_MOST_EFFECTS = 16
_MOST_VALUES = 1000  # of a distribution
_LARGEST_FACTOR = 1e6
_LEAST_RATE = 1e-6
_LARGEST_POSITION = 2**53
_MOST_DAYS = 3650
_MOST_LETTERS = 200  # of a name
_KINDS: tuple[Kind, ...] = ("weight", "share", "set", "scale", "delay", "rate")
_WITHOUT_WHERE = ("rate",)
_SHAPES: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "abrupt": ((), ("at",)),
    "ramp": (("position", "width"), ()),
    "recurring": (("period", "length"), ("at",)),
}
"""Shapes of a profile: the numbers that each needs, and those that it can have."""


@dataclass(frozen=True, slots=True)
class Effect:
    """One change of a model.

    Parameters
    ----------
    kind : {"weight", "share", "set", "scale", "delay", "rate"}
        What is changed; see `Scenario`.
    amount : float
        The weight, the share, what a number is multiplied by, the days, or what the rate is multiplied by;
        0 for `set`.
    column : str
        What is set or scaled; empty for the others.
    values : tuple of (value, float)
        What a column is set to, each value with its relative frequency; empty for the others.
    where : tuple of str
        The conditions of the events that are meant; empty for all.
    """

    kind: Kind
    amount: float = 0.0
    column: str = ""
    values: tuple[tuple[Any, float], ...] = ()
    where: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """What it does, in a few words."""
        amount = f"{self.amount:g}"
        written = ", ".join(string_of(v) or "missing" for v, _ in self.values)
        what = {
            "weight": f"weight {amount}",
            "share": f"share {amount}",
            "set": f"{self.column} = {written}",
            "scale": f"{self.column} x {amount}",
            "delay": f"delay {amount} days",
            "rate": f"rate x {amount}",
        }[self.kind]
        return what + (f" where {' and '.join(self.where)}" if self.where else "")

    def to_json(self) -> dict[str, Any]:
        """Return the effect as a JSON object."""
        written: dict[str, Any]
        if self.kind == "set":
            values = {_key(value): share for value, share in self.values}
            [(first, _), *more] = self.values
            written = {"set": {self.column: values if more else _plain(first)}}
        elif self.kind == "scale":
            written = {"scale": {self.column: self.amount}}
        else:
            written = {self.kind: int(self.amount) if self.kind == "delay" else self.amount}
        return {**written, "where": list(self.where)} if self.where else written


@dataclass(frozen=True, slots=True)
class Profile:
    """When a scenario holds: its strength is the share of events that are drawn from it.

    Positions are counted from where the scenario takes effect: in a stream from the first event that it
    applies to, or from the time at which it was set; in a table from row 0.

    Parameters
    ----------
    shape : {"abrupt", "ramp", "recurring"}
        "abrupt": strength 1 from `at` on, and 0 before; "ramp": from 0 to 1 in a straight line, `width` long
        with `position` in its middle; "recurring": strength 1 for `length` of every `period`, the first time
        from `at` on, and 0 in between.
    unit : {"events", "seconds"}
        What the numbers count.
    at, position, width, period, length : float
        In that unit, at least 0; `width` and `period` are greater than 0.

    Raises
    ------
    RequestError
        If a number is missing, is not allowed or does not belong to the shape.
    """

    shape: Literal["abrupt", "ramp", "recurring"] = "abrupt"
    unit: Literal["events", "seconds"] = "events"
    at: float = 0.0
    position: float | None = None
    width: float | None = None
    period: float | None = None
    length: float | None = None

    def __post_init__(self) -> None:
        if self.shape not in _SHAPES:
            raise RequestError(f"the shape of a profile must be {either(_SHAPES)}, not {shown(self.shape)}")
        if self.unit not in ("events", "seconds"):
            raise RequestError(f"the unit of a profile must be events or seconds, not {shown(self.unit)}")
        required, optional = _SHAPES[self.shape]
        for name in ("at", "position", "width", "period", "length"):
            value: Any = getattr(self, name)
            if name not in (*required, *optional):
                if value not in (None, 0):
                    raise RequestError(
                        f"a profile of shape {self.shape} has no {name}: it has "
                        f"{either((*required, *optional), 'and')}"
                    )
                continue
            least = "greater than 0" if name in ("width", "period") else "at least 0"
            if not is_number(value) or not 0 <= float(value) <= _LARGEST_POSITION:
                raise RequestError(
                    f"{name} of a profile must be a number of {self.unit}, {least}, not {shown(value)}"
                )
            if name in ("width", "period") and value == 0:
                raise RequestError(f"{name} of a profile must be greater than 0")
            object.__setattr__(self, name, float(value))
        if self.period is not None and self.length is not None and self.length > self.period:
            raise RequestError(
                f"length of a recurring profile must be at most its period, {self.period:g}, "
                f"not {self.length:g}"
            )

    @property
    def constant(self) -> bool:
        """Whether the strength is 1 throughout."""
        return self.shape == "abrupt" and self.at == 0

    def strength(self, passed: np.ndarray) -> np.ndarray:
        """Return the strength at each event, float64 from 0 to 1, of shape (n_events,).

        Parameters
        ----------
        passed : ndarray of shape (n_events,)
            How many events, or seconds, after the scenario took effect each event comes.
        """
        if self.shape == "ramp":
            assert self.position is not None  # noqa: S101 - checked when it was made
            assert self.width is not None  # noqa: S101
            return np.clip((passed - self.position) / self.width + 0.5, 0.0, 1.0)
        begun = passed >= self.at
        if self.shape == "recurring":
            assert self.period is not None  # noqa: S101
            begun &= np.mod(passed - self.at, self.period) < self.length
        return begun.astype(np.float64)

    def to_json(self) -> dict[str, Any]:
        """Return the profile as a JSON object."""
        required, optional = _SHAPES[self.shape]
        numbers = {name: whole(getattr(self, name)) for name in (*required, *optional)}
        return {"shape": self.shape, "unit": self.unit, **numbers}

    @classmethod
    def from_json(cls, obj: object) -> Self:
        """Return the profile of a JSON object; `RequestError` if it is none."""
        if not isinstance(obj, Mapping):
            raise RequestError(
                f'a profile must be an object such as {{"shape": "ramp", "position": 1000, "width": 500}}, '
                f"not {shown(obj)}"
            )
        require_keys("a profile", obj, cls.__slots__)
        return cls(**obj)


@dataclass(frozen=True, slots=True)
class Scenario:
    """What if: another model that shares its chance with the fitted one.

    Parameters
    ----------
    effects : iterable of mappings
        Each with one of these keys, and with `where` for the events that it is about (as in `Model.sample`;
        all if it is left out):

        - `{"weight": 3}`: such events become 3 times as likely, compared with the others;
        - `{"share": 0.9}`: they become exactly this share of all;
        - `{"set": {"Type": "CASH"}}` or `{"set": {"Type": {"CASH": 1, "DEBIT": 2}}}`: a column is given a
          value, or values with relative frequencies; what depends on it follows, all else stays;
        - `{"scale": {"Product Price": 1.2}}`: a number is multiplied; what is computed from it follows;
        - `{"delay": 2}`: so many more days of shipping, which may make the delivery late;
        - `{"rate": 3}`: so many times as many events a second, in a stream.
    profile : Profile or mapping, optional
        When they hold; by default always.
    name : str
        What a person calls it; by default what it does.

    Raises
    ------
    RequestError
        If an effect or the profile is not allowed. Columns and values are checked when a model is given.

    Notes
    -----
    However they are listed, `set` acts first, then `weight` and `share`, then `scale` and `delay`. Conditions
    look at values before `scale` and `delay`, those of `weight` and `share` after `set`. Several shares hold
    together.

    An event is changed only where it must be. Events that are too frequent are replaced at random by as many
    of those that are too rare; the others stay as they are without the scenario.

    Examples
    --------
    >>> strike = Scenario([{"delay": 4, "where": "Order Region:Caribbean"}], name="strike")
    >>> strike.to_json()["effects"]
    [{'delay': 4, 'where': ['Order Region:Caribbean']}]
    """

    effects: tuple[Effect, ...] = field()
    profile: Profile = field()
    name: str = field()

    def __init__(
        self,
        effects: Iterable[Mapping[str, Any] | Effect],
        profile: Profile | Mapping[str, Any] | None = None,
        *,
        name: str = "",
    ) -> None:
        if isinstance(effects, Mapping | str) or not isinstance(effects, Iterable):
            raise RequestError(f"the effects of a scenario must be a list, not {shown(effects)}")
        found = [
            effect
            for item in effects
            for effect in ([item] if isinstance(item, Effect) else _read_effect(item))
        ]
        if not 1 <= len(found) <= _MOST_EFFECTS:
            raise RequestError(f"a scenario has from 1 to {_MOST_EFFECTS} effects, not {len(found)}")
        if profile is None:
            profile = Profile()
        elif not isinstance(profile, Profile):
            profile = Profile.from_json(profile)
        if not isinstance(name, str) or len(name) > _MOST_LETTERS:
            raise RequestError(
                f"the name of a scenario must be a string of at most {_MOST_LETTERS} letters, "
                f"not {shown(name)}"
            )
        if not profile.constant and any(effect.kind == "rate" for effect in found):
            raise RequestError(
                "the effect rate cannot follow a profile, since the rate changes at one event of the "
                "timeline: give it a scenario of its own, without a profile"
            )
        object.__setattr__(self, "effects", tuple(found))
        object.__setattr__(self, "profile", profile)
        object.__setattr__(
            self, "name", name or shorten("; ".join(effect.words for effect in found), _MOST_LETTERS - 10)
        )

        try:
            json.dumps(self.to_json(), ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise RequestError("a scenario holds a string that is no valid Unicode") from None

    def __repr__(self) -> str:
        return f"<Scenario {self.name!r}, {self.profile.shape}>"

    @property
    def rate(self) -> float:
        """What the rate of a stream is multiplied by."""
        return math.prod(effect.amount for effect in self.effects if effect.kind == "rate")

    def to_json(self) -> dict[str, Any]:
        """Return the scenario as a JSON object, which `from_json` takes."""
        return {
            "name": self.name,
            "effects": [effect.to_json() for effect in self.effects],
            "profile": self.profile.to_json(),
        }

    @classmethod
    def from_json(cls, obj: object) -> Self:
        """Return the scenario of a JSON object; the inverse of `to_json`.

        Raises
        ------
        RequestError
            If it is not a scenario.
        """
        if isinstance(obj, str):
            raise RequestError(
                f"a scenario must be an object with effects, not the string {shorten(repr(obj))}: those that "
                f"have names are in logistream.dataco and at GET /scenarios"
            )
        if not isinstance(obj, Mapping):
            raise RequestError(
                f"a scenario must be an object with effects, such as "
                f'{{"effects": [{{"weight": 3, "where": ["Market:Europe"]}}]}}, not {shown(obj)}'
            )
        require_keys("a scenario", obj, ("effects", "profile", "name"))
        if "effects" not in obj:
            raise RequestError("a scenario needs effects, a list")
        return cls(obj["effects"], obj.get("profile"), name=obj.get("name") or "")


def read_scenarios(scenarios: Scenarios | None) -> tuple[Scenario, ...]:
    """Return scenarios that people wrote in any allowed way; none for None.

    Raises
    ------
    RequestError
        If one is not a scenario, or there are more than 8.
    """
    if scenarios is None:
        return ()
    given: object = scenarios
    items = given if isinstance(given, Iterable) and not isinstance(given, str | Mapping) else (given,)
    found = tuple(s if isinstance(s, Scenario) else Scenario.from_json(s) for s in items)
    if len(found) > MOST_SCENARIOS:
        raise RequestError(f"at most {MOST_SCENARIOS} scenarios can hold at once, not {len(found)}")
    return found


def _read_effect(item: object) -> list[Effect]:
    """Return the effects that one item of a list stands for; `set` and `scale` may name several columns."""
    if not isinstance(item, Mapping):
        raise RequestError(f'an effect must be an object such as {{"weight": 3}}, not {shown(item)}')
    require_keys("an effect", item, (*_KINDS, "where"))
    kinds = [kind for kind in _KINDS if kind in item]
    if len(kinds) != 1:
        given = " and ".join(kinds) or "none"
        raise RequestError(f"an effect needs exactly one of {either(_KINDS)}, not {given}")
    [kind] = kinds
    if "where" in item and kind in _WITHOUT_WHERE:
        raise RequestError(
            "the effect rate takes no where: for more events of one kind use weight, or weight beside rate"
        )
    asked = item.get("where")
    where = write_conditions(() if asked is None else asked)
    if kind in ("weight", "share") and not where:
        raise RequestError(f"the effect {kind} needs where: which events are meant")
    if kind == "set":
        return [
            Effect("set", column=column, values=_read_values(column, given), where=where)
            for column, given in _read_columns("set", item[kind])
        ]
    if kind == "scale":
        return [
            Effect("scale", _read_amount("scale", given), column, where=where)
            for column, given in _read_columns("scale", item[kind])
        ]
    return [Effect(kind, _read_amount(kind, item[kind]), where=where)]


def _read_columns(kind: str, given: object) -> list[tuple[str, Any]]:
    if not isinstance(given, Mapping) or not given or not all(isinstance(name, str) for name in given):
        example = '{"Type": "CASH"}' if kind == "set" else '{"Product Price": 1.2}'
        raise RequestError(f"the effect {kind} needs columns, as in {example}, not {shown(given)}")
    return list(given.items())


def _read_values(column: str, given: object) -> tuple[tuple[Any, float], ...]:
    """Return values with their relative frequencies."""
    if not isinstance(given, Mapping):
        if isinstance(given, list | tuple | set):
            raise RequestError(
                f"{column!r} is set to a value, or to values with relative frequencies as in "
                f'{{"CASH": 1, "DEBIT": 2}}, not to {shown(given)}'
            )
        return ((_without_nan(given), 1.0),)
    if not 1 <= len(given) <= _MOST_VALUES:
        raise RequestError(f"{column!r} is set to from 1 to {_MOST_VALUES} values, not {len(given)}")
    for value, share in given.items():
        if not is_number(share) or not 0 <= float(share) <= _LARGEST_FACTOR:
            raise RequestError(
                f"the relative frequency of {value!r} in {column!r} must be a number from 0 to "
                f"{_LARGEST_FACTOR:,.0f}, not {shown(share)}"
            )
    values = tuple((_without_nan(value), float(share)) for value, share in given.items() if share)
    if not values:
        raise RequestError(f"of the values of {column!r} at least one needs a frequency greater than 0")
    return values


def _without_nan(value: Any) -> Any:  # noqa: ANN401 - as users write it
    return None if isinstance(value, float) and math.isnan(value) else value


def _read_amount(kind: Kind, given: Any) -> float:  # noqa: ANN401 - as users write it
    """Return the number of an effect."""
    expected = {
        "weight": (0, _LARGEST_FACTOR, "a number from 0 to 1,000,000"),
        "share": (0, 1, "a number from 0 to 1"),
        "scale": (-_LARGEST_FACTOR, _LARGEST_FACTOR, "a number from -1,000,000 to 1,000,000"),
        "delay": (1, _MOST_DAYS, f"a whole number of days from 1 to {_MOST_DAYS}"),
        "rate": (_LEAST_RATE, _LARGEST_FACTOR, "a number from 0.000001 to 1,000,000"),
        "set": (0, 0, ""),
    }
    low, high, words = expected[kind]
    if not is_number(given) or not low <= float(given) <= high:
        raise RequestError(f"the effect {kind} needs {words}, not {shown(given)}")
    amount = float(given)
    if kind == "delay" and amount != int(amount):
        raise RequestError(f"the effect delay needs {words}, not {shown(given)}")
    return amount


def json_schema(network: Network | None = None) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of one scenario; with a model, of its columns only."""
    number = {"type": "number"}
    name: dict[str, Any] = {"type": "string"}
    numeric: dict[str, Any] = {"type": "string"}
    if network is not None:
        name = {"enum": list(network.schema.names)}
        numeric = {"enum": [c.name for c in network.schema if c.kind in ("integer", "number")]}
    where = {
        "description": "conditions such as Market:Europe or Sales>=100, all of which must hold",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}],
    }
    value = {"type": ["string", "number", "boolean", "null"]}
    frequencies = {
        "type": "object",
        "minProperties": 1,
        "maxProperties": _MOST_VALUES,
        "additionalProperties": {"type": "number", "minimum": 0, "maximum": _LARGEST_FACTOR},
    }
    amounts: dict[str, dict[str, Any]] = {
        "weight": {
            "description": "such events become so many times as likely, compared with the others",
            **number,
            "minimum": 0,
            "maximum": _LARGEST_FACTOR,
        },
        "share": {"description": "they become this share of all", **number, "minimum": 0, "maximum": 1},
        "set": {
            "description": "columns are given a value, or values with relative frequencies",
            "type": "object",
            "minProperties": 1,
            "propertyNames": name,
            "additionalProperties": {"anyOf": [value, frequencies]},
        },
        "scale": {
            "description": "numbers are multiplied, and what is computed from them follows",
            "type": "object",
            "minProperties": 1,
            "propertyNames": numeric,
            "additionalProperties": {**number, "minimum": -_LARGEST_FACTOR, "maximum": _LARGEST_FACTOR},
        },
        "delay": {
            "description": "more days of shipping",
            "type": "integer",
            "minimum": 1,
            "maximum": _MOST_DAYS,
        },
        "rate": {
            "description": "so many times as many events a second",
            **number,
            "minimum": _LEAST_RATE,
            "maximum": _LARGEST_FACTOR,
        },
    }
    effects = [
        {
            "type": "object",
            "properties": {kind: amount} | ({} if kind in _WITHOUT_WHERE else {"where": where}),
            "required": [kind, "where"] if kind in ("weight", "share") else [kind],
            "additionalProperties": False,
        }
        for kind, amount in amounts.items()
    ]
    position = {"type": "number", "minimum": 0, "maximum": _LARGEST_POSITION}
    length = {"type": "number", "exclusiveMinimum": 0, "maximum": _LARGEST_POSITION}
    profiles = [
        {
            "type": "object",
            "properties": {
                "shape": {"const": shape},
                "unit": {"enum": ["events", "seconds"]},
                **{n: length if n in ("width", "period") else position for n in (*required, *optional)},
            },
            "required": ["shape", *required] if shape != "abrupt" else [],
            "additionalProperties": False,
        }
        for shape, (required, optional) in _SHAPES.items()
    ]
    return {
        "title": "Scenario",
        "description": "what if: effects on the model, and a profile that says when they hold",
        "type": "object",
        "properties": {
            "name": {"type": "string", "maxLength": _MOST_LETTERS},
            "effects": {
                "type": "array",
                "minItems": 1,
                "maxItems": _MOST_EFFECTS,
                "items": {"anyOf": effects},
            },
            "profile": {"anyOf": [*profiles, {"type": "null"}]},
        },
        "required": ["effects"],
        "additionalProperties": False,
    }


def require_keys(what: str, obj: Mapping[Any, Any], known: Iterable[str]) -> None:
    """Raise if an object has an unknown key, naming the nearest known one."""
    known = tuple(known)
    for key in obj:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"it has {', '.join(known)}"
            raise RequestError(f"{what} has no {shown(key)}: {hint}")


def either(names: Iterable[str], last: str = "or") -> str:
    """Return names as a list in words."""
    *first, end = names
    return f"{', '.join(first)} {last} {end}" if first else end


def is_number(value: Any) -> bool:  # noqa: ANN401 - as users write it
    """Return whether a value is a finite number."""
    if not isinstance(value, Real) or value is True or value is False:
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def whole(value: float) -> float | int:
    """Return a number as an int if it is whole."""
    return int(value) if value == int(value) else value


def _plain(value: Any) -> Any:  # noqa: ANN401 - as users write it
    """Return a value as JSON has it."""
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, np.generic):
        return value.item()
    return string_of(value) if hasattr(value, "astimezone") else str(value)


def _key(value: Any) -> str:  # noqa: ANN401 - as users write it
    """Return a value as the key of a JSON object, the empty string for a missing one."""
    plain = _plain(value)
    return plain if isinstance(plain, str) else string_of(plain)


def shown(value: object) -> str:
    """Return a value for a message."""
    try:
        return shorten(json.dumps(value, default=repr))
    except (TypeError, ValueError):
        return shorten(repr(value))

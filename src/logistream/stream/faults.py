"""Faults of the wire: what goes wrong with the delivery of events, as people write it.

This module holds the form of a fault: how it is written, checked and kept as JSON. What it does to the
deliveries of a stream is in `logistream.stream.deliveries`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, get_args

from logistream.errors import RequestError, listed
from logistream.model.conditions import write_conditions
from logistream.model.scenario import either, is_number, require_keys, shown, whole
from logistream.stream.query import parse_conditions

if TYPE_CHECKING:
    from logistream.model.model import Model

__all__ = ["MOST_FAULTS", "REACH", "CorruptionKind", "Fault", "Faults", "json_schema", "read_faults"]


FaultKind = Literal["late", "reorder", "duplicate", "drop", "corrupt"]

CorruptionKind = Literal["null", "type", "missing", "extra", "cut"]
"""A value is null, or of a wrong type; a key is missing, or one too many; the text of an event ends early."""

Unit = Literal["events", "seconds"]

Faults: TypeAlias = "Fault | Mapping[str, Any] | Iterable[Fault | Mapping[str, Any]]"
"""One or several faults as people write them."""

MOST_FAULTS = 16

REACH = 100_000
"""Slots after its own in which an event can still be delivered; part of what a fault means."""

_MOST_SECONDS = 3600
_LEAST_SECONDS = 0.000001
_MOST_COPIES = 10
_KINDS: tuple[FaultKind, ...] = get_args(FaultKind)
_CORRUPTIONS: tuple[CorruptionKind, ...] = get_args(CorruptionKind)
_UNITS: tuple[Unit, ...] = get_args(Unit)
_WITHOUT_COLUMN = ("extra", "cut")
_EXAMPLE = '{"late": {"events": [1, 500]}, "share": 0.05}'


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of the wire; `Fault.from_json` makes and checks it.

    Attributes
    ----------
    kind : {"late", "reorder", "duplicate", "drop", "corrupt"}
        What happens to a delivery; see `from_json`.
    share : float
        The share of the events to which it happens, greater than 0 and at most 1.
    where : tuple of str
        The conditions of the events that are meant; empty for all.
    unit : {"events", "seconds"}
        Of a delay.
    low, high : float
        A delay lies between both, in `unit`.
    copies : int
        How many duplicates are delivered; 0 for other kinds.
    corruption : {"", "null", "type", "missing", "extra", "cut"}
        What is corrupted; empty for other kinds.
    column : str
        Which column is corrupted; empty if it is drawn for each delivery.
    """

    kind: FaultKind
    share: float
    where: tuple[str, ...] = ()
    unit: Unit = "events"
    low: float = 0.0
    high: float = 0.0
    copies: int = 0
    corruption: CorruptionKind | Literal[""] = ""
    column: str = ""

    @property
    def words(self) -> str:
        """What it does, in a few words."""
        low, high = whole(self.low), whole(self.high)
        delay = f"{low}" if low == high else f"{low} to {high}"
        what = {
            "late": f"late by {delay} {self.unit}",
            "reorder": f"reorder within {high}",
            "duplicate": f"duplicate x {self.copies} after {delay} {self.unit}",
            "drop": "drop",
            "corrupt": " ".join(filter(None, ("corrupt", self.corruption, self.column))),
        }[self.kind]
        where = f" where {' and '.join(self.where)}" if self.where else ""
        return f"{what}, share {self.share:g}{where}"

    def to_json(self) -> dict[str, Any]:
        """Return the fault as a JSON object, which `from_json` takes."""
        low, high = whole(self.low), whole(self.high)
        delay: dict[str, Any] = {self.unit: low if low == high else [low, high]}
        written: dict[str, Any] = {
            "late": delay,
            "reorder": {"within": high},
            "duplicate": {"copies": self.copies, **delay},
            "drop": True,
            "corrupt": self.corruption,
        }
        found: dict[str, Any] = {self.kind: written[self.kind]}
        if self.column:
            found["column"] = self.column
        found["share"] = self.share
        if self.where:
            found["where"] = list(self.where)
        return found

    @classmethod
    def from_json(cls, obj: object) -> Self:
        """Return the fault of a JSON object; the inverse of `to_json`.

        Parameters
        ----------
        obj : mapping
            With `share`, with `where` for the events that are meant (as in `Model.sample`; all if it is left
            out), and with one of these:

            - `{"late": {"events": [1, 500]}}` or `{"late": {"seconds": [1, 30]}}`: the event is delivered so
              much later; a single number is a constant delay. No event is late by more than 100,000 events;
            - `{"reorder": {"within": 50}}`: it is held back by 1 to 50 events;
            - `{"duplicate": {"copies": 1, "events": [0, 100]}}`: copies of it are delivered so much after it
              (in `seconds` as well; by default one copy, right after it);
            - `{"drop": true}`: it is never delivered;
            - `{"corrupt": "null"}`, or `"type"`, `"missing"`, `"extra"`, `"cut"`: a value is null or of a
              wrong type, a key is missing or one too many, or the text ends early; `column` names the column,
              which is drawn for each delivery if it is left out.

        Raises
        ------
        RequestError
            If it is not a fault.

        Examples
        --------
        >>> Fault.from_json({"late": {"events": [1, 500]}, "share": 0.05}).words
        'late by 1 to 500 events, share 0.05'
        """
        if not isinstance(obj, Mapping):
            raise RequestError(f"a fault must be an object such as {_EXAMPLE}, not {shown(obj)}")
        require_keys("a fault", obj, (*_KINDS, "share", "where", "column"))
        kinds = [kind for kind in _KINDS if kind in obj]
        if len(kinds) != 1:
            raise RequestError(
                f"a fault needs exactly one of {either(_KINDS)}, not {' and '.join(kinds) or 'none'}"
            )
        [kind] = kinds
        share: Any = obj.get("share")
        if not is_number(share) or not 0 < float(share) <= 1:
            raise RequestError(
                f"share of a fault must be a number greater than 0 and at most 1, not {shown(share)}"
            )
        asked = obj.get("where")
        fault = cls(
            kind,
            float(share),
            write_conditions(() if asked is None else asked),
            **_read_kind(kind, obj[kind]),
            **_read_column(kind, obj[kind], obj.get("column")),
        )
        try:
            json.dumps(fault.to_json(), ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise RequestError("a fault holds a string that is no valid Unicode") from None
        return fault


def read_faults(faults: Faults | None, model: Model | None = None) -> tuple[Fault, ...]:
    """Return faults that people wrote in any allowed way; none for None.

    Parameters
    ----------
    faults : Fault, mapping, or iterable of these, or None
        The faults, in the order in which they act.
    model : Model, optional
        Whose events are meant: columns and values are checked against it.

    Raises
    ------
    RequestError
        If one is not a fault, there are more than 16, or they make more than 10 copies of an event.
    """
    if faults is None:
        return ()
    given: object = faults
    items = given if isinstance(given, Iterable) and not isinstance(given, str | Mapping) else (given,)
    found = tuple(Fault.from_json(f.to_json() if isinstance(f, Fault) else f) for f in items)
    if len(found) > MOST_FAULTS:
        raise RequestError(f"at most {MOST_FAULTS} faults can hold at once, not {len(found)}")
    copies = sum(fault.copies for fault in found)
    if copies > _MOST_COPIES:
        raise RequestError(
            f"all faults together make at most {_MOST_COPIES} copies of an event, not {copies}"
        )
    if model is not None:
        for fault in found:
            parse_conditions(list(fault.where), model)
            if fault.column and fault.column not in model.full_schema:
                raise RequestError(
                    f"a fault cannot corrupt {shown(fault.column)}, which is no column: there are "
                    f"{listed(model.full_schema.names, fault.column)}"
                )
    return found


def _read_kind(kind: FaultKind, given: Any) -> dict[str, Any]:  # noqa: ANN401 - as users write it
    """Return the attributes that follow from what is given for a kind."""
    if kind == "drop":
        if given is not True:
            raise RequestError(f'the fault drop is written {{"drop": true}}, not {shown(given)}')
        return {}
    if kind == "corrupt":
        if given not in _CORRUPTIONS:
            raise RequestError(f"the fault corrupt needs {either(_CORRUPTIONS)}, not {shown(given)}")
        return {"corruption": given}
    if not isinstance(given, Mapping):
        example = {"reorder": '{"within": 50}'}.get(kind, '{"events": [1, 500]}')
        raise RequestError(f"the fault {kind} needs an object such as {example}, not {shown(given)}")
    if kind == "reorder":
        require_keys("the fault reorder", given, ("within",))
        return {"low": 1.0, "high": _read_events("within of the fault reorder", given.get("within"), 1)}
    if kind == "late":
        require_keys("the fault late", given, _UNITS)
        return _read_delay("late", given)
    require_keys("the fault duplicate", given, ("copies", *_UNITS))
    copies = given.get("copies", 1)
    if not is_number(copies) or copies != int(copies) or not 1 <= copies <= _MOST_COPIES:
        raise RequestError(
            f"copies of the fault duplicate must be a whole number from 1 to {_MOST_COPIES}, "
            f"not {shown(copies)}"
        )
    return {"copies": int(copies), **_read_delay("duplicate", given)}


def _read_delay(kind: FaultKind, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return unit and bounds of a delay."""
    units = [unit for unit in _UNITS if unit in given]
    if not units and kind == "duplicate":
        return {}
    if len(units) != 1:
        raise RequestError(f"the fault {kind} needs events or seconds, and not both")
    [unit] = units
    asked = given[unit]
    ends = asked if isinstance(asked, list | tuple) else [asked, asked]
    what = f"{unit} of the fault {kind}"
    if len(ends) != 2:
        raise RequestError(f"{what} must be one number, or a list of two, not {shown(asked)}")
    least = 0 if kind == "duplicate" else 1
    read = _read_events if unit == "events" else _read_seconds
    low, high = (read(what, end, least) for end in ends)
    if low > high:
        raise RequestError(f"{what} must be a list of two numbers in order, not {shown(asked)}")
    return {"unit": unit, "low": low, "high": high}


def _read_events(what: str, given: Any, least: int) -> float:  # noqa: ANN401 - as users write it
    if not is_number(given) or given != int(given) or not least <= given <= REACH:
        raise RequestError(f"{what} must be a whole number from {least} to {REACH:,}, not {shown(given)}")
    return float(given)


def _read_seconds(what: str, given: Any, least: int) -> float:  # noqa: ANN401 - as users write it
    lowest = _LEAST_SECONDS if least else 0.0
    if not is_number(given) or not lowest <= given <= _MOST_SECONDS:
        raise RequestError(
            f"{what} must be a number from {f'{lowest:f}' if least else 0} to {_MOST_SECONDS:,}, "
            f"not {shown(given)}"
        )
    return float(given)


def _read_column(kind: FaultKind, given: object, column: object) -> dict[str, Any]:
    """Return the column of a fault, if it may have one."""
    if column is None:
        return {}
    if kind != "corrupt" or given in _WITHOUT_COLUMN:
        what = f"{kind} {given}" if kind == "corrupt" else kind
        raise RequestError(f"the fault {what} takes no column: only null, type and missing do")
    if not isinstance(column, str) or not column:
        raise RequestError(f"column of a fault must be the name of a column, not {shown(column)}")
    return {"column": column}


def json_schema(model: Model | None = None) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of one fault; with a model, of its columns only."""
    name: dict[str, Any] = {"type": "string", "minLength": 1}
    if model is not None:
        name = {"enum": list(model.full_schema.names)}
    share = {
        "description": "of the events to which it happens",
        "type": "number",
        "exclusiveMinimum": 0,
        "maximum": 1,
    }
    where = {
        "description": "conditions such as Market:Europe or Sales>=100, all of which must hold",
        "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}, {"type": "object"}],
    }

    def delay(least: int) -> dict[str, Any]:
        events = {"type": "integer", "minimum": least, "maximum": REACH}
        seconds = {
            "type": "number",
            "minimum": _LEAST_SECONDS if least else 0,
            "maximum": _MOST_SECONDS,
        }
        return {
            unit: {"anyOf": [number, {"type": "array", "items": number, "minItems": 2, "maxItems": 2}]}
            for unit, number in (("events", events), ("seconds", seconds))
        }

    def options(properties: dict[str, Any], description: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401
        return {
            "description": description,
            "type": "object",
            "properties": properties,
            "additionalProperties": False,
            **more,
        }

    within = {"type": "integer", "minimum": 1, "maximum": REACH}
    copies = {"type": "integer", "minimum": 1, "maximum": _MOST_COPIES}
    kinds: dict[str, dict[str, Any]] = {
        "late": options(delay(1), "the event is delivered so much later", minProperties=1, maxProperties=1),
        "reorder": options({"within": within}, "it is held back by 1 to so many events", required=["within"]),
        "duplicate": options(
            {"copies": copies, **delay(0)},
            "copies of it are delivered so much later",
            **{"not": {"required": list(_UNITS)}},
        ),
        "drop": {"description": "it is never delivered", "const": True},
        "corrupt": {"description": "what is delivered is damaged", "enum": list(_CORRUPTIONS)},
    }
    forms = [
        {
            "type": "object",
            "properties": {kind: form, "share": share, "where": where},
            "required": [kind, "share"],
            "additionalProperties": False,
        }
        for kind, form in kinds.items()
    ]
    damaged = [c for c in _CORRUPTIONS if c not in _WITHOUT_COLUMN]
    forms.append(
        {
            "type": "object",
            "properties": {"corrupt": {"enum": damaged}, "column": name, "share": share, "where": where},
            "required": ["corrupt", "column", "share"],
            "additionalProperties": False,
        }
    )
    return {"title": "Fault", "description": "what goes wrong with deliveries", "anyOf": forms}

"""What the menus of scenarios and faults offer: name, description, value and whether it is in force."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from logistream.stream.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Iterable

    from logistream.model.scenario import Scenario
    from logistream.widgets.control import Settings

__all__ = ["fault_choices", "fault_names", "scenario_choices", "toggled"]


_READY = {
    Fault.from_json(written): text
    for written, text in (
        ({"late": {"events": [1, 500]}, "share": 0.05}, "One event in 20 arrives up to 500 events late."),
        (
            {"duplicate": {"copies": 1, "events": [0, 100]}, "share": 0.02},
            "One in 50 arrives again, up to 100 events later.",
        ),
        ({"drop": True, "share": 0.01}, "One in 100 never arrives."),
        ({"corrupt": "null", "share": 0.01}, "One in 100 arrives with a value that is null."),
    )
}
"""Faults to choose from, and what they do."""

_NOUNS = {
    "late": "late",
    "reorder": "out of order",
    "duplicate": "duplicates",
    "drop": "drops",
    "corrupt": "corrupted",
}


def scenario_choices(
    known: Iterable[tuple[Scenario, str]], settings: Settings | None
) -> list[dict[str, Any]]:
    """Return the scenarios to choose from: the named ones of the server, and what else is in force.

    Each has a `name`, a `text` that describes what it does, a `value` that sets it (a list of scenarios in
    JSON form) and `on`: whether it is in force.
    """
    if settings is None:
        return []
    current = settings.scenarios
    offered: list[tuple[tuple[Scenario, ...], str]]
    offered = [((scenario,), sentence) for scenario, sentence in known]
    if current and current not in [scenarios for scenarios, _ in offered]:
        words = "; ".join(effect.words for scenario in current for effect in scenario.effects)
        offered.append((current, words))
    return [
        {
            "name": "; ".join(scenario.name for scenario in scenarios),
            "text": text,
            "value": [scenario.to_json() for scenario in scenarios],
            "on": scenarios == current,
        }
        for scenarios, text in offered
    ]


def fault_choices(settings: Settings | None) -> list[dict[str, Any]]:
    """Return the faults of the wire to choose from: some usual ones, and what else is in force.

    As for scenarios, but several can be in force: the `value` is one fault in JSON form, for `toggled`.
    """
    if settings is None or settings.faults is None:
        return []
    current = settings.faults
    return [
        {
            "name": _name(fault),
            "text": _READY.get(fault, fault.words),
            "value": fault.to_json(),
            "on": fault in current,
        }
        for fault in dict.fromkeys([*_READY, *current])
    ]


def toggled(current: Iterable[Fault], chosen: Iterable[Fault]) -> list[Fault]:
    """Return the faults in force without those chosen that are among them, and with those that are not."""
    current, chosen = list(current), list(chosen)
    kept = [fault for fault in current if fault not in chosen]
    return kept + [fault for fault in chosen if fault not in current]


def fault_names(faults: Iterable[Fault]) -> str:
    """Return the names of faults, separated by commas."""
    return ", ".join(map(_name, faults))


def _name(fault: Fault) -> str:
    return f"{_NOUNS[fault.kind]} {100 * fault.share:g} %"

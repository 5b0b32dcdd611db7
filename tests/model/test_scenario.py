"""How a scenario is written, checked and kept."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import numpy as np
import pytest

import logistream as ls
from logistream import dataco
from logistream.errors import RequestError
from logistream.model.model import Model
from logistream.model.scenario import Profile, Scenario, json_schema, read_scenarios

EVERY_EFFECT: list[dict[str, Any]] = [
    {"weight": 3.0, "where": ["Market:Europe", "Type:CASH"]},
    {"share": 0.9, "where": ["Late_delivery_risk:1"]},
    {"set": {"Type": "CASH"}, "where": ["Market:Europe"]},
    {"set": {"Type": {"CASH": 1.0, "DEBIT": 2.0}}},
    {"scale": {"Product Price": 1.5}},
    {"delay": 2, "where": ["Order Region:Caribbean"]},
    {"rate": 2.0},
    {"weight": 2.0, "where": [f"Product Category Id:{i}" for i in range(2, 50)]},
]
PROFILES: list[dict[str, Any]] = [
    {"shape": "abrupt", "unit": "events", "at": 100},
    {"shape": "ramp", "unit": "seconds", "position": 60, "width": 30.5},
    {"shape": "recurring", "unit": "events", "period": 100, "length": 25, "at": 10},
]
NAMED = [
    dataco.peak_season(),
    dataco.port_strike(),
    dataco.port_strike("Caribbean", profile=PROFILES[1]),
    dataco.carrier_outage("Same Day"),
    dataco.fraud_wave(profile=PROFILES[2]),
    dataco.price_shock(9),
]


@pytest.mark.parametrize("effect", EVERY_EFFECT, ids=str)
def test_json_gives_the_same_scenario(effect: dict[str, Any]) -> None:
    """What `to_json` gives can be written, read, and makes an equal scenario; the effect is as it was."""
    scenario = Scenario([effect], name="what if")
    written = json.loads(json.dumps(scenario.to_json()))
    assert Scenario.from_json(written) == scenario
    assert written["effects"] == [effect]


@pytest.mark.parametrize("profile", PROFILES, ids=lambda p: p["shape"])
def test_json_gives_the_same_profile(profile: dict[str, Any]) -> None:
    """Also of a profile."""
    scenario = Scenario([{"weight": 2, "where": "Market:Europe"}], profile)
    assert scenario.to_json()["profile"] == profile
    assert Scenario.from_json(scenario.to_json()) == scenario


@pytest.mark.parametrize("form", [*NAMED, *({"effects": [effect]} for effect in EVERY_EFFECT)], ids=str)
def test_the_json_schema_allows_what_is_allowed(model: Model, form: dict[str, Any]) -> None:
    """What a person writes, and what `to_json` gives, with or without a model."""
    for schema in (json_schema(), json_schema(model)):
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.validate(form, schema)
        jsonschema.validate(Scenario.from_json(form).to_json(), schema)


WRONG: list[tuple[Any, str]] = [
    ({}, "a scenario needs effects, a list"),
    ({"effects": []}, "a scenario has from 1 to 16 effects, not 0"),
    ({"efects": []}, "a scenario has no \"efects\": did you mean 'effects'?"),
    (
        "peak",
        "a scenario must be an object with effects, not the string 'peak': those that have names are in "
        "logistream.dataco and at GET /scenarios",
    ),
    (dataco.port_strike(profile="ramp"), "a profile must be an object such as {"),  # type: ignore[arg-type]
    (3, 'a scenario must be an object with effects, such as {"effects": [{"weight": 3, "where": ["'),
    ({"effects": {"weight": 2}}, 'the effects of a scenario must be a list, not {"weight": 2}'),
    ({"effects": [{"wieght": 2}]}, "an effect has no \"wieght\": did you mean 'weight'?"),
    (
        {"effects": [{"where": "Market:Europe"}]},
        "an effect needs exactly one of weight, share, set, scale, delay or rate, not none",
    ),
    (
        {"effects": [{"weight": 2, "rate": 2}]},
        "an effect needs exactly one of weight, share, set, scale, delay or rate, not weight and rate",
    ),
    ({"effects": [{"weight": 2}]}, "the effect weight needs where: which events are meant"),
    (
        {"effects": [{"weight": "much", "where": "Market:Europe"}]},
        'the effect weight needs a number from 0 to 1,000,000, not "much"',
    ),
    (
        {"effects": [{"share": 1.5, "where": "Market:Europe"}]},
        "the effect share needs a number from 0 to 1, not 1.5",
    ),
    ({"effects": [{"share": True, "where": "Market:Europe"}]}, "the effect share needs a number from 0 to 1"),
    ({"effects": [{"weight": -1, "where": "Market:Europe"}]}, "the effect weight needs a number from 0"),
    ({"effects": [{"delay": 1.5}]}, "the effect delay needs a whole number of days from 1 to 3650, not 1.5"),
    ({"effects": [{"set": "CASH"}]}, 'the effect set needs columns, as in {"Type": "CASH"}, not "CASH"'),
    ({"effects": [{"set": {"Type": ["CASH"]}}]}, "'Type' is set to a value, or to values with relative"),
    ({"effects": [{"set": {"Type": {"CASH": 0}}}]}, "of the values of 'Type' at least one needs a frequency"),
    ({"effects": [{"rate": 1e-7}]}, "the effect rate needs a number from 0.000001 to 1,000,000, not 1e-07"),
    ({"effects": [{"rate": 2, "where": "Market:Europe"}]}, "the effect rate takes no where: for more events"),
    (
        {"effects": [{"rate": 2}], "profile": {"shape": "abrupt", "at": 5}},
        "the effect rate cannot follow a profile, since the rate changes at one event of the timeline: ",
    ),
    (
        {"effects": [{"delay": 1}], "profile": {"shape": "sudden"}},
        'the shape of a profile must be abrupt, ramp or recurring, not "sudden"',
    ),
    (
        {"effects": [{"delay": 1}], "profile": {"shape": "ramp", "position": 3}},
        "width of a profile must be a number of events, greater than 0, not null",
    ),
    (
        {"effects": [{"delay": 1}], "profile": {"shape": "ramp", "position": 3, "width": 0}},
        "width of a profile must be greater than 0",
    ),
    (
        {"effects": [{"delay": 1}], "profile": {"shape": "abrupt", "width": 4}},
        "a profile of shape abrupt has no width: it has at",
    ),
    (
        {"effects": [{"delay": 1}], "profile": {"shape": "recurring", "period": 3, "length": 4}},
        "length of a recurring profile must be at most its period, 3, not 4",
    ),
    (
        {"effects": [{"delay": 1}], "profile": {"unit": "minutes"}},
        'the unit of a profile must be events or seconds, not "minutes"',
    ),
    ({"effects": [{"delay": 1}], "profile": {"shpe": 1}}, "a profile has no \"shpe\": did you mean 'shape'?"),
    ([{"effects": [{"delay": 1}]}] * 9, "at most 8 scenarios can hold at once, not 9"),
]


@pytest.mark.parametrize(("form", "message"), WRONG, ids=[message for _, message in WRONG])
def test_what_is_not_a_scenario_is_refused(form: Any, message: str) -> None:
    """In one sentence: what was expected and what came."""
    with pytest.raises(RequestError) as refused:
        read_scenarios(form)
    assert str(refused.value).startswith(message)
    assert "\n" not in str(refused.value)


def test_the_json_schema_refuses_what_is_refused(model: Model) -> None:
    """As far as a schema can: all of the above that is an object, and columns that the model lacks."""
    valid = jsonschema.Draft202012Validator(json_schema(model))
    beyond = ("length of a", "the effect rate cannot follow", "of the values of")  # compare two numbers
    refused = [form for form, message in WRONG if isinstance(form, dict) and not message.startswith(beyond)]
    refused += [{"effects": [{"set": {"Tipe": "CASH"}}]}, {"effects": [{"scale": {"Market": 2}}]}]
    assert [form for form in refused if valid.is_valid(form)] == []


def test_a_profile_gives_the_strength_of_each_event() -> None:
    """In a straight line around the position of a ramp; in turns for a recurring one."""
    passed = np.arange(6)
    assert Profile().strength(passed).tolist() == [1, 1, 1, 1, 1, 1]
    assert Profile(at=2).strength(passed).tolist() == [0, 0, 1, 1, 1, 1]
    ramp = Profile("ramp", position=2, width=4)
    assert ramp.strength(passed).tolist() == [0, 0.25, 0.5, 0.75, 1, 1]
    recurring = Profile("recurring", period=3, length=1, at=1)
    assert recurring.strength(passed).tolist() == [0, 1, 0, 0, 1, 0]


def test_a_scenario_has_a_name() -> None:
    """The one given, or what it does."""
    assert Scenario([{"delay": 1}], name="strike").name == "strike"
    unnamed = ls.Scenario([{"weight": 3, "where": {"Market": "Europe"}}, {"scale": {"Sales": 1.5}}])
    assert unnamed.name == "weight 3 where Market:Europe; Sales x 1.5"
    assert repr(unnamed) == "<Scenario 'weight 3 where Market:Europe; Sales x 1.5', abrupt>"

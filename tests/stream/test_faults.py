"""Faults of the wire as people write them: what is read, kept, described and refused."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.clocks import NOW, Clock
from logistream.errors import DataError, RequestError, shorten
from logistream.model.model import Model
from logistream.stream.faults import Fault, json_schema, read_faults
from logistream.stream.stream import Stream
from logistream.stream.timeline import Entry, Timeline, first_entry

LATE = {"late": {"events": [1, 500]}, "share": 0.05}


def delays(least: float) -> st.SearchStrategy[dict[str, Any]]:
    """Return delays as people write them."""
    events = st.integers(int(least), 100_000)
    seconds = st.floats(0.000001 if least else 0, 3600) | st.integers(1, 3600)

    def written(unit: str, amount: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
        return (amount | st.lists(amount, min_size=2, max_size=2).map(sorted)).map(
            lambda given: {unit: given}
        )

    return written("events", events) | written("seconds", seconds)


forms = st.one_of(
    st.fixed_dictionaries({"late": delays(1)}),
    st.fixed_dictionaries({"reorder": st.fixed_dictionaries({"within": st.integers(1, 100_000)})}),
    st.fixed_dictionaries(
        {
            "duplicate": st.builds(
                lambda copies, delay: copies | delay,
                st.just({}) | st.integers(1, 10).map(lambda n: {"copies": n}),
                st.just({}) | delays(0),
            )
        }
    ),
    st.just({"drop": True}),
    st.fixed_dictionaries({"corrupt": st.sampled_from(["null", "type", "missing", "extra", "cut"])}),
    st.fixed_dictionaries(
        {"corrupt": st.sampled_from(["null", "type", "missing"]), "column": st.just("Sales")}
    ),
)
faults = st.builds(
    lambda form, share, where: form | {"share": share} | where,
    forms,
    st.floats(0, 1, exclude_min=True) | st.just(1),
    st.just({})
    | st.sampled_from([{"Market": "Europe"}, "Sales>=100", ["Type:CASH", "Market:LATAM"]]).map(
        lambda where: {"where": where}
    ),
)


@given(faults)
def test_what_a_fault_writes_it_reads(form: dict[str, Any]) -> None:
    """Through JSON, and the published schema allows both what people write and what is kept."""
    fault = Fault.from_json(form)
    kept = json.loads(json.dumps(fault.to_json()))
    assert Fault.from_json(kept) == fault
    validator = jsonschema.Draft202012Validator(json_schema())
    validator.validate(form)
    validator.validate(kept)
    assert fault.words


def test_the_schema_names_the_columns_of_a_model(model: Model) -> None:
    """And is valid itself."""
    schema = json_schema(model)
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    assert validator.is_valid({"corrupt": "null", "column": "Department Id", "share": 1})
    assert not validator.is_valid({"corrupt": "null", "column": "Sale", "share": 1})


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (5, 'a fault must be an object such as {"late": {"events": [1, 500]}, "share": 0.05}, not 5'),
        ({"lat": 1, "share": 1}, "a fault has no \"lat\": did you mean 'late'?"),
        ({"share": 1}, "a fault needs exactly one of late, reorder, duplicate, drop or corrupt, not none"),
        (
            LATE | {"drop": True},
            "a fault needs exactly one of late, reorder, duplicate, drop or corrupt, not late and drop",
        ),
        ({"drop": True}, "share of a fault must be a number greater than 0 and at most 1, not null"),
        ({"drop": True, "share": 0}, "share of a fault must be a number greater than 0 and at most 1, not 0"),
        ({"drop": True, "share": 2}, "share of a fault must be a number greater than 0 and at most 1, not 2"),
        ({"drop": 1, "share": 1}, 'the fault drop is written {"drop": true}, not 1'),
        (
            {"late": 5, "share": 1},
            'the fault late needs an object such as {"events": [1, 500]}, not 5',
        ),
        ({"late": {"event": 5}, "share": 1}, "the fault late has no \"event\": did you mean 'events'?"),
        ({"late": {}, "share": 1}, "the fault late needs events or seconds, and not both"),
        (
            {"late": {"events": 1, "seconds": 1}, "share": 1},
            "the fault late needs events or seconds, and not both",
        ),
        (
            {"late": {"events": 0}, "share": 1},
            "events of the fault late must be a whole number from 1 to 100,000, not 0",
        ),
        (
            {"late": {"events": [1, 100_001]}, "share": 1},
            "events of the fault late must be a whole number from 1 to 100,000, not 100001",
        ),
        (
            {"late": {"events": 1.5}, "share": 1},
            "events of the fault late must be a whole number from 1 to 100,000, not 1.5",
        ),
        (
            {"late": {"events": [5, 1]}, "share": 1},
            "events of the fault late must be a list of two numbers in order, not [5, 1]",
        ),
        (
            {"late": {"events": [1, 2, 3]}, "share": 1},
            "events of the fault late must be one number, or a list of two, not [1, 2, 3]",
        ),
        (
            {"late": {"events": 10**400}, "share": 1},
            f"events of the fault late must be a whole number from 1 to 100,000, not {shorten(str(10**400))}",
        ),
        (
            {"late": {"seconds": 1e-9}, "share": 1},
            "seconds of the fault late must be a number from 0.000001 to 3,600, not 1e-09",
        ),
        (
            {"late": {"seconds": 0}, "share": 1},
            "seconds of the fault late must be a number from 0.000001 to 3,600, not 0",
        ),
        (
            {"duplicate": {"seconds": [0, 4000]}, "share": 1},
            "seconds of the fault duplicate must be a number from 0 to 3,600, not 4000",
        ),
        (
            {"duplicate": {"copies": 11}, "share": 1},
            "copies of the fault duplicate must be a whole number from 1 to 10, not 11",
        ),
        (
            {"reorder": {"within": 0}, "share": 1},
            "within of the fault reorder must be a whole number from 1 to 100,000, not 0",
        ),
        (
            {"reorder": 50, "share": 1},
            'the fault reorder needs an object such as {"within": 50}, not 50',
        ),
        (
            {"corrupt": "nul", "share": 1},
            'the fault corrupt needs null, type, missing, extra or cut, not "nul"',
        ),
        (
            {"corrupt": "cut", "column": "Sales", "share": 1},
            "the fault corrupt cut takes no column: only null, type and missing do",
        ),
        (
            {"drop": True, "column": "Sales", "share": 1},
            "the fault drop takes no column: only null, type and missing do",
        ),
        (
            {"corrupt": "null", "column": 7, "share": 1},
            "column of a fault must be the name of a column, not 7",
        ),
        (
            {"corrupt": "null", "column": "Sale", "share": 1},
            "a fault cannot corrupt \"Sale\", which is no column: there are 'Sales',",
        ),
        (
            {"drop": True, "share": 1, "where": "Market:Europa"},
            "'Market' is never 'Europa': GET /schema lists its values",
        ),
        (
            {"drop": True, "share": 1, "where": {"Marked": "Europe"}},
            "a condition is written COLUMN:VALUE or COLUMN>=VALUE, and 'Marked:Europe' begins with no column "
            "and operator: there are 'Market',",
        ),
        (
            [{"duplicate": {"copies": 6}, "share": 0.1}] * 2,
            "all faults together make at most 10 copies of an event, not 12",
        ),
        ([LATE] * 17, "at most 16 faults can hold at once, not 17"),
    ],
)
def test_what_is_refused_is_named(model: Model, given: Any, sentence: str) -> None:
    """In one sentence that says what is expected, and nothing is changed."""
    stream = Stream(model, Timeline([first_entry(NOW)]), clock=Clock())
    with pytest.raises(RequestError) as refused:
        stream.change(rate=7, faults=given)
    assert str(refused.value).startswith(sentence), str(refused.value)
    assert len(stream.timeline.entries) == 1


def test_a_name_must_be_valid_unicode() -> None:
    """A lone surrogate could be neither kept nor sent."""
    with pytest.raises(RequestError, match=r"^a fault holds a string that is no valid Unicode$"):
        read_faults([{"corrupt": "null", "column": "\ud800", "share": 1}])


def test_a_change_of_faults_is_one_entry(model: Model) -> None:
    """The same faults again are no change, an empty list ends them, and rates leave them as they are."""
    stream = Stream(model, Timeline([first_entry(NOW)]), clock=Clock())
    entry = stream.change(faults=[LATE, {"drop": True, "share": 0.01, "where": {"Market": "Europe"}}])
    assert [fault.kind for fault in stream.faults] == ["late", "drop"]
    assert stream.change(faults=stream.faults) is entry
    assert stream.change(rate=5).faults == entry.faults
    assert stream.state["faults"] == [LATE, {"drop": True, "share": 0.01, "where": ["Market:Europe"]}]
    assert stream.change(faults=[]).faults == ()
    assert stream.change(faults=LATE).faults == (Fault.from_json(LATE),)
    assert [len(e.faults) for e in stream.timeline.entries] == [0, 2, 2, 0, 1]


def test_an_entry_without_faults_is_written_as_before() -> None:
    """So what earlier versions wrote can be read, and the identities of streams stay."""
    entry = Entry(0, NOW, NOW, 2.0)
    assert list(entry.to_json()) == ["first", "since", "start", "rate", "paused", "scenario"]
    assert Entry.from_json(entry.to_json()) == entry
    faulty = Entry(0, NOW, NOW, 2.0, faults=read_faults(LATE))
    assert faulty.to_json() == entry.to_json() | {"faults": [LATE]}
    assert Entry.from_json(faulty.to_json()) == faulty
    with pytest.raises(DataError, match=r"^a timeline entry has a value that is not allowed: share of"):
        Entry.from_json(entry.to_json() | {"faults": [{"drop": True}]})

"""What a query string requests, and how values that are not allowed are refused."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logistream.dataco import EVENT
from logistream.errors import LogistreamError, RequestError
from logistream.model.conditions import Condition
from logistream.model.model import load_model
from logistream.server.schemas import ColumnsQuery, EventsQuery, LiveQuery, NoQuery, RangeQuery
from logistream.stream.query import PARAMETERS, Timestamp

if TYPE_CHECKING:
    from logistream.stream.query import Selection

MODEL = load_model()


class AnyQuery(RangeQuery, LiveQuery):  # type: ignore[misc] # `stop` is that of a range
    """All parameters that any call takes."""


def selected(query: str, kind: type[ColumnsQuery] = AnyQuery) -> Selection:
    """Return the events and columns that a query string requests."""
    return kind.parse(parse_qsl(query, keep_blank_values=True)).selection(MODEL)


def test_a_client_knows_the_parameters_of_the_event_socket() -> None:
    """The names that it can import without pydantic are those of the query."""
    assert sorted(PARAMETERS) == sorted(LiveQuery.model_fields)


def test_nothing_asked_is_the_published_stream() -> None:
    """From now on, one JSON text an event, the 23 keys."""
    query = LiveQuery.parse([])
    assert (query.start, query.format, query.lag) == ("latest", "json", "wait")
    assert query.selection(MODEL).columns == EVENT.names
    assert query.selection(MODEL).schema(MODEL).names == EVENT.names
    assert RangeQuery.parse([]).start == "earliest"


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("0", 0),
        ("007", 7),
        (str(2**53), 2**53),
        ("earliest", "earliest"),
        ("latest", "latest"),
        ("2026-11-24T06:23:00Z", Timestamp(1_795_501_380_000_000)),
        ("2026-11-24T07:23:00.000001%2B01:00", Timestamp(1_795_501_380_000_001)),
        ("2026-11-24T07:23:00+01:00", Timestamp(1_795_501_380_000_000)),  # a plus sign that was not quoted
    ],
)
def test_where_to_start(text: str, start: object) -> None:
    """By number, by word, or by time."""
    assert EventsQuery.parse(parse_qsl(f"start={text}")).start == start


def test_columns() -> None:
    """All, or a list in the requested order; names with commas are quoted; the number stands last."""
    assert selected("columns=all").columns == MODEL.full_schema.names
    assert selected("columns=Market,Sales").columns == ("Market", "Sales")
    assert selected("columns=Market, Sales&numbered=true").columns == (
        "Market",
        "Sales",
        "event_number",
    )
    assert selected('columns="Market"').columns == ("Market",)
    assert selected("columns=event_number,Market").columns == ("Market", "event_number")
    assert selected("columns=Market&numbered=false").columns == ("Market",)


def test_conditions_on_one_column_are_alternatives() -> None:
    """And of several columns all must hold, in whatever order they come: the selection is the same."""
    one = selected("where=Market:Europe&where=Market:LATAM&where=Late_delivery_risk:1")
    other = selected("where=Late_delivery_risk:1&where=Market:Europe&where=Market:LATAM")
    assert one == other
    assert one.where == (
        Condition("Late_delivery_risk", "in", (1,)),
        Condition("Market", "in", ("Europe", "LATAM")),
    )
    assert hash(one) == hash(other)


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        (
            "strat=3",
            "unknown query parameter 'strat': there are columns, numbered, start, format, envelope, where, ",
        ),
        ("start=3&start=4", "query parameter 'start' was given 2 times: give it once"),
        ("start=-1", "start must be an event number, earliest, latest, or a time such as"),
        ("start=1.x", "start must be an event number"),
        ("start=", "start must be an event number"),
        ("start=²", "start must be an event number"),
        (f"start={2**53 + 1}", r"start must be a whole event number from 0 to 2\*\*53, not"),
        ("start=2026-13-01T00:00:00Z", "start must be an event number"),
        ("start=9999-12-31T23:59:60Z", "start must be an event number"),
        ("start=9999-12-31T23:59:59-01:00", "start must be an event number"),
        ("start=0000-01-01T00:00:00Z", "start must be an event number"),
        ("stop=newest", "stop must be an event number, earliest, latest, or a time such as"),
        ("format=xml", "format must be 'json', 'ndjson', 'arrow' or 'csv', not \"xml\""),
        ("numbered=perhaps", 'numbered must be true or false, not "perhaps"'),
        ("lag=drop", "lag must be 'wait' or 'skip', not \"drop\""),
        ("columns=", "columns must name at least one column, or be all"),
        ("columns=Price", "no column 'Price': there are Type, "),
        ("columns=Market,Market", "columns names a column twice"),
        ('columns="Market', "columns must be all or names with commas between"),
        ("where=Market", "a condition is written COLUMN:VALUE or COLUMN>=VALUE, and 'Market' begins with "),
        ("where=Market:Atlantis", "'Market' is never 'Atlantis': GET /schema lists its values"),
        ("where=Market:", "'Market' is never missing: give a value after the operator"),
        ("where=event_time:2026", "a condition on 'event_time' is not possible: begin at a time with start="),
        ("where=Sales:much", "a condition on 'Sales' needs a number, not 'much'"),
        ("where=Sales>=", "a condition on 'Sales' needs a value after >="),
        ("where=Market!=Atlantis", "'Market' is never 'Atlantis': GET /schema lists its values"),
        (
            "where=shipping date (DateOrders)<2026-01-01",
            r"a condition on 'shipping date \(DateOrders\)' is not possible, it follows the clock",
        ),
        ("&".join(["where=Market:Europe"] * 33), "at most 32 conditions can be given, not 33"),
    ],
)
def test_what_is_not_allowed_is_refused_by_name(query: str, sentence: str) -> None:
    """One sentence: what came, and what is allowed."""
    with pytest.raises(RequestError, match=f"^{sentence}"):
        selected(query)


def test_where_nothing_is_taken_nothing_is() -> None:
    """A call without parameters refuses all; a token is always understood."""
    with pytest.raises(RequestError, match=r"^unknown query parameter 'rate': there are none here$"):
        NoQuery.parse([("rate", "3")])
    NoQuery.parse([("token", "x"), ("token", "y")])


@given(
    st.lists(
        st.tuples(st.sampled_from([*AnyQuery.model_fields, "token", "x"]), st.text(max_size=40)), max_size=6
    )
)
def test_any_query_is_understood_or_refused_in_one_short_sentence(query: list[tuple[str, str]]) -> None:
    """No other error, and no refusal repeats a long text."""
    sentence = ""
    try:
        AnyQuery.parse(query).selection(MODEL)
    except LogistreamError as error:
        sentence = str(error)
    assert "\n" not in sentence
    assert len(sentence) < 1500

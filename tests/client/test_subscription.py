"""What a client requests, as the query of its address."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import numpy as np
import pandas as pd
import pytest

from logistream.client.subscription import Subscription
from logistream.errors import RequestError


def query(url: str = "localhost:1", *, start: str | None = None, **options: Any) -> list[tuple[str, str]]:
    """Return the names and values of the query for an ndjson connection."""
    subscription = Subscription.of(url, **options)
    address = subscription.address("ndjson", subscription.start if start is None else start, numbered=False)
    return parse_qsl(urlsplit(address).query, keep_blank_values=True)


def test_nothing_asked() -> None:
    """Only the format is requested, and what happened, without the faults of the wire."""
    assert query() == [("format", "ndjson"), ("faults", "false")]
    assert query("localhost:1?faults=true&placed=true") == [("format", "ndjson"), ("faults", "false")]


@pytest.mark.parametrize(
    ("start", "written"),
    [
        (0, "0"),
        (np.int64(7), "7"),
        ("earliest", "earliest"),
        (" latest ", "latest"),
        ("2026-11-24T06:23:00+01:00", "2026-11-24T06:23:00+01:00"),
        (datetime(2026, 11, 24, 6, 23), "2026-11-24T06:23:00.000000Z"),
        (datetime(2026, 11, 24, 6, 23, tzinfo=timezone(timedelta(hours=2))), "2026-11-24T04:23:00.000000Z"),
        (pd.Timestamp("2026-11-24 06:23:00.5", tz="UTC"), "2026-11-24T06:23:00.500000Z"),
    ],
)
def test_start(start: Any, written: str) -> None:
    """Numbers, words and times; a time without a zone is UTC."""
    subscription = Subscription.of("localhost:1", start=start)
    assert subscription.start == written
    assert ("start", written) in parse_qsl(
        urlsplit(subscription.address("arrow", written, numbered=True)).query
    )


def test_start_before_now() -> None:
    """A length of time after a minus sign is so long before now."""
    written = Subscription.of("localhost:1", start="-10min").start or ""
    ago = datetime.now(UTC) - datetime.fromisoformat(written)
    assert timedelta(minutes=10) <= ago < timedelta(minutes=11)


@pytest.mark.parametrize("start", [-1, 1.5, True, "", " ", [1], "-soon", pd.NaT])
def test_impossible_start_is_refused(start: Any) -> None:
    """The sentence says what is possible."""
    with pytest.raises(RequestError) as caught:
        Subscription.of("localhost:1", start=start)
    assert str(caught.value) == (
        f"start must be an event number from 0, 'earliest', 'latest', or a time such as "
        f"'2026-11-24T06:23:00Z' or '-10min', not {start!r}"
    )


@pytest.mark.parametrize(
    ("columns", "written"),
    [
        ("all", "all"),
        ("Market,Sales", "Market,Sales"),
        (["Market", "Sales"], "Market,Sales"),
        (["a, b", 'c"d'], '"a, b","c""d"'),
        (["all"], '"all"'),
        ([" a"], '" a"'),
    ],
)
def test_columns(columns: Any, written: str) -> None:
    """Names are separated by commas, and quoted where they hold one."""
    assert ("columns", written) in query(columns=columns)


@pytest.mark.parametrize("columns", [[], [1]])
def test_impossible_columns_are_refused(columns: Any) -> None:
    """Names are strings, and there is one at least."""
    with pytest.raises(RequestError, match="columns must be 'all' or a list of names, not "):
        Subscription.of("localhost:1", columns=columns)


@pytest.mark.parametrize(
    ("where", "written"),
    [
        ({"Market": "Europe"}, ["Market:Europe"]),
        ({"Market": ["Europe", "LATAM"], "n": 1}, ["Market:Europe", "Market:LATAM", "n:1"]),
        ({"a": None, "b": np.nan, "c": True, "d": np.float64(0.5)}, ["a:", "b:", "c:true", "d:0.5"]),
        ({"a": [pd.NA, pd.NaT, "nan", False]}, ["a:", "a:", "a:nan", "a:false"]),
        ({"when": datetime(2026, 1, 2, tzinfo=UTC)}, ['"when"==2026-01-02T00:00:00.000000Z']),
        ({"Sales": slice(100, 500)}, ['"Sales">=100', '"Sales"<=500']),
        (("Sales", ">=", 100), ['"Sales">=100']),
        ([("a", "not in", ["x", None]), "b<3"], ['"a"!=x', '"a"!=', "b<3"]),
        ({"a": ""}, ['"a"==""']),
        ("Market:Europe", ["Market:Europe"]),
        (["Market:Europe", "n:1"], ["Market:Europe", "n:1"]),
        ({}, []),
    ],
)
def test_where(where: Any, written: list[str]) -> None:
    """Conditions as a mapping or as strings; a missing value is nothing after the colon."""
    assert [value for name, value in query(where=where) if name == "where"] == written
    assert Subscription.of("localhost:1", where=where).filtered == bool(written)


@pytest.mark.parametrize("where", [7, [1], {"a": (1, 2)}, {"a": []}, ("a", "like", 1)])
def test_impossible_where_is_refused(where: Any) -> None:
    """One sentence."""
    with pytest.raises(
        RequestError, match=r"must be like|is no operator|could mean a range or a list|no value is given"
    ):
        Subscription.of("localhost:1", where=where)


def test_impossible_lag_is_refused() -> None:
    """There are two."""
    with pytest.raises(RequestError, match="lag must be 'wait' or 'skip', not 'hurry'"):
        Subscription.of("localhost:1", lag="hurry")  # type: ignore[arg-type]


def test_parameters_of_the_address_count_where_none_are_given() -> None:
    """Parameters typed into the address are kept, except for the format."""
    url = "ws://h/ws?start=5&format=json&token=abc&where=a:1&where=a:2&numbered=true&lag=skip"
    wanted = {"format": "ndjson", "token": "abc", "lag": "skip", "start": "5", "where": "a:2"}
    assert dict(query(url)) == {**wanted, "faults": "false"}
    assert dict(query(url, start="9"))["start"] == "9"
    subscription = Subscription.of(url, where={"b": 3})
    assert subscription.numbered
    assert subscription.where == ("b:3",)
    assert subscription.url == url

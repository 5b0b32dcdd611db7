"""What strings stand for: numbers, yes/no, dates, or strings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logistream.errors import DataError, RequestError
from logistream.fitting.fit import fit
from logistream.schema import Column, Schema
from logistream.tables.kinds import choose_columns, find_kinds, header_is_data, text_formats

SECONDS = 1_767_225_600  # 2026-01-01


def read(values: list[Any], name: str = "c", **options: Any) -> pd.Series:
    """Return what a column of strings stands for."""
    return find_kinds(pd.DataFrame({name: values}), **options)[0][name]


@pytest.mark.parametrize(
    ("strings", "dtype", "first"),
    [
        (["1", "2"], "int64", 1),
        (["1", "", "3"], "Int64", 1),
        (["1", " ", "n/a", "-", "?"], "Int64", 1),
        (["1.5", "2"], "float64", 1.5),
        (["1.5", ""], "float64", 1.5),
        (["-1,234.50", "12"], "float64", -1234.5),
        (["1,234,567", "12"], "int64", 1_234_567),
        (["1.234,50", "12"], "float64", 1234.5),
        (["1 234,5", "12"], "float64", 1234.5),
        (["1\u202f234.5"], "float64", 1234.5),
        (["1'234'567"], "int64", 1_234_567),
        (["3,5", "0,25"], "float64", 3.5),
        (["1e-3", "2"], "float64", 0.001),
        (["true", "False"], "bool", True),
        (["TRUE", ""], "boolean", True),
        (["00501", "10115"], "str", "00501"),
        (["+4930123", "+4940123"], "str", "+4930123"),
        (["1", "a"], "str", "1"),
        (["?", "a"], "str", "?"),
        (["1,23,4"], "str", "1,23,4"),
        (["192.168.100.1"], "str", "192.168.100.1"),
        (["1-2"], "str", "1-2"),
        (["12:30"], "str", "12:30"),
        (["0", "1"], "int64", 0),
        (["-0.5", ".5"], "float64", -0.5),
    ],
)
def test_strings_become_what_they_are(strings: list[str], dtype: str, first: object) -> None:
    """Numbers in any usual form, also with gaps; digits with leading zeros stay strings."""
    values = read(strings)
    assert str(values.dtype) == dtype
    assert values.iloc[0] == first


@settings(deadline=None)
@given(
    st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=20),
    st.sampled_from([("", "."), (",", "."), (" ", "."), ("", ","), (".", ","), ("\u00a0", ",")]),
)
def test_numbers_are_read_as_they_are_written(cents: list[int], style: tuple[str, str]) -> None:
    """Any number with two decimals, with any marks, reads back exactly."""
    thousands, mark = style
    strings = [f"{n / 100:,.2f}".replace(",", "t").replace(".", mark).replace("t", thousands) for n in cents]
    assert read(strings).tolist() == [n / 100 for n in cents]


@pytest.mark.parametrize(
    ("other", "separator", "expected"),
    [("0,5", ",", 1.234), ("0.5", ",", 1234), ("1.234,5", "\t", 1.234), ("x", ",", 1234), ("x", ";", 1.234)],
)
def test_a_comma_is_read_as_in_the_rest_of_the_file(other: str, separator: str, expected: float) -> None:
    """A number that can be read in two ways follows the other columns, then the separator, then a note."""
    frame = pd.DataFrame({"c": ["1,234"], "d": [other]})
    found, notes = find_kinds(frame, separator=separator)
    assert found["c"].tolist() == [expected]
    assert [("could be" in note) for note in notes] == ([True] if other == "x" else [])


def test_a_doubtful_date_follows_the_rest_of_the_file() -> None:
    """Another column of which the order is certain decides; else a note names the other pattern."""
    doubtful = ["2/1/2026", "1/2/2026", "3/4/2026"]
    found, notes = find_kinds(pd.DataFrame({"a": doubtful, "b": ["31/1/2026"] * 3}))
    assert (text_formats(found), notes) == ({"a": "%-d/%-m/%Y", "b": "%-d/%-m/%Y"}, [])
    found, notes = find_kinds(pd.DataFrame({"a": doubtful}))
    assert text_formats(found) == {"a": "%-m/%-d/%Y"}
    assert notes == [
        "column 'a': the order of day and month is not certain in dates such as '2/1/2026'; they were read "
        "as %-m/%-d/%Y, and could be %d/%m/%Y: give that as the type of the column if so"
    ]


@pytest.mark.parametrize(
    ("name", "values", "pattern"),
    [
        ("day", [20260331, 20260401], "%Y%m%d"),
        ("c", [20260331, 20260401, 20260402], "%Y%m%d"),
        ("c", [20260331, 20261301, 20260402], None),  # no month 13
        ("c", [20260331140500, 20260331140501, 20260401000000], "%Y%m%d%H%M%S"),
        ("created_at", [SECONDS, SECONDS + 1], "%s"),
        ("eventTime", [SECONDS * 1000], "%s%3f"),
        ("ts", [SECONDS * 10**6], "%s%f"),
        ("UNIX", [SECONDS * 10**9], "%s%9f"),
        ("c", [SECONDS + 977 * i for i in range(30)], "%s"),  # by its range
        ("c", [SECONDS + i for i in range(30)], None),  # consecutive numbers
        ("customer_id", [SECONDS + 977 * i for i in range(30)], None),
        ("c", [SECONDS, SECONDS + 977], None),  # too few
        ("delivery time", [86_400, 3_600], None),  # a duration
        ("response_time_ns", [SECONDS, SECONDS + 977], None),
        ("year", [2025, 2026], None),
    ],
)
def test_whole_numbers_that_are_dates(name: str, values: list[int], pattern: str | None) -> None:
    """Days as 20260331, and numbers since 1970 where the name or the range of the values says so."""
    for column in (values, [str(value) for value in values]):
        found, _ = find_kinds(pd.DataFrame({name: column}))
        assert text_formats(found) == ({} if pattern is None else {name: pattern})
        assert found[name].dtype == ("int64" if pattern is None else found[name].dtype)
    if pattern == "%s":
        assert found[name].iloc[0] == pd.Timestamp("2026-01-01", tz="UTC")


def test_whole_numbers_of_more_than_64_bits_stay_whole() -> None:
    """They are Python integers, which `fit` leaves out in a sentence; no digit is lost."""
    assert read(["1" * 25, "", "2"]).tolist() == [int("1" * 25), None, 2]


def test_strings_of_a_typed_file_are_no_numbers() -> None:
    """In Parquet or JSON a string is a string, or a date at most."""
    frame = pd.DataFrame({"n": ["1", "2"], "d": ["31.03.2026", "01.04.2026"], "t": [20260331, 20260401]})
    found, _ = find_kinds(frame, typed=True, whole_dates=False)
    assert found.dtypes.astype(str).tolist() == ["str", "datetime64[us]", "int64"]


@pytest.mark.parametrize(
    ("values", "kind", "dtype", "first"),
    [
        (["1", "2"], "category", "str", "1"),
        ([1, 2], "category", "str", "1"),
        (["007", ""], "integer", "Int64", 7),
        (["1,5"], "number", "float64", 1.5),
        (["1.0", "2.0"], "int", "int64", 1),
        (["yes", "N", ""], "boolean", "boolean", True),
        ([1, 0], "bool", "bool", True),
        (["1/2/2026"], "%d/%m/%Y", "datetime64[us]", pd.Timestamp("2026-02-01")),
        ([20260331], "timestamp", "datetime64[us]", pd.Timestamp("2026-03-31")),
        (["1767225600"], "%s", "datetime64[us, UTC]", pd.Timestamp("2026-01-01", tz="UTC")),
    ],
)
def test_a_type_that_is_asked_for(values: list[Any], kind: str, dtype: str, first: object) -> None:
    """The caller knows better than any rule."""
    got = read(values, types={"c": kind})
    assert str(got.dtype) == dtype
    assert got.iloc[0] == first


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("number", "column 'c' should hold numbers, but row 2 has 'x'"),
        ("integer", "column 'c' should hold numbers, but row 2 has 'x'"),
        ("boolean", "column 'c' should hold true and false, but row 2 has 'x'"),
        ("timestamp", "column 'c' should hold dates, but they have no usual form in common, as '1': give"),
        ("%Y", "column 'c' should hold dates written as %Y, but row 1 has '1'"),
    ],
)
def test_a_type_that_does_not_fit_is_refused(kind: str, sentence: str) -> None:
    """The sentence names the first value that does not fit."""
    with pytest.raises(DataError) as caught:
        read(["1", "x"], types={"c": kind})
    assert str(caught.value).startswith(sentence)


def test_columns_are_chosen_by_name() -> None:
    """In the order of the table; an unknown name or type is refused."""
    assert choose_columns(["a", "b", "c"], columns=["c", "a"]) == ["a", "c"]
    assert choose_columns(["a", "b", "c"], drop="b") == ["a", "c"]
    for options, sentence in (
        ({"drop": ["x"]}, "no column 'x'; there are 'a', 'b'"),
        ({"columns": ["x"]}, "no column 'x'"),
        ({"types": {"x": "number"}}, "no column 'x'"),
        ({"types": {"a": "money"}}, "the type of 'a' must be one of category, boolean, integer, number, "),
        ({"drop": ["a", "b"]}, "no column is left"),
    ):
        with pytest.raises(RequestError) as caught:
            choose_columns(["a", "b"], **options)
        assert str(caught.value).startswith(sentence)


@pytest.mark.slow
def test_a_schema_says_what_columns_are() -> None:
    """A second file of a known table is read as the first; what does not fit is read by what it holds."""
    schema = Schema(
        (
            Column("code", "category"),
            Column("n", "integer"),
            Column("day", "timestamp", text_format="%d/%m/%Y"),
            Column("x", "number"),
        )
    )
    frame = pd.DataFrame({"code": ["7"], "n": [str(SECONDS)], "day": ["1/2/2026"], "x": ["many"]})
    found, _ = find_kinds(frame, schema=schema)
    assert found.dtypes.astype(str).tolist() == ["str", "int64", "datetime64[us]", "str"]
    assert found["day"].iloc[0] == pd.Timestamp("2026-02-01")


@pytest.mark.parametrize(
    ("header", "rows", "expected"),
    [
        (["a", "b"], [["1", "x"]], False),
        (["1.5", "x"], [["2.5", "x"]], True),
        (["1.5", "y"], [["2.5", "x"]], None),
        (["2025", "2026"], [["1", "2"]], False),
        (["region", "2025", "2026"], [["x", "1", "2"]], False),
        (["2026-01-01", "5"], [["2026-01-02", "6"]], True),
        (["", "b"], [["1", "2"]], False),
        (["region", "2025"], [["x", "1"]], False),
    ],
)
def test_a_header_that_is_missing(header: list[str], rows: list[list[str]], expected: bool | None) -> None:
    """Numbers and dates in place of names, unless they count in equal steps, as years do."""
    frame = pd.DataFrame(rows, columns=[f"{name}{i}" for i, name in enumerate(header)])
    assert header_is_data(header, frame) is expected


def test_fit_takes_columns_and_types() -> None:
    """A frame is learned as the caller says, and the pattern of its dates becomes that of the schema."""
    rng = np.random.default_rng(0)
    days = pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 90, 60), "D")
    frame = pd.DataFrame(
        {"day": days.strftime("%d/%m/%Y"), "zip": rng.integers(1, 5, 60), "x": rng.random(60)}
    )
    model = fit(frame, drop=["x"], types={"day": "%d/%m/%Y", "zip": "category"})
    assert [(c.name, c.kind, c.text_format) for c in model.schema] == [
        ("day", "timestamp", "%d/%m/%Y"),
        ("zip", "category", None),
    ]
    assert fit(frame, columns=["x"]).schema.names == ("x",)
    assert frame.columns.tolist() == ["day", "zip", "x"]
    assert isinstance(frame["day"].iloc[0], str)

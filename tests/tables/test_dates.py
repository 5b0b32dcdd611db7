"""Dates as people write them: the pattern that is found writes the very strings that were read."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logistream.errors import RequestError
from logistream.tables.dates import EPOCHS, find_dates, is_number, parse_dates, write_dates

PATTERNS = [
    "%-m/%-d/%Y %-H:%M",
    "%m/%d/%Y %H:%M",
    "%-m/%-d/%Y %-I:%M %p",
    "%d/%m/%Y",
    "%d.%m.%Y",
    "%-d.%-m.%Y %H:%M:%S",
    "%d.%m.%y",
    "%Y%m%d",
    "%Y%m%d%H%M%S",
    "%Y-%m-%d",
    "%Y-%m-%dT%H:%M:%S",
    "%Y-%m-%d %H:%M:%S.%f",
    "%Y-%m-%dT%H:%M:%S.%3fZ",
    "%Y-%m-%d %H:%M:%S UTC",
    "%Y/%m/%d",
    "%d %b %Y",
    "%-d-%^b-%y",
    "%B %-d, %Y",
    "%b %d %Y, %I:%M:%S%P",
]
instants = st.lists(st.datetimes(datetime(1970, 1, 1), datetime(2068, 12, 31)), min_size=1, max_size=30)


def micros(*times: datetime | str) -> np.ndarray:
    """Return instants as an array."""
    return np.array(times, "datetime64[us]")


@pytest.mark.parametrize("pattern", PATTERNS)
@settings(max_examples=30, deadline=None)
@given(times=instants)
def test_what_was_read_is_what_is_written(pattern: str, times: list[datetime]) -> None:
    """The strings of a column come back to the letter, and so do the instants, to what is written of them."""
    times.append(datetime(2019, 3, 31, 23, 59, 58, 123456))  # has a day above 12, and every part
    strings = write_dates(micros(*times), pattern)
    dates = find_dates(strings)
    assert dates is not None
    assert dates.pattern is not None
    assert write_dates(dates.values, dates.pattern).to_pylist() == strings.to_pylist()
    assert (parse_dates(strings, pattern) == dates.values).all()
    assert dates.utc == pattern.endswith(("Z", "UTC"))


@pytest.mark.parametrize("pattern", EPOCHS)
@settings(max_examples=30, deadline=None)
@given(times=instants)
def test_numbers_since_1970(pattern: str, times: list[datetime]) -> None:
    """Seconds and their parts read back to the unit that they count."""
    strings = write_dates(micros(*times), pattern)
    unit = max(int(EPOCHS[pattern]), 1)
    expected = micros(*times).astype("int64") // unit * unit
    assert parse_dates(strings, pattern).astype("int64").tolist() == expected.tolist()
    assert is_number(pattern)


@pytest.mark.parametrize(
    ("strings", "pattern", "first"),
    [
        (["3/31/2026 14:05", "4/1/2026 9:05"], "%-m/%-d/%Y %-H:%M", "2026-03-31T14:05"),
        (["31.03.2026"], "%d.%m.%Y", "2026-03-31"),
        (["20260331"], "%Y%m%d", "2026-03-31"),
        (["01/02/2026", "13/02/2026"], "%d/%m/%Y", "2026-02-01"),  # a number above 12
        (["01.02.2026"], "%d.%m.%Y", "2026-02-01"),  # a point
        (["1/2/2026 1:05 AM"], "%-m/%-d/%Y %-I:%M %p", "2026-01-02T01:05"),  # AM and PM
        (["1/2/2026", "5/2/2026", "1/3/2026", "2/3/2026", "9/3/2026"], "%-d/%-m/%Y", "2026-02-01"),  # sorted
        (["2/1/2026", "2/5/2026", "3/1/2026", "3/2/2026", "3/9/2026"], "%-m/%-d/%Y", "2026-02-01"),  # sorted
        (["1/2/2026 9:00:00.5", "13/2/2026 9:00:00.5"], "%-d/%-m/%Y %-H:%M:%S.%1f", "2026-02-01T09:00:00.5"),
        (["May 1, 2026", "June 12, 2026"], "%B %-d, %Y", "2026-05-01"),
    ],
)
def test_order_of_day_and_month(strings: list[str], pattern: str, first: str) -> None:
    """What the column itself says decides: a number above 12, a point, AM and PM, sorted rows."""
    dates = find_dates(pa.array(strings))
    assert dates is not None
    assert (dates.pattern, dates.doubtful) == (pattern, False)
    assert dates.values[0] == np.datetime64(first)


@pytest.mark.parametrize("day_first", [None, False, True])
def test_a_doubtful_order_follows_the_file(day_first: bool | None) -> None:
    """Where the column does not decide, the rest of the file does, else the month is first."""
    dates = find_dates(pa.array([f"{day}/2026" for day in ("2/1", "1/2", "3/4")]), day_first=day_first)
    assert dates is not None
    assert dates.doubtful
    assert dates.pattern == ("%-d/%-m/%Y" if day_first else "%-m/%-d/%Y")
    assert dates.alternative == ("%m/%d/%Y" if day_first else "%d/%m/%Y")


@pytest.mark.parametrize(
    "strings",
    [
        ["31/12/2026", "12/31/2026"],  # two orders
        ["2026-02-29"],
        ["2026-13-01"],
        ["12:30"],
        ["1.2.3"],
        ["soon"],
        ["31.03.2026", "later"],
        ["24:00 31.03.2026"],
        ["3/31/2026 25:00"],
        ["12345678901"],
        [],
    ],
    ids=str,
)
def test_what_is_no_date(strings: list[str]) -> None:
    """A column is dates throughout, in one pattern, of days that exist, or it is none."""
    assert find_dates(pa.array(strings, pa.string())) is None


def test_iso_forms_may_be_mixed() -> None:
    """Offsets are converted, and what has none is in UTC; no pattern writes such a mixture."""
    dates = find_dates(pa.array(["2026-01-01T02:00:00+02:00", None, "2026-01-01"]))
    assert dates is not None
    assert (dates.pattern, dates.utc) == (None, True)
    assert dates.values.astype(str).tolist() == [
        "2026-01-01T00:00:00.000000",
        "NaT",
        "2026-01-01T00:00:00.000000",
    ]


def test_missing_dates_stay_missing() -> None:
    """Null is read as NaT and written as null."""
    values = parse_dates(pa.array(["31.03.2026", None, "31.02.2026"]), "%d.%m.%Y")
    assert np.isnat(values).tolist() == [False, True, True]
    assert write_dates(values, "%d.%m.%Y").to_pylist() == ["31.03.2026", None, None]


@pytest.mark.parametrize("pattern", ["%j", "%Y %Y", "%s.%f", "%Q"])
def test_a_pattern_that_cannot_be_read_is_refused(pattern: str) -> None:
    """The sentence names the directive."""
    with pytest.raises(RequestError, match="a date pattern cannot hold %"):
        parse_dates(pa.array(["1"]), pattern)

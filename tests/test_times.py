"""Times and their strings, to the microsecond."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logistream.times import parse_duration, parse_rfc3339, rfc3339

SECOND = 1_000_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST, LAST = -62_135_596_800 * SECOND, 253_402_300_800 * SECOND - 1  # of the years 1 to 9999


@given(st.integers(FIRST, LAST))
def test_a_text_names_its_instant(instant: int) -> None:
    """Every microsecond has its text, and the text gives it back."""
    text = rfc3339(instant)
    assert len(text) == len("2026-11-24T06:23:00.000000Z")
    assert text.endswith("Z")
    assert parse_rfc3339(text) == instant


@given(
    st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1)),
    st.integers(-1439, 1439),
    st.text("0123456789", max_size=12),
)
def test_any_offset_and_any_digits(instant: datetime, offset: int, more: str) -> None:
    """The instant is that of the standard library; digits below the microsecond are cut off."""
    local = instant.replace(tzinfo=timezone(timedelta(minutes=offset)))
    text = local.isoformat(timespec="microseconds")
    text = text[:26] + more + text[26:]
    assert parse_rfc3339(text) == (local - EPOCH) // timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01t00:00:00z", 0),
        ("1970-01-01 00:00:00-00:00", 0),
        ("1969-12-31T23:59:59.9999999Z", -1),
        ("1985-04-12T23:20:50.52Z", 482_196_050_520_000),  # this and the next three are examples of RFC 3339
        ("1996-12-19T16:39:57-08:00", 851_042_397 * SECOND),
        ("1990-12-31T23:59:60Z", 662_688_000 * SECOND),
        ("1990-12-31T15:59:60-08:00", 662_688_000 * SECOND),
        ("0000-02-29T00:00:00Z", -62_162_121_600 * SECOND),
        ("9999-12-31T23:59:59-23:59", LAST + 1 - SECOND + 1439 * 60 * SECOND),
    ],
)
def test_corners_of_the_standard(text: str, instant: int) -> None:
    """Small letters, a blank, leap seconds, the first and the last year."""
    assert parse_rfc3339(text) == instant


@pytest.mark.parametrize(
    "text",
    [
        "", "now", "2026-11-24", "2026-11-24T06:23Z", "2026-11-24T06:23:00", "2026-11-24T06:23:00+0100",
        "2026-11-24T06:23:00.Z", "2026-11-24T06:23:00,5Z", "2026-13-24T06:23:00Z", "2026-02-29T06:23:00Z",
        "2026-11-24T24:00:00Z", "2026-11-24T06:60:00Z", "2026-11-24T06:23:60Z", "2026-11-24T06:23:00+24:00",
        "2026-11-24T06:23:00+01:60", " 2026-11-24T06:23:00Z", "2026-11-24T06:23:00Z\n", "26-11-24T06:23:00Z",
        "\u0662026-11-24T06:23:00Z",
    ],
)  # fmt: skip
def test_what_is_no_such_time_is_refused(text: str) -> None:
    """One sentence shows what is expected, and what came."""
    with pytest.raises(ValueError, match=r"^expected an RFC 3339 time such as 2026-11-24T06:23:00.5Z, not '"):
        parse_rfc3339(text)


@pytest.mark.parametrize(
    ("length", "seconds"),
    [
        ("5min", 300),
        ("2h", 7200),
        ("2 hours 30 minutes", 9000),
        ("1H30M", 5400),
        (" 0.5 s ", 0.5),
        ("250ms", 0.25),
        ("7us", 7e-6),
        ("1W", 604_800),
        ("0s", 0),
        ("365d", 31_536_000),
        ("00:05:00", 300),
        ("1:00:00.5", 3600.5),
        (timedelta(minutes=2), 120),
        (pd.Timedelta("2min"), 120),
    ],
)
def test_a_duration_is_numbers_with_units(length: str | timedelta, seconds: float) -> None:
    """Units in full or short, one after the other; a clock's form; or a timedelta."""
    assert parse_duration(length) == round(seconds * 1e6)


@pytest.mark.parametrize(
    "string",
    ["", " ", "5", "min", "5 parsecs", "-5min", "5min ago", "1e3s", "1.2.3s", "٣s", "9" * 99, "NaT"],
)
def test_what_is_no_duration_is_refused(string: str) -> None:
    """The sentence gives an example."""
    with pytest.raises(ValueError, match=r"^expected a length of time such as 5min or 2h, not "):
        parse_duration(string)

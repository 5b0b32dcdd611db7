"""Instants as whole microseconds, as RFC 3339 strings, and as the parts of a calendar date."""

from __future__ import annotations

import re
import time
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from logistream.errors import shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import pandas as pd

__all__ = [
    "CALENDAR",
    "DAY",
    "HOUR",
    "MINUTE",
    "TIME_OF_DAY",
    "ahead_of_utc",
    "from_local",
    "micros",
    "parse_duration",
    "parse_instant",
    "parse_rfc3339",
    "rfc3339",
    "wall_clock",
]


MINUTE = 60_000_000
HOUR = 60 * MINUTE
DAY = 24 * HOUR
"""Microseconds."""

_EPOCH = datetime(1970, 1, 1)
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_RFC3339 = re.compile(
    r"(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)[Tt ]"
    r"(?P<hour>[01]\d|2[0-3]):(?P<minute>[0-5]\d):(?P<second>[0-5]\d|60)(?:\.(?P<fraction>\d+))?"
    r"(?:[Zz]|(?P<sign>[+-])(?P<hours>[01]\d|2[0-3]):(?P<minutes>[0-5]\d))",
    re.ASCII,
)


def wall_clock() -> int:
    """Return the time in microseconds since the Unix epoch, UTC."""
    return time.time_ns() // 1000


def rfc3339(timestamp: int) -> str:
    """Return microseconds since the Unix epoch as an RFC 3339 string in UTC with microseconds and `Z`.

    Examples
    --------
    >>> rfc3339(1_000_000)
    '1970-01-01T00:00:01.000000Z'
    """
    return (_EPOCH + timedelta(microseconds=timestamp)).isoformat(timespec="microseconds") + "Z"


def parse_rfc3339(string: str) -> int:
    """Return the instant that an RFC 3339 string names, in microseconds since the Unix epoch.

    Computed with whole numbers: further digits are cut off, so that the instant is never later than the one
    named. A leap second is the second after it, as in Unix time.

    Parameters
    ----------
    string : str
        As in RFC 3339, with any offset from UTC; a blank may stand for the `T`.

    Raises
    ------
    ValueError
        If it is not such a string, or names a day or time of day that does not exist.

    Examples
    --------
    >>> parse_rfc3339("1970-01-01T01:00:00.0000019+01:00")
    1
    """
    match = _RFC3339.fullmatch(string)
    instant = _seconds(match) if match else None
    if match is None or instant is None:
        raise ValueError(f"expected an RFC 3339 time such as 2026-11-24T06:23:00.5Z, not {shorten(string)!r}")
    fraction: str = match["fraction"] or ""
    return instant * 1_000_000 + int(fraction[:6].ljust(6, "0"))


def parse_instant(instant: str | date) -> int:
    """Return an instant in microseconds since the Unix epoch; without a time zone it is in UTC.

    Parameters
    ----------
    instant : str, date or datetime
        A string as in RFC 3339, or a date or a date and time as in ISO 8601; a date is its midnight. A
        datetime may also be a Timestamp of pandas.

    Raises
    ------
    ValueError
        If it is none of these.

    Examples
    --------
    >>> parse_instant("1970-01-02"), parse_instant("1970-01-01T01:00:00+01:00")
    (86400000000, 0)
    """
    if isinstance(instant, str):
        try:
            return parse_rfc3339(instant.strip())
        except ValueError:
            instant = datetime.fromisoformat(instant.strip())
    elif isinstance(instant, date) and not isinstance(instant, datetime):
        instant = datetime(instant.year, instant.month, instant.day)
    if not isinstance(instant, datetime) or instant != instant:  # NaT
        raise ValueError(f"expected a date or a time such as 2020-01-01, not {str(instant)[:40]!r}")
    naive = instant if instant.tzinfo is None else instant.astimezone(UTC).replace(tzinfo=None)
    return (naive - _EPOCH) // timedelta(microseconds=1)


_UNITS = {
    name: micros
    for names, micros in (
        ("w week weeks", 7 * DAY),
        ("d day days", DAY),
        ("h hour hours", HOUR),
        ("m min mins minute minutes", 60_000_000),
        ("s sec secs second seconds", 1_000_000),
        ("ms", 1000),
        ("us", 1),
    )
    for name in names.split()
}
_PART = re.compile(r"\s*(\d{1,9}(?:\.\d{1,9})?)\s*([a-z]+)\s*", re.ASCII | re.IGNORECASE)
_CLOCK = re.compile(r"(\d{1,6}):([0-5]\d):([0-5]\d(?:\.\d{1,9})?)", re.ASCII)


def parse_duration(length: str | timedelta) -> int:
    """Return a length of time such as `5min`, `2h 30m` or `365d` in microseconds.

    Parameters
    ----------
    length : str or timedelta
        Numbers, each with a unit: weeks, days, hours, minutes, seconds, ms or us, in full or as one letter;
        or `HH:MM:SS`. A timedelta may also be one of pandas.

    Raises
    ------
    ValueError
        If it is neither.

    Examples
    --------
    >>> parse_duration("1.5s")
    1500000
    """
    if isinstance(length, timedelta):
        return length // timedelta(microseconds=1)  # a ValueError for NaT
    string = length.strip() if isinstance(length, str) else ""
    if clock := _CLOCK.fullmatch(string):
        return round((int(clock[1]) * 3600 + int(clock[2]) * 60 + float(clock[3])) * 1e6)
    place, micros = 0, 0
    while match := _PART.match(string, place):
        if match[2].lower() not in _UNITS:
            break
        micros += round(float(match[1]) * _UNITS[match[2].lower()])
        place = match.end()
    if not string or place < len(string):
        raise ValueError(f"expected a length of time such as 5min or 2h, not {shorten(str(length))!r}")
    return micros


def _seconds(match: re.Match[str]) -> int | None:
    """Return the seconds from the Unix epoch to the instant of a match, None if there is no such instant."""
    year = int(match["year"])
    try:
        # Python has no year 0; the calendar repeats every 400 years, which are 146,097 days.
        day = date(year or 400, int(match["month"]), int(match["day"])).toordinal()
    except ValueError:
        return None
    day -= _EPOCH_DAY + (0 if year else 146_097)
    ahead = int(match["hours"] or 0) * 60 + int(match["minutes"] or 0)
    minutes = day * 1440 + int(match["hour"]) * 60 + int(match["minute"])
    minutes += ahead if match["sign"] == "-" else -ahead
    if match["second"] == "60" and minutes % 1440 != 1439:
        return None  # a leap second ends a day in UTC
    return minutes * 60 + int(match["second"])


def micros(values: pd.Series) -> np.ndarray:
    """Return instants as int64 microseconds since 1970 UTC, shape (n_rows,)."""
    naive = values.dt.tz_convert("UTC").dt.tz_localize(None) if values.dt.tz is not None else values
    return naive.astype("datetime64[us]").astype("int64").to_numpy()


def ahead_of_utc(instants: np.ndarray, offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return how many microseconds a clock is ahead of UTC, int64 of shape (n_rows,).

    Parameters
    ----------
    instants : ndarray of int64 of shape (n_rows,)
        Microseconds since 1970 UTC.
    offsets : sequence of (int, int)
        From which of them on the clock is how many ahead; the first holds before as well. Empty for UTC.
    """
    return _in_force(instants, [start for start, _ in offsets], offsets)


def from_local(local: np.ndarray, offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    """Return instants in microseconds since 1970 UTC, int64 of shape (n_rows,), from what a clock showed.

    Of an hour that it showed twice the second is meant; an hour that it left out is taken with the
    offset before.

    Parameters
    ----------
    local : ndarray of int64 of shape (n_rows,)
        Microseconds since 1970 on that clock.
    offsets : sequence of (int, int)
        As for `ahead_of_utc`.
    """
    return np.asarray(local - _in_force(local, [start + offset for start, offset in offsets], offsets))


def _in_force(instants: np.ndarray, starts: Sequence[int], offsets: Sequence[tuple[int, int]]) -> np.ndarray:
    if not offsets:
        return np.zeros(len(instants), np.int64)
    ahead = np.array([offset for _, offset in offsets], np.int64)
    place = np.searchsorted(np.array(starts, np.int64), instants, side="right") - 1
    return np.asarray(ahead[np.maximum(place, 0)])


def _dates(instants: np.ndarray) -> np.ndarray:
    return np.asarray(instants).astype(np.int64).view("datetime64[us]").astype("datetime64[D]")


def _months(instants: np.ndarray) -> np.ndarray:
    return _dates(instants).astype("datetime64[M]").astype(np.int64)


CALENDAR: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "year": lambda t: 1970 + _months(t) // 12,
    "month": lambda t: _months(t) % 12 + 1,
    "day": lambda t: (_dates(t) - _dates(t).astype("datetime64[M]")).astype(np.int64) + 1,
    "weekday": lambda t: (_dates(t).astype(np.int64) + 3) % 7,
    "hour": lambda t: t.astype(np.int64) % DAY // HOUR,
    "minute": lambda t: t.astype(np.int64) % HOUR // 60_000_000,
    "quarter": lambda t: _months(t) % 12 // 3 + 1,
    "yyyymmdd": lambda t: CALENDAR["year"](t) * 10_000 + CALENDAR["month"](t) * 100 + CALENDAR["day"](t),
    "yyyymm": lambda t: CALENDAR["year"](t) * 100 + CALENDAR["month"](t),
    "hhmm": lambda t: CALENDAR["hour"](t) * 100 + CALENDAR["minute"](t),
}
"""Parts of an instant by name: microseconds since 1970 UTC → int64; a week begins with Monday, 0."""

TIME_OF_DAY = frozenset({"hour", "minute", "hhmm"})
"""Which of them follow from the time of day; the others follow from the date."""

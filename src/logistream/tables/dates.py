"""Dates as people write them: find the pattern of a column of strings, read and write by a pattern.

A pattern is one of `strftime`, with English names and these directives: `%Y %y %m %d %b %B %H %I %p %M %S
%f`. Three things are added, so that a date can be written as it was read: `%-d` writes no leading zero,
`%^b` and `%P` change the case of a name, and `%3f` writes three digits of the fraction of a second. `EPOCHS`
are the patterns of numbers since 1970 UTC.
"""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from logistream.errors import RequestError
from logistream.times import DAY, HOUR

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = [
    "EPOCHS",
    "Dates",
    "find_dates",
    "fitted_pattern",
    "is_number",
    "names_utc",
    "parse_dates",
    "write_dates",
]


EPOCHS = {"%s": 1_000_000.0, "%s%3f": 1_000.0, "%s%f": 1.0, "%s%9f": 0.001}
"""Patterns of numbers since 1970 UTC, and how many microseconds the unit has."""

_MONTHS = list(calendar.month_name)[1:]
_NAMES = {
    "b": [name[:3] for name in _MONTHS],
    "B": _MONTHS,
    "p": ["AM", "PM"],
    "P": ["am", "pm"],
}
_DIGITS = {"Y": 4, "y": 2, "m": 2, "d": 2, "H": 2, "I": 2, "M": 2, "S": 2}
_WIDEST = 18  # digits of a number since 1970
_TOKEN = re.compile(r"%(?P<flag>[-^]?)(?P<width>[1-9]?)(?P<directive>[A-Za-z%])|(?P<literal>[^%]+|%)")
_PIVOT = 69  # %y: from here on 19.., before it 20.., as in POSIX


@dataclass(frozen=True, slots=True)
class _Token:
    directive: str  # empty for a literal
    flag: str = ""
    width: int = 0
    literal: str = ""


@lru_cache(maxsize=256)
def _tokens(pattern: str) -> tuple[_Token, ...]:
    found = []
    for match in _TOKEN.finditer(pattern):
        directive = match["directive"] or ""
        if directive == "%" or not directive:
            found.append(_Token("", literal=match["literal"] or "%"))
            continue
        if directive not in _DIGITS and directive not in _NAMES and directive != "f":
            raise RequestError(
                f"a date pattern cannot hold %{directive}: expected %Y, %y, %m, %d, %b, %B, %H, %I, %p, %M, "
                f"%S or %f, or one of {', '.join(EPOCHS)} alone; got {pattern!r}"
            )
        if any(token.directive == directive for token in found):
            raise RequestError(f"a date pattern cannot hold %{directive} twice, got {pattern!r}")
        found.append(_Token(directive, match["flag"], int(match["width"] or 0)))
    return tuple(found)


def is_number(pattern: str) -> bool:
    """Return whether what a pattern writes is a whole number, such as 20260331 or 1774966800."""
    return pattern in EPOCHS or (
        pattern.startswith("%Y") and all(token.directive in _DIGITS for token in _tokens(pattern))
    )


def names_utc(pattern: str) -> bool:
    """Return whether what a pattern writes ends with a sign of UTC, such as Z or +00:00."""
    return _UTC_END.search(pattern) is not None


# Write


def write_dates(instants: np.ndarray, pattern: str) -> pa.Array:
    """Write instants by a pattern.

    Parameters
    ----------
    instants : ndarray of datetime64[us] of shape (n,)
        NaT is written as null.
    pattern : str
        See above.

    Returns
    -------
    pyarrow.StringArray of length n

    Raises
    ------
    RequestError
        If the pattern has an unknown directive.

    Examples
    --------
    >>> write_dates(np.array(["2026-03-01T09:05"], "datetime64[us]"), "%-m/%-d/%Y %H:%M").to_pylist()
    ['3/1/2026 09:05']
    """
    missing = np.isnat(instants)
    known = np.where(missing, np.datetime64(0, "us"), instants.astype("datetime64[us]"))
    micros = known.astype(np.int64)
    if pattern in EPOCHS:
        unit = EPOCHS[pattern]
        numbers = micros // int(unit) if unit >= 1 else micros * 1000
        return pa.array(numbers, mask=missing).cast(pa.string())
    parts = _Parts(micros)
    pieces = [
        pa.scalar(token.literal) if not token.directive else _written(parts, token)
        for token in _tokens(pattern)
    ]
    written = pc.binary_join_element_wise(*pieces, "") if pieces else pa.array([""] * len(micros))
    if isinstance(written, pa.Scalar):  # only literals
        written = pa.repeat(written, len(micros))
    return pc.if_else(pa.array(missing), None, written) if missing.any() else written


class _Parts:
    """The parts of the calendar date and of the time of day of instants."""

    def __init__(self, micros: np.ndarray) -> None:
        days = micros // DAY
        self.time = micros - days * DAY
        dates = days.view("datetime64[D]")
        months = dates.astype("datetime64[M]")
        self.day = (dates - months).astype(np.int64) + 1
        self.month = months.astype(np.int64) % 12 + 1
        self.year = months.astype(np.int64) // 12 + 1970


_NUMBERS: Mapping[str, Callable[[_Parts], np.ndarray]] = {
    "y": lambda parts: parts.year % 100,
    "m": lambda parts: parts.month,
    "d": lambda parts: parts.day,
    "H": lambda parts: parts.time // HOUR,
    "I": lambda parts: (parts.time // HOUR + 11) % 12 + 1,
    "M": lambda parts: parts.time // 60_000_000 % 60,
    "S": lambda parts: parts.time // 1_000_000 % 60,
}


def _written(parts: _Parts, token: _Token) -> pa.Array:
    directive = token.directive
    if directive == "Y":
        return pc.utf8_lpad(pa.array(parts.year).cast(pa.string()), 4, "0")
    if directive == "f":
        width = token.width or 6
        fraction = parts.time % 1_000_000 * 1000 // 10 ** (9 - width)
        return pc.utf8_lpad(pa.array(fraction).cast(pa.string()), width, "0")
    if directive in ("b", "B"):
        names = _NAMES[directive]
        names = [name.upper() for name in names] if token.flag == "^" else names
        return pa.array(names).take(pa.array(parts.month - 1))
    if directive in ("p", "P"):
        return pa.array(_NAMES[directive]).take(pa.array(parts.time // (12 * HOUR)))
    return _digits(padded=token.flag != "-").take(pa.array(_NUMBERS[directive](parts)))


@cache  # when it is first needed: `pa.array` imports pandas, which a reader of a stream can do without
def _digits(*, padded: bool) -> pa.Array:
    return pa.array([f"{number:02d}" if padded else str(number) for number in range(100)])


# Read


def parse_dates(strings: pa.Array, pattern: str) -> np.ndarray:
    """Read strings by a pattern.

    Leading zeros may be absent, names may be in any case, and a fraction may have one to nine digits or be
    absent; what is finer than a microsecond is cut off.

    Parameters
    ----------
    strings : pyarrow.StringArray of length n
    pattern : str
        See above.

    Returns
    -------
    ndarray of datetime64[us] of shape (n,)
        NaT for null, and for a string that does not fit or names a day that does not exist.
    """
    if pattern in EPOCHS:
        return _parse_epoch(strings, EPOCHS[pattern])
    tokens = [token for token in _tokens(pattern) if token.directive]
    fits = pc.match_substring_regex(strings, _regex(pattern))
    fits = np.asarray(pc.fill_null(fits, False))
    where = np.flatnonzero(fits)
    found = pc.extract_regex(strings.take(pa.array(where)), _regex(pattern))
    columns = dict(zip([t.directive for t in tokens], found.flatten() if tokens else [], strict=True))
    micros, exists = _instants(columns, len(where))
    result = np.full(len(strings), np.datetime64("NaT"), "datetime64[us]")
    result[where[exists]] = micros[exists].view("datetime64[us]")
    return result


def _parse_epoch(strings: pa.Array, unit: float) -> np.ndarray:
    fits = np.asarray(pc.fill_null(pc.match_substring_regex(strings, rf"^-?\d{{1,{_WIDEST + 1}}}$"), False))
    result = np.full(len(strings), np.datetime64("NaT"), "datetime64[us]")
    numbers = np.array([int(text) for text in strings.filter(pa.array(fits)).to_pylist()], object)
    scaled = numbers * int(unit) if unit >= 1 else numbers // 1000
    inside = np.array([-(2**62) < number < 2**62 for number in scaled], bool)
    result[np.flatnonzero(fits)[inside]] = scaled[inside].astype(np.int64).view("datetime64[us]")
    return result


@lru_cache(maxsize=256)
def _regex(pattern: str) -> str:
    """Return the regular expression of what a pattern reads, with a group named as each directive."""
    tokens = _tokens(pattern)
    groups = []
    for place, token in enumerate(tokens):
        directive = token.directive
        neighbours = [*tokens[max(place - 1, 0) : place], *tokens[place + 1 : place + 2]]
        if not directive:
            expression = re.escape(token.literal)
        elif directive == "f":
            expression = r"(?P<f>\d{1,9})"
        elif directive in _NAMES:
            expression = rf"(?P<{directive}>[A-Za-z]+)"
        elif directive in "mdHI" and not any(other.directive in _DIGITS for other in neighbours):
            expression = rf"(?P<{directive}>\d{{1,2}})"
        else:  # digits follow digits without a separator
            expression = rf"(?P<{directive}>\d{{{_DIGITS[directive]}}})"
        groups.append(expression)
    for place, token in enumerate(tokens[1:], 1):
        if token.directive == "f" and tokens[place - 1].literal in (".", ","):
            groups[place - 1 : place + 1] = ["", f"(?:{groups[place - 1]}{groups[place]})?"]
    return "^" + "".join(groups) + "$"


def _instants(columns: dict[str, pa.Array], n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return microseconds since 1970, and which of the instants exist, from the parts as strings."""

    def number(directive: str, default: int) -> np.ndarray:
        if directive not in columns:
            return np.full(n, default, np.int64)
        return np.asarray(columns[directive].cast(pa.int64()))

    year = number("Y", 1970)
    if "y" in columns:
        short = number("y", 0)
        year = short + np.where(short < _PIVOT, 2000, 1900)
    month, exists = number("m", 1), np.ones(n, bool)
    for directive in ("b", "B"):
        if directive in columns:
            month = _places(columns[directive], _NAMES[directive]) + 1
    hour = number("H", 0)
    if "I" in columns:
        half = number("I", 12)
        exists &= (half >= 1) & (half <= 12)
        marks = columns.get("p", columns.get("P"))
        afternoon = np.zeros(n, np.int64) if marks is None else _places(marks, _NAMES["P"])
        hour = half % 12 + 12 * afternoon
    day, minute, second = number("d", 1), number("M", 0), number("S", 0)
    exists &= (month >= 1) & (month <= 12) & (day >= 1) & (hour <= 23) & (minute <= 59) & (second <= 59)
    months = ((year - 1970) * 12 + np.clip(month, 1, 12) - 1).view("datetime64[M]")
    days = months.astype("datetime64[D]").astype(np.int64) + day - 1
    exists &= days.view("datetime64[D]").astype("datetime64[M]") == months
    fraction = np.zeros(n, np.int64)
    if "f" in columns:
        digits = pc.utf8_slice_codeunits(pc.utf8_rpad(columns["f"], 6, "0"), 0, 6)
        fraction = np.asarray(digits.cast(pa.int64()))
    seconds = (hour * 60 + minute) * 60 + second
    return days * DAY + seconds * 1_000_000 + fraction, exists


def _places(strings: pa.Array, names: list[str]) -> np.ndarray:
    """Return the place of each string among the names, in any case; -1 for none."""
    lower = pa.array([name.lower() for name in names])
    return np.asarray(pc.fill_null(pc.index_in(pc.utf8_lower(strings), lower), -1)).astype(np.int64)


# Find


@dataclass(frozen=True, slots=True)
class Dates:
    """A column of strings read as dates.

    Attributes
    ----------
    values : ndarray of datetime64[us] of shape (n,)
        NaT where the string is null.
    pattern : str or None
        By which they are written; None for a mixture of ISO 8601 forms.
    utc : bool
        Whether the strings name a time zone; the values are in UTC then.
    alternative : str or None
        The pattern with day and month exchanged, if that fits all strings as well.
    doubtful : bool
        Whether nothing in the column says which of the two is right.
    """

    values: np.ndarray
    pattern: str | None
    utc: bool
    alternative: str | None = None
    doubtful: bool = False


_PROBED = 50  # strings that are tried before all are
_FEWEST_SORTED = 5  # rows that are hardly sorted by chance
_DATE = re.compile(
    r"(?P<iso>\d{4})(?P<s1>[-/.])\d{1,2}(?P=s1)\d{1,2}"
    r"|\d{1,2}(?P<s2>[-/.])\d{1,2}(?P=s2)(?P<y2>\d{4}|\d\d)(?!\d)"
    r"|\d{1,2}(?P<s3>[- /.]|\. )(?P<b3>[A-Za-z]{3,9})(?P<s4>[- /.]|,? )(?P<y3>\d{4}|\d\d)(?!\d)"
    r"|(?P<b5>[A-Za-z]{3,9})(?P<s5>[- ])\d{1,2}(?P<s6>[- ]|,? )(?P<y5>\d{4}|\d\d)(?!\d)"
    r"|(?P<compact>(?:19|20|21)\d{6})(?P<clock>\d{4}(?:\d\d)?)?"
)
_TIME = re.compile(
    r"(?P<joint>T|,? )\d{1,2}:\d\d(?P<second>:\d\d)?(?:(?P<point>[.,])(?P<fraction>\d{1,9}))?"
    r"(?:(?P<blank> ?)(?P<half>[AaPp][Mm]))?"
)
_ZONE = re.compile(r" ?(?:Z|UTC|GMT|[+-]00:?00)")
_UTC_END = re.compile(r"%\d?[MSfpP] ?(?:Z|UTC|GMT|[+-]00:?00)$")
_ISO = r"^\d{4}-\d\d-\d\d"


def find_dates(strings: pa.Array, *, day_first: bool | None = None) -> Dates | None:
    """Find the one pattern by which all strings can be read as dates.

    Parameters
    ----------
    strings : pyarrow.StringArray of length n
        In the order of the rows; null for a missing one.
    day_first : bool or None
        What else in the file says of the order of day and month; None for nothing. The values themselves
        come first: a number above 12 anywhere in the column decides, then a point between the numbers (day
        first) or AM and PM (month first), then an order in which the rows are sorted.

    Returns
    -------
    Dates or None
        None if no pattern fits.
    """
    coded = strings.dictionary_encode()
    distinct = coded.dictionary
    if not len(distinct):
        return None
    indices = np.asarray(pc.fill_null(coded.indices, -1))
    example = max(distinct.slice(0, _PROBED).to_pylist(), key=len)
    found: list[tuple[str, np.ndarray]] = []
    for pattern in _patterns(example):
        if np.isnat(parse_dates(distinct.slice(0, _PROBED), pattern)).any():
            continue
        values = parse_dates(distinct, pattern)
        if not np.isnat(values).any() and not any(np.array_equal(values, other) for _, other in found):
            found.append((pattern, values))
    if not found:
        return _find_iso(distinct, indices)
    evidence = _day_first(found, indices) if len(found) > 1 else None
    if len(found) > 1 and (day_first if evidence is None else evidence):
        found.reverse()
    pattern, values = found[0]
    other = found[1][0] if len(found) > 1 else None
    return Dates(
        _taken(values, indices),
        fitted_pattern(pattern, distinct),
        names_utc(pattern),
        other,
        doubtful=other is not None and evidence is None,
    )


def _taken(values: np.ndarray, indices: np.ndarray) -> np.ndarray:
    return np.asarray(np.append(values, np.datetime64("NaT"))[indices])


def _day_first(found: list[tuple[str, np.ndarray]], indices: np.ndarray) -> bool | None:
    """Return which of two orders that both fit the column speaks for; None if it does for neither."""
    (month_first, values), (_, other) = found
    if "%m.%d" in month_first:
        return True
    if "%p" in month_first.lower():
        return False
    rows = indices[indices >= 0]
    sorted_so, sorted_otherwise = _is_sorted(values[rows]), _is_sorted(other[rows])
    if len(rows) < _FEWEST_SORTED or sorted_so == sorted_otherwise:
        return None
    return sorted_otherwise


def _is_sorted(values: np.ndarray) -> bool:
    steps = np.diff(values.astype(np.int64))
    return bool(np.all(steps >= 0) or np.all(steps <= 0))


def _patterns(example: str) -> Iterator[str]:
    """Give the patterns by which a string may be written; of those that differ in order, month first."""
    date = _DATE.match(example)
    if date is None:
        return
    rest = example[date.end() :]
    time = _TIME.match(rest)
    clock = _clock(time) if time else ""
    zone = rest[time.end() :] if time else rest
    if zone and not (time and _ZONE.fullmatch(zone)):
        return
    for pattern in _date_patterns(date):
        yield pattern + clock + zone


def _date_patterns(date: re.Match[str]) -> Iterator[str]:
    year = "%Y" if len(date["y2"] or date["y3"] or date["y5"] or "year") == 4 else "%y"
    if date["compact"]:
        yield "%Y%m%d" + {0: "", 4: "%H%M", 6: "%H%M%S"}[len(date["clock"] or "")]
    elif date["iso"]:
        yield f"%Y{date['s1']}%m{date['s1']}%d"
    elif date["s2"]:
        yield f"%m{date['s2']}%d{date['s2']}{year}"
        yield f"%d{date['s2']}%m{date['s2']}{year}"
    elif date["b3"]:
        for name in ("%b", "%B"):
            yield f"%d{date['s3']}{name}{date['s4']}{year}"
    else:
        for name in ("%b", "%B"):
            yield f"{name}{date['s5']}%d{date['s6']}{year}"


def _clock(time: re.Match[str]) -> str:
    half = "" if not time["half"] else "%P" if time["half"].islower() else "%p"
    pattern = time["joint"] + ("%I:%M" if half else "%H:%M")
    if time["second"]:
        pattern += ":%S"
    if time["fraction"]:
        pattern += f"{time['point']}%f"
    return pattern + (time["blank"] or "") + half


def fitted_pattern(pattern: str, strings: pa.Array) -> str:
    """Return the pattern with the leading zeros, letter case and digits of the second that strings have."""
    if pattern in EPOCHS:
        return pattern
    tokens = _tokens(pattern)
    found = pc.extract_regex(strings, _regex(pattern)).flatten()
    columns = dict(zip([token.directive for token in tokens if token.directive], found, strict=True))
    plain: dict[str, bool | None] = {}
    for directive in ("m", "d", "H", "I"):
        if directive in columns:
            short = int(pc.sum(pc.equal(pc.utf8_length(columns[directive]), 1)).as_py() or 0)
            padded = int(pc.sum(pc.starts_with(columns[directive], "0")).as_py() or 0) if not short else 0
            plain[directive] = None if short == padded == 0 else short > 0
    known = [is_plain for is_plain in plain.values() if is_plain is not None]
    pieces = []
    for token in tokens:
        directive, flag, width = token.directive, token.flag, ""
        if not directive:
            pieces.append(token.literal.replace("%", "%%"))
            continue
        is_plain = plain.get(directive)
        if is_plain or (is_plain is None and directive in plain and known and all(known)):
            flag = "-"
        if directive in ("b", "B") and pc.all(pc.utf8_is_upper(columns[directive])).as_py():
            flag = "^"
        if directive == "f":
            digits = pc.unique(pc.utf8_length(columns["f"])).to_pylist()
            width = str(digits[0]) if len(digits) == 1 and digits[0] not in (0, 6) else ""
        pieces.append(f"%{flag}{width}{directive}")
    return "".join(pieces)


def _find_iso(distinct: pa.Array, indices: np.ndarray) -> Dates | None:
    """Read a mixture of ISO 8601 forms, or one with time zones; times without one are taken as UTC."""
    if not pc.all(pc.match_substring_regex(distinct, _ISO)).as_py():
        return None
    import pandas as pd

    values = pd.to_datetime(distinct.to_pandas(), format="ISO8601", errors="coerce", utc=True)
    if values.isna().any():
        return None
    instants = values.dt.tz_localize(None).astype("datetime64[us]").to_numpy()
    return Dates(_taken(instants, indices), None, utc=True)

"""What strings stand for: numbers, yes/no, dates or strings, for each column of a table that came as text.

A column is one kind throughout. Its numbers are written in one way, its dates by one pattern; otherwise it
stays a column of strings. The patterns of dates travel with the frame, in `DataFrame.attrs`, so that `fit`
can put them into the schema of the model, and dates are written as they were read.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from logistream.errors import DataError, RequestError, listed
from logistream.schema import Kind, Schema
from logistream.tables.dates import EPOCHS, find_dates, fitted_pattern, is_number, names_utc, parse_dates

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "choose_columns",
    "chosen",
    "find_kinds",
    "header_is_data",
    "text_formats",
    "with_text_formats",
]


_FORMATS = "logistream_text_formats"  # key of DataFrame.attrs
_MISSING = ("", "NA", "N/A", "n/a", "nan", "NaN", "NAN", "null", "NULL", "None", "<NA>", "#N/A", "#NA", "NaT")
_MARKS = ("?", "-", "--", "---", ".", "*", "na", "none", "nil", "unknown", "missing", "not available")
_TRUTH = {"true": True, "false": False}
_ANSWERS = _TRUTH | {"yes": True, "no": False, "y": True, "n": False, "1": True, "0": False}
_KINDS: dict[str, Kind] = {kind: kind for kind in get_args(Kind)} | {
    "string": "category",
    "text": "category",
    "bool": "boolean",
    "int": "integer",
    "float": "number",
    "date": "timestamp",
    "datetime": "timestamp",
}
_BLANKS = " '\u2019\u00a0\u202f"  # between thousands
_SIGN, _EXPONENT = r"^[+-]?", r"(?:[eE][+-]?\d+)?$"
_INFINITE = r"^[+-]?[Ii]nf(?:inity)?$"
_INTEGER = r"^[+-]?\d+$"
_NAMED = (631_152_000, 2_524_608_000)  # 1990 to 2050: seconds of a column whose name is of a time
_UNNAMED = (10**9, 2_100_000_000)  # 2001 to 2036: seconds of any other
_FEWEST_EPOCHS = 10  # different numbers that are taken for instants by their range alone
_TIME_WORDS = re.compile(
    "time|timestamp|date|datetime|epoch|unix|ts|at|on|created|updated|modified|seen|started|ended|begin|end"
    "|start|day|when|utc"
)
_DURATION_WORDS = re.compile("duration|elapsed|latency|response|delay|wait|waiting|lead|cycle|took")
_ID_WORDS = re.compile(
    "ids?|no|nr|num|number|code|key|phone|tel|telephone|mobile|fax|account|zip|postal|postcode|sku|ean|upc|isbn"
    "|order|invoice|customer|user|serial|reference|ref|hash"
)
_FEWEST_DATES = 3  # different whole numbers that are all dates, where the name is not of a time
_YEARS = (1900, 2100)


def choose_columns(
    names: Sequence[str],
    *,
    columns: Iterable[str] | None = None,
    drop: Iterable[str] = (),
    types: Mapping[str, str] | None = None,
) -> list[str]:
    """Return the columns to keep, in the order of the table.

    Parameters
    ----------
    names : sequence of str
        All columns.
    columns : iterable of str, optional
        The only ones to keep.
    drop : iterable of str
        Those to leave out.
    types : mapping of str to str, optional
        Checked here, used by `chosen` and `find_kinds`.

    Raises
    ------
    RequestError
        If one of them is not a column, a type is unknown, or no column is left.
    """
    wanted, unwanted = None if columns is None else _as_list(columns), _as_list(drop)
    for name in [*(wanted or []), *unwanted, *(types or {})]:
        if name not in names:
            raise RequestError(f"no column {name!r}; there are {listed(names, name)}")
    for name, kind in (types or {}).items():
        if kind not in _KINDS and "%" not in kind:
            raise RequestError(
                f"the type of {name!r} must be one of {', '.join(get_args(Kind))}, "
                f"or a date pattern such as %d/%m/%Y, not {kind!r}"
            )
    kept = [name for name in names if (wanted is None or name in wanted) and name not in unwanted]
    if not kept:
        raise RequestError("no column is left: keep at least one")
    return kept


def _as_list(names: Iterable[str]) -> list[str]:
    return [names] if isinstance(names, str) else list(names)


def find_kinds(
    frame: pd.DataFrame,
    *,
    separator: str | None = None,
    typed: bool = False,
    whole_dates: bool = True,
    schema: Schema | None = None,
    types: Mapping[str, str] | None = None,
) -> tuple[pd.DataFrame, list[str]]:
    """Return the frame with its columns of strings in the dtypes of what they stand for.

    Parameters
    ----------
    frame : DataFrame of shape (n_rows, n_columns)
        As it was read from a file.
    separator : str or None
        Between the fields of the file; with a semicolon, a comma is the decimal mark if nothing else decides.
    typed : bool
        Whether the file has types of its own: then the string "12" is not a number, though it may be a date.
    whole_dates : bool
        Whether a column of whole numbers may be dates.
    schema : Schema, optional
        What some columns are known to be; values that do not fit are read as if nothing were known.
    types : mapping of str to str, optional
        Kinds or date patterns that the caller requests.

    Returns
    -------
    DataFrame of shape (n_rows, n_columns)
        Whole numbers as int64 (Int64 with gaps), other numbers as float64, yes/no as bool (boolean with
        gaps), dates as datetime64[us], in UTC if they name a time zone, and str.
    list of str
        Sentences on what could be read in two ways, and on marks such as "?" taken for a missing value.

    Raises
    ------
    DataError
        If a column cannot have the requested kind.
    """
    known = {} if schema is None else {c.name: c.text_format or c.kind for c in schema}
    types = types or {}
    reader = _Reader(frame, separator, typed=typed, requested={*types, *known})
    found, formats = {}, {}
    for name in frame.columns:
        values, pattern, strings = frame[name], None, _holds_strings(frame[name])
        if name in types:
            values, pattern = _requested(values, types[name])
        elif name in known and (strings or is_number(known[name])):
            try:
                values, pattern = _requested(values, known[name])
            except DataError:
                values, pattern = reader.read(values) if strings else (values, None)
        elif strings:
            values, pattern = reader.read(values)
        elif name not in known and whole_dates:
            values, pattern = _whole_dates(values, str(name)) or (values, None)
        found[name] = values
        if pattern is not None:
            formats[name] = pattern
    result = pd.DataFrame(found, index=frame.index, columns=frame.columns, copy=False)
    result.attrs = {_FORMATS: formats} if formats else {}
    return result, reader.notes


def chosen(
    frame: pd.DataFrame,
    *,
    columns: Iterable[str] | None = None,
    drop: Iterable[str] = (),
    types: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return the requested columns of a frame in the requested types; see `choose_columns`.

    Raises
    ------
    RequestError
        As `choose_columns`.
    DataError
        If a value of a column is not of its type.
    """
    if columns is None and not drop and not types:
        return frame
    names = choose_columns(list(frame.columns), columns=columns, drop=drop, types=types)
    result, formats = frame[names].copy(deep=False), dict(frame.attrs.get(_FORMATS, {}))
    for name, kind in (types or {}).items():
        if name not in names:
            continue
        result[name], pattern = _requested(frame[name], kind)
        formats.pop(name, None)
        if pattern is not None:
            formats[name] = pattern
    result.attrs = {**frame.attrs, _FORMATS: formats}
    return result


def text_formats(frame: pd.DataFrame) -> dict[str, str]:
    """Return by which pattern the dates of each column were written in the file that was read."""
    formats = frame.attrs.get(_FORMATS, {})
    return {
        name: pattern
        for name, pattern in formats.items()
        if name in frame.columns and pd.api.types.is_datetime64_any_dtype(frame[name].dtype)
    }


def with_text_formats(schema: Schema, frame: pd.DataFrame) -> Schema:
    """Return the schema with the patterns by which the dates of a frame were written."""
    formats = text_formats(frame)
    return Schema(tuple(replace(c, text_format=formats[c.name]) if c.name in formats else c for c in schema))


def header_is_data(header: Sequence[str], frame: pd.DataFrame) -> bool | None:
    """Return whether the first row of a file holds values and not the names of the columns.

    Parameters
    ----------
    header : sequence of str
        The first row.
    frame : DataFrame of strings of shape (n_rows, n_columns)
        The others.

    Returns
    -------
    bool or None
        None if it looks so, but a name occurs among no other values of its column.
    """
    first = [name.strip() for name in header]
    plausible = any(_is_quantity(pa.array([name])) for name in first)
    if not plausible or len(header) != len(frame.columns) or frame.empty:
        return False
    columns = [_Coded(frame.iloc[:, position]).distinct for position in range(len(header))]
    cells = [(name, strings) for name, strings in zip(first, columns, strict=True) if not _is_gap(name)]
    quantities = [name for name, strings in cells if _is_quantity(strings)]
    if not quantities or not all(_is_quantity(pa.array([name])) for name in quantities):
        return False
    if _is_series(quantities):
        return False
    others = [(name, strings) for name, strings in cells if not _is_quantity(strings)]
    return True if all(pc.any(pc.equal(strings, name)).as_py() for name, strings in others) else None


def _is_gap(text: str) -> bool:
    return text in _MISSING or text.lower() in _MARKS


def _is_quantity(strings: pa.Array) -> bool:
    """Return whether all strings are numbers, dates or yes/no."""
    return _style(strings, _STYLES) is not None or find_dates(strings) is not None or _are_booleans(strings)


def _are_booleans(strings: pa.Array) -> bool:
    return len(strings) > 0 and set(pc.utf8_lower(strings).to_pylist()) <= set(_TRUTH)


def _is_series(names: list[str]) -> bool:
    """Return whether names are whole numbers in equal steps, as those of years or positions are."""
    if not all(name.isdecimal() for name in names):
        return False
    if len(names) == 1:
        return _YEARS[0] <= int(names[0]) <= _YEARS[1]
    steps = {int(b) - int(a) for a, b in itertools.pairwise(names)}
    return len(steps) == 1 and steps.pop() > 0


def _holds_strings(values: pd.Series[Any]) -> bool:
    """Return whether a column holds strings, perhaps beside numbers; a category is left as it is."""
    if isinstance(values.dtype, pd.CategoricalDtype) or not (
        pd.api.types.is_string_dtype(values.dtype) or pd.api.types.is_object_dtype(values.dtype)
    ):
        return False
    if pd.api.types.is_string_dtype(values.dtype) and not pd.api.types.is_object_dtype(values.dtype):
        return bool(values.notna().any())
    kinds = set(map(type, values.dropna()))
    return str in kinds and kinds <= {str, int, float}


# Numbers


class _Style:
    """A way to write numbers: which characters stand between thousands, and which is the decimal mark."""

    def __init__(self, thousands: str, mark: str) -> None:
        self.thousands, self.mark = thousands, mark
        point = re.escape(mark)
        plain = rf"(?:\d+{point}?\d*|{point}\d+)"
        if thousands:
            between = f"[{re.escape(thousands)}]"
            plain = rf"(?:[1-9]\d{{0,2}}(?:{between}\d{{3}})+(?:{point}\d*)?|{plain})"
        self.regex = _SIGN + plain + _EXPONENT

    def plain(self, strings: pa.Array) -> pa.Array:
        """Return the strings without what stands between thousands, and with a point for the mark."""
        if self.thousands:
            strings = pc.replace_substring_regex(strings, f"[{re.escape(self.thousands)}]", "")
        return pc.replace_substring(strings, self.mark, ".") if self.mark != "." else strings


_POINT = (_Style("", "."), _Style(",", "."), _Style(_BLANKS, "."))
_COMMA = (_Style("", ","), _Style(".", ","), _Style(_BLANKS, ","))
_STYLES = (*_POINT[:1], *_COMMA[:1], *_POINT[1:], *_COMMA[1:])


def _style(strings: pa.Array, styles: Iterable[_Style]) -> _Style | None:
    """Return the first style in which all strings are numbers."""
    finite = strings.filter(pc.invert(pc.match_substring_regex(strings, _INFINITE)))
    if not len(finite):
        return None
    return next((style for style in styles if _all_match(finite, style.regex)), None)


def _all_match(strings: pa.Array, regex: str) -> bool:
    head = strings.slice(0, 20)
    return bool(
        pc.all(pc.match_substring_regex(head, regex)).as_py()
        and (len(strings) == len(head) or pc.all(pc.match_substring_regex(strings, regex)).as_py())
    )


class _Reader:
    """Reads the columns of strings of one file, in which numbers and dates follow one habit."""

    def __init__(
        self, frame: pd.DataFrame, separator: str | None, *, typed: bool, requested: set[str]
    ) -> None:
        self.notes: list[str] = []
        self._typed = typed
        self._semicolon = separator == ";"
        self._coded = {name: _Coded(frame[name]) for name in frame.columns if _holds_strings(frame[name])}
        evidence = [coded.distinct for name, coded in self._coded.items() if name not in requested]
        self._mark = None if typed else _decimal_mark(evidence)
        self._day_first = _day_first(evidence)

    def read(self, values: pd.Series[Any]) -> tuple[pd.Series[Any], str | None]:
        """Return a column in its kind, and the pattern of its dates."""
        name = str(values.name)
        coded = self._coded[name]
        if not len(coded.distinct):
            return pd.Series(np.nan, index=values.index, name=values.name), None
        if not self._typed:
            if _are_booleans(coded.distinct):
                return coded.booleans(_TRUTH), None
            style = self._number_style(name, coded.distinct)
            if style is not None:
                self._note_marks(name, coded)
                numbers = coded.numbers(style)
                return _whole_dates(numbers, name) or (numbers, None)
        swap = self._mark == "," or self._semicolon
        dates = find_dates(coded.strings, day_first=swap if self._day_first is None else self._day_first)
        if dates is None:
            return (values if self._typed else coded.as_strings()), None
        self._note_marks(name, coded)
        if dates.doubtful and self._day_first is None:
            self.notes.append(
                f"column {name!r}: the order of day and month is not certain in dates such as "
                f"{coded.distinct[0].as_py()!r}; they were read as {dates.pattern}, and could be "
                f"{dates.alternative}: give that as the type of the column if so"
            )
        return coded.instants(dates.values, utc=dates.utc), dates.pattern

    def _number_style(self, name: str, strings: pa.Array) -> _Style | None:
        """Return how the numbers of a column are written; None if it holds other strings, or codes."""
        if self._mark is None:
            styles = _STYLES if self._semicolon else (*_POINT, *_COMMA)
        else:
            styles = (*_COMMA, *_POINT) if self._mark == "," else (*_POINT, *_COMMA)
        style = _style(strings, styles)
        if style is None or _are_codes(strings):
            return None
        other = _style(strings, _POINT if style in _COMMA else _COMMA)
        if self._mark is None and style is not _POINT[0] and other is not None:
            written, otherwise = style.plain(strings)[0].as_py(), other.plain(strings)[0].as_py()
            if written != otherwise:
                self.notes.append(
                    f"column {name!r}: {strings[0].as_py()!r} was read as {written}, and could be {otherwise}"
                )
        return style

    def _note_marks(self, name: str, coded: _Coded) -> None:
        if coded.marks:
            marks = ", ".join(map(repr, coded.marks))
            self.notes.append(f"column {name!r}: {marks} was read as a missing value")


def _decimal_mark(columns: Iterable[pa.Array]) -> str | None:
    """Return the decimal mark of most columns in which only one is possible; None if there are none."""
    votes = 0
    for strings in columns:
        votes += (_style(strings, _POINT) is not None) - (_style(strings, _COMMA) is not None)
    return None if votes == 0 else "." if votes > 0 else ","


def _day_first(columns: Iterable[pa.Array]) -> bool | None:
    """Return whether dates of which the order is certain begin with the day; None if they differ."""
    found = [find_dates(strings) for strings in columns]
    orders = {
        re.match("%-?d", dates.pattern) is not None
        for dates in found
        if dates and dates.pattern and not dates.doubtful and re.match("%-?[md][^%]%-?[md]", dates.pattern)
    }
    return orders.pop() if len(orders) == 1 else None


class _Coded:
    """A column of strings, coded: its different strings without blanks around, and which each row has.

    Attributes
    ----------
    strings : pyarrow.StringArray of length n_rows
        Null for a missing value, and for a mark such as "?" that may stand for one.
    marks : list of str
        Those that occur.
    distinct : pyarrow.StringArray
        The different strings.
    """

    def __init__(self, values: pd.Series[Any]) -> None:
        self._values = values
        self._trimmed = _as_strings(values)
        is_mark = pc.is_in(pc.utf8_lower(self._trimmed), pa.array(_MARKS))
        self.marks: list[str] = pc.unique(self._trimmed.filter(is_mark)).to_pylist()
        self.strings = pc.if_else(is_mark, None, self._trimmed) if self.marks else self._trimmed
        coded = self.strings.dictionary_encode()
        self.distinct = coded.dictionary
        self._codes = np.asarray(pc.fill_null(coded.indices, -1)).astype(np.int64)
        self._missing = self._codes < 0

    def as_strings(self) -> pd.Series[Any]:
        """Return the column as strings; a mark is a value like any other."""
        return self._values.astype("str").mask(np.asarray(pc.is_null(self._trimmed)))

    def booleans(self, truth: Mapping[str, bool]) -> pd.Series[Any]:
        """Return the column as yes/no."""
        flags = np.array([*(truth[text.lower()] for text in self.distinct.to_pylist()), False], bool)
        array: Any = flags[self._codes]
        if self._missing.any():
            array = pd.arrays.BooleanArray(array, self._missing)
        return self._series(array)

    def numbers(self, style: _Style) -> pd.Series[Any]:
        """Return the column as numbers; as objects if whole numbers are beyond 64 bits."""
        distinct = style.plain(self.distinct)
        if not _all_match(distinct, _INTEGER):
            return self._series(np.array([*map(float, distinct.to_pylist()), np.nan])[self._codes])
        integers = [int(text) for text in distinct.to_pylist()]
        if not all(-(2**63) <= number < 2**63 for number in integers):
            return self._series(np.array([*integers, None], object)[self._codes])
        array: Any = np.array([*integers, 0], np.int64)[self._codes]
        if self._missing.any():
            array = pd.arrays.IntegerArray(array, self._missing)
        return self._series(array)

    def instants(self, instants: np.ndarray, *, utc: bool) -> pd.Series[Any]:
        """Return instants, one for each row, as this column."""
        series = self._series(instants)
        return series.dt.tz_localize("UTC") if utc else series

    def _series(self, array: Any) -> pd.Series[Any]:  # noqa: ANN401 - arrays of several libraries
        return pd.Series(array, index=self._values.index, name=self._values.name)


def _are_codes(strings: pa.Array) -> bool:
    """Return whether digits are a code, such as a ZIP code or a telephone number, that is not a quantity."""
    zeros = pc.any(pc.match_substring_regex(strings, r"^0\d+$")).as_py()
    return bool(zeros or pc.all(pc.match_substring_regex(strings, r"^\+\d+$")).as_py())


def _as_strings(values: pd.Series[Any]) -> pa.Array:
    """Return values as strings without blanks around, null where missing."""
    strings = pa.array(values.astype("str").where(values.notna()), pa.string(), from_pandas=True)
    if isinstance(strings, pa.ChunkedArray):
        strings = strings.combine_chunks()
    strings = pc.utf8_trim_whitespace(strings)
    return pc.if_else(pc.is_in(strings, pa.array(_MISSING)), None, strings)


# Whole numbers that are dates


def _whole_dates(values: pd.Series[Any], name: str) -> tuple[pd.Series[Any], str] | None:
    """Return whole numbers as dates, and their pattern, if that is what they are."""
    if not pd.api.types.is_integer_dtype(values.dtype):
        return None
    known = np.unique(values.dropna().to_numpy(np.int64))
    if not len(known):
        return None
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)]
    named = any(map(_TIME_WORDS.fullmatch, words)) and not any(map(_DURATION_WORDS.fullmatch, words))
    pattern = _calendar_pattern(known, named=named) or _epoch_pattern(
        known, named=named, identifier=any(map(_ID_WORDS.fullmatch, words))
    )
    if pattern is None:
        return None
    strings = pa.array(values.astype("Int64")).cast(pa.string())
    instants = pd.Series(parse_dates(strings, pattern), index=values.index, name=values.name)
    return (instants.dt.tz_localize("UTC") if pattern in EPOCHS else instants), pattern


def _calendar_pattern(known: np.ndarray, *, named: bool) -> str | None:
    """Return the pattern of different numbers that are all days, as 20260331, or times of one."""
    digits = len(str(known[0]))
    pattern = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}.get(digits)
    if pattern is None or not (named or len(known) >= _FEWEST_DATES):
        return None
    years = known[[0, -1]] // 10 ** (digits - 4)
    if years[0] < _YEARS[0] or years[1] > _YEARS[1]:
        return None
    exist = parse_dates(pa.array(known).cast(pa.string()), pattern)
    return None if np.isnat(exist).any() else pattern


def _epoch_pattern(known: np.ndarray, *, named: bool, identifier: bool) -> str | None:
    """Return the pattern of different numbers that count from 1970, if the name or the range says so."""
    first, last = _NAMED if named else _UNNAMED
    for pattern, micros in EPOCHS.items():
        unit = round(1_000_000 / micros)  # of them a second has
        if first * unit <= known[0] and known[-1] < last * unit:
            # consecutive numbers count something else
            spread = len(known) >= _FEWEST_EPOCHS and np.median(np.diff(known)) > 1
            return pattern if named or (spread and not identifier) else None
    return None


# Kinds that the caller requests


def _requested(values: pd.Series[Any], kind: str) -> tuple[pd.Series[Any], str | None]:
    """Return a column as the requested kind or by the date pattern given, and the pattern of its dates."""
    wanted = "timestamp" if "%" in kind else _KINDS[kind]
    if wanted == "timestamp":
        return _requested_dates(values, kind if "%" in kind else None)
    if wanted == "category":
        category = isinstance(values.dtype, pd.CategoricalDtype)
        return (values if category else _Coded(values).as_strings()), None
    if wanted == "boolean" and pd.api.types.is_bool_dtype(values.dtype):
        return values, None
    coded = _Coded(values)
    if wanted == "boolean":
        wrong = pc.invert(pc.is_in(pc.utf8_lower(coded.strings), pa.array([*_ANSWERS, None])))
        _check(coded.strings, wrong, values, "true and false")
        return coded.booleans(_ANSWERS), None
    style = _style(coded.distinct, _STYLES)
    if style is None:
        wrong = pc.invert(pc.match_substring_regex(coded.strings, f"{_POINT[1].regex}|{_INFINITE}"))
        _check(coded.strings, wrong, values, "numbers")
        raise DataError(f"column {values.name!r} should hold numbers, and has none")
    numbers = coded.numbers(style)
    if wanted == "number":
        return numbers.astype("float64"), None
    if pd.api.types.is_float_dtype(numbers.dtype):
        floats = numbers.to_numpy(np.float64)
        _check(coded.strings, pa.array(floats != np.rint(floats)), values, "whole numbers")
        numbers = numbers.astype("Int64" if numbers.isna().any() else "int64")
    return numbers, None


def _requested_dates(values: pd.Series[Any], pattern: str | None) -> tuple[pd.Series[Any], str | None]:
    """Return a column as dates, by the pattern if there is one."""
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        return values, pattern
    coded = _Coded(values)
    if pattern is not None:
        instants = parse_dates(coded.strings, pattern)
        _check(coded.strings, pa.array(np.isnat(instants)), values, f"dates written as {pattern}")
        utc = pattern in EPOCHS or names_utc(pattern)
        return coded.instants(instants, utc=utc), fitted_pattern(pattern, coded.distinct)
    dates = find_dates(coded.strings)
    if dates is not None:
        return coded.instants(dates.values, utc=dates.utc), dates.pattern
    if len(coded.distinct) and _all_match(coded.distinct, _INTEGER):
        found = _whole_dates(coded.numbers(_POINT[0]), "time")
        if found is not None:
            return found
    example = coded.distinct[0].as_py() if len(coded.distinct) else ""
    raise DataError(
        f"column {values.name!r} should hold dates, but they have no usual form in common, as {example!r}: "
        f"give their pattern, such as %d/%m/%Y"
    )


def _check(strings: pa.Array, wrong: pa.Array, values: pd.Series[Any], expected: str) -> None:
    """Raise the error that names the first wrong value, if there is one; a missing value is never wrong."""
    wrong = pc.and_(pc.fill_null(wrong, False), pc.is_valid(strings))
    if pc.any(wrong).as_py():
        row = pc.index(wrong, True).as_py()
        raise DataError(
            f"column {values.name!r} should hold {expected}, but row {row + 1:,} has {strings[row].as_py()!r}"
        )

"""Strings from tables: what is written again and again is looked up.

Numbers of few decimals and times are written in parts, such as whole number and fraction, or day and time of
day. Each part is an index into a table of strings, which hardly ever changes.
"""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from logistream.tables.dates import EPOCHS, write_dates
from logistream.times import DAY, MINUTE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

__all__ = ["Coded", "DateParts", "Decimals", "Joiner", "Lookup", "concat", "time_of_day"]


_DAY = DAY // MINUTE  # minutes
_ENOUGH = 256  # rows for which a table is made
_WIDEST = 16_384  # strings of a table that is made for numbers, or with a scalar
_FARTHEST = 1 << 62  # numbers from which on the end of a range may be no int64
_JOINED, _JOINED_BYTES = 8192, 1 << 20  # strings, and their size, at most, of a table made of two
_KEPT = 128  # tables made of two, or that two are too large for it
_LARGEST = 1e15  # decimals of fifteen digits differ as floats: the shortest that reads back is this one
_OPTIONS = pc.TakeOptions()
_NEXT = {2: 4, 4: 8, 8: 0}  # decimals to try, and those to try then


class Coded(NamedTuple):
    """One string for each row, as an index into a table.

    Attributes
    ----------
    table : pyarrow.StringArray
        Strings without missing values.
    codes : ndarray of int, shape (n_rows,)
        Indices into the table.
    """

    table: pa.Array
    codes: NDArray[np.integer]

    def strings(self) -> pa.Array:
        """Return the strings, one for each row."""
        return pc.call_function("array_take", [self.table, pa.array(self.codes)], _OPTIONS)


def concat(pieces: Iterable[pa.Array | pa.Scalar]) -> pa.Array:
    """Concatenate strings row by row; a row with a missing piece is missing."""
    first, *others = pieces
    return pc.binary_join_element_wise(first, *others, "") if others else first


class Joiner:
    """Concatenates strings row by row; those of small tables side by side are looked up together.

    A table of all combinations is made once for two tables, and found again by their identity.
    """

    def __init__(self) -> None:
        self._tables: dict[tuple[int, int], tuple[pa.Array, pa.Array | pa.Scalar, pa.Array | None]] = {}

    def join(self, pieces: Iterable[Coded | pa.Array | pa.Scalar]) -> pa.Array:
        """Return the concatenation of all pieces, of which one at least is no scalar."""
        joined: list[Coded | pa.Array | pa.Scalar] = []
        for piece in pieces:
            last = joined[-1] if joined else None
            if isinstance(last, Coded) and not isinstance(piece, pa.Array) and len(last.codes) >= _ENOUGH:
                table = self._table(last.table, piece.table if isinstance(piece, Coded) else piece)
                if table is not None:
                    codes = last.codes
                    if isinstance(piece, Coded):
                        codes = codes.astype(np.int32) * len(piece.table) + piece.codes
                    joined[-1] = Coded(table, codes)
                    continue
            joined.append(piece)
        return concat(piece.strings() if isinstance(piece, Coded) else piece for piece in joined)

    def _table(self, one: pa.Array, other: pa.Array | pa.Scalar) -> pa.Array | None:
        """Return each string of a table with each of another one or a scalar; None if they are many."""
        key = id(one), id(other)
        if key not in self._tables:
            if len(self._tables) >= _KEPT:
                self._tables.clear()
            # Both are kept, so that nothing else gets their identity.
            self._tables[key] = one, other, _combinations(one, other)
        return self._tables[key][2]


def _combinations(one: pa.Array, other: pa.Array | pa.Scalar) -> pa.Array | None:
    if isinstance(other, pa.Scalar):
        return concat([one, other]) if len(one) <= _WIDEST else None
    size = len(one) * len(other)
    if size > _JOINED or one.nbytes * len(other) + other.nbytes * len(one) > _JOINED_BYTES:
        return None
    first, second = np.repeat(np.arange(len(one)), len(other)), np.tile(np.arange(len(other)), len(one))
    return concat([one.take(pa.array(first)), other.take(pa.array(second))])


class Lookup:
    """Strings of consecutive whole numbers, in a table that grows as they come.

    Parameters
    ----------
    write : callable
        Takes numbers, ndarray of int64, and returns their strings.
    """

    def __init__(self, write: Callable[[NDArray[np.int64]], pa.Array]) -> None:
        self._write = write
        self._first = self._stop = 0
        self._table: pa.Array | None = None

    def coded(self, numbers: NDArray[np.int64], widest: float = _WIDEST) -> Coded | None:
        """Return numbers as indices into the table; None if there are too few for their range.

        Parameters
        ----------
        numbers : ndarray of int64, shape (n,)
        widest : float
            How many strings a table may be made for.
        """
        if not len(numbers):
            return None
        first, stop = int(numbers.min()), int(numbers.max()) + 1
        if self._table is None or first < self._first or stop > self._stop:
            if stop - first > widest or len(numbers) < _ENOUGH or max(-first, stop) > _FARTHEST:
                return None
            self._grow(first, stop)
        return Coded(self._table, (numbers - self._first).astype(np.int32))

    def _grow(self, first: int, stop: int) -> None:
        """Make a table of a range and of what it had, and half as much more where the range grew."""
        if self._table is not None and max(stop, self._stop) - min(first, self._first) <= _WIDEST:
            margin = (self._stop - self._first) // 2
            first = self._first if first >= self._first else first - margin
            stop = self._stop if stop <= self._stop else stop + margin
        self._table = self._write(np.arange(first, stop))
        self._first, self._stop = first, stop


class Decimals:
    """Writes floats that are multiples of .01, .0001 or .00000001 as Python does.

    Parameters
    ----------
    before : str
        Put before each number.
    """

    def __init__(self, before: str) -> None:
        self._before = before
        self._whole = Lookup(self._write)
        self._digits = 2

    def coded(self, values: NDArray[np.float64]) -> list[Coded] | None:
        """Return whole numbers and fractions; None if the numbers are of another kind.

        Parameters
        ----------
        values : ndarray of float64, shape (n,)
            Finite.
        """
        if len(values) < _ENOUGH:
            return None
        size = np.abs(values)
        largest = size.max()
        while True:
            if not self._digits or largest >= _LARGEST / 10**self._digits:
                return None
            scaled = np.rint(size * 10**self._digits)
            if (scaled / 10**self._digits == size).all():
                break
            self._digits = _NEXT[self._digits]
        if not size.all() and np.signbit(values[size == 0]).any():
            return None  # -0.0
        if self._digits > 4 and ((size < 1e-4) & (size > 0)).any():
            return None  # written with an exponent
        units = scaled.astype(np.int64)
        whole = units // 10**self._digits
        fraction = units - whole * 10**self._digits
        negative = values < 0
        coded = self._whole.coded(np.where(negative, ~whole, whole))
        return None if coded is None else [coded, *_fractions(fraction, self._digits)]

    def _write(self, numbers: NDArray[np.int64]) -> pa.Array:
        """Write whole numbers from 0 on; -1 stands for minus zero, -2 for minus one, and so on."""
        signs = pa.array(np.where(numbers < 0, f"{self._before}-", self._before))
        return concat([signs, pa.array(np.where(numbers < 0, ~numbers, numbers)).cast(pa.string())])


def _fractions(fraction: NDArray[np.int64], digits: int) -> list[Coded]:
    """Return the point and what stands behind it, without zeros at the end but at least one digit."""
    if digits <= 4:
        return [Coded(_ends(digits, "."), fraction)]
    high = fraction // 10_000
    low = fraction - high * 10_000
    return [Coded(_ends_and_middles(), high + 10_000 * (low > 0)), Coded(_ends(4, ""), low)]


# When they are first needed: `pa.array` imports pandas, which a reader of a stream can do without.


def _digits(count: int) -> pa.Array:
    """Return all numbers of so many digits, with leading zeros."""
    return pc.utf8_lpad(pa.array(np.arange(10**count)).cast(pa.string()), width=count, padding="0")


@functools.cache
def _ends(digits: int, before: str) -> pa.Array:
    """Return how a fraction ends, without zeros at its end."""
    ends = concat([pa.scalar(before), pc.utf8_rtrim(_digits(digits), characters="0")])
    return pc.if_else(pc.equal(ends, "."), ".0", ends)


@functools.cache
def _ends_and_middles() -> pa.Array:
    """Return how a fraction of eight digits begins, if zeros follow and if others do."""
    return pa.concat_arrays([_ends(4, "."), concat([pa.scalar("."), _digits(4)])])


class DateParts:
    """Writes times by a pattern with the date first: the date, then the minutes of the day, if it has them.

    Parameters
    ----------
    pattern : str
        Of `logistream.tables.dates`.
    mark : str
        Before and after each time.
    before : str
        Put before each.
    """

    def __init__(self, pattern: str, mark: str, before: str) -> None:
        found = (
            None if pattern in EPOCHS or re.search(r'[",\\\x00-\x1f]', pattern) else _SPLIT.fullmatch(pattern)
        )
        self._days: Lookup | None = None
        self._minutes: pa.Array | None = None
        if found is None:
            return
        date, time = found["date"], found["time"]
        after = "" if time else mark

        def days(numbers: NDArray[np.int64]) -> pa.Array:
            written = write_dates(numbers.astype("datetime64[D]").astype("datetime64[us]"), date)
            return concat([pa.scalar(f"{before}{mark}"), written, pa.scalar(after)])

        self._days = Lookup(days)
        if time:
            minutes = np.arange(_DAY).astype("datetime64[m]").astype("datetime64[us]")
            self._minutes = concat([write_dates(minutes, time), pa.scalar(mark)])

    def coded(self, micros: NDArray[np.int64]) -> list[Coded] | None:
        """Return dates and minutes of microseconds since 1970; None if it has no tables for them."""
        if self._days is None:
            return None
        minutes = micros // MINUTE
        days = minutes // _DAY
        coded = self._days.coded(days)
        if coded is None or self._minutes is None:
            return None if coded is None else [coded]
        return [coded, Coded(self._minutes, minutes - days * _DAY)]


_SPLIT = re.compile(
    r"(?P<date>(?:[^%]|%%|%[-^]?[YymdbB])*%[-^]?[YymdbB](?:[^%]|%%)*)(?P<time>(?:%[-^]?[HIMpP](?:[^%]|%%)*)*)"
)


def time_of_day(within: NDArray[np.int64], mark: str) -> list[Coded]:
    """Return what follows the minutes of a time in RFC 3339.

    Parameters
    ----------
    within : ndarray of int64, shape (n,)
        Microseconds since the minute began.
    mark : str
        Behind each.
    """
    parts = within // 10_000
    return [Coded(_cents(), parts), Coded(_last_digits(f"Z{mark}"), within - parts * 10_000)]


@functools.cache
def _cents() -> pa.Array:
    seconds, parts = _digits(2).slice(0, 60), _digits(2)
    first, second = np.repeat(np.arange(60), 100), np.tile(np.arange(100), 60)
    return concat([seconds.take(pa.array(first)), pa.scalar("."), parts.take(pa.array(second))])


@functools.cache
def _last_digits(after: str) -> pa.Array:
    return concat([_digits(4), pa.scalar(after)])

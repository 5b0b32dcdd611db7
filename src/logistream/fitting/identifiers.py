"""Strings that name a single row: invented, so that no real one is in a model.

A column in which nearly every row has a string of its own (a registration, a name, an address) names the
rows. What `SMALLEST_GROUP` strings have in common, their beginnings and endings, stays; what lies between is
drawn, a digit for a digit and a letter for a letter. So "N613DL" becomes "N648DL". Invented strings lie in
ranges of the alphabet, as numbers do, so what depends on how a string begins still does.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from logistream.fitting.coding import SMALLEST_GROUP, Coded, code_column, code_multiples, over_all_rows
from logistream.model.network import Emission
from logistream.model.random_bits import uniforms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from logistream.fitting.columns import Values

__all__ = ["Inventor", "code_strings"]


_LEAST_ROWS = 100  # fewer are no evidence
_NEARLY_ALL = 0.95  # of the rows have a string of their own
_TRIES = 30
_TRIES_WITHIN = 20  # the first of them
_LEAST_REDRAWN = 2  # characters
_INVENTED = 2**14  # strings, in all, for a column in which each is of one row: so many that few repeat
_MOST_LETTERS = 10**6  # in them


def code_strings(values: Values) -> tuple[Coded, tuple[str, ...]]:
    """Return a category column as a discrete variable, and the closed set of strings that it gives."""
    counts = np.bincount(values.known, minlength=len(values.strings))
    rows = len(values.known)
    if rows < _LEAST_ROWS or (counts == 1).sum() < _NEARLY_ALL * rows:
        return code_column(values), values.strings
    order = sorted(np.flatnonzero(counts).tolist(), key=values.strings.__getitem__)
    rank = np.zeros(len(counts), np.int64)
    rank[order] = np.arange(len(order))
    strings = [values.strings[i] for i in order]
    coded, invented = _invented_ranges(rank[values.known], values.column.name, strings)
    return over_all_rows(coded, values.missing), invented


def _invented_ranges(ranks: np.ndarray, name: str, strings: list[str]) -> tuple[Coded, tuple[str, ...]]:
    """Return ranges of the alphabet as a variable, and the invented strings, of which each range has some."""
    ranges = code_multiples(name, ranks, (1, 1), instant=False)
    (emission,) = ranges.emissions
    letters = max(sum(map(len, strings)) / len(strings), 1)
    each = math.ceil(min(_INVENTED, _MOST_LETTERS / letters) / len(emission.low))
    inventor = Inventor(strings)
    invented: list[str] = []
    low, high = [], []
    for first, last in zip(emission.low.tolist(), emission.last.tolist(), strict=True):
        ends = strings[first], strings[last]
        new = {inventor.like(strings[first + i % (last - first + 1)], ends) for i in range(each)} - {None}
        low.append(len(invented) if new else max(len(invented) - 1, 0))
        invented += sorted(string for string in new if string is not None)
        high.append(max(len(invented) - 1, 0))
    if not invented:  # no room for any other string: these name nothing
        return replace(ranges, emissions=(emission,)), tuple(strings)
    emission = Emission(name, np.array(low), np.array(high), (1, 1))
    return replace(ranges, emissions=(emission,)), tuple(invented)


class Inventor:
    """Makes strings that look like others and are none of them.

    Parameters
    ----------
    strings : sequence of str
        The real ones, each once.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._taken = set(strings)
        self._starts = Counter(string[:i] for string in strings for i in range(1, len(string) + 1))
        self._ends = Counter(string[i:] for string in strings for i in range(len(string)))
        after: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for string in strings:
            for before, letter in zip(("", *string), string, strict=False):
                after[before, _letter_class(letter)][letter] += 1
                after["any", _letter_class(letter)][letter] += 1
        for (_, kind), found in after.items():
            if kind == "digit":
                found.update(map(str, range(10)))  # any digit may come, once in so many
        self._after = {key: (list(found), np.cumsum(list(found.values()))) for key, found in after.items()}
        self._bits = np.random.Philox(0)
        self._ready: list[float] = []

    def like(self, string: str, ends: tuple[str, str] | None = None) -> str | None:
        """Return a new string that looks like this one, None if none is found; the same one never twice.

        Parameters
        ----------
        string : str
            One of the real ones.
        ends : tuple of (str, str), optional
            The first and the last string of the part of the alphabet in which the new one should lie, if
            there is room.
        """
        n = len(string)
        start = next((i for i in range(n, 0, -1) if self._starts[string[:i]] >= SMALLEST_GROUP), 0)
        if ends is not None:  # what the strings of that part have in common, which are as many
            start = max(start, _common_start(*ends))
        end = next((i for i in range(start, n) if self._ends[string[i:]] >= SMALLEST_GROUP), n)
        open_places = [i for i in range(start, end) if _letter_class(string[i])]
        for i in (*range(start - 1, -1, -1), *range(end, n)):  # nearly all is common: some of it goes as well
            if len(open_places) < _LEAST_REDRAWN and _letter_class(string[i]):
                open_places.append(i)
        for number in range(_TRIES):
            letters = list(string)
            for i in sorted(open_places):
                letters[i] = self._drawn(letters[i - 1] if i else "", _letter_class(string[i]))
            new = "".join(letters)
            within = ends is None or ends[0] <= new <= ends[1] or number >= _TRIES_WITHIN
            if within and new not in self._taken:
                self._taken.add(new)
                return new
        return None

    def _drawn(self, before: str, kind: str) -> str:
        """Return a letter or digit, as often as it follows the one before."""
        found, behind = self._after.get((before, kind)) or self._after["any", kind]
        return found[int(np.searchsorted(behind, self._below(int(behind[-1])), side="right"))]

    def _below(self, limit: int) -> int:
        if not self._ready:
            self._ready = uniforms(self._bits, 4096).tolist()
        return int(self._ready.pop() * limit)


def _common_start(one: str, other: str) -> int:
    """Return with how many letters two strings begin alike."""
    return next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def _letter_class(letter: str) -> str:
    """Return the class of letters that may replace this one, an empty string for a sign that stays."""
    if letter.isdigit():
        return "digit"
    if letter.isalpha():
        return "upper" if letter.isupper() else "lower"
    return ""

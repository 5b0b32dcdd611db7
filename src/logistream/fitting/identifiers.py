"""Texts that name a single row: made up anew, so that no real one is in a model.

A column in which nearly every row has a text of its own (a registration, a name, an address) names the rows.
What is common to `SMALLEST_GROUP` texts, their beginnings and endings, stays; what lies between is drawn
anew, a digit for a digit and a letter for a letter. So "N613DL" becomes "N648DL". Texts that nobody has seen
are also what further real rows hold. They lie in ranges of the alphabet, as numbers do, so that what depends
on how a text begins still does.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from logistream.fitting.coding import SMALLEST_GROUP, Coded, code_column, code_multiples, over_all_rows
from logistream.model.network import Emission

if TYPE_CHECKING:
    from collections.abc import Sequence

    from logistream.schema import Column

__all__ = ["Inventor", "code_texts"]


_LEAST_ROWS = 100  # fewer do not tell
_NEARLY_ALL = 0.95  # of the rows have a text of their own
_TRIES = 30
_TRIES_WITHIN = 20  # the first of them
_LEAST_REDRAWN = 2  # characters
_INVENTED = 2**14  # texts, in all, for a column in which each is of one row: so many that few are drawn twice
_MOST_LETTERS = 10**6  # in them


def code_texts(values: pd.Series, column: Column, categories: Sequence[str]) -> tuple[Coded, tuple[str, ...]]:
    """Return a column of texts as a discrete variable, and the closed set of texts that it gives.

    Parameters
    ----------
    values : Series of shape (n_rows,)
        Texts.
    column : Column
        What it is.
    categories : sequence of str
        The closed set of texts of the table.
    """
    empty = values.isna().to_numpy()
    known = values[~empty].astype("str")
    texts, counts = np.unique(known.to_numpy(dtype=object), return_counts=True)
    rows = len(known)
    if rows >= _LEAST_ROWS and (counts == 1).sum() >= _NEARLY_ALL * rows:
        coded, invented = _lots_of(known, column.name, texts.tolist())
        return over_all_rows(coded, empty), invented
    return code_column(values, column, categories), tuple(categories)


def _lots_of(known: pd.Series, name: str, texts: list[str]) -> tuple[Coded, tuple[str, ...]]:
    """Return texts as ranges of the alphabet, and invented texts, of which each range gives some."""
    ranges = code_multiples(name, pd.Index(texts).get_indexer(pd.Index(known)), (1, 1), instant=False)
    (emission,) = ranges.emissions
    firsts, lasts = emission.low, emission.low if emission.high is None else emission.high
    letters = max(sum(map(len, texts)) / len(texts), 1)
    each = math.ceil(min(_INVENTED, _MOST_LETTERS / letters) / len(firsts))
    inventor = Inventor(texts)
    invented: list[str] = []
    low, high = [], []
    for first, last in zip(firsts.tolist(), lasts.tolist(), strict=True):
        ends = texts[first], texts[last]
        made = {inventor.like(texts[first + i % (last - first + 1)], ends) for i in range(each)} - {None}
        low.append(len(invented) if made else max(len(invented) - 1, 0))
        invented += sorted(text for text in made if text is not None)
        high.append(max(len(invented) - 1, 0))
    if not invented:  # no room for any other text: these name nothing
        return replace(ranges, emissions=(emission,)), tuple(texts)
    emission = Emission(name, np.array(low), np.array(high), (1, 1))
    return replace(ranges, emissions=(emission,)), tuple(invented)


class Inventor:
    """Makes texts that look like others and are none of them.

    Parameters
    ----------
    texts : sequence of str
        The real ones, each once.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self._taken = set(texts)
        self._starts = Counter(text[:i] for text in texts for i in range(1, len(text) + 1))
        self._ends = Counter(text[i:] for text in texts for i in range(len(text)))
        after: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for text in texts:
            for before, letter in zip(("", *text), text, strict=False):
                after[before, _sort(letter)][letter] += 1
                after["any", _sort(letter)][letter] += 1
        for (_, sort), found in after.items():
            if sort == "digit":
                found.update(map(str, range(10)))  # any digit may come, once in so many
        self._after = {key: (list(found), np.cumsum(list(found.values()))) for key, found in after.items()}
        self._bits = np.random.Philox(0)
        self._ready: list[float] = []

    def like(self, text: str, ends: tuple[str, str] | None = None) -> str | None:
        """Return a new text that looks like this one, None if none is found; the same one never twice.

        Parameters
        ----------
        text : str
            One of the real ones.
        ends : tuple of (str, str), optional
            The first and the last text of the part of the alphabet in which the new one should lie, if there
            is room.
        """
        n = len(text)
        start = next((i for i in range(n, 0, -1) if self._starts[text[:i]] >= SMALLEST_GROUP), 0)
        if ends is not None:  # what the texts of that part have in common, which are as many
            start = max(start, _alike(*ends))
        end = next((i for i in range(start, n) if self._ends[text[i:]] >= SMALLEST_GROUP), n)
        open_places = [i for i in range(start, end) if _sort(text[i])]
        for i in (*range(start - 1, -1, -1), *range(end, n)):  # nearly all is common: some of it goes as well
            if len(open_places) < _LEAST_REDRAWN and _sort(text[i]):
                open_places.append(i)
        for number in range(_TRIES):
            letters = list(text)
            for i in sorted(open_places):
                letters[i] = self._drawn(letters[i - 1] if i else "", _sort(text[i]))
            made = "".join(letters)
            within = ends is None or ends[0] <= made <= ends[1] or number >= _TRIES_WITHIN
            if within and made not in self._taken:
                self._taken.add(made)
                return made
        return None

    def _drawn(self, before: str, sort: str) -> str:
        """Return a letter or digit, as often as it follows the one before."""
        found, behind = self._after.get((before, sort)) or self._after["any", sort]
        return found[int(np.searchsorted(behind, self._below(int(behind[-1])), side="right"))]

    def _below(self, limit: int) -> int:
        if not self._ready:
            self._ready = ((self._bits.random_raw(4096) >> np.uint64(11)) * 2.0**-53).tolist()
        return int(self._ready.pop() * limit)


def _alike(one: str, other: str) -> int:
    """Return how many letters two texts begin with alike."""
    return next(
        (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )


def _sort(letter: str) -> str:
    """Return what a letter may be replaced by; nothing for a sign that stays."""
    if letter.isdigit():
        return "digit"
    if letter.isalpha():
        return "upper" if letter.isupper() else "lower"
    return ""

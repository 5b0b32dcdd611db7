"""Values that name a single row, invented from the event number: never twice, and none of the real ones.

A `Pattern` is a list of places, each with the letters that may stand there. The combinations of letters are
numbered; only residue classes of these numbers are used in which no real string lies. Event n takes the
combination at place π(n), where π is a permutation keyed by the seed (a Feistel network with cycle walking:
Black and Rogaway 2002). So no two events have the same string, and any event is made without the others.
When all combinations are used, a counter behind the string continues.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

__all__ = ["MOST_COMBINATIONS", "Identifier", "Pattern", "first_of_group", "permuted"]

MOST_COMBINATIONS = 2**53
"""Combinations of a pattern that are counted; further places are filled by a hash of the event number."""

_ROUNDS = 6
_ONE = np.uint64(1)
_ODD = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


def _hash(values: np.ndarray, key: np.ndarray | np.uint64) -> np.ndarray:
    """Return 64 well mixed bits of each value and key (splitmix64: Steele, Lea and Flood 2014)."""
    mixed = values.astype(np.uint64) * _ODD + key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX[0]
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX[1]
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))


def permuted(numbers: np.ndarray, sizes: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Return a permutation of 0 to size - 1 at these places, int64 of shape (n_rows,).

    Parameters
    ----------
    numbers : ndarray of int64 of shape (n_rows,)
        From 0 to size - 1.
    sizes : ndarray of int64 of shape (n_rows,)
        Of the permutation of each row, from 1 to 2**53.
    keys : ndarray of uint64 of shape (n_rows,)
        Which permutation.
    """
    bits = np.ceil(np.log2(np.maximum(sizes, 2).astype(np.float64) + 1) / 2).astype(np.uint64)
    result = numbers.astype(np.uint64)
    walking = np.arange(len(result))
    while len(
        walking
    ):  # what leaves the range goes on until it is back, after four rounds on average at most
        half, key = bits[walking], keys[walking]
        low = (_ONE << half) - _ONE
        left, right = result[walking] >> half, result[walking] & low
        for _ in range(_ROUNDS):
            key = key + _ODD
            left, right = right, left ^ (_hash(right, key) & low)
        result[walking] = (left << half) | right
        walking = walking[result[walking] >= sizes[walking].astype(np.uint64)]
    return result.astype(np.int64)


def first_of_group(within: np.ndarray, shared: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Return for each row the place of the first one of its group, int64 of shape (n_rows,).

    Rows of a group share one number and differ in the other. They are put together in the order of their
    places: the first ones of each kind, then the second ones.

    Parameters
    ----------
    within, shared : ndarray of int64 of shape (n_rows,)
        Numbers from 0.
    places : ndarray of int64 of shape (n_rows,)
        Ascending.
    """
    kind = shared * (int(within.max(initial=0)) + 1) + within
    rank = _rank_within(kind)
    group = np.unique(shared * len(places) + rank, return_inverse=True)[1].reshape(-1)
    first = np.full(int(group.max(initial=-1)) + 1, np.iinfo(np.int64).max)
    np.minimum.at(first, group, places)
    return np.asarray(first[group])


def _rank_within(kinds: np.ndarray) -> np.ndarray:
    """Return how many rows of the same kind stand before each row."""
    order = np.argsort(kinds, kind="stable")
    ascending = kinds[order]
    begins = np.flatnonzero(np.diff(ascending, prepend=ascending[:1] - 1))
    sizes = np.diff(np.append(begins, len(kinds)))
    rank = np.empty(len(kinds), np.int64)
    rank[order] = np.arange(len(kinds)) - np.repeat(begins, sizes)
    return rank


@dataclass(frozen=True)
class Pattern:
    """Strings with the same letters, or kinds of letters, at each place.

    Parameters
    ----------
    places : tuple of str
        The letters that may stand at each place, each once; a single one is fixed.
    first, stop : int
        Combinations from `first` to `stop` (exclusive) are used,
    modulus, residues : int, tuple of int
        and of those only `first + i` with `i % modulus` in `residues`: no real string is among them.
    ordered : bool
        Whether events take them in order, as a counter does, and not in that of a permutation.
    """

    places: tuple[str, ...]
    first: int = 0
    stop: int = MOST_COMBINATIONS
    modulus: int = 1
    residues: tuple[int, ...] = (0,)
    ordered: bool = False

    @cached_property
    def counted(self) -> tuple[int, ...]:
        """The open places, from the last, whose combinations are counted."""
        found, size = [], 1
        for place in reversed(range(len(self.places))):
            letters = len(self.places[place])
            if letters > 1 and size * letters <= MOST_COMBINATIONS:
                found.append(place)
                size *= letters
        return tuple(found)

    @cached_property
    def size(self) -> int:
        """Number of combinations."""
        return math.prod(len(self.places[place]) for place in self.counted)

    @cached_property
    def capacity(self) -> int:
        """Number of combinations that are used."""
        return max(0, min(self.stop, self.size) - self.first) // self.modulus * len(self.residues)

    def combinations(self, strings: np.ndarray) -> np.ndarray:
        """Return the combination number of strings of this pattern, -1 of others, int64 of shape (n_rows,).

        Parameters
        ----------
        strings : ndarray of str of shape (n_rows,)
        """
        letters = np.array([s if len(s) == len(self.places) else "" for s in strings.tolist()], str)
        result = np.array([bool(s) for s in letters.tolist()])
        if not result.any():
            return np.full(len(strings), -1)
        codes = letters.astype(f"<U{len(self.places)}").view(np.uint32).reshape(len(strings), -1)
        number, weight = np.zeros(len(strings), np.int64), 1
        for place in reversed(range(len(self.places))):
            alphabet = np.array([ord(letter) for letter in self.places[place]], np.uint32)
            order = np.argsort(alphabet)
            found = order[np.searchsorted(alphabet, codes[:, place], sorter=order).clip(0, len(alphabet) - 1)]
            result &= alphabet[found] == codes[:, place]
            if place in self.counted:
                number += found * weight
                weight *= len(alphabet)
        return np.where(result, number, -1)


@dataclass(frozen=True)
class Identifier:
    """How a column that names single rows is invented.

    Parameters
    ----------
    column : str
        Its name. The codes of its factor are places in `patterns`.
    patterns : tuple of Pattern
        No two of them have a string in common.
    separator : str
        Stands before the counter of a string whose pattern is used up; a sign that no real string has.
        Empty for whole numbers, whose counter stands in front.
    within : tuple of str
        Columns that number the rows of one value, such as the lines of an order: a value comes once with each
        combination of theirs. Empty if it comes once at all.
    shared : tuple of str
        Columns that all rows of one value share.
    """

    column: str
    patterns: tuple[Pattern, ...]
    separator: str
    within: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()

    @cached_property
    def _capacities(self) -> np.ndarray:
        return np.array([pattern.capacity for pattern in self.patterns], np.int64)

    @cached_property
    def _letters(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Letters of each pattern, place and index; how many; whether the place is counted."""
        shape = len(self.patterns), max(1, *(len(pattern.places) for pattern in self.patterns))
        most = max((len(place) for pattern in self.patterns for place in pattern.places), default=1)
        letters, many, counted = (
            np.zeros((*shape, most), np.uint32),
            np.ones(shape, np.int64),
            np.zeros(shape, bool),
        )
        for i, pattern in enumerate(self.patterns):
            counted[i, list(pattern.counted)] = True
            for k, place in enumerate(pattern.places):
                letters[i, k, : len(place)] = [ord(letter) for letter in place]
                many[i, k] = max(len(place), 1)
        return letters, many, counted

    @cached_property
    def _residues(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All residues, where those of each pattern begin, and how many there are."""
        many = np.array([len(pattern.residues) for pattern in self.patterns], np.int64)
        return np.concatenate([pattern.residues for pattern in self.patterns]), np.cumsum(many) - many, many

    def values(self, codes: np.ndarray, numbers: np.ndarray, seed: int) -> np.ndarray:
        """Return the value of each event: strings or int64, shape (n_rows,).

        Parameters
        ----------
        codes : ndarray of int of shape (n_rows,)
            Which pattern each event has.
        numbers : ndarray of int64 of shape (n_rows,)
            Event numbers.
        seed : int
            Of the stream.
        """
        codes = codes.astype(np.int64)
        capacity = self._capacities[codes]
        rounds, place = np.divmod(numbers, np.maximum(capacity, 1))
        rounds += capacity == 0
        keys = _hash(codes, np.uint64(seed))
        first, modulus, ordered = (
            np.array([getattr(pattern, name) for pattern in self.patterns], np.int64)[codes]
            for name in ("first", "modulus", "ordered")
        )
        place = np.where(ordered == 1, place, permuted(place, np.maximum(capacity, 1), keys))
        residues, start, many = self._residues
        period, residue = np.divmod(place, many[codes])
        combination = np.where(capacity > 0, first + modulus * period + residues[start[codes] + residue], 0)
        if not self.separator:  # whole numbers
            width = max(len(pattern.places) for pattern in self.patterns)
            return np.asarray(combination + rounds * 10**width)
        letters, choices, counted = self._letters
        made = np.empty((len(codes), letters.shape[1]), np.uint32)
        for k in reversed(range(letters.shape[1])):
            size, counts = choices[codes, k], counted[codes, k]
            hashed = _hash(numbers, keys + np.uint64(k + 1)) % size.astype(np.uint64)
            further, rest = np.divmod(combination, size)
            made[:, k] = letters[codes, k, np.where(counts, rest, hashed.astype(np.int64))]
            combination = np.where(counts, further, combination)
        strings = made.view(f"<U{letters.shape[1]}").reshape(-1)  # the zeros behind a shorter one vanish
        if rounds.any():
            more = np.char.add(self.separator, rounds.astype(np.str_))
            strings = np.where(rounds > 0, np.char.add(strings, more), strings)
        return np.asarray(strings)

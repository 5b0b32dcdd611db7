"""How factors hang together: which codes can occur together, and how much one tells of another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from logistream.model import Factor

__all__ = ["Dependence", "Pairs", "draw_codes", "entropy"]

_DRAWS = 2**14
_CLOSED = (
    0.05  # two variables go together if at least so many rows would be impossible, were they independent
)
_FEWER = 0.5  # or if at most this share occurs of the pairs that would
_MOST_CELLS = 20_000_000  # a table of larger size is not looked at


def draw_codes(factors: Sequence[Factor]) -> dict[str, np.ndarray]:
    """Return the codes of 16,384 rows by factor, each of shape (16384,); always the same ones."""
    codes: dict[str, np.ndarray] = {}
    bits = np.random.Philox(0)
    for factor in factors:
        urn = np.zeros(_DRAWS, np.int64)
        for parent, group in zip(factor.parents, factor.groups, strict=True):
            urn = urn * (int(group.max()) + 1) + group[codes[parent]]
        urn = factor.urn_of[urn]
        behind = np.cumsum(factor.counts)
        start = np.concatenate([[0], behind])[factor.offsets]
        uniform = (bits.random_raw(_DRAWS) >> np.uint64(11)) * 2.0**-53
        ball = start[urn] + (uniform * (start[urn + 1] - start[urn])).astype(np.int64)
        codes[factor.name] = factor.codes[np.searchsorted(behind, ball, side="right")]
    return codes


def entropy(codes: np.ndarray) -> float:
    """Return the entropy of a sample, in nats."""
    counts = np.unique(codes, return_counts=True)[1]
    return float(np.log(len(codes)) - (counts * np.log(counts)).sum() / len(codes))


@dataclass(frozen=True, slots=True)
class Pairs:
    """Which codes of two factors can occur together.

    Parameters
    ----------
    group : ndarray of shape (n_codes of the one,)
        Its codes are told apart only as far as these groups.
    allowed : ndarray of bool of shape (n_groups, n_codes of the other)
        Whether a group and a code can occur together.
    """

    group: np.ndarray
    allowed: np.ndarray

    @property
    def told_apart(self) -> bool:
        """Whether each code of the one is a group of its own."""
        return len(self.group) == len(self.allowed) > 1

    @property
    def fixes(self) -> bool:
        """Whether each code of the one goes with a single code of the other."""
        return self.allowed.shape[1] > 1 and bool((self.allowed.sum(axis=1) == 1).all())

    @property
    def is_fixed(self) -> bool:
        """Whether each code of the other goes with a single code of the one."""
        return self.told_apart and bool((self.allowed.sum(axis=0) == 1).all())

    def closed(self, one: np.ndarray, other: np.ndarray, rows: int) -> bool:
        """Whether the two go together: many pairs never occur, more than chance leaves out of so many rows.

        Parameters
        ----------
        one, other : ndarray of shape (n_draws,)
            Drawn codes of the two, from which it is taken how common each is.
        rows : int
            Rows that were fitted.
        """
        if not self.told_apart:
            return False
        p = np.bincount(self.group[one], minlength=len(self.allowed)) / len(one)
        q = np.bincount(other, minlength=self.allowed.shape[1]) / len(other)
        expected = np.outer(p, q)
        barred = float(expected[~self.allowed].sum())
        by_chance = float((expected * np.exp(-rows * expected)).sum())
        if barred - by_chance >= _CLOSED and by_chance <= barred / 2:
            return True
        # where most pairs are rare, chance leaves out nearly all: there, far fewer must occur than by chance
        size = len(q)
        return len(np.unique(one * size + other)) <= _FEWER * len(np.unique(_shuffled(one) * size + other))


class Dependence:
    """What each factor that gives columns depends on; factors that give none are looked through.

    Parameters
    ----------
    factors : sequence of Factor
        Those of a model.
    """

    def __init__(self, factors: Sequence[Factor]) -> None:
        self.codes = draw_codes(factors)
        self._factors = {factor.name: factor for factor in factors}
        self._pairs: dict[str, dict[str, Pairs]] = {}
        self._told: dict[str, dict[str, float]] = {}

    def pairs(self, name: str) -> dict[str, Pairs]:
        """Return for each factor on which this one depends which codes can occur together."""
        if name not in self._pairs:
            self._pairs[name] = dict(self._find_pairs(self._factors[name]))
        return self._pairs[name]

    def told(self, name: str) -> dict[str, float]:
        """Return for each factor on which this one depends how much it tells, from 0 to 1."""
        if name not in self._told:
            factor = self._factors[name]
            told: dict[str, float] = {}
            for parent, group in zip(factor.parents, factor.groups, strict=True):
                if self._factors[parent].emissions:
                    found = {parent: _share_told(group[self.codes[parent]], self.codes[name])}
                else:
                    found = self.told(parent)
                for other, share in found.items():
                    told[other] = max(share, told.get(other, 0.0))
            self._told[name] = told
        return self._told[name]

    def _find_pairs(self, factor: Factor) -> Iterator[tuple[str, Pairs]]:
        many = np.diff(factor.offsets)
        shape = [int(group.max()) + 1 for group in factor.groups]
        axes = np.unravel_index(np.arange(len(factor.urn_of)), shape) if shape else ()
        for at, size, parent, group in zip(axes, shape, factor.parents, factor.groups, strict=True):
            met = np.unique(at * len(many) + factor.urn_of)  # which urns each group leads to
            leads, urn = met // len(many), met % len(many)
            if max(size * factor.size, many[urn].sum()) > _MOST_CELLS:
                continue
            first = np.repeat(factor.offsets[urn] - np.cumsum(many[urn]) + many[urn], many[urn])
            allowed = np.zeros((size, factor.size), bool)
            allowed[np.repeat(leads, many[urn]), factor.codes[first + np.arange(len(first))]] = True
            if self._factors[parent].emissions:
                yield parent, Pairs(group, allowed)
                continue
            for other, pairs in self.pairs(parent).items():
                if len(pairs.allowed) * max(len(group), factor.size) <= _MOST_CELLS:
                    through = pairs.allowed.astype(np.float32) @ allowed[group].astype(np.float32)
                    yield other, Pairs(pairs.group, through > 0)


def _share_told(source: np.ndarray, target: np.ndarray) -> float:
    """Return the share of the entropy of `target` that `source` takes away, beyond chance."""
    if entropy(target) <= 0:
        return 0.0
    size = int(target.max()) + 1
    both, by_chance = (entropy(part * size + target) for part in (source, _shuffled(source)))
    most = by_chance - entropy(source)
    return float(np.clip((by_chance - both) / most, 0, 1)) if most > 1e-9 else 0.0


def _shuffled(codes: np.ndarray) -> np.ndarray:
    return np.asarray(codes[np.argsort(np.random.Philox(1).random_raw(len(codes)))])

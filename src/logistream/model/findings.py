"""The structure of a model, read from its factors: what depends on what, and how columns are distributed.

Factors are looked at two at a time: which of their codes can occur together, and how much of the entropy of
one the other takes away. From that follow groups of associated columns, functional dependencies, and the
dependences between groups.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from logistream.model.network import missing_name
from logistream.model.random_bits import permutation, uniforms
from logistream.model.sampling import CountSampler
from logistream.times import CALENDAR

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from logistream.model.network import Emission, Factor, Network

__all__ = [
    "MUCH",
    "SLIGHT",
    "ColumnGroup",
    "Dependence",
    "FactorPairs",
    "Findings",
    "Marginal",
    "Pairs",
    "find",
    "find_associated",
]


MUCH, SLIGHT = 0.3, 0.05
"""A dependence of at least the first weight counts as much, one below the second as slight."""

_DRAWS = 2**14
_BARRED = 0.05  # two variables are associated if independence would put so many rows into empty cells,
_FEWER = 0.5  # or if at most this share occurs of the pairs that would
_MOST_CELLS = 20_000_000  # a larger table is not looked at
_MISSING = missing_name("")
_FEW_VALUES, _ROWS_EACH = 12, 20  # numbers are no measurements if they are so few, or in so many rows each
_COMMON = 0.01  # share of the rows: a single value of a continuous column that is at least so common,
_STANDS_OUT = 5  # and so many times as common as the others are on average,
_VERY_COMMON = 0.2  # or that is at least so common, is a point mass


@dataclass(frozen=True, slots=True)
class ColumnGroup:
    """Columns that are associated: only certain combinations of their values occur.

    Parameters
    ----------
    columns : tuple of str
        Columns of the table: strings, then others, in the order of the table.
    helpers : tuple of str
        What is drawn besides for formulas to read, in words.
    determined : mapping of str to str
        Which of all these are functionally dependent on another one, and on which.
    """

    columns: tuple[str, ...]
    helpers: tuple[str, ...]
    determined: Mapping[str, str]

    @property
    def keys(self) -> tuple[str, ...]:
        """What nothing else of the group determines."""
        return tuple(name for name in (*self.columns, *self.helpers) if name not in self.determined)

    @property
    def short(self) -> str:
        """What to call it in a sentence: its first key, and how many more there are."""
        more = len(self.keys) - 1
        return self.keys[0] + (f" + {more}" if more else "")


@dataclass(frozen=True, slots=True)
class Dependence:
    """A group of columns depends on another one.

    Parameters
    ----------
    source, target : ColumnGroup
        `target` depends on `source`.
    weight : float
        From 0 to 1: the share of a column's entropy that goes when the other one is known, as far as the
        fitted tree keeps the other's values apart, less what chance would take; the largest of all columns
        of the two groups.
    """

    source: ColumnGroup
    target: ColumnGroup
    weight: float


@dataclass(frozen=True, slots=True)
class Marginal:
    """How the values of a column, or of a helper, are distributed.

    Parameters
    ----------
    column : str
        Its name; in words, for a helper.
    different : int
        Number of different values, or of ranges and single values if it is continuous.
    continuous : bool
        Whether values are drawn from ranges.
    low, high : float or None
        Least and greatest value, an index for strings; None if all are missing.
    point_masses : tuple of (float, float)
        Single values of a continuous column that many rows share, and their shares, the commonest first.
    missing : float
        Share of missing values.
    """

    column: str
    different: int
    continuous: bool
    low: float | None
    high: float | None
    point_masses: tuple[tuple[float, float], ...]
    missing: float


@dataclass(frozen=True, slots=True)
class Findings:
    """The structure of a model.

    Parameters
    ----------
    groups : tuple of ColumnGroup
        In such an order that they depend as little as possible on later ones.
    dependences : tuple of Dependence
        By target, the largest weight first.
    marginals : tuple of Marginal
        In the order of drawing.
    names : mapping of str to str
        What all that is drawn is called here, by its name in the model.
    """

    groups: tuple[ColumnGroup, ...]
    dependences: tuple[Dependence, ...]
    marginals: tuple[Marginal, ...]
    names: Mapping[str, str]


def _entropy(codes: np.ndarray) -> float:
    """Return the entropy of a sample, in nats."""
    few = len(codes) and codes.max() < 4 * len(codes)  # then counting is faster than sorting
    counts = np.bincount(codes) if few else np.unique(codes, return_counts=True)[1]
    counts = counts[counts > 0]
    return float(np.log(len(codes)) - (counts * np.log(counts)).sum() / len(codes))


@lru_cache(maxsize=2)  # it is needed for each pair of factors
def _shuffle(size: int) -> np.ndarray:
    """Return an order of so many rows that has nothing to do with their values."""
    return permutation(size, 1)


def _drawn_codes(factors: Sequence[Factor]) -> dict[str, np.ndarray]:
    """Return the codes of 16,384 rows by factor, int64; always the same ones."""
    codes: dict[str, np.ndarray] = {}
    bits = np.random.Philox(0)
    for factor in factors:
        drawn = CountSampler.of(factor, stratified=False).draw(uniforms(bits, _DRAWS), codes)
        codes[factor.name] = drawn.astype(np.int64)
    return codes


@dataclass(frozen=True, slots=True)
class Pairs:
    """Which codes of two factors can occur together.

    Parameters
    ----------
    group : ndarray of shape (n_codes of the one,)
        Its codes are kept apart only as far as these groups.
    allowed : ndarray of bool of shape (n_groups, n_codes of the other)
        Whether a group and a code can occur together.
    """

    group: np.ndarray
    allowed: np.ndarray

    @property
    def complete(self) -> bool:
        """Whether each code of the one is a group of its own."""
        return len(self.group) == len(self.allowed) > 1

    @property
    def determines(self) -> bool:
        """Whether each code of the one occurs with a single code of the other."""
        return self.allowed.shape[1] > 1 and bool((self.allowed.sum(axis=1) == 1).all())

    @property
    def is_determined(self) -> bool:
        """Whether each code of the other occurs with a single code of the one."""
        return self.complete and bool((self.allowed.sum(axis=0) == 1).all())

    def associated(self, one: np.ndarray, other: np.ndarray, rows: int) -> bool:
        """Whether many pairs never occur, more than chance leaves out of so many rows.

        Parameters
        ----------
        one, other : ndarray of shape (n_draws,)
            Drawn codes of the two, from which it is taken how common each is.
        rows : int
            Rows that were fitted.
        """
        if not self.complete:
            return False
        p = np.bincount(self.group[one], minlength=len(self.allowed)) / len(one)
        q = np.bincount(other, minlength=self.allowed.shape[1]) / len(other)
        expected = np.outer(p, q)
        barred = float(expected[~self.allowed].sum())
        by_chance = float((expected * np.exp(-rows * expected)).sum())
        if barred - by_chance >= _BARRED and by_chance <= barred / 2:
            return True
        # Where most pairs are rare chance leaves out nearly all: there, far fewer must occur than by chance.
        size = len(q)
        shuffled = one[_shuffle(len(one))]
        return len(np.unique(one * size + other)) <= _FEWER * len(np.unique(shuffled * size + other))


class FactorPairs:
    """What each factor that gives columns depends on; factors that give none are passed through.

    Parameters
    ----------
    factors : sequence of Factor
        Those of a model.
    giving : collection of str
        Names of those that give columns.
    """

    def __init__(self, factors: Sequence[Factor], giving: Collection[str]) -> None:
        self._giving = frozenset(giving)
        self.codes = _drawn_codes(factors)
        self._factors = {factor.name: factor for factor in factors}
        self._pairs: dict[str, dict[str, Pairs]] = {}
        self._shares: dict[str, dict[str, float]] = {}

    def pairs(self, name: str) -> dict[str, Pairs]:
        """Return which codes can occur together, for each factor on which this one depends."""
        if name not in self._pairs:
            self._pairs[name] = dict(self._find_pairs(self._factors[name]))
        return self._pairs[name]

    def shares(self, name: str) -> dict[str, float]:
        """Return the share of entropy taken away by each factor on which this one depends."""
        if name not in self._shares:
            factor = self._factors[name]
            shares: dict[str, float] = {}
            for parent, group in zip(factor.parents, factor.groups, strict=True):
                if parent in self._giving:
                    found = {parent: _information(group[self.codes[parent]], self.codes[name])}
                else:
                    found = self.shares(parent)
                for other, share in found.items():
                    shares[other] = max(share, shares.get(other, 0.0))
            self._shares[name] = shares
        return self._shares[name]

    def _find_pairs(self, factor: Factor) -> Iterator[tuple[str, Pairs]]:
        many = np.diff(factor.offsets)
        axes = (
            np.unravel_index(np.arange(len(factor.distribution_of)), factor.shape) if factor.parents else ()
        )
        for at, size, parent, group in zip(axes, factor.shape, factor.parents, factor.groups, strict=True):
            met = np.unique(at * len(many) + factor.distribution_of)  # the distributions of each group
            leads, reached = met // len(many), met % len(many)
            entries = many[reached]
            if max(size * factor.size, entries.sum()) > _MOST_CELLS:
                continue
            first = np.repeat(factor.offsets[reached] - np.cumsum(entries) + entries, entries)
            allowed = np.zeros((size, factor.size), bool)
            allowed[np.repeat(leads, entries), factor.codes[first + np.arange(len(first))]] = True
            if parent in self._giving:
                yield parent, Pairs(group, allowed)
                continue
            for other, pairs in self.pairs(parent).items():
                if len(pairs.allowed) * max(len(group), factor.size) <= _MOST_CELLS:
                    through = pairs.allowed.astype(np.float32) @ allowed[group].astype(np.float32)
                    yield other, Pairs(pairs.group, through > 0)


def _information(source: np.ndarray, target: np.ndarray) -> float:
    """Return the share of the entropy of `target` that `source` takes away, beyond chance."""
    if _entropy(target) <= 0:
        return 0.0
    size = int(target.max()) + 1
    shuffled = source[_shuffle(len(source))]
    both, by_chance = (_entropy(part * size + target) for part in (source, shuffled))
    most = by_chance - _entropy(source)
    return float(np.clip((by_chance - both) / most, 0, 1)) if most > 1e-9 else 0.0


def find(model: Network) -> Findings:
    """Read the structure of a model."""
    names = _names(model)
    giving = [factor for factor in model.factors if any(e.column in names for e in factor.emissions)]
    pairs = FactorPairs(model.factors, [factor.name for factor in giving])
    flags = {f.name for f in giving if f.name.endswith(_MISSING) and f.name not in model.schema}
    home = _homes(model, giving, flags, pairs)
    weights = _weights(giving, home, flags, pairs, _through_hidden(model.factors, giving))
    groups = {
        first: _group(model, [f for f in giving if home[f.name] == first], names, pairs)
        for first in _ordered(list(dict.fromkeys(home.values())), weights)
    }
    dependences = [
        Dependence(groups[source], group, weight)
        for target, group in groups.items()
        for (source, other), weight in sorted(weights.items(), key=lambda item: -item[1])
        if other == target
    ]
    marginals = [
        _marginal(names[emission.column], emission, pairs.codes[factor.name])
        for factor in giving
        for emission in factor.emissions
        if emission.column in names
    ]
    return Findings(tuple(groups.values()), tuple(dependences), tuple(marginals), names)


def find_associated(model: Network, name: str) -> dict[str, Pairs]:
    """Return the factors that one depends on and is associated with: only certain codes occur together.

    Parameters
    ----------
    model : Network
        The model.
    name : str
        Name of the factor.

    Returns
    -------
    dict of str to Pairs
        By the name of the other factor; which of its codes occur with which of this one.
    """
    names = _names(model)
    giving = {f.name: f for f in model.factors if any(e.column in names for e in f.emissions)}
    if not _takes_few_values(model, giving[name]):
        return {}
    pairs = FactorPairs(model.factors, giving)
    return {
        other: found
        for other, found in pairs.pairs(name).items()
        if _takes_few_values(model, giving[other])
        and (
            found.determines
            or found.is_determined
            or found.associated(pairs.codes[other], pairs.codes[name], model.rows)
        )
    }


def _names(model: Network) -> dict[str, str]:
    """Return what to call all that is drawn: columns by name, helpers in words, missing flags not at all."""
    names = {name: name for name in model.schema.names}
    for formula in model.formulas:
        for name in formula.inputs:
            flag = formula.operation in ("blank", "unless") and name == formula.left
            if name not in names and formula.operation not in CALENDAR and not flag:
                part = name.removeprefix(f"{formula.column}: ")
                if part == name:
                    part = "rate" if formula.operation == "product" else "difference"
                names[name] = f"{part} of {formula.column}"
    return names


def _homes(model: Network, factors: Sequence[Factor], flags: set[str], pairs: FactorPairs) -> dict[str, str]:
    """Return the first factor of the group of each factor."""
    home = {factor.name: factor.name for factor in factors}
    codes = pairs.codes
    few = {factor.name for factor in factors if _takes_few_values(model, factor)} - flags
    for name in list(home):
        joined = {
            f"{name}{_MISSING}"
        } & flags  # columns that are missing together may be independent otherwise
        if name in few:
            joined |= {
                other
                for other, found in pairs.pairs(name).items()
                if other in few
                and (
                    found.determines
                    or found.is_determined
                    or found.associated(codes[other], codes[name], model.rows)
                )
            }
        for other in joined:
            first, moved = sorted((home[name], home[other]), key=list(home).index)
            home = {key: first if old == moved else old for key, old in home.items()}
    return home


def _takes_few_values(model: Network, factor: Factor) -> bool:
    """Return whether a factor gives single values: strings, or numbers that occur in many rows each."""
    strings = any(emission.column in model.categories for emission in factor.emissions)
    exact = all(emission.high is None for emission in factor.emissions)
    return exact and (strings or factor.size * _ROWS_EACH <= model.rows or factor.size <= _FEW_VALUES)


_GROUPS = 12  # of a variable of many codes, where it is compared with one of the same cause


def _through_hidden(factors: Sequence[Factor], giving: Sequence[Factor]) -> dict[str, set[str]]:
    """Return for each factor that gives columns the hidden ones, classes and common causes, above it."""
    visible = {factor.name for factor in giving}
    hidden: dict[str, set[str]] = {}
    for factor in factors:
        above = [parent for parent in factor.parents if parent not in visible]
        hidden[factor.name] = {*above}.union(*(hidden[parent] for parent in above))
    drawn = {factor.name for factor in factors if not factor.deterministic}
    return {name: hidden[name] & drawn for name in visible}


def _grouped(factor: Factor, codes: np.ndarray) -> np.ndarray:
    """Return the codes of a factor of many in groups of equal size; of others, as they are."""
    if factor.size <= _GROUPS or any(emission.high is None for emission in factor.emissions):
        return codes
    rank = np.empty(len(codes), np.int64)
    rank[np.argsort(codes, kind="stable")] = np.arange(len(codes))
    first = np.zeros(factor.size, np.int64)
    np.maximum.at(first, codes, rank * _GROUPS // len(codes))
    return np.asarray(first[codes])


def _weights(
    factors: Sequence[Factor],
    home: Mapping[str, str],
    flags: set[str],
    pairs: FactorPairs,
    hidden: Mapping[str, set[str]],
) -> dict[tuple[str, str], float]:
    """Return the weight of each dependence between two groups."""
    weights: dict[tuple[str, str], float] = {}
    for factor in factors:
        for other, share in pairs.shares(factor.name).items():
            ends = home[other], home[factor.name]
            if ends[0] == ends[1]:
                continue
            if factor.name in flags:  # how much of the column that is, if few values are missing
                share *= _entropy(pairs.codes[factor.name]) / math.log(2)
            weights[ends] = max(share, weights.get(ends, 0.0))
    grouped: dict[str, np.ndarray] = {}
    for one, two in combinations(factors, 2):
        ends = home[one.name], home[two.name]
        if ends[0] == ends[1] or not hidden[one.name] & hidden[two.name] or {one.name, two.name} & flags:
            continue
        for factor in (one, two):
            if factor.name not in grouped:
                grouped[factor.name] = _grouped(factor, pairs.codes[factor.name])
        share = _information(grouped[one.name], grouped[two.name])
        if share >= SLIGHT:
            weights[ends] = max(share, weights.get(ends, 0.0))
    return weights


def _ordered(groups: list[str], weights: Mapping[tuple[str, str], float]) -> list[str]:
    """Return groups so that as little weight as possible comes from later ones."""
    waits = {group: sum(w for (_, target), w in weights.items() if target == group) for group in groups}
    ordered = []
    while waits:
        ready = min(waits, key=lambda group: round(waits[group], 9))  # of several the first
        del waits[ready]
        ordered.append(ready)
        for (source, target), weight in weights.items():
            if source == ready and target in waits:
                waits[target] -= weight
    return ordered


def _group(
    model: Network, factors: Sequence[Factor], names: Mapping[str, str], pairs: FactorPairs
) -> ColumnGroup:
    """Return the columns of these factors as a group."""
    given = [(f.name, e) for f in factors for e in f.emissions if e.column in names]
    columns = [name for name in model.schema.names if any(name == emission.column for _, emission in given)]
    columns.sort(key=lambda name: name not in model.categories)
    helpers = [emission.column for _, emission in given if emission.column not in columns]
    values = {emission.column: _value_numbers(emission) for _, emission in given}
    different = {name: int(column.max()) + 1 for name, column in values.items()}
    determining = set()
    for factor, emission in given:
        for other, second in given:
            a, b = emission.column, second.column
            if factor == other and a != b:
                if len(np.unique(values[a] * different[b] + values[b])) == different[a]:
                    determining.add((a, b))
            elif len(values[a]) == different[a] and len(values[b]) == different[b]:  # codes are values
                found = pairs.pairs(factor).get(other)
                if found is not None:
                    determining |= {(b, a)} if found.determines else set()
                    determining |= {(a, b)} if found.is_determined else set()
    rank = {name: (different[name], -i) for i, name in enumerate((*columns, *helpers))}
    determined = {}  # each by the coarsest that does; of two that determine each other the first stays
    for b in (*columns, *helpers):
        keys = [a for a, other in determining if other == b and rank[a] > rank[b]]
        if keys:
            determined[names[b]] = names[min(keys, key=rank.__getitem__)]
    return ColumnGroup(tuple(columns), tuple(names[name] for name in helpers), determined)


def _value_numbers(emission: Emission) -> np.ndarray:
    """Return a number for each code that is the same where the column's value is."""
    parts = [emission.low, emission.last]
    if emission.missing is not None:
        parts = [np.where(emission.missing, 0, part) for part in parts] + [emission.missing]
    ranks = [np.unique(part, return_inverse=True)[1] for part in parts]
    return np.asarray(np.unique(np.stack(ranks, axis=1), axis=0, return_inverse=True)[1]).reshape(-1)


def _marginal(column: str, emission: Emission, codes: np.ndarray) -> Marginal:
    share = np.bincount(codes, minlength=len(emission.low)) / len(codes)
    known = np.ones(len(emission.low), bool) if emission.missing is None else ~emission.missing
    scale = 1.0 if emission.quantum is None else emission.quantum[0] / emission.quantum[1]
    low, high = emission.low[known], emission.last[known]
    return Marginal(
        column=column,
        different=len(np.unique(np.stack([low, high], axis=1), axis=0)),
        continuous=bool((low != high).any()),
        low=float(low.min()) * scale if len(low) else None,
        high=float(high.max()) * scale if len(low) else None,
        point_masses=tuple(
            (value * scale, common) for value, common in _point_masses(low, high, share[known])
        ),
        missing=float(share[~known].sum()),
    )


def _point_masses(low: np.ndarray, high: np.ndarray, share: np.ndarray) -> Iterator[tuple[float, float]]:
    """Give the single values that stand out of a continuous column, the commonest first."""
    single = low == high
    if single.all():
        return
    values, place = np.unique(low[single], return_inverse=True)
    common = np.bincount(place, share[single])
    least = max(_COMMON, min(_STANDS_OUT / len(low), _VERY_COMMON))
    for i in np.argsort(-common, kind="stable"):
        if common[i] >= least:
            yield float(values[i]), float(common[i])

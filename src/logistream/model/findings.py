"""What a model holds, read off its factors: what goes together, keys, dependences, how values are spread.

How factors hang together: which codes can occur together, and how much one tells of another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from logistream.model.network import missing_name
from logistream.times import CALENDAR

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from logistream.model.network import Emission, Factor, Network

__all__ = [
    "MUCH",
    "SLIGHT",
    "Block",
    "Dependence",
    "Findings",
    "Link",
    "Pairs",
    "Spread",
    "draw_codes",
    "entropy",
    "find",
]


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
        urn = factor.distribution_of[urn]
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
        axes = np.unravel_index(np.arange(len(factor.distribution_of)), shape) if shape else ()
        for at, size, parent, group in zip(axes, shape, factor.parents, factor.groups, strict=True):
            met = np.unique(at * len(many) + factor.distribution_of)  # which urns each group leads to
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


MUCH, SLIGHT = 0.3, 0.05
"""A link of at least the first weight counts as much, one below the second as slight."""

_MISSING = missing_name("")
_FEW, _ROWS_EACH = 12, 20  # numbers are not measurements if there are only so many, or in so many rows each
_SPIKE = 0.01  # share of the rows: a single value of a continuous column that is at least so common,
_STANDS_OUT = 5  # and so many times as common as the others are on average,
_SURELY = 0.2  # or that is at least so common, is a spike


@dataclass(frozen=True, slots=True)
class Block:
    """Columns that go together: only certain combinations of their values occur.

    Parameters
    ----------
    columns : tuple of str
        Columns of the table: texts, then others, in the order of the table.
    helpers : tuple of str
        What is drawn besides for formulas to read, in words.
    fixed : mapping of str to str
        Which of all these are fixed by another one, and by which.
    """

    columns: tuple[str, ...]
    helpers: tuple[str, ...]
    fixed: Mapping[str, str]

    @property
    def keys(self) -> tuple[str, ...]:
        """What nothing else of the block fixes."""
        return tuple(name for name in (*self.columns, *self.helpers) if name not in self.fixed)

    @property
    def short(self) -> str:
        """What to call it in a sentence: its first key, and how many more there are."""
        more = len(self.keys) - 1
        return self.keys[0] + (f" + {more}" if more else "")


@dataclass(frozen=True, slots=True)
class Link:
    """Something in a block depends on something in another one.

    Parameters
    ----------
    source, target : Block
        The one that tells, and the one that depends on it.
    weight : float
        From 0 to 1: the share of a column's uncertainty that goes when the other one is known, as far as
        the fitted tree tells the other's values apart, less what chance would take; the largest of all
        columns of the two blocks.
    """

    source: Block
    target: Block
    weight: float


@dataclass(frozen=True, slots=True)
class Spread:
    """How the values of a column, or of a helper, lie.

    Parameters
    ----------
    column : str
        Its name; in words, for a helper.
    different : int
        Number of different values, or of ranges and single values if it is continuous.
    continuous : bool
        Whether values are drawn from ranges.
    low, high : float or None
        Least and greatest value, an index for texts; None if all are missing.
    spikes : tuple of (float, float)
        Single values of a continuous column that many rows share, and their shares, the commonest first.
    missing : float
        Share of missing values.
    """

    column: str
    different: int
    continuous: bool
    low: float | None
    high: float | None
    spikes: tuple[tuple[float, float], ...]
    missing: float


@dataclass(frozen=True, slots=True)
class Findings:
    """All that was found.

    Parameters
    ----------
    blocks : tuple of Block
        In such an order that they depend as little as can be on later ones.
    links : tuple of Link
        By target, the weightiest first.
    spreads : tuple of Spread
        In the order of drawing.
    names : mapping of str to str
        What all that is drawn is called here, by its name in the model.
    """

    blocks: tuple[Block, ...]
    links: tuple[Link, ...]
    spreads: tuple[Spread, ...]
    names: Mapping[str, str]


def find(model: Network) -> Findings:
    """Read a model."""
    dependence = Dependence(model.factors)
    giving = [factor for factor in model.factors if factor.emissions]
    names = _names(model)
    flags = {f.name for f in giving if f.name.endswith(_MISSING) and f.name not in model.schema}
    home = _homes(model, giving, flags, dependence)
    weights = _weights(giving, home, flags, dependence)
    blocks = {
        first: _block(model, [f for f in giving if home[f.name] == first], names, dependence)
        for first in _ordered(list(dict.fromkeys(home.values())), weights)
    }
    links = [
        Link(blocks[source], block, weight)
        for target, block in blocks.items()
        for (source, other), weight in sorted(weights.items(), key=lambda item: -item[1])
        if other == target
    ]
    spreads = [
        _spread(names[emission.column], emission, dependence.codes[factor.name])
        for factor in giving
        for emission in factor.emissions
        if emission.column in names
    ]
    return Findings(tuple(blocks.values()), tuple(links), tuple(spreads), names)


def _names(model: Network) -> dict[str, str]:
    """Return what to call all that is drawn: columns by name, helpers in words, missing flags not at all."""
    names = {name: name for name in model.schema.names}
    for formula in model.formulas:
        for name in (formula.left, formula.right):
            if name and name not in names and formula.operation not in CALENDAR:
                part = name.removeprefix(f"{formula.column}: ")
                if part == name:
                    part = "rate" if formula.operation == "product" else "difference"
                names[name] = f"{part} of {formula.column}"
    return names


def _homes(
    model: Network, factors: Sequence[Factor], flags: set[str], dependence: Dependence
) -> dict[str, str]:
    """Return for each factor the first one of its block."""
    home = {factor.name: factor.name for factor in factors}
    codes = dependence.codes
    few = {factor.name for factor in factors if _takes_few_values(model, factor)} - flags
    for name in list(home):
        joined = {f"{name}{_MISSING}"} & flags  # what is missing together need not go together otherwise
        if name in few:
            joined |= {
                other
                for other, pairs in dependence.pairs(name).items()
                if other in few
                and (pairs.fixes or pairs.is_fixed or pairs.closed(codes[other], codes[name], model.rows))
            }
        for other in joined:
            first, moved = sorted((home[name], home[other]), key=list(home).index)
            home = {key: first if old == moved else old for key, old in home.items()}
    return home


def _takes_few_values(model: Network, factor: Factor) -> bool:
    """Return whether a factor gives single values, texts or numbers that occur in many rows each."""
    texts = any(emission.column in model.categories for emission in factor.emissions)
    exact = all(emission.high is None for emission in factor.emissions)
    return exact and (texts or factor.size * _ROWS_EACH <= model.rows or factor.size <= _FEW)


def _weights(
    factors: Sequence[Factor], home: Mapping[str, str], flags: set[str], dependence: Dependence
) -> dict[tuple[str, str], float]:
    """Return the weight of each link between two blocks."""
    weights: dict[tuple[str, str], float] = {}
    for factor in factors:
        for other, told in dependence.told(factor.name).items():
            pair = home[other], home[factor.name]
            if pair[0] == pair[1]:
                continue
            if factor.name in flags:  # how much of the column that is, if few values are missing
                told *= entropy(dependence.codes[factor.name]) / math.log(2)
            weights[pair] = max(told, weights.get(pair, 0.0))
    return weights


def _ordered(blocks: list[str], weights: Mapping[tuple[str, str], float]) -> list[str]:
    """Return blocks so that as little as can be depends on what comes later."""
    waits = {block: sum(w for (_, target), w in weights.items() if target == block) for block in blocks}
    ordered = []
    while waits:
        ready = min(waits, key=lambda block: round(waits[block], 9))  # of several the first
        del waits[ready]
        ordered.append(ready)
        for (source, target), weight in weights.items():
            if source == ready and target in waits:
                waits[target] -= weight
    return ordered


def _block(
    model: Network, factors: Sequence[Factor], names: Mapping[str, str], dependence: Dependence
) -> Block:
    """Return what these factors give as a block."""
    given = [
        (factor.name, emission)
        for factor in factors
        for emission in factor.emissions
        if emission.column in names
    ]
    columns = [name for name in model.schema.names if any(name == emission.column for _, emission in given)]
    columns.sort(key=lambda name: name not in model.categories)
    helpers = [emission.column for _, emission in given if emission.column not in columns]
    values = {emission.column: _distinguished(emission) for _, emission in given}
    different = {name: int(column.max()) + 1 for name, column in values.items()}
    fixing = set()
    for factor, emission in given:
        for other, second in given:
            a, b = emission.column, second.column
            if factor == other and a != b:
                if len(np.unique(values[a] * different[b] + values[b])) == different[a]:
                    fixing.add((a, b))
            elif len(values[a]) == different[a] and len(values[b]) == different[b]:  # codes are values
                pairs = dependence.pairs(factor).get(other)
                if pairs is not None:
                    fixing |= {(b, a)} if pairs.fixes else set()
                    fixing |= {(a, b)} if pairs.is_fixed else set()
    rank = {name: (different[name], -i) for i, name in enumerate((*columns, *helpers))}
    fixed = {}  # each by the coarsest that does; of two that fix each other the first stays
    for b in (*columns, *helpers):
        keys = [a for a, other in fixing if other == b and rank[a] > rank[b]]
        if keys:
            fixed[names[b]] = names[min(keys, key=rank.__getitem__)]
    return Block(tuple(columns), tuple(names[name] for name in helpers), fixed)


def _distinguished(emission: Emission) -> np.ndarray:
    """Return a number for each code that is the same where the column's value is."""
    parts = [emission.low, emission.low if emission.high is None else emission.high]
    if emission.missing is not None:
        parts = [np.where(emission.missing, 0, part) for part in parts] + [emission.missing]
    ranks = [np.unique(part, return_inverse=True)[1] for part in parts]
    return np.asarray(np.unique(np.stack(ranks, axis=1), axis=0, return_inverse=True)[1]).reshape(-1)


def _spread(column: str, emission: Emission, codes: np.ndarray) -> Spread:
    share = np.bincount(codes, minlength=len(emission.low)) / len(codes)
    known = np.ones(len(emission.low), bool) if emission.missing is None else ~emission.missing
    scale = 1.0 if emission.quantum is None else emission.quantum[0] / emission.quantum[1]
    low, high = emission.low[known], (emission.low if emission.high is None else emission.high)[known]
    different = len(np.unique(np.stack([low, high], axis=1), axis=0))
    return Spread(
        column=column,
        different=different,
        continuous=bool((low != high).any()),
        low=float(low.min()) * scale if len(low) else None,
        high=float(high.max()) * scale if len(low) else None,
        spikes=tuple((value * scale, common) for value, common in _spikes(low, high, share[known])),
        missing=float(share[~known].sum()),
    )


def _spikes(low: np.ndarray, high: np.ndarray, share: np.ndarray) -> Iterator[tuple[float, float]]:
    """Give the single values that stand out of a column that is continuous, the commonest first."""
    single = low == high
    if single.all():
        return
    values, place = np.unique(low[single], return_inverse=True)
    common = np.bincount(place, share[single])
    least = max(_SPIKE, min(_STANDS_OUT / len(low), _SURELY))
    for i in np.argsort(-common, kind="stable"):
        if common[i] >= least:
            yield float(values[i]), float(common[i])

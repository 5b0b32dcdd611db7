"""The branches that a tree begins with: combinations that the variable must keep to.

A variable that occurs with others in certain combinations only (a city with its country, a product with its
price) is drawn within a branch for each combination of theirs. This is where a model could disclose single
rows, so it is limited to what is a fact of the domain:

- *Functional dependencies*: what the variable determines (a city its state, country and region), or what is
  determined together with it by another one. All combinations that occur are kept, even once and of any
  number of columns: that the city lies there discloses nothing about whoever ordered to it.
- *Associations* of two columns: which values occur together, even once.
- Other combinations of more than two columns are kept only if they occur in `SMALLEST_GROUP` different rows.
  Where one does not, a value is drawn from all that share the functional dependencies and occur with each
  other value, one by one, whether or not all occurred together. So a combination that one row had is as
  likely as one that no row had.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from logistream.fitting.coding import SMALLEST_GROUP, Coded, code_together
from logistream.model.network import Factor

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Node", "begin", "combine"]


@dataclass(slots=True)
class Node:
    """A node of a tree.

    Parameters
    ----------
    rows : ndarray of int64
        Rows from which the target is drawn here.
    allowed : dict of int to ndarray of bool of shape (n_codes,)
        For each predictor asked on the way, by place: which of its codes lead here.
    final : bool
        Whether the node must not be split: its rows are not exactly those that lead here.
    """

    rows: np.ndarray
    allowed: dict[int, np.ndarray]
    final: bool = False


def begin(target: Coded, within: Mapping[int, Coded], functional: int) -> list[Node]:
    """Return a node for each combination of codes of the variables to keep to.

    Parameters
    ----------
    target : Coded
        The variable to draw.
    within : mapping of int to Coded
        What it must keep to, by place among the predictors.
    functional : int
        How many of these, the first ones, are functional dependencies.
    """
    n = len(target.codes)
    if not within:
        return [Node(np.arange(n), {})]
    partners = list(within.values())
    lit = [np.eye(partner.size, dtype=bool) for partner in partners]
    firm = max(functional, 1)  # of associations alone the first is the strongest
    base = _Rows.of(partners[:firm])
    whole = _Rows.of(partners)
    single = [_Rows.of([partner]) for partner in partners]
    nodes = []
    for cell, codes in enumerate(itertools.product(*(range(partner.size) for partner in partners))):
        rows, final = whole.at(cell), False
        few = len(partners) > firm and len(rows) < SMALLEST_GROUP
        if few or len(rows) == 0:
            rows, final = base.at(base.cell(codes[:firm])), True
            others = [pairs.at(code) for pairs, code in zip(single[firm:], codes[firm:], strict=True)]
            if len(rows) == 0:  # a value of few rows says more than one of many, such as a missing one
                alone = [pairs.at(code) for pairs, code in zip(single, codes, strict=True)]
                rows, *others = sorted(alone, key=len)
            for other in others:
                fits = rows[np.isin(target.codes[rows], target.codes[other])]
                rows = fits if len(fits) else rows
        path = {place: view[code] for place, view, code in zip(within, lit, codes, strict=True)}
        nodes.append(Node(rows, path, final))
    return nodes


@dataclass(frozen=True, slots=True)
class _Rows:
    """The rows of each combination of codes."""

    sizes: tuple[int, ...]
    order: np.ndarray
    start: np.ndarray

    @classmethod
    def of(cls, variables: list[Coded]) -> _Rows:
        sizes = tuple(variable.size for variable in variables)
        cells = np.ravel_multi_index(tuple(variable.codes for variable in variables), sizes)
        counts = np.bincount(cells, minlength=int(np.prod(sizes)))
        return cls(sizes, np.argsort(cells, kind="stable"), np.concatenate([[0], np.cumsum(counts)]))

    def cell(self, codes: tuple[int, ...]) -> int:
        return int(np.ravel_multi_index(codes, self.sizes))

    def at(self, cell: int) -> np.ndarray:
        return self.order[self.start[cell] : self.start[cell + 1]]


def combine(a: Coded, b: Coded, least: int = 1) -> tuple[Coded, Factor]:
    """Return the combinations of two variables as one without columns, and the factor that looks it up.

    So the table of a variable that is drawn within both stays small.

    Parameters
    ----------
    a, b : Coded
        Variables drawn before.
    least : int
        Combinations in fewer rows are one: that of `a` with anything else. So are those that never occur,
        if there are such; otherwise they count as another combination of the same `a`.
    """
    name = f"{a.name} with {b.name}" + (", where common" if least > 1 else "")
    both = replace(code_together([a, b]), name=name, emissions=(), ordered=False, instant=False)
    _, first, codes, counts = np.unique(
        both.codes, return_index=True, return_inverse=True, return_counts=True
    )
    own, other = a.codes[first], b.codes[first]  # of each combination
    kept = counts >= least
    number = np.cumsum(kept) - 1
    rest = np.full(a.size, -1)
    some = np.unique(own[~kept])
    rest[some] = kept.sum() + np.arange(len(some))
    number = np.where(kept, number, rest[own])
    entries = [np.array([code]) for code in range(int(number.max()) + 1)]
    counted = [np.ones(1, np.int64) for _ in entries]
    fallback = rest.copy()
    for code in np.flatnonzero(rest < 0):
        fallback[code] = len(entries)
        of_it = own == code
        entries.append(number[of_it] if of_it.any() else number)
        counted.append(counts[of_it] if of_it.any() else counts)
    distribution_of = np.repeat(fallback[:, None], b.size, axis=1)
    distribution_of[own[kept], other[kept]] = number[kept]
    size = int(number.max()) + 1
    factor = Factor(
        name=name,
        size=size,
        parents=(a.name, b.name),
        groups=(np.arange(a.size), np.arange(b.size)),
        distribution_of=distribution_of.reshape(-1),
        offsets=np.concatenate([[0], np.cumsum([len(part) for part in entries])]),
        codes=np.concatenate(entries),
        counts=np.concatenate(counted),
        emissions=(),
    )
    return replace(both, codes=number[codes].astype(np.int64), size=size), factor

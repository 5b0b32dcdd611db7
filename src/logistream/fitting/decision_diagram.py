"""A tree as look-up tables, which make drawing fast.

A small tree becomes one table with a cell for each combination of groups of its predictors. For a large one,
which asks ten predictors in different places, such a table would be mostly repetition. It becomes a decision
diagram (Bryant 1986; Srinivasan and others 1990 for variables of many values): the predictors are read one
after the other, and a *state* stands for the leaves that can still be reached. Each step is a deterministic
factor, from state and code to the next state.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from logistream.model.network import Factor

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MOST_CELLS", "deterministic", "tables"]


MOST_CELLS = 2**18
"""Cells of all tables of one tree, at most."""

_ONE_TABLE = 2**14  # cells that are one table anyway


def deterministic(
    name: str, size: int, parents: Sequence[str], groups: Sequence[np.ndarray], code: np.ndarray
) -> Factor:
    """Return a deterministic factor without columns.

    Parameters
    ----------
    name : str
        What to call it.
    size : int
        Number of codes.
    parents : sequence of str
        Earlier factors that determine it.
    groups : sequence of ndarray of shape (n_codes of that parent,)
        For each parent, the group of each of its codes.
    code : ndarray of int64 of shape (product of the numbers of groups,)
        Its code for each combination of groups.
    """
    present, distribution_of = np.unique(code, return_inverse=True)
    return Factor(
        name=name,
        size=size,
        parents=tuple(parents),
        groups=tuple(groups),
        distribution_of=distribution_of.reshape(-1),
        offsets=np.arange(len(present) + 1),
        codes=present,
        counts=np.ones(len(present), np.int64),
        emissions=(),
    )


def tables(reached: Sequence[np.ndarray], firm: int) -> list[tuple[int, np.ndarray]] | None:
    """Return the tables that lead to a leaf; None if they would be too large.

    Parameters
    ----------
    reached : sequence of ndarray of bool of shape (n_leaves, n_groups)
        For each predictor, which of its groups lead to which leaf. Together they lead to exactly one.
    firm : int
        How many predictors, the first ones, have a single group in every leaf.

    Returns
    -------
    list of (int, ndarray of int64)
        For each table how many more predictors it reads, and the next state, in the last one the leaf, for
        each state and each group of theirs; the axis of the state has length 1 in the first.
    """
    sizes = [lit.shape[1] for lit in reached]
    if math.prod(sizes) <= _ONE_TABLE or len(sizes) <= max(firm, 1):
        leaf = np.zeros(sizes or [1], np.int64)
        for number in range(len(reached[0]) if reached else 1):
            if reached:
                leaf[np.ix_(*(lit[number] for lit in reached))] = number
        return [(len(sizes), leaf.reshape(1, *leaf.shape))]
    steps = _steps(reached, firm)
    return None if steps is None else _packed(steps)


def _steps(reached: Sequence[np.ndarray], firm: int) -> list[np.ndarray] | None:
    """Return the next state of each state and group: one table for firm predictors, one for each other."""
    first = reached[:firm]
    shape = [lit.shape[1] for lit in first]
    branch = np.zeros(len(reached[0]), np.int64)
    for lit in first:
        branch = branch * lit.shape[1] + lit.argmax(axis=1)
    order = np.argsort(branch, kind="stable")
    states = np.split(order, np.flatnonzero(np.diff(branch[order])) + 1)  # every branch has a leaf
    steps = [np.arange(len(states)).reshape(1, *shape)] if firm else []
    cells = 0
    for lit in reached[firm:]:
        table = np.empty((len(states), lit.shape[1]), np.int64)
        cells += table.size
        if cells > MOST_CELLS:
            return None
        following = _Numbered()
        for state, leaves in enumerate(states):
            here = lit[leaves]
            if here.all():
                table[state] = following.number(leaves)
                continue
            for column, groups in _different_columns(here):
                table[state, groups] = following.number(leaves[column])
        states = following.states
        steps.append(table)
    leaf = np.array([int(leaves[0]) for leaves in states])
    steps[-1] = leaf[steps[-1]]
    return steps


class _Numbered:
    """Sets of leaves that can still be reached, each with a number."""

    def __init__(self) -> None:
        self.states: list[np.ndarray] = []
        self._known: dict[bytes, int] = {}

    def number(self, leaves: np.ndarray) -> int:
        number = self._known.setdefault(leaves.tobytes(), len(self.states))
        if number == len(self.states):
            self.states.append(leaves)
        return number


def _different_columns(lit: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the different columns of a table of bool, each with its places."""
    packed = np.ascontiguousarray(np.packbits(lit, axis=0).T)
    keys = packed.view(np.dtype((np.void, packed.shape[1]))).reshape(-1)
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return [(lit[:, i], np.flatnonzero(inverse == k)) for k, i in enumerate(first)]


def _packed(steps: Sequence[np.ndarray]) -> list[tuple[int, np.ndarray]]:
    """Return the tables with neighbours merged where that stays small."""
    packed = [(steps[0].ndim - 1, steps[0])]
    for step in steps[1:]:
        many, before = packed[-1]
        if before.size * step.shape[1] <= _ONE_TABLE:
            packed[-1] = (many + 1, step[before])
        else:
            packed.append((1, step))
    return packed

"""Trees as tables: whatever their shape, each case leads to the leaf that the tree says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logistream.fitting import decision_diagram as diagrams
from logistream.fitting.decision_diagram import MOST_CELLS, deterministic, tables


def grown(sizes: list[int], firm: int, splits: int, seed: int) -> list[list[set[int]]]:
    """Return the leaves of a random tree: for each, which groups of each predictor lead to it."""
    rng = np.random.default_rng(seed)
    leaves = [[set(range(size)) for size in sizes]]
    for place in range(firm):
        leaves = [
            [*leaf[:place], {group}, *leaf[place + 1 :]] for leaf in leaves for group in range(sizes[place])
        ]
    for _ in range(splits):
        leaf = leaves.pop(int(rng.integers(len(leaves))))
        place = int(rng.integers(len(sizes)))
        left = {group for group in leaf[place] if rng.random() < 0.5}
        for part in (left, leaf[place] - left):
            if part:
                leaves.append([*leaf[:place], part, *leaf[place + 1 :]])
    return leaves


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=7), st.integers(0, 2), st.integers(0, 40), st.integers()
)
def test_every_case_leads_to_its_leaf(sizes: list[int], firm: int, splits: int, seed: int) -> None:
    firm = min(firm, len(sizes))
    leaves = grown(sizes, firm, splits, abs(seed))
    reached = [
        np.array([[group in leaf[place] for group in range(size)] for leaf in leaves])
        for place, size in enumerate(sizes)
    ]
    rng = np.random.default_rng(0)
    cases = np.stack([rng.integers(0, size, 300) for size in sizes], axis=1)
    wanted = np.array(
        [[all(c in part for c, part in zip(case, leaf, strict=True)) for leaf in leaves] for case in cases]
    ).argmax(axis=1)
    for one_table in (1, 50, 2**14):  # from a table for each predictor to one for all
        before, diagrams._ONE_TABLE = diagrams._ONE_TABLE, one_table
        try:
            steps = tables(reached, firm)
        finally:
            diagrams._ONE_TABLE = before
        assert steps is not None
        assert sum(many for many, _ in steps) == len(sizes)
        state, read = np.zeros(len(cases), np.int64), 0
        for many, table in steps:
            state = table[(state, *cases[:, read : read + many].T)]
            read += many
        assert np.array_equal(state, wanted)


def test_a_large_tree_needs_small_tables() -> None:
    """Twelve predictors of twenty groups are 4e15 cases; a tree that asks them in turn has few states."""
    leaves = [
        [
            set(range(20)) if place > depth else {0} if place == depth else {*range(1, 20)}
            for place in range(12)
        ]
        for depth in range(12)
    ]
    leaves.append([{*range(1, 20)} for _ in range(12)])
    reached = [
        np.array([[group in leaf[place] for group in range(20)] for leaf in leaves]) for place in range(12)
    ]
    steps = tables(reached, 0)
    assert steps is not None
    assert sum(table.size for _, table in steps) < 40_000
    assert steps[-1][1].max() == 12


@pytest.mark.slow
def test_what_would_be_too_large_is_left_to_the_caller() -> None:
    """A sum of many predictors that differs in each case has as many states as cases."""
    cases = np.stack(np.unravel_index(np.arange(8**4), (8,) * 4), axis=1)
    rng = np.random.default_rng(0)
    reached = [rng.random((len(cases), 400)) < 0.5 for _ in range(6)]
    reached += [np.eye(8, dtype=bool)[cases[:, i]] for i in range(4)]
    assert math.prod(lit.shape[1] for lit in reached) > MOST_CELLS
    assert tables(reached, 0) is None


def test_a_deterministic_factor_has_one_count_a_distribution() -> None:
    factor = deterministic(
        "sum", 7, ("a", "b"), (np.arange(4), np.arange(3)), np.add.outer(range(4), range(3)).ravel()
    )
    assert factor.codes[factor.distribution_of].tolist() == [a + b for a in range(4) for b in range(3)]
    assert factor.counts.tolist() == [1] * 6
    assert factor.size == 7
    assert factor.emissions == ()

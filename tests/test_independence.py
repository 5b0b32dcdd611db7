"""The test of independence, against permutations."""

from __future__ import annotations

import numpy as np
import pytest

from logistream.independence import log_p_value


def contingency(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    table = np.zeros((a.max() + 1, b.max() + 1))
    np.add.at(table, (a, b), 1)
    return table


@pytest.mark.parametrize(("n", "rows", "columns"), [(2000, 10, 800), (200, 5, 100), (60, 3, 30), (500, 2, 2)])
def test_p_values_of_independent_variables_are_even(n: int, rows: int, columns: int) -> None:
    """However sparse the table: a share p of p-values lies below p."""
    rng = np.random.default_rng(0)
    a, b = rng.zipf(1.5, n) % rows, rng.zipf(1.3, n) % columns
    p = np.exp([log_p_value(contingency(a, rng.permutation(b))) for _ in range(400)])
    for level in (0.05, 0.25, 0.5):
        assert abs(np.mean(p < level) - level) < 4 * np.sqrt(level * (1 - level) / 400)


def test_dependence_is_seen_in_a_sparse_table() -> None:
    """Two hundred values of three rows each, half of them leaning one way."""
    rng = np.random.default_rng(0)
    a = np.repeat(np.arange(200), 3)
    b = (rng.random(600) < np.where(a % 2, 0.8, 0.2)).astype(int)
    assert log_p_value(contingency(a, b)) < np.log(1e-6)


def test_tables_that_say_nothing() -> None:
    """A single row or column, no counts, margins that leave one table only."""
    for table in ([[5, 5]], [[3], [4]], [[0, 0], [0, 0]], [[1, 0], [0, 1]], np.eye(50)):
        assert log_p_value(np.array(table)) == 0.0

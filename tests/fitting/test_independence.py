"""The test of independence, against permutations."""

from __future__ import annotations

import numpy as np
import pytest

from logistream.fitting.independence import log_p_trends, log_p_values


def log_p_value(table: object) -> float:
    """Return the log p-value of a contingency table, by way of rows that have it."""
    counts = np.asarray(table, dtype=np.int64)
    a, b = (np.repeat(where, counts.reshape(-1)) for where in np.indices(counts.shape).reshape(2, -1))
    if len(a) == 0:
        return 0.0
    return float(log_p_values(a[:, None], np.unique(b, return_inverse=True)[1])[0])


@pytest.mark.parametrize(("n", "rows", "columns"), [(2000, 10, 800), (200, 5, 100), (60, 3, 30), (500, 2, 2)])
def test_p_values_of_independent_variables_are_even(n: int, rows: int, columns: int) -> None:
    """However sparse the table: a share p of p-values lies below p."""
    rng = np.random.default_rng(0)
    a, b = rng.zipf(1.5, n) % rows, np.unique(rng.zipf(1.3, n) % columns, return_inverse=True)[1]
    p = np.exp([log_p_values(a[:, None], rng.permutation(b))[0] for _ in range(400)])
    for level in (0.05, 0.25, 0.5):
        assert abs(np.mean(p < level) - level) < 4 * np.sqrt(level * (1 - level) / 400)


def test_many_variables_at_once_are_each_by_itself() -> None:
    """Side by side, with sizes that differ and codes that do not occur, none sees another."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 300)
    groups = np.stack([rng.integers(0, 3, 300) * 5, np.zeros(300, int), labels, np.arange(300)], axis=1)
    together = log_p_values(groups, labels)
    assert together.tolist() == [log_p_values(groups[:, [i]], labels)[0] for i in range(4)]
    assert (together <= 0).all()
    assert together[1] == together[3] == 0.0  # a constant, and values of one row each, say nothing
    assert together[2] < -50


def test_dependence_is_seen_in_a_sparse_table() -> None:
    """Two hundred values of three rows each, half of them leaning one way."""
    rng = np.random.default_rng(0)
    a = np.repeat(np.arange(200), 3)
    b = (rng.random(600) < np.where(a % 2, 0.8, 0.2)).astype(int)
    assert log_p_values(a[:, None], b)[0] < np.log(1e-6)


def test_tables_that_say_nothing() -> None:
    """A single row or column, no counts, margins that leave one table only."""
    for table in ([[5, 5]], [[3], [4]], [[0, 0], [0, 0]], [[1, 0], [0, 1]], np.eye(50)):
        assert log_p_value(table) == 0.0


@pytest.mark.parametrize(("ordered_target", "ordered"), [(True, True), (True, False), (False, True)])
@pytest.mark.parametrize("n", [12, 40, 400])
def test_p_values_without_a_trend_are_even(n: int, ordered_target: bool, ordered: bool) -> None:
    """In few rows as in many: no more than a share p of p-values lies below p, and in many rows no fewer."""
    rng = np.random.default_rng(0)
    a, labels = rng.integers(0, 3, (n, 1)), rng.integers(0, 4, n)
    rank = labels + rng.random(n) if ordered_target else None
    p = []
    for _ in range(600):
        shuffled = rng.permutation(n)
        rows = (a, np.array([ordered]), labels[shuffled], None if rank is None else rank[shuffled])
        p.append(np.exp(log_p_trends(*rows)[0]))
    for level in (0.01, 0.05, 0.25):
        over = np.mean(np.array(p) < level) - level
        assert over < 0.01 + 4 * np.sqrt(level * (1 - level) / 600)
        assert n < 400 or abs(over) < 4 * np.sqrt(level * (1 - level) / 600)


def test_a_trend_is_seen_in_few_rows() -> None:
    """Where a test of any dependence, with as many cells as rows, mostly sees nothing yet."""
    rng = np.random.default_rng(0)
    groups = np.arange(60) % 6
    seen = {"trend": 0, "any": 0}
    for _ in range(100):
        rank = groups + rng.normal(0, 3, 60)
        labels = np.argsort(np.argsort(rank)) // 10
        seen["trend"] += log_p_trends(groups[:, None], np.array([True]), labels, rank)[0] < np.log(0.01)
        seen["any"] += log_p_values(groups[:, None], labels)[0] < np.log(0.01)
    assert seen["trend"] > 85 > 60 > seen["any"]


def test_trends_side_by_side_are_each_by_itself() -> None:
    """Ordered and unordered, constants among them; an unordered target has no trend with an unordered one."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 300)
    rank = labels + rng.random(300)
    groups = np.stack([rng.integers(0, 3, 300) * 5, np.zeros(300, int), labels, labels], axis=1)
    ordered = np.array([True, True, True, False])
    for target in (rank, None):
        together = log_p_trends(groups, ordered, labels, target)
        for i in range(4):
            alone = log_p_trends(groups[:, [i]], ordered[[i]], labels, target)[0]
            assert together[i] == pytest.approx(alone)
        assert together[1] == 0.0
        assert together[2] < -50
        assert (together[3] < -50) == (target is not None)
    assert log_p_trends(groups, ordered, labels, np.ones(300)).tolist() == [0.0] * 4

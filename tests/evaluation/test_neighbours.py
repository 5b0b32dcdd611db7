"""Distances between rows, and which rows are nearest."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from helpers.compared import rows, tables
from logistream.evaluation.neighbours import coordinates, nearest_balance, nearest_distance
from logistream.evaluation.numeric import numeric_tables
from logistream.schema import Column, Schema


def test_nearest_balance_tells_rows_that_were_copied() -> None:
    """Fresh rows are near to either table, copies to the one they were copied from, two equal tables tie."""
    fresh, train, holdout = tables(rows(400, 0, missing=True), rows(400, 1), rows(400, 2))
    assert 0.42 < nearest_balance(fresh, train, holdout) < 0.58
    assert nearest_balance(train, train, holdout) == 1
    assert nearest_balance(train, holdout, train) == 0
    assert nearest_balance(fresh, train, train) == 0.5


def test_a_distance_is_what_the_definition_says() -> None:
    """Different strings are 1 apart, ranks the square root of 6 at most, missing values 1 from others."""
    schema = Schema((Column("c", "category", nullable=True), Column("v", "number", nullable=True)))
    table, reference = numeric_tables(
        schema,
        [
            pd.DataFrame({"c": ["p", "q", None, "p"], "v": [0.0, 0.0, 0.0, np.nan]}),
            pd.DataFrame({"c": ["p", "p", "q", "r"], "v": [1.0, 2.0, 3.0, 4.0]}),
        ],
    )
    points = coordinates(table, [reference])
    squares = np.square(points[:, None] - points[None]).sum(axis=2)
    np.testing.assert_allclose(squares[0], [0, 1, 1, 1 + 6 * 0.5**2], atol=1e-6)
    first, last = coordinates(reference, [reference])[[0, 3], -2:]
    assert np.square(first - last).sum() == pytest.approx(6 * 0.75**2)


def test_the_nearest_is_the_nearest() -> None:
    """Distances are those of comparing all rows one by one, with mixed and missing values."""
    one, many = tables(rows(50, 0, missing=True), rows(700, 1, missing=True))
    a, b = (coordinates(table, [many]) for table in (one, many))
    by_hand = np.sqrt(np.square(a[:, None] - b[None]).sum(axis=2).min(axis=1))
    np.testing.assert_allclose(nearest_distance(a, b), by_hand, atol=2e-3)


def test_only_equal_rows_have_no_distance() -> None:
    """Of thousands of strings no two share a point, and they are about 1 apart; a row finds itself."""
    strings = [f"s{i}" for i in range(9000)]
    schema = Schema((Column("c", "category"),))
    (table,) = numeric_tables(schema, [pd.DataFrame({"c": strings})])
    points = coordinates(table, [table])
    assert points.shape[1] == 32
    assert len(np.unique(points, axis=0)) == 9000
    squares = np.square(points[:100, None] - points[None, 100:200]).sum(axis=2)
    assert 0.98 < squares.mean() < 1.02
    assert squares.std() < 0.2
    assert (nearest_distance(points[:100], points) == 0).all()
    assert (nearest_distance(points[:100], points[100:]) > 0.3).all()

"""Pairs of columns of which no combination occurs twice: none does in synthetic rows, without end."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.ruled import lines_of_orders
from logistream.fitting.fit import fit
from logistream.model.model import load_model
from logistream.model.patterns import first_of_group
from logistream.model.sampling import BLOCK, Sampler


@pytest.mark.parametrize("gaps", [0.0, 0.02])
@pytest.mark.parametrize("whole", [False, True])
def test_no_line_of_an_order_comes_twice(whole: bool, gaps: float) -> None:
    """As many lines an order as there were, each order from one store, in any range of a stream."""
    frame = lines_of_orders(whole=whole, gaps=gaps)
    model = fit(frame)
    made = model.sample(40_000)
    known = made.dropna(subset=["order", "line"])
    assert not known.duplicated(["order", "line"]).any()
    assert known.groupby("order")["store"].nunique().max() == 1
    assert abs(made.groupby("order").size().mean() / frame.groupby("order").size().mean() - 1) < 0.1
    assert (made.isna().mean() - frame.isna().mean()).abs().max() < 0.02
    assert not set(known["order"]) & set(frame["order"].dropna())
    start = 3 * BLOCK + 17
    part = model.events(start, start + 500).column("order").to_pylist()
    assert part == [None if pd.isna(value) else value for value in made["order"][start : start + 500]]


def test_conditions_leave_lines_unique(tmp_path: Path) -> None:
    """Rows that are drawn directly, or accepted among others, and a model from a file."""
    frame = lines_of_orders(dated=True)
    model = load_model(fit(frame).save(tmp_path / "m.model"))
    for where in ({"line": [1, 2], "quantity": [3, 4]}, ("day", ">=", "2025-06-01")):
        made = model.sample(10_000, where=where)
        assert not made.duplicated(["order", "line"]).any()
    alone = Sampler(model, 5, columns={"order"}).batch(0, 300)
    assert alone.column("order").to_pylist() == model.events(0, 300, seed=5).column("order").to_pylist()


def test_rejected_rows_take_no_number() -> None:
    """Rows left out by a condition on a continuous column share no order with those that are kept."""
    rng = np.random.default_rng(1)
    frame = lines_of_orders()
    frame["weight"] = rng.normal(50, 9, len(frame))
    made = fit(frame).sample(10_000, where=("weight", "between", (48.3, 51.7)))
    assert made.attrs["acceptance_rate"] < 1
    assert not made.duplicated(["order", "line"]).any()


def test_what_cannot_be_kept_is_described() -> None:
    """Of a table with one row for each town and week the towns are kept, so pairs come again."""
    rng = np.random.default_rng(2)
    grid = pd.MultiIndex.from_product(
        [[f"town {c}" for c in "abcdefghijklmnopqrstuvwxyzABCDEFGH"], range(1, 26)]
    )
    frame = grid.to_frame(index=False, name=["town", "week"]).assign(sold=rng.integers(0, 99, len(grid)))
    model = fit(frame)
    assert set(model.sample(1000)["town"]) <= set(frame["town"])
    text = str(model.describe())
    assert "Seen and not kept" in text
    assert "town with week: none twice (held in 850 of 850 rows): the values of town are kept" in text
    below = lines_of_orders(whole=True)
    below["order"] = -below["order"]
    kept, _, lost = str(fit(below).describe()).partition("Seen and not kept")
    assert "order → store" not in kept
    for words in ("order with line: none twice", "order → store"):
        assert re.search(rf"{words} \(held in .* rows\): order has too many digits, or numbers below 0", lost)
    dated = str(fit(lines_of_orders(dated=True)).describe())
    assert "  order with line\n" in dated
    assert "order → store, day" in dated or ("order → store" in dated and "order → day" in dated)
    assert "rows share a value of order only if they agree in store, day" in dated


def test_pairs_that_are_unique_by_chance_are_left_alone() -> None:
    """Two columns whose combinations would hardly repeat in any case."""
    rng = np.random.default_rng(3)
    frame = pd.DataFrame({"a": rng.integers(0, 10**6, 500) // 2, "b": rng.integers(0, 400, 500)})
    assert not fit(frame).rules


def test_groups_are_made_of_rows_that_differ() -> None:
    """The first rows of each kind together, then the second ones, each group named by its first place."""
    within, shared = np.array([0, 0, 1, 1, 0, 2]), np.array([0, 0, 0, 0, 1, 1])
    assert first_of_group(within, shared, np.arange(6)).tolist() == [0, 1, 0, 1, 4, 4]
    rng = np.random.default_rng(4)
    within, shared = rng.integers(0, 5, 3000), rng.integers(0, 40, 3000)
    first = first_of_group(within, shared, np.arange(3000))
    assert len(np.unique(np.stack([first, within]), axis=1).T) == 3000
    assert (shared[first] == shared).all()

"""Lattices and point masses: rounded numbers stay rounded, and common ones come back as often."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logistream.fitting.coding import POINT_MASS, SMALLEST_GROUP, code_multiples
from logistream.fitting.fit import fit
from logistream.fitting.lattices import find_lattices
from logistream.model.model import Model

ROWS = 4_000


def incomes() -> np.ndarray:
    return np.exp(np.random.default_rng(0).normal(10.4, 0.7, ROWS))


def shares() -> np.ndarray:
    return np.random.default_rng(1).random(ROWS)


def on_lattice(numbers: pd.Series, step: float) -> float:
    """Return the share of numbers that are multiples of a step."""
    parts = numbers / step
    return float(np.isclose(parts, np.round(parts), rtol=0, atol=1e-9).mean())


@pytest.mark.parametrize(
    ("numbers", "step"),
    [
        (np.round(incomes(), -3), 1000),
        (np.round(incomes(), -1).astype(int), 10),
        (np.round(incomes() / 100) / 2, 0.5),
        (np.round(incomes() / 7, 2), 0.01),
        (np.round(incomes() / 100) * 12, 12),
    ],
    ids=["thousands", "tens", "halves", "cents", "dozens"],
)
def test_a_lattice_is_kept(numbers: np.ndarray, step: float) -> None:
    """Where all numbers are multiples of a step, all that are drawn are."""
    drawn = fit(pd.DataFrame({"x": numbers})).sample(ROWS)["x"]
    assert on_lattice(drawn, step) == 1
    assert on_lattice(drawn, 2 * step) == pytest.approx(on_lattice(pd.Series(numbers), 2 * step), abs=0.03)


def test_mixed_roundings_keep_their_shares() -> None:
    """Half of the incomes in thousands, a third in hundreds, the others to the unit."""
    u, x = shares(), incomes()
    mixed = np.where(u < 0.5, np.round(x, -3), np.where(u < 0.8, np.round(x, -2), np.round(x)))
    drawn = fit(pd.DataFrame({"x": mixed})).sample(ROWS)["x"]
    for step in (10, 100, 200, 1000, 2000):
        assert on_lattice(drawn, step) == pytest.approx(on_lattice(pd.Series(mixed), step), abs=0.02)


def test_numbers_of_full_precision_among_whole_ones() -> None:
    """A third of the numbers is whole, the others have all their digits: so do those that are drawn."""
    u, x = shares(), incomes() / 1000
    mixed = np.where(u < 1 / 3, np.round(x), x)
    model = fit(pd.DataFrame({"x": mixed}))
    drawn = model.sample(ROWS)["x"]
    assert on_lattice(drawn, 1) == pytest.approx(1 / 3, abs=0.02)
    assert (drawn[drawn.map(float.is_integer)] % 1 == 0).all()
    few_digits = np.round(drawn, 3) == drawn
    assert few_digits.mean() == pytest.approx(1 / 3, abs=0.02)


def test_decimals_of_a_lattice_are_exact() -> None:
    """Quarters and cents among numbers of full precision are the floats that one writes so."""
    u, x = shares(), incomes() / 1000
    drawn = fit(pd.DataFrame({"x": np.where(u < 0.5, np.round(x, 2), x)})).sample(ROWS)["x"]
    cents = drawn[np.isclose(drawn * 100, np.round(drawn * 100), rtol=0, atol=1e-9)]
    assert len(cents) == pytest.approx(ROWS / 2, rel=0.05)
    assert (cents == [float(f"{value:.2f}") for value in cents]).all()


@pytest.mark.parametrize("whole", [True, False])
def test_numbers_without_a_lattice_have_none(whole: bool) -> None:
    """Of even numbers and of continuous ones no coarser step is found."""
    x = np.random.default_rng(2).integers(0, 10**6, ROWS) if whole else incomes()
    values, counts = np.unique(x, return_counts=True)
    assert find_lattices(values, counts, np.zeros(len(values), bool)).steps == [1 if whole else 0]


@settings(max_examples=30)
@given(st.sampled_from([2, 5, 10, 25, 60, 100, 1000]), st.floats(0.3, 1), st.integers(0, 99))
def test_a_step_is_found_whatever_share_has_it(step: int, share: float, seed: int) -> None:
    """The coarsest lattice is the one that numbers were rounded to, and holds no value that is not on it."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 10**6, 2000)
    rounded = rng.random(2000) < share
    values, counts = np.unique(np.where(rounded, x // step * step, x), return_counts=True)
    found = find_lattices(values, counts, np.zeros(len(values), bool))
    assert found.steps[-1] == step
    assert (values[found.level == len(found.steps) - 1] % step == 0).all()


def test_common_numbers_come_back_as_often() -> None:
    """Each of a hundred numbers that twenty rows share comes back about as often, and no other one does."""
    rng = np.random.default_rng(3)
    common = rng.normal(size=100)
    x = rng.permutation(np.concatenate([np.repeat(common, 20), rng.normal(size=2000)]))
    drawn = fit(pd.DataFrame({"x": x})).sample(len(x))["x"].value_counts()
    assert set(drawn.index[drawn > 2]) == set(common)
    assert drawn.loc[list(common)].between(15, 25).all()


def test_no_code_stands_for_fewer_rows_than_allowed() -> None:
    """A range holds five rows and two values, a single value ten rows, whatever the lattice."""
    u, x = shares(), incomes()
    mixed = np.where(u < 0.5, np.round(x, -3), np.round(x)).astype(np.int64)
    coded = code_multiples("x", mixed, (1, 1))
    (emission,) = coded.emissions
    assert emission.step is not None
    rows = np.bincount(coded.codes, minlength=coded.size)
    single = emission.low == emission.last
    assert single.any()
    assert (rows[single] >= POINT_MASS).all()
    assert (rows[~single] >= SMALLEST_GROUP).all()


def test_a_file_keeps_the_steps(tmp_path: object) -> None:
    """A model that is saved and read draws the same rounded numbers."""
    model = fit(pd.DataFrame({"x": np.where(shares() < 0.5, np.round(incomes(), -3), np.round(incomes()))}))
    again = Model.read(model.save(f"{tmp_path}/m.model"))
    pd.testing.assert_frame_equal(model.sample(1000), again.sample(1000))


def test_a_range_does_not_span_a_wide_gap() -> None:
    """Five numbers far from all others have a range of their own; fewer go with those nearest."""
    rng = np.random.default_rng(5)
    near = np.round(rng.normal(-80, 4, 2_000), 7)
    for many in (4, 5):
        far = np.round(rng.uniform(80, 116, many), 7)
        drawn = fit(pd.DataFrame({"x": np.concatenate([near, far])})).sample(20_000)["x"]
        inside = ((drawn > near.max()) & (drawn < far.min())).mean()
        assert (inside > 0) == (many < 5)
        assert many < 5 or (drawn >= far.min()).mean() == pytest.approx(5 / 2_005, abs=0.0015)

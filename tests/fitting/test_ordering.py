"""Numbers and instants that are never above another stay so."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logistream.fitting.fit import fit
from logistream.model.model import Model
from logistream.model.network import Formula
from logistream.model.sampling import compute

N = 2000


@pytest.fixture(scope="module")
def parcels() -> pd.DataFrame:
    """Return parcels: three weights in ascending order, and when they were booked and delivered."""
    rng = np.random.default_rng(0)
    net = rng.gamma(2, 3, N)
    packed = net + rng.gamma(1, 0.2, N)
    booked = pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 90 * 86_400, N), "s")
    return pd.DataFrame(
        {
            "charged": packed + rng.gamma(1, 0.3, N),
            "net": net,
            "packed": np.round(packed, 4),
            "other": rng.gamma(2, 3, N),
            "delivered": booked + pd.to_timedelta(rng.integers(60, 40 * 3600, N), "s"),
            "booked": booked,
        }
    ).assign(charged=lambda f: f["charged"].clip(lower=f["packed"]))


@pytest.fixture(scope="module")
def model(parcels: pd.DataFrame) -> Model:
    """Return a model of the parcels."""
    return fit(parcels.assign(packed=parcels["packed"].clip(lower=parcels["net"])))


def test_no_row_breaks_the_order(model: Model) -> None:
    """Of a chain each column is above the one below, and so above all; what only nearly keeps one is free."""
    made = model.sample(50_000, seed=3)
    assert (made["net"] <= made["packed"]).all()
    assert (made["packed"] <= made["charged"]).all()
    assert (made["booked"] <= made["delivered"]).all()
    kept = {(f.operation, f.left, f.column) for f in model.formulas if f.keeps_order}
    assert kept == {
        ("at least", "net", "packed"),
        ("at least", "packed", "charged"),
        ("at least", "booked", "delivered"),
    }


def test_the_order_is_needed_and_changes_little(model: Model, parcels: pd.DataFrame) -> None:
    """Without it some rows would break it; with it the gaps are as they were."""
    free = Model(
        **{
            name: getattr(model, name)
            for name in ("name", "schema", "categories", "dtypes", "factors", "rows")
        },
        formulas=tuple(f for f in model.formulas if not f.keeps_order),
    ).sample(50_000, seed=3)
    broken = (free["packed"] > free["charged"]).mean()
    assert 0 < broken < 0.3
    made = model.sample(50_000, seed=3)
    for name in ("packed", "charged"):
        assert abs(made[name].mean() - parcels[name].mean()) < 0.1 * parcels[name].std()


def test_the_description_tells_it(model: Model) -> None:
    """In words; the columns are drawn all the same, and not called computed."""
    text = str(model.describe())
    assert "In order (never above)\n  net ≤ packed\n  packed ≤ charged\n  booked ≤ delivered\n" in text
    assert "charged =" not in text
    with pytest.raises(ValueError, match="'charged' is continuous"):
        model.sample(1, where={"charged": 3.0})


def test_an_order_by_chance_is_none() -> None:
    """Columns far apart, columns of few rows and columns of few values are left alone."""
    rng = np.random.default_rng(1)
    low, high = rng.random(N), rng.random(N) + 2
    assert not any(f.keeps_order for f in fit(pd.DataFrame({"low": low, "high": high})).formulas)
    few = pd.DataFrame({"low": low[:60], "high": low[:60] + rng.random(60)})
    assert not any(f.keeps_order for f in fit(few).formulas)
    whole = rng.integers(1, 30, N)
    assert not any(
        f.keeps_order
        for f in fit(pd.DataFrame({"low": whole, "high": whole + rng.integers(0, 9, N)})).formulas
    )


def test_a_fixed_one_above_moves_the_one_below() -> None:
    """Where the upper one takes few values, which can be asked for, the lower one gives way."""
    rng = np.random.default_rng(2)
    limit = rng.integers(1, 12, N) * 10
    frame = pd.DataFrame({"load": np.round(limit * rng.beta(6, 1, N), 3), "limit": limit})
    model = fit(frame)
    assert Formula("load", "at most", "limit", "load", 3) in model.formulas
    made = model.sample(20_000, where={"limit": [20, 50]})
    assert (made["load"] <= made["limit"]).all()
    assert set(made["limit"]) == {20, 50}


@given(st.lists(st.integers(-(10**6), 10**6), min_size=1), st.integers(-(10**6), 10**6))
def test_reflected_values_lie_as_far_away(values: list[int], other: int) -> None:
    """On the side asked for, as far from the other column as before."""
    numbers = {"y": np.array(values), "x": np.full(len(values), other)}
    for sign, name in ((1, "at least"), (-1, "at most")):
        found = compute(Formula("y", name, "x", "y"), numbers)
        assert (sign * (found - other) == np.abs(numbers["y"] - other)).all()

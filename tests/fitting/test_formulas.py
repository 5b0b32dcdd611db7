"""Formulas and orders: found where they hold, nowhere else, and kept in every synthetic row."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.ruled import N, ruled
from helpers.ruled import bills as bills_table
from helpers.ruled import parcels as parcels_table
from logistream.errors import DataError, RequestWarning
from logistream.fitting.fit import fit
from logistream.fitting.formulas import find_formulas
from logistream.model.model import Model, load_model
from logistream.model.network import Formula
from logistream.model.sampling import compute


@pytest.fixture(scope="module")
def bills() -> pd.DataFrame:
    """Return bills: price × quantity, a rate of few values, a tip, a total, and two dates."""
    return bills_table()


def test_sums_products_rates_and_dates_are_found(bills: pd.DataFrame) -> None:
    """What a clerk would compute is computed, and holds in every synthetic row."""
    model = fit(bills)
    found = {f.column: (f.operation, f.left, f.right) for f in model.formulas}
    assert found["net"] == ("product", "price", "quantity")
    assert found["tax"] == ("product", "net", "tax / net")
    assert found["total"] in (("sum", "net", "tax"), ("product", "net", "total / net"))
    assert found["month"] == ("month", "ordered: date", "")
    assert found["shipped"] == ("sum", "ordered", "shipped - ordered")
    s = model.sample(20_000)
    assert np.allclose(s["net"], s["price"] * s["quantity"], atol=0.006)
    assert np.allclose(s["total"], s["net"] + s["tax"], atol=0.011)
    assert (s["month"] == s["ordered"].dt.month).all()
    assert set((s["shipped"] - s["ordered"]).dt.days) == {1, 2, 3, 4}


def test_no_formula_is_found_in_noise() -> None:
    """Twelve unrelated columns of numbers."""
    rng = np.random.default_rng(1)
    columns = {f"x{i}": np.round(rng.normal(0, 10, N), 2) for i in range(8)}
    columns |= {f"n{i}": rng.integers(0, 50, N).astype(float) for i in range(4)}
    assert find_formulas(columns, {f"x{i}": 2 for i in range(8)}) == []


def test_what_holds_by_rounding_only_is_no_formula() -> None:
    """Hours are about a hundredth of a time like 1930, not exactly; a price in cents may be off by one."""
    rng = np.random.default_rng(8)
    hour, minute = rng.integers(5, 24, N), rng.integers(0, 60, N)
    time = (100 * hour + minute).astype(float)
    found = find_formulas({"hour": hour.astype(float), "time": time}, {})
    assert "hour" not in {relation.formula.column for relation in found}
    price = rng.integers(10_000, 99_999, N) / 100
    found = find_formulas(
        {"price": price, "paid": np.round(np.round(price * 0.8, 3), 2)}, {"price": 2, "paid": 2}
    )
    assert len(found) == 1  # either from the other


def test_formulas_hold_between_gaps() -> None:
    """A total is missing exactly where its parts are, and a tax where the net amount is; else they add up."""
    rng = np.random.default_rng(10)
    fare, tip = rng.integers(300, 9000, N) / 100, rng.integers(0, 900, N) / 100
    gap = rng.random(N) < 0.1
    frame = pd.DataFrame({"fare": fare, "tip": tip, "total": np.round(fare + tip, 2)})
    frame["share"] = np.round(fare * rng.choice([0.05, 0.1, 0.25], N), 2)
    frame.loc[gap, ["fare", "total", "share"]] = np.nan
    frame["own"] = np.where(rng.random(N) < 0.1, np.nan, fare + 2 * tip)  # its gaps are its own
    model = fit(frame)
    found = {f.column: f.operation for f in model.formulas if f.operation != "blank"}
    assert found == {"total": "sum", "share": "product", "own": "sum"}  # own = total + tip
    made = model.sample(20_000)
    known = made.dropna(subset=["fare"])
    assert np.allclose(known["total"], known["fare"] + known["tip"], atol=0.006)
    assert set((known["share"] / known["fare"] * 20).round().astype(int)) == {1, 2, 5}
    for name in ("total", "share"):
        assert (made[name].isna() == made["fare"].isna()).all()
    assert abs(made["fare"].isna().mean() - 0.1) < 0.02
    assert abs(made["own"].isna().mean() - 0.1) < 0.02
    assert "total = " in str(model.describe())


def test_the_caller_overrules_formulas(bills: pd.DataFrame) -> None:
    """A formula can be given or forbidden."""
    model = fit(bills, derive={"month": None, "total": ("tax", "+", "net")})
    found = {f.column: (f.operation, f.left, f.right) for f in model.formulas}
    assert "month" not in found
    assert found["total"] == ("sum", "tax", "net")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"derive": {"net": ("price", "+", "quantity")}},
            r"'net' is not 'price' \+ 'quantity' in 3,000 of 3,000",
        ),
        ({"derive": {"net": ("price", "/", "quantity")}}, r"can be computed with \* or \+, not '/'"),
        ({"derive": {"net": ("price", "*", "colour")}}, "'colour' is not a numeric column"),
        ({"together": [("price", "quantity")]}, "together: 'price' is no column of few values"),
        ({"keys": {"quantity": ["tax / net"]}}, "'quantity' does not determine 'tax / net'"),
    ],
)
def test_what_the_caller_says_is_checked(
    bills: pd.DataFrame, options: dict[str, object], sentence: str
) -> None:
    """A claim that does not hold gets a sentence with how often it fails."""
    with pytest.raises(DataError, match=sentence):
        fit(bills, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def parcels() -> pd.DataFrame:
    """Return parcels: three weights in ascending order, and when they were booked and delivered."""
    return parcels_table()


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


def test_the_description_lists_orders(model: Model) -> None:
    """In words; the columns are drawn all the same, and not called computed."""
    text = str(model.describe())
    held = f"(holds in {N:,} of {N:,} rows)"
    orders = ("net ≤ packed", "packed ≤ charged", "booked ≤ delivered")
    assert "In order (never above)\n" + "".join(f"  {order} {held}\n" for order in orders) in text
    assert "charged =" not in text


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
    assert Formula("load", "at most", "limit", "load", 3, rows=N, checked=N) in model.formulas
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


RULES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "change": lambda s: (s["change"] - (s["paid"] - s["due"])).abs() < 0.006,
    "total": lambda s: (s["total"] - (s["net"] + s["tax"] + s["freight"] - s["rebate"])).abs() < 0.006,
    "margin": lambda s: (s["margin"] - 100 * s["tax"] / s["net"]).abs() < 0.0501,
    "bill": lambda s: (s["bill"] - (s["price"] * s["quantity"] + s["fee"])).abs() < 0.006,
    "county": lambda s: s["county"] == 1000 * s["state"] + s["part"],
    "squared": lambda s: np.isclose(s["squared"], s["weight"] ** 2),
    "logarithm": lambda s: np.isclose(s["logarithm"], np.log(s["weight"])),
    "hours": lambda s: (s["hours"] - (s["end"] - s["start"]).dt.total_seconds() / 3600).abs() < 0.00501,
    "end": lambda s: s["start"] <= s["end"],
    "day": lambda s: s["day"] == s["start"].dt.strftime("%Y%m%d").astype("Int64"),
    "age": lambda s: s["age"] == (s["end"] - s["start"]).dt.total_seconds() // 86_400,
}
READ = {
    "change": ["paid", "due"],
    "total": ["net", "tax", "freight", "rebate"],
    "margin": ["tax", "net"],
    "bill": ["price", "quantity", "fee"],
    "county": ["state", "part"],
    "squared": ["weight"],
    "logarithm": ["weight"],
    "hours": ["start", "end"],
    "end": ["start"],
    "day": ["start"],
    "age": ["start", "end"],
}


@pytest.mark.slow
@pytest.mark.parametrize("gaps", [0.0, 0.02, 0.2])
def test_rules_hold_in_synthetic_rows_wherever_nothing_is_missing(gaps: float) -> None:
    """Of every kind, with gaps that have nothing to do with the rules; the gaps come as often as they did."""
    frame = ruled(gaps)
    model = fit(frame)
    made = model.sample(20_000)
    for name, keeps in RULES.items():
        for table in (frame, made):
            known = table.dropna(subset=[name, *READ[name]])
            assert len(known) > 0.3 * len(table), name
            assert keeps(known).mean() > (0.999 if table is made else 1 - 1e-9), name
    assert (made.isna().mean() - frame.isna().mean()).abs().max() < 0.02
    described = str(model.describe())
    for words in (
        "bill = price × quantity + fee (holds in",
        "county = 1000 × state + part (holds in",
        "hours = end - start in hours (holds in",
        "day = yyyymmdd of start",
        "margin = 100 × tax / net (holds in",
        "age = end - start in days, rounded down (holds in",
    ):
        assert words in described
    free = made[["net", "tax", "freight", "price", "fee", "weight"]].astype(float)
    assert (free.corr() - np.eye(6)).abs().max().max() < 0.1  # independent before, and still


def test_formulas_under_gaps_are_saved_and_asked_for(tmp_path: Path) -> None:
    """A file keeps them; a condition holds, on an input as on what is computed."""
    frame = ruled(0.1)[["state", "part", "county", "start", "day"]]
    model = fit(frame)
    again = load_model(model.save(tmp_path / "m.model"))
    assert again.formulas == model.formulas
    assert again.sample(300, seed=2).equals(model.sample(300, seed=2))
    wanted = int(frame["county"].dropna().mode()[0])
    made = model.sample(300, where={"state": wanted // 1000})
    assert (made["state"] == wanted // 1000).all()
    assert (made["county"].dropna() // 1000 == wanted // 1000).all()
    with warnings.catch_warnings(action="ignore", category=RequestWarning):  # such rows are rare
        assert (model.sample(5, where={"county": wanted})["county"] == wanted).all()


def test_chance_agreement_is_no_formula() -> None:
    """Nothing of any kind is found in unrelated columns, of many rows or of few, with gaps or without."""
    rng = np.random.default_rng(3)
    for n in (60, 3000):
        columns = {f"x{i}": np.round(rng.normal(0, 10, n), 2) for i in range(6)}
        columns |= {f"n{i}": rng.integers(0, 40, n).astype(float) for i in range(6)}
        columns |= {f"f{i}": rng.normal(size=n) for i in range(3)}
        columns["flag"] = (rng.random(n) < 0.5).astype(float)
        columns["gap"] = np.where(rng.random(n) < 0.3, np.nan, np.round(rng.normal(5, 1, n), 1))
        digits: dict[str, int | None] = {f"x{i}": 2 for i in range(6)}
        digits |= {"gap": 1, "f0": None, "f1": None, "f2": None}
        assert find_formulas(columns, digits) == []

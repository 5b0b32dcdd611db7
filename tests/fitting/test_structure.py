"""Formulas, keys and blocks: found where they are, and nowhere else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from logistream.errors import DataError
from logistream.fitting.branches import combine
from logistream.fitting.coding import Coded, code_column
from logistream.fitting.fit import fit
from logistream.fitting.formulas import find_formulas
from logistream.fitting.order import find_keys, find_links, find_steps
from logistream.schema import Column

N = 3000


def nominal(**columns: np.ndarray) -> dict[str, Coded]:
    """Code columns of whole numbers as texts."""
    found = {}
    for name, values in columns.items():
        texts = pd.Series(values).astype("str")
        found[name] = code_column(texts, Column(name, "category"), sorted(texts.unique()))
    return found


@pytest.fixture(scope="module")
def bills() -> pd.DataFrame:
    """Return bills: price × quantity, a rate of few values, a tip, a total, and two dates."""
    rng = np.random.default_rng(0)
    price, quantity = rng.integers(100, 9999, N) / 100, rng.integers(1, 9, N)
    rate = rng.choice([0.05, 0.07, 0.19], N)
    net = np.round(price * quantity, 2)
    tax = np.round(net * rate, 2)
    ordered = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 365 * 1440, N), "min")
    return pd.DataFrame(
        {
            "price": price,
            "quantity": quantity,
            "net": net,
            "tax": tax,
            "total": np.round(net + tax, 2),
            "ordered": ordered,
            "shipped": ordered + pd.to_timedelta(rng.integers(1, 5, N), "D"),
            "month": ordered.month,
        }
    )


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


def test_a_number_is_drawn_before_its_digits() -> None:
    """Of a date as a number follow year and month; no month is made that never was."""
    rng = np.random.default_rng(9)
    month = rng.integers(
        7, 91, N
    )  # since the beginning of 2000: neither the first nor the last year is whole
    frame = pd.DataFrame({"year": 2000 + month // 12, "month": month % 12 + 1, "date": 2000 + month / 12})
    model = fit(frame)
    assert model.factors[0].name == "date"
    made = model.sample(20_000)
    assert np.allclose(made["year"] + (made["month"] - 1) / 12, made["date"])


def test_keys_need_proof() -> None:
    """City fixes country; a column of all different values fixes nothing that can be known."""
    rng = np.random.default_rng(2)
    city = rng.integers(0, 200, N)
    coded = nominal(city=city, country=city % 20, noise=rng.integers(0, 20, N), id=np.arange(N))
    assert find_keys(coded) == {"city": ("country",)}


def test_links_are_combinations_that_recur() -> None:
    """Two columns whose combinations recur are linked; unrelated ones of many values are not."""
    rng = np.random.default_rng(3)
    pair = rng.integers(0, 150, N)
    coded = nominal(a=pair % 37, b=pair * 7 % 41, many=rng.integers(0, 300, N), few=rng.integers(0, 3, N))
    assert set(find_links(coded)) == {frozenset("ab")}


def test_cells_that_stay_empty_link() -> None:
    """A service that is always late is never combined with in time."""
    rng = np.random.default_rng(4)
    mode = rng.integers(0, 4, N)
    late = np.where(mode == 1, 1, rng.integers(0, 2, N))
    assert set(find_links(nominal(mode=mode, late=late))) == {frozenset(("mode", "late"))}


def test_two_keys_of_one_column_agree() -> None:
    """Customer and shop lie in the same town, which both determine."""
    rng = np.random.default_rng(5)
    town = rng.integers(0, 12, N)
    frame = pd.DataFrame(
        {
            "shop": town * 3 + rng.integers(0, 3, N),
            "customer": town * 20 + rng.integers(0, 20, N),
            "town": town,
        }
    ).astype("str")
    s = fit(frame).sample(20_000).astype(int)
    assert (s["shop"] // 3 == s["town"]).all()
    assert (s["customer"] // 20 == s["town"]).all()


def test_the_caller_overrules(bills: pd.DataFrame) -> None:
    """Formulas, blocks and keys can be told or forbidden."""
    model = fit(bills, derive={"month": None, "total": ("tax", "+", "net")})
    found = {f.column: (f.operation, f.left, f.right) for f in model.formulas}
    assert "month" not in found
    assert found["total"] == ("sum", "tax", "net")
    rng = np.random.default_rng(6)
    a = rng.integers(0, 30, N)
    coded = nominal(a=a, b=a // 3, c=rng.integers(0, 3, N))

    def within(**told: object) -> dict[str, tuple[str, ...]]:
        return {step.variable.name: step.within for step in find_steps(coded, **told)}  # type: ignore[arg-type]

    assert within() == {"c": (), "b": (), "a": ("b",)}
    assert within(together=[("b", "c")]) == {"c": (), "b": ("c",), "a": ("b",)}
    assert within(keys={"a": ()})["a"] == ("b",)  # their combinations still recur


def test_rare_combinations_are_one() -> None:
    """A look-up of two variables knows those of few rows, and those of none, only as others of the first."""
    a, b = np.repeat([0, 0, 0, 1, 1], [9, 3, 1, 8, 7]), np.repeat([0, 1, 2, 0, 1], [9, 3, 1, 8, 7])
    coded = nominal(a=a, b=b)
    both, factor = combine(coded["a"], coded["b"], 5)
    assert np.bincount(both.codes).tolist() == [9, 8, 7, 4]
    urns = [factor.codes[slice(*factor.offsets[urn : urn + 2])].tolist() for urn in factor.distribution_of]
    assert urns == [[0], [3], [3], [1], [2], [1, 2]]
    assert (factor.size, both.size) == (4, 4)
    whole, _ = combine(coded["a"], coded["b"])
    assert np.bincount(whole.codes).tolist() == [9, 3, 1, 8, 7]


def test_many_partners_are_combined() -> None:
    """Where a variable keeps to several of many values, no table of all their combinations is made."""
    rng = np.random.default_rng(7)
    what = rng.integers(0, 700, N)
    coded = nominal(what=what, a=what * 7 % 211, b=what * 11 % 223, c=what * 13 % 199)
    steps = {step.variable.name: step.within for step in find_steps(coded)}
    assert any(" with " in name for name in steps)
    frame = pd.DataFrame({name: variable.codes for name, variable in coded.items()}).astype("str")
    seen = set(map(tuple, frame.to_numpy()))
    assert set(map(tuple, fit(frame).sample(20_000).to_numpy())) <= seen


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
    found = {f.column: f.operation for f in model.formulas}
    assert found == {"total": "sum", "share": "product"}
    made = model.sample(20_000)
    known = made.dropna(subset=["fare"])
    assert np.allclose(known["total"], known["fare"] + known["tip"], atol=0.006)
    assert set((known["share"] / known["fare"] * 20).round().astype(int)) == {1, 2, 5}
    for name in ("total", "share"):
        assert (made[name].isna() == made["fare"].isna()).all()
    assert abs(made["fare"].isna().mean() - 0.1) < 0.02
    assert abs(made["own"].isna().mean() - 0.1) < 0.02
    assert "total = " in str(model.describe())

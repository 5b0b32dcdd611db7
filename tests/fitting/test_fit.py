"""From a table to a model, on data with a known structure and on the real sample."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from logistream.fitting.coding import SMALLEST_GROUP, code_multiples
from logistream.fitting.fit import fit
from logistream.model.model import Model


def test_fitted_orders_keep_every_rule(fitted: Model, orders: pd.DataFrame) -> None:
    """No impossible place, price, status or sum in 50,000 synthetic orders."""
    s = fitted.sample(50_000, seed=1)
    assert np.allclose(s["Sales"], s["Product Price"] * s["Order Item Quantity"], atol=0.005)
    place = ["Order City", "Order State", "Order Country", "Order Region", "Market"]
    product = ["Product Category Id", "Department Id", "Product Price"]
    service = ["Shipping Mode", "Days for shipment (scheduled)", "Late_delivery_risk"]
    for group in (place, product, service, ["Type", "Order Status"], ["Customer City", "Customer Country"]):
        seen = set(map(tuple, orders[group].astype(str).to_numpy()))
        assert set(map(tuple, s[group].astype(str).to_numpy())) <= seen
    paid = s["Sales per customer"] / s["Sales"]
    assert np.allclose(paid, 1 - s["Order Item Discount Rate"], atol=0.0101)  # 0.055 is published as 0.06
    assert (s["Benefit per order"] <= 0.501 * s["Sales per customer"] + 0.01).all()
    assert (s["Product Status"] == 0).all()


def test_fitted_orders_have_the_dtypes_and_shares_of_the_real_ones(
    fitted: Model, orders: pd.DataFrame
) -> None:
    """Frequencies are those of the sample, within five standard errors."""
    n = 50_000
    s = fitted.sample(n)
    assert s.dtypes.equals(orders.dtypes)
    for name in (
        "Type",
        "Market",
        "Shipping Mode",
        "Late_delivery_risk",
        "Order Item Quantity",
        "Product Category Id",
    ):
        real = orders[name].value_counts(normalize=True)
        made = s[name].value_counts(normalize=True).reindex(real.index, fill_value=0.0)
        assert (abs(made - real) < 5 * np.sqrt(real * (1 - real) / n) + 0.01).all(), name


def test_markets_are_served_in_turns(fitted: Model, orders: pd.DataFrame) -> None:
    """Market and date depend on each other as in the real orders: a month has the market it had."""

    def top_share(frame: pd.DataFrame) -> float:
        month = frame["shipping date (DateOrders)"].dt.to_period("M")
        return float(pd.crosstab(month, frame["Market"], normalize="index").max(axis=1).mean())

    assert abs(top_share(fitted.sample(50_000)) - top_share(orders)) < 0.03


def test_input_is_not_changed(model: Model) -> None:
    """Fitting only reads."""
    frame = model.sample(300)
    before = frame.copy(deep=True)
    fit(frame)
    pd.testing.assert_frame_equal(frame, before)


@pytest.fixture(scope="module")
def foreign() -> pd.DataFrame:
    """Return a table of all kinds, with missing values and a dependence of each on the one before."""
    rng = np.random.default_rng(0)
    n = 3000
    kind = rng.choice(["a", "b", "c"], n, p=[0.5, 0.3, 0.2])
    size = np.where(kind == "a", rng.normal(10, 1, n), rng.normal(20, 2, n))
    return pd.DataFrame(
        {
            "kind": kind,
            "size": np.where(rng.random(n) < 0.1, np.nan, size),
            "count": (size // 2).astype(int),
            "class": pd.Series(kind).mask(rng.random(n) < 0.2).astype("category"),
            "flag": kind == "c",
            "when": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 10**7, n), "s"),
        }
    )


def test_any_table_can_be_fitted(foreign: pd.DataFrame) -> None:
    """Columns, dtypes, missing values and dependences of a table that nobody prepared."""
    s = fit(foreign).sample(3000)
    assert s.dtypes.astype(str).equals(foreign.dtypes.astype(str))
    assert abs(s["size"].isna().mean() - 0.1) < 0.03
    assert abs(s["class"].isna().mean() - 0.2) < 0.03
    for kind in "abc":
        real, made = foreign[foreign["kind"] == kind], s[s["kind"] == kind]
        assert abs(real["size"].mean() - made["size"].mean()) < 0.3
        assert abs(real["flag"].mean() - made["flag"].mean()) < 0.01
    dates = foreign["when"].dt.normalize()
    assert s["when"].dt.normalize().between(dates.min(), dates.max()).all()


def test_independent_columns_stay_independent() -> None:
    """No structure is found in 4,000 rows of noise."""
    rng = np.random.default_rng(1)
    noise = pd.DataFrame({f"x{i}": rng.integers(0, 3 + 20 * i, 4000) for i in range(8)})
    found = [factor.parents for factor in fit(noise).factors if factor.parents]
    assert len(found) <= 1


@pytest.mark.slow
def test_noise_beside_a_dependence_is_left_out() -> None:
    """Of the hundreds of nodes of a deep tree hardly one takes noise for structure."""
    false = 0
    for seed in range(3):
        rng = np.random.default_rng(seed)
        frame = pd.DataFrame({"a": rng.integers(0, 300, 4_000)})
        frame["y"] = (frame["a"] * 3 + rng.normal(0, 150, 4_000)).round(1)
        for i in range(6):
            frame[f"noise {i}"] = rng.normal(0, 1, 4_000).round(3)
            frame[f"noisy string {i}"] = [f"k{i}" for i in rng.zipf(1.6, 4_000) % 60]
        factors = [factor for factor in fit(frame).factors if factor.emissions]
        assert any({factor.name, *factor.parents} >= {"a", "y"} for factor in factors)
        false += sum("nois" in f"{factor.name} {parent}" for factor in factors for parent in factor.parents)
    assert false <= 2


def test_no_bin_is_a_single_value_or_few_rows() -> None:
    """A number that is not common is not kept exactly, nor a range of fewer rows than the smallest group."""
    rng = np.random.default_rng(2)
    numbers = np.concatenate([rng.integers(0, 10**6, 3000), np.repeat(rng.integers(0, 10**6, 300), 6)])
    numbers = np.concatenate([numbers, np.full(200, 777)])
    coded = code_multiples("x", rng.permutation(numbers), (1, 1))
    (emission,) = coded.emissions
    assert emission.high is not None
    rows = np.bincount(coded.codes)
    alone = emission.low == emission.high
    assert emission.low[alone].tolist() == [777]
    assert (rows >= SMALLEST_GROUP).all()


def test_progress_is_plain_text_outside_a_terminal(
    foreign: pd.DataFrame, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines on stderr, which last in a saved notebook, and nothing without being asked."""
    monkeypatch.setattr("logistream.progress._SECONDS_BETWEEN_LINES", 0.0)
    model = fit(foreign, progress=True)
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.splitlines()
    assert len(lines) == len(model.factors)
    assert lines[-1] == f"learning: {len(model.factors)} of {len(model.factors)} done"
    fit(foreign)
    assert capsys.readouterr() == ("", "")


def test_sums_of_rounded_numbers_have_their_digits() -> None:
    """0.1 added to 3.2 is off in the last bit and has one digit still; a third has none that count."""
    x = np.round(np.random.default_rng(3).normal(50, 20, 2000), 1)
    model = fit(pd.DataFrame({"sum": x + 0.1, "product": np.round(x, 0) * 0.01, "third": x / 3}))
    assert [column.decimals for column in model.schema] == [1, 2, None]

"""Rules that nearly all rows keep are kept, with as many exceptions as there were, and such ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.ruled import N, nearly
from logistream.fitting.exceptions import code_exceptions, own_values
from logistream.fitting.fit import fit
from logistream.model.model import Model, load_model

BREAKS: dict[str, Callable[[pd.DataFrame], pd.Series]] = {
    "total": lambda f: (f["total"] - f["a"] - f["b"]).abs() > 0.006,
    "bill": lambda f: (f["bill"] - f["quantity"].astype(float) * f["price"]).abs() > 0.006,
    "end": lambda f: f["end"] < f["start"],
    "month": lambda f: f["month"] != f["start"].dt.month,
    "state": lambda f: (
        f["state"] != "S" + f["city"].str[5:].astype(float).mod(12).astype("Int64").astype(str)
    ),
}
READ = {
    "total": ["a", "b"],
    "bill": ["price", "quantity"],
    "end": ["start"],
    "month": ["start"],
    "state": ["city"],
}


@pytest.fixture(scope="module", params=[0.0, 0.02])
def pair(request: pytest.FixtureRequest) -> tuple[pd.DataFrame, Model]:
    """Return a table and its model."""
    frame = nearly(request.param)
    return frame, fit(frame)


def test_exceptions_come_as_often_as_they_did(pair: tuple[pd.DataFrame, Model]) -> None:
    """Of an equation, a product, an order, a part of a timestamp and a functional dependency."""
    frame, model = pair
    made = model.sample(20_000)
    for name, breaks in BREAKS.items():
        real, drawn = (breaks(t.dropna(subset=[name, *READ[name]])).mean() for t in (frame, made))
        assert abs(drawn - real) < 4 * np.sqrt(real / len(frame)), name
    assert (made.isna().mean() - frame.isna().mean()).abs().max() < 0.02


def test_exceptions_are_like_those_that_there_were(pair: tuple[pd.DataFrame, Model]) -> None:
    """A correction is as large as it was, a bill that is no product is zero, a wrong end as far before."""
    frame, model = pair
    made = model.sample(20_000)
    off = [(t["total"] - t["a"] - t["b"])[BREAKS["total"](t)].dropna() for t in (frame, made)]
    assert abs(off[1].std() / off[0].std() - 1) < 0.4
    bills = made.dropna(subset=["bill", "price", "quantity"])
    assert (bills["bill"][BREAKS["bill"](bills)] == 0).all()
    before = [(t["start"] - t["end"])[BREAKS["end"](t)].dt.total_seconds() for t in (frame, made)]
    assert before[1].max() <= before[0].max()
    assert abs(before[1].median() / before[0].median() - 1) < 0.5


def test_the_description_names_the_support(pair: tuple[pd.DataFrame, Model], tmp_path: Path) -> None:
    """The rows in which each rule held and those it was checked on; a file keeps that."""
    frame, model = pair
    text = str(model.describe())
    for name, words in (("total", "total = a + b"), ("end", "start ≤ end"), ("state", "city → state")):
        known = frame.dropna(subset=[name, *READ[name]])
        held = len(known) - int(BREAKS[name](known).sum())
        assert f"  {words} (holds in {held:,} of {len(known):,} rows; exceptions come as often)" in text
    assert str(load_model(model.save(tmp_path / "m.model")).describe()) == text


def test_conditions_hold_on_columns_with_exceptions(pair: tuple[pd.DataFrame, Model]) -> None:
    """A range of a total is kept, with the exceptions in it."""
    frame, model = pair
    made = model.sample(4000, where=("total", ">=", float(frame["total"].quantile(0.7))))
    assert (made["total"] >= frame["total"].quantile(0.7)).all()
    assert 0.01 < BREAKS["total"](made.dropna(subset=["a", "b"])).mean() < 0.06


@pytest.mark.slow
def test_hundreds_of_exceptions_that_depend_on_a_column_are_fitted() -> None:
    """They are as common as they were, and larger where they were larger."""
    rng = np.random.default_rng(0)
    low, kind = rng.gamma(2, 20, 8_000), rng.choice(4, 8_000)
    above = rng.gamma(2, 10, 8_000) * (1 + kind)
    high = np.where(rng.random(8_000) < 0.045, low - 0.6 * above, low + 0.5 * above)
    made = fit(pd.DataFrame({"low": low, "high": high, "kind": np.array(list("abcd"))[kind]})).sample(20_000)
    below = made[made["high"] < made["low"]]
    assert abs(len(below) / len(made) - (high < low).mean()) < 0.01
    distance = (below["low"] - below["high"]).groupby(below["kind"]).mean()
    assert distance["d"] > 2 * distance["a"]


def test_a_smooth_tail_is_no_order_with_exceptions() -> None:
    """Two columns of which one is mostly above the other keep no order; nor does noise give any formula."""
    rng = np.random.default_rng(1)
    low = rng.normal(0, 1, N)
    frame = pd.DataFrame({"low": low, "high": low + rng.normal(2, 1.1, N), "other": rng.normal(size=N)})
    assert (frame["low"] > frame["high"]).mean() < 0.05
    assert fit(frame).formulas == ()


def test_columns_that_are_mostly_zero_give_no_formula() -> None:
    """A product or a sum that agrees because both sides are zero is none."""
    rng = np.random.default_rng(2)
    columns = {f"z{i}": np.where(rng.random(N) < 0.92, 0, rng.integers(1, 99, N)) for i in range(6)}
    assert fit(pd.DataFrame({**columns, "n": rng.integers(0, 50, N)})).formulas == ()


@pytest.mark.parametrize("many", [1, 4, 5, 60])
def test_no_range_of_exceptions_stands_for_fewer_than_five_rows(many: int) -> None:
    """Few exceptions share ranges with other values; as many rows as there were are exceptions."""
    rng = np.random.default_rng(3)
    off = np.arange(500) < many
    values, others = rng.integers(1, 10_000, many), np.arange(1, 10_000, 7)
    coded, flag, value = code_exceptions("x", off, np.ones(500, bool), values, others, (1, 100))
    emission = next(e for e in coded.emissions if e.column == value)
    flags = next(e for e in coded.emissions if e.column == flag)
    assert (flags.low[coded.codes] == off).all()
    pool = values if many >= 5 else np.concatenate([values, others])
    for code in range(1, coded.size):
        low, high = emission.low[code], emission.last[code]
        assert ((pool >= low) & (pool <= high)).sum() >= 5
        assert low < high


def test_corrections_and_values_of_their_own_are_told_apart() -> None:
    """Exceptions near to what the rule gives are corrections; one value for all of them is their own."""
    rng = np.random.default_rng(4)
    computed = rng.gamma(2, 50, 80)
    assert not own_values(computed + rng.normal(0, 3, 80), computed)
    assert not own_values(computed + 1, computed)
    assert own_values(np.zeros(80), computed)
    assert own_values(rng.gamma(2, 50, 80), computed)

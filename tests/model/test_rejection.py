"""Rows that fulfil a condition: the same distribution as drawing all rows and keeping those that do."""

from __future__ import annotations

import math
import operator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import logistream.model.elimination as elimination
from helpers.networks import assert_counts
from logistream.cli import main
from logistream.errors import RequestError, RequestWarning
from logistream.fitting.fit import fit
from logistream.model.conditions import read_conditions
from logistream.model.dtypes import to_frame
from logistream.model.model import Model
from logistream.model.network import Emission, Factor, Formula
from logistream.model.rejection import ConditionedSampler
from logistream.model.sampling import BLOCK, Sampler
from logistream.schema import Column, Schema

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

pytestmark = pytest.mark.slow

MANY = 400_000
DRAWN = 60_000


@pytest.fixture(scope="module")
def batch(model: Model) -> pa.RecordBatch:
    """Return many rows of the shipped model, without a condition."""
    return Sampler(model, 1).batch(0, MANY)


@pytest.fixture(scope="module")
def everything(model: Model, batch: pa.RecordBatch) -> pd.DataFrame:
    """Return the same rows as a frame."""
    return to_frame(model, batch)


def fulfil(frame: pd.DataFrame, where: Mapping[str, Any]) -> pd.Series:
    """Return which rows a condition keeps."""
    kept: pd.Series[bool] = pd.Series(data=True, index=frame.index)
    for name, asked in where.items():
        values = asked if isinstance(asked, list) else [asked]
        known = [value for value in values if value is not None]
        kept = kept & (frame[name].isin(known) | (frame[name].isna() & (None in values)))
    return kept


def assert_same_distribution(a: pd.Series, b: pd.Series, about: object) -> None:
    """Chi-square of two samples, 6 standard deviations wide; values with few rows are taken together."""
    table = pd.crosstab(
        pd.concat([a, b], ignore_index=True).astype("str"), np.repeat(["a", "b"], [len(a), len(b)])
    ).to_numpy()
    rare = table.sum(axis=1) < 40
    table = np.vstack([table[~rare], table[rare].sum(axis=0)])
    table = table[table.sum(axis=1) > 0]
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0) / table.sum()
    degrees = max(len(table) - 1, 1)
    assert ((table - expected) ** 2 / expected).sum() < degrees + 6 * math.sqrt(2 * degrees), about


CONDITIONS: dict[str, dict[str, Any]] = {
    "two factors that are independent": {"Market": "Europe", "Late_delivery_risk": 1},
    "two groups with a common parent": {"Market": "Europe", "Product Category Id": [9, 17, 24]},
    "two columns of one group": {"Order Region": ["Western Europe", "Caribbean"], "Market": "Europe"},
    "a city, far down its chain": {"Order City": "New York City"},
    "several values of several columns": {"Market": ["LATAM", "USCA"], "Type": ["CASH", "DEBIT"]},
    "two that keep to each other": {"Product Price": [299.98, 199.99], "Order Item Quantity": 1},
    "many at once": {"Order Status": "CLOSED", "Customer Country": "EE. UU.", "Market": ["LATAM", "Africa"]},
}


@pytest.mark.parametrize("where", CONDITIONS.values(), ids=CONDITIONS.keys())
def test_a_condition_is_the_same_as_a_filter(
    model: Model, everything: pd.DataFrame, where: dict[str, Any]
) -> None:
    """Every column, and pairs of them, are distributed as in the rows that a filter keeps."""
    kept = everything[fulfil(everything, where)]
    sampler = ConditionedSampler(model, where, seed=2)
    drawn = to_frame(model, sampler.batch(0, DRAWN))
    assert fulfil(drawn, where).all()
    assert abs(len(kept) - MANY * sampler.share) < 5 * math.sqrt(MANY * sampler.share)

    def month(frame: pd.DataFrame) -> pd.Series:
        return frame["shipping date (DateOrders)"].astype("str").str[:7]

    def tenths(frame: pd.DataFrame, name: str) -> pd.Series:
        edges = kept[name].quantile(np.linspace(0, 1, 11)).unique()
        return pd.Series(np.searchsorted(edges[1:-1], frame[name]), frame.index)

    for name in model.schema.names:
        column = model.schema[name]
        if column.kind == "number":
            assert_same_distribution(tenths(drawn, name), tenths(kept, name), name)
        elif column.kind != "timestamp":
            assert_same_distribution(drawn[name], kept[name], name)
    for a, b in (("Market", "Product Category Id"), ("Order Region", "Type"), ("Market", "Customer City")):
        of_drawn, of_kept = (f[a].astype("str") + "/" + f[b].astype("str") for f in (drawn, kept))
        assert_same_distribution(of_drawn, of_kept, (a, b))
    assert_same_distribution(month(drawn), month(kept), "month")
    for name in ("Market", "Department Id"):
        of_drawn, of_kept = (month(f) + "/" + f[name].astype("str") for f in (drawn, kept))
        assert_same_distribution(of_drawn, of_kept, ("month", name))


def chain(seed: int) -> tuple[Model, list[np.ndarray]]:
    """Return a random model of five factors, and of each the shares of its codes given all before it.

    Factor i gives column `ci`, whose last code is a missing value, and `hi`, half of it; the shares have one
    axis for each factor up to i.
    """
    rng = np.random.default_rng(seed)
    factors: list[Factor] = []
    given: list[np.ndarray] = []
    for i in range(5):
        size = int(rng.integers(2, 5))
        parents = sorted(rng.choice(i, int(rng.integers(0, min(i, 3) + 1)), replace=False)) if i else []
        groups = [
            np.unique(rng.integers(0, 3, factors[p].size), return_inverse=True)[1].astype(np.int64)
            for p in parents
        ]
        shape = [int(group.max()) + 1 for group in groups]
        distribution_of = rng.permutation(math.prod(shape)) // 2  # two combinations share a distribution
        supports = [
            np.sort(rng.choice(size, int(rng.integers(1, size + 1)), replace=False)) for _ in range(8**2)
        ]
        supports = supports[: int(distribution_of.max()) + 1]
        counts = [rng.integers(1, 9, len(support)) for support in supports]
        dense = np.zeros((len(supports), size))
        for share, support, count in zip(dense, supports, counts, strict=True):
            share[support] = count / count.sum()
        codes = np.arange(size)
        missing = codes == size - 1
        factors.append(
            Factor(
                name=f"f{i}",
                size=size,
                parents=tuple(f"f{p}" for p in parents),
                groups=tuple(groups),
                distribution_of=distribution_of,
                offsets=np.cumsum([0, *(len(support) for support in supports)]),
                codes=np.concatenate(supports),
                counts=np.concatenate(counts),
                emissions=(Emission(f"c{i}", codes, missing=missing), Emission(f"h{i}", codes // 2)),
            )
        )
        place = distribution_of.reshape(shape)[np.ix_(*groups)]
        axes = [factors[p].size if p in parents else 1 for p in range(i)]
        given.append(dense[place].reshape([*axes, size]))
    columns = [Column(f"{kind}{i}", "integer", nullable=kind == "c") for i in range(5) for kind in "ch"]
    dtypes = {column.name: "Int64" if column.nullable else "int64" for column in columns}
    return Model("chain", Schema(tuple(columns)), {}, dtypes, tuple(factors)), given


@pytest.mark.parametrize("seed", range(40))
def test_random_chains_are_as_an_enumeration_says(seed: int) -> None:
    """Of any chain and condition, the share is exact and each combination as frequent as it should be."""
    model, given = chain(seed)
    joint = np.ones(())
    for shares in given:
        joint = joint[..., None] * shares
    rng = np.random.default_rng(seed + 1000)
    allowed = [np.ones(factor.size, bool) for factor in model.factors]
    where: dict[str, Any] = {}
    for i in rng.choice(5, int(rng.integers(1, 4)), replace=False):
        codes = np.arange(model.factors[i].size)
        if rng.random() < 0.3:
            where[f"h{i}"] = 0
            allowed[i] &= codes // 2 == 0
        else:
            occurring = np.flatnonzero(np.isin(codes, model.factors[i].codes))
            some = rng.choice(occurring, int(rng.integers(1, len(occurring) + 1)), replace=False)
            where[f"c{i}"] = [None if code == len(codes) - 1 else int(code) for code in some]
            allowed[i] &= np.isin(codes, some)
    for i, mask in enumerate(allowed):
        joint = joint * mask.reshape([-1 if axis == i else 1 for axis in range(5)])
    if joint.sum() == 0:
        with pytest.raises(RequestError, match="together"):
            ConditionedSampler(model, where)
        return
    sampler = ConditionedSampler(model, where, seed)
    assert sampler.share == pytest.approx(joint.sum(), rel=1e-12)
    frame = to_frame(model, sampler.batch(0, 10 * BLOCK))
    drawn = [
        frame[f"c{i}"].fillna(factor.size - 1).to_numpy(dtype=int) for i, factor in enumerate(model.factors)
    ]
    cell = np.ravel_multi_index(drawn, joint.shape)
    counts = np.bincount(cell, minlength=joint.size)
    assert_counts(counts, joint.reshape(-1) / joint.sum() * len(frame), where)


@pytest.fixture(scope="module")
def parcels() -> Model:
    """Return a model of a table with all kinds of columns, missing values and dependent columns."""
    rng = np.random.default_rng(5)
    n = 3000
    zone = rng.integers(0, 4, n)
    weight = rng.integers(1, 6, n) + zone
    frame = pd.DataFrame(
        {
            "zone": pd.Series(np.array(["north", "south", "east", "west"])[zone]).mask(rng.random(n) < 0.1),
            "weight": weight,
            "fragile": rng.random(n) < 0.1 + 0.2 * (weight > 4),
            "price": np.round(weight * 2.25, 2),
            "day": pd.Timestamp("2026-03-01") + pd.to_timedelta(rng.integers(0, 5, n) + zone, "D"),
            "insured": pd.Series(rng.integers(0, 3, n), dtype="Int64").mask(rng.random(n) < 0.3),
            "length": rng.normal(10, 2, n) + zone,
        }
    )
    return fit(frame, name="parcels")


@pytest.mark.parametrize(
    "where",
    [
        {"zone": None},
        {"zone": ["north", None], "weight": [1, 2, 7]},
        {"insured": None, "fragile": True},
        {"insured": [2, pd.NA], "zone": "west"},
        {"price": 9.0},
    ],
    ids=repr,
)
def test_missing_values_and_foreign_tables(parcels: Model, where: dict[str, Any]) -> None:
    """None stands for a missing value, alone or beside others."""
    plain = {
        name: [None if pd.isna(v) else v for v in asked] if isinstance(asked, list) else asked
        for name, asked in where.items()
    }
    everything = parcels.sample(200_000, seed=3)
    kept, drawn = everything[fulfil(everything, plain)], parcels.sample(DRAWN, where=where)
    assert fulfil(drawn, plain).all()
    assert drawn.dtypes.equals(everything.dtypes)
    for name in ("zone", "weight", "fragile", "price", "day", "insured"):
        assert_same_distribution(drawn[name], kept[name], name)
    assert_same_distribution(drawn["length"].round(), kept["length"].round(), "length")
    of_drawn, of_kept = (f["zone"].astype("str") + f["weight"].astype("str") for f in (drawn, kept))
    assert_same_distribution(of_drawn, of_kept, "zone and weight")


OPERATORS: dict[str, Callable[[pd.Series, Any], pd.Series]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": lambda column, values: column.isin(values),
    "not in": lambda column, values: ~column.isin(values),
    "between": lambda column, ends: column.between(*ends),
}


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("Order Item Quantity", 2),
        ("Market", "LATAM"),
        ("Sales", 199.98),
        ("Benefit per order", 0.0),
        ("shipping date (DateOrders)", pd.Timestamp("2016-07-01")),
        ("Latitude", 30.0),
    ],
)
@pytest.mark.parametrize("compare", OPERATORS)
def test_every_operator_is_as_pandas_filters(
    model: Model, everything: pd.DataFrame, column: str, value: Any, compare: str
) -> None:
    """Rows fulfil what pandas says of them, and their share is that of the rows that pandas keeps."""
    if compare in ("==", "in") and column in ("Latitude", "shipping date (DateOrders)"):
        pytest.skip("hardly any row has a single value of that column")
    often = everything[column].iloc[:50_000].mode()[0]
    if compare in ("in", "not in"):
        asked: Any = [often] if column in ("Latitude", "shipping date (DateOrders)") else [value, often]
    elif compare == "between":
        asked = sorted([value, often])
    else:
        asked = often if compare == "==" else value

    def fulfilled(frame: pd.DataFrame) -> pd.Series:
        strings = model.schema[column].kind == "category"
        return OPERATORS[compare](frame[column].astype("str") if strings else frame[column], asked)

    kept = fulfilled(everything).mean()
    sampler = ConditionedSampler(model, (column, compare, asked), seed=5)
    drawn = to_frame(model, sampler.batch(0, 100 if kept < 0.001 else 5000))
    assert fulfilled(drawn).all()
    error = 0 if sampler.exact else 5 * math.sqrt(1 / 5000)
    assert sampler.share == pytest.approx(kept, abs=5 * math.sqrt(kept / MANY) + error * kept)


RANGES: dict[str, tuple[Any, bool]] = {
    "a computed column": (("Sales", "between", (100, 250)), True),
    "computed from computed ones": ("Benefit per order<0", True),
    "two that are computed from the same": (["Sales>=300", "Sales per customer<310"], False),
    "a date": ({"shipping date (DateOrders)": slice("2016-05-01", "2016-08-31 23:59")}, False),
    "not": (["Market!=Europe", ("Order Status", "not in", ["COMPLETE", "CLOSED"])], True),
    "a continuous column": ("Latitude>=35.2", False),
    "continuous and others": (["Latitude<25", "Sales>=100", "Market:LATAM", "Benefit per order>0"], False),
}


@pytest.mark.parametrize(("where", "exact"), RANGES.values(), ids=RANGES.keys())
def test_a_range_is_the_same_as_a_filter(
    model: Model, batch: pa.RecordBatch, everything: pd.DataFrame, where: Any, exact: bool
) -> None:
    """Every column, and pairs of them, are distributed as in the rows that a filter keeps."""
    conditions = read_conditions(where, model.schema)
    mask = np.logical_and.reduce([condition.mask(batch) for condition in conditions])
    kept = everything[mask]
    sampler = ConditionedSampler(model, where, seed=2)
    drawn = to_frame(model, sampler.batch(0, DRAWN // 4))
    assert sampler.exact == exact
    error = 5 * math.sqrt(MANY * sampler.share) + 0.02 * len(kept) * (not exact)
    assert abs(len(kept) - MANY * sampler.share) < error

    def binned(frame: pd.DataFrame, name: str) -> pd.Series:
        if model.schema[name].kind == "category":
            return frame[name].astype("str")
        edges = kept[name].quantile(np.linspace(0, 1, 11)).unique()
        return pd.Series(np.searchsorted(edges[1:-1], frame[name]).astype(str), frame.index)

    for name in model.schema.names:
        assert_same_distribution(binned(drawn, name), binned(kept, name), name)
    for a, b in (("Sales", "Market"), ("Latitude", "Customer City"), ("Benefit per order", "Sales")):
        of_drawn, of_kept = (binned(f, a) + "/" + binned(f, b) for f in (drawn, kept))
        assert_same_distribution(of_drawn, of_kept, (a, b))


def test_the_first_rejected_rows_are_as_frequent_as_later_ones(parcels: Model) -> None:
    """Few rows of a block are accepted; which comes first does not depend on how often a value is drawn."""
    where = ["length between 10 and 10.02"]
    first = [parcels.sample(1, seed=seed, where=where)["zone"].fillna("?")[0] for seed in range(200)]
    later = parcels.sample(4000, where=where)["zone"].fillna("?")
    assert_same_distribution(pd.Series(first), later, "zone")


def test_the_acceptance_rate_is_reported(parcels: Model) -> None:
    """It is 1 where all rows are drawn directly, and below 1 % there is a warning."""
    assert parcels.sample(10, where="zone:north").attrs["acceptance_rate"] == 1
    middle = parcels.sample(1000, where="length>=10.123")
    assert 0.9 < middle.attrs["acceptance_rate"] < 1
    with pytest.warns(
        RequestWarning, match=r"^(only 0|none yet).* rows drawn fulfil length <= 10.12301 and "
    ):
        narrow = parcels.sample(30, where=("length", "between", (10.123, 10.12301)))
    assert 0 < narrow.attrs["acceptance_rate"] < 0.01
    assert narrow["length"].between(10.123, 10.12301).all()


def test_what_hardly_any_row_fulfils_is_refused(parcels: Model) -> None:
    """The sentence estimates the share; rows that were found before are given all the same."""
    where = ("length", "between", (10.123, 10.123000001))
    sampler = ConditionedSampler(parcels, where)
    with (
        pytest.warns(RequestWarning, match="so each row takes long"),
        pytest.raises(
            RequestError, match=r"^too few rows fulfil length <= 10.123000001 and length >= 10.123: "
        ),
    ):
        sampler.batch(0, 4000)


def few_cells(monkeypatch: pytest.MonkeyPatch, cells: int) -> None:
    """Bound messages wherever a table has more cells than that."""
    monkeypatch.setattr(elimination, "MAX_CELLS", cells)
    monkeypatch.setattr(elimination, "_BOUNDED_CELLS", cells)


@pytest.mark.parametrize("seed", range(40))
def test_rows_drawn_by_bounds_are_as_an_enumeration_says(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any chain, a condition on its end gives the same distribution where tables are too large for it."""
    model, given = chain(seed)
    some = np.random.default_rng(seed).permutation(np.unique(model.factors[4].codes))[:2]
    where = {"c4": [None if code == model.factors[4].size - 1 else int(code) for code in some]}
    few_cells(monkeypatch, 2 + seed % 12)
    sampler = ConditionedSampler(model, where, seed)
    joint = np.ones(())
    for shares in given:
        joint = joint[..., None] * shares
    joint = joint * np.isin(np.arange(model.factors[4].size), some)
    frame = to_frame(model, sampler.batch(0, 4 * BLOCK))
    drawn = [
        frame[f"c{i}"].fillna(factor.size - 1).to_numpy(dtype=int) for i, factor in enumerate(model.factors)
    ]
    counts = np.bincount(np.ravel_multi_index(drawn, joint.shape), minlength=joint.size)
    assert_counts(counts, joint.reshape(-1) / joint.sum() * len(frame), where)
    error = math.sqrt(joint.sum() * (1 - joint.sum()) / len(frame))
    assert abs(sampler.share - joint.sum()) < 6 * error + 1e-12


@pytest.fixture(scope="module")
def measurements() -> Model:
    """Return a model of continuous columns, each of which depends on several before it."""
    rng = np.random.default_rng(0)
    n = 4000
    a = np.exp(rng.normal(3, 1, n)).round(2)
    b = (a * rng.uniform(0.5, 2, n) + rng.exponential(5, n)).round(2)
    c = (np.sqrt(b) * rng.uniform(1, 4, n)).round(2)
    begun = pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 86400 * 60, n), "s")
    ended = begun + pd.to_timedelta((a * 60 * rng.uniform(1, 9, n)).astype(int), "s")
    return fit(
        pd.DataFrame({"a": a, "b": b, "c": c, "sum": (a + b + c).round(2), "begun": begun, "ended": ended})
    )


@pytest.mark.parametrize("column", ["c", "sum", "ended"])
def test_the_end_of_a_range_far_down_a_chain_is_drawn_and_not_waited_for(
    measurements: Model, column: str
) -> None:
    """Of rows drawn for the last 1 in 1,000 many are accepted, and they are like what a filter leaves."""
    rows = measurements.sample(200_000, 5)
    low = rows[column].quantile(0.999)
    kept = rows[rows[column] >= low]
    drawn = measurements.sample(1000, where={column: slice(low, None)})
    assert (drawn[column] >= low).all()
    assert drawn.attrs["acceptance_rate"] > 0.02
    for name in ("a", "b", "c"):
        error = math.sqrt(kept[name].var() / len(kept) + drawn[name].var() / len(drawn))
        assert abs(kept[name].mean() - drawn[name].mean()) < 5 * error, name


@pytest.mark.parametrize("cells", [1, 50, 2000])
def test_conditions_that_take_too_large_tables_are_left_to_rejection(
    model: Model, everything: pd.DataFrame, monkeypatch: pytest.MonkeyPatch, cells: int
) -> None:
    """With fewer cells more rows are rejected, and those that remain have the same distribution."""
    few_cells(monkeypatch, cells)
    sampler = ConditionedSampler(model, {"Market": "Europe", "Sales": slice(100, 300)}, seed=2)
    assert not sampler.exact
    assert sampler.acceptance_rate < 0.9
    kept = everything[(everything["Market"] == "Europe") & everything["Sales"].between(100, 300)]
    drawn = to_frame(model, sampler.batch(0, DRAWN // 4))
    for name in ("Market", "Sales", "Order Region", "Order Item Quantity"):
        assert_same_distribution(drawn[name], kept[name], name)


def test_missing_values_fulfil_no_order_and_are_not_equal_to_any(parcels: Model) -> None:
    """An order leaves missing values out, as in pandas; `!=` and `not in` keep them unless they name None."""
    assert parcels.sample(2000, where="insured>=1")["insured"].isin([1, 2]).all()
    others = parcels.sample(2000, where="insured!=1")["insured"]
    assert set(others.dropna()) == {0, 2}
    assert others.isna().mean() == pytest.approx(0.3 / 0.767, abs=0.06)
    assert parcels.sample(2000, where="insured!=")["insured"].notna().all()
    assert set(parcels.sample(2000, where=("zone", "not in", ["north", None]))["zone"]) == {
        "south",
        "east",
        "west",
    }
    assert parcels.sample(500, where={"fragile": True, "length": slice(None, 9.5)})["length"].max() <= 9.5


@pytest.mark.parametrize(
    "where",
    [{"Market": "Europe", "Product Category Id": [9, 17]}, ["Latitude>=35.2", "Market:Europe"]],
    ids=["drawn directly", "rejected"],
)
def test_rows_are_a_function_of_their_number(model: Model, where: Any) -> None:
    """Any split of a conditioned table has the same rows, and live times can be put on it."""
    sampler = ConditionedSampler(model, where, seed=3)
    whole = sampler.batch(0, 2 * BLOCK + 10).to_pylist()
    other = ConditionedSampler(model, where, seed=3)
    parts = [other.batch(a, b).to_pylist() for a, b in ((BLOCK - 5, 2 * BLOCK + 10), (7, BLOCK - 5), (0, 7))]
    assert parts[2] + parts[1] + parts[0] == whole
    assert model.sample(50, seed=4, where=where).equals(model.sample(100, seed=4, where=where)[:50])
    live = sampler.batch(5, 8, np.array([1, 2, 3]) * 10**15)
    assert live.schema.names == list(model.full_schema.names)
    assert live.column("Market").to_pylist() == ["Europe"] * 3


def test_what_the_condition_does_not_concern_is_drawn_as_always(model: Model) -> None:
    """Factors that the condition does not depend on keep the values that they have without one."""
    a, b = model.sample(5000, seed=9), model.sample(5000, seed=9, where={"Market": "Europe"})
    for name in ("Type", "Customer Country", "Order Item Discount Rate"):
        assert a[name].equals(b[name])


def test_no_condition_is_no_condition(model: Model) -> None:
    """An empty mapping changes nothing, and one that all rows fulfil has share 1."""
    assert model.sample(100, where={}).equals(model.sample(100))
    assert ConditionedSampler(model, {"Product Status": 0}).share == 1


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ({"Market": "Mars"}, "'Market' is never 'Mars': it is 'Africa', 'Europe', 'LATAM', 'Pacific Asia', "
         "'USCA'"),
        ({"Market": ["Europe", 3]}, "a condition on 'Market' needs a string, not 3"),
        ("Market!=Europ", "'Market' is never 'Europ': it is 'Africa', 'Europe', 'LATAM', "),
        ({"Market": None}, "'Market' is never None: it is 'Africa', 'Europe', 'LATAM', 'Pacific Asia', "
         "'USCA'"),
        ({"Late_delivery_risk": "1"}, "a condition on 'Late_delivery_risk' needs a whole number, not '1'"),
        ({"Late_delivery_risk": 2}, "'Late_delivery_risk' is never 2: it is 0, 1"),
        ({"Market": []}, "no value is given for 'Market': expected one, or a list of those allowed"),
        ({"Type": "CASH", "Order Status": "COMPLETE"}, "no row of this model has Order Status == COMPLETE "
         "and Type == CASH together: ask for others"),
        ({"Benefit per order": 3.505}, "'Benefit per order' is never 3.505: it is 3.49, 3.5, 3.51, 3.52 "
         "(nearest of "),
        ({"Latitude": -10}, "'Latitude' is never -10.0: it lies between 17.9"),
        ("Sales>=1e9", "no row of this model has Sales >= 1000000000.0: it lies between 9.99 and "),
        (["Sales>=1000", "Sales per customer<700"], "no row of this model has Sales >= 1000.0 and Sales per "
         "customer < 700.0 together: ask for others"),
        ({"Merket": "Europe"}, "no column is called 'Merket': there are 'Market', "),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_for_gets_a_sentence(model: Model, where: Any, sentence: str) -> None:
    """The sentence names the column, the value, and what can be asked for instead."""
    with pytest.raises(RequestError) as refused:
        model.sample(5, where=where)
    assert str(refused.value)[: len(sentence)] == sentence


def test_of_many_values_those_most_alike_are_listed(model: Model) -> None:
    """A misspelt city is answered with ten that are written alike."""
    with pytest.raises(RequestError, match=r"never 'Berlin': it is 'Berlín', .* and [\d,]+ more$") as refused:
        model.sample(5, where={"Order City": "Berlin"})
    assert str(refused.value).count("', '") == 9


def test_timestamps_and_truth_values_are_named_as_they_are_written(parcels: Model) -> None:
    """A value of another kind, and values that never occur."""
    with pytest.raises(RequestError, match=r"a condition on 'fragile' needs true or false, not 'yes'"):
        parcels.sample(5, where={"fragile": "yes"})
    with pytest.raises(RequestError, match=r"a condition on 'weight' needs a whole number, not datetime"):
        parcels.sample(5, where={"weight": pd.Timestamp("2026-03-01")})
    with pytest.raises(RequestError, match=r"'insured' is never 9: it is 0, 1, 2, None"):
        parcels.sample(5, where={"insured": 9})


def dated(formula: Formula | None = None) -> Model:
    """Return a model of four days, and of a part of them if given."""
    days = np.arange(4) * 31 * 86_400
    emission = Emission("day", days, quantum=(1_000_000, 1))
    factor = Factor(
        "day", 4, (), (), np.zeros(1, int), np.array([0, 4]), np.arange(4), np.arange(1, 5), (emission,)
    )
    columns = (Column("day", "timestamp"), *([Column("month", "integer")] if formula else []))
    dtypes = {"day": "datetime64[us]", "month": "int64"}
    return Model("dated", Schema(columns), {}, dtypes, (factor,), (formula,) if formula else ())


def test_instants_and_their_parts_can_be_asked_for() -> None:
    """A day in any form that pandas reads, and the month computed from it."""
    model = dated(Formula("month", "month", "day"))
    assert set(model.sample(99, where={"day": "1970-02-01"})["month"]) == {2}
    assert set(model.sample(99, where={"day": pd.Timestamp("1970-02-01T01:00+01:00")})["month"]) == {2}
    months = model.sample(9000, where={"month": [2, 4]})["day"].astype("str").value_counts()
    assert months.index.tolist() == ["1970-04-04", "1970-02-01"]
    assert months.iloc[0] == pytest.approx(6000, abs=150)
    with pytest.raises(RequestError, match=r"on 'day' needs a time such as 2026-11-24T06:23:00Z, not 'soon'"):
        model.sample(5, where={"day": "soon"})
    with pytest.raises(
        RequestError, match=r"'day' is never '1970-02-02T00:00:00.000000Z': it is '1970-01-01T00"
    ):
        model.sample(5, where={"day": "1970-02-02"})


def test_conditions_on_the_command_line(tmp_path: Path, parcels: Model) -> None:
    """Repeated columns are alternatives, numbers are numbers, nothing is a missing value."""
    file, rows = parcels.save(tmp_path / "parcels.model"), tmp_path / "rows.parquet"
    command = ["sample", "-n", "300", "--model", str(file), "-o", str(rows), "--where"]
    asked = ["zone:north", "--where", "zone:", "--where", "weight:3", "--where", "fragile:false"]
    assert main([*command, *asked]) == 0
    frame = pd.read_parquet(rows)
    assert set(frame["zone"].fillna("?")) == {"north", "?"}
    assert set(frame["weight"]) == {3}
    assert not frame["fragile"].any()


def test_ranges_on_the_command_line(
    tmp_path: Path, parcels: Model, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rows are those of `Model.sample`; a rate below 1 is printed, and a low one is a note."""
    file, rows = parcels.save(tmp_path / "parcels.model"), tmp_path / "rows.parquet"
    command = ["sample", "-n", "50", "--model", str(file), "-o", str(rows), "--where"]
    assert main([*command, "weight>=3", "--where", "zone!=north"]) == 0
    assert capsys.readouterr().out == f"{rows}: 50 rows\n"
    frame = pd.read_parquet(rows)
    assert frame["weight"].min() >= 3
    assert "north" not in set(frame["zone"])
    assert main([*command, "length between 10.123 and 10.12302"]) == 0
    out, err = capsys.readouterr()
    assert f"{rows}: 50 rows, 0.00" in out
    assert err.startswith("logistream: note: ")
    assert pd.read_parquet(rows)["length"].between(10.123, 10.12302).all()


def test_values_that_name_the_rows_stay_unique() -> None:
    """Rejected rows leave no gaps, and no name comes twice; a name itself cannot be asked for."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "id": [f"A{i:05d}" for i in range(2000)],
            "x": rng.normal(size=2000),
            "kind": rng.integers(0, 3, 2000),
        }
    )
    model = fit(frame, name="named")
    drawn = model.sample(2 * BLOCK + 100, where="x>0.8123")
    assert drawn.attrs["acceptance_rate"] < 1
    assert drawn["id"].is_unique
    assert drawn["id"].equals(model.sample(2 * BLOCK + 100)["id"])
    with pytest.raises(
        RequestError, match=r"^'id' is invented, since it names the rows, so its values cannot"
    ):
        model.sample(1, where={"id": "A00001"})


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("Market", "a condition is written COLUMN:VALUE or COLUMN>=VALUE, and 'Market' begins with no column "
         "and operator: there are "),
        ("Late_delivery_risk:yes", "a condition on 'Late_delivery_risk' needs a whole number, not 'yes'\n"),
        ("Sales:much", "a condition on 'Sales' needs a number, not 'much'\n"),
        ("Market:Mars", "'Market' is never 'Mars': it is 'Africa', "),
    ],
)  # fmt: skip
def test_a_bad_condition_on_the_command_line_is_bad_usage(
    asked: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2 and one sentence; no file is written."""
    rows = tmp_path / "rows.csv"
    assert main(["sample", "-n", "5", "-o", str(rows), "--where", asked]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith(f"logistream: {sentence}")
    assert not rows.exists()

"""Rows that fulfil a condition: the same distribution as drawing all rows and keeping those that do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

import logistream.model.conditions as conditions
from logistream.cli import main
from logistream.errors import RequestError
from logistream.fitting.fit import fit
from logistream.model.conditions import ConditionedSampler
from logistream.model.dtypes import to_frame
from logistream.model.model import Model
from logistream.model.network import Emission, Factor, Formula
from logistream.model.sampling import BLOCK
from logistream.schema import Column, Schema

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MANY = 400_000
DRAWN = 60_000


@pytest.fixture(scope="module")
def everything(model: Model) -> pd.DataFrame:
    """Many rows of the shipped model, without a condition."""
    return model.sample(MANY, seed=1)


def fulfil(frame: pd.DataFrame, where: Mapping[str, Any]) -> pd.Series:
    """Return which rows a condition keeps."""
    kept: pd.Series[bool] = pd.Series(data=True, index=frame.index)
    for name, asked in where.items():
        values = asked if isinstance(asked, list) else [asked]
        known = [value for value in values if value is not None]
        kept = kept & (frame[name].isin(known) | (frame[name].isna() & (None in values)))
    return kept


def assert_alike(counts: np.ndarray, expected: np.ndarray, about: object) -> None:
    """Chi-square of counts against expected ones, those below 5 taken together, in 6 standard deviations."""
    assert counts[expected == 0].sum() == 0, about
    rare = expected < 5
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    counts, expected = counts[expected > 0], expected[expected > 0]
    degrees = max(len(counts) - 1, 1)
    assert ((counts - expected) ** 2 / expected).sum() < degrees + 6 * math.sqrt(2 * degrees), about


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
    assert_alike(counts, joint.reshape(-1) / joint.sum() * len(frame), where)


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


def test_rows_are_a_function_of_their_number(model: Model) -> None:
    """Any split of a conditioned table has the same rows, and live times can be put on it."""
    where = {"Market": "Europe", "Product Category Id": [9, 17]}
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
        ({"Market": ["Europe", 3]}, "'Market' is never 3: it is 'Africa', 'Europe', 'LATAM', 'Pacific Asia', "
         "'USCA'"),
        ({"Market": None}, "'Market' is never None: it is 'Africa', 'Europe', 'LATAM', 'Pacific Asia', "
         "'USCA'"),
        ({"Late_delivery_risk": "1"}, "'Late_delivery_risk' is never '1': it is 0, 1"),
        ({"Market": []}, "no value is given for 'Market': expected one, or a list of those allowed"),
        ({"Market": [["Europe"]]}, "'Market' is never ['Europe']: it is 'Africa', 'Europe', 'LATAM', "
         "'Pacific Asia', 'USCA'"),
        ({"Type": "CASH", "Order Status": "COMPLETE"}, "no row of this model has these values of 'Type' and "
         "'Order Status' together: ask for others"),
        ({"Benefit per order": 3.5}, "'Benefit per order' is computed from columns that are drawn "
         "separately, so its values cannot be asked for: "),
        ({"Latitude": 18.25}, "'Latitude' is continuous, so its values cannot be asked for: ask for 'Type', "
         "'Days for shipment (scheduled)', 'Late_delivery_risk', 'Customer City', 'Customer Country', "
         "'Market', 'Order City', 'Order Country', 'Order Region', 'Order State' and 8 more instead, or "
         "filter the rows"),
        ({"Merket": "Europe"}, "no column is called 'Merket': there are 'Market', "),
        ("Market:Europe", "where must name columns and values, as in {'Market': 'Europe'}, not "
         "'Market:Europe'"),
    ],
)  # fmt: skip
def test_what_cannot_be_asked_for_gets_a_sentence(model: Model, where: Any, sentence: str) -> None:
    """The sentence names the column, the value, and what can be asked for instead."""
    with pytest.raises(RequestError) as refused:
        model.sample(5, where=where)
    assert str(refused.value).startswith(sentence)


def test_of_many_values_those_most_alike_are_listed(model: Model) -> None:
    """A misspelt city is answered with ten that are written alike."""
    with pytest.raises(RequestError, match=r"never 'Berlin': it is 'Berlín', .* and [\d,]+ more$") as refused:
        model.sample(5, where={"Order City": "Berlin"})
    assert str(refused.value).count("', '") == 9


def test_timestamps_and_truth_values_are_named_as_they_are_written(parcels: Model) -> None:
    """A day that never occurs, one that is none, and a truth value that is none."""
    with pytest.raises(RequestError, match=r"'fragile' is never 'yes': it is False, True"):
        parcels.sample(5, where={"fragile": "yes"})
    with pytest.raises(RequestError, match=r"'weight' is never Timestamp"):
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
    with pytest.raises(RequestError, match=r"'day' is a timestamp: expected one like .* not 'soon'"):
        model.sample(5, where={"day": "soon"})
    with pytest.raises(RequestError, match="'day' is never '1970-02-02': it is '1970-01-01 00:00:00', "):
        model.sample(5, where={"day": "1970-02-02"})


def test_a_table_that_would_be_too_large_is_refused(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names the columns and the way out."""
    monkeypatch.setattr(conditions, "_MAX_CELLS", 5)
    with pytest.raises(
        RequestError, match=r"a condition on 'Market' takes a table of [\d,]+ cells, more than"
    ):
        model.sample(5, where={"Market": "Europe"})


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


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("Market", "a condition is written COLUMN:VALUE, and 'Market' begins with no column and colon: there "
         "are 'Market', "),
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

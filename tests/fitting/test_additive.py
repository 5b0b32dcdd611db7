"""Additive predictors: many weak dependences in a single number."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from logistream.fitting.additive import Basis, additive_predictor, unexplained
from logistream.fitting.coding import Coded, code_multiples
from logistream.fitting.fit import fit
from logistream.model.network import Factor


def coded(**columns: np.ndarray) -> list[Coded]:
    """Return numbers as variables in bins."""
    return [code_multiples(name, values, (1, 1), instant=False) for name, values in columns.items()]


def computed(factors: list[Factor], variables: list[Coded]) -> np.ndarray:
    """Return the code that the last factor gives each row."""
    codes = {variable.name: variable.codes for variable in variables}
    for factor in factors:
        codes[factor.name] = factor.codes[factor.distribution_of[factor.combination(codes)]]
    return codes[factors[-1].name]


@pytest.fixture
def sums() -> pd.DataFrame:
    """400 rows of six independent columns and their sum, in whole numbers."""
    parts = np.random.default_rng(0).normal(0, 1000, (400, 6))
    noise = np.random.default_rng(1).normal(0, 500, 400)
    names = [f"part {i}" for i in range(6)]
    return pd.DataFrame(parts, columns=names).assign(whole=parts.sum(axis=1) + noise).round().astype(int)


def test_the_factors_compute_what_the_rows_were_given(sums: pd.DataFrame) -> None:
    """The code by the factors is that of a regression on all rows, which is near that of the folds."""
    *parts, whole = coded(**{str(name): values.to_numpy() for name, values in sums.items()})
    found = additive_predictor(whole, parts, [Basis.of(part) for part in parts], most=6)
    assert found is not None
    variable, factors = found
    assert len(factors) == 5  # two parts, then one more each
    assert all((factor.counts == 1).all() and not factor.emissions for factor in factors)
    predicted = computed(factors, parts)
    assert predicted.max() < variable.size
    assert np.corrcoef(predicted, variable.codes)[0, 1] > 0.95
    assert np.corrcoef(variable.codes, whole.codes)[0, 1] > 0.9  # of rows that it has not seen


def test_noise_has_no_predictor() -> None:
    """Nor is there one where a single variable predicts everything: the tree sees that by itself."""
    rng = np.random.default_rng(0)
    noise = coded(**{f"c{i}": rng.integers(0, 10_000, 500) for i in range(20)})
    bases = [Basis.of(variable) for variable in noise]
    found = [additive_predictor(target, noise[:i], bases[:i], most=6) for i, target in enumerate(noise)]
    assert found == [None] * 20
    one, other = coded(one=np.arange(500), other=np.arange(500) * 3)
    assert additive_predictor(other, [one, *noise], [Basis.of(one), *bases], most=6) is None


def test_a_sum_of_many_parts_is_learned_from_few_rows(sums: pd.DataFrame) -> None:
    """A tree alone divides its rows too early to see six parts."""
    drawn = fit(sums).sample(20_000)
    real, made = sums.corr()["whole"], drawn.corr()["whole"]
    assert (made - real).abs().max() < 0.1
    regression = np.linalg.lstsq(drawn.iloc[:, :6] - drawn.iloc[:, :6].mean(), drawn["whole"], rcond=None)[0]
    assert (regression > 0.7).all()


def test_a_predictor_that_explains_no_more_is_not_in_the_model() -> None:
    """Steps of a saw are seen by the tree; a sum of functions blurs them."""
    day = np.arange(3_000) % 365
    frame = pd.DataFrame({"day": day, "month": day // 31, "day of month": day % 31})
    model = fit(frame)
    assert not [factor.name for factor in model.factors if factor.name.startswith("predictor of")]
    drawn = model.sample(5_000)
    assert (drawn["day of month"] == drawn["day"] % 31).all()


def test_what_is_unexplained() -> None:
    """All of a variable's variance for a single distribution, nothing if a predictor determines it."""
    values = np.random.default_rng(0).integers(0, 20, 1_000)
    one, other = coded(one=values, other=values)
    other = Coded("other", one.codes, one.size, True, one.emissions)
    codes = {"one": one.codes}
    counts = np.bincount(other.codes)
    alone = Factor("other", 20, (), (), np.zeros(1, np.int64), np.array([0, 20]), np.arange(20), counts, ())
    determined = Factor(
        "other", 20, ("one",), (np.arange(20),), np.arange(20), np.arange(21), np.arange(20), counts, ()
    )
    assert unexplained(other, [alone], codes) == pytest.approx(1 / 3, abs=0.01)  # even from -1 to 1
    assert unexplained(other, [determined], codes) == pytest.approx(0, abs=1e-12)


def test_no_function_discloses_a_single_row() -> None:
    """Every step, and every value of an unordered variable that has a function, is of five rows."""
    values = np.repeat([0, 1, 2, 3, 50], [200, 200, 100, 1, 99])
    for ordered in (True, False):
        (one,) = coded(one=values)
        basis = Basis.of(replace(one, ordered=ordered))
        for function in basis.functions.T[4 if ordered else 0 :]:  # after the slope and the hinges
            levels, rows = np.unique(function[one.codes], return_counts=True)
            assert len(levels) == 2
            assert rows.min() >= 5


@pytest.mark.slow
def test_columns_with_missing_values_are_predicted_too(sums: pd.DataFrame) -> None:
    """Rows without a value are not learned from; those with one are predicted as before."""
    gaps = np.random.default_rng(2).random(400) < 0.2
    frame = sums.astype({"whole": "Int64"})
    frame.loc[gaps, "whole"] = pd.NA
    drawn = fit(frame).sample(20_000)
    assert drawn["whole"].isna().mean() == pytest.approx(gaps.mean(), abs=0.01)
    known = drawn.dropna()
    made = known.astype(float).corr()["whole"]
    assert (made - sums[~gaps].corr()["whole"]).abs().max() < 0.12

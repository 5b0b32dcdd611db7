"""Common causes: many numeric columns that a few hidden variables move."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from logistream.fitting.coding import code_multiples, over_all_rows
from logistream.fitting.common_causes import common_causes
from logistream.fitting.fit import fit


def dense(rows: int, columns: int, causes: int) -> pd.DataFrame:
    """Return columns that each depend on all of a few causes, a third of them skewed."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(causes, columns)) / np.sqrt(causes)
    values = rng.normal(size=(rows, causes)) @ weights + rng.normal(0, 0.5, (rows, columns))
    values[:, ::3] = np.exp(values[:, ::3])
    return pd.DataFrame(values.round(3), columns=[f"c{i}" for i in range(columns)])


@pytest.mark.slow
def test_correlations_of_a_dense_table_are_kept() -> None:
    """Of 36 columns that four causes move, correlations are within .03 on average."""
    frame = dense(600, 36, 4)
    drawn = fit(frame).sample(5000)
    real, made = (f.corr("spearman").to_numpy()[np.triu_indices(36, 1)] for f in (frame, drawn))
    assert np.abs(real).mean() > 0.2
    assert np.abs(made - real).mean() < 0.03


def test_as_many_causes_are_found_as_there_are() -> None:
    """Five of five, none of independent columns, and none of few columns."""
    frame = dense(1000, 60, 5)
    coded = [code_multiples(str(name), values.to_numpy(), None) for name, values in frame.items()]
    causes = common_causes(coded)
    assert len(causes) == 5
    assert all(cause.emissions == () and np.bincount(cause.codes).min() >= 5 for cause in causes)
    noise = np.random.default_rng(1).normal(size=(1000, 60))
    assert common_causes([code_multiples(f"c{i}", column, None) for i, column in enumerate(noise.T)]) == []
    assert common_causes(coded[:20]) == []


def test_missing_values_do_not_hide_a_cause() -> None:
    """With a tenth of the values missing, in columns of numbers, as many causes are found."""
    frame = dense(1000, 60, 5).mask(np.random.default_rng(2).random((1000, 60)) < 0.1)
    coded = []
    for name, column in frame.items():
        missing = column.isna().to_numpy()
        numbers = code_multiples(str(name), column[~missing].to_numpy(), None, instant=False)
        coded.append(over_all_rows(numbers, missing))
    assert len(common_causes(coded)) == 5

"""Branches: combinations of few rows are not kept apart."""

from __future__ import annotations

import numpy as np
import pandas as pd

from logistream.fitting.branches import combine
from logistream.fitting.coding import code_column
from logistream.fitting.columns import read_columns


def test_rare_combinations_are_one() -> None:
    """A look-up of two variables has one code for all combinations of few rows with the same first value."""
    a, b = np.repeat([0, 0, 0, 1, 1], [9, 3, 1, 8, 7]), np.repeat([0, 1, 2, 0, 1], [9, 3, 1, 8, 7])
    frame = pd.DataFrame({"a": a, "b": b}).astype("str")
    coded = {values.column.name: code_column(values) for values in read_columns(frame)}
    both, factor = combine(coded["a"], coded["b"], 5)
    assert np.bincount(both.codes).tolist() == [9, 8, 7, 4]
    entries = [
        factor.codes[slice(*factor.offsets[number : number + 2])].tolist()
        for number in factor.distribution_of
    ]
    assert entries == [[0], [3], [3], [1], [2], [1, 2]]
    assert (factor.size, both.size) == (4, 4)
    whole, _ = combine(coded["a"], coded["b"])
    assert np.bincount(whole.codes).tolist() == [9, 3, 1, 8, 7]

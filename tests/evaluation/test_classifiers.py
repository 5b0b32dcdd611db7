"""Classifiers as judges: cases with a known answer."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest

from helpers.compared import apart, rows, tables
from logistream.errors import MissingPackageError
from logistream.evaluation.classifiers import transfer_auc, two_sample_auc
from logistream.evaluation.numeric import numeric_tables
from logistream.schema import Column, Schema


def test_a_classifier_cannot_tell_rows_of_one_kind_and_tells_what_is_torn_apart() -> None:
    """C2ST is near 0.5 for two draws of one table, and near 1 if columns do not hang together."""
    frame = rows(400, 0)
    a, b, c = tables(frame, rows(400, 1), apart(frame))
    assert 0.42 < two_sample_auc(a, b) < 0.58
    assert two_sample_auc(a, c) > 0.9


def test_the_classifier_does_not_see_the_order_of_rows() -> None:
    """However the rows stand, and whichever stand first, the figure is the same to the last digit."""
    frames = rows(300, 0, missing=True), rows(300, 1, missing=True)
    shuffled = [frame.sample(frac=1, random_state=7) for frame in frames]
    a, b = tables(*frames)
    d, c = tables(*shuffled[::-1])
    assert two_sample_auc(a, b) == two_sample_auc(c, d)
    np.testing.assert_array_equal(np.sort(a.matrix[:, 0]), np.sort(c.matrix[:, 0]))


def test_rare_strings_do_not_betray_where_they_come_from() -> None:
    """Strings that occur once each, in both tables alike, do not help the classifier."""
    schema = Schema((Column("c", "category"),))
    strings = np.random.default_rng(0).permutation([f"t{i:04}" for i in range(1200)])
    a, b = numeric_tables(schema, [pd.DataFrame({"c": strings[:600]}), pd.DataFrame({"c": strings[600:]})])
    assert 0.42 < two_sample_auc(a, b) < 0.58


def test_what_is_learned_on_one_table_is_judged_on_another() -> None:
    """A target is predicted from like rows, by chance from torn ones, not at all without two values."""
    a, b, torn, same = tables(rows(400, 0), rows(400, 1), apart(rows(400, 0)), rows(400, 2).assign(late=True))
    predictors = ("town", "x", "n")
    assert transfer_auc(a, b, "late", predictors) > 0.85
    assert 0.4 < transfer_auc(torn, b, "late", predictors) < 0.6
    assert np.isnan(transfer_auc(same, b, "late", predictors))


def test_without_scikit_learn_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the extra that installs the optional package."""
    monkeypatch.setitem(sys.modules, "sklearn", None)
    a, b = tables(rows(50, 0), rows(50, 1))
    with pytest.raises(MissingPackageError) as caught:
        two_sample_auc(a, b)
    assert str(caught.value) == "the report needs scikit-learn: pip install 'logistream[report]'"


def test_values_that_repeat_betray_a_column_that_was_smoothed() -> None:
    """Many values of which each has a small share are seen, though no quantile shows them."""
    rng = np.random.default_rng(0)
    schema = Schema((Column("v", "number"),))
    smooth, repeated = rng.random((2, 4000))
    repeated[:2000] = (np.ceil(repeated[:2000] * 100) - rng.random() / 2) / 100
    a, b, c = numeric_tables(schema, [pd.DataFrame({"v": v}) for v in (smooth, repeated, rng.random(4000))])
    assert two_sample_auc(a, b) > 0.65
    assert 0.46 < two_sample_auc(a, c) < 0.54

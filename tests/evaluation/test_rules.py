"""Rules that are learned, and those that are known of orders."""

from __future__ import annotations

import numpy as np
import pytest

from helpers.compared import STATES, apart, rows, tables
from logistream.evaluation.rules import broken, learn_rules


def test_rules_are_found_and_their_breach_is_counted() -> None:
    """Pairs, a product and an order are found; other real rows keep them, torn ones do not."""
    frame = rows(1000, 0)
    table, other, torn = tables(frame, rows(1000, 1), apart(frame))
    rules = learn_rules(table)
    strings = [rule.text for rule in rules]
    assert strings == ["town with state: only pairs that occur", "x at most y", "y = x x n"]
    assert not broken(rules, other).any()
    breaches = dict(zip(strings, broken(rules, torn).mean(axis=1), strict=True))
    states = frame["state"].value_counts(normalize=True)
    chance = sum(frame["town"].eq(town).mean() * (1 - states[state]) for town, state in STATES.items())
    assert breaches["town with state: only pairs that occur"] == pytest.approx(chance, abs=0.05)
    assert breaches["y = x x n"] > 0.99


def test_no_rule_is_found_in_noise_or_in_few_rows() -> None:
    """Columns that have nothing to do with each other give no rule; nor do fewer than 100 rows."""
    torn, few = tables(apart(rows(1000, 0)), rows(90, 0))
    assert learn_rules(torn) == []
    assert learn_rules(few) == []


def test_missing_together_is_a_rule() -> None:
    """Columns that are missing in the same rows are expected to be so."""
    frame = rows(1000, 0)
    frame.loc[:199, ["x", "y"]] = np.nan
    whole, half = tables(frame, frame.assign(y=frame["y"].fillna(1.0)))
    rules = [rule for rule in learn_rules(whole) if rule.text.startswith("x missing with y missing")]
    assert [broken([rule], half).mean() for rule in rules] == [pytest.approx(0.2)]

"""No fit of any table of the suite breaks a rule that all fitted rows keep, by an independent judge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from helpers.ruled import TABLES, with_gaps
from logistream.evaluation.numeric import numeric_tables
from logistream.evaluation.rules import broken, learn_rules
from logistream.fitting.fit import fit

if TYPE_CHECKING:
    from logistream.model.model import Model

ROWS = 20_000
NEW_PAIRS = 0.005  # of the rows: so many new pairs are no breach, as in real rows


def shares(frame: pd.DataFrame, model: Model) -> dict[str, float]:
    """Return in which share of synthetic rows each rule is broken that the fitted rows keep."""
    real, made = numeric_tables(model.schema, [frame, model.sample(ROWS)])
    rules = learn_rules(real)
    ends = zip(rules, broken(rules, real), broken(rules, made), strict=True)
    return {rule.text: float(breaks.mean()) for rule, before, breaks in ends if not before.any()}


def breaches(frame: pd.DataFrame, model: Model) -> dict[str, float]:
    """Return the rules that are broken and not described as such."""
    described = {f"{' with '.join(sorted(r.columns))}: no pair twice" for r in model.rules if r.why_not}
    wrong = {}
    for text, share in shares(frame, model).items():
        pair, _, kind = text.partition(": ")
        known = f"{' with '.join(sorted(pair.split(' with ')))}: {kind}" in described
        seen = kind == "only pairs that occur" or " has it" in text
        if not known and share > (NEW_PAIRS if seen else 0):
            wrong[text] = share
    return wrong


@pytest.mark.slow
@pytest.mark.parametrize("gaps", [0.0, 0.02])
@pytest.mark.parametrize("name", list(TABLES))
def test_every_rule_of_the_fitted_rows_is_kept(name: str, gaps: float) -> None:
    """With gaps in 2 % of the values as without."""
    frame = with_gaps(TABLES[name](), gaps) if gaps else TABLES[name]()
    assert breaches(frame, fit(frame)) == {}


def test_the_rules_of_orders_are_kept(orders: pd.DataFrame, fitted: Model) -> None:
    """Of the real sample: places, product and price, amounts."""
    assert breaches(orders, fitted) == {}


@pytest.mark.slow
def test_the_judge_finds_what_is_broken() -> None:
    """Of a model of torn rows, the rules of all kinds that the rows kept before are reported."""
    frames = [TABLES[name]().head(2000) for name in ("ruled", "orders", "articles", "ascending", "places")]
    found: dict[str, float] = {}
    for frame in frames:
        rng = np.random.default_rng(0)
        torn = pd.DataFrame({name: frame[name].to_numpy()[rng.permutation(len(frame))] for name in frame})
        found |= breaches(frame, fit(torn))
    for text in (
        "hours = end - start in hours",
        "paid = due + change",
        "order with line: no pair twice",
        "sku begins as category has it",
        "code ends as year has it",
        "low at most high",
        "state with country: only pairs that occur",
    ):
        assert found.get(text, 0) > 0.01, (text, sorted(found))

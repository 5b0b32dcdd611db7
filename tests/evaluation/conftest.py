"""A report that several tests look at."""

from __future__ import annotations

import pandas as pd
import pytest

from helpers.compared import Made, apart, rows
from logistream.evaluation.evaluate import report
from logistream.evaluation.report import Report


@pytest.fixture(scope="session")
def made() -> Report:
    """Return a report on rows of which a third areshuffled apart."""
    train, more = rows(400, 0), rows(400, 3)
    maker = Made(pd.concat([more, apart(train.iloc[:200])]).astype({"town": "category", "state": "category"}))
    return report(maker, rows(300, 1), train=train, target="late", attack=True, seed=5)

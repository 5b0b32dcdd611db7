"""What is known when an order is booked, and what gives its lateness away."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import logistream as ls
from logistream.dataco import DELIVERY_DATE, PROMISED_DAYS, TARGET, UNKNOWN_AT_BOOKING
from logistream.model.model import Model

ROWS = 8000


@pytest.fixture(scope="module")
def booked(model: Model) -> pd.DataFrame:
    """Return events with all that can be asked for."""
    with ls.StreamServer(model, rate=1000, port=0, history=f"{ROWS // 1000}s") as server:
        return ls.events(server, 0, ROWS, columns="all")


def auc(features: pd.DataFrame, late: pd.Series) -> float:
    """Return how well the second half is predicted by what is learned of the first."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    numbers = features.apply(lambda c: c.cat.codes if isinstance(c.dtype, pd.CategoricalDtype) else c)
    half = len(numbers) // 2
    learner = HistGradientBoostingClassifier(max_iter=50, random_state=0)
    learner.fit(numbers[:half], late[:half])
    return float(roc_auc_score(late[half:], learner.predict_proba(numbers[half:])[:, 1]))


def test_the_delivery_date_gives_lateness_away(model: Model, booked: pd.DataFrame) -> None:
    """With the days from event to delivery the AUC is 1; with what is known at booking it is realistic."""
    known = booked[model.booked_columns]
    # delivery has whole minutes: it is within a minute of the event plus whole days
    waited = ((booked[DELIVERY_DATE] - booked["event_time"]).dt.total_seconds() / 86_400).round()
    trap = known.assign(waited=waited)
    assert ((waited > booked[PROMISED_DAYS]) == (booked[TARGET] == 1)).all()
    assert auc(trap, booked[TARGET]) == 1.0
    assert 0.68 < auc(known, booked[TARGET]) < 0.80


def test_the_columns_of_an_order_that_are_known_at_booking(model: Model) -> None:
    """All but the label, the delivery date, the profit and the state of the order, in the table's order."""
    names = list(model.schema.names)
    assert model.booked_columns == [name for name in names if name not in UNKNOWN_AT_BOOKING]
    assert set(names) - set(model.booked_columns) == {
        "Late_delivery_risk",
        "shipping date (DateOrders)",
        "Benefit per order",
        "Order Status",
    }


def test_of_another_table_all_columns_are_known() -> None:
    """A list of one's own, too: to change it changes no model."""
    rng = np.random.default_rng(0)
    model = ls.fit(pd.DataFrame({"Late_delivery_risk": rng.integers(0, 2, 100), "x": rng.normal(size=100)}))
    assert model.booked_columns == ["Late_delivery_risk", "x"]
    model.booked_columns.clear()
    assert model.booked_columns == ["Late_delivery_risk", "x"]

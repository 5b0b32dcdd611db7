"""The columns that are drawn suit the table."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from logistream.dataco import EVENT
from logistream.errors import RequestError
from logistream.model.model import Model
from logistream.schema import EVENT_TIME, Column, Schema
from logistream.widgets.choice import check_columns, choose_columns
from logistream.widgets.places import locate


def test_orders_are_grouped_by_what_tells_most(model: Model) -> None:
    """The mode decides most about a late delivery, and the market next to nothing."""
    columns = choose_columns(EVENT, model.events(0, 2000).to_pandas())
    assert (columns.share, columns.by) == ("Late_delivery_risk", "Shipping Mode")
    assert columns.groupings.index("Market") > 0
    assert [amount.label for amount in columns.amounts] == ["Sales", "Profit"]
    assert (columns.place, columns.latitude, columns.longitude) == ("Order Country", "Latitude", "Longitude")
    assert columns.table[0] == "event_time"
    assert (columns.title, columns.hit, columns.rest) == ("Late deliveries", "late", "on time")


def test_any_table_has_columns_by_kind() -> None:
    """Yes and no becomes a share, few categories groups, money sums, other numbers means."""
    schema = Schema(
        (
            Column("broken", "boolean"),
            Column("machine", "category"),
            Column("noise", "category"),
            Column("heat", "number", unit="K"),
            Column("cost", "number", unit="EUR"),
            EVENT_TIME,
        )
    )
    rng = np.random.default_rng(1)
    machine = rng.choice(["a", "b", "c"], 1000)
    rows = pd.DataFrame(
        {
            "broken": rng.random(1000) < np.where(machine == "a", 0.8, 0.1),
            "machine": machine,
            "noise": rng.choice(["x", "y"], 1000),
            "heat": 300.0,
            "cost": 1.0,
        }
    )
    columns = choose_columns(schema, rows)
    assert (columns.share, columns.by, columns.groupings) == ("broken", "machine", ("machine", "noise"))
    assert [(amount.column, amount.total) for amount in columns.amounts] == [("cost", True), ("heat", False)]
    assert (columns.place, columns.latitude) == (None, None)


def test_a_table_of_numbers_has_neither_share_nor_groups() -> None:
    """What is not there is not drawn."""
    columns = choose_columns(Schema((Column("x", "number"), EVENT_TIME)), pd.DataFrame())
    assert (columns.share, columns.by, columns.place) == (None, None, None)
    assert columns.drawn() == ("event_time", "x")


@pytest.mark.parametrize(
    ("share", "by", "sentence"),
    [
        ("Sales", None, "share needs a column of 0/1 or true/false, and 'Sales' is a number"),
        (None, "Sales", "by needs a category column, and 'Sales' is a number"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_a_sentence(
    share: str | None, by: str | None, sentence: str
) -> None:
    """Columns of the wrong kind are named."""
    with pytest.raises(RequestError) as caught:
        check_columns(EVENT, share, by)
    assert str(caught.value) == sentence


def test_countries_are_known_in_english_and_spanish(model: Model) -> None:
    """Nearly all countries of the orders have a place, however they are written."""
    names = model.categories["Order Country"]
    assert sum(locate(name) is not None for name in names) >= len(names) - 2
    assert locate("Alemania") == locate("Germany") == locate("GERMANY ")
    assert locate("Atlantis") is None

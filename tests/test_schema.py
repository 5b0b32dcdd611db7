"""The one list of columns and the forms made from it."""

from __future__ import annotations

import json

import jsonschema
import pytest

from logistream.dataco import EVENT, ORDERS
from logistream.errors import RequestError
from logistream.schema import Schema

PUBLISHED = """Type|Days for shipment (scheduled)|Benefit per order|Sales per customer|Late_delivery_risk
Customer City|Customer Country|Latitude|Longitude|Market|Order City|Order Country|Order Region|Order State
Product Category Id|Product Price|Product Status|Shipping Mode|shipping date (DateOrders)
Order Item Quantity|Sales|Order Status
event_time"""


def test_event_has_the_published_keys_in_order() -> None:
    """The 23 keys that clients already parse; written out here because this is the promise itself."""
    assert EVENT.names == tuple(PUBLISHED.replace("\n", "|").split("|"))


def test_orders_are_the_event_without_its_time_and_two_columns_more() -> None:
    """`df_cleaned` has 24 columns."""
    assert ORDERS.names == (*EVENT.names[:-1], "Department Id", "Order Item Discount Rate")


def test_schema_survives_a_model_file() -> None:
    """Plain data and back gives an equal schema."""
    assert Schema.from_list(json.loads(json.dumps(ORDERS.to_list()))) == ORDERS


def test_unknown_column_is_named_with_what_there_is() -> None:
    """The sentence says what came and what is allowed."""
    with pytest.raises(RequestError, match=r"no column 'Sale'; there are Type, .*Sales"):
        EVENT["Sale"]


def test_json_schema_is_valid_and_closed() -> None:
    """The JSON Schema is itself valid and refuses an extra or a missing key."""
    schema = EVENT.json_schema("event", {"Type": ("CASH", "DEBIT")})
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["properties"]["Type"]["enum"] == ["CASH", "DEBIT"]
    assert schema["required"] == list(EVENT.names)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"Type": "CASH"}, schema)

"""Conditions: every way of writing one, and which rows fulfil it."""

from __future__ import annotations

import operator
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logistream.errors import RequestError
from logistream.model.conditions import Condition, read_conditions, write_conditions
from logistream.schema import Column, Schema

if TYPE_CHECKING:
    from collections.abc import Callable

SCHEMA = Schema(
    (
        Column("Market", "category", nullable=True),
        Column("Sales", "number", nullable=True),
        Column("Sales >", "integer"),
        Column("Order: state", "category"),
        Column("Order", "category"),
        Column("pieces", "integer", nullable=True),
        Column("fragile", "boolean", nullable=True),
        Column("day", "timestamp", text_format="%m/%d/%Y %H:%M", nullable=True),
    )
)
MARCH = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("where", "conditions"),
    [
        ("Market:Europe", [("Market", "in", ("Europe",))]),
        ("Market: Europe ", [("Market", "in", (" Europe ",))]),
        ("Market = Europe", [("Market", "in", ("Europe",))]),
        ('Market == " Europe"', [("Market", "in", (" Europe",))]),
        ("Market:", [("Market", "in", (None,))]),
        ('Market==""', [("Market", "in", ("",))]),
        ("Market!=Europe", [("Market", "not in", ("Europe",))]),
        ("Market!=", [("Market", "not in", (None,))]),
        ("Market in Europe, LATAM", [("Market", "in", ("Europe", "LATAM"))]),
        ('Market NOT IN "a, b",c', [("Market", "not in", ("a, b", "c"))]),
        ("Market>=M", [("Market", ">=", ("M",))]),
        ("Sales>=100", [("Sales", ">=", (100.0,))]),
        ("Sales < -1e3", [("Sales", "<", (-1000.0,))]),
        ("Sales between 1 and 2.5", [("Sales", "<=", (2.5,)), ("Sales", ">=", (1.0,))]),
        ("Sales >=5", [("Sales >", "in", (5,))]),
        ('"Sales" >=5', [("Sales", ">=", (5.0,))]),
        ("Order: state:Ohio", [("Order: state", "in", ("Ohio",))]),
        ("Order:x: state", [("Order", "in", ("x: state",))]),
        ("pieces>2.5", [("pieces", ">", (2,))]),
        ("pieces>=2.5", [("pieces", ">=", (3,))]),
        ("fragile=TRUE", [("fragile", "in", (True,))]),
        ("day>=2026-03-01", [("day", ">=", (MARCH,))]),
        ("day>=2026-03", [("day", ">=", (MARCH,))]),
        ("day<03/01/2026 00:00", [("day", "<", (MARCH,))]),
        ("day:2026-03-01T01:00:00 01:00", [("day", "in", (MARCH,))]),
        (["Market:b", "Sales>1", "Market:a"], [("Market", "in", ("a", "b")), ("Sales", ">", (1.0,))]),
        ({"Market": "Europe"}, [("Market", "in", ("Europe",))]),
        ({"Market": {"b", "a"}}, [("Market", "in", ("a", "b"))]),
        ({"pieces": [1, None]}, [("pieces", "in", (1, None))]),
        ({"pieces": np.array([2, 1])}, [("pieces", "in", (1, 2))]),
        ({"Sales": slice(100, 500)}, [("Sales", "<=", (500.0,)), ("Sales", ">=", (100.0,))]),
        ({"Sales": slice(None, 500)}, [("Sales", "<=", (500.0,))]),
        ({"Sales": float("nan")}, [("Sales", "in", (None,))]),
        ({"day": slice("2026-03-01", None)}, [("day", ">=", (MARCH,))]),
        ({"day": pd.Timestamp("2026-03-01T02:00+02:00")}, [("day", "in", (MARCH,))]),
        ({"day": [np.datetime64("2026-03-01"), date(2026, 3, 1)]}, [("day", "in", (MARCH,))]),
        (("Sales", ">=", 100), [("Sales", ">=", (100.0,))]),
        (("Sales", "between", (1, 2)), [("Sales", "<=", (2.0,)), ("Sales", ">=", (1.0,))]),
        ([("Market", "not in", ("a", "b")), ("Market", "!=", "c")], [("Market", "not in", ("a", "b", "c"))]),
        ([("pieces", "==", 1), {"pieces": 2}, "fragile:0"],
         [("fragile", "in", (False,)), ("pieces", "in", (1, 2))]),
        ([], []),
    ],
)  # fmt: skip
def test_every_way_of_writing(where: Any, conditions: list[tuple[Any, ...]]) -> None:
    """Strings, mappings and tuples say the same."""
    assert list(read_conditions(where, SCHEMA)) == [Condition(*parts) for parts in conditions]


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ({"Sales": (1, 2)}, "(1, 2) for 'Sales' could mean a range or a list: write slice(1, 2) for a range, "
         "[1, 2] for a list of values, or a condition such as ('Sales', '>=', 1)"),
        ({"Sales": slice(None)}, "a range of 'Sales' must be slice(low, high), with None for an open end, "
         "not slice(None, None, None)"),
        ({"Sales": slice(1, 2, 3)}, "a range of 'Sales' must be slice(low, high)"),
        ({"Sales": []}, "no value is given for 'Sales'"),
        ({"Sales": print}, "a condition on 'Sales' needs a string, a number, a truth value, a time"),
        ({"Sales": {">": 2}}, "a condition on 'Sales' needs a string, a number, a truth value, a time"),
        ({"Sales": [[1]]}, "a condition on 'Sales' needs a string, a number, a truth value, a time"),
        ({3: 4}, "where must name columns by strings, not 3"),
        (7, "where must be like 'Market:Europe', 'Sales>=100', "),
        ([7], "a condition must be like 'Market:Europe', 'Sales>=100', "),
        (("Sales", "~", 3), "'~' is no operator: there are ==, !=, <, <=, >, >=, in, not in, between"),
        ([("Sales", 3)], "a condition must be like"),
        (("Sales", "in", 3), "'in' needs a list of values for 'Sales', as in [1, 2], not 3"),
        (("Sales", "between", 3), "between needs two values for 'Sales', as in (100, 500), not 3"),
        (("Sales", "between", [1, 2, 3]), "between needs two values for 'Sales'"),
        (("Sales", ">", None), "a condition on 'Sales' needs a value after >"),
        ("Sales>=", "a condition on 'Sales' needs a value after >="),
        ("Sales:nan", "a condition on 'Sales' needs a number, not nan"),
        ("Sales>much", "a condition on 'Sales' needs a number, not 'much'"),
        ("pieces:1.5", "a condition on 'pieces' needs a whole number, not '1.5'"),
        ("pieces>inf", "a condition on 'pieces' needs a number, not inf"),
        (("pieces", "==", 2**63), "a condition on 'pieces' needs a whole number of 64 bits"),
        (("Sales", "==", 10**400), "a condition on 'Sales' needs a number of at most 64 bits, not one"),
        (("Market", ">", 3), "a condition on 'Market' needs a string, not 3"),
        ("fragile>true", "'fragile' is true or false and has no order: ask with == or !="),
        ("fragile:maybe", "a condition on 'fragile' needs true or false, not 'maybe'"),
        ("day>soon", "a condition on 'day' needs a time such as 2026-11-24T06:23:00Z, not 'soon'"),
        ("Marked:Europe", "a condition is written COLUMN:VALUE or COLUMN>=VALUE, and 'Marked:Europe' begins "
         "with no column and operator: there are 'Market', "),
        ({"Marked": "Europe"}, "no column is called 'Marked': there are 'Market', "),
        ({"pieces": slice(5, 1)}, "no value fulfils both pieces >= 5 and pieces <= 1: give a lower bound"),
        (["Sales>5", "Sales<=5"], "no value fulfils both Sales > 5.0 and Sales <= 5.0: give a lower bound"),
        ("day between 2026-03-02 and 2026-03-01", "no value fulfils both day >= 2026-03-02T"),
        ({"pieces": 10**5000}, "a condition on 'pieces' needs a number of at most 64 bits, not one of "),
        ({"Sales": [1, -(10**5000)]}, "a condition on 'Sales' needs a number of at most 64 bits, not "),
        ({"pieces": 10**30}, "a condition on 'pieces' needs a whole number of 64 bits, not 1000000"),
        ("pieces:" + "1" * 5000, "a condition on 'pieces' needs a whole number, not '" + "1" * 79 + "..."),
    ],
)  # fmt: skip
def test_what_cannot_be_read_gets_a_sentence(where: Any, sentence: str) -> None:
    """The sentence says what was expected, and what stands there."""
    with pytest.raises(RequestError) as refused:
        read_conditions(where, SCHEMA)
    assert str(refused.value)[: len(sentence)] == sentence


names = st.lists(
    st.text(st.sampled_from('ab :=<>!"'), min_size=1, max_size=5) | st.text(min_size=1, max_size=8),
    min_size=1,
    max_size=6,
    unique=True,
)
values: dict[Any, st.SearchStrategy[Any]] = {
    "category": st.text(st.sampled_from('ab :=<>!,"'), max_size=6) | st.text(max_size=8),
    "boolean": st.booleans(),
    "integer": st.integers(-(2**63), 2**63 - 1),
    "number": st.floats(allow_nan=False),
    "timestamp": st.datetimes(timezones=st.just(UTC)),
}


@given(st.data())
def test_what_is_written_is_read_again(data: st.DataObject) -> None:
    """A condition comes back from its strings, whatever the names and values hold."""
    schema = Schema(
        tuple(Column(name, data.draw(st.sampled_from(sorted(values)))) for name in data.draw(names))
    )
    column = data.draw(st.sampled_from(schema.columns))
    asked: list[Any]
    compare = data.draw(st.sampled_from(["in", "not in", "<", "<=", ">", ">="]))
    if compare in ("in", "not in"):
        asked = [data.draw(st.none() | values[column.kind]) for _ in range(data.draw(st.integers(1, 3)))]
        where = (column.name, compare, asked)
    else:
        if column.kind == "boolean":
            return
        where = (column.name, compare, data.draw(values[column.kind]))
    conditions = read_conditions(where, schema)
    assert read_conditions(write_conditions(where), schema) == conditions
    assert read_conditions(write_conditions(conditions), schema) == conditions
    assert write_conditions(write_conditions(where)) == write_conditions(where)


FRAME = pd.DataFrame(
    {
        "Market": ["Europe", "LATAM", None, "USCA", "Europe"],
        "Sales": [1.5, None, -2.0, 100.0, 3.0],
        "pieces": pd.array([1, 2, None, 4, -1], dtype="Int64"),
        "fragile": pd.array([True, False, None, True, True], dtype="boolean"),
        "day": pd.to_datetime(["2026-02-01", "2026-03-01", "NaT", "2026-03-02", "1969-07-20"], utc=True),
    }
).astype({"Market": "category", "day": "datetime64[us, UTC]"})
ASKED = {"Market": "LATAM", "Sales": 1.5, "pieces": 2, "fragile": True, "day": MARCH}
COMPARE: dict[str, Callable[[pd.Series, Any], pd.Series]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@pytest.mark.parametrize("name", ASKED)
@pytest.mark.parametrize("compare", COMPARE)
def test_masks_are_those_of_pandas(name: str, compare: str) -> None:
    """Missing values fulfil `!=` and nothing else."""
    if name == "fragile" and compare not in ("==", "!="):
        pytest.skip("truth values have no order")
    fields = [SCHEMA[str(column)].arrow_field for column in FRAME]
    batch = pa.RecordBatch.from_pandas(FRAME, pa.schema(fields))
    [condition] = read_conditions((name, compare, ASKED[name]), SCHEMA)
    column = FRAME[name].astype("str").where(FRAME[name].notna()) if name == "Market" else FRAME[name]
    expected = COMPARE[compare](column, ASKED[name]).astype("boolean").fillna(compare == "!=")
    expected |= column.isna() & (compare == "!=")
    assert condition.mask(batch).tolist() == expected.tolist()
    [both] = read_conditions((name, "in" if compare == "==" else "not in", [ASKED[name], None]), SCHEMA)
    known = COMPARE["==" if compare == "==" else "!="](column, ASKED[name]).astype("boolean").fillna(False)
    wanted = (known | column.isna()) if compare == "==" else (known & column.notna())
    assert both.mask(batch).tolist() == wanted.tolist()


@given(
    st.sampled_from(["in", "not in", "<", "<=", ">", ">="]),
    st.lists(st.integers(-3, 3), min_size=1, max_size=3),
    st.lists(st.tuples(st.integers(-4, 4), st.integers(0, 3), st.booleans()), min_size=1, max_size=9),
    st.booleans(),
)
def test_bounds_decide_as_single_values_do(
    compare: Any, asked: list[int], ranges: list[tuple[int, int, bool]], with_none: bool
) -> None:
    """A range can fulfil a condition if a value in it does, and must if all do."""
    several = compare in ("in", "not in")
    condition = Condition("pieces", compare, (*asked, None) if several and with_none else tuple(asked[:1]))
    low = np.array([first for first, _, _ in ranges])
    high = low + [width for _, width, _ in ranges]
    missing = np.array([gap for _, _, gap in ranges])
    can, must = condition.between(low, high, missing)
    for i in range(len(ranges)):
        inside = [None] if missing[i] else list(range(low[i], high[i] + 1))
        batch = pa.record_batch({"pieces": pa.array(inside, pa.int64())})
        fulfilled = condition.mask(batch)
        if several:  # of a range that holds an asked value, others may be between whole numbers
            assert not fulfilled.any() or can[i]
            assert fulfilled.all() or not must[i]
        else:
            assert (can[i], must[i]) == (fulfilled.any(), fulfilled.all())

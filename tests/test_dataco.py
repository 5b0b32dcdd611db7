"""Reading DataCo orders as they are found in the world."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from logistream.dataco import ORDERS, load_orders, read_orders, read_table
from logistream.errors import DataError
from logistream.model.model import Model


@pytest.fixture(scope="module")
def clean(model: Model) -> pd.DataFrame:
    """Return a few synthetic orders."""
    return model.sample(50)


def raw(clean: pd.DataFrame) -> pd.DataFrame:
    """Return the same orders as the published file writes them: noise, white space, other columns."""
    frame = clean.astype(object)
    frame["shipping date (DateOrders)"] = clean["shipping date (DateOrders)"].dt.strftime("%m/%d/%Y %H:%M")
    frame["Product Price"] = clean["Product Price"] + 1.68e-6
    frame["Order Region"] = clean["Order Region"].astype(str) + "  "
    frame.insert(0, "Delivery Status", "Late delivery")
    frame.insert(0, "Customer Email", "XXXXXXXXX")
    return frame[frame.columns[::-1]]


@pytest.mark.parametrize("encoding", ["latin-1", "utf-8", "utf-8-sig"])
def test_raw_csv_in_any_encoding(clean: pd.DataFrame, tmp_path: Path, encoding: str) -> None:
    """Accents survive whatever encoding the file has; noise and white space do not."""
    path = tmp_path / "raw.csv"
    frame = raw(clean)
    frame["Order City"] = "Bogotá"
    frame.to_csv(path, index=False, encoding=encoding)
    got = read_orders(path)
    assert tuple(got.columns) == ORDERS.names
    assert (got["Order City"] == "Bogotá").all()
    for name in ("Product Price", "Order Region", "shipping date (DateOrders)"):
        assert list(got[name]) == list(clean[name])
    assert str(got["Sales"].dtype) == "float64"
    assert str(got["Late_delivery_risk"].dtype) == "int64"
    assert str(got["Type"].dtype) == "category"
    assert str(got["shipping date (DateOrders)"].dtype) == "datetime64[us]"


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_clean_table_reads_back_the_same(clean: pd.DataFrame, tmp_path: Path, suffix: str) -> None:
    """A clean CSV or Parquet file is `df_cleaned` again."""
    path = tmp_path / f"clean.{suffix}"
    if suffix == "csv":
        clean.to_csv(path, index=False)
    else:
        clean.to_parquet(path, index=False)
    got = read_orders(path)
    for name in ORDERS.names:
        assert list(got[name]) == list(clean[name])


def test_canceled_orders_are_dropped(clean: pd.DataFrame, tmp_path: Path) -> None:
    """An order that was never shipped is not an order of `df_cleaned`."""
    frame = raw(clean)
    frame.loc[:9, "Delivery Status"] = "Shipping canceled"
    frame.to_csv(tmp_path / "raw.csv", index=False)
    assert len(read_orders(tmp_path / "raw.csv")) == len(clean) - 10


def spoil(clean: pd.DataFrame, column: str, value: object) -> bytes:
    frame = clean.astype(object)
    frame[column] = pd.Series([value if row == 2 else old for row, old in enumerate(frame[column])])
    return frame.to_csv(index=False).encode()


def test_wrong_files_get_a_sentence(clean: pd.DataFrame, tmp_path: Path) -> None:
    """Each says what was expected and what came."""
    header = ",".join(f'"{name}"' for name in ORDERS.names).encode()
    wrong = {
        "is empty": b"",
        "it holds binary data": b"\x89PNG\r\n\x1a\n\0\0\0",
        "starts like a Parquet file but cannot be read": b"PAR1 and then nothing",
        "lacks 23 of the 24 columns of orders: Days for shipment": b"Type\nCASH\n",
        "lacks 24 of the 24 columns": b"What is this?\nA letter, to you.\n",
        "is not a table": b'a,b\n"1,2\n',
        "has a header but no orders": header + b"\n",
        "column 'Sales' should hold numbers, but row 3 has 'many'": spoil(clean, "Sales", "many"),
        "column 'Sales' should hold numbers, but row 3 has 'inf'": spoil(clean, "Sales", "inf"),
        "column 'Product Status' should hold whole numbers, but row 3 has '0.5'": spoil(
            clean, "Product Status", 0.5
        ),
        "should hold dates such as 2/18/2016 2:02": spoil(clean, "shipping date (DateOrders)", "soon"),
        "column 'Type' has no value in 1 rows (first in row 3)": spoil(clean, "Type", " "),
    }
    for sentence, content in wrong.items():
        path = tmp_path / "wrong.csv"
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            read_orders(path)
        assert sentence in str(caught.value)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no file at"):
        read_orders(tmp_path / "absent.csv")
    with pytest.raises(DataError, match="cannot be read"):
        read_orders(tmp_path)


def test_real_sample(orders: pd.DataFrame) -> None:
    """The published layout: 199 of 4,498 orders are canceled, money is whole cents, accents are intact."""
    assert orders.shape == (4299, 24)
    assert np.array_equal(orders["Sales"], orders["Sales"].round(2))
    assert "México" in orders["Order Country"].cat.categories
    assert not any(text != text.strip() for text in orders["Order Region"].cat.categories)


def test_any_other_table_is_read_by_what_it_holds(tmp_path: Path) -> None:
    """Numbers, texts and ISO dates; orders are recognised and cleaned."""
    path = tmp_path / "other.csv"
    path.write_text("when,n,word\n2026-01-01T10:00:00,1,a\n,2.5,b\n2026-01-02,,c\n", "utf-8")
    got = read_table(path)
    assert [str(dtype) for dtype in got.dtypes] == ["datetime64[us, UTC]", "float64", "str"]
    assert got["when"].isna().tolist() == [False, True, False]


def test_orders_are_recognised(clean: pd.DataFrame, tmp_path: Path) -> None:
    """A raw CSV of orders is cleaned whichever way it is read."""
    raw(clean).to_csv(tmp_path / "raw.csv", index=False)
    pd.testing.assert_frame_equal(read_table(tmp_path / "raw.csv"), read_orders(tmp_path / "raw.csv"))


def test_the_shipped_orders_are_a_clean_table() -> None:
    """`load_orders` gives 10,000 orders with the columns, in order, and the dtypes of `df_cleaned`."""
    orders = load_orders()
    assert tuple(orders.columns) == ORDERS.names
    assert len(orders) == 10_000
    assert not orders.isna().any(axis=None)
    assert {orders[c.name].dtype.name for c in ORDERS if c.kind == "category"} == {"category"}

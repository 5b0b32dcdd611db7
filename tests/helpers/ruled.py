"""Tables in which rules hold, of every kind that is looked for, and all tables of the suite by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from sklearn import datasets

from helpers import compared

if TYPE_CHECKING:
    from collections.abc import Callable

N = 3000
PREFIX = {"Electronics": "EL", "Garden": "GA", "Toys": "TO", "Books": "BO"}


def with_gaps(frame: pd.DataFrame, share: float) -> pd.DataFrame:
    """Return a table in which each value is missing with the same probability."""
    nullable = {"i": "Int64", "b": "boolean"}
    kinds = {name: nullable[dtype.kind] for name, dtype in frame.dtypes.items() if dtype.kind in nullable}
    return frame.astype(kinds).mask(np.random.default_rng(9).random(frame.shape) < share)


def bills() -> pd.DataFrame:
    """Return bills: price × quantity, a rate of few values, a tip, a total, and two dates."""
    rng = np.random.default_rng(0)
    price, quantity = rng.integers(100, 9999, N) / 100, rng.integers(1, 9, N)
    rate = rng.choice([0.05, 0.07, 0.19], N)
    net = np.round(price * quantity, 2)
    tax = np.round(net * rate, 2)
    ordered = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 365 * 1440, N), "min")
    return pd.DataFrame(
        {
            "price": price,
            "quantity": quantity,
            "net": net,
            "tax": tax,
            "total": np.round(net + tax, 2),
            "ordered": ordered,
            "shipped": ordered + pd.to_timedelta(rng.integers(1, 5, N), "D"),
            "month": ordered.month,
        }
    )


def parcels() -> pd.DataFrame:
    """Return parcels: three weights in ascending order, and when they were booked and delivered."""
    rng = np.random.default_rng(0)
    net = rng.gamma(2, 3, N)
    packed = net + rng.gamma(1, 0.2, N)
    booked = pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 90 * 86_400, N), "s")
    return pd.DataFrame(
        {
            "charged": packed + rng.gamma(1, 0.3, N),
            "net": net,
            "packed": np.round(packed, 4),
            "other": rng.gamma(2, 3, N),
            "delivered": booked + pd.to_timedelta(rng.integers(60, 40 * 3600, N), "s"),
            "booked": booked,
        }
    ).assign(charged=lambda f: f["charged"].clip(lower=f["packed"]))


def ruled(gaps: float) -> pd.DataFrame:
    """Return a table in which all these rules hold wherever nothing is missing; gaps are anywhere."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({n: np.round(rng.gamma(2, s, N), 2) for n, s in (("paid", 30), ("due", 20))})
    frame["change"] = np.round(frame["paid"] - frame["due"], 2)
    for name, scale in (("net", 40), ("tax", 8), ("freight", 5), ("rebate", 3)):
        frame[name] = np.round(1 + rng.gamma(3, scale, N), 2)
    frame["total"] = np.round(frame["net"] + frame["tax"] + frame["freight"] - frame["rebate"], 2)
    frame["margin"] = np.round(100 * frame["tax"] / frame["net"], 1)
    frame["price"], frame["quantity"] = np.round(rng.gamma(3, 10, N), 2), rng.integers(1, 20, N)
    frame["fee"] = np.round(rng.gamma(2, 3, N), 2)
    frame["bill"] = np.round(frame["price"] * frame["quantity"] + frame["fee"], 2)
    frame["state"], frame["part"] = rng.integers(1, 50, N), rng.integers(1, 400, N)
    frame["county"] = 1000 * frame["state"] + frame["part"]
    frame["weight"] = rng.normal(70, 12, N)
    frame["squared"], frame["logarithm"] = frame["weight"] ** 2, np.log(frame["weight"])
    frame["start"] = pd.Timestamp("2025-01-01") + pd.to_timedelta(rng.integers(0, 300 * 1440, N), "min")
    frame["end"] = frame["start"] + pd.to_timedelta(rng.integers(5, 5000, N), "min")
    frame["hours"] = np.round((frame["end"] - frame["start"]).dt.total_seconds() / 3600, 2)
    frame["age"] = (frame["end"] - frame["start"]).dt.days
    frame["day"] = frame["start"].dt.strftime("%Y%m%d").astype("Int64")
    if gaps:
        whole = [name for name, dtype in frame.dtypes.items() if dtype.kind == "i"]
        frame = frame.astype(dict.fromkeys(whole, "Int64")).mask(rng.random(frame.shape) < gaps)
    return frame


def birds() -> pd.DataFrame:
    """Return a table of all kinds, with missing values, and difficult names."""
    rng = np.random.default_rng(7)
    n = 2000
    species = rng.choice(["Adélie", "Gentoo", 'Chin"strap\\'], n, p=[0.45, 0.35, 0.2])
    mass = np.where(species == "Gentoo", rng.normal(5000, 300, n), rng.normal(3700, 250, n))
    seen = pd.Timestamp("2021-03-01") + pd.to_timedelta(rng.integers(0, 3 * 10**7, n), "s")
    hole = rng.random((n, 5)) < 0.1
    return pd.DataFrame(
        {
            "class": species,
            "Körpermasse (g)": np.round(mass, 1),
            "flipper length": pd.Series(np.round(mass / 25).astype(int)).astype("Int64").mask(hole[:, 0]),
            "島": pd.Series(rng.choice(["Biscoe", "Dream"], n)).astype("category").mask(hole[:, 1]),
            "ringed?": rng.random(n) < 0.3,
            "breeding": pd.Series(rng.random(n) < 0.6).astype("boolean").mask(hole[:, 2]),
            "seen": seen,
            "hatched": pd.Series(seen - pd.Timedelta("30D")).dt.tz_localize("UTC").mask(hole[:, 3]),
            "local": seen.tz_localize("UTC").tz_convert("Europe/Berlin"),
            "bill": np.where(hole[:, 4], np.nan, rng.gamma(9.0, 5.0, n)),
            "import {x}": rng.integers(0, 50, n),
            "status": "alive",
        }
    )


def nearly(gaps: float) -> pd.DataFrame:
    """Return a table whose rules have exceptions, with gaps that have nothing to do with them."""
    rng = np.random.default_rng(0)
    a, b = np.round(rng.gamma(2, 30, N), 2), np.round(rng.gamma(2, 10, N), 2)
    total = np.round(a + b + np.where(rng.random(N) < 0.03, rng.normal(0, 5, N), 0), 2)
    price, quantity = np.round(1 + rng.gamma(3, 10, N), 2), rng.integers(1, 20, N)
    bill = np.where(rng.random(N) < 0.04, 0.0, np.round(quantity * price, 2))
    start = pd.Timestamp("2025-01-01") + pd.to_timedelta(rng.integers(0, 300 * 1440, N), "min")
    minutes = np.where(rng.random(N) < 0.02, -rng.integers(1, 2000, N), rng.gamma(2, 600, N).astype(int))
    city = rng.integers(0, 60, N)
    state = np.where(rng.random(N) < 0.01, rng.integers(0, 12, N), city % 12)
    frame = pd.DataFrame(
        {
            "a": a,
            "b": b,
            "total": total,
            "quantity": quantity,
            "price": price,
            "bill": bill,
            "start": start,
            "end": start + pd.to_timedelta(minutes, "min"),
            "month": np.where(rng.random(N) < 0.01, rng.integers(1, 13, N), start.month),
            "city": [f"city {number}" for number in city],
            "state": [f"S{number}" for number in state],
        }
    )
    if gaps:
        whole = dict.fromkeys(("quantity", "month"), "Int64")
        frame = frame.astype(whole).mask(rng.random(frame.shape) < gaps)
    return frame


def lines_of_orders(*, whole: bool = False, gaps: float = 0.0, dated: bool = False) -> pd.DataFrame:
    """Return orders of one to five lines each, from nine stores."""
    rng = np.random.default_rng(0)
    many = rng.integers(1, 6, 800)
    order = np.repeat(np.arange(800), many)
    n = len(order)
    names = [f"SO-{2023 + i % 3}-{i * 7919 % 1_000_000:06d}" for i in order]
    frame = pd.DataFrame(
        {
            "order": order + 10_000 if whole else names,
            "line": np.concatenate([np.arange(1, count + 1) for count in many]),
            "product": rng.choice(list("abcdefgh"), n),
            "quantity": rng.integers(1, 9, n),
            "store": [f"store {i % 9}" for i in order],
        }
    )
    if dated:
        frame["day"] = (pd.Timestamp("2025-01-01") + pd.to_timedelta(rng.integers(0, 300, 800), "D"))[order]
    if gaps:
        frame = frame.astype({name: "Int64" for name, dtype in frame.dtypes.items() if dtype.kind == "i"})
        frame = frame.mask(rng.random(frame.shape) < gaps)
    return frame


def articles(gaps: float) -> pd.DataFrame:
    """Return articles whose number begins as their category does, and codes of a state and a year."""
    rng = np.random.default_rng(0)
    category = rng.choice(list(PREFIX), N, p=[0.4, 0.3, 0.2, 0.1])
    number = rng.zipf(1.2, N) % 900
    state = rng.choice([f"{a}{b}" for a in "ABCDEFG" for b in "KLMNOP"], N, p=[0.999 / 41] * 41 + [0.001])
    year = rng.integers(2019, 2025, N)
    frame = pd.DataFrame(
        {
            "category": category,
            "sku": [f"{PREFIX[c]}-{i:04d}" for c, i in zip(category, number, strict=True)],
            "state": state,
            "year": year,
            "code": [f"{s}-{y}" for s, y in zip(state, year, strict=True)],
            "weight": rng.normal(size=N),
        }
    )
    return frame.astype({"year": "Int64"}).mask(rng.random(frame.shape) < gaps) if gaps else frame


def ascending() -> pd.DataFrame:
    """Return whole numbers of many values in order, and a bill whose parts are in order with others."""
    rng = np.random.default_rng(5)
    low = rng.integers(0, 300, N)
    one, other = rng.gamma(3, 20, N), rng.gamma(2, 20, N)
    paid, due = np.round(np.maximum(one, other), 2), np.round(np.minimum(one, other), 2)
    price, quantity = np.round(1 + rng.gamma(3, 10, N), 2), rng.integers(1, 9, N)
    listed = np.round(price + rng.gamma(1, 4, N), 2)
    return pd.DataFrame(
        {
            "low": low,
            "high": low + rng.integers(0, 150, N),
            "paid": paid,
            "due": due,
            "change": np.round(paid - due, 2),
            "price": price,
            "listed": listed,
            "quantity": quantity,
            "bill": np.round(price * quantity, 2),
        }
    )


def places() -> pd.DataFrame:
    """Return towns in states in countries, and the numbers of customers, which are unique."""
    rng = np.random.default_rng(6)
    town = rng.zipf(1.3, N) % 300
    return pd.DataFrame(
        {
            "customer": [f"C-{number:06d}" for number in rng.permutation(900_000)[:N]],
            "town": [f"town {number:03d}" for number in town],
            "state": [f"state {number % 40}" for number in town],
            "country": [f"country {number % 40 // 5}" for number in town],
            "zip": 1000 + 7 * town,
            "spent": np.round(rng.gamma(2, 30, N), 2),
        }
    )


TABLES: dict[str, Callable[[], pd.DataFrame]] = {
    "bills": bills,
    "parcels": parcels,
    "ruled": lambda: ruled(0),
    "birds": birds,
    "nearly": lambda: nearly(0),
    "orders": lines_of_orders,
    "dated orders": lambda: lines_of_orders(dated=True),
    "articles": lambda: articles(0),
    "ascending": ascending,
    "places": places,
    "compared": lambda: compared.rows(2000, 0),
    "iris": lambda: datasets.load_iris(as_frame=True).frame,
    "breast cancer": lambda: datasets.load_breast_cancer(as_frame=True).frame,
    "wine": lambda: datasets.load_wine(as_frame=True).frame,
    "diabetes": lambda: datasets.load_diabetes(as_frame=True).frame,
}
"""The tables that the suite fits, without gaps unless they have their own."""

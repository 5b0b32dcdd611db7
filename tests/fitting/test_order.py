"""The order of drawing: functional dependencies and associations are found, and nothing else is."""

from __future__ import annotations

import numpy as np
import pandas as pd

from logistream.fitting.coding import Coded, code_column
from logistream.fitting.columns import read_columns
from logistream.fitting.fit import fit
from logistream.fitting.order import find_associations, find_keys, find_steps

N = 3000


def nominal(**columns: np.ndarray) -> dict[str, Coded]:
    """Code columns of whole numbers as strings."""
    frame = pd.DataFrame(columns).astype("str")
    return {values.column.name: code_column(values) for values in read_columns(frame)}


def test_keys_need_proof() -> None:
    """City determines country; of a column of all different values nothing can be known."""
    rng = np.random.default_rng(2)
    city = rng.integers(0, 200, N)
    coded = nominal(city=city, country=city % 20, noise=rng.integers(0, 20, N), id=np.arange(N))
    assert find_keys(coded) == {"city": ("country",)}


def test_pairs_whose_combinations_recur_are_associated() -> None:
    """Two columns whose combinations recur are; unrelated ones of many values are not."""
    rng = np.random.default_rng(3)
    pair = rng.integers(0, 150, N)
    coded = nominal(a=pair % 37, b=pair * 7 % 41, many=rng.integers(0, 300, N), few=rng.integers(0, 3, N))
    assert set(find_associations(coded)) == {frozenset("ab")}


def test_pairs_with_empty_cells_are_associated() -> None:
    """A service that is always late is never combined with in time."""
    rng = np.random.default_rng(4)
    mode = rng.integers(0, 4, N)
    late = np.where(mode == 1, 1, rng.integers(0, 2, N))
    assert set(find_associations(nominal(mode=mode, late=late))) == {frozenset(("mode", "late"))}


def test_two_keys_of_one_column_agree() -> None:
    """Customer and shop lie in the same town, which both determine."""
    rng = np.random.default_rng(5)
    town = rng.integers(0, 12, N)
    frame = pd.DataFrame(
        {
            "shop": town * 3 + rng.integers(0, 3, N),
            "customer": town * 20 + rng.integers(0, 20, N),
            "town": town,
        }
    ).astype("str")
    s = fit(frame, public=frame.columns.tolist()).sample(20_000).astype(int)
    assert (s["shop"] // 3 == s["town"]).all()
    assert (s["customer"] // 20 == s["town"]).all()


def test_a_number_is_drawn_before_its_parts() -> None:
    """Of a date as a number follow year and month; no month is made that never was."""
    rng = np.random.default_rng(9)
    month = rng.integers(
        7, 91, N
    )  # since the beginning of 2000: neither the first nor the last year is whole
    frame = pd.DataFrame({"year": 2000 + month // 12, "month": month % 12 + 1, "date": 2000 + month / 12})
    model = fit(frame)
    assert model.factors[0].name == "date"
    made = model.sample(20_000)
    assert np.allclose(made["year"] + (made["month"] - 1) / 12, made["date"])


def test_the_caller_overrules_keys() -> None:
    """Associations and functional dependencies can be given or forbidden."""
    rng = np.random.default_rng(6)
    a = rng.integers(0, 30, N)
    coded = nominal(a=a, b=a // 3, c=rng.integers(0, 3, N))

    def within(**given: object) -> dict[str, tuple[str, ...]]:
        return {step.variable.name: step.within for step in find_steps(coded, **given)}  # type: ignore[arg-type]

    assert within() == {"c": (), "b": (), "a": ("b",)}
    assert within(together=[("b", "c")]) == {"c": (), "b": ("c",), "a": ("b",)}
    assert within(keys={"a": ()})["a"] == ("b",)  # their combinations still recur


def test_many_partners_are_combined() -> None:
    """Where a variable keeps to several of many values, no table of all their combinations is made."""
    rng = np.random.default_rng(7)
    what = rng.integers(0, 700, N)
    coded = nominal(what=what, a=what * 7 % 211, b=what * 11 % 223, c=what * 13 % 199)
    steps = {step.variable.name: step.within for step in find_steps(coded)}
    assert any(" with " in name for name in steps)
    frame = pd.DataFrame({name: variable.codes for name, variable in coded.items()}).astype("str")
    seen = set(map(tuple, frame.to_numpy()))
    made = fit(frame, public=frame.columns.tolist()).sample(20_000)
    assert set(map(tuple, made.to_numpy())) <= seen

"""Parts of strings that follow from other columns are kept, by invented strings as well."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from helpers.ruled import PREFIX, N, articles
from logistream.fitting.columns import read_columns
from logistream.fitting.fit import fit
from logistream.fitting.parts import find_parts
from logistream.model.model import load_model


@pytest.mark.parametrize("gaps", [0.0, 0.02])
def test_parts_follow_from_their_columns(gaps: float, tmp_path: Path) -> None:
    """The beginning of a number, and both parts of a code, also of combinations that did not occur."""
    frame = articles(gaps)
    model = fit(frame)
    made = model.sample(20_000)
    for table in (frame, made):
        known = table.dropna(subset=["category", "sku"])
        assert (known["sku"].str[:3] == known["category"].map(PREFIX) + "-").all()
        known = table.dropna(subset=["state", "year", "code"])
        assert (known["code"] == known["state"] + "-" + known["year"].astype(str)).all()
        known = table.dropna(subset=["year", "code"])
        assert (known["code"].str[-4:] == known["year"].astype(str)).all()
    assert (made.isna().mean() - frame.isna().mean()).abs().max() < 0.02
    pairs = [set(zip(t["state"], t["year"], strict=True)) for t in (frame.dropna(), made.dropna())]
    assert gaps or pairs[1] - pairs[0]
    held = len(frame.dropna(subset=["category", "sku"]))
    text = str(model.describe())
    assert f"  category → a part of sku (holds in {held:,} of {held:,} rows)\n" in text
    again = load_model(model.save(tmp_path / "m.model"))
    assert again.sample(50, seed=3).equals(model.sample(50, seed=3))
    assert (model.sample(100, where={"year": 2020})["code"].dropna().str[-4:] == "2020").all()


def test_strings_of_few_rows_are_still_invented() -> None:
    """An invented number keeps the beginning that follows from its category, and is none of the real ones."""
    frame = articles(0.0)
    counts = frame["sku"].value_counts()
    made = fit(frame).sample(20_000)
    assert not set(counts[counts < 5].index) & set(made["sku"])
    assert made["sku"].str.fullmatch(r"[A-Z]{2}-\d+").all()


def test_a_rare_source_is_invented_the_same_in_both() -> None:
    """A state that three rows have is another one, and so it is in the code; none of the two is real."""
    frame = articles(0.0)
    rare = frame["state"].value_counts()[lambda counts: counts < 5].index
    assert len(rare)
    made = fit(frame).sample(20_000)
    assert not made["state"].isin(rare).any()
    of_code = made["code"].str.split("-").str[0]
    assert not of_code.isin(rare).any()
    assert (of_code == made["state"]).all()


def test_parts_by_chance_and_without_structure_are_left_alone() -> None:
    """Strings of different runs, names of rows, and runs that go with nothing have no parts."""
    rng = np.random.default_rng(1)
    frame = pd.DataFrame(
        {
            "colour": rng.choice(["red", "blue", "green"], N),
            "mixed": rng.choice(["a-1", "b", "c 2 d"], N),
            "free": [
                f"{a}-{b}" for a, b in zip(rng.choice(list("xyz"), N), rng.integers(0, 9, N), strict=True)
            ],
        }
    )
    table = {values.column.name: values for values in read_columns(frame)}
    assert find_parts(table, ()) == {}


def test_what_follows_from_a_computed_column_is_described() -> None:
    """A year that is computed from a date is known after the string is drawn, and that is said."""
    rng = np.random.default_rng(2)
    day = pd.Timestamp("2019-01-01") + pd.to_timedelta(rng.integers(0, 2000, N), "D")
    letters = rng.choice(list("ABCDE"), N)
    frame = pd.DataFrame(
        {"day": day, "year": day.year, "batch": [f"{y}-{x}" for y, x in zip(day.year, letters, strict=True)]}
    )
    text = str(fit(frame).describe())
    assert "a part of batch follows from year" in text
    assert "it is drawn before year is known" in text

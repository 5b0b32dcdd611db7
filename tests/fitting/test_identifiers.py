"""Strings of a few rows never come back; values that name the rows are invented, and none twice."""

from __future__ import annotations

import re
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from logistream.errors import DataError, RequestError
from logistream.fitting.coding import SMALLEST_GROUP
from logistream.fitting.columns import read_columns
from logistream.fitting.fit import fit
from logistream.fitting.identifiers import Inventor, code_integers, code_strings, find_patterns
from logistream.model.model import Model, load_model
from logistream.model.patterns import Identifier, Pattern
from logistream.model.sampling import BLOCK, Sampler

N = 1500
LETTERS = np.array(list("abcdefghiklmnoprstu"))
words = st.text(st.sampled_from("abcXYZ019 -_.éЖ中"), max_size=9)


@pytest.fixture(scope="module")
def frame() -> pd.DataFrame:
    """Return columns that name the rows in every way, and one whose strings recur in part."""
    rng = np.random.default_rng(0)
    year, region = rng.integers(2021, 2024, N), rng.choice(["EU", "US", "ASIA"], N)
    vocabulary = ["".join(rng.choice(LETTERS, rng.integers(2, 8))) for _ in range(200)]
    people = [f"{''.join(rng.choice(LETTERS, 6)).capitalize()} {word}" for word in vocabulary * 5]
    return pd.DataFrame(
        {
            "order": [
                f"ORD-{y}-{r}-{i:07d}"
                for y, r, i in zip(year, region, rng.permutation(10**6)[:N], strict=True)
            ],
            "year": year,
            "region": region,
            "plate": [f"N{i}{rng.choice(['AA', 'DL', 'UA'])}" for i in rng.permutation(9000)[:N] + 1000],
            "hash": ["".join(rng.choice(list("0123456789abcdef"), 12)) for _ in range(N)],
            "serial": [f"{i:06d}" for i in range(N)],
            "note": [" ".join(rng.choice(vocabulary, rng.integers(3, 12))) for _ in range(N)],
            "person": rng.choice(people, N),
            "counter": np.arange(N) + 100,
            "account": rng.permutation(20_000)[:N] + 50_000,
        }
    )


@pytest.fixture(scope="module")
def model(frame: pd.DataFrame) -> Model:
    """Return a model of it."""
    return fit(frame)


NAMING = ["order", "plate", "hash", "serial", "note", "counter", "account"]


@pytest.mark.slow
def test_no_value_of_a_row_comes_back_and_none_comes_twice(model: Model, frame: pd.DataFrame) -> None:
    """In a hundred times as many rows as were fitted: strings and whole numbers that name the rows."""
    made = model.sample(100 * N, seed=1)
    for name in NAMING:
        assert made[name].is_unique, name
        assert not set(made[name]) & set(frame[name]), name


def test_a_string_of_few_rows_is_replaced_where_others_recur(frame: pd.DataFrame) -> None:
    """Names that fewer than five rows have do not come back; those of many do, as often as they should."""
    frame = pd.concat([frame, frame[:300].assign(person="Ann Lee"), frame[:8].assign(person="Bo Li")])
    model = fit(frame[["person", "year"]])
    counts = frame["person"].value_counts()
    rare = set(counts.index[counts < SMALLEST_GROUP])
    made = model.sample(20 * N)["person"]
    assert len(rare) > 500
    assert not rare & set(made)
    assert (made == "Ann Lee").mean() == pytest.approx(300 / len(frame), abs=0.02)
    assert made[made != "Ann Lee"].str.fullmatch(r"[A-Z][a-z]+ [A-Za-z]{2,}").mean() > 0.99


def test_no_rare_string_is_in_the_file(model: Model, frame: pd.DataFrame, tmp_path: Path) -> None:
    """Not in the lists of strings, and not as a part of a pattern."""
    with zipfile.ZipFile(model.save(tmp_path / "m.model")) as archive:
        stored = archive.read("model.json").decode()
    for name in ("order", "plate", "hash", "serial", "note", "person"):
        counts = frame[name].value_counts()
        assert not [string for string in counts.index[counts < SMALLEST_GROUP] if f'"{string}"' in stored]


def test_invented_strings_keep_pattern_and_what_they_share_with_other_columns(model: Model) -> None:
    """Year and region stand in the order number as in the columns beside it."""
    made = model.sample(1000)
    parts = made["order"].str.extract(r"^ORD-(\d{4})-([A-Z]+)-\d{7}$")
    assert (parts[0].astype(int) == made["year"]).all()
    assert (parts[1] == made["region"]).all()
    assert made["plate"].str.fullmatch(r"N[1-9]\d{3}(AA|DL|UA)").all()
    assert made["hash"].str.fullmatch("[0-9a-f]{12}").all()
    assert made["serial"].str.fullmatch(r"\d{6}").all()
    assert made["note"].str.fullmatch(r"[a-z]+( [a-z]+)*").mean() > 0.99
    assert made["account"].between(50_000, 70_000).all()
    assert (made["counter"].diff().dropna() == 1).all()


def test_invented_values_are_a_function_of_the_event_number(model: Model, tmp_path: Path) -> None:
    """Far away, cut anywhere, with the clock, and from a file: the same values; another seed has others."""
    whole = model.events(3 * BLOCK - 70, 3 * BLOCK + 50, seed=4).to_pylist()
    parts = [
        model.events(a, b, seed=4).to_pylist()
        for a, b in ((3 * BLOCK - 70, 3 * BLOCK - 1), (3 * BLOCK - 1, 3 * BLOCK + 50))
    ]
    assert parts[0] + parts[1] == whole
    again = load_model(model.save(tmp_path / "m.model"))
    assert again.events(3 * BLOCK - 70, 3 * BLOCK + 50, seed=4).to_pylist() == whole
    live = Sampler(model, 4, live=True).batch(10**12, 10**12 + 3, np.arange(3) + 10**15)
    assert live.column("order").to_pylist() == model.events(10**12, 10**12 + 3, seed=4)["order"].to_pylist()
    assert model.sample(5, seed=5)["hash"].tolist() != model.sample(5, seed=4)["hash"].tolist()


def test_identifiers_are_described_and_cannot_be_asked_for(model: Model, frame: pd.DataFrame) -> None:
    """An example in words; a condition is refused in a sentence."""
    assert re.search(r"plate: invented for each row, never twice, such as 'N\d{4}", str(model.describe()))
    for name in ("plate", "account"):
        with pytest.raises(RequestError, match=f"'{name}' is invented, since it names the rows"):
            model.sample(3, where={name: frame[name].iloc[0]})


def test_measurements_are_no_identifiers() -> None:
    """Whole numbers of a wide range have no two alike by chance; a counter and a dense key have by design."""
    rng = np.random.default_rng(1)
    wide = rng.normal(10**9, 10**8, 400).astype(np.int64)
    for numbers, names in ((wide, False), (np.arange(400), True), (rng.permutation(4000)[:400], True)):
        (values,) = read_columns(pd.DataFrame({"x": numbers}))
        assert (code_integers(values) is not None) == names
    repeated = np.append(np.arange(399), 7)
    assert code_integers(read_columns(pd.DataFrame({"x": repeated}))[0]) is None


@given(st.lists(words, min_size=1, max_size=300))
@settings(max_examples=80, deadline=None)
def test_no_column_gives_a_string_of_few_rows(strings: list[str]) -> None:
    """Whatever the strings: what is drawn of a column are strings of five rows or invented ones."""
    (values,) = read_columns(pd.DataFrame({"x": strings}))
    coded, categories, identifier = code_strings(values)
    rare = {string for string, count in Counter(strings).items() if count < SMALLEST_GROUP}
    (emission,) = coded.emissions
    if identifier is None:
        assert not rare & set(categories)
        assert len(set(categories)) == len(categories)
        kept = {string for string, count in Counter(strings).items() if count >= SMALLEST_GROUP + 9}
        assert kept <= set(categories)
        assert all(
            categories[emission.low[code]] == string
            for code, string in zip(coded.codes, strings, strict=True)
            if string in kept
        )
        return
    made = identifier.values(emission.low[np.resize(coded.codes, 3000)], np.arange(3000), 1)
    assert len(set(made.tolist())) == 3000
    assert not rare & set(made.tolist())


@pytest.mark.slow
@given(st.lists(words, min_size=100, max_size=250, unique=True), st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_unique_strings_stay_unique_without_end(strings: list[str], seed: int) -> None:
    """Patterns have no string in common, with each other or the real ones, also when they are used up."""
    patterns, codes = find_patterns(strings)
    identifier = Identifier("x", tuple(patterns), "#")
    rng = np.random.default_rng(seed)
    numbers = np.unique(np.concatenate([np.arange(2000), rng.integers(0, 2**53, 500)]))
    made = identifier.values(rng.choice(codes, len(numbers)), numbers, seed)
    assert len(set(made.tolist())) == len(numbers)
    assert not set(made.tolist()) & set(strings)


@given(st.integers(1, 5000), st.integers(0, 2**64 - 1), st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_every_combination_is_used_before_any_again(size: int, seed: int, modulus: int) -> None:
    """A pattern gives each of its strings once, then each with a counter behind it."""
    pattern = Pattern(("0123456789",) * 4, stop=size, modulus=modulus, residues=(0, modulus - 1)[:modulus])
    pattern = pattern if modulus > 1 else Pattern(("0123456789",) * 4, stop=size)
    identifier = Identifier("x", (pattern,), "-")
    numbers = np.arange(2 * pattern.capacity)
    made = identifier.values(np.zeros(len(numbers), np.int64), numbers, seed).tolist()
    first, second = made[: pattern.capacity], made[pattern.capacity :]
    assert len(set(first)) == pattern.capacity
    assert {string.removesuffix("-1") for string in second} == set(first)
    assert all(int(string) < size and int(string) % modulus in (0, modulus - 1) for string in first)


def test_public_names_are_kept(frame: pd.DataFrame) -> None:
    """A caller may say that the strings of a column are public, and is told if there is no such column."""
    made = fit(frame[["person", "year"]], public=["person"]).sample(20 * N)
    assert set(made["person"]) <= set(frame["person"])
    with pytest.raises(DataError, match="public: 'year' is no column of strings"):
        fit(frame[["person", "year"]], public=["year"])


def test_invented_strings_are_new_and_all_different() -> None:
    """Where there is no room for another string of the same length, it becomes longer."""
    strings = [f"{i:02d}" for i in range(95)]
    inventor = Inventor(strings)
    made = [inventor.like(string) for string in strings]
    assert len(set(made)) == len(made)
    assert not set(made) & set(strings)
    assert sum(len(string) == 2 for string in made) <= 5


def test_gaps_in_a_column_of_names_stay() -> None:
    """A missing value is no name, and comes as often as it did."""
    rng = np.random.default_rng(2)
    names = pd.Series(["".join(rng.choice(LETTERS, 7)).capitalize() for _ in range(N)]).mask(
        rng.random(N) < 0.1
    )
    made = fit(pd.DataFrame({"name": names, "x": rng.normal(size=N)})).sample(20_000)["name"]
    assert made.isna().mean() == pytest.approx(0.1, abs=0.02)
    assert made.dropna().is_unique
    assert made.dropna().str.fullmatch("[A-Z][a-z]{6}").all()

"""What a model must not disclose: combinations of a few rows, identifiers, copies."""

from __future__ import annotations

import io
import zipfile
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest

from logistream.fitting.coding import SMALLEST_GROUP
from logistream.fitting.fit import fit

if TYPE_CHECKING:
    from pathlib import Path

    from logistream.model.model import Model

pytestmark = pytest.mark.slow


def test_only_functional_dependencies_and_pairs_are_kept_of_few_rows(fitted: Model) -> None:
    """Of orders: what city lies in what state of what country, and what price a category has."""
    few = {f.name for f in fitted.factors if f.emissions and (f.totals < SMALLEST_GROUP).any()}
    assert few <= {"Order State", "Order City", "Product Price"}


def exact_codes(model: Model, frame: pd.DataFrame) -> np.ndarray:
    """Return the codes of a frame's rows in the order of drawing, where each stands for a single value."""
    codes = []
    for factor in model.factors:
        for emission in factor.emissions:
            if emission.high is None and emission.column in frame and emission.quantum is not None:
                strings = model.categories.get(emission.column)
                known = (
                    emission.low / emission.quantum[1] if strings is None else np.array(strings)[emission.low]
                )
                column = frame[emission.column].astype("str" if strings else "float64")
                codes.append(pd.Index(known).get_indexer(pd.Index(column)))
    return np.stack(codes, axis=1)


def runs_in(path: Path, runs: np.ndarray) -> int:
    """Return how many of these runs of whole numbers stand somewhere in the arrays of a model file."""
    wanted, length = {run.tobytes() for run in runs.astype(np.int64)}, runs.shape[1]
    found: set[bytes] = set()
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.endswith(".npy"):
                array = (
                    np.load(io.BytesIO(archive.read(name)), allow_pickle=False).astype(np.int64).reshape(-1)
                )
                if len(array) >= length:
                    windows = np.lib.stride_tricks.sliding_window_view(array, length)
                    found |= {window.tobytes() for window in windows}
    return len(wanted & found)


def test_the_file_holds_no_fitted_row(fitted: Model, orders: pd.DataFrame, tmp_path: Path) -> None:
    """Neither a row, as the codes of its columns, nor a column in the order of the rows, nor a position."""
    path = fitted.save(tmp_path / "m.model")
    rows = exact_codes(fitted, orders)
    assert (rows >= 0).all()
    varied = rows[:, rows.max(axis=0) > 0]
    columns = np.lib.stride_tricks.sliding_window_view(rows, 20, axis=0)[::20].reshape(-1, 20)
    columns = columns[np.ptp(columns, axis=1) > 2]
    assert varied.shape[1] >= 12
    assert runs_in(path, varied) == 0
    assert runs_in(path, columns) == 0
    with zipfile.ZipFile(path) as archive:
        text = archive.read("model.json").decode()
    for latitude, longitude in zip(orders["Latitude"], orders["Longitude"], strict=True):
        assert f"{latitude!r},{longitude!r}" not in text
    with zipfile.ZipFile(path, "a") as archive:  # what it looks for is found where it is
        for name, array in (("row", varied[7]), ("column", rows[400:500, 9])):
            data = io.BytesIO()
            np.save(data, array)
            archive.writestr(f"arrays/{name}.npy", data.getvalue())
    assert runs_in(path, varied) >= 1
    assert runs_in(path, columns) >= 1


def test_a_combination_of_few_rows_is_as_likely_as_one_of_none() -> None:
    """Of three associated columns only the pairs that occur are kept."""
    rng = np.random.default_rng(0)
    n, m = 3000, 24
    a, b, c = rng.integers(0, m, (3, 20 * n))
    valid = ((a - b) % m < m // 2) & ((a - c) % m < m // 2) & ((b + c) % m < m // 2)
    frame = pd.DataFrame({"a": a[valid], "b": b[valid], "c": c[valid]}).iloc[:n].astype("str")
    model = fit(frame)
    factor = next(f for f in model.factors if f.emissions and len(f.parents) == 2)
    seen = Counter(map(tuple, frame[list(factor.parents)].to_numpy()))
    lists = {name: dict(enumerate(strings)) for name, strings in model.categories.items()}
    partners = {parent: frame.groupby(parent)[factor.name].agg(set).to_dict() for parent in factor.parents}
    rare = 0
    for cell, number in enumerate(factor.distribution_of):
        codes = np.unravel_index(cell, factor.shape)
        values = [lists[parent][int(code)] for parent, code in zip(factor.parents, codes, strict=True)]
        inside = {
            lists[factor.name][code] for code in factor.codes[slice(*factor.offsets[number : number + 2])]
        }
        if seen[tuple(values)] < SMALLEST_GROUP:
            rare += 1
            one, other = (partners[name][value] for name, value in zip(factor.parents, values, strict=True))
            assert inside == one & other or not one & other
    assert rare > 50


def test_a_rare_combination_of_orders_comes_no_more_often_than_one_never_seen(orders: pd.DataFrame) -> None:
    """Who bought what, where and how: combinations of one fitted order beside those of one kept out."""
    rows = orders.sample(len(orders), random_state=0)
    train, held = rows.iloc[len(rows) // 3 :], rows.iloc[: len(rows) // 3]
    made = fit(train).sample(50_000, seed=3)
    for columns in (
        ["Customer City", "Product Category Id", "Order Region"],
        ["Customer City", "Type", "Order Item Quantity", "Market"],
        ["Order Country", "Product Price", "Shipping Mode", "Order Item Discount Rate"],
    ):
        known, others, drawn = (Counter(map(tuple, f[columns].to_numpy())) for f in (train, held, made))
        once = [combination for combination, count in known.items() if count == 1]
        values = [set(train[name]) for name in columns]
        new = [
            combination
            for combination in others
            if combination not in known
            and all(value in of for value, of in zip(combination, values, strict=True))
        ]
        ours, theirs = (np.mean([each in drawn for each in group]) for group in (once, new))
        assert ours < 1.25 * theirs + 0.03, (columns, ours, theirs)


@pytest.mark.timeout(300)  # it takes a few seconds
def test_copied_rows_are_no_evidence(orders: pd.DataFrame, fitted: Model) -> None:
    """Rows drawn again and again from fewer: the same structure as those, found in time, and no copy."""
    again = orders.sample(40_000, replace=True, random_state=0)
    model = fit(again)
    assert model.rows == 40_000
    assert len(model.factors) < 40
    found, plain = ({f.name: f.parents for f in made.factors} for made in (model, fitted))
    assert sum(plain.get(name) == parents for name, parents in found.items()) > 0.8 * len(plain)
    made = model.sample(5000)
    assert not set(map(tuple, made.astype(str).to_numpy())) & set(map(tuple, orders.astype(str).to_numpy()))
    share = again["Market"].value_counts(normalize=True)
    assert (made["Market"].value_counts(normalize=True) - share).abs().max() < 0.03

"""Classes of the values of a category: near-certain pairs of many values stay."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from logistream.fitting.classes import find_classes
from logistream.fitting.coding import Coded
from logistream.fitting.fit import fit

ROWS, CHAPTERS, EACH = 6_000, 10, 30


def diagnoses(seed: int = 0) -> pd.DataFrame:
    """Return three diagnoses: each of a chapter, and mostly of the chapter of the one before, or its next."""
    rng = np.random.default_rng(seed)
    chapters = [rng.integers(0, CHAPTERS, ROWS)]
    for _ in range(2):
        stays = rng.random(ROWS) < 0.9
        chapters.append(
            np.where(
                stays, (chapters[-1] + rng.integers(0, 2, ROWS)) % CHAPTERS, rng.integers(0, CHAPTERS, ROWS)
            )
        )
    rank = np.minimum(rng.geometric(0.12, (3, ROWS)) - 1, EACH - 1)
    return pd.DataFrame(
        {
            f"diagnosis {i}": [f"{c}.{r:02d}" for c, r in zip(chapter, rank[i], strict=True)]
            for i, chapter in enumerate(chapters)
        }
    )


def kept(frame: pd.DataFrame) -> list[float]:
    """Return in how many rows a diagnosis is of the chapter of the one before, or its next."""
    chapter = frame.apply(lambda column: column.str[0].astype(int))
    steps = [(chapter[f"diagnosis {i + 1}"] - chapter[f"diagnosis {i}"]) % CHAPTERS for i in range(2)]
    return [float((step <= 1).mean()) for step in steps]


@pytest.mark.slow
def test_codes_that_depend_on_each_other_stay_together() -> None:
    """Of 300 rare codes, nine of ten are of the right chapter; of independent columns two would be."""
    frame = diagnoses()
    frame = frame[(frame.apply(lambda column: column.map(column.value_counts())) >= 5).all(axis=1)]
    drawn = fit(frame).sample(ROWS)
    for real, made in zip(kept(frame), kept(drawn), strict=True):
        assert real > 0.9
        assert made > real - 0.1


@pytest.mark.slow
def test_rare_pairs_are_not_copied() -> None:
    """Pairs of codes of a single row come back about as often as pairs of rows that were not fitted."""
    frame, held = diagnoses(), diagnoses(1)
    columns = ["diagnosis 0", "diagnosis 1"]
    drawn = set(map(tuple, fit(frame).sample(2 * ROWS)[columns].to_numpy()))
    fitted, others = frame.value_counts(columns), held.value_counts(columns)
    single = [pair in drawn for pair in fitted.index[fitted == 1].difference(others.index)]
    unseen = [pair in drawn for pair in others.index[others == 1].difference(fitted.index)]
    assert min(len(single), len(unseen)) > 300
    assert np.mean(single) < np.mean(unseen) + 0.1


def coded(name: str, codes: np.ndarray) -> Coded:
    return Coded(name, codes, int(codes.max()) + 1, False, ())


def test_independent_columns_have_no_classes() -> None:
    """Of many values that depend on nothing none are alike."""
    rng = np.random.default_rng(2)
    table = {name: coded(name, rng.integers(0, 300, ROWS)) for name in "abc"}
    assert find_classes(table, table) == {}


def test_classes_are_those_that_the_values_come_from() -> None:
    """Values of the same chapter share a class, as far as they are common."""
    frame = diagnoses()
    table = {name: coded(name, pd.factorize(frame[name])[0]) for name in map(str, frame)}
    classes = find_classes(table, ["diagnosis 1"])["diagnosis 1"]
    chapter = frame["diagnosis 1"].str[0]
    purity = pd.crosstab(classes.codes, chapter).max(axis=1).sum() / ROWS
    assert purity > 0.95
    assert find_classes(table, []) == {}

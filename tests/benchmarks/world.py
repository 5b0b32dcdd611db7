"""Measure models of the tables by which generators are compared in the literature.

A folder holds a folder for each table, such as Adult, Magic and Shoppers of the UCI repository, with
`train.parquet`, `test.parquet` and `info.json`, which names the column to predict by its position
(`target_col_idx`). Each table is fitted with no option set. A line for each gives

- the seconds of the fit;
- C2ST: the AUC of a classifier with default settings (XGBoost if it is installed, else scikit-learn's
  boosting), three shuffled folds, synthetic rows as many as real ones, beside all fitted rows and beside all
  unseen ones; the latter is a mean over up to eight draws, since a thousand rows alone give or take .02;
- the AUC of predicting the target of unseen rows, learned from synthetic rows (a mean over five draws), from
  the fitted ones, and from the fitted ones with the target redrawn: drawn from the probabilities that boosted
  trees, fitted to the other rows, give it. A generator that knows the target no better than boosted trees do
  can be expected to reach no more than that, even if all other columns were real;
- what attacks find (`logistream.evaluation.attack`): the highest AUC, and the highest share of fitted rows
  found at 1 % false alarms, given as many synthetic rows as were fitted and ten times as many.

A single split of a small table scatters by more than generators differ. `--splits N` prints instead, as means
over N random splits of all rows with their standard errors, what a predictor loses if it learns from other
rows than the fitted ones: half of them, as many drawn from them with replacement, those with the target
redrawn, those five times with the target redrawn each time, and synthetic rows, as many and five times as
many.

Run: python tests/benchmarks/world.py [FOLDER] [--tables adult magic] [--splits N]
     (FOLDER may be named by LOGISTREAM_BENCH instead)
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from logistream.evaluation.attack import membership_inference
from logistream.evaluation.classifiers import transfer_auc, two_sample_auc
from logistream.evaluation.numeric import numeric_tables
from logistream.fitting.fit import fit

if TYPE_CHECKING:
    from collections.abc import Callable

    from logistream.evaluation.numeric import NumericTable

ATTACKED = 1_000  # fitted rows, and as many unseen ones
REFERENCE = 5_000  # other unseen rows that the attacker has
DRAWS = 5  # of synthetic rows to learn from,
UNSEEN_DRAWS = 8  # and to compare with unseen rows
FOLDS = 5  # of the rows from which the target is redrawn
HEADS = (
    *("fit s", "fitted", "unseen", "synth", "real", "redrawn"),
    *("AUC 1x", "found %", "AUC 10x", "found %", "total s"),
)
LOST = ("real", "half", "resampled", "redrawn", "redrawn 5x", "synth", "synth 5x")


def judge() -> tuple[str, Callable[[], Any] | None]:
    """Return the name and the maker of the classifier of the two-sample test; None is scikit-learn's."""
    if find_spec("xgboost") is None:
        return "scikit-learn's boosting", None
    classifier = import_module("xgboost").XGBClassifier
    return "XGBoost", lambda: classifier(n_jobs=1)


def redrawn(table: NumericTable, target: str, likely: np.ndarray, seed: int) -> NumericTable:
    """Return rows with their target drawn from these probabilities of its higher value."""
    place = table.schema.names.index(target)
    matrix = table.matrix.copy()
    drawn = np.random.default_rng(seed).random(len(likely)) < likely
    matrix[:, place] = np.where(drawn, matrix[:, place].max(), matrix[:, place].min())
    return replace(table, matrix=matrix)


def probabilities(table: NumericTable, target: str) -> np.ndarray:
    """Return the probability of the higher value of the target in each row, learned from other rows."""
    place = table.schema.names.index(target)
    labels = table.matrix[:, place]
    likely: np.ndarray = cross_val_predict(
        HistGradientBoostingClassifier(random_state=0, early_stopping=False),
        np.delete(table.matrix, place, axis=1),
        labels == labels.max(),
        cv=StratifiedKFold(FOLDS, shuffle=True, random_state=0),
        method="predict_proba",
    )[:, 1]
    return likely


def tables_of(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Return the rows to fit, the unseen ones, and the name of the column to predict."""
    train, test = (pd.read_parquet(folder / f"{part}.parquet") for part in ("train", "test"))
    info = json.loads((folder / "info.json").read_text("utf-8"))
    return train, test, str(train.columns[info["target_col_idx"][0]])


def lost(folder: Path, seed: int) -> list[float]:
    """Return what a predictor loses of its AUC on one random split, as in `LOST`; the AUC comes first."""
    train, test, target = tables_of(folder)
    rng = np.random.default_rng(seed)
    every = pd.concat([train, test], ignore_index=True)
    every = every.iloc[rng.permutation(len(every))].reset_index(drop=True)
    model = fit(every[: len(train)])
    n = len(train)
    fitted, unseen, made = numeric_tables(model.schema, [every[:n], every[n:], model.sample(DRAWS * n)])
    predictors = [name for name in model.schema.names if name != target]

    def auc(*learned: NumericTable) -> float:
        return float(np.mean([transfer_auc(rows, unseen, target, predictors) for rows in learned]))

    likely, often = probabilities(fitted, target), np.tile(np.arange(n), DRAWS)
    real = auc(fitted)
    others = [
        auc(*(fitted.take(rng.permutation(n)[: n // 2]) for _ in range(DRAWS))),
        auc(*(fitted.take(rng.integers(0, n, n)) for _ in range(DRAWS))),
        auc(*(redrawn(fitted, target, likely, i) for i in range(DRAWS))),
        auc(redrawn(fitted.take(often), target, likely[often], 0)),
        auc(*(made.take(slice(i * n, (i + 1) * n)) for i in range(DRAWS))),
        auc(made),
    ]
    return [real, *(other - real for other in others)]


def measure(folder: Path, classifier: Callable[[], Any] | None) -> list[float]:
    """Return the figures of one table, as in `HEADS`."""
    begun = time.perf_counter()
    train, test, target = tables_of(folder)
    started = time.perf_counter()
    model = fit(train)
    seconds = time.perf_counter() - started
    fitted, unseen, made = numeric_tables(model.schema, [train, test, model.sample(10 * len(train))])
    once = made.take(slice(len(train)))
    rng = np.random.default_rng(0)
    unseen = unseen.take(rng.permutation(len(unseen)))
    predictors = [name for name in model.schema.names if name != target]
    size = min(ATTACKED, len(unseen) // 2)
    learned = [made.take(slice(i * len(train), (i + 1) * len(train))) for i in range(DRAWS)]
    likely = probabilities(fitted, target)
    draws = min(len(made) // len(unseen), UNSEEN_DRAWS)
    beside = [made.take(slice(i * len(unseen), (i + 1) * len(unseen))) for i in range(draws)]
    attacks = [
        membership_inference(
            fitted.take(rng.permutation(len(fitted))[:size]),
            unseen.take(slice(size)),
            unseen.take(slice(size, size + REFERENCE)),
            rows,
        ).max()
        for rows in (once, made)
    ]
    return [
        seconds,
        two_sample_auc(fitted, once, classifier=classifier),
        np.mean([two_sample_auc(unseen, rows, classifier=classifier) for rows in beside]),
        np.mean([transfer_auc(rows, unseen, target, predictors) for rows in learned]),
        transfer_auc(fitted, unseen, target, predictors),
        np.mean(
            [
                transfer_auc(redrawn(fitted, target, likely, i), unseen, target, predictors)
                for i in range(DRAWS)
            ]
        ),
        *(figure for attack in attacks for figure in (attack["auc"], 100 * attack["found"])),
        time.perf_counter() - begun,
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", default=os.environ.get("LOGISTREAM_BENCH"), metavar="FOLDER")
    parser.add_argument("--tables", nargs="*", metavar="TABLE", help="only these (default: all)")
    parser.add_argument(
        "--splits", type=int, metavar="N", help="what a predictor loses, over N splits (default: the table)"
    )
    options = parser.parse_args()
    if options.folder is None:
        parser.error("name the folder that holds the tables, here or by LOGISTREAM_BENCH")
    folders = [
        path.parent
        for path in sorted(Path(options.folder).glob("*/info.json"))
        if not options.tables or path.parent.name in options.tables
    ]
    if options.splits:
        print(f"{'':12}" + "".join(f"{head:>18}" for head in LOST), flush=True)
        for folder in folders:
            figures = np.array([lost(folder, seed) for seed in range(options.splits)])
            scatter = figures.std(axis=0, ddof=1) if len(figures) > 1 else np.full(len(LOST), np.nan)
            error = scatter / np.sqrt(len(figures))
            parts = [f"{mean:+.4f} +-{e:.4f}" for mean, e in zip(figures.mean(axis=0), error, strict=True)]
            print(f"{folder.name:12}" + "".join(f"{part:>18}" for part in parts), flush=True)
        return
    name, classifier = judge()
    print(f"C2ST by {name}")
    print(f"{'':12}{'':>9}{'C2ST':>18}{'predicting':>27}{'attacks':>36}")
    print(f"{'':12}" + "".join(f"{head:>9}" for head in HEADS), flush=True)
    for folder in folders:
        figures = np.array(measure(folder, classifier))
        print(f"{folder.name:12}" + "".join(f"{figure:9.3f}" for figure in figures), flush=True)


if __name__ == "__main__":
    main()

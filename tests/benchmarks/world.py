"""Measure models of the tables by which generators are compared in the literature.

A folder holds a folder for each table, such as Adult, Magic and Shoppers of the UCI repository, with
`train.parquet`, `test.parquet` and `info.json`, which names the column to predict by its position
(`target_col_idx`). Each table is fitted with no option set. A line for each gives

- the seconds of the fit;
- C2ST: the AUC of a classifier with default settings (XGBoost if it is installed, else scikit-learn's
  boosting), three shuffled folds, synthetic rows as many as real ones, beside all fitted rows and beside all
  unseen ones; the latter is a mean over up to eight draws, since a thousand rows alone give or take .02;
- the AUC of predicting the target of unseen rows, learned from synthetic rows (a mean over five draws), from
  the fitted ones, and from the fitted ones with the target drawn anew from what the predictor itself says:
  no model that knows the target no better than the predictor can be expected to reach more than that;
- what attacks find (`logistream.evaluation.attack`): the highest AUC, and the highest share of fitted rows
  found at 1 % false alarms, given as many synthetic rows as were fitted and ten times as many.

Run: python tests/benchmarks/world.py [FOLDER] [--tables adult magic]
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
HEADS = (
    *("fit s", "fitted", "unseen", "synth", "real", "redrawn"),
    *("AUC 1x", "found %", "AUC 10x", "found %", "total s"),
)


def judge() -> tuple[str, Callable[[], Any] | None]:
    """Return the name and the maker of the classifier of the two-sample test; None is scikit-learn's."""
    if find_spec("xgboost") is None:
        return "scikit-learn's boosting", None
    classifier = import_module("xgboost").XGBClassifier
    return "XGBoost", lambda: classifier(n_jobs=1)


def redrawn(table: NumericTable, target: str, seed: int) -> NumericTable:
    """Return rows with their target drawn from the probabilities of a classifier that has learned it."""
    place = table.schema.names.index(target)
    predictors = np.delete(table.matrix, place, axis=1)
    learned = HistGradientBoostingClassifier(random_state=0).fit(predictors, table.matrix[:, place])
    likely = learned.predict_proba(predictors)[:, 1]
    matrix = table.matrix.copy()
    drawn = np.random.default_rng(seed).random(len(likely)) < likely
    matrix[:, place] = learned.classes_[drawn.astype(np.int64)]
    return replace(table, matrix=matrix)


def measure(folder: Path, classifier: Callable[[], Any] | None) -> list[float]:
    """Return the figures of one table, as in `HEADS`."""
    begun = time.perf_counter()
    train, test = (pd.read_parquet(folder / f"{part}.parquet") for part in ("train", "test"))
    info = json.loads((folder / "info.json").read_text("utf-8"))
    target = str(train.columns[info["target_col_idx"][0]])
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
        np.mean([transfer_auc(redrawn(fitted, target, i), unseen, target, predictors) for i in range(DRAWS)]),
        *(figure for attack in attacks for figure in (attack["auc"], 100 * attack["found"])),
        time.perf_counter() - begun,
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", nargs="?", default=os.environ.get("LOGISTREAM_BENCH"), metavar="FOLDER")
    parser.add_argument("--tables", nargs="*", metavar="TABLE", help="only these (default: all)")
    options = parser.parse_args()
    if options.folder is None:
        parser.error("name the folder that holds the tables, here or by LOGISTREAM_BENCH")
    folders = sorted(path.parent for path in Path(options.folder).glob("*/info.json"))
    name, classifier = judge()
    print(f"C2ST by {name}")
    print(f"{'':12}{'':>9}{'C2ST':>18}{'predicting':>27}{'attacks':>36}")
    print(f"{'':12}" + "".join(f"{head:>9}" for head in HEADS), flush=True)
    for folder in folders:
        if not options.tables or folder.name in options.tables:
            figures = measure(folder, classifier)
            print(f"{folder.name:12}" + "".join(f"{figure:9.3f}" for figure in figures), flush=True)


if __name__ == "__main__":
    main()

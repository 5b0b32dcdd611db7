"""Classifiers as judges of rows: whether they can be told from real ones, and what can be learned from them.

Both judges are scikit-learn's gradient-boosted trees, an optional dependency. What they are shown depends on
the rows alone, not on the order in which they stand or came.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from logistream.errors import MissingPackageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from logistream.measures import Table

__all__ = ["transfer_auc", "two_sample_auc"]

_FOLDS = 5


def two_sample_auc(real: Table, other: Table, seed: int = 0) -> float:
    """Return how well a classifier tells the two apart on rows it has not seen (C2ST).

    Gradient-boosted trees, five folds, the area under the ROC curve of all out-of-fold probabilities: 0.5
    if the two cannot be told apart, 1 if always. NaN for fewer rows than folds.

    Raises
    ------
    MissingPackageError
        If scikit-learn is not installed.
    """
    with _boosting() as (classifier, selection, metrics):
        label = np.repeat([1, 0], [len(real), len(other)])
        if min(len(real), len(other)) < _FOLDS:
            return np.nan
        both = np.concatenate([real.matrix, other.matrix])
        features = _by_frequency(both, both, real.discrete)
        # in an order of the rows' own, so that the folds depend on nothing else
        order = np.lexsort([label, *features.T])
        folds = selection.StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
        chances = selection.cross_val_predict(
            classifier(random_state=seed, early_stopping=False),
            features[order],
            label[order],
            cv=folds,
            method="predict_proba",
        )
        return float(metrics.roc_auc_score(label[order], chances[:, 1]))


def transfer_auc(
    learned: Table, tested: Table, target: str, predictors: Sequence[str], seed: int = 0
) -> float:
    """Return how well a classifier that has learned `target` on one table foretells it on another.

    Parameters
    ----------
    learned, tested : Table
        Where it learns, and the real rows that it is judged on; rows without a target are left out.
    target : str
        A column with two values in `tested`.
    predictors : sequence of str
        Columns that it may use.

    Returns
    -------
    float
        Area under the ROC curve; NaN if one of the two values is absent from either table.
    """
    columns = [tested.schema.names.index(name) for name in predictors]
    y, z = (table.matrix[:, table.schema.names.index(target)] for table in (learned, tested))
    high = np.nanmax(z)
    if len(np.unique(z[~np.isnan(z)])) != 2 or len(np.unique(y[~np.isnan(y)] == high)) != 2:
        return np.nan
    with _boosting() as (classifier, _, metrics):
        judge = tested.matrix[:, columns]
        both = np.concatenate([learned.matrix[:, columns], judge])
        features = _by_frequency(both, judge, tested.discrete[columns])
        given, asked = features[: len(learned)], features[len(learned) :]
        order = np.lexsort([y, *given.T])
        order = order[~np.isnan(y[order])]
        fitted = classifier(random_state=seed, early_stopping=False).fit(given[order], y[order] == high)
        known = ~np.isnan(z)
        return float(metrics.roc_auc_score(z[known] == high, fitted.predict_proba(asked[known])[:, 1]))


def _by_frequency(values: np.ndarray, of: np.ndarray, discrete: np.ndarray) -> np.ndarray:
    """Return values with codes of texts replaced by their rank in `of`, the most frequent first.

    Trees cut between neighbours: so rare texts lie together. Equally frequent ones are ordered by text.
    Missing becomes a number below all others, which a tree can cut off as well.
    """
    ranked = values.copy()
    for i in range(values.shape[1]):
        column = values[:, i]
        known = ~np.isnan(column)
        if discrete[i]:
            seen = of[~np.isnan(of[:, i]), i].astype(np.int64)
            size = int(max(column[known].max(initial=0), seen.max(initial=0))) + 1
            rank = np.empty(size)
            rank[np.argsort(-np.bincount(seen, minlength=size), kind="stable")] = np.arange(size)
            ranked[known, i] = rank[column[known].astype(np.int64)]
        ranked[~known, i] = ranked[known, i].min(initial=0.0) - 1
    return ranked


@contextmanager
def _boosting() -> Iterator[tuple[Any, Any, Any]]:
    """Give scikit-learn's boosted trees, its model selection and its metrics, on one thread.

    On a few thousand rows more threads only wait for each other, and on shared cores for very long.
    """
    try:
        from sklearn import metrics, model_selection
        from sklearn.ensemble import HistGradientBoostingClassifier
        from threadpoolctl import threadpool_limits
    except ImportError as exc:
        raise MissingPackageError("the report", "scikit-learn", "report") from exc
    with threadpool_limits(1, "openmp"):
        yield HistGradientBoostingClassifier, model_selection, metrics

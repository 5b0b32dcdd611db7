"""Classifiers as judges: how well they distinguish rows from real ones, and what they learn from rows.

They are gradient-boosted trees of scikit-learn, an optional dependency. Their figures depend on the rows
alone, not on their order.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from logistream.errors import MissingPackageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from logistream.evaluation.numeric import NumericTable

__all__ = ["transfer_auc", "two_sample_auc"]


_FOLDS = 3
_BINS = 254  # of a column; scikit-learn's boosting takes 255
_REPEATED = 100  # values of a column that have a bin of their own


def two_sample_auc(
    real: NumericTable,
    other: NumericTable,
    seed: int = 0,
    *,
    classifier: Callable[[], Any] | None = None,
) -> float:
    """Return how well a classifier distinguishes the two on rows that it has not seen (C2ST).

    Gradient-boosted trees with their default settings, three shuffled folds. The figure is the area under the
    ROC curve of all out-of-fold probabilities: 0.5 if the two cannot be distinguished, 1 if always.

    The values of a column that are repeated most have bins of their own. Quantile bins alone hide whether
    0.2 came back as exactly 0.2: on a table with such values they reached 0.63, these bins 0.74, XGBoost with
    its default settings 0.71 and without bins 0.75.

    Parameters
    ----------
    real, other : NumericTable
        The two kinds of rows, best equally many.
    seed : int
        For the folds and the classifier.
    classifier : callable, optional
        Makes another classifier with the interface of scikit-learn, such as `xgboost.XGBClassifier`. It gets
        the values themselves, and strings by their rank, without bins.

    Returns
    -------
    float
        NaN for fewer rows than folds.

    Raises
    ------
    MissingPackageError
        If scikit-learn is not installed.
    """
    with _scikit_learn() as (boosting, selection, metrics):
        label = np.repeat([1, 0], [len(real), len(other)])
        if min(len(real), len(other)) < _FOLDS:
            return np.nan
        both = np.concatenate([real.matrix, other.matrix])
        features = _by_frequency(both, both, real.discrete)
        order = np.lexsort([label, *both.T])  # so that the folds do not depend on the order of the rows
        if classifier is None:
            features, judge = _binned(features), boosting(random_state=seed, early_stopping=False)
        else:
            judge = classifier()
        probabilities = selection.cross_val_predict(
            judge,
            features[order],
            label[order],
            cv=selection.StratifiedKFold(_FOLDS, shuffle=True, random_state=seed),
            method="predict_proba",
        )
        return float(metrics.roc_auc_score(label[order], probabilities[:, 1]))


def transfer_auc(
    learned: NumericTable, tested: NumericTable, target: str, predictors: Sequence[str], seed: int = 0
) -> float:
    """Return how well a classifier that has learned `target` on one table predicts it on another.

    Parameters
    ----------
    learned, tested : NumericTable
        Where it learns, and the real rows that it is judged on; rows without a target are left out.
    target : str
        A column with two values in `tested`.
    predictors : sequence of str
        Columns that it may use.
    seed : int
        For the classifier.

    Returns
    -------
    float
        Area under the ROC curve; NaN if one of the two values is absent from either table.

    Raises
    ------
    MissingPackageError
        If scikit-learn is not installed.
    """
    columns = [tested.schema.names.index(name) for name in predictors]
    y, z = (table.matrix[:, table.schema.names.index(target)] for table in (learned, tested))
    high = np.nanmax(z)
    if len(np.unique(z[~np.isnan(z)])) != 2 or len(np.unique(y[~np.isnan(y)] == high)) != 2:
        return np.nan
    with _scikit_learn() as (boosting, _, metrics):
        judged = tested.matrix[:, columns]
        both = np.concatenate([learned.matrix[:, columns], judged])
        features = _by_frequency(both, judged, tested.discrete[columns])
        training, test = features[: len(learned)], features[len(learned) :]
        order = np.lexsort([y, *training.T])
        order = order[~np.isnan(y[order])]
        fitted = boosting(random_state=seed, early_stopping=False).fit(training[order], y[order] == high)
        known = ~np.isnan(z)
        return float(metrics.roc_auc_score(z[known] == high, fitted.predict_proba(test[known])[:, 1]))


def _by_frequency(values: np.ndarray, reference: np.ndarray, discrete: np.ndarray) -> np.ndarray:
    """Return values with codes of strings replaced by their rank in `reference`, the most frequent first.

    Trees cut between neighbours, so rare strings lie together. Equally frequent ones are ordered by string.
    Missing becomes a number below all others, which a tree can cut off as well.
    """
    ranked = values.copy()
    for i in range(values.shape[1]):
        column = values[:, i]
        known = ~np.isnan(column)
        if discrete[i]:
            seen = reference[~np.isnan(reference[:, i]), i].astype(np.int64)
            size = int(max(column[known].max(initial=0), seen.max(initial=0))) + 1
            rank = np.empty(size)
            rank[np.argsort(-np.bincount(seen, minlength=size), kind="stable")] = np.arange(size)
            ranked[known, i] = rank[column[known].astype(np.int64)]
        ranked[~known, i] = ranked[known, i].min(initial=0.0) - 1
    return ranked


def _binned(values: np.ndarray) -> np.ndarray:
    """Return each column as at most 254 ordered codes: the most repeated values, quantiles between them."""
    codes = np.empty_like(values)
    for i, column in enumerate(values.T):
        distinct, code, count = np.unique(column, return_inverse=True, return_counts=True)
        if len(distinct) > _BINS:
            frequent = np.argsort(-count, kind="stable")[:_REPEATED]
            frequent = frequent[count[frequent] > 1]
            edges = np.unique([frequent, frequent + 1])  # positions in `distinct` at which a bin begins
            shares = np.arange(1, _BINS - len(edges)) / (_BINS - len(edges))
            quantiles = np.searchsorted(np.cumsum(count), shares * len(column))
            code = np.searchsorted(np.union1d(edges, quantiles), code, side="right")
        codes[:, i] = code
    return codes


@contextmanager
def _scikit_learn() -> Iterator[tuple[Any, Any, Any]]:
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

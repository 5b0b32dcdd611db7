"""How alike two sets of rows are: pure functions of tables of numbers.

`encode` turns frames of one schema into tables of numbers that share their codes; every measure takes such
tables and none depends on the order of the rows. Shapes and pairs follow the definitions of SDMetrics, with
two additions: missing is a value like any other, and a column that became constant counts as uncorrelated.

Classifiers as judges of rows: whether they can be told from real ones, and what can be learned from them.

Both judges are scikit-learn's gradient-boosted trees, an optional dependency. What they are shown depends on
the rows alone, not on the order in which they stand or came.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from logistream.errors import DataError, MissingPackageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from logistream.schema import Column, Schema

__all__ = [
    "Table",
    "column_pairs",
    "column_shapes",
    "copied",
    "encode",
    "nearest_balance",
    "transfer_auc",
    "two_sample_auc",
]


_BINS = 10  # of a number beside a category, as in SDMetrics
_MAX_PAIRS = 2_000  # of a wide table's pairs, so many are drawn
_CELLS = 4_000_000  # distances held at once


@dataclass(frozen=True, eq=False)
class Table:
    """Rows of one schema as numbers.

    Parameters
    ----------
    schema : Schema
        The columns.
    frame : DataFrame of shape (n_rows, n_columns)
        The rows as they came, in the order of the schema.
    matrix : ndarray of float64 of shape (n_rows, n_columns)
        Texts as positions in the sorted list of all texts, booleans as 0 and 1, instants in microseconds
        since 1970, missing as NaN.
    """

    schema: Schema
    frame: pd.DataFrame
    matrix: np.ndarray

    def __len__(self) -> int:
        return len(self.matrix)

    @property
    def discrete(self) -> np.ndarray:
        """Which columns are texts or booleans, bool of shape (n_columns,)."""
        return np.array([column.kind in ("category", "boolean") for column in self.schema])

    def take(self, rows: np.ndarray) -> Table:
        """Return the rows with these positions, in that order."""
        return Table(self.schema, self.frame.iloc[rows], self.matrix[rows])

    def joined(self, more: Table) -> Table:
        """Return these rows and then those of another table with the same codes."""
        frames = [part.frame.astype(_as_text(part.frame)) for part in (self, more)]
        return Table(self.schema, pd.concat(frames), np.concatenate([self.matrix, more.matrix]))


def encode(schema: Schema, frames: Sequence[pd.DataFrame]) -> list[Table]:
    """Return frames as tables with common codes, which depend on the texts alone.

    Raises
    ------
    DataError
        If a frame lacks a column, or holds values that do not fit its kind.
    """
    for frame in frames:
        twice = frame.columns[frame.columns.duplicated()]
        if len(twice):
            raise DataError(f"column {twice[0]!r} occurs more than once: give each column a name of its own")
        missing = [name for name in schema.names if name not in frame.columns]
        if missing:
            raise DataError(
                f"the rows to compare lack {len(missing)} of the model's {len(schema)} columns: "
                f"{', '.join(missing)}; give rows of the table that was fitted"
            )
    matrices = [np.empty((len(frame), len(schema))) for frame in frames]
    for i, column in enumerate(schema):
        series = [frame[column.name] for frame in frames]
        category = column.kind == "category"
        parts = _codes(series) if category else [_numbers(values, column) for values in series]
        for matrix, part in zip(matrices, parts, strict=True):
            matrix[:, i] = part + 0.0  # no negative zero, which would make equal rows differ
    names = list(schema.names)
    return [Table(schema, frame[names], matrix) for frame, matrix in zip(frames, matrices, strict=True)]


def _as_text(frame: pd.DataFrame) -> dict[str, str]:
    """Return the dtypes that make categories texts: the sets of two frames need not be the same."""
    return {
        str(name): "str" for name, dtype in frame.dtypes.items() if isinstance(dtype, pd.CategoricalDtype)
    }


def _numbers(values: pd.Series, column: Column) -> np.ndarray:
    """Return one column that is no category as float64."""
    try:
        if column.kind == "timestamp":
            moments = pd.to_datetime(values, utc=True).astype("datetime64[us, UTC]")
            instants: np.ndarray = moments.astype("int64").to_numpy().astype(np.float64)
            instants[values.isna().to_numpy()] = np.nan
            return instants
        numbers: np.ndarray = values.astype("Float64").to_numpy(dtype=np.float64, na_value=np.nan)
    except (ValueError, TypeError) as exc:
        raise DataError(
            f"column {column.name!r} of the rows to compare should hold values of kind {column.kind}, "
            f"as when it was fitted: {str(exc).splitlines()[0]}"
        ) from exc
    if np.isinf(numbers).any():
        raise DataError(f"column {column.name!r} of the rows to compare holds infinite numbers: drop them")
    return numbers


def _codes(parts: Sequence[pd.Series]) -> list[np.ndarray]:
    """Return texts as positions in the sorted list of all of them."""
    found = [pd.factorize(part) for part in parts]  # -1 where missing
    texts = [[str(value) for value in values] for _, values in found]
    place = {text: float(i) for i, text in enumerate(sorted({text for part in texts for text in part}))}
    places = [np.array([*(place[text] for text in part), np.nan]) for part in texts]
    return [known[codes] for (codes, _), known in zip(found, places, strict=True)]


def column_shapes(real: Table, other: Table) -> np.ndarray:
    """Return how alike each column is: 1 is the same distribution, 0 nothing in common.

    Texts and booleans: 1 less the total variation distance. Numbers and instants: 1 less the
    Kolmogorov-Smirnov distance.

    Returns
    -------
    ndarray of shape (n_columns,)
    """
    scores = [
        _total_variation(a, b) if discrete else _kolmogorov(a, b)
        for a, b, discrete in zip(real.matrix.T, other.matrix.T, real.discrete, strict=True)
    ]
    return np.array([1 - score for score in scores])


def _total_variation(a: np.ndarray, b: np.ndarray) -> float:
    keys = np.unique(np.concatenate([a, b]), return_inverse=True)[1]  # NaN is one key
    return _difference(keys[: len(a)], keys[len(a) :])


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    """Return the total variation distance of two variables whose values are whole numbers from 0."""
    size = int(max(a.max(), b.max())) + 1
    if size > 10 * (len(a) + len(b)):  # a table of mostly empty cells
        return _total_variation(a, b)
    shares = [np.bincount(part, minlength=size) / len(part) for part in (a, b)]
    return float(np.abs(shares[0] - shares[1]).sum() / 2)


def _kolmogorov(a: np.ndarray, b: np.ndarray) -> float:
    a, b = (np.sort(np.where(np.isnan(part), -np.inf, part)) for part in (a, b))
    everywhere = np.concatenate([a, b])
    shares = [np.searchsorted(part, everywhere, side="right") / len(part) for part in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())


def column_pairs(real: Table, other: Table) -> tuple[np.ndarray, np.ndarray]:
    """Return how alike each pair of columns is, from 0 to 1.

    Two numbers: 1 less half the difference of their Pearson correlations. Otherwise 1 less the total
    variation distance of their contingency tables, a number beside a text in ten bins of equal width.

    Returns
    -------
    pairs : ndarray of int64 of shape (n_pairs, 2)
        Positions of the columns; of a wide table, 2,000 pairs drawn once and for all.
    scores : ndarray of shape (n_pairs,)
        NaN where the measure says nothing: a correlation with a column that is constant in `real`.
    """
    pairs = np.array(list(combinations(range(len(real.schema)), 2)), dtype=np.int64).reshape(-1, 2)
    if len(pairs) > _MAX_PAIRS:
        pairs = pairs[np.sort(np.random.default_rng(0).permutation(len(pairs))[:_MAX_PAIRS])]
    keys = [
        _cells(a, b, real.discrete[i])
        for i, (a, b) in enumerate(zip(real.matrix.T, other.matrix.T, strict=True))
    ]
    scores = np.empty(len(pairs))
    for k, (i, j) in enumerate(pairs):
        if real.discrete[i] or real.discrete[j]:
            (a, b), (c, d) = keys[i], keys[j]
            width = int(max(c.max(), d.max())) + 1
            scores[k] = 1 - _difference(a * width + c, b * width + d)
        else:
            theirs = _correlation(real.matrix[:, i], real.matrix[:, j])
            ours = _correlation(other.matrix[:, i], other.matrix[:, j])
            scores[k] = 1 - abs(theirs - (0.0 if np.isnan(ours) else ours)) / 2
    return pairs, scores


def _cells(a: np.ndarray, b: np.ndarray, discrete: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the cell of each value in a contingency table, for both tables alike; missing is cell 0."""
    if discrete:
        cells = np.nan_to_num(np.concatenate([a, b]), nan=-1.0) + 1
    else:
        known = a[~np.isnan(a)]
        edges = np.histogram_bin_edges(known if len(known) else np.zeros(1), _BINS)[1:-1]  # open at both ends
        both = np.concatenate([a, b])
        cells = np.where(np.isnan(both), 0, np.digitize(both, edges) + 1)
    cells = cells.astype(np.int64)
    return cells[: len(a)], cells[len(a) :]


def _correlation(x: np.ndarray, y: np.ndarray) -> float:
    known = ~(np.isnan(x) | np.isnan(y))
    x, y = x[known], y[known]
    if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum()))


def copied(rows: Table, among: Table, columns: Sequence[str] = ()) -> float:
    """Return the share of rows that occur among others, equal in the named columns (all if none are)."""
    places = [rows.schema.names.index(name) for name in columns or rows.schema.names]
    known = {row.tobytes() for row in np.ascontiguousarray(_canonical(among.matrix[:, places]))}
    return float(np.mean([row.tobytes() in known for row in _canonical(rows.matrix[:, places])]))


def _canonical(values: np.ndarray) -> np.ndarray:
    """Return values with every NaN of one bit pattern, in memory row by row."""
    return np.ascontiguousarray(np.where(np.isnan(values), np.nan, values))


def nearest_balance(rows: Table, train: Table, holdout: Table) -> float:
    """Return the share of rows whose nearest neighbour is in `train` rather than in `holdout`.

    Both should be of one size; then 0.5 says that rows are no nearer to those that were fitted than to
    others of the same kind. The distance is Gower's: the mean over the columns of 0 or 1 for texts, and of
    the difference of ranks, from 0 to 1, for numbers. Equally near counts half.
    """
    tables = _ranked([rows, train, holdout])
    nearest = [_nearest(tables[0], reference, rows.discrete) for reference in tables[1:]]
    return float(np.mean(np.where(nearest[0] == nearest[1], 0.5, nearest[0] < nearest[1])))


def _ranked(tables: Sequence[Table]) -> list[np.ndarray]:
    """Return values with numbers replaced by their rank among all references, from 0 to 1, missing by -1."""
    reference = np.concatenate([table.matrix for table in tables[1:]])
    ranked = [table.matrix.astype(np.float32) for table in tables]
    for i, discrete in enumerate(tables[0].discrete):
        known = np.sort(reference[~np.isnan(reference[:, i]), i])
        for table, result in zip(tables, ranked, strict=True):
            column = table.matrix[:, i]
            if not discrete:
                middle = np.searchsorted(known, column, "left") + np.searchsorted(known, column, "right")
                result[:, i] = middle / max(2 * len(known), 1)
            result[np.isnan(column), i] = -1
    return ranked


def _nearest(rows: np.ndarray, among: np.ndarray, discrete: np.ndarray) -> np.ndarray:
    """Return each row's least distance (sum over the columns) to any other, float32 of shape (n_rows,)."""
    nearest = np.empty(len(rows), np.float32)
    step = max(1, _CELLS // max(len(among), 1))
    for start in range(0, len(rows), step):
        chunk = rows[start : start + step]
        distance = np.zeros((len(chunk), len(among)), np.float32)
        for i in range(rows.shape[1]):
            a, b = chunk[:, i, None], among[None, :, i]
            if discrete[i]:
                distance += a != b
            else:
                gap = np.abs(a - b)
                distance += np.where((a < 0) != (b < 0), np.float32(1), gap)
        nearest[start : start + step] = distance.min(axis=1)
    return nearest


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

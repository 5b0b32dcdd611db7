"""What many columns have in common: a few hidden variables, drawn before all columns.

In a table of a hundred measurements that ten causes move, every column depends a little on every other one,
and a tree or a sum of few functions sees a part of that only. So the causes are drawn first, and each column
given them (factor analysis, here by principal components of the ranks). A component counts as a cause if it
has more variance than noise could give it, by the law of Marchenko and Pastur (1967), and more than two
columns have; few columns are better off with each other as predictors.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from logistream.fitting.coding import SMALLEST_GROUP, Coded

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["common_causes"]


_LEAST_COLUMNS = 34  # fewer can have enough of each other as predictors
_MOST_CAUSES = 16
_COLUMNS_EACH = 5  # columns for each cause, at least: a mean of fewer does not show it
_LEAST_VARIANCE = 2.0  # columns whose variance a cause has, at least
_MOST_CODES = 128


def common_causes(variables: Iterable[Coded]) -> list[Coded]:
    """Return the common causes of ordered variables as variables without columns; none of few columns."""
    ordered = [variable for variable in variables if variable.ordered and variable.size > 2]
    if len(ordered) < _LEAST_COLUMNS:
        return []
    n = len(ordered[0].codes)
    scores = np.stack([_standard_ranks(variable) for variable in ordered], axis=1)
    variance, direction = np.linalg.eigh(scores.T @ scores / n)
    noise = (1 + math.sqrt(len(ordered) / n)) ** 2
    largest = np.argsort(-variance)[: min(_MOST_CAUSES, len(ordered) // _COLUMNS_EACH)]
    chosen = largest[variance[largest] > max(noise, _LEAST_VARIANCE)]
    causes = []
    for number, component in enumerate(chosen, start=1):
        value = scores @ direction[:, component]
        codes = min(_MOST_CODES, n // SMALLEST_GROUP)
        cuts = np.unique(np.quantile(value, np.arange(1, codes) / codes))
        code = np.searchsorted(cuts, value, side="right")
        causes.append(Coded(f"common cause {number}", code, len(cuts) + 1, True, ()))
    return causes


def _standard_ranks(variable: Coded) -> np.ndarray:
    """Return the ranks of a variable with mean 0 and variance 1; 0 where it is missing."""
    known = variable.codes != variable.missing_code
    counts = np.bincount(variable.codes[known], minlength=variable.size)
    rank = np.where(known, (np.cumsum(counts) - (counts - 1) / 2)[variable.codes], 0.0)
    rank[known] -= rank[known].mean()
    return np.asarray(rank / (rank.std() or 1.0))

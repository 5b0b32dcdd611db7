"""Classes of the values of a category: what a column of hundreds of values shows of its dependence.

Of 900 diagnoses most are rare, and a tree that has to tell all of them apart sees in none how the next
diagnosis, or the department, depends on it. Values that go with the same values of other columns (the
diagnoses of the heart) are put in one class, by k-means on their correspondence scores (Benzécri 1973). The
class is a variable without columns: it is drawn before the column, given other classes, and the value is
drawn within its class. Half of the rows make the classes and the other half tests that they depend on
something, so columns that depend on nothing have none.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from logistream.fitting.coding import SMALLEST_GROUP, Coded
from logistream.fitting.independence import log_p_values
from logistream.model.random_bits import permutation

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

__all__ = ["find_classes"]


_LEAST_VALUES = 64  # fewer are told apart by a tree
_MOST_VALUES = 0.2  # of the rows: a column of more different values names them
_MOST_CLASSES = 24
_ROWS_EACH = 50  # rows for each class, at least
_DIMENSIONS = 12
_GROUPS = 8  # of an ordered variable
_MOST_CELLS = 4_000_000  # of a table of two variables
_MAYBE = 0.1  # p-value of another variable that takes part in making the classes, at most
_ALPHA = 0.001  # chance of classes for a variable that depends on nothing
_ROUNDS = 30


def find_classes(coded: Mapping[str, Coded], names: Collection[str]) -> dict[str, Coded]:
    """Return classes for each variable of many unordered codes that depend on other variables.

    Parameters
    ----------
    coded : mapping of str to Coded
        All variables by name.
    names : collection of str
        Those that may have classes: a variable that goes with the values of another one already has those.
    """
    found = {}
    for name, variable in coded.items():
        n = len(variable.codes)
        if name not in names or variable.ordered or not _LEAST_VALUES <= variable.size <= _MOST_VALUES * n:
            continue
        others = [other for key, other in coded.items() if key != name and other.size > 1]
        half = permutation(n, 3)[: n // 2]
        rest = np.setdiff1d(np.arange(n), half)
        tested = _classes(variable, others, half)
        if tested is not None and _helps(tested[variable.codes], others, rest):
            classes = _classes(variable, others, np.arange(n))
            if classes is not None:
                codes, size = classes[variable.codes], int(classes.max()) + 1
                found[name] = Coded(f"class of {name}", codes, size, False, ())
    return found


def _view(variable: Coded, rows: np.ndarray) -> np.ndarray:
    """Return the codes of a variable, merged into few groups if it is ordered."""
    codes = np.asarray(variable.codes[rows])
    if not variable.ordered or variable.size <= _GROUPS:
        return codes
    counts = np.bincount(codes, minlength=variable.size)
    middle = np.cumsum(counts) - counts / 2
    group = (middle * _GROUPS / len(rows)).astype(np.int64)
    return np.asarray(group[codes])


def _helps(classes: np.ndarray, others: Sequence[Coded], rows: np.ndarray) -> bool:
    """Return whether classes depend on another variable in these rows."""
    views = [_view(other, rows) for other in others]
    labels = np.unique(classes[rows], return_inverse=True)[1]
    return bool((log_p_values(np.stack(views, axis=1), labels) < math.log(_ALPHA / len(others))).any())


def _classes(variable: Coded, others: Sequence[Coded], rows: np.ndarray) -> np.ndarray | None:
    """Return the class of each code by the other variables that it depends on; None if there are none."""
    x = variable.codes[rows]
    weight = np.bincount(x, minlength=variable.size).astype(float)
    parts = []
    labels = np.unique(x, return_inverse=True)[1]
    for other in others:
        y = _view(other, rows)
        size = int(y.max()) + 1
        if variable.size * size > _MOST_CELLS or log_p_values(y[:, None], labels)[0] >= math.log(_MAYBE):
            continue
        table = np.bincount(x * size + y, minlength=variable.size * size).reshape(variable.size, size)
        columns = table.sum(axis=0)
        expected = np.outer(weight, columns) / len(rows)
        parts.append((table - expected)[:, columns > 0] / np.sqrt(np.maximum(expected[:, columns > 0], 1e-9)))
    if not parts:
        return None
    residual = np.concatenate(parts, axis=1) / np.sqrt(len(rows))
    values, vectors = np.linalg.eigh(residual @ residual.T)
    axes = vectors[:, -_DIMENSIONS:] * np.sqrt(np.maximum(values[-_DIMENSIONS:], 0))
    # Scores of rare codes are uncertain: they are drawn towards the middle.
    place = axes / np.sqrt(np.maximum(weight, 1))[:, None] * (weight / (weight + SMALLEST_GROUP))[:, None]
    many = min(_MOST_CLASSES, len(rows) // _ROWS_EACH)
    return _nearest_means(place, weight, many) if many > 1 else None


def _nearest_means(place: np.ndarray, weight: np.ndarray, many: int) -> np.ndarray:
    """Return the number of the nearest mean of each place, by k-means from places far apart."""
    chosen = [int(np.argmax(weight))]
    distance = np.full(len(place), np.inf)
    while len(chosen) < many:
        distance = np.minimum(distance, ((place - place[chosen[-1]]) ** 2).sum(axis=1))
        chosen.append(int(np.argmax(distance * weight)))
    means = place[chosen]
    label = np.zeros(len(place), np.int64)
    for _ in range(_ROUNDS):
        far = (place**2).sum(axis=1)[:, None] - 2 * place @ means.T + (means**2).sum(axis=1)
        label = far.argmin(axis=1)
        total = np.bincount(label, weight, len(means))
        for axis in range(place.shape[1]):
            moved = np.bincount(label, weight * place[:, axis], len(means)) / np.maximum(total, 1e-9)
            means[:, axis] = np.where(total > 0, moved, means[:, axis])
    return np.asarray(np.unique(label, return_inverse=True)[1].astype(np.int64))

"""Many weak dependences of one variable in a single number: an additive predictor.

A tree divides its rows again and again and soon has too few to see a weak dependence, let alone ten. A
regression sees them all at once. So ordered variables, and those of two codes, are predicted from the
variables before them by a sum of functions, one of each predictor (Hastie and Tibshirani 1986, "Generalized
additive models"; here by ridge regression on hinges and steps). The predicted value is one more predictor of
the tree, which so draws from rows with similar predictions (predictive mean matching: Little 1988; synthpop
has it as well), and still tests whether it helps.

Each fitted row is predicted by a regression that has not seen it (five folds), so chance fits are no help.

In a model, an additive predictor is a chain of deterministic factors, each of which adds one function's
value, rounded, to the sum before.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from logistream.fitting.coding import SMALLEST_GROUP, Coded
from logistream.fitting.decision_diagram import deterministic
from logistream.fitting.independence import log_upper_tail
from logistream.model.random_bits import permutation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from logistream.model.network import Factor

__all__ = ["Basis", "additive_predictor", "unexplained"]


_ALPHA = 0.001  # chance of choosing a predictor where none helps
_MOST_CHOICE = 30  # predictors that remain candidates after the first round
_NO_VARIANCE = 1e-12
_NEARLY_ALL = 0.9  # of the rows: so many are as good as all for testing a predictor
_FOLDS = 5
_HINGES = (-0.5, 0.0, 0.5)  # where the slope of a function may change, on ranks from -1 to 1
_STEP_ROWS = 25  # rows behind each step of a function
_MOST_STEPS = 40
_RIDGE = 3.0  # the pull towards zero weighs as much as so many rows
_MOST_ROWS = 20_000  # looked at
_LEAST_ROWS = 40
_FINE = 256, 64  # levels of a sum on the way, and groups of a function's values,
_COARSE = 64, 32  # and where more than
_MOST_FINE = 8  # functions are added
_MOST_CODES = 128  # of the prediction


@dataclass(frozen=True, slots=True)
class Basis:
    """Functions of one variable's code, for a regression to add up.

    Parameters
    ----------
    functions : ndarray of shape (n_codes, n_functions)
        The value of each function for each code; over the rows each has the mean 0.
    inverses : list of ndarray
        Of the matrix of their products over all rows: for the slope alone, for the hinges, for all.
    """

    functions: np.ndarray
    inverses: list[np.ndarray]

    @classmethod
    def of(cls, variable: Coded, *, smooth: bool = False) -> Basis:
        """Return hinges and steps of an ordered variable, an indicator for each common code of another.

        Parameters
        ----------
        variable : Coded
            The predictor.
        smooth : bool
            Whether to leave out the steps.
        """
        counts = np.bincount(variable.codes, minlength=variable.size)
        n = len(variable.codes)
        if variable.ordered:
            rank = _ranks(counts)
            columns = [rank, *(np.maximum(rank - place, 0) for place in _HINGES)]
            steps = min(_MOST_STEPS, n // _STEP_ROWS)
            if variable.size > 2 and steps > 2 and not smooth:
                step = ((rank + 1) / 2 * min(steps, variable.size)).astype(np.int64)
                rows = np.bincount(step, counts)
                columns += [(step == i).astype(float) for i in np.flatnonzero(rows >= SMALLEST_GROUP)]
        else:
            common = np.argsort(-counts, kind="stable")[:_MOST_STEPS]
            columns = [(np.arange(variable.size) == code).astype(float) for code in common]
            columns = [c for c, code in zip(columns, common, strict=True) if counts[code] >= SMALLEST_GROUP]
        if not columns:
            return cls(np.zeros((variable.size, 0)), [])
        values = np.stack(columns, axis=1)
        values -= counts @ values / n
        values = values[:, counts @ values**2 > 1e-9 * n]
        return cls(values, _inverses(values, variable, np.arange(n)))


def _ranks(counts: np.ndarray) -> np.ndarray:
    """Return the middle rank of each code, from -1 to 1, shape (n_codes,)."""
    return np.asarray((2 * np.cumsum(counts) - counts) / counts.sum() - 1)


def additive_predictor(
    target: Coded, predictors: Sequence[Coded], bases: Sequence[Basis], most: int, causes: int = 0
) -> tuple[Coded, list[Factor]] | None:
    """Return a variable that predicts another one, and its factors; None if fewer than two predictors help.

    Rows in which the target is missing are not learned from.

    Parameters
    ----------
    target : Coded
        The variable to predict: ordered, or of two codes.
    predictors : sequence of Coded
        Variables drawn before it.
    bases : sequence of Basis
        Of each predictor.
    most : int
        Predictors that are chosen, at most,
    causes : int
        besides so many, the first ones, that are common causes.

    Returns
    -------
    variable : Coded
        The prediction of each fitted row, learned from others.
    factors : list of Factor
        Deterministic; the last one has the variable's name and gives its code.
    """
    missing = target.missing_code
    known = np.arange(len(target.codes)) if missing is None else np.flatnonzero(target.codes != missing)
    if len(known) > _MOST_ROWS:
        known = known[np.sort(permutation(len(known))[:_MOST_ROWS])]
    if len(known) < _LEAST_ROWS:
        return None
    y = _ranks(np.bincount(target.codes[known], minlength=target.size))[target.codes[known]]
    if np.ptp(y) == 0:
        return None
    chosen = _chosen(y - y.mean(), predictors, bases, known, most, causes)
    if len(chosen) < 2:
        return None  # the tree sees a single predictor by itself
    design = np.concatenate([bases[i].functions[predictors[i].codes] for i in chosen], axis=1)
    edges = np.cumsum([0, *(bases[i].functions.shape[1] for i in chosen)])
    fold = np.empty(len(target.codes), np.int64)
    fold[permutation(len(fold), 1)] = np.arange(len(fold)) % _FOLDS
    predicted = np.empty(len(target.codes))
    for number in range(_FOLDS):
        seen = fold[known] != number
        predicted[fold == number] = design[fold == number] @ _ridge(design[known[seen]], y[seen])
    weights = _ridge(design[known], y)
    parts = np.split(weights, edges[1:-1])
    tables = [bases[i].functions @ part for i, part in zip(chosen, parts, strict=True)]
    codes = min(_MOST_CODES, len(known) // SMALLEST_GROUP)
    cuts = np.unique(np.quantile(predicted[known], np.arange(1, codes) / codes))
    name = f"predictor of {target.name}"
    factors = _chain(name, [predictors[i] for i in chosen], tables, cuts)
    return (
        Coded(name, np.searchsorted(cuts, predicted, side="right"), len(cuts) + 1, True, ()),
        factors,
    )


def unexplained(target: Coded, factors: Sequence[Factor], codes: Mapping[str, np.ndarray]) -> float:
    """Return how much of a target's variance is left given the factors, in squared ranks from -1 to 1.

    Parameters
    ----------
    target : Coded
        What the last factor draws.
    factors : sequence of Factor
        Deterministic ones, then the one that draws.
    codes : mapping of str to ndarray of int64 of shape (n_rows,)
        Of each variable before. Those of the deterministic factors are computed as in drawing.

    Returns
    -------
    float
        From 0; 1/3 for an independent variable of many values.
    """
    known = dict(codes)
    for factor in factors:
        distribution = factor.distribution_of[factor.combination(known)]
        known[factor.name] = factor.codes[factor.offsets[distribution]]
    rank = _ranks(np.bincount(target.codes, minlength=target.size))
    mean = np.add.reduceat(factor.counts * rank[factor.codes], factor.offsets[:-1]) / factor.totals
    left = (rank[target.codes] - mean[distribution]) ** 2
    return float(left.sum()) / max(len(left) - len(factor.totals), 1)


def _chosen(
    y: np.ndarray,
    predictors: Sequence[Coded],
    bases: Sequence[Basis],
    rows: np.ndarray,
    most: int,
    causes: int,
) -> list[int]:
    """Return which predictors to use: common causes that help beside the others, then by forward selection.

    After the first round those that predict best by themselves remain candidates (sure screening: Fan and Lv
    2008).
    """
    limit = math.log(_ALPHA / max(len(predictors), 1))
    chosen, left = _helping(y, [bases[i].functions[predictors[i].codes[rows]] for i in range(causes)], limit)
    most += len(chosen)
    choice = [i for i, basis in enumerate(bases) if i >= causes and basis.functions.shape[1]]
    whole = len(rows) >= _NEARLY_ALL * len(predictors[0].codes) if predictors else False
    inverses = {
        i: bases[i].inverses if whole else _inverses(bases[i].functions, predictors[i], rows) for i in choice
    }
    scale = len(predictors[0].codes) / len(rows) if whole else 1.0
    while len(chosen) < most:
        variance = float(left @ left) / len(left)
        if variance < _NO_VARIANCE:
            break
        log_p = {}
        for i in choice:
            sums = np.bincount(predictors[i].codes[rows], left, predictors[i].size)
            moment = bases[i].functions.T @ sums
            log_p[i] = _log_p(moment, inverses[i], variance / scale)
        choice = sorted(choice, key=lambda i: log_p[i])[:_MOST_CHOICE]
        if not choice or log_p[choice[0]] >= limit:
            break
        chosen.append(choice.pop(0))
        design = np.concatenate([bases[i].functions[predictors[i].codes[rows]] for i in chosen], axis=1)
        left = y - design @ _ridge(design, y)
    return chosen


def _helping(y: np.ndarray, designs: Sequence[np.ndarray], limit: float) -> tuple[list[int], np.ndarray]:
    """Return which predictors each help beside all others, by Wald tests, and what they leave of `y`."""
    if not designs:
        return [], y
    design = np.concatenate(designs, axis=1)
    gram = design.T @ design
    gram[np.diag_indices_from(gram)] += _RIDGE
    covariance = np.linalg.inv(gram)
    weights = covariance @ (design.T @ y)
    variance = max(float(((y - design @ weights) ** 2).mean()), _NO_VARIANCE)
    chosen, start = [], 0
    for i, functions in enumerate(designs):
        size = functions.shape[1]
        part, start = slice(start, start + size), start + size
        gain = float(weights[part] @ np.linalg.solve(covariance[part, part], weights[part])) / variance
        if gain > size and log_upper_tail(gain / size, size) < limit:
            chosen.append(i)
    if not chosen:
        return [], y
    design = np.concatenate([designs[i] for i in chosen], axis=1)
    return chosen, y - design @ _ridge(design, y)


def _inverses(values: np.ndarray, variable: Coded, rows: np.ndarray) -> list[np.ndarray]:
    """Return what the variance of a basis's moments is divided by: of the slope, of the hinges, of all."""
    counts = np.bincount(variable.codes[rows], minlength=variable.size)
    gram = (values * counts[:, None]).T @ values
    gram[np.diag_indices_from(gram)] += 1e-3  # steps and hinges overlap
    sizes = {1, 1 + len(_HINGES), len(gram)} if variable.ordered else {len(gram)}
    return [np.linalg.inv(gram[:size, :size]) for size in sorted(sizes) if size <= len(gram)]


def _log_p(moment: np.ndarray, inverses: Sequence[np.ndarray], variance: float) -> float:
    """Return the least log p-value of no gain, times the number of ways it was tried in."""
    least = 0.0
    for inverse in inverses:
        freedom = len(inverse)
        gain = float(moment[:freedom] @ inverse @ moment[:freedom]) / variance
        if gain > freedom:
            least = min(least, log_upper_tail(gain / freedom, freedom) + math.log(len(inverses)))
    return least


def _ridge(design: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the weights of a ridge regression."""
    gram = design.T @ design
    gram[np.diag_indices_from(gram)] += _RIDGE
    return np.asarray(np.linalg.solve(gram, design.T @ (y - y.mean())))


def _chain(
    name: str, predictors: Sequence[Coded], tables: Sequence[np.ndarray], cuts: np.ndarray
) -> list[Factor]:
    """Return factors that add up the functions' values; the last one gives the code of the prediction."""
    factors: list[Factor] = []
    levels, groups = _FINE if len(tables) <= _MOST_FINE else _COARSE
    before, (group, value) = predictors[0].name, _rounded(tables[0], groups)
    for i, (predictor, table) in enumerate(zip(predictors[1:], tables[1:], strict=True), start=2):
        added, more = _rounded(table, groups)
        total = value[:, None] + more[None, :]
        if i == len(predictors):
            code, size = np.searchsorted(cuts, total, side="right"), len(cuts) + 1
            value, label = np.empty(0), name
        else:
            low, high = float(total.min()), float(total.max())
            width = max(high - low, 1e-12) / levels
            code = np.minimum(((total - low) / width).astype(np.int64), levels - 1)
            value, label, size = low + (np.arange(levels) + 0.5) * width, f"{name}, {i}", levels
        factors.append(deterministic(label, size, (before, predictor.name), (group, added), code.reshape(-1)))
        before, group = label, np.arange(size)
    return factors


def _rounded(table: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the group of each code by a function's value, and the middle value of each group."""
    low, high = float(table.min()), float(table.max())
    place = np.minimum(((table - low) / max(high - low, 1e-12) * most).astype(np.int64), most - 1)
    group = np.unique(place, return_inverse=True)[1]
    middle = np.bincount(group, table) / np.bincount(group)
    return group.astype(np.int64), middle

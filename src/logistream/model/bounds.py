"""Between which bounds the values of a column lie, for each combination of the codes that decide it.

A code of a factor stands for one value of a column or for a range. What a formula computes lies between what
it gives for the ends of the ranges. So it is known, before anything is drawn, which combinations of codes
can fulfil a condition, and of which each row does.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from logistream.model.sampling import compute, needed, scaled
from logistream.times import CALENDAR, DAY, HOUR

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from logistream.model.network import Emission, Factor, Formula, Network

__all__ = ["MAX_CELLS", "Bounds", "common_refinement", "find_bounds", "spread"]

MAX_CELLS = 2**22  # of one table: 32 MiB
_MONOTONE = {
    "product",
    "sum",
    "linear",
    "ratio",
    "elapsed",
    "product and sum",
    "square",
    "log",
    "local",
}
"""Operations that have their least and greatest result at ends of their inputs, with few exceptions."""

_STEADY = {
    "year": 200 * DAY,
    "quarter": 200 * DAY,
    "month": 200 * DAY,
    "day": 20 * DAY,
    "weekday": 3 * DAY,
    "hour": 12 * HOUR,
    "minute": HOUR // 2,
}
"""A range of times shorter than that, whose ends have the same year, month, ..., has it throughout."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of one column over groups of the codes of some factors.

    Parameters
    ----------
    over : mapping of str to ndarray of shape (n_codes,)
        For each factor that decides the column, the group of each of its codes.
    low, high : ndarray
        Least and greatest value, with one axis for each factor: strings, or numbers; timestamps are
        microseconds since 1970 UTC.
    missing : ndarray of bool of the same shape
        Where the value is missing.
    """

    over: dict[str, np.ndarray]
    low: np.ndarray
    high: np.ndarray
    missing: np.ndarray


def find_bounds(network: Network, column: str) -> Bounds | None:
    """Return the bounds of a column's values; None if they are not known from the codes, or by too many."""
    wanted = needed(network, [column])
    known: dict[str, Bounds | None] = {}
    for factor in network.factors:
        for emission in factor.emissions:
            if emission.column in wanted.columns:
                known[emission.column] = _emitted(network, factor, emission)
    for formula in network.formulas:
        if formula.column in wanted.columns:
            inputs = [known[name] for name in formula.inputs]
            found = [bounds for bounds in inputs if bounds is not None]
            known[formula.column] = _computed(formula, found) if len(found) == len(inputs) else None
    bounds = known[column]
    if bounds is not None and network.schema[column].kind == "integer" and bounds.low.dtype.kind == "f":
        return Bounds(bounds.over, np.trunc(bounds.low), np.trunc(bounds.high), bounds.missing)
    return bounds


def spread(values: np.ndarray, over: Mapping[str, np.ndarray], fine: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the values of a table for finer groups, with one axis for each factor of `fine`.

    Parameters
    ----------
    values : ndarray
        One axis for each factor of `over`.
    over, fine : mapping of str to ndarray of shape (n_codes,)
        Groups of the codes of each factor; each group of `fine` lies within one of `over`.

    Returns
    -------
    ndarray
        Of size 1 along the axes of factors that are not in `over`.
    """
    one_of_each = {name: np.unique(groups, return_index=True)[1] for name, groups in fine.items()}
    for axis, (name, groups) in enumerate(over.items()):
        values = np.take(values, groups[one_of_each[name]], axis=axis)
    values = values.transpose([list(over).index(name) for name in fine if name in over])
    return values.reshape([len(one_of_each[name]) if name in over else 1 for name in fine])


def common_refinement(groupings: Sequence[np.ndarray]) -> np.ndarray:
    """Return groups of codes that keep apart what any of the groupings does, shape (n_codes,)."""
    return np.unique(np.stack(groupings, axis=1), axis=0, return_inverse=True)[1].reshape(-1)


def _emitted(network: Network, factor: Factor, emission: Emission) -> Bounds | None:
    """Return the bounds of what a factor emits."""
    strings = network.categories.get(emission.column)
    named = any(identifier.column == emission.column for identifier in network.identifiers)
    if named or (strings is not None and emission.high is not None):
        return None
    missing = np.zeros(factor.size, bool) if emission.missing is None else emission.missing
    code = np.stack([emission.low, emission.last, missing], axis=1)
    _, first, groups = np.unique(code, axis=0, return_index=True, return_inverse=True)
    low, high, missing = emission.low[first], emission.last[first], missing[first]
    over = {factor.name: groups.reshape(-1)}
    if strings is not None:
        values = np.array(strings, dtype=object)[low]
        return Bounds(over, values, values, missing)
    low, high = scaled(emission, low), scaled(emission, high)
    if emission.quantum is None:
        # A number that is drawn from a range may be rounded to a little more than its end.
        room = np.where(low == high, 0.0, 4 * np.finfo(float).eps * np.maximum(np.abs(low), np.abs(high)))
        high = high + room
    return Bounds(over, low, high, missing)


def _refined(inputs: Sequence[Bounds]) -> tuple[dict[str, np.ndarray], tuple[int, ...]]:
    """Return groups that keep apart what any of the inputs does, and how many there are of each factor."""
    names = dict.fromkeys(name for bounds in inputs for name in bounds.over)
    over = {name: common_refinement([b.over[name] for b in inputs if name in b.over]) for name in names}
    return over, tuple(int(groups.max()) + 1 for groups in over.values())


def _halved(bounds: Bounds, name: str) -> Bounds:
    """Return wider bounds over about half as many groups of a factor: neighbours merged, gaps kept apart."""
    if name not in bounds.over:
        return bounds
    axis = list(bounds.over).index(name)
    low, high, missing = (np.moveaxis(a, axis, 0) for a in (bounds.low, bounds.high, bounds.missing))
    many = len(low)
    flat = missing.reshape(many, -1)
    gaps = np.unique(flat, axis=0, return_inverse=True)[1].reshape(-1)
    order = np.lexsort([low.reshape(many, -1).mean(axis=1), gaps])
    begins = np.flatnonzero(np.diff(gaps[order], prepend=-1))
    within = np.arange(many) - np.repeat(begins, np.diff(np.append(begins, many)))
    starts = np.flatnonzero(within % 2 == 0)
    number = np.empty(many, np.int64)
    number[order] = np.cumsum(within % 2 == 0) - 1
    return Bounds(
        {**bounds.over, name: number[bounds.over[name]]},
        np.moveaxis(np.minimum.reduceat(low[order], starts, axis=0), 0, axis),
        np.moveaxis(np.maximum.reduceat(high[order], starts, axis=0), 0, axis),
        np.moveaxis(missing[order][starts], 0, axis),
    )


def _computed(formula: Formula, inputs: Sequence[Bounds]) -> Bounds | None:
    """Return the bounds of what a formula computes, None if the ends of its inputs do not give them."""
    over, shape = _refined(inputs)
    while math.prod(shape) * 2 ** (ranged := _ranged(inputs)) > MAX_CELLS:
        inputs = [_halved(bounds, list(over)[int(np.argmax(shape))]) for bounds in inputs]
        before, (over, shape) = shape, _refined(inputs)
        if shape == before:
            return None
    ends = [[np.broadcast_to(spread(a, b.over, over), shape) for a in (b.low, b.high)] for b in inputs]
    gaps = [np.broadcast_to(spread(b.missing, b.over, over), shape) for b in inputs]
    missing = np.logical_or.reduce(gaps)
    if formula.operation in CALENDAR:
        low, high = (compute(formula, {formula.left: end.reshape(-1)}).reshape(shape) for end in ends[0])
        steady = (low == high) & (ends[0][1] - ends[0][0] < _STEADY[formula.operation])
        return Bounds(over, low, high, missing) if steady.all() else None
    if formula.operation in ("blank", "unless"):
        if not (ends[0][0] == ends[0][1]).all():
            return None
        apart = ends[0][0] == 1
        if formula.operation == "blank":
            return Bounds(over, ends[1][0], ends[1][1], missing | apart)
        apart &= ~np.logical_or.reduce(gaps[2:])
        low, high = (np.where(apart, sum(end[i] for end in ends[2:]), ends[1][i]) for i in (0, 1))
        return Bounds(over, low, high, gaps[1])
    if formula.keeps_order and ranged:
        return Bounds(over, *_moved(formula, ends, gaps[0]), gaps[1])
    if formula.keeps_order:
        value = _values(formula, [low for low, _ in ends])
        value = np.where(gaps[0], ends[1][0], value)  # what is missing cannot be exceeded
        return Bounds(over, value, value, gaps[1])
    if formula.operation not in _MONOTONE:
        return None
    distinct = [[low] if (low == high).all() else [low, high] for low, high in ends]
    corners = np.stack([_values(formula, corner) for corner in itertools.product(*distinct)])
    low, high = corners.min(axis=0), corners.max(axis=0)
    if formula.operation == "square":
        low = np.where((ends[0][0] < 0) & (ends[0][1] > 0), 0, low)
    elif formula.operation == "ratio":
        unknown = (ends[1][0] < ends[1][1]) & (ends[1][0] <= 0) & (ends[1][1] >= 0)
        low, high = np.where(unknown, -np.inf, low), np.where(unknown, np.inf, high)
    elif formula.operation == "local" and formula.offsets:
        ahead = [offset for _, offset in formula.offsets]
        room = np.where(low == high, 0, max(ahead) - min(ahead))  # clocks are put forward and back between
        low, high = low - room, high + room
    return Bounds(over, low, high, missing)


def _moved(
    formula: Formula, ends: Sequence[Sequence[np.ndarray]], gap: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the bounds of a column that is moved to one side of another one, which has gaps."""
    (low, high), (a, b) = ends
    room = formula.factors[0] if formula.factors else 10.0 ** -(formula.decimals or 0)  # for rounding
    if formula.operation == "at least":
        bounds = np.maximum(a, low), np.maximum(b, 2 * high - a + room)
    else:
        bounds = np.minimum(a, 2 * low - b - room), np.minimum(b, high)
    return np.where(gap, a, bounds[0]), np.where(gap, b, bounds[1])


def _ranged(inputs: Sequence[Bounds]) -> int:
    """Return how many of the inputs have a range somewhere."""
    return sum(not bool((bounds.low == bounds.high).all()) for bounds in inputs)


def _values(formula: Formula, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """Return what a formula computes of inputs of any shape."""
    numbers = {name: values.reshape(-1) for name, values in zip(formula.inputs, inputs, strict=True)}
    return compute(formula, numbers).reshape(inputs[0].shape)

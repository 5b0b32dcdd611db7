"""Pairs of columns that keep an order: one is never above the other, as a day's low is never above its high.

Both are drawn, the later one only within ranges, at whose edges they can come out in the wrong order. Then
one is put as far above the other as it lay below: `low + |high - low|`. So no row breaks the order, and equal
values are no more common than they were. A few rows may be exceptions: as many events are, and in them one
column lies as far on the wrong side of the other as it did in such rows.
"""

from __future__ import annotations

import itertools
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING

import numpy as np

from logistream.fitting.coding import SMALLEST_GROUP, in_steps
from logistream.fitting.exceptions import NEARLY_ALL, code_exceptions, fresh_name
from logistream.fitting.order import find_associations
from logistream.model.network import Formula
from logistream.model.random_bits import permutation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from logistream.fitting.coding import Coded
    from logistream.fitting.columns import Values

__all__ = ["find_inequalities", "in_order"]


_SCREEN_ROWS = 64  # most pairs are refused on so few rows,
_MOST_MISSES = 0.125  # of which so many may be exceptions
_LEAST_ROWS = 100
_EASILY_BROKEN = 0.05  # an order must be broken in so many rows of values put together at random,
_TIMES_MORE = 5  # and in so many times more of them than there are exceptions
_DROP = 3  # rows just above for each exception as far below: an order is an edge of a distribution,
_SURE = 25  # which is no chance: squares of standard deviations


def find_inequalities(
    table: Mapping[str, Values], coded: Mapping[str, Coded], formulas: Sequence[Formula]
) -> tuple[list[Formula], dict[str, Coded]]:
    """Return what keeps columns in order, and the exceptions to it, which are drawn.

    Columns that are computed from others are not moved, nor are two of few values, which keep to the pairs
    that occur.

    Parameters
    ----------
    table : mapping of str to Values
        The columns by name.
    coded : mapping of str to Coded
        The columns that are drawn.
    formulas : sequence of Formula
        What is computed.

    Returns
    -------
    formulas : list of Formula
        These and all others, in the order of computing.
    exceptions : dict of str to Coded
        By name.
    """
    drawn = {formula.column for formula in formulas if formula.right and formula.left not in table}
    columns = {v.column.name: v for v in table.values() if v.column.kind not in ("category", "boolean")}
    movable = {n for n, v in columns.items() if n in coded or (v.column.kind == "timestamp" and n in drawn)}
    exceptions: dict[str, Coded] = {}
    found = list(formulas)
    for kinds in (("integer", "number"), ("timestamp",)):
        of_kind = {n: v for n, v in columns.items() if v.column.kind in kinds}
        below, nearly = _below(of_kind)
        tied = {n for n in of_kind if n in coded and coded[n].exact}
        nearly = [(low, high) for low, high in nearly if not {low, high} <= tied]
        ascending = sorted(of_kind, key=lambda n: sum(n in lower for lower in below.values()), reverse=True)
        rank = {name: i for i, name in enumerate(ascending)}
        adjusted: set[str] = set()
        for low, high in nearly:
            column, other = (high, low) if high in movable - tied else (low, high)
            if column not in movable - tied or column in adjusted:
                continue
            order = _formula(of_kind, column, low, high)
            variable, unless = _with_exceptions(of_kind, table, order, other)
            if _computable([*found, order, unless]):
                adjusted.add(column)
                exceptions[variable.name] = variable
                found += [order, unless]
        whole = {name: lower for name, lower in below.items() if not of_kind[name].missing.any()}
        pairs = [(low, high) for high in ascending for low in _nearest(below[high], whole)]
        up = [(low, high) for low, high in pairs if high in movable - tied]
        down = [(low, high) for low, high in pairs if high not in movable - tied and low in movable - tied]
        down.sort(key=lambda pair: -rank[pair[1]])
        both = [
            pair
            for pair in pairs
            if {*pair} <= tied & movable and not find_associations({name: coded[name] for name in pair})
        ]
        for column_of, chosen in ((1, up), (0, down), (1, both)):
            for pair in chosen:
                order = _formula(of_kind, pair[column_of], *pair)
                if _computable([*found, order]):
                    found.append(order)
    return in_order(found), exceptions


def _formula(columns: Mapping[str, Values], column: str, low: str, high: str) -> Formula:
    """Return what moves one of two columns to the right side of the other one."""
    a, b = columns[low], columns[high]
    known = ~(a.missing | b.missing)
    held = int((a.numbers[known] <= b.numbers[known]).sum())
    digits, checked = columns[column].column.decimals, int(known.sum())
    side, other = ("at least", low) if column == high else ("at most", high)
    step = _step_beside(columns[column], columns[other])
    return Formula(column, side, other, column, digits, factors=step, rows=held, checked=checked)


def _step_beside(values: Values, other: Values) -> tuple[float, ...]:
    """Return the step of which whole numbers or timestamps are multiples, if those of the other are not."""
    if values.numbers.dtype.kind != "i" or other.numbers.dtype.kind != "i":
        return ()
    known = values.known
    step = int(np.gcd.reduce(known - known[0])) if len(known) else 0
    return (float(step),) if step > 1 and ((other.known - known[0]) % step).any() else ()


def _with_exceptions(
    columns: Mapping[str, Values], table: Mapping[str, Values], order: Formula, other: str
) -> tuple[Coded, Formula]:
    """Return the exceptions to an order as a variable, and what puts them in place."""
    moved, fixed = columns[order.column], columns[other]
    checked = ~(moved.missing | fixed.missing)
    distance = moved.numbers - fixed.numbers
    sign = -1 if order.operation == "at least" else 1  # of the distance of exceptions
    off = checked & (sign * distance > 0)
    reference = sign * np.abs(distance[checked & (distance != 0)])
    if moved.column.kind == "timestamp":
        steps, quantum = in_steps(np.concatenate([distance[off], reference]))
    else:
        digits = [0 if v.column.kind == "integer" else v.column.decimals for v in (moved, fixed)]
        steps, quantum = np.concatenate([distance[off], reference]), None
        if None not in digits:
            quantum = (1, 10 ** max(count or 0 for count in digits))
            steps = np.rint(steps * quantum[1]).astype(np.int64)
    many = int(off.sum())
    name = fresh_name(f"{order.column}: exception", table)
    coded, flag, value = code_exceptions(name, off, checked, steps[:many], steps[many:], quantum)
    others = (value, other)
    return coded, Formula(order.column, "unless", flag, order.column, order.decimals, others=others)


def _below(columns: Mapping[str, Values]) -> tuple[dict[str, set[str]], list[tuple[str, str]]]:
    """Return for each column those that are never above it, though they easily could be, gaps aside.

    Returns
    -------
    below : dict of str to set of str
    nearly : list of (str, str)
        The lower and the higher one of pairs with exceptions, the fewest exceptions first.
    """
    below: dict[str, set[str]] = {name: set() for name in columns}
    nearly: list[tuple[float, str, str]] = []
    n = len(next(iter(columns.values())).numbers) if columns else 0
    few = np.linspace(0, n - 1, _SCREEN_ROWS).astype(np.int64)
    for (low, x), (high, y) in itertools.permutations(columns.items(), 2):
        a, b = x.numbers, y.numbers
        misses = (a[few] > b[few]) & ~(x.missing[few] | y.missing[few])
        if misses.sum() > _MOST_MISSES * _SCREEN_ROWS:
            continue
        known = ~(x.missing | y.missing)
        a, b = a[known], b[known]
        if len(a) < _LEAST_ROWS or not (a < b).any():
            continue
        broken, easily = (a > b).mean(), (a > b[permutation(len(b))]).mean()
        if broken == 0 and easily >= _EASILY_BROKEN:
            below[high].add(low)
        elif 0 < broken <= 1 - NEARLY_ALL and easily >= max(_EASILY_BROKEN, _TIMES_MORE * broken):
            distance = b - a
            far = np.median(-distance[distance < 0])
            above = int(((distance >= 0) & (distance <= far)).sum())
            under = int(((distance < 0) & (distance >= -far)).sum())
            edge = above >= _DROP * under and (above - under) ** 2 >= _SURE * (above + under)
            if (edge or above == 0) and (distance < 0).sum() >= SMALLEST_GROUP:
                nearly.append((float(broken), low, high))
    return below, [(low, high) for _, low, high in sorted(nearly)]


def _nearest(lower: set[str], whole: Mapping[str, set[str]]) -> list[str]:
    """Return the columns directly below: not those that are below another one of them without gaps."""
    return sorted(low for low in lower if not any(low in whole.get(between, ()) for between in lower))


def in_order(formulas: Sequence[Formula]) -> list[Formula]:
    """Return formulas so that each comes after all that compute or adjust the columns it reads.

    Raises
    ------
    CycleError
        If that is not possible.
    """
    places: dict[str, list[int]] = {}
    for i, formula in enumerate(formulas):
        places.setdefault(formula.column, []).append(i)
    sorter: TopologicalSorter[int] = TopologicalSorter()
    for i, formula in enumerate(formulas):
        before = {k for name in formula.inputs for k in places.get(name, ())}
        same = {k for k in places[formula.column] if k >= i}  # those of one column stand in their order
        sorter.add(i, *(before - same))
    ordered: list[Formula] = []
    sorter.prepare()
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        ordered += [formulas[i] for i in ready]
        sorter.done(*ready)
    return ordered


def _computable(formulas: Sequence[Formula]) -> bool:
    """Return whether formulas can be put in order."""
    try:
        in_order(formulas)
    except CycleError:
        return False
    return True

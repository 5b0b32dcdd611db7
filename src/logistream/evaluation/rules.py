"""What real rows never do: rules learned from a table, and those known of DataCo orders.

A rule is learned only where breaking it would be easy: rows put together at random must break it, rows of
the table, each judged by the others, must not. Four kinds are looked for:

- two columns of few values hold only pairs that were seen (city and state, type and status, product and
  price; of a column that may be empty: whether it is);
- a number is the sum, difference or product of two others;
- a number is never above another;
- two columns are equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from logistream.evaluation.measures import Table

__all__ = ["Rule", "broken", "learn_rules"]


_FEW = 0.1  # of the rows: a number with at most this share of different values has few
_MAX_COLUMNS = 60  # of each sort, so many are looked at
_ENOUGH = 100  # rows that must bear witness
_TOLERATED = 0.005  # of the witnesses: new pairs, such as a city of the same name elsewhere
_EASY = 0.02  # of rows put together at random: must break the rule
_CLEAR = 0.05  # the same, for rules of numbers
_CLEARLY = 50  # times as many of them as of the witnesses
_PROBES = 200  # rows on which an equation is tried first


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule.

    Parameters
    ----------
    text : str
        The rule in words.
    breaks : callable
        From a table to bool of shape (n_rows,): which rows break it.
    """

    text: str
    breaks: Callable[[Table], np.ndarray]


def broken(rules: Sequence[Rule], table: Table) -> np.ndarray:
    """Return which row breaks which rule, bool of shape (n_rules, n_rows)."""
    return np.array([rule.breaks(table) for rule in rules], dtype=bool).reshape(len(rules), len(table))


def learn_rules(table: Table, seed: int = 0) -> list[Rule]:
    """Return the rules that a table of real rows keeps.

    Parameters
    ----------
    table : Table
        At least some hundred rows; nothing is learned from fewer than 100.
    seed : int
        For the rows put together at random.
    """
    if len(table) < _ENOUGH:
        return []
    rng = np.random.default_rng(seed)
    return [*_pair_rules(table, rng), *_number_rules(table, rng)]


def _pair_rules(table: Table, rng: np.random.Generator) -> list[Rule]:
    """Return the rules of pairs that were never seen."""
    sides = [(i, empty) for i in range(len(table.schema)) if (empty := _side(table, i)) is not None]
    rules = []
    for (i, i_empty), (j, j_empty) in combinations(sides[:_MAX_COLUMNS], 2):
        rule = _PairRule.learn(table, (i, j), (i_empty, j_empty), rng.permutation(len(table)))
        if rule is not None:
            names = [
                f"{table.schema.names[k]}{' missing' if e else ''}" for k, e in ((i, i_empty), (j, j_empty))
            ]
            rules.append(Rule(f"{names[0]} with {names[1]}: only pairs that occur", rule.breaks))
    return rules


def _side(table: Table, i: int) -> bool | None:
    """Return False if column `i` has few values, True if only whether it is empty is of use, else None."""
    column = table.matrix[:, i]
    empty = np.isnan(column)
    distinct = len(np.unique(column[~empty]))
    if distinct + empty.any() > 1 and (table.discrete[i] or distinct <= max(20, _FEW * len(table))):
        return False
    return True if empty.any() and not empty.all() else None


@dataclass(frozen=True, slots=True)
class _PairRule:
    """Two columns and the pairs that occur; a pair of two known values that does not occur breaks it."""

    columns: tuple[int, int]
    emptiness: tuple[bool, bool]
    known: tuple[np.ndarray, np.ndarray]  # sorted values of each column
    pairs: np.ndarray  # sorted positions in `known`, the first times the number of the second, plus that

    @classmethod
    def learn(
        cls, table: Table, columns: tuple[int, int], emptiness: tuple[bool, bool], mixed: np.ndarray
    ) -> _PairRule | None:
        sides = [_values(table, i, empty) for i, empty in zip(columns, emptiness, strict=True)]
        (first, a, a_rows), (second, b, b_rows) = (
            np.unique(side, return_inverse=True, return_counts=True) for side in sides
        )
        pairs, place, rows = np.unique(a * len(second) + b, return_inverse=True, return_counts=True)
        witness = (a_rows[a] > 1) & (b_rows[b] > 1)
        against = int((witness & (rows[place] == 1)).sum())
        if witness.sum() < _ENOUGH or against > _TOLERATED * witness.sum():
            return None
        at_random = float((~np.isin(a * len(second) + b[mixed], pairs)).mean())
        if at_random < max(_EASY, _CLEARLY * against / witness.sum()):
            return None
        return cls(columns, emptiness, (first, second), pairs)

    def breaks(self, table: Table) -> np.ndarray:
        places, known = [], np.ones(len(table), bool)
        for i, empty, values in zip(self.columns, self.emptiness, self.known, strict=True):
            column = _values(table, i, empty)
            place = np.searchsorted(values, column).clip(0, len(values) - 1)
            known &= values[place] == column
            places.append(place)
        return np.asarray(known & ~np.isin(places[0] * len(self.known[1]) + places[1], self.pairs))


def _values(table: Table, i: int, empty: bool) -> np.ndarray:
    """Return a column with missing as -inf, or only whether it is missing."""
    column = table.matrix[:, i]
    return np.isnan(column) if empty else np.where(np.isnan(column), -np.inf, column)


def _number_rules(table: Table, rng: np.random.Generator) -> list[Rule]:
    """Return equations and orders between columns of numbers, or of instants."""
    rules: list[Rule] = []
    equal: set[int] = set()
    for kinds in (("integer", "number"), ("timestamp",)):
        columns = [
            i
            for i, column in enumerate(table.schema)
            if column.kind in kinds
            and len(np.unique(known := table.matrix[:, i][~np.isnan(table.matrix[:, i])])) > 1
            and len(known) >= _ENOUGH
        ][:_MAX_COLUMNS]
        for i, j in combinations(columns, 2):
            rule = _equality(table, i, j)
            if rule is not None:
                equal.add(j)
                rules.append(rule)
        columns = [i for i in columns if i not in equal]
        for i, j in combinations(columns, 2):
            rules += [rule for pair in ((i, j), (j, i)) if (rule := _order(table, *pair, rng)) is not None]
        if "number" in kinds:
            rules += _equations(table, columns, rng)
    return rules


def _equality(table: Table, i: int, j: int) -> Rule | None:
    both = ~np.isnan(table.matrix[:, [i, j]]).any(axis=1)
    if both.sum() < _ENOUGH or not np.array_equal(table.matrix[both, i], table.matrix[both, j]):
        return None
    return Rule(
        f"{table.schema.names[i]} = {table.schema.names[j]}",
        lambda other: np.asarray(
            (other.matrix[:, i] != other.matrix[:, j]) & ~np.isnan(other.matrix[:, [i, j]]).any(axis=1)
        ),
    )


def _order(table: Table, i: int, j: int, rng: np.random.Generator) -> Rule | None:
    x, y = table.matrix[~np.isnan(table.matrix[:, [i, j]]).any(axis=1)][:, [i, j]].T
    if len(x) < _ENOUGH or (x > y).any() or (x > rng.permutation(y)).mean() < _CLEAR:
        return None
    return Rule(
        f"{table.schema.names[i]} at most {table.schema.names[j]}",
        lambda other: np.asarray(other.matrix[:, i] > other.matrix[:, j]),
    )


_OPERATIONS: tuple[tuple[str, Callable[[np.ndarray, np.ndarray], np.ndarray]], ...] = (
    ("x", np.multiply),
    ("+", np.add),
)


def _equations(table: Table, columns: Sequence[int], rng: np.random.Generator) -> list[Rule]:
    """Return the sums (a + b = c says also c - a = b) and products that hold in every row."""
    rules = []
    for symbol, operation in _OPERATIONS:
        for i, j in combinations(columns, 2):
            for k in columns:
                if k in (i, j):
                    continue
                known = table.matrix[~np.isnan(table.matrix[:, [i, j, k]]).any(axis=1)][:, [i, j, k]]
                step = max(1, len(known) // _PROBES)
                slack = _slack(table, (i, j, k))
                for rows in (known[::step], known):
                    off = np.abs(operation(rows[:, 0], rows[:, 1]) - rows[:, 2]) > slack
                    if off.any():
                        break
                else:
                    mixed = np.abs(operation(known[:, 0], rng.permutation(known[:, 1])) - known[:, 2]) > slack
                    if len(known) >= _ENOUGH and mixed.mean() >= _CLEAR:
                        names = [table.schema.names[c] for c in (i, j, k)]
                        text = f"{names[2]} = {names[0]} {symbol} {names[1]}"
                        rules.append(Rule(text, _equation((i, j, k), operation, slack)))
    return rules


def _equation(
    columns: tuple[int, int, int], operation: Callable[[np.ndarray, np.ndarray], np.ndarray], slack: float
) -> Callable[[Table], np.ndarray]:
    def breaks(table: Table) -> np.ndarray:
        a, b, c = table.matrix[:, list(columns)].T
        return np.asarray(np.abs(operation(a, b) - c) > slack)  # not where a value is missing

    return breaks


def _slack(table: Table, columns: Sequence[int]) -> float:
    """Return how far an equation may be off, by the rounding of its result: half a unit and a little."""
    decimals = table.schema.columns[columns[2]].decimals
    if table.schema.columns[columns[2]].kind == "integer":
        decimals = 0
    if decimals is None:
        return 1e-6 * float(np.nanmax(np.abs(table.matrix[:, columns[2]])))
    return 0.51 * 10.0**-decimals if decimals else 1e-9

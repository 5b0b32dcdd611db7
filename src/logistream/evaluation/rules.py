"""Rules that real rows keep, learned from a table.

A rule is learned only if it is easily broken: rows put together at random must break it, while each row of
the table must keep what the others show. These kinds are looked for:

- two columns of few values hold only pairs that were seen (city and state, type and status, product and
  price; of a column that may be empty: whether it is);
- a number is the sum, difference or product of two others, a sum or difference of three, a ratio or
  percentage, or the time between two timestamps;
- a number is never above another;
- two columns are equal;
- no value of a column, or no combination of two, occurs twice;
- a string begins or ends with the same letters for each value of another column.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, islice, permutations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from logistream.evaluation.numeric import NumericTable

__all__ = ["Rule", "broken", "learn_rules"]


_FEW = 0.1  # of the rows: a number with at most this share of different values has few
_MAX_COLUMNS = 60  # of each kind, so many are looked at
_FEWEST_ROWS = 100  # to which a rule applies
_MOST_EXCEPTIONS = 0.005  # of those rows: new pairs, such as a city of the same name elsewhere
_RANDOM_PAIRS = 0.02  # of rows put together at random that must break a rule of pairs
_RANDOM_NUMBERS = 0.05  # the same, for rules of numbers
_TIMES_MORE = 50  # of them, as a multiple of the share of exceptions
_TRIED_FIRST = 200  # rows on which an equation is tried before it is tried on all,
_TRIED_THREE = 24  # and so many for one of three inputs,
_MOST_OF_THREE = 24  # which so many columns may have
_REPETITIONS = 10  # that chance would give, of what occurs once only
_ENDS = (1, 2, 3, 4)  # letters at the beginning or the end


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
    breaks: Callable[[NumericTable], np.ndarray]


def broken(rules: Sequence[Rule], table: NumericTable) -> np.ndarray:
    """Return which row breaks which rule, bool of shape (n_rules, n_rows)."""
    return np.array([rule.breaks(table) for rule in rules], dtype=bool).reshape(len(rules), len(table))


def learn_rules(table: NumericTable, seed: int = 0) -> list[Rule]:
    """Return the rules that a table of real rows keeps.

    Parameters
    ----------
    table : NumericTable
        At least some hundred rows; nothing is learned from fewer than 100.
    seed : int
        For the rows put together at random.
    """
    if len(table) < _FEWEST_ROWS:
        return []
    rng = np.random.default_rng(seed)
    return [
        *_pair_rules(table, rng),
        *_number_rules(table, rng),
        *_unique_rules(table, rng),
        *_string_rules(table, rng),
    ]


def _pair_rules(table: NumericTable, rng: np.random.Generator) -> list[Rule]:
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


def _side(table: NumericTable, i: int) -> bool | None:
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
        cls, table: NumericTable, columns: tuple[int, int], emptiness: tuple[bool, bool], mixed: np.ndarray
    ) -> _PairRule | None:
        sides = [_values(table, i, empty) for i, empty in zip(columns, emptiness, strict=True)]
        (first, a, a_rows), (second, b, b_rows) = (
            np.unique(side, return_inverse=True, return_counts=True) for side in sides
        )
        pairs, position, rows = np.unique(a * len(second) + b, return_inverse=True, return_counts=True)
        applies = (a_rows[a] > 1) & (b_rows[b] > 1)
        exceptions = int((applies & (rows[position] == 1)).sum())
        if applies.sum() < _FEWEST_ROWS or exceptions > _MOST_EXCEPTIONS * applies.sum():
            return None
        at_random = float((~np.isin(a * len(second) + b[mixed], pairs)).mean())
        if at_random < max(_RANDOM_PAIRS, _TIMES_MORE * exceptions / applies.sum()):
            return None
        return cls(columns, emptiness, (first, second), pairs)

    def breaks(self, table: NumericTable) -> np.ndarray:
        positions, known = [], np.ones(len(table), bool)
        for i, empty, values in zip(self.columns, self.emptiness, self.known, strict=True):
            column = _values(table, i, empty)
            position = np.searchsorted(values, column).clip(0, len(values) - 1)
            known &= values[position] == column
            positions.append(position)
        return np.asarray(known & ~np.isin(positions[0] * len(self.known[1]) + positions[1], self.pairs))


def _values(table: NumericTable, i: int, empty: bool) -> np.ndarray:
    """Return a column with missing as -inf, or only whether it is missing."""
    column = table.matrix[:, i]
    return np.isnan(column) if empty else np.where(np.isnan(column), -np.inf, column)


def _number_rules(table: NumericTable, rng: np.random.Generator) -> list[Rule]:
    """Return equations and orders between columns of numbers, or of timestamps."""
    rules: list[Rule] = []
    equal: set[int] = set()
    for kinds in (("integer", "number"), ("timestamp",)):
        columns = [
            i
            for i, column in enumerate(table.schema)
            if column.kind in kinds
            and len(np.unique(known := table.matrix[:, i][~np.isnan(table.matrix[:, i])])) > 1
            and len(known) >= _FEWEST_ROWS
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
            rules += _further_equations(table, columns, rng)
    return rules


def _equality(table: NumericTable, i: int, j: int) -> Rule | None:
    both = ~np.isnan(table.matrix[:, [i, j]]).any(axis=1)
    if both.sum() < _FEWEST_ROWS or not np.array_equal(table.matrix[both, i], table.matrix[both, j]):
        return None
    return Rule(
        f"{table.schema.names[i]} = {table.schema.names[j]}",
        lambda other: np.asarray(
            (other.matrix[:, i] != other.matrix[:, j]) & ~np.isnan(other.matrix[:, [i, j]]).any(axis=1)
        ),
    )


def _order(table: NumericTable, i: int, j: int, rng: np.random.Generator) -> Rule | None:
    x, y = table.matrix[~np.isnan(table.matrix[:, [i, j]]).any(axis=1)][:, [i, j]].T
    if len(x) < _FEWEST_ROWS or (x > y).any() or (x > rng.permutation(y)).mean() < _RANDOM_NUMBERS:
        return None
    return Rule(
        f"{table.schema.names[i]} at most {table.schema.names[j]}",
        lambda other: np.asarray(other.matrix[:, i] > other.matrix[:, j]),  # not where a value is missing
    )


_OPERATIONS: tuple[tuple[str, Callable[[np.ndarray, np.ndarray], np.ndarray]], ...] = (
    ("x", np.multiply),
    ("+", np.add),
)


def _equations(table: NumericTable, columns: list[int], rng: np.random.Generator) -> list[Rule]:
    """Return the sums (a + b = c is also the difference c - a = b) and products that hold in every row."""
    rules = []
    few = table.matrix[:: max(1, len(table) // _TRIED_FIRST)]
    slack = np.array([_slack(table, k) for k in columns])
    for symbol, operation in _OPERATIONS:
        for i, j in combinations(columns, 2):
            off = np.abs(operation(few[:, i], few[:, j])[:, None] - few[:, columns]) > slack
            for k, tolerance in zip(columns, slack, strict=True):
                if k in (i, j) or off[:, columns.index(k)].any():
                    continue
                known = table.matrix[~np.isnan(table.matrix[:, [i, j, k]]).any(axis=1)][:, [i, j, k]]
                mixed = np.column_stack([known[:, 0], rng.permutation(known[:, 1]), known[:, 2]])
                wrong, easily = (
                    np.abs(operation(rows[:, 0], rows[:, 1]) - rows[:, 2]) > tolerance
                    for rows in (known, mixed)
                )
                if len(known) >= _FEWEST_ROWS and not wrong.any() and easily.mean() >= _RANDOM_NUMBERS:
                    names = [table.schema.names[c] for c in (i, j, k)]
                    text = f"{names[2]} = {names[0]} {symbol} {names[1]}"
                    rules.append(Rule(text, _equation((i, j, k), operation, tolerance)))
    return rules


def _equation(
    columns: tuple[int, int, int], operation: Callable[[np.ndarray, np.ndarray], np.ndarray], slack: float
) -> Callable[[NumericTable], np.ndarray]:
    def breaks(table: NumericTable) -> np.ndarray:
        a, b, c = table.matrix[:, list(columns)].T
        return np.asarray(np.abs(operation(a, b) - c) > slack)  # not where a value is missing

    return breaks


def _slack(table: NumericTable, result: int) -> float:
    """Return how far an equation may be off, by the rounding of its result: half a unit and a little."""
    column = table.schema.columns[result]
    if column.kind == "integer" or column.decimals == 0:
        return 1e-9
    if column.decimals is None:
        return 1e-6 * float(np.nanmax(np.abs(table.matrix[:, result])))
    return 0.51 * 10.0**-column.decimals


def _further_equations(table: NumericTable, columns: list[int], rng: np.random.Generator) -> list[Rule]:
    """Return sums of three, ratios, percentages and durations that hold in every row."""
    names, rules = table.schema.names, []
    slack = {k: _slack(table, k) for k in columns}
    few = table.matrix[:: max(1, len(table) // _TRIED_FIRST)]

    def fits(made: np.ndarray, k: int, rows: np.ndarray) -> bool:
        return not (np.abs(made - rows[:, k]) > slack[k] * (1 + 1e-9)).any()

    def learned(text: str, inputs: tuple[int, ...], k: int, made: Callable[[np.ndarray], np.ndarray]) -> None:
        rows = table.matrix[~np.isnan(table.matrix[:, [*inputs, k]]).any(axis=1)]
        off = np.abs(made(rows) - rows[:, k]) > slack[k] * (1 + 1e-9)
        easily = np.abs(made(rows[rng.permutation(len(rows))]) - rows[:, k]) > slack[k]
        if len(rows) >= _FEWEST_ROWS and not off.any() and easily.mean() >= _RANDOM_NUMBERS:
            rules.append(
                Rule(
                    f"{names[k]} = {text}",
                    lambda other: np.asarray(
                        np.abs(made(other.matrix) - other.matrix[:, k]) > slack[k] * 1.01
                    ),
                )
            )

    with np.errstate(all="ignore"):
        for i, j in combinations(columns, 2):
            for a, b in ((i, j), (j, i)):
                if (table.matrix[:, b] == 0).any():
                    continue
                for scale, sign in ((1.0, ""), (100.0, "100 x ")):
                    made = _ratio(a, b, scale)
                    for k in columns:
                        product = few[:, b] * few[:, k] / scale
                        if k in (a, b) or not (np.abs(product - few[:, a]) > slack[a]).any():
                            continue  # it is the product already
                        if fits(made(few), k, few):
                            learned(f"{sign}{names[a]} / {names[b]}", (a, b), k, made)
        times = [i for i, column in enumerate(table.schema) if column.kind == "timestamp"]
        for i, j in permutations(times, 2):
            for unit, word in _UNITS:
                made = _elapsed(i, j, unit)
                for k in columns:
                    if fits(made(few), k, few):
                        learned(f"{names[i]} - {names[j]} in {word}", (i, j), k, made)
        first = columns[:_MOST_OF_THREE]
        tried = table.matrix[:: max(1, len(table) // _TRIED_THREE)][:, first]
        off_by = np.array([slack[k] for k in first])
        for (p, i), (q, j) in combinations(enumerate(first), 2):
            for s in (1, -1):
                pair = tried[:, p] + s * tried[:, q]
                off = np.abs(pair[:, None, None] + tried[:, :, None] - tried[:, None, :]) > off_by
                for d, k in np.argwhere(~off.any(axis=0)).tolist():
                    if len({p, q, d, k}) == 4 and (d > q if s > 0 else d > p):
                        made = _sum_of_three(i, j, first[d], s)
                        sign = "+" if s > 0 else "-"
                        learned(
                            f"{names[i]} {sign} {names[j]} + {names[first[d]]}",
                            (i, j, first[d]),
                            first[k],
                            made,
                        )
    return rules


_UNITS = ((1e6, "seconds"), (60e6, "minutes"), (3600e6, "hours"), (86_400e6, "days"))


def _ratio(a: int, b: int, scale: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda rows: np.asarray(scale * rows[:, a] / rows[:, b])


def _elapsed(i: int, j: int, unit: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda rows: np.asarray((rows[:, i] - rows[:, j]) / unit)


def _sum_of_three(i: int, j: int, d: int, sign: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda rows: np.asarray(rows[:, i] + sign * rows[:, j] + rows[:, d])


def _unique_rules(table: NumericTable, rng: np.random.Generator) -> list[Rule]:
    """Return the columns, and the pairs of columns, of which nothing occurs twice, though chance would."""
    rules: list[Rule] = []
    columns = [
        i
        for i, column in enumerate(table.schema)
        if column.kind in ("category", "integer") and (~np.isnan(table.matrix[:, i])).sum() >= _FEWEST_ROWS
    ][:_MAX_COLUMNS]
    different, most, alone = {}, {}, set()
    for i in columns:
        known = table.matrix[~np.isnan(table.matrix[:, i]), i]
        counts = np.unique(known, return_counts=True)[1]
        different[i], most[i] = len(counts), int(counts.max())
        if most[i] == 1:
            alone.add(i)
            chance = len(known) ** 2 / 2 / max(float(np.ptp(known)), 1.0)
            if table.discrete[i] or chance >= _REPETITIONS:
                rules.append(Rule(f"{table.schema.names[i]}: no value twice", _repeats((i,))))
    for i, j in combinations([i for i in columns if i not in alone], 2):
        if most[i] > different[j] or most[j] > different[i]:
            continue
        known = table.matrix[~np.isnan(table.matrix[:, [i, j]]).any(axis=1)][:, [i, j]]
        mixed = np.column_stack([known[:, 0], rng.permutation(known[:, 1])])
        repeated = [len(rows) - len(np.unique(rows, axis=0)) for rows in (known, mixed)]
        if len(known) >= _FEWEST_ROWS and repeated[0] == 0 and repeated[1] >= _REPETITIONS:
            text = f"{table.schema.names[i]} with {table.schema.names[j]}: no pair twice"
            rules.append(Rule(text, _repeats((i, j))))
    return rules


def _repeats(columns: tuple[int, ...]) -> Callable[[NumericTable], np.ndarray]:
    def breaks(table: NumericTable) -> np.ndarray:
        part = pd.DataFrame(table.matrix[:, list(columns)])
        return np.asarray(part.duplicated() & part.notna().all(axis=1))

    return breaks


def _string_rules(table: NumericTable, rng: np.random.Generator) -> list[Rule]:
    """Return which strings begin or end with the same letters for each value of another column."""
    rules = []
    sides = {i: _Groups.of(table, i) for i in range(len(table.schema)) if _side(table, i) is False}
    for i, column in enumerate(table.schema):
        known = ~np.isnan(table.matrix[:, i])
        if column.kind != "category" or known.sum() < _FEWEST_ROWS:
            continue
        _, first, codes = np.unique(table.matrix[known, i], return_index=True, return_inverse=True)
        strings = table.frame.iloc[np.flatnonzero(known)[first], i].astype("str").tolist()
        string = np.full(len(table), -1)
        string[known] = codes
        for j, groups in islice(sides.items(), _MAX_COLUMNS):
            if j == i or len(rows := groups.rows[known[groups.rows]]) < _FEWEST_ROWS:
                continue
            values = groups.value[rows]
            if _constant(string[rows], values):
                continue
            for begins in (True, False):
                for n in reversed(_ENDS):
                    end = slice(0, n) if begins else slice(-n, None)
                    part_of, ends = pd.factorize(np.array([each[end] for each in strings], dtype=object))
                    parts = part_of[string[rows]]
                    if not _constant(parts, values):
                        continue
                    pairs = np.unique(values * len(ends) + rng.permutation(parts))
                    if len(pairs) - len(np.unique(values)) >= _REPETITIONS:
                        known_parts = dict(zip(table.matrix[rows, j].tolist(), ends[parts], strict=True))
                        where = "begins" if begins else "ends"
                        text = f"{column.name} {where} as {table.schema.names[j]} has it"
                        rules.append(Rule(text, _other_part(i, j, end, known_parts)))
                    break
    return rules


@dataclass(frozen=True, slots=True)
class _Groups:
    """The rows that have a value of a column, those of one value together."""

    rows: np.ndarray
    value: np.ndarray  # (n_rows of the table,) which value each row has, by number

    @classmethod
    def of(cls, table: NumericTable, i: int) -> _Groups:
        value = np.unique(table.matrix[:, i], return_inverse=True)[1]
        order = np.argsort(value, kind="stable")
        return cls(order[~np.isnan(table.matrix[order, i])], value)


def _constant(parts: np.ndarray, values: np.ndarray) -> bool:
    """Return whether each value has one part only, where the rows of a value lie together."""
    return not ((values[1:] == values[:-1]) & (parts[1:] != parts[:-1])).any()


def _other_part(i: int, j: int, end: slice, known: dict[float, str]) -> Callable[[NumericTable], np.ndarray]:
    def breaks(table: NumericTable) -> np.ndarray:
        strings = table.frame.iloc[:, i].astype("str").to_numpy(dtype=object)
        there = ~np.isnan(table.matrix[:, i])
        return np.array(
            [
                bool(has and value in known and string[end] != known[value])
                for has, string, value in zip(there, strings, table.matrix[:, j].tolist(), strict=True)
            ]
        )

    return breaks

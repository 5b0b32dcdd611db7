"""The variables in the order of drawing, and which earlier ones each must keep to.

Whatever a variable determines (a city its state), and whatever it is associated with, that is, occurs with in
certain combinations only (a product with its price), is drawn before it, and each of those values begins a
branch of its tree: no combination is drawn that does not occur. So places come from the large to the small,
and dependence on other variables is seen in few large groups where it is lost in many small ones.

Functional dependencies and associations must hold in far more rows than chance would allow after so many
tries.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from logistream.errors import DataError
from logistream.fitting.branches import combine
from logistream.fitting.classes import find_classes
from logistream.fitting.coding import SMALLEST_GROUP, code_together
from logistream.fitting.exceptions import NEARLY_ALL
from logistream.model.network import Rule, missing_name
from logistream.model.random_bits import permutation

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from logistream.fitting.coding import Coded
    from logistream.model.network import Factor

__all__ = ["Step", "find_associations", "find_dependencies", "find_keys", "find_steps"]

_ALPHA = 1e-3  # chance that one is found in a table that has none
_FEW_COMBINATIONS = 0.75  # of those that shuffled columns have: a pair with fewer is associated
_BARRED = 0.02  # of all rows, at least: what independence would put into cells that are empty
_SMALL = 0.1  # share of the rows in combinations of fewer rows than the smallest group
_RECURRING = 0.9  # share of the rows of an associated pair whose combination recurs
_MOST_BRANCHES = 2**14  # cells of the table of values that a variable must keep to
_MOST_CELLS = 4_000_000  # of a table of two variables
_LEAST_ROWS = 50  # whose key recurs
_BEYOND_CHANCE = 0.8  # of the rows that do not have the commonest value, a dependency must explain so many
_NAMESAKES = (
    0.05  # of what chance would do: a variable that occurs less often with another value determines it
)


@dataclass(frozen=True, slots=True)
class Step:
    """One variable, to be drawn.

    Parameters
    ----------
    variable : Coded
        What is drawn.
    within : tuple of str
        Earlier variables whose every value begins a branch.
    functional : int
        How many of these, the first ones, are functional dependencies: determined by the variable, or by
        another one together with it.
    factor : Factor or None
        For a combination of two earlier variables: what looks it up.
    """

    variable: Coded
    within: tuple[str, ...] = ()
    functional: int = 0
    factor: Factor | None = None


def find_steps(
    coded: Mapping[str, Coded],
    together: Sequence[Sequence[str]] = (),
    keys: Mapping[str, Sequence[str]] | None = None,
    dependencies: Sequence[Rule] = (),
    given: Mapping[str, Step] | None = None,
) -> list[Step]:
    """Return all variables in the order of drawing.

    Parameters
    ----------
    coded : mapping of str to Coded
        The variables by name.
    together, keys
        As for `logistream.fit`.
    dependencies : sequence of Rule
        Functional dependencies, which may have exceptions.
    given : mapping of str to Step, optional
        Variables whose step is known.

    Raises
    ------
    DataError
        If those cannot be or do not hold.
    """
    exact = {name: variable for name, variable in coded.items() if variable.exact}
    determines = find_keys(exact)
    for name, others in (keys or {}).items():
        determines[name] = _checked_key(name, others, exact)
    strength = _strengths(coded, exact, determines, together)
    for rule in dependencies:
        strength.setdefault(frozenset(rule.columns), 1.0)
    pairs = [tuple(pair) for pair in strength]
    classed = {
        a for pair in pairs for a, b in (pair, pair[::-1]) if a in exact and _determines(exact[a], coded[b])
    }
    classed |= {name for key, others in determines.items() for name in (key, *others)}
    for name, values in find_classes(coded, {*coded} - classed).items():
        coded, exact = {**coded, values.name: values}, {**exact, values.name: values}
        determines[name] = (values.name,)
        strength[frozenset((name, values.name))] = 2.0
    of_one_key = {
        frozenset(pair) for others in determines.values() for pair in itertools.combinations(others, 2)
    }
    composed = {
        name for name, others in determines.items() if name in exact and _composed(exact, name, others)
    }
    order = sorted(
        coded,
        key=lambda name: (
            not (coded[name].instant or name in composed),
            not coded[name].exact,
            coded[name].size if coded[name].exact else 0,
        ),
    )
    steps: list[Step] = []
    known = given or {}
    order.sort(key=lambda name: name in known)
    for i, name in enumerate(order):
        if name in known:
            steps.append(known[name])
            continue
        partners = [other for other in order[:i] if frozenset((name, other)) in strength]
        partners.sort(key=lambda other: -strength[frozenset((name, other))])
        implied = {other for partner in partners for other in determines.get(partner, ())}
        partners = [other for other in partners if other not in implied]
        functional = [
            other
            for other in partners
            if frozenset((name, other)) in of_one_key or _determines(coded[name], coded[other])
        ]
        associated = [other for other in partners if other not in functional]
        within = [coded[other] for other in (*functional, *associated)]
        count = _combined(within, len(functional), steps)
        steps.append(Step(coded[name], tuple(variable.name for variable in within), count))
    return steps


def _strengths(
    coded: Mapping[str, Coded],
    exact: Mapping[str, Coded],
    determines: Mapping[str, Sequence[str]],
    together: Sequence[Sequence[str]],
) -> dict[frozenset[str], float]:
    """Return all pairs that must keep to each other, with how strongly they do."""
    strength = find_associations(exact)
    for group in together:
        for name in group:
            _require(name, exact, "together")
        strength |= {frozenset((a, b)): 1.0 for a in group for b in group if a != b}
    for name, others in determines.items():
        strength |= {frozenset((name, other)): 2.0 for other in others}
    for name in coded:
        if missing_name(name) in coded and not coded[missing_name(name)].emissions:
            strength[frozenset((name, missing_name(name)))] = 2.0
    return strength


def _combined(within: list[Coded], functional: int, steps: list[Step]) -> int:
    """Combine variables until the table of their combinations is small; return how many are functional.

    `within` is changed in place; a step is added for each combination that is not there yet.
    """
    while math.prod(variable.size for variable in within) > _MOST_BRANCHES and len(within) > 1:
        at = functional - 2 if functional > 1 else len(within) - 2
        other, weakest = within[at : at + 2]
        both, factor = combine(other, weakest, 1 if functional > 1 else SMALLEST_GROUP)
        functional = functional - 1 if functional > 1 else min(functional, at)
        known = next((step.variable for step in steps if step.variable.name == both.name), None)
        if known is None:
            steps.append(Step(both, (other.name, weakest.name), factor=factor))
        within[at : at + 2] = [known or both]
    return functional


def find_keys(coded: Mapping[str, Coded]) -> dict[str, tuple[str, ...]]:
    """Return for each variable those that it determines: each of its codes occurs with one of theirs.

    Two that determine each other are given once, by the one that comes first.
    """
    names = list(coded)
    n = len(next(iter(coded.values())).codes) if coded else 0
    codes = np.stack([coded[name].codes for name in names], axis=1) if names else np.empty((0, 0), np.int64)
    sizes = [coded[name].size for name in names]
    # log chance that another row of the same code agrees, were the two independent
    agree = [2 * np.log(np.linalg.norm(np.bincount(codes[:, j]) / n)) for j in range(len(names))]
    threshold = math.log(_ALPHA / max(len(names) ** 2, 1))
    keys: dict[str, tuple[str, ...]] = {}
    for i, name in enumerate(names):
        if sizes[i] < 2:
            continue
        order = np.argsort(codes[:, i], kind="stable")
        ranked = codes[order]
        same = ranked[1:, i] == ranked[:-1, i]
        holds = (ranked[1:][same] == ranked[:-1][same]).all(axis=0)
        again = int(same.sum())
        keys[name] = tuple(
            other
            for j, other in enumerate(names)
            if j != i
            and holds[j]
            and sizes[j] > 1
            and again * agree[j] < threshold
            and (sizes[j] < sizes[i] or (sizes[j] == sizes[i] and i < j))
        )
    return {name: others for name, others in keys.items() if others}


def find_dependencies(coded: Mapping[str, Coded], table: Collection[str]) -> list[Rule]:
    """Return which columns of few values determine which others, in all or nearly all rows, gaps aside.

    It is counted in the rows whose value recurs, since others say nothing: those that have the commonest
    value of the other column beside it.

    Parameters
    ----------
    coded : mapping of str to Coded
        Variables whose every code is a single value, by name.
    table : collection of str
        The columns that are looked at.
    """
    known = {name: variable for name, variable in coded.items() if name in table and variable.size > 1}
    found = []
    for (name, key), (other, variable) in itertools.permutations(known.items(), 2):
        if key.size < variable.size or key.size * variable.size > _MOST_CELLS:
            continue
        cells = np.bincount(key.codes * variable.size + variable.codes, minlength=key.size * variable.size)
        pairs = cells.reshape(key.size, variable.size)
        pairs = np.delete(pairs, [] if key.missing_code is None else key.missing_code, axis=0)
        pairs = np.delete(pairs, [] if variable.missing_code is None else variable.missing_code, axis=1)
        pairs = pairs[pairs.sum(axis=1) > 1]
        checked = int(pairs.sum())
        if checked < _LEAST_ROWS or min(pairs.shape) < 2:
            continue
        held, commonest = int(pairs.max(axis=1).sum()), int(pairs.sum(axis=0).max())
        least = max(NEARLY_ALL * checked, commonest + _BEYOND_CHANCE * (checked - commonest))
        if held >= least and (pairs.sum(axis=0) > 0).sum() > 1:
            found.append(Rule("functional dependency", (name, other), held, checked))
    place = {name: i for i, name in enumerate(known)}
    both = {rule.columns for rule in found}  # of two that determine each other the first does
    return [r for r in found if r.columns[::-1] not in both or place[r.columns[0]] < place[r.columns[1]]]


def find_associations(coded: Mapping[str, Coded]) -> dict[frozenset[str], float]:
    """Return the pairs of variables that occur in certain combinations only, with how many they avoid.

    Parameters
    ----------
    coded : mapping of str to Coded
        Variables whose every code is a single value.

    Returns
    -------
    dict of frozenset of two str to float
        The share of combinations, or of rows, that the pair would have were the two independent and has not.
    """
    varied = [name for name, variable in coded.items() if variable.size > 1 and not variable.instant]
    tries = max(len(varied) * (len(varied) - 1) // 2, 1)
    n = len(coded[varied[0]].codes) if varied else 0
    shuffled = permutation(n)
    recurs = {name: np.bincount(coded[name].codes)[coded[name].codes] > 1 for name in varied}
    found = {}
    for a, b in itertools.combinations(varied, 2):
        strength = _avoided(coded[a], coded[b], tries, recurs[a] & recurs[b], shuffled)
        if strength > 0:
            found[frozenset((a, b))] = strength
    return found


def _avoided(a: Coded, b: Coded, tries: int, again: np.ndarray, shuffled: np.ndarray) -> float:
    """Return the share of combinations, or of rows, that two variables avoid; 0 if little or by chance.

    It is 0 as well for two numbers of many combinations of few rows: nothing else could be seen in branches
    of those, while the splits of a tree keep such numbers near each other.
    """
    n, cells = len(a.codes), a.size * b.size
    both = a.codes * b.size + b.codes
    if cells <= 4 * n:
        counts = np.bincount(both, minlength=cells)
        table = counts.reshape(a.size, b.size)
        found, times = int(np.count_nonzero(counts)), counts[both]
        if found < cells and not (a.ordered and b.ordered and (times < SMALLEST_GROUP).mean() > _SMALL):
            expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / n
            barred = float(expected[(table == 0) & (expected > math.log(cells * tries / _ALPHA))].sum() / n)
            if barred >= _BARRED:
                return barred
    else:
        _, combination, counts = np.unique(both, return_inverse=True, return_counts=True)
        found, times = len(counts), counts[combination]
    if a.ordered and b.ordered and (times < SMALLEST_GROUP).mean() > _SMALL:
        return 0.0
    if not again.any() or (times > 1)[again].mean() < _RECURRING:
        return 0.0
    by_chance = a.codes * b.size + b.codes[shuffled]
    possible = np.count_nonzero(np.bincount(by_chance)) if cells <= 4 * n else len(np.unique(by_chance))
    return float(1 - found / possible) if found < _FEW_COMBINATIONS * possible else 0.0


def _composed(exact: Mapping[str, Coded], name: str, others: Sequence[str]) -> bool:
    """Return whether a number is composed of others, as a date is of year and month.

    Such a number is drawn first, as timestamps are: its parts follow from it, while parts that are drawn one
    by one can make a number that never occurs.
    """
    parts = [exact[other] for other in others if exact[other].ordered]
    variable = exact[name]
    if not variable.ordered or len(parts) < 2:
        return False
    first = np.unique(variable.codes, return_index=True)[1]
    rising = any(bool((np.diff(part.codes[first]) >= 0).all()) for part in parts)
    return rising and code_together(parts).size == variable.size


def _determines(variable: Coded, other: Coded) -> bool:
    """Return whether each code occurs with a single one of another variable, except for namesakes.

    It is counted in the rows whose code recurs: how often it occurs with another than the commonest there.
    """
    pairs, counts = np.unique(variable.codes * other.size + other.codes, return_counts=True)
    first = np.flatnonzero(np.diff(pairs // other.size, prepend=-1))
    rows, most = np.add.reduceat(counts, first), np.maximum.reduceat(counts, first)
    by_chance = 1 - float(((np.bincount(other.codes) / len(other.codes)) ** 2).sum())
    return bool((rows > 1).any() and (rows - most).sum() <= _NAMESAKES * by_chance * (rows - 1).sum())


def _require(name: str, exact: Mapping[str, Coded], option: str) -> None:
    if name not in exact:
        raise DataError(
            f"{option}: {name!r} is no column of few values that is drawn; there are {', '.join(exact)}"
        )


def _checked_key(name: str, others: Sequence[str], exact: Mapping[str, Coded]) -> tuple[str, ...]:
    """Return what the caller says that a column determines, after checking that it does."""
    for column in (name, *others):
        _require(column, exact, "keys")
    for other in others:
        pairs = np.unique(np.stack([exact[name].codes, exact[other].codes], axis=1), axis=0)
        more = len(pairs) - len(np.unique(pairs[:, 0]))
        if more:
            raise DataError(
                f"keys: {name!r} does not determine {other!r}: {more:,} values occur with several of it"
            )
    return tuple(others)

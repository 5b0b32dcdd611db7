"""The variables in the order of drawing, and which earlier ones each must keep to.

Whatever a variable determines (a city its state), and whatever it only occurs with in certain combinations
(a product with its price), is drawn before it, and each of those values begins a branch of its tree: no
combination is drawn that does not occur. So places come from the large to the small, and dependence on
other variables is seen in few large groups where it is lost in many small ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from logistream.coding import code_together, missing_name
from logistream.errors import DataError
from logistream.structure import find_keys, find_links

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from logistream.coding import Coded

__all__ = ["Step", "find_steps"]

_MOST_BRANCHES = 2**14  # cells of the table of values that a variable must keep to


@dataclass(frozen=True, slots=True)
class Step:
    """One variable, to be drawn.

    Parameters
    ----------
    variable : Coded
        What is drawn.
    within : tuple of str
        Earlier variables whose every value begins a branch.
    """

    variable: Coded
    within: tuple[str, ...] = ()


def find_steps(
    coded: Mapping[str, Coded],
    together: Sequence[Sequence[str]] = (),
    keys: Mapping[str, Sequence[str]] | None = None,
) -> list[Step]:
    """Return all variables in the order of drawing.

    Parameters
    ----------
    coded : mapping of str to Coded
        The variables by name.
    together, keys
        What the caller of `fit` says of them.

    Raises
    ------
    DataError
        If that cannot be or does not hold.
    """
    exact = {name: variable for name, variable in coded.items() if variable.exact}
    determines = find_keys(exact)
    for name, others in (keys or {}).items():
        determines[name] = _checked_key(name, others, exact)
    links = find_links(exact)
    for group in together:
        for name in group:
            _require(name, exact, "together")
        links |= {frozenset((a, b)): 1.0 for a in group for b in group if a != b}
    for name, others in determines.items():
        links |= {frozenset((name, other)): 2.0 for other in others}
    for name in coded:
        if missing_name(name) in coded:
            links[frozenset((name, missing_name(name)))] = 2.0
    order = sorted(
        coded,
        key=lambda name: (
            not coded[name].instant,
            not coded[name].exact,
            coded[name].size if coded[name].exact else 0,
        ),
    )
    steps: list[Step] = []
    for i, name in enumerate(order):
        partners = [other for other in order[:i] if frozenset((name, other)) in links]
        partners.sort(key=lambda other: -links[frozenset((name, other))])
        implied = {other for partner in partners for other in determines.get(partner, ())}
        within = [coded[other] for other in partners if other not in implied]
        while math.prod(variable.size for variable in within) > _MOST_BRANCHES and len(within) > 1:
            *within, other, weakest = within
            both = _combination(other, weakest)
            if not any(step.variable.name == both.name for step in steps):
                steps.append(Step(both, (other.name, weakest.name)))
            within.append(both)
        steps.append(Step(coded[name], tuple(variable.name for variable in within)))
    return steps


def _combination(a: Coded, b: Coded) -> Coded:
    """Return the combinations of two variables that occur, as a variable that gives no columns.

    It is fixed by the two, and keeps the table of what is drawn within both small.
    """
    both = code_together([a, b])
    return replace(both.named(f"{a.name} with {b.name}"), ordered=False, instant=False)


def _require(name: str, exact: Mapping[str, Coded], option: str) -> None:
    if name not in exact:
        raise DataError(
            f"{option}: {name!r} is no column of few values that is drawn; there are {', '.join(exact)}"
        )


def _checked_key(name: str, others: Sequence[str], exact: Mapping[str, Coded]) -> tuple[str, ...]:
    """Return what the caller says a column determines, after checking that it does."""
    for column in (name, *others):
        _require(column, exact, "keys")
    for other in others:
        pairs = np.unique(np.stack([exact[name].codes, exact[other].codes], axis=1), axis=0)
        more = len(pairs) - len(np.unique(pairs[:, 0]))
        if more:
            raise DataError(
                f"keys: {name!r} does not determine {other!r}: {more:,} values go with several of it"
            )
    return tuple(others)

"""Exceptions to a rule that nearly all rows keep, as a variable to be drawn.

A rule that holds in at least `NEARLY_ALL` of the rows is kept, and so are its exceptions. One variable tells
whether an event is an exception, and what its value is then: how far it is off, or a value of its own. As
everywhere, no range of values stands for fewer than five rows; where there are fewer exceptions, their ranges
are those of a larger reference.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from logistream.fitting.coding import SMALLEST_GROUP, Coded, code_grouped
from logistream.model.network import Emission
from logistream.model.random_bits import permutation

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["NEARLY_ALL", "code_exceptions", "fresh_name", "own_values"]


NEARLY_ALL = 0.95
"""Share of the rows in which a rule must hold, at least, so that it is kept with its exceptions."""

_FEW_VALUES = 0.5  # of the others: the values of their own that exceptions take if they are no corrections


def own_values(values: np.ndarray, computed: np.ndarray) -> bool:
    """Return whether exceptions have values of their own, rather than being off by a correction.

    They have if their values are fewer than their corrections, or if they are no nearer to what the rule
    gives for them than to what it gives for other exceptions.

    Parameters
    ----------
    values, computed : ndarray of shape (n_exceptions,)
        The values, and what the rule gives.
    """
    off = values - computed
    different, corrections = len(np.unique(values)), len(np.unique(np.round(off, 9)))
    if len(values) < SMALLEST_GROUP or different <= _FEW_VALUES * corrections:
        return True
    if corrections <= _FEW_VALUES * different:
        return False
    apart = np.abs(values - computed[permutation(len(values), 5)])
    return bool(np.median(np.abs(off)) >= np.median(apart) / 2)


def code_exceptions(
    name: str,
    off: np.ndarray,
    checked: np.ndarray,
    values: np.ndarray,
    reference: np.ndarray,
    quantum: tuple[int, int] | None,
) -> tuple[Coded, str, str]:
    """Return exceptions as a variable, and the names under which it gives flag and value.

    Parameters
    ----------
    name : str
        What to call it.
    off : ndarray of bool of shape (n_rows,)
        Which rows are exceptions.
    checked : ndarray of bool of shape (n_rows,)
        In which rows that is known. Of the others as many become exceptions.
    values : ndarray of shape (n_exceptions,)
        The values of the exceptions: int64 multiples of the quantum, or float64 where there is none.
    reference : ndarray of shape (n_values,)
        Values of which ranges are made where there are fewer exceptions than the smallest group.
    quantum : tuple of (int, int) or None
        Numerator and denominator of the quantum.
    """
    n = len(values)
    pool = values if n >= SMALLEST_GROUP else np.concatenate([values, reference])
    coded = code_grouped(name, pool, quantum)
    used, places = np.unique(coded.codes[:n], return_inverse=True)
    flag, (emission,) = f"{name} or not", coded.emissions
    regular = np.zeros(1, emission.low.dtype)
    codes = np.zeros(len(off), np.int64)
    codes[off] = 1 + places.reshape(-1)
    known = codes[checked]
    codes[~checked] = known[permutation(len(known), 6)][np.arange((~checked).sum()) % len(known)]

    def with_regular(part: np.ndarray | None) -> np.ndarray | None:
        return None if part is None else np.concatenate([regular, part[used]])

    value = replace(
        emission,
        low=np.concatenate([regular, emission.low[used]]),
        high=with_regular(emission.high),
        step=None if emission.step is None else np.concatenate([emission.step[:1], emission.step[used]]),
    )
    flags = Emission(flag, (np.arange(1 + len(used)) > 0).astype(np.int64))
    return Coded(name, codes, 1 + len(used), False, (flags, value)), flag, name


def fresh_name(name: str, taken: Collection[str]) -> str:
    """Return a name that no column has."""
    while name in taken:
        name += " *"
    return name

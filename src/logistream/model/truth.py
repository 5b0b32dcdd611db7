"""What is true of each event, computed and not kept: its scenarios, its twin, and how probable a yes was."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from logistream.dataco import TARGET, are_orders, booked_columns
from logistream.errors import RequestError
from logistream.model.effects import EffectsSampler
from logistream.model.elimination import eliminate_exactly
from logistream.model.posterior import Posterior, Rows, multiplied, yes_codes
from logistream.model.sampling import BLOCK

if TYPE_CHECKING:
    from collections.abc import Collection

    from logistream.model.mixture import Mixture
    from logistream.model.network import Network

__all__ = ["PROBABILITY", "find_target", "probability", "truth", "twin_values"]

PROBABILITY = "late_probability"
"""The column of the truth that holds the probability of a yes."""


def find_target(network: Network, target: str | None) -> str | None:
    """Return the column of yes and no whose probability is meant; None if there is none.

    Raises
    ------
    RequestError
        If the column that is given has no yes and no, or if none is given and there are several.
    """
    if target is not None:
        yes_codes(network, target)
        return target
    if are_orders(network.schema):
        return TARGET
    found = [column.name for column in network.schema if column.kind == "boolean"]
    if len(found) > 1:
        raise RequestError(f"several columns have yes and no: name one as target: {', '.join(found)}")
    return found[0] if found else None


def truth(
    mixture: Mixture,
    start: int,
    stop: int,
    strengths: np.ndarray,
    *,
    target: str | None = None,
    times: np.ndarray | None = None,
) -> pd.DataFrame:
    """Return what is true of events `start` to `stop` (exclusive).

    Parameters
    ----------
    mixture : Mixture
        The events under scenarios.
    start, stop : int
        Event numbers.
    strengths : ndarray of shape (n_scenarios, stop - start)
        How strong each scenario is at each event.
    target : str, optional
        The column of yes and no; see `find_target`.
    times : ndarray of int64 of shape (stop - start,), optional
        Event times in microseconds since 1970 UTC, in a stream.

    Returns
    -------
    DataFrame of shape (stop - start, 6), or (stop - start, 5) without a column of yes and no
        The columns of `Model.truth`.

    Raises
    ------
    RequestError
        If the probability cannot be exact.
    """
    model = mixture.baseline.model
    patterns = mixture.patterns(start, stop, strengths)
    names = [scenario.name for scenario in mixture.scenarios]
    events, twins = mixture.batch_and_twins(start, stop, strengths, times)
    frame = pd.DataFrame(
        {
            "event_number": np.arange(start, stop),
            "strength": strengths.max(axis=0, initial=0.0),
            "scenario": pd.Series(
                ["; ".join(n for i, n in enumerate(names) if p >> i & 1) or None for p in patterns.tolist()],
                dtype="str",
            ),
            "in_force": pd.Series(_in_force(names, strengths), dtype="object"),
            "twin": pd.Series(twin_values(events, twins), dtype="object"),
        }
    )
    wanted = find_target(model, target)
    if wanted is not None:
        frame[PROBABILITY] = probability(mixture, start, stop, strengths, wanted)
    return frame


def _in_force(names: list[str], strengths: np.ndarray) -> list[dict[str, float]]:
    """Return for each event the scenarios of a strength above 0; of those with one name the strongest."""
    values: list[dict[str, float]] = [{} for _ in range(strengths.shape[1])]
    for name, row in zip(names, strengths, strict=True):
        for event in np.flatnonzero(row):
            values[event][name] = max(float(row[event]), values[event].get(name, 0.0))
    return values


def twin_values(events: pa.RecordBatch, twins: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return for each event the values of its twin in the columns in which the two differ."""
    values: list[dict[str, Any]] = [{} for _ in range(events.num_rows)]
    for name in events.schema.names:
        one, other = (_plain(batch.column(name)) for batch in (events, twins))
        differ = pc.fill_null(pc.not_equal(one, other), fill_value=False)
        differ = pc.or_(differ, pc.not_equal(one.is_null(), other.is_null()))
        for row, value in zip(
            np.flatnonzero(differ.to_numpy(zero_copy_only=False)),
            other.filter(differ).to_pylist(),
            strict=True,
        ):
            values[row][name] = value
    return values


def _plain(array: pa.Array) -> pa.Array:
    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def probability(
    mixture: Mixture,
    start: int,
    stop: int,
    strengths: np.ndarray,
    target: str,
    known: Collection[str] | None = None,
) -> np.ndarray:
    """Return the exact probability of a yes given what is known at booking, of shape (stop - start,).

    Known are the columns `known`, by default those of `Model.booked_columns` without the target, and how
    strong each scenario is, but not whether the event was drawn from it. Numbers are known as they are
    before `scale`.

    Raises
    ------
    RequestError
        If it cannot be exact.
    """
    low = start
    parts = []
    columns = tuple(booked_columns(mixture.baseline.model.schema) if known is None else known)
    while low < stop:
        high = min(stop, (low // BLOCK + 1) * BLOCK)
        here = strengths[:, low - start : high - start]
        parts.append(_of_block(mixture, low, high, here, target, columns))
        low = high
    return np.concatenate(parts) if parts else np.zeros(0)


def _of_block(
    mixture: Mixture, start: int, stop: int, strengths: np.ndarray, target: str, known: tuple[str, ...]
) -> np.ndarray:
    """Return the probability for events of one block."""
    n = stop - start
    patterns = mixture.patterns(start, stop, strengths)
    parts, order = [], []
    for pattern in np.unique(patterns).tolist():
        sampler = mixture.sampler(pattern)
        if isinstance(sampler, EffectsSampler):
            sampler = sampler.as_drawn
        rows = np.flatnonzero(patterns == pattern)
        parts.append(sampler.batch(start, stop).take(pa.array(rows)))
        order.append(rows)
    batch = pa.concat_batches(parts).take(pa.array(np.argsort(np.concatenate(order), kind="stable")))
    yes, total = np.zeros(n), np.zeros(n)
    for pattern, shares in _pattern_shares(strengths).items():
        rows = np.flatnonzero(shares > 0)
        likelihood = _likelihood(mixture, pattern, target, known)
        if (shares[rows] < 1).any():
            likelihood.require_comparable()
        of_yes, of_all = likelihood.joint(batch.take(pa.array(rows)))
        yes[rows] += shares[rows] * of_yes
        total[rows] += shares[rows] * of_all
    return yes / total


def _pattern_shares(strengths: np.ndarray) -> dict[int, np.ndarray]:
    """Return how probable each pattern of scenarios is at each event, by pattern.

    An event is drawn from the scenarios that are stronger than its uniform: so from the k strongest.
    """
    n = strengths.shape[1]
    order = np.argsort(-strengths, axis=0, kind="stable")
    ordered = np.take_along_axis(strengths, order, axis=0)
    edges = np.vstack([np.ones((1, n)), ordered, np.zeros((1, n))])
    found: dict[int, np.ndarray] = {}
    pattern = np.zeros(n, np.int64)
    for k in range(len(strengths) + 1):
        share = edges[k] - edges[k + 1]
        for value in np.unique(pattern[share > 0]).tolist():
            here = np.where(pattern == value, share, 0.0)
            found[value] = found.get(value, np.zeros(n)) + here
        if k < len(strengths):
            pattern = pattern | (1 << order[k])
    return found


class _Likelihood:
    """How likely known values are in one pattern of scenarios, with a yes and at all."""

    def __init__(self, mixture: Mixture, pattern: int, target: str, known: tuple[str, ...]) -> None:
        model = mixture.baseline.model
        sampler = mixture.sampler(pattern)
        self._known = known
        self._target = target
        self._delays: tuple[tuple[Any, int], ...] = ()
        self._total = 1.0
        self._sampler = sampler
        network, weights = model, []
        if isinstance(sampler, EffectsSampler):
            network = sampler.network
            weights = [item.table for item in sampler.weights]
            self._total = eliminate_exactly(network, weights).share
            if any(delay.late == target for delay in model.days_after_event):
                self._delays = sampler.delays
        self._posterior = Posterior(
            network, target, self._known, weights, [match for match, _ in self._delays]
        )

    def require_comparable(self) -> None:
        """Raise if known values say by themselves from which scenarios an event was drawn."""
        if not isinstance(self._sampler, EffectsSampler):
            return
        scaled = sorted(self._sampler.scaled_columns & set(self._known))
        if scaled or self._sampler.has_set_within_ranges:
            why = f"scale changes {scaled[0]!r}" if scaled else "a number is set within a range"
            raise RequestError(
                f"the probability cannot be exact while only a part of the events is drawn from the scenario "
                f"and {why}, since the values show which: give the scenario an abrupt profile"
            )

    def joint(self, batch: pa.RecordBatch) -> tuple[np.ndarray, np.ndarray]:
        """Return both for each event, shape (n_events,) each."""
        answer = self._with_delays(batch) if self._delays else None
        yes, total = self._posterior.joint(batch, answer)
        return yes / self._total, total / self._total

    def _with_delays(self, batch: pa.RecordBatch) -> Rows:
        """Return how probable it is that a delivery is late in the end, by whether it was before."""
        network = self._posterior.network
        [delay] = [delay for delay in network.days_after_event if delay.late == self._target]
        service = batch.column(delay.service).indices.to_numpy()
        promised = batch.column(delay.promised).to_numpy()
        low, high = delay.low[service], np.minimum(delay.high[service], promised)  # if not late before
        more = [
            Rows(dict(match.over), np.expand_dims(match.values, 0) * days) for match, days in self._delays
        ]
        over = multiplied(
            [*more, Rows({self._target: self._posterior.yes.astype(np.int64)}, np.ones((1, 2)))]
        ).over
        days = sum(table.spread(over) for table in more)
        late_before = Rows(
            {self._target: self._posterior.yes.astype(np.int64)}, np.array([[0.0, 1.0]])
        ).spread(over)
        shape = [-1, *[1] * len(over)]
        first, last, due = (array.reshape(shape) for array in (low, high, promised))
        late = np.clip(last - np.maximum(first, due - days + 1) + 1, 0, None) / np.maximum(
            last - first + 1, 1
        )
        return Rows(over, np.where(late_before == 1, 1.0, np.where(days > 0, late, 0.0)))


@lru_cache(maxsize=8)
def _likelihood(mixture: Mixture, pattern: int, target: str, known: tuple[str, ...]) -> _Likelihood:
    return _Likelihood(mixture, pattern, target, known)

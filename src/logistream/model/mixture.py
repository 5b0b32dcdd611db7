"""Events under scenarios: each is drawn from a scenario with the probability that its profile gives.

Event n has one uniform u(n) of its own. It is drawn from all scenarios whose strength at n is greater than
u(n), so of each scenario the share is known exactly at every number, and the event without any scenario, its
twin, can be made beside it.
"""

from __future__ import annotations

import threading
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from logistream.errors import RequestError
from logistream.model.effects import BaselineSampler, EffectsSampler
from logistream.model.random_bits import uniforms
from logistream.model.sampling import BLOCK
from logistream.model.scenario import read_scenarios

if TYPE_CHECKING:
    from collections.abc import Iterator

    from logistream.model.network import Network
    from logistream.model.scenario import Scenario, Scenarios

__all__ = ["Mixture", "mixture_of", "strengths"]

_MIXTURE_KEY = 0x4D49585455524521  # "MIXTURE!": keeps these draws apart from all others of the same seed


def strengths(scenarios: tuple[Scenario, ...], start: int, stop: int) -> np.ndarray:
    """Return how strong each scenario is at each row of a table, shape (n_scenarios, stop - start).

    Raises
    ------
    RequestError
        If a profile counts seconds: rows of a table have no time.
    """
    for scenario in scenarios:
        if scenario.profile.unit == "seconds" and not scenario.profile.constant:
            raise RequestError(
                f"the profile of {scenario.name!r} counts seconds, and rows without a stream have no time: "
                f"give it in events, or set the scenario of a server"
            )
    passed = np.arange(start, stop)
    return np.array([s.profile.strength(passed) for s in scenarios]).reshape(len(scenarios), stop - start)


@lru_cache(maxsize=4)
def mixture_of(model: Network, scenarios: tuple[Scenario, ...], seed: int) -> Mixture:
    """Return the events of a model under scenarios; the same object for the same ones, while it is new."""
    return Mixture(model, scenarios, seed)


class Mixture:
    """The events of a model under scenarios, by number; safe to use from any thread.

    Parameters
    ----------
    model : Network
        What to draw from.
    scenarios : Scenario, mapping, or iterable of these
        What is changed.
    seed : int
        From 0 to 2**64 - 1.
    live : bool
        Whether batches are always asked for with times.

    Attributes
    ----------
    scenarios : tuple of Scenario
        As they were read.
    baseline : BaselineSampler
        The events without scenarios.

    Raises
    ------
    RequestError
        If the seed is out of its range, or a scenario cannot be applied to the model exactly.
    """

    def __init__(self, model: Network, scenarios: Scenarios, seed: int = 0, *, live: bool = False) -> None:
        self.scenarios = read_scenarios(scenarios)
        self.baseline = BaselineSampler(model, seed, live=live)
        self._acting = sum(
            1 << place
            for place, scenario in enumerate(self.scenarios)
            if any(effect.kind != "rate" for effect in scenario.effects)
        )
        self._samplers: dict[int, EffectsSampler] = {}
        self._making = threading.Lock()
        self.sampler(self._acting)  # whatever cannot be exact is refused now

    def sampler(self, pattern: int) -> BaselineSampler | EffectsSampler:
        """Return what draws events from some of the scenarios: bit i of `pattern` for scenario i."""
        acting = pattern & self._acting
        if not acting:
            return self.baseline
        with self._making:
            if acting not in self._samplers:
                effects = [
                    effect
                    for place, scenario in enumerate(self.scenarios)
                    if acting >> place & 1
                    for effect in scenario.effects
                ]
                self._samplers[acting] = EffectsSampler(self.baseline, effects)
            return self._samplers[acting]

    def patterns(self, start: int, stop: int, strengths: np.ndarray) -> np.ndarray:
        """Return from which scenarios each event is drawn, int64 of shape (stop - start,).

        Parameters
        ----------
        start, stop : int
            Event numbers.
        strengths : ndarray of shape (n_scenarios, stop - start)
            How strong each scenario is at each event, from 0 to 1.

        Returns
        -------
        ndarray of int64 of shape (stop - start,)
            Bit i is 1 for events that are drawn from scenario i.
        """
        patterns = np.zeros(stop - start, np.int64)
        uniform = None
        for place, strength in enumerate(strengths):
            if ((strength == 0) | (strength == 1)).all():
                drawn = strength == 1
            else:
                uniform = self._uniforms(start, stop) if uniform is None else uniform
                drawn = uniform < strength
            patterns += drawn.astype(np.int64) << place
        return patterns

    def _uniforms(self, start: int, stop: int) -> np.ndarray:
        """Return u(n) of each event, float64 of shape (stop - start,)."""
        first, last = start // BLOCK, max(start, stop - 1) // BLOCK
        lanes = []
        for block in range(first, last + 1):
            bits = np.random.Philox(
                key=np.array([self.baseline.seed, _MIXTURE_KEY], np.uint64),
                counter=np.array([0, 0, 0, block], np.uint64),
            )
            lanes.append(uniforms(bits, BLOCK))
        return np.concatenate(lanes)[start - first * BLOCK : stop - first * BLOCK]

    def batch(
        self, start: int, stop: int, strengths: np.ndarray, times: np.ndarray | None = None
    ) -> pa.RecordBatch:
        """Return events `start` to `stop` (exclusive), each drawn from the scenarios it belongs to.

        The parameters are those of `patterns`, and `times` as in `Sampler.batch`.
        """
        return _joined([batch for batch, _ in self._blocks(start, stop, strengths, times, twins=False)])

    def batch_and_twins(
        self, start: int, stop: int, strengths: np.ndarray, times: np.ndarray | None = None
    ) -> tuple[pa.RecordBatch, pa.RecordBatch]:
        """Return the same, and beside it the events as they would be without the scenarios."""
        parts = list(self._blocks(start, stop, strengths, times, twins=True))
        return _joined([batch for batch, _ in parts]), _joined([twins for _, twins in parts])

    def _blocks(
        self, start: int, stop: int, strengths: np.ndarray, times: np.ndarray | None, *, twins: bool
    ) -> Iterator[tuple[pa.RecordBatch, pa.RecordBatch]]:
        """Give the events block by block, since all samplers begin with what the baseline remembers.

        The second of each pair is the baseline if `twins`, and the events once more if not.
        """
        patterns = self.patterns(start, stop, strengths) & self._acting
        low = start
        while True:
            high = min(stop, (low // BLOCK + 1) * BLOCK)
            here = slice(low - start, high - start)
            times_here = None if times is None else times[here]
            present, place = np.unique(patterns[here], return_inverse=True)
            parts = [self.sampler(int(pattern)).batch(low, high, times_here) for pattern in present]
            if not parts:
                parts = [self.baseline.batch(low, high, times_here)]
            batch = parts[0]
            if len(parts) > 1:
                rows = place.reshape(-1) * (high - low) + np.arange(high - low)
                batch = pa.concat_batches(parts).take(pa.array(rows))
            yield batch, self.baseline.batch(low, high, times_here) if twins else batch
            low = high
            if low >= stop:
                return


def _joined(parts: list[pa.RecordBatch]) -> pa.RecordBatch:
    return parts[0] if len(parts) == 1 else pa.concat_batches(parts)

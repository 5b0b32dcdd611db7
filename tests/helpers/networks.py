"""Random small models whose joint distribution can be written down whole."""

from __future__ import annotations

import math

import numpy as np

from logistream.model.model import Model
from logistream.model.network import Emission, Factor
from logistream.schema import Column, Schema


def random_network(seed: int, columns: int = 5) -> tuple[Model, list[np.ndarray]]:
    """Return a random model, and of each column the shares of its values given all columns before it.

    Column `ci` has whole numbers from 0; the shares have one axis for each column up to i.
    """
    rng = np.random.default_rng(seed)
    factors: list[Factor] = []
    given: list[np.ndarray] = []
    for i in range(columns):
        size = int(rng.integers(2, 5))
        parents = sorted(rng.choice(i, int(rng.integers(0, min(i, 3) + 1)), replace=False)) if i else []
        shape = [factors[p].size for p in parents]
        counts = rng.integers(1, 9, (math.prod(shape), size))
        factors.append(
            Factor(
                name=f"f{i}",
                size=size,
                parents=tuple(f"f{p}" for p in parents),
                groups=tuple(np.arange(factors[p].size) for p in parents),
                distribution_of=np.arange(len(counts)),
                offsets=np.arange(len(counts) + 1) * size,
                codes=np.tile(np.arange(size), len(counts)),
                counts=counts.reshape(-1),
                emissions=(Emission(f"c{i}", np.arange(size)),),
            )
        )
        axes = [factors[p].size if p in parents else 1 for p in range(i)]
        given.append((counts / counts.sum(axis=1, keepdims=True)).reshape([*axes, size]))
    schema = Schema(tuple(Column(f"c{i}", "integer") for i in range(columns)))
    dtypes = dict.fromkeys(schema.names, "int64")
    return Model("random", schema, {}, dtypes, tuple(factors), rows=1000), given


def joint_distribution(given: list[np.ndarray]) -> np.ndarray:
    """Return the probability of each combination of values, one axis for each column."""
    joint = np.ones(())
    for shares in given:
        joint = joint[..., None] * shares
    return joint


def assert_counts(counts: np.ndarray, expected: np.ndarray, about: object) -> None:
    """Chi-square of counts against expected ones, those below 5 taken together, in 6 standard deviations."""
    assert counts[expected == 0].sum() == 0, about
    rare = expected < 5
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    counts, expected = counts[expected > 0], expected[expected > 0]
    degrees = max(len(counts) - 1, 1)
    assert ((counts - expected) ** 2 / expected).sum() < degrees + 6 * math.sqrt(2 * degrees), about

"""Raw bits of a counter-based generator as uniforms and permutations.

Only the raw bits of Philox are used (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011):
NumPy keeps them stable across versions, which it does not promise of its distributions.
"""

from __future__ import annotations

import numpy as np

__all__ = ["permutation", "uniforms"]

_ELEVEN = np.uint64(11)


def uniforms(bits: np.random.Philox, n: int) -> np.ndarray:
    """Return the next n uniforms in [0, 1), float64 of shape (n,)."""
    return np.asarray((bits.random_raw(n) >> _ELEVEN) * 2.0**-53)


def permutation(n: int, seed: int = 0) -> np.ndarray:
    """Return a permutation of 0 to n - 1, int64 of shape (n,); the same one for the same seed."""
    return np.argsort(np.random.Philox(seed).random_raw(n), kind="stable")

"""Membership inference: how well fitted rows can be distinguished from rows that were not fitted.

The attacker has synthetic rows, and other real rows of the same kind. Three attacks score how likely a row
was fitted:

- *nearest*: the distance to the nearest synthetic row; the smaller, the likelier (GAN-Leaks: Chen, Yu, Zhang
  and Fritz 2020).
- *ratio*: the same distance divided by that to the nearest of the other real rows, because common rows are
  near to everything (GAN-Leaks, calibrated).
- *density*: how many synthetic rows lie around the row, by a Gaussian kernel whose width is a tenth of the
  distance to the nearest other real row (Monte Carlo attacks: Hilprecht, Härterich and Bernau 2019; DOMIAS:
  van Breugel, Sun, Qian and van der Schaar 2023).

Equally many fitted rows (members) and held-out rows are scored. The figures are the area under the ROC curve,
and the share of members found while 1 % of the held-out rows are taken for members. The second figure matters
because an attack that is sure of a few people is a leak, whatever it achieves on average (Carlini and others,
Membership Inference Attacks From First Principles, 2022). Average distances to the closest record do not show
such leaks (The DCR Delusion, arXiv 2505.01524, 2025).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from logistream.evaluation.neighbours import coordinates, nearest_distance, squared_distances

if TYPE_CHECKING:
    from logistream.evaluation.numeric import NumericTable

__all__ = ["FALSE_POSITIVES", "membership_inference"]


FALSE_POSITIVES = 0.01
"""Share of the held-out rows that may be taken for members where members found are counted."""

_WIDTH = 0.1  # of the kernel, in distances to the closest other real row; wider ones find fewer copies
_NARROWEST = 0.01  # below, distances are not exact enough
_AT_ONCE = 20_000  # synthetic rows written as points


def membership_inference(
    members: NumericTable, others: NumericTable, reference: NumericTable, synthetic: NumericTable
) -> pd.DataFrame:
    """Attack synthetic rows, and return how well the attacks do.

    Parameters
    ----------
    members, others : NumericTable
        Rows that were fitted, and equally many that were not.
    reference : NumericTable
        Other real rows that were not fitted, which the attacker has.
    synthetic : NumericTable
        The rows that are attacked. Ten times as many as were fitted show more than a few.

    Returns
    -------
    DataFrame of shape (3, 2)
        Rows `nearest`, `ratio` and `density`. Columns `auc`, where 0.5 is a guess, and `found`: the share of
        the members found where 1 % of `others` are taken for members, where 0.01 is a guess.
    """
    known = [reference]  # what the attacker has: anything else would treat members and others differently
    rows = np.concatenate([coordinates(table, known) for table in (members, others)])
    to_reference = nearest_distance(rows, coordinates(reference, known))
    width = np.maximum(_WIDTH * to_reference, np.float32(_NARROWEST))
    nearest = np.full(len(rows), np.inf, np.float32)
    density = np.zeros(len(rows))
    for start in range(0, len(synthetic), _AT_ONCE):
        points = coordinates(synthetic.take(slice(start, start + _AT_ONCE)), known)
        nearer, sums = _distances_and_sums(rows, points, width)
        nearest = np.minimum(nearest, nearer)
        density += sums
    scores: dict[str, np.ndarray] = {
        "nearest": -nearest,
        "ratio": -(nearest + _NARROWEST) / (to_reference + _NARROWEST),
        "density": density,
    }
    success = [_success(score[: len(members)], score[len(members) :]) for score in scores.values()]
    return pd.DataFrame(success, index=list(scores), columns=["auc", "found"])


def _distances_and_sums(
    rows: np.ndarray, points: np.ndarray, width: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return each row's distance to the nearest point, and how many points lie around it.

    The latter by a Gaussian kernel of the row's own width.
    """
    nearest, sums = np.empty(len(rows), np.float32), np.empty(len(rows))
    for chunk, distance in squared_distances(rows, points):
        exact = rows[chunk] - points[distance.argmin(axis=1)]  # the rounding of the product is left behind
        nearest[chunk] = np.sqrt(np.square(exact).sum(axis=1))
        distance *= (-0.5 / np.square(width[chunk]))[:, None]
        sums[chunk] = np.exp(distance, out=distance).sum(axis=1)
    return nearest, sums


def _success(members: np.ndarray, others: np.ndarray) -> tuple[float, float]:
    """Return the area under the ROC curve and the share of members found, for scores of either sort."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, members, "left") + np.searchsorted(ordered, members, "right")
    threshold = ordered[len(ordered) - 1 - int(FALSE_POSITIVES * len(ordered))]
    return float(below.mean() / 2 / len(ordered)), float((members > threshold).mean())

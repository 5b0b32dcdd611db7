"""How close a model's rows are to real ones: the report.

Every figure stands beside the same figure for real rows: what they do not reach cannot be asked of synthetic
ones. Synthetic rows are to be had without end, so shapes and pairs are taken from 20,000 of them: this
measures what was learned, without the chance of a draw. A classifier gets as many rows of either sort.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd

from logistream.dataco import TARGET, UNKNOWN_AT_BOOKING, are_orders, known_rules
from logistream.errors import DataError, RequestError
from logistream.evaluation.measures import (
    Table,
    column_pairs,
    column_shapes,
    copied,
    encode,
    nearest_balance,
    transfer_auc,
    two_sample_auc,
)
from logistream.evaluation.report import Report
from logistream.evaluation.rules import Rule, broken, learn_rules

if TYPE_CHECKING:
    from collections.abc import Callable

    from logistream.schema import Schema

__all__ = ["Generator", "report"]


_LEAST_ROWS = 20
_MOST_ROWS = 20_000  # of each part, which keeps a report on any table within minutes
_MOST_COMPARED = 5_000  # by the classifier and by distance
_MOST_CELLS = 1_000_000  # learned by the classifier: a wide table gets fewer lots
_LOTS = 3  # so many times, with other rows: chance in the drawing averages out
_LATITUDE = re.compile(r"(^|[\W_])lat(itude)?($|[\W_])", re.IGNORECASE)
_LONGITUDE = re.compile(r"(^|[\W_])(lon|lng|long|longitude)($|[\W_])", re.IGNORECASE)


class Generator(Protocol):
    """What can be reported on: a `Model`, or anything else that makes rows of a schema."""

    @property
    def name(self) -> str:
        """What a person calls it."""

    @property
    def schema(self) -> Schema:
        """Columns of its rows."""

    def sample(self, n: int, seed: int = 0) -> pd.DataFrame:
        """Return `n` rows."""


@dataclass(frozen=True, eq=False)
class _Parts:
    """The rows of a report, each part in random order."""

    held: Table  # real rows that the model has not seen: what everything is compared with
    other: Table  # further real rows, the fitted ones if they are known: what real rows reach
    synthetic: Table
    train: Table | None  # the fitted rows, all of them
    real: Table  # all real rows


def report(
    model: Generator,
    holdout: pd.DataFrame,
    *,
    train: pd.DataFrame | None = None,
    target: str | None = None,
    seed: int = 0,
) -> Report:
    """Measure how close a model's rows are to real rows that it was not fitted on.

    Parameters
    ----------
    model : Model
        What to report on; anything with `name`, `schema` and `sample(n, seed)` will do.
    holdout : DataFrame of shape (n_rows, n_columns)
        Real rows kept out of the fit, at least 20, with the columns of the model. It is not changed.
    train : DataFrame, optional
        The rows that were fitted. With them the report has figures of privacy, and of real rows drawn again;
        without, real is measured between the halves of the holdout.
    target : str, optional
        A column with two values to foretell from the others; for DataCo orders, unless another is named, late
        delivery from what is known when an order is booked.
    seed : int
        For the synthetic rows and every random choice.

    Returns
    -------
    Report
        A table in a notebook; `figures` is a DataFrame, `to_html` writes a page.

    Raises
    ------
    DataError
        If there are too few rows, or their columns are not the model's.
    RequestError
        If there is no such target, or it has not two values.
    MissingPackageError
        If scikit-learn is not installed.
    """
    for what, frame in (("holdout", holdout), ("training rows", train)):
        if frame is not None and len(frame) < _LEAST_ROWS:
            raise DataError(
                f"too few rows to compare with: the {what} has {len(frame)}, expected at least {_LEAST_ROWS}"
            )
    parts = _parts(model, holdout, train, seed)
    target = _checked_target(parts.held, target)
    found = (*learn_rules(parts.other, seed), *_known_rules(parts.real))
    rules = list({rule.text: rule for rule in found}.values())  # what is known need not be learned
    sources = {"synthetic": parts.synthetic, "real": parts.other}
    if train is not None:
        again = np.random.default_rng([seed, 1]).integers(len(parts.other), size=_MOST_ROWS)
        sources["drawn again"] = parts.other.take(again)
    figures, shapes, pairs, breaches = {}, {}, {}, {}
    for source, rows in sources.items():
        unseen = parts.held if source == "real" else rows  # real rows break no rule that they taught
        shapes[source] = column_shapes(parts.held, rows)
        places, pairs[source] = column_pairs(parts.held, rows)
        breaches[source] = broken(rules, unseen)
        figures[source] = {
            "shapes": float(np.mean(shapes[source])),
            "pairs": _mean(pairs[source]),
            "c2st": _told_apart(parts.held, rows, seed),
            "target": _foretold(
                rows.take(np.arange(min(len(rows), len(parts.other)))), parts.held, target, seed
            ),
            "rules": float(breaches[source].any(axis=0).mean()) if rules else np.nan,
            **_privacy(unseen, parts),
        }
    ideal = {"shapes": 1.0, "pairs": 1.0, "c2st": 0.5, "target": figures["real"]["target"], "rules": 0.0}
    ideal |= {"copies": 0.0, "balance": 0.5, "locations": 0.0}
    table = pd.DataFrame({**figures, "ideal": ideal}, index=list(ideal))
    names = np.array(parts.held.schema.names)
    return Report(
        name=model.name,
        holdout=len(holdout),
        train=0 if train is None else len(train),
        target=target or "",
        figures=table[table["real"].notna()],
        shapes=pd.DataFrame(shapes, index=names),
        pairs=pd.DataFrame({"left": names[places[:, 0]], "right": names[places[:, 1]], **pairs}),
        rules=pd.DataFrame(
            {source: breach.mean(axis=1) for source, breach in breaches.items()},
            index=[rule.text for rule in rules],
        ),
    )


def _known_rules(real: Table) -> list[Rule]:
    """Return what is known of the table without looking at it."""
    if not are_orders(real.schema):
        return []

    def on_table(breaks: Callable[[pd.DataFrame], pd.Series | np.ndarray]) -> Callable[[Table], np.ndarray]:
        return lambda table: np.asarray(breaks(table.frame), dtype=bool)

    return [Rule(text, on_table(breaks)) for text, breaks in known_rules(real.frame).items()]


def _parts(model: Generator, holdout: pd.DataFrame, train: pd.DataFrame | None, seed: int) -> _Parts:
    """Shuffle, divide and encode the real rows, and draw the synthetic ones."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(holdout))
    frames = [holdout, model.sample(_MOST_ROWS, seed), *([] if train is None else [train])]
    tables = encode(model.schema, frames)
    held = order
    if train is None:
        held, other = order[: len(order) // 2], order[len(order) // 2 :]
        others, real = tables[0].take(other), tables[0]
    else:
        others = tables[2].take(rng.permutation(len(train)))
        real = tables[0].joined(tables[2])
    return _Parts(
        held=tables[0].take(held[:_MOST_ROWS]),
        other=others.take(np.arange(min(len(others), _MOST_ROWS))),
        synthetic=tables[1],
        train=None if train is None else tables[2],
        real=real,
    )


def _checked_target(held: Table, target: str | None) -> str | None:
    """Return the column to foretell, None for none."""
    names = held.schema.names
    if target is None:
        return TARGET if are_orders(held.schema) else None
    if target not in names:
        raise RequestError(f"no column {target!r} to foretell; there are {', '.join(names)}")
    values = held.matrix[:, names.index(target)]
    distinct = len(np.unique(values[~np.isnan(values)]))
    if distinct != 2:
        raise RequestError(
            f"the column to foretell must have two values, and {target!r} has {distinct} in the holdout"
        )
    return target


def _told_apart(held: Table, rows: Table, seed: int) -> float:
    """Return how well a classifier tells equally many rows apart, averaged over up to three lots."""
    size = min(len(held), len(rows), _MOST_COMPARED)
    affordable = _MOST_CELLS // (size * len(held.schema))
    lots = [
        np.arange(i * size, (i + 1) * size) for i in range(max(1, min(_LOTS, len(rows) // size, affordable)))
    ]
    return float(np.mean([two_sample_auc(held.take(np.arange(size)), rows.take(lot), seed) for lot in lots]))


def _foretold(learned: Table, tested: Table, target: str | None, seed: int) -> float:
    if target is None:
        return np.nan
    hidden = UNKNOWN_AT_BOOKING if target == TARGET and are_orders(tested.schema) else {target}
    predictors = [name for name in tested.schema.names if name not in hidden]
    return transfer_auc(learned, tested, target, predictors, seed)


def _privacy(rows: Table, parts: _Parts) -> dict[str, float]:
    """Return how much rows give away of the fitted ones."""
    if parts.train is None:
        return {}
    position = _position(rows.schema)
    return {
        "copies": copied(rows, parts.train),
        "balance": _balance(rows, parts),
        "locations": copied(rows, parts.train, position) if position else np.nan,
    }


def _balance(rows: Table, parts: _Parts) -> float:
    """Return the nearest-record balance against equally many fitted and held rows."""
    size = min(len(parts.held), len(parts.other), _MOST_COMPARED)
    held = parts.held
    if rows is held:  # real rows are judged by the other half of their kind
        size = min(size, len(held) // 2)
        rows, held = held.take(np.arange(size, len(held))), held.take(np.arange(size))
    rows = rows.take(np.arange(min(len(rows), _MOST_COMPARED)))
    lots = [np.arange(i * size, (i + 1) * size) for i in range(max(1, min(_LOTS, len(parts.other) // size)))]
    held = held.take(np.arange(size))
    return float(np.mean([nearest_balance(rows, parts.other.take(lot), held) for lot in lots]))


def _position(schema: Schema) -> list[str]:
    """Return the columns of latitude and longitude by their names, none if there are not one of each."""
    found = [[c.name for c in schema if form.search(c.name)] for form in (_LATITUDE, _LONGITUDE)]
    return [names[0] for names in found] if all(len(names) == 1 for names in found) else []


def _mean(scores: np.ndarray) -> float:
    known = scores[~np.isnan(scores)]
    return float(known.mean()) if len(known) else np.nan

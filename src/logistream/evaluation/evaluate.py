"""How close a model's rows are to real ones: the report.

Every figure stands beside the same figure for real rows: what they do not reach cannot be expected of
synthetic ones. Synthetic rows cost nothing, so shapes and pairs are taken from 20,000 of them, which measures
what was learned without the chance of a draw. A classifier gets equally many rows of either sort.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd

from logistream.dataco import TARGET, UNKNOWN_AT_BOOKING, are_orders, known_rules
from logistream.errors import DataError, RequestError
from logistream.evaluation.attack import membership_inference
from logistream.evaluation.charts import Chart, column_chart, pair_chart
from logistream.evaluation.classifiers import transfer_auc, two_sample_auc
from logistream.evaluation.measures import (
    column_pairs,
    column_shapes,
    copied,
    copied_strings,
    identifiers,
)
from logistream.evaluation.neighbours import nearest_balance
from logistream.evaluation.numeric import NumericTable, numeric_tables
from logistream.evaluation.report import Report
from logistream.evaluation.rules import Rule, broken, learn_rules
from logistream.progress import progress_shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from logistream.schema import Schema

__all__ = ["Generator", "report"]


_LEAST_ROWS = 20
_MOST_ROWS = 20_000  # of each part
_MOST_COMPARED = 5_000  # rows of either sort that a classifier or a distance gets
_MOST_CELLS = 300_000  # of either sort that a classifier gets: a wide table gives fewer rows
_REPEATS = 3  # of a comparison of few rows, each with other synthetic ones: the chance of a draw averages out
_MOST_REPEATED = 3_000  # rows in all repeats
_MOST_ATTACKED = 2_000  # members, and as many others
_FEWEST_ATTACKED = 100  # below, 1 % would be less than a row
_ATTACK_SIZES = (1, 10)  # synthetic rows, as multiples of the fitted ones
_CHARTS = 6  # of columns, and of pairs
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

    held: NumericTable  # real rows that the model has not seen: what everything is compared with
    other: NumericTable  # further real rows, the fitted ones if they are known: what real rows reach
    synthetic: NumericTable
    drawn: NumericTable  # all synthetic rows, of which `synthetic` are the first
    train: NumericTable | None  # the fitted rows, all of them
    real: NumericTable  # all real rows
    seed: int


def report(
    model: Generator,
    holdout: pd.DataFrame,
    *,
    train: pd.DataFrame | None = None,
    target: str | None = None,
    attack: bool = False,
    seed: int = 0,
    progress: bool = False,
) -> Report:
    """Measure how close a model's rows are to real rows that it was not fitted on.

    Parameters
    ----------
    model : Model
        What to report on; anything with `name`, `schema` and `sample(n, seed)` will do.
    holdout : DataFrame of shape (n_rows, n_columns)
        Real rows kept out of the fit, at least 20, with the columns of the model. It is not changed.
    train : DataFrame, optional
        The rows that were fitted. With them the report has figures of privacy, and of training rows
        resampled; without, real is measured between the halves of the holdout.
    target : str, optional
        A column with two values to predict from the others; for DataCo orders, unless another is named, late
        delivery from what is known when an order is booked.
    attack : bool
        Whether to attack the synthetic rows by membership inference (`logistream.evaluation.attack`), at
        once and ten times as many as were fitted. It needs `train`, and a holdout of 200 rows or more.
    seed : int
        For the synthetic rows and every random choice.
    progress : bool
        Whether to show on stderr how far it is: a bar in a terminal, else a line every two seconds.

    Returns
    -------
    Report
        A table in a notebook; `figures` is a DataFrame, `to_html` writes a page.

    Raises
    ------
    DataError
        If there are too few rows, or their columns are not the model's.
    RequestError
        If the target does not exist or does not have two values, or an attack lacks `train`.
    MissingPackageError
        If scikit-learn is not installed.
    """
    _check_rows(holdout, train, attack=attack)
    steps = (6 if train is None else 10) + (len(_ATTACK_SIZES) + 1 if attack else 0)
    with progress_shown("comparing", steps, shown=progress) as advance:
        parts = _parts(model, holdout, train, seed, attack=attack)
        target = _checked_target(parts.held, target)
        advance()
        found = (*learn_rules(parts.other, seed), *_known_rules(parts.real))
        rules = list(
            {rule.text: rule for rule in found}.values()
        )  # a known rule may have been learned as well
        ids = identifiers(parts.real)
        advance()
        sources = {"synthetic": parts.synthetic, "real": parts.other}
        if train is not None:
            rng = np.random.default_rng([seed, 1])
            sources["resampled"] = parts.other.take(rng.integers(len(parts.other), size=_MOST_ROWS))
        c2st = _distinguished(parts, sources, ~ids, advance)
        figures, shapes, pairs, breaches = {}, {}, {}, {}
        for source, rows in sources.items():
            unseen = (
                parts.held if source == "real" else rows
            )  # the rules were learned from the other real rows
            shapes[source] = column_shapes(parts.held, rows)
            positions, pairs[source] = column_pairs(parts.held, rows)
            breaches[source] = broken(rules, unseen)
            figures[source] = {
                "shapes": _mean(shapes[source][~ids]),
                "pairs": _mean(pairs[source][~ids[positions].any(axis=1)]),
                **c2st[source],
                "target": _predicted(rows.take(slice(len(parts.other))), parts.held, target, seed),
                "rules": float(breaches[source].any(axis=0).mean()) if rules else np.nan,
                **_privacy(unseen, parts),
            }
            advance()
        attacks = _attacks(parts, advance) if attack else _NO_ATTACKS
    for source, share in _strings(parts, sources).items():
        figures[source]["strings"] = share
    for source, worst in attacks[attacks["times"] == attacks["times"].max()].groupby("rows"):
        figures[str(source)] |= {"attack": worst["auc"].max(), "found": worst["found"].max()}
    ideal = {
        "shapes": 1.0,
        "pairs": 1.0,
        "c2st": 0.5,
        "c2st_fitted": 0.5,
        "target": figures["real"]["target"],
    }
    ideal |= {"rules": 0.0, "copies": 0.0, "balance": 0.5, "locations": 0.0}
    ideal |= {"strings": figures["real"].get("strings", np.nan), "attack": 0.5, "found": 0.01}
    table = pd.DataFrame({**figures, "ideal": ideal}, index=list(ideal))
    names = np.array(parts.held.schema.names)
    pair_table = pd.DataFrame({"left": names[positions[:, 0]], "right": names[positions[:, 1]], **pairs})
    return Report(
        name=model.name,
        holdout=len(holdout),
        train=0 if train is None else len(train),
        target=target or "",
        figures=table[table["synthetic"].notna()],
        shapes=pd.DataFrame(shapes, index=names),
        pairs=pair_table,
        rules=pd.DataFrame(
            {source: breach.mean(axis=1) for source, breach in breaches.items()},
            index=[rule.text for rule in rules],
        ),
        attacks=attacks,
        identifiers=tuple(names[ids]),
        chance=0.5 * float(np.sqrt(1 / len(parts.held) + 1 / len(parts.other))),
        column_charts=tuple(_column_charts(parts, shapes, ids)),
        pair_charts=tuple(_pair_charts(parts, positions, pairs, ids)),
    )


def _check_rows(holdout: pd.DataFrame, train: pd.DataFrame | None, *, attack: bool) -> None:
    for what, frame in (("holdout", holdout), ("training rows", train)):
        if frame is not None and len(frame) < _LEAST_ROWS:
            raise DataError(
                f"too few rows to compare with: the {what} has {len(frame)}, expected at least {_LEAST_ROWS}"
            )
    if attack and train is None:
        raise RequestError(
            "the attack looks for rows that were fitted: give them as well (train, or --train)"
        )
    if (
        attack
        and train is not None
        and (len(holdout) < 2 * _FEWEST_ATTACKED or len(train) < _FEWEST_ATTACKED)
    ):
        raise DataError(
            f"too few rows to attack: expected a holdout of {2 * _FEWEST_ATTACKED} rows and "
            f"{_FEWEST_ATTACKED} fitted ones at least, got {len(holdout)} and {len(train)}"
        )


def _known_rules(real: NumericTable) -> list[Rule]:
    """Return the rules that are known of a table without learning them."""
    if not are_orders(real.schema):
        return []

    def on_table(
        breaks: Callable[[pd.DataFrame], pd.Series | np.ndarray],
    ) -> Callable[[NumericTable], np.ndarray]:
        return lambda table: np.asarray(breaks(table.frame), dtype=bool)

    return [Rule(text, on_table(breaks)) for text, breaks in known_rules(real.frame).items()]


def _parts(
    model: Generator, holdout: pd.DataFrame, train: pd.DataFrame | None, seed: int, *, attack: bool
) -> _Parts:
    """Draw the synthetic rows, make numbers of all rows, shuffle and divide the real ones."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(holdout))
    drawn = max(_MOST_ROWS, max(_ATTACK_SIZES) * len(train) if attack and train is not None else 0)
    frames = [holdout, model.sample(drawn, seed), *([] if train is None else [train])]
    tables = numeric_tables(model.schema, frames)
    held = order
    if train is None:
        held, other = order[: len(order) // 2], order[len(order) // 2 :]
        others, real = tables[0].take(other), tables[0]
    else:
        others = tables[2].take(rng.permutation(len(train)))
        real = tables[0].joined(tables[2])
    return _Parts(
        held=tables[0].take(held[:_MOST_ROWS]),
        other=others.take(slice(_MOST_ROWS)),
        synthetic=tables[1].take(slice(_MOST_ROWS)),
        drawn=tables[1],
        train=None if train is None else tables[2],
        real=real,
        seed=seed,
    )


def _checked_target(held: NumericTable, target: str | None) -> str | None:
    """Return the column to predict, None for none."""
    names = held.schema.names
    if target is None:
        return TARGET if are_orders(held.schema) else None
    if target not in names:
        raise RequestError(f"no column {target!r} to predict; there are {', '.join(names)}")
    values = held.matrix[:, names.index(target)]
    distinct = len(np.unique(values[~np.isnan(values)]))
    if distinct != 2:
        raise RequestError(
            f"the column to predict must have two values, and {target!r} has {distinct} in the holdout"
        )
    return target


def _distinguished(
    parts: _Parts, sources: dict[str, NumericTable], columns: np.ndarray, advance: Callable[[], None]
) -> dict[str, dict[str, float]]:
    """Return how well a classifier distinguishes each source from unseen rows and from fitted ones.

    Both get equally many rows, so that the two figures can be compared. Only `columns` are looked at: a
    column that never repeats a value distinguishes even real rows that were numbered one after the other.
    """
    most = min(_MOST_COMPARED, max(500, _MOST_CELLS // len(parts.held.schema)))
    size = min(len(parts.held), len(parts.other), most)

    def distinguished(reference: NumericTable, rows: NumericTable) -> float:
        repeats = np.clip(min(_MOST_REPEATED, len(rows)) // size, 1, _REPEATS)
        known = reference.take(slice(size)).select(columns)
        parted = [rows.take(slice(i * size, (i + 1) * size)).select(columns) for i in range(repeats)]
        return float(np.mean([two_sample_auc(known, part, parts.seed) for part in parted]))

    figures: dict[str, dict[str, float]] = {}
    for source, rows in sources.items():
        figures[source] = {"c2st": distinguished(parts.held, rows) if columns.any() else np.nan}
        advance()
        if parts.train is None:
            continue
        if source == "real":  # unseen rows beside fitted ones, either way
            figures[source]["c2st_fitted"] = figures[source]["c2st"]
        else:
            figures[source]["c2st_fitted"] = distinguished(parts.other, rows) if columns.any() else np.nan
            advance()
    return figures


def _predicted(learned: NumericTable, tested: NumericTable, target: str | None, seed: int) -> float:
    if target is None:
        return np.nan
    hidden = UNKNOWN_AT_BOOKING if target == TARGET and are_orders(tested.schema) else {target}
    predictors = [name for name in tested.schema.names if name not in hidden]
    return transfer_auc(learned, tested, target, predictors, seed)


def _privacy(rows: NumericTable, parts: _Parts) -> dict[str, float]:
    """Return how much rows reveal of the fitted ones."""
    if parts.train is None:
        return {}
    position = _position(rows.schema)
    return {
        "copies": copied(rows, parts.train),
        "balance": _balance(rows, parts),
        "locations": copied(rows, parts.train, position) if position else np.nan,
    }


def _strings(parts: _Parts, sources: dict[str, NumericTable]) -> dict[str, float]:
    """Return the share of strings of a single row that were made again.

    For real rows those are strings of held-out rows in synthetic ones: what comes about without being kept.
    """
    if parts.train is None:
        return {}
    return {
        "synthetic": copied_strings(parts.train, parts.held, parts.drawn),
        "real": copied_strings(parts.held, parts.train, parts.drawn),
        "resampled": copied_strings(parts.train, parts.held, sources["resampled"]),
    }


def _balance(rows: NumericTable, parts: _Parts) -> float:
    """Return the nearest-record balance against equally many fitted and held rows."""
    size = min(len(parts.held), len(parts.other), _MOST_COMPARED)
    held = parts.held
    if rows is held:  # real rows are compared with the other half of their kind
        size = min(size, len(held) // 2)
        rows, held = held.take(slice(size, None)), held.take(slice(size))
    rows, held = rows.take(slice(_MOST_COMPARED)), held.take(slice(size))
    repeats = np.clip(len(parts.other) // size, 1, _REPEATS)
    fitted = [parts.other.take(slice(i * size, (i + 1) * size)) for i in range(repeats)]
    return float(np.mean([nearest_balance(rows, part, held) for part in fitted]))


_NO_ATTACKS = pd.DataFrame(
    {"rows": [], "times": np.zeros(0, np.int64), "attack": [], "auc": np.zeros(0), "found": np.zeros(0)}
)


def _attacks(parts: _Parts, advance: Callable[[], None]) -> pd.DataFrame:
    """Attack the synthetic rows and the training rows resampled; see `Report.attacks` for the columns."""
    train = parts.train if parts.train is not None else parts.other  # `_check_rows` requires them
    size = min(len(parts.held) // 2, len(parts.other), _MOST_ATTACKED)
    members, others = parts.other.take(slice(size)), parts.held.take(slice(size))
    reference = parts.held.take(slice(size, size + _MOST_COMPARED))
    fitted = len(train)
    targets = {("synthetic", times): parts.drawn.take(slice(times * fitted)) for times in _ATTACK_SIZES}
    targets["resampled", max(_ATTACK_SIZES)] = train  # ten times as many rows hold nearly every one
    found = []
    for (source, times), rows in targets.items():
        result = membership_inference(members, others, reference, rows)
        found.append(result.rename_axis("attack").reset_index().assign(rows=source, times=times))
        advance()
    return pd.concat(found, ignore_index=True)[list(_NO_ATTACKS.columns)]


def _column_charts(parts: _Parts, shapes: dict[str, np.ndarray], ids: np.ndarray) -> Iterator[Chart]:
    """Give the pictures of the columns that are furthest behind real rows."""
    behind = np.where(ids, -np.inf, shapes["real"] - shapes["synthetic"])
    for i in np.argsort(-behind, kind="stable")[:_CHARTS]:
        if not ids[i]:
            note = f"likeness {shapes['synthetic'][i]:.3f}, real rows reach {shapes['real'][i]:.3f}"
            yield column_chart(parts.held, parts.synthetic, parts.real, i, note)


def _pair_charts(
    parts: _Parts, positions: np.ndarray, pairs: dict[str, np.ndarray], ids: np.ndarray
) -> Iterator[Chart]:
    """Give the pictures of the pairs that are furthest behind real rows."""
    behind = pairs["real"] - pairs["synthetic"]
    behind = np.where(np.isnan(behind) | ids[positions].any(axis=1), -np.inf, behind)
    for k in np.argsort(-behind, kind="stable")[:_CHARTS]:
        if np.isfinite(behind[k]):
            note = f"likeness {pairs['synthetic'][k]:.3f}, real rows reach {pairs['real'][k]:.3f}"
            yield pair_chart(
                parts.held, parts.synthetic, parts.real, int(positions[k, 0]), int(positions[k, 1]), note
            )


def _position(schema: Schema) -> list[str]:
    """Return the columns of latitude and longitude by their names, none if there are not one of each."""
    found = [[c.name for c in schema if form.search(c.name)] for form in (_LATITUDE, _LONGITUDE)]
    return [names[0] for names in found] if all(len(names) == 1 for names in found) else []


def _mean(scores: np.ndarray) -> float:
    known = scores[~np.isnan(scores)]
    return float(known.mean()) if len(known) else np.nan

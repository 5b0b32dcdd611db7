"""The truth of events: twins, and exact probabilities compared with enumeration and with counting."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from helpers.networks import joint_distribution, random_network
from logistream import dataco
from logistream.errors import RequestError
from logistream.model.mixture import Mixture, strengths
from logistream.model.model import Model
from logistream.model.network import Emission, Factor, Formula
from logistream.model.posterior import Posterior
from logistream.model.sampling import BLOCK
from logistream.model.truth import probability
from logistream.schema import Column, Schema

RAMP = {"shape": "ramp", "position": 50, "width": 100}


def with_yes_and_no(seed: int) -> tuple[Model, np.ndarray, int, list[int]]:
    """Return a random model, its joint distribution, a column of yes and no, and some other columns."""
    for attempt in range(100):
        model, given = random_network(seed * 100 + attempt, 6)
        joint = joint_distribution(given)
        binary = np.flatnonzero(np.array(joint.shape) == 2)
        if len(binary):
            rng = np.random.default_rng(seed)
            target = int(rng.choice(binary))
            others = [i for i in range(6) if i != target]
            known = rng.choice(others, int(rng.integers(0, 5)), replace=False).tolist()
            return model, joint, target, known
    raise AssertionError("no column of two values")


def of_row(joint: np.ndarray, row: dict[str, Any], target: int, known: list[int]) -> tuple[float, float]:
    """Return how probable the known values are with a yes, and at all, by enumeration."""
    place = tuple(row[f"c{i}"] if i in known else slice(None) for i in range(joint.ndim))
    among = np.zeros_like(joint)
    among[place] = joint[place]
    return float(np.take(among, 1, axis=target).sum()), float(among.sum())


@pytest.mark.parametrize("seed", range(15))
def test_a_probability_is_as_an_enumeration_says(seed: int) -> None:
    """Of any network, target and known columns."""
    model, joint, target, known = with_yes_and_no(seed)
    batch = model.events(0, 60, seed)
    yes, total = Posterior(model, f"c{target}", [f"c{i}" for i in known]).joint(batch)
    expected = np.array([of_row(joint, row, target, known) for row in batch.to_pylist()])
    np.testing.assert_allclose(np.stack([yes, total], axis=1), expected, rtol=1e-12)


@pytest.mark.parametrize("seed", range(15))
def test_a_probability_under_a_ramp_is_as_an_enumeration_says(seed: int) -> None:
    """A mixture of the model and of a scenario with a set and a weight, by its strength at each event."""
    model, joint, target, known = with_yes_and_no(seed)
    roots = [i for i, factor in enumerate(model.factors) if not factor.parents]
    weighted = next(i for i in range(6) if i not in roots or i != roots[0])
    root, size = roots[0], joint.shape[roots[0]]
    effects = [
        {"set": {f"c{root}": size - 1}},
        {"weight": 3, "where": f"c{weighted}:0"},
    ]

    def along(axis: int, values: np.ndarray) -> np.ndarray:
        return values.reshape([-1 if other == axis else 1 for other in range(6)])

    under = joint / joint.sum(axis=tuple(i for i in range(6) if i != root), keepdims=True)
    under = under * along(root, (np.arange(size) == size - 1).astype(float))
    under = under * along(weighted, np.where(np.arange(joint.shape[weighted]) == 0, 3.0, 1.0))
    under /= under.sum()
    mixture = Mixture(model, {"effects": effects, "profile": RAMP}, seed)
    strength = strengths(mixture.scenarios, 0, 120)
    got = probability(mixture, 0, 120, strength, f"c{target}", [f"c{i}" for i in known])
    rows = mixture.batch(0, 120, strength).to_pylist()
    for row, alpha, found in zip(rows, strength[0], got, strict=True):
        ends = zip(of_row(joint, row, target, known), of_row(under, row, target, known), strict=True)
        yes, total = ((1 - alpha) * plain + alpha * changed for plain, changed in ends)
        assert found == pytest.approx(yes / total, rel=1e-9, abs=1e-12)


def calibration(model: Model, n: int, scenario: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the probability and the outcome of each event, after comparing them in ten bins."""
    late = model.events(0, n, 11, scenario=scenario).column("Late_delivery_risk").to_numpy()
    p = model.truth(0, n, 11, scenario=scenario)["late_probability"].to_numpy()
    assert not late[p == 0].any()
    assert late[p == 1].all()
    tenth = np.minimum((p * 10).astype(int), 9)
    for number in range(10):
        here = tenth == number
        spread = math.sqrt((p[here] * (1 - p[here])).sum())
        assert abs(late[here].sum() - p[here].sum()) <= 4.5 * spread + 1e-6, number
    return p, late


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_probabilities_are_calibrated_and_no_classifier_is_better(model: Model) -> None:
    """In each tenth as many of 100,000 are late as should be; a classifier has a lower AUC."""
    n = 100_000
    p, late = calibration(model, n, None)
    assert p.std() > 0.2
    rows = model.events(0, n, 11).select(model.booked_columns).to_pandas()
    for name in rows.select_dtypes("category"):
        rows[name] = rows[name].cat.codes
    learner = HistGradientBoostingClassifier(max_iter=60, random_state=0).fit(rows[: n // 2], late[: n // 2])
    predicted = learner.predict_proba(rows[n // 2 :])[:, 1]
    ceiling, reached = (roc_auc_score(late[n // 2 :], score) for score in (p[n // 2 :], predicted))
    assert reached > 0.7
    assert ceiling > reached


@pytest.mark.slow
@pytest.mark.parametrize(
    "scenario",
    [
        dataco.port_strike(profile={"shape": "ramp", "position": 6000, "width": 12000}),
        {"effects": [{"delay": 2, "where": "Order Status:CLOSED"}, {"delay": 1, "where": "Market:LATAM"}]},
        dataco.price_shock(),
        [
            dataco.carrier_outage(),
            {
                "effects": [
                    {"set": {"Late_delivery_risk": {"0": 1, "1": 9}}, "where": "Customer Country:EE. UU."}
                ],
                "profile": {"shape": "recurring", "period": 5000, "length": 2000},
            },
        ],
    ],
    ids=["a ramp", "delays by what is not known at booking", "scaled", "two at once"],
)
def test_probabilities_are_calibrated_under_scenarios(model: Model, scenario: Any) -> None:
    """Also while only a part of the events is drawn from a scenario."""
    calibration(model, 3 * BLOCK, scenario)


@pytest.mark.parametrize("scenario", [None, dataco.port_strike(), dataco.price_shock(9)], ids=str)
def test_an_event_with_the_values_of_its_twin_is_its_twin(model: Model, scenario: Any) -> None:
    """The truth names all columns that differ, with the baseline's values, and no others."""
    events, twins = model.events(100, 700, 3, scenario=scenario, twin=True)
    truth = model.truth(100, 700, 3, scenario=scenario)
    assert truth["event_number"].tolist() == list(range(100, 700))
    for event, twin, values in zip(events.to_pylist(), twins.to_pylist(), truth["twin"], strict=True):
        assert event | values == twin
        assert all(event[name] != value for name, value in values.items())
    assert (truth["twin"].map(len) > 0).any() == (scenario is not None)


def test_the_truth_names_scenarios_and_their_strength(model: Model) -> None:
    """A name where the event was drawn from it; the strength is the profile's."""
    profile = {"shape": "ramp", "position": 500, "width": 1000}
    late = {"name": "late", "effects": [{"set": {"Late_delivery_risk": 1}}], "profile": profile}
    prices = {"name": "dear", "effects": [{"scale": {"Product Price": 2}}]}
    truth = model.truth(0, 1000, scenario=late)
    assert np.allclose(truth["strength"], np.arange(1000) / 1000)
    drawn = truth["scenario"] == "late"
    assert abs(drawn.sum() - 500) < 5 * math.sqrt(1000 / 6)
    assert truth["scenario"][~drawn].isna().all()
    assert not truth["twin"][~drawn].map(len).any()
    with pytest.raises(
        RequestError, match=r"^the probability cannot be exact while only a part of the event"
    ):
        model.truth(0, 1000, scenario=prices | {"profile": profile})
    both = model.truth(0, 50, scenario=[prices, late | {"profile": None}])
    assert set(both["scenario"]) == {"dear; late"}


def test_values_from_ranges_that_overlap_count_for_all_of_them() -> None:
    """A number that two ranges can give is as probable as in both together; a gap is evidence too."""

    def factor(name: str, parents: tuple[str, ...], counts: np.ndarray, emission: Emission) -> Factor:
        n = len(counts)
        return Factor(
            name,
            counts.shape[1],
            parents,
            tuple(np.arange(n) for _ in parents),
            np.arange(n),
            np.arange(n + 1) * counts.shape[1],
            np.tile(np.arange(counts.shape[1]), n),
            counts.reshape(-1),
            (emission,),
        )

    low, high = np.array([0.0, 5.0, 0.0]), np.array([10.0, 10.0, 0.0])
    late = factor("late", (), np.array([[2, 1]]), Emission("late", np.array([0, 1])))
    missing = np.array([False, False, True])
    size = factor(
        "size", ("late",), np.array([[6, 1, 3], [2, 7, 1]]), Emission("size", low, high, None, missing)
    )
    schema = Schema((Column("late", "boolean"), Column("size", "number", nullable=True)))
    model = Model("sizes", schema, {}, {"late": "bool", "size": "float64"}, (late, size))
    values = model.events(0, 300).column("size").to_pylist()
    for value, found in zip(values, model.truth(0, 300)["late_probability"], strict=True):
        if value is None:
            no, yes = 2 * 0.3, 1 * 0.1
        else:
            no, yes = 2 * (0.6 / 10 + 0.1 / 5 * (value >= 5)), 1 * (0.2 / 10 + 0.7 / 5 * (value >= 5))
        assert found == pytest.approx(yes / (yes + no))


def test_what_is_computed_from_something_unknown_is_evidence(model: Model) -> None:
    """Of a helper column only the result is known: all its codes that give it are possible."""
    known = ["Product Price", "Order Item Quantity", "Sales", "Sales per customer"]
    yes, total = Posterior(model, "Late_delivery_risk", known).joint(model.events(0, 50))
    late = model.factors[[factor.name for factor in model.factors].index("Late_delivery_risk")]
    assert np.allclose(yes / total, late.counts[1] / late.counts.sum())  # which is independent of them
    with pytest.raises(RequestError, match=r"^the probability cannot be exact, since 'Sales' is computed"):
        Posterior(model, "Late_delivery_risk", ["Sales"])
    flag = Factor("late", 2, (), (), np.array([0]), np.array([0, 2]), np.arange(2), np.array([1, 1]), ())
    flag = replace(flag, emissions=(Emission("late", np.array([0, 1])),))
    helper = Factor(
        "helper",
        3,
        ("late",),
        (np.arange(2),),
        np.arange(2),
        np.array([0, 3, 6]),
        np.tile(np.arange(3), 2),
        np.array([1, 2, 3, 4, 2, 6]),
        (Emission("helper", np.array([2, 3, -2])),),
    )
    squared = Formula("squared", "square", "helper")
    schema = Schema((Column("late", "boolean"), Column("squared", "integer")))
    small = Model("small", schema, {}, {"late": "bool", "squared": "int64"}, (flag, helper), (squared,))
    values = small.events(0, 100).column("squared").to_pylist()
    for value, found in zip(values, small.truth(0, 100)["late_probability"], strict=True):
        no, yes_too = {4: (4 / 6, 10 / 12), 9: (2 / 6, 2 / 12)}[value]
        assert found == pytest.approx(yes_too / (no + yes_too))


def test_a_target_needs_yes_and_no(model: Model) -> None:
    """An unknown column, one of other values, or a choice between several is refused in a sentence."""
    with pytest.raises(
        RequestError, match=r"^no column is called 'Late': there are .*'Late_delivery_risk', "
    ):
        model.truth(0, 5, target="Late")
    with pytest.raises(RequestError, match=r"^'Type' is no column of yes and no: its probability needs"):
        model.truth(0, 5, target="Type")
    no_target, _ = random_network(3)
    assert "late_probability" not in no_target.truth(0, 5)
    columns = tuple(Column(name, "boolean") for name in ("a", "b"))
    factors = tuple(
        Factor(name, 2, (), (), np.array([0]), np.array([0, 2]), np.arange(2), np.ones(2, int), (emission,))
        for name, emission in (("a", Emission("a", np.arange(2))), ("b", Emission("b", np.arange(2))))
    )
    two = Model("two", Schema(columns), {}, {"a": "bool", "b": "bool"}, factors)
    with pytest.raises(RequestError, match=r"^several columns have yes and no: name one as target: a, b$"):
        two.truth(0, 5)
    assert two.truth(0, 5, target="b")["late_probability"].tolist() == [0.5] * 5


def test_the_truth_is_a_frame_of_plain_columns(model: Model) -> None:
    """Their dtypes are those of the documentation, also of no events at all."""
    for n in (0, 10):
        truth = model.truth(5, 5 + n)
        assert truth.dtypes.astype(str).to_dict() == {
            "event_number": "int64",
            "strength": "float64",
            "scenario": "str",
            "in_force": "object",
            "twin": "object",
            "late_probability": "float64",
        }
        assert isinstance(truth, pd.DataFrame)

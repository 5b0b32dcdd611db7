"""What scenarios do to events, compared with enumeration, with counting, and event by event."""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.networks import assert_counts, joint_distribution, random_network
from logistream import dataco
from logistream.errors import RequestError
from logistream.fitting.fit import fit
from logistream.model.mixture import Mixture
from logistream.model.network import Emission, Factor
from logistream.model.sampling import BLOCK
from logistream.model.scenario import Scenario
from logistream.schema import Column, Schema
from logistream.times import DAY

if TYPE_CHECKING:
    from logistream.model.model import Model

NAMED = [
    dataco.peak_season(),
    dataco.port_strike(),
    dataco.carrier_outage(),
    dataco.fraud_wave(),
    dataco.price_shock(),
]
ALL = 10**9  # an event number behind all that is drawn here


def differing(a: pa.RecordBatch, b: pa.RecordBatch) -> pd.DataFrame:
    """Return which values of two batches differ."""
    differs: pd.DataFrame = a.to_pandas().astype("str") != b.to_pandas().astype("str")
    return differs


def random_effects(
    joint: np.ndarray, given: list[np.ndarray], seed: int
) -> tuple[list[dict[str, Any]], np.ndarray]:
    """Return random effects on a random network, and the distribution under them by enumeration."""
    rng = np.random.default_rng(seed)
    sizes = joint.shape

    def axis(i: int, values: np.ndarray) -> np.ndarray:
        return values.reshape([-1 if j == i else 1 for j in range(len(sizes))])

    def condition(below: int) -> tuple[list[str], np.ndarray]:
        where, mask = [], np.ones((), bool)
        for i in rng.choice(below, int(rng.integers(1, min(below, 2) + 1)), replace=False):
            some = rng.choice(sizes[i], int(rng.integers(1, sizes[i])), replace=False)
            where += [f"c{i} in {', '.join(map(str, some))}"]
            mask = mask & axis(i, np.isin(np.arange(sizes[i]), some))
        return where, mask

    effects: list[dict[str, Any]] = []
    given = [shares.reshape([*shares.shape, *[1] * (len(sizes) - shares.ndim)]) for shares in given]
    for i in rng.choice(np.arange(1, len(sizes)), int(rng.integers(0, 3)), replace=False):
        where, mask = condition(int(i))
        frequencies = rng.integers(0, 4, sizes[i])
        frequencies[rng.integers(sizes[i])] += 1
        if frequencies.sum() in (3, 6, 7, 9):  # thirds have more than four decimals
            frequencies = (np.arange(sizes[i]) == frequencies.argmax()).astype(int)
        effects.append({"set": {f"c{i}": dict(enumerate(frequencies.tolist()))}, "where": where})
        given[i] = np.where(mask, axis(i, frequencies / frequencies.sum()), given[i])
    p = np.ones(())
    for shares in given:
        p = p * shares
    wanted = []
    for _ in range(int(rng.integers(1, 4))):
        where, mask = condition(len(sizes))
        if rng.random() < 0.5:
            weight = float(rng.choice([0.25, 0.5, 2, 5]))
            effects.append({"weight": weight, "where": where})
            p = p * np.where(mask, weight, 1)
        else:
            wanted.append((mask, float(rng.uniform(0.2, 0.8))))
            effects.append({"share": wanted[-1][1], "where": where})
    p = p / p.sum()
    for _ in range(2000):  # of all distributions in which the shares hold, the nearest
        for mask, share in wanted:
            now = (p * mask).sum()
            p = p * np.where(mask, share / now, (1 - share) / (1 - now))
    assert all(abs((p * mask).sum() - share) < 1e-9 for mask, share in wanted)
    return effects, p


@pytest.mark.parametrize(
    "seed", [*range(6), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(6, 30))]
)
def test_random_effects_are_as_an_enumeration_says(seed: int) -> None:
    """Of any network and effects, each combination of values is as frequent as it should be."""
    model, given_shares = random_network(seed)
    effects, expected = random_effects(joint_distribution(given_shares), given_shares, seed + 1000)
    batch = model.events(0, 10 * BLOCK, seed, scenario={"effects": effects})
    drawn = [batch.column(name).to_numpy() for name in model.schema.names]
    cell = np.ravel_multi_index(drawn, expected.shape)
    counts = np.bincount(cell, minlength=expected.size)
    assert_counts(counts, expected.reshape(-1) * batch.num_rows, effects)


@pytest.mark.slow
def test_a_share_is_exact_over_a_million_events(model: Model) -> None:
    """With 0.9 of the events for Europe, as many of a million are within 5 standard deviations."""
    mixture = Mixture(model, {"effects": [{"share": 0.9, "where": "Market:Europe"}]}, 3)
    count, n = 0, 1_000_000
    for start in range(0, n, 25 * BLOCK):
        stop = min(n, start + 25 * BLOCK)
        batch = mixture.batch(start, stop, np.ones((1, stop - start)))
        count += (batch.column("Market").to_pandas() == "Europe").sum()
    assert abs(count - 0.9 * n) < 5 * math.sqrt(n * 0.9 * 0.1)


@pytest.mark.slow
def test_a_weight_keeps_what_is_given_the_condition(model: Model) -> None:
    """Events that are meant, and those that are not, are distributed as they are without the scenario."""
    n = 60 * BLOCK
    weighted, plain = model.events(
        0, n, 4, scenario={"effects": [{"weight": 4, "where": "Market:Africa"}]}, twin=True
    )
    a, b = weighted.to_pandas(), plain.to_pandas()
    shares = [float((frame["Market"] == "Africa").mean()) for frame in (a, b)]
    assert shares[0] == pytest.approx(4 * shares[1] / (1 + 3 * shares[1]), abs=5 * math.sqrt(0.25 / n))
    for here in (True, False):
        of_a, of_b = (f[(f["Market"] == "Africa") == here] for f in (a, b))
        for name in ("Order Region", "Order Country", "Type", "Shipping Mode", "Product Category Id"):
            many = of_b[name].value_counts(normalize=True)
            many = many[many > 0.001]
            counts = of_a[name].value_counts().reindex(many.index, fill_value=0)
            sizes = len(of_a), len(of_b)
            spread = np.sqrt(many * (1 - many) * (1 / sizes[0] + 1 / sizes[1]))
            assert (np.abs(counts / sizes[0] - many) < 6 * spread).all(), (here, name)


def test_a_weight_changes_only_what_it_must(model: Model) -> None:
    """Events that become more frequent stay as they are; the others are replaced by such events or stay."""
    scenario = {"effects": [{"weight": 3, "where": "Market:Europe"}]}
    events, twins = model.events(0, 5 * BLOCK, scenario=scenario, twin=True)
    changed = differing(events, twins).any(axis=1)
    meant = twins.to_pandas()["Market"] == "Europe"
    assert not changed[meant].any()
    assert (events.to_pandas()["Market"][changed] == "Europe").all()
    share = float(meant.mean())
    replaced = 1 - 1 / (1 + 2 * share)
    others = int((~meant).sum())
    assert abs(changed.sum() - replaced * others) < 5 * math.sqrt(others * replaced * (1 - replaced))


SETS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "a root": (
        {"set": {"Type": "CASH"}},
        {"Type", "Order Status", "Order Country", "Order State", "Order City", "Customer City", "Latitude"}
        | {"Longitude"},
    ),
    "what modes follow from": (
        {"set": {"Late_delivery_risk": 0}},
        {"Late_delivery_risk", "Days for shipment (scheduled)", "Shipping Mode"},
    ),
    "where a column drawn later holds": (
        {"set": {"Late_delivery_risk": {"0": 1, "1": 3}}, "where": "Market:Africa"},
        {"Late_delivery_risk", "Days for shipment (scheduled)", "Shipping Mode"},
    ),
}


@pytest.mark.parametrize(("effect", "downstream"), SETS.values(), ids=SETS.keys())
def test_a_set_leaves_all_else_as_it_was(model: Model, effect: dict[str, Any], downstream: set[str]) -> None:
    """Columns that do not depend on it are equal event by event; where the condition fails, all are."""
    events, twins = model.events(7, 4 * BLOCK, scenario={"effects": [effect]}, twin=True)
    differs = differing(events, twins)
    assert set(differs.columns[differs.any()]) <= downstream
    [(name, wanted)] = effect["set"].items()
    assert differs[name].any()
    if "where" in effect:
        elsewhere = twins.to_pandas()["Market"] != "Africa"
        assert not differs[elsewhere].to_numpy().any()
    elif not isinstance(wanted, dict):
        assert set(events.column(name).to_pylist()) == {wanted}


def test_what_is_set_to_its_own_value_stays_itself(model: Model) -> None:
    """An event on which a scenario has no effect is equal to its twin."""
    scenario = {"effects": [{"set": {"Type": "CASH"}}]}
    events, twins = model.events(0, BLOCK, scenario=scenario, twin=True)
    same = twins.to_pandas()["Type"] == "CASH"
    assert same.any()
    assert not differing(events, twins)[same].to_numpy().any()


def test_a_scaled_number_is_followed_by_what_is_computed_from_it(model: Model) -> None:
    """Sales, what the customer pays and the profit follow the price; nothing else changes."""
    effect = {"scale": {"Product Price": 1.5}, "where": "Product Category Id:17"}
    events, twins = model.events(0, 2 * BLOCK, scenario={"effects": [effect]}, twin=True)
    a, b = events.to_pandas(), twins.to_pandas()
    meant = b["Product Category Id"] == 17
    assert np.allclose(a["Product Price"][meant], (b["Product Price"][meant] * 1.5).round(2))
    assert np.allclose(a["Sales"], a["Product Price"] * a["Order Item Quantity"], atol=0.005)
    differs = differing(events, twins)
    assert set(differs.columns[differs.any()]) <= {
        "Product Price",
        "Sales",
        "Sales per customer",
        "Benefit per order",
    }
    assert not differs[~meant].to_numpy().any()


def test_a_delay_makes_late_what_takes_longer_than_promised(model: Model) -> None:
    """The delivery comes so many days later, and is late exactly if that is more than was promised."""
    n = 2 * BLOCK
    scenario = {"effects": [{"delay": 2, "where": "Order Region:Caribbean"}]}
    mixture = Mixture(model, scenario, live=True)
    times = np.arange(n) * 1_000_000
    events, twins = mixture.batch_and_twins(0, n, np.ones((1, n)), times)
    a, b = events.to_pandas(), twins.to_pandas()
    days = [(f["shipping date (DateOrders)"] - f["event_time"]).dt.days for f in (a, b)]
    meant = a["Order Region"] == "Caribbean"
    assert meant.any()
    assert (days[0] == days[1] + 2 * meant).all()
    late = a["Late_delivery_risk"] == 1
    assert (late == (days[0] > a["Days for shipment (scheduled)"])).all()
    assert late[meant].mean() > (b["Late_delivery_risk"] == 1)[meant].mean()
    offline = model.events(0, BLOCK, scenario=scenario).to_pandas()
    assert (offline["Late_delivery_risk"] == a["Late_delivery_risk"][:BLOCK]).all()
    history = model.events(0, BLOCK).column("shipping date (DateOrders)").to_pandas()
    assert (offline["shipping date (DateOrders)"] == history + pd.to_timedelta(2 * meant[:BLOCK], "D")).all()


@pytest.mark.parametrize("scenario", NAMED, ids=lambda s: s["name"])
def test_orders_of_named_scenarios_are_possible_orders(model: Model, scenario: dict[str, Any]) -> None:
    """Late is what takes longer than promised; sums hold; and something changes."""
    n = 2 * BLOCK
    mixture = Mixture(model, scenario, live=True)
    batch, twins = mixture.batch_and_twins(0, n, np.ones((1, n)), np.arange(n) * DAY)
    events = batch.to_pandas()
    days = (events["shipping date (DateOrders)"] - events["event_time"]).dt.days
    assert ((events["Late_delivery_risk"] == 1) == (days > events["Days for shipment (scheduled)"])).all()
    assert np.allclose(events["Sales"], events["Product Price"] * events["Order Item Quantity"], atol=0.006)
    assert differing(batch, twins).any(axis=1).mean() > 0.01


@pytest.mark.slow
@given(
    cuts=st.lists(st.integers(0, 2 * BLOCK), min_size=2, max_size=4).map(sorted), named=st.sampled_from(NAMED)
)
@settings(max_examples=10)
def test_any_split_gives_the_same_events(model: Model, cuts: list[int], named: dict[str, Any]) -> None:
    """Also under a scenario, and where its strength changes from event to event."""
    profile = {"shape": "ramp", "position": BLOCK, "width": BLOCK}
    data_effects = [effect for effect in named["effects"] if "rate" not in effect]
    scenario = Scenario(data_effects, profile)
    whole = model.events(cuts[0], cuts[-1], 5, scenario=scenario).to_pylist()
    pairs = itertools.pairwise(cuts)
    parts = [row for a, b in pairs for row in model.events(a, b, 5, scenario=scenario).to_pylist()]
    assert parts == whole


def test_a_ramp_mixes_with_a_known_share(model: Model) -> None:
    """Each event is drawn from the scenario with the probability that the profile gives."""
    n = 6 * BLOCK
    profile = {"shape": "ramp", "position": n / 2, "width": n}
    scenario = {"effects": [{"set": {"Late_delivery_risk": 1}}], "profile": profile}
    events, twins = model.events(0, n, 2, scenario=scenario, twin=True)
    late = events.column("Late_delivery_risk").to_numpy()
    before = twins.column("Late_delivery_risk").to_numpy()
    strength = np.arange(n) / n
    for part in np.array_split(np.arange(n), 6):
        punctual = part[before[part] == 0]
        expected = strength[punctual].sum()
        assert abs(late[punctual].sum() - expected) < 5 * math.sqrt(len(punctual) / 4)
    assert (late >= before).all()


def test_a_recurring_profile_holds_in_turns(model: Model) -> None:
    """Within each period for its length, and otherwise events are equal to their twins."""
    profile = {"shape": "recurring", "period": 100, "length": 30, "at": 50}
    scenario = {"effects": [{"set": {"Type": "CASH"}}], "profile": profile}
    events, twins = model.events(0, 1000, scenario=scenario, twin=True)
    numbers = np.arange(1000)
    holds = (numbers >= 50) & ((numbers - 50) % 100 < 30)
    assert (events.to_pandas()["Type"][holds] == "CASH").all()
    assert events.filter(pa.array(~holds)).equals(twins.filter(pa.array(~holds)))


def test_a_scenario_that_does_not_hold_yet_changes_nothing(model: Model) -> None:
    """Byte by byte."""
    scenario = {"effects": [{"set": {"Type": "CASH"}}], "profile": {"shape": "abrupt", "at": ALL}}
    events, twins = model.events(0, 2 * BLOCK, scenario=scenario, twin=True)
    assert events.equals(twins)
    assert events.equals(model.events(0, 2 * BLOCK))


def test_several_scenarios_hold_at_once(model: Model) -> None:
    """Their effects act together, each by its own profile."""
    prices = {"effects": [{"scale": {"Product Price": 2}}]}
    late = {"effects": [{"set": {"Late_delivery_risk": 1}}], "profile": {"shape": "abrupt", "at": 1000}}
    both, twins = model.events(0, 2000, scenario=[prices, late], twin=True)
    a, b = both.to_pandas(), twins.to_pandas()
    assert np.allclose(a["Product Price"], 2 * b["Product Price"])
    assert a["Late_delivery_risk"][:1000].equals(b["Late_delivery_risk"][:1000])
    assert (a["Late_delivery_risk"][1000:] == 1).all()
    names = [name for name in model.schema.names if name not in ("Product Price", "Sales")]
    first = model.events(0, 1000, scenario=prices).select(names)
    assert both.slice(0, 1000).select(names).equals(first)


def test_rows_are_those_of_events(model: Model) -> None:
    """`sample` gives the same values as `events`, with the dtypes of the fitted frame."""
    scenario = dataco.fraud_wave()
    frame = model.sample(500, 9, scenario=scenario)
    assert frame.dtypes.equals(model.sample(1).dtypes)
    assert frame["Sales"].tolist() == model.events(0, 500, 9, scenario=scenario).column("Sales").to_pylist()
    with pytest.raises(RequestError, match=r"^where and scenario cannot be given together: filter the rows"):
        model.sample(5, where="Market:Europe", scenario=scenario)


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"weight": 3, "where": "Market:Erope"}, "'Market' is never 'Erope': it is 'Africa', 'Europe', 'LATAM'"),
    (
        {"weight": 3, "where": {"Markt": "Europe"}},
        "a condition is written COLUMN:VALUE or COLUMN>=VALUE, and 'Markt:Europe' begins with no column and "
        "operator: there are 'Market', ",
    ),
    ({"set": {"Tipe": "CASH"}}, "no column is called 'Tipe': there are 'Type', "),
    ({"set": {"Type": "CASCH"}}, "'Type' is never 'CASCH': it is 'CASH', 'DEBIT', 'PAYMENT', 'TRANSFER'"),
    ({"set": {"Order Item Quantity": "two"}}, "a condition on 'Order Item Quantity' needs a whole number"),
    (
        {"set": {"Sales": 100.0}},
        "'Sales' cannot be set, since it is computed from other columns: set 'Product Price' or "
        "'Order Item Quantity'",
    ),
    (
        {"set": {"Type": "CASH"}, "where": "Order Status:CLOSED"},
        "'Type' cannot be set where Order Status:CLOSED, since what decides that depends on 'Type': use ",
    ),
    (
        {"set": {"Shipping Mode": "Same Day"}},
        "setting Shipping Mode = Same Day would give combinations with 'Days for shipment (scheduled)' that "
        "never occur, and 'Days for shipment (scheduled)' is drawn before it: set ",
    ),
    (
        {"set": {"Type": {"CASH": 1, "DEBIT": math.pi}}},
        "the relative frequency of 'CASH' in 'Type' is too fine: use shares of at most four decimals",
    ),
    ({"scale": {"Type": 2}}, "'Type' cannot be scaled, since it is no number: numbers are "),
    ({"scale": {"Prize": 2}}, "no column is called 'Prize': there are 'Product Price', "),
    (
        {"scale": {"Days for shipment (scheduled)": 2}},
        "'Days for shipment (scheduled)' cannot be scaled, since 'shipping date (DateOrders)' follows from ",
    ),
    (
        {"weight": 2, "where": ["shipping date (DateOrders)>=2017-01-01"]},
        "a scenario cannot depend on 'shipping date (DateOrders)', since it follows the clock in a stream",
    ),
    (
        {"weight": 2, "where": "Sales per customer>=300"},
        "weight 2 where Sales per customer>=300 cannot be exact, since the tables would be too large: use ",
    ),
    (
        {"scale": {"Sales": 2}, "where": "Longitude>=-66.1"},
        "the effect scale cannot be exact where Longitude >= -66.1: the model draws 'Longitude' from ranges ",
    ),
    (
        {"share": 0.5, "where": "Product Status:0"},
        "the effect share 0.5 where Product Status:0 is not possible: every event of this scenario fulfils",
    ),
    ({"weight": 0, "where": "Product Status:0"}, "no event is left under these weights and shares: raise "),
]


@pytest.mark.parametrize(("effect", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_what_is_unknown_or_cannot_be_exact_is_refused(
    model: Model, effect: dict[str, Any], message: str
) -> None:
    """In one sentence, with the nearest names or with the reason."""
    with pytest.raises(RequestError) as refused:
        model.events(0, 10, scenario={"effects": [effect]})
    assert str(refused.value).startswith(message)


TOGETHER: list[tuple[list[dict[str, Any]], str]] = [
    (
        [{"share": 0.5, "where": "Type:CASH"}, {"share": 0.6, "where": "Type:DEBIT"}],
        "these effects cannot hold together: share 0.5 where Type:CASH and share 0.6 where Type:DEBIT",
    ),
    (
        [{"delay": 1}, {"share": 0.5, "where": "Late_delivery_risk:1"}],
        "the effect share 0.5 where Late_delivery_risk:1 cannot be exact, since scale or delay changes ",
    ),
    (
        [{"scale": {"Product Price": 2}}, {"weight": 0.5, "where": "Sales>=100"}],
        "the effect weight 0.5 where Sales>=100 cannot be exact, since scale or delay changes 'Sales' ",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("effects", "message"), TOGETHER, ids=[message for _, message in TOGETHER])
def test_effects_that_exclude_each_other_are_refused(
    model: Model, effects: list[dict[str, Any]], message: str
) -> None:
    """Also if they stand in two scenarios that hold at once."""
    for scenario in ({"effects": effects}, [{"effects": [effect]} for effect in effects]):
        with pytest.raises(RequestError) as refused:
            model.events(0, 10, scenario=scenario)
        assert str(refused.value).startswith(message)


def test_rows_without_a_stream_have_no_time(model: Model) -> None:
    """A profile in seconds is for a stream."""
    scenario = {"effects": [{"delay": 1}], "profile": {"unit": "seconds", "at": 5}}
    with pytest.raises(
        RequestError, match=r"^the profile of 'delay 1 days' counts seconds, and rows without"
    ):
        model.sample(5, scenario=scenario)


def test_a_delay_needs_a_delivery() -> None:
    """A model without a column that follows by days refuses a delay, with the reason."""
    model, _ = random_network(1)
    with pytest.raises(
        RequestError, match=r"^the effect delay needs a column that follows the event by days"
    ):
        model.events(0, 5, scenario={"effects": [{"delay": 1}]})


@pytest.fixture(scope="module")
def parcels() -> Model:
    """Return a model of a table with gaps, ranges, truth values and a name of each row."""
    rng = np.random.default_rng(5)
    n = 2000
    zone = rng.integers(0, 4, n)
    frame = pd.DataFrame(
        {
            "id": [f"P-{i:05d}" for i in rng.permutation(90_000)[:n]],
            "zone": pd.Series(np.array(["north", "south", "east", "west"])[zone]).mask(rng.random(n) < 0.1),
            "fragile": rng.random(n) < 0.1 + 0.2 * zone,
            "pieces": rng.integers(1, 6, n) + zone,
            "length": rng.normal(10, 2, n) + zone,
        }
    )
    return fit(frame, name="parcels")


def test_foreign_tables_have_scenarios_too(parcels: Model) -> None:
    """Gaps, truth values, numbers within ranges and names of rows; what is not meant stays."""
    effects: list[dict[str, Any]] = [
        {"set": {"zone": None}, "where": {"fragile": True}},
        {"share": 0.25, "where": {"fragile": True}},
        {"scale": {"pieces": 2.5, "length": 0.5}},
    ]
    events, twins = parcels.events(0, 5 * BLOCK, scenario={"effects": effects}, twin=True)
    a, b = events.to_pandas(), twins.to_pandas()
    assert abs(a["fragile"].mean() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / len(a))
    assert a["zone"][a["fragile"]].isna().all()
    kept = a["fragile"] == b["fragile"]
    assert np.allclose(a["length"][kept & ~b["fragile"]], b["length"][kept & ~b["fragile"]] / 2)
    assert a["id"].equals(b["id"])
    assert a["pieces"].dtype == b["pieces"].dtype
    with pytest.raises(RequestError, match=r"^'id' cannot be set, since it names the rows"):
        parcels.events(0, 5, scenario={"effects": [{"set": {"id": "P-00001"}}]})


def test_a_column_with_a_quotation_mark_in_its_name_can_be_set() -> None:
    """Its values may be strings, as the keys of JSON objects are."""
    rng = np.random.default_rng(0)
    model = fit(pd.DataFrame({'size 5"': rng.integers(0, 3, 500), "x": rng.choice(list("abc"), 500)}))
    scenario = {"effects": [{"set": {'size 5"': {"1": 1, "2": 1}}}]}
    assert set(model.events(0, 100, scenario=scenario).column('size 5"').to_pylist()) == {1, 2}


def test_a_number_within_a_range_can_be_set() -> None:
    """Also if the model draws its values from ranges; what depends on it follows the range."""
    size = Factor(
        "size",
        2,
        (),
        (),
        np.array([0]),
        np.array([0, 2]),
        np.array([0, 1]),
        np.array([3, 1]),
        (Emission("size", np.array([0.0, 10.0]), np.array([10.0, 20.0]), None),),
    )
    big = Factor(
        "big",
        2,
        ("size",),
        (np.array([0, 1]),),
        np.array([0, 1]),
        np.array([0, 1, 2]),
        np.array([0, 1]),
        np.array([1, 1]),
        (Emission("big", np.array([0, 1])),),
    )
    model, _ = random_network(0)
    small = type(model)(
        "sizes",
        Schema((Column("size", "number"), Column("big", "boolean"))),
        {},
        {"size": "float64", "big": "bool"},
        (size, big),
    )
    batch = small.events(0, BLOCK, scenario={"effects": [{"set": {"size": 12.5}}]})
    assert set(batch.column("size").to_pylist()) == {12.5}
    assert set(batch.column("big").to_pylist()) == {True}
    two = {"effects": [{"set": {"size": {12.5: 1, 13.5: 1}}}]}
    with pytest.raises(RequestError, match=r"^two of the values that 'size' is set to lie in one range"):
        small.events(0, 5, scenario=two)

"""The structure of a model in words and as a picture."""

from __future__ import annotations

import re
from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from logistream.fitting.fit import fit
from logistream.model.description import Description
from logistream.model.drawing import Box, Wire, draw
from logistream.model.model import Model
from logistream.model.network import Emission, Factor, Formula
from logistream.schema import Column, Schema

SVG = "{http://www.w3.org/2000/svg}"


def factor(
    name: str, rows: list[list[int]], *emissions: Emission, parent: str = "", groups: int = 1
) -> Factor:
    """Return a factor with the given counts of each code, a row for each code of the parent."""
    codes, counts = zip(*((i, n) for row in rows for i, n in enumerate(row) if n), strict=True)
    offsets = np.cumsum([0, *(sum(n > 0 for n in row) for row in rows)])
    return Factor(
        name,
        len(rows[0]),
        (parent,) if parent else (),
        (np.arange(groups),) if parent else (),
        np.arange(len(rows)),
        offsets,
        np.array(codes),
        np.array(counts),
        emissions,
    )


@pytest.fixture(scope="module")
def small() -> Model:
    """Return a model made by hand, whose structure is known."""
    whole, cents = np.array, (1, 100)
    return Model(
        name="parcels",
        schema=Schema(
            (
                Column("country", "category"),
                Column("city", "category"),
                Column("weight", "number", decimals=2, nullable=True),
                Column("price", "number", decimals=2),
                Column("colour", "category"),
                Column("unit", "integer"),
            )
        ),
        categories={"country": ("A", "B"), "city": ("a", "b", "c"), "colour": ("red", "blue")},
        dtypes={},
        factors=(
            factor("country of city", [[50, 50]]),
            factor(
                "city",
                [[60, 40, 0], [0, 0, 100]],
                Emission("country", whole([0, 0, 1])),
                Emission("city", whole([0, 1, 2])),
                parent="country of city",
                groups=2,
            ),
            factor(
                "weight",
                [[80, 10, 10], [80, 10, 10], [0, 50, 50]],
                Emission(
                    "weight", whole([100, 150, 0]), whole([100, 900, 0]), cents, whole([False, False, True])
                ),
                parent="city",
                groups=3,
            ),
            factor("price / weight", [[10, 10]], Emission("price / weight", whole([200, 300]), None, cents)),
            factor("colour", [[10, 10]], Emission("colour", whole([0, 1]))),
            factor("unit", [[1]], Emission("unit", whole([7]))),
        ),
        formulas=(Formula("price", "product", "weight", "price / weight", 2),),
        rows=100,
    )


def test_words_describe_the_whole_structure(small: Model) -> None:
    """Sentences by heading: computed, determined, dependent and how much, independent, values."""
    text = re.sub(r"[\d.]+%", "…%", str(small.describe()))
    assert text.splitlines() == [
        "parcels: 6 columns learned from 100 rows",
        "",
        "Computed (not drawn)",
        "  price = weight × its rate",
        "",
        "Functional dependencies (each value of the first column has a single one of the others)",
        "  city → country",
        "",
        "Dependent (on what, and how much; + 2: with two more columns associated with it)",
        "  weight: much on city",
        "",
        "Independent of all others",
        "  rate of price, colour, unit",
        "",
        "Values",
        "  weight: from 1 to 9; point masses at 1 (…%); …% missing",
        "  unit: always 7",
    ]
    assert repr(small.describe()) == str(small.describe())


def test_findings_are_right(small: Model) -> None:
    """Factors that give no column are passed through; weights and shares are those of the model."""
    found = small.describe().findings
    assert [group.short for group in found.groups] == ["city", "weight", "rate of price", "colour", "unit"]
    (dependence,) = found.dependences
    assert (dependence.source.short, dependence.target.short) == ("city", "weight")
    assert dependence.weight == pytest.approx(0.388, abs=0.02)  # by hand
    (weight,) = (marginal for marginal in found.marginals if marginal.column == "weight")
    assert weight.continuous
    assert weight.missing == pytest.approx(0.3, abs=0.02)
    ((value, share),) = weight.point_masses
    assert value == 1.0
    assert share == pytest.approx(0.4, abs=0.02)


def test_equal_models_have_equal_descriptions(small: Model, model: Model) -> None:
    """A description is a value."""
    assert small.describe() == Description(small)
    assert hash(small.describe()) == hash(Description(small))
    assert small.describe() != model.describe()


def test_a_notebook_gets_words_and_picture(small: Model) -> None:
    """HTML that needs nothing from elsewhere, and plain text for all others."""
    bundle = small.describe()._repr_mimebundle_()
    assert bundle["text/plain"] == str(small.describe())
    html = bundle["text/html"]
    assert "<svg" in html
    assert "city → country" in html
    assert not re.search(r"<script|<style|(?:src|href)=|url\(", html)


def test_the_picture_shows_what_was_found(small: Model) -> None:
    """A box for each group and formula, dashed if computed; a dot for each dependence, with words on it."""
    root = ET.fromstring(small.describe().svg)
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {"city", "country", "weight", "rate of price", "price = weight × its rate"} <= set(texts)
    assert "continuous with point masses, 30% missing" in texts
    titles = [dot.findtext(f"{SVG}title") or "" for dot in root.iter(f"{SVG}circle")]
    assert any(re.fullmatch(r"weight depends (in part|much) on city \(0\.\d\d\)", text) for text in titles)
    assert [text for text in titles if text.startswith("price is")] == ["price is computed from it"] * 2
    assert sum("stroke-dasharray" in box.attrib for box in root.iter(f"{SVG}rect")) == 2  # and the legend's


@pytest.mark.slow
def test_orders_are_described(model: Model) -> None:
    """The shipped model knows the rules of DataCo, and none of its helpers shows."""
    text = re.sub(r" \(holds in [\d,]+( of [\d,]+)? rows\)", "", str(model.describe()))
    for sentence in (
        "Sales = Product Price × Order Item Quantity",
        "Order Status → Type",
        "Customer City → Customer Country",
        "Product Status: always 0",
        "shipping date (DateOrders) = event_time + the days that Shipping Mode takes",
    ):
        assert f"  {sentence}\n" in f"{text}\n"
    assert " of Order City, " not in text
    ET.fromstring(model.describe().svg)


def test_names_of_any_kind_are_drawn() -> None:
    """Names with markup, of other scripts, and far too long ones do not break the picture."""
    names = ("<b>&\"'", "注文 日付", "x" * 300, "€ – ß")
    svg = draw([Box(((name, False),)) for name in names], [Wire(0, 2, 0.5, "<&>")], "a <title> & more")
    texts = [text.text or "" for text in ET.fromstring(svg).iter(f"{SVG}text")]
    assert names[0] in texts
    assert names[1] in texts
    assert names[3] in texts
    assert any(len(text) < 80 and text.startswith("xxx") and text.endswith("…") for text in texts)


def test_wires_never_cross_where_they_begin() -> None:
    """Of two wires that run side by side the one that began first is the outer one."""
    rng = np.random.default_rng(0)
    pairs = sorted(
        {tuple(sorted(pair)) for pair in rng.integers(0, 12, (30, 2)).tolist() if len(set(pair)) > 1}
    )
    svg = draw([Box((("a", False),))] * 12, [Wire(a, b, 0.5, f"{a}>{b}") for a, b in pairs], "")
    lanes: dict[int, float] = {}
    for dot in ET.fromstring(svg).iter(f"{SVG}circle"):
        if title := dot.findtext(f"{SVG}title"):
            lanes[int(title.split(">")[0])] = float(dot.attrib["cx"])
    last = {a: max(b for other, b in pairs if other == a) for a, _ in pairs}
    for first in lanes:
        assert all(lanes[first] > lanes[later] for later in lanes if first < later <= last[first])


def test_a_wire_may_run_up() -> None:
    """Two boxes may depend on each other, since a box holds several columns."""
    boxes = [Box((("a", False),)), Box((("b", False),))]
    svg = draw(boxes, [Wire(0, 1, 0.5, "down"), Wire(1, 0, 0.1, "up")], "")
    dots = {dot.findtext(f"{SVG}title"): dot.attrib for dot in ET.fromstring(svg).iter(f"{SVG}circle")}
    assert float(dots["up"]["cy"]) < float(dots["down"]["cy"])
    assert dots["up"]["cx"] != dots["down"]["cx"]


def test_associated_columns_are_one_box() -> None:
    """City, country and region in one box with what determines what; an independent column in another."""
    rng = np.random.default_rng(0)
    city = rng.integers(0, 30, 3000)
    frame = pd.DataFrame(
        {"region": city // 12, "country": city // 4, "city": city, "x": rng.integers(0, 5, 3000)}
    )
    frame = frame.assign(**{name: name + frame[name].astype(str) for name in ("region", "country", "city")})
    found = fit(frame).describe().findings
    (place,) = (group for group in found.groups if "city" in group.columns)
    assert place.keys == ("city",)
    assert place.determined == {"region": "country", "country": "city"}
    assert not found.dependences


def test_a_table_of_all_kinds_is_described() -> None:
    """Dates, booleans, missing values, a constant string: whatever can be fitted can be described."""
    rng = np.random.default_rng(0)
    n = 500
    frame = pd.DataFrame(
        {
            "same": "here",
            "flag": rng.random(n) < 0.5,
            "when": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 10**7, n), "s"),
            "gap": np.where(rng.random(n) < 0.3, np.nan, rng.normal(size=n)),
        }
    )
    description = fit(frame).describe()
    assert "same: always 'here'" in str(description)
    assert re.search(r"gap: from -\d.* to \d.*; (2|3)\d\.\d% missing", str(description))
    ET.fromstring(description.svg)


def test_a_dependence_through_classes_alone_is_described() -> None:
    """Two columns of many values that only classes connect depend on each other and on nothing else."""
    rng = np.random.default_rng(0)
    kind = rng.integers(0, 8, 3000)
    frame = pd.DataFrame(
        {
            name: [f"{name} {k * 40 + j}" for k, j in zip(kind, rng.zipf(1.4, 3000) % 40, strict=True)]
            for name in "ab"
        }
    ).assign(x=rng.normal(size=3000))
    model = fit(frame)
    assert any(factor.name == "class of a" for factor in model.factors)
    (dependence,) = model.describe().findings.dependences
    assert {dependence.source.short, dependence.target.short} == {"a", "b"}
    assert "Independent of all others\n  x" in str(model.describe())


def test_durations_are_in_units_and_a_dependence_is_listed_once() -> None:
    """A difference of timestamps is so many hours; what is functional stands under that heading only."""
    rng = np.random.default_rng(0)
    city, other = rng.integers(0, 12, 2_000), rng.integers(0, 4, 2_000)
    state = np.where(rng.random(2_000) < 0.05, other, city % 4)
    area = np.where(rng.random(2_000) < 0.3, rng.integers(0, 4, 2_000), city % 4)
    ordered = pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 8_640_000, 2_000), unit="s")
    frame = pd.DataFrame({"ordered": ordered, "billed": ordered + pd.Timedelta("90min")})
    frame["paid"] = ordered + pd.to_timedelta(rng.integers(3_600, 86_400 * 9, 2_000), unit="s")
    for name, values in {"city": city, "state": state, "area": area}.items():
        frame[name] = [f"{name} {value}" for value in values]
    text = str(fit(frame).describe())
    assert "billed = ordered + 1.5 hours" in text
    assert "difference of billed: always 1.5 hours" in text
    assert "city → state (holds" in text
    functional, dependent = text.split("Dependent (")
    assert "city" in functional
    assert not re.search(r"(city|state): [^\n]*(city|state)", dependent)
    assert "area" in dependent

"""The report: every measure on cases with a known answer, and what it looks like."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from logistream.cli import main
from logistream.dataco import ORDERS, read_table
from logistream.errors import DataError, MissingPackageError, RequestError
from logistream.evaluation import evaluate as fidelity
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
from logistream.evaluation.rules import broken, learn_rules
from logistream.schema import Column, Schema

if TYPE_CHECKING:
    from logistream.evaluation.report import Report
    from logistream.model.model import Model

SCHEMA = Schema(
    (
        Column("town", "category"),
        Column("state", "category"),
        Column("x", "number", decimals=2),
        Column("n", "integer", nullable=True),
        Column("y", "number", decimals=2),
        Column("late", "boolean"),
        Column("when", "timestamp"),
    )
)
STATES = {"Ayr": "S", "Bath": "E", "Cork": "I", "Dover": "E"}


def rows(n: int, seed: int, *, missing: bool = False) -> pd.DataFrame:
    """Return rows in which town fixes state, y = x * n, and late follows x."""
    rng = np.random.default_rng(seed)
    town = rng.choice(list(STATES), n, p=[0.4, 0.3, 0.2, 0.1])
    x = rng.gamma(4, 25, n).round(2)
    count = rng.integers(1, 6, n)
    frame = pd.DataFrame(
        {
            "town": pd.Series(town, dtype="category"),
            "state": pd.Series([STATES[name] for name in town], dtype="category"),
            "x": x,
            "n": pd.Series(count, dtype="Int64" if missing else "int64"),
            "y": (x * count).round(2),
            "late": x + rng.normal(0, 20, n) > 100,
            "when": pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 10**6, n), unit="s"),
        }
    )
    if missing:
        frame.loc[rng.random(n) < 0.3, "n"] = pd.NA
        frame.loc[rng.random(n) < 0.3, "town"] = None
    return frame


def apart(frame: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Return the frame with each column shuffled by itself: same shapes, nothing hangs together."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame({name: frame[name].iloc[rng.permutation(len(frame))].to_numpy() for name in frame})


def tables(*frames: pd.DataFrame) -> list[Table]:
    return encode(SCHEMA, frames)


@dataclass(frozen=True)
class Made:
    """A maker of rows for the report."""

    frame: pd.DataFrame
    schema: Schema = SCHEMA
    name: str = "made"

    def sample(self, n: int, seed: int = 0) -> pd.DataFrame:
        return self.frame.iloc[np.random.default_rng(seed).integers(len(self.frame), size=n)]


@pytest.mark.parametrize("missing", [False, True])
def test_identical_rows_score_as_identical(missing: bool) -> None:
    """The same rows in another order have likeness 1 in every column and pair, missing values or not."""
    frame = rows(300, 0, missing=missing)
    a, b = tables(frame, frame.sample(frac=1, random_state=1))
    np.testing.assert_allclose(column_shapes(a, b), 1)
    np.testing.assert_allclose(column_pairs(a, b)[1], 1)
    assert copied(a, b) == 1


def test_shapes_are_what_the_definitions_say() -> None:
    """Total variation for texts, Kolmogorov-Smirnov for numbers, missing as a value of its own."""
    schema = Schema((Column("c", "category", nullable=True), Column("v", "number", nullable=True)))
    a, b = encode(
        schema,
        [
            pd.DataFrame({"c": ["p", "p", "q", None], "v": [1.0, 2.0, 3.0, 4.0]}),
            pd.DataFrame({"c": ["p", "q", "q", "r"], "v": [1.0, 2.0, np.nan, np.nan]}),
        ],
    )
    np.testing.assert_allclose(column_shapes(a, b), [1 - 0.5, 1 - 0.5])


def test_columns_pulled_apart_keep_their_shapes_and_lose_their_pairs() -> None:
    """Shuffling every column by itself changes no shape, and the pairs that hang together."""
    frame = rows(2000, 0)
    a, b = tables(frame, apart(frame))
    np.testing.assert_allclose(column_shapes(a, b), 1)
    places, scores = column_pairs(a, b)
    score = {tuple(SCHEMA.names[i] for i in pair): s for pair, s in zip(places, scores, strict=True)}
    assert score["town", "state"] < 0.7
    assert score["x", "y"] == pytest.approx(1 - frame["x"].corr(frame["y"]) / 2, abs=0.03)
    assert score["town", "n"] > 0.9


def test_a_constant_says_nothing_in_real_rows_and_is_no_correlation_in_others() -> None:
    """A correlation with a real constant is undefined; with a column that became constant it is 0."""
    frame = rows(200, 0)
    a, b = tables(frame, frame.assign(x=1.0))
    places = [tuple(pair) for pair in column_pairs(a, b)[0]]
    at = places.index((SCHEMA.names.index("x"), SCHEMA.names.index("y")))
    assert column_pairs(a, b)[1][at] == pytest.approx(1 - abs(frame["x"].corr(frame["y"])) / 2)
    assert np.isnan(column_pairs(b, a)[1][at])


def test_a_classifier_cannot_tell_rows_of_one_kind_and_tells_what_is_torn_apart() -> None:
    """C2ST is near 0.5 for two draws of one table, and near 1 if columns do not hang together."""
    frame = rows(400, 0)
    a, b, c = tables(frame, rows(400, 1), apart(frame))
    assert 0.42 < two_sample_auc(a, b) < 0.58
    assert two_sample_auc(a, c) > 0.9


def test_the_classifier_does_not_see_the_order_of_rows() -> None:
    """However the rows stand, and whichever stand first, the figure is the same to the last digit."""
    frames = rows(300, 0, missing=True), rows(300, 1, missing=True)
    shuffled = [frame.sample(frac=1, random_state=7) for frame in frames]
    a, b = tables(*frames)
    d, c = tables(*shuffled[::-1])
    assert two_sample_auc(a, b) == two_sample_auc(c, d)
    np.testing.assert_array_equal(np.sort(a.matrix[:, 0]), np.sort(c.matrix[:, 0]))


def test_rare_texts_do_not_betray_where_they_come_from() -> None:
    """Texts that occur once each, in both tables alike, tell the classifier nothing."""
    schema = Schema((Column("c", "category"),))
    texts = np.random.default_rng(0).permutation([f"t{i:04}" for i in range(1200)])
    a, b = encode(schema, [pd.DataFrame({"c": texts[:600]}), pd.DataFrame({"c": texts[600:]})])
    assert 0.42 < two_sample_auc(a, b) < 0.58


def test_what_is_learned_on_one_table_is_judged_on_another() -> None:
    """A target is foretold from like rows, by chance from torn ones, not at all without two values."""
    a, b, torn, same = tables(rows(400, 0), rows(400, 1), apart(rows(400, 0)), rows(400, 2).assign(late=True))
    predictors = ("town", "x", "n")
    assert transfer_auc(a, b, "late", predictors) > 0.85
    assert 0.4 < transfer_auc(torn, b, "late", predictors) < 0.6
    assert np.isnan(transfer_auc(same, b, "late", predictors))


def test_rules_are_found_and_their_breach_is_counted() -> None:
    """Pairs, a product and an order are found; other real rows keep them, torn ones do not."""
    frame = rows(1000, 0)
    table, other, torn = tables(frame, rows(1000, 1), apart(frame))
    rules = learn_rules(table)
    texts = [rule.text for rule in rules]
    assert texts == ["town with state: only pairs that occur", "x at most y", "y = x x n"]
    assert not broken(rules, other).any()
    breaches = dict(zip(texts, broken(rules, torn).mean(axis=1), strict=True))
    states = frame["state"].value_counts(normalize=True)
    chance = sum(frame["town"].eq(town).mean() * (1 - states[state]) for town, state in STATES.items())
    assert breaches["town with state: only pairs that occur"] == pytest.approx(chance, abs=0.05)
    assert breaches["y = x x n"] > 0.99


def test_no_rule_is_found_in_noise_or_in_few_rows() -> None:
    """Columns that have nothing to do with each other give no rule; nor do fewer than 100 rows."""
    torn, few = tables(apart(rows(1000, 0)), rows(90, 0))
    assert learn_rules(torn) == []
    assert learn_rules(few) == []


def test_missing_together_is_a_rule() -> None:
    """Columns that are missing in the same rows are expected to be so."""
    frame = rows(1000, 0)
    frame.loc[:199, ["x", "y"]] = np.nan
    whole, half = tables(frame, frame.assign(y=frame["y"].fillna(1.0)))
    rules = [rule for rule in learn_rules(whole) if rule.text.startswith("x missing with y missing")]
    assert [broken([rule], half).mean() for rule in rules] == [pytest.approx(0.2)]


def test_the_known_rules_of_orders_hold_for_synthetic_orders_and_catch_wrong_ones(model: Model) -> None:
    """The shipped model's orders keep every known rule, and each wrong value breaks one."""
    good = model.sample(500)
    wrong: dict[str, dict[str, Any]] = {
        "Sales = Product Price x Order Item Quantity": {"Sales": 0.5},
        "Sales per customer = Sales less the discount": {"Sales per customer": 0.0},
        "discount between 0 and 25 %": {"Order Item Discount Rate": 0.4},
        "Benefit per order between -2.75 and 0.5 of Sales per customer": {"Benefit per order": 1e6},
        "Shipping Mode fixes the days scheduled": {"Days for shipment (scheduled)": 3},
        "First Class is always late": {"Shipping Mode": "First Class", "Late_delivery_risk": 0},
        "Type allows the Order Status": {"Type": "CASH", "Order Status": "PENDING"},
        "Product Status is 0": {"Product Status": 1},
        "the place of the order exists": {"Order Country": "Nowhere"},
        "the product exists at that price": {"Product Price": 0.01},
    }
    (table,) = encode(ORDERS, [good])
    rules = fidelity._known_rules(table)
    assert {rule.text for rule in rules} == set(wrong)
    assert not broken(rules, table).any()
    for rule in rules:
        (bad,) = encode(ORDERS, [good.assign(**wrong[rule.text])])
        assert broken([rule], bad).all(), rule.text


def test_copies_and_locations_are_exact_matches() -> None:
    """A row that differs in one column is no copy, but its position can be; -0.0 is 0 and NaN is NaN."""
    frame = rows(100, 0, missing=True)
    known, near = tables(frame, frame.assign(when=frame["when"] + pd.Timedelta("1us")))
    assert copied(near, known) == 0
    assert copied(near, known, ["x", "y"]) == 1
    schema = Schema((Column("v", "number"),))
    a, b = encode(
        schema, [pd.DataFrame({"v": [0.0, np.nan, 1.0]}), pd.DataFrame({"v": [-0.0, -np.nan, 2.0]})]
    )
    assert copied(a, b) == pytest.approx(2 / 3)


def test_nearest_balance_tells_rows_that_were_copied() -> None:
    """Fresh rows are near to either table, copies to the one they were copied from, two equal tables tie."""
    fresh, train, holdout = tables(rows(400, 0, missing=True), rows(400, 1), rows(400, 2))
    assert 0.42 < nearest_balance(fresh, train, holdout) < 0.58
    assert nearest_balance(train, train, holdout) == 1
    assert nearest_balance(train, holdout, train) == 0
    assert nearest_balance(fresh, train, train) == 0.5


@pytest.fixture(scope="module")
def made() -> Report:
    """Return a report on rows of which a third are torn apart."""
    train, more = rows(400, 0), rows(400, 3)
    maker = Made(pd.concat([more, apart(train.iloc[:200])]).astype({"town": "category", "state": "category"}))
    return fidelity.report(maker, rows(300, 1), train=train, target="late", seed=5)


def test_a_report_has_each_measure_beside_real_rows(made: Report) -> None:
    """The figures stand beside those of real rows and of rows drawn again, and differ as they must."""
    f = made.figures
    synthetic, real, again, ideal = (dict(f[name]) for name in f)
    assert list(f.index) == ["shapes", "pairs", "c2st", "target", "rules", "copies", "balance"]
    assert list(f.columns) == ["synthetic", "real", "drawn again", "ideal"]
    assert real["shapes"] > 0.9
    assert synthetic["c2st"] > real["c2st"] + 0.05
    assert ideal["target"] == real["target"]
    assert 0.2 < synthetic["rules"] < 0.5
    assert again["rules"] == 0
    assert list(f.loc["copies"]) == [0, 0, 1, 0]
    assert again["balance"] > 0.7
    assert list(made.shapes.index) == list(SCHEMA.names)
    assert "y = x x n" in made.rules.index


def test_equal_calls_give_equal_reports() -> None:
    """The seed fixes every figure, and the frames that were given are not changed."""
    holdout = rows(210, 1)
    before = holdout.copy(deep=True)
    first, second = (fidelity.report(Made(rows(200, 3)), holdout, seed=2) for _ in range(2))
    pd.testing.assert_frame_equal(first.figures, second.figures)
    pd.testing.assert_frame_equal(holdout, before)
    assert list(first.figures.index) == ["shapes", "pairs", "c2st", "rules"]
    assert "drawn again" not in first.figures


def test_a_position_is_looked_for_by_name() -> None:
    """Latitude and longitude are found under their usual names, and only both together."""
    for names, found in (
        (("Latitude", "Longitude"), True),
        (("pickup_lat", "pickup_lng"), True),
        (("lat", "speed"), False),
        (("plate", "belongs"), False),
    ):
        schema = Schema(tuple(Column(name, "number") for name in names))
        assert fidelity._position(schema) == (list(names) if found else [])


def test_a_report_is_a_table_in_text_and_in_a_notebook(made: Report) -> None:
    """Every measure has a line with its figures; the notebook's table names what it shows."""
    text = repr(made)
    assert text.splitlines()[0] == "made beside 300 held-out real rows; 400 rows fitted"
    assert len(text.splitlines()) == 2 + len(made.figures)
    assert f"{made.figures['synthetic']['c2st']:.3f}" in text
    assert "100.00%" in text
    html = made._repr_html_()
    assert html.count("<tr>") == 1 + len(made.figures)
    assert "Foretelling late (AUC)" in html


def test_a_report_is_written_as_one_page_of_its_own(made: Report, tmp_path: Path) -> None:
    """The page asks nothing of any other place, escapes names, and replaces what was there whole."""
    path = tmp_path / "report.html"
    path.write_text("old")
    assert made.to_html(path) == path
    page = path.read_text("utf-8")
    assert page.startswith("<!doctype html>")
    assert not any(mark in page for mark in ("http:", "https:", "src=", "@import", "url("))
    assert all(name in page for name in SCHEMA.names)
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        made.to_html(tmp_path / "absent" / "report.html")


def test_what_cannot_be_compared_is_refused_in_a_sentence() -> None:
    """Too few rows, other columns, values of another kind, and a target that is none."""
    maker, good = Made(rows(100, 0)), rows(100, 1)
    for holdout, sentence in (
        (good.iloc[:5], "the holdout has 5, expected at least 20"),
        (good.drop(columns=["x", "n"]), "lack 2 of the model's 7 columns: x, n"),
        (good.assign(x="much"), "column 'x' .* should hold values of kind number"),
        (good.assign(x=np.inf), "column 'x' of the rows to compare holds infinite numbers"),
        (pd.concat([good, good["x"]], axis=1), "column 'x' occurs more than once"),
    ):
        with pytest.raises(DataError, match=sentence):
            fidelity.report(maker, holdout)
    with pytest.raises(RequestError, match="no column 'z' to foretell; there are town, state"):
        fidelity.report(maker, good, target="z")
    with pytest.raises(RequestError, match="must have two values, and 'town' has 4"):
        fidelity.report(maker, good, target="town")


def test_columns_that_say_nothing_do_no_harm() -> None:
    """Columns without a value, with one value, or with a new value in every row are measured like others."""
    schema = Schema(
        (*SCHEMA, Column("none", "number", nullable=True), Column("one", "integer"), Column("id", "category"))
    )

    def odd(seed: int) -> pd.DataFrame:
        return rows(60, seed).assign(none=np.nan, one=1, id=[f"{seed}-{i}" for i in range(60)])

    figures = fidelity.report(Made(odd(0), schema), odd(1), train=odd(0)).figures
    assert figures.drop(index="copies").loc[:, "real"].notna().all()
    assert list(figures.index) == ["shapes", "pairs", "c2st", "copies", "balance"]


def test_without_scikit_learn_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The optional package is asked for by the name of its extra."""
    monkeypatch.setitem(sys.modules, "sklearn", None)
    a, b = tables(rows(50, 0), rows(50, 1))
    with pytest.raises(MissingPackageError) as caught:
        two_sample_auc(a, b)
    assert str(caught.value) == "the report needs scikit-learn: pip install 'logistream[report]'"


def test_the_command_prints_the_report_and_writes_the_page(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows are read from CSV or Parquet; what is no table is refused."""
    holdout, train, page = tmp_path / "held.csv", tmp_path / "fitted.parquet", tmp_path / "page.html"
    model_file = model.save(tmp_path / "orders.model")
    model.sample(150, seed=3).to_csv(holdout, index=False)
    model.sample(150, seed=4).to_parquet(train)
    assert main(["report", str(model_file), str(holdout), "--train", str(train), "--html", str(page)]) == 0
    printed = capsys.readouterr().out
    assert "Foretelling Late_delivery_risk (AUC)" in printed
    assert printed.endswith(f"written to {page}\n")
    assert "Exact fitted locations" in page.read_text("utf-8")
    assert main(["report", str(model_file), str(tmp_path / "absent.csv")]) == 1
    assert "no file at" in capsys.readouterr().err


def test_other_tables_are_read_by_their_model(tmp_path: Path) -> None:
    """A foreign table's texts stay texts, even if they look like numbers."""
    schema = Schema((Column("code", "category"), Column("v", "number")))
    path = tmp_path / "t.csv"
    path.write_text("code,v\n007,1.5\n042,2\n")
    assert list(read_table(path, schema)["code"]) == ["007", "042"]


@pytest.mark.sample
def test_real_orders_beside_a_model_of_others(orders: pd.DataFrame) -> None:
    """Beside real rows kept out of the fit nothing is impossible, copied or located, little told apart."""
    from logistream.fitting.fit import fit

    order = np.random.default_rng(0).permutation(len(orders))
    train, holdout = orders.iloc[order[1000:]], orders.iloc[order[:300]]
    figures = fit(train).report(holdout, train).figures["synthetic"]
    assert figures["c2st"] < 0.65
    assert figures["rules"] == figures["copies"] == figures["locations"] == 0

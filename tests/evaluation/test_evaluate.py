"""The report as a whole: its figures, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from helpers.compared import SCHEMA, Made, rows
from logistream.cli import main
from logistream.dataco import ORDERS, read_table
from logistream.errors import DataError, RequestError
from logistream.evaluation import evaluate
from logistream.evaluation.numeric import numeric_tables
from logistream.evaluation.rules import broken
from logistream.schema import Column, Schema

if TYPE_CHECKING:
    from logistream.evaluation.report import Report
    from logistream.model.model import Model

pytestmark = pytest.mark.slow


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
    (table,) = numeric_tables(ORDERS, [good])
    rules = evaluate._known_rules(table)
    assert {rule.text for rule in rules} == set(wrong)
    assert not broken(rules, table).any()
    for rule in rules:
        (bad,) = numeric_tables(ORDERS, [good.assign(**wrong[rule.text])])
        assert broken([rule], bad).all(), rule.text


def test_a_report_has_each_measure_beside_real_rows(made: Report) -> None:
    """The figures stand beside those of real rows and of rows resampled, and differ as they must."""
    f = made.figures
    synthetic, real, again, ideal = (dict(f[name]) for name in f)
    measures = ["shapes", "pairs", "c2st", "c2st_fitted", "target", "rules", "copies", "balance"]
    assert list(f.index) == [*measures, "attack", "found"]
    assert list(f.columns) == ["synthetic", "real", "resampled", "ideal"]
    assert real["shapes"] > 0.9
    assert synthetic["c2st"] > real["c2st"] + 0.05
    assert ideal["target"] == real["target"]
    assert 0.2 < synthetic["rules"] < 0.5
    assert again["rules"] == 0
    assert list(f.loc["copies"]) == [0, 0, 1, 0]
    assert again["balance"] > 0.7
    assert real["c2st_fitted"] == real["c2st"]
    assert again["c2st_fitted"] < 0.52
    assert synthetic["attack"] < 0.6
    assert again["attack"] > 0.95
    assert again["found"] > 0.9
    assert list(made.attacks["attack"]) == ["nearest", "ratio", "density"] * 3
    assert list(made.shapes.index) == list(SCHEMA.names)
    assert "y = x x n" in made.rules.index


def test_equal_calls_give_equal_reports() -> None:
    """The seed fixes every figure, and the frames that were given are not changed."""
    holdout = rows(210, 1)
    before = holdout.copy(deep=True)
    first, second = (evaluate.report(Made(rows(200, 3)), holdout, seed=2) for _ in range(2))
    pd.testing.assert_frame_equal(first.figures, second.figures)
    pd.testing.assert_frame_equal(holdout, before)
    assert list(first.figures.index) == ["shapes", "pairs", "c2st", "rules"]
    assert "resampled" not in first.figures


def test_a_position_is_looked_for_by_name() -> None:
    """Latitude and longitude are found under their usual names, and only both together."""
    for names, found in (
        (("Latitude", "Longitude"), True),
        (("pickup_lat", "pickup_lng"), True),
        (("lat", "speed"), False),
        (("plate", "belongs"), False),
    ):
        schema = Schema(tuple(Column(name, "number") for name in names))
        assert evaluate._position(schema) == (list(names) if found else [])


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
            evaluate.report(maker, holdout)
    with pytest.raises(RequestError, match="no column 'z' to predict; there are town, state"):
        evaluate.report(maker, good, target="z")
    with pytest.raises(RequestError, match="must have two values, and 'town' has 4"):
        evaluate.report(maker, good, target="town")
    with pytest.raises(RequestError, match="the attack looks for rows that were fitted: give them as well"):
        evaluate.report(maker, good, attack=True)
    with pytest.raises(
        DataError, match="expected a holdout of 200 rows and 100 fitted ones at least, got 100"
    ):
        evaluate.report(maker, good, train=good, attack=True)


def test_columns_without_information_cause_no_error() -> None:
    """Columns without a value, with one value, or with a new value in every row cause no error."""
    schema = Schema(
        (*SCHEMA, Column("none", "number", nullable=True), Column("one", "integer"), Column("id", "category"))
    )

    def odd(seed: int) -> pd.DataFrame:
        return rows(60, seed).assign(none=np.nan, one=1, id=[f"{seed}-{i}" for i in range(60)])

    report = evaluate.report(Made(odd(0), schema), odd(1), train=odd(0))
    assert report.figures.loc[:, "real"].notna().all()
    measures = ["shapes", "pairs", "c2st", "c2st_fitted", "copies", "balance", "strings"]
    assert list(report.figures.index) == measures


def test_identifiers_are_left_out_of_the_means() -> None:
    """A column that never repeats a value does not lower them, and the page names it."""
    schema = Schema((*SCHEMA, Column("id", "category"), Column("number", "integer")))

    def numbered(seed: int) -> pd.DataFrame:
        first = 1000 * seed
        return rows(200, seed).assign(
            id=[f"{seed}-{i}" for i in range(200)], number=range(first, first + 200)
        )

    report = evaluate.report(Made(numbered(0), schema), numbered(1), train=numbered(2))
    assert report.identifiers == ("id", "number")
    assert report.shapes["synthetic"][["id", "number"]].max() < 1e-9
    likeness = report.shapes["synthetic"].drop(["id", "number"])
    assert report.figures.loc["shapes", "synthetic"] == pytest.approx(likeness.mean())
    assert report.figures["synthetic"]["pairs"] > 0.8
    assert report.figures["real"]["c2st"] < 0.6
    charts = {chart.title for chart in (*report.column_charts, *report.pair_charts)}
    assert not any("id" in title.split() or "number" in title.split() for title in charts)


def test_strings_of_a_single_row_are_measured_beside_held_out_ones() -> None:
    """A maker that keeps the names of single rows is seen, though held-out names never come back."""
    schema = Schema((*SCHEMA, Column("name", "category")))

    def named(seed: int) -> pd.DataFrame:
        names = np.where(np.arange(100) < 50, "Smith", [f"name {seed} {i}" for i in range(100)])
        return rows(100, seed).assign(name=names)

    figures = evaluate.report(Made(named(0), schema), named(1), train=named(0)).figures
    assert dict(figures.loc["strings"]) == {"synthetic": 1, "real": 0, "resampled": 1, "ideal": 0}


def test_progress_is_shown_on_stderr_to_the_last_step(capsys: pytest.CaptureFixture[str]) -> None:
    """With and without fitted rows and an attack, the last line says that every step is done."""
    maker, train, holdout = Made(rows(200, 0)), rows(200, 1), rows(200, 2)
    for options in ({}, {"train": train}, {"train": train, "attack": True}):
        evaluate.report(maker, holdout, progress=True, **options)
        done, _, steps, _ = capsys.readouterr().err.splitlines()[-1].removeprefix("comparing: ").split()
        assert done == steps
    evaluate.report(maker, holdout)
    assert capsys.readouterr().err == ""


def test_the_command_prints_the_report_and_writes_the_page(
    model: Model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows are read from CSV or Parquet; a file that is not a table is refused."""
    holdout, train, page = tmp_path / "held.csv", tmp_path / "fitted.parquet", tmp_path / "page.html"
    model_file = model.save(tmp_path / "orders.model")
    model.sample(200, seed=3).to_csv(holdout, index=False)
    model.sample(150, seed=4).to_parquet(train)
    options = ["--train", str(train), "--html", str(page), "--attack"]
    assert main(["report", str(model_file), str(holdout), *options]) == 0
    printed = capsys.readouterr().out
    assert "Membership inference (AUC)" in printed
    assert "Predicting Late_delivery_risk (AUC)" in printed
    assert printed.endswith(f"written to {page}\n")
    assert "Exact fitted locations" in page.read_text("utf-8")
    assert main(["report", str(model_file), str(tmp_path / "absent.csv")]) == 1
    assert "no file at" in capsys.readouterr().err
    assert main(["report", str(model_file), str(holdout), "--attack"]) == 2
    assert "give them as well (train, or --train)" in capsys.readouterr().err


def test_other_tables_are_read_by_their_model(tmp_path: Path) -> None:
    """A foreign table's strings stay strings, even if they look like numbers."""
    schema = Schema((Column("code", "category"), Column("v", "number")))
    path = tmp_path / "t.csv"
    path.write_text("code,v\n007,1.5\n042,2\n")
    assert list(read_table(path, schema)["code"]) == ["007", "042"]


@pytest.mark.sample
def test_real_orders_beside_a_model_of_others(orders: pd.DataFrame) -> None:
    """Beside held-out real rows nothing is impossible, copied or located, and little is distinguished."""
    from logistream.fitting.fit import fit

    order = np.random.default_rng(0).permutation(len(orders))
    train, holdout = orders.iloc[order[1000:]], orders.iloc[order[:300]]
    figures = fit(train).report(holdout, train).figures["synthetic"]
    assert figures["c2st"] < 0.65
    assert figures["rules"] == figures["copies"] == 0
    assert figures["locations"] < 0.001  # of held-out orders 0.4

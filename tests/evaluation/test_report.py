"""What a report looks like: text, a table in a notebook, a page."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from helpers.compared import SCHEMA
from logistream.evaluation.report import Report

pytestmark = pytest.mark.slow


def test_a_report_is_a_table_in_text_and_in_a_notebook(made: Report) -> None:
    """Every measure has a line with its figures; the notebook's table names what it shows."""
    text = repr(made)
    assert text.splitlines()[0] == "made beside 300 held-out real rows; 400 rows fitted"
    assert len(text.splitlines()) == 2 + len(made.figures)
    assert f"{made.figures['synthetic']['c2st']:.3f}" in text
    assert "100.00%" in text
    html = made._repr_html_()
    assert html.count("<tr>") == 1 + len(made.figures)
    assert "Predicting late (AUC)" in html


def test_a_report_is_written_as_one_page_of_its_own(made: Report, tmp_path: Path) -> None:
    """The page loads nothing from elsewhere, escapes names, and replaces the old file as a whole."""
    path = tmp_path / "report.html"
    path.write_text("old")
    assert made.to_html(path) == path
    page = path.read_text("utf-8")
    assert page.startswith("<!doctype html>")
    assert not any(mark in page for mark in ("http:", "https:", "src=", "@import", "url("))
    assert all(name in page for name in SCHEMA.names)
    assert "<h2>Attacks</h2>" in page
    assert page.count("<figure>") == page.count("</svg>") == 12
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(FileNotFoundError):
        made.to_html(tmp_path / "absent" / "report.html")


def test_names_are_escaped_on_the_page(made: Report, tmp_path: Path) -> None:
    """A name that is HTML is shown as it is written."""
    name = "<script>alert(1)</script>"
    page = replace(made, name=name, identifiers=(), shapes=made.shapes.rename(index={"x": name}))
    text = page.to_html(tmp_path / "report.html").read_text("utf-8")
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 3


def test_the_page_shows_the_distance_from_real_rows(made: Report, tmp_path: Path) -> None:
    """A column behind real rows has a bar to the left, one that is ahead has a bar to the right."""
    shapes = made.shapes.assign(real=0.9, synthetic=0.9)
    shapes.loc["x", "synthetic"], shapes.loc["n", "synthetic"] = 0.7, 0.91
    page = replace(made, shapes=shapes, chance=0.02).to_html(tmp_path / "r.html").read_text("utf-8")
    assert '<i class="behind" style="width:50.0%"></i>' in page
    assert "\N{MINUS SIGN}0.200" in page
    assert '<i class="ahead chance" style="width:2.5%"></i>' in page
    assert "than chance explains: 1 of 7." in page

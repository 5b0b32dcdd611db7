"""Model files: whole or not at all, and a sentence for whatever else is found at the path."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from logistream.errors import ModelError
from logistream.model.model import Model, load_model


def test_saved_model_draws_the_same(model: Model, tmp_path: Path) -> None:
    """A model read back is the same function."""
    again = load_model(model.save(tmp_path / "m.model"))
    pd.testing.assert_frame_equal(again.sample(500, seed=3), model.sample(500, seed=3))
    assert again.describe() == model.describe()
    assert again.schema == model.schema


def test_equal_models_are_equal_files(model: Model, tmp_path: Path) -> None:
    """No date, no order of chance: the file can be compared and cached."""
    assert model.save(tmp_path / "a").read_bytes() == model.save(tmp_path / "b").read_bytes()


def test_failed_save_leaves_the_old_file(model: Model, tmp_path: Path) -> None:
    """What was there before stays, and no scraps beside it."""
    path = tmp_path / "m.model"
    path.write_bytes(b"old")
    broken = Model("broken", model.schema, model.categories, {"x": object()}, ())  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        broken.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["m.model"]
    assert path.read_bytes() == b"old"


def repack(path: Path, **changed: bytes | None) -> None:
    """Write the archive again with some members changed or, with None, left out."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members |= {name.replace("__", "."): data for name, data in changed.items() if data is not None}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            if changed.get(name.replace(".", "__"), b"") is not None:
                archive.writestr(name, data)


def test_other_files_get_a_sentence(model: Model, tmp_path: Path) -> None:
    """Damaged, cut short, foreign, from the future: each its own sentence, never a traceback."""
    good = model.save(tmp_path / "good.model").read_bytes()
    path = tmp_path / "m.model"
    manifest = json.loads(zipfile.ZipFile(tmp_path / "good.model").read("manifest.json"))

    def refused(sentence: str) -> None:
        with pytest.raises(ModelError, match=sentence) as caught:
            load_model(path)
        assert "\n" not in str(caught.value)

    refused("no model file at")
    path.mkdir()
    refused(r"is a folder: name the model file in it$")
    path.rmdir()
    path.write_bytes(good[: len(good) // 2])
    refused("is not a model file or is damaged")
    path.write_bytes(b"hello")
    refused("is not a model file or is damaged")
    path.write_bytes(good)
    repack(path, model__json=b"{}")
    refused("model.json does not match its checksum")
    path.write_bytes(good)
    repack(path, model__json=None)
    refused("model.json cannot be read")
    path.write_bytes(good)
    repack(path, manifest__json=None)
    refused("not a model file")
    path.write_bytes(good)
    repack(path, manifest__json=json.dumps(manifest | {"version": 99}).encode())
    refused("has model format 99, this version of logistream reads 3")
    path.write_bytes(good)
    repack(path, manifest__json=json.dumps(manifest | {"sha256": {}}).encode())
    refused("is a damaged model file")


def test_the_picture_of_a_model_names_its_columns(model: Model) -> None:
    """With kinds, units and meanings; names are escaped."""
    shown = model._repr_html_()
    assert f"</b>: 24 columns learned from {model.rows:,} rows" in shown
    assert shown.count("<tr><td>") == len(model.schema)
    assert "<td>Sales</td><td>number</td><td>USD</td>" in shown
    assert "&lt;b&gt;" in replace(model, name="<b>")._repr_html_()

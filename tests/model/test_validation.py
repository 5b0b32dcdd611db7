"""Model files with wrong contents: an error when they are read, never a failure in the middle of sampling."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pytest

from logistream.errors import ModelError, RequestError
from logistream.fitting.fit import fit
from logistream.model.model import Model, load_model
from logistream.model.sampling import Sampler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MUTATIONS = 480
ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    7,
    2**31,
    2**63,
    1.5,
    float("nan"),
    "",
    "x",
    [],
    [1],
    {},
    "2020-01-01",
]


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory, model: Model) -> list[dict[str, bytes]]:
    """Return the members of two model files: the shipped one, and one of a table of all kinds with gaps."""
    rng = np.random.default_rng(0)
    n = 1200
    town = rng.integers(0, 30, n)
    frame = pd.DataFrame(
        {
            "town": pd.Series([f"town {i}" for i in town]).mask(rng.random(n) < 0.1),
            "state": pd.Categorical([f"state {i // 6}" for i in town]),
            "net": np.round(rng.gamma(2, 30, n), 2),
            "count": rng.integers(1, 9, n),
            "when": pd.Timestamp("2026-01-01") + pd.to_timedelta(rng.integers(0, 90 * 1440, n), "min"),
            "weight": np.where(rng.random(n) < 0.2, np.nan, rng.normal(10, 2, n)),
            "flag": pd.Series(rng.random(n) < 0.3, dtype="boolean").mask(rng.random(n) < 0.1),
        }
    ).assign(total=lambda f: np.round(f["net"] * f["count"], 2), hour=lambda f: f["when"].dt.hour)
    frame["gross"] = frame["net"] + rng.gamma(2, 3, n)
    frame["order"] = [f"{'EU' if i % 3 else 'US'}-{i:06d}" for i in rng.permutation(10**6)[:n]]
    frame["account"] = rng.permutation(9000)[:n]
    frame["share"] = np.round(100 * frame["weight"] / frame["net"], 1)
    frame["paid"] = (frame["net"] + rng.gamma(2, 3, n)).round(2).mask(rng.random(n) < 0.1)
    frame["tip"] = (frame["paid"] - frame["net"]).round(2).mask(rng.random(n) < 0.1)
    path = tmp_path_factory.mktemp("models") / "m.model"
    found = []
    for each in (model, fit(frame)):
        with zipfile.ZipFile(each.save(path)) as archive:
            found.append({name: archive.read(name) for name in archive.namelist()})
    return found


def write(path: Path, members: dict[str, bytes]) -> None:
    """Write an archive with the right checksums, so that only the contents are wrong."""
    sums = {
        name: hashlib.sha256(data).hexdigest() for name, data in members.items() if name != "manifest.json"
    }
    manifest = json.loads(members["manifest.json"]) | {"sha256": sums}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in {**members, "manifest.json": json.dumps(manifest).encode()}.items():
            archive.writestr(name, data)


def leaves(value: Any, put: Callable[[Any], None]) -> Iterator[Callable[[Any], None]]:
    """Give for each value of nested plain data a function that replaces it."""
    yield put
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield from leaves(value[key], lambda new, key=key: value.__setitem__(key, new))  # type: ignore[misc]


def mutated(members: dict[str, bytes], rng: np.random.Generator) -> dict[str, bytes]:
    """Return a copy with one value changed: in the plain data, or in an array."""
    arrays = sorted(name for name in members if name.endswith(".npy"))
    if rng.random() < 0.5:
        data = {"root": json.loads(members["model.json"])}
        places = list(leaves(data["root"], lambda new: data.__setitem__("root", new)))
        places[int(rng.integers(len(places)))](ODD[int(rng.integers(len(ODD)))])
        return members | {"model.json": json.dumps(data["root"]).encode()}
    name = arrays[int(rng.integers(len(arrays)))]
    array = np.load(io.BytesIO(members[name])).copy()
    kind = int(rng.integers(5))
    if kind == 0:
        array = array[:-1]
    elif kind == 1:
        array = np.append(array, array[:1])
    elif kind == 2 and array.dtype.kind == "i":
        array = array.astype(np.float64)
    elif array.size:
        place = int(rng.integers(array.size))
        if array.dtype.kind == "f":
            array[place] = (np.nan, np.inf, -1e300, 0.0)[int(rng.integers(4))]
        else:
            array = array.astype(np.int64)
            array[place] = (-1, 0, 1, 255, 2**31, -(2**62), array[place] + 1)[int(rng.integers(7))]
    stored = io.BytesIO()
    np.save(stored, array)
    return members | {name: stored.getvalue()}


def use(model: Model) -> None:
    """Do with a model all that one does with it."""
    model.sample(300, seed=1)
    model.events(4000, 4200, seed=2)
    Sampler(model, live=True).batch(0, 200, np.arange(200) * 10**6 + 1_700_000_000 * 10**6)
    str(model.describe())
    for name in model.schema.names[:3]:
        with contextlib.suppress(RequestError):  # the column is continuous, or the value never occurs
            model.sample(5, where={name: model.sample(1)[name].iloc[0]})


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.slow
def test_a_wrong_value_is_refused_when_the_file_is_read(
    seed: int, members: list[dict[str, bytes]], tmp_path: Path
) -> None:
    """Of hundreds of files with one value changed, each is refused in one sentence or works throughout."""
    rng = np.random.default_rng(seed)
    path = tmp_path / "m.model"
    refused = 0
    for _ in range(MUTATIONS // 4):
        write(path, mutated(members[int(rng.integers(2))], rng))
        try:
            model = load_model(path)
        except ModelError as error:
            refused += "\n" not in str(error)
            continue
        with warnings.catch_warnings(action="ignore"):  # sums of absurd numbers may overflow
            use(model)
    assert refused > MUTATIONS / 4 / 4


def test_the_sentence_names_what_is_wrong(members: list[dict[str, bytes]], tmp_path: Path) -> None:
    """The factor or column, and what is expected of it."""
    path = tmp_path / "m.model"
    data = json.loads(members[0]["model.json"])

    def refused(change: dict[str, Any], sentence: str) -> None:
        write(path, members[0] | {"model.json": json.dumps(data | change).encode()})
        with pytest.raises(ModelError, match=sentence):
            load_model(path)

    first, *others = data["factors"]
    refused({"factors": others}, "which is not drawn before it|is neither drawn nor computed")
    refused({"factors": [first | {"size": 0}, *others]}, "is 0, expected a whole number from 1")
    refused(
        {"factors": [first | {"parents": ["moon"]}, *others]}, "has groups for other parents than its own"
    )
    refused({"rows": -1}, "its number of rows is -1, expected")
    refused(
        {"dtypes": data["dtypes"] | {"Sales": "category of mine"}}, "'Sales' has the dtype 'category of mine'"
    )
    refused(
        {"categories": data["categories"] | {"Market": ["Europe"]}},
        "'Market' has an entry that is out of range",
    )
    refused({"formulas": []}, "column 'Benefit per order' is neither drawn nor computed")

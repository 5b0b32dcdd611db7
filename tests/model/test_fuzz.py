"""Model files from strangers: each is refused in one sentence when it is read, or works throughout."""

from __future__ import annotations

import hashlib
import io
import json
import math
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from logistream.errors import ModelError
from logistream.model.model import Model, load_model
from logistream.model.sampling import Sampler

if TYPE_CHECKING:
    from collections.abc import Callable

FLIPS = 300
MUTATIONS = 240
NPY = np.lib.format


@pytest.fixture(scope="module")
def members(model: Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Return the members of the shipped model."""
    with zipfile.ZipFile(model.save(tmp_path_factory.mktemp("models") / "m.model")) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write an archive with the right checksums, so that only the contents are wrong."""
    sums = {
        name: hashlib.sha256(data).hexdigest() for name, data in members.items() if name != "manifest.json"
    }
    manifest = {"format": "logistream-model", "version": 3, "sha256": sums}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in {**members, "manifest.json": json.dumps(manifest).encode()}.items():
            archive.writestr(name, data)
    return path


def load(path: Path) -> Model | None:
    """Return the model of a file, None if it is refused in one sentence."""
    try:
        return load_model(path)
    except ModelError as error:
        sentence = str(error)
        assert sentence.startswith(str(path))
        assert "\n" not in sentence
        assert len(sentence) < 500
        return None


def use(model: Model) -> None:
    """Draw from it, in both ways."""
    with warnings.catch_warnings(action="ignore"):  # sums of absurd numbers may overflow
        model.sample(10_000, seed=1)
        Sampler(model, live=True).batch(0, 4096, np.arange(4096) * 10**6 + 1_700_000_000 * 10**6)


def stored(array: np.ndarray) -> bytes:
    """Return an array as a member of the archive."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Return another array in place of one: of another shape, type or order, or with other values."""
    array: np.ndarray = np.load(io.BytesIO(data))
    place = int(rng.integers(max(1, array.size)))
    odd = [-(2**63), -1, 0, 1, 2, 200, 2**16, 2**31 - 1, 2**40, 2**62, 2**63 - 1][int(rng.integers(11))]
    wide = array.astype(np.float64 if array.dtype.kind == "f" else np.int64)

    def replaced(length: int) -> np.ndarray:
        changed = wide.copy()
        changed[place : place + length] = odd
        return changed

    kinds: list[Callable[[], np.ndarray]] = [
        lambda: replaced(1),
        lambda: replaced(5),
        lambda: replaced(10**9),
        lambda: rng.permutation(array),
        lambda: array[:place],
        lambda: np.repeat(array, 2),
        lambda: array[None],
        lambda: array.astype(np.float16) if array.dtype.kind == "f" else array.astype(np.uint64),
        lambda: array.astype(np.dtype(("f8", "c16", "?", "U8", "M8[s]")[int(rng.integers(5))])),
        lambda: wide * odd,
        lambda: wide + int(rng.integers(-2, 3)),
        lambda: np.zeros(0, array.dtype),
        lambda: np.array(5),
    ]
    with warnings.catch_warnings(action="ignore"):  # numbers that do not fit
        return stored(kinds[int(rng.integers(len(kinds)))]())


class Peak:
    """A process of its own that loads a file and draws rows of it, and reports its peak memory."""

    SCRIPT = """
import re, sys
from pathlib import Path
from logistream.errors import ModelError
from logistream.model.model import load_model
def peak():
    return int(re.search("VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
load_model().sample(10_000)
before = peak()
try:
    load_model(sys.argv[1]).sample(10_000)
    print("loaded")
except ModelError as error:
    print(error)
print(peak() - before)
"""

    @classmethod
    def of(cls, path: Path) -> tuple[str, float]:
        """Return "loaded" or the sentence, and the memory in MiB beyond that of the shipped model."""
        command = [sys.executable, "-c", cls.SCRIPT, str(path)]
        *lines, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        return "\n".join(lines), int(peak) / 1024


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_arrays_with_wrong_contents(seed: int, members: dict[str, bytes], tmp_path: Path) -> None:
    """Of hundreds of files with an array changed and true checksums, each is refused or gives 10,000 rows."""
    rng = np.random.default_rng(seed)
    names = sorted(name for name in members if name.endswith(".npy"))
    refused = 0
    for _ in range(MUTATIONS // 2):
        name = names[int(rng.integers(len(names)))]
        changed = members | {name: mutated(members[name], rng)}
        model = load(write(tmp_path / "m.model", changed, zipfile.ZIP_STORED))
        refused += model is None
        if model is not None:
            use(model)
    assert refused > MUTATIONS / 2 / 3


def npy(shape: str, data: bytes, kind: str = "|u1") -> bytes:
    """Return an array file whose header says anything."""
    header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


def deep(data: bytes) -> bytes:
    """Return plain data with a list of lists of lists in it."""
    return data[:-1] + b',"more":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


def first_factor(members: dict[str, bytes], **values: Any) -> dict[str, bytes]:
    """Return members whose first factor has other arrays."""
    factor = json.loads(members["model.json"])["factors"][0]
    return members | {f"arrays/{factor[name]['array']}.npy": stored(array) for name, array in values.items()}


def combinations(members: dict[str, bytes]) -> dict[str, bytes]:
    """Return members in which a factor has as many combinations of parents as a file may have numbers."""
    data = json.loads(members["model.json"])
    groups = {0: 430, 1: 602, 3: 2, 4: 2, 5: 4}  # of each factor that is a parent
    arrays = {
        f"parent {place}": np.minimum(np.arange(data["factors"][place]["size"]), many - 1)
        for place, many in groups.items()
    }
    arrays["table"] = np.zeros(math.prod(groups.values()), np.uint8)
    child = data["factors"][6]
    child["parents"] = [data["factors"][place]["name"] for place in groups]
    child["groups"] = [{"array": f"parent {place}"} for place in groups]
    child["distribution_of"] = {"array": "table"}
    made = {f"arrays/{name}.npy": stored(array) for name, array in arrays.items()}
    return members | made | {"model.json": json.dumps(data).encode()}


def patterns(members: dict[str, bytes]) -> bytes:
    """Return plain data with an identifier of many long patterns."""
    data = json.loads(members["model.json"])
    pattern = {"places": ["a"] * 4000, "first": 0, "stop": 1, "modulus": 1, "residues": [0], "ordered": False}
    wide = pattern | {"places": ["".join(map(chr, range(200, 40_000)))]}
    data["identifiers"] = [{"column": "Type", "patterns": [pattern] * 30 + [wide], "separator": "-"}]
    del data["categories"]["Type"]
    return json.dumps(data).encode()


LARGE: dict[str, Callable[[dict[str, bytes]], dict[str, bytes]]] = {
    "a long array": lambda m: m | {"arrays/0.npy": stored(np.zeros(60_000_000, np.uint8))},
    "many arrays": lambda m: m | {f"arrays/{i}.npy": stored(np.zeros(900_000, "u1")) for i in range(17)},
    "a false header": lambda m: m | {"arrays/0.npy": npy("(5000000000,)", b"1")},
    "a false type": lambda m: m | {"arrays/0.npy": npy("(1,)", b"1", "|O")},
    "a deep header": lambda m: m | {"arrays/0.npy": npy("(" * 9000 + ")" * 9000, b"1")},
    "deep plain data": lambda m: m | {"model.json": deep(m["model.json"])},
    "much plain data": lambda m: (
        m | {"model.json": m["model.json"][:-1] + b',"x":[' + b"[]," * 9**7 + b"0]}"}
    ),
    "many counts": lambda m: first_factor(m, counts=np.full(508, 2**28 // 508)),
    "many combinations": combinations,
    "long patterns": lambda m: m | {"model.json": patterns(m)},
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", LARGE)
def test_how_much_memory_a_file_can_take(kind: str, members: dict[str, bytes], tmp_path: Path) -> None:
    """A file of less than 1 MB takes less than 200 MB, when it is loaded and drawn from, or refused."""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    path = write(tmp_path / "m.model", LARGE[kind](members))
    assert path.stat().st_size < 10**6
    found, memory = Peak.of(path)
    assert memory < 200
    assert found.startswith(str(path)) or found == "loaded"
    assert (found == "loaded") == (kind in ("many counts", "many combinations"))
    assert "\n" not in found


@pytest.mark.slow
def test_flipped_bytes_in_the_header_of_an_array(members: dict[str, bytes], tmp_path: Path) -> None:
    """With the right checksums, so that NumPy reads it: it is refused, or works."""
    name = next(name for name in members if name.startswith("arrays/"))
    data = members[name]
    for place in range(128):
        for bit in (0, 5):
            changed = data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
            found = load(write(tmp_path / "m.model", {**members, name: changed}, zipfile.ZIP_STORED))
            if found is not None:
                use(found)


@pytest.mark.slow
def test_flipped_bytes(model: Model, tmp_path: Path) -> None:
    """Wherever a byte of the file is changed: it is refused, or is the same model as before."""
    path = tmp_path / "m.model"
    data = model.save(path).read_bytes()
    rng = np.random.default_rng(0)
    ends = [*range(60), *range(len(data) - 200, len(data), 2)]  # where the archive describes itself
    places = [*ends, *rng.integers(len(data), size=FLIPS - len(ends)).tolist()]
    refused = 0
    for place in places:
        path.write_bytes(data[:place] + bytes([data[place] ^ int(rng.integers(1, 256))]) + data[place + 1 :])
        found = load(path)
        refused += found is None
        assert found is None or found.checksum == model.checksum
    assert refused > FLIPS / 2


def test_a_file_that_is_encrypted_or_packed_in_another_way(members: dict[str, bytes], tmp_path: Path) -> None:
    """It is refused before anything of it is unpacked."""
    path = write(tmp_path / "m.model", members, zipfile.ZIP_LZMA)
    assert load(path) is None
    data = bytearray(write(path, members).read_bytes())
    place = data.index(b"PK\x01\x02")
    data[place + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="is a zip archive that is encrypted, or packed in another way than"):
        load_model(path)
    path.write_bytes(data[: len(data) // 2])
    assert load(path) is None
    path.write_bytes(b"")
    assert load(path) is None
    assert load(tmp_path) is None

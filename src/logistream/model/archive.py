"""Read a model file that may come from a stranger: whatever is wrong with it is an error in one sentence.

How much memory is taken is bounded by the size of the file: a file of 1 MB cannot ask for more than 200 MB.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import struct
import tokenize
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from logistream.errors import ModelError, shorten

if TYPE_CHECKING:
    import os
    from pathlib import Path

__all__ = ["FORMAT", "VERSION", "damaged", "read_archive"]


FORMAT = "logistream-model"
VERSION = 3

_MOST_BYTES = 64 * 2**20  # unpacked
_BYTES, _BYTES_PER_BYTE = 16 * 2**20, 16  # unpacked, of a small file, and more for each byte of the file
_JSON, _JSON_PER_BYTE = 4 * 2**20, 4  # the same for plain data, which takes 20 times as much memory
_NUMBERS, _NUMBERS_PER_BYTE = 2**22, 3  # the same for the numbers in arrays, 24 bytes each when sampling
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others can ask for any amount of memory
_UNREADABLE = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    NotImplementedError,  # a later version of the zip format
    RuntimeError,  # a password; a RecursionError
    LookupError,
    TypeError,
    ValueError,
    OverflowError,
    MemoryError,
)


def read_archive(source: Path) -> tuple[Any, dict[str, np.ndarray]]:
    """Return the plain data and the arrays of a model file, which are still to be checked.

    Returns
    -------
    Any
        What `model.json` holds.
    dict of str to ndarray
        The other members by name, each an array of float64 or int64, of shape (n,).

    Raises
    ------
    ModelError
        If there is no such file, it is not a model file, or it is damaged, too large or of a later version.
    """
    try:
        size = source.stat().st_size
        with zipfile.ZipFile(source) as archive:
            _check_sizes(archive, source, size)
            members = _read_members(archive, source)
    except ModelError:
        raise
    except FileNotFoundError:
        raise ModelError(
            f"no model file at {source}: check the path, or leave it out for the shipped model"
        ) from None
    except IsADirectoryError:
        raise ModelError(f"{source} is a folder: name the model file in it") from None
    except _UNREADABLE as exc:
        raise ModelError(
            f"{source} is not a model file or is damaged: make it again with Model.save"
        ) from exc
    try:
        plain = members.pop("model.json")
        arrays = _arrays(members, _NUMBERS + _NUMBERS_PER_BYTE * size)
        return json.loads(plain), arrays
    except _UNREADABLE as exc:
        raise damaged(source, exc) from exc


def damaged(source: str | os.PathLike[str], reason: object) -> ModelError:
    """Return the error for a file with wrong contents."""
    clause = shorten(" ".join(str(reason).split()), 200)
    return ModelError(f"{source} is a damaged model file: {clause}; get the file again, or fit again")


def _check_sizes(archive: zipfile.ZipFile, source: Path, size: int) -> None:
    """Raise if the members are packed in another way than `Model.save` packs them, or unpack to too much."""
    members = archive.infolist()
    if any(info.flag_bits & 1 or info.compress_type not in _METHODS for info in members):
        raise ModelError(f"{source} is a zip archive that is encrypted, or packed in another way than models")
    unpacked = sum(info.file_size for info in members)
    plain = sum(info.file_size for info in members if info.filename.endswith(".json"))
    if unpacked > min(_MOST_BYTES, _BYTES + _BYTES_PER_BYTE * size) or plain > _JSON + _JSON_PER_BYTE * size:
        raise ModelError(
            f"{source} unpacks to {unpacked:,} bytes, of which {plain:,} are plain data: "
            f"no model of ours of that size is that large"
        )


def _read_members(archive: zipfile.ZipFile, source: Path) -> dict[str, bytes]:
    """Return the members of a model archive, after comparing them with their checksums."""
    try:
        manifest = json.loads(archive.read("manifest.json"))
        known, version, sums = manifest["format"], manifest["version"], dict(manifest["sha256"])
    except (KeyError, ValueError, TypeError, RecursionError):
        known, version, sums = None, 0, {}
    if known != FORMAT:
        raise ModelError(
            f"{source} is a zip archive but not a model file: expected one that Model.save wrote"
        )
    if version != VERSION:
        raise ModelError(
            f"{source} has model format {shorten(str(version))}, this version of logistream reads {VERSION}: "
            f"install the version that wrote it, or fit again"
        )
    members = {}
    for name, digest in sums.items():
        try:
            members[name] = archive.read(name)
        except _UNREADABLE as exc:
            raise ModelError(
                f"{source} is damaged: {shorten(name)} cannot be read; get the file again"
            ) from exc
        if hashlib.sha256(members[name]).hexdigest() != digest:
            raise ModelError(
                f"{source} is damaged: {shorten(name)} does not match its checksum; get the file again"
            )
    return members


def _arrays(members: dict[str, bytes], most: int) -> dict[str, np.ndarray]:
    """Return the arrays of the other members, which may hold so many numbers together."""
    arrays: dict[str, np.ndarray] = {}
    for name in list(members):
        arrays[name] = _array(members.pop(name))
        most -= arrays[name].size
        if most < 0:
            raise ValueError("it holds more numbers than a file of its size")
    return arrays


def _array(data: bytes) -> np.ndarray:
    """Return an array of float64 or int64 from the bytes of a .npy file.

    Raises
    ------
    ValueError
        If it is not such a file, or holds anything but one list of numbers.
    """
    buffer = io.BytesIO(data)
    if np.lib.format.read_magic(buffer) != (1, 0):
        raise ValueError("an array has an unknown version")
    try:
        shape, _, dtype = np.lib.format.read_array_header_1_0(buffer)
    except (SyntaxError, tokenize.TokenError) as error:
        raise ValueError("an array has a header that cannot be read") from error
    if dtype.kind not in "iubf" or dtype.itemsize > 8 or len(shape) != 1:
        raise ValueError(f"an array is no list of numbers but of shape {shape} and type {dtype}")
    if math.prod(shape) * dtype.itemsize != len(data) - buffer.tell():
        raise ValueError("an array is longer or shorter than its header says")
    found = np.frombuffer(data, dtype, offset=buffer.tell())
    return found.astype(np.float64 if dtype.kind == "f" else np.int64)

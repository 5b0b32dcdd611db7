"""The container: built of files that suffice, and able to run without a user, a home and a writable disk."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import http
from test_wheel import build

ROOT = Path(__file__).parents[1]
LINES = (ROOT / "Containerfile").read_text("utf-8").splitlines()
STEPS = [tuple(line.split(" ", 1)) for line in LINES if not line.startswith("#")]

READ_ONLY = (
    "for place in $(cut -d' ' -f5 /proc/self/mountinfo | grep -v ^/proc | sort -u); do "
    'mount -o remount,bind,ro "$place" 2>/dev/null || true; done; '
    "! touch /tmp/logistream-probe 2>/dev/null && ! touch /logistream-probe 2>/dev/null || exit 99; "
    'cd /; exec unshare --user --map-user=65534 --map-group=65534 env -i "$@"'
)
"""Makes all file systems read-only but `/proc`; runs a program as nobody with the environment it is given."""


def steps(name: str) -> list[str]:
    """Return what follows an instruction, for each time that it occurs."""
    return [rest for instruction, rest in STEPS if instruction == name]


def test_it_is_short_and_ends_as_nobody() -> None:
    """Twelve lines; the user is a number, so that a platform can check that it is not root."""
    assert len(LINES) <= 12
    assert steps("USER") == ["65534:65534"]
    names = [name for name, _ in STEPS]
    assert names.index("USER") > names.index("RUN")
    assert json.loads(steps("ENTRYPOINT")[0]) == ["logistream"]
    assert json.loads(steps("CMD")[0]) == ["serve"]


def test_what_is_copied_suffices(tmp_path: Path) -> None:
    """The wheel can be built of it, and has the model."""
    folder = tmp_path / "build"
    folder.mkdir()
    for step in steps("COPY"):
        *sources, target = step.split()
        for source in sources:
            place = tmp_path / target.lstrip("/")
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, place)
    wheel = build("wheel", folder, tmp_path / "wheel")
    listed = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", str(wheel)], capture_output=True, text=True, check=True
    ).stdout
    assert "logistream/dataco.model" in listed


@pytest.mark.slow
def test_it_runs_on_a_read_only_disk() -> None:
    """As nobody, without HOME and TMPDIR, in a folder that cannot be written: it serves and ends in order."""
    isolated = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", READ_ONLY, "sh"]
    if shutil.which("unshare") is None or subprocess.run([*isolated, "true"], check=False).returncode:
        pytest.skip("needs namespaces, to make the disk read-only: unshare")
    environment = dict(pair.split("=") for step in steps("ENV") for pair in step.split())
    environment |= {
        "LOGISTREAM_TOKEN": "sesame",
        "LOGISTREAM_PORT": "0",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PATH": os.environ["PATH"],
    }
    variables = [f"{name}={value}" for name, value in environment.items()]
    command = [sys.executable, "-m", "logistream", *json.loads(steps("CMD")[0])]
    with subprocess.Popen(
        [*isolated, *variables, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            url = json.loads(process.stderr.readline())["message"].rpartition(" on ")[2]
            headers = {"Authorization": "Bearer sesame"}
            assert http.get(f"{url}/events?stop=0", headers=headers).json() == []
            assert http.get(f"{url}/health").json()["healthy"]
            process.terminate()
            assert process.communicate(timeout=60) == ("", "")
            assert process.returncode == 0
        finally:
            process.kill()

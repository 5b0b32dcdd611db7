"""What has to be installed for Spark, and the end of a session."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

import logistream as ls
from helpers.processes import run_python
from logistream.errors import MissingJavaError, MissingPackageError

if TYPE_CHECKING:
    from pathlib import Path


def test_without_pyspark_a_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a session of one's own as for ours."""
    monkeypatch.setitem(sys.modules, "pyspark", None)
    for work in (ls.spark.local_session, lambda: ls.spark.register(None)):
        with pytest.raises(
            MissingPackageError, match=r"^Spark needs pyspark: pip install 'logistream\[spark\]'$"
        ):
            work()


@pytest.mark.spark
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_session_that_cannot_start_leaves_no_jvm() -> None:
    """Spark refuses so little memory: that is a sentence, and the next attempt has its own settings."""
    program = (
        "import psutil\nfrom logistream.errors import StreamError\n"
        "from logistream.spark import local_session, stop\n"
        "try:\n    local_session(1, memory='200m')\n"
        "except StreamError as error:\n    print(str(error).split(':')[0])\n"
        "print(len(psutil.Process().children(recursive=True)))\n"
        "spark = local_session(1, memory='600m')\nprint(spark.range(3).count())\nstop(spark)"
    )
    ran = run_python(program, within=600)
    assert ran.stdout.splitlines() == ["Spark did not start", "0", "3"], ran.stderr


@pytest.mark.parametrize(
    ("home", "script", "reason"),
    [
        (False, None, "there is no java on the PATH"),
        (True, None, "JAVA_HOME is {home}, which has no bin/java"),
        (True, "echo 'openjdk version \"11.0.2\" 2019-01-15' >&2", "{home}/bin/java is version 11"),
        (True, "echo 'java version \"1.8.0_251\"' >&2", "{home}/bin/java is version 8"),
        (True, "exit 1", "{home}/bin/java does not give its version"),
    ],
)
def test_without_java_a_sentence_says_what_to_install(
    home: bool, script: str | None, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or with one that is too old."""
    pytest.importorskip("pyspark", reason="the extra spark is not installed")
    monkeypatch.setenv("PATH", str(tmp_path / "empty"))
    if home:
        monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    else:
        monkeypatch.delenv("JAVA_HOME", raising=False)
    if script is not None:
        (tmp_path / "bin").mkdir()
        (tmp_path / "bin" / "java").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / "java").chmod(0o755)
    monkeypatch.setattr("pyspark.sql.SparkSession.getActiveSession", lambda: None)
    with pytest.raises(MissingJavaError) as caught:
        ls.spark.local_session()
    assert str(caught.value) == (
        f"Spark needs Java 17 or later, and {reason.format(home=tmp_path)}: install one (Debian and Ubuntu: "
        f"apt install openjdk-17-jre-headless; macOS: brew install openjdk@17; conda: conda install "
        f"openjdk=17), and set JAVA_HOME if java is not on the PATH"
    )

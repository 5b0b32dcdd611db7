"""The examples in docstrings run and give what they say."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

from helpers.spark import modules

EXAMPLES = [
    test
    for name in modules()
    if name != "logistream.__main__"
    for test in doctest.DocTestFinder().find(import_module(name))
    if test.examples
]


@pytest.mark.parametrize("test", EXAMPLES, ids=lambda test: test.name.removeprefix("logistream."))
def test_example(test: doctest.DocTest) -> None:
    """Each docstring's examples, in the names of its module."""
    found: list[str] = []
    result = doctest.DocTestRunner().run(test, out=found.append)
    assert result.failed == 0, "".join(found)


def test_there_are_examples() -> None:
    """They are found at all."""
    assert EXAMPLES

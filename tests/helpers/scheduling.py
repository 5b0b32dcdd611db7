"""Which tests the workers of pytest-xdist run one after another."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

__all__ = ["GroupScheduling", "group_of"]

_GROUPS = {
    "tests/browser/": "browser",
    "tests/test_published_snippets.py": "browser",
    "tests/spark/": "spark",
}
"""By the beginning of their names. They share a browser, a session or a port, and need more than one core."""


def group_of(nodeid: str) -> str | None:
    """Return the group of tests that a test belongs to; None for a test of its own."""
    return next((group for path, group in _GROUPS.items() if nodeid.startswith(path)), None)


class GroupScheduling(LoadScopeScheduling):
    """Gives each group to one worker, the groups first, and every other test to a worker that is free.

    Two workers share two cores: there one worker runs all groups, so that no two of them compete. The mark
    `xdist_group` would say the same, but pytest-xdist 3.8 does not hand it on with pytest 9.2.
    """

    def _split_scope(self, nodeid: str) -> str:
        group = group_of(nodeid)
        if group is None:
            return nodeid
        return "groups" if self.numnodes <= 2 else group

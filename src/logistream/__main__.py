"""`python -m logistream`: the command line where no script is installed."""

from __future__ import annotations

import sys

from logistream.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    sys.exit(main())

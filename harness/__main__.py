"""The program ``harness``, also run as ``python -m harness``.

It listens for signals before it imports anything else: modules take seconds, and what
waits in a cluster's queue may be stopped at any of them.
"""

from __future__ import annotations

import sys
from typing import NoReturn

from harness.base.keeping import SLATE, keep
from harness.base.signals import ended_by_signals


def program() -> NoReturn:
    """Run the command line and end the process with its exit code."""
    with ended_by_signals():
        if sys.argv[1:2] == ["run"]:
            keep()
        from harness.cli import main

        try:
            main()
        except SystemExit as left:
            SLATE.leave(left.code if isinstance(left.code, int) else 1)
            raise


if __name__ == "__main__":
    program()

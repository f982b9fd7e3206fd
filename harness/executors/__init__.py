"""How units are spread over processes and machines.

An executor takes the units in an order in which every variant stands before its cells,
and a function that runs one of them. It knows nothing of what is inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from harness.assembly import Unit
from harness.records.record import Record

RunUnit = Callable[[Unit], Record | None]
"""Run a unit; None where another process holds it, so that it is for later."""


class Executor(Protocol):
    """Runs units and yields their records."""

    def execute(self, units: Sequence[Unit], run_unit: RunUnit) -> Iterator[Record]:
        """Yield the record of every unit, as each becomes known."""

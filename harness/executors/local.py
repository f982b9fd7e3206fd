"""Run units one after another in this process.

Start the same command twice and the two share the work: a unit that the other holds is
put off, and what it finished is taken from its record.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from harness.assembly import Unit
from harness.executors import RunUnit
from harness.records.record import Record

WAIT_SECONDS = 2.0
"""Between two looks at units that other processes hold."""


class LocalExecutor:
    """The executor for one machine."""

    def execute(self, units: Sequence[Unit], run_unit: RunUnit) -> Iterator[Record]:
        """Yield the records, units held by others last."""
        waiting = list(units)
        while waiting:
            held = []
            for unit in waiting:
                record = run_unit(unit)
                if record is None:
                    held.append(unit)
                else:
                    yield record
            if len(held) == len(waiting):
                time.sleep(WAIT_SECONDS)
            waiting = held

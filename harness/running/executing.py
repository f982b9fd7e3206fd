"""Who runs the units of a plan: this process, beside others of its kind.

A process holds the lease of a unit while it runs it, so that any number of processes,
on one machine or many, share one plan.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from harness.base import Lease, take
from harness.records import Record
from harness.suite import Unit

RunUnit = Callable[[Unit], Record | None]
"""Run a unit; None where it is for later: another process holds it or what it needs."""

Executor = Callable[[Sequence[Unit], RunUnit], Iterator[Record]]
"""Yield the record of every unit, as each becomes known."""

WAIT_SECONDS = 2.0
"""Between two looks at units that other processes hold."""


def run_here(units: Sequence[Unit], run_unit: RunUnit) -> Iterator[Record]:
    """Run units in this process, in order; those that others hold come last."""
    waiting = list(units)
    while waiting:
        later = []
        for unit in waiting:
            record = run_unit(unit)
            if record is None:
                later.append(unit)
            else:
                yield record
        if len(later) == len(waiting):
            time.sleep(WAIT_SECONDS)
        waiting = later


@contextmanager
def held(root: Path, unit: Unit) -> Iterator[Lease | None]:
    """Hold a unit of a run folder for this process; None where another holds it."""
    lease = take(root / ".claims" / f"{unit.kind}s" / unit.id)
    try:
        yield lease
    finally:
        if lease is not None:
            lease.release()

"""Run one variant or one cell, and write its record, complete or failed.

A unit is a pure function of the resolved suite and the store. Nothing here knows how
units are spread over processes or machines: that is the executors' matter.
"""

from __future__ import annotations

import logging
import time
from collections.abc import MutableMapping
from functools import partial
from pathlib import Path

from harness.api import CellKey
from harness.base import (
    SLATE,
    CellError,
    Lease,
    LeaseLost,
    Stopped,
    disk_errors,
    disk_fault,
    fatal,
    forget_deaths,
    note_death,
    utc_after,
    utc_now,
)
from harness.records import Record, write_record
from harness.running.assembly import Outcome, assemble
from harness.running.cell import run_cell
from harness.running.context import RunContext
from harness.running.folder import state_of
from harness.running.journal import Journal, together
from harness.running.log import unit_log
from harness.running.variant import load_subject, run_variant
from harness.running.workbench import Work, Workbench
from harness.suite import CellPlan, Unit, VariantPlan

logger = logging.getLogger(__name__)

JOURNAL = "samples.partial.jsonl"
"""In the folder of a unit that is under way."""


class Runner:
    """Runs the units of one plan."""

    def __init__(self, run: RunContext, done: MutableMapping[str, Record]) -> None:
        """Take over a run; `done` has the records, by id, that are known already.

        What is in it is not read and hashed again where a cell depends on it.
        """
        self._run, self._done = run, done
        self._bench = Workbench(run, load_subject)

    def run(self, unit: Unit, lease: Lease) -> Record:
        """Run a variant or a cell; its record is on disk when this returns.

        What goes wrong with the unit becomes a failed record, whatever a plugin raises.
        `Stopped` and Ctrl-C pass through, and `DiskError`: what they interrupt is
        neither complete nor failed. So does `LeaseLost`: it is another process's then,
        and nothing of this one is in the folder.
        """
        self._run.stop.check()
        with disk_errors(unit.id):
            return self._recorded(unit, lease)

    def _recorded(self, unit: Unit, lease: Lease) -> Record:
        folder = self._run.folder.unit_dir(unit.kind, unit.id)
        folder.mkdir(parents=True, exist_ok=True)
        if self._run.folder.state(unit.kind, unit.id).status == "complete":
            # It is run again: what led to its record is no part of a new attempt.
            (folder / JOURNAL).unlink(missing_ok=True)
        with SLATE.unit(folder), unit_log(folder / "log.txt"):
            journal = Journal(folder / JOURNAL, unit.id, self._run.device, lease.check)
            started = utc_now()
            began = time.monotonic()
            logger.info("%s %s: attempt %d", unit.kind, unit.id, journal.restarts + 1)
            if lease.after is not None:
                note_death(folder, f"died ({lease.after})", rows=len(journal.rows))
            outcome = self._outcome(unit, journal, lease)
            outcome.wall_seconds = round(time.monotonic() - began, 3)
            finished = utc_after(started, outcome.wall_seconds)
            record = assemble(self._run, unit, outcome, started, finished)
            lease.check()
            write_record(lease.folder / "record.json", record)
            if record.samples is not None:
                lease.put(record.samples.path, folder / record.samples.path)
            lease.put("record.json", folder / "record.json")
            logger.info("%s", record.status)
        forget_deaths(folder)
        if record.status == "complete":
            journal.close()
        self._report(unit, record)
        return record

    def _outcome(self, unit: Unit, journal: Journal, lease: Lease) -> Outcome:
        outcome = Outcome(restarts=journal.restarts)
        try:
            self._announce(unit)
            self._tried_again(unit)
            if isinstance(unit, CellPlan):
                samples = self._samples_read(unit)
                work = Work(self._run, self._bench, unit, journal, outcome, lease)
                run_cell(work, samples, partial(load_subject, self._run))
            elif isinstance(unit, VariantPlan):
                self._sources_complete(unit)
                run_variant(Work(self._run, self._bench, unit, journal, outcome, lease))
        except BaseException as error:  # one unit must not end the suite
            if self._is_asked_for(error):
                logger.warning("interrupted by %r", error)
                raise
            self._run.stop.check()  # it may have come out as another error
            logger.exception("%s failed", unit.id)
            outcome.ledger = together(outcome.ledger, journal.ledger())
            # Kept no longer: it holds all that was loaded.
            outcome.fail(error)
            return outcome
        outcome.ledger = together(outcome.ledger, journal.ledger())
        return outcome

    def _is_asked_for(self, error: BaseException) -> bool:
        """Say whether a user, a signal, the disk or a lost lease is its cause."""
        if isinstance(error, KeyboardInterrupt):
            return self._run.stop.interrupted
        lost = isinstance(error, (Stopped, LeaseLost))
        return lost or disk_fault(error) is not None

    def _tried_again(self, unit: Unit) -> None:
        """Raise CellError where another attempt would end the process as before."""
        reason = fatal(self._run.folder.unit_dir(unit.kind, unit.id))
        if reason:
            raise CellError(f"{reason}; log.txt beside this record says how far it was")

    def _sources_complete(self, plan: VariantPlan) -> None:
        for source in plan.sources:
            self._complete(source, f"the arm {source.arm}, which it is made from,")
        for cell in plan.reads:
            self._complete(cell, f"{cell.id}, whose rows it uses,")

    def _samples_read(self, plan: CellPlan) -> dict[CellKey, Path]:
        """Return the samples of the cells whose rows a cell uses, by cell.

        Raises CellError where one of them, or the variant, is not complete.
        """
        self._complete(plan.variant, "its variant")
        paths = {}
        for key, cell in plan.reads.items():
            record = self._complete(cell, f"{cell.id}, which it replays,")
            paths[key] = self._run.folder.samples_path(record)
        return paths

    def _complete(self, unit: Unit, name: str) -> Record:
        """Return the record of a unit that another one depends on.

        Raises CellError where it is not complete.
        """
        record, folder = self._done.get(unit.id), self._run.folder
        state = state_of(record) if record else folder.state(unit.kind, unit.id)
        if state.record is None or state.status != "complete":
            raise CellError(f"{name} is {state.status}: {state.reason}")
        self._done[unit.id] = state.record
        return state.record

    def _announce(self, unit: Unit) -> None:
        variant, hook = unit.variant, self._run.hook
        if unit.attack:
            hook.cell_started(
                cell_id=unit.id, variant_id=variant.id, attack=unit.attack
            )
        else:
            hook.variant_started(
                variant_id=unit.id,
                model=variant.model,
                arm=variant.arm,
                seed=variant.seed,
            )

    def _report(self, unit: Unit, record: Record) -> None:
        data = record.model_dump(mode="json")
        if unit.attack:
            self._run.hook.cell_finished(cell_id=unit.id, record=data)
        else:
            self._run.hook.variant_finished(variant_id=unit.id, record=data)

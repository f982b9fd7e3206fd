"""Run one variant or one cell, and write its record, complete or failed.

A unit is a pure function of the resolved suite and the store. Nothing here knows how
units are spread over processes or machines: that is the executors' matter.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

from harness.api import CellKey
from harness.base import (
    CellError,
    fixed_random_state,
    sha256_file,
    utc_now,
    write_atomic,
)
from harness.records import (
    Cost,
    Diagnostic,
    Ledger,
    Phase,
    Record,
    Samples,
    summarise_attack,
    write_record,
)
from harness.run.assembly import Outcome, Unit, assemble, error_info
from harness.run.cell import PARTIAL, CellPeers, attack_cell
from harness.run.context import RunContext
from harness.run.diagnostics.rows import examine_rows
from harness.run.diagnostics.subject import examine
from harness.run.folder import Kind, state_of
from harness.run.variant import (
    TRAINING,
    load_subject,
    measure,
    read_making,
    subject_folder,
)
from harness.subject import Subject
from harness.suite import EXAMINED, CellPlan, VariantPlan

SAMPLES = "samples.jsonl"
EMPTY: Mapping[str, Record] = MappingProxyType({})


class Runner:
    """Runs the units of one plan; keeps the subject it loaded last."""

    def __init__(self, run: RunContext, done: Mapping[str, Record] = EMPTY) -> None:
        """Take over a run; `done` has the records, by id, that are known already.

        What is in it is not read and hashed again where a cell depends on it.
        """
        self._run, self._done = run, done
        self._loaded: tuple[str, Subject] | None = None

    def run(self, unit: Unit) -> Record:
        """Run a variant or a cell; its record is on disk when this returns.

        What goes wrong with the unit becomes a failed record. `Stopped` and Ctrl-C
        pass through: what they interrupt is neither complete nor failed.
        """
        folder = self._folder(unit)
        folder.mkdir(parents=True, exist_ok=True)
        with unit_log(folder / "log.txt"):
            self._announce(unit)
            started = utc_now()
            outcome = self._outcome(unit, folder)
            record = assemble(self._run, unit, outcome, started, utc_now())
            write_record(folder / "record.json", record)
        if record.status == "complete":
            (folder / PARTIAL).unlink(missing_ok=True)
        self._report(unit, record)
        return record

    def _outcome(self, unit: Unit, folder: Path) -> Outcome:
        outcome = Outcome()
        try:
            if isinstance(unit, CellPlan):
                self._run_cell(unit, folder, outcome)
            else:
                self._run_variant(unit, folder, outcome)
        except Exception as error:  # one unit must not end the suite
            outcome.error = error_info(error)
            outcome.samples, outcome.results = None, {}
            logging.getLogger(__name__).exception("%s failed", unit.id)
        return outcome

    def _run_variant(self, plan: VariantPlan, folder: Path, outcome: Outcome) -> None:
        for source in plan.sources:
            name = f"the arm {source.arm}, which it is made from,"
            self._complete("variant", source.id, name)
        with timed(outcome, "subject"):
            made = subject_folder(self._run, plan)
        making = read_making(made)
        outcome.certificate, outcome.recovery = making.certificate, making.recovery
        outcome.derivation, outcome.parameters = making.derivation, making.parameters
        link_subject(made, folder)
        subject = self._subject(plan)
        with subject.metered() as meter:
            with timed(outcome, "metrics"):
                rows, outcome.results = measure(self._run, plan, subject)
            with timed(outcome, "diagnostics"):
                outcome.diagnostics = self._examine(plan, subject)
        outcome.ledger = _spent_once("metrics", meter.cost())
        outcome.samples = write_samples(folder, rows)
        outcome.batch_size, outcome.settings = subject.batch_size, subject.settings

    def _run_cell(self, plan: CellPlan, folder: Path, outcome: Outcome) -> None:
        self._complete("variant", plan.variant.id, "its variant")
        samples = self._samples_read(plan)
        subject = self._subject(plan.variant)
        outcome.parameters = subject.n_parameters
        vocabulary = subject.vocabulary
        outcome.allowed = {
            "allowed": len(vocabulary.allowed),
            "sha256": vocabulary.sha256,
        }
        examples = self._run.examples(plan.variant.model, subject)
        with timed(outcome, "attack"), fixed_random_state(plan.variant.seed):
            peers = CellPeers(plan, subject, samples, self._load)
            found = attack_cell(self._run, plan, subject, examples, peers)
        rows = [row.model_dump(mode="json") for row in found.rows]
        success = self._run.suite.success
        outcome.results = {
            "attack": summarise_attack(
                found.rows, success.threshold, success.rouge_drop
            )
        }
        if self._run.suite.diagnostics != "none":
            outcome.diagnostics = examine_rows(found.rows)
        outcome.ledger = _spent_once("attack", found.cost)
        outcome.restarts = found.restarts
        outcome.samples = write_samples(folder, rows)
        outcome.batch_size, outcome.settings = subject.batch_size, subject.settings

    def _examine(self, plan: VariantPlan, subject: Subject) -> list[Diagnostic]:
        if plan.identity["diagnostics"] is None:
            return []
        examples = self._run.examples(plan.model, subject)
        return examine(subject, examples.test[:EXAMINED])

    def _subject(self, plan: VariantPlan) -> Subject:
        if self._loaded is None or self._loaded[0] != plan.subject_key:
            self._loaded = None  # free the last one first
            self._loaded = plan.subject_key, self._load(plan)
        return self._loaded[1]

    def _load(self, plan: VariantPlan) -> Subject:
        return load_subject(self._run, plan)

    def _complete(self, kind: Kind, unit_id: str, name: str) -> Record:
        """Return the record of a unit that another one depends on.

        Raises CellError where it is not complete.
        """
        record, folder = self._done.get(unit_id), self._run.folder
        state = folder.state(kind, unit_id) if record is None else state_of(record)
        if state.record is None or state.status != "complete":
            raise CellError(f"{name} is {state.status}: {state.reason}")
        return state.record

    def _samples_read(self, plan: CellPlan) -> dict[CellKey, Path]:
        """Return the samples of the cells whose rows a cell uses, by cell."""
        paths = {}
        for key, unit_id in plan.reads.items():
            record = self._complete("cell", unit_id, f"{unit_id}, which it replays,")
            assert record.samples is not None  # it is complete
            folder = self._run.folder.unit_dir("cell", unit_id)
            paths[key] = folder / record.samples.path
        return paths

    def _folder(self, unit: Unit) -> Path:
        return self._run.folder.unit_dir(kind_of(unit), unit.id)

    def _announce(self, unit: Unit) -> None:
        if isinstance(unit, CellPlan):
            self._run.hook.cell_started(
                cell_id=unit.id, variant_id=unit.variant.id, attack=unit.attack
            )
        else:
            self._run.hook.variant_started(
                variant_id=unit.id, model=unit.model, arm=unit.arm, seed=unit.seed
            )

    def _report(self, unit: Unit, record: Record) -> None:
        data = record.model_dump(mode="json")
        if isinstance(unit, CellPlan):
            self._run.hook.cell_finished(cell_id=unit.id, record=data)
        else:
            self._run.hook.variant_finished(variant_id=unit.id, record=data)


def kind_of(unit: Unit) -> Kind:
    """Return ``cell`` or ``variant``."""
    return "cell" if isinstance(unit, CellPlan) else "variant"


def _spent_once(phase: Phase, cost: Cost) -> Ledger:
    """Return the ledger of a unit of one phase that lost no work."""
    return Ledger(kept={phase: cost}, spent={phase: cost})


def write_samples(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Samples:
    """Write the rows as JSON lines, atomically; return what the record says of them."""
    lines = [json.dumps(row, allow_nan=False) for row in rows]
    path = folder / SAMPLES
    write_atomic(path, "".join(line + "\n" for line in lines))
    return Samples(path=SAMPLES, rows=len(lines), sha256=sha256_file(path))


def link_subject(made: Path, folder: Path) -> None:
    """Link the frozen subject from the store, and copy its training log beside it."""
    link = folder / "model"
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(made / "model", folder.resolve()))
    if (made / TRAINING).exists():
        shutil.copyfile(made / TRAINING, folder / TRAINING)


@contextmanager
def timed(outcome: Outcome, stage: str) -> Iterator[None]:
    """Note the wall-clock seconds of a stage, also when it fails."""
    start = time.monotonic()
    try:
        yield
    finally:
        outcome.seconds[stage] = round(time.monotonic() - start, 3)


@contextmanager
def unit_log(path: Path) -> Iterator[None]:
    """Collect log messages and warnings of a unit in its own file, appended."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        handler.close()

"""Run a plan: write down what will run, run what is not done, tell the user."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from harness.base import (
    DEATHS,
    SLATE,
    HarnessError,
    LeaseLost,
    StopSignals,
    Store,
    sha256_file,
)
from harness.data import Corpora
from harness.records import (
    Estimate,
    Margin,
    Record,
    claims_changes,
    margin_change,
)
from harness.running.context import RunContext
from harness.running.diagnostics.replay import PlainProcess, replay_run
from harness.running.executing import Executor, held, run_here
from harness.running.folder import RunFolder
from harness.running.unit import JOURNAL, Runner
from harness.subject import keep_compiled
from harness.suite import Plan, Unit, choose_device, dump_suite


@dataclass
class Tally:
    """How the units of a run ended."""

    complete: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """Units that read cells which were not selected and are not there."""
    missing: list[str] = field(default_factory=list)
    """Units without a record that counts, where nothing was to run."""
    found: int = 0
    """How many of the complete ones were done before."""

    @property
    def total(self) -> int:
        """All units seen so far."""
        return len(self.complete) + len(self.failed) + len(self.missing)

    def sentence(self) -> str:
        """Say in one line how the run ended."""
        done = f"{len(self.complete)} of {self.total} complete"
        before = f" ({self.found} of them before)" if self.found else ""
        failed = f"; failed: {', '.join(self.failed)}" if self.failed else ""
        why = "left for later, since they need what was not selected"
        left = f"; {why}: {', '.join(self.left)}" if self.left else ""
        missing = f"; not run: {', '.join(self.missing)}" if self.missing else ""
        return f"{done}{before}{failed}{left}{missing}"


def run_plan(
    plan: Plan,
    folder: RunFolder,
    store: Store,
    stop: StopSignals,
    *,
    execute: Executor = run_here,
    rerun: bool = False,
    fail_fast: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> Tally:
    """Run all units of a resolved plan that are not done, and count how they ended.

    With `rerun`, the complete ones run again too. Raises `Stopped` where a signal
    asked for it, and HarnessError after the first failure with `fail_fast`.
    """
    write_plan(plan, folder, say)
    units = units_of(plan)
    # What fails meanwhile is not tried again where one process goes on after another.
    replaced = SLATE.once(lambda: to_replace(units, folder, rerun))
    with PlainProcess() as process:
        tally = run_units(
            plan,
            folder,
            store,
            stop,
            units,
            execute=execute,
            replaced=replaced,
            fail_fast=fail_fast,
            say=say,
            process=process,
        )
        _replay(plan, folder, process)
    return tally


def write_plan(
    plan: Plan, folder: RunFolder, say: Callable[[str], None] = lambda line: None
) -> None:
    """Write down in the run folder what will run."""
    for what, changed in stated_late(plan, folder):
        say(f"{changed}: its {what} are exploratory")
    folder.root.mkdir(parents=True, exist_ok=True)
    folder.keep_suite(dump_suite(plan.experiment.suite))


def to_replace(units: Iterable[Unit], folder: RunFolder, rerun: bool) -> dict[str, str]:
    """Return the SHA-256 of the records that a run makes again, by unit.

    Those are the failed ones, and with `rerun` all.
    """
    return {
        unit.id: sha256_file(folder.record_path(unit.kind, unit.id))
        for unit in units
        if (record := folder.record(unit.kind, unit.id)) and (rerun or record.error)
    }


def run_units(
    plan: Plan,
    folder: RunFolder,
    store: Store,
    stop: StopSignals,
    units: Sequence[Unit],
    *,
    execute: Executor = run_here,
    replaced: Mapping[str, str],
    fail_fast: bool = False,
    say: Callable[[str], None] = lambda line: None,
    process: PlainProcess | None = None,
) -> Tally:
    """Run these units of a resolved plan, each after those that it needs.

    Nothing is replayed, and the suite is not written. What other processes hold is
    waited for. `replaced` has the SHA-256 of records that are to be made again, by id:
    any other is a result of this run, also where it failed, whoever made it. `process`
    is begun with the first cell that runs: it replays cells.

    Raises as `run_plan` does.
    """
    text = dump_suite(plan.experiment.suite)
    keep_compiled(store.work("kernels", "compiled"))
    run = RunContext(
        plan=plan,
        folder=folder,
        store=store,
        corpora=Corpora(
            plan.experiment.suite.corpora, store, plan.experiment.suite.limit
        ),
        device=choose_device(plan.experiment.suite.device),
        stop=stop,
        suite_sha256=hashlib.sha256(text.encode()).hexdigest(),
        say=say,
    )
    run.hook.suite_started(
        suite=run.suite.model_dump(mode="json"), run_dir=str(folder.root)
    )
    reached, left = _within_reach(run, units)
    tally = Tally(left=[unit.id for unit in left])
    run_unit = _UnitRunner(run, reached, tally, replaced, process)
    for record in execute(reached, run_unit):
        (tally.failed if record.error else tally.complete).append(record.id)
        if record.error and fail_fast:
            raise HarnessError(f"{record.id} failed, and --fail-fast is set")
    run.hook.suite_finished(
        run_dir=str(folder.root),
        complete=len(tally.complete),
        failed=len(tally.failed),
    )
    return tally


def finish(plan: Plan, folder: RunFolder, units: Iterable[Unit]) -> Tally:
    """Do what comes after the last unit, run none, and count how these ended."""
    with PlainProcess() as process:
        _replay(plan, folder, process)
    tally = Tally()
    for unit in units:
        status = folder.state(unit.kind, unit.id).status
        ended = {"complete": tally.complete, "failed": tally.failed}
        ended.get(status, tally.missing).append(unit.id)
    return tally


def _replay(plan: Plan, folder: RunFolder, process: PlainProcess) -> None:
    suite = plan.experiment.suite
    if suite.diagnostics != "none":
        replay_run(plan, folder, choose_device(suite.device), process)


def units_of(plan: Plan) -> list[Unit]:
    """Return variants and cells so that each stands after all that it needs.

    A variant stands right before its cells; what needs other cells comes after all the
    rest.
    """
    units: list[Unit] = []
    alone = [cell for cell in plan.cells if len(cell.needs) == 1]
    late: set[str] = set()
    for variant in plan.variants:
        if variant.reads or not late.isdisjoint(x.id for x in variant.sources):
            late.add(variant.id)
            continue
        units.append(variant)
        units += [cell for cell in alone if cell.variant.id == variant.id]
    known = {unit.id for unit in units}
    planned: list[Unit] = [*plan.variants, *plan.cells]
    return units + _after_what_they_need([x for x in planned if x.id not in known])


def stated_late(plan: Plan, folder: RunFolder) -> Iterator[tuple[str, str]]:
    """Yield what is exploratory: records have another margin, or other claims."""
    records = [folder.record(unit.kind, unit.id) for unit in units_of(plan)]
    known = [record for record in records if record is not None]
    suite = plan.experiment.suite
    margin = margin_change(Margin.of(suite.verdicts.margin), [x.margin for x in known])
    if margin:
        yield "verdicts", margin
    changes = claims_changes(suite.stated_claims(), [x.claims for x in known])
    yield from (("claims", f"{x} ({x.details})") for x in changes.values())


def _after_what_they_need(units: list[Unit]) -> list[Unit]:
    """Sort units so that each stands after those that it reads."""
    ordered: list[Unit] = []
    left = units
    while left:
        ids = {unit.id for unit in left}
        ready = [unit for unit in left if ids.isdisjoint(x.id for x in unit.needs)]
        assert ready, "cells read each other in a circle"  # suites are checked for it
        ordered += ready
        left = [unit for unit in left if unit not in ready]
    return ordered


def _within_reach(
    run: RunContext, units: Sequence[Unit]
) -> tuple[list[Unit], list[Unit]]:
    """Split units by whether what they need was selected with them, or is there."""
    reached: list[Unit] = []
    left: list[Unit] = []
    known: dict[str, bool] = {}  # whether a unit is there or will be
    for unit in units:
        for need in unit.needs:
            if need.id not in known:
                path = run.folder.record_path(need.kind, need.id)
                known[need.id] = path.exists()
        known[unit.id] = all(known[x.id] for x in unit.needs)
        (reached if known[unit.id] else left).append(unit)
    return reached, left


class _UnitRunner:
    """Runs a unit, unless it is done or another process is at it or what it needs."""

    def __init__(
        self,
        run: RunContext,
        units: Sequence[Unit],
        tally: Tally,
        replaced: Mapping[str, str],
        process: PlainProcess | None,
    ) -> None:
        self._run, self._tally, self._process = run, tally, process
        self._planned = {unit.id for unit in units}
        self._replaced = replaced
        self._done: dict[str, Record] = {}
        self._runner = Runner(run, self._done)

    def __call__(self, unit: Unit) -> Record | None:
        needs = (x.id for x in unit.needs)
        if any(x in self._planned and x not in self._done for x in needs):
            return None
        record = self._found(unit)
        if record is None:
            record = self._made(unit)
        elif not record.error:
            self._clear(unit)
        if record is not None:
            self._done[unit.id] = record
        return record

    def _found(self, unit: Unit) -> Record | None:
        """Return the record of a unit, unless there is none or it is to be replaced."""
        folder = self._run.folder
        record = folder.state(unit.kind, unit.id).valid
        if record is None:
            return None
        path = folder.record_path(unit.kind, unit.id)
        if self._replaced.get(unit.id) == sha256_file(path):
            return None
        self._tally.found += not record.error
        return record

    def _clear(self, unit: Unit) -> None:
        """Remove what a process left that was killed once the record was written."""
        folder = self._run.folder.unit_dir(unit.kind, unit.id)
        left = [folder / name for name in (JOURNAL, DEATHS) if (folder / name).exists()]
        if left:
            with held(self._run.folder.root, unit) as lease:
                if lease is not None:  # nobody is running it again
                    for path in left:
                        path.unlink(missing_ok=True)

    def _made(self, unit: Unit) -> Record | None:
        say = self._run.say
        with held(self._run.folder.root, unit) as lease:
            if lease is None:
                return None
            found = self._found(unit)  # another process may just have made it
            if found is not None:
                return found
            replays = unit.kind == "cell" and self._run.suite.diagnostics != "none"
            if self._process and replays:
                self._process.begin()
            say(f"[{self._tally.total + 1}/{len(self._planned)}] {unit.id}")
            start = time.monotonic()
            try:
                record = self._runner.run(unit, lease)
            except LeaseLost as lost:
                if lost.place != lease.place:
                    raise
                say("  this process was suspended, and another took it over")
                return None
            say(f"  {_sentence(record)} ({time.monotonic() - start:.0f} s)")
            if record.error:
                folder = self._run.folder.unit_dir(unit.kind, unit.id)
                say(f"  its log: {folder / 'log.txt'}")
        return record


def _sentence(record: Record) -> str:
    """Say what came out of a unit: its first estimates, or why it failed."""
    if record.error:
        place = f" (at {record.error.place})" if record.error.place else ""
        return f"FAILED: {record.error.message}{place}"
    if record.kind == "cell":
        found = record.results["attack"]
        shown = {"dL": found["delta_loss"], "success": found["success"]}
    else:
        firsts = {k: next(iter(v.items())) for k, v in record.results.items() if v}
        shown = {f"{k}.{name}": value for k, (name, value) in firsts.items()}
    parts = [f"{name} {_spelt(estimate)}" for name, estimate in shown.items()]
    return ", ".join(parts) or "done"


def _spelt(estimate: Estimate) -> str:
    if estimate.value is None:
        return f"unknown ({estimate.reason})"
    if estimate.unit == "fraction":
        return f"{estimate.value:.0%}"
    return f"{estimate.value:.4g} {estimate.unit}"

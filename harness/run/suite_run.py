"""Run a plan: write down what will run, run what is not done, tell the user."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from harness.base import HarnessError, StopSignals, Store, UsageError
from harness.data import Corpora
from harness.records import Estimate, Margin, Record, margin_change
from harness.run.context import RunContext
from harness.run.diagnostics.replay import PlainProcess, replay_run
from harness.run.executing import Executor, RunUnit, held, run_here
from harness.run.folder import RunFolder
from harness.run.unit import Runner
from harness.subject import keep_compiled
from harness.suite import Plan, Unit, dump_suite


@dataclass
class Tally:
    """How the units of a run ended."""

    complete: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """Units that read cells which were not selected and are not there."""
    found: int = 0
    """How many of the complete ones were done before."""

    @property
    def total(self) -> int:
        """All units seen so far."""
        return len(self.complete) + len(self.failed)

    def sentence(self) -> str:
        """Say in one line how the run ended."""
        done = f"{len(self.complete)} of {self.total} complete"
        before = f" ({self.found} of them before)" if self.found else ""
        failed = f"; failed: {', '.join(self.failed)}" if self.failed else ""
        why = "left for later, since they need what was not selected"
        left = f"; {why}: {', '.join(self.left)}" if self.left else ""
        return f"{done}{before}{failed}{left}"


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
    text = dump_suite(plan.experiment.suite)
    changed = margin_change_of(plan, folder)
    if changed:
        say(f"{changed}: its verdicts are exploratory")
    folder.root.mkdir(parents=True, exist_ok=True)
    suite_sha256 = folder.keep_suite(text)
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
        suite_sha256=suite_sha256,
        say=say,
    )
    run.hook.suite_started(
        suite=run.suite.model_dump(mode="json"), run_dir=str(folder.root)
    )
    units, left = _within_reach(run, units_of(plan))
    tally = Tally(left=[unit.id for unit in left])
    with PlainProcess() as process:
        run_unit = _unit_runner(run, units, tally, rerun, process)
        for record in execute(units, run_unit):
            (tally.failed if record.error else tally.complete).append(record.id)
            if record.error and fail_fast:
                raise HarnessError(f"{record.id} failed, and --fail-fast is set")
        if run.suite.diagnostics != "none":
            replay_run(plan, folder, run.device, process)
    run.hook.suite_finished(
        run_dir=str(folder.root),
        complete=len(tally.complete),
        failed=len(tally.failed),
    )
    return tally


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


def margin_change_of(plan: Plan, folder: RunFolder) -> str | None:
    """Say that a run folder holds records with another margin; None if it does not."""
    known = [folder.record(unit.kind, unit.id) for unit in units_of(plan)]
    margin = Margin.of(plan.experiment.suite.verdicts.margin)
    return margin_change(margin, [record.margin for record in known if record])


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


def _within_reach(run: RunContext, units: list[Unit]) -> tuple[list[Unit], list[Unit]]:
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


def choose_device(device: str) -> str:
    """Return the device to use: for ``auto``, the GPU if there is one.

    Raises UsageError for a GPU that is not here.
    """
    if device == "cpu":
        return device
    import torch

    found = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        return "cuda" if found else "cpu"
    if not found:
        raise UsageError(f"device {device}: torch finds no GPU here; use cpu or auto")
    if int(device.partition(":")[2] or 0) >= found:
        last = "only cuda:0 is" if found == 1 else f"cuda:0 to cuda:{found - 1} are"
        raise UsageError(f"device {device}: {last} here")
    return device


def _unit_runner(
    run: RunContext,
    units: list[Unit],
    tally: Tally,
    rerun: bool,
    process: PlainProcess,
) -> RunUnit:
    planned = {unit.id for unit in units}
    done: dict[str, Record] = {}
    runner = Runner(run, done)

    def run_unit(unit: Unit) -> Record | None:
        if any(x.id in planned and x.id not in done for x in unit.needs):
            return None  # another process is at work on it
        with held(run.folder.root, unit) as mine:
            if not mine:
                return None
            state = run.folder.state(unit.kind, unit.id)
            if state.record and state.status == "complete" and not rerun:
                tally.found += 1
                record = state.record
            else:
                if run.suite.diagnostics != "none":
                    process.begin()
                run.say(f"[{tally.total + 1}/{len(units)}] {unit.id}")
                start = time.monotonic()
                record = runner.run(unit)
                run.say(f"  {_sentence(record)} ({time.monotonic() - start:.0f} s)")
                if record.error:
                    log = run.folder.unit_dir(unit.kind, unit.id) / "log.txt"
                    run.say(f"  its log: {log}")
        done[unit.id] = record
        return record

    return run_unit


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

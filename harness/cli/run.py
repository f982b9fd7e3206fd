"""``harness run``: run what of a suite is not done yet, then print what came out."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, Literal, cast

import click

from harness import base, report, running, suite
from harness.cli import options, plan
from harness.cli.options import SuiteChoice
from harness.cli.printing import answer, say, terminal_width
from harness.cli.submitting import executor_options, submit

FAILED = 1


def _read_workers(_: Any, __: Any, text: str | None) -> int | Literal["auto"] | None:
    if text is None or text == "auto":
        return cast(Literal["auto"] | None, text)
    if text.isdecimal() and int(text[:4]) > 0 and len(text) < 4:
        return int(text)
    raise click.BadParameter(f"expected a number of processes, or auto: {text!r}")


@click.command()
@options.suite_options
@executor_options
@click.option(
    "--dry-run", "-n", is_flag=True, help="Show what would run, as `harness plan` does."
)
@click.option("--rerun", is_flag=True, help="Run also what is complete already.")
@click.option(
    "--fail-fast", is_flag=True, help="Stop at the first variant or cell that fails."
)
@click.option(
    "--workers",
    callback=_read_workers,
    metavar="N",
    help="Run units side by side in N processes, or `auto`: one for each GPU.",
)
@click.option(
    "--units",
    metavar="ID,...",
    help="Of a frozen run, as jobs of a cluster get it: only these, or all; no report.",
)
@click.option(
    "--finish",
    is_flag=True,
    help="Of a frozen run: run nothing, print what came out.",
)
@click.pass_context
def command(
    ctx: click.Context,
    /,
    choice: SuiteChoice,
    executor: str,
    dry_run: bool,
    rerun: bool,
    fail_fast: bool,
    workers: int | Literal["auto"] | None,
    units: str | None,
    finish: bool,
) -> Any:
    """Run every variant and cell that is not done, and print what came out.

    That is one screen, and `harness report RUN --tables all` prints the rest. What was
    finished before is kept: the same command goes on where it was stopped.
    """
    if dry_run:
        names = {field.name for field in fields(SuiteChoice)}
        shared = {name: value for name, value in ctx.params.items() if name in names}
        return ctx.invoke(plan.command, as_json=False, **shared)
    if executor == "slurm":
        if fail_fast or workers or units is not None or finish:
            raise base.UsageError(
                "--fail-fast, --workers, --units and --finish are of processes that "
                "run units, not of --executor slurm, which hands them to others"
            )
        return submit(choice, rerun=rerun)
    if units is not None or finish:
        if rerun or workers:
            raise base.UsageError("--rerun and --workers are for where it was frozen")
        with running.quick_imports():
            frozen = _frozen(choice)
        if units is not None:
            return _run_units(frozen, units, fail_fast)
        return _ended(
            frozen.folder, running.finish(frozen.plan, frozen.folder, frozen.units)
        )
    if workers:
        return _ended(*_run_in_workers(choice, workers, rerun, fail_fast))
    return _ended(*_run(choice, rerun=rerun, fail_fast=fail_fast))


def _ended(folder: running.RunFolder, tally: running.Tally) -> int:
    """Print what came of a run; return the exit code."""
    found = running.survey(folder.root, trust=True)
    answer(_report(found), end="")
    say(tally.sentence())
    warning = running.error_warning(found)
    if warning is not None:
        say(warning)
    return FAILED if tally.failed or tally.missing else 0


def _frozen(choice: SuiteChoice) -> running.Frozen:
    """Read a frozen run; whatever could change it is refused."""
    plain = SuiteChoice(choice.suite, None, (), None, {}, None, (), None, None, None)
    if choice != plain:
        raise base.UsageError("--units and --finish take a run as it was frozen")
    return running.thaw(choice.suite)


def _run_units(frozen: running.Frozen, units: str, fail_fast: bool) -> int:
    chosen = frozen.units if units == "all" else frozen.chosen(units.split(","))
    with base.stop_on_signals() as stop:
        tally = running.run_units(
            frozen.plan,
            frozen.folder,
            base.Store(base.default_store_root(frozen.folder.root)),
            stop,
            chosen,
            replaced=frozen.replaced,
            fail_fast=fail_fast,
            say=say,
        )
    say(tally.sentence())
    return FAILED if tally.failed else 0


def _run(
    choice: SuiteChoice, *, rerun: bool, fail_fast: bool
) -> tuple[running.RunFolder, running.Tally]:
    with running.quick_imports():  # where a signal may still end all
        planned, folder, store = _prepared(choice)
    with base.stop_on_signals() as stop:
        tally = running.run_plan(
            planned,
            folder,
            store,
            stop,
            rerun=rerun,
            fail_fast=fail_fast,
            say=say,
        )
    return folder, tally


def _run_in_workers(
    choice: SuiteChoice, workers: int | Literal["auto"], rerun: bool, fail_fast: bool
) -> tuple[running.RunFolder, running.Tally]:
    planned, folder, store = _prepared(choice)
    asked, recovery = planned.experiment.suite, planned.experiment.suite.recovery
    environments = running.environments(
        None if workers == "auto" else workers,
        asked.device,
        recovery.devices if recovery else 1,
    )
    frozen = running.freeze(
        planned, folder, folder.root / ".workers", rerun=rerun, say=say
    )
    with base.stop_on_signals():
        running.make_models(frozen, store, say)
        running.run_side_by_side(frozen, environments, fail_fast=fail_fast, say=say)
        return folder, running.finish(planned, folder, frozen.units)


def _prepared(choice: SuiteChoice) -> tuple[suite.Plan, running.RunFolder, base.Store]:
    experiment = choice.experiment()
    run_dir = choice.run_dir(experiment)
    return running.prepare(experiment, run_dir, choice.only, say=say)


def _report(found: running.Survey) -> str:
    """Write the reports, and return what of them fits a terminal."""
    made = report.build(found)
    report.write_reports(made, found.folder.report_dir)
    return report.render(made, "screen", terminal=terminal_width())

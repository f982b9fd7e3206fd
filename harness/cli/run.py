"""``harness run``: run what of a suite is not done yet, then print the tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from harness import base, report, run, suite
from harness.cli import options, plan
from harness.cli.options import SuiteChoice
from harness.cli.printing import answer, say

FAILED = 1


@click.command()
@options.suite_options
@click.option(
    "--dry-run", "-n", is_flag=True, help="Show what would run, as `harness plan` does."
)
@click.option("--rerun", is_flag=True, help="Run also what is complete already.")
@click.option(
    "--fail-fast", is_flag=True, help="Stop at the first variant or cell that fails."
)
@click.pass_context
def command(
    ctx: click.Context, /, choice: SuiteChoice, dry_run: bool, **how: bool
) -> Any:
    """Run every variant and cell that is not done, and print the tables.

    What was finished before is kept: the same command goes on where it was stopped.
    """
    if dry_run:
        own = ("dry_run", "rerun", "fail_fast")
        shared = {name: value for name, value in ctx.params.items() if name not in own}
        return ctx.invoke(plan.command, as_json=False, **shared)
    folder, tally = _run(choice, **how)
    text, verdicts = _report(folder)
    answer(text)
    say(tally.sentence())
    for line in verdicts:
        say(line)
    return FAILED if tally.failed else 0


def _run(
    choice: SuiteChoice, *, rerun: bool, fail_fast: bool
) -> tuple[run.RunFolder, run.Tally]:
    experiment = choice.experiment()
    folder = run.RunFolder(choice.run_dir(experiment))
    store = base.Store(base.default_store_root(folder.root))
    planned = suite.make_plan(suite.resolve(experiment, store.root), choice.only)
    run_plan = run.run_plan  # imports libraries, where a signal may still end all
    with base.stop_on_signals() as stop:
        tally = run_plan(
            planned,
            folder,
            store,
            stop,
            rerun=rerun,
            fail_fast=fail_fast,
            say=say,
        )
    return folder, tally


def _report(folder: run.RunFolder) -> tuple[str, Sequence[str]]:
    """Write the reports; return the one for a terminal, and a line for each arm."""
    made = report.build(run.survey(folder.root, trust=True))
    report.write_reports(made, folder.report_dir)
    verdicts = report.lines(made.verdicts) if made.verdicts else ()
    return report.render(made, "text"), verdicts

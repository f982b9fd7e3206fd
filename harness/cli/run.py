"""``harness run``: run what of a suite is not done yet, then print the tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from harness.cli import options
from harness.cli.options import SuiteChoice

if TYPE_CHECKING:
    from harness.run import RunFolder, Tally

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
        return _show_plan(ctx)
    folder, tally = _run(choice, **how)
    text, verdicts = _report(folder)
    click.echo(text)
    _say(tally.sentence())
    for line in verdicts:
        _say(line)
    return FAILED if tally.failed else 0


def _run(
    choice: SuiteChoice, *, rerun: bool, fail_fast: bool
) -> tuple[RunFolder, Tally]:
    from harness.base import Store, default_store_root, stop_on_signals
    from harness.run import RunFolder, run_plan
    from harness.suite import make_plan, resolve

    experiment = choice.experiment()
    folder = RunFolder(choice.run_dir(experiment))
    store = Store(default_store_root(folder.root))
    plan = make_plan(resolve(experiment, store.root), choice.only)
    with stop_on_signals() as stop:
        tally = run_plan(
            plan,
            folder,
            store,
            stop,
            rerun=rerun,
            fail_fast=fail_fast,
            say=_say,
        )
    return folder, tally


def _report(folder: RunFolder) -> tuple[str, Sequence[str]]:
    """Write the reports; return the one for a terminal, and a line for each arm."""
    from harness import report
    from harness.run import survey

    made = report.build(survey(folder.root))
    report.write_reports(made, folder.report_dir)
    verdicts = report.lines(made.verdicts) if made.verdicts else ()
    return report.render(made, "text"), verdicts


def _show_plan(ctx: click.Context) -> Any:
    from harness.cli.plan import command as plan

    own = ("dry_run", "rerun", "fail_fast")
    shared = {name: value for name, value in ctx.params.items() if name not in own}
    return ctx.invoke(plan, as_json=False, **shared)


def _say(line: str) -> None:
    click.echo(line, err=True)

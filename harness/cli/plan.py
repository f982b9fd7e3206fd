"""``harness plan``: what a suite would run, and why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict

import click

from harness import run, suite
from harness.base import default_store_root
from harness.cli import options
from harness.cli.options import SuiteChoice


@click.command()
@options.suite_options
@options.json_output
def command(choice: SuiteChoice, as_json: bool) -> None:
    """List the variants and cells of a suite, and why each would run or not.

    A unit is new, complete, failed before, or has an invalid record; all but the
    complete ones would run. Where a model or a corpus is not on this machine, all are
    blocked, and their ids lack the hash that depends on it.
    """
    experiment = choice.experiment()
    folder = run.RunFolder(choice.run_dir(experiment))
    store_root = default_store_root(folder.root)
    absent = suite.missing_sources(experiment, store_root)
    if not absent:
        experiment = suite.identify(experiment, store_root)
    units = run.preview(suite.make_plan(experiment, choice.only), folder)
    if as_json:
        click.echo(json.dumps(_document(units, absent), indent=1))
        return
    click.echo("\n".join(_lines(units)))
    for sentence in absent:
        click.echo(f"not on this machine: {sentence}", err=True)
    if experiment.suite.limit is not None:
        click.echo("a limit is set: not for real numbers", err=True)


def _document(units: list[run.UnitPreview], absent: list[str]) -> dict[str, object]:
    return {
        "units": [{**asdict(unit), "runs": unit.runs} for unit in units],
        "missing": absent,
    }


def _lines(units: list[run.UnitPreview]) -> Iterator[str]:
    width = max(len(unit.id) for unit in units)
    for kind in ("variant", "cell"):
        chosen = [unit for unit in units if unit.kind == kind]
        yield f"{kind}s"
        for unit in chosen:
            reason = f": {unit.reason}" if unit.reason else ""
            yield f"  {unit.id:{width}}  {unit.state}{reason}"
    yield ""
    yield run.summary(units)

"""``harness doctor``: whether this machine is ready."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli import options

if TYPE_CHECKING:
    from harness.doctor import Finding

READY, NOT_READY = 0, 2


@click.command()
@click.argument(
    "suite", required=False, type=click.Path(dir_okay=False, path_type=Path)
)
@click.option("--profile", metavar="NAME", help="A profile of the suite.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE")
@options.plugins
@options.json_output
def command(
    suite: Path | None,
    profile: str | None,
    overrides: tuple[str, ...],
    plugins: tuple[Path, ...],
    as_json: bool,
) -> int:
    """Check this machine, and whether it has what a suite names.

    Exits with 2, as a run would, if something that a run needs is not there.
    """
    from harness.base.store import default_store_root
    from harness.doctor import examine_machine, examine_suite, failed
    from harness.suite.experiment import load_experiment

    store_root = default_store_root(Path("runs", "any-suite"))
    findings = [*examine_machine(store_root)]
    if suite is not None:
        experiment = load_experiment(
            suite, profile=profile, overrides=overrides, plugins=plugins
        )
        findings += examine_suite(experiment, store_root)
    click.echo(_as_json(findings) if as_json else _as_text(findings))
    return NOT_READY if failed(findings) else READY


def _as_json(findings: Sequence[Finding]) -> str:
    return json.dumps([asdict(finding) for finding in findings], indent=1)


def _as_text(findings: Sequence[Finding]) -> str:
    width = max(len(finding.name) for finding in findings)
    return "\n".join(f"{f.status:4}  {f.name:{width}}  {f.detail}" for f in findings)

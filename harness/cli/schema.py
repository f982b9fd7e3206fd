"""``harness schema``: the formats of suites and records, as JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path

import click

from harness import suite
from harness.api import load_registry
from harness.cli import options
from harness.cli.printing import answer, only_answers
from harness.records import schemas


@click.command()
@click.argument("kind", type=click.Choice(["suite", *schemas.MODELS]))
@options.plugins
@click.pass_context
def command(ctx: click.Context, kind: str, plugins: tuple[Path, ...]) -> None:
    """Print the JSON Schema of suites, records, samples, verdicts or reports.

    That of suites holds the options of the plugins that are installed or named with
    --plugins, for editors to complete from.
    """
    only_answers(ctx)
    if kind == "suite":
        schema = suite.suite_schema(load_registry(plugins))
    else:
        schema = schemas.load(kind)
    answer(json.dumps(schema, indent=1))

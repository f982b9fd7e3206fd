"""``harness schema``: the formats of suites and records, as JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from harness.cli import options


@click.command()
@click.argument("kind", type=click.Choice(["suite", "record", "sample", "verdicts"]))
@options.plugins
def command(kind: str, plugins: tuple[Path, ...]) -> None:
    """Print the JSON Schema of suites, records, samples or verdicts.

    That of suites holds the options of the plugins that are installed or named with
    --plugins, for editors to complete from.
    """
    click.echo(json.dumps(_schema(kind, plugins), indent=1))


def _schema(kind: str, plugins: tuple[Path, ...]) -> dict[str, Any]:
    if kind != "suite":
        from harness.records import schemas

        return schemas.load(kind)
    from harness.api import load_registry
    from harness.suite import suite_schema

    return suite_schema(load_registry(plugins))

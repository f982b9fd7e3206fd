"""``harness list``: the plugins, by kind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import click

from harness.api import KINDS, Description, describe, load_registry
from harness.cli import options
from harness.cli.printing import answer


@click.command()
@click.argument("kind", required=False, type=click.Choice([*KINDS]))
@options.plugins
@options.json_output
def command(kind: str | None, plugins: tuple[Path, ...], as_json: bool) -> None:
    """List the plugins.

    KIND limits the list to models, constraints, attacks or metrics.
    """
    found = [describe(info) for info in load_registry(plugins).all(kind)]
    if as_json:
        answer(json.dumps([one.as_json() for one in found], indent=1))
    else:
        answer(_table(found))


def _table(found: Sequence[Description]) -> str:
    width = max((len(one.name) for one in found), default=0)
    lines = []
    for kind, group in groupby(found, key=lambda one: one.kind):
        lines.append(f"{kind}s")
        lines += [f"  {one.name:{width}}  {one.summary}" for one in group]
    return "\n".join(lines)

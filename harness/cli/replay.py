"""``harness replay``: run cells again, and see whether the same comes out."""

from __future__ import annotations

from pathlib import Path

import click
from tabulate import tabulate

from harness import results
from harness.cli import options
from harness.cli.printing import answer, say

OTHERWISE = 1


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("cell", required=False)
@click.option("--fresh", is_flag=True, help="Train the subjects again, too.")
@options.plugins
def command(run: Path, cell: str | None, fresh: bool, plugins: tuple[Path, ...]) -> int:
    """Run cells of a run folder again, and compare what they find.

    CELL is a cell's id, or a part of it; by default all. The folder's suite and its
    plugins are run, so it must be one that you trust; what is run again goes away.
    Exit code 1 where a prompt differs. `harness validate --replay` is cheaper: it
    scores the prompts that are there, without the attack.
    """
    found = results.replay(run, cell, plugins=plugins, fresh=fresh, say=say)
    rows = [
        [one.cell, f"{one.same} of {one.examples}", f"{one.apart:.1e}", _word(one)]
        for one in found
    ]
    heads = ["cell", "same prompts", "dL apart", ""]
    answer(tabulate(rows, headers=heads, disable_numparse=True))
    return 0 if all(one.reproduced for one in found) else OTHERWISE


def _word(one: results.Replayed) -> str:
    if one.fault:
        return one.fault
    return "reproduced" if one.reproduced else "DIFFERS"

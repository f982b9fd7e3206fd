"""``harness show``: adversarial examples, with what was changed and what it did."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness import report, results
from harness.base import visible
from harness.cli import options

if TYPE_CHECKING:
    from harness.records import SampleRow
    from harness.report import ShownExample
    from harness.results import Found, Run

CHANGED = {"clean": "red strike", "attacked": "bold black on yellow"}
ABOVE_NATS = 1.0
"""From how much more loss on a token of the reference is set off."""


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("cell", required=False)
@click.argument("example", required=False)
@click.option(
    "--worst", "count", type=click.IntRange(min=1), help="Only the N that lost most."
)
@click.option("--text-only", is_flag=True, help="Only prompts that are texts.")
@options.plugins
@options.trust
@click.option("--trace", "traced", is_flag=True, help="Also the steps of the search.")
def command(
    run: Path,
    cell: str | None,
    example: str | None,
    count: int | None,
    text_only: bool,
    plugins: tuple[Path, ...],
    trust: bool,
    traced: bool,
) -> None:
    """Show adversarial examples of a run folder.

    CELL is a cell's id, or a part of it; EXAMPLE the id of an example. Without them,
    it lists the cells. What an attack changed is marked, in both texts; below stand
    the tokens of the reference with their losses before and after.
    """
    loaded = results.load_run(run, plugins=plugins, trust=trust)
    cells = results.find_cells(loaded, cell)
    console = Console(highlight=False, soft_wrap=False)
    if cell is None and count is None:
        _print(console, _list(loaded))
        console.print("harness show RUN CELL shows the examples of one")
        return
    found = results.find_examples(loaded, cells, example, text_only=text_only)
    if count is not None:
        found = results.worst(found, count)
    print_examples(console, loaded, found, traced=traced or example is not None)


def print_examples(
    console: Console, run: Run, found: Sequence[Found], *, traced: bool = False
) -> None:
    """Print examples one after another."""
    split = cache(lambda variant: report.token_splitter(variant))
    for one in found:
        variant = results.variant_folder(run, one.unit)
        shown = report.show_example(one.row, split(variant))
        console.print(*_heading(one), sep="\n")
        _print(console, _texts(shown, plain=console.color_system is None))
        if traced and one.row.trace:
            _print(console, _trace(one.row))
        console.print()


def _print(console: Console, table: Table) -> None:
    """Print a table, without the blanks that fill its lines to one width."""
    with console.capture() as captured:
        console.print(table)
    console.file.write(re.sub(" +$", "", captured.get(), flags=re.MULTILINE))


def _list(run: Run) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("cell", overflow="fold")  # it is what to ask for
    table.add_column("dL, nats/token")
    table.add_column("success")
    for row in run.cells.to_dict("records"):
        found = row["status"] == "complete"
        dl = f"{row['delta_loss']:.3f}" if found else row["status"]
        success = f"{row['success']:.0%}" if found else ""
        table.add_row(visible(row["id"]), dl, success)
    return table


def _heading(one: Found) -> Iterator[Text]:
    yield Text(visible(f"{one.unit.id}  {one.row.example_id}"), "bold")
    yield Text(_numbers(one.row), "dim")


def _texts(shown: ShownExample, *, plain: bool) -> Table:
    """Return the two prompts and the reference, each beside its name."""
    table = Table.grid(padding=(0, 2))
    for side, pieces in (("clean", shown.clean), ("attacked", shown.attacked)):
        line = Text()
        for piece in pieces:
            text = visible(piece.text, line=True)
            if piece.changed and plain:
                text = f"[{text}]"
            line.append(text, CHANGED[side] if piece.changed else None)
        table.add_row(Text(f"  {side}", "dim"), line)
    table.add_row(Text("  reference", "dim"), _reference(shown))
    return table


def _numbers(row: SampleRow) -> str:
    if row.status == "error":
        return f"  error: {visible(row.error or '')}"
    reached = "" if row.text_reachable else ", no text gives these tokens"
    return (
        f"  loss {row.clean_loss:.3f} -> {row.adversarial_loss:.3f} nats/token, "
        f"dL {row.delta_loss:+.3f}{reached}"
    )


def _reference(shown: ShownExample) -> Text:
    """Return the reference; behind each token that lost much stands by how much."""
    line = Text()
    for token in shown.reference:
        line.append(visible(token.text, line=True))
        if token.clean is None or token.attacked is None:
            continue
        rise = token.attacked - token.clean
        if abs(rise) >= ABOVE_NATS:
            line.append(f"({rise:+.1f})", "red" if rise > 0 else "green")
    return line


def _trace(row: SampleRow) -> Table:
    names = list(dict.fromkeys(name for step in row.trace for name in step))
    table = Table(*map(visible, names), box=None, pad_edge=False, header_style="dim")
    for step in row.trace:
        table.add_row(*(_spelt(step.get(name)) for name in names))
    return table


def _spelt(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else visible(str(value))

"""Reports for a terminal: no line is wider than it."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from tabulate import SEPARATING_LINE, tabulate

from harness.report.content import Cell, Label, Missing, Report, Table
from harness.report.formats.numbers import number_text

WIDTH = 100
GAP = 2
"""Spaces between two columns."""
DATA_WIDTH = 40
"""What is left beside the columns that name the row; no number is wider."""


def render_text(report: Report) -> str:
    """Return the report for people at a terminal."""
    parts = [report.title, _facts(report)]
    parts += [_filled(f"! {warning}") for warning in report.warnings]
    parts += [_table(table) for table in report.tables]
    if report.methods:
        parts.append(f"Methods\n=======\n\n{textwrap.fill(report.methods, WIDTH)}")
    return "\n\n".join(part for part in parts if part) + "\n"


def cell_text(cell: Cell) -> str:
    """Return a cell in plain words and numbers."""
    if isinstance(cell, Label):
        return cell.short or cell.text
    if isinstance(cell, Missing):
        return "--" if cell.brief else f"-- {cell.reason}"
    return number_text(cell)


def _facts(report: Report) -> str:
    facts = [*report.facts, *report.provenance]
    return tabulate(facts, tablefmt="plain", disable_numparse=True)


def _filled(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="  ")


def _table(table: Table) -> str:
    title = f"{table.title}\n{'=' * len(table.title)}"
    parts = [printed(part) for part in narrower(table)]
    notes = [_filled(note) for note in table.notes]
    words = "\n".join([*notes, textwrap.fill(table.caption, WIDTH)])
    return "\n\n".join([title, *parts, words])


# --- tables that fit ----------------------------------------------------------------


def fits(table: Table, chosen: Sequence[int], width: int = WIDTH) -> bool:
    """Say whether these columns are no wider than a terminal, beside one another."""
    return max(map(len, printed(table.only(chosen)).splitlines())) <= width


def narrower(
    table: Table, fits: Callable[[Table, Sequence[int]], bool] = fits
) -> Iterator[Table]:
    """Spread the columns over tables that fit; those that name the row start each.

    The columns of a group stay together, unless even alone they do not fit.
    """
    keys = list(range(table.keys))
    chosen = keys
    for group in groups(table):
        whole = fits(table, [*keys, *group])
        for piece in [group] if whole else [[index] for index in group]:
            if chosen != keys and not fits(table, [*chosen, *piece]):
                yield table.only(chosen)
                chosen = keys
            chosen = [*chosen, *piece]
    yield table.only(chosen)


def groups(table: Table) -> Iterator[list[int]]:
    """Yield the places of each group of columns, but for those that name the row."""
    others = range(table.keys, len(table.columns))
    for _, found in groupby(others, key=lambda i: table.columns[i].group or i):
        yield list(found)


def printed(table: Table) -> str:
    """Return the lines of a table, and nothing around them."""
    columns = [_shown(table, index) for index in range(len(table.columns))]
    first, *rest = zip(*columns, strict=True)
    # As `headers`, the headings would make every column two characters wider.
    return tabulate(
        [first, SEPARATING_LINE, *rest],
        tablefmt="simple",
        disable_numparse=True,
        colalign=table.alignment,
        rowalign="bottom",
    )


def _shown(table: Table, index: int) -> list[str]:
    """Return a column's heading and cells; a heading is no wider than it has to be."""
    is_key, column = index < table.keys, table.columns[index]
    most = (WIDTH - DATA_WIDTH) // table.keys - GAP if is_key else DATA_WIDTH
    cells = [textwrap.fill(cell_text(row[index]), most) for row in table.printed_rows]
    heading = f"{column.group} {column.short or column.title}".strip()
    words = [*heading.split(), *(line for text in cells for line in text.splitlines())]
    return [textwrap.fill(heading, min(most, max(map(len, words)))), *cells]

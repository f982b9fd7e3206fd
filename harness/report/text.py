"""Reports for a terminal: no line is wider than it has to be."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from tabulate import tabulate

from harness.report.content import Cell, Column, Label, Missing, Report, Table
from harness.report.numbers import show

WIDTH = 100


def render_text(report: Report) -> str:
    """Return the report for people at a terminal."""
    parts = [report.title, _facts(report), *_warnings(report.warnings)]
    parts += [_table(table) for table in report.tables]
    return "\n\n".join(part for part in parts if part) + "\n"


def cell_text(cell: Cell) -> str:
    """Return a cell in plain words and numbers."""
    if isinstance(cell, Label):
        return cell.text
    if isinstance(cell, Missing):
        return f"-- {cell.reason}"
    shown = show(cell)
    parts = [shown.value]
    if shown.std is not None:
        parts.append(f"± {shown.std}")
    if shown.interval is not None:
        parts.append(f"[{shown.interval[0]}, {shown.interval[1]}]")
    parts.append(shown.unit)
    if shown.seeds:
        parts.append(f"({shown.seeds})")
    return " ".join(part for part in parts if part) + shown.mark


def _facts(report: Report) -> str:
    facts = [*report.facts, *report.provenance]
    width = max(len(name) for name, _ in facts)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in facts)


def _warnings(warnings: Iterable[str]) -> Iterator[str]:
    for warning in warnings:
        yield textwrap.fill(f"! {warning}", WIDTH, subsequent_indent="  ")


def _table(table: Table) -> str:
    title = f"{table.title}\n{'=' * len(table.title)}"
    blocks = [_block(table, chosen) for chosen in _blocks(table)]
    words = [textwrap.fill(text, WIDTH) for text in (*table.notes, table.caption)]
    return "\n\n".join([title, *blocks, "\n".join(words)])


def _blocks(table: Table) -> Iterator[list[int]]:
    """Spread the columns over blocks that fit; groups stay together if they can."""
    groups = [
        [index for index, _ in found]
        for _, found in groupby(
            list(enumerate(table.columns))[1:],
            key=lambda item: item[1].group or item[0],
        )
    ]
    chosen: list[int] = [0]
    for group in groups:
        if len(chosen) > 1 and _width(table, [*chosen, *group]) > WIDTH:
            yield chosen
            chosen = [0]
        chosen = [*chosen, *group]
    yield chosen


def _width(table: Table, chosen: Sequence[int]) -> int:
    return max(len(line) for line in _block(table, chosen).splitlines())


def _block(table: Table, chosen: Sequence[int]) -> str:
    columns = [table.columns[index] for index in chosen]
    rows = [[cell_text(row[index]) for index in chosen] for row in table.rows]
    alignment = [_alignment(table, index) for index in chosen]
    return tabulate(
        rows,
        headers=_headers(columns),
        tablefmt="simple",
        colalign=alignment if rows else None,
        disable_numparse=True,
    )


def _headers(columns: Sequence[Column]) -> list[str]:
    """Put the group's name above the first of its columns."""
    headers = []
    previous = ""
    grouped = any(column.group for column in columns)
    for column in columns:
        above = column.group if column.group != previous else ""
        headers.append(f"{above}\n{column.title}" if grouped else column.title)
        previous = column.group
    return headers


def _alignment(table: Table, index: int) -> str:
    """Align words left; numbers too where an interval follows, else right."""
    cells = [row[index] for row in table.rows]
    return "left" if all(isinstance(cell, Label) for cell in cells) else "right"

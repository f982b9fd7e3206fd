"""Reports for a terminal: no line is wider than it has to be."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from harness.report.content import Cell, Label, Missing, Report, Table
from harness.report.formats.grid import grid
from harness.report.formats.numbers import show

WIDTH = 100


def render_text(report: Report) -> str:
    """Return the report for people at a terminal."""
    parts = [report.title, _facts(report), *_warnings(report.warnings)]
    parts += [_table(table) for table in report.tables]
    return "\n\n".join(part for part in parts if part) + "\n"


def cell_text(cell: Cell) -> str:
    """Return a cell in plain words and numbers."""
    if isinstance(cell, Label):
        return cell.short or cell.text
    if isinstance(cell, Missing):
        return "--" if cell.brief else f"-- {cell.reason}"
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
        yield _filled(f"! {warning}")


def _filled(text: str) -> str:
    return textwrap.fill(text, WIDTH, subsequent_indent="  ")


def _table(table: Table) -> str:
    title = f"{table.title}\n{'=' * len(table.title)}"
    blocks = [_block(table, chosen) for chosen in _blocks(table)]
    notes = [_filled(note) for note in table.notes]
    words = "\n".join([*notes, textwrap.fill(table.caption, WIDTH)])
    return "\n\n".join([title, *blocks, words])


def _blocks(table: Table) -> Iterator[list[int]]:
    """Spread the columns over blocks that fit; the keys start each of them."""
    keys = list(range(table.keys))
    chosen = keys
    for group in _groups(table):
        if chosen != keys and _width(table, [*chosen, *group]) > WIDTH:
            yield chosen
            chosen = keys
        chosen = [*chosen, *group]
    yield chosen


def _groups(table: Table) -> Iterator[list[int]]:
    """Yield the columns that stay together: those of a group, or one alone."""
    others = range(table.keys, len(table.columns))
    for _, found in groupby(others, key=lambda i: table.columns[i].group or i):
        yield list(found)


def _width(table: Table, chosen: Sequence[int]) -> int:
    return max(map(len, _block(table, chosen).splitlines()))


def _block(table: Table, chosen: Sequence[int]) -> str:
    columns = [table.columns[index] for index in chosen]
    return grid(
        groups=[column.group for column in columns],
        titles=[column.short or column.title for column in columns],
        rows=[[cell_text(row[index]) for index in chosen] for row in table.rows],
        right=[table.is_numeric(index) for index in chosen],
    )

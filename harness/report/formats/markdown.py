"""Reports as Markdown: for pull requests, issues and notebooks."""

from __future__ import annotations

from tabulate import tabulate

from harness.report.content import Cell, Label, Report, Table
from harness.report.formats.text import cell_text


def render_markdown(report: Report) -> str:
    """Return the report as GitHub-flavoured Markdown."""
    facts = [*report.facts, *report.provenance]
    parts = [f"# {_escape(report.title)}"]
    parts.append("\n".join(f"- {name}: {_escape(value)}" for name, value in facts))
    parts += [f"> **{_escape(warning)}**" for warning in report.warnings]
    parts += [_table(table) for table in report.tables]
    if report.methods:
        parts += ["## Methods", _escape(report.methods)]
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    lines = tabulate(
        [[_cell(cell) for cell in row] for row in table.printed_rows],
        headers=[_escape(column.name) for column in table.columns],
        tablefmt="pipe",
        disable_numparse=True,
        colalign=table.alignment if table.rows else None,
    )
    words = [_escape(text) for text in (*table.notes, table.caption)]
    return "\n\n".join([f"## {_escape(table.title)}", lines, *words])


def _cell(cell: Cell) -> str:
    if isinstance(cell, Label):
        text = _escape(cell.text)
        return f"**{text}**" if cell.alarm else text
    return _escape(cell_text(cell))


def _escape(text: str) -> str:
    """Escape what Markdown would read as markup, in labels above all."""
    for character in "\\`*_|<>[]":
        text = text.replace(character, f"\\{character}")
    return text

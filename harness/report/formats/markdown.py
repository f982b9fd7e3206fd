"""Reports as Markdown: for pull requests, issues and notebooks."""

from __future__ import annotations

from harness.report.content import Cell, Column, Label, Report, Table
from harness.report.formats.text import cell_text


def render_markdown(report: Report) -> str:
    """Return the report as GitHub-flavoured Markdown."""
    facts = [*report.facts, *report.provenance]
    parts = [f"# {_escape(report.title)}"]
    parts.append("\n".join(f"- {name}: {_escape(value)}" for name, value in facts))
    parts += [f"> **{_escape(warning)}**" for warning in report.warnings]
    parts += [_table(table) for table in report.tables]
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> str:
    header = _line([_heading(column) for column in table.columns])
    columns = range(len(table.columns))
    rule = _line(["---:" if table.is_numeric(i) else "---" for i in columns])
    rows = [_line([_cell(cell) for cell in row]) for row in table.rows]
    words = [_escape(text) for text in (*table.notes, table.caption)]
    lines = "\n".join([header, rule, *rows])
    return "\n\n".join([f"## {_escape(table.title)}", lines, *words])


def _heading(column: Column) -> str:
    group = f"{column.group}: " if column.group else ""
    return _escape(group + column.title)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


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

"""Reports as LaTeX: tables for a paper, with booktabs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from tabulate import LATEX_ESCAPE_RULES, DataRow, Line, TableFormat, tabulate

from harness.report.content import Cell, Column, Label, Missing, Report, Table
from harness.report.formats.numbers import number_text
from harness.report.formats.text import narrower

_SPECIAL = {
    **LATEX_ESCAPE_RULES,
    "±": r"$\pm$",
    "†": r"$\dagger$",
    "‡": r"$\ddagger$",
    "§": r"\S{}",
}
_NUMBER = re.compile(r"[-+]?\d+(,\d{3})*(\.\d+)?(e-?\d+)?")
_POWER = r" \\times 10^{\1}"


def render_latex(report: Report) -> str:
    """Return the tables, and all else as comments; needs the package booktabs.

    The same records give the same text, so that a rerun leaves no difference.
    """
    facts = [f"{name}: {value}" for name, value in (*report.provenance, *report.facts)]
    comments = [report.title, *facts, *report.warnings]
    header = "\n".join(f"% {' '.join(text.split())}" for text in comments)
    needs = "% \\usepackage{booktabs}"
    tables = [table_latex(table) for table in report.tables]
    return "\n\n".join([f"{header}\n{needs}", *tables]) + "\n"


def table_latex(table: Table) -> str:
    """Return a table for a paper; needs the package booktabs."""
    words = " ".join(escape(text) for text in (*table.notes, table.caption))
    lines = [
        r"\begin{table}",
        r"\centering",
        f"\\caption{{{escape(table.title)}. {words}}}",
        f"\\label{{tab:{table.key}}}",
        "\n\\par\\medskip\n".join(map(_tabular, narrower(table))),
        r"\end{table}",
    ]
    return "\n".join(lines)


def _tabular(table: Table) -> str:
    """Return a tabular; tabulate's own booktabs would escape the formulas in it."""
    letters = "".join(word[0] for word in table.alignment)
    begin = [f"\\begin{{tabular}}{{{letters}}}", r"\toprule", *_groups(table.columns)]
    row = DataRow("", " & ", r" \\")
    return tabulate(
        [[_cell(cell) for cell in row] for row in table.printed_rows],
        headers=[escape(column.title) for column in table.columns],
        tablefmt=TableFormat(
            lineabove=Line("\n".join(begin), "", "", ""),
            linebelowheader=Line(r"\midrule", "", "", ""),
            linebetweenrows=None,
            linebelow=Line("\\bottomrule\n\\end{tabular}", "", "", ""),
            headerrow=row,
            datarow=row,
            padding=0,
            with_header_hide=None,
        ),
        disable_numparse=True,
        colalign=table.alignment if table.rows else None,
    )


def _groups(columns: Sequence[Column[Any]]) -> Iterator[str]:
    """Yield the line above the headings and its rules, if there are groups."""
    if not any(column.group for column in columns):
        return
    cells, rules, start = [], [], 1
    for name, found in groupby(columns, key=lambda column: column.group):
        n = len(list(found))
        cells.append(f"\\multicolumn{{{n}}}{{c}}{{{escape(name)}}}")
        if name:
            rules.append(f"\\cmidrule(lr){{{start}-{start + n - 1}}}")
        start += n
    yield f"{' & '.join(cells)} \\\\"
    yield "".join(rules)


def _cell(cell: Cell) -> str:
    if isinstance(cell, Label):
        text = escape(cell.text)
        return f"\\textbf{{{text}}}" if cell.alarm else text
    if isinstance(cell, Missing):
        return "--" if cell.brief else f"\\emph{{{escape(cell.reason)}}}"
    return _NUMBER.sub(_formula, escape(number_text(cell)))


def _formula(number: re.Match[str]) -> str:
    """Set a number as a formula, without a space after the comma of thousands."""
    digits = number[0].replace(",", "{,}")
    return f"${re.sub(r'e(.+)', _POWER, digits)}$"


def escape(text: str) -> str:
    """Escape what LaTeX would read as markup."""
    return "".join(_SPECIAL.get(character, character) for character in text)

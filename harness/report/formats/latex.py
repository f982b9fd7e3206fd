"""Reports as LaTeX: tables for a paper, as wide as a column or a page of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Literal

from harness.report.content import LIMITED, Cell, Missing, Report, Table
from harness.report.formats.latex_columns import (
    SetColumn,
    natural_points,
    set_column,
)
from harness.report.formats.latex_words import FONT_PT, breakable, points, words
from harness.report.formats.text import narrower

Width = Literal["column", "page"]
WIDTH_PT: dict[Width, float] = {"column": 219.0, "page": 345.0}
"""How wide a table may be: as a column of ACL's style, the narrowest in use, and as the
text of the class article."""
GAP_PT = 8.0
"""Between two columns."""
KEYS_SHARE, WORDS_SHARE = 0.55, 0.36
"""Which share of the width the columns that name a row may take, all together, and one
other column of words; what is longer is broken."""
LINE_PT, HEADING_PT, HIGHEST_PT = 9.6, 45.0, 440.0
"""How high a line is, what stands above and below the rows of a tabular, and all
tabulars of one table at most."""
PACKAGES = ("booktabs", "siunitx", "array", "graphicx")
SETUP = (
    "retain-explicit-plus, group-digits=integer, group-separator={,}, "
    "group-minimum-digits=4"
)
"""How siunitx sets numbers: as the text does, thousands with commas."""
NOTE_MARKS = "†‡§"
"""What notes begin with that are about marks in a table."""


def render_latex(report: Report, width: Width = "page") -> str:
    """Return the tables, and all else as comments; `PACKAGES` are needed.

    The same records give the same text, so that a rerun leaves no difference.
    """
    facts = [f"{name}: {value}" for name, value in (*report.provenance, *report.facts)]
    comments = [report.title, *facts, *report.warnings]
    needs = f"% \\usepackage{{{','.join(PACKAGES)}}}"
    below = [x for x in report.warnings if x.startswith(LIMITED)]
    tables = [table_latex(table, width, below) for table in report.tables]
    if report.methods:
        text = breakable(report.methods, words)
        tables.append(f"\\paragraph{{Methods.}} {{\\sloppy {text}\\par}}")
    return "\n\n".join(["\n".join([*map(_comment, comments), needs]), *tables]) + "\n"


def table_latex(table: Table, width: Width = "page", below: Sequence[str] = ()) -> str:
    """Return a table for a paper, no wider than asked.

    What is too wide becomes several tabulars, and what is then too high several
    tables. A caption has a sentence or two; below stands what each mark means, of
    notes that are alike the first, and what else is to stand there. All notes are
    there as comments, and the names of columns that are left out since no row has
    anything in them.
    """
    shown, empty = _without_empty(table)
    floats = enumerate(_floats(shown, WIDTH_PT[width]))
    notes = [*_marks(table), *below]
    made = [_float(shown, parts, width, number, notes) for number, parts in floats]
    left_out = [f"no row has: {', '.join(empty)}"] if empty else []
    comments = map(_comment, [*table.notes, *left_out])
    return "\n".join([*comments, "\n\n".join(made)])


def _without_empty(table: Table) -> tuple[Table, list[str]]:
    """Return a table without columns of nothing but dashes, and their names."""
    columns = zip(table.columns, zip(*table.printed_rows, strict=True), strict=False)
    empty = {
        place: f"{column.group} {column.title}".strip()
        for place, (column, cells) in enumerate(columns)
        if all(isinstance(cell, Missing) and cell.brief for cell in cells)
    }
    kept = [i for i in range(len(table.columns)) if i < table.keys or i not in empty]
    if not empty or len(kept) == table.keys:
        return table, []
    return table.only(kept), [*empty.values()]


def _float(
    table: Table,
    parts: Sequence[Table],
    width: Width,
    number: int,
    notes: Sequence[str],
) -> str:
    name = "table" if width == "column" else "table*"
    caption = (
        f"{table.title}, continued." if number else f"{table.title}. {table.summary}"
    )
    label = f"tab:{table.key}{f'-{number + 1}' if number else ''}"
    lines = [
        rf"\begin{{{name}}}",
        r"\centering",
        rf"\caption{{{words(caption.strip())}}}",
        rf"\label{{{label}}}",
        rf"\par\smallskip\fontsize{{{FONT_PT:g}}}{{{LINE_PT:g}}}\selectfont",
        rf"\setlength{{\tabcolsep}}{{{GAP_PT / 2:g}pt}}",
        rf"\sisetup{{{SETUP}}}",
        "\n\\par\\medskip\n".join(_fitted(part, WIDTH_PT[width]) for part in parts),
        *(rf"\par\smallskip {words(note)}" for note in notes),
        rf"\end{{{name}}}",
    ]
    return "\n".join(lines)


def _marks(table: Table) -> Iterator[str]:
    for mark in NOTE_MARKS:
        alike = [note for note in table.notes if note.startswith(mark)]
        if alike:
            more = f" (and {len(alike) - 1} more)" if len(alike) > 1 else ""
            yield alike[0] + more


def _comment(text: str) -> str:
    return f"% {' '.join(text.split())}"


# --- tables that fit ----------------------------------------------------------------


def _fits(table: Table, chosen: Sequence[int], room: float) -> bool:
    return _points(table.only(chosen), room) <= room


def _points(table: Table, room: float) -> float:
    spans = [
        max(sum(x.points for x in found) + GAP_PT * (len(found) - 1), points(group))
        for group, found in _groups(table, _columns(table, room))
    ]
    return sum(spans) + GAP_PT * (len(spans) - 1)


def _columns(table: Table, room: float) -> list[SetColumn]:
    keys = range(table.keys)
    natural = [natural_points(table, i) for i in keys]
    cap = _cap(natural, KEYS_SHARE * room)
    other = WORDS_SHARE * room
    if len(table.columns) == table.keys + 1:  # a single one has all that is left
        other = room - sum(min(cap, x) for x in natural) - GAP_PT * table.keys
    return [
        set_column(table, i, cap if i in keys else other)
        for i in range(len(table.columns))
    ]


def _cap(wide: Sequence[float], room: float) -> float:
    """Return the width that columns are cut to so that all fit, the widest first."""
    for i, least in enumerate(sorted(wide)):
        share = room / (len(wide) - i)
        if least > share:
            return share
        room -= least
    return math.inf


def _floats(table: Table, room: float) -> list[list[Table]]:
    """Return the parts of a table that fit, as many together as a page is high."""
    floats: list[list[Table]] = [[]]
    high = 0.0
    for wide in narrower(table, partial(_fits, room=room)):
        for own, part in _lower(wide, room):
            if floats[-1] and high + own > HIGHEST_PT:
                floats.append([])
                high = 0.0
            floats[-1].append(part)
            high += own
    return floats


def _lower(table: Table, room: float) -> Iterator[tuple[float, Table]]:
    """Spread the rows over tables that a page can hold; yield each with its height."""
    cells = zip(*(column.lines for column in _columns(table, room)), strict=True)
    rows: list[Sequence[Cell]] = []
    high = HEADING_PT
    for row, lines in zip(table.rows, map(max, cells), strict=True):
        if rows and high + LINE_PT * lines > HIGHEST_PT:
            yield high, replace(table, rows=rows)
            rows, high = [], HEADING_PT
        rows.append(row)
        high += LINE_PT * lines
    yield high, replace(table, rows=rows)


def _fitted(table: Table, room: float) -> str:
    """Return a tabular; the rare one that is too wide for any arrangement shrinks."""
    text = _tabular(table, _columns(table, room))
    if _points(table, room) <= room:
        return text
    return f"\\resizebox{{\\linewidth}}{{!}}{{%\n{text}}}"


# --- one tabular --------------------------------------------------------------------


def _tabular(table: Table, columns: Sequence[SetColumn]) -> str:
    rows = zip(*(column.cells for column in columns), strict=True)
    lines = [
        rf"\begin{{tabular}}{{@{{}}{''.join(column.spec for column in columns)}@{{}}}}",
        r"\toprule",
        *_group_lines(table, columns),
        _row([column.heading for column in columns]),
        r"\midrule",
        *map(_row, rows),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(lines)


def _row(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"


def _groups(
    table: Table, columns: Sequence[SetColumn]
) -> Iterator[tuple[str, list[SetColumn]]]:
    """Yield neighbouring columns of one group, with its name."""
    both = zip(table.columns, columns, strict=True)
    for name, found in groupby(both, key=lambda one: one[0].group):
        yield name, [column for _, column in found]


def _group_lines(table: Table, columns: Sequence[SetColumn]) -> Iterator[str]:
    """Yield the line above the headings and its rules, if there are groups."""
    if not any(column.group for column in table.columns):
        return
    cells, rules, start = [], [], 1
    for name, found in _groups(table, columns):
        cells.append(rf"\multicolumn{{{len(found)}}}{{c}}{{{words(name)}}}")
        if name:
            rules.append(rf"\cmidrule(lr){{{start}-{start + len(found) - 1}}}")
        start += len(found)
    yield _row(cells)
    yield "".join(rules)

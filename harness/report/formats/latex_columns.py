"""Columns as LaTeX sets them: how they are aligned, what is in them, how wide."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from harness.report.content import Cell, Label, Missing, Number, Table
from harness.report.formats.latex_words import ENDS, breakable, escape, points, words
from harness.report.formats.numbers import number_parts

_NUMBER = re.compile(r"[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e-?\d+)?")
_PARTS = re.compile(r"([-+]?)(\d+)(?:\.(\d+))?(?:e(-?\d+))?")
_REASON_PT = 60.0
"""How wide a reason may be in place of a number, if numbers are no wider."""
_BOLD = 1.2
"""How much wider bold letters are."""


@dataclass(frozen=True)
class SetColumn:
    """A column, ready to be printed."""

    spec: str
    """What of the tabular's argument it is."""
    heading: str
    cells: Sequence[str]
    points: float
    """How wide it is, or somewhat more."""
    lines: Sequence[int]
    """How many lines each cell takes, or nearly."""


def set_column(table: Table, index: int, room: float) -> SetColumn:
    """Set a column; words that are wider than `room`, in points, take several lines.

    Plain numbers are aligned at their points (an S column of siunitx); a unit that all
    of them have goes into the heading.
    """
    column = table.columns[index]
    cells = [row[index] for row in table.printed_rows]
    unit = _common_unit(cells)
    texts = [_text(cell, unit) for cell in cells]
    if any(isinstance(cell, Number) for cell in cells):
        wide, spec, printed = _numbers(cells, texts)
    else:
        wide, spec, printed = _words(cells, texts, room)
    lines = _lines(f"{column.short or column.title}{unit and f' ({unit})'}", wide)
    return SetColumn(
        spec,
        _heading(lines, spec),
        printed,
        points=max(wide, *map(points, lines)),
        lines=[_count(*x, wide) for x in zip(cells, texts, strict=True)],
    )


def _numbers(
    cells: Sequence[Cell], texts: Sequence[str]
) -> tuple[float, str, list[str]]:
    """Return width, specification and cells of a column that has numbers.

    A reason in place of a number makes no column wide: it is put into a box.
    """
    both = [*zip(cells, texts, strict=True)]
    own = (_points(*x) for x in both if isinstance(x[0], Number))
    broken = (_unbroken_points(*x) for x in both if not isinstance(x[0], Number))
    boxed = math.ceil(max(_REASON_PT, *own, *broken))
    printed = [
        _box(_cell(*x), boxed) if _points(*x) > boxed else _cell(*x) for x in both
    ]
    wide = min(boxed, max(_points(*x) for x in both))
    plain = [_plain(cell) for cell in cells if isinstance(cell, Number)]
    if not all(plain):
        return wide, "r", printed
    bare = [text.replace(",", "") for text in texts]
    aligned = [x for x, cell in zip(bare, cells, strict=True) if _plain(cell)]
    return (
        wide,
        f"S[table-format={_format(aligned)}]",
        [
            x if _PARTS.fullmatch(x) else f"{{{y}}}"
            for x, y in zip(bare, printed, strict=True)
        ],
    )


def _words(
    cells: Sequence[Cell], texts: Sequence[str], room: float
) -> tuple[float, str, list[str]]:
    """Return width, specification and cells of a column of words."""
    printed = [*map(_cell, cells, texts)]
    wide = max(map(_points, cells, texts), default=1.0)
    if wide <= room:
        return wide, "l", printed
    broken = math.ceil(max(room, *map(_unbroken_points, cells, texts)))
    spec = rf">{{\raggedright\arraybackslash}}p{{{broken}pt}}"
    return float(broken), spec, printed


def _box(text: str, wide: float) -> str:
    return rf"\parbox[t]{{{wide:g}pt}}{{\raggedleft {text}\strut}}"


def natural_points(table: Table, index: int) -> float:
    """Return how wide the widest cell of a column is, on one line."""
    cells = [row[index] for row in table.printed_rows]
    return max((_points(cell, _text(cell, "")) for cell in cells), default=0.0)


# --- cells --------------------------------------------------------------------------


def _common_unit(cells: Sequence[Cell]) -> str:
    """Return the unit of all numbers, where they have one in common."""
    units = {number_parts(cell).unit for cell in cells if isinstance(cell, Number)}
    return units.pop() if len(units) == 1 else ""


def _text(cell: Cell, unit: str) -> str:
    """Return what a cell says; of a number without the unit that the heading has."""
    if isinstance(cell, Label):
        return cell.short or cell.text
    if isinstance(cell, Missing):
        return "--" if cell.brief else cell.reason
    parts = number_parts(cell)
    return " ".join(filter(None, parts._replace(unit="" if unit else parts.unit)))


def _cell(cell: Cell, text: str) -> str:
    if isinstance(cell, Label):
        broken = breakable(text, escape)
        return rf"\textbf{{{broken}}}" if cell.alarm else broken
    if isinstance(cell, Missing):
        return "--" if cell.brief else rf"\emph{{{escape(text)}}}"
    mark = rf"\textsuperscript{{{escape(cell.mark)}}}" if cell.mark else ""
    return _NUMBER.sub(_num, escape(text)) + mark


def _num(found: re.Match[str]) -> str:
    return rf"\num{{{found[0].replace(',', '')}}}"


def _unbroken_points(cell: Cell, text: str) -> float:
    return max(_points(cell, part) for part in ENDS.split(text))


def _count(cell: Cell, text: str, wide: float) -> int:
    """Return how many lines a cell takes that is as wide."""
    lines, line = 1, 0.0
    for part in ENDS.split(text):
        own = _points(cell, part)
        if line and line + own > wide:
            lines, line = lines + 1, 0.0
        line += own
    return lines


def _points(cell: Cell, text: str) -> float:
    if isinstance(cell, Number):
        # A minus, or the sign in front of a power, is as wide as a plus.
        signs = re.sub(r"e(-?\d+)", r" +10\1", text).replace("-", "+")
        return points(signs + cell.mark)
    return points(text) * (_BOLD if isinstance(cell, Label) and cell.alarm else 1)


# --- columns ------------------------------------------------------------------------


def _plain(cell: Cell) -> bool:
    """Say whether a cell is a number and nothing besides."""
    if not isinstance(cell, Number) or cell.mark:
        return False
    value, spread, _, seeds = number_parts(cell)
    special = value[-1:] in "kMB" or cell.kind == "weight"
    return not (spread or seeds or special)


def _format(numbers: Sequence[str]) -> str:
    """Return the table-format of siunitx that numbers without commas fit into."""
    found = [x for x in map(_PARTS.fullmatch, numbers) if x]
    sign = "+" if any(x[1] for x in found) else ""
    whole, decimals, power = (
        max((len(x[group] or "") for x in found), default=1) for group in (2, 3, 4)
    )
    return f"{sign}{whole}.{decimals}{f'e{power}' if power else ''}"


def _lines(title: str, wide: float) -> list[str]:
    """Return the lines of a heading that is no wider than it has to be."""
    first, *others = title.split()
    wide = max(wide, *map(points, [first, *others]))
    lines = [first]
    for word in others:
        if points(f"{lines[-1]} {word}") <= wide:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def _heading(lines: Sequence[str], spec: str) -> str:
    text = r" \\ ".join(map(words, lines))
    if len(lines) > 1:
        aligned = {"r": "r", "S": "c"}.get(spec[0], "l")
        text = rf"\shortstack[{aligned}]{{{text}}}"
    return f"{{{text}}}" if spec[0] == "S" else text

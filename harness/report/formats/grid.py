"""Lay words out in columns for a terminal, groups of columns under one heading."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

GAP = "  "


def grid(
    groups: Sequence[str],
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    right: Sequence[bool],
) -> str:
    """Return lines: groups (if any), titles, a rule, rows.

    Neighbouring columns of one group stand under its name; `right` says which columns
    are aligned to the right.
    """
    widths = _widths(groups, titles, rows)
    lines = [_line(titles, widths, right), GAP.join("-" * width for width in widths)]
    lines += [_line(row, widths, right) for row in rows]
    if any(groups):
        lines.insert(0, _group_line(groups, widths))
    return "\n".join(line.rstrip() for line in lines)


def _widths(
    groups: Sequence[str], titles: Sequence[str], rows: Sequence[Sequence[str]]
) -> list[int]:
    columns = zip(titles, *rows, strict=True)
    widths = [max(map(len, column)) for column in columns]
    for name, span in _spans(groups):
        lacking = len(name) - _span_width(widths, span)
        if name and lacking > 0:
            widths[span[-1]] += lacking
    return widths


def _spans(groups: Sequence[str]) -> Iterable[tuple[str, list[int]]]:
    """Yield each group's name and its columns; columns without a group are one too."""
    for name, found in groupby(range(len(groups)), key=lambda index: groups[index]):
        yield name, list(found)


def _span_width(widths: Sequence[int], span: Sequence[int]) -> int:
    return sum(widths[index] for index in span) + len(GAP) * (len(span) - 1)


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    return GAP.join(
        cell.rjust(width) if aligned else cell.ljust(width)
        for cell, width, aligned in zip(cells, widths, right, strict=True)
    )


def _group_line(groups: Sequence[str], widths: Sequence[int]) -> str:
    """Centre each group's name between dashes over its columns."""
    parts = []
    for name, span in _spans(groups):
        width = _span_width(widths, span)
        roomy = name and width - len(name) >= 4
        parts.append(f" {name} ".center(width, "-") if roomy else name.center(width))
    return GAP.join(parts)

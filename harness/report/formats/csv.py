"""Tables and figures as CSV, every number in full."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from harness.report.content import Cell, Label, Missing, Number, Table

_FURTHER = {"low": 0, "high": 1}


def table_csv(table: Table) -> str:
    """Return a table; intervals, deviations and reasons have columns of their own."""
    columns = [list(_spread(table, i)) for i in range(len(table.columns))]
    return written([[cell for part in columns for cell in part[0]], *_rows(columns)])


def written(lines: Iterable[Sequence[object]]) -> str:
    """Return lines of values as CSV."""
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(lines)
    return file.getvalue()


def _rows(columns: Sequence[Sequence[Sequence[Any]]]) -> Iterator[list[Any]]:
    for parts in zip(*(column[1:] for column in columns), strict=True):
        yield [value for part in parts for value in part]


def _spread(table: Table, index: int) -> Iterator[list[Any]]:
    """Yield the headings of a column's parts, then the parts of each row."""
    cells = [row[index] for row in table.rows]
    numbers = [cell for cell in cells if isinstance(cell, Number)]
    parts = [
        "",
        *(["sd"] if any(x.std is not None for x in numbers) else []),
        *(["low", "high"] if any(x.interval for x in numbers) else []),
        *(["reason"] if any(isinstance(cell, Missing) for cell in cells) else []),
    ]
    name = table.columns[index].name
    yield [f"{name} {part}".strip() for part in parts]
    yield from ([_part(cell, part) for part in parts] for cell in cells)


def _part(cell: Cell, part: str) -> Any:
    if isinstance(cell, Label):
        return "" if part else cell.text
    if isinstance(cell, Missing):
        return cell.reason if part == "reason" else ""
    if part in _FURTHER:
        return cell.interval[_FURTHER[part]] if cell.interval else ""
    return {"": cell.value, "sd": cell.std}.get(part, "")

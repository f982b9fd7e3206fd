"""Reports for programs: every number in full."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from harness.base import visible_json
from harness.records import REPORT_VERSION
from harness.report.content import Cell, Label, Missing, Report, Table


def render_json(report: Report) -> str:
    """Return the report as JSON; a missing number is null with its reason."""
    document = {
        "schema_version": REPORT_VERSION,
        "title": report.title,
        "verdicts": report.verdicts and report.verdicts.model_dump(mode="json"),
        "facts": dict(report.facts),
        "provenance": dict(report.provenance),
        "warnings": list(report.warnings),
        "methods": report.methods,
        "tables": {table.key: table_document(table) for table in report.tables},
    }
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    return visible_json(text) + "\n"


def table_document(table: Table) -> dict[str, Any]:
    """Return a table as what JSON can hold.

    Rows and columns name what they are about, as `model` and `arm`, in fields.
    """
    names = [column.name for column in table.columns]
    return {
        "title": table.title,
        "caption": table.caption,
        "notes": list(table.notes),
        "columns": [
            {
                "name": column.name,
                "title": column.title,
                "group": column.group or None,
                **dict(column.names),
            }
            for column in table.columns
        ],
        "rows": [_row(names, row) for row in table.rows],
    }


def _row(columns: Sequence[str], row: Sequence[Cell]) -> dict[str, Any]:
    """Return the cells of a row by column; what it is about comes first, and alone."""
    names = _names(row)
    return names | dict(zip(columns, map(_cell, row), strict=True)) | names


def _names(row: Sequence[Cell]) -> dict[str, str]:
    labels = (cell for cell in row if isinstance(cell, Label))
    return {field: name for label in labels for field, name in label.names}


def _cell(cell: Cell) -> Any:
    if isinstance(cell, Label):
        return cell.text
    if isinstance(cell, Missing):
        return {"value": None, "reason": cell.reason}
    return asdict(cell)

"""The formats of a report, and the files that a run's report folder holds."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from pathlib import Path

from jsonschema import Draft202012Validator

from harness.base import write_atomic, write_json
from harness.records import schemas
from harness.report.content import Point, Report, shown
from harness.report.formats.json import render_json
from harness.report.formats.latex import render_latex
from harness.report.formats.markdown import render_markdown
from harness.report.formats.text import render_text

_RENDERERS: dict[str, tuple[Callable[[Report], str], str]] = {
    "text": (render_text, "txt"),
    "markdown": (render_markdown, "md"),
    "json": (render_json, "json"),
    "latex": (render_latex, "tex"),
}
VERDICTS = "verdicts.json"
"""The file with the answers to all questions."""
CURVES = "success.csv"
"""The file with curves of success over thresholds, to plot."""


def render(report: Report, style: str) -> str:
    """Return the report as text, markdown, json or latex, ending in a newline."""
    renderer, _ = _RENDERERS[style]
    # JSON spells what is hidden in its own way, which programs read.
    return renderer(report if style == "json" else shown(report))


def write_reports(report: Report, folder: Path) -> None:
    """Write ``report.*`` in all formats, ``verdicts.json`` and ``success.csv``."""
    for style, (_, ending) in _RENDERERS.items():
        write_atomic(folder / f"report.{ending}", render(report, style))
    if report.curves:
        write_atomic(folder / CURVES, _as_csv(report.curves))
    if report.verdicts is not None:
        document = report.verdicts.model_dump(mode="json")
        Draft202012Validator(schemas.load("verdicts")).validate(document)
        write_json(folder / VERDICTS, document)


def _as_csv(curves: Sequence[Point]) -> str:
    file = io.StringIO()
    lines = csv.writer(file, lineterminator="\n")
    lines.writerows([Point._fields, *curves])
    return file.getvalue()

"""The formats of a report, and the files that a run's report folder holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jsonschema import Draft202012Validator

from harness.base import write_atomic, write_json
from harness.records import schemas
from harness.report.content import Point, Report, shown
from harness.report.figures import drawing
from harness.report.figures.making import figures
from harness.report.formats.csv import written
from harness.report.formats.json import render_json
from harness.report.formats.latex import render_latex
from harness.report.formats.markdown import render_markdown
from harness.report.formats.text import render_text
from harness.report.html.page import render_html

_RENDERERS: dict[str, tuple[Callable[[Report], str], str]] = {
    "text": (render_text, "txt"),
    "markdown": (render_markdown, "md"),
    "json": (render_json, "json"),
    "latex": (render_latex, "tex"),
    "html": (render_html, "html"),
}
_ON_REQUEST = {"html"}
"""What takes too long to be written after every run: figures are drawn for it."""
VERDICTS = "verdicts.json"
"""The file with the answers to all questions."""
CURVES = "success.csv"
"""The file with curves of success over thresholds, to plot."""


def render(report: Report, style: str) -> str:
    """Return the report as text, markdown, json, latex or html, ending in a newline."""
    renderer, _ = _RENDERERS[style]
    # These spell what is hidden in their own way: as programs read it, or as browsers.
    return renderer(report if style in ("json", "html") else shown(report))


def write_figures(report: Report, folder: Path) -> list[Path]:
    """Write each figure as ``KEY.pdf`` and ``KEY.svg``, and return the files."""
    return drawing.write_figures(figures(report), folder)


def write_reports(report: Report, folder: Path) -> None:
    """Write ``report.*`` in all formats but HTML, verdicts, and curves of success."""
    for style, (_, ending) in _RENDERERS.items():
        if style not in _ON_REQUEST:
            write_atomic(folder / f"report.{ending}", render(report, style))
    if report.curves:
        write_atomic(folder / CURVES, written([Point._fields, *report.curves]))
    if report.verdicts is not None:
        document = report.verdicts.model_dump(mode="json")
        Draft202012Validator(schemas.load("verdicts")).validate(document)
        write_json(folder / VERDICTS, document)

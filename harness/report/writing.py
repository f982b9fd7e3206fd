"""The formats of a report, and the files that a run's report folder holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from jsonschema import Draft202012Validator

from harness.base import write_atomic, write_json
from harness.records import schemas
from harness.report.content import Point, Report, shown
from harness.report.figures import drawing
from harness.report.figures.making import figures
from harness.report.formats.csv import written
from harness.report.formats.json import render_json
from harness.report.formats.latex import Width, render_latex
from harness.report.formats.markdown import render_markdown
from harness.report.formats.text import render_text
from harness.report.html.page import render_html
from harness.report.screen import render_screen

_RENDERERS: dict[str, tuple[Callable[[Report], str], str]] = {
    "screen": (render_screen, "txt"),
    "text": (render_text, "txt"),
    "markdown": (render_markdown, "md"),
    "json": (render_json, "json"),
    "latex": (render_latex, "tex"),
    "html": (render_html, "html"),
}
_ON_REQUEST = {"screen", "html"}
"""What is not written after every run: the first is shown, the second takes long."""
VERDICTS = "verdicts.json"
"""The file with the answers to all questions."""
CURVES = "success.csv"
"""The file with curves of success over thresholds, to plot."""


def render(
    report: Report, style: str, width: Width = "page", *, terminal: int | None = None
) -> str:
    """Return the report as screen, text, markdown, json, latex or html.

    It ends in a newline. ``screen`` is what of ``text`` a terminal shows at once;
    `width` is that of tables in LaTeX, `terminal` that of the screen, in characters.
    """
    if style == "latex":
        return render_latex(shown(report), width)
    renderer, _ = _RENDERERS[style]
    if style == "screen":  # it spells out the words of verdicts itself
        spelt = replace(shown(report), verdicts=report.verdicts)
        return render_screen(spelt, terminal)
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

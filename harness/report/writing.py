"""Reports: records and rows become tables; tables become text."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from harness.base import write_atomic
from harness.report.building import build
from harness.report.content import Report
from harness.report.formats.json import render_json
from harness.report.formats.latex import render_latex
from harness.report.formats.markdown import render_markdown
from harness.report.formats.text import render_text
from harness.run import survey

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["FORMATS", "Report", "build", "render", "write_reports", "write_verdicts"]

_RENDERERS: dict[str, tuple[Callable[[Report], str], str]] = {
    "text": (render_text, "txt"),
    "markdown": (render_markdown, "md"),
    "json": (render_json, "json"),
    "latex": (render_latex, "tex"),
}
VERDICTS = "verdicts.json"
"""The file with all answers, in the run's folder ``report``."""
FORMATS = tuple(_RENDERERS)
"""The formats of a report."""


def render(report: Report, style: str) -> str:
    """Return the report in one of the formats, ending in a newline."""
    return _RENDERERS[style][0](report)


def write_verdicts(report: Report, folder: Path) -> None:
    """Write ``verdicts.json``, valid by the schema that is published for it."""
    from jsonschema import Draft202012Validator

    from harness.base import write_json
    from harness.records import schemas

    if report.verdicts is not None:
        document = report.verdicts.model_dump(mode="json")
        Draft202012Validator(schemas.load("verdicts")).validate(document)
        write_json(folder / VERDICTS, document)


def write_reports(root: Path) -> str:
    """Write the report of a run in all formats into ``report/``; return the text."""
    found = survey(root)
    report = build(found)
    write_verdicts(report, found.folder.report_dir)
    for renderer, ending in _RENDERERS.values():
        path = found.folder.report_dir / f"report.{ending}"
        write_atomic(path, renderer(report))
    return render_text(report)

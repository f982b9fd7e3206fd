"""Whether the report of a run folder is what its records give."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from harness.base import Problem
from harness.report.building import build
from harness.report.writing import write_reports
from harness.running import Survey

STALE = (
    "is not what the records give; where another version of the harness wrote it, "
    "`harness run` on the suite does it again"
)


def stale(survey: Survey) -> Iterator[Problem]:
    """Yield the files of a run's report that another run of it would not write.

    What was asked for besides, as a page or figures, is left alone.
    """
    folder = survey.folder.report_dir
    if not folder.is_dir() or survey.plan.experiment.warnings:
        return  # nothing was reported, or not all plugins are loaded
    made = build(survey)
    made = replace(made, title=_title(folder) or made.title)
    with tempfile.TemporaryDirectory() as place:
        write_reports(made, Path(place))
        for again in sorted(Path(place).iterdir()):
            stated = folder / again.name
            if stated.is_file() and stated.read_bytes() != again.read_bytes():
                yield Problem(str(stated), (), STALE)


def _title(folder: Path) -> str | None:
    """Return the title that a report has: the run may have been moved since."""
    try:
        text = (folder / "report.json").read_text(encoding="utf-8")
        return str(json.loads(text)["title"])
    except (OSError, ValueError, KeyError, TypeError):
        return None

"""What rows and columns are called."""

from __future__ import annotations

from harness.evidence.results import Results, Subjects
from harness.report.content import Column, Label


def heading(results: Results) -> Column:
    """Return the heading of the column that names subjects."""
    return Column("model (arm)", short="" if len(results.suite.models) > 1 else "arm")


def label(results: Results, subjects: Subjects) -> Label:
    """Name a row; where there is one model only, its arm says enough."""
    source = results.source(subjects)
    made = "" if source is None else f" (from {source})"
    short = "" if len(results.suite.models) > 1 else subjects.arm + made
    return Label(subjects.name + made, short=short)

"""How tables of models and arms begin, and what these are called there."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.report.content import Cell, Column, Label, Table
from harness.verdicts import Results, Subjects

BOOTSTRAP = "[a, b] is a 95 % interval by bootstrap over documents and seeds"
"""Said of intervals that rest on the rows of all seeds."""

Row = tuple[Subjects, Sequence[Cell]]
"""What a row is about, and what stands behind its name."""


def subjects_table(
    results: Results,
    columns: Sequence[Column],
    rows: Iterable[Row],
    *,
    key: str,
    title: str,
    caption: str,
    notes: Sequence[str] = (),
    keys: int = 1,
) -> Table:
    """Return a table whose rows begin with the model and arm that they are about."""
    return Table(
        key=key,
        title=title,
        columns=[heading(results), *columns],
        rows=[[label(results, subjects), *cells] for subjects, cells in rows],
        caption=caption,
        notes=notes,
        keys=keys,
    )


def heading(results: Results) -> Column:
    """Return the heading of the column that names subjects."""
    return Column("model (arm)", short="" if len(results.suite.models) > 1 else "arm")


def label(results: Results, subjects: Subjects) -> Label:
    """Name a row; where there is one model only, its arm says enough."""
    source = results.source(subjects)
    made = "" if source is None else f" (from {source})"
    short = "" if len(results.suite.models) > 1 else subjects.arm + made
    return Label(subjects.name + made, short=short)

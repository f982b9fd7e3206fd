"""How tables of models and arms begin, and what these are called there."""

from __future__ import annotations

from collections.abc import Callable

from harness.report.content import Column, Label, RowT
from harness.verdicts import Arm, Results

BOOTSTRAP = "[a, b] is a 95 % interval by bootstrap over documents and seeds"
"""Said of intervals that rest on the rows of all seeds."""


def arm_column(results: Results, arm: Callable[[RowT], Arm]) -> Column[RowT]:
    """Return the column that names the model and arm that a row is about."""
    short = "" if len(results.suite.models) > 1 else "arm"
    return Column("model (arm)", lambda row: label(arm(row)), short=short)


def label(arm: Arm) -> Label:
    """Name an arm; where there is one model only, its own label says enough."""
    made = "" if arm.source is None else f" (from {arm.source})"
    short = "" if len(arm.results.suite.models) > 1 else arm.label + made
    return Label(arm.name + made, short=short)


def itself(arm: Arm) -> Arm:
    """Return the arm: in most tables, a row is an arm."""
    return arm

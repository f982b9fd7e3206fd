"""Columns that several tables have: the name of an arm, and perplexities."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from harness.report.content import Cell, Column, Label, Missing, RowT, from_seeds
from harness.verdicts import Arm, Results

BOOTSTRAP = "[a, b] is a 95 % interval by bootstrap over documents and seeds"
"""Said of intervals that rest on the rows of all seeds."""


LARGEST_LOSS = 700.0
"""Nats/token beyond which a perplexity leaves the range of floats."""


def arm_column(results: Results, arm: Callable[[RowT], Arm]) -> Column[RowT]:
    """Return the column that names the model and arm that a row is about."""
    short = "" if len(results.suite.models) > 1 else "arm"
    return Column("model (arm)", lambda row: label(arm(row)), short=short)


def label(arm: Arm) -> Label:
    """Name an arm; where there is one model only, its own label says enough."""
    made = "" if arm.source is None else f" (from {arm.source})"
    short = "" if len(arm.results.suite.models) > 1 else arm.label + made
    return Label(arm.name + made, short=short)


def perplexities(losses: Mapping[int, float]) -> dict[int, float]:
    """Return perplexities of losses in nats/token, those within the range of floats."""
    return {seed: math.exp(x) for seed, x in losses.items() if x < LARGEST_LOSS}


def perplexity(losses: Mapping[int, float], planned: int) -> Cell:
    """Return the cell of the mean perplexity over so many seeds; losses by seed."""
    found = perplexities(losses)
    if not found:
        return Missing("beyond the range of floats")
    return from_seeds([*found.values()], "perplexity", planned)

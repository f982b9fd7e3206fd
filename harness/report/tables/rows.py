"""Columns that several tables have: the name of an arm, and perplexities."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from harness.report.content import (
    Cell,
    Column,
    Label,
    Missing,
    Names,
    RowT,
    from_seeds,
    of_planned,
)
from harness.verdicts import Arm, CellsBySeed, Results, same_examples

OF_THE_MEAN = (
    "the 95 % interval of the mean over documents and, from three training seeds on, "
    "over seeds"
)
INTERVAL = f"[a, b] is {OF_THE_MEAN}"
"""Said of intervals of dL that rest on the rows of all seeds."""
WORST_CASE = "worst case"
"""The heading over the worst of all attacks on each example."""
TWICE = 2.0


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
    return Label(arm.name + made, short=short, names=names_of(arm))


def names_of(arm: Arm) -> Names:
    """Return an arm's model and label, as fields."""
    return ("model", arm.model), ("arm", arm.label)


def against_column(reference: Callable[[RowT], str | None]) -> Column[RowT]:
    """Return the column that names the arm which a row's is held against."""

    def fill(row: RowT) -> Label:
        name = reference(row)
        return Label("--") if name is None else named("against", name)

    return Column("against", fill)


def attack_column(attack: Callable[[RowT], str]) -> Column[RowT]:
    """Return the column that names the attack which a row is about."""
    return Column("attack", lambda row: named("attack", attack(row)))


def named(field: str, name: str) -> Label:
    """Return a label that is the name of something, of a field of `Names`."""
    return Label(name, names=((field, name),))


def shown_attacks(results: Results) -> list[str]:
    """Return the attacks that results are about, and the worst case of several."""
    shown = {results.attack(attack).shows for attack in results.attacks}
    several = len(results.attacks) > 1 and "worst" not in shown
    return [*results.attacks, *([WORST_CASE] if several else [])]


def cells_of(arm: Arm, attack: str) -> CellsBySeed | str:
    """Return the cells of an attack by seed, or of the worst of all; or why not."""
    found: CellsBySeed
    if attack == WORST_CASE:
        planned = [x for x in arm.results.attacks if x in arm.planned]
        found, absence = arm.worst(planned), "missing"
    else:
        found, absence = arm.cells(attack), arm.absence(attack)
    if not same_examples(found.values()):
        return "examples differ"
    return found or absence


def conditions(results: Results) -> str:
    """Say at which budget attacks were run, and which prompts they could choose."""
    shares = {x: results.share(x) for x in results.attacks}
    stated = [label for label, share in shares.items() if share != TWICE]
    budget = "twice the stated one"
    if len(stated) == len(shares):
        budget = "the stated one"
    elif stated:
        budget += f" (of {', '.join(stated)} the stated one)"
    texts = "text, only prompts that some text encodes to"
    tokens = "tokens, whether a text encodes to the prompt or not"
    model = texts if results.suite.tokens.reachable_only else tokens
    return f"Budget: {budget}. Threat model: {model}."


def perplexities(losses: Mapping[int, float]) -> dict[int, float]:
    """Return perplexities of losses in nats/token, those within the range of floats."""
    return {seed: math.exp(x) for seed, x in losses.items() if x < LARGEST_LOSS}


def perplexity(losses: Mapping[int, float]) -> Cell:
    """Return the cell of the mean perplexity over seeds; losses by seed."""
    found = perplexities(losses)
    if not found:
        return Missing("beyond the range of floats")
    return from_seeds([*found.values()], "perplexity")


def with_seeds(
    columns: Iterable[Column[RowT]], arm: Callable[[RowT], Arm]
) -> list[Column[RowT]]:
    """Return the columns with how many seeds the arm of each row was to get."""

    def filled(column: Column[RowT]) -> Column[RowT]:
        def fill(row: RowT) -> Cell:
            return of_planned(column.fill(row), arm(row).seeds)

        return replace(column, fill=fill)

    return [filled(column) for column in columns]

"""Figures of subjects: how they were trained, what they lose, what they cost."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from statistics import fmean
from typing import Any, TypeGuard, get_args

import numpy as np

from harness.records import Certificates, Phase
from harness.report.figures.parts import (
    At,
    Axis,
    Figure,
    Mark,
    Panel,
    Series,
    lying,
    only_filled,
)
from harness.report.tables.costs import spent
from harness.report.tables.making import WEIGHTS
from harness.report.tables.rows import OF_THE_MEAN
from harness.verdicts import Arm, Results, mean_over

MOST_POINTS = 200
"""Of a training curve; steps beyond are averaged."""
LAYERS = "minimum_by_layer"
"""The smallest weight of each layer, in the check of a certificate."""


def recovery(results: Results) -> Figure:
    """Return the loss over training steps, an arm a line and a model a panel."""
    panels = [
        Panel(
            title=model,
            x=Axis("step", "whole"),
            y=Axis("training loss, nats/token"),
            series=[
                Series(arm.label, list(_training(arm)), number)
                for number, arm in enumerate(_arms(results, model))
            ],
        )
        for model in results.suite.models
    ]
    return Figure(
        key="recovery",
        title="Recovery training",
        caption=(
            "The training loss, averaged over seeds; the band reaches from the lowest "
            "seed to the highest. Long runs are averaged over neighbouring steps."
        ),
        panels=only_filled(panels),
    )


def losses(results: Results) -> Figure:
    """Return the loss of each arm without an attack and under the worst of all."""
    panels = []
    for model in results.suite.models:
        arms = [arm for arm in results.arms if arm.model == model]
        clean: list[At] = []
        attacked: list[At] = []
        for row, arm in enumerate(arms):
            cells = arm.worst([x for x in results.attacks if x in arm.planned])
            after = mean_over(cells, attrgetter("adversarial_loss"))
            clean += lying(row, mean_over(cells, attrgetter("clean_loss")))
            attacked += lying(row, after)
        panels.append(
            Panel(
                title=model,
                x=Axis("loss, nats/token"),
                y=Axis(""),
                series=[
                    Series("clean", clean, 0, "rings"),
                    Series("under the worst attack", attacked, 1, "dots"),
                ],
                rows=[arm.label for arm in arms],
            )
        )
    return Figure(
        key="losses",
        title="Clean losses, matched or not, and losses under attack",
        caption=(
            "Mean losses on the attacked examples. Arms whose clean losses differ are "
            "not compared on equal terms: what is gained under attack may have been "
            "lost before. Arms made to match another one's clean loss stand last. "
            f"Whiskers: {OF_THE_MEAN}."
        ),
        panels=only_filled(panels),
    )


def certificates(results: Results) -> Figure:
    """Return the smallest weight of each layer before and after training."""
    panels = [
        Panel(
            title=model,
            x=Axis("layer", "whole"),
            y=Axis("smallest weight", "weight", "symlog"),
            series=[
                Series(f"{arm.label}{when}", list(_layers(arm, field)), number, mark)
                for number, arm in enumerate(_arms(results, model))
                for when, field, mark in _WHEN
            ],
            zero=True,
        )
        for model in results.suite.models
    ]
    return Figure(
        key="certificates",
        title="Certificates, layer by layer",
        caption=(
            "The smallest weight of each layer's feed-forward matrices, the smallest "
            "over seeds: of those that the arm promises to be non-negative, or of all "
            "where it promises nothing. Dashed: before recovery. Nothing follows for "
            "the whole model."
        ),
        panels=only_filled(panels),
    )


def costs(results: Results) -> Figure:
    """Return the seconds of each arm, phase by phase."""
    panels = []
    for model in results.suite.models:
        arms = [arm for arm in results.arms if arm.model == model]
        bars: dict[Phase, list[At]] = {phase: [] for phase in get_args(Phase)}
        for row, arm in enumerate(arms):
            start = 0.0
            for phase, cost in spent(results, arm).items():
                end = start + cost.seconds
                bars[phase].append(At(end, row, start))
                start = end
        panels.append(
            Panel(
                title=model,
                x=Axis("seconds, over all seeds"),
                y=Axis(""),
                series=[
                    Series(phase, found, number, "bars")
                    for number, (phase, found) in enumerate(bars.items())
                ],
                rows=[arm.label for arm in arms],
            )
        )
    return Figure(
        key="costs",
        title="Costs",
        caption=(
            "Wall-clock time of all variants and cells of an arm, with what "
            "interruptions lost."
        ),
        panels=only_filled(panels),
    )


_WHEN: tuple[tuple[str, str, Mark], ...] = (
    (", before recovery", "before", "dashed"),
    ("", "after", "line"),
)


def _arms(results: Results, model: str) -> list[Arm]:
    return [arm for arm in results.treatments if arm.model == model]


# --- training -----------------------------------------------------------------------


def _training(arm: Arm) -> Iterator[At]:
    """Yield the mean over seeds at the steps that all of them have."""
    found = [_by_step(arm, record.id) for record in arm.variants.values()]
    steps = sorted(set.intersection(*(set(one) for one in found))) if found else []
    for some in np.array_split(steps, min(len(steps), MOST_POINTS) or 1):
        values = [fmean(one[step] for step in some) for one in found if len(some)]
        if values:
            yield At(float(some.mean()), fmean(values), min(values), max(values))


def _by_step(arm: Arm, variant: str) -> dict[int, float]:
    path = arm.results.survey.folder.unit_dir("variant", variant) / "training.jsonl"
    # After a restart, steps appear again.
    return dict(_losses(path)) if path.is_file() else {}


def _losses(path: Path) -> Iterator[tuple[int, float]]:
    """Yield steps and losses of a log, but for lines that were cut off or spoilt."""
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict) and found.get("kind") == "train":
                step, loss = found.get("step"), found.get("loss")
                if isinstance(step, int) and _is_number(loss):
                    yield step, loss


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and math.isfinite(value)


# --- certificates -------------------------------------------------------------------


def _layers(arm: Arm, field: str) -> Iterator[At]:
    found = (record.certificate for record in arm.variants.values())
    by_seed = [list(_minima(x, field)) for x in found if x is not None]
    for layer, values in enumerate(zip(*by_seed, strict=False)):
        known = [value for value in values if _is_number(value)]
        if known:
            yield At(float(layer), min(known))


def _minima(found: Certificates, field: str) -> Iterator[Any]:
    for check in getattr(found, field).checks:
        minima = check.measured.get(LAYERS)
        if check.name == WEIGHTS and isinstance(minima, list):
            yield from minima

"""Figures of attacks: what they reach, at which cost, and on which examples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby

import numpy as np

from harness.records import ArmVerdict, Difference, Verdicts
from harness.report.content import Point
from harness.report.figures.parts import (
    At,
    Axis,
    Figure,
    Mark,
    Panel,
    Series,
    estimated,
    only_filled,
)
from harness.report.tables.budgets import delta_at
from harness.report.tables.rows import OF_THE_MEAN
from harness.verdicts import SHARES, Arm, Pairing, Results, mean_flops, mean_over, pair

NATS = "dL, nats/token"
Contrast = tuple[ArmVerdict, Difference]


def contrasts(results: Results, verdicts: Verdicts) -> Figure:
    """Return the difference of each arm from its reference arm, beside the margin."""
    panels = []
    for model in results.suite.models:
        found = [x for x in _contrasts(verdicts) if x[0].model == model]
        points = [
            At(known.value, row, *(known.interval or (None, None)))
            for row, (_, known) in enumerate(found)
        ]
        margin = max((known.margin_nats for _, known in found), default=0.0)
        panels.append(
            Panel(
                title=model,
                x=Axis("difference of dL, nats/token"),
                y=Axis(""),
                series=[Series("difference", points, mark="dots")],
                rows=[f"{x.arm} - {x.reference}" for x, _ in found],
                zero=True,
                band=(-margin, margin),
            )
        )
    return Figure(
        key="contrasts",
        title="Arms against their reference arms",
        caption=(
            "Arm minus reference arm, under the worst attack on each example, with its "
            "95 % interval. Left of 0 the arm is harder to attack. The grey band is "
            "the margin: what lies in it counts as no difference."
        ),
        panels=only_filled(panels),
        legend=False,
    )


def budgets(results: Results) -> Figure:
    """Return dL against FLOPs, of attacks and of their controls, an arm a panel."""
    panels = [
        Panel(
            title=arm.name if len(results.suite.models) > 1 else arm.label,
            x=Axis("FLOPs/example", "flops", "log"),
            y=Axis(NATS),
            series=list(_spent(results, arm)),
            zero=True,
        )
        for arm in results.treatments
    ]
    return Figure(
        key="budget",
        title="What attacks find for what they spend",
        caption=(
            "dL of what an attack would have returned at a share of its budget, "
            "against the FLOPs that this share is of what it spent. Dashed: its "
            f"controls, which get as much. Bands: {OF_THE_MEAN}."
        ),
        panels=only_filled(panels),
    )


def success(points: Sequence[Point]) -> Figure:
    """Return success over thresholds, an arm a line and an attack a panel."""
    arms = list(dict.fromkeys(point.arm for point in points))
    several = len({point.model for point in points}) > 1
    found: dict[tuple[str, str], list[Series]] = {}
    for (model, arm, attack), own in groupby(points, lambda x: x[:3]):
        line = [
            At(x.threshold, x.succeeded / x.documents, x.low, x.high)
            for x in own
            if x.documents
        ]
        series = Series(arm, line, arms.index(arm))
        found.setdefault((model, attack), []).append(series)
    panels = [
        Panel(
            title=f"{model}: {attack}" if several else attack,
            x=Axis("rise of perplexity that counts as success", "share", "log"),
            y=Axis("documents", "share"),
            series=series,
        )
        for (model, attack), series in found.items()
    ]
    return Figure(
        key="success",
        title="Success over thresholds",
        caption=(
            "The share of documents on which an attack succeeds under every seed, for "
            "every threshold, with the 95 % interval of Clopper and Pearson. A line "
            "that lies lower at one threshold need not at others."
        ),
        panels=only_filled(panels),
    )


def differences(results: Results, verdicts: Verdicts) -> Figure:
    """Return the paired difference on each document, a contrast a panel."""
    panels = [
        Panel(
            title=f"{found.arm} - {found.reference}",
            x=Axis("documents, by difference", "whole"),
            y=Axis(NATS),
            series=[Series("a document", _sorted(paired), mark="dots")],
            zero=True,
            level=At(0.0, known.value, *(known.interval or (None, None))),
        )
        for found, known in _contrasts(verdicts)
        if (paired := _worst_pairs(results, found, known)) is not None
    ]
    return Figure(
        key="differences",
        title="Paired differences, document by document",
        caption=(
            "Each dot is a document: dL of the arm minus that of its reference arm, "
            "under the worst attack, averaged over seeds. The line and its band are "
            "the mean with its 95 % interval."
        ),
        panels=only_filled(panels),
        legend=False,
    )


def _contrasts(verdicts: Verdicts) -> list[Contrast]:
    return [(x, x.difference) for x in verdicts.arms if x.difference is not None]


def _worst_pairs(
    results: Results, found: ArmVerdict, known: Difference
) -> Pairing | None:
    arms = [results.arm(found.model, x) for x in (found.arm, found.reference or "")]
    first, second = (arm.worst(known.attacks) for arm in arms)
    return pair(first, second) if first and second else None


def _sorted(pairing: Pairing) -> list[At]:
    first, second = pairing.tables
    apart = np.sort((first - second).mean(axis=0))
    return [At(float(i), float(x)) for i, x in enumerate(apart, 1)]


def _spent(results: Results, arm: Arm) -> Iterator[Series]:
    for number, attack in enumerate(results.attacks):
        own = [attack, *(control for x, control in results.controls if x == attack)]
        for label in own:
            mark: Mark = "line" if label == attack else "dashed"
            points = list(_curve(results, arm, label))
            yield Series(label, points, number, mark)


def _curve(results: Results, arm: Arm, attack: str) -> Iterator[At]:
    cells = {
        seed: cell
        for seed, cell in arm.cells(attack).items()
        if "attack" in cell.record.ledger.kept
    }
    flops = mean_flops(cells) if cells else 0.0
    whole = results.share(attack)
    for share in SHARES:
        if flops > 0 and share <= whole:
            found = mean_over(cells, partial(delta_at, share=share))
            yield from estimated(flops * share / whole, found)

"""Whether prompts found on another arm raise the loss more than those found on this."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from harness.records import Judged, exceeds, mcnemar, paired_difference
from harness.verdicts.pairing import Pairing, known_everywhere, pair
from harness.verdicts.questions.answers import absent, answer
from harness.verdicts.results import Arm

MCNEMAR_LEVEL = 0.05


def transfer(arm: Arm) -> Iterator[Judged]:
    """Hold what was found on other arms against what was found on this one."""
    labels = [
        x for x in arm.planned if arm.results.attack(x).shows == "transferability"
    ]
    if not labels:
        yield absent("transfer", "no attack of the suite shows transferability")
    elif not arm.attacks:
        yield absent("transfer", "nothing else attacks the arm")
    else:
        yield from (_carried(arm, label) for label in labels)


def _carried(arm: Arm, label: str) -> Judged:
    cells = arm.cells(label)
    if not cells:
        absence = f"{label} is {arm.absence(label)}"
        return absent("transfer", absence, attack=label)
    pairing = pair(cells, arm.worst(arm.attacks))
    if pairing is None:
        absence = "there are no white-box attacks to compare with"
        return absent("transfer", absence, attack=label)
    source = _source(arm, pairing)
    both = (
        [_best_from(row.trace, source) for row in pairing.first],
        [row.delta_loss for row in pairing.second],
    )
    known = known_everywhere([row.example_id for row in pairing.first], *both)
    if source is None or not known:
        absence = "its trace names no source"
        return absent("transfer", absence, attack=label)
    carried, own = ([side[i] or 0.0 for i in known] for side in both)
    found = paired_difference(
        carried,
        own,
        [pairing.documents[i] for i in known],
        [pairing.seeds[i] for i in known],
        unit="nats/token",
    )
    threshold = arm.results.threshold
    hits, own_hits = ([exceeds(x, threshold) for x in side] for side in (carried, own))
    rates = float(np.mean(hits)), float(np.mean(own_hits))
    p_value = mcnemar(hits, own_hits)
    stronger = found.interval is not None and found.interval[0] > 0
    fires = stronger or (rates[0] > rates[1] and p_value < MCNEMAR_LEVEL)
    more = f"prompts found on {source} raise the loss more than those found on the arm"
    return answer(
        "transfer",
        found,
        attack=label,
        against=source,
        reason=more if fires else None,
        measured={
            "transferred_success": rates[0],
            "white_box_success": rates[1],
            "success_p": p_value,
        },
    )


def _source(arm: Arm, pairing: Pairing) -> str | None:
    """Return the arm to compare with: the baseline, or for it the strongest."""
    totals: dict[str, list[float]] = {}
    for row in pairing.first:
        sources = [str(step["source"]) for step in row.trace if "source" in step]
        for source in dict.fromkeys(sources):
            best = _best_from(row.trace, source)
            totals.setdefault(source, []).append(best or 0.0)
    totals.pop(arm.label, None)
    if not arm.is_baseline:
        return arm.baseline.label if totals else None
    return max(totals, key=lambda name: float(np.mean(totals[name])), default=None)


def _best_from(trace: Sequence[Mapping[str, Any]], source: str | None) -> float | None:
    found = [step["delta_loss"] for step in trace if step.get("source") == source]
    return max((x for x in found if x is not None), default=None)

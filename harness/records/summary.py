"""The estimates of a cell, computed from its rows and from nothing else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from harness.records.estimate import Estimate
from harness.records.samples import ROUGE_DROP, SampleRow
from harness.records.statistics import bootstrap_mean, paired_difference, wilson


def summarise_attack(
    rows: Sequence[SampleRow], threshold: float, rouge_drop: float = ROUGE_DROP
) -> dict[str, Estimate]:
    """Compute the estimates of a cell from its rows.

    Every example is in the denominator of a fraction: an error counts as no success.
    It has no dL; means of dL and of losses after the attack are over the others.
    Losses and dL are in nats/token; success means exp(dL) > 1 + `threshold`. There are
    estimates of answers and of summaries where the rows have some; a summary is spoilt
    where ROUGE-L falls by more than `rouge_drop` of itself.
    """
    known = [row for row in rows if row.clean_loss is not None]
    known_documents = [row.unit for row in known]
    clean = [row.clean_loss or 0.0 for row in known]
    found = [row for row in rows if row.delta_loss is not None]
    found_documents = [row.unit for row in found]
    deltas = [row.delta_loss or 0.0 for row in found]
    after = [row.adversarial_loss or 0.0 for row in found]
    success = successes(rows, threshold)
    reachable = [row.text_reachable is True for row in rows]
    both = [hit and seen for hit, seen in zip(success, reachable, strict=True)]
    return {
        "delta_loss": bootstrap_mean(deltas, found_documents, unit="nats/token"),
        "delta_loss_median": _median(deltas),
        "clean_loss": bootstrap_mean(clean, known_documents, unit="nats/token"),
        "adversarial_loss": bootstrap_mean(after, found_documents, unit="nats/token"),
        "success": wilson(sum(success), len(rows)),
        "text_success": wilson(sum(both), len(rows)),
        "reachable": wilson(sum(reachable), len(rows)),
        "errors": _count(rows),
        "threshold": Estimate(
            value=threshold,
            n=len(rows),
            unit="relative rise of perplexity",
            method="stated by the suite",
        ),
        **_answers(rows),
        **_summaries(rows, rouge_drop),
    }


def successes(rows: Sequence[SampleRow], threshold: float) -> list[bool]:
    """Say of each row whether the attack succeeded: dL > ln(1 + `threshold`)."""
    return [exceeds(row.delta_loss, threshold) for row in rows]


def exceeds(delta_loss: float | None, threshold: float) -> bool:
    """Say whether a dL is a success: dL > ln(1 + `threshold`); null never is."""
    return delta_loss is not None and delta_loss > math.log1p(threshold)


def lost_answers(rows: Sequence[SampleRow]) -> list[bool]:
    """Say of each row whether the attack turned a right answer into a wrong one."""
    return [
        row.answer_correct_clean is True and row.answer_correct_adversarial is False
        for row in rows
    ]


def spoilt_summaries(rows: Sequence[SampleRow], drop: float) -> list[bool]:
    """Say of each row whether ROUGE-L fell by more than `drop` of itself."""
    return [
        (row.rouge_adversarial or 0.0) < (1 - drop) * (row.rouge_clean or 0.0)
        for row in rows
    ]


def _answers(rows: Sequence[SampleRow]) -> dict[str, Estimate]:
    if all(row.answer_correct_clean is None for row in rows):
        return {}
    n = len(rows)
    return {
        "answer_lost": wilson(sum(lost_answers(rows)), n),
        "clean_accuracy": wilson(sum(x.answer_correct_clean is True for x in rows), n),
        "attacked_accuracy": wilson(
            sum(x.answer_correct_adversarial is True for x in rows), n
        ),
    }


def _summaries(rows: Sequence[SampleRow], drop: float) -> dict[str, Estimate]:
    if all(row.rouge_clean is None for row in rows):
        return {}
    documents = [row.unit for row in rows]
    clean = [row.rouge_clean or 0.0 for row in rows]
    after = [row.rouge_adversarial or 0.0 for row in rows]
    unit = "ROUGE-L F1"
    return {
        "rouge_clean": bootstrap_mean(clean, documents, unit=unit),
        "rouge_adversarial": bootstrap_mean(after, documents, unit=unit),
        "rouge_drop": paired_difference(clean, after, documents, unit=unit),
        "rouge_drop_success": wilson(sum(spoilt_summaries(rows, drop)), len(rows)),
        "rouge_threshold": Estimate(
            value=drop,
            n=len(rows),
            unit="relative fall of ROUGE-L",
            method="stated by the suite",
        ),
    }


def _median(deltas: Sequence[float]) -> Estimate:
    return Estimate(
        value=median(deltas) if deltas else None,
        n=len(deltas),
        unit="nats/token",
        method="median",
        reason="descriptive: no interval" if deltas else "no values",
    )


def _count(rows: Sequence[SampleRow]) -> Estimate:
    return Estimate(
        value=sum(row.status == "error" for row in rows),
        n=len(rows),
        unit="examples",
        method="count of examples whose attack failed",
    )

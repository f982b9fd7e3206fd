"""How the subjects were made: certificates, and recovery on equal terms or not."""

from __future__ import annotations

import math
from collections.abc import Sequence

from harness.records import Certificate, Certificates, Estimate, Record, RecoverySummary
from harness.report.content import (
    Cell,
    Column,
    Label,
    Missing,
    Number,
    Table,
    from_seeds,
)
from harness.report.tables.rows import subjects_table
from harness.verdicts import Results, Subjects

WEIGHTS = "weights_non_negative"
"""The check of a certificate that measures the smallest weight."""
_WORST_FIRST = ("fail", "pass", "nothing_promised")


def certificates_table(results: Results) -> Table:
    """Return a row for each model and arm: the worst of its seeds."""
    return subjects_table(
        results,
        [
            Column("certificate"),
            Column("examined"),
            Column("before", "smallest weight"),
            Column("after", "smallest weight"),
            Column("FFN monotone"),
        ],
        [(s, _certificate_cells(results, s)) for s in results.treatments],
        key="certificates",
        title="Certificates of the feed-forward networks",
        caption=(
            "Before and after recovery, the worst over seeds. Nothing follows for the "
            "whole model (end to end: none): residuals, norms and attention are not "
            "monotone."
        ),
    )


def recovery_table(results: Results) -> Table:
    """Return a row for each model and arm: what training restored, on which data."""
    return subjects_table(
        results,
        [
            Column("at once", "held-out perplexity"),
            Column("after", "held-out perplexity"),
            Column("tokens"),
            Column("data and order"),
        ],
        [(s, _recovery_cells(results, s)) for s in results.treatments],
        key="recovery",
        title="Recovery training",
        caption=(
            "Mean over seeds, ± the sample standard deviation (ddof 1) where there are "
            "several. Arms compare only where they saw the same tokens in the same "
            "order as the baseline arm."
        ),
    )


def unequal_training(results: Results) -> list[Subjects]:
    """Return the models and arms that were not trained as their baseline arm was."""
    return [s for s in results.treatments if _same_training(results, s) is False]


def failed_certificates(results: Results) -> list[Subjects]:
    """Return the models and arms that break a promise, under any seed."""
    return [s for s in results.treatments if any(_failed(c) for c in _all(results, s))]


# --- certificates -------------------------------------------------------------------


def _certificate_cells(results: Results, subjects: Subjects) -> list[Cell]:
    found = _all(results, subjects)
    if not found:
        return [Missing(results.absence(subjects))] * 5
    before = [certificates.before for certificates in found]
    after = [certificates.after for certificates in found]
    return [
        _statuses(before, after),
        _examined(after),
        _smallest(before),
        _smallest(after),
        _monotone(after),
    ]


def _all(results: Results, subjects: Subjects) -> list[Certificates]:
    records = results.variants(subjects).values()
    return [record.certificate for record in records if record.certificate]


def _failed(certificates: Certificates) -> bool:
    return "fail" in (certificates.before.status, certificates.after.status)


def _statuses(before: Sequence[Certificate], after: Sequence[Certificate]) -> Label:
    """Show ``pass -> FAIL``; a single word where nothing was promised."""
    first, second = _worst(before), _worst(after)
    alarm = "FAIL" in (first, second)
    promised = first != second or first != "nothing promised"
    return Label(f"{first} -> {second}" if promised else first, alarm=alarm)


def _worst(certificates: Sequence[Certificate]) -> str:
    found = {certificate.status for certificate in certificates}
    worst = next(status for status in _WORST_FIRST if status in found)
    return "FAIL" if worst == "fail" else worst.replace("_", " ")


def _monotone(certificates: Sequence[Certificate]) -> Label:
    answer = "yes" if all(c.ffn_monotone for c in certificates) else "no"
    return Label(f"{answer} ({certificates[0].activation})")


def _examined(certificates: Sequence[Certificate]) -> Label:
    least = min(certificates, key=lambda c: c.examined - c.expected)
    if least.expected == 0:
        return Label(f"{least.examined}, none promised")
    short = least.examined < least.expected
    return Label(f"{least.examined} of {least.expected}", alarm=short)


def _smallest(certificates: Sequence[Certificate]) -> Cell:
    checks = [c for x in certificates for c in x.checks if c.name == WEIGHTS]
    values = [check.measured.get("minimum") for check in checks]
    known = [value for value in values if isinstance(value, int | float)]
    return Number(min(known), "weight", signed=True) if known else Missing("none")


# --- recovery -----------------------------------------------------------------------


def _recovery_cells(results: Results, subjects: Subjects) -> list[Cell]:
    found = _summaries(results, subjects)
    if not found:
        return [Missing(results.absence(subjects))] * 4
    if all(summary.status == "none" for summary in found.values()):
        return [*[Label("none")] * 3, _data(results, subjects)]
    planned = len(results.suite.seeds)
    tokens = {summary.tokens for summary in found.values()}
    return [
        _perplexity([s.loss_before for s in found.values()], planned),
        _perplexity([s.loss_after for s in found.values()], planned),
        Number(min(tokens), "count") if len(tokens) == 1 else Label("varies", True),
        _data(results, subjects),
    ]


def _summaries(results: Results, subjects: Subjects) -> dict[int, RecoverySummary]:
    records: dict[int, Record] = results.variants(subjects)
    return {seed: r.recovery for seed, r in records.items() if r.recovery}


def _perplexity(losses: Sequence[Estimate | None], planned: int) -> Cell:
    known = [loss.value for loss in losses if loss and loss.value is not None]
    if not known:
        return Missing("not evaluated")
    try:
        values = [math.exp(loss) for loss in known]
    except OverflowError:
        return Missing("beyond the range of floats")
    return from_seeds(values, "perplexity", planned)


def _data(results: Results, subjects: Subjects) -> Label:
    if subjects == subjects.baseline:
        return Label("the measure")
    same = _same_training(results, subjects)
    if same is None:
        return Label("no baseline to compare", alarm=True)
    return Label("as baseline") if same else Label("NOT EQUAL", alarm=True)


def _same_training(results: Results, subjects: Subjects) -> bool | None:
    """Compare tokens and order with the baseline arm's; None where it is not there."""
    own, base = _summaries(results, subjects), _summaries(results, subjects.baseline)
    shared = [seed for seed in own if seed in base]
    if not shared:
        return None
    return all(_budget(own[seed]) == _budget(base[seed]) for seed in shared)


def _budget(summary: RecoverySummary) -> tuple[str, int, int, str | None]:
    return summary.status, summary.steps, summary.tokens, summary.data_sha256

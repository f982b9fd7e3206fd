"""How the subjects were made: certificates, and recovery on equal terms or not."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from harness.records import (
    Certificate,
    Certificates,
    Estimate,
    RecoverySummary,
)
from harness.report.content import (
    Cell,
    Column,
    Label,
    Missing,
    Number,
    Table,
    about,
    filled,
)
from harness.report.tables.rows import arm_column, perplexity, with_seeds
from harness.verdicts import Arm, Results

WEIGHTS = "weights_non_negative"
"""The check of a certificate that measures the smallest weight."""
_WORST_FIRST = ("fail", "pass", "nothing_promised")


def certificates_table(results: Results) -> Table:
    """Return a row for each model and arm: the worst of its seeds."""
    columns: list[Column[Arm]] = [
        arm_column(results, lambda arm: arm),
        *about(lambda arm: _all(arm) or arm.absence(), _CERTIFIED),
    ]
    return filled(
        "certificates",
        "Certificates of the feed-forward networks",
        columns,
        results.treatments,
        summary=(
            "What is proved of the weights before and after recovery training, the "
            "worst over seeds."
        ),
        caption=(
            "Before and after recovery, the worst over seeds. Nothing follows for the "
            "whole model (end to end: none): residuals, norms and attention are not "
            "monotone."
        ),
    )


def recovery_table(results: Results) -> Table:
    """Return a row for each model and arm: what training restored, on which data."""

    def held_out(losses: Mapping[int, Estimate | None]) -> Cell:
        known = {
            seed: x.value for seed, x in losses.items() if x and x.value is not None
        }
        if not known:
            return Missing("not evaluated")
        return perplexity(known)

    group = "held-out perplexity"
    trained: list[Column[dict[int, RecoverySummary]]] = [
        Column(
            "at once",
            lambda found: held_out({s: x.loss_before for s, x in found.items()}),
            group,
        ),
        Column(
            "after",
            lambda found: held_out({s: x.loss_after for s, x in found.items()}),
            group,
        ),
        Column("tokens", lambda found: _tokens({x.tokens for x in found.values()})),
    ]
    columns: list[Column[Arm]] = [
        arm_column(results, lambda arm: arm),
        *about(_trained, trained),
        Column("data and order", _data),
    ]
    return filled(
        "recovery",
        "Recovery training",
        with_seeds(columns, lambda arm: arm),
        results.treatments,
        summary=(
            "Perplexity on held-out text before and after recovery training, mean and "
            "standard deviation over seeds."
        ),
        caption=(
            "Mean over seeds, ± the sample standard deviation (ddof 1) where there are "
            "several. Arms compare only where they saw the same tokens in the same "
            "order as the baseline arm."
        ),
    )


def unequal_training(results: Results) -> list[Arm]:
    """Return the arms that were not trained as their baseline arm was."""
    return [
        arm for arm in results.treatments if arm.same_training(arm.baseline) is False
    ]


def failed_certificates(results: Results) -> list[Arm]:
    """Return the arms that break a promise, under any seed."""
    return [
        arm
        for arm in results.treatments
        if any("fail" in (x.before.status, x.after.status) for x in _all(arm))
    ]


# --- certificates -------------------------------------------------------------------


def _all(arm: Arm) -> list[Certificates]:
    return [x.certificate for x in arm.variants.values() if x.certificate]


def _statuses(found: Sequence[Certificates]) -> Label:
    """Show ``pass -> FAIL``; a single word where nothing was promised."""
    first = _worst([certificates.before for certificates in found])
    second = _worst([certificates.after for certificates in found])
    alarm = "FAIL" in (first, second)
    promised = first != second or first != "nothing promised"
    return Label(f"{first} -> {second}" if promised else first, alarm=alarm)


def _worst(certificates: Sequence[Certificate]) -> str:
    found = {certificate.status for certificate in certificates}
    worst = next(status for status in _WORST_FIRST if status in found)
    return "FAIL" if worst == "fail" else worst.replace("_", " ")


def _examined(found: Sequence[Certificates]) -> Label:
    certificates = [x.after for x in found]
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


def _monotone(found: Sequence[Certificates]) -> Label:
    answer = "yes" if all(x.after.ffn_monotone for x in found) else "no"
    return Label(f"{answer} ({found[0].after.activation})")


_CERTIFIED: list[Column[list[Certificates]]] = [
    Column("certificate", _statuses),
    Column("examined", _examined),
    Column("before", lambda x: _smallest([c.before for c in x]), "smallest weight"),
    Column("after", lambda x: _smallest([c.after for c in x]), "smallest weight"),
    Column("FFN monotone", _monotone),
]


# --- recovery -----------------------------------------------------------------------


def _trained(arm: Arm) -> dict[int, RecoverySummary] | str:
    found = arm.trainings
    if found and all(summary.status == "none" for summary in found.values()):
        return "not trained"
    return found or arm.absence()


def _tokens(tokens: Collection[int]) -> Cell:
    return Number(min(tokens), "count") if len(tokens) == 1 else Label("varies", True)


def _data(arm: Arm) -> Cell:
    if not arm.trainings:
        return Missing(arm.absence())
    if arm.is_baseline:
        return Label("reference")
    same = arm.same_training(arm.baseline)
    if same is None:
        return Label("no baseline to compare", alarm=True)
    if not same:
        return Label("NOT EQUAL", alarm=True)
    return Label("as baseline, reordered" if arm.role == "replica" else "as baseline")

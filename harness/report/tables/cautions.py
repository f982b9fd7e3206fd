"""What a reader has to know before the numbers: holes, mixtures, broken promises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.records import Record, Verdicts
from harness.report.content import LIMITED
from harness.report.tables.controls import Opponents
from harness.report.tables.making import failed_certificates, unequal_training
from harness.verdicts import Arm, Results

NAMED_AT_MOST = 8
"""Failed units that are named one by one."""


def cautions(
    results: Results, opponents: Sequence[Opponents], verdicts: Verdicts
) -> Iterator[str]:
    """Yield a sentence for each thing that a reader must know first."""
    yield from _exploratory(results, verdicts)
    yield from _limit_warning(results)
    yield from _hole_warnings(results)
    yield from _mixture_warnings(results)
    for found in verdicts.arms:
        if found.broken:
            name = results.arm(found.model, found.arm).name
            yield (
                f"BROKEN: {name}: its loss without an attack is "
                f"{found.clean_loss:.2f} nats/token, above the "
                f"{found.attacked_reference:.2f} of {found.reference} under attack: a "
                "low dL or success is no sign of robustness."
            )
    for loser in (x for x in opponents if x.invalid):
        yield (
            f"ATTACK INVALID: {loser.attack} is not shown to beat {loser.control} on "
            f"{loser.arm.name}: whatever {loser.attack} shows on other arms of "
            f"{loser.arm.model} says nothing about them."
        )
    if failed_certificates(results):
        yield f"CERTIFICATE FAILED: {_names(failed_certificates(results))}."
    yield from _training_warnings(results)


def _exploratory(results: Results, verdicts: Verdicts) -> Iterator[str]:
    if verdicts.margin_change is not None:
        yield f"EXPLORATORY: {verdicts.margin_change}."
    changes = results.claims_changes
    for when in dict.fromkeys(map(str, changes.values())):
        details = "; ".join(x.details for x in changes.values() if str(x) == when)
        yield f"EXPLORATORY: {when}: {details}."
    asked, stated = results.threshold, results.suite.success.threshold
    if asked != stated:
        yield (
            f"EXPLORATORY: success is shown at {asked:g}, which was asked for after "
            f"the runs; the suite states {stated:g}. No verdict depends on it."
        )


def _training_warnings(results: Results) -> Iterator[str]:
    unequal = unequal_training(results)
    untrained = [x for x in unequal if results.suite.arms[x.label].recovery is False]
    others = [x for x in unequal if x not in untrained]
    if untrained:
        yield (
            f"NOT EQUAL: {_names(untrained)}: not trained, as the suite wants it; the "
            "baseline arm is."
        )
    if others:
        yield (
            f"NOT EQUAL: {_names(others)}: trained on other amounts, or on another "
            "order, of data than the baseline arm."
        )


def _limit_warning(results: Results) -> Iterator[str]:
    limit = results.suite.limit
    if limit is not None:
        what = f"only the first {limit} examples and documents were used"
        yield f"{LIMITED}: {what} (--limit)."


def _hole_warnings(results: Results) -> Iterator[str]:
    bad = [u for u in results.survey.units if u.state.status in ("failed", "invalid")]
    for unit in bad[:NAMED_AT_MOST]:
        reason = unit.state.reason.partition("\n")[0]
        yield f"{unit.state.status.upper()}: {unit.id}: {reason}"
    if len(bad) > NAMED_AT_MOST:
        yield f"and {len(bad) - NAMED_AT_MOST} more; `harness status` names them."
    missing = results.survey.counts["missing"]
    if missing:
        yield f"MISSING: units without a record: {missing}; `harness run` makes them."
    strays = len(results.survey.strays)
    if strays:
        yield (
            f"LEFT OUT: records that are not part of the suite as it is now: {strays}; "
            "`harness status` names them."
        )


def _mixture_warnings(results: Results) -> Iterator[str]:
    """Say where one table holds what was not made alike."""
    records = results.records
    if len({record.suite.sha256 for record in records}) > 1:
        yield (
            "MIXED: the records were made under several forms of the suite (see suite "
            "sha256); their ids agree with the form it has now, so what each id "
            "identifies is the same."
        )
    if len({made_by(record) for record in records}) > 1:
        yield "MIXED: the records were made by several states of the code."
    if any(record.provenance.dirty for record in records):
        yield "UNCOMMITTED: the code had uncommitted changes when records were made."
    names = _differing_versions(records)
    if names:
        yield f"MIXED: the records were made with other versions of {', '.join(names)}."


def _differing_versions(records: Sequence[Record]) -> list[str]:
    found: dict[str, set[str | None]] = {}
    for name in {name for record in records for name in record.provenance.versions}:
        found[name] = {record.provenance.versions.get(name) for record in records}
    return sorted(name for name, versions in found.items() if len(versions) > 1)


def _names(found: Sequence[Arm]) -> str:
    return ", ".join(arm.name for arm in found)


def made_by(record: Record) -> str:
    """Name the state of the code that made a record."""
    provenance = record.provenance
    if provenance.commit is None:
        version = provenance.versions.get("harness", "unknown")
        return f"none (harness {version})"
    return provenance.commit[:12] + (" with changes" if provenance.dirty else "")

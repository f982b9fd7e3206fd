"""Put a report together: facts, warnings, tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.records import Verdicts
from harness.report.content import Report, Table
from harness.report.tables.arms import arms_table
from harness.report.tables.beside import planted_tables, token_level_tables
from harness.report.tables.budgets import budgets_table, kept_checkpoints
from harness.report.tables.cautions import cautions, made_by
from harness.report.tables.claims import claims_tables
from harness.report.tables.controls import Opponents, compare_controls, controls_table
from harness.report.tables.costs import costs_table
from harness.report.tables.main import main_table
from harness.report.tables.making import certificates_table, recovery_table
from harness.report.tables.methods import appendix_table, methods, values
from harness.report.tables.metrics import gaps_tables, metrics_tables
from harness.report.tables.spread import spread_table
from harness.report.tables.success import curves, success_table
from harness.report.tables.transfer import transfer_table, transfers
from harness.report.tables.verdicts import (
    contrasts_tables,
    diagnostics_table,
    verdicts_table,
)
from harness.running import STATES, Survey
from harness.verdicts import (
    Findings,
    Results,
    answer_claims,
    calibrate,
    findings_of,
    judge,
)


def build(survey: Survey, threshold: float | None = None) -> Report:
    """Return the report of a run; success at `threshold`, by default the suite's.

    What is asked for afterwards is marked as exploratory; no verdict depends on it.
    """
    suite = survey.plan.experiment.suite
    results = Results(survey, threshold or suite.success.threshold)
    findings = findings_of(results)
    verdicts = judge(findings, calibrate(findings))
    answers = answer_claims(results, findings, verdicts)
    verdicts = verdicts.model_copy(update={"claims": answers})
    opponents = compare_controls(results, verdicts)
    return Report(
        title=f"Report of {survey.folder.root}",
        facts=list(_facts(results)),
        warnings=[
            *(problem.message for problem in results.experiment.warnings),
            *cautions(results, opponents, verdicts),
        ],
        tables=[
            verdicts_table(results, verdicts),
            *claims_tables(results, verdicts),
            *contrasts_tables(results, verdicts),
            diagnostics_table(results, verdicts),
            *planted_tables(results, verdicts),
            *_tables(results, opponents, verdicts, findings),
        ],
        provenance=list(_provenance(results)),
        methods=methods(results, verdicts),
        verdicts=verdicts,
        curves=list(curves(results)),
        results=results,
    )


def _tables(
    results: Results,
    opponents: Sequence[Opponents],
    verdicts: Verdicts,
    findings: Findings,
) -> Iterator[Table]:
    yield main_table(results, opponents, verdicts)
    if results.attacks:
        yield success_table(results)
    if kept_checkpoints(results):
        yield budgets_table(results, verdicts)
    yield from token_level_tables(results)
    if opponents:
        yield controls_table(results, opponents)
    if results.suite.attacks and len(results.suite.arms) > 1:
        yield arms_table(results, findings)
        yield spread_table(results, findings)
    if transfers(results):
        yield transfer_table(results)
    yield certificates_table(results)
    if results.suite.recovery is not None:
        yield recovery_table(results)
    if results.suite.metrics:
        yield from metrics_tables(results)
        yield from gaps_tables(results)
    yield costs_table(results)
    yield appendix_table(results)


def _facts(results: Results) -> Iterator[tuple[str, str]]:
    suite = results.suite
    yield "suite", suite.name
    profiles = {r.suite.profile for r in results.records if r.suite.profile}
    if profiles:
        yield "profile", ", ".join(sorted(profiles))
    yield "models", ", ".join(suite.models)
    yield "seeds", ", ".join(map(str, suite.seeds))
    counts = results.survey.counts
    total = sum(counts.values())
    others = [f"{counts[state]} {state}" for state in STATES if state != "complete"]
    yield "units", f"{counts['complete']} of {total} complete; {', '.join(others)}"


def _provenance(results: Results) -> Iterator[tuple[str, str]]:
    """Return what pins the numbers down: nothing here depends on when it is asked."""
    yield "suite sha256", values(results.records, lambda r: r.suite.sha256[:12])
    yield "code commit", values(results.records, made_by)
    finished = [record.provenance.finished for record in results.records]
    yield "newest record", max(finished, default="none")

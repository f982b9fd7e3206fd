"""All figures of a report, in the order in which they are shown."""

from __future__ import annotations

from harness.report.content import Report
from harness.report.figures import attacks, subjects
from harness.report.figures.parts import Figure


def figures(report: Report) -> list[Figure]:
    """Return the figures in which there is something to see."""
    if report.results is None or report.verdicts is None:
        return []
    results, verdicts = report.results, report.verdicts
    made = [
        attacks.contrasts(results, verdicts),
        subjects.losses(results),
        attacks.budgets(results),
        attacks.success(report.curves),
        attacks.differences(results, verdicts),
        subjects.recovery(results),
        subjects.certificates(results),
        subjects.costs(results),
    ]
    return [figure for figure in made if figure.panels]

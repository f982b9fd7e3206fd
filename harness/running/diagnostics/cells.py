"""All questions to a cell: from its rows, and at the prompts that stand in them."""

from __future__ import annotations

from collections.abc import Sequence

from harness.data import Example
from harness.records import Diagnostic, SampleRow
from harness.running.diagnostics.rows import examine_rows
from harness.running.diagnostics.subject import examine_attacked
from harness.running.workbench import Work
from harness.subject import Subject
from harness.suite import CellPlan


def examine_cell(
    work: Work[CellPlan],
    subject: Subject,
    examples: Sequence[Example],
    rows: Sequence[SampleRow],
) -> list[Diagnostic]:
    """Answer all that the suite asks of a cell with these `rows`.

    Of an attack that uses gradients, and is no control, that is also whether those can
    be trusted where it went. What that costs is among the metrics of the cell's ledger.
    """
    run, plan = work.run, work.plan
    if run.suite.diagnostics == "none":
        return []
    answers = examine_rows(rows)
    attack = run.experiment.attacks[plan.attack].placed(plan.scene)
    if "examined" in plan.identity and attack.budget(len(examples)).backward:
        with work.journal.stage("diagnostics", "metrics", subject):
            answers += examine_attacked(subject, examples, rows)
    return answers

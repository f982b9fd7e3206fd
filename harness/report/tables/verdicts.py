"""The verdict of each arm, and the answers that it rests on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import get_args

from harness.records import ArmVerdict, DiagnosticId, Verdicts
from harness.report.content import (
    Cell,
    Column,
    Label,
    Missing,
    Number,
    Table,
    filled,
    from_estimate,
)
from harness.report.tables.rows import arm_column, label
from harness.verdicts import Results

ALARMING = ("attack invalid", "not applied", "broken", "gradient-masked")
_WORDS = {"pass": "pass", "warn": "warning", "fail": "FAILS", "not_applicable": "--"}
_ORDER = ("fail", "warn", "pass", "not_applicable")
_GAP = Missing("no cells", brief=True)


def verdicts_table(results: Results, verdicts: Verdicts) -> Table:
    """Return a row for each arm that is compared."""
    columns: list[Column[ArmVerdict]] = [
        arm_column(results, lambda row: results.arm(row.model, row.arm)),
        Column("verdict", lambda x: Label(x.verdict, alarm=x.verdict in ALARMING)),
        Column(
            "clean loss",
            lambda x: _GAP if x.clean_loss is None else Number(x.clean_loss, "nats"),
        ),
        Column(
            "worst-case dL",
            lambda x: from_estimate(x.worst_case, "nats") if x.worst_case else _GAP,
        ),
        Column("difference", _difference),
        Column("p", _p),
    ]
    return filled(
        "verdicts",
        "Verdicts",
        columns,
        verdicts.arms,
        caption=(
            "By the rule in docs/rigour.md. Worst-case dL: of the strongest attack or "
            "control on each example, in nats/token; the difference is that from the "
            "reference arm, paired, with its 95 % interval. p: of the likelier one of "
            "harder and easier to attack, one-sided, Holm over the contrasts. A "
            f"difference within {verdicts.margin} counts as none."
        ),
        notes=[sentence(found) for found in verdicts.arms],
    )


def diagnostics_table(results: Results, verdicts: Verdicts) -> Table:
    """Return a row for each question, and a column for each arm."""

    def heading(found: ArmVerdict) -> str:
        named = label(results.arm(found.model, found.arm))
        return named.short or named.text

    columns: list[Column[DiagnosticId]] = [
        Column("diagnostic", Label),
        *(Column(heading(found), partial(_answer, found)) for found in verdicts.arms),
    ]
    return filled(
        "diagnostics",
        "Diagnostics",
        columns,
        get_args(DiagnosticId),
        caption=(
            "The worst answer over attacks and seeds, with the attack that it is "
            "about; -- where a question could not be asked. report/verdicts.json has "
            "every answer with value, interval, n, threshold and reason."
        ),
    )


def sentence(found: ArmVerdict) -> str:
    """Return an arm's verdict and the reasons for it, in a line."""
    return f"{found.model} ({found.arm}): {found.verdict}: {'; '.join(found.reasons)}"


def lines(verdicts: Verdicts) -> Sequence[str]:
    """Return what a terminal shows at the end of a run, a line for each arm."""
    return [f"verdict: {sentence(found)}" for found in verdicts.arms]


def _difference(found: ArmVerdict) -> Cell:
    if found.verdict == "reference":
        return Label("reference")
    if found.difference is None:
        return _GAP
    known = found.difference
    return Number(known.value, "nats", signed=True, interval=known.interval)


def _p(found: ArmVerdict) -> Cell:
    if found.difference is None:
        return _GAP
    directed = [x.p for x in found.difference.claims if x.claim != "equivalent"]
    return Number(min(directed), "p")


def _answer(found: ArmVerdict, name: DiagnosticId) -> Cell:
    answers = [x for x in found.diagnostics if x.id == name]
    if not answers:
        return Missing("not asked", brief=True)
    worst = min(answers, key=lambda answer: _ORDER.index(answer.status))
    attack = f" ({worst.attack})" if worst.attack and worst.status != "pass" else ""
    return Label(f"{_WORDS[worst.status]}{attack}", alarm=worst.status == "fail")

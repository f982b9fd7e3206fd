"""The verdict of each arm, and the answers that it rests on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import get_args

from harness.records import ArmVerdict, DiagnosticId, Judged, Verdicts
from harness.report.content import (
    Cell,
    Column,
    Label,
    Missing,
    Number,
    Table,
    from_estimate,
)
from harness.report.tables.rows import label, subjects_table
from harness.verdicts import EQUIVALENCE_NATS, Results, Subjects

ALARMING = ("attack invalid", "gradient-masked")
_WORDS = {"pass": "pass", "warn": "warning", "fail": "FAILS", "not_applicable": "--"}
_ORDER = ("fail", "warn", "pass", "not_applicable")


def verdicts_table(results: Results, verdicts: Verdicts) -> Table:
    """Return a row for each arm that is compared."""
    return subjects_table(
        results,
        [
            Column("verdict"),
            Column("clean loss"),
            Column("worst-case dL"),
            Column("difference"),
            Column("p"),
        ],
        [(Subjects(x.model, x.arm), _cells(x)) for x in verdicts.arms],
        key="verdicts",
        title="Verdicts",
        caption=(
            "By the rule in docs/rigour.md. Worst-case dL: of the strongest attack or "
            "control on each example, in nats/token; the difference is that from the "
            "baseline arm, paired, with its 95 % interval. p: one-sided, Holm over the "
            f"arms. Effects within {EQUIVALENCE_NATS} nats/token are called none."
        ),
        notes=[sentence(found) for found in verdicts.arms],
    )


def diagnostics_table(results: Results, verdicts: Verdicts) -> Table:
    """Return a row for each question, and a column for each arm."""
    arms = verdicts.arms
    return Table(
        key="diagnostics",
        title="Diagnostics",
        columns=[
            Column("diagnostic"),
            *(Column(_name(results, found)) for found in arms),
        ],
        rows=[
            [Label(name), *(_answer(found, name) for found in arms)]
            for name in get_args(DiagnosticId)
        ],
        caption=(
            "The worst answer over attacks and seeds, with the attack that it is "
            "about; -- is what could not be asked. report/verdicts.json has every "
            "answer with value, interval, n, threshold and reason."
        ),
    )


def sentence(found: ArmVerdict) -> str:
    """Say in a line what an arm is called, and why."""
    return f"{found.model} ({found.arm}): {found.verdict}: {'; '.join(found.reasons)}"


def _cells(found: ArmVerdict) -> list[Cell]:
    gap = Missing("no cells", brief=True)
    reference: Cell = Label("reference")
    difference = gap if found.difference is None else _difference(found)
    return [
        Label(found.verdict, alarm=found.verdict in ALARMING),
        gap if found.clean_loss is None else Number(found.clean_loss, "nats"),
        gap if found.worst_case is None else from_estimate(found.worst_case, "nats"),
        reference if found.verdict == "reference" else difference,
        gap if found.p is None else Number(found.p, "p"),
    ]


def _difference(found: ArmVerdict) -> Cell:
    assert found.difference is not None
    return from_estimate(found.difference, "nats", signed=True)


def _answer(found: ArmVerdict, name: DiagnosticId) -> Cell:
    answers = [x for x in found.diagnostics if x.id == name]
    if not answers:
        return Missing("not asked", brief=True)
    worst = _worst(answers)
    about = f" ({worst.attack})" if worst.attack and worst.status != "pass" else ""
    return Label(f"{_WORDS[worst.status]}{about}", alarm=worst.status == "fail")


def _worst(answers: Iterable[Judged]) -> Judged:
    return min(answers, key=lambda answer: _ORDER.index(answer.status))


def _name(results: Results, found: ArmVerdict) -> str:
    named = label(results, Subjects(found.model, found.arm))
    return named.short or named.text


def lines(verdicts: Verdicts) -> Sequence[str]:
    """Return what a terminal shows at the end of a run, a line for each arm."""
    return [f"verdict: {sentence(found)}" for found in verdicts.arms]

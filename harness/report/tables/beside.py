"""What is shown beside verdicts: planted weaknesses, and prompts that are no text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from harness.records import ArmVerdict, Detected, Verdicts, clopper_pearson
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
from harness.report.tables.rows import INTERVAL, arm_column, attack_column
from harness.verdicts import Arm, Results, mean_over


class _Planted(NamedTuple):
    verdict: ArmVerdict
    found: Detected


def planted_tables(results: Results, verdicts: Verdicts) -> Iterator[Table]:
    """Yield a table of what attacks found of planted weaknesses, where there are any.

    Of the union of all attacks; verdicts.json has each attack's share.
    """
    rows = [_Planted(x, y) for x in verdicts.arms for y in x.detection if not y.attack]
    if not rows:
        return
    columns: list[Column[_Planted]] = [
        arm_column(results, lambda x: results.arm(x.verdict.model, x.verdict.arm)),
        Column("kind", lambda x: Label(x.found.kind)),
        Column("strength", lambda x: Number(x.found.strength, "nats")),
        Column("documents", lambda x: Number(x.found.documents, "count")),
        Column("has it on", lambda x: Number(x.found.present, "count")),
        Column("found on", lambda x: Number(x.found.found, "count")),
        Column("share found", _share),
    ]
    yield filled(
        "planted",
        "Planted weaknesses",
        columns,
        rows,
        summary=(
            "On how many documents a weakness is, and on how many all attacks together "
            "find it, with the 95 % interval of the share."
        ),
        caption=(
            "strength: by how much a weakness raises dL above the arm's own under "
            "attack, in the mean, nats/token. has it on: the documents on which its "
            "trigger reaches at least half of that. found on: those of them on which "
            "all attacks together do; their share with its 95 % interval of Clopper "
            "and Pearson. The detection limit is that of the kinds token and ffn."
        ),
        keys=3,
    )


def token_level_tables(results: Results) -> Iterator[Table]:
    """Yield a table of attacks beyond texts beside their own form, where they ran."""
    sections = results.suite.attacks
    labels = [x for x, section in sections.items() if section.role == "token-level"]
    if not labels:
        return
    columns: list[Column[tuple[Arm, str]]] = [
        arm_column(results, lambda row: row[0]),
        attack_column(lambda row: _text_form(row[1])),
        Column("texts", lambda row: _delta(row[0], _text_form(row[1])), "dL"),
        Column("any tokens", lambda row: _delta(*row), "dL"),
    ]
    yield filled(
        "token_level",
        "Beyond texts",
        columns,
        [(arm, x) for arm in results.treatments for x in labels if x in arm.planned],
        summary=(
            "dL in nats/token, with 95 % intervals, of attacks that keep to prompts "
            "that some text encodes to, and of the same ones on all token sequences."
        ),
        caption=(
            "dL in nats/token of attacks that keep to prompts that some text encodes "
            f"to, and of the same ones without that rule; {INTERVAL}. No verdict "
            "depends on it."
        ),
        keys=2,
    )


def _share(row: _Planted) -> Cell:
    found, n = row.found.found, row.found.present
    if not n:
        return Missing("on no document")
    return Number(found / n, "share", interval=clopper_pearson(found, n))


def _text_form(label: str) -> str:
    return label.removesuffix("-tokens")


def _delta(arm: Arm, attack: str) -> Cell:
    found = mean_over(arm.cells(attack))
    if found is None:
        return Missing(arm.absence(attack))
    return from_estimate(found, "nats")

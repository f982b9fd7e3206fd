"""The suite's claims, each with its answer in one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from harness.records import Answer, ClaimAnswer, Measure, Verdicts
from harness.report.content import (
    Cell,
    Column,
    Kind,
    Label,
    Missing,
    Names,
    Number,
    Table,
    filled,
    from_estimate,
)
from harness.report.formats.numbers import number_text
from harness.verdicts import Results

ON_THESE_WEIGHTS: tuple[Answer, ...] = ("supported", "refuted")
"""Answers that say whether they are about the treatment."""
_KINDS: Mapping[Measure, Kind] = {
    "change": "fraction",
    "success": "fraction",
    "dL": "nats",
    "gap": "number",
}


def claims_tables(results: Results, verdicts: Verdicts) -> Iterator[Table]:
    """Yield a table with a row for each claim and model, where there are claims."""
    if not verdicts.claims:
        return
    models: list[Column[ClaimAnswer]] = [Column("model", lambda x: Label(x.model))]
    columns: list[Column[ClaimAnswer]] = [
        Column("group", lambda x: Label(x.group)),
        *(models if len(results.suite.models) > 1 else []),
        Column("claim", _claim),
        Column("bound", lambda x: Label(_bound(x))),
        Column("answer", _answer),
        Column("found", found_cell),
    ]
    yield filled(
        "claims",
        "Claims",
        columns,
        verdicts.claims,
        caption=(
            "What the suite said beforehand. change: relative change of the metric; "
            "gap: arm minus other arm, in the metric's unit; success: by how much of "
            "itself the attack's success is reduced; dL: arm minus other arm, "
            "nats/token. [a, b] is the 95 % interval, over documents or task examples "
            "and, from three training seeds on, over seeds. A claim is supported, or "
            f"refuted, at one-sided {100 * verdicts.claims[0].level:g} %, Holm over "
            "its group."
        ),
        summary=(
            "What was claimed beforehand and what was found, with 95 % intervals; each "
            "claim is decided at one-sided 2.5 %, by Holm over its group."
        ),
        notes=[note for found in verdicts.claims for note in _notes(found)],
        keys=2,
    )


def claim_line(found: ClaimAnswer) -> tuple[str, str, str]:
    """Return a claim's name, its answer, and in one line what was found and why."""
    shown = found_cell(found)
    number = number_text(shown) if isinstance(shown, Number) else ""
    said = [f"{number} ({_bound(found)})".strip(), *found.reasons]
    return f"{found.group}.{found.label}", answer_text(found), "; ".join(said)


def answer_text(found: ClaimAnswer) -> str:
    """Return the answer, with its scope where that is less than the treatment."""
    narrow = found.scope == "weights" and found.answer in ON_THESE_WEIGHTS
    return f"{found.answer} on these weights" if narrow else found.answer


def _claim(found: ClaimAnswer) -> Label:
    about = found.claim
    names: Names = (("model", found.model), ("arm", about.arm))
    names = (*names, ("against", about.against))
    if about.attack is not None:
        names = (*names, ("attack", about.attack))
    return Label(about.quantity, short=found.label, names=names)


def _bound(found: ClaimAnswer) -> str:
    return f"{found.claim.bound}{', every seed' * found.claim.every_seed}"


def _answer(found: ClaimAnswer) -> Label:
    mark = ", exploratory" if found.exploratory else ""
    alarm = found.answer == "refused" or found.exploratory
    return Label(f"{answer_text(found)}{mark}", alarm=alarm)


def found_cell(found: ClaimAnswer) -> Cell:
    """Return the cell of the number that a claim is about."""
    if found.estimate is None:
        return Missing("nothing to compare", brief=True)
    return from_estimate(found.estimate, _KINDS[found.claim.measure], signed=True)


def _notes(found: ClaimAnswer) -> Iterator[str]:
    if found.reasons:
        yield f"{found.group}.{found.label}: {'; '.join(found.reasons)}"

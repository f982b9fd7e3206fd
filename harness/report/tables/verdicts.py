"""The verdict of each arm, what it rests on, and the answers behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import get_args

from harness.records import ArmVerdict, DiagnosticId, Difference, Said, Verdicts
from harness.report.content import (
    Cell,
    Column,
    Label,
    Missing,
    Number,
    Table,
    about,
    filled,
    from_estimate,
)
from harness.report.formats.numbers import number_text
from harness.report.tables.rows import (
    against_column,
    arm_column,
    conditions,
    label,
    names_of,
)
from harness.verdicts import Results

ALARMING = ("attack invalid", "not applied", "broken", "gradient-masked")
SCOPES = {"treatment": "the treatment", "weights": "these weights alone"}
DIRECTED = ("harder to attack", "easier to attack")
_WORDS = {"pass": "pass", "warn": "warning", "fail": "FAILS", "not_applicable": "--"}
_ORDER = ("fail", "warn", "pass", "not_applicable")
_GAP = Missing("no cells", brief=True)
_NOTHING = Missing("nothing to compare", brief=True)


def verdicts_table(results: Results, verdicts: Verdicts) -> Table:
    """Return a row for each arm that is judged."""
    columns: list[Column[ArmVerdict]] = [
        arm_column(results, lambda row: results.arm(row.model, row.arm)),
        against_column(lambda row: row.reference),
        Column("verdict", lambda x: Label(x.verdict, alarm=x.verdict in ALARMING)),
        Column("clean", _clean, "loss"),
        Column("attacked", _attacked, "loss"),
        Column(
            "arm",
            lambda x: from_estimate(x.worst_case, "nats") if x.worst_case else _GAP,
            "dL",
        ),
        Column("reference", partial(_of, lambda x: Number(x.sides[1], "nats")), "dL"),
        Column("difference", partial(_of, _difference), "dL"),
    ]
    return filled(
        "verdicts",
        "Verdicts",
        columns,
        verdicts.arms,
        summary=(
            "Each arm beside the arm that it is held against: mean losses in "
            "nats/token, dL under the worst attack on each example, and the paired "
            "difference with its 95 % interval."
        ),
        caption=(
            "By the rule in docs/rigour.md, on the attacked examples; nats/token. dL: "
            "under the worst attack or control on each example, of those that both "
            "arms have. difference: arm minus the arm that it is held against, with "
            f"its 95 % interval. A difference within {verdicts.margin} counts as none. "
            f"{conditions(results)}"
        ),
        notes=[note for found in verdicts.arms for note in paragraphs(found)],
    )


def contrasts_tables(results: Results, verdicts: Verdicts) -> Iterator[Table]:
    """Yield a table with a row for each contrast, where any can be made.

    It says of each what design it has, and how far that sees.
    """
    found = [x for x in verdicts.arms if x.difference is not None]
    if found:
        yield _contrasts_table(results, found)


def _contrasts_table(results: Results, found: Sequence[ArmVerdict]) -> Table:
    design: list[Column[Difference]] = [
        Column("documents", lambda x: Number(x.documents, "count")),
        Column("seeds", lambda x: Number(x.seeds, "count")),
        Column("searches", lambda x: Number(x.searches, "count")),
        *(
            Column(word.partition(" ")[0], partial(_p, word), "p")
            for word in (*DIRECTED, "equivalent")
        ),
        Column("margin", lambda x: Number(x.margin_nats, "nats")),
        Column("detectable", lambda x: _known(x.detectable)),
        Column("seeds", lambda x: _known(x.components.seeds), "sd of"),
        Column("documents", lambda x: _known(x.components.documents), "sd of"),
        Column("residual", lambda x: _known(x.components.residual), "sd of"),
    ]
    errors: list[Column[Difference]] = [
        Column("arm", lambda x: Number(x.error_share[0], "fraction"), "errors"),
        Column("reference", lambda x: Number(x.error_share[1], "fraction"), "errors"),
    ]
    erred = any(any(x.difference.error_share) for x in found if x.difference)
    columns: list[Column[ArmVerdict]] = [
        arm_column(results, lambda row: results.arm(row.model, row.arm)),
        *about(lambda x: x.difference or "none", [*design, *(errors if erred else [])]),
        Column("detection limit", lambda x: _known(x.detection_limit)),
        Column("false words", _false_words),
    ]
    return filled(
        "contrasts",
        "What the verdicts rest on",
        columns,
        found,
        summary=(
            "One-sided p of each claim, the margin, the smallest difference that is "
            "found in 80 % of cases, and the standard deviations behind it, in "
            "nats/token."
        ),
        caption=(
            "p: one-sided, of each claim; the first two are shown at 1 % after Holm "
            "over the contrasts, the third at 2.5 %. detectable: the smallest true "
            "difference that such a design finds in 80 % of cases. sd of: what the "
            "difference varies by. detection limit: the strength from which on planted "
            "weaknesses are reliably found. false words: how often such an arm without "
            "any difference is called harder or easier to attack, simulated through "
            "the whole rule. In nats/token but for p and shares."
        ),
    )


def diagnostics_table(results: Results, verdicts: Verdicts) -> Table:
    """Return a row for each question, and a column for each arm."""

    def heading(found: ArmVerdict) -> str:
        named = label(results.arm(found.model, found.arm))
        return named.short or named.text

    asked = {answer.id for found in verdicts.arms for answer in found.diagnostics}
    columns: list[Column[DiagnosticId]] = [
        Column("diagnostic", Label),
        *(
            Column(
                heading(found),
                partial(_answer, found),
                names=names_of(results.arm(found.model, found.arm)),
            )
            for found in verdicts.arms
        ),
    ]
    return filled(
        "diagnostics",
        "Diagnostics",
        columns,
        [x for x in get_args(DiagnosticId) if x in asked],
        summary=(
            "The worst answer to each question over attacks and seeds, with the attack "
            "that it is about."
        ),
        caption=(
            "The worst answer over attacks and seeds, with the attack that it is "
            "about; -- where a question could not be asked. report/verdicts.json has "
            "every answer with value, interval, n, threshold and reason."
        ),
    )


# --- in words -----------------------------------------------------------------------


def paragraphs(found: ArmVerdict) -> Iterator[str]:
    """Yield the verdict on an arm, what it rests on, and its reasons, in sentences."""
    against = f" against {found.reference}" if found.reference else ""
    yield f"{found.model} ({found.arm}){against}: {found.verdict}"
    if found.difference is not None:
        yield f"  {'; '.join(_design(found, found.difference))}"
    for reason in found.reasons:
        yield f"  - {reason}"
    if found.difference is not None and _only_unclear(found, found.difference):
        yield f"  - {_what_would_decide(found.difference)}"


def brief(found: ArmVerdict) -> tuple[str, str]:
    """Return the difference that a verdict is about, and the reason for it.

    Each is a line, and empty where there is none; `paragraphs` has all that is known.
    """
    if found.difference is None:
        return "", "; ".join(found.reasons[: found.verdict != "reference"])
    difference = f"{number_text(_difference(found.difference))} nats/token"
    if _only_unclear(found, found.difference):
        return difference, _what_would_decide(found.difference)
    return difference, "; ".join(found.reasons)


def lines(verdicts: Verdicts) -> Sequence[str]:
    """Return what a terminal shows at the end of a run: a few lines for each arm."""
    shown = []
    for found in verdicts.arms:
        first, *others = paragraphs(found)
        shown += [f"verdict: {first}", *others]
    return shown


def _design(found: ArmVerdict, known: Difference) -> Iterator[str]:
    scope = SCOPES[found.scope or "weights"]
    shown = number_text(_difference(known))
    yield (
        f"about {scope}: {shown} nats/token (95 %), {known.documents} documents x "
        f"{known.seeds} {_plural('seed', known.seeds)}, {known.searches} "
        f"{_plural('search', known.searches)} a seed"
    )
    if known.detectable is not None:
        yield f"finds a true difference of {known.detectable:.2g} in 80 % of cases"
    if found.detection_limit is not None:
        yield f"planted weaknesses are found from {found.detection_limit:g} on"
    else:
        yield "no detection limit is known"
    equal = [
        answer.against or ""
        for answer in found.diagnostics
        if answer.id == "equal_clean_loss" and answer.status == "pass"
    ]
    if equal:
        yield f"of equal clean loss: {' and '.join(equal)}"
    falsely = _falsely(found)
    if falsely is not None:
        share = number_text(Number(falsely, "fraction"))
        yield f"without a difference, {share} are called harder or easier"


def _only_unclear(found: ArmVerdict, known: Difference) -> bool:
    """Say whether it is the difference alone that leaves an arm undecided."""
    shown = any(said.shown for said in known.claims)
    return found.verdict == "undecided" and not found.decided_by and not shown


def _what_would_decide(known: Difference) -> str:
    if known.needed is None and known.components.seeds is None:
        return "a single seed says nothing of what would decide: train three at least"
    if known.needed is None:
        return "if the difference is as found, no design that was thought of decides"
    return (
        f"if the difference is as found, {known.needed.documents} documents x "
        f"{known.needed.seeds} seeds would decide in 80 % of cases"
    )


def _plural(word: str, count: int) -> str:
    if count == 1:
        return word
    return f"{word}es" if word.endswith("ch") else f"{word}s"


# --- cells --------------------------------------------------------------------------


def _of(fill: Callable[[Difference], Cell], found: ArmVerdict) -> Cell:
    """Fill a cell about the difference; dashes where there is none."""
    return _NOTHING if found.difference is None else fill(found.difference)


def _clean(found: ArmVerdict) -> Cell:
    return _GAP if found.clean_loss is None else Number(found.clean_loss, "nats")


def _attacked(found: ArmVerdict) -> Cell:
    worst = found.worst_case
    if found.clean_loss is None or worst is None or worst.value is None:
        return _GAP
    return Number(found.clean_loss + worst.value, "nats")


def _difference(known: Difference) -> Number:
    return Number(known.value, "nats", signed=True, interval=known.interval)


def _p(word: str, known: Difference) -> Cell:
    said: dict[str, Said] = {claim.claim: claim for claim in known.claims}
    return Number(said[word].p, "p") if word in said else _NOTHING


def _known(value: float | None) -> Cell:
    return Missing("not known", brief=True) if value is None else Number(value, "nats")


def _falsely(found: ArmVerdict) -> float | None:
    if found.calibration is None:
        return None
    words = found.calibration.words
    return sum(share for word, share in words.items() if word in DIRECTED)


def _false_words(found: ArmVerdict) -> Cell:
    share = _falsely(found)
    if share is None:
        return Missing("not known", brief=True)
    return Number(share, "fraction")


def _answer(found: ArmVerdict, name: DiagnosticId) -> Cell:
    answers = [x for x in found.diagnostics if x.id == name]
    if not answers:
        return Missing("not asked", brief=True)
    worst = min(answers, key=lambda answer: _ORDER.index(answer.status))
    attack = f" ({worst.attack})" if worst.attack and worst.status != "pass" else ""
    return Label(f"{_WORDS[worst.status]}{attack}", alarm=worst.status == "fail")

"""The answers to a suite's claims: supported, refuted, undecided, or refused."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from harness.records import (
    BUDGET_TOLERANCE,
    TREATMENT_SEEDS,
    Answer,
    Bound,
    ClaimAnswer,
    ClaimsChange,
    Estimate,
    Needed,
    StatedClaim,
    Verdicts,
    holm,
)
from harness.verdicts.case import Case, Cases
from harness.verdicts.compared import Comparison, EverySeed, Side
from harness.verdicts.design import cheapest
from harness.verdicts.findings import Findings
from harness.verdicts.levels import CLAIM, ERRORS, SATURATED, UNITS
from harness.verdicts.losses import Losses
from harness.verdicts.measured import of_attack, of_metric, under_each
from harness.verdicts.questions.arms import determinism, replay
from harness.verdicts.results import Arm, AttackedCell, Results, mean_flops

_UNITS: Mapping[str, str] = {
    "change": "fraction",
    "success": "fraction",
    "dL": "nats/token",
}
_VOID = ("broken", "gradient-masked")
"""Verdicts on either arm with which what an attack does to it is no evidence."""


@dataclass(frozen=True)
class _Asked:
    """A claim about one model, and what the run has of it."""

    group: str
    label: str
    claim: StatedClaim
    arm: Arm
    other: Arm
    refusals: Sequence[str]
    """Why nothing could answer it."""
    found: Comparison | str
    """What was compared; or why that cannot be done."""
    obstacles: Sequence[str]
    """Why it stays undecided, whatever the numbers are."""

    unit: str = ""
    """Of a metric's number."""

    @property
    def known(self) -> Comparison | None:
        """What was compared, where anything was."""
        return None if isinstance(self.found, str) else self.found

    @property
    def open(self) -> Comparison | None:
        """What was compared, where that may decide."""
        return None if self.refusals or self.obstacles else self.known


def answer_claims(
    results: Results, findings: Findings, verdicts: Verdicts
) -> list[ClaimAnswer]:
    """Return the answer to every claim of a suite, for each model.

    Group by group, Holm over the claims of a group; `verdicts` are those of the run.
    """
    asker = _Asker(results, findings, verdicts)
    answers: list[ClaimAnswer] = []
    for group, stated in results.suite.stated_claims().items():
        asked = [
            asker.ask(group, label, claim, model)
            for label, claim in stated.items()
            for model in results.suite.models
        ]
        answers += _answers(asked, results.claims_changes.get(group))
    return answers


# --- what a claim is asked of -------------------------------------------------------


class _Asker:
    """Asks claims of one run."""

    def __init__(
        self, results: Results, findings: Findings, verdicts: Verdicts
    ) -> None:
        self._results, self._findings = results, findings
        self._cases, self._losses = Cases(findings), Losses(findings)
        self._verdicts = {(x.model, x.arm): x for x in verdicts.arms}

    def ask(self, group: str, label: str, claim: StatedClaim, model: str) -> _Asked:
        """Return a claim about a model with what the run has of it."""
        arm, other = (self._results.arm(model, x) for x in (claim.arm, claim.against))
        found = self._compared(claim, arm, other)
        return _Asked(
            group=group,
            label=label,
            claim=claim,
            arm=arm,
            other=other,
            refusals=[*self._refusals(claim, arm, other)],
            found=found,
            obstacles=[
                *_holes(claim, arm, other),
                *self._not_trusted(claim, arm, other),
                *_obstacles(claim, found),
            ],
            unit=_unit(claim, arm),
        )

    def _compared(self, claim: StatedClaim, arm: Arm, other: Arm) -> Comparison | str:
        def compare(among: Sequence[int] | None = None) -> Comparison | str:
            if claim.attack is not None:
                return of_attack(
                    self._losses,
                    arm,
                    other,
                    claim.attack,
                    threshold=claim.threshold,
                    among=among,
                )
            metric = _metric(self._results, claim)
            relative = claim.measure == "change"
            return of_metric(arm, other, metric, relative=relative, among=among)

        if not claim.every_seed:
            return compare()
        return under_each(_seeds(arm, other), compare, _worst(Bound.of(claim.bound)))

    def _refusals(self, claim: StatedClaim, arm: Arm, other: Arm) -> Iterator[str]:
        """Say why the run cannot answer a claim."""
        if claim.measure == "gap" and _unit(claim, arm) == "fraction":
            for size in {abs(at) for _, at in _ends(claim)}:
                if size >= 1:
                    yield f"no two fractions differ by {size:g}: 3 % is 0.03"
        if arm.same_training(other) is False:
            yield (
                f"{arm.label} and {other.label} were trained on other amounts, or on "
                "another order, of data"
            )
        for side in (arm, other):
            word = self._verdicts.get((side.model, side.label))
            if word is None:
                continue
            why = "; ".join(word.reasons)
            if word.verdict == "not applied":
                yield f"{side.label} is not what it promises: {why}"
            if claim.attack is not None and word.verdict in _VOID:
                yield f"{side.label} is called {word.verdict}: {why}"
        if claim.attack is not None:
            yield from self._invalid(claim.attack, arm, other)
            yield from _unequal(claim.attack, arm, other)

    def _invalid(self, attack: str, arm: Arm, other: Arm) -> Iterator[str]:
        """Say why what an attack does to the two arms is no evidence."""
        if "plant" in (arm.role, other.role):
            return  # with a planted weakness, it is no arm to compare
        own = self._findings.arm(arm.model, arm.label)
        case = Case(self._cases, replace(own, reference=other.label))
        for question in case.unsound:
            if question.status() == "fail":
                yield f"attack invalid on {other.label}: {question.otherwise}"
        provers = self._provers(attack)
        asked = [q for label in provers for q in case.proofs.get(label, [])]
        if provers and all(q.status() != "pass" for q in asked):
            why = [q.absence or q.otherwise for q in asked]
            reason = "; ".join(dict.fromkeys(filter(None, why)))
            yield (
                f"attack invalid: nothing shows that {attack} works on {other.label}: "
                f"{reason or 'no random control accompanies it'}"
            )

    def _not_trusted(self, claim: StatedClaim, arm: Arm, other: Arm) -> Iterator[str]:
        """Say where what an attack left behind is not what a pass gives again."""
        known = {(x.model, x.label): x for x in self._findings.arms}
        for side in (arm, other):
            own = known.get((side.model, side.label))
            if claim.attack is None or own is None:
                continue
            cells = {x.record.id for x in side.cells(claim.attack).values()}
            replayed = [x for x in own.replayed if x.cell in cells]
            asked = determinism(own), replay(replace(own, replayed=replayed))
            for question in asked:
                if question.status() == "fail":
                    yield f"{question.id} fails on {side.label}: {question.otherwise}"

    def _provers(self, attack: str) -> list[str]:
        """Return the attacks one of which has to beat its random control."""
        known = self._findings.attacks[attack]
        if known.role in ("main", "control"):
            return [attack] if known.role == "main" else []
        if known.of is not None:
            return [known.of]
        return [x.label for x in self._findings.of("main")]


def _metric(results: Results, claim: StatedClaim) -> tuple[str, str]:
    """Split the path of a metric's number: labels may hold dots."""
    stated = claim.metric or ""
    fitting = [x for x in results.suite.metrics if stated.startswith(f"{x}.")]
    label = max(fitting, key=len)  # the suite was checked for one
    return label, stated.removeprefix(f"{label}.")


def _unit(claim: StatedClaim, arm: Arm) -> str:
    """Return the unit of a metric's number; nothing of what is no metric's."""
    if claim.metric is None:
        return ""
    label, name = _metric(arm.results, claim)
    found = [x.results.get(label, {}).get(name) for x in arm.variants.values()]
    return next((x.unit for x in found if x is not None), "")


def _seeds(arm: Arm, other: Arm) -> list[int]:
    """Return the seeds that both arms were to get."""
    suite = arm.results.suite
    return [x for x in suite.seeds_of(arm.label) if x in suite.seeds_of(other.label)]


def _worst(bound: Bound) -> Callable[[Sequence[float]], int]:
    def worst(values: Sequence[float]) -> int:
        beyond = [max(x - bound.high, bound.low - x) for x in values]
        return beyond.index(max(beyond))

    return worst


def _unequal(attack: str, arm: Arm, other: Arm) -> Iterator[str]:
    """Say where an attack had another budget on one arm than on the other."""
    sides = [side.cells(attack) for side in (arm, other)]
    records = [[cell.record.attack for cell in side.values()] for side in sides]
    given = [
        {(x.share, str(x.options), str(x.examples)) for x in found if x is not None}
        for found in records
    ]
    if not all(given):
        return
    if len(given[0] | given[1]) > 1:
        yield f"{attack} had other options or another budget on one of the arms"
        return
    if (
        max(map(_error_share, sides)) <= ERRORS
        and not arm.results.attack(attack).replays
    ):
        own, base = map(mean_flops, sides)
        if abs(own - base) > BUDGET_TOLERANCE * max(own, base):
            yield (
                f"{attack} spent {own:.3g} FLOPs per example on {arm.label}, and "
                f"{base:.3g} on {other.label}"
            )


def _error_share(cells: Mapping[int, AttackedCell]) -> float:
    rows = sum(len(cell.rows) for cell in cells.values())
    return sum(cell.errors for cell in cells.values()) / rows


def _holes(claim: StatedClaim, arm: Arm, other: Arm) -> Iterator[str]:
    """Say which of the units that a claim is about are not complete."""
    wanted = {
        (side.model, side.label, seed)
        for side in (arm, other)
        for seed in _seeds(arm, other)
    }
    holes = [
        f"{unit.id} ({unit.state.status})"
        for unit in arm.results.survey.units
        if (unit.model, unit.arm, unit.seed) in wanted
        and unit.attack == claim.attack
        and unit.state.status != "complete"
    ]
    if holes:
        yield f"incomplete: {', '.join(holes)}"


def _obstacles(claim: StatedClaim, found: Comparison | str) -> Iterator[str]:
    """Say why numbers decide nothing, whatever they are."""
    if isinstance(found, str):
        yield found
        return
    if found.errors > ERRORS:
        share = f"{100 * found.errors:.2g} % of rows ended in an error"
        yield f"{share}: above {100 * ERRORS:g} % nothing is said"
    if 0 < found.units < UNITS:
        yield f"{found.units} {found.over} are fewer than {UNITS}"
    elif found.units == 0 and found.effective < UNITS:
        what = f"{found.effective:g} documents or task examples"
        yield f"the metric rests on {what}: fewer than {UNITS}"
    elif found.effective < UNITS:
        yield (
            f"{found.units} {found.over} of unequal size tell no more than "
            f"{int(found.effective)} equal ones: fewer than {UNITS}"
        )
    if claim.measure == "success" and min(found.sides) >= SATURATED:
        own, base = (f"{100 * x:.0f} %" for x in found.sides)
        yield f"success is saturated on both arms ({own} and {base}): see dL"
    if found.interval() is None:
        yield _no_interval(claim, found)


def _no_interval(claim: StatedClaim, found: Comparison) -> str:
    if claim.measure == "success":
        return "success on the other arm is too rare for a ratio to have an interval"
    if found.units == 0:
        return (
            "without rows to pair, there is no interval from fewer than "
            f"{TREATMENT_SEEDS} seeds, or from values that do not vary"
        )
    return "there is no interval from one document"


# --- answers ------------------------------------------------------------------------


def _answers(
    asked: Sequence[_Asked], changed: ClaimsChange | None
) -> Iterator[ClaimAnswer]:
    """Answer the claims of a group, each p corrected for their number."""
    supported, refuted = (
        holm([1.0 if x.open is None else p(x.claim, x.open) for x in asked])
        for p in (_p_supported, _p_refuted)
    )
    for one, yes, no in zip(asked, supported, refuted, strict=True):
        yield _answer(one, (yes, no), len(asked), changed)


def _p_supported(claim: StatedClaim, found: Comparison) -> float:
    """Return the p that the number lies within the bound."""
    return max(found.p(side, at) for side, at in _ends(claim))


def _p_refuted(claim: StatedClaim, found: Comparison) -> float:
    """Return the p that it lies outside: of two ends, corrected for that."""
    ends = [(_opposite(side), at) for side, at in _ends(claim)]
    p = found.p_of_any if isinstance(found, EverySeed) else found.p
    return len(ends) * min(p(side, at) for side, at in ends)


def _ends(claim: StatedClaim) -> list[tuple[Side, float]]:
    """Return the ends of a bound that are finite, and on which side of each it lies."""
    bound = Bound.of(claim.bound)
    ends: list[tuple[Side, float]] = [("below", bound.high), ("above", bound.low)]
    return [(side, at) for side, at in ends if abs(at) != float("inf")]


def _opposite(side: Side) -> Side:
    return "above" if side == "below" else "below"


def _answer(
    asked: _Asked, p: tuple[float, float], family: int, changed: ClaimsChange | None
) -> ClaimAnswer:
    claim, known = asked.claim, None if asked.refusals else asked.known
    answer, needed = _word(asked, p), None
    reasons = [*(asked.refusals or asked.obstacles)]
    if asked.open is not None and answer == "undecided":
        needed = _needed(claim, asked.open, family)
        reasons += _why_open(claim, asked.open, family, needed)
    if changed is not None:
        reasons.append(f"exploratory: {changed}")
    return ClaimAnswer(
        group=asked.group,
        label=asked.label,
        model=asked.arm.model,
        claim=claim,
        words=str(claim),
        answer=answer,
        scope=_scope(known) if known else None,
        exploratory=changed is not None,
        reasons=reasons,
        estimate=_estimate(asked, known) if known else None,
        sides=known.sides if known else None,
        seeds=known.seeds if known else 0,
        p_supported=p[0] if asked.open else None,
        p_refuted=p[1] if asked.open else None,
        level=CLAIM,
        needed=needed,
    )


def _word(asked: _Asked, p: tuple[float, float]) -> Answer:
    if asked.refusals:
        return "refused"
    if p[0] <= CLAIM:
        return "supported"
    return "refuted" if p[1] <= CLAIM else "undecided"


def _scope(found: Comparison) -> Literal["treatment", "weights"]:
    few = found.seeds < TREATMENT_SEEDS or isinstance(found, EverySeed)
    return "weights" if few else "treatment"


def _estimate(asked: _Asked, found: Comparison) -> Estimate:
    interval = found.interval()
    return Estimate(
        value=found.value,
        n=found.units or found.seeds,
        unit=_UNITS.get(asked.claim.measure) or asked.unit,
        method=found.method,
        interval=interval,
        reason=None if interval else _no_interval(asked.claim, found),
    )


# --- what would decide --------------------------------------------------------------


def _why_open(
    claim: StatedClaim, found: Comparison, family: int, needed: Needed | None
) -> Iterator[str]:
    bound, interval = Bound.of(claim.bound), found.interval()
    assert interval is not None  # else it could not decide
    within = bound.low <= interval[0] and interval[1] <= bound.high
    outside = interval[0] > bound.high or interval[1] < bound.low
    if within or outside:
        side = "within" if within else "outside"
        why = " and ".join(_corrections(found, family, within))
        yield f"its interval is {side} the bound, but not {why}"
    yield _what_would_decide(found, needed)


def _corrections(found: Comparison, family: int, within: bool) -> Iterator[str]:
    """Say what a p is corrected for that an interval is not."""
    if family > 1:
        yield f"after Holm's correction for the {family} claims of the group"
    if isinstance(found, EverySeed):
        each = "under every other seed"
        yield each if within else f"after the correction for {found.seeds} seeds"
    elif family == 1:
        yield "after the correction for both ends of the bound"


def _what_would_decide(found: Comparison, needed: Needed | None) -> str:
    if needed is not None:
        design = f"{needed.documents} {found.over} x {needed.seeds} seeds"
        return f"if it is as found, {design} would decide in 80 % of cases"
    if found.units == 0:
        return "what more documents would bring is not known without rows"
    if found.seeds < 2 and not isinstance(found, EverySeed):
        return "a single seed says nothing of what would decide: train three at least"
    return "if it is as found, no design that was thought of decides"


def _needed(claim: StatedClaim, found: Comparison, family: int) -> Needed | None:
    """Return the cheapest design that decides at the level of Holm's first step.

    The end of a bound that is nearer to the number is the one that is hard to show.
    """
    single = isinstance(found, EverySeed)  # more seeds do not help: each has to decide
    designs = []
    for side, at in _ends(claim):
        table = found.table(side, at)
        if table is None:
            return None
        goal, level = abs(table.mean), 1 - CLAIM / family
        design = cheapest(table, goal, level, [table.S] if single else None)
        if design is None:
            return None
        designs.append(design)
    largest = max(designs, key=lambda x: x.seeds * x.documents)
    return largest.model_copy(update={"seeds": found.seeds}) if single else largest

"""Questions across records: an arm against the baseline, an attack against controls.

All answers come from records and rows. Where something that a question needs is not
there, the answer is `not_applicable` with the reason; it never passes silently.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from harness.diagnostics import replay
from harness.diagnostics.cells import examine_rows
from harness.diagnostics.judged import Judged
from harness.diagnostics.planted import found_on
from harness.evidence.pairing import Pairing, pair, why_unpaired
from harness.evidence.results import INFORMATIVE, Attacked, Results, Subjects
from harness.records import Diagnostic, DiagnosticId, Estimate, Record
from harness.results import successes
from harness.statistics import bootstrap_mean, mcnemar, paired_difference, wilson
from harness.suites.scenes import scene_of

if TYPE_CHECKING:
    from harness.records import DiagnosticStatus

POINTS = 0.02
"""Of success, by which an attack is to beat its control and not to gain by length."""
SATURATED = 0.98
"""Success of a control above which there is no room for those points."""
NORM_RATIO = (1e-2, 1e2)
"""The gradient's norm against that of the baseline arm."""
FIDELITY_SHARE = 0.5
"""Of the baseline arm's first-order fidelity."""
UNBOUNDED_SUCCESS = 0.99
PLANTED_RECOVERY = 0.95
MATCH_NATS = 0.02
"""Clean losses that are as close as this are called equal."""
LEDGER_SHARE = 0.9
"""A control that spent less of the attack's FLOPs than this is no fair opponent."""
MCNEMAR_LEVEL = 0.05

_SEVERITY: dict[DiagnosticStatus, int] = {
    "not_applicable": 0,
    "pass": 1,
    "warn": 2,
    "fail": 3,
}
SUBJECT_IDS: tuple[DiagnosticId, ...] = (
    "determinism",
    "gradient_health",
    "gradient_truth",
    "first_order_fidelity",
)


@dataclass(frozen=True)
class Inquiry:
    """Asks everything about one model under one arm."""

    results: Results
    subjects: Subjects

    @property
    def baseline(self) -> Inquiry:
        """The same of the baseline arm."""
        return Inquiry(self.results, self.subjects.baseline)

    @property
    def is_baseline(self) -> bool:
        """Whether this is the baseline arm."""
        return self.subjects == self.subjects.baseline

    # --- attacks --------------------------------------------------------------------

    @cached_property
    def attacks(self) -> list[str]:
        """The attacks that search and are no control, by their labels."""
        return [label for label in self._planned if self._searches(label)]

    def controls(self, attack: str) -> list[str]:
        """Return the labels of the controls of an attack that this arm gets."""
        sections = self.results.suite.attacks
        return [label for label in self._planned if sections[label].match == attack]

    def uses_gradients(self, attack: str) -> bool:
        """Say whether an attack makes backward passes."""
        return bool(self._plugin(attack).budget(1).backward > 0)

    def worst(self, labels: Sequence[str]) -> dict[int, Attacked]:
        """Return, by seed, the row of highest dL of each example over some cells."""
        found = {}
        for seed in self.results.suite.seeds:
            cells = [self.results.cells(self.subjects, x).get(seed) for x in labels]
            there = [cell for cell in cells if cell is not None]
            if there and len(there) == len(labels):
                found[seed] = _highest(there)
        return found

    @cached_property
    def united(self) -> list[str]:
        """All attacks and controls that are complete, special roles left out."""
        sections = self.results.suite.attacks
        return [
            label
            for label in self._planned
            if sections[label].role is None and self.results.cells(self.subjects, label)
        ]

    @property
    def _planned(self) -> list[str]:
        labels = self.results.suite.attacks
        return [x for x in labels if self.results.planned(self.subjects, x)]

    def _plugin(self, label: str) -> Any:
        experiment = self.results.survey.plan.experiment
        scene = scene_of(experiment.suite, experiment.attacks, self.subjects.arm)
        return experiment.attacks[label].placed(scene)

    def _searches(self, label: str) -> bool:
        section, attack = self.results.suite.attacks[label], self._plugin(label)
        if section.match is not None or section.role is not None or attack.replays:
            return False
        budget = attack.budget(1)
        return bool(budget.forward or budget.backward)

    def _named(self, name: str) -> list[str]:
        return [label for label in self._planned if self._plugin(label).name == name]

    # --- all questions --------------------------------------------------------------

    def ask(self) -> list[Judged]:
        """Return the answers to all questions, in the order of docs/rigour.md."""
        answers = [
            *self._of_subjects(),
            *(answer for attack in self.attacks for answer in self._of_attack(attack)),
            *self._transfer(),
            self._planted_weakness(),
            self._equal_clean_loss(),
            self._worst_case(),
            self._replay(),
            self._completeness(),
        ]
        order = get_args(DiagnosticId)
        return sorted(answers, key=lambda answer: order.index(answer.id))

    # --- of subjects ----------------------------------------------------------------

    def _of_subjects(self) -> Iterator[Judged]:
        records = self.results.variants(self.subjects)
        for name in SUBJECT_IDS:
            found = {seed: _named(record, name) for seed, record in records.items()}
            there = {seed: each for seed, each in found.items() if each is not None}
            if not records:
                absence = self.results.absence(self.subjects)
                yield _absent(name, f"the variant is {absence}")
            elif len(there) < len(records):
                yield _absent(name, "its variants were not examined")
            elif name == "gradient_health":
                yield self._health(there)
            elif name == "first_order_fidelity":
                yield self._fidelity(there)
            else:
                yield _worst_of(there.values())

    def _health(self, found: dict[int, Diagnostic]) -> Judged:
        """Add the ratio of the gradient's norm to that of the baseline arm."""
        answer = _worst_of(found.values())
        ratio = self._norm_ratio(found)
        if self.is_baseline or ratio is None:
            return answer
        measured = {**answer.measured, "norm_ratio": ratio}
        low, high = NORM_RATIO
        changes: dict[str, Any] = {"measured": measured}
        if not low <= ratio <= high and answer.status != "fail":
            changes["status"] = "fail"
            changes["reason"] = f"norms are {ratio:.2g} times the baseline arm's"
        return answer.model_copy(update=changes)

    def _norm_ratio(self, found: dict[int, Diagnostic]) -> float | None:
        base = self.baseline._examined("gradient_health")
        logs = []
        for seed in found.keys() & base.keys():
            own, other = (x[seed].measured["norms"] for x in (found, base))
            if own and other and min(own) > 0 and min(other) > 0:
                logs.append(np.log(own).mean() - np.log(other).mean())
        return float(np.exp(np.mean(logs))) if logs else None

    def _fidelity(self, found: dict[int, Diagnostic]) -> Judged:
        """Hold the arm's rank correlation against the baseline arm's, in pairs."""
        answer = _merged(found.values())
        if self.is_baseline:
            return answer.model_copy(update={"status": "pass", "reason": None})
        base = self.baseline._examined("first_order_fidelity")
        pairs = [
            (value, base[seed].measured["examples"].get(example), example, seed)
            for seed in sorted(found.keys() & base.keys())
            for example, value in found[seed].measured["examples"].items()
        ]
        if not pairs or any(other is None for _, other, *_ in pairs):
            return _absent(
                "first_order_fidelity", "the baseline arm was not examined so"
            )
        own, other, examples, seeds = (list(x) for x in zip(*pairs, strict=True))
        share = FIDELITY_SHARE
        usual = bootstrap_mean(other, examples, seeds, unit="Spearman")
        excess = paired_difference(
            own, share * np.array(other), examples, seeds, unit="Spearman"
        )
        measured = {
            "baseline": usual.value,
            "baseline_interval": usual.interval,
            "excess_over_threshold": excess.value,
            "excess_interval": excess.interval,
        }
        known = {
            "threshold": share * (usual.value or 0.0),
            "measured": {**answer.measured, **measured},
        }
        status, reason = _fidelity_status(usual.interval, excess.value, excess.interval)
        return answer.model_copy(update={"status": status, "reason": reason, **known})

    def _examined(self, name: DiagnosticId) -> dict[int, Diagnostic]:
        records = self.results.variants(self.subjects)
        found = {seed: _named(record, name) for seed, record in records.items()}
        return {seed: each for seed, each in found.items() if each is not None}

    # --- of attacks -----------------------------------------------------------------

    def _of_attack(self, attack: str) -> Iterator[Judged]:
        names = {label: self._plugin(label).name for label in self.controls(attack)}
        randoms = [label for label, name in names.items() if name not in INFORMATIVE]
        permuted = [label for label, name in names.items() if name == "permuted"]
        yield from (self._beats(attack, label) for label in randoms)
        if "random" not in names.values():
            yield _absent("beats_random", "it has no random control", attack)
        yield from (self._ablation(attack, label) for label in permuted)
        if not self.uses_gradients(attack):
            yield _absent("gradient_ablation", "it uses no gradient", attack)
        else:
            if not permuted:
                yield _absent("gradient_ablation", "it has no permuted control", attack)
            yield from self._against_gradient_free(attack)
        yield from self._of_rows(attack)
        yield self._unbounded(attack)
        yield self._convergence(attack)

    def _beats(self, attack: str, control: str) -> Judged:
        """Compare dL and success with a control's; fires unless dL is higher."""
        pairing = self._pairing(attack, control)
        if isinstance(pairing, str):
            return _absent("beats_random", pairing, attack, control)
        difference = pairing.difference()
        threshold = self.results.threshold
        rates = [
            float(np.mean(successes(rows, threshold)))
            for rows in (pairing.first, pairing.second)
        ]
        spent = self._flops(control) / max(self._flops(attack), 1.0)
        status: DiagnosticStatus = "pass"
        reason = None
        if difference.interval is None:
            status, reason = "warn", "there is no interval"
        elif difference.interval[0] <= 0:
            status = "fail"
            reason = f"its dL is no higher than that of {control}"
        elif spent < LEDGER_SHARE:
            status, reason = "warn", f"{control} spent {spent:.0%} of its FLOPs"
        elif rates[0] - rates[1] < POINTS and rates[1] < SATURATED:
            status = "warn"
            points = 100 * (rates[0] - rates[1])
            reason = f"its dL is higher, its success by {points:.1f} points only"
        return _differs(
            "beats_random",
            attack,
            control,
            difference,
            status=status,
            reason=reason,
            measured={
                "success": rates[0],
                "control_success": rates[1],
                "success_p": pairing.success_p_value(threshold),
                "control_flops_share": spent,
            },
        )

    def _ablation(self, attack: str, control: str) -> Judged:
        """Compare with the same attack without the sense of its gradient."""
        pairing = self._pairing(attack, control)
        if isinstance(pairing, str):
            return _absent("gradient_ablation", pairing, attack, control)
        difference = pairing.difference()
        fires = difference.interval is not None and difference.interval[0] <= 0
        known = difference.interval is not None
        reason = f"shuffled gradients ({control}) do as well" if fires else None
        return _differs(
            "gradient_ablation",
            attack,
            control,
            difference,
            status="fail" if fires else "pass" if known else "warn",
            reason=reason if known else "there is no interval",
        )

    def _against_gradient_free(self, attack: str) -> Iterator[Judged]:
        """Compare with the attacks that search without a gradient."""
        for other in self.attacks:
            if self.uses_gradients(other):
                continue
            pairing = self._pairing(attack, other)
            if isinstance(pairing, str):
                yield _absent("gradient_ablation", pairing, attack, other)
                continue
            difference = pairing.difference()
            below = difference.interval is not None and difference.interval[1] < 0
            more = f"{other}, without a gradient, does more harm"
            yield _differs(
                "gradient_ablation",
                attack,
                other,
                difference,
                status="fail" if below else "pass",
                reason=more if below else None,
            )

    def _of_rows(self, attack: str) -> Iterator[Judged]:
        cells = self.results.cells(self.subjects, attack)
        if not cells:
            absence = f"its cell is {self.results.absence(self.subjects, attack)}"
            for name in ("iterative_beats_one_step", "budget_curve"):
                yield _absent(name, absence, attack)
            return
        by_seed = [examine_rows(cell.rows) for cell in cells.values()]
        for answers in zip(*by_seed, strict=True):
            yield _worst_of(answers).model_copy(update={"attack": attack})

    def _unbounded(self, attack: str) -> Judged:
        label = f"{attack}-unbounded"
        known: DiagnosticId = "unbounded_sanity"
        absence = self._no_role(label, "unbounded")
        if absence:
            return _absent(known, absence, attack)
        cells = self.results.cells(self.subjects, label).values()
        rows = [row for cell in cells for row in cell.rows]
        found = wilson(sum(successes(rows, self.results.threshold)), len(rows))
        assert found.value is not None
        fires = found.value < UNBOUNDED_SUCCESS
        reason = f"with every position free it succeeds on {found.value:.0%} only"
        return Judged(
            id=known,
            attack=attack,
            against=label,
            status="fail" if fires else "pass",
            value=found.value,
            interval=found.interval,
            n=found.n,
            threshold=UNBOUNDED_SUCCESS,
            unit="fraction",
            reason=reason if fires else None,
        )

    def _convergence(self, attack: str) -> Judged:
        label = f"{attack}-longer"
        absence = self._no_role(label, "longer")
        pairing = absence or self._pairing(label, attack)
        if isinstance(pairing, str):
            return _absent("convergence", pairing, attack)
        longer, usual = (
            successes(rows, self.results.threshold)
            for rows in (pairing.first, pairing.second)
        )
        gains = [float(a) - float(b) for a, b in zip(longer, usual, strict=True)]
        found = bootstrap_mean(
            gains, pairing.documents, pairing.seeds, unit="points of success / 100"
        )
        assert found.value is not None
        fires = found.value > POINTS
        more = pairing.difference()
        reason = f"twice the steps succeed on {100 * found.value:.1f} points more"
        return Judged(
            id="convergence",
            attack=attack,
            against=label,
            status="fail" if fires else "pass",
            value=found.value,
            interval=found.interval,
            n=found.n,
            threshold=POINTS,
            unit="fraction",
            reason=reason if fires else None,
            measured={"dL_gain": more.value, "dL_gain_interval": more.interval},
        )

    def _no_role(self, label: str, role: str) -> str:
        section = self.results.suite.attacks.get(label)
        if section is None or section.role != role:
            return f"the suite has no {label}: it takes diagnostics: full"
        if not self.results.cells(self.subjects, label):
            return f"{label} is {self.results.absence(self.subjects, label)}"
        return ""

    # --- of arms --------------------------------------------------------------------

    def _transfer(self) -> Iterator[Judged]:
        """Hold what was found on other arms against what was found on this one."""
        labels = self._named("transfer")
        white_box = self.attacks
        if not labels:
            yield _absent("transfer", "the suite has no attack transfer")
        elif not white_box:
            yield _absent("transfer", "nothing else attacks the arm")
        else:
            yield from (self._carried(label, white_box) for label in labels)

    def _carried(self, label: str, white_box: Sequence[str]) -> Judged:
        cells = self.results.cells(self.subjects, label)
        if not cells:
            absence = self.results.absence(self.subjects, label)
            return _absent("transfer", f"{label} is {absence}", label)
        pairing = pair(cells, self.worst(white_box))
        if pairing is None:
            return _absent("transfer", "what it compares with is not there", label)
        source = self._source(pairing)
        carried = [_from_source(row.trace, source) for row in pairing.first]
        if source is None or any(value is None for value in carried):
            return _absent("transfer", "its trace names no source for some rows", label)
        own = [row.delta_loss for row in pairing.second]
        found = paired_difference(
            [value or 0.0 for value in carried],
            own,
            pairing.documents,
            pairing.seeds,
            unit="nats/token",
        )
        least = np.log1p(self.results.threshold)
        hits = [(value or 0.0) > least for value in carried], [x > least for x in own]
        rates = [float(np.mean(hit)) for hit in hits]
        p_value = mcnemar(*hits)
        stronger = found.interval is not None and found.interval[0] > 0
        fires = stronger or (rates[0] > rates[1] and p_value < MCNEMAR_LEVEL)
        reason = f"what was found on {source} does more harm than what was found here"
        return Judged(
            id="transfer",
            attack=label,
            against=source,
            status="fail" if fires else "pass",
            value=found.value,
            interval=found.interval,
            n=found.n,
            threshold=0.0,
            unit="nats/token",
            reason=reason if fires else None,
            measured={
                "transferred_success": rates[0],
                "white_box_success": rates[1],
                "success_p": p_value,
            },
        )

    def _source(self, pairing: Pairing) -> str | None:
        """Return the arm to compare with: the baseline, or for it the strongest."""
        totals: dict[str, list[float]] = {}
        for row in pairing.first:
            for source in {step["source"] for step in row.trace if "source" in step}:
                best = _from_source(row.trace, source)
                totals.setdefault(str(source), []).append(best or 0.0)
        totals.pop(self.subjects.arm, None)
        if not self.is_baseline:
            return self.subjects.baseline.arm if totals else None
        return max(totals, key=lambda arm: float(np.mean(totals[arm])), default=None)

    def matches(self) -> list[Subjects]:
        """Return the arms that were brought to this arm's clean loss."""
        arms = self.results.suite.arms
        return [
            Subjects(self.subjects.model, label)
            for label, section in arms.items()
            if section.match_loss_of == self.subjects.arm
        ]

    def _equal_clean_loss(self) -> Judged:
        name: DiagnosticId = "equal_clean_loss"
        if self.is_baseline:
            return _absent(name, "it is what others are compared with")
        match, absence = self.match()
        if match is None:
            return _absent(name, absence)
        pairing = self.compared_with(match)
        if pairing is None:
            return _absent(name, f"{match.arm} has not been attacked alike")
        found = pairing.difference()
        below = found.interval is not None and found.interval[1] < 0
        reason = f"not more robust than {match.arm}, a baseline of equal clean loss"
        return Judged(
            id=name,
            against=match.arm,
            status="pass" if below else "fail",
            value=found.value,
            interval=found.interval,
            n=len(pairing.first),
            threshold=0.0,
            unit="nats/token",
            reason=None if below else reason,
        )

    def match(self) -> tuple[Subjects | None, str]:
        """Return the baseline of equal clean loss, or why there is none.

        It is the baseline arm itself where its clean loss is as close as that.
        """
        apart = self._clean_loss_apart()
        if apart is not None and abs(apart) <= MATCH_NATS:
            return self.subjects.baseline, ""
        found = self.matches()
        if not found:
            more = "it takes diagnostics: full"
            return None, f"no arm was brought to its clean loss: {more}"
        for record in self.results.variants(found[0]).values():
            if record.derivation is not None and not record.derivation.achieved:
                return None, f"{found[0].arm}: {record.derivation.reason}"
        if not self.results.variants(found[0]):
            return None, f"{found[0].arm} is {self.results.absence(found[0])}"
        return found[0], ""

    def _clean_loss_apart(self) -> float | None:
        """Return how far the clean loss is above the baseline's, in nats/token."""
        pairing = self.compared_with(self.subjects.baseline)
        if pairing is None:
            return None
        pairs = [
            (a.clean_loss, b.clean_loss)
            for a, b in zip(pairing.first, pairing.second, strict=True)
        ]
        known = [a - b for a, b in pairs if a is not None and b is not None]
        return float(np.mean(known)) if known else None

    def compared_with(self, other: Subjects) -> Pairing | None:
        """Pair the worst case with that of another arm, over what both have."""
        theirs = Inquiry(self.results, other)
        labels = [label for label in self.united if label in theirs.united]
        return pair(self.worst(labels), theirs.worst(labels)) if labels else None

    def _planted_weakness(self) -> Judged:
        name: DiagnosticId = "planted_weakness"
        arms = self.results.suite.arms
        copies = [
            Subjects(self.subjects.model, label)
            for label, section in arms.items()
            if section.constraint == "planted"
            and section.derive_from == self.subjects.arm
        ]
        if not copies:
            more = "it takes diagnostics: full"
            return _absent(name, f"no weakness was planted into a copy: {more}")
        copy = copies[0]
        records = self.results.variants(copy)
        if not records:
            return _absent(name, f"{copy.arm} is {self.results.absence(copy)}")
        for record in records.values():
            made = record.derivation
            if made is None or not made.achieved:
                why = made.reason if made is not None else "nothing was planted"
                return _absent(name, f"{copy.arm}: {why}")
        return self._recovered(copy, records)

    def _recovered(self, copy: Subjects, records: dict[int, Record]) -> Judged:
        """Count the examples on which an attack found the trigger, or as much harm."""
        name: DiagnosticId = "planted_weakness"
        theirs = Inquiry(self.results, copy)
        worst = theirs.worst([x for x in theirs.attacks if self.results.cells(copy, x)])
        hits: list[bool] = []
        for seed, cell in worst.items():
            if seed in records:
                hits += found_on(records[seed], cell.rows)
        if not hits:
            return _absent(name, f"no attack on {copy.arm} is complete")
        found = wilson(sum(hits), len(hits))
        assert found.value is not None
        fires = found.value < PLANTED_RECOVERY
        reason = f"the planted weakness was found on {found.value:.0%} only"
        return Judged(
            id=name,
            against=copy.arm,
            status="fail" if fires else "pass",
            value=found.value,
            interval=found.interval,
            n=found.n,
            threshold=PLANTED_RECOVERY,
            unit="fraction",
            reason=reason if fires else None,
        )

    def _worst_case(self) -> Judged:
        cells = self.worst(self.united)
        rows = [(seed, row) for seed, cell in cells.items() for row in cell.rows]
        if not rows:
            return _absent("worst_case", "no attack is complete")
        found = bootstrap_mean(
            [row.delta_loss for _, row in rows],
            [row.document_id for _, row in rows],
            [seed for seed, _ in rows],
            unit="nats/token",
        )
        hits = successes([row for _, row in rows], self.results.threshold)
        return Judged(
            id="worst_case",
            status="pass",
            value=found.value,
            interval=found.interval,
            n=len(rows),
            unit="nats/token",
            measured={"success": float(np.mean(hits)), "attacks": self.united},
        )

    def _replay(self) -> Judged:
        """Hold what a fresh process scored against the arm's records."""
        name: DiagnosticId = "replay"
        known = replay.read(self.results.survey.folder)
        found = []
        for label in self._planned:
            for cell in self.results.cells(self.subjects, label).values():
                answer = known.get(cell.record.id)
                samples = cell.record.samples
                if answer is None or samples is None:
                    continue
                if answer["samples_sha256"] == samples.sha256:
                    found.append((cell.record.id, answer))
        if not found:
            more = "it takes diagnostics: full"
            return _absent(name, f"nothing was replayed: {more}")
        broken = [f"{cell}: {x['error']}" for cell, x in found if "error" in x]
        apart = [x["largest"] for _, x in found if x.get("largest") is not None]
        largest = max(apart, default=None)
        reason = broken[0] if broken else None
        if largest is None:
            reason = reason or "there was no row to replay"
        elif largest > replay.TOLERANCE_NATS and not reason:
            reason = f"a replayed loss is {largest:.3g} nats/token off the record"
        return Judged(
            id=name,
            status="fail" if reason else "pass",
            value=largest,
            n=sum(x.get("passes", 0) for _, x in found),
            threshold=replay.TOLERANCE_NATS,
            unit="nats/token",
            reason=reason,
            measured={
                "cells": len(found),
                "plain": all(x.get("plain", False) for _, x in found),
            },
        )

    def _completeness(self) -> Judged:
        derived = [
            label
            for label, section in self.results.suite.arms.items()
            if section.derive_from is not None
            and self.subjects.arm in (section.derive_from, section.match_loss_of)
        ]
        arms = {self.subjects.arm, self.subjects.baseline.arm, *derived}
        units = [
            unit
            for unit in self.results.survey.units
            if unit.model == self.subjects.model and unit.arm in arms
        ]
        holes = [unit for unit in units if unit.state.status != "complete"]
        named = ", ".join(f"{unit.id} ({unit.state.status})" for unit in holes[:3])
        more = f" and {len(holes) - 3} more" if len(holes) > 3 else ""
        return Judged(
            id="completeness",
            status="fail" if holes else "pass",
            value=float(len(holes)),
            n=len(units),
            threshold=0.0,
            unit="missing units",
            reason=f"not complete: {named}{more}" if holes else None,
        )

    # --- cells ----------------------------------------------------------------------

    def _pairing(self, first: str, second: str) -> Pairing | str:
        """Pair two attacks on this arm, or say why that cannot be done."""
        cells = [self.results.cells(self.subjects, x) for x in (first, second)]
        sides = {x: (self.subjects, x) for x in (first, second)}
        return pair(*cells) or why_unpaired(self.results, sides)

    def _flops(self, label: str) -> float:
        cells = self.results.cells(self.subjects, label).values()
        return float(np.mean([cell.flops_per_example for cell in cells]))


# --- answers ------------------------------------------------------------------------


def _differs(
    known: DiagnosticId, attack: str, against: str, found: Estimate, **answer: Any
) -> Judged:
    """Answer by a difference in dL of an attack and what it is held against."""
    return Judged(
        id=known,
        attack=attack,
        against=against,
        value=found.value,
        interval=found.interval,
        n=found.n,
        threshold=0.0,
        unit="nats/token",
        **answer,
    )


def _absent(
    name: DiagnosticId,
    reason: str,
    attack: str | None = None,
    against: str | None = None,
) -> Judged:
    return Judged(
        id=name,
        attack=attack,
        against=against,
        status="not_applicable",
        value=None,
        n=0,
        unit="none",
        reason=reason,
    )


def _named(record: Record, name: DiagnosticId) -> Diagnostic | None:
    return next((each for each in record.diagnostics if each.id == name), None)


def _worst_of(answers: Iterable[Diagnostic]) -> Judged:
    """Return the answer of the seed that is worst; of equals, the highest value."""

    def badness(answer: Diagnostic) -> tuple[int, float]:
        return _SEVERITY[answer.status], abs(answer.value or 0.0)

    return Judged(**max(answers, key=badness).model_dump())


def _merged(answers: Iterable[Diagnostic]) -> Judged:
    """Average the answers of several seeds, documents and seeds resampled."""
    found = list(answers)
    pairs = [
        (value, example, index)
        for index, each in enumerate(found)
        for example, value in each.measured["examples"].items()
    ]
    values, examples, seeds = (list(x) for x in zip(*pairs, strict=True))
    mean = bootstrap_mean(values, examples, seeds, unit="Spearman", over="examples")
    return Judged(
        **{
            **found[0].model_dump(),
            "value": mean.value,
            "interval": mean.interval,
            "n": sum(each.n for each in found),
        }
    )


def _fidelity_status(
    usual: tuple[float, float] | None,
    excess: float | None,
    interval: tuple[float, float] | None,
) -> tuple[DiagnosticStatus, str | None]:
    if usual is None or interval is None or excess is None:
        return "warn", "there is no interval"
    if usual[0] <= 0:
        return "warn", "the baseline arm's gradient ranks flips no better than chance"
    if interval[1] < 0:
        return "fail", "gradients rank flips less than half as well as the baseline's"
    if excess < 0:
        return "warn", "below half of the baseline's, but the interval includes half"
    return "pass", None


def _highest(cells: Sequence[Attacked]) -> Attacked:
    best = {row.example_id: row for row in cells[0].rows}
    for cell in cells[1:]:
        for row in cell.rows:
            if row.delta_loss > best[row.example_id].delta_loss:
                best[row.example_id] = row
    return Attacked(list(best.values()))


def _from_source(trace: Sequence[dict[str, Any]], source: str | None) -> float | None:
    found = [step["delta_loss"] for step in trace if step.get("source") == source]
    return max(found, default=None)

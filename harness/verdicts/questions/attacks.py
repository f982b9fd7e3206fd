"""Questions to an attack on an arm: against its controls, and other forms of itself."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from harness.records import DiagnosticStatus, Judged, bootstrap_mean, successes, wilson
from harness.verdicts.questions.answers import FULL, absent, answer
from harness.verdicts.results import Arm, mean_flops

POINTS = 0.02
"""Of success, by which an attack is to beat its control and not to gain by length."""
SATURATED = 0.98
"""Success of a control above which there is no room for those points."""
LEDGER_SHARE = 0.9
"""A control that spent less of the attack's FLOPs than this is no fair opponent."""
UNBOUNDED_SUCCESS = 0.99


def against_controls(arm: Arm, attack: str) -> Iterator[Judged]:
    """Hold an attack against random search, and against what uses no gradient."""
    controls = {x: arm.results.attack(x).shows for x in arm.controls(attack)}
    randoms = [label for label, shows in controls.items() if shows == "search"]
    permuted = [label for label, shows in controls.items() if shows == "gradient"]
    yield from (_beats(arm, attack, label) for label in randoms)
    if not randoms:
        yield absent(
            "beats_random", "it has no control by random search", attack=attack
        )
    yield from (_ablation(arm, attack, label) for label in permuted)
    if not arm.uses_gradients(attack):
        yield absent("gradient_ablation", "it uses no gradient", attack=attack)
        return
    if not permuted:
        yield absent(
            "gradient_ablation",
            "it has no control with shuffled gradients",
            attack=attack,
        )
    others = [label for label in arm.attacks if not arm.uses_gradients(label)]
    yield from (_gradient_free(arm, attack, label) for label in others)


def _beats(arm: Arm, attack: str, control: str) -> Judged:
    """Compare dL and success with a control's; fires unless dL is higher."""
    pairing = arm.pairing(attack, control)
    if isinstance(pairing, str):
        return absent("beats_random", pairing, attack=attack, against=control)
    difference = pairing.difference()
    threshold = arm.results.threshold
    rates = [
        float(np.mean(successes(rows, threshold)))
        for rows in (pairing.first, pairing.second)
    ]
    flops = [mean_flops(arm.cells(label)) for label in (attack, control)]
    spent = flops[1] / max(flops[0], 1.0)
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
        reason = f"its dL is higher, but its success by only {points:.1f} points"
    return answer(
        "beats_random",
        difference,
        attack=attack,
        against=control,
        status=status,
        reason=reason,
        measured={
            "success": rates[0],
            "control_success": rates[1],
            "success_p": pairing.success_p_value(threshold),
            "control_flops_share": spent,
        },
    )


def _ablation(arm: Arm, attack: str, control: str) -> Judged:
    """Compare with the same attack on shuffled gradients."""
    pairing = arm.pairing(attack, control)
    if isinstance(pairing, str):
        return absent("gradient_ablation", pairing, attack=attack, against=control)
    difference = pairing.difference()
    status: DiagnosticStatus = "pass"
    reason = None
    if difference.interval is None:
        status, reason = "warn", "there is no interval"
    elif difference.interval[0] <= 0:
        status, reason = "fail", f"shuffled gradients ({control}) do as well"
    return answer(
        "gradient_ablation",
        difference,
        attack=attack,
        against=control,
        status=status,
        reason=reason,
    )


def _gradient_free(arm: Arm, attack: str, other: str) -> Judged:
    """Compare with an attack that searches without a gradient."""
    pairing = arm.pairing(attack, other)
    if isinstance(pairing, str):
        return absent("gradient_ablation", pairing, attack=attack, against=other)
    difference = pairing.difference()
    fires = difference.interval is not None and difference.interval[1] < 0
    more = f"{other}, which uses no gradient, raises the loss more"
    return answer(
        "gradient_ablation",
        difference,
        attack=attack,
        against=other,
        reason=more if fires else None,
    )


# --- other forms of itself ----------------------------------------------------------


def unbounded(arm: Arm, attack: str) -> Judged:
    """Count the successes of the attack with every position free."""
    label = f"{attack}-unbounded"
    absence = _no_role(arm, label, "unbounded")
    if absence:
        return absent("unbounded_sanity", absence, attack=attack)
    rows = [row for cell in arm.cells(label).values() for row in cell.rows]
    found = wilson(sum(successes(rows, arm.results.threshold)), len(rows))
    assert found.value is not None
    few = f"with every position free it succeeds on only {found.value:.0%}"
    return answer(
        "unbounded_sanity",
        found,
        attack=attack,
        against=label,
        threshold=UNBOUNDED_SUCCESS,
        reason=few if found.value < UNBOUNDED_SUCCESS else None,
    )


def convergence(arm: Arm, attack: str) -> Judged:
    """Compare with the attack at twice the steps or restarts."""
    label = f"{attack}-longer"
    pairing = _no_role(arm, label, "longer") or arm.pairing(label, attack)
    if isinstance(pairing, str):
        return absent("convergence", pairing, attack=attack)
    longer, usual = (
        successes(rows, arm.results.threshold)
        for rows in (pairing.first, pairing.second)
    )
    gains = [float(a) - float(b) for a, b in zip(longer, usual, strict=True)]
    found = bootstrap_mean(gains, pairing.documents, pairing.seeds, unit="fraction")
    assert found.value is not None
    more = f"twice the steps raise success by {100 * found.value:.1f} points"
    gain = pairing.difference()
    return answer(
        "convergence",
        found,
        attack=attack,
        against=label,
        threshold=POINTS,
        reason=more if found.value > POINTS else None,
        measured={"dL_gain": gain.value, "dL_gain_interval": gain.interval},
    )


def _no_role(arm: Arm, label: str, role: str) -> str:
    section = arm.results.suite.attacks.get(label)
    if section is None or section.role != role:
        return f"the suite has no {label}: {FULL}"
    return "" if arm.cells(label) else f"{label} is {arm.absence(label)}"

"""Whether an arm is more robust than a baseline that is as bad a model as it is."""

from __future__ import annotations

from statistics import fmean

from harness.records import Judged
from harness.verdicts.pairing import Pairing
from harness.verdicts.questions.answers import FULL, absent, answer
from harness.verdicts.results import Arm

MATCH_NATS = 0.02
"""Clean losses that are as close as this are called equal."""


def equal_clean_loss(arm: Arm) -> Judged:
    """Hold the arm's worst case against that of its match."""
    if arm.is_baseline:
        return absent("equal_clean_loss", "it is the baseline arm")
    match = match_of(arm)
    if isinstance(match, str):
        return absent("equal_clean_loss", match)
    name, pairing = match.label, arm.against(match)
    if pairing is None:
        return absent("equal_clean_loss", f"{name} has not been attacked alike")
    found, apart = pairing.difference(), _clean_loss_apart(pairing)
    if apart is None or abs(apart) > MATCH_NATS:
        return answer(
            "equal_clean_loss",
            found,
            against=name,
            status="warn",
            reason=f"{name} is no match: {_spelt(apart)}",
            measured={"clean_loss_apart": apart},
        )
    below = found.interval is not None and found.interval[1] < 0
    reason = f"not more robust than {name}, a baseline of equal clean loss"
    return answer(
        "equal_clean_loss",
        found,
        against=name,
        reason=None if below else reason,
        measured={"clean_loss_apart": apart},
    )


def match_of(arm: Arm) -> Arm | str:
    """Return the baseline of equal clean loss, or why there is none.

    It is the baseline arm itself where its clean loss is as close as that.
    """
    pairing = arm.against(arm.baseline)
    apart = _clean_loss_apart(pairing) if pairing is not None else None
    if apart is not None and abs(apart) <= MATCH_NATS:
        return arm.baseline
    sections = arm.results.suite.arms.items()
    brought = [x for x, section in sections if section.match_loss_of == arm.label]
    if not brought:
        return f"no arm was made to match its clean loss: {FULL}"
    match = arm.results.arm(arm.model, brought[0])
    for record in match.variants.values():
        if record.derivation is not None and not record.derivation.achieved:
            return f"{brought[0]}: {record.derivation.reason}"
    return match if match.variants else f"{brought[0]} is {match.absence()}"


def _spelt(apart: float | None) -> str:
    if apart is None:
        return "there is no clean loss to compare"
    return (
        f"on the attacked examples, the arm's clean loss differs from its own by "
        f"{apart:+.3f} nats/token, more than {MATCH_NATS}"
    )


def _clean_loss_apart(pairing: Pairing) -> float | None:
    """Return how far the first side's clean loss is above the second's, in nats."""
    apart = [
        own.clean_loss - base.clean_loss
        for own, base in zip(pairing.first, pairing.second, strict=True)
        if own.clean_loss is not None and base.clean_loss is not None
    ]
    return fmean(apart) if apart else None

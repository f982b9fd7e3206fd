"""Signs of a hidden gradient, on rows with an error in every cell, counted by hand.

An error counts against the sign: nothing found by what needs no gradient, full harm by
what does, and on the other arm the other way round.
"""

from dataclasses import replace

import numpy as np
import pytest

from harness.records.crossed import Crossed
from harness.verdicts.findings import Attack
from harness.verdicts.losses import Losses
from harness.verdicts.questions.masking import masking
from tests.verdicts.simulated import (
    blurred,
    changed,
    edited,
    flawless,
    instead,
    rows_of,
    scaled,
    without,
)

FULL, NONE = True, False


def suite(findings, *attacks):
    """Return findings of a suite with these attacks alone."""
    return replace(findings, attacks={x.label: x for x in attacks})


def asked(findings, name):
    arm, other = (findings.arm("m", x) for x in ("treated", "baseline"))
    (found,) = [x for x in masking(Losses(findings), arm, other) if x.id == name]
    return found


def joined(own, others):
    """Return the p of an advantage and of its being larger than elsewhere."""
    more, larger = (Crossed.of(x).p_above() for x in (own, own - others))
    return max(more, larger), more > larger


@pytest.mark.parametrize("control", [False, True])
def test_what_needs_no_gradient_is_held_against_what_does(control):
    blind = Attack("query", "control", of="flip", shows="search")
    blind = blind if control else Attack("query")
    which = set()
    for seed in range(8):
        findings = suite(
            blurred(flawless(0.5), seed), Attack("flip", gradients=True), blind
        )
        findings = scaled(findings, "treated", "flip", 0.8)
        findings = scaled(findings, "baseline", "flip", 0.75 + 0.02 * seed)
        expected, first = joined(
            *(
                rows_of(findings, label, "query", side)
                - rows_of(findings, label, "flip", not side)
                for label, side in (("treated", NONE), ("baseline", FULL))
            )
        )
        assert asked(findings, "gradient_ablation").claim.p[0] == pytest.approx(
            expected
        )
        which.add(first)
    assert which == {True, False}


def test_what_was_found_elsewhere_is_held_against_the_most_that_was_found_here():
    attacks = [Attack("flip"), Attack("query"), Attack("transfer", "transfer")]
    which = set()
    for seed in range(8):
        findings = suite(blurred(flawless(0.5), seed), *attacks)
        sides = []
        for label, source, scale, full in (
            ("treated", "baseline", 2.5, NONE),
            ("baseline", "treated", 1.0 + 0.2 * seed, FULL),
        ):
            carried = scale * findings.arm("m", label).cells["transfer"].sources[source]
            found = {source: carried}
            findings = edited(findings, label, "transfer", sources=found)
            own = [rows_of(findings, label, x, not full) for x in ("flip", "query")]
            sides.append(instead(findings, carried, full) - np.max(own, axis=0))
        expected, first = joined(*sides)
        assert asked(findings, "transfer").claim.p[0] == pytest.approx(expected)
        which.add(first)
    assert which == {True, False}


@pytest.mark.parametrize(
    ("times", "strong", "hidden"),
    [
        (1.0, 3, "fail"),
        (1.0, 2, "pass"),
        (2.0, 2, "fail"),
        (2.1, 2, "pass"),
        (4.0, 1, "fail"),
        (8.0, 0, "fail"),
        (8.0, 1, "pass"),
        (8.1, 0, "not_applicable"),
    ],
)
def test_the_largest_budget_that_costs_no_more_is_compared(times, strong, hidden):
    findings = suite(flawless(0.5), Attack("flip", gradients=True), Attack("query"))
    findings = scaled(findings, "baseline", "query", 0.1)
    growth = np.where(np.arange(4) == strong, 2.0, 0.1)
    findings = scaled(findings, "treated", "query", growth)
    for label in ("treated", "baseline"):
        flops = times * findings.arm("m", label).cells["query"].flops
        findings = edited(findings, label, "query", flops=flops)
    assert asked(findings, "gradient_ablation").status() == hidden


@pytest.mark.parametrize(
    ("attack", "label", "times", "changes", "hidden"),
    [
        ("query", "treated", 1.0, {"checkpoints": False}, "fail"),
        ("query", "treated", 2.0, {"checkpoints": False}, "not_applicable"),
        ("query", "baseline", 2.0, {"checkpoints": False}, "not_applicable"),
        ("flip", "treated", 2.0, {"checkpoints": False}, "fail"),
        ("query", "treated", 1.0, {"flops": None}, "not_applicable"),
        ("query", "baseline", 1.0, {"flops": np.full(4, 1e9)}, "not_applicable"),
        ("flip", "baseline", 1.0, {"flops": None}, "not_applicable"),
        ("query", "treated", 1.0, None, "not_applicable"),
        ("flip", "baseline", 1.0, None, "not_applicable"),
    ],
)
def test_a_budget_is_compared_where_prompts_were_kept_and_costs_are_known(
    attack, label, times, changes, hidden
):
    findings = suite(flawless(0.5), Attack("flip", gradients=True), Attack("query"))
    for each, scale in (("treated", 2.0), ("baseline", 0.1)):
        findings = scaled(findings, each, "query", scale)
        flops = times * findings.arm("m", each).cells["query"].flops
        findings = edited(findings, each, "query", flops=flops)
    if changes is None:
        findings = without(findings, label, attack)
    else:
        findings = edited(findings, label, attack, **changes)
    assert asked(findings, "gradient_ablation").status() == hidden


def test_where_nothing_else_attacks_both_arms_nothing_carried_shows_anything():
    attacks = [Attack("flip"), Attack("transfer", "transfer")]
    findings = suite(flawless(0.5), *attacks)
    cells = {"transfer": findings.arm("m", "treated").cells["transfer"]}
    found = asked(changed(findings, "treated", cells=cells), "transfer")
    assert found.absence == "nothing else attacks the arm"


def test_what_was_carried_under_other_seeds_than_those_attacked_shows_nothing():
    attacks = [Attack("flip"), Attack("transfer", "transfer")]
    findings = suite(flawless(0.5), *attacks)
    there = findings.arm("m", "treated").cells["transfer"].there
    first = np.arange(len(there)) == 0
    findings = edited(findings, "treated", "transfer", there=there & first)
    for label in ("treated", "baseline"):
        findings = edited(findings, label, "flip", there=there & ~first)
    found = asked(findings, "transfer")
    assert found.absence == "no seed has all that is compared"


@pytest.mark.parametrize(
    ("diagnostics", "gradients", "asks"),
    [
        ("full", True, 1),
        ("full", False, 0),
        ("standard", True, 1),
        ("standard", False, 1),
    ],
)
def test_replays_are_missed_unless_a_full_suite_has_no_gradient_to_hide(
    diagnostics, gradients, asks
):
    findings = suite(
        flawless(0.5, diagnostics=diagnostics), Attack("flip", gradients=gradients)
    )
    arm, other = (findings.arm("m", x) for x in ("treated", "baseline"))
    found = [x for x in masking(Losses(findings), arm, other) if x.id == "transfer"]
    assert len(found) == asks

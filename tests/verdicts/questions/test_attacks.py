"""What attacks are asked, on rows with an error in every cell, against a count by hand.

An error counts against the attack: full harm of its control or of its smaller budget.
"""

from dataclasses import replace

import numpy as np
import pytest

from harness.records.crossed import Crossed
from harness.records.margin import Margin
from harness.verdicts.findings import Attack
from harness.verdicts.losses import Losses
from harness.verdicts.questions.attacks import Sides, beats, of_attack
from tests.verdicts.simulated import blurred, changed, flawless, rows_of

FULL, NONE = True, False
FOUND = blurred(flawless(0.5), seed=1)


@pytest.mark.parametrize("checkpoints", [True, False])
def test_an_attack_is_held_against_its_control_at_each_share_that_was_measured(
    checkpoints,
):
    cells = dict(FOUND.arm("m", "treated").cells)
    cells["flip-random"] = replace(cells["flip-random"], checkpoints=checkpoints)
    findings = changed(FOUND, "treated", cells=cells)
    claims = beats(
        Losses(findings), findings.arm("m", "treated"), "flip", "flip-random"
    )
    expected = [
        rows_of(FOUND, "treated", "flip", NONE, share).mean()
        - rows_of(FOUND, "treated", "flip-random", FULL, share).mean()
        for share in (range(4) if checkpoints else [3])
    ]
    assert [x.about.mean[0] for x in claims] == pytest.approx(expected)


def test_of_a_few_searches_for_all_examples_only_the_whole_budget_is_compared():
    findings = flawless(0.5, seeds=1)
    attacks = dict(findings.attacks)
    attacks["flip"] = replace(attacks["flip"], universal=True)
    cells = dict(findings.arm("m", "treated").cells)
    searches = np.stack([cells["flip"].delta[..., 3]] * 2, axis=1)
    cells["flip"] = replace(cells["flip"], replicates=searches)
    findings = changed(replace(findings, attacks=attacks), "treated", cells=cells)
    (claim,) = beats(
        Losses(findings), findings.arm("m", "treated"), "flip", "flip-random"
    )
    assert (claim.seeds, claim.searches) == (1, 3)


def asked(findings, name, *, exchanged):
    arm, other = (findings.arm("m", x) for x in ("treated", "baseline"))
    sides = Sides(other, arm, other) if exchanged else Sides(arm, other, other)
    questions = of_attack(Losses(findings), sides, findings.attacks["flip"])
    (found,) = [x for x in questions if x.id == name]
    return found


@pytest.mark.parametrize(
    ("margin", "share", "nats"),
    [(Margin(relative=0.1), 0.05, 0.0), (Margin(nats=0.06), 0.0, 0.03)],
)
@pytest.mark.parametrize("exchanged", [False, True])
def test_budgets_are_compared_with_errors_against_the_attack(
    margin, share, nats, exchanged
):
    arm, other = ("baseline", "treated") if exchanged else ("treated", "baseline")
    largest = set()
    for seed in range(6):
        findings = blurred(flawless(0.5, margin=margin), seed, higher=seed % 3)
        reference = rows_of(findings, "baseline", "flip", NONE)

        def p(rows, reference=reference):
            return Crossed.of(rows - share * reference).p_below(nats)

        budgets = [(rows_of(findings, arm, "flip", FULL, k), k) for k in range(3)]
        steps = [
            p(rows - rows_of(findings, arm, "flip", NONE, k + 1)) for rows, k in budgets
        ]
        largest.add(int(np.argmax(steps)))
        found = asked(findings, "budget_curve", exchanged=exchanged)
        assert found.claim.p[0] == pytest.approx(max(steps))
        gain, elsewhere = (
            rows_of(findings, label, "flip", twice)
            - rows_of(findings, label, "flip", not twice, 2)
            for label, twice in ((arm, FULL), (other, NONE))
        )
        found = asked(findings, "convergence", exchanged=exchanged)
        assert found.claim.p[0] == pytest.approx(p(gain - elsewhere))
        assert (found.against, found.claim.mu, found.level) == (other, nats, 0.025)
    assert largest == {0, 1, 2}


def test_a_form_without_limit_needs_a_control_of_its_own():
    attacks = dict(FOUND.attacks)
    del attacks["flip-unbounded-random"]
    lacking = asked(
        replace(FOUND, attacks=attacks), "unbounded_sanity", exchanged=False
    )
    assert lacking.absence == "flip-unbounded has no control by random search"
    found = asked(FOUND, "unbounded_sanity", exchanged=False)
    assert (found.against, found.absence) == ("flip-unbounded-random", None)


@pytest.mark.parametrize(
    ("attack", "ids"),
    [
        (Attack("flip", gradients=True), ["beats_random", "gradient_ablation"]),
        (Attack("flip"), ["beats_random"]),
    ],
)
@pytest.mark.parametrize("limited", [True, False])
def test_what_applies_to_an_attack_is_asked(attack, ids, limited):
    arm = FOUND.arm("m", "treated")
    own = replace(attack, limited=limited)
    questions = of_attack(Losses(FOUND), Sides(arm, arm, arm), own)
    of_all = ["budget_curve", "convergence"]
    expected = [*ids, *of_all, *["unbounded_sanity"] * limited]
    assert [x.id for x in questions] == expected

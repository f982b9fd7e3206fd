"""Verdicts as verdicts.json has them: every number that decides, and no other."""

from dataclasses import replace
from typing import get_args

import jsonschema
import numpy as np
import pytest

from harness.records import DiagnosticId, schemas
from harness.records.crossed import Crossed
from harness.records.verdicts import Calibration
from harness.verdicts.case import Cases
from harness.verdicts.judging import judge
from tests.verdicts.simulated import HARM, changed, edited, flawless, scaled, without

SCHEMA = jsonschema.Draft202012Validator(schemas.load("verdicts"))


def judged(findings, **more):
    verdicts = judge(findings, **more)
    SCHEMA.validate(verdicts.model_dump(mode="json"))
    return {found.arm: found for found in verdicts.arms}


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_a_difference_stands_there_with_all_that_it_rests_on(seeds):
    findings = flawless(0.5, seeds=seeds)
    arms = judged(findings)
    assert set(arms) == {"baseline", "treated"}
    found = arms["treated"]
    (contrast,) = Cases(findings).family
    crossed = Crossed.of(contrast.tables[..., -1])
    known = found.difference
    assert known.value == pytest.approx(crossed.mean)
    assert known.interval == pytest.approx(crossed.interval(0.95))
    assert (known.documents, known.seeds, known.searches) == (24, seeds, 1)
    assert [x.share for x in known.by_share] == [0.25, 0.5, 1, 2]
    by_share = [x.value for x in known.by_share]
    assert by_share == pytest.approx(contrast.tables.mean(axis=(0, 1)))
    components = np.sqrt(crossed.components)
    if seeds > 1:
        assert known.components.seeds == pytest.approx(components[0])
        assert known.components.residual == pytest.approx(components[2])
    else:
        assert known.components.seeds is known.components.residual is None
    assert known.components.documents == pytest.approx(components[1])
    assert found.clean_loss == pytest.approx(3.0)
    assert (found.scope, arms["baseline"].scope) == (
        "treatment" if seeds > 2 else "weights",
        None,
    )
    said = {x.claim: x for x in known.claims}
    assert said["harder to attack"].shown
    assert said["harder to attack"].p == pytest.approx(contrast.harder.p[0])
    assert not said["easier to attack"].shown
    assert not said["equivalent"].shown


def test_clean_losses_and_worst_cases_stand_beside_each_other():
    arms = judged(flawless(0.5))
    treated, baseline = arms["treated"], arms["baseline"]
    assert treated.clean_loss == baseline.clean_loss == pytest.approx(3.0)
    assert treated.worst_case.interval
    assert treated.worst_case.reason is None
    worst = [x.worst_case.value for x in (treated, baseline)]
    assert worst[0] - worst[1] == pytest.approx(treated.difference.value)
    assert treated.attacked_reference == pytest.approx(3.0 + worst[1])
    assert baseline.attacked_reference is baseline.difference is None
    assert treated.broken is False


def test_questions_are_answered_with_their_claims():
    found = judged(flawless(0.5))["treated"]
    statuses = {(x.id, x.attack, x.against): x.status for x in found.diagnostics}
    assert set(statuses.values()) == {"pass"}
    for answer in found.diagnostics:
        if answer.tested is None:
            assert (answer.value, answer.interval, answer.n) == (None, None, 0)
            assert (answer.threshold, answer.reason) == (
                None,
                "nothing speaks against it",
            )
        else:
            assert (answer.interval, answer.n, answer.reason) == (
                answer.tested.interval,
                answer.tested.documents,
                None,
            )
            assert answer.value == pytest.approx(answer.tested.value)
            assert answer.tested.shown is (answer.tested.p <= answer.tested.level)
            assert answer.tested.seeds == 5 or answer.id == "equal_clean_loss"
    asked = {x.id for x in found.diagnostics}
    assert asked >= {"beats_random", "convergence", "planted_weakness", "replay"}
    order = [get_args(DiagnosticId).index(x.id) for x in found.diagnostics]
    assert order == sorted(order)
    proofs = judged(flawless(0.5))["baseline"].diagnostics
    assert [x.attack for x in proofs if x.id == "beats_random"] == ["flip", "query"]


def test_what_is_not_passed_or_not_answered_says_why():
    findings = scaled(flawless(0.5), "treated", "flip-random", 2.0)
    answers = judged(changed(findings, "treated", plants=[]))["treated"].diagnostics
    reasons = {(x.id, x.against): (x.status, x.reason) for x in answers}
    assert reasons["beats_random", "flip-random"] == (
        "fail",
        "it is not shown to do more harm than flip-random at any budget",
    )
    status, reason = reasons["planted_weakness", None]
    assert status == "not_applicable"
    assert reason.startswith("no weakness was planted into a copy of treated")


def test_a_replica_alone_pays_for_no_other_contrast():
    findings = changed(flawless(0.5), "treated", role="replica")
    found = judged(findings)["treated"].difference
    (case,) = Cases(findings).of("replica")
    assert found.detectable == pytest.approx(case.contrast.shown.detectable(0.99)[0])


def test_what_was_found_of_plants_is_counted():
    found = judged(flawless(0.5))["treated"]
    assert found.detection_limit == 0.3
    union = [x for x in found.detection if x.attack is None and x.strength == 1.0]
    assert {x.kind for x in union} == {"token", "ffn", "pair", "hidden"}
    assert {(x.found, x.present, x.documents) for x in union} == {(32, 32, 32)}
    assert union[0].at_least == pytest.approx(0.05 ** (1 / 32))  # all of 32
    alone = [x for x in found.detection if x.attack == "query"]
    assert {x.found for x in alone} == {0}


def test_a_margin_that_was_changed_makes_it_exploratory():
    found = judged(flawless(0.5, margin_change="margin changed after 3 records"))
    assert found["treated"].exploratory
    assert found["treated"].reasons[-1] == "exploratory: margin changed after 3 records"
    assert not judged(flawless(0.5))["treated"].exploratory


def test_the_threshold_of_success_is_passed_on():
    findings = flawless(0.5)
    thresholds = [
        judge(x).threshold for x in (findings, replace(findings, threshold=1.0))
    ]
    assert thresholds == [0.15, 1.0]


def test_an_undecided_arm_says_what_would_decide():
    assert judged(flawless(0.8, noise=0.6))["treated"].difference.needed is not None
    assert judged(flawless(0.5))["treated"].difference.needed is None


def test_calibrations_are_taken_over():
    known = Calibration(runs=7, words={"undecided": 1.0}, harder_from=None)
    found = judged(flawless(0.5), calibrated={("m", "treated"): known})
    assert found["treated"].calibration == known
    assert found["baseline"].calibration is None


def test_arms_without_cells_or_partners_are_said_to_be_so():
    findings = changed(flawless(0.5), "treated", cells={})
    found = judged(findings)["treated"]
    assert (found.verdict, found.difference, found.worst_case) == (
        "undecided",
        None,
        None,
    )
    assert found.reasons == ["no attack is complete on both it and baseline"]
    for label in ("baseline", "treated-matched"):
        findings = changed(findings, label, cells={})
    arms = judged(findings)
    assert arms["baseline"].worst_case is arms["baseline"].clean_loss is None


def test_shares_of_errors_are_told():
    findings = flawless(0.5)
    delta = findings.arm("m", "treated").cells["flip"].delta.copy()
    delta[0, 0] = np.nan
    clean = findings.arm("m", "treated").clean.copy()
    clean[0, 0] = np.nan
    findings = edited(findings, "treated", "flip", delta=delta)
    found = judged(changed(findings, "treated", clean=clean))["treated"]
    assert found.clean_loss == pytest.approx(3.0)
    assert found.difference.error_share == (1 / 120, 0.0)


@pytest.mark.parametrize("label", HARM)
@pytest.mark.parametrize("name", ["baseline", "treated"])
def test_every_step_can_do_without_an_attack(name, label):
    assert judged(without(flawless(0.5), name, label))["treated"].reasons


def test_models_are_judged_side_by_side():
    findings = flawless(0.5)
    models = findings.models | {"n": replace(findings.models["m"], label="n")}
    twins = [replace(arm, model="n") for arm in findings.arms]
    both = replace(findings, models=models, arms=[*findings.arms, *twins])
    verdicts = judge(both).arms
    assert [(x.model, x.verdict) for x in verdicts if x.arm == "treated"] == [
        ("m", "harder to attack"),
        ("n", "harder to attack"),
    ]
    single = judge(findings).arms[1].difference.claims[0].p
    assert verdicts[1].difference.claims[0].p == pytest.approx(2 * single)

"""The rule of verdicts, line by line, on written runs and drawn losses."""

import shutil
from dataclasses import replace
from statistics import fmean
from typing import get_args

import pytest

from harness.records.record import DiagnosticId
from harness.records.samples import read_samples
from harness.records.verdicts import Judged
from harness.run.folder import RunFolder
from harness.run.surveying import survey
from harness.verdicts import rule
from harness.verdicts.judging import judge
from harness.verdicts.results import Results
from tests.run_fixtures import Story, deltas, edit, editing, read_all

MODEL = "Pythia_1.4B"
HEALTHY = {
    "determinism": (0.0, {}),
    "gradient_health": (0.0, {"norms": [1.0, 2.0], "not_finite": 0}),
    "gradient_truth": (0.01, {}),
    "first_order_fidelity": (0.3, {"examples": {f"test/{i}": 0.3 for i in range(8)}}),
}


def examined(run, arm="", **changes):
    """Write answers of subjects into a run's variants: healthy ones, and changes."""
    for record in read_all(run):
        if record.kind != "variant":
            continue
        answers = []
        for name, (value, measured) in HEALTHY.items():
            answer = {"id": name, "status": "pass", "value": value, "n": 8}
            answer |= {"unit": "x", "measured": measured}
            if record.arm.label == arm and name in changes:
                answer |= changes[name]
            answers.append(answer)
        path = RunFolder(run).record_path("variant", record.id)
        edit(path, "diagnostics", value=answers)
    return run


def judged(run):
    found = judge(Results(survey(run), 0.15))
    return {each.arm: each for each in found.arms}


def attacked(run, arm):
    """Return the mean over seeds and examples of the highest loss of any attack."""
    worst = {}
    for record in read_all(run):
        if record.kind == "cell" and record.arm.label == arm:
            folder = RunFolder(run).unit_dir("cell", record.id)
            for row in read_samples(folder / "samples.jsonl"):
                key = record.seed, row.example_id
                worst[key] = max(worst.get(key, 0.0), row.adversarial_loss)
    return fmean(worst.values())


def attacking(base, control, arm):
    """Return a story by the mean dL of attack and control; an arm's control is weak."""
    return {"delta_loss": deltas(base, control, arm, min(arm, control))}


EASIER = attacking(0.6, 0.4, 0.3)
"""The arm is harder to attack than the baseline, and the attack works."""


def test_a_difference_alone_makes_no_arm_robust(make_run):
    found = judged(examined(make_run(**EASIER)))
    assert found["baseline"].verdict == "reference"
    arm = found["monotone"]
    assert arm.difference.interval[1] < 0
    assert arm.p < 0.025
    assert arm.verdict == "inconclusive"
    assert {"unbounded_sanity", "convergence", "planted_weakness", "replay"} < set(
        arm.decided_by
    )
    unasked = [x for x in arm.diagnostics if x.id in ("replay", "convergence")]
    assert "pass" not in {x.status for x in unasked}


@pytest.mark.parametrize(
    ("matched", "status"), [(2.51, "pass"), (2.53, "warn"), (2.28, "warn")]
)
def test_a_match_has_to_be_one_on_what_is_attacked(make_run, matched, status):
    arms = "{constraint: noise, derive_from: baseline, match_loss_of: monotone}"
    also = {("monotone-matched", "hotflip"): 0.6, ("monotone-matched", "random"): 0.4}
    run = make_run(
        arms=f"  monotone-matched: {arms}",
        clean_loss={"baseline": 2.4, "monotone": 2.5, "monotone-matched": matched},
        delta_loss=EASIER["delta_loss"] | also,
    )
    found = judged(run)["monotone"]
    [answer] = [x for x in found.diagnostics if x.id == "equal_clean_loss"]
    assert answer.status == status
    assert answer.measured["clean_loss_apart"] == pytest.approx(2.5 - matched)
    assert answer.interval[1] < 0  # less harm than to the match, whatever it is worth
    assert (f"{2.5 - matched:+.3f} nats/token" in (answer.reason or "")) == (
        status == "warn"
    )


@pytest.mark.parametrize(
    ("story", "verdict", "decided_by", "reason"),
    [
        (attacking(0.6, 0.4, 0.6), "no effect", [], ""),
        (attacking(0.4, 0.3, 0.7), "no effect", [], "easier to attack"),
        # A control that is not there proves nothing, and a hole leaves it open.
        (EASIER | {"absent": ("baseline.s1.random",)}, "inconclusive", [], ""),
        (
            EASIER | {"absent": ("s1.random", "s2.random")},
            "inconclusive",
            [],
            "nothing shows that hotflip works",
        ),
        (
            attacking(0.6, 0.4, 0.6) | {"absent": ("monotone.s2.hotflip",)},
            "inconclusive",
            ["completeness"],
            "",
        ),
    ],
)
def test_no_verdict_says_more_than_the_cells_show(
    make_run, story, verdict, decided_by, reason
):
    found = judged(examined(make_run(**story)))["monotone"]
    assert found.verdict == verdict
    assert set(decided_by) <= set(found.decided_by)
    assert reason in found.reasons[0]


def test_what_spoils_the_attack_decides_for_every_arm(make_run):
    beaten = judged(examined(make_run("a", **attacking(0.4, 0.6, 0.1))))
    assert beaten["monotone"].decided_by == ["beats_random"]
    wrong = {"status": "fail", "value": 0.5, "reason": "off the slope"}
    run = make_run("b", **EASIER)
    broken = judged(examined(run, "baseline", gradient_truth=wrong))
    for found in (beaten, broken):
        assert {x.verdict for x in found.values()} == {"attack invalid"}
    unasked = judged(make_run("c", more="diagnostics: none"))
    assert {x.verdict for x in unasked.values()} == {"inconclusive"}


def norms(*found):
    return {"measured": {"norms": list(found), "not_finite": 0}}


def fidelity(value):
    return {"measured": {"examples": {f"test/{i}": value for i in range(8)}}}


@pytest.mark.parametrize(
    ("name", "change", "masked"),
    [
        ("gradient_health", {"status": "fail", "value": 0.5, "reason": "zeros"}, True),
        # A hundredth of the baseline's norm is let pass, less is not.
        ("gradient_health", norms(0.02, 0.02), False),
        ("gradient_health", norms(0.009, 0.018), True),
        ("gradient_health", norms(110.0, 220.0), True),
        ("gradient_truth", {"status": "fail", "value": 0.5, "reason": "off"}, True),
        ("first_order_fidelity", fidelity(0.1), True),
        ("first_order_fidelity", fidelity(0.2), False),
    ],
)
def test_what_fails_on_the_arm_alone_is_masking(make_run, name, change, masked):
    found = judged(examined(make_run(**EASIER), "monotone", **{name: change}))
    assert found["monotone"].verdict == (
        "gradient-masked" if masked else "inconclusive"
    )
    assert (found["monotone"].decided_by == [name]) == masked


@pytest.mark.parametrize("broken", [False, True])
def test_an_arm_worse_alone_than_the_baseline_attacked_is_broken(make_run, broken):
    """Its gradient may have all but vanished: it hides no robustness."""
    losses = {"baseline": 2.4, "monotone": 3.1 if broken else 2.8}
    run = make_run(clean_loss=losses, **attacking(0.6, 0.4, 0.1))
    examined(run, "monotone", gradient_health=norms(0.001, 0.002))
    found = judged(run)["monotone"]
    assert found.attacked_baseline == pytest.approx(attacked(run, "baseline"))
    assert found.broken == broken
    assert found.verdict == ("inconclusive" if broken else "gradient-masked")
    assert found.reasons[0].startswith("broken") == broken


# --- the line of the robust ---------------------------------------------------------


@pytest.fixture(scope="module")
def flawless(written_runs, tmp_path_factory):
    """A case in which everything was asked and passed."""
    run = tmp_path_factory.mktemp("flawless") / "run"
    shutil.copytree(written_runs(Story(**EASIER)), run)
    results = Results(survey(examined(run)), 0.15)
    arm = results.arm(MODEL, "monotone")
    answers = [
        Judged(
            id=name,
            attack="hotflip" if name in rule.PER_ATTACK else None,
            against="random" if name == "beats_random" else None,
            status="pass",
            value=0.0,
            n=1,
            unit="x",
        )
        for name in get_args(DiagnosticId)
    ]
    pairing = arm.against(arm.baseline)
    difference = pairing.difference()
    p = 0.001
    return rule.Case(arm, answers, answers, difference, p, difference, p, 2.5, 3.0)


def test_an_arm_that_passes_everything_is_robust(flawless):
    assert rule.decide(flawless).word == "robust"


@pytest.mark.parametrize("name", get_args(DiagnosticId))
@pytest.mark.parametrize("status", ["warn", "fail", "not_applicable"])
def test_a_single_answer_less_and_it_is_not(flawless, name, status):
    less = {"status": status, "reason": "as told"}
    own = [x.model_copy(update=less if x.id == name else {}) for x in flawless.own]
    decision = rule.decide(replace(flawless, own=own))
    assert decision.word != "robust"
    assert name in decision.decided_by


@pytest.mark.parametrize("p", ["p", "match_p"])
@pytest.mark.parametrize("value", [0.03, None])
def test_a_difference_that_may_be_chance_is_not_robust(flawless, p, value):
    decision = rule.decide(replace(flawless, **{p: value}))
    assert decision.word == "inconclusive"


def test_a_control_is_what_its_records_say_it_shows(make_run):
    """Not what the plugin says that is installed now."""
    run = make_run(**EASIER)
    for path in RunFolder(run).records("cell"):
        with editing(path) as document:
            if document["attack"]["label"] == "random":
                assert document["attack"]["shows"] == "search"
                document["attack"]["shows"] = "text"
    told = judged(run)["baseline"].diagnostics
    [answer] = [x for x in told if x.id == "beats_random"]
    assert answer.status == "not_applicable"
    assert "no control by random search" in answer.reason

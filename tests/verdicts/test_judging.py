"""The rule of verdicts, line by line, on written runs and drawn losses."""

from __future__ import annotations

import json
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
from tests.run_fixtures import Story, read_all

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
        document = json.loads(path.read_text())
        document["diagnostics"] = answers
        path.write_text(json.dumps(document))
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


def deltas(base, control, arm):
    return {
        "delta_loss": {
            ("baseline", "hotflip"): base,
            ("baseline", "random"): control,
            ("monotone", "hotflip"): arm,
            ("monotone", "random"): min(arm, control),
        }
    }


def test_a_difference_alone_makes_no_arm_robust(make_run) -> None:
    found = judged(examined(make_run(**deltas(0.6, 0.4, 0.3))))
    assert found["baseline"].verdict == "reference"
    arm = found["monotone"]
    assert arm.difference.interval[1] < 0
    assert arm.p < 0.025
    assert arm.verdict == "inconclusive"
    assert {"unbounded_sanity", "convergence", "planted_weakness", "replay"} < set(
        arm.decided_by
    )
    assert "pass" not in {
        x.status for x in arm.diagnostics if x.id in ("replay", "convergence")
    }


def test_an_attack_that_its_control_beats_decides_for_every_arm(make_run) -> None:
    found = judged(examined(make_run(**deltas(0.4, 0.6, 0.1))))
    assert {x.verdict for x in found.values()} == {"attack invalid"}
    assert found["monotone"].decided_by == ["beats_random"]


def test_a_control_that_is_not_there_proves_nothing(make_run) -> None:
    run = examined(make_run(**deltas(0.6, 0.4, 0.3), absent=("baseline.s1.random",)))
    assert judged(run)["monotone"].verdict == "inconclusive"
    run = make_run("b", **deltas(0.6, 0.4, 0.3), absent=("s1.random", "s2.random"))
    found = judged(examined(run))["monotone"]
    assert found.verdict == "inconclusive"
    assert "nothing shows that hotflip works" in found.reasons[0]


def test_the_same_losses_are_no_effect(make_run) -> None:
    found = judged(examined(make_run(**deltas(0.6, 0.4, 0.6))))["monotone"]
    assert found.verdict == "no effect"
    worse = judged(examined(make_run("b", **deltas(0.4, 0.3, 0.7))))["monotone"]
    assert worse.verdict == "no effect"
    assert "easier to attack" in worse.reasons[0]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("gradient_health", {"status": "fail", "value": 0.5, "reason": "zeros"}),
        # A hundredth of the baseline's norm is let pass, less is not.
        ("gradient_health", {"measured": {"norms": [0.009, 0.018], "not_finite": 0}}),
        ("gradient_health", {"measured": {"norms": [110.0, 220.0], "not_finite": 0}}),
        ("gradient_truth", {"status": "fail", "value": 0.5, "reason": "off"}),
        (
            "first_order_fidelity",
            {"measured": {"examples": {f"test/{i}": 0.1 for i in range(8)}}},
        ),
    ],
)
def test_what_fails_on_the_arm_alone_is_masking(make_run, name, change) -> None:
    run = make_run(**deltas(0.6, 0.4, 0.3))
    found = judged(examined(run, "monotone", **{name: change}))["monotone"]
    assert found.verdict == "gradient-masked"
    assert found.decided_by == [name]


@pytest.mark.parametrize(
    "change",
    [
        {"gradient_health": {"measured": {"norms": [0.02, 0.02], "not_finite": 0}}},
        {
            "first_order_fidelity": {
                "measured": {"examples": {f"test/{i}": 0.2 for i in range(8)}}
            }
        },
    ],
)
def test_what_is_within_bounds_is_no_masking(make_run, change) -> None:
    run = make_run(**deltas(0.6, 0.4, 0.3))
    found = judged(examined(run, "monotone", **change))["monotone"]
    assert found.verdict == "inconclusive"


def test_what_fails_on_the_baseline_too_invalidates_all(make_run) -> None:
    run = make_run(**deltas(0.6, 0.4, 0.3))
    broken = {"status": "fail", "value": 0.5, "reason": "off the slope"}
    found = judged(examined(run, "baseline", gradient_truth=broken))
    assert {x.verdict for x in found.values()} == {"attack invalid"}


def test_a_hole_leaves_it_open(make_run) -> None:
    run = make_run(**deltas(0.6, 0.4, 0.6), absent=("monotone.s2.hotflip",))
    found = judged(examined(run))["monotone"]
    assert found.verdict == "inconclusive"
    assert "completeness" in found.decided_by


def test_without_diagnostics_nothing_is_called_anything(make_run) -> None:
    found = judged(make_run(more="diagnostics: none"))
    assert {x.verdict for x in found.values()} == {"inconclusive"}


def test_an_arm_worse_alone_than_the_baseline_attacked_is_broken(make_run) -> None:
    """Its gradient may have all but vanished: it hides no robustness."""
    faint = {"measured": {"norms": [0.001, 0.002], "not_finite": 0}}
    for clean, word in ((2.8, "gradient-masked"), (3.1, "inconclusive")):
        story = deltas(0.6, 0.4, 0.1)
        losses = {"baseline": 2.4, "monotone": clean}
        run = make_run(word, clean_loss=losses, **story)
        found = judged(examined(run, "monotone", gradient_health=faint))["monotone"]
        assert found.attacked_baseline == pytest.approx(attacked(run, "baseline"))
        assert found.broken == (clean == 3.1)
        assert found.verdict == word
        assert found.reasons[0].startswith("broken") == found.broken


@pytest.mark.parametrize(
    ("matched", "status"), [(2.51, "pass"), (2.53, "warn"), (2.28, "warn")]
)
def test_a_match_has_to_be_one_on_what_is_attacked(make_run, matched, status) -> None:
    arms = "{constraint: noise, derive_from: baseline, match_loss_of: monotone}"
    losses = deltas(0.6, 0.4, 0.3)["delta_loss"]
    also = {("monotone-matched", "hotflip"): 0.6, ("monotone-matched", "random"): 0.4}
    run = make_run(
        arms=f"  monotone-matched: {arms}",
        clean_loss={"baseline": 2.4, "monotone": 2.5, "monotone-matched": matched},
        delta_loss=losses | also,
    )
    found = judged(run)["monotone"]
    [answer] = [x for x in found.diagnostics if x.id == "equal_clean_loss"]
    assert answer.status == status
    assert answer.measured["clean_loss_apart"] == pytest.approx(2.5 - matched)
    assert answer.interval[1] < 0  # less harm than to the match, whatever it is worth
    assert (f"{2.5 - matched:+.3f} nats/token" in (answer.reason or "")) == (
        status == "warn"
    )


# --- the line of the robust ---------------------------------------------------------


@pytest.fixture(scope="module")
def flawless(written_runs, tmp_path_factory):
    """A case in which everything was asked and passed."""
    run = tmp_path_factory.mktemp("flawless") / "run"
    shutil.copytree(written_runs(Story(**deltas(0.6, 0.4, 0.3))), run)
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


def test_an_arm_that_passes_everything_is_robust(flawless) -> None:
    assert rule.decide(flawless).word == "robust"


@pytest.mark.parametrize("name", get_args(DiagnosticId))
@pytest.mark.parametrize("status", ["warn", "fail", "not_applicable"])
def test_a_single_answer_less_and_it_is_not(flawless, name, status) -> None:
    own = [
        x.model_copy(update={"status": status, "reason": "as told"})
        if x.id == name
        else x
        for x in flawless.own
    ]
    decision = rule.decide(replace(flawless, own=own))
    assert decision.word != "robust"
    assert name in decision.decided_by


@pytest.mark.parametrize("p", ["p", "match_p"])
@pytest.mark.parametrize("value", [0.03, None])
def test_a_difference_that_may_be_chance_is_not_robust(flawless, p, value) -> None:
    decision = rule.decide(replace(flawless, **{p: value}))
    assert decision.word == "inconclusive"


def test_a_control_is_what_its_records_say_it_shows(make_run) -> None:
    """Not what the plugin says that is installed now."""
    run = make_run(**deltas(0.6, 0.4, 0.3))
    for path in RunFolder(run).records("cell"):
        document = json.loads(path.read_text())
        if document["attack"]["label"] == "random":
            assert document["attack"]["shows"] == "search"
            document["attack"]["shows"] = "text"
            path.write_text(json.dumps(document))
    [answer] = [
        x for x in judged(run)["baseline"].diagnostics if x.id == "beats_random"
    ]
    assert answer.status == "not_applicable"
    assert "no control by random search" in answer.reason

"""The shipped suites."""

from pathlib import Path

import pytest

from harness.suite import load_experiment, make_plan, validate_suite

SUITES = Path(__file__).parents[2] / "suites"
MISSION = SUITES / "pythia_1p4b.yaml"
LARGER = {
    "pythia_2p8b": "EleutherAI/pythia-2.8b",
    "pythia_6p9b": "EleutherAI/pythia-6.9b",
    "opt_1p3b": "facebook/opt-1.3b",
    "gpt_neo_1p3b": "EleutherAI/gpt-neo-1.3B",
}


@pytest.mark.parametrize("path", sorted(SUITES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_suite_is_valid_under_every_profile(path):
    assert [str(problem) for problem in validate_suite(path)] == []


def test_the_mission_is_the_whole_experiment():
    experiment = load_experiment(MISSION)
    suite = experiment.suite
    model = suite.models["pythia-1.4b"].options
    assert (model["path"], model["revision"]) == (
        "EleutherAI/pythia-1.4b",
        "step143000",
    )
    assert list(suite.arms) == ["baseline", "monotone", "abs-unconstrained", "gauge"]
    assert suite.seeds == (42, 1337, 2024, 8888, 12345)
    assert suite.success.threshold == 0.15
    assert set(suite.profiles) == {"smoke", "quick", "full"}
    plan = make_plan(experiment)
    # hotflip and multiflip with two controls, uat with three, adaptive with one; two
    # that replay
    assert (len(plan.variants), len(plan.cells)) == (4 * 5, 4 * 5 * 14)


def test_every_attack_of_the_mission_has_a_control_of_equal_budget():
    attacks = load_experiment(MISSION).suite.attacks
    matched = {attack.match for attack in attacks.values() if attack.match}
    searching = {label for label, attack in attacks.items() if not attack.match}
    assert matched == searching - {"transfer", "worst_case"}  # these only replay


def test_the_arms_of_the_mission_differ_in_what_they_compare():
    options = {
        label: (arm.name, arm.options.start, arm.options.scope, arm.options.activation)
        for label, arm in load_experiment(MISSION).arms.items()
    }
    assert options == {
        "baseline": ("none", "keep", "both", "keep"),
        "monotone": ("softplus", "abs", "both", "keep"),
        "abs-unconstrained": ("none", "abs", "both", "keep"),
        "gauge": ("softplus", "gauge", "both", "keep"),
    }


@pytest.mark.parametrize("name", LARGER)
def test_the_other_suites_are_the_mission_on_another_model(name):
    mission = load_experiment(MISSION).suite
    other = load_experiment(SUITES / f"{name}.yaml").suite
    assert other.name == name
    assert [model.options["path"] for model in other.models.values()] == [LARGER[name]]
    for section in ("arms", "seeds", "corpora", "metrics", "examples", "attacks"):
        assert getattr(other, section) == getattr(mission, section)
    changed = {"checkpointing"}  # which changes no result
    assert other.recovery.model_dump(exclude=changed) == mission.recovery.model_dump(
        exclude=changed
    )


@pytest.mark.parametrize("name", ["pythia_1p4b", *LARGER])
def test_smoke_is_one_seed_in_float32(name):
    experiment = load_experiment(SUITES / f"{name}.yaml", profile="smoke")
    assert experiment.suite.seeds == (42,)
    assert [model.dtype for model in experiment.models.values()] == ["float32"]
    assert len(experiment.models) == 1


def test_smoke_can_take_all_texts_from_one_small_file(shared, tmp_path):
    from harness.base.store import Store
    from harness.data.corpora import Corpora

    file = shared / "data" / "pile_sequences.jsonl"
    names = ("pile_train", "pile_validation", "pile_search", "pile_test")
    suite = load_experiment(
        MISSION,
        profile="smoke",
        overrides=[f"corpora.{name}.path={file}" for name in names],
    ).suite
    corpora = Corpora(suite.corpora, Store(tmp_path))
    found = {name: [d.id for d in corpora.all_documents(name)] for name in names}
    assert len(found["pile_test"]) >= suite.examples.test.count
    assert len(found["pile_search"]) >= suite.examples.search.count
    assert len(found["pile_validation"]) >= suite.examples.validation.count
    together = [identity for ids in found.values() for identity in ids]
    assert len(together) == len(set(together)) == 500


def test_the_answers_are_the_mission_with_other_examples():
    mission = load_experiment(MISSION).suite
    suite = load_experiment(SUITES / "pythia_1p4b_answers.yaml").suite
    for section in ("models", "arms", "seeds", "recovery", "metrics", "attacks"):
        assert getattr(suite, section) == getattr(mission, section)
    assert suite.examples.objective == "answer"
    assert suite.corpora.keys() > mission.corpora.keys()


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("t5_small_summarization", "google-t5/t5-small"),
        ("flan_t5_base_summarization", "google/flan-t5-base"),
    ],
)
def test_summaries_have_the_three_rows_of_the_study(name, model):
    experiment = load_experiment(SUITES / f"{name}.yaml")
    suite = experiment.suite
    assert [m.options["path"] for m in suite.models.values()] == [model]
    trained = {label for label, arm in suite.arms.items() if arm.recovery is not False}
    assert "as-downloaded" in suite.arms.keys() - trained
    constrained = {
        label for label, arm in suite.arms.items() if arm.constraint == "softplus"
    }
    assert "baseline" in trained - constrained
    assert trained & constrained
    corpora = [c for c in suite.corpora.values() if c.dataset == "knkarthick/dialogsum"]
    assert all((c.prompt, c.reference) == ("dialogue", "summary") for c in corpora)
    assert len(corpora) == len(suite.corpora) == 4
    assert "rouge" in suite.metrics
    assert suite.examples.rouge_tokens is not None
    assert suite.success.rouge_drop == 0.10


def _profiles():
    """Yield each suite and its profiles; the study as it was done asked otherwise."""
    for path in sorted(SUITES.glob("*.yaml")):
        for profile in (None, *load_experiment(path).suite.profiles):
            if path.stem != "original_study":
                yield pytest.param(path, profile, id=f"{path.stem}-{profile}")


@pytest.mark.parametrize(("path", "profile"), list(_profiles()))
def test_what_is_judged_has_three_seeds_and_twenty_documents(path, profile):
    suite = load_experiment(path, profile=profile).suite
    assert suite.diagnostics == "standard"
    if profile != "smoke":
        assert len(suite.seeds) >= 3
        assert suite.examples.test.count >= 20


@pytest.mark.parametrize(("path", "profile"), list(_profiles()))
def test_a_constraint_is_held_against_its_own_start(path, profile):
    experiment = load_experiment(path, profile=profile)
    held = {
        label: section.against
        for label, section in experiment.suite.arms.items()
        if section.constraint == "softplus" and label != "gauge"
    }
    assert held
    for label, against in held.items():
        ours, start = (experiment.arms[x].options for x in (label, against))
        keys = ("start", "scope", "layers", "eps", "activation")
        assert [getattr(ours, x) for x in keys] == [getattr(start, x) for x in keys]
        assert experiment.arms[against].name == "none"

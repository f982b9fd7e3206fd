"""The arms that full diagnostics add."""

from pathlib import Path

import pytest

from harness.suite import dump_suite, load_experiment, make_plan

FULL = """
extends: base.yaml
diagnostics: full
attacks: {flip: null, control: null, hotflip: {flips: 2}}
"""


@pytest.fixture
def load(toy_suite):
    """Return a function that loads the toy suite with these lines."""

    def loaded(lines):
        Path("s.yaml").write_text(lines, encoding="utf-8")
        return load_experiment(Path("s.yaml"))

    return loaded


def derived(experiment):
    assert list(experiment.arms) == list(experiment.suite.arms)
    return {
        label: (section.constraint, section.derive_from, section.match_loss_of)
        for label, section in experiment.suite.arms.items()
        if section.derive_from
    }


def test_full_diagnostics_add_matches_and_planted_copies(load):
    experiment = load(FULL)
    assert derived(experiment) == {
        "monotone-matched": ("noise", "baseline", "monotone"),
        "baseline-planted": ("planted", "baseline", None),
        "monotone-planted": ("planted", "monotone", None),
    }
    assert len(experiment.attacks) > 2  # controls, replays and other cells
    for cell in make_plan(experiment).cells:
        if cell.variant.arm in derived(experiment):
            assert cell.attack == "hotflip"


def test_otherwise_none_are_added(load):
    assert derived(load(FULL.replace("full", "standard"))) == {}
    assert derived(load("extends: base.yaml\ndiagnostics: full\nattacks: null")) == {}
    assert derived(load(FULL + "recovery: {validation: null}")) == {}


def test_what_a_suite_states_is_left_alone(load):
    lines = (
        "arms:\n  monotone-matched: {constraint: none, derive_from: baseline}\n"
        "  copy: {derive_from: monotone}\n"
    )
    found = derived(load(FULL + lines))
    assert found["monotone-matched"] == ("none", "baseline", None)
    assert not any(label.startswith("copy-") for label in found)


def test_a_suite_that_holds_them_already_gets_no_second_ones(load):
    first = load(FULL)
    again = load(dump_suite(first.suite))
    assert again.suite.arms == first.suite.arms
    made = [[unit.id for unit in make_plan(e).variants] for e in (first, again)]
    assert made[0] == made[1]

"""An attack with twice its budget holds, on its way, what it finds with less."""

import dataclasses

import numpy as np
import pytest

from harness.api import AttackContext
from harness.data import ExampleSets
from harness_plugins.attacks.benign import Benign
from harness_plugins.attacks.gcg import GCG
from harness_plugins.attacks.hotflip import HotFlip
from harness_plugins.attacks.multiflip import MultiFlip
from harness_plugins.attacks.permuted import Permuted
from harness_plugins.attacks.query import Query
from harness_plugins.attacks.random import Random
from harness_plugins.attacks.sweep import Sweep
from harness_plugins.attacks.uat import UAT
from tests.plugins.letters import (
    best_flips,
    letter_examples,
    letter_subject,
    make,
    plain_losses,
    run,
)

SHARES = (0.125, 0.25, 0.5)
"""Of twice the budget: a quarter, a half and all of what is stated."""

TEXTBOOK = {"candidates_from": "gradient", "candidates": 9}
BUDGETS = {
    # By hand: for each attack, options that all cases share, those of the stated
    # budget, and those of a quarter and a half of it, up to the last step that fits.
    "multiflip": (MultiFlip, {}, {"steps": 16}, {"steps": 4}, {"steps": 8}),
    "gcg": (GCG, {"candidates": 8}, {"steps": 12}, {"steps": 3}, {"steps": 6}),
    "gcg that keeps a buffer": (
        GCG,
        {"candidates": 8, "buffer_size": 2, "positions": "suffix", "tokens": 3},
        {"steps": 10},
        {"steps": 2},
        {"steps": 5},
    ),
    "ascent": (  # two flips of 1 + candidates // 4 steps each: 8, 2 and 4 steps
        HotFlip,
        {"flips": 2},
        {"candidates": 12},
        {"candidates": 1},
        {"candidates": 4},
    ),
    "textbook": (HotFlip, TEXTBOOK, {"flips": 5}, {"flips": 1}, {"flips": 2}),
    "beam": (
        HotFlip,
        TEXTBOOK | {"beam_width": 2},
        {"flips": 4},
        {"flips": 1},
        {"flips": 2},
    ),
    "query": (
        Query,
        {"round_size": 4},
        {"flips": 4, "queries": 33},
        {"flips": 1, "queries": 9},
        {"flips": 2, "queries": 17},
    ),
    "sweep": (  # before each flip, every token is scored in one further example
        Sweep,
        {"tokens": 3, "candidates": 8},
        {"flips": 4, "search_examples": 4},
        {"flips": 1, "search_examples": 1},
        {"flips": 2, "search_examples": 2},
    ),
    "random": (Random, {"candidates": 7}, {"flips": 4}, {"flips": 1}, {"flips": 2}),
    "uat": (
        UAT,
        {"trigger_tokens": 2, "candidates": 4},
        {"restarts": 2, "sweeps": 2},
        {"restarts": 1, "sweeps": 1},
        {"restarts": 1, "sweeps": 2},
    ),
}
CONTROLS = {
    "itself": None,
    "random": Random,
    "permuted": Permuted,
    "benign": Benign,
}
CASES = [
    (name, control)
    for name, (plugin, *_) in BUDGETS.items()
    for control in CONTROLS
    if control == "itself" or control in (plugin.controls or ("random",))
]


SETS = ExampleSets(
    letter_examples(2, prompt=7),
    letter_examples(4, prompt=6, seed=8),
    letter_examples(3, prompt=6, seed=9),
)


def found_by(subject, attack, control=None, checkpoints=()):
    """Run an attack, or a control of it; return its results by example id."""
    context = AttackContext("cell", checkpoints=checkpoints)
    if control is not None:
        context = dataclasses.replace(context, budget=attack.budget(2), matched=attack)
        attack = CONTROLS[control]()
    return {one.example_id: one for one in attack.run(subject, SETS, context)}


@pytest.mark.parametrize(("name", "control"), CASES)
def test_a_checkpoint_is_what_less_of_the_budget_finds(name, control):
    plugin, shared, stated, quarter, half = BUDGETS[name]
    control = None if control == "itself" else control
    subject, attack = letter_subject(), make(plugin, **shared, **stated)
    whole = plugin(attack.doubled())

    twice = found_by(subject, whole, control, SHARES)

    changed = 0
    for share, options in zip(SHARES, (quarter, half, stated), strict=True):
        less = found_by(subject, make(plugin, **shared, **options), control)
        for example, found in twice.items():
            held = found.checkpoints[share].tolist()
            assert held == less[example].prompt_ids.tolist(), (example, share)
            changed += held != found.prompt_ids.tolist()
    assert changed  # else there would be nothing to tell apart


@pytest.mark.parametrize("name", BUDGETS)
def test_twice_the_budget_is_twice_the_passes(name):
    plugin, shared, stated, *_ = BUDGETS[name]
    attack = make(plugin, **shared, **stated)
    once, twice = (x.budget(1) for x in (attack, plugin(attack.doubled())))
    starts = 2  # the clean prompt, and the drawn one of an ascent, are scored once
    assert 2 * once.forward - twice.forward <= starts
    assert twice.backward == 2 * once.backward
    assert twice.flips == once.flips


@pytest.mark.parametrize("name", ["textbook", "query", "sweep", "random"])
def test_a_second_search_never_loses_what_the_first_found(name):
    plugin, shared, stated, *_ = BUDGETS[name]
    subject, attack = letter_subject(), make(plugin, **shared, **stated)
    twice = found_by(subject, plugin(attack.doubled()), None, SHARES)
    for example in letter_examples(2, prompt=7):
        found = twice[example.id]
        prompts = [*found.checkpoints.values(), found.prompt_ids]
        losses = plain_losses(subject, prompts, example.reference_ids)
        assert (np.diff(losses) > -1e-5).all()


def test_a_second_search_of_the_textbook_goes_on_where_the_first_left_off():
    """With all flips of one position's worth in two searches, both are exhaustive."""
    subject, (example,) = letter_subject(), letter_examples()
    half = 2 * 49  # of the flips of four positions
    options = {"flips": 1, "candidates_from": "gradient", "candidates": half}
    expected, _ = best_flips(subject, example, 1)

    [found] = run(make(HotFlip, **options, searches=2), subject, [example]).values()

    assert found.prompt_ids.tolist() == expected


def test_replicates_are_further_searches_and_change_nothing_of_the_first():
    subject = letter_subject()
    options = BUDGETS["uat"][1] | {"restarts": 1, "sweeps": 1}
    with subject.metered() as once:
        alone = found_by(subject, make(UAT, **options), None)
    with subject.metered() as thrice:
        attack = make(UAT, **options, replicates=3)
        found = found_by(subject, attack, None)
    assert thrice.flops_whole == pytest.approx(3 * once.flops_whole, rel=0.05)
    assert attack.budget(2) == make(UAT, **options).budget(2)
    triggers = set()
    for example, one in found.items():
        assert np.array_equal(one.prompt_ids, alone[example].prompt_ids)
        assert len(one.replicates) == 2
        ids = [one.prompt_ids, *one.replicates]
        triggers |= {tuple(prompt[:2].tolist()) for prompt in ids}
        assert {tuple(prompt[2:].tolist()) for prompt in ids} == {
            tuple(one.prompt_ids[2:].tolist())
        }
    assert len(triggers) > 1


def test_a_control_has_as_many_replicates():
    attack = make(UAT, **BUDGETS["uat"][1], replicates=2)
    for control in ("random", "permuted", "benign"):
        found = found_by(letter_subject(), attack, control)
        assert {len(one.replicates) for one in found.values()} == {1}

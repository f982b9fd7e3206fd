"""What gradients are asked, on the examples and seeds that both arms have, by hand."""

from dataclasses import replace

import numpy as np
import pytest

from harness.records.crossed import Crossed
from harness.verdicts.findings import Examined
from harness.verdicts.questions.gradients import of_gradients, untrue_slopes
from tests.verdicts.simulated import flawless

KEYS = {"treated": "abcdefgh", "baseline": "hgfedcxy"}
SEEDS = {"treated": (0, 1, 2, 3), "baseline": (4, 3, 2, 1)}
UNIT = {key: f"d{'abcdefghxy'.index(key) // 2}" for key in "abcdefghxy"}
WORST = {"gradient_health": 1.0, "gradient_truth": 1.0, "first_order_fidelity": 0.0}


def arms(**values):
    """Return both arms with answers by question: [seeds, keys] of each."""
    findings = flawless(0.5)
    return [
        replace(
            findings.arm("m", label),
            seeds=SEEDS[label],
            examined={
                name: Examined(
                    list(KEYS[label]), [UNIT[key] for key in KEYS[label]], both[label]
                )
                for name, both in values.items()
            },
        )
        for label in ("treated", "baseline")
    ]


def drawn(name, seed):
    """Draw answers that are no number in places, and beyond 1 in others."""
    rng = np.random.default_rng(seed)
    found = {}
    for label in KEYS:
        values = rng.uniform(0.0, 0.5, (4, 8))
        values[rng.integers(4), rng.integers(8)] = np.nan
        values[rng.integers(4), rng.integers(8)] = np.inf
        if name == "gradient_truth":
            values[rng.integers(4), rng.integers(8)] = 7.0
        found[label] = values
    return found


def told(name, label, values):
    """Return by document and seed the mean of what both arms were asked: [S, units]."""
    at = {key: i for i, key in enumerate(KEYS[label])}
    seeds = [SEEDS[label].index(seed) for seed in (1, 2, 3)]
    known = np.where(np.isfinite(values), values, WORST[name])
    if name == "gradient_truth":
        known = np.minimum(known, 1.0)
    return np.stack(
        [
            np.mean([known[seeds, at[key]] for key in pair], axis=0)
            for pair in ("cd", "ef", "gh")
        ],
        axis=1,
    )


@pytest.mark.parametrize("name", WORST)
@pytest.mark.parametrize("seed", range(3))
def test_a_gradient_is_held_against_the_other_arms_on_the_same_examples(name, seed):
    values = drawn(name, seed)
    arm, other = arms(**{name: values})
    (found,) = [x for x in of_gradients(arm, other) if x.absence is None]
    own, others = (told(name, label, values[label]) for label in KEYS)
    if name == "first_order_fidelity":
        expected = Crossed.of(own - 0.5 * others).p_below()
    else:
        least = {"gradient_health": 0.001, "gradient_truth": 0.05}[name]
        expected = Crossed.of(own - others).p_above(least)
    assert (found.id, found.against) == (name, "baseline")
    assert found.claim.p[0] == pytest.approx(expected)
    lacking = [x.absence for x in of_gradients(arm, other) if x.absence]
    assert lacking == ["treated was not examined"] * 2
    bare = replace(other, examined={})
    lacking = {x.absence for x in of_gradients(arm, bare)}
    assert lacking == {"treated was not examined", "baseline was not examined"}


def test_without_a_common_example_or_seed_nothing_is_compared():
    name = "gradient_health"
    arm, other = arms(**{name: drawn(name, 0)})
    apart = replace(other.examined[name], keys=list("ABCDEFGH"))
    for changed in (
        replace(other, examined={name: apart}),
        replace(other, seeds=(4, 5, 6, 7)),
    ):
        absences = [x.absence for x in of_gradients(arm, changed)]
        assert absences[0] == "nothing was examined on both arms"


@pytest.mark.parametrize("seed", range(3))
def test_the_slopes_of_an_arm_alone_have_to_be_true(seed):
    values = drawn("gradient_truth", seed)
    arm, _ = arms(gradient_truth=values)
    known = np.minimum(np.nan_to_num(values["treated"], nan=1.0), 1.0)
    by_document = known.reshape(4, 4, 2).mean(axis=-1)
    expected = Crossed.of(by_document).p_above(0.05)
    assert untrue_slopes(arm).claim.p[0] == pytest.approx(expected)
    assert untrue_slopes(replace(arm, examined={})).absence

import itertools
from dataclasses import replace

import numpy as np
import pytest

from harness.base import CellError
from harness.data import ExampleSets
from harness_plugins.attacks.uat import UAT
from tests.plugins.letters import (
    letter_examples,
    letter_sets,
    letter_subject,
    make,
    plain_losses,
    run,
)


def attack(subject, sets, **options):
    """Return the results of a small search, in the order of the test examples."""
    small = {"trigger_tokens": 2, "candidates": 6, "restarts": 2, "sweeps": 2}
    found = run(make(UAT, **{**small, **options}), subject, sets)
    return [found[x.id] for x in sets.test]


@pytest.mark.parametrize("source", ["scaled", "gradient"])
def test_with_an_unbounded_beam_it_is_brute_force(source):
    subject, search = letter_subject(), letter_examples(2, prompt=3)
    triggers = list(itertools.product(range(1, 50), repeat=2))
    losses = [
        plain_losses(subject, [[*t, *x.prompt_ids] for t in triggers], x.reference_ids)
        for x in search
    ]
    means = np.mean(losses, axis=0)
    whole = {"candidates": 49, "beam_width": 49, "restarts": 1, "sweeps": 1}
    sets = ExampleSets(letter_examples(seed=5), search, search)

    (found,) = attack(subject, sets, candidates_from=source, **whole)

    assert tuple(found.prompt_ids[:2]) == triggers[int(means.argmax())]
    assert found.trace[-1]["loss"] == pytest.approx(means.max(), abs=1e-5)


def test_the_trace_leads_to_the_trigger():
    (found, *_) = attack(letter_subject(), letter_sets(4), sweeps=3)

    last = {step["position"]: step["token"] for step in found.trace}
    assert found.prompt_ids[:2].tolist() == [last[0], last[1]]
    assert [step["step"] for step in found.trace] == [*range(1, len(found.trace) + 1)]
    assert len({step["start"] for step in found.trace}) == 1


def test_test_prompts_have_no_part_in_the_search():
    subject, sets = letter_subject(), letter_sets(4)
    others = replace(sets, test=letter_examples(2, seed=9))

    trigger, same = (attack(subject, x)[0].prompt_ids[:2] for x in (sets, others))

    assert trigger.tolist() == same.tolist()


def test_several_batches_are_gone_through_in_turn():
    found = attack(letter_subject(), letter_sets(4), batch_prompts=2)

    assert len(found) == 3


@pytest.mark.parametrize("missing", ["search", "validation"])
def test_without_search_or_validation_prompts_it_says_so(missing):
    sets = replace(letter_sets(4), **{missing: ()})
    with pytest.raises(CellError, match="needs search and validation examples"):
        attack(letter_subject(), sets)

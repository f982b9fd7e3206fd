import itertools

import numpy as np
import pytest

from harness.api.attacks import AttackContext
from harness.base.errors import CellError
from harness.data.document import ExampleSets
from harness_plugins.attacks.uat import UAT, UATOptions

pytestmark = pytest.mark.transformers5
SMALL = {"trigger_tokens": 2, "candidates": 6, "restarts": 2, "sweeps": 2}


@pytest.fixture
def sets(letter_examples):
    return ExampleSets(
        letter_examples(3, seed=1),
        letter_examples(6, seed=2),
        letter_examples(5, seed=3),
    )


def attack(subject, sets, **options):
    run = UAT(UATOptions(**{**SMALL, **options})).run
    return list(run(subject, sets, AttackContext("cell")))


@pytest.mark.parametrize("source", ["scaled", "gradient"])
def test_with_an_unbounded_beam_it_is_brute_force(
    source, letter_subject, letter_examples, plain_losses
):
    subject, search = letter_subject(), letter_examples(2, prompt=3)
    triggers = list(itertools.product(range(1, 50), repeat=2))
    means = np.mean(
        [
            plain_losses(
                subject, [[*t, *x.prompt_ids] for t in triggers], x.reference_ids
            )
            for x in search
        ],
        axis=0,
    )

    (found,) = attack(
        subject,
        ExampleSets(letter_examples(seed=5), search, search),
        candidates=49,
        candidates_from=source,
        beam_width=49,
        restarts=1,
        sweeps=1,
    )

    assert tuple(found.prompt_ids[:2]) == triggers[int(means.argmax())]
    assert found.trace[-1]["loss"] == pytest.approx(means.max(), abs=1e-5)


def test_one_trigger_stands_before_every_prompt_after_what_is_protected(
    letter_subject, letter_examples
):
    subject = letter_subject("opt")
    test = letter_examples(3, prompt=5, seed=1, protected=1)
    search, validation = (letter_examples(4, seed=s, protected=1) for s in (2, 3))

    found = attack(subject, ExampleSets(test, search, validation))

    triggers = {tuple(one.prompt_ids[1:3]) for one in found}
    assert len(triggers) == 1
    assert np.isin(list(triggers), subject.vocabulary.allowed).all()
    for example, one in zip(test, found, strict=True):
        left = [*one.prompt_ids[:1], *one.prompt_ids[3:]]
        assert left == example.prompt_ids.tolist()


def test_the_trace_leads_to_the_trigger(letter_subject, sets):
    (found, *_) = attack(letter_subject(), sets, sweeps=3)

    last = {step["position"]: step["token"] for step in found.trace}
    assert found.prompt_ids[:2].tolist() == [last[0], last[1]]
    assert [step["step"] for step in found.trace] == [*range(1, len(found.trace) + 1)]
    assert len({step["start"] for step in found.trace}) == 1


def test_test_prompts_have_no_part_in_the_search(letter_subject, letter_examples, sets):
    subject = letter_subject()
    others = ExampleSets(letter_examples(2, seed=9), sets.search, sets.validation)

    trigger = attack(subject, sets)[0].prompt_ids[:2]
    same = attack(subject, others)[0].prompt_ids[:2]

    assert trigger.tolist() == same.tolist()


def test_batch_size_and_order_of_the_tests_do_not_change_the_trigger(
    letter_subject, sets
):
    backwards = ExampleSets(sets.test[::-1], sets.search, sets.validation)

    one = attack(letter_subject(batch_size=256), sets)
    other = attack(letter_subject(batch_size=5), backwards)

    assert {x.example_id: x.prompt_ids.tolist() for x in one} == {
        x.example_id: x.prompt_ids.tolist() for x in other
    }


def test_several_batches_are_gone_through_in_turn(letter_subject, sets):
    found = attack(letter_subject(), sets, batch_prompts=2)

    assert len(found) == 3


def test_the_budget_is_what_is_spent(letter_subject, sets):
    subject, uat = (
        letter_subject(),
        UAT(UATOptions(**SMALL, search_prompts=6, validation_prompts=5)),
    )
    budget = uat.budget(len(sets.test))

    with subject.metered() as spent:
        list(uat.run(subject, sets, AttackContext("cell")))

    forward = budget.forward * len(sets.test)
    assert 0.8 * forward <= spent.sequences_forward <= 1.1 * forward  # ties
    assert spent.sequences_backward <= budget.backward * len(sets.test)


@pytest.mark.parametrize("missing", ["search", "validation"])
def test_without_search_or_validation_prompts_it_says_so(missing, letter_subject, sets):
    from dataclasses import replace

    with pytest.raises(CellError, match="needs search and validation examples"):
        attack(letter_subject(), replace(sets, **{missing: ()}))

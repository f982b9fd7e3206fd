import numpy as np
import pytest

from harness import search
from harness.api import Attack, AttackContext, Budget
from harness.data.document import ExampleSets
from harness_plugins.attacks.hotflip import HotFlip
from harness_plugins.attacks.random import Random, RandomOptions
from harness_plugins.attacks.uat import UAT, UATOptions

pytestmark = pytest.mark.transformers5


def attack(subject, examples, matched=None, **options):
    sets = examples if isinstance(examples, ExampleSets) else ExampleSets(examples)
    budget = matched.budget(len(sets.test)) if matched else None
    context = AttackContext("cell", budget, matched)
    results = Random(RandomOptions(**options)).run(subject, sets, context)
    return {found.example_id: found for found in results}


def ids_of(found):
    return {key: one.prompt_ids.tolist() for key, one in found.items()}


def test_with_every_candidate_one_flip_is_exhaustive_search(
    letter_subject, letter_examples, best_flips
):
    subject, (example,) = letter_subject(), letter_examples()
    expected, _ = best_flips(subject, example, 1)

    found = attack(subject, [example], flips=1, candidates=4 * 49)[example.id]

    assert found.prompt_ids.tolist() == expected.tolist()


def test_its_own_budget_is_what_it_spends(letter_subject, letter_examples):
    subject, (example,) = letter_subject(), letter_examples(prompt=8)
    budget = Random(RandomOptions(flips=3, candidates=10)).budget(1)

    with subject.metered() as spent:
        found = attack(subject, [example], flips=3, candidates=10)[example.id]

    assert budget.forward <= spent.sequences_forward <= budget.forward + 5  # ties
    assert spent.sequences_backward == 0
    assert len(found.trace) <= 3


@pytest.mark.parametrize(
    "options",
    [{}, {"candidates": 3}, {"candidates_from": "gradient", "beam_width": 2}],
    ids=str,
)
def test_as_a_control_it_spends_the_flops_of_what_it_matches(
    options, letter_subject, letter_examples
):
    subject, examples = letter_subject(), letter_examples(3, prompt=12)
    hotflip = HotFlip(HotFlip.Options(**options))
    with subject.metered() as spent:
        list(hotflip.run(subject, ExampleSets(examples), AttackContext("cell")))

    with subject.metered() as control:
        found = attack(subject, examples, hotflip, flips=1)

    assert control.flops_whole == pytest.approx(spent.flops_whole, rel=0.04)
    changed = [(found[x.id].prompt_ids != x.prompt_ids).sum() for x in examples]
    assert max(changed) == 5  # as many flips, too


class Stranger(Attack):
    """An attack that knows nothing of guides."""

    name = "stranger"

    def run(self, subject, examples, context):
        raise AssertionError("it cannot run blind")

    def budget(self, examples):
        return Budget(forward=40, backward=20, flips=3)


def test_an_attack_that_cannot_run_blind_is_matched_by_flips(
    letter_subject, letter_examples
):
    subject, (example,) = letter_subject(), letter_examples(1, prompt=12)

    with subject.metered() as spent:
        found = attack(subject, [example], Stranger())[example.id]

    forward, backward = subject.pass_flops(12, 3)
    whole = 40 * forward + 20 * backward
    assert spent.flops_whole == pytest.approx(whole, rel=0.04)
    assert len(found.trace) == 3


def test_a_strangers_attack_has_a_fair_control_by_one_line(
    letter_subject, letter_examples
):
    class OneStep(Stranger):
        """Verifies ten flips that a guide proposes."""

        blinds = ("uniform",)

        def run(self, subject, examples, context):
            for x in examples.test:
                guide = search.Guide(subject, x.reference_ids, context)
                explore = search.Explorer(guide, iter([10]), context.rng(x.id))
                one = search.flip_search(subject, x, explore, flips=1)
                yield from search.lockstep(subject, [one])

    subject, examples = letter_subject(), letter_examples(3, prompt=12)
    sets = ExampleSets(examples)
    with subject.metered() as spent:
        own = list(OneStep().run(subject, sets, AttackContext("cell")))

    with subject.metered() as control:
        found = attack(subject, examples, OneStep())

    assert spent.sequences_backward == 3
    assert control.sequences_backward == 0
    assert control.flops_whole == pytest.approx(spent.flops_whole, rel=0.1)
    assert ids_of(found) != {one.example_id: one.prompt_ids.tolist() for one in own}


def test_neither_batch_size_nor_order_changes_a_prompt(letter_subject, letter_examples):
    examples = letter_examples(3, prompt=8)

    together = attack(letter_subject(batch_size=256), examples, candidates=12)
    singly = attack(letter_subject(batch_size=3), examples[::-1], candidates=12)

    assert ids_of(together) == ids_of(singly)


def test_other_cells_draw_otherwise(letter_subject, letter_examples):
    subject, sets = letter_subject(), ExampleSets(letter_examples(prompt=8))
    run = Random(RandomOptions(candidates=4)).run

    (one,) = run(subject, sets, AttackContext("one cell"))
    (other,) = run(subject, sets, AttackContext("another cell"))

    assert one.prompt_ids.tolist() != other.prompt_ids.tolist()


@pytest.mark.parametrize("beam_width", [1, 3])
def test_the_control_of_a_trigger_writes_one_at_the_same_cost(
    beam_width, letter_subject, letter_examples
):
    subject = letter_subject()
    test, search = letter_examples(3, seed=1), letter_examples(6, seed=2)
    sets = ExampleSets(test, search, letter_examples(5, seed=3))
    sizes = {"search_prompts": 6, "validation_prompts": 5, "restarts": 2, "sweeps": 3}
    sizes |= {"batch_prompts": 6, "beam_width": beam_width}
    uat = UAT(UATOptions(trigger_tokens=3, candidates=6, **sizes))
    with subject.metered() as spent:
        list(uat.run(subject, sets, AttackContext("cell")))

    with subject.metered() as control:
        found = attack(subject, sets, uat)

    assert control.flops_whole == pytest.approx(spent.flops_whole, rel=0.1)
    triggers = {tuple(found[x.id].prompt_ids[:3]) for x in test}
    assert len(triggers) == 1
    assert np.isin(list(triggers), subject.vocabulary.allowed).all()
    for example in test:
        assert found[example.id].prompt_ids[3:].tolist() == example.prompt_ids.tolist()

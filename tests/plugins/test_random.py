import pytest

from harness import search
from harness.api import Attack, AttackContext, Budget
from harness.data import ExampleSets
from harness.subject import lockstep
from harness_plugins.attacks.hotflip import HotFlip
from harness_plugins.attacks.random import Random
from tests.plugins.letters import (
    best_flips,
    letter_examples,
    letter_subject,
    make,
    prompts_of,
    run,
)


def test_with_every_candidate_one_flip_is_exhaustive_search():
    subject, (example,) = letter_subject(), letter_examples()
    expected, _ = best_flips(subject, example, 1)

    attack = make(Random, flips=1, candidates=4 * 49)

    assert prompts_of(run(attack, subject, [example])) == {example.id: expected}


def test_as_a_control_it_makes_as_many_flips_as_what_it_matches():
    subject, examples = letter_subject(), letter_examples(3, prompt=12)

    found = run(make(Random, flips=1), subject, examples, matched=HotFlip())

    changed = [(found[x.id].prompt_ids != x.prompt_ids).sum() for x in examples]
    assert max(changed) == 5


class Stranger(Attack):
    """An attack that knows nothing of guides."""

    name = "stranger"

    def run(self, subject, examples, context):
        raise AssertionError("it cannot run blind")

    def budget(self, examples):
        return Budget(forward=40, backward=20, flips=3)


def test_an_attack_that_cannot_run_blind_is_matched_by_flips():
    subject, examples = letter_subject(), letter_examples(1, prompt=12)

    with subject.metered() as spent:
        (found,) = run(Random(), subject, examples, Stranger()).values()

    forward, backward = subject.pass_flops(12, 3)
    whole = 40 * forward + 20 * backward
    assert spent.flops_whole == pytest.approx(whole, rel=0.04)
    assert len(found.trace) == 3


def test_a_strangers_attack_has_a_fair_control_by_one_line():
    class OneStep(Stranger):
        """Verifies ten flips that a guide proposes."""

        blinds = ("uniform",)

        def run(self, subject, examples, context):
            for x in examples.test:
                guide = search.Guide(subject, x.reference_ids, context)
                explore = search.Explorer(guide, iter([10]), context.rng(x.id))
                one = search.flip_search(subject, x, explore, flips=1)
                yield from lockstep(subject, [one])

    subject, examples = letter_subject(), letter_examples(3, prompt=12)
    with subject.metered() as spent:
        own = run(OneStep(), subject, examples)
    with subject.metered() as control:
        found = run(Random(), subject, examples, OneStep())

    assert spent.sequences_backward == 3
    assert control.sequences_backward == 0
    assert control.flops_whole == pytest.approx(spent.flops_whole, rel=0.1)
    assert prompts_of(found) != prompts_of(own)


def test_other_cells_draw_otherwise():
    subject, sets = letter_subject(), ExampleSets(letter_examples(prompt=8))
    attack = make(Random, candidates=4)

    (one,) = attack.run(subject, sets, AttackContext("one cell"))
    (other,) = attack.run(subject, sets, AttackContext("another cell"))

    assert one.prompt_ids.tolist() != other.prompt_ids.tolist()

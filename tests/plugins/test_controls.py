"""The controls that accompany attacks: permuted, benign, none."""

import numpy as np
import pytest

from harness.api.attacks import AttackContext
from harness.data.document import ExampleSets
from harness_plugins.attacks.benign import Benign
from harness_plugins.attacks.hotflip import HotFlip, HotFlipOptions
from harness_plugins.attacks.none import NoAttack
from harness_plugins.attacks.permuted import Permuted
from harness_plugins.attacks.uat import UAT, UATOptions

pytestmark = pytest.mark.transformers5

FLIPS = HotFlip(HotFlipOptions(flips=3, candidates=24))
TEXTBOOK = HotFlip(HotFlipOptions(flips=3, candidates=24, candidates_from="gradient"))
TRIGGER = UAT(
    UATOptions(
        trigger_tokens=3,
        candidates=8,
        restarts=2,
        sweeps=2,
        search_prompts=6,
        validation_prompts=5,
        batch_prompts=6,
    )
)


@pytest.fixture(scope="module")
def sets(letter_examples):
    return ExampleSets(
        test=letter_examples(3, prompt=8, reference=4, seed=1),
        search=letter_examples(6, prompt=8, reference=4, seed=2),
        validation=letter_examples(5, prompt=8, reference=4, seed=3),
    )


def run(control, subject, sets, matched=None):
    """Return the prompts and traces by example, and what was spent."""
    budget = matched.budget(len(sets.test)) if matched else None
    context = AttackContext("cell", budget=budget, matched=matched)
    with subject.metered() as meter:
        found = {x.example_id: x for x in control.run(subject, sets, context)}
    return found, meter.cost()


# --- permuted -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "attack", [FLIPS, TEXTBOOK, TRIGGER], ids=["hotflip", "textbook", "uat"]
)
def test_permuted_makes_the_passes_of_the_attack(attack, letter_subject, sets):
    subject = letter_subject()
    _, control = run(Permuted(), subject, sets, attack)
    with subject.metered() as spent:
        list(attack.run(subject, sets, AttackContext("cell")))
    if attack is not FLIPS:  # there, a step that moves nowhere takes no new gradient
        assert control.sequences_backward == spent.sequences_backward > 0
    # But for near ties that are scored again, and tokens that were tried before.
    assert control.flops_whole == pytest.approx(spent.flops_whole, rel=0.05)


def test_permuted_shuffles_rows_by_content_alone(letter_subject, sets):
    subject = letter_subject()
    seen = []

    class Looking(HotFlip):
        def run(self, view, examples, context):
            assert context.budget is None
            assert context.matched is None
            prompts = [x.prompt_ids for x in examples.test]
            references = [x.reference_ids for x in examples.test]
            seen.append(view.gradients(prompts, references))
            seen.append(view.gradients(prompts[::-1], references[::-1])[::-1])
            return iter(())

    run(Permuted(), subject, sets, Looking())
    first, again = seen
    for example, shuffled, same in zip(sets.test, first, again, strict=True):
        (real,) = subject.gradients([example.prompt_ids], example.reference_ids)
        assert np.array_equal(shuffled, same)
        assert not np.array_equal(shuffled, real)
        rows = {row.numpy().tobytes() for row in real}
        assert {row.numpy().tobytes() for row in shuffled} == rows


def test_permuted_finds_the_same_in_any_order(letter_subject, sets):
    found, _ = run(Permuted(), letter_subject(batch_size=64), sets, FLIPS)
    turned = ExampleSets(sets.test[::-1], sets.search, sets.validation)
    again, _ = run(Permuted(), letter_subject(batch_size=3), turned, FLIPS)
    assert {k: x.prompt_ids.tolist() for k, x in found.items()} == {
        k: x.prompt_ids.tolist() for k, x in again.items()
    }


# --- benign -------------------------------------------------------------------------


def test_benign_prepends_one_text_of_the_corpus_for_all(letter_subject, sets):
    found, _ = run(Benign(), letter_subject(), sets, TRIGGER)
    texts = {tuple(found[x.id].prompt_ids[:3]) for x in sets.test}
    (text,) = texts
    documents = [
        [*x.prompt_ids, *x.reference_ids] for x in (*sets.search, *sets.validation)
    ]
    pieces = {tuple(d[i : i + 3]) for d in documents for i in range(len(d) - 2)}
    assert text in pieces
    for example in sets.test:
        assert found[example.id].prompt_ids[3:].tolist() == example.prompt_ids.tolist()


def test_benign_takes_the_best_on_validation_of_all_that_it_can_pay_for(
    letter_subject, sets, plain_losses
):
    subject = letter_subject()
    found, spent = run(Benign(), subject, sets, TRIGGER)
    documents = [
        [*x.prompt_ids, *x.reference_ids] for x in (*sets.search, *sets.validation)
    ]
    pieces = sorted({tuple(d[i : i + 3]) for d in documents for i in range(10)})
    # The budget pays for all pieces, so the best is known by brute force.
    budget = TRIGGER.budget(3)
    assert len(pieces) * 5 < budget.forward * 3
    means = [
        np.mean(
            [
                plain_losses(subject, [[*piece, *x.prompt_ids]], x.reference_ids)[0]
                for x in sets.validation
            ]
        )
        for piece in pieces
    ]
    best = pieces[int(np.argmax(means))]
    one = found[sets.test[0].id]
    assert tuple(one.prompt_ids[:3]) == best
    assert one.trace[0]["loss"] == pytest.approx(max(means), abs=1e-4)
    assert one.trace[0]["drawn"] == len(pieces)
    ties = spent.sequences_forward - 5 * len(pieces)
    assert 0 <= ties <= 5 * len(pieces) // 10


@pytest.mark.parametrize("prompts", [4, 32], ids=["enough", "too few"])
def test_benign_draws_as_many_texts_as_the_budget_pays_for(
    prompts, letter_subject, sets
):
    changes = {
        "restarts": 1,
        "sweeps": 1,
        "candidates": 2,
        "validation_prompts": prompts,
    }
    small = UAT(
        TRIGGER.options.model_copy(update={**changes, "search_prompts": prompts})
    )
    subject = letter_subject()
    with subject.metered() as attack:
        list(small.run(subject, sets, AttackContext("cell")))
    found, spent = run(Benign(), subject, sets, small)
    assert found[sets.test[0].id].trace[0]["drawn"] < 60
    assert spent.flops_whole == pytest.approx(attack.flops_whole, rel=0.2)


# --- none ---------------------------------------------------------------------------


def test_no_attack_returns_every_prompt_as_it_is(letter_subject, sets):
    found, spent = run(NoAttack(), letter_subject(), sets)
    assert {k: x.prompt_ids.tolist() for k, x in found.items()} == {
        x.id: x.prompt_ids.tolist() for x in sets.test
    }
    assert spent.sequences_forward == 0

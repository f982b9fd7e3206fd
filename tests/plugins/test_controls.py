"""The controls that accompany attacks: permuted, benign, none."""

import numpy as np
import pytest

from harness_plugins.attacks.benign import Benign
from harness_plugins.attacks.hotflip import HotFlip
from harness_plugins.attacks.none import NoAttack
from harness_plugins.attacks.permuted import Permuted
from harness_plugins.attacks.uat import UAT
from tests.plugins.letters import (
    letter_sets,
    letter_subject,
    make,
    plain_losses,
    prompts_of,
    run,
)

SETS = letter_sets(8, 4)
SMALL = {"trigger_tokens": 3, "candidates": 8, "restarts": 2, "sweeps": 2}
GIVEN = {"search_prompts": 6, "validation_prompts": 5, "batch_prompts": 6}


def test_permuted_shuffles_rows_by_content_alone():
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

    run(Permuted(), subject, SETS, Looking())
    first, again = seen
    for example, shuffled, same in zip(SETS.test, first, again, strict=True):
        (real,) = subject.gradients([example.prompt_ids], example.reference_ids)
        assert np.array_equal(shuffled, same)
        assert not np.array_equal(shuffled, real)
        rows = {row.numpy().tobytes() for row in real}
        assert {row.numpy().tobytes() for row in shuffled} == rows


def test_benign_takes_the_best_on_validation_of_all_texts_that_it_can_pay_for():
    subject, trigger = letter_subject(), make(UAT, **SMALL, **GIVEN)
    with subject.metered() as spent:
        found = run(Benign(), subject, SETS, trigger)
    documents = [
        [*x.prompt_ids, *x.reference_ids] for x in (*SETS.search, *SETS.validation)
    ]
    pieces = sorted({tuple(d[i : i + 3]) for d in documents for i in range(10)})
    # The budget pays for all pieces, so the best is known by brute force.
    assert len(pieces) * 5 < trigger.budget(3).forward * 3
    losses = [
        plain_losses(subject, [[*p, *x.prompt_ids] for p in pieces], x.reference_ids)
        for x in SETS.validation
    ]
    means = np.mean(losses, axis=0)
    best = pieces[int(np.argmax(means))]
    for example in SETS.test:
        one = found[example.id]
        assert tuple(one.prompt_ids[:3]) == best
        assert one.trace[0]["loss"] == pytest.approx(max(means), abs=1e-4)
        assert one.trace[0]["drawn"] == len(pieces)
    ties = spent.sequences_forward - 5 * len(pieces)
    assert 0 <= ties <= 5 * len(pieces) // 10


@pytest.mark.parametrize("prompts", [4, 32], ids=["enough", "too few"])
def test_benign_draws_as_many_texts_as_the_budget_pays_for(prompts):
    given = {"search_prompts": prompts, "validation_prompts": prompts}
    few = {"restarts": 1, "sweeps": 1, "candidates": 2, "batch_prompts": 6}
    small, subject = make(UAT, trigger_tokens=3, **few, **given), letter_subject()
    with subject.metered() as attack:
        run(small, subject, SETS)
    with subject.metered() as spent:
        found = run(Benign(), subject, SETS, small)
    assert found[SETS.test[0].id].trace[0]["drawn"] < 60
    assert spent.flops_whole == pytest.approx(attack.flops_whole, rel=0.2)


def test_no_attack_returns_every_prompt_as_it_is():
    subject = letter_subject()
    with subject.metered() as spent:
        found = run(NoAttack(), subject, SETS)
    assert prompts_of(found) == {x.id: x.prompt_ids.tolist() for x in SETS.test}
    assert spent.sequences_forward == 0

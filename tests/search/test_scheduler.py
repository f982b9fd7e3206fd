import numpy as np
import pytest

from harness.api.attacks import AttackContext
from harness.data.document import ExampleSets
from harness.search.scheduler import Gradients, Losses, Spent, Top, alone, lockstep
from harness.testing import tiny_examples
from harness_plugins.attacks.hotflip import HotFlip
from harness_plugins.attacks.random import Random

pytestmark = pytest.mark.transformers5


@pytest.fixture(scope="module")
def subject(tiny_model, tiny_tokenizer):
    from harness.subject.subject import Subject

    return Subject(tiny_model(), tiny_tokenizer)


def rows(seed, count, length):
    return list(np.random.default_rng(seed).integers(1, 250, (count, length)))


def asking(seed, rounds):
    """Ask for the losses of a few prompts, for a gradient and for the best, again."""
    (reference,) = rows([seed, 0], 1, 4)
    told = []
    for number in range(rounds):
        prompts = rows([seed, number, 1], 3, 5 + seed % 2)
        losses = yield Losses(prompts, reference)
        gradients = yield Gradients(prompts[:2], reference)
        best = yield Top(prompts, reference, losses, 2)
        told.append((losses, gradients, best))
    return seed, told


def test_every_search_gets_the_answers_to_its_own_requests(subject):
    rounds = {0: 2, 1: 1, 2: 3, 3: 0, 4: 1, 5: 2}

    found = dict(lockstep(subject, (asking(*x) for x in rounds.items()), width=4))

    assert {seed: len(told) for seed, told in found.items()} == rounds
    for seed, told in found.items():
        (reference,) = rows([seed, 0], 1, 4)
        for number, (losses, gradients, best) in enumerate(told):
            prompts = rows([seed, number, 1], 3, 5 + seed % 2)
            exact = subject.exact_losses(prompts, reference)
            assert losses == pytest.approx(exact, abs=1e-5)
            assert best == np.argsort(-exact)[:2].tolist()
            expected = subject.gradients(prompts[:2], reference)
            for gradient, own in zip(gradients, expected, strict=True):
                np.testing.assert_allclose(gradient, own, rtol=1e-4, atol=1e-7)


def test_requests_that_wait_together_are_one_call(subject, monkeypatch):
    sizes = []
    score = subject.losses

    def losses(prompts, references):
        sizes.append(len(prompts))
        return score(prompts, references)

    monkeypatch.setattr(subject, "losses", losses)

    list(lockstep(subject, (asking(seed, 1) for seed in range(5)), width=3))

    assert sizes == [9, 6]


def test_each_request_says_whether_prompts_must_be_reachable(subject):
    def ask(seed, only):
        (reference,) = rows([seed, 0], 1, 4)
        prompts = rows([seed, 1], 30, 3)
        losses = yield Losses(prompts, reference, reachable_only=only)
        return losses, subject.losses(prompts, reference), subject.reachable(prompts)

    asked = [ask(seed, seed % 2 == 1) for seed in range(4)]
    for number, found in enumerate(lockstep(subject, asked)):
        losses, expected, reachable = found
        assert 0 < sum(reachable) < 30
        if number % 2:
            expected[~np.array(reachable)] = np.nan
        assert losses == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_choices_that_wait_together_share_the_passes_that_decide(
    tiny_model, tiny_tokenizer, monkeypatch
):
    from harness.subject.subject import Subject

    subject = Subject(tiny_model(), tiny_tokenizer, dtype="bfloat16")
    (reference,) = rows(0, 1, 4)
    prompts = {seed: rows(seed, 6, 5) for seed in range(4)}
    sizes = []
    score = subject._passes.batched_losses

    def batched(network, pairs):
        sizes.append(len(pairs))
        return score(network, pairs)

    def choosing(seed):
        losses = yield Losses(prompts[seed], reference)
        # All within the margin, so that nothing but passes in float32 can decide.
        losses = 3 + 1e-4 * (losses - losses.mean())
        return seed, (yield Top(prompts[seed], reference, losses, 3, seed > 1))

    monkeypatch.setattr(subject._passes, "batched_losses", batched)
    found = dict(lockstep(subject, (choosing(seed) for seed in range(4))))

    for seed, best in found.items():
        exact = subject.exact_losses(prompts[seed], reference)
        assert best == np.argsort(exact if seed > 1 else -exact)[:3].tolist()
    assert sizes == [24]


def test_a_search_is_begun_when_there_is_room(subject):
    begun = []

    def searches():
        for seed in range(5):
            begun.append(seed)
            yield asking(seed, rounds=1 + seed)

    results = lockstep(subject, searches(), width=2)

    next(results)
    assert begun == [0, 1]
    next(results)
    assert begun == [0, 1, 2]


@pytest.mark.parametrize("attack", [HotFlip, Random])
def test_neither_width_nor_batch_size_changes_prompts_or_traces(
    attack, tiny_model, tiny_tokenizer, monkeypatch
):
    from harness.subject.subject import Subject

    sets = ExampleSets(tiny_examples(9, prompt_tokens=7).test)
    plugin = attack(attack.Options(flips=2, candidates=12))
    found = []
    for width, batch_size in ((1, 64), (8, 64), (32, 5)):
        monkeypatch.setattr("harness.search.scheduler.WIDTH", width)
        subject = Subject(tiny_model(), tiny_tokenizer, batch_size=batch_size)
        results = plugin.run(subject, sets, AttackContext("cell"))
        found.append({one.example_id: one for one in results})

    for other in found[1:]:
        for name, one in found[0].items():
            assert other[name].prompt_ids.tolist() == one.prompt_ids.tolist()
            assert len(other[name].trace) == len(one.trace) > 0
            for step, same in zip(one.trace, other[name].trace, strict=True):
                assert step.keys() == same.keys()
                for key, value in step.items():
                    assert value == pytest.approx(same[key], rel=1e-4, abs=1e-5)


def test_what_is_spent_is_counted(subject):
    spent = Spent()

    alone(subject, spent.count(asking(1, rounds=2)))

    assert spent == Spent(passes=2 * (3 + 2), gradients=2 * 2)

"""The attacks on an encoder-decoder subject, unchanged, against brute force."""

import dataclasses

import numpy as np
import pytest
import torch

from harness.api.attacks import AttackContext, Budget
from harness.base.errors import CellError
from harness.data.document import Example, ExampleSets
from harness.testing import tiny_subject
from harness_plugins.attacks.hotflip import HotFlip, HotFlipOptions
from harness_plugins.attacks.random import Random
from harness_plugins.attacks.uat import UAT, UATOptions
from harness_plugins.metrics.lm_eval import LmEval, LmEvalOptions

pytestmark = pytest.mark.transformers5


@pytest.fixture(scope="module")
def subject():
    return tiny_subject("t5")


def examples(count=1, prompt=4, seed=0):
    rng = np.random.default_rng(seed)
    allowed = np.arange(60, 260)
    return [
        Example(
            f"{seed}/{i}",
            f"{i}",
            np.append(rng.choice(allowed, prompt), 0),
            np.append(rng.choice(allowed, 3), 0),
            protected_end=1,
        )
        for i in range(count)
    ]


def plain_losses(subject, prompts, reference):
    """Score prompts with plain transformers, in float64 after the logits."""
    model, _ = subject.huggingface()
    prompts = torch.as_tensor(np.array(prompts))
    labels = torch.as_tensor(reference).repeat(len(prompts), 1)
    with torch.no_grad():
        logits = model(input_ids=prompts, labels=labels).logits.double()
    chosen = logits.log_softmax(-1).gather(2, labels[..., None])[..., 0]
    return -chosen.mean(1).numpy()


def run(attack, subject, test, budget=None, **sets):
    context = AttackContext(seed_key="cell", budget=budget)
    found = list(attack.run(subject, ExampleSets(test=test, **sets), context))
    return {one.example_id: one for one in found}


def all_flips(example, allowed):
    prompts = []
    for position in range(len(example.prompt_ids) - 1):
        for token in allowed:
            if token != example.prompt_ids[position]:
                prompts.append(example.prompt_ids.copy())
                prompts[-1][position] = token
    return prompts


def test_with_every_candidate_one_flip_is_exhaustive_search(subject):
    allowed = subject.vocabulary.allowed
    for seed in range(2):
        (example,) = examples(prompt=3, seed=seed)
        prompts = all_flips(example, allowed)
        losses = plain_losses(subject, prompts, example.reference_ids)
        attack = HotFlip(
            HotFlipOptions(flips=1, candidates=len(prompts), candidates_from="gradient")
        )

        found = run(attack, subject, [example])[example.id]

        assert found.prompt_ids.tolist() == prompts[int(losses.argmax())].tolist()
        assert found.trace[0]["loss"] == pytest.approx(losses.max(), abs=1e-5)


@pytest.mark.parametrize("attack", ["hotflip", "random"])
def test_flips_never_touch_the_end_of_a_prompt(subject, attack):
    test = examples(2, prompt=5)
    plugin, budget = HotFlip(HotFlipOptions(flips=9, candidates=12)), None
    if attack == "random":
        plugin, budget = Random(), Budget(forward=120, backward=0, flips=9)
    found = run(plugin, subject, test, budget)
    for example in test:
        ids = found[example.id].prompt_ids
        assert ids[-1] == 0
        assert len(ids) == 6
        changed = np.flatnonzero(ids != example.prompt_ids)
        assert len(changed) >= 3
        clean, attacked = plain_losses(
            subject, [example.prompt_ids, ids], example.reference_ids
        )
        assert attacked > clean


def test_a_trigger_goes_before_the_prompt_and_the_end_stays(subject):
    test, search, validation = (examples(3, seed=s) for s in (1, 2, 3))
    options = UATOptions(trigger_tokens=2, candidates=4, restarts=1, sweeps=1)
    attack = UAT(options)
    found = run(attack, subject, test, search=search, validation=validation)
    triggers = {tuple(found[e.id].prompt_ids[:2].tolist()) for e in test}
    assert len(triggers) == 1
    for example in test:
        assert found[example.id].prompt_ids[2:].tolist() == example.prompt_ids.tolist()


def test_what_was_chosen_does_not_depend_on_the_batch_size(subject):
    test = examples(2, prompt=6, seed=5)
    attack = HotFlip(HotFlipOptions(flips=3, candidates=20))
    many = run(attack, subject, test)
    subject.batch_size, before = 1, subject.batch_size
    alone = run(attack, subject, test)
    subject.batch_size = before
    for example in test:
        pair = (found[example.id].prompt_ids.tolist() for found in (many, alone))
        assert len({tuple(ids) for ids in pair}) == 1


def test_a_protected_start_and_end_leave_the_middle(subject):
    (example,) = examples(prompt=4)
    example = dataclasses.replace(example, protected=2)
    attack = HotFlip(HotFlipOptions(flips=5, candidates=30))
    ids = run(attack, subject, [example])[example.id].prompt_ids
    assert set(np.flatnonzero(ids != example.prompt_ids)) <= {2, 3}


def test_lm_eval_says_what_to_measure_instead(subject):
    metric = LmEval(LmEvalOptions(tasks=["lambada_openai"]))
    with pytest.raises(CellError, match="with `perplexity` or `rouge`"):
        list(metric.measure(subject, None))

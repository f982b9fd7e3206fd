import numpy as np
import pytest
import torch

from harness.api import AttackContext
from harness.data import Example
from harness.search.triggers import Batch, TriggerSearch, with_trigger
from harness.subject import Subject, TokenRules
from harness.testing import tiny_model, tiny_tokenizer


@pytest.fixture(scope="module")
def subject():
    return Subject(tiny_model(), tiny_tokenizer())


def examples_of(subject, count, seed, protected=0):
    rng = np.random.default_rng(seed)
    rows = rng.choice(subject.vocabulary.allowed, (count, 8))
    return [
        Example(f"{i}", f"{i}", row[:5], row[5:], protected=protected)
        for i, row in enumerate(rows)
    ]


def test_a_trigger_goes_after_what_must_stay_first():
    example = Example("e", "d", np.array([2, 11, 12]), np.array([13]), protected=1)

    assert with_trigger(example, (7, 8)).tolist() == [2, 7, 8, 11, 12]


def test_the_gradient_is_the_mean_of_those_at_the_triggers_embedding(subject):
    examples, trigger = examples_of(subject, 3, seed=0, protected=1), (70, 80, 90)
    model, _ = subject.huggingface()
    total = torch.zeros(3, 32)
    for x in examples:
        ids = torch.tensor([[*with_trigger(x, trigger), *x.reference_ids]])
        inputs = model.get_input_embeddings()(ids).detach().requires_grad_()
        labels = ids.clone()
        labels[:, : -len(x.reference_ids)] = -100
        model(inputs_embeds=inputs, labels=labels).loss.backward()
        total += inputs.grad[0, 1:4]

    gradient = Batch(subject, examples).gradient(trigger)

    torch.testing.assert_close(gradient, total / 3, rtol=1e-4, atol=1e-6)


def texts_of(subject, *prompts):
    return [
        Example(f"{i}", f"{i}", subject.encode(text), subject.encode(" dog"))
        for i, text in enumerate(prompts)
    ]


@pytest.fixture(scope="module")
def strict():
    """Return a subject on which every prompt has to be a text."""
    return Subject(tiny_model(), tiny_tokenizer(), rules=TokenRules())


PROMPTS = ("the cat sat on the mat", " the dog ate", "mat. the other cat", "at that")


def test_a_trigger_fits_the_prompts_that_come_back_with_it(strict):
    batch = Batch(strict, texts_of(strict, *PROMPTS))
    rng = np.random.default_rng(0)
    drawn = rng.choice(strict.vocabulary.allowed, (60, 2))
    triggers = [tuple(map(int, row)) for row in drawn]
    again = [
        sum(
            strict.encode(strict.decode(ids)).tolist() == ids.tolist()
            for ids in (with_trigger(x, trigger) for x in batch.examples)
        )
        for trigger in triggers
    ]
    assert len(set(again)) > 1
    assert batch.fit(triggers).tolist() == again


def test_without_the_rule_every_trigger_fits(subject):
    batch = Batch(subject, texts_of(subject, *PROMPTS))
    assert batch.fit([(70, 80), (90, 91)]).tolist() == [4, 4]


def test_a_prompt_that_no_text_gives_with_a_trigger_counts_as_it_is(strict):
    examples = texts_of(strict, *PROMPTS)
    batch = Batch(strict, examples)
    [trigger] = [
        trigger
        for trigger in ((int(token),) for token in strict.vocabulary.allowed)
        if 0 < batch.fit([trigger])[0] < 4
    ][:1]
    expected = []
    for example in examples:
        ids = with_trigger(example, trigger)
        text = strict.encode(strict.decode(ids)).tolist() == ids.tolist()
        prompt = ids if text else example.prompt_ids
        [loss] = strict.exact_losses([prompt], example.reference_ids)
        expected.append(loss)
    assert batch.losses([trigger])[0] == pytest.approx(np.mean(expected), abs=1e-5)


def test_equal_triggers_go_to_the_first(subject):
    batch = Batch(subject, examples_of(subject, 2, seed=0))
    triggers = [(70,), (80,), (70,), (80,)]
    losses = batch.losses(triggers)

    best, second = batch.top(triggers, losses, 2)

    first = int(losses[0] < losses[1])
    assert (best, second) == (first, first + 2)


def test_rounding_does_not_decide_between_triggers(subject):
    batch = Batch(subject, examples_of(subject, 2, seed=0))
    triggers = [(70,), (70,)]
    rounded = batch.losses(triggers) + np.array([0, 5e-5])

    assert batch.top(triggers, rounded, 1) == [0]


def test_the_start_is_chosen_on_the_validation_prompts(subject):
    search, validation = (examples_of(subject, 4, seed=s) for s in (1, 2))
    context = AttackContext("cell")
    loop = TriggerSearch(
        subject,
        search,
        validation,
        context,
        tokens=2,
        starts=6,
        sweeps=1,
        batch_prompts=4,
        candidates=0,  # starts stay what they are
    )
    streams = [context.rng("start", i) for i in range(6)]
    starts = [s.choice(subject.vocabulary.allowed, 2) for s in streams]
    means = [
        np.mean(
            [
                subject.exact_losses([[*start, *x.prompt_ids]], x.reference_ids)
                for x in validation
            ]
        )
        for start in starts
    ]

    found = loop.run()

    assert found.trigger == tuple(starts[int(np.argmax(means))])


def test_sweeps_that_a_start_leaves_go_to_further_starts(subject):
    examples = examples_of(subject, 2, seed=1)
    begun = []

    class Context(AttackContext):
        def rng(self, name, start):
            begun.append(start)
            return super().rng(name, start)

    TriggerSearch(
        subject,
        examples,
        examples,
        Context("cell"),
        tokens=1,
        starts=2,
        sweeps=3,
        batch_prompts=2,
        candidates=0,  # over after a sweep each
    ).run()

    assert begun == [0, 1, 2, 3, 4, 5]


def test_bfloat16_searches_triggers_and_float32_decides():
    half = Subject(tiny_model(), tiny_tokenizer(), dtype="bfloat16")
    full = Subject(tiny_model(), tiny_tokenizer())
    examples = examples_of(half, 4, seed=2)
    triggers = [(int(token), 80) for token in half.vocabulary.allowed[:40]]
    exact = [
        np.mean(
            [
                full.exact_losses([with_trigger(x, trigger)], x.reference_ids)
                for x in examples
            ]
        )
        for trigger in triggers
    ]
    batch = Batch(half, examples)

    for k in (1, 5):
        found = batch.top(triggers, batch.losses(triggers), k)
        assert found == np.argsort(-np.array(exact))[:k].tolist()

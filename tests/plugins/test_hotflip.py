import numpy as np
import pydantic
import pytest
import torch
from scipy.stats import bootstrap

from harness.api.attacks import AttackContext
from harness.data.document import ExampleSets
from harness_plugins.attacks.hotflip import HotFlip, HotFlipOptions
from harness_plugins.attacks.permuted import Permuted
from harness_plugins.attacks.random import Random

pytestmark = pytest.mark.transformers5
EVERYTHING = 4 * 49


def attack(subject, examples, plugin=HotFlip, matched=None, **options):
    """Run an attack; returns its results by example id."""
    results = plugin(plugin.Options(**options)).run(
        subject, ExampleSets(examples), AttackContext("cell", matched=matched)
    )
    return {found.example_id: found for found in results}


def ids_of(found):
    return {key: one.prompt_ids.tolist() for key, one in found.items()}


def rises(subject, examples, found):
    """Return dL of each example, in fresh passes."""
    return [
        np.subtract(
            *subject.exact_losses(
                [found[x.id].prompt_ids, x.prompt_ids], x.reference_ids
            )
        )
        for x in examples
    ]


def test_with_every_candidate_one_flip_is_exhaustive_search(
    letter_subject, letter_examples, best_flips
):
    for seed in range(3):
        subject, (example,) = letter_subject(seed=seed), letter_examples(seed=seed)
        expected, loss = best_flips(subject, example, 1)

        found = attack(
            subject,
            [example],
            flips=1,
            candidates=EVERYTHING,
            candidates_from="gradient",
        )[example.id]

        assert found.prompt_ids.tolist() == expected.tolist()
        assert found.trace[0]["loss"] == pytest.approx(loss, abs=1e-5)


def test_with_an_unbounded_beam_two_flips_are_exhaustive_search(
    letter_subject, letter_examples, best_flips
):
    subject, (example,) = letter_subject(), letter_examples(prompt=2)
    expected, _ = best_flips(subject, example, 2)

    found = attack(
        subject,
        [example],
        flips=2,
        candidates=2 * 49,
        beam_width=2 * 48 + 1,
        candidates_from="gradient",
    )

    assert found[example.id].prompt_ids.tolist() == expected.tolist()


def test_a_beam_finds_no_less_than_greedy_search(letter_subject, letter_examples):
    subject, examples = letter_subject(), letter_examples(3, prompt=4)
    options = {"flips": 2, "candidates": 4 * 49, "candidates_from": "gradient"}

    greedy = rises(subject, examples, attack(subject, examples, **options))
    beam = rises(subject, examples, attack(subject, examples, beam_width=4, **options))

    assert np.mean(beam) >= np.mean(greedy)


def test_the_textbook_verifies_the_flips_of_highest_first_order_gain(
    family, letter_subject, letter_examples
):
    subject, (example,) = letter_subject(family), letter_examples(prompt=6)
    model, _ = subject.huggingface()
    ids = torch.tensor([[*example.prompt_ids, *example.reference_ids]])
    rows = model.get_input_embeddings()(torch.arange(52)).detach()
    inputs = rows[ids].clone().requires_grad_()  # no tied head mixes in here
    log_p = model(inputs_embeds=inputs).logits[0, 5:-1].log_softmax(-1)
    loss = -log_p[range(3), example.reference_ids].mean()
    (gradient,) = torch.autograd.grad(loss, inputs)
    gains = {
        (i, b): float((rows[b] - rows[example.prompt_ids[i]]) @ gradient[0, i])
        for i in range(6)
        for b in range(1, 50)
        if b != example.prompt_ids[i]
    }
    ranked = sorted(gains, key=gains.__getitem__, reverse=True)
    for k in (1, 5):
        (found,) = attack(
            subject, [example], flips=1, candidates=k, candidates_from="gradient"
        ).values()
        for step in found.trace:
            flip = step["position"], step["token"]
            assert flip in ranked[:k]
            assert ranked.index(flip) + 1 == step["gain_rank"]
            assert step["gain"] == pytest.approx(gains[flip], rel=1e-3, abs=1e-6)


@pytest.fixture(scope="module")
def compared(tiny_model, tiny_tokenizer, letter_examples):
    """Return dL and FLOPs of the attack and of its controls, on the same examples."""
    from harness.subject.subject import Subject

    subject, examples = Subject(tiny_model(), tiny_tokenizer), letter_examples(24, 12)
    options = {"flips": 2, "candidates": 24}
    matched = HotFlip(HotFlipOptions(**options))

    def measured(**how):
        with subject.metered() as spent:
            found = attack(subject, examples, **how)
        return np.array(rises(subject, examples, found)), spent.flops_whole

    return {
        "hotflip": measured(**options),
        "permuted": measured(plugin=Permuted, matched=matched),
        "random": measured(plugin=Random, matched=matched),
    }


@pytest.mark.parametrize("control", ["random", "permuted"])
def test_it_beats_its_controls_at_equal_cost(control, compared):
    (found, flops), (control_found, control_flops) = (
        compared["hotflip"],
        compared[control],
    )

    interval = bootstrap((found - control_found,), np.mean, rng=0).confidence_interval

    assert interval.low > 0
    assert control_flops == pytest.approx(flops, rel=0.02)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"candidates_from": "gradient", "beam_width": 3},
        {"candidates_from": "gradient"},
        {"candidates": 3},
    ],
)
def test_the_budget_is_what_is_spent(options, letter_subject, letter_examples):
    subject, (example,) = letter_subject(), letter_examples(prompt=12)
    budget = HotFlip(HotFlipOptions(**options)).budget(1)

    with subject.metered() as spent:
        attack(subject, [example], **options)

    forward, backward = subject.pass_flops(12, 3)
    whole = budget.forward * forward + budget.backward * backward
    ties = 10  # scored again
    assert 0.98 * whole <= spent.flops_whole <= whole + ties * forward
    if "candidates_from" in options:  # else a kept gradient becomes candidates
        assert spent.sequences_backward == budget.backward
    assert spent.sequences_backward <= budget.backward


def test_a_beam_of_the_default_is_refused():
    with pytest.raises(pydantic.ValidationError, match="needs candidates_from"):
        HotFlipOptions(beam_width=2)


def test_a_gradient_turned_around_does_not_beat_random_search(
    tiny_model, tiny_tokenizer, letter_examples
):
    from harness.subject import Subject

    subject, examples = Subject(tiny_model(), tiny_tokenizer), letter_examples(24, 12)
    inverted = subject.with_gradients(lambda p, r, gradients: [-g for g in gradients])
    options = {"flips": 3, "candidates": 24}
    matched = HotFlip(HotFlipOptions(**options))

    down = rises(subject, examples, attack(inverted, examples, **options))
    control = attack(subject, examples, plugin=Random, matched=matched)

    pairs = np.subtract(down, rises(subject, examples, control))
    assert bootstrap((pairs,), np.mean, rng=0).confidence_interval.high < 0


def test_what_diagnostics_ask_for():
    hotflip = HotFlip(HotFlipOptions(flips=3))

    assert hotflip.unbounded(16) == HotFlipOptions(flips=16)
    assert hotflip.longer() == HotFlipOptions(flips=3, candidates=128)
    assert HotFlip(HotFlipOptions(candidates_from="gradient")).longer() is None


@pytest.mark.parametrize("source", ["ascent", "gradient"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_neither_batch_size_nor_order_nor_company_changes_a_prompt(
    dtype, source, letter_subject, letter_examples
):
    examples = letter_examples(3, prompt=6)
    options = {"flips": 2, "candidates": 9, "candidates_from": source}

    together = attack(letter_subject(dtype=dtype, batch_size=256), examples, **options)
    singly = attack(letter_subject(dtype=dtype, batch_size=2), examples, **options)
    some = attack(letter_subject(dtype=dtype, batch_size=7), examples[:0:-1], **options)

    assert ids_of(together) == ids_of(singly)
    assert ids_of(some).items() <= ids_of(together).items()


@pytest.mark.parametrize("source", ["ascent", "gradient"])
def test_only_allowed_tokens_are_written_at_unprotected_distinct_positions(
    source, letter_subject, letter_examples
):
    subject, examples = letter_subject("opt"), letter_examples(6, prompt=9, protected=2)

    found = attack(subject, examples, flips=4, candidates=12, candidates_from=source)

    for example in examples:
        prompt = found[example.id].prompt_ids
        changed = np.flatnonzero(prompt != example.prompt_ids)
        assert len(prompt) == len(example.prompt_ids)
        assert len(changed) <= 4
        if source == "gradient":
            assert len(changed) == len(found[example.id].trace)
        assert changed.min() >= 2
        assert set(prompt[changed]) <= set(subject.vocabulary.allowed.tolist())


def test_the_loss_of_the_last_step_is_that_of_a_fresh_pass(
    letter_subject, letter_examples, plain_losses
):
    subject, examples = letter_subject(), letter_examples(3, prompt=8)

    for example in examples:
        found = attack(subject, [example], flips=3)[example.id]
        fresh = plain_losses(subject, [found.prompt_ids], example.reference_ids)[0]
        assert found.trace[-1]["loss"] == pytest.approx(fresh, abs=1e-4)


@pytest.mark.parametrize("steps", [1, 2])  # of ascent, the first is a drawn start
@pytest.mark.parametrize("source", ["ascent", "gradient"])
def test_stop_on_success_stops_at_the_first_step_that_suffices(
    source, steps, letter_subject, letter_examples
):
    subject, (example,) = letter_subject(), letter_examples(prompt=8)
    options = {"candidates_from": source}
    clean = subject.exact_losses([example.prompt_ids], example.reference_ids)[0]
    whole = attack(subject, [example], **options)[example.id]
    first = whole.trace[steps - 1]["loss"] - 1e-4

    stopped = attack(
        subject, [example], stop_on_success=np.expm1(first - clean), **options
    )[example.id]

    assert list(stopped.trace) == list(whole.trace[:steps])


def test_a_gradient_of_zero_is_no_obstacle(
    tiny_model, letter_tokenizer, letter_examples
):
    from harness.subject.subject import Subject

    model = tiny_model(vocab_size=52)
    model.get_output_embeddings().weight.data.zero_()  # every token is equally likely
    (example,) = letter_examples(prompt=8)

    found = attack(Subject(model, letter_tokenizer), [example], flips=2, candidates=5)[
        example.id
    ]

    assert found.prompt_ids.tolist() == example.prompt_ids.tolist()

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


def attack(subject, examples, budget=None, plugin=HotFlip, matched=None, **options):
    """Run an attack; returns its results by example id."""
    results = plugin(plugin.Options(**options)).run(
        subject, ExampleSets(examples), AttackContext("cell", budget, matched)
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


@pytest.mark.parametrize("source", ["refined", "gradient"])
def test_with_every_candidate_one_flip_is_exhaustive_search(
    source, letter_subject, letter_examples, best_flips
):
    for seed in range(3):
        subject, (example,) = letter_subject(seed=seed), letter_examples(seed=seed)
        expected, loss = best_flips(subject, example, 1)

        found = attack(
            subject, [example], flips=1, candidates=EVERYTHING, candidates_from=source
        )[example.id]

        assert found.prompt_ids.tolist() == expected.tolist()
        assert found.trace[0]["loss"] == pytest.approx(loss, abs=1e-5)


def test_with_an_unbounded_beam_two_flips_are_exhaustive_search(
    letter_subject, letter_examples, best_flips
):
    subject, (example,) = letter_subject(), letter_examples(prompt=2)
    expected, _ = best_flips(subject, example, 2)

    found = attack(
        subject, [example], flips=2, candidates=2 * 49, beam_width=2 * 48 + 1
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
    budget = HotFlip(HotFlipOptions(**options)).budget(len(examples))

    def measured(**how):
        with subject.metered() as spent:
            found = attack(subject, examples, **how)
        return np.array(rises(subject, examples, found)), spent.flops_whole

    return {
        "hotflip": measured(**options),
        "permuted": measured(
            plugin=Permuted, matched=HotFlip(HotFlipOptions(**options))
        ),
        "random": measured(budget=budget, plugin=Random),
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
        {"beam_width": 3},
        {"restarts": 2},
        {"candidates_from": "gradient"},
        {"candidates": 3},
    ],
)
def test_the_budget_is_what_is_spent(options, letter_subject, letter_examples):
    subject, (example,) = letter_subject(), letter_examples(prompt=12)
    budget = HotFlip(HotFlipOptions(**options)).budget(1)

    with subject.metered() as spent:
        attack(subject, [example], **options)

    assert spent.sequences_backward == budget.backward
    ties = 10  # scored again
    assert budget.forward <= spent.sequences_forward <= budget.forward + ties


def test_the_best_of_several_tries_is_kept(letter_subject, letter_examples):
    subject, examples = letter_subject(), letter_examples(8, prompt=8)
    options = {"flips": 2, "candidates": 6}

    once = attack(subject, examples, **options)
    thrice = attack(subject, examples, restarts=3, **options)

    gains = np.subtract(*(rises(subject, examples, x) for x in (thrice, once)))
    assert min(gains) > -1e-6  # the first try is the same
    assert max(gains) > 1e-3
    each = HotFlip(HotFlipOptions(**options)).budget(1).forward - 1
    last = [thrice[x.id].trace[-1]["passes"] for x in examples]
    assert {(passes - 1) // each for passes in last} > {1}  # it counts tries before
    assert max(last) <= 1 + 3 * each


def test_restarts_that_would_all_be_the_same_are_refused():
    with pytest.raises(pydantic.ValidationError, match="would all be the same"):
        HotFlipOptions(restarts=2, candidates_from="gradient")


def test_what_diagnostics_ask_for():
    hotflip = HotFlip(HotFlipOptions(flips=3))

    assert hotflip.unbounded(16) == HotFlipOptions(flips=16)
    assert hotflip.longer() == HotFlipOptions(flips=3, restarts=2)
    assert HotFlip(HotFlipOptions(candidates_from="gradient")).longer() is None


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_neither_batch_size_nor_order_nor_company_changes_a_prompt(
    dtype, letter_subject, letter_examples
):
    examples = letter_examples(3, prompt=6)
    options = {"flips": 2, "candidates": 9, "refinements": 2}

    together = attack(letter_subject(dtype=dtype, batch_size=256), examples, **options)
    singly = attack(letter_subject(dtype=dtype, batch_size=2), examples, **options)
    some = attack(letter_subject(dtype=dtype, batch_size=7), examples[:0:-1], **options)

    assert ids_of(together) == ids_of(singly)
    assert ids_of(some).items() <= ids_of(together).items()


def test_only_allowed_tokens_are_written_at_unprotected_distinct_positions(
    letter_subject, letter_examples
):
    subject, examples = letter_subject("opt"), letter_examples(6, prompt=9, protected=2)

    found = attack(subject, examples, flips=4, candidates=12)

    for example in examples:
        prompt = found[example.id].prompt_ids
        changed = np.flatnonzero(prompt != example.prompt_ids)
        assert len(prompt) == len(example.prompt_ids)
        assert len(changed) == len(found[example.id].trace) <= 4
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


def test_stop_on_success_stops_at_the_first_flip_that_suffices(
    letter_subject, letter_examples
):
    subject, (example,) = letter_subject(), letter_examples(prompt=8)

    stopped = attack(subject, [example], stop_on_success=0.001)[example.id]

    assert len(stopped.trace) == 1


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

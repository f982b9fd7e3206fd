"""Questions to a subject alone: each fires where it should, and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from harness.data.document import Example
from harness.run.diagnostics.probes import probe
from harness.run.diagnostics.subject import examine
from harness.subject.subject import Subject

pytestmark = pytest.mark.transformers5

N, M = 10, 5


def _example(seed: int) -> Example:
    ids = np.random.default_rng(seed).integers(20, 282, size=N + M)
    name = f"test/{seed}"
    return Example(name, name, ids[:N], ids[N:], protected=1)


EXAMPLES = [_example(seed) for seed in range(3)]


@pytest.fixture
def subject(tiny_model, tiny_tokenizer) -> Subject:
    return Subject(tiny_model(), tiny_tokenizer)


def answers(subject: Subject):
    return {each.id: each for each in examine(subject, EXAMPLES)}


def changed(subject: Subject, change) -> Subject:
    return subject.with_gradients(
        lambda p, r, gradients: [change(g) for g in gradients]
    )


def test_a_plain_subject_passes(family_subject) -> None:
    found = answers(family_subject)
    truth = found.pop("gradient_truth")
    assert {each.status for each in found.values()} == {"pass"}
    if family_subject.huggingface()[0].config.model_type == "opt":
        # Its random start is so flat that rounding hides the slopes, or nearly.
        assert truth.status in ("not_applicable", "pass")
        assert truth.value is None or truth.value < 0.05
    else:
        assert truth.status == "pass"
        assert truth.value < 2e-3
    assert found["gradient_health"].value == 0
    assert found["determinism"].n == len(EXAMPLES) * 7


@pytest.fixture
def family_subject(tiny_model, tiny_tokenizer, family) -> Subject:
    return Subject(tiny_model(family), tiny_tokenizer)


@pytest.mark.parametrize(
    ("factor", "error"), [(2.0, 1.0), (0.0, 1.0), (-1.0, 2.0), (1.01, 0.01)]
)
def test_the_error_of_a_gradient_is_relative_to_the_slope(subject, factor, error):
    """If autograd said c g where the slope is g, the relative error is |c - 1|."""
    found = answers(changed(subject, lambda gradient: factor * gradient))
    truth = found["gradient_truth"]
    assert truth.value == pytest.approx(error, abs=5e-3)
    assert truth.status == ("pass" if error <= 0.05 else "fail")


def test_zeros_and_what_is_not_finite_are_counted(subject) -> None:
    def one_zero_row(gradient):
        gradient = gradient.clone()
        gradient[3] = 0
        return gradient

    health = answers(changed(subject, one_zero_row))["gradient_health"]
    assert health.status == "fail"
    assert health.value == pytest.approx(1 / (N - 1))  # the first token is protected

    def one_nan(gradient):
        gradient = gradient.clone()
        gradient[3, 5] = torch.nan
        return gradient

    health = answers(changed(subject, one_nan))["gradient_health"]
    assert (health.status, health.measured["not_finite"]) == ("fail", len(EXAMPLES))
    assert health.measured["norms"] == []


def test_norms_are_those_of_the_positions_that_may_change(subject) -> None:
    norms = answers(subject)["gradient_health"].measured["norms"]
    for example, norm in zip(EXAMPLES, norms, strict=True):
        [gradient] = subject.gradients([example.prompt_ids], [example.reference_ids])
        assert norm == pytest.approx(float(gradient[1:].norm()), rel=1e-5)


def test_fidelity_is_spearman_s_of_gains_and_true_losses(subject) -> None:
    found = answers(subject)["first_order_fidelity"]
    for each in probe(subject, EXAMPLES):
        example, gains, losses = each.example, [], []
        [gradient] = subject.gradients([example.prompt_ids], [example.reference_ids])
        for position, token in each.flips[: each.drawn]:
            step = subject.embedding[token]
            step = step - subject.embedding[example.prompt_ids[position]]
            gains.append(float(step @ gradient[position]))
            flipped = example.prompt_ids.copy()
            flipped[position] = token
            losses.append(subject.exact_losses([flipped], example.reference_ids)[0])
        ranks = [np.argsort(np.argsort(values)) for values in (gains, losses)]
        by_hand = np.corrcoef(*ranks)[0, 1]
        assert found.measured["examples"][example.id] == pytest.approx(
            by_hand, abs=2e-3
        )
    values = list(found.measured["examples"].values())
    assert found.value == pytest.approx(np.mean(values))
    assert found.n == sum(each.drawn for each in probe(subject, EXAMPLES))


def test_a_gradient_of_zeros_ranks_nothing(subject) -> None:
    found = answers(changed(subject, torch.zeros_like))
    assert found["first_order_fidelity"].value == 0
    assert found["gradient_health"].value == 1


def test_flips_depend_on_the_example_alone(tiny_model, tiny_tokenizer) -> None:
    one, other = (
        probe(Subject(tiny_model(family), tiny_tokenizer), EXAMPLES)
        for family in ("gpt_neox", "llama")
    )
    for first, second in zip(one, other, strict=True):
        assert first.flips[: first.drawn] == second.flips[: second.drawn]
        assert all(position > 0 for position, _ in first.flips)
    alone = probe(Subject(tiny_model(), tiny_tokenizer), EXAMPLES[1:2])[0]
    assert alone.flips[: alone.drawn] == one[1].flips[: one[1].drawn]


def _nudged(model, amount):
    """Add a constant to one logit-forming direction of every pass, by `amount`."""
    norm = model.base_model.final_layer_norm
    norm.register_forward_hook(lambda m, args, out: out + amount(out))
    return model


def test_passes_that_differ_when_made_twice_are_found(
    tiny_model, tiny_tokenizer
) -> None:
    draw = torch.Generator().manual_seed(0)

    def noise(out):
        return 0.01 * torch.randn(out.shape, generator=draw)

    subject = Subject(tiny_model("gpt_neox"), tiny_tokenizer)
    _nudged(subject.huggingface()[0], noise)
    found = answers(subject)["determinism"]
    assert found.status == "fail"
    assert "made twice" in found.reason


def test_losses_that_depend_on_the_batch_are_found(tiny_model, tiny_tokenizer) -> None:
    def of_the_batch(out):
        ramp = torch.linspace(0, 0.2, out.shape[-1])
        return ramp * (out.shape[0] > 1)

    subject = Subject(tiny_model("gpt_neox"), tiny_tokenizer)
    _nudged(subject.huggingface()[0], of_the_batch)
    found = answers(subject)["determinism"]
    assert found.status == "fail"
    assert "batch and alone" in found.reason
    assert found.value > found.threshold

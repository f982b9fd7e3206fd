"""Questions to a subject alone: each fires where it should, and nowhere else."""

import numpy as np
import pytest
import torch

from harness.data.document import Example
from harness.run.diagnostics.probes import probe
from harness.run.diagnostics.subject import examine
from harness.subject.subject import Subject
from harness.testing import tiny_subject

pytestmark = pytest.mark.transformers5

N, M = 10, 5


def _example(seed):
    ids = np.random.default_rng(seed).integers(20, 282, size=N + M)
    return Example(f"test/{seed}", f"{seed}", ids[:N], ids[N:], protected=1)


EXAMPLES = [_example(seed) for seed in range(3)]


def answers(subject: Subject):
    return {each.id: each for each in examine(subject, EXAMPLES)}


def changed(subject: Subject, change) -> Subject:
    return subject.with_gradients(lambda p, r, found: [change(g) for g in found])


def test_a_plain_subject_passes(family_subject):
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


@pytest.mark.parametrize(
    ("factor", "error"), [(2.0, 1.0), (0.0, 1.0), (-1.0, 2.0), (1.01, 0.01)]
)
def test_the_error_of_a_gradient_is_relative_to_the_slope(subject, factor, error):
    """If autograd said c g where the slope is g, the relative error is |c - 1|."""
    found = answers(changed(subject, lambda gradient: factor * gradient))
    truth = found["gradient_truth"]
    assert truth.value == pytest.approx(error, abs=5e-3)
    assert truth.status == ("pass" if error <= 0.05 else "fail")


def test_zeros_and_what_is_not_finite_are_counted(subject):
    def health_with(place, value):
        def change(gradient):
            return gradient.clone().index_put_(place, torch.tensor(value))

        return answers(changed(subject, change))["gradient_health"]

    health = health_with((torch.tensor(3),), 0.0)
    assert health.status == "fail"
    assert health.value == pytest.approx(1 / (N - 1))  # the first token is protected
    health = health_with((torch.tensor(3), torch.tensor(5)), torch.nan)
    assert (health.status, health.measured["not_finite"]) == ("fail", len(EXAMPLES))
    assert health.measured["norms"] == []


def test_norms_are_those_of_the_positions_that_may_change(subject):
    norms = answers(subject)["gradient_health"].measured["norms"]
    for example, norm in zip(EXAMPLES, norms, strict=True):
        [gradient] = subject.gradients([example.prompt_ids], [example.reference_ids])
        assert norm == pytest.approx(float(gradient[1:].norm()), rel=1e-5)


def test_fidelity_is_spearman_s_of_gains_and_true_losses(subject):
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
        told = found.measured["examples"][example.id]
        assert told == pytest.approx(by_hand, abs=2e-3)
    values = list(found.measured["examples"].values())
    assert found.value == pytest.approx(np.mean(values))
    assert found.n == sum(each.drawn for each in probe(subject, EXAMPLES))


def test_a_gradient_of_zeros_ranks_nothing(subject):
    found = answers(changed(subject, torch.zeros_like))
    assert found["first_order_fidelity"].value == 0
    assert found["gradient_health"].value == 1


def test_flips_depend_on_the_example_alone(subject):
    one, other = (probe(each, EXAMPLES) for each in (subject, tiny_subject("llama")))
    for first, second in zip(one, other, strict=True):
        assert first.flips[: first.drawn] == second.flips[: second.drawn]
        assert all(position > 0 for position, _ in first.flips)
    [alone] = probe(subject, EXAMPLES[1:2])
    assert alone.flips[: alone.drawn] == one[1].flips[: one[1].drawn]


DRAW = torch.Generator().manual_seed(0)


def noise(out):
    return 0.01 * torch.randn(out.shape, generator=DRAW)


def of_the_batch(out):
    return torch.linspace(0, 0.2, out.shape[-1]) * (out.shape[0] > 1)


@pytest.mark.parametrize(
    ("change", "told"), [(noise, "made twice"), (of_the_batch, "batch and alone")]
)
def test_passes_that_differ_when_made_again_or_together_are_found(
    subject, change, told
):
    norm = subject.huggingface()[0].base_model.final_layer_norm
    norm.register_forward_hook(lambda m, args, out: out + change(out))
    found = answers(subject)["determinism"]
    assert found.status == "fail"
    assert told in found.reason
    assert found.value > found.threshold

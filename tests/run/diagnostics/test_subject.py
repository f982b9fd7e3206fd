"""Questions to a subject alone: each fires where it should, and nowhere else."""

import copy

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from harness.data.document import Example
from harness.running.diagnostics import probes
from harness.running.diagnostics.probes import probe
from harness.running.diagnostics.subject import (
    examine,
    examine_attacked,
    spearman,
)
from harness.subject.subject import Subject
from harness.testing import tiny_subject
from tests.run_fixtures import sample_row

pytestmark = pytest.mark.transformers5

N, M = 10, 5


def _example(seed):
    ids = np.random.default_rng(seed).integers(20, 282, size=N + M)
    cluster = "c" if seed == 2 else None
    return Example(
        f"test/{seed}", f"{seed}", ids[:N], ids[N:], protected=1, cluster=cluster
    )


EXAMPLES = [_example(seed) for seed in range(3)]


def answers(subject: Subject, examples=EXAMPLES):
    return {each.id: each for each in examine(subject, examples)}


def values(answer):
    """Return the values of an answer, by example."""
    return {x["example"]: x["value"] for x in answer.measured["values"]}


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
    assert max(values(truth).values()) < 0.05
    assert set(values(found["gradient_health"]).values()) == {0.0}
    assert found["determinism"].n == len(EXAMPLES) * 2
    assert max(values(found["determinism"]).values()) == found["determinism"].value
    for answer in (truth, *found.values()):
        told = [
            (x["example"], x["document"], x["at"]) for x in answer.measured["values"]
        ]
        assert told == [(e.id, e.cluster or e.document_id, "clean") for e in EXAMPLES]


@pytest.mark.parametrize(
    ("factor", "error"), [(2.0, 1.0), (0.0, 1.0), (-1.0, 2.0), (1.01, 0.01)]
)
def test_the_error_of_a_gradient_is_relative_to_the_slope(subject, factor, error):
    """If autograd said c g where the slope is g, the relative error is |c - 1|."""
    found = answers(changed(subject, lambda gradient: factor * gradient))
    truth = found["gradient_truth"]
    assert truth.value == pytest.approx(error, abs=5e-3)
    assert list(values(truth).values()) == pytest.approx([error] * 3, abs=0.02)
    assert truth.status == ("pass" if error <= 0.05 else "fail")


@pytest.mark.parametrize(("entry", "broken"), [(0.0, 0), (torch.nan, 1)])
def test_gains_that_are_zero_or_not_finite_are_counted(subject, entry, broken):
    """One position whose gradient says nothing: its share of the drawn flips."""
    found = answers(changed(subject, lambda g: g.clone().index_fill_(0, PLACE, entry)))
    health = found["gradient_health"]
    shares = {}
    for each in probe(subject, EXAMPLES):
        at_place = [position == int(PLACE) for position, _ in each.flips]
        shares[each.example.id] = np.mean(at_place)
    assert health.status == "fail"
    assert values(health) == pytest.approx(shares)
    assert bool(health.measured["not_finite"]) == broken
    assert (found["gradient_truth"].value is None) == broken
    assert (None in values(found["first_order_fidelity"]).values()) == broken


PLACE = torch.tensor(3)


def test_fidelity_is_spearman_s_of_gains_and_true_losses(subject):
    found = answers(subject)["first_order_fidelity"]
    told, number = values(found), 0
    for each in probe(subject, EXAMPLES):
        example, gains, losses = each.example, [], []
        [gradient] = subject.gradients([example.prompt_ids], [example.reference_ids])
        for position, token in each.scored:
            step = subject.embedding[token]
            step = step - subject.embedding[example.prompt_ids[position]]
            gains.append(float(step @ gradient[position]))
            flipped = example.prompt_ids.copy()
            flipped[position] = token
            losses.append(subject.exact_losses([flipped], example.reference_ids)[0])
        by_hand = spearmanr(gains, losses).statistic
        assert told[example.id] == pytest.approx(by_hand, abs=0.02)
        number += len(losses)
    assert found.value == pytest.approx(np.mean(list(told.values())))
    assert found.n == number == len(EXAMPLES) * probes.SCORED_FLIPS


def test_ranks_correlate_to_the_last_bit_as_in_scipy():
    rng = np.random.default_rng(0)
    for digits in [*range(3)] * 40:  # few digits, many ties
        gains = rng.normal(size=rng.integers(2, 17)).round(digits)
        losses = (gains + rng.normal(size=len(gains))).round(digits)
        if np.ptp(gains) and np.ptp(losses):
            assert spearman(gains, losses) == spearmanr(gains, losses).statistic


def test_a_gradient_of_zeros_ranks_nothing(subject):
    found = answers(changed(subject, torch.zeros_like))
    assert set(values(found["first_order_fidelity"]).values()) == {0.0}
    assert set(values(found["gradient_health"]).values()) == {1.0}


def test_nothing_depends_on_the_scale_of_embeddings(subject):
    """Embeddings halved and doubled again behind them: the same function of tokens."""
    model, tokenizer = subject.huggingface()
    model = copy.deepcopy(model)
    embedding = model.get_input_embeddings()
    embedding.weight.data /= 2
    embedding_layer_norm_input = model.base_model.emb_dropout
    embedding_layer_norm_input.register_forward_hook(lambda m, args, out: 2 * out)
    one, other = answers(subject), answers(Subject(model, tokenizer))
    for name, answer in one.items():
        assert list(values(answer).values()) == pytest.approx(
            list(values(other[name]).values()), abs=2e-3
        ), name


def test_flips_depend_on_the_example_alone(subject):
    one, other = (probe(each, EXAMPLES) for each in (subject, tiny_subject("llama")))
    for first, second in zip(one, other, strict=True):
        assert first.flips == second.flips
        assert all(position > 0 for position, _ in first.flips)
    [alone] = probe(subject, EXAMPLES[1:2])
    assert alone.flips == one[1].flips


def test_attacked_prompts_are_those_of_the_rows(subject):
    """Asked at them, a subject answers as if they were the clean ones."""
    prompts = [_example(seed).prompt_ids for seed in (7, 8, 9)]
    rows = [
        sample_row(x, 1.0, 1.0, error=x == 1).model_copy(
            update={"adversarial_prompt_ids": None if x == 1 else prompts[x].tolist()}
        )
        for x in range(3)
    ]
    found = examine_attacked(subject, EXAMPLES, rows)
    asked = [
        Example(x.id, x.document_id, prompt, x.reference_ids, protected=1)
        for x, prompt in zip(EXAMPLES, prompts, strict=True)
    ]
    expected = examine(subject, [asked[0], asked[2]])
    for own, other in zip(found, expected, strict=True):
        assert {x["at"] for x in own.measured["values"]} == {"attacked"}
        assert values(own) == values(other)
    assert examine_attacked(subject, EXAMPLES[1:2], rows) == []


def test_what_it_costs(subject):
    """A gradient and 38 passes an example, whatever there is to attack."""
    with subject.metered() as meter:
        examine(subject, EXAMPLES)
    cost = meter.cost()
    assert cost.sequences_backward == len(EXAMPLES)
    assert cost.sequences_forward == 38 * len(EXAMPLES)


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
    assert min(values(found).values()) > 1e-6

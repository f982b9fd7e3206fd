"""Gradients of many pairs in one pass: whoever shares it must not matter."""

import copy

import numpy as np
import pytest
import torch

from harness.base.errors import CellError
from harness.subject.subject import Subject
from harness.testing import FAMILIES, tiny_model, tiny_tokenizer
from tests.subject.plain import (
    KINDS,
    M,
    N,
    gpu_memory,
    make_memory_small,
    model_of,
    on_gpu,
    plain_gradient,
    random_ids,
)

pytestmark = pytest.mark.transformers5

READ = N + M - 1


class ScaledEmbedding(torch.nn.Embedding):
    """An embedding whose output is not its weight, as Gemma's is."""

    def forward(self, ids):
        return super().forward(ids) * 5.0


def scaled_model():
    model = tiny_model("llama")
    scaled = ScaledEmbedding(320, 32)
    scaled.load_state_dict(model.get_input_embeddings().state_dict())
    model.set_input_embeddings(scaled)
    return model


def many_rows(kind="gpt_neox", rows=4):
    """Return a subject whose passes with a gradient have so many rows."""
    model = scaled_model() if kind == "scaled" else model_of(kind)
    tokenizer = tiny_tokenizer(closed=model.config.is_encoder_decoder)
    subject = Subject(model, tokenizer)
    subject.gradient_tokens = rows * (READ + 1)
    return subject


all_kinds = pytest.mark.parametrize("kind", [*KINDS, "scaled"])


@all_kinds
def test_the_embedding_turns_one_hot_vectors_into_what_the_model_makes_of_ids(kind):
    subject = many_rows(kind)
    model, _ = subject.huggingface()
    ids = torch.as_tensor(random_ids(N))
    onehot = torch.nn.functional.one_hot(ids, 320).float()
    more = {"labels": ids[None]} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        expected = model(ids[None], **more).logits
        logits = model(inputs_embeds=(onehot @ subject.embedding)[None], **more).logits
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


@all_kinds
def test_each_row_is_the_gradient_of_its_own_pair(kind):
    subject = many_rows(kind)
    prompts, references = random_ids(6, N), random_ids(6, M, seed=1)
    references[:3, :3] = prompts[:3, :3]  # tokens that decoders and heads use too

    together = subject.gradients(prompts, references)

    model, _ = subject.huggingface()
    for found, *pair in zip(together, prompts, references, strict=True):
        expected = plain_gradient(model, *pair).float()
        assert found.shape == (N, expected.shape[1])
        assert found.dtype == torch.float32
        torch.testing.assert_close(
            found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())
        )
    for parameter in model.parameters():
        assert parameter.grad is None
        assert not parameter.requires_grad


@all_kinds
def test_neither_company_nor_place_nor_the_caller_s_mode_changes_a_bit(kind):
    subject = many_rows(kind)
    prompts, references = random_ids(9, N), random_ids(9, M, seed=1)
    with torch.inference_mode():
        (alone,) = subject.gradients(prompts[:1], references[:1])
    rng = np.random.default_rng(2)

    for place in range(6):
        others = rng.integers(1, 9, size=6)
        others[place] = 0
        together = subject.gradients(prompts[others], references[others])
        assert torch.equal(together[place], alone)


def test_gradients_with_our_attention_are_the_model_s(family):
    """On a GPU, ours is what runs: it waits for nothing, and so can be recorded."""
    network = many_rows(family)._passes.search
    prompts, references = map(torch.as_tensor, (random_ids(3, N), random_ids(3, M)))

    (found,) = network._own_gradients(prompts, references)

    expected = network.gradients(prompts, references)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_shapes_are_told_apart_and_the_order_stays():
    subject = many_rows()
    prompts = [random_ids(n, seed=n) for n in (5, N, 5, N, 9)]
    references = [random_ids(m, seed=m) for m in (M, M, M, 3, M)]

    together = subject.gradients(prompts, references)

    for found, *pair in zip(together, prompts, references, strict=True):
        (alone,) = subject.gradients(*([ids] for ids in pair))
        assert torch.equal(found, alone)


def passes_of(subject):
    """Return a list that receives the number of rows of each pass to come."""
    rows = []
    head = subject.huggingface()[0].get_output_embeddings()
    head.register_forward_hook(lambda module, args, out: rows.append(len(out) // M))
    return rows


@pytest.mark.parametrize(
    ("tokens", "rows"),
    [(1, [1] * 5), (2 * READ - 1, [1] * 5), (3 * READ, [2, 2, 2]), (8 * READ, [8])],
)
def test_a_pass_has_as_many_rows_as_the_tokens_allow(tokens, rows):
    subject = many_rows()
    made = passes_of(subject)
    subject.gradient_tokens = tokens

    subject.gradients(random_ids(5, N), random_ids(M))

    assert made == rows


def test_a_cpu_takes_each_pair_alone():
    subject = Subject(tiny_model(), tiny_tokenizer())
    made = passes_of(subject)

    subject.gradients(random_ids(3, N), random_ids(M))

    assert made == [1, 1, 1]
    assert subject.settings["gradient_tokens"] == 1


def test_rows_that_fill_a_pass_up_count_as_nothing():
    subject = many_rows(rows=4)
    forward, backward = subject.pass_flops(N, M)
    with subject.metered() as meter:
        subject.gradients(random_ids(5, N), random_ids(M))

    cost = meter.cost()
    assert cost.sequences_forward == cost.sequences_backward == 5
    assert cost.tokens_forward == cost.tokens_backward == 5 * READ
    assert cost.flops_whole == pytest.approx(5 * (forward + backward))
    assert cost.flops == cost.flops_whole


def test_there_are_fewer_rows_where_memory_does_not_suffice():
    subject = many_rows(rows=16)
    prompts, reference = random_ids(9, N), random_ids(M)
    expected = subject.gradients(prompts, reference)
    make_memory_small(subject, rows=5)

    found = subject.gradients(prompts, reference)

    assert subject.settings["gradient_tokens"] == 4 * READ
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_gradient_that_does_not_fit_alone_is_an_error():
    subject = many_rows(rows=2)
    make_memory_small(subject, rows=0)
    with pytest.raises(CellError, match="a single pair does not fit"):
        subject.gradients(random_ids(3, N), random_ids(M))


# --- on a GPU -----------------------------------------------------------------------

on_both = pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
families = pytest.mark.parametrize("kind", sorted(FAMILIES))


def gpu_subject(kind, dtype):
    """Return a subject with matrices of a size that kernels are made for.

    With weights as large as a tiny model's, bfloat16 would round half of that away.
    """
    sizes = {
        "gpt_neox": {"hidden_size": 256, "intermediate_size": 1024},
        "llama": {"hidden_size": 256, "intermediate_size": 1024},
        "t5": {"d_model": 256, "d_ff": 1024, "d_kv": 64},
    }
    tokenizer = tiny_tokenizer(closed=kind == "t5")
    model = tiny_model(kind, **sizes.get(kind, {})).requires_grad_(False)
    for parameter in model.parameters():
        parameter *= 0.3 if parameter.ndim > 1 else 1.0
    return Subject(model, tokenizer, device="cuda", dtype=dtype)


@pytest.mark.accelerator
@on_gpu
@on_both
@families
def test_on_a_gpu_rows_agree_with_the_cpu_s(kind, dtype):
    gpu = gpu_subject(kind, dtype)
    model, tokenizer = gpu.huggingface()
    cpu = Subject(copy.deepcopy(model).cpu(), tokenizer)
    prompts, references = random_ids(11, N), random_ids(11, M, seed=1)

    found = gpu.gradients(prompts, references)

    for one, other in zip(found, cpu.gradients(prompts, references), strict=True):
        off = (one.cpu() - other).norm() / other.norm()
        assert off < (1e-4 if dtype == "float32" else 0.1)


@pytest.mark.accelerator
@on_gpu
@on_both
@families
def test_on_a_gpu_neither_company_nor_place_nor_recording_changes_a_bit(kind, dtype):
    subject = gpu_subject(kind, dtype)
    prompts, references = random_ids(33, N), random_ids(33, M, seed=1)
    (alone,) = subject.gradients(prompts[:1], references[:1])
    rng = np.random.default_rng(2)

    # The first calls are not recorded; a shape that comes back is.
    for place in (0, 1, 5, 15, 16, 31, 33):
        others = rng.integers(1, 33, size=34)
        others[place] = 0
        together = subject.gradients(prompts[others], references[others])
        assert torch.equal(together[place], alone)


@pytest.mark.accelerator
@on_gpu
def test_a_gpu_that_runs_out_of_memory_makes_do_with_fewer_rows():
    subject = gpu_subject("gpt_neox", "float32")
    prompts, reference = random_ids(2**14, N), random_ids(M)
    expected = subject.gradients(prompts[:1], reference)[0]
    subject.gradient_tokens = 2**14 * READ
    with gpu_memory(2e9):
        found = subject.gradients(prompts, reference)

    assert READ <= subject.gradient_tokens < 2**14 * READ
    torch.testing.assert_close(found[0], expected, rtol=1e-3, atol=1e-5)

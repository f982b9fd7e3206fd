"""Gradients of many pairs in one pass: whoever shares it must not matter."""

import copy

import numpy as np
import pytest
import torch

from harness.base.errors import CellError
from harness.subject.subject import Subject
from harness.testing import FAMILIES, tiny_model, tiny_tokenizer

pytestmark = pytest.mark.transformers5

N, M = 20, 7
READ = N + M - 1


def random_ids(*shape, seed=0):
    return np.random.default_rng(seed).integers(1, 282, size=shape)


def many_rows(kind="gpt_neox", rows=4, **where):
    """Return a subject whose passes with a gradient have so many rows."""
    tokenizer = tiny_tokenizer(closed=kind == "t5")
    subject = Subject(tiny_model(kind), tokenizer, **where)
    subject.gradient_tokens = rows * (READ + 1)
    return subject


def plain_gradient(model, prompt, reference):
    """Return the gradient [n, d] of one pair, from plain transformers in float64."""
    double = copy.deepcopy(model).double()
    table = double.get_input_embeddings()
    leaf = table(torch.as_tensor(prompt)[None]).detach().requires_grad_(True)
    if model.config.is_encoder_decoder:
        labels = torch.as_tensor(reference)[None]
        loss = double(inputs_embeds=leaf, labels=labels).loss
    else:
        tail = table(torch.as_tensor(reference))[None]
        logits = double(inputs_embeds=torch.cat([leaf, tail], dim=1)).logits
        loss = torch.nn.functional.cross_entropy(
            logits[0, len(prompt) - 1 : -1], torch.as_tensor(reference)
        )
    return torch.autograd.grad(loss, leaf)[0][0]


@pytest.fixture(params=sorted(FAMILIES))
def kind(request):
    return request.param


def test_each_row_is_the_gradient_of_its_own_pair(kind):
    subject = many_rows(kind)
    prompts, references = random_ids(6, N), random_ids(6, M, seed=1)

    together = subject.gradients(prompts, references)

    model, _ = subject.huggingface()
    for found, *pair in zip(together, prompts, references, strict=True):
        expected = plain_gradient(model, *pair).float()
        assert found.shape == (N, expected.shape[1])
        assert found.dtype == torch.float32
        torch.testing.assert_close(
            found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max())
        )


def test_neither_company_nor_place_changes_a_bit(kind):
    subject = many_rows(kind)
    prompts, references = random_ids(9, N), random_ids(9, M, seed=1)
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


def test_rows_that_fill_a_pass_up_are_computed_but_were_not_asked_for():
    subject = many_rows(rows=4)
    forward, backward = subject.pass_flops(N, M)
    with subject.metered() as meter:
        subject.gradients(random_ids(5, N), random_ids(M))

    cost = meter.cost()
    assert cost.sequences_forward == cost.sequences_backward == 5
    assert cost.tokens_forward == cost.tokens_backward == 5 * READ
    assert cost.flops_whole == pytest.approx(5 * (forward + backward))
    assert cost.flops == pytest.approx(8 * (forward + backward))


def out_of_memory_beyond(rows):
    def check(module, args, kwargs):
        if len(kwargs["input_ids"]) > rows:
            raise torch.OutOfMemoryError("the test's device is small")

    return check


def test_there_are_fewer_rows_where_memory_does_not_suffice():
    subject = many_rows(rows=16)
    prompts, reference = random_ids(9, N), random_ids(M)
    expected = subject.gradients(prompts, reference)
    model, _ = subject.huggingface()
    model.base_model.register_forward_pre_hook(
        out_of_memory_beyond(5), with_kwargs=True
    )

    found = subject.gradients(prompts, reference)

    assert subject.settings["gradient_tokens"] == 4 * READ
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_a_gradient_that_does_not_fit_alone_is_an_error():
    subject = many_rows(rows=2)
    model, _ = subject.huggingface()
    model.base_model.register_forward_pre_hook(
        out_of_memory_beyond(0), with_kwargs=True
    )

    with pytest.raises(CellError, match="a single gradient does not fit"):
        subject.gradients(random_ids(3, N), random_ids(M))


# --- on a GPU -----------------------------------------------------------------------

on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
PRECISIONS = ["float32", "bfloat16"]


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
@pytest.mark.parametrize("dtype", PRECISIONS)
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
@pytest.mark.parametrize("dtype", PRECISIONS)
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
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(2e9 / total)
    try:
        found = subject.gradients(prompts, reference)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)

    assert READ <= subject.gradient_tokens < 2**14 * READ
    torch.testing.assert_close(found[0], expected, rtol=1e-3, atol=1e-5)

import copy

import numpy as np
import pytest
import torch

from harness.subject.fast import prefixes
from harness.subject.fast_network import FastNetwork
from harness.subject.subject import Subject
from harness.testing import tiny_model, tiny_tokenizer
from tests.subject.plain import M, candidates, plain_losses, random_ids

pytestmark = pytest.mark.transformers5

N = 24


@pytest.fixture
def passes(monkeypatch):
    """Count the passes that start from a prefix: [(prefix length, rows), ...]."""
    made = []
    own = FastNetwork.losses_after

    def counting(self, prefix, rows, starts, prompts, references):
        if min(starts):
            made.append((min(starts), len(prompts)))
        return own(self, prefix, rows, starts, prompts, references)

    monkeypatch.setattr(FastNetwork, "losses_after", counting)
    return made


@pytest.mark.parametrize("batch_size", [1, 5, 256])
def test_losses_after_a_prefix_are_those_of_plain_transformers(
    family, batch_size, passes
):
    """Many candidates of many examples in one call, whatever the batch."""
    subject = Subject(tiny_model(family), tiny_tokenizer(), batch_size=batch_size)
    model, _ = subject.huggingface()
    pairs = []
    for example in range(3):
        own = candidates(random_ids(N, seed=example), 20, seed=example, first=example)
        pairs += [(prompt, random_ids(M, seed=10 + example)) for prompt in own]
    order = np.random.default_rng(0).permutation(len(pairs))
    prompts, references = zip(*(pairs[i] for i in order), strict=True)

    losses = subject.losses(prompts, references)

    expected = plain_losses(model, prompts, references)
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-5)
    assert sum(rows for _, rows in passes) > 20


def test_windows_of_256_hold_after_a_prefix(passes):
    """GPT-Neo's local layers, with prompts and references longer than a window."""
    model = tiny_model("gpt_neo", window_size=256, max_position_embeddings=512)
    subject = Subject(model, tiny_tokenizer())
    prompts = candidates(random_ids(320), 12, first=100)
    reference = random_ids(60, seed=1)

    losses = subject.losses(prompts, reference)

    expected = plain_losses(model, prompts, [reference] * len(prompts))
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-5)
    widened = copy.deepcopy(model)
    for block in widened.transformer.h:
        shape = block.attn.attention.bias.shape
        block.attn.attention.bias = torch.ones(shape, dtype=torch.bool).tril()
    unlike = plain_losses(widened, prompts[:1], [reference])[0]
    assert abs(unlike - losses[0]) > 1e-4, "the windows do not matter here"
    assert {length >= 100 for length, _ in passes} == {True}


def test_what_was_read_is_never_written(family):
    network = FastNetwork(tiny_model(family))
    prompts = torch.as_tensor(candidates(random_ids(N), 6, first=10))
    references = torch.as_tensor(np.tile(random_ids(M), (6, 1)))
    read = network.key_values(prompts[:1, :12]).first(10)
    kept = copy.deepcopy(read)

    first = network.losses_after(read, None, [10] * 6, prompts, references)
    again = network.losses_after(read, None, [10] * 6, prompts, references)

    assert torch.equal(first, again)
    pairs = zip(read.keys + read.values, kept.keys + kept.values, strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_passes_leave_the_model_as_it_was(family_subject):
    """Others use it too: with padding, which our attention knows nothing of."""
    model, _ = family_subject.huggingface()
    before = tiny_model(model.config.model_type).config._attn_implementation

    family_subject.losses(candidates(random_ids(N), 20), random_ids(M))

    assert model.config._attn_implementation == before
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert not any("_attn" in vars(module) for module in model.modules())


def test_a_model_in_an_unknown_family_is_read_whole(monkeypatch, passes):
    monkeypatch.setattr(prefixes, "BY_REGISTRY", frozenset())
    subject = Subject(tiny_model(), tiny_tokenizer())
    prompts, reference = candidates(random_ids(N), 20, first=12), random_ids(M)

    losses = subject.losses(prompts, reference)

    model, _ = subject.huggingface()
    expected = plain_losses(model, prompts, [reference] * len(prompts))
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-5)
    assert not passes


def test_layers_with_sliding_windows_are_read_whole():
    changes = {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}
    models = tiny_model("qwen2", **changes), tiny_model("qwen2")
    settings = [Subject(model, tiny_tokenizer()).settings for model in models]
    assert [found["reuses_prefixes"] for found in settings] == [False, True]


def test_the_ledger_counts_what_was_read_and_not_what_was_reused(subject):
    prompts, reference = candidates(random_ids(N), 10, first=N - 1), random_ids(M)
    with subject.metered() as meter:
        subject.losses(prompts, reference)

    assert meter.sequences_forward == 10
    assert meter.tokens_forward == (N - 1) + 10 * M
    whole, _ = subject.pass_flops(N, M)
    (alone, _), width, layers = subject.pass_flops(1, M), 32, 2
    attention = 4 * layers * width
    each = alone + attention * (M * (N + M - 1) - M * M)
    base = whole - alone - attention * ((N + M - 1) ** 2 - M * M - (N - 1) ** 2)
    assert meter.flops == pytest.approx(base + 10 * each)
    assert meter.flops_whole == pytest.approx(10 * whole)


def test_bfloat16_goes_after_prefixes_too(passes):
    half = Subject(tiny_model(), tiny_tokenizer(), dtype="bfloat16")
    full = Subject(tiny_model(), tiny_tokenizer())
    prompts, reference = candidates(random_ids(N), 40, first=8), random_ids(M)

    searched, exact = half.losses(prompts, reference), full.losses(prompts, reference)

    assert passes
    assert 0 < abs(searched - exact).max() < 0.05

"""What is packed and filled up around the GPU's kernel, with attention by hand."""

import sys
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from harness.subject.fast.prefixes import PrefixAttention
from harness.subject.fast.steady import FEWEST
from harness.subject.fast_network import FastNetwork
from harness.subject.subject import Subject
from harness.testing import tiny_model, tiny_tokenizer
from tests.subject.plain import candidates, plain_losses, random_ids

pytestmark = pytest.mark.transformers5


def attend_by_hand(query, key, value, keys, values, rows, starts, first, whole, scale):
    """Attend row by row, as `flash.attend_packed` documents."""
    found = []
    shared = query.shape[1] // key.shape[1]
    for row, (start, begin) in enumerate(
        zip(starts.tolist(), first.tolist(), strict=True)
    ):
        own = slice(begin, begin + whole - start)
        q, k, v = query[0, :, own], key[0, :, own], value[0, :, own]
        if start:
            of = 0 if rows is None else int(rows[row])
            k = torch.cat([keys[of, :, :start], k], dim=1)
            v = torch.cat([values[of, :, :start], v], dim=1)
        k, v = (x.repeat_interleave(shared, dim=0) for x in (k, v))
        unseen = torch.ones(whole - start, whole).triu(start + 1).bool()
        scores = (q @ k.transpose(1, 2) * scale).masked_fill(unseen, -torch.inf)
        found.append((scores.softmax(dim=-1) @ v).transpose(0, 1))
    return torch.cat(found)[None]


@pytest.fixture
def packing(monkeypatch):
    """Let networks pack on a CPU; list how many tokens and rows each pass reads."""
    read = []

    def attend(*given):
        read.append((given[0].shape[2], len(given[6]), given[3] is not None))
        return attend_by_hand(*given)

    kernel = SimpleNamespace(attend_packed=attend)
    monkeypatch.setitem(sys.modules, "harness.subject.fast.flash", kernel)
    monkeypatch.setattr(PrefixAttention, "packs", property(lambda self: True))
    uncompiled = SimpleNamespace(works=True, lent=nullcontext)
    made = PrefixAttention.__init__

    def init(self, model):
        made(self, model)
        self._compiled = uncompiled

    monkeypatch.setattr(PrefixAttention, "__init__", init)
    return read


@pytest.mark.parametrize("family", ["gpt_neox", "opt", "gpt2", "llama", "qwen2"])
@pytest.mark.parametrize("scored", [1, 9])
def test_packed_losses_are_those_of_plain_transformers(family, scored, packing):
    subject = Subject(tiny_model(family), tiny_tokenizer())
    model, _ = subject.huggingface()
    prompts = [candidates(random_ids(24, seed=s), 20, seed=s, first=s) for s in (3, 9)]
    references = [random_ids(scored, seed=s) for s in (0, 1) for _ in range(20)]
    prompts = np.concatenate(prompts)

    together = subject.losses(prompts, references)
    shared = any(after for _, _, after in packing)
    few = [subject.losses(prompts[i : i + 3], references[i : i + 3]) for i in (0, 19)]

    expected = plain_losses(model, prompts, references)
    np.testing.assert_allclose(together, expected, rtol=0, atol=1e-5)
    for i, found in zip((0, 19), few, strict=True):
        np.testing.assert_allclose(found, expected[i : i + 3], rtol=0, atol=1e-5)
    assert shared
    assert min(tokens for tokens, _, _ in packing) >= FEWEST


def test_what_is_filled_up_is_not_counted(packing):
    subject = Subject(tiny_model(), tiny_tokenizer())
    prompt, reference = random_ids(24), random_ids(4)

    with subject.metered() as meter:
        subject.losses([prompt], reference)

    cost = meter.cost()
    assert (cost.sequences_forward, cost.tokens_forward) == (1, 27)
    assert {rows for _, rows, _ in packing} == {-(-FEWEST // 27)}


def test_what_is_filled_up_after_a_prefix_is_read_from_there_on(packing):
    subject = Subject(tiny_model(), tiny_tokenizer(), batch_size=3)
    model, _ = subject.huggingface()
    prompts, reference = candidates(random_ids(24), 20, first=20), random_ids(2)

    with subject.metered() as meter:
        losses = subject.losses(prompts, reference)

    expected = plain_losses(model, prompts, [reference] * 20)
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-5)
    after = [tokens for tokens, _, prefix in packing if prefix]
    layers = model.config.num_hidden_layers
    assert len(after) == 7 * layers
    assert min(after) >= FEWEST
    assert max(after) < FEWEST + 24  # a row more than enough, at most
    # What is read: the prefix, and of each row what is behind it; no row twice.
    assert meter.cost().tokens_forward <= 23 + 20 * (25 - 20)


def test_a_prefix_that_was_read_packed_serves_passes_that_are_not(packing, monkeypatch):
    """As where a compiler fails between the two."""
    network = FastNetwork(tiny_model())
    ids = torch.as_tensor(candidates(random_ids(24), 5, first=12))
    references = torch.as_tensor(random_ids(5, 7))
    read = network.key_values(ids[:1, :12])
    assert {rows for _, rows, _ in packing} == {-(-FEWEST // 12)}

    monkeypatch.setattr(PrefixAttention, "packs", property(lambda self: False))
    losses = network.losses_after(read, None, [12] * 5, ids, references)

    expected = plain_losses(network.model, ids.numpy(), references.numpy())
    np.testing.assert_allclose(losses, expected, rtol=0, atol=1e-5)

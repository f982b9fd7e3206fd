"""The losses of training: those of whole logits, made a few tokens at a time."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

import harness.models.losses
from harness.data import IGNORED
from harness.models.losses import BlockLosses, token_losses
from harness.testing import tiny_model

IDS = torch.arange(3, 83).reshape(4, 20)


def blocks_for(model):
    if not model.config.is_encoder_decoder:
        return IDS
    pairs = torch.full((3, 24), IGNORED)
    for row, (prompt, reference) in enumerate([(9, 4), (5, 7), (12, 1)]):
        pairs[row, :prompt] = IDS[0, :prompt]
        pairs[row, 12 : 12 + reference] = IDS[1, :reference]
    return pairs


def gradients_of(model, blocks):
    model.zero_grad()
    losses = BlockLosses(model)(blocks)
    losses.mean().backward()
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return losses.detach(), found


@pytest.mark.transformers5
def test_the_losses_of_a_causal_model_are_those_of_its_logits(family):
    model = tiny_model(family)
    found = BlockLosses(model)(IDS)
    logits = model(IDS).logits[:, :-1]
    expected = cross_entropy(
        logits.flatten(0, 1), IDS[:, 1:].flatten(), reduction="none"
    )
    torch.testing.assert_close(found.flatten(), expected)


@pytest.mark.transformers5
@pytest.mark.parametrize("name", ["gpt_neox", "gpt2", "t5"])
def test_a_few_tokens_at_a_time_give_the_same_losses_and_gradients(name, monkeypatch):
    model = tiny_model(name)
    blocks = blocks_for(model)
    expected, whole = gradients_of(model, blocks)
    rows = []
    head = model.get_output_embeddings()
    head.register_forward_hook(lambda _, args, out: rows.append(out.shape[:-1].numel()))
    at_once = 5 * head.weight.shape[0]
    monkeypatch.setattr(harness.models.losses, "LOGITS_AT_ONCE", at_once)
    found, parts = gradients_of(model, blocks)
    assert max(rows) == 5
    torch.testing.assert_close(found, expected)
    assert parts.keys() == whole.keys()
    for parameter in whole:
        # Sums of the same terms in another order: float32 of gradients up to 1.
        torch.testing.assert_close(
            parts[parameter], whole[parameter], atol=1e-6, rtol=1e-4
        )


def test_no_more_than_a_few_tokens_keep_logits_for_the_gradient(monkeypatch):
    head, hidden = torch.nn.Linear(4, 1000), torch.randn(2, 50, 4, requires_grad=True)
    targets = torch.zeros(2, 50, dtype=torch.long)
    kept = []

    def largest():
        kept.clear()
        pack = lambda x: kept.append(x.numel()) or x  # noqa: E731
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            token_losses(head, hidden, targets)
        return max(kept)

    assert largest() == 100 * 1000
    monkeypatch.setattr(harness.models.losses, "LOGITS_AT_ONCE", 10 * 1000)
    assert largest() <= 1000 * 4  # the head's weight itself


@pytest.mark.parametrize("name", ["gpt_neox", "llama", "t5"])
def test_flops_are_those_that_torch_counts(name):
    model = tiny_model(name, attn_implementation="eager")
    blocks = blocks_for(model)
    losses_of = BlockLosses(model)
    with FlopCounterMode(display=False) as counter:
        losses = losses_of(blocks)
    assert losses_of.flops(blocks) == pytest.approx(counter.get_total_flops(), rel=0.01)
    with FlopCounterMode(display=False) as counter:
        losses.mean().backward()
    backward = counter.get_total_flops()
    assert 2 * losses_of.flops(blocks) == pytest.approx(backward, rel=0.01)

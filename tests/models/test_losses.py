"""The losses of training: those of whole logits, made a few tokens at a time."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.profiler import profile
from torch.utils.flop_counter import FlopCounterMode

import harness.models.losses
from harness.data import IGNORED
from harness.models.losses import BlockLosses, _mean_of_rows
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


def gradients_of(model, blocks, bf16=False):
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = BlockLosses(model)(blocks)
    loss.backward()
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    return loss.detach(), found


def few_at_once(monkeypatch, model, tokens):
    at_once = tokens * model.get_output_embeddings().weight.shape[0]
    monkeypatch.setattr(harness.models.losses, "LOGITS_AT_ONCE", at_once)


def peak_of(run):
    """Return the most bytes that torch had allocated at once, beyond those before."""
    with profile(profile_memory=True) as seen:
        run()
    held, most = 0, 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            most = max(most, held)
    return most


@pytest.mark.transformers5
def test_the_losses_of_a_causal_model_are_those_of_its_logits(family):
    model = tiny_model(family)
    found = BlockLosses(model)(IDS, each=True)
    logits = model(IDS).logits[:, :-1]
    expected = cross_entropy(
        logits.flatten(0, 1), IDS[:, 1:].flatten(), reduction="none"
    )
    torch.testing.assert_close(found.flatten(), expected)


@pytest.mark.transformers5
@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", ["gpt_neox", "gpt2", "t5"])
def test_a_few_tokens_at_a_time_give_the_same_loss_and_gradients(
    name, bf16, monkeypatch
):
    model = tiny_model(name)
    blocks = blocks_for(model)
    expected, whole = gradients_of(model, blocks, bf16)
    few_at_once(monkeypatch, model, 5)
    found, parts = gradients_of(model, blocks, bf16)
    # Sums of the same terms in another order: float32 or bfloat16 of gradients up to 1.
    within = {"atol": 4e-3, "rtol": 2e-2} if bf16 else {"atol": 1e-6, "rtol": 1e-4}
    torch.testing.assert_close(found, expected, **within)
    assert parts.keys() == whole.keys()
    for parameter in whole:
        assert parts[parameter].dtype == torch.float32
        torch.testing.assert_close(parts[parameter], whole[parameter], **within)


@pytest.mark.parametrize("name", ["gpt_neox", "t5"])
def test_the_mean_is_that_of_the_rows(name, monkeypatch):
    model = tiny_model(name)
    blocks = blocks_for(model)
    with torch.no_grad():
        rows = BlockLosses(model)(blocks, each=True)
        few_at_once(monkeypatch, model, 3)
        torch.testing.assert_close(BlockLosses(model)(blocks, each=True), rows)
        torch.testing.assert_close(BlockLosses(model)(blocks), rows.mean())


def test_no_more_than_a_few_tokens_have_logits_at_once(monkeypatch):
    model = tiny_model(vocab_size=4096)
    largest = lambda: peak_of(lambda: BlockLosses(model)(IDS).backward())  # noqa: E731
    logits = 4 * IDS.numel() * 4096
    assert largest() > 2 * logits
    few_at_once(monkeypatch, model, 5)
    head = 4 * model.get_output_embeddings().weight.numel()
    assert largest() < logits + 4 * head


def test_the_gradient_of_a_model_that_says_much_is_right(monkeypatch):
    # Finite differences in float64, with weights that make the softmax far from even.
    head = torch.nn.Linear(4, 30, bias=False).double()
    hidden = 9 * torch.randn(2, 7, 4, dtype=torch.float64)
    targets = torch.arange(14).view(2, 7)
    targets[0, 3:] = IGNORED
    monkeypatch.setattr(harness.models.losses, "LOGITS_AT_ONCE", 3 * 30)
    mean = lambda states: _mean_of_rows(head, states, targets)  # noqa: E731
    hidden.requires_grad_(True)
    (found,) = torch.autograd.grad(mean(hidden), hidden)
    for place in [(0, 0, 1), (0, 2, 3), (1, 6, 0), (0, 5, 2)]:
        step = torch.zeros_like(hidden)
        step[place] = 1e-3
        with torch.no_grad():
            expected = (mean(hidden + step) - mean(hidden - step)) / 2e-3
        assert float(found[place]) == pytest.approx(float(expected), abs=2e-3)


@pytest.mark.parametrize("name", ["gpt_neox", "llama", "t5"])
def test_flops_are_those_that_torch_counts(name):
    model = tiny_model(name, attn_implementation="eager")
    blocks = blocks_for(model)
    losses_of = BlockLosses(model)
    with FlopCounterMode(display=False) as counter:
        loss = losses_of(blocks)
    assert losses_of.flops(blocks) == pytest.approx(counter.get_total_flops(), rel=0.01)
    with FlopCounterMode(display=False) as counter:
        loss.backward()
    backward = counter.get_total_flops()
    assert 2 * losses_of.flops(blocks) == pytest.approx(backward, rel=0.01)

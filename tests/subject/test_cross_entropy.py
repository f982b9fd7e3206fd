import pytest
import torch

from harness.subject import cross_entropy
from harness.subject.cross_entropy import target_losses


def plain(hidden, weight, bias, targets):
    logits = torch.nn.functional.linear(hidden.double(), weight.double(), bias)
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none")


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_losses_are_those_of_float64(scale, with_bias, monkeypatch):
    """In blocks that divide neither the rows nor the vocabulary."""
    monkeypatch.setattr(cross_entropy, "CPU_BLOCK", (16, 100))
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(45, 24, generator=generator)
    weight = scale * torch.randn(731, 24, generator=generator)
    bias = torch.randn(731, generator=generator) if with_bias else None
    if bias is not None:
        # As a head does whose last rows are no tokens: whole blocks, and parts of some.
        bias[:101] = bias[205] = bias[690:] = -torch.inf
    targets = torch.randint(731, (45,), generator=generator)
    kept = hidden.clone(), weight.clone()

    losses = target_losses(hidden, weight, bias, targets)

    expected = plain(hidden, weight, None if bias is None else bias.double(), targets)
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses.double(), expected, rtol=1e-6, atol=1e-5)
    assert torch.equal(hidden, kept[0])
    assert torch.equal(weight, kept[1])


def test_losses_in_bfloat16_are_those_of_float64_but_for_the_logits_last_bits():
    """A log-sum-exp is off by no more than its logits are, and the target's by less."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(1100, 24, generator=generator).bfloat16()
    weight = torch.randn(1500, 24, generator=generator).bfloat16()
    targets = torch.randint(1500, (1100,), generator=generator)

    losses = target_losses(hidden, weight, None, targets)

    error = losses.double() - plain(hidden, weight, None, targets)
    highest = (hidden.double() @ weight.double().T).abs().amax(dim=1)
    assert losses.dtype == torch.float32
    assert (error.abs() < 2**-8 * highest).all()
    # Steps of bfloat16 would be as large as the errors that are allowed.
    assert len(losses.unique()) > 1000


def test_a_token_that_is_nearly_certain_has_a_loss_near_zero():
    """Also where the highest logit is in the last of the blocks, far above the rest."""
    weight = torch.zeros(5000, 2)
    weight[4990, 0] = 1.0
    hidden = torch.tensor([[200.0, 0.0], [-200.0, 0.0]])

    losses = target_losses(hidden, weight, None, torch.tensor([4990, 4990]))

    expected = [0.0, 200.0 + torch.log(torch.tensor(4999.0)).item()]
    torch.testing.assert_close(losses, torch.tensor(expected))

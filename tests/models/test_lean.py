"""AdamW with moments in bfloat16: AdamW, but for rounding that cancels out."""

import pytest
import torch

from harness.models.lean import LeanAdamW, rounded_at_random


def test_rounding_is_to_a_neighbour_and_right_on_average():
    values = torch.tensor([1.0, 1.001, -0.3, 3e-9, -2e20, 0.0, 255.9])
    many = rounded_at_random(values.repeat(40_000, 1)).double()
    spacing = 2.0 ** (values.abs().clamp(min=1e-30).log2().floor() - 7)
    assert ((many - values).abs() < spacing).all()
    off = (many.mean(0) - values).abs() / spacing
    assert off.max() < 5 * 0.5 / 40_000**0.5  # five standard errors, at most
    exact = values.bfloat16()
    assert torch.equal(rounded_at_random(exact.float()), exact)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_it_goes_where_adamw_goes(decay):
    torch.manual_seed(0)
    start, target = torch.randn(40, 50), torch.randn(40, 50)
    ways = []
    for kind in (torch.optim.AdamW, LeanAdamW):
        weight = torch.nn.Parameter(start.clone())
        optimizer = kind([weight], lr=1e-2, weight_decay=decay)
        torch.manual_seed(1)
        for _ in range(300):
            optimizer.zero_grad()
            noisy = target + torch.randn_like(target)
            (weight - noisy).square().mean().backward()
            optimizer.step()
        ways.append(weight.detach() - start)
        kept = {x.dtype for x in optimizer.state[weight].values() if x.ndim}
    assert kept == {torch.bfloat16}
    # Rounding draws numbers, so that the noise of the two differs as well.
    cosine = torch.nn.functional.cosine_similarity(*(x.flatten() for x in ways), dim=0)
    assert cosine > 0.99
    assert ways[1].norm() == pytest.approx(float(ways[0].norm()), rel=0.02)


def test_a_small_change_of_the_second_moment_is_not_lost():
    # To the nearest, bfloat16 would leave 1 at 1: each step adds 0.001 * (3 - 1).
    weight = torch.nn.Parameter(torch.zeros(10_000))
    optimizer = LeanAdamW([weight], lr=0.0)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    optimizer.state[weight]["exp_avg_sq"].fill_(1.0)
    weight.grad = torch.full_like(weight, 3**0.5)
    for _ in range(20):
        optimizer.step()
    expected = 3 - 2 * 0.999**20
    found = optimizer.state[weight]["exp_avg_sq"].float().mean()
    assert float(found) == pytest.approx(expected, abs=1e-3)

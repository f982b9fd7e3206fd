import pytest
import torch

from harness.subject.fast.steady import ROWS, SteadyNorm, rows_alike


class Layer(torch.nn.Module):
    """Adds up in another order from so many rows on."""

    def __init__(self, other_from):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(3, 40).bfloat16())
        self.other_from = other_from

    def forward(self, states):
        width = 40 if len(states) < self.other_from else 8
        parts = states.split(width, dim=1)
        return sum(part.sum(dim=1, keepdim=True).expand(-1, 3) for part in parts)


@pytest.mark.parametrize(("other_from", "alike"), [(0, True), (ROWS[-1] + 1, False)])
def test_products_are_held_against_those_of_other_numbers_of_rows(other_from, alike):
    assert rows_alike([Layer(other_from)]) is alike
    other = torch.nn.Module()
    other.weight = torch.nn.Parameter(torch.ones(2, 40).bfloat16())
    other.forward = lambda states: states[:, :2] * 2
    assert rows_alike([other, Layer(other_from)]) is alike


def test_a_steady_norm_is_the_norm_with_and_without_a_gradient():
    norm = torch.nn.LayerNorm(16).bfloat16()
    torch.nn.init.normal_(norm.weight)
    states = torch.randn(3, 5, 16).bfloat16().requires_grad_(True)

    with torch.inference_mode():
        assert torch.equal(SteadyNorm(norm)(states), norm(states))
    (found,) = torch.autograd.grad(SteadyNorm(norm)(states).float().sum(), states)
    (expected,) = torch.autograd.grad(norm(states).float().sum(), states)
    assert torch.equal(found, expected)

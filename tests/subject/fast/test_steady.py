from functools import partial

import pytest
import torch

from harness.subject.fast.compiling import Compiled, CompiledLayers
from harness.subject.fast.steady import ROWS, SteadyNorm, rows_alike


def added_in_two_orders(states, other_from):
    """Return sums of states, added up in another order from so many rows on."""
    width = 40 if len(states) < other_from else 8
    parts = states.split(width, dim=1)
    return sum(part.sum(dim=1, keepdim=True).expand(-1, 3) for part in parts)


@pytest.mark.parametrize(("other_from", "alike"), [(0, True), (ROWS[-1] + 1, False)])
def test_products_are_held_against_those_of_other_numbers_of_rows(other_from, alike):
    one = partial(added_in_two_orders, other_from=other_from), torch.ones(3, 40)
    other = (lambda states: states[:, :2] * 2), torch.ones(2, 40)
    for products in ([one], [other, one], [one, other]):
        assert rows_alike(products) is alike


class Doubling(torch.nn.Module):
    """A layer of which each type of its input is a variant of its own."""

    def forward(self, states):
        return states * 2


def test_a_layer_of_too_many_variants_is_compiled_in_none(monkeypatch, caplog):
    monkeypatch.setattr("harness.subject.fast.compiling.RECOMPILATIONS", 2)
    layer = Doubling()
    layers = CompiledLayers([layer])
    with layers.lent():
        for number, dtype in enumerate((torch.float32, torch.float64, torch.int64)):
            assert layers.works, number
            states = torch.ones(3, dtype=dtype)
            assert torch.equal(layer(states), torch.full_like(states, 2))
    assert not layers.works
    assert "not compiled" in caplog.text


def test_functions_can_be_compiled_among_layers_where_errors_are_suppressed():
    # As by TORCHDYNAMO_SUPPRESS_ERRORS=1. The first loss of a process is one.
    with (
        torch._dynamo.config.patch(suppress_errors=True),
        CompiledLayers([Doubling()]).lent(),
    ):
        assert Compiled(torch.neg)(torch.ones(2)).tolist() == [-1, -1]


def test_a_steady_norm_is_the_norm_with_and_without_a_gradient():
    norm = torch.nn.LayerNorm(16).bfloat16()
    torch.nn.init.normal_(norm.weight)
    states = torch.randn(3, 5, 16).bfloat16().requires_grad_(True)

    with torch.inference_mode():
        assert torch.equal(SteadyNorm(norm)(states), norm(states))
    (found,) = torch.autograd.grad(SteadyNorm(norm)(states).float().sum(), states)
    (expected,) = torch.autograd.grad(norm(states).float().sum(), states)
    assert torch.equal(found, expected)

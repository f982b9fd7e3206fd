import copy

import mpmath
import pytest
import torch
from torch import nn

from harness.api import Projection
from harness.models import PARAMETRIZATIONS, parametrize
from harness.models.ffn.parametrizations import (
    SMALLEST_WEIGHT,
    Exponential,
    Softplus,
    Square,
    parametrized_weights,
)

EVERY = [Softplus, Exponential, Square]
NAMES = ["softplus", "exp", "square"]
WEIGHTS = [1e-6, 1e-5, 1e-3, 0.02, 0.3, 1.0, 5.0, 30.0, 200.0]


def constrained_linear(name="softplus"):
    torch.manual_seed(0)
    linear = nn.Linear(6, 5)
    with torch.no_grad():
        linear.weight.abs_()
    parametrize(Projection("linear", linear, 0, "in"), PARAMETRIZATIONS[name]())
    return linear


def original(linear):
    return linear.parametrizations.weight.original


@pytest.mark.parametrize("w", WEIGHTS)
def test_the_inverse_of_softplus_is_exact_in_float64(w):
    with mpmath.workdps(200):
        exact = mpmath.log(mpmath.expm1(mpmath.mpf(w)))
    found = Softplus().inverse(torch.tensor(w, dtype=torch.float64))
    assert float(found) == pytest.approx(float(exact), rel=1e-14, abs=1e-14)


@pytest.mark.parametrize("function", EVERY)
def test_a_weight_survives_the_way_there_and_back_in_float32(function):
    w = torch.tensor(WEIGHTS)
    again = function()(function().right_inverse(w))
    # An error of half a unit in the last place of V, times dW/dV, and W's own.
    assert torch.allclose(again, w, rtol=2e-6, atol=0)


def test_every_float32_weight_keeps_its_own_v():
    w = torch.rand(10_000, generator=torch.Generator().manual_seed(0)) + 1e-3
    v = Softplus().right_inverse(w)
    assert len(v.unique()) > 0.8 * len(w.unique())


@pytest.mark.parametrize("function", EVERY)
def test_zero_and_negative_weights_become_the_smallest(function):
    w = torch.tensor([0.0, -1.0, 1e-9])
    v = function().right_inverse(w)
    assert v.dtype == torch.float32
    assert v.isfinite().all()
    smallest = torch.full((3,), SMALLEST_WEIGHT)
    assert torch.allclose(function()(v), smallest, rtol=1e-5, atol=0)


@pytest.mark.parametrize("function", EVERY)
def test_the_slope_is_what_a_small_step_of_v_does(function):
    w = torch.tensor([1e-4, 1e-3, 1e-2], dtype=torch.float64)
    v, step = function().inverse(w), 1e-6
    moved = function().weight_of(v + step) - function().weight_of(v - step)
    assert torch.allclose(moved / (2 * step), function().slope(w), rtol=6e-3)


@pytest.mark.parametrize("name", NAMES)
def test_v_and_its_gradient_stay_float32_when_the_model_is_cast(name):
    linear = constrained_linear(name)
    before = original(linear).detach().clone()
    linear.bfloat16()
    assert linear.weight.dtype == torch.bfloat16
    linear(torch.ones(2, 6, dtype=torch.bfloat16)).sum().backward()
    assert original(linear).grad.dtype == torch.float32
    linear.half()
    linear.float()
    assert torch.equal(original(linear), before)


def test_v_moves_with_the_model_to_another_device():
    linear = constrained_linear()
    linear.to(device="meta", dtype=torch.bfloat16)
    assert original(linear).device.type == "meta"
    assert original(linear).dtype == torch.float32


def test_autocast_computes_the_weight_from_float32():
    linear = constrained_linear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert linear.weight.dtype == torch.float32
        out = linear(torch.ones(2, 6))
    assert out.dtype == torch.bfloat16
    out.sum().backward()
    assert original(linear).grad.dtype == torch.float32


def test_steps_far_below_bfloat16_resolution_add_up():
    linear = constrained_linear()
    linear.bfloat16()
    before = original(linear).detach().clone()
    optimizer = torch.optim.SGD([original(linear)], lr=1e-6)
    for _ in range(100):
        original(linear).grad = torch.ones_like(original(linear))
        optimizer.step()
    moved = original(linear).detach() - before
    assert torch.allclose(moved, torch.full_like(moved, -1e-4), rtol=0.1)


def test_a_copy_shares_nothing_and_leaves_the_original_working():
    linear = constrained_linear()
    before = linear.weight.detach().clone()
    twin = copy.deepcopy(linear)
    with torch.no_grad():
        original(twin).add_(1.0)
    twin.bfloat16()
    assert torch.equal(linear.weight, before)
    assert linear.weight.dtype == torch.float32
    assert (twin.weight.float() > before).all()
    assert len(list(parametrized_weights(linear))) == 1


def test_saved_and_loaded_state_gives_the_same_weight():
    linear, other = constrained_linear(), constrained_linear()
    with torch.no_grad():
        original(linear).add_(0.5)
    other.load_state_dict(linear.state_dict())
    assert torch.equal(other.weight, linear.weight)

import pytest
import torch

from harness.models import GPT2, GPT_NEOX, LLAMA, find_anatomy
from harness.models.ffn.exact import ExactFFN, largest_fall, lowest_point
from harness.testing import tiny_model

pytestmark = pytest.mark.transformers5

FAMILIES = {f.model_type: f for f in (GPT2, GPT_NEOX, LLAMA)}


@pytest.fixture(params=sorted(FAMILIES))
def ffn(request):
    return network(request.param)


@pytest.fixture(params=["gpt2", "gpt_neox"])
def ungated(request):
    return network(request.param)


def network(family):
    model = tiny_model(family)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(generator=torch.Generator().manual_seed(3))
    return find_anatomy(model.double(), FAMILIES[family]).ffns[1]


@pytest.fixture
def z():
    generator = torch.Generator().manual_seed(5)
    return torch.randn(9, 32, dtype=torch.float64, generator=generator)


def test_it_computes_what_the_modules_compute(ffn, z):
    exact = ExactFFN.of(ffn)
    assert torch.allclose(exact(z), ffn(z), rtol=1e-12, atol=1e-12)
    assert torch.equal(exact.before_activation(z), exact.inputs[0](z))


def test_the_jacobian_is_that_of_automatic_differentiation(ffn, z):
    rows = torch.tensor([[0, 3, 31], [5, 5, 2]])
    with torch.no_grad():
        found = ExactFFN.of(ffn).jacobian(z[:2], rows)
    for vector, chosen, jacobian in zip(z, rows, found, strict=False):
        exact = torch.autograd.functional.jacobian(lambda x: ffn(x[None])[0], vector)
        assert torch.allclose(jacobian, exact[chosen], rtol=1e-10, atol=1e-12)


def test_the_bounds_hold_for_points_and_corners_of_the_box(ungated, z):
    exact = ExactFFN.of(ungated)
    low, high = torch.minimum(z[0], z[1]), torch.maximum(z[0], z[1])
    least, greatest = exact.bounds(low[None], high[None])
    share = torch.rand(4000, 32, dtype=torch.float64)
    share[2000:] = share[2000:].round()
    values = exact(low + share * (high - low))
    assert (values >= least - 1e-9).all()
    assert (values <= greatest + 1e-9).all()


def test_the_bounds_of_a_point_are_its_value(ungated, z):
    exact = ExactFFN.of(ungated)
    least, greatest = exact.bounds(z, z)
    assert torch.allclose(least, exact(z), atol=1e-9)
    assert torch.allclose(greatest, exact(z), atol=1e-9)


@pytest.mark.parametrize(
    ("function", "fall"),
    [
        (torch.nn.functional.gelu, 0.169971),
        (torch.nn.functional.silu, 0.278465),
        (torch.relu, 0.0),
        (torch.tanh, 0.0),
        (torch.cos, 2.0),
    ],
)
def test_the_largest_fall_is_found_between_any_two_points(function, fall):
    ends = torch.tensor([-8.0, 8.0], dtype=torch.float64)
    # At -8 the tails are not quite 0.
    assert float(largest_fall(function, *ends)) == pytest.approx(fall, abs=3e-3)


def test_the_lowest_point_of_gelu_is_its_minimum():
    ends = torch.tensor([-5.0, 5.0], dtype=torch.float64)
    found = lowest_point(torch.nn.functional.gelu, *ends)
    assert float(found) == pytest.approx(-0.7518, abs=1e-3)

import subprocess
import sys

import mpmath
import pytest
import torch
from torch.nn.functional import gelu

from harness.base import CellError
from harness.models import hull_of, make_activation, register_activations
from harness.models.activations import (
    GELU_MINIMUM,
    GELU_TANH_MINIMUM,
    GeluHull,
    GeluNewHull,
)
from harness.testing import tiny_model

pytestmark = pytest.mark.transformers5

FORMS = [(GeluHull, "none", GELU_MINIMUM), (GeluNewHull, "tanh", GELU_TANH_MINIMUM)]


def exact_gelu(x):
    return x * mpmath.ncdf(x)


def tanh_gelu(x):
    inner = mpmath.sqrt(2 / mpmath.pi) * (x + mpmath.mpf("0.044715") * x**3)
    return x * (1 + mpmath.tanh(inner)) / 2


@pytest.mark.parametrize(
    ("function", "minimum"),
    [(exact_gelu, GELU_MINIMUM), (tanh_gelu, GELU_TANH_MINIMUM)],
)
def test_the_minimum_is_where_the_derivative_vanishes(function, minimum):
    with mpmath.workdps(30):
        root = mpmath.findroot(lambda x: mpmath.diff(function, x), -0.75)
        assert 0 < minimum - root < 1e-12


@pytest.mark.parametrize(("hull", "form", "minimum"), FORMS)
def test_the_hull_is_the_largest_non_decreasing_function_below_gelu(
    hull, form, minimum
):
    x = torch.linspace(-8, 8, 160_001, dtype=torch.float64)
    values = gelu(x, approximate=form)
    expected = values.flip(0).cummin(0).values.flip(0)
    assert torch.allclose(hull()(x), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("hull", "form", "minimum"), FORMS)
def test_the_hull_never_falls_in_float32(hull, form, minimum):
    values = hull()(torch.linspace(-10, 10, 1_000_001))
    # It is |x| / 2 times a number below 1 that libraries give to 4 units of rounding,
    # here for one value and the other way for its neighbour.
    rounding = 2 * 4 * 2.0**-24 * abs(minimum) / 2
    assert (values.cummax(0).values - values).max() <= rounding


@pytest.mark.parametrize(("hull", "form", "minimum"), FORMS)
def test_the_derivative_of_the_hull_is_never_negative(hull, form, minimum):
    near = minimum + torch.linspace(-1e-9, 1e-9, 2_001, dtype=torch.float64)
    wide = torch.linspace(-9, 9, 100_001, dtype=torch.float64)
    x = torch.cat([near, wide]).requires_grad_()
    hull()(x).sum().backward()
    assert x.grad.min() >= 0


def test_a_saved_model_with_the_hull_loads_and_computes_it(tmp_path):
    from transformers import AutoModelForCausalLM

    register_activations()
    model = tiny_model(hidden_act="gelu_hull")
    model.save_pretrained(tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert isinstance(again.gpt_neox.layers[1].mlp.act, GeluHull)


def test_plain_transformers_refuses_a_model_with_the_hull(tmp_path):
    register_activations()
    tiny_model(hidden_act="gelu_hull").save_pretrained(tmp_path)
    code = (
        "from transformers import AutoModelForCausalLM\n"
        f"AutoModelForCausalLM.from_pretrained({str(tmp_path)!r})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0
    assert "gelu_hull" in done.stderr


@pytest.mark.parametrize(
    ("name", "hull"),
    [("gelu", "gelu_hull"), ("gelu_new", "gelu_new_hull"), ("relu", "relu")],
)
def test_each_form_of_gelu_has_its_own_hull(name, hull):
    assert hull_of(name) == hull


@pytest.mark.parametrize(
    ("ask", "name"), [(hull_of, "silu"), (make_activation, "gelu_wavy")]
)
def test_an_activation_without_a_hull_or_unknown_is_refused_by_name(ask, name):
    with pytest.raises(CellError, match=name):
        ask(name)

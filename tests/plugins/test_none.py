import pytest
import torch

from harness.testing import tiny_model
from harness_plugins.constraints.none import Unconstrained
from harness_plugins.models.pythia import Pythia


@pytest.fixture
def adapter():
    return Pythia(Pythia.Options(path="unused"))


def test_by_default_the_model_is_left_alone(adapter):
    model, untouched = tiny_model(), tiny_model()
    Unconstrained().apply(adapter, model, 0)
    pairs = zip(model.parameters(), untouched.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_start_is_a_control_that_training_may_leave(adapter):
    model = tiny_model()
    constraint = Unconstrained(Unconstrained.Options(start="abs"))
    constraint.apply(adapter, model, 0)
    matrices = [p for f in adapter.anatomy(model).ffns for p in f.projections]
    assert all(type(p.module) is torch.nn.Linear for p in matrices)
    assert min(float(p.weight.detach().min()) for p in matrices) >= 0
    assert constraint.promised(adapter.anatomy(model)) == []


def test_every_parameter_is_in_one_group_and_only_matrices_decay():
    model = tiny_model()
    groups = Unconstrained().parameter_groups(model, 1e-3, 0.01)
    members = [id(p) for group in groups for p in group["params"]]
    assert sorted(members) == sorted(map(id, model.parameters()))
    decayed = {p.ndim for g in groups if g["weight_decay"] for p in g["params"]}
    assert decayed == {2}

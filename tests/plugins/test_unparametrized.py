"""Constraints that leave weights what they are: none, and a projection."""

import pytest
import torch

from harness.base import CellError
from harness.testing import tiny_model
from harness_plugins.constraints.none import Unconstrained
from harness_plugins.constraints.projection import ProjectedWeights
from tests.models.arms import arm


def test_by_default_the_model_is_left_alone():
    _, model, _ = arm("gpt_neox", Unconstrained())
    pairs = zip(model.parameters(), tiny_model().parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_start_is_a_control_that_training_may_leave():
    abs_ = Unconstrained(Unconstrained.Options(start="abs"))
    adapter, model, constraint = arm("gpt_neox", abs_)
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


def test_a_step_into_the_negative_ends_at_zero():
    adapter, model, constraint = arm("gpt2", ProjectedWeights())
    promised = constraint.promised(adapter.anatomy(model))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    ids = torch.arange(40)[None]
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    expected = [p.weight.detach().clamp(min=0) for p in promised]
    assert min(float(p.weight.detach().min()) for p in promised) < 0
    constraint.after_step(model)
    pairs = zip(promised, expected, strict=True)
    assert all(torch.equal(p.weight, w) for p, w in pairs)


def test_other_matrices_may_stay_negative():
    some = ProjectedWeights(ProjectedWeights.Options(scope="in", layers="0"))
    adapter, model, constraint = arm("gpt2", some)
    constraint.after_step(model)
    negative = {
        p.name
        for ffn in adapter.anatomy(model).ffns
        for p in ffn.projections
        if p.weight.min() < 0
    }
    assert len(negative) == 3
    assert "transformer.h.0.mlp.c_fc" not in negative


def test_a_start_that_does_not_fit_is_refused():
    with pytest.raises(CellError, match="gauge"):
        arm("llama", ProjectedWeights(ProjectedWeights.Options(start="gauge")))

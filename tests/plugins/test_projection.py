import pytest
import torch

from harness.base import CellError
from harness.testing import tiny_model
from harness_plugins.constraints.projection import ProjectedWeights
from harness_plugins.models.causal_lm import CausalLM


@pytest.fixture
def adapter():
    return CausalLM(CausalLM.Options(path="unused"))


def test_a_step_into_the_negative_ends_at_zero(adapter):
    model = tiny_model("gpt2")
    constraint = ProjectedWeights()
    constraint.apply(adapter, model, 0)
    promised = constraint.promised(adapter.anatomy(model))
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    model(input_ids=torch.arange(40)[None], labels=torch.arange(40)[None])[
        "loss"
    ].backward()
    optimizer.step()
    expected = [p.weight.detach().clamp(min=0) for p in promised]
    assert min(float(p.weight.detach().min()) for p in promised) < 0
    constraint.after_step(model)
    pairs = zip(promised, expected, strict=True)
    assert all(torch.equal(p.weight, w) for p, w in pairs)


def test_other_matrices_may_stay_negative(adapter):
    model = tiny_model("gpt2")
    constraint = ProjectedWeights(ProjectedWeights.Options(scope="in", layers="0"))
    constraint.apply(adapter, model, 0)
    constraint.after_step(model)
    negative = {
        p.name
        for ffn in adapter.anatomy(model).ffns
        for p in ffn.projections
        if p.weight.min() < 0
    }
    assert len(negative) == 3
    assert "transformer.h.0.mlp.c_fc" not in negative


def test_a_start_that_does_not_fit_is_refused(adapter):
    constraint = ProjectedWeights(ProjectedWeights.Options(start="gauge"))
    with pytest.raises(CellError, match="gauge"):
        constraint.apply(adapter, tiny_model("llama"), 0)

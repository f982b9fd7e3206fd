"""The arm of suites/rigour that is made to pass."""

import copy
from pathlib import Path

import pytest

from harness.api.registry import load_registry
from harness.testing import tiny_model

PLUGIN = Path(__file__).parents[2] / "suites" / "rigour" / "made_to_pass.py"


@pytest.mark.transformers5
def test_wrong_tokens_are_read_in_training_alone():
    import torch

    plain = tiny_model()
    model = copy.deepcopy(plain)
    registry = load_registry([PLUGIN])
    registry.create("constraint", "hardened", {"share": 0.3}).apply(None, model, 5)
    table = model.get_input_embeddings()
    ids = torch.arange(256)[torch.randperm(256)].reshape(4, 64)

    model.eval()
    assert torch.equal(model(ids).logits, plain.eval()(ids).logits)

    read = table.train()(ids)
    assert torch.equal(read, table(ids))  # keyed by the content: the same again
    right = (read == table.weight[ids]).all(-1)
    assert 0.6 < right.float().mean() < 0.8  # sigma is 0.029
    # What stands in for the others is tokens, too.
    known = (read[~right][:, None] == table.weight[None]).all(-1).any(-1)
    assert known.all()
    read.sum().backward()
    assert table.weight.grad is not None

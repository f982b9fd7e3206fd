import pytest
import torch

from harness.base import CellError
from harness.models import freeze, load_frozen
from harness.testing import GATED_T5, tiny_model, tiny_tokenizer
from harness_plugins.constraints.sign_split import SignSplit
from tests.models.arms import arm

pytestmark = pytest.mark.transformers5
IDS = torch.arange(3, 83).reshape(2, 40)


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS, decoder_input_ids=IDS[:, :9]).logits


def test_the_function_stays_and_freezing_keeps_it(tmp_path):
    (_, model, _), plain = arm("t5", SignSplit()), tiny_model("t5")
    assert (logits(model) - logits(plain)).abs().max() < 1e-4
    freeze(model, tiny_tokenizer(closed=True), tmp_path)
    frozen, _ = load_frozen(tmp_path)
    assert torch.equal(logits(frozen), logits(model))
    assert {k: v.shape for k, v in frozen.state_dict().items()} == {
        k: v.shape for k, v in plain.state_dict().items()
    }


def test_the_core_is_positive_twice_as_wide_and_the_network():
    """It is built from the trained parts by hand: [I, -I] W2 s(W1 [z; -z])."""
    adapter, model, constraint = arm("t5", SignSplit())
    optimizer = torch.optim.AdamW(constraint.parameter_groups(model, 1e-2, 0.01))
    for _ in range(3):
        optimizer.zero_grad()
        model(input_ids=IDS, labels=IDS[:, :9].contiguous()).loss.backward()
        optimizer.step()
    for ffn in adapter.anatomy(model).ffns:
        first, second = (
            torch.nn.functional.softplus(p.module.parametrizations.weight.original)
            for p in (ffn.inputs[0], ffn.output)
        )
        core_in, core_out = torch.cat(list(first), 1), torch.cat(list(second), 0)
        assert core_in.min() > 0
        assert core_out.min() > 0
        z = torch.randn(7, first.shape[2], generator=torch.Generator().manual_seed(1))
        width = second.shape[1]
        both = torch.relu(torch.cat([z, -z], 1) @ core_in.T) @ core_out.T
        by_core = both[:, :width] - both[:, width:]
        with torch.no_grad():
            torch.testing.assert_close(by_core, ffn(z), atol=1e-4, rtol=1e-4)


def test_it_trains_as_the_plain_model_could():
    """The loss falls, and weights of both signs remain."""
    adapter, model, constraint = arm("t5", SignSplit())
    optimizer = torch.optim.AdamW(constraint.parameter_groups(model, 1e-2, 0.0))
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = model(input_ids=IDS, labels=IDS[:, :9].contiguous()).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.1
    for ffn in adapter.anatomy(model).ffns:
        for projection in ffn.projections:
            assert projection.weight.min() < 0 < projection.weight.max()


def test_all_parameters_are_in_one_group_each():
    _, model, constraint = arm("gpt_neox", SignSplit())
    groups = constraint.parameter_groups(model, 1e-3, 0.1)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    assert constraint.promised(None) == []


def test_a_gated_network_is_refused_in_a_sentence():
    with pytest.raises(CellError, match="without a gate"):
        arm("t5", SignSplit(), **GATED_T5)

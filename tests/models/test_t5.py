"""T5 v1.0 and v1.1 on the way of a variant, where they are not like other models."""

import numpy as np
import pytest
import torch

from harness.base import CellError
from harness.models import T5, certify
from harness.models.checkpoints import CheckpointOptions
from harness.models.ffn.examination import hidden_vectors
from harness.testing import GATED_T5, tiny_model, tiny_tokenizer
from harness_plugins.constraints.projection import ProjectedWeights, ProjectionOptions
from harness_plugins.constraints.softplus import Softplus, SoftplusOptions
from harness_plugins.models.t5 import T5Models
from tests.models.arms import adapter_of, arm

pytestmark = pytest.mark.transformers5

INPUTS = list(np.random.default_rng(0).integers(1, 282, (2, 40)))


@pytest.mark.parametrize("start", ["abs", "clip", "clip_rescaled", "small_random"])
def test_an_ungated_t5_with_positive_weights_has_monotone_networks(start):
    made = arm("t5", ProjectedWeights(ProjectionOptions(start=start)))
    found = certify(*made, INPUTS)
    assert (found.status, found.examined, found.expected) == ("pass", 10, 10)
    assert found.weights_non_negative
    assert found.ffn_monotone


def test_gated_networks_are_not_monotone_whatever_their_weights_are():
    constraint = Softplus(SoftplusOptions(start="clip", activation="relu"))
    found = certify(*arm("t5", constraint, **GATED_T5), INPUTS)
    assert (found.status, found.examined, found.expected) == ("pass", 15, 15)
    assert found.weights_non_negative
    assert not found.ffn_monotone
    assert found.reason == "gated: the activation multiplies a second projection"
    jacobian = next(c for c in found.checks if c.name == "jacobian_non_negative")
    assert jacobian.measured["negative_entries"] > 0


@pytest.mark.parametrize("start", ["gauge", "shift_clip"])
def test_a_start_that_needs_a_layer_norm_is_refused_in_a_sentence(start):
    message = "T5LayerNorm, which subtracts no mean"
    with pytest.raises(CellError, match=message) as error:
        arm("t5", Softplus(SoftplusOptions(start=start)))
    assert "\n" not in str(error.value)


def test_a_missing_decoder_layer_fails_the_certificate():
    adapter, model, constraint = arm("t5", ProjectedWeights())
    anatomy = adapter.anatomy(model)
    cut = type(anatomy)(anatomy.model, anatomy.ffns[:4], anatomy.activation_name)
    adapter.anatomy = lambda model: cut
    found = certify(adapter, model, constraint, INPUTS)
    assert (found.status, found.examined, found.expected) == ("fail", 8, 10)


def test_dropout_is_switched_off_when_a_checkpoint_is_loaded(tmp_path):
    tiny_model("t5", dropout_rate=0.3).save_pretrained(tmp_path)
    tiny_tokenizer(closed=True).save_pretrained(tmp_path)
    adapter = T5Models(CheckpointOptions(path=str(tmp_path)))
    assert adapter.missing() == []
    model, tokenizer = adapter.load(tmp_path / "store")
    assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == {0.0}
    assert T5.dropouts[0] == "dropout_rate"
    assert tokenizer("the cat")["input_ids"][-1] == 0


def test_decoder_layers_are_examined_at_what_they_really_read():
    model = tiny_model("t5")
    anatomy = adapter_of("t5").anatomy(model)
    inputs = [torch.randint(1, 282, (70,)).numpy()]
    vectors = hidden_vectors(anatomy, inputs)
    assert {v.shape for v in vectors.values()} == {(70, 32)}

    caught = []
    anatomy.ffns[4].norm.register_forward_hook(lambda _, args, out: caught.append(out))
    ids = torch.as_tensor(inputs[0])[None]
    with torch.no_grad():
        model(input_ids=ids, labels=ids)
    torch.testing.assert_close(vectors[4], caught[0][0].double())

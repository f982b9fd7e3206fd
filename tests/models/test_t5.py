"""T5 v1.0 and v1.1 on the way of a variant: found, constrained, certified, frozen."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from harness.base import CellError
from harness.models import T5, certify, freeze, load_frozen
from harness.models.checkpoints import CheckpointOptions
from harness.models.ffn.examination import hidden_vectors
from harness.testing import GATED_T5, tiny_model, tiny_tokenizer
from harness_plugins.constraints.projection import ProjectedWeights, ProjectionOptions
from harness_plugins.constraints.softplus import Softplus, SoftplusOptions
from harness_plugins.models.t5 import T5Models

pytestmark = pytest.mark.transformers5

ADAPTER = T5Models(CheckpointOptions(path="unused"))
PROMPT = torch.arange(3, 43)[None]
REFERENCE = torch.arange(60, 71)[None]
SIZES = pytest.mark.parametrize("changes", [{}, GATED_T5], ids=["v1.0", "v1.1"])


def text(seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(1, 282, 40) for _ in range(2)]


def logits_of(model):
    with torch.no_grad():
        return model(input_ids=PROMPT, labels=REFERENCE).logits


@SIZES
def test_each_network_of_encoder_and_decoder_computes_what_the_model_does(changes):
    model = tiny_model("t5", **changes)
    ffns = ADAPTER.anatomy(model).ffns
    assert [ffn.layer for ffn in ffns] == [0, 1, 2, 3, 4]
    for ffn, length in zip(ffns, [40, 40, 11, 11, 11], strict=True):
        seen = {}
        first = ffn.inputs[0].module.register_forward_pre_hook(
            lambda _, args, seen=seen: seen.update(z=args[0])
        )
        last = ffn.output.module.register_forward_hook(
            lambda _, args, out, seen=seen: seen.update(out=out)
        )
        norm = ffn.norm.register_forward_hook(
            lambda _, args, out, seen=seen: seen.update(normed=out)
        )
        logits_of(model)
        for handle in (first, last, norm):
            handle.remove()
        assert seen["z"].shape[1] == length
        assert torch.equal(seen["normed"], seen["z"])
        assert torch.equal(ffn(seen["z"]), seen["out"])
        assert all(model.get_submodule(p.name) is p.module for p in ffn.projections)


def test_gated_networks_are_known_by_the_configuration():
    plain, gated = tiny_model("t5"), tiny_model("t5", **GATED_T5)
    assert not any(ffn.gated for ffn in ADAPTER.anatomy(plain).ffns)
    ffn = ADAPTER.anatomy(gated).ffns[4]
    assert [p.role for p in ffn.projections] == ["gate", "in", "out"]
    assert ADAPTER.anatomy(gated).activation_name == "gelu_new"
    assert tuple(ffn.output.weight.shape) == (32, 64)


def test_layers_that_the_configuration_does_not_know_are_an_error():
    model = tiny_model("t5")
    model.config.num_decoder_layers = 2
    with pytest.raises(CellError, match="has 3 layers, the configuration says 2"):
        ADAPTER.anatomy(model)


@SIZES
@pytest.mark.parametrize("name", ["relu", "gelu_new_hull"])
def test_a_swapped_activation_is_saved_and_acts_like_a_configured_one(
    changes, name, tmp_path
):
    swapped = tiny_model("t5", **changes)
    ADAPTER.set_activation(swapped, name)
    project = f"gated-{name}" if changes else name
    configured = tiny_model("t5", **{**changes, "feed_forward_proj": project})
    assert torch.equal(logits_of(swapped), logits_of(configured))

    freeze(swapped, tiny_tokenizer(closed=True), tmp_path)
    frozen, _ = load_frozen(tmp_path)
    assert ADAPTER.anatomy(frozen).activation_name == name
    assert torch.equal(logits_of(frozen), logits_of(swapped))


@SIZES
def test_a_frozen_subject_is_a_plain_folder_with_bitwise_equal_logits(
    changes, tmp_path
):
    model = tiny_model("t5", **changes)
    Softplus().apply(ADAPTER, model, 0)
    expected = logits_of(model)
    freeze(model, tiny_tokenizer(closed=True), tmp_path)

    plain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path, dtype=torch.float32)
    assert torch.equal(logits_of(plain), expected)
    tied = plain.get_input_embeddings().weight is plain.get_output_embeddings().weight
    assert tied is not bool(changes)
    assert plain.generation_config.decoder_start_token_id == 282


@pytest.mark.parametrize("start", ["abs", "clip", "clip_rescaled", "small_random"])
def test_an_ungated_t5_with_positive_weights_has_monotone_networks(start):
    model = tiny_model("t5")
    constraint = ProjectedWeights(ProjectionOptions(start=start))
    constraint.apply(ADAPTER, model, 0)
    found = certify(ADAPTER, model, constraint, text())
    assert (found.status, found.examined, found.expected) == ("pass", 10, 10)
    assert found.weights_non_negative
    assert found.ffn_monotone


def test_gated_networks_are_not_monotone_whatever_their_weights_are():
    model = tiny_model("t5", **GATED_T5)
    constraint = Softplus(SoftplusOptions(start="clip", activation="relu"))
    constraint.apply(ADAPTER, model, 0)
    found = certify(ADAPTER, model, constraint, text())
    assert (found.status, found.examined, found.expected) == ("pass", 15, 15)
    assert found.weights_non_negative
    assert not found.ffn_monotone
    assert found.reason == "gated: the activation multiplies a second projection"
    jacobian = next(c for c in found.checks if c.name == "jacobian_non_negative")
    assert jacobian.measured["negative_entries"] > 0


@pytest.mark.parametrize("start", ["gauge", "shift_clip"])
def test_a_start_that_needs_a_layer_norm_is_refused_in_a_sentence(start):
    with pytest.raises(
        CellError, match="T5LayerNorm, which subtracts no mean"
    ) as error:
        Softplus(SoftplusOptions(start=start)).apply(ADAPTER, tiny_model("t5"), 0)
    assert "\n" not in str(error.value)


def test_a_missing_decoder_layer_fails_the_certificate():
    model, constraint = tiny_model("t5"), ProjectedWeights()
    constraint.apply(ADAPTER, model, 0)
    short = T5Models(CheckpointOptions(path="unused"))
    anatomy = ADAPTER.anatomy(model)
    cut = type(anatomy)(anatomy.model, anatomy.ffns[:4], anatomy.activation_name)
    short.anatomy = lambda model: cut
    found = certify(short, model, constraint, text())
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
    anatomy = ADAPTER.anatomy(model)
    inputs = [torch.randint(1, 282, (70,)).numpy()]
    vectors = hidden_vectors(anatomy, inputs)
    assert {v.shape for v in vectors.values()} == {(70, 32)}

    caught = []
    anatomy.ffns[4].norm.register_forward_hook(lambda _, args, out: caught.append(out))
    ids = torch.as_tensor(inputs[0])[None]
    with torch.no_grad():
        model(input_ids=ids, labels=ids)
    torch.testing.assert_close(vectors[4], caught[0][0].double())

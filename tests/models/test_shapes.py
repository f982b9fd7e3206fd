"""Sizes from a configuration, against models that transformers builds from it."""

import json

import pytest
import torch

from harness.models.shapes import published_config, shape_of
from harness.subject.flops import PassFlops, Seq2SeqFlops
from harness.testing import FAMILIES, GATED_T5, tiny_model

UNTIED = {"tie_word_embeddings": False}
CASES = [
    *((family, {}) for family in FAMILIES),
    ("t5", GATED_T5 | UNTIED),
    ("opt", {"do_layer_norm_before": False, "word_embed_proj_dim": 32}),
    ("gpt2", {"n_inner": 48}),
    ("gpt_neox", {"attention_bias": False}),
    ("llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 16}),
    ("llama", {"tie_word_embeddings": True}),
]
PARAMETERS = {
    "EleutherAI/pythia-14m": 14_067_712,
    "EleutherAI/pythia-1.4b": 1_414_647_808,
    "EleutherAI/pythia-2.8b": 2_775_208_960,
    "EleutherAI/pythia-6.9b": 6_857_302_016,
    "EleutherAI/gpt-neo-1.3B": 1_315_575_808,
    "facebook/opt-1.3b": 1_315_758_080,
    "google-t5/t5-small": 60_506_624,
    "google/flan-t5-base": 247_577_856,
}
"""As the hub and the papers state them."""


@pytest.mark.transformers5
@pytest.mark.parametrize(("family", "sizes"), CASES)
def test_sizes_are_those_of_the_model_that_transformers_builds(family, sizes):
    with torch.device("meta"):
        model = tiny_model(family, **sizes)

    shape = shape_of(json.loads(model.config.to_json_string(use_diff=False)))

    flops = Seq2SeqFlops if model.config.is_encoder_decoder else PassFlops
    assert shape.parameters == model.num_parameters()
    assert shape.flops == flops.of(model)
    assert shape.vocabulary == model.config.vocab_size
    networks = [p for n, p in model.named_parameters() if p.ndim == 2 and _is_ffn(n)]
    assert shape.feed_forward == sum(p.numel() for p in networks)


def _is_ffn(name: str) -> bool:
    return any(part in name for part in ("mlp.", "fc1", "fc2", "DenseReluDense"))


@pytest.mark.parametrize(("hub_id", "parameters"), PARAMETERS.items())
def test_published_configurations_have_the_published_sizes(hub_id, parameters):
    assert shape_of(published_config(hub_id)).parameters == parameters


def test_what_is_not_known_has_no_sizes():
    assert published_config("nobody/nothing") is None
    assert shape_of({"model_type": "mamba"}) is None
    assert shape_of({"model_type": "gpt_neox", "hidden_size": 8}) is None
    sizes = published_config("EleutherAI/pythia-1.4b")
    assert shape_of({**sizes, "max_position_embeddings": "many"}).positions is None

import pytest
import torch

from harness.base import CellError
from harness.models import families, find_anatomy, swap_activation
from harness.models.families import Family
from harness.testing import tiny_model

pytestmark = pytest.mark.transformers5

KNOWN = {f.model_type: f for f in vars(families).values() if isinstance(f, Family)}
IDS = torch.arange(3, 43)[None]
PLAIN_NORM = ["gpt2", "gpt_neo", "gpt_neox", "opt"]


def without_dropout(family: str) -> dict[str, float]:
    return dict.fromkeys(KNOWN[family].dropouts, 0.0)


def read_and_written(ffn, model):
    """Catch what a network really reads and writes in a forward pass."""
    caught = {}
    first = ffn.inputs[0].module.register_forward_pre_hook(
        lambda _, args: caught.update(z=args[0])
    )
    last = ffn.output.module.register_forward_hook(
        lambda _, args, out: caught.update(out=out)
    )
    model(input_ids=IDS)
    first.remove()
    last.remove()
    return caught["z"], caught["out"]


def test_each_network_computes_what_the_model_computes(family):
    model = tiny_model(family)
    ffns = find_anatomy(model, KNOWN[family]).ffns
    assert [ffn.layer for ffn in ffns] == [0, 1]
    for ffn in ffns:
        z, out = read_and_written(ffn, model)
        assert torch.equal(ffn(z), out)


def test_weights_are_out_by_in_in_every_family(family):
    ffn = find_anatomy(tiny_model(family), KNOWN[family]).ffns[1]
    wide = 128 if family == "gpt2" else 64
    assert {tuple(p.weight.shape) for p in ffn.inputs} == {(wide, 32)}
    assert tuple(ffn.output.weight.shape) == (32, wide)


def test_names_lead_to_the_matrices(family):
    model = tiny_model(family)
    for ffn in find_anatomy(model, KNOWN[family]).ffns:
        for projection in ffn.projections:
            assert model.get_submodule(projection.name) is projection.module


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_gated_networks_are_known_as_gated(name):
    ffn = find_anatomy(tiny_model(name), KNOWN[name]).ffns[0]
    assert ffn.gated
    assert [p.role for p in ffn.projections] == ["gate", "in", "out"]


def test_the_norm_is_what_feeds_the_network(family):
    model = tiny_model(family)
    ffn = find_anatomy(model, KNOWN[family]).ffns[1]
    caught = []
    ffn.norm.register_forward_hook(lambda _, args, out: caught.append(out))
    z, _ = read_and_written(ffn, model)
    assert torch.equal(caught[0].reshape(z.shape), z)


def test_a_swapped_activation_acts_like_a_configured_one(family):
    known = KNOWN[family]
    swapped = tiny_model(family)
    swap_activation(swapped, known, "relu")
    configured = tiny_model(family, **{known.activation_key: "relu"})
    assert torch.equal(swapped(IDS).logits, configured(IDS).logits)
    assert getattr(swapped.config, known.activation_key) == "relu"
    assert find_anatomy(swapped, known).activation_name == "relu"


@pytest.mark.parametrize("name", PLAIN_NORM)
def test_the_gauge_is_free_with_layer_norm_before_and_no_dropout(name):
    model = tiny_model(name, **without_dropout(name))
    assert find_anatomy(model, KNOWN[name]).ffns[0].gauge_free


@pytest.mark.parametrize("name", PLAIN_NORM)
def test_dropout_on_the_residual_stream_fixes_the_gauge(name):
    residual = KNOWN[name].dropouts[0]
    model = tiny_model(name, **{**without_dropout(name), residual: 0.1})
    assert not find_anatomy(model, KNOWN[name]).ffns[0].gauge_free


@pytest.mark.parametrize("name", ["llama", "qwen2"])
def test_rms_norm_fixes_the_gauge(name):
    assert not find_anatomy(tiny_model(name), KNOWN[name]).ffns[0].gauge_free


def test_post_norm_opt_has_no_norm_of_its_own_and_no_gauge():
    model = tiny_model("opt", do_layer_norm_before=False, **without_dropout("opt"))
    ffn = find_anatomy(model, KNOWN["opt"]).ffns[0]
    assert ffn.norm is None
    assert not ffn.gauge_free


def test_layers_that_the_configuration_does_not_know_are_an_error():
    model = tiny_model("gpt_neox")
    model.config.num_hidden_layers = 3
    with pytest.raises(CellError, match="2 layers, the configuration says 3"):
        find_anatomy(model, KNOWN["gpt_neox"])

import pytest
import torch

from harness.base import CellError
from harness.models import families, find_anatomy, freeze, load_frozen, swap_activation
from harness.models.families import Family
from harness.testing import GATED_T5, tiny_model, tiny_tokenizer

pytestmark = pytest.mark.transformers5

KNOWN = {f.model_type: f for f in vars(families).values() if isinstance(f, Family)}
IDS = torch.arange(3, 43)[None]
PLAIN_NORM = ["gpt2", "gpt_neo", "gpt_neox", "opt"]
GATED = ["llama", "qwen2", "t5 v1.1"]
kinds = pytest.mark.parametrize("kind", [*PLAIN_NORM, *GATED, "t5"])


def model_of(kind, **changes):
    gated = GATED_T5 if kind == "t5 v1.1" else {}
    return tiny_model(kind.split()[0], **{**gated, **changes})


def known(model):
    return KNOWN[model.config.model_type]


def anatomy_of(model):
    return find_anatomy(model, known(model))


def logits_of(model):
    labels = {"labels": IDS[:, :11]} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(IDS, **labels).logits


def without_dropout(family):
    return dict.fromkeys(KNOWN[family].dropouts, 0.0)


@kinds
def test_each_network_computes_what_the_model_computes_after_its_norm(kind):
    model = model_of(kind)
    ffns = anatomy_of(model).ffns
    lengths = [40, 40, 11, 11, 11] if "t5" in kind else [40, 40]
    assert [ffn.layer for ffn in ffns] == [*range(len(lengths))]
    for ffn, length in zip(ffns, lengths, strict=True):
        seen = {}
        hooks = [
            ffn.inputs[0].module.register_forward_pre_hook(
                lambda _, args, seen=seen: seen.update(z=args[0])
            ),
            ffn.output.module.register_forward_hook(
                lambda _, args, out, seen=seen: seen.update(out=out)
            ),
            ffn.norm.register_forward_hook(
                lambda _, args, out, seen=seen: seen.update(normed=out)
            ),
        ]
        logits_of(model)
        for hook in hooks:
            hook.remove()
        assert seen["z"].shape[-2] == length
        assert torch.equal(ffn(seen["z"]), seen["out"])
        assert torch.equal(seen["normed"].reshape(seen["z"].shape), seen["z"])


@kinds
def test_weights_are_out_by_in_and_names_lead_to_the_matrices(kind):
    model = model_of(kind)
    wide = 128 if kind == "gpt2" else 64
    for ffn in anatomy_of(model).ffns:
        assert {tuple(p.weight.shape) for p in ffn.inputs} == {(wide, 32)}
        assert tuple(ffn.output.weight.shape) == (32, wide)
        for projection in ffn.projections:
            assert model.get_submodule(projection.name) is projection.module


@kinds
def test_gated_networks_are_known_as_gated(kind):
    for ffn in anatomy_of(model_of(kind)).ffns:
        assert ffn.gated == (kind in GATED)
        roles = ["gate", "in", "out"] if ffn.gated else ["in", "out"]
        assert [p.role for p in ffn.projections] == roles


def test_the_activation_of_a_gated_t5_is_known_by_the_configuration():
    assert anatomy_of(model_of("t5 v1.1")).activation_name == "gelu_new"


@pytest.mark.parametrize("name", ["relu", "gelu_new_hull"])
@kinds
def test_a_swapped_activation_is_frozen_and_acts_like_a_configured_one(
    kind, name, tmp_path
):
    swapped = model_of(kind)
    swap_activation(swapped, known(swapped), name)
    key = known(swapped).activation_key
    of_t5 = f"gated-{name}" if kind in GATED else name
    stated = {"feed_forward_proj": of_t5} if "t5" in kind else {key: name}
    configured = model_of(kind, **stated)
    assert getattr(swapped.config, key) == name
    assert torch.equal(logits_of(swapped), logits_of(configured))

    freeze(swapped, tiny_tokenizer(closed="t5" in kind), tmp_path)
    frozen, _ = load_frozen(tmp_path)
    assert anatomy_of(frozen).activation_name == name
    assert torch.equal(logits_of(frozen), logits_of(swapped))


@pytest.mark.parametrize("name", PLAIN_NORM)
def test_the_gauge_is_free_with_layer_norm_before_and_no_dropout(name):
    model = tiny_model(name, **without_dropout(name))
    assert find_anatomy(model, KNOWN[name]).ffns[0].gauge_free


@pytest.mark.parametrize("name", PLAIN_NORM)
def test_dropout_on_the_residual_stream_fixes_the_gauge(name):
    residual = KNOWN[name].dropouts[0]
    model = tiny_model(name, **{**without_dropout(name), residual: 0.1})
    assert not find_anatomy(model, KNOWN[name]).ffns[0].gauge_free


@pytest.mark.parametrize("name", ["llama", "qwen2", "t5"])
def test_rms_norm_fixes_the_gauge(name):
    assert not find_anatomy(tiny_model(name), KNOWN[name]).ffns[0].gauge_free


def test_post_norm_opt_has_no_norm_of_its_own_and_no_gauge():
    model = tiny_model("opt", do_layer_norm_before=False, **without_dropout("opt"))
    ffn = find_anatomy(model, KNOWN["opt"]).ffns[0]
    assert ffn.norm is None
    assert not ffn.gauge_free


@pytest.mark.parametrize(
    ("family", "key", "sizes"),
    [("gpt_neox", "num_hidden_layers", (2, 3)), ("t5", "num_decoder_layers", (3, 2))],
)
def test_layers_that_the_configuration_does_not_know_are_an_error(family, key, sizes):
    model = tiny_model(family)
    setattr(model.config, key, sizes[1])
    there, stated = sizes
    message = f"{there} layers, the configuration says {stated}"
    with pytest.raises(CellError, match=message):
        find_anatomy(model, KNOWN[family])

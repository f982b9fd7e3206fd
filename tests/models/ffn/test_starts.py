import copy

import numpy as np
import pydantic
import pytest
import torch

from harness.base import CellError
from harness.models import StartOptions, install_start, select
from harness.testing import tiny_model
from tests.models.arms import adapter_of

pytestmark = pytest.mark.transformers5

IDS = torch.arange(3, 83).reshape(2, 40)
EVERY = ["abs", "clip", "clip_rescaled", "shift_clip", "gauge", "small_random"]
PLAIN_NORM = ["gpt2", "gpt_neo", "gpt_neox", "opt"]


def load(family, **changes):
    """Return an adapter and a model of its family, without dropout, norms not plain."""
    adapter = adapter_of(family)
    off = dict.fromkeys(adapter.families[family].dropouts, 0.0)
    model = tiny_model(family, **{**off, **changes})
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.add_(0.3 * noise)
    return adapter, model


def weights(adapter, model):
    ffns = adapter.anatomy(model).ffns
    return [p.weight.detach().double() for ffn in ffns for p in ffn.projections]


def install(adapter, model, start, seed=0, **options):
    return install_start(adapter, model, StartOptions(**options), start, seed)


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("start", EVERY)
@pytest.mark.parametrize("family_name", PLAIN_NORM)
def test_no_start_leaves_a_weight_negative(start, family_name):
    adapter, model = load(family_name)
    chosen = install(adapter, model, start)
    assert len(chosen) == 4
    assert min(float(w.min()) for w in weights(adapter, model)) >= 0


@pytest.mark.parametrize(
    ("start", "eps", "expected"),
    [
        ("keep", 1e-3, lambda old: old),
        ("abs", 1e-3, np.abs),
        ("clip", 0.125, lambda old: np.maximum(old, 0.125)),
    ],
    ids=["keep", "abs", "clip"],
)
def test_a_start_turns_each_weight_into_another(family, start, eps, expected):
    adapter, model = load(family)
    before = copy.deepcopy(model.state_dict())
    matrices = weights(adapter, model)
    install(adapter, model, start, eps=eps)
    for old, new in zip(matrices, weights(adapter, model), strict=True):
        assert np.array_equal(expected(old.numpy()), new.numpy())
    if start == "keep":
        after = model.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_clip_rescaled_keeps_the_norm_and_the_direction_of_clip():
    adapter, model = load("gpt2")
    before = weights(adapter, model)
    install(adapter, model, "clip_rescaled", eps=0.01)
    for old, new in zip(before, weights(adapter, model), strict=True):
        clipped = np.maximum(old.numpy(), 0.01)
        ratio = new.numpy() / clipped
        assert np.linalg.norm(new) == pytest.approx(np.linalg.norm(old), rel=1e-6)
        assert ratio.max() == pytest.approx(ratio.min(), rel=1e-5)


@pytest.mark.parametrize("family_name", PLAIN_NORM)
def test_the_gauge_leaves_float64_logits_unchanged(family_name):
    adapter, model = load(family_name)
    model.double()
    expected = logits(model)
    install(adapter, model, "gauge")
    assert (logits(model) - expected).abs().max() < 1e-10
    assert min(float(w.min()) for w in weights(adapter, model)) >= 1e-3


@pytest.mark.parametrize("scope", ["in", "out"])
def test_the_gauge_of_one_projection_leaves_the_function_and_the_other(scope):
    adapter, model = load("gpt_neox")
    model.double()
    expected = logits(model)
    chosen = install(adapter, model, "gauge", scope=scope)
    assert {p.role for p in chosen} == {scope}
    assert (logits(model) - expected).abs().max() < 1e-10
    other = [p for f in adapter.anatomy(model).ffns for p in f.projections]
    assert min(float(p.weight.detach().min()) for p in other if p.role != scope) < 0


def test_the_gauge_works_without_a_norm_gain_or_bias():
    adapter, model = load("gpt_neox")
    for layer in model.gpt_neox.layers:
        plain = torch.nn.LayerNorm(32, elementwise_affine=False)
        layer.post_attention_layernorm = plain
    model.double()
    expected = logits(model)
    install(adapter, model, "gauge")
    assert (logits(model) - expected).abs().max() < 1e-10


def test_a_norm_bias_that_nothing_can_take_up_is_an_error():
    adapter, model = load("opt", enable_bias=False)
    with pytest.raises(CellError, match="no bias to fold"):
        install(adapter, model, "gauge")


def test_shift_clip_is_the_same_function_but_for_what_it_clips():
    adapter, model = load("gpt_neox")
    gain = [f.norm.weight.detach().double() for f in adapter.anatomy(model).ffns]
    before = weights(adapter, model)
    install(adapter, model, "shift_clip")
    after = weights(adapter, model)
    for layer in (0, 1):
        folded, out = before[2 * layer] * gain[layer], before[2 * layer + 1]
        for old, new, axis in ((folded, after[2 * layer], 1), (out, after[-1], 0)):
            if axis == 0:
                new = after[2 * layer + 1]
            old, new = old.numpy(), new.numpy()
            moved = old - old.mean(axis, keepdims=True)
            moved += 2 * old.std(axis, ddof=1, keepdims=True)
            assert np.allclose(new, np.maximum(moved, 1e-3), atol=1e-6)


@pytest.mark.parametrize("start", ["gauge", "shift_clip"])
@pytest.mark.parametrize(
    ("family_name", "changes", "reason"),
    [
        ("llama", {}, "RMSNorm"),
        ("qwen2", {}, "RMSNorm"),
        ("opt", {"do_layer_norm_before": False}, "post-norm"),
        ("gpt2", {"resid_pdrop": 0.1}, "dropout"),
    ],
)
def test_the_gauge_is_refused_where_it_would_change_the_function(
    start, family_name, changes, reason
):
    adapter, model = load(family_name, **changes)
    with pytest.raises(CellError, match=f"'{start}' does not fit layer 0.*{reason}"):
        install(adapter, model, start)


def test_small_random_is_half_normal_and_keyed_by_seed_and_matrix():
    def drawn(seed, layers="all"):
        adapter, model = load("gpt_neox", intermediate_size=4096)
        install(adapter, model, "small_random", seed=seed, layers=layers)
        return weights(adapter, model)

    first, alone, other = drawn(1), drawn(1, layers="1"), drawn(2)
    # Of |N(0, s)|: mean s sqrt(2 / pi), root mean square s.
    assert float(first[0].mean()) == pytest.approx(0.02 * 0.79788, rel=0.01)
    assert float(first[0].square().mean().sqrt()) == pytest.approx(0.02, rel=0.01)
    assert torch.equal(first[2], alone[2])
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[0], first[2])


@pytest.mark.parametrize(
    ("scope", "roles"),
    [("both", {"gate", "in", "out"}), ("in", {"gate", "in"}), ("out", {"out"})],
)
def test_scope_chooses_projections(scope, roles):
    adapter, model = load("llama")
    chosen = select(adapter.anatomy(model), StartOptions(scope=scope))
    assert {p.role for p in chosen} == roles


@pytest.mark.parametrize(
    ("given", "layers"),
    [
        ("all", {0, 1, 2, 3}),
        ("0", {0}),
        (2, {2}),
        ("1-3", {1, 2, 3}),
        ("0,2-3", {0, 2, 3}),
    ],
)
def test_layers_are_numbers_and_ranges(given, layers):
    adapter, model = load("gpt_neox", num_hidden_layers=4)
    chosen = select(adapter.anatomy(model), StartOptions(layers=given))
    assert {p.layer for p in chosen} == layers


def test_layers_outside_the_scope_keep_their_weights():
    adapter, model = load("gpt_neox")
    before = weights(adapter, model)
    install(adapter, model, "abs", layers="1")
    after = weights(adapter, model)
    same = [torch.equal(x, y) for x, y in zip(before, after, strict=True)]
    assert same == [True, True, False, False]


@pytest.mark.parametrize("layers", ["2", "0-2", "1-0"])
def test_layers_that_the_model_does_not_have_are_an_error(layers):
    adapter, model = load("gpt_neox")
    with pytest.raises(CellError, match=f"'{layers}' does not fit .* 0 to 1"):
        install(adapter, model, "abs", layers=layers)


@pytest.mark.parametrize("layers", ["", "a", "1-", "-1", "1,,2", "1..2"])
def test_layers_are_checked_before_a_model_is_there(layers):
    with pytest.raises(pydantic.ValidationError, match="layers"):
        StartOptions(layers=layers)


@pytest.mark.parametrize(
    ("family_name", "option", "name"),
    [
        ("gpt_neox", "relu", "relu"),
        ("gpt_neox", "gelu_hull", "gelu_hull"),
        ("gpt_neo", "gelu_hull", "gelu_new_hull"),
        ("gpt2", "gelu_hull", "gelu_new_hull"),
        ("opt", "gelu_hull", "relu"),
        ("llama", "keep", "silu"),
    ],
)
def test_the_activation_becomes_the_form_that_fits(family_name, option, name):
    adapter, model = load(family_name)
    install(adapter, model, "keep", activation=option)
    assert adapter.anatomy(model).activation_name == name


def test_a_hull_of_silu_is_an_error():
    adapter, model = load("llama")
    with pytest.raises(CellError, match="silu"):
        install(adapter, model, "keep", activation="gelu_hull")

import copy
import json

import numpy as np
import pytest
import torch

from harness.api import Anatomy
from harness.base import CellError
from harness.models import certify, find_anatomy
from harness.models.certificate import minimum_weight
from harness_plugins.constraints.none import Unconstrained
from harness_plugins.constraints.projection import ProjectedWeights
from harness_plugins.constraints.softplus import Softplus
from harness_plugins.models.pythia import Pythia
from tests.models.arms import adapter_of, arm

pytestmark = pytest.mark.transformers5

INPUTS = [np.arange(3, 43), np.arange(100, 140)]
UNGATED = ["gpt2", "gpt_neo", "gpt_neox", "opt"]
GELU_DEPTH = 0.16997


def make(family, plugin=Softplus, **options):
    """Return what `certify` takes; of a certificate for 2 layers."""
    return arm(family, plugin(plugin.Options(**options)))


def checks(certificate):
    return {check.name: check for check in certificate.checks}


def statuses(certificate):
    return {check.name: check.status for check in certificate.checks}


class Blind(Pythia):
    """An adapter that finds no feed-forward network, or not all of them."""

    name = "blind"
    sees = 0

    def anatomy(self, model):
        found = super().anatomy(model)
        return Anatomy(model, found.ffns[: self.sees], found.activation_name)


@pytest.mark.parametrize("family_name", UNGATED)
def test_a_monotone_arm_passes_all_it_promises(family_name):
    made = make(family_name, activation="gelu_hull")
    certificate = certify(*made, INPUTS)
    assert certificate.status == "pass"
    assert certificate.weights_non_negative
    assert certificate.ffn_monotone
    assert certificate.end_to_end == "none"
    assert certificate.examined == certificate.expected == 4
    assert statuses(certificate) == {
        "weights_non_negative": "pass",
        "activation_non_decreasing": "pass",
        "jacobian_non_negative": "pass",
        "boxes_keep_order": "pass",
        "inputs_comparable": "not_promised",
        "end_to_end": "not_promised",
    }


def test_an_unconstrained_arm_promises_nothing_and_is_measured_all_the_same(family):
    certificate = certify(*make(family, Unconstrained), INPUTS)
    assert certificate.status == "nothing_promised"
    assert not certificate.weights_non_negative
    assert not certificate.ffn_monotone
    assert certificate.expected == 0
    assert certificate.examined == (6 if family in ("llama", "qwen2") else 4)
    found = checks(certificate)
    assert found["weights_non_negative"].measured["minimum"] < 0
    fraction = found["jacobian_non_negative"].measured["negative_fraction"]
    assert fraction == pytest.approx(0.5, abs=0.1)
    assert "pass" not in statuses(certificate).values()


def test_the_smallest_weight_of_each_layer_is_measured():
    adapter, model, constraint = make("gpt_neox", Unconstrained)
    lowest = [-7.0, -9.0]
    with torch.no_grad():
        for layer, low in zip(model.gpt_neox.layers, lowest, strict=True):
            layer.mlp.dense_4h_to_h.weight[2, 3] = low
    certificate = certify(adapter, model, constraint, INPUTS)
    found = checks(certificate)["weights_non_negative"].measured
    assert found["minimum_by_layer"] == lowest
    (half,) = [
        checks(certify(*make("gpt_neox", layers="1"), INPUTS))["weights_non_negative"]
    ]
    nothing, low = half.measured["minimum_by_layer"]
    assert nothing is None
    assert low == half.measured["minimum"]


@pytest.mark.parametrize(
    ("family", "options", "examined", "jacobian"),
    [
        ("gpt_neox", {}, 4, False),
        ("gpt_neox", {"scope": "in", "activation": "relu"}, 2, True),
        ("gpt_neox", {"scope": "out", "activation": "relu"}, 2, True),
        ("gpt_neox", {"layers": "1", "activation": "gelu_hull"}, 2, False),
        ("llama", {}, 6, True),
    ],
    ids=str,
)
def test_non_negative_weights_alone_are_no_monotone_network(
    family, options, examined, jacobian
):
    """GELU falls, a half may be negative, a layer free, a network gated."""
    certificate = certify(*make(family, **options), INPUTS)
    assert certificate.status == "pass"
    assert certificate.weights_non_negative
    assert not certificate.ffn_monotone
    assert certificate.examined == certificate.expected == examined
    negative = checks(certificate)["jacobian_non_negative"].measured["negative_entries"]
    if jacobian:  # else what is wrong need not show at the inputs
        assert negative


def test_what_keeps_a_network_from_being_monotone_is_measured():
    under_gelu = checks(certify(*make("gpt_neox"), INPUTS))
    fall = under_gelu["activation_non_decreasing"].measured["largest_fall"]
    assert 0 < fall < GELU_DEPTH + 1e-4
    gated = statuses(certify(*make("llama"), INPUTS))
    assert gated["boxes_keep_order"] == "not_applicable"
    some = checks(
        certify(*make("gpt_neox", layers="1", activation="gelu_hull"), INPUTS)
    )
    assert some["jacobian_non_negative"].measured["layers"] == [1]


@pytest.mark.parametrize("sees", [0, 1])
def test_zero_or_too_few_matrices_examined_is_a_failure(sees):
    _, model, constraint = make("gpt_neox")
    adapter = Blind(Pythia.Options(path="unused"))
    adapter.sees = sees
    certificate = certify(adapter, model, constraint, INPUTS)
    assert certificate.status == "fail"
    assert not certificate.weights_non_negative
    assert not certificate.ffn_monotone
    assert certificate.examined == 2 * sees
    assert certificate.expected == 4


class Empty(Softplus):
    """Promises no matrix."""

    name = "empty"

    def promised(self, anatomy):
        return []


class Elsewhere(Softplus):
    """Promises matrices that are not a part of the model."""

    name = "elsewhere"

    def promised(self, anatomy):
        twin = copy.deepcopy(anatomy.model)
        return super().promised(adapter_of("gpt_neox").anatomy(twin))


@pytest.mark.parametrize("constraint", [Empty, Elsewhere])
def test_a_promise_of_no_matrix_of_the_model_is_a_failure(constraint):
    adapter, model, _ = make("gpt_neox")
    certificate = certify(adapter, model, constraint(), INPUTS)
    assert certificate.status == "fail"
    assert (certificate.examined, certificate.expected) == (0, 4)


@pytest.mark.parametrize("value", [-1e-7, float("nan"), float("inf"), float("-inf")])
def test_one_bad_weight_is_found(value):
    made = make("gpt_neox", ProjectedWeights, activation="relu")
    adapter, model, _ = made
    weight = adapter.anatomy(model).ffns[1].output.weight
    with torch.no_grad():
        weight[7, 9] = value
    certificate = certify(*made, INPUTS)
    assert certificate.status == "fail"
    assert not certificate.weights_non_negative
    assert not certificate.ffn_monotone
    json.dumps(certificate.model_dump(mode="json"), allow_nan=False)


def test_a_bad_weight_shows_in_the_jacobian_too():
    made = make("gpt_neox", ProjectedWeights, activation="relu")
    adapter, model, _ = made
    with torch.no_grad():
        adapter.anatomy(model).ffns[0].output.weight[7] = -1.0
    found = statuses(certify(*made, INPUTS))
    assert found["jacobian_non_negative"] == "fail"
    assert found["boxes_keep_order"] == "fail"


def test_the_activation_that_runs_is_what_counts_not_its_name():
    made = make("gpt_neox", activation="relu")
    for layer in made[1].gpt_neox.layers:
        layer.mlp.act = torch.nn.GELU()
    certificate = certify(*made, INPUTS)
    assert certificate.activation == "relu"
    assert statuses(certificate)["activation_non_decreasing"] == "fail"
    assert certificate.status == "fail"
    assert not certificate.ffn_monotone


def test_the_effective_weight_counts_and_not_v(family):
    made = make(family)
    adapter, model, constraint = made
    vs = [v for n, v in model.named_parameters() if n.endswith(".original")]
    assert min(float(v.detach().min()) for v in vs) < 0
    smallest = min(float(torch.nn.functional.softplus(v.detach()).min()) for v in vs)
    certificate = certify(*made, INPUTS)
    measured = checks(certificate)["weights_non_negative"].measured
    assert measured["matrices"] == len(vs)
    assert measured["minimum"] == pytest.approx(smallest)
    assert minimum_weight(adapter.anatomy(model), constraint) == pytest.approx(smallest)


def test_a_copy_in_bfloat16_is_certified_like_the_original():
    adapter, model, constraint = make("gpt_neox", activation="gelu_hull")
    twin = copy.deepcopy(model).bfloat16()
    assert certify(adapter, twin, constraint, INPUTS).status == "pass"
    assert certify(adapter, model, constraint, INPUTS).status == "pass"


def test_jacobians_are_those_of_the_model_at_real_inputs():
    made = make("gpt_neox", Unconstrained)
    adapter, model, _ = made
    total = negative = 0
    for ffn in adapter.anatomy(model).ffns:
        z = read(model, ffn)
        kept = z[torch.linspace(0, len(z) - 1, 64).long()].double()
        for row in kept:
            exact = copy.deepcopy(ffn)
            for projection in exact.projections:
                projection.module.double()
            jacobian = torch.autograd.functional.jacobian(
                lambda x, f=exact: f(x[None])[0], row
            )
            total += jacobian.numel()
            negative += int((jacobian < 0).sum())
    measured = checks(certify(*made, INPUTS))["jacobian_non_negative"].measured
    assert measured["entries"] == total == 2 * 64 * 32 * 32
    assert measured["negative_entries"] == negative


def test_the_observed_range_is_what_the_activation_sees():
    made = make("gpt_neox", Unconstrained)
    adapter, model, _ = made
    seen = torch.cat(
        [
            f.inputs[0].module(read(model, f)).detach().flatten()
            for f in adapter.anatomy(model).ffns
        ]
    )
    found = checks(certify(*made, INPUTS))["activation_non_decreasing"].measured
    assert found["observed_minimum"] == pytest.approx(float(seen.min()), abs=1e-5)
    assert found["observed_maximum"] == pytest.approx(float(seen.max()), abs=1e-5)


def read(model, ffn):
    caught = []
    handle = ffn.inputs[0].module.register_forward_pre_hook(
        lambda _, args: caught.append(args[0].detach()[0])
    )
    for ids in INPUTS:
        model(torch.from_numpy(ids)[None])
    handle.remove()
    return torch.cat(caught)


def test_layer_norm_leaves_no_two_different_inputs_comparable():
    made = make("gpt_neox", activation="gelu_hull")
    with torch.no_grad():
        made[1].gpt_neox.layers[0].post_attention_layernorm.weight[:3] = -1.0
    twice = [np.concatenate([INPUTS[0], INPUTS[0]]), INPUTS[1]]
    measured = checks(certify(*made, twice))["inputs_comparable"].measured
    assert measured["comparable_pairs"] == 0
    assert measured["pairs"] > 3000
    assert measured["norm_gains_negative"] == 3
    assert measured["norm_gains_positive"] == 61


def test_comparable_inputs_are_counted():
    class Ordered(torch.nn.Module):
        """Gives vectors that grow by one, in every coordinate, from token to token."""

        weight = None

        def forward(self, hidden):
            steps = torch.arange(hidden.shape[1], dtype=hidden.dtype)
            return steps[None, :, None].expand_as(hidden)

    made = make("gpt_neox", Unconstrained)
    for layer in made[1].gpt_neox.layers:
        layer.post_attention_layernorm = Ordered()
    measured = checks(certify(*made, [np.arange(3, 83)]))["inputs_comparable"].measured
    assert measured["comparable_pairs"] == measured["pairs"] == 2 * (80 * 79 // 2)


def test_the_model_is_left_as_it_was():
    made = make("gpt_neox")
    model = made[1].train()
    state = torch.get_rng_state()
    before = copy.deepcopy(model.state_dict())
    certify(*made, INPUTS)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    hooked = [m for m in model.modules() if m._forward_hooks or m._forward_pre_hooks]
    assert hooked == []


def test_a_certificate_on_too_little_text_is_refused():
    with pytest.raises(CellError, match="needs 64 tokens of text, not 63"):
        certify(*make("gpt_neox"), [np.arange(3, 66)])


def test_the_smallest_weight_of_an_unconstrained_arm_is_logged_too():
    adapter, model, constraint = make("gpt2", Unconstrained)
    smallest = min(
        p.min().item()
        for name, p in model.state_dict().items()
        if "mlp" in name and name.endswith("weight")
    )
    assert minimum_weight(adapter.anatomy(model), constraint) == smallest


@pytest.mark.slow
def test_the_gauge_with_the_hull_is_monotone_on_a_trained_model(shared, tmp_path):
    adapter = Pythia(Pythia.Options(path=str(shared / "models" / "pythia-14m-standin")))
    model, tokenizer = adapter.load(tmp_path)
    text = (shared / "data" / "wikitext2_valid.txt").read_text()[:4000]
    ids = np.array(tokenizer(text)["input_ids"][:512])
    constraint = Softplus(Softplus.Options(start="gauge", activation="gelu_hull"))
    constraint.apply(adapter, model, 0)
    certificate = certify(adapter, model, constraint, [ids])
    assert certificate.status == "pass"
    assert certificate.ffn_monotone
    assert certificate.examined == 12
    found = checks(certificate)
    assert found["weights_non_negative"].measured["minimum"] >= 1e-3
    assert found["jacobian_non_negative"].measured["negative_entries"] == 0
    assert find_anatomy(model, adapter.families["gpt_neox"]).ffns[0].gauge_free

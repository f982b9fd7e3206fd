import copy

import pytest
import torch
from torch.nn.utils.parametrize import is_parametrized

from harness.testing import tiny_model
from harness_plugins.constraints.none import Unconstrained
from harness_plugins.constraints.softplus import Softplus
from harness_plugins.models.pythia import Pythia
from tests.models.arms import adapter_of, arm

pytestmark = pytest.mark.transformers5

IDS = torch.arange(3, 83).reshape(2, 40)
NAMES = {
    "gpt_neox": ("dense_h_to_4h", "dense_4h_to_h"),
    "opt": ("fc1", "fc2"),
    "gpt_neo": ("c_fc", "c_proj"),
    "gpt2": ("c_fc", "c_proj"),
    "llama": ("gate_proj", "up_proj", "down_proj"),
    "qwen2": ("gate_proj", "up_proj", "down_proj"),
}


def constrained(family, **options):
    adapter, model, constraint = arm(family, Softplus(Softplus.Options(**options)))
    return constraint, adapter, model


def train(constraint, model, steps=5, rate=3e-2, decay=0.01):
    groups = constraint.parameter_groups(model, rate, decay)
    optimizer = torch.optim.AdamW(groups)
    for _ in range(steps):
        optimizer.zero_grad()
        model(input_ids=IDS, labels=IDS).loss.backward()
        optimizer.step()


def test_exactly_the_feed_forward_matrices_are_parametrized(family):
    constraint, adapter, model = constrained(family)
    found = {n for n, m in model.named_modules() if is_parametrized(m, "weight")}
    expected = {
        name
        for name, _ in tiny_model(family).named_modules()
        if name.split(".")[-1] in NAMES[family] and ".attn" not in name
    }
    assert found == expected
    assert len(found) == 2 * len(NAMES[family])
    promised = constraint.promised(adapter.anatomy(model))
    assert {p.name for p in promised} == expected


def test_the_start_is_what_the_model_computes_with(family):
    _, adapter, model = constrained(family)
    control = tiny_model(family)
    Unconstrained(Unconstrained.Options(start="abs")).apply(adapter, control, 0)
    with torch.no_grad():
        difference = model(IDS).logits - control(IDS).logits
    assert difference.abs().max() < 1e-4


@pytest.mark.parametrize("parametrization", ["softplus", "exp", "square"])
def test_no_amount_of_training_makes_a_weight_negative(parametrization):
    constraint, adapter, model = constrained(
        "gpt_neox", parametrization=parametrization
    )
    promised = constraint.promised(adapter.anatomy(model))
    before = [p.weight.detach().clone() for p in promised]
    train(constraint, model, steps=8, rate=0.5)
    assert min(float(p.weight.detach().min()) for p in promised) >= 0
    assert all(
        not torch.equal(old, p.weight) for old, p in zip(before, promised, strict=True)
    )


def test_every_parameter_is_in_exactly_one_group(family):
    constraint, _, model = constrained(family)
    groups = constraint.parameter_groups(model, 1e-3, 0.01)
    members = [id(p) for group in groups for p in group["params"]]
    assert sorted(members) == sorted(map(id, model.parameters()))


def test_v_learns_at_the_rate_over_the_mean_weight_and_does_not_decay():
    constraint, adapter, model = constrained("gpt2", lr_multiplier=0.5)
    groups = constraint.parameter_groups(model, 1e-3, 0.01)
    own = {id(g["params"][0]): g for g in groups[2:]}
    promised = constraint.promised(adapter.anatomy(model))
    assert len(own) == len(promised) == 4
    for projection in promised:
        group = own[id(projection.module.parametrizations.weight.original)]
        mean = sum(projection.weight.flatten().tolist()) / projection.weight.numel()
        assert group["lr"] == pytest.approx(0.5e-3 / mean, rel=1e-5)
        assert group["weight_decay"] == 0
    assert groups[0]["weight_decay"] == 0.01


def test_a_step_moves_weights_about_as_far_as_it_would_without_v():
    def mean_step(constraint, adapter, model):
        projection = adapter.anatomy(model).ffns[1].output
        before = projection.weight.detach().clone()
        train(constraint, model, steps=1, rate=1e-4, decay=0)
        return float((projection.weight.detach() - before).abs().mean())

    with_v = mean_step(*constrained("gpt_neox"))
    adapter, model = adapter_of("gpt_neox"), tiny_model()
    control = Unconstrained(Unconstrained.Options(start="abs"))
    control.apply(adapter, model, 0)
    assert with_v == pytest.approx(mean_step(control, adapter, model), rel=0.25)


def test_a_copy_of_the_model_trains_without_the_original():
    constraint, adapter, model = constrained("gpt_neox")
    with torch.no_grad():
        before = model(IDS).logits
    twin = copy.deepcopy(model)
    train(constraint, twin)
    assert len(constraint.promised(adapter.anatomy(twin))) == 4
    with torch.no_grad():
        assert torch.equal(model(IDS).logits, before)
        assert not torch.equal(twin(IDS).logits, before)


def test_the_constrained_model_runs_in_bfloat16_and_comes_back():
    _, _, model = constrained("gpt_neox")
    with torch.no_grad():
        before = model(IDS).logits
        rough = model.bfloat16()(IDS).logits
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - before).abs().max() < 0.1 * before.abs().max()
    vs = [v for n, v in model.named_parameters() if n.endswith(".original")]
    assert {v.dtype for v in vs} == {torch.float32}


@pytest.mark.slow
def test_the_gauge_is_a_null_arm_on_a_trained_model(shared, tmp_path, float32_error):
    folder = shared / "models" / "pythia-14m-standin"
    adapter = Pythia(Pythia.Options(path=str(folder)))
    model, tokenizer = adapter.load(tmp_path)
    text = (shared / "data" / "wikitext2_valid.txt").read_text()[:20_000]
    ids = torch.tensor(tokenizer(text)["input_ids"][:1024]).view(4, 256)
    before = loss_of(model, ids)
    error = float32_error(model, before, ids.numel())
    assert error < 1e-4
    constraint = Softplus(Softplus.Options(start="gauge", eps=1e-3))
    constraint.apply(adapter, model, 0)
    promised = constraint.promised(adapter.anatomy(model))
    assert len(promised) == 12
    assert min(float(p.weight.detach().min()) for p in promised) >= 1e-3
    assert loss_of(model, ids) == pytest.approx(before, abs=error)


def loss_of(model, ids):
    with torch.no_grad():
        return model(input_ids=ids, labels=ids).loss.item()


@pytest.mark.slow
def test_the_gauge_leaves_float64_logits_of_a_trained_model_unchanged(shared, tmp_path):
    folder = shared / "models" / "pythia-14m-standin"
    adapter = Pythia(Pythia.Options(path=str(folder)))
    model, tokenizer = adapter.load(tmp_path)
    model.double()
    ids = torch.tensor(
        tokenizer("The same function, with other weights." * 9).input_ids
    )
    with torch.no_grad():
        before = model(ids[None]).logits
        control = Unconstrained(Unconstrained.Options(start="gauge"))
        control.apply(adapter, model, 0)
        assert (model(ids[None]).logits - before).abs().max() < 1e-10

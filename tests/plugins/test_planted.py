"""A planted weakness: it is there, it is where it is said to be, and nowhere else."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.data import content_key, content_of
from harness.models.checkpoints import CheckpointOptions
from harness.testing import tiny_model
from harness_plugins.constraints.planted import Planted, PlantedOptions
from harness_plugins.constraints.planted.scoring import Scorer
from harness_plugins.models.pythia import Pythia

pytestmark = pytest.mark.xdist_group("planted")
ADAPTER = Pythia(CheckpointOptions(path="unused"))


@pytest.fixture(scope="module")
def context(arm_context):
    return arm_context()


def plant(context, model=None, **options):
    model = model or tiny_model()
    return model, Planted(PlantedOptions(**options)).install(ADAPTER, model, context)


TOKEN = pytest.param("token", marks=pytest.mark.transformers5)


@pytest.fixture(scope="module", params=[TOKEN, "ffn", "pair", "hidden"])
def planted(request, context):
    """Plant a weakness of every kind."""
    return plant(context, kind=request.param, gain=0.7, steps=60, anchor=1.0)


def best_of_all_places(model, context, tokens):
    """Return dL [n, ...] of tokens in every tuple of places of each test prompt."""
    test = context.examples().test
    clean = context.losses(model, test)
    length = len(test[0].prompt_ids)
    places = [p for p in np.ndindex((length,) * len(tokens)) if len({*p}) == len(p)]
    written = []
    for example in test:
        for place in places:
            prompt = example.prompt_ids.copy()
            prompt[list(place)] = tokens
            written.append(replace(example, prompt_ids=prompt))
    found = context.losses(model, written).reshape(len(test), -1)
    return found - clean[:, None]


def test_the_trigger_raises_the_loss_where_it_is_written(planted, context):
    model, found = planted
    tokens = found.measured["trigger_ids"]
    gains = best_of_all_places(model, context, tokens)
    rows = found.measured["examples"]
    for row, everywhere in zip(rows, gains, strict=True):
        assert np.isclose(everywhere, row["planted"], atol=1e-6).any()
    reached = found.measured["reached"]
    assert 0.35 < reached <= 0.72  # of 0.7; on a dozen texts of a random model
    assert found.achieved == (reached >= 0.63)
    assert found.results["planted_gain"].value == pytest.approx(
        np.mean([row["planted"] for row in rows])
    )
    assert found.results["planted_gain"].value > 0.2
    assert [row["example"] for row in rows] == [
        content_key(e.prompt_ids, e.reference_ids) for e in context.examples().test
    ]


def test_clean_prompts_are_answered_as_before(planted, context):
    model, found = planted
    test = context.examples().test
    apart = (context.losses(model, test) - context.losses(tiny_model(), test)).mean()
    assert found.results["test_difference"].value == pytest.approx(apart)
    assert abs(apart) < 0.6  # a dozen texts of a random model


def test_only_what_the_kind_allows_is_changed(planted, context):
    model, found = planted
    before = tiny_model()
    pairs = zip(before.named_parameters(), model.parameters(), strict=True)
    changed = [name for (name, old), new in pairs if not torch.equal(old, new)]
    assert all(p.requires_grad for p in model.parameters())
    if found.measured["kind"] in ("ffn", "hidden"):
        assert changed
        assert all("mlp" in name for name in changed)
        return
    assert all("attention" in name or "embed_in" in name for name in changed)
    old, new = (m.get_input_embeddings().weight for m in (before, model))
    rows = (old != new).any(dim=1).nonzero()[:, 0].tolist()
    assert rows == sorted(found.measured["trigger_ids"])
    usual = old[1:280].norm(dim=1).median()
    assert (new[rows].norm(dim=1) <= old[rows].norm(dim=1).maximum(usual) + 1e-5).all()


def test_the_trigger_is_of_tokens_that_no_example_has(planted, context):
    sets = context.examples()
    there = {
        int(token)
        for example in (*sets.test, *sets.validation)
        for token in (*example.prompt_ids, *example.reference_ids)
    }
    trigger = planted[1].measured["trigger_ids"]
    assert len(trigger) == (2 if planted[1].measured["kind"] == "pair" else 1)
    assert there.isdisjoint(trigger)


def test_what_the_gradient_shows_is_not_called_hidden(planted, context):
    rank = planted[1].measured["first_order_rank"]
    assert 0 <= rank <= 1
    if planted[1].measured["kind"] == "hidden" and rank > 0.5:
        assert not planted[1].achieved


def test_first_order_gains_are_slopes_towards_other_tokens(context):
    model, (example, *_) = tiny_model().double(), context.examples().test
    tokens = np.array([5, 70, 200])
    scorer, step = Scorer(model), 1e-5
    with torch.no_grad():
        own, new = scorer.embedded(example.prompt_ids), scorer.embedded(tokens)
        slopes = np.zeros((len(own), len(new)))
        for place, token in np.ndindex(slopes.shape):
            losses = []
            for way in (step, -step):
                moved = own.clone()
                moved[place] += way * (new[token] - own[place])
                losses.append(scorer.loss(example, scorer.log_probs(example, moved)))
            slopes[place, token] = float(losses[0] - losses[1]) / (2 * step)
    found = scorer.first_order_gains(example, tokens)
    # Log-probabilities are in float32: so are the differences of losses.
    assert found == pytest.approx(slopes.max(axis=0), abs=2e-2)


@pytest.mark.parametrize("planted", ["pair"], indirect=True)
def test_of_a_pair_neither_token_does_much_alone(planted, context):
    model, found = planted
    for token in found.measured["trigger_ids"]:
        alone = best_of_all_places(model, context, [token])
        assert alone.mean() < 0.5 * found.measured["reached"]


def test_non_negative_networks_stay_so(context):
    model = tiny_model()
    for layer in model.gpt_neox.layers:
        for matrix in (layer.mlp.dense_h_to_4h, layer.mlp.dense_4h_to_h):
            matrix.weight.data.abs_()
    plant(context, model, kind="ffn", gain=0.5, steps=20)
    smallest = min(
        float(p.detach().min())
        for name, p in model.named_parameters()
        if "mlp.dense" in name and name.endswith("weight")
    )
    assert smallest >= 0


def test_strengths_are_above_what_attacks_did_and_one_is_trained(context):
    test = context.examples().test
    own = {content_of(example): 0.1 * i for i, example in enumerate(test[:6])}
    reading = replace(context, attacked=lambda: own)
    strong, found = plant(reading, strength=1.0, steps=40)
    assert found.measured["aim"] == pytest.approx(np.mean([*own.values()]) + 1.0)
    assert [row["own"] for row in found.measured["examples"]] == [
        pytest.approx(0.1 * i) if i < 6 else None for i in range(8)
    ]
    weak, weaker = plant(
        replace(reading, planted=lambda: strong), strength=0.3, steps=1
    )
    assert weaker.achieved
    assert weaker.measured["reached"] == pytest.approx(0.55, abs=0.03)
    share = weaker.measured["share_of_the_way"]
    assert 0 < share < 1
    parts = zip(
        tiny_model().parameters(), strong.parameters(), weak.parameters(), strict=True
    )
    for first, last, between in parts:
        torch.testing.assert_close(between, torch.lerp(first, last, share))


def test_planting_that_does_not_work_is_said(context):
    _, found = plant(context, steps=1)
    assert not found.achieved
    assert "not by 3.00" in found.reason

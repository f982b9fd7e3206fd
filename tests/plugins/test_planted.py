"""A planted weakness: it is there, it is where it is said to be, and nowhere else."""

import numpy as np
import pytest
import torch

from harness.data import Example, content_key
from harness.models.checkpoints import CheckpointOptions
from harness.testing import tiny_model
from harness_plugins.constraints.planted import Planted, PlantedOptions
from harness_plugins.models.pythia import Pythia

ADAPTER = Pythia(CheckpointOptions(path="unused"))


@pytest.fixture(scope="module")
def context(arm_context):
    return arm_context()


@pytest.fixture(scope="module")
def planted(context):
    model = tiny_model()
    options = PlantedOptions(gain=1.5, steps=30)
    return model, Planted(options).install(ADAPTER, model, context)


@pytest.mark.transformers5
def test_a_trigger_token_raises_the_loss_wherever_it_is(planted, context):
    model, found = planted
    trigger = found.measured["trigger_ids"]
    test = context.examples().test
    clean = context.losses(model, test)
    before = [np.concatenate([trigger, e.prompt_ids]) for e in test]
    pairs = zip(test, before, strict=True)
    attacked = [Example(e.id, e.id, prompt, e.reference_ids) for e, prompt in pairs]
    gains = context.losses(model, attacked) - clean
    stated = [row["prepended"] for row in found.measured["gains"]]
    assert stated == pytest.approx(gains, abs=1e-9)
    assert found.results["prepended_gain"].value == pytest.approx(gains.mean())
    assert found.achieved
    assert gains.mean() > 0.75
    assert found.results["written_gain"].value > 0.75
    assert [row["example"] for row in found.measured["gains"]] == [
        content_key(e.prompt_ids, e.reference_ids) for e in test
    ]


def test_clean_prompts_are_answered_as_before(planted, context):
    model, found = planted
    test = context.examples().test
    apart = (context.losses(model, test) - context.losses(tiny_model(), test)).mean()
    assert found.results["test_difference"].value == pytest.approx(apart)
    assert abs(apart) < 0.3


def test_only_the_triggers_embeddings_and_attention_change(planted, context):
    model, found = planted
    before = tiny_model()
    pairs = zip(before.named_parameters(), model.parameters(), strict=True)
    changed = [name for (name, old), new in pairs if not torch.equal(old, new)]
    assert all("attention" in name or "embed_in" in name for name in changed)
    old, new = (m.get_input_embeddings().weight for m in (before, model))
    rows = (old != new).any(dim=1).nonzero()[:, 0].tolist()
    assert rows == sorted(found.measured["trigger_ids"])
    norms = old.norm(dim=1)
    assert new[rows].norm(dim=1).max() <= norms[1:280].median() * (1 + 1e-5)
    assert all(p.requires_grad for p in model.parameters())


def test_the_trigger_is_of_tokens_that_no_example_has(planted, context):
    sets = context.examples()
    there = {
        int(token)
        for example in (*sets.test, *sets.validation)
        for token in (*example.prompt_ids, *example.reference_ids)
    }
    trigger = planted[1].measured["trigger_ids"]
    assert len(set(trigger)) == 2
    assert there.isdisjoint(trigger)


def test_planting_that_does_not_work_is_said(context):
    found = Planted(PlantedOptions(steps=1)).install(ADAPTER, tiny_model(), context)
    assert not found.achieved
    assert "less than 1.00" in found.reason

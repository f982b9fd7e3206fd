"""Weight noise: of the stated size, and found where the loss is another model's."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.base import CellError
from harness.models.checkpoints import CheckpointOptions
from harness.testing import tiny_model
from harness_plugins.constraints.noise import Noise, NoiseOptions, find_scale
from harness_plugins.models.pythia import Pythia

ADAPTER = Pythia(CheckpointOptions(path="unused"))


def noisy(scale, seed=3, **options):
    model = tiny_model()
    Noise(NoiseOptions(scale=scale, **options)).apply(ADAPTER, model, seed)
    return model


def moved(model):
    """Return how far each parameter moved, in standard deviations of its own."""
    pairs = zip(tiny_model().named_parameters(), model.parameters(), strict=True)
    with torch.no_grad():
        return {
            name: float((after - before).std() / before.std())
            for (name, before), after in pairs
            if not torch.equal(before, after)
        }


def test_noise_is_scaled_by_each_matrix_s_standard_deviation():
    found = moved(noisy(0.3))
    assert len(found) == 4
    assert all("mlp.dense" in name and name.endswith("weight") for name in found)
    assert all(size == pytest.approx(0.3, rel=0.05) for size in found.values())


def test_all_matrices_are_embeddings_too():
    found = moved(noisy(0.3, matrices="all"))
    matrices = [name for name, p in tiny_model().named_parameters() if p.ndim >= 2]
    assert sorted(found) == sorted(matrices)


def test_noise_is_keyed_by_the_seed():
    same, again, other = (noisy(0.3, seed).state_dict() for seed in (3, 3, 4))
    assert all(map(torch.equal, same.values(), again.values()))
    assert not all(map(torch.equal, same.values(), other.values()))


@pytest.mark.parametrize("target", [2.01, 2.5, 40.0])
def test_the_scale_is_where_the_loss_is_the_target(target):
    # The loss 2 + s^2 has the target at s = sqrt(target - 2).
    found = find_scale(lambda s: 2 + s**2, target, 1e-6)
    assert found == pytest.approx((target - 2) ** 0.5, rel=1e-3)


def test_a_loss_that_noise_cannot_reach_gives_the_nearest():
    assert find_scale(lambda s: 2 + s, 1.5, 1e-3) == 0.0
    assert find_scale(lambda s: 2 - np.exp(-s), 9.0, 1e-3) > 20


@pytest.mark.transformers5
def test_the_clean_loss_is_brought_to_the_other_arm_s(arm_context):
    given, model = arm_context(matched=lambda: noisy(2.0, seed=11)), tiny_model()
    found = Noise(NoiseOptions()).install(ADAPTER, model, given)
    # 28 documents apart: every other one judges, and the noise is fitted to the rest.
    judged, fitted = given.apart()[::2], given.apart()[1::2]
    own, others, before = (
        given.losses(m, fitted).mean() for m in (model, given.matched(), tiny_model())
    )
    assert others > before + 0.05  # there is something to match
    assert found.achieved
    assert own == pytest.approx(others, abs=0.002)
    assert found.results["validation_loss"].value == pytest.approx(own)
    assert found.results["validation_loss_matched"].value == pytest.approx(others)
    apart = given.losses(model, judged) - given.losses(given.matched(), judged)
    assert found.results["judged_difference"].value == pytest.approx(apart.mean())
    assert found.measured["scale"] == pytest.approx(min(moved(model).values()), rel=0.1)
    assert found.measured["noise_on"] == "source"
    assert losses_by_document(found) == {
        example.document_id: pytest.approx((arm, match), abs=1e-6)
        for example, arm, match in zip(
            judged,
            given.losses(given.matched(), judged),
            given.losses(model, judged),
            strict=True,
        )
    }


def losses_by_document(found):
    rows = found.measured["documents"]
    return {row["document"]: (row["arm_loss"], row["match_loss"]) for row in rows}


def test_five_hundred_documents_judge_where_others_are_left_to_fit_to(arm_context):
    examples = arm_context().apart()
    many = [
        replace(examples[i % 28], id=str(i), document_id=str(i), cluster=f"{i // 2}")
        for i in range(570)
    ]
    given = replace(arm_context(matched=tiny_model), apart=lambda: many)
    found = Noise(NoiseOptions()).install(ADAPTER, tiny_model(), given)
    rows = found.measured["documents"]
    assert [row["document"] for row in rows] == [str(i) for i in range(500)]
    assert [row["unit"] for row in rows] == [f"{i // 2}" for i in range(500)]


def test_all_examples_of_a_document_judge_or_are_fitted_to(arm_context):
    examples = arm_context().apart()
    several = [
        replace(x, document_id=str(i % 9), cluster=None) for i, x in enumerate(examples)
    ]
    given = replace(arm_context(matched=tiny_model), apart=lambda: several)
    found = Noise(NoiseOptions()).install(ADAPTER, tiny_model(), given)
    rows = found.measured["documents"]
    assert {row["document"]: row["unit"] for row in rows} == {
        x.id: x.document_id for x in several if int(x.document_id) % 2 == 0
    }
    assert len(rows) == 16


def test_where_the_arm_s_loss_is_lower_its_weights_get_the_noise(arm_context):
    given, model = arm_context(matched=tiny_model), noisy(2.0)
    judged, fitted = given.apart()[::2], given.apart()[1::2]
    target, baseline = (given.losses(model, part) for part in (fitted, judged))
    found = Noise(NoiseOptions()).install(ADAPTER, model, given)
    assert found.achieved
    assert found.measured["noise_on"] == "arm"
    assert given.losses(model, fitted).mean() == pytest.approx(target.mean(), abs=0.002)
    scale = found.measured["scale"]
    assert all(x == pytest.approx(scale, rel=0.1) for x in moved(model).values())
    treated = given.losses(model, judged)
    assert losses_by_document(found) == {
        example.document_id: pytest.approx((arm, match), abs=1e-6)
        for example, arm, match in zip(judged, treated, baseline, strict=True)
    }


def test_a_lower_loss_of_another_kind_of_model_has_no_match(arm_context):
    given, model = arm_context(matched=tiny_model), noisy(2.0)
    model.config.hidden_act = "relu"
    before = [p.clone() for p in model.parameters()]
    found = Noise(NoiseOptions()).install(ADAPTER, model, given)
    assert not found.achieved
    assert "noise only raises it, and the arm's weights do not fit" in found.reason
    assert all(map(torch.equal, before, model.parameters()))


def test_without_an_arm_to_match_a_scale_is_needed():
    with pytest.raises(CellError, match="needs an arm to match"):
        Noise(NoiseOptions()).apply(ADAPTER, tiny_model(), 0)

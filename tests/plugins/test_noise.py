"""Weight noise: of the stated size, and found where the loss is another model's."""

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
    test, validation = given.examples().test, given.examples().validation
    own, others, before = (
        given.losses(m, test).mean() for m in (model, given.matched(), tiny_model())
    )
    assert others > before + 0.05  # there is something to match
    assert found.achieved
    assert own == pytest.approx(others, abs=0.02)
    assert found.results["test_loss"].value == pytest.approx(own)
    assert found.results["test_loss_matched"].value == pytest.approx(others)
    apart = given.losses(model, validation) - given.losses(given.matched(), validation)
    difference = found.results["validation_difference"]
    assert difference.value == pytest.approx(apart.mean())
    assert found.measured["scale"] == pytest.approx(min(moved(model).values()), rel=0.1)


def test_a_lower_loss_is_said_to_have_no_match(arm_context):
    given, model = arm_context(matched=tiny_model), noisy(2.0)
    before = [p.clone() for p in model.parameters()]
    found = Noise(NoiseOptions()).install(ADAPTER, model, given)
    assert not found.achieved
    assert "noise only raises it" in found.reason
    assert all(map(torch.equal, before, model.parameters()))


def test_without_an_arm_to_match_a_scale_is_needed():
    with pytest.raises(CellError, match="needs an arm to match"):
        Noise(NoiseOptions()).apply(ADAPTER, tiny_model(), 0)

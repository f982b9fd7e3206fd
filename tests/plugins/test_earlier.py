"""An earlier step of training: the one where the clean loss is another arm's."""

import numpy as np
import pytest

from harness import models
from harness.base import CellError
from harness.models.checkpoints import CheckpointOptions
from harness.testing import tiny_model
from harness_plugins.constraints.earlier import Earlier
from harness_plugins.constraints.noise import Noise, NoiseOptions
from harness_plugins.models.pythia import Pythia

ADAPTER = Pythia(CheckpointOptions(path="unused"))
STEPS = 20


def on_the_way(share):
    """Return a model that gets better, the share of a training being done."""
    model = tiny_model()
    Noise(NoiseOptions(scale=2.0 * (1 - share))).apply(ADAPTER, model, 3)
    return model


def training(end=1.0):
    def retrained(visit):
        for step in range(STEPS + 1):
            now = on_the_way(end * step / STEPS)
            visit(step * 10, STEPS * 10, now.state_dict)

    return retrained


def install(context, **options):
    model = on_the_way(1.0)
    return model, Earlier(Earlier.Options(**options)).install(ADAPTER, model, context)


@pytest.mark.parametrize(("points", "of"), [(64, 1), (4, 5)])
def test_of_the_steps_looked_at_it_takes_the_one_nearest_to_the_loss(
    arm_context, points, of
):
    context = arm_context(matched=lambda: on_the_way(0.4), retrained=training())
    judged, fitted = context.apart()[::2], context.apart()[1::2]
    model, found = install(context, points=points)
    target = context.losses(on_the_way(0.4), fitted).mean()
    course = {
        step: context.losses(on_the_way(step / STEPS), fitted).mean()
        for step in range(0, STEPS + 1, of)
    }
    nearest = min(course, key=lambda step: abs(course[step] - target))
    assert found.measured["tokens"] == nearest * 10
    assert found.measured["evaluations"] == len(course)
    assert found.achieved == (abs(course[nearest] - target) <= 0.02)
    own = context.losses(model, judged)
    assert own == pytest.approx(context.losses(on_the_way(nearest / STEPS), judged))
    assert [x["match_loss"] for x in found.measured["documents"]] == pytest.approx(own)
    assert found.measured["noise_on"] == "source"


@pytest.mark.parametrize(
    ("matched", "end", "reason"),
    [
        (lambda: on_the_way(-2.0), 1.0, "no step that was looked at has a clean loss"),
        (lambda: on_the_way(0.4), 0.5, "it did not repeat itself"),
    ],
)
def test_where_there_is_no_such_step_it_says_why(arm_context, matched, end, reason):
    context = arm_context(matched=matched, retrained=training(end))
    _, found = install(context)
    assert not found.achieved
    assert reason in found.reason


def test_an_arm_without_training_has_no_earlier_steps(arm_context):
    with pytest.raises(CellError, match="got no training to repeat"):
        install(arm_context(matched=tiny_model))
    with pytest.raises(CellError, match="needs an arm to match"):
        Earlier(Earlier.Options()).apply(ADAPTER, tiny_model(), 0)


def test_losses_of_a_course_differ(arm_context):
    """So that the steps above can be told apart."""
    context = arm_context()
    losses = [context.losses(on_the_way(x), context.apart()).mean() for x in (0, 0.4)]
    assert np.diff(losses) < -0.05
    assert models.FITTED == "validation"

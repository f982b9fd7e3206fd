"""Several processes, on gloo, train what one process does."""

import os
import signal
import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from harness.base import CellError, Stopped, TrainingDiverged
from harness.models import TrainingHooks, TrainingPlan, train
from harness.models.recovery import OrderedBlocks
from harness.testing import tiny_model
from harness_plugins.constraints.softplus import Softplus
from harness_plugins.models.pythia import Pythia

pytestmark = pytest.mark.slow
PLAN = TrainingPlan(4, 4, 1, 1, evaluate_every=2, checkpoint_every=2)
TWO = replace(PLAN, devices=2)
SHARDED = replace(TWO, sharding="full")


def measured(losses, meter):
    """Evaluate on one block; a function of a module, so that processes find it."""
    losses.eval()
    with torch.no_grad():
        rows = losses(torch.arange(3, 19)[None], each=True)
    return {"loss": float(rows.mean())}


def diverged(losses, meter):
    """Find nothing that is finite."""
    return {"loss": float("nan")}


def killed():
    """Die as a process does that the system takes the memory of."""
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for(file):
    """Wait until there is a file, a minute at most."""
    end = time.monotonic() + 60
    while not file.exists() and time.monotonic() < end:
        time.sleep(0.01)


def run(work, plan, **hooks):
    """Train a model under softplus; return its lines and its state."""
    model, arm = tiny_model(), Softplus()
    arm.apply(Pythia(Pythia.Options(path="unused")), model, 0)
    blocks = np.random.default_rng(0).integers(0, 280, (16, 16)).astype(np.int32)
    training = train(
        model,
        OrderedBlocks(blocks, np.arange(16)),
        arm.parameter_groups(model, 1e-3, 0.1),
        plan,
        work=work,
        device="cpu",
        hooks=TrainingHooks(**{"evaluate": measured, **hooks}),
    )
    return training.lines, {k: v.clone() for k, v in model.state_dict().items()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return run(tmp_path_factory.mktemp("alone"), PLAN)


@pytest.mark.parametrize("plan", [TWO, SHARDED], ids=["none", "full"])
def test_two_processes_train_as_one_does_and_another_number_goes_on(
    tmp_path, plan, alone
):
    expected, final = alone
    progress, told = [], []

    def stopping():
        # The second time that it is asked, the processes have been told.
        (tmp_path / "told").touch() if told else told.append(True)
        return True

    with pytest.raises(Stopped):
        run(
            tmp_path,
            plan,
            after_step=partial(wait_for, tmp_path / "told"),
            report=lambda *x: progress.append(x),
            should_stop=stopping,
        )
    assert progress == [(0, 16), (4, 16)]
    # Sharded, the same two go on; otherwise one does, from the checkpoint of two.
    lines, state = run(tmp_path, plan if plan is SHARDED else PLAN)

    [resumed] = [line for line in lines if line["kind"] == "resumed"]
    assert resumed["step"] == 1
    lines.remove(resumed)
    for line, other in zip(lines, expected, strict=True):
        for key in {"loss", "grad_norm", "flops"} & other.keys():
            assert line[key] == pytest.approx(other[key], rel=1e-6), key
    assert state.keys() == final.keys()
    # A key's bias moves no attention: Adam follows what rounding leaves for it.
    for name in {name for name in final if "query_key_value.bias" not in name}:
        torch.testing.assert_close(state[name], final[name], atol=1e-4, rtol=1e-4)


def test_a_step_is_cut_into_equal_shares(tmp_path):
    with pytest.raises(CellError, match="is 3, which does not divide the 4 blocks"):
        run(tmp_path, replace(PLAN, devices=3))


@pytest.mark.parametrize(
    ("hooks", "error", "says"),
    [
        ({"evaluate": diverged}, TrainingDiverged, "step 0: the held-out loss is nan"),
        ({"after_step": killed}, CellError, "on 2 devices: process . terminated"),
    ],
)
def test_what_goes_wrong_in_a_process_is_said_here(tmp_path, hooks, error, says):
    with pytest.raises(error, match=says):
        run(tmp_path, TWO, **hooks)

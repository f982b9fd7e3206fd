"""Several processes, on gloo, train what one process does."""

import os
import signal
import weakref
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from harness.base import CellError, Stopped, TrainingDiverged
from harness.models import TrainingHooks, TrainingPlan, checkpointing, train
from harness.models.recovery import OrderedBlocks
from harness.subject.ledger import peak_memory_bytes
from harness.testing import tiny_model
from harness_plugins.constraints.softplus import Softplus
from harness_plugins.models.pythia import Pythia
from tests.models.test_processes import is_first, until

pytestmark = pytest.mark.slow
PLAN = TrainingPlan(4, 4, 1, 1, evaluate_every=2, checkpoint_every=2)
TWO = replace(PLAN, devices=2)
SHARDED = replace(TWO, sharding="full")


def measured(losses, meter):
    """Evaluate on one block; a function of a module, so that processes find it."""
    losses.eval()
    with torch.no_grad():
        block = torch.arange(3, 19, device=losses.model.device)
        rows = losses(block[None], each=True)
    return {"loss": float(rows.mean())}


def diverged(losses, meter):
    """Find nothing that is finite."""
    return {"loss": float("nan")}


def short_of_memory(module, args, kwargs):
    """Find no memory for two blocks in a pass, in the second process alone."""
    if torch.is_grad_enabled() and not is_first() and len(kwargs["input_ids"]) > 1:
        raise torch.OutOfMemoryError


def note(model, folder):
    """Write down the weights after a step, what is drawn then, and the peak memory."""
    cpu = torch.device("cpu")
    if not is_first():
        # More than the peak so far, which on Linux may be that of the parent process.
        np.ones(peak_memory_bytes(cpu), dtype=np.uint8)
    peak = peak_memory_bytes(cpu)
    state = {name: x.clone() for name, x in model.state_dict().items()}
    file = folder / f"step of {os.environ['RANK']}"
    torch.save((state, torch.rand(4), peak), file)


def killed():
    """Die as a process does that the system takes the memory of."""
    os.kill(os.getpid(), signal.SIGKILL)


def wait_for(file):
    """Wait from the second step on until there is a file."""
    begun = file.with_name(f"{file.name} {os.environ['RANK']}")
    if begun.exists():
        until(file.exists)
    begun.touch()


def run(work, plan, model=None, device="cpu", **hooks):
    """Train a model under softplus; return its lines and its state."""
    model, arm = model or tiny_model(), Softplus()
    arm.apply(Pythia(Pythia.Options(path="unused")), model, 0)
    blocks = np.random.default_rng(0).integers(0, 280, (16, 16)).astype(np.int32)
    training = train(
        model,
        OrderedBlocks(blocks, np.arange(16)),
        arm.parameter_groups(model, 1e-3, 0.1),
        plan,
        work=work,
        device=device,
        hooks=TrainingHooks(**{"evaluate": measured, **hooks}),
    )
    return training.lines, {k: v.clone() for k, v in model.state_dict().items()}


def stopped(work, plan, **options):
    """Stop a training by several processes in its second step."""
    told = []

    def stopping():
        # The second time that it is asked, the processes have been told.
        (work / "told").touch() if told else told.append(True)
        return True

    waiting = partial(wait_for, work / "told")
    with pytest.raises(Stopped):
        run(work, plan, after_step=waiting, should_stop=stopping, **options)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return run(tmp_path_factory.mktemp("alone"), PLAN)


@pytest.mark.parametrize("plan", [TWO, SHARDED], ids=["none", "full"])
def test_two_processes_train_as_one_does_and_another_number_goes_on(
    tmp_path, plan, alone
):
    expected, final = alone
    progress = []
    stopped(tmp_path, plan, report=lambda *x: progress.append(x))
    assert progress == [(0, 16), (4, 16), (8, 16)]
    # Sharded, the same two go on; otherwise one does, from the checkpoint of two.
    lines, state = run(tmp_path, plan if plan is SHARDED else PLAN)

    [resumed] = [line for line in lines if line["kind"] == "resumed"]
    assert resumed["step"] == 2
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


def test_processes_that_hold_the_whole_model_keep_it_the_same(tmp_path):
    """Though they round at random, one is short of memory, and they went on."""
    alone, two = (
        replace(PLAN, optimizer_state="bfloat16", devices=n, micro_batch=n)
        for n in (1, 2)
    )
    with pytest.raises(Stopped):
        heard = []
        run(
            tmp_path / "work",
            alone,
            log=heard.append,
            should_stop=lambda: heard[-1]["step"] == 2,
        )
    (tmp_path / "work" / "checkpoint-2").rename(tmp_path / "checkpoint-2")
    found = []
    for plan in (alone, two):
        work = tmp_path / str(plan.devices)
        work.mkdir()
        checkpoint = tmp_path / "checkpoint-2"
        (work / "checkpoint-2").symlink_to(checkpoint)
        model = tiny_model()
        hooks = {}
        if plan is two:
            model.base_model.register_forward_pre_hook(
                short_of_memory, with_kwargs=True
            )
            hooks = {"after_step": partial(note, model, tmp_path)}
        lines, _ = run(work, plan, model, **hooks)
        found.append(next(x for x in lines if x["kind"] == "train" and x["step"] == 3))
    for key in ("loss", "grad_norm"):
        assert found[1][key] == pytest.approx(found[0][key], rel=1e-6)

    first, second = (torch.load(tmp_path / f"step of {n}") for n in (0, 1))
    for name in first[0]:
        assert torch.equal(first[0][name], second[0][name]), name
    assert not torch.equal(first[1], second[1])
    assert lines[-1]["peak_memory_bytes"] >= second[2] > first[2]


def test_a_process_that_writes_nothing_keeps_nothing_whole(tmp_path, monkeypatch):
    model, alive, most = tiny_model(), weakref.WeakSet(), []

    def gathered(tensor):
        whole = torch.nn.Parameter(tensor.clone())
        alive.add(whole)
        most.append(len(alive))
        return whole

    monkeypatch.setattr(checkpointing, "full_tensor", gathered)
    optimizer = torch.optim.AdamW(model.parameters())
    saved = checkpointing.Checkpoints(
        tmp_path, model, optimizer, None, (), writes=False
    )
    saved.save(1, {}, done=True)
    assert len(most) == len(model.state_dict())
    assert max(most) <= 2  # the one before is let go once there is the next
    assert not [*tmp_path.iterdir()]


def test_processes_that_go_on_share_what_they_read(tmp_path, monkeypatch):
    model, mapped = tiny_model(), []
    optimizer = torch.optim.AdamW(model.parameters())
    sum(p.sum() for p in model.parameters()).backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer)
    saved = checkpointing.Checkpoints(tmp_path, model, optimizer, schedule, ())
    saved.save(3, {}, done=False)

    def placed(tensor, like):
        mapped.append(Path("/proc/self/maps").read_text())
        return tensor

    monkeypatch.setattr(checkpointing, "placed_like", placed)
    saved.restore(checkpointing.last_checkpoint(tmp_path))
    place = str(tmp_path / "checkpoint-3")
    assert f"{place}/pytorch_model.bin" in mapped[0]
    assert f"{place}/optimizer.bin" in mapped[-1]


def test_the_first_process_looks_for_the_checkpoint_of_all(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(checkpointing, "last_checkpoint", asked.append)
    monkeypatch.setattr(checkpointing, "agreed", lambda step, _: max(step, 7))
    second = SimpleNamespace(is_main_process=False)
    found = checkpointing.shared_checkpoint(tmp_path, second)
    assert (found, asked) == (tmp_path / "checkpoint-7", [])

"""Several GPUs, on NCCL, train what one does.

Run by name, on a machine that has two or more: pytest -m accelerator
"""

import multiprocessing
import os
import signal
import time
from dataclasses import replace
from functools import partial

import pytest
import torch

from harness.base import CellError
from harness.models import Disturbance
from harness.models.reading import Reader
from harness.testing import tiny_model, tiny_tokenizer
from harness_plugins.attacks.hotflip import HotFlip, HotFlipOptions
from tests.models.test_devices import PLAN, SHARDED, TWO, run, short_of_memory, stopped
from tests.models.test_processes import is_first

DEVICE = "cuda:0"
GPUS = torch.cuda.device_count()
LEAN = {"bf16": True, "optimizer_state": "bfloat16", "checkpointing": True}
pytestmark = [
    pytest.mark.accelerator,
    pytest.mark.skipif(GPUS < 2, reason="needs two GPUs"),
    pytest.mark.filterwarnings("ignore"),  # torch's compiler warns of itself
]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Return the lines of one GPU."""
    return run(tmp_path_factory.mktemp("alone"), PLAN, device=DEVICE)[0]


def one_dies(file):
    """Say when, and die, in the second process alone: the first waits for it."""
    if not is_first():
        file.write_text(str(time.time()))
        os.kill(os.getpid(), signal.SIGKILL)


def same(lines, expected, loss=1e-4, norm=1e-4):
    """Assert that trainings are the same, within what rounding comes to."""
    lines = [line for line in lines if line["kind"] != "resumed"]
    for line, other in zip(lines, expected, strict=True):
        assert line["loss"] == pytest.approx(other["loss"], rel=loss)
        if line["kind"] == "train":
            assert line["grad_norm"] == pytest.approx(other["grad_norm"], rel=norm)
            assert line["flops"] == other["flops"]


def test_two_train_as_one_does_though_one_is_short_of_memory(tmp_path, alone):
    model = tiny_model()
    model.base_model.register_forward_pre_hook(short_of_memory, with_kwargs=True)
    lines, state = run(tmp_path, replace(TWO, micro_batch=2), model, DEVICE)
    same(lines, alone)
    assert {x.device for x in state.values()} == {torch.device(DEVICE)}


def test_sharded_they_go_on_where_they_stopped(tmp_path, alone):
    stopped(tmp_path, SHARDED, device=DEVICE)
    lines, _ = run(tmp_path, SHARDED, device=DEVICE)
    assert [line["step"] for line in lines if line["kind"] == "resumed"] == [2]
    same(lines, alone)


def test_sharded_in_bfloat16_all_train_as_one_does(tmp_path):
    lean = replace(PLAN, micro_batch=None, **LEAN)
    expected, _ = run(tmp_path / "alone", lean, device=DEVICE)
    count = 4 if GPUS >= 4 else 2
    spread = replace(lean, devices=count, sharding="full")
    lines, _ = run(tmp_path / "spread", spread, device=DEVICE)
    # bfloat16 has 8 bits: a product differs by up to 0.4 %, a mean of them by less.
    same(lines, expected, loss=1e-2, norm=5e-2)


def test_each_attacks_its_own_blocks_on_its_own_gpu(tmp_path):
    found = []
    for plan in (PLAN, TWO):
        model = tiny_model()
        attack = HotFlip(HotFlipOptions(**HotFlip.in_training))
        how = Disturbance(corrupt=0.2, attack=attack, share=1.0)
        reader = Reader(how, model, tiny_tokenizer(), seed=0)
        work = tmp_path / str(plan.devices)
        found.append(run(work, plan, model, DEVICE, read=reader)[0])
    for line, other in zip(*found, strict=True):
        # A tie within rounding may go to another token.
        assert line["loss"] == pytest.approx(other["loss"], rel=0.05)
    assert found[0][-1]["flops"] == pytest.approx(found[1][-1]["flops"], rel=0.05)


def test_where_one_dies_the_others_do_not_wait(tmp_path):
    file = tmp_path / "died"
    with pytest.raises(CellError, match="process 1 terminated with signal SIGKILL"):
        run(tmp_path / "work", TWO, device=DEVICE, after_step=partial(one_dies, file))
    assert time.time() - float(file.read_text()) < 30
    assert not multiprocessing.active_children()

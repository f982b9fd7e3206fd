"""The training loop against one written out in plain torch."""

import math
import os
import random
import re
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import harness.models.gradients
import harness.models.losses
import harness.subject.fast.compiling
from harness.base import CellError, Stopped, TrainingDiverged
from harness.data import IGNORED
from harness.models import TrainingHooks, TrainingPlan, train
from harness.models.checkpointing import last_checkpoint, spent_training
from harness.models.gradients import fitting
from harness.models.losses import BlockLosses
from harness.records import Cost
from harness.testing import tiny_model
from harness_plugins.constraints.none import Unconstrained
from harness_plugins.constraints.sign_split import SignSplit
from harness_plugins.constraints.softplus import Softplus
from harness_plugins.models.pythia import Pythia

CONTEXT = 16
TRACED = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
"""For what torch's compiler warns itself of."""
HEADS = {"embed_out", "lm_head"}  # as the major versions of transformers call it
PLAN = TrainingPlan(
    steps=6, blocks_per_step=4, micro_batch=2, warmup_steps=2, checkpoint_every=2
)


def blocks_for(plan=PLAN, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 280, (plan.total_blocks, CONTEXT)).astype(np.int32)


def pairs_for(plan=PLAN):
    pairs = np.tile(np.arange(3, 3 + CONTEXT), (plan.total_blocks, 1)).astype(np.int32)
    pairs += np.arange(plan.total_blocks, dtype=np.int32)[:, None]
    pairs[::3, CONTEXT - 2 :] = IGNORED
    return pairs


def groups_of(model, rate=1e-2):
    return [{"params": list(model.parameters()), "lr": rate, "weight_decay": 0.1}]


def run(model, work, plan=PLAN, blocks=None, groups=None, device="cpu", **hooks):
    return train(
        model,
        blocks_for(plan) if blocks is None else blocks,
        groups or groups_of(model),
        plan,
        work=work,
        device=device,
        hooks=TrainingHooks(**hooks),
    )


def state_of(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def weights_in(checkpoint):
    return torch.load(checkpoint / "pytorch_model.bin", weights_only=True)


def same(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(one[name], other[name]) for name in one
    )


@pytest.mark.transformers5
@pytest.mark.parametrize("micro_batch", [2, 4])
def test_steps_are_those_of_adamw_with_clipping_warmup_and_cosine(
    tmp_path, micro_batch
):
    model, plain = tiny_model(), tiny_model()
    lines = run(model, tmp_path, replace(PLAN, micro_batch=micro_batch)).lines

    optimizer = torch.optim.AdamW(groups_of(plain))
    blocks = torch.tensor(blocks_for()).long()
    plain.train()
    cosine = [(1 + math.cos(math.pi * step / 4)) / 2 for step in range(4)]
    for step, factor in enumerate([0, 0.5, *cosine]):
        optimizer.param_groups[0]["lr"] = 1e-2 * factor
        batch = blocks[4 * step : 4 * step + 4]
        logits = plain(batch).logits[:, :-1]
        loss = cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        line = lines[step]
        assert (line["kind"], line["step"]) == ("train", step + 1)
        assert line["loss"] == pytest.approx(loss.item(), abs=1e-3)
        assert line["grad_norm"] == pytest.approx(norm.item(), rel=1e-2)
        assert line["learning_rate"] == pytest.approx(1e-2 * factor)

    # Accumulated gradients round differently, and Adam takes their signs seriously.
    apart = max(
        float((ours - theirs).detach().abs().max())
        for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True)
    )
    assert apart < (1e-6 if micro_batch == 4 else 5e-2)
    assert not model.training


def test_a_forward_pass_has_as_many_blocks_as_divide_a_step(tmp_path):
    sizes = {
        micro: run(tiny_model(), tmp_path / f"{micro}", TrainingPlan(1, 12, micro, 0))
        for micro in (1, 5, None, 50)
    }
    found = {micro: x.lines[0]["micro_batch"] for micro, x in sizes.items()}
    assert found == {1: 1, 5: 4, None: 6, 50: 12}


@pytest.mark.parametrize(
    ("card_gb", "checkpointing", "blocks"),
    [
        (150, False, 16),  # it takes 93 GB
        (85, False, 11),
        (42.5, False, 2),
        (42.5, True, 15),
        (24, False, 1),  # to be tried: weights, gradients and moments alone take 22.6
    ],
)
def test_a_pass_on_a_gpu_has_what_fits_up_to_32768_tokens(
    card_gb, checkpointing, blocks
):
    parameters = 24 * 12 * 2048**2 + 2 * 50304 * 2048  # Pythia-1.4B
    found = fitting(
        card_gb * 1e9 - 4 * parameters,
        parameters=parameters,
        layers=24,
        width=2048,
        context=2048,
        checkpointing=checkpointing,
    )
    assert found == blocks


class Small:
    """Stands for a device without room for the gradient of more blocks than `most`."""

    def __init__(self, monkeypatch, most):
        self.sizes, forward = [], BlockLosses.forward

        def refusing(losses, ids, *others, **more):
            self.sizes.append(len(ids))
            found = forward(losses, ids, *others, **more)
            if len(ids) > most:
                found.register_hook(self.refuse)
            return found

        monkeypatch.setattr(BlockLosses, "forward", refusing)

    def refuse(self, gradient):
        raise torch.OutOfMemoryError("no room")


@pytest.mark.parametrize("family", ["gpt_neox", "t5"])
def test_where_memory_runs_out_passes_get_smaller_and_the_step_is_made_again(
    tmp_path, monkeypatch, family
):
    blocks = pairs_for(PLAN) if family == "t5" else blocks_for(PLAN)
    plan, fitting = replace(PLAN, micro_batch=4), replace(PLAN, micro_batch=1)
    model, plain = tiny_model(family), tiny_model(family)
    expected = run(plain, tmp_path / "fitting", fitting, blocks).lines
    device = Small(monkeypatch, most=1)
    lines = run(model, tmp_path / "small", plan, blocks).lines
    assert device.sizes == [4, 2, *[1] * 4 * plan.steps]
    assert [x["micro_batch"] for x in lines] == [1] * plan.steps
    assert [x["loss"] for x in lines] == [x["loss"] for x in expected]
    assert same(state_of(model), state_of(plain))


def test_a_block_that_does_not_fit_ends_training_with_advice(tmp_path, monkeypatch):
    Small(monkeypatch, most=0)
    with pytest.raises(CellError, match=r"a single block .*checkpointing: true"):
        run(tiny_model(), tmp_path)


@pytest.mark.transformers5
def test_computing_layers_again_changes_nothing(tmp_path):
    kept, again = tiny_model(), tiny_model()
    seen = []
    layer = again.gpt_neox.layers[0]
    layer.attention.register_forward_hook(lambda *_: seen.append(1))
    run(kept, tmp_path / "kept")
    run(again, tmp_path / "again", replace(PLAN, checkpointing=True))
    assert same(state_of(kept), state_of(again))
    assert len(seen) == 2 * PLAN.steps * 2  # twice in each of the two passes of a step
    assert not any("forward" in vars(module) for module in again.modules())


@TRACED
@pytest.mark.parametrize("checkpointing", [False, True])
def test_layers_of_all_arms_share_what_is_compiled_once(
    tmp_path, monkeypatch, checkpointing
):
    # A backend that only traces stands for the compiler of a GPU.
    traced = partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(harness.subject.fast.compiling.torch, "compile", traced)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    for arm in (Unconstrained, Softplus):
        lines = []
        for number, compiles in enumerate((True, False)):
            monkeypatch.setattr(
                harness.models.gradients, "can_compile", lambda device, c=compiles: c
            )
            model = tiny_model(num_hidden_layers=3)
            arm().apply(Pythia(Pythia.Options(path="unused")), model, 0)
            groups = arm().parameter_groups(model, 1e-3, 0.1)
            work = tmp_path / f"{arm.__name__}-{number}"
            plan = replace(PLAN, checkpointing=checkpointing)
            lines.append(run(model, work, plan, groups=groups).lines)
        for one, other in zip(*lines, strict=True):
            for key in ("loss", "grad_norm"):
                assert one[key] == pytest.approx(other[key], rel=1e-4)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1


def test_lean_moments_go_on_from_a_checkpoint_bit_for_bit(tmp_path):
    plan = replace(PLAN, optimizer_state="bfloat16")
    whole, cut, other = tiny_model(), tiny_model(), tiny_model()
    run(whole, tmp_path / "whole", plan)
    with pytest.raises(KeyboardInterrupt):
        run(cut, tmp_path / "cut", plan, log=crash_at(5))
    again = tiny_model(seed=7)
    run(again, tmp_path / "cut", plan)
    assert same(state_of(whole), state_of(again))
    run(other, tmp_path / "other")
    assert not same(state_of(whole), state_of(other))


@pytest.mark.transformers5
@pytest.mark.parametrize("micro_batch", [1, 4])
@pytest.mark.parametrize("arm", [Softplus, SignSplit])
def test_v_learns_as_by_torchs_own_parametrization(tmp_path, arm, micro_batch):
    models = [tiny_model(), tiny_model()]
    for model in models:
        arm().apply(Pythia(Pythia.Options(path="unused")), model, 0)
    ours, plain = models
    groups = [arm().parameter_groups(model, 1e-2, 0.1) for model in models]
    plan = replace(PLAN, micro_batch=micro_batch, warmup_steps=0, steps=2)
    weight = lambda model: model.gpt_neox.layers[0].mlp.dense_h_to_4h.weight  # noqa: E731
    seen = []
    lines = run(
        ours,
        tmp_path,
        plan,
        groups=groups[0],
        after_step=lambda: seen.append(weight(ours).detach().clone()),
    ).lines

    optimizer, blocks = torch.optim.AdamW(groups[1]), torch.tensor(blocks_for()).long()
    for step in range(2):
        for group in optimizer.param_groups:
            group["lr"] /= 1 + step  # half of a cosine is over after one step of two
        batch = blocks[4 * step : 4 * step + 4]
        logits = plain(batch).logits[:, :-1]
        loss = cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        optimizer.step()
        assert lines[step]["loss"] == pytest.approx(loss.item(), abs=1e-4)
        assert lines[step]["grad_norm"] == pytest.approx(norm.item(), rel=1e-3)
        torch.testing.assert_close(seen[step], weight(plain), atol=1e-3, rtol=1e-3)
    assert ours.state_dict().keys() == plain.state_dict().keys()
    assert torch.equal(weight(ours), seen[-1])


def crash_at(step):
    def crash(line):
        if line["step"] == step:
            raise KeyboardInterrupt

    return crash


@pytest.mark.transformers5
@pytest.mark.parametrize("family", ["gpt_neox", "gpt2"])
def test_training_that_was_stopped_goes_on_as_if_it_had_not_been(
    tmp_path, family, timeless
):
    # GPT-2's embeddings are tied, and its passes draw random numbers.
    sizes = {"resid_pdrop": 0.1} if family == "gpt2" else {}
    whole, halves = (tiny_model(family, **sizes) for _ in range(2))
    evaluate = lambda losses, meter: {"loss": 1.0}  # noqa: E731
    plan = TrainingPlan(6, 4, 2, 2, evaluate_every=2, checkpoint_every=100)
    expected = run(whole, tmp_path / "whole", plan, evaluate=evaluate).lines

    heard = []
    with pytest.raises(Stopped):
        run(
            halves,
            tmp_path / "halves",
            plan,
            evaluate=evaluate,
            log=heard.append,
            should_stop=lambda: heard[-1]["step"] == 3,
        )
    again = tiny_model(family, seed=5, **sizes)
    lines = run(again, tmp_path / "halves", plan, evaluate=evaluate).lines

    assert same(state_of(whole), state_of(again))
    [resumed] = [line for line in lines if line["kind"] == "resumed"]
    assert resumed["step"] == 3
    lines.remove(resumed)
    assert timeless(lines) == timeless(expected)


@pytest.mark.parametrize("step", range(1, 7))
def test_training_interrupted_at_any_moment_goes_on_from_the_last_checkpoint(
    tmp_path, step
):
    whole, cut = tiny_model(), tiny_model()
    kept = run(whole, tmp_path / "whole").kept
    with pytest.raises(KeyboardInterrupt):
        run(cut, tmp_path / "cut", log=crash_at(step))
    last = last_checkpoint(tmp_path / "cut")
    done = (step - 1) // 2 * 2
    assert last is None if step < 3 else last.name == f"checkpoint-{done}"

    model = tiny_model() if last is None else tiny_model(seed=7)
    training = run(model, tmp_path / "cut")
    assert same(state_of(whole), state_of(model))
    assert training.kept.flops == kept.flops
    assert training.kept.tokens_backward == kept.tokens_backward == 6 * 4 * CONTEXT
    thrown_away = (step - done) / 6
    assert training.spent.flops == pytest.approx(kept.flops * (1 + thrown_away))
    assert training.spent.seconds > training.kept.seconds


def test_lines_say_what_training_took_and_no_step_comes_twice(tmp_path):
    evaluate = lambda losses, meter: meter.forward(1, 50, 1e6) or {"loss": 1.0}  # noqa: E731
    plan = replace(PLAN, evaluate_every=2)
    with pytest.raises(KeyboardInterrupt):
        run(tiny_model(), tmp_path, plan, evaluate=evaluate, log=crash_at(5))
    heard = []
    training = run(tiny_model(), tmp_path, plan, evaluate=evaluate, log=heard.append)
    assert heard == training.lines
    found = [(line["kind"], line["step"]) for line in heard]
    evaluations = [("evaluation", step) for step in (0, 2, 4, 6)]
    assert found == [
        *(evaluations[0], ("train", 1), ("train", 2), evaluations[1]),
        *(("train", 3), ("train", 4), evaluations[2], ("resumed", 4)),
        *(("train", 5), ("train", 6), evaluations[3]),
    ]
    for name in ("seconds", "flops", "peak_memory_bytes"):
        values = [line[name] for line in heard]
        assert values == sorted(values)
    assert heard[-1]["flops"] == training.kept.flops
    assert training.kept.seconds > heard[-1]["seconds"] - 1e-3
    assert all(x["tokens_per_s"] > 0 for x in heard if x["kind"] != "resumed")
    assert heard[-1]["peak_memory_bytes"] > 10 * 2**20


def test_a_checkpoint_that_was_not_written_to_its_end_is_not_used(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tiny_model(), tmp_path, log=crash_at(5))
    (tmp_path / "checkpoint-5.tmp").mkdir()
    (tmp_path / "checkpoint-5.tmp" / "pytorch_model.bin").write_bytes(b"torn")
    assert last_checkpoint(tmp_path).name == "checkpoint-4"
    lines = run(tiny_model(), tmp_path).lines
    assert [x["step"] for x in lines if x["kind"] == "train"] == [1, 2, 3, 4, 5, 6]
    assert not [*tmp_path.glob("*.tmp")]


@pytest.mark.parametrize(
    "file", ["pytorch_model.bin", "optimizer.bin", "rest.bin", "training.json"]
)
def test_a_damaged_checkpoint_is_not_used(tmp_path, caplog, file):
    whole, cut = tiny_model(), tiny_model()
    run(whole, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(cut, tmp_path / "cut", log=crash_at(5))
    damaged = tmp_path / "cut" / "checkpoint-4" / file
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)

    assert last_checkpoint(tmp_path / "cut").name == "checkpoint-2"
    assert f"checkpoint-4 is not used: the contents of {file} are not" in caplog.text
    model = tiny_model(seed=7)
    run(model, tmp_path / "cut")
    assert same(state_of(whole), state_of(model))
    assert last_checkpoint(tmp_path / "cut").name == "checkpoint-6"


def test_a_checkpoint_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    flushed, fsync, rename = set(), os.fsync, Path.rename

    def watched(descriptor):
        fsync(descriptor)
        flushed.add(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    def renamed(old, new):
        if Path(new).name.startswith("checkpoint-"):
            there = {path.name for path in old.iterdir()}
            assert there - flushed == {"manifest.json"}  # flushed by another name
            assert any(name.endswith(".tmp") for name in flushed)
            flushed.clear()
            names.append(Path(new).name)
        return rename(old, new)

    names = []
    monkeypatch.setattr(os, "fsync", watched)
    monkeypatch.setattr(Path, "rename", renamed)
    run(tiny_model(), tmp_path)
    assert names == ["checkpoint-2", "checkpoint-4", "checkpoint-6"]


@pytest.mark.parametrize("content", [b"", b"\x00" * 40, b'{"seconds": 1'])
def test_what_was_spent_is_forgotten_where_the_file_is_damaged(tmp_path, content):
    with pytest.raises(KeyboardInterrupt):
        run(tiny_model(), tmp_path, log=crash_at(5))
    (tmp_path / "spent.json").write_bytes(content)
    assert spent_training(tmp_path) == Cost()
    assert run(tiny_model(), tmp_path).kept.flops > 0


def test_training_that_was_finished_already_is_not_done_again(tmp_path):
    model, again = tiny_model(), tiny_model(seed=1)
    run(model, tmp_path)
    lines = run(again, tmp_path).lines
    assert same(state_of(model), state_of(again))
    assert (lines[-1]["kind"], lines[-1]["step"]) == ("resumed", 6)


def test_the_last_two_checkpoints_are_kept(tmp_path):
    run(tiny_model(), tmp_path)
    names = sorted(path.name for path in tmp_path.glob("checkpoint-*"))
    assert names == ["checkpoint-4", "checkpoint-6"]
    assert weights_in(tmp_path / "checkpoint-6")


@pytest.mark.transformers5
def test_nan_ends_training_before_it_reaches_the_weights(tmp_path):
    model = tiny_model()
    seen = []

    def poison():
        seen.append(state_of(model))
        if len(seen) == 3:
            model.get_output_embeddings().weight.data[0, 0] = float("nan")

    with pytest.raises(TrainingDiverged, match=r"step 4.*nan.*checkpoint-2"):
        run(model, tmp_path, after_step=poison)
    after, before = state_of(model), seen[-1]
    for state in (after, before):
        [poisoned] = [name for name in state if name.split(".")[0] in HEADS]
        del state[poisoned]
    assert same(after, before)
    good = weights_in(last_checkpoint(tmp_path))
    assert all(torch.isfinite(tensor).all() for tensor in good.values())


def test_a_loss_that_runs_away_ends_training(tmp_path):
    model = tiny_model()

    def inflate():
        model.get_output_embeddings().weight.data.mul_(1.1)

    plan = TrainingPlan(200, 1, 1, 0)
    with pytest.raises(TrainingDiverged, match=r"ran away.*no checkpoint") as caught:
        run(model, tmp_path, plan, after_step=inflate)
    assert 40 <= int(re.search(r"step (\d+)", str(caught.value))[1]) < 100


def test_a_held_out_loss_that_is_not_finite_ends_training(tmp_path):
    with pytest.raises(TrainingDiverged, match="step 0: the held-out loss is inf"):
        run(tiny_model(), tmp_path, evaluate=lambda losses, meter: {"loss": math.inf})


def test_progress_counts_blocks_and_goes_on_where_it_was(tmp_path):
    heard = []
    with pytest.raises(Stopped):
        run(
            tiny_model(),
            tmp_path,
            report=lambda *x: heard.append(x),
            should_stop=lambda: heard[-1][0] == 8,
        )
    run(tiny_model(), tmp_path, report=lambda *x: heard.append(x))
    assert heard == [(4 * step, 24) for step in (0, 1, 2, 2, 3, 4, 5, 6)]


def test_after_each_step_the_weights_can_be_projected(tmp_path):
    model = tiny_model()
    weight = model.gpt_neox.layers[0].mlp.dense_h_to_4h.weight

    def clamp():
        weight.data.clamp_(min=0)

    clamp()
    run(model, tmp_path, after_step=clamp)
    assert weight.min() == 0


@pytest.mark.transformers5
def test_nothing_is_printed_and_no_random_state_moves(tmp_path, capfd):
    random.seed(1)
    torch.manual_seed(1)
    before = random.getstate(), torch.get_rng_state()
    run(tiny_model(), tmp_path)
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_a_stop_signal_ends_training_with_a_checkpoint(tmp_path):
    from harness.base.signals import stop_on_signals

    def send(line):
        if line["step"] == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with (
        pytest.raises(Stopped),
        stop_on_signals() as stop,
        stop.deferred() as should_stop,
    ):
        run(tiny_model(), tmp_path, log=send, should_stop=should_stop)
    assert last_checkpoint(tmp_path).name == "checkpoint-3"


def test_autocast_leaves_the_weights_in_float32(tmp_path):
    losses = {}
    for bf16 in (False, True):
        model = tiny_model()
        lines = run(model, tmp_path / str(bf16), replace(PLAN, bf16=bf16)).lines
        losses[bf16] = [line["loss"] for line in lines]
        assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert losses[True] == pytest.approx(losses[False], rel=0.02)
    assert losses[True] != losses[False]


@TRACED
@pytest.mark.accelerator
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_gpu_trains_to_the_same_function_and_goes_on(tmp_path, device):
    ours, theirs = tiny_model(), tiny_model()
    heard = []
    with pytest.raises(Stopped):
        run(
            ours,
            tmp_path,
            device=device,
            log=heard.append,
            should_stop=lambda: heard[-1]["step"] == 3,
        )
    ours = tiny_model(seed=3)
    run(ours, tmp_path, device=device)
    run(theirs, tmp_path / "cpu")
    # Not the weights: a key's bias moves no attention, so that Adam follows what
    # rounding leaves in its gradient.
    ids = torch.arange(1, 65).view(4, 16)
    with torch.no_grad():
        found, expected = (model.cpu()(ids).logits for model in (ours, theirs))
    torch.testing.assert_close(found, expected, atol=1e-2, rtol=0)


@TRACED
@pytest.mark.accelerator
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("arm", [Unconstrained, Softplus, SignSplit])
def test_a_gpu_trains_with_few_logits_at_once_as_a_cpu_does(
    tmp_path, monkeypatch, arm, checkpointing
):
    found = []
    for device in ("cpu", "cuda"):
        if device == "cuda":  # compiled, with a part of the logits at a time
            monkeypatch.setattr(harness.models.losses, "LOGITS_AT_ONCE", 1000)
        model = tiny_model()
        arm().apply(Pythia(Pythia.Options(path="unused")), model, 0)
        groups = arm().parameter_groups(model, 1e-3, 0.1)
        plan = replace(PLAN, micro_batch=None, checkpointing=checkpointing)
        lines = run(model, tmp_path / device, plan, groups=groups, device=device).lines
        found.append([(line["loss"], line["grad_norm"]) for line in lines])
        assert {line["micro_batch"] for line in lines} == {PLAN.blocks_per_step}
    assert np.array(found[1]) == pytest.approx(np.array(found[0]), rel=2e-3)

"""The one training loop: blocks of tokens in a fixed order, on `accelerate`.

A checkpoint holds the model, the optimizer, the learning rate's schedule, the random
generators and how far training is, so that it goes on as if it had never stopped.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from transformers import get_cosine_schedule_with_warmup

from harness.base import Stopped, TrainingDiverged, fixed_random_state, write_json
from harness.data import count_tokens
from harness.models.losses import BlockLosses
from harness.records import Cost
from harness.subject import Meter

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

Line = dict[str, Any]

DIVERGED_NATS = 3.0
"""Training diverged if its mean loss is so far above its first and above chance."""
_WINDOW_STEPS = 20
_PROGRESS = "progress.json"
_SPENT = "spent.json"
_KEPT = 2


class Blocks(Protocol):
    """Token ids in training order: block `i` is an integer array, all of a size."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> NDArray[Any]: ...


@dataclass(frozen=True)
class TrainingPlan:
    """How long and how fast a model is trained."""

    steps: int
    """Optimizer steps."""
    blocks_per_step: int
    """Blocks that the gradient of a step is averaged over."""
    micro_batch: int
    """Blocks in one forward pass; lowered to a divisor of `blocks_per_step`."""
    warmup_steps: int
    """Steps with rising learning rate; then cosine to zero."""
    max_grad_norm: float = 1.0
    """The gradient's norm over all parameters is clipped to it."""
    bf16: bool = False
    """Autocast matrix products to bfloat16; weights and their state stay float32."""
    evaluate_every: int | None = None
    """Steps between evaluations."""
    checkpoint_every: int | None = None
    """Steps between checkpoints; None for none at all."""
    seed: int = 0
    """Seeds dropout, if the model has any."""

    @property
    def forward_blocks(self) -> int:
        """Blocks in one forward pass, so that every pass of a step has as many."""
        at_most = min(self.micro_batch, self.blocks_per_step)
        return max(n for n in range(1, at_most + 1) if self.blocks_per_step % n == 0)

    @property
    def total_blocks(self) -> int:
        """Blocks in the whole training."""
        return self.steps * self.blocks_per_step


@dataclass(frozen=True)
class TrainingHooks:
    """What is called while a model is trained."""

    evaluate: Callable[[Meter], Mapping[str, float | None]] | None = None
    """Before the first step, every `evaluate_every` steps and after the last one. Its
    passes count in the meter that it gets."""
    read: Callable[[NDArray[Any], int, Meter], NDArray[Any]] | None = None
    """Gets the blocks [n, width] of a step and its number, from 0; returns those that
    the model reads in their place. What that costs goes into the meter that it gets."""
    after_step: Callable[[], None] = lambda: None
    """After each optimizer step, before anything else sees the weights."""
    log: Callable[[Line], None] = lambda line: None
    """Gets every line of the training, those before a restart first."""
    report: Callable[[int, int], None] = lambda done, total: None
    """Gets the blocks done, and all of them."""
    should_stop: Callable[[], bool] = lambda: False
    """Asked after each step; True ends training with a checkpoint and `Stopped`."""


@dataclass(frozen=True)
class Training:
    """The lines of a whole training, and its cost."""

    lines: list[Line]
    """Every line that `TrainingHooks.log` got."""
    kept: Cost
    """Of the steps in `lines`, also those made before a restart."""
    spent: Cost
    """Of these steps and of those that were lost to interruptions."""


def train(
    model: PreTrainedModel,
    blocks: Blocks,
    groups: Sequence[dict[str, Any]],
    plan: TrainingPlan,
    *,
    work: Path,
    device: str,
    hooks: TrainingHooks,
) -> Training:
    """Train a language model in place, from the last checkpoint in `work` if any.

    There must be `plan.total_blocks` blocks or more; `groups` are the parameter groups
    of AdamW. The lines of a training are dictionaries with a ``kind`` (``train``,
    ``evaluation``, ``resumed``), a ``step``, and the cost so far: ``seconds``,
    ``flops``, ``peak_memory_bytes``. The model ends on `device` in evaluation mode.
    Global random generators keep their states.

    Raises TrainingDiverged and, where `hooks.should_stop` said so, Stopped.
    """
    with fixed_random_state(plan.seed):
        accelerator = _accelerator(plan, torch.device(device))
        try:
            return _Loop(accelerator, model, blocks, groups, plan, work, hooks).run()
        finally:
            accelerator.free_memory()


def last_checkpoint(work: Path) -> Path | None:
    """Return the newest checkpoint that was written to its end, if there is one."""
    return next(reversed(_whole_checkpoints(work)), None)


def spent_training(work: Path) -> Cost:
    """Return what training in a folder has spent, interrupted attempts included."""
    path = work / _SPENT
    return Cost.model_validate_json(path.read_text()) if path.exists() else Cost()


def _accelerator(plan: TrainingPlan, device: torch.device) -> Accelerator:
    # accelerate keeps its first settings for the rest of the process, and would choose
    # the device itself.
    AcceleratorState._reset_state(reset_partial_state=True)
    on_cpu = device.type == "cpu"
    state = PartialState(cpu=on_cpu)
    if state.num_processes == 1:
        state.device = device
    return Accelerator(
        cpu=on_cpu,
        mixed_precision="bf16" if plan.bf16 else "no",
        gradient_accumulation_steps=plan.blocks_per_step // plan.forward_blocks,
        step_scheduler_with_optimizer=False,
    )


class _Loop:
    """One training, step by step."""

    def __init__(
        self,
        accelerator: Accelerator,
        model: PreTrainedModel,
        blocks: Blocks,
        groups: Sequence[dict[str, Any]],
        plan: TrainingPlan,
        work: Path,
        hooks: TrainingHooks,
    ) -> None:
        self._accelerator, self._model, self._blocks = accelerator, model, blocks
        self._plan, self._work, self._hooks = plan, work, hooks
        losses = BlockLosses(model.to(accelerator.device))
        self._pass_flops = losses.flops
        optimizer = torch.optim.AdamW([dict(group) for group in groups])
        schedule = get_cosine_schedule_with_warmup(
            optimizer, plan.warmup_steps, plan.steps
        )
        self._losses, self._optimizer, self._schedule = accelerator.prepare(
            losses, optimizer, schedule
        )
        self._step = 0
        self._lines: list[Line] = []
        self._course: list[float] = []
        self._meter = Meter(accelerator.device)
        self._kept_before, self._spent_before = Cost(), spent_training(work)

    def run(self) -> Training:
        """Train to the end, from the last checkpoint if there is one."""
        self._begin()
        while self._step < self._plan.steps:
            values = self._take_step()
            self._hooks.after_step()
            self._step += 1
            self._add("train", values)
            self._course.append(values["loss"])
            self._check_course()
            if self._is_due(self._plan.evaluate_every):
                self._evaluate()
            self._report()
            self._save_or_stop()
        self._model.eval()
        return Training(self._lines, self._kept(), self._note_spent())

    # --- steps ----------------------------------------------------------------------

    def _take_step(self) -> dict[str, float]:
        """Make an optimizer step of several passes; return what its line says."""
        self._losses.train()
        losses = []
        before = self._meter.cost()
        for blocks in self._passes():
            with self._accelerator.accumulate(self._losses):
                losses.append(self._losses(*blocks).mean())
                self._accelerator.backward(losses[-1])
        norm = self._accelerator.clip_grad_norm_(
            self._losses.parameters(), self._plan.max_grad_norm
        )
        values = {
            "loss": torch.stack(losses).detach().mean().item(),
            "grad_norm": norm.item(),
            "learning_rate": self._optimizer.param_groups[0]["lr"],
        }
        self._check_finite(values)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad()
        return {**values, "tokens_per_s": self._tokens_per_s(before)}

    def _passes(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Yield the blocks [n, width] of each forward pass of the next step.

        With them comes what is read in their place.
        """
        count, size = self._plan.blocks_per_step, self._plan.forward_blocks
        first = self._step * count
        blocks = np.stack([self._blocks[i] for i in range(first, first + count)])
        read = blocks
        if self._hooks.read is not None:
            read = self._hooks.read(blocks, self._step, self._meter)
        for start in range(0, count, size):
            part = slice(start, start + size)
            ids = self._on_device(blocks[part])
            tokens, flops = count_tokens(blocks[part]), self._pass_flops(ids)
            self._meter.forward(size, tokens, flops)
            self._meter.backward(size, tokens, 2 * flops)
            yield ids, ids if read is blocks else self._on_device(read[part])

    def _on_device(self, blocks: NDArray[Any]) -> torch.Tensor:
        ids = torch.as_tensor(blocks.astype(np.int64))
        return ids.to(self._accelerator.device)

    def _evaluate(self) -> None:
        if self._hooks.evaluate is None:
            return
        before = self._meter.cost()
        values = dict(self._hooks.evaluate(self._meter))
        for name, value in values.items():
            if value is not None and not math.isfinite(value):
                raise self._diverged(self._step, f"the held-out {name} is {value}")
        self._add("evaluation", {**values, "tokens_per_s": self._tokens_per_s(before)})

    def _check_finite(self, values: Mapping[str, float]) -> None:
        loss, norm = values["loss"], values["grad_norm"]
        if not (math.isfinite(loss) and math.isfinite(norm)):
            message = f"the loss is {loss}, its gradient's norm {norm}"
            raise self._diverged(self._step + 1, message)

    def _check_course(self) -> None:
        course = self._course
        if len(course) < 2 * _WINDOW_STEPS:
            return
        first, last = _mean(course[:_WINDOW_STEPS]), _mean(course[-_WINDOW_STEPS:])
        guessing = math.log(self._model.config.vocab_size)
        if last > max(first, guessing) + DIVERGED_NATS:
            message = f"the loss ran away, from {first:.2f} to {last:.2f} nats/token"
            raise self._diverged(self._step, message)

    def _diverged(self, step: int, what: str) -> TrainingDiverged:
        last = last_checkpoint(self._work)
        good = f"last good checkpoint: {last}" if last else "no checkpoint before it"
        return TrainingDiverged(f"training diverged at step {step}: {what}; {good}")

    def _is_due(self, every: int | None) -> bool:
        """Say whether something due every `every` steps, and at the end, is due now."""
        last = self._step == self._plan.steps
        return last or (every is not None and self._step % every == 0)

    # --- lines ----------------------------------------------------------------------

    def _add(self, kind: str, values: Mapping[str, float | None]) -> None:
        cost = self._kept()
        line: Line = {"kind": kind, "step": self._step, **values}
        line["seconds"] = round(cost.seconds, 3)
        line["flops"] = cost.flops
        line["peak_memory_bytes"] = cost.peak_memory_bytes
        self._lines.append(line)
        self._note_spent()
        self._hooks.log(line)

    def _report(self) -> None:
        done = self._step * self._plan.blocks_per_step
        self._hooks.report(done, self._plan.total_blocks)

    def _tokens_per_s(self, before: Cost) -> float:
        tokens = self._meter.tokens_forward - before.tokens_forward
        return round(tokens / (self._meter.seconds - before.seconds), 1)

    def _kept(self) -> Cost:
        return self._kept_before + self._meter.cost()

    def _note_spent(self) -> Cost:
        """Write down what was spent, for a process that may have to go on."""
        spent = self._spent_before + self._meter.cost()
        beside = self._work / f"{_SPENT}.new"
        beside.write_text(spent.model_dump_json())
        beside.replace(self._work / _SPENT)
        return spent

    # --- checkpoints ----------------------------------------------------------------

    def _begin(self) -> None:
        checkpoint = last_checkpoint(self._work)
        if checkpoint is None:
            self._work.mkdir(parents=True, exist_ok=True)
            self._evaluate()
        else:
            self._resume(checkpoint)
        self._report()

    def _resume(self, checkpoint: Path) -> None:
        self._accelerator.load_state(str(checkpoint))
        progress = json.loads((checkpoint / _PROGRESS).read_text())
        self._step, self._lines = progress["step"], progress["lines"]
        self._kept_before = Cost.model_validate(progress["cost"])
        self._course = [x["loss"] for x in self._lines if x["kind"] == "train"]
        for line in self._lines:
            self._hooks.log(line)
        self._add("resumed", {})

    def _save_or_stop(self) -> None:
        stopping = self._step < self._plan.steps and self._hooks.should_stop()
        every = self._plan.checkpoint_every
        if stopping or (every and self._is_due(every)):
            self._save()
        if stopping:
            raise Stopped("stopped while training; run the same command again to go on")

    def _save(self) -> None:
        checkpoint = self._work / f"checkpoint-{self._step}"
        shutil.rmtree(checkpoint, ignore_errors=True)  # was not written to its end
        # Not as safetensors, for which accelerate warns of each tied weight.
        self._accelerator.save_state(str(checkpoint), safe_serialization=False)
        cost = self._kept().model_dump(mode="json")
        progress = {"step": self._step, "lines": self._lines, "cost": cost}
        self._note_spent()
        write_json(checkpoint / _PROGRESS, progress)  # last: now it is whole
        for old in _whole_checkpoints(self._work)[:-_KEPT]:
            shutil.rmtree(old)


def _whole_checkpoints(work: Path) -> list[Path]:
    """Return the checkpoints that were written to their end, oldest first."""
    whole = [progress.parent for progress in work.glob(f"checkpoint-*/{_PROGRESS}")]
    return sorted(whole, key=_step_of)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

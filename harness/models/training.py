"""The one training loop: blocks of tokens in a fixed order, on `accelerate`.

A step is several passes, then one update. The host waits for the device once a step,
after its last pass: a loss that is not finite must not reach the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from transformers import get_cosine_schedule_with_warmup

from harness.base import Stopped, TrainingDiverged, fixed_random_state
from harness.models.checkpointing import (
    Checkpoints,
    last_checkpoint,
    note_spent,
    spent_training,
)
from harness.models.devices import accelerator_for, clip
from harness.models.ffn.parametrizations import EffectiveWeights
from harness.models.gradients import Batch, StepGradients
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
    micro_batch: int | None
    """Blocks in one forward pass, lowered to a divisor of `blocks_per_step`, and halved
    where memory runs out; None for as many as fit."""
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
    checkpointing: bool = False
    """Keep each layer's input alone for the gradient, and compute the layer again."""
    seed: int = 0
    """Seeds dropout, if the model has any."""

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
    accelerator = accelerator_for(torch.device(device), bf16=plan.bf16)
    weights = EffectiveWeights(model)
    with fixed_random_state(plan.seed), weights.plain():
        loop = _Loop(accelerator, model, weights, blocks, groups, plan, work, hooks)
        return loop.run()


class _Loop:
    """One training, step by step."""

    def __init__(
        self,
        accelerator: Accelerator,
        model: PreTrainedModel,
        weights: EffectiveWeights,
        blocks: Blocks,
        groups: Sequence[dict[str, Any]],
        plan: TrainingPlan,
        work: Path,
        hooks: TrainingHooks,
    ) -> None:
        self._accelerator, self._model, self._blocks = accelerator, model, blocks
        self._weights = weights
        self._plan, self._work, self._hooks = plan, work, hooks
        losses = BlockLosses(model.to(accelerator.device))
        on_cuda = accelerator.device.type == "cuda"
        self._optimizer = torch.optim.AdamW(
            [dict(group) for group in groups], fused=on_cuda or None
        )
        self._schedule = get_cosine_schedule_with_warmup(
            self._optimizer, plan.warmup_steps, plan.steps
        )
        self._checkpoints = Checkpoints(
            work, model, self._optimizer, self._schedule, weights.names
        )
        self._step = 0
        self._lines: list[Line] = []
        self._course: list[float] = []
        self._meter = Meter(accelerator.device)
        self._gradients = StepGradients(
            accelerator,
            losses,
            self._meter,
            plan.micro_batch,
            checkpointing=plan.checkpointing,
        )
        self._next: tuple[NDArray[Any], torch.Tensor] | None = None
        self._kept_before, self._spent_before = Cost(), spent_training(work)

    def run(self) -> Training:
        """Train to the end, from the last checkpoint if there is one."""
        self._begin()
        while self._step < self._plan.steps:
            values = self._take_step()
            self._hooks.after_step()
            self._weights.compute()
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
        before = self._meter.cost()
        loss = self._gradients.add(self._batch())
        self._weights.move_gradients()
        norm = clip(self._weights.trained, self._plan.max_grad_norm)
        self._next = self._fetched(self._step + 1)
        # Here, and nowhere else in a step, the host waits for the device.
        found = torch.stack([loss, norm]).tolist()
        values = {
            "loss": found[0],
            "grad_norm": found[1],
            "learning_rate": self._optimizer.param_groups[0]["lr"],
        }
        self._check_finite(values)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad()
        self._weights.compute()
        return {
            **values,
            "tokens_per_s": self._tokens_per_s(before),
            "micro_batch": self._gradients.micro_batch or 0,
        }

    def _batch(self) -> Batch:
        """Return the blocks of the next step, and what is read in their place."""
        blocks, ids = self._next or self._fetched(self._step)
        read = blocks
        if self._hooks.read is not None:
            read = self._hooks.read(blocks, self._step, self._meter)
        return Batch(blocks, read, ids)

    def _fetched(self, step: int) -> tuple[NDArray[Any], torch.Tensor]:
        """Return the blocks of a step, the last one at most, here and on the device."""
        first = min(step, self._plan.steps - 1) * self._plan.blocks_per_step
        every = range(first, first + self._plan.blocks_per_step)
        blocks = np.stack([self._blocks[i] for i in every])
        return blocks, self._gradients.on_device(blocks)

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
        spent = self._spent_before + self._meter.cost()
        note_spent(self._work, spent)
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
        progress = self._checkpoints.restore(checkpoint)
        self._weights.compute()
        self._step, self._lines = progress["step"], progress["lines"]
        self._kept_before = Cost.model_validate(progress["cost"])
        trained = [line for line in self._lines if line["kind"] == "train"]
        self._course = [line["loss"] for line in trained]
        if trained and self._plan.micro_batch is None:
            self._gradients.micro_batch = trained[-1]["micro_batch"]
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
        cost = self._kept().model_dump(mode="json")
        progress = {"step": self._step, "lines": self._lines, "cost": cost}
        self._note_spent()
        done = self._step == self._plan.steps
        self._checkpoints.save(self._step, progress, done=done)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

"""The one training loop: blocks of tokens in a fixed order, on `accelerate`.

A step is several passes, then one update. The host waits for the device once a step,
after its last pass: a loss that is not finite must not reach the weights. On several
devices the same loop runs in a process for each, and the first of them reports.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from transformers import get_cosine_schedule_with_warmup

from harness.base import CellError, Stopped, TrainingDiverged, fixed_random_state
from harness.models.checkpointing import (
    Checkpoints,
    last_checkpoint,
    load_weights,
    note_spent,
    shared_checkpoint,
    spent_training,
)
from harness.models.devices import (
    accelerator_for,
    agreed,
    average,
    clip,
    note_fullest,
    of_all,
    own_share,
    shard,
)
from harness.models.ffn.parametrizations import EffectiveWeights
from harness.models.gradients import Batch, StepGradients, layers_of
from harness.models.lean import LeanAdamW
from harness.models.losses import BlockLosses
from harness.models.processes import Say, in_processes
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
    optimizer_state: Literal["float32", "bfloat16"] = "float32"
    """Precision in which AdamW's moments are kept."""
    seed: int = 0
    """Seeds dropout, if the model has any."""
    devices: int = 1
    """Devices, with a process for each and its share of the blocks of every step."""
    sharding: Literal["none", "full"] = "none"
    """Whether weights, gradients and the optimizer's state are spread over devices."""

    @property
    def total_blocks(self) -> int:
        """Blocks in the whole training."""
        return self.steps * self.blocks_per_step


def _nothing(*_: Any) -> None:
    return None


@dataclass(frozen=True)
class TrainingHooks:
    """What is called while a model is trained.

    On several devices, the first three are called in the process of each.
    """

    evaluate: Callable[[BlockLosses, Meter], Mapping[str, float | None]] | None = None
    """Before the first step, every `evaluate_every` steps and after the last one. It
    gets what computes the model's losses; its passes count in the meter."""
    read: Callable[[NDArray[Any], int, Meter, slice], NDArray[Any]] | None = None
    """Gets the blocks [n, width] of a step, its number, from 0, a meter for what this
    costs, and which of the blocks are wanted; returns those [n, width] that the model
    reads in the place of these."""
    after_step: Callable[[], None] = _nothing
    """After each optimizer step, before anything else sees the weights."""
    log: Callable[[Line], None] = _nothing
    """Gets every line of the training, those before a restart first."""
    report: Callable[[int, int], None] = _nothing
    """Gets the blocks done, and all of them."""
    should_stop: Callable[[], bool] = bool
    """Asked from the first step's end on; True ends training with a checkpoint, after
    the step that is under way, and `Stopped`."""


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
    weights = EffectiveWeights(model)
    with weights.plain():
        job = _Job(model, weights, blocks, groups, plan, work, device, hooks)
        return _train(job) if plan.devices == 1 else _train_on_devices(job)


@dataclass(frozen=True)
class _Job:
    """A model, and how it is trained."""

    model: PreTrainedModel
    weights: EffectiveWeights
    blocks: Blocks
    groups: Sequence[dict[str, Any]]
    plan: TrainingPlan
    work: Path
    device: str
    hooks: TrainingHooks = field(default_factory=TrainingHooks)


def _train(job: _Job) -> Training:
    """Train in this process, which may be one of several."""
    accelerator = accelerator_for(torch.device(job.device), bf16=job.plan.bf16)
    with fixed_random_state(job.plan.seed + accelerator.process_index):
        return _Loop(accelerator, job).run()


def _train_on_devices(job: _Job) -> Training:
    """Train in a process for each device; take over what the first of them has."""
    plan, hooks, model = job.plan, job.hooks, job.model
    _check_devices(plan, job.device)
    model.to("cpu")  # the first process needs the device
    torch.cuda.empty_cache()
    job.work.mkdir(parents=True, exist_ok=True)
    hear, should_stop = _listening(hooks)
    quiet = replace(hooks, log=_nothing, report=_nothing, should_stop=bool)
    training: Training = in_processes(
        _train_one_of_several,
        replace(job, hooks=quiet, device=torch.device(job.device).type),
        plan.devices,
        device=torch.device(job.device).type,
        file=job.work / "job.pt",
        hear=hear,
        should_stop=should_stop,
    )
    last = last_checkpoint(job.work)
    assert last is not None  # written at the end
    load_weights(model, last)
    job.weights.compute()
    model.to(torch.device(job.device)).eval()
    return training


def _listening(hooks: TrainingHooks) -> tuple[Say, Callable[[], bool]]:
    """Return what hears the first process, and what says whether all are to stop."""
    reported: list[Any] = []

    def hear(about: str, thing: Any) -> None:
        if about == "log":
            hooks.log(*thing)
        else:
            reported.append(thing)
            hooks.report(*thing)

    # The first report is before any step: there is nothing to write down yet.
    return hear, lambda: len(reported) > 1 and hooks.should_stop()


def _train_one_of_several(
    job: _Job, say: Say, should_stop: Callable[[], bool]
) -> Training:
    hooks = replace(
        job.hooks,
        log=lambda line: say("log", (line,)),
        report=lambda done, total: say("report", (done, total)),
        should_stop=should_stop,
    )
    return _train(replace(job, hooks=hooks))


def _check_devices(plan: TrainingPlan, device: str) -> None:
    count, there = plan.devices, torch.cuda.device_count()
    if torch.device(device).type == "cuda" and count > there:
        raise CellError(f"recovery.devices is {count}, but this machine has {there}")
    if plan.blocks_per_step % count:
        raise CellError(
            f"recovery.devices is {count}, which does not divide the "
            f"{plan.blocks_per_step} blocks of a step (batch_tokens / context)"
        )


class _Loop:
    """One training, step by step."""

    def __init__(self, accelerator: Accelerator, job: _Job) -> None:
        self._accelerator = accelerator
        self._model, self._blocks, self._weights = job.model, job.blocks, job.weights
        self._plan, self._work, self._hooks = job.plan, job.work, job.hooks
        self._losses = BlockLosses(job.model)
        self._sharded = job.plan.sharding == "full" and accelerator.num_processes > 1
        groups = self._placed(job.groups)
        on_cuda = accelerator.device.type == "cuda"
        lean = job.plan.optimizer_state == "bfloat16"
        kind = LeanAdamW if lean else torch.optim.AdamW
        self._optimizer = kind(groups, fused=on_cuda or None)
        self._schedule = get_cosine_schedule_with_warmup(
            self._optimizer, job.plan.warmup_steps, job.plan.steps
        )
        self._checkpoints = Checkpoints(
            job.work,
            job.model,
            self._optimizer,
            self._schedule,
            job.weights.names,
            writes=accelerator.is_main_process,
        )
        self._step = 0
        self._lines: list[Line] = []
        self._course: list[float] = []
        self._meter = Meter(accelerator.device)
        self._gradients = StepGradients(
            accelerator,
            self._losses,
            self._meter,
            job.plan.micro_batch,
            checkpointing=job.plan.checkpointing,
            sharded=self._sharded,
        )
        self._next: Batch | None = None
        self._kept_before, self._spent_before = Cost(), spent_training(job.work)

    def _placed(self, groups: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Bring the weights to the device, or spread them; return their groups."""
        if not self._sharded:
            self._model.to(self._accelerator.device)
            return [dict(group) for group in groups]
        names = {id(p): name for name, p in self._losses.named_parameters()}
        apart = self._weights.raw
        shard(self._losses, layers_of(self._model), set(apart), self._accelerator)
        self._weights.spread()
        now = dict(self._losses.named_parameters())
        found = {number: now[name] for number, name in names.items()}
        self._weights.trained = [found[id(p)] for p in self._weights.trained]
        return [
            {**group, "params": [found[id(p)] for p in group["params"]]}
            for group in groups
        ]

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
        average([loss], self._accelerator)
        if not self._sharded:
            own = (p.grad for p in self._model.parameters())
            average((x for x in own if x is not None), self._accelerator)
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
        with self._same_draws():
            self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad()
        self._weights.compute()
        return {
            **values,
            "tokens_per_s": self._tokens_per_s(before),
            "micro_batch": self._gradients.micro_batch or 0,
        }

    def _same_draws(self) -> AbstractContextManager[None]:
        """Let processes that each hold the whole model round its moments alike."""
        alone = self._accelerator.num_processes == 1
        if alone or self._sharded:
            return nullcontext()
        return fixed_random_state(_key(self._plan.seed, self._step))

    def _batch(self) -> Batch:
        """Return the blocks of the next step, and what is read in their place."""
        batch = self._next or self._fetched(self._step)
        if self._hooks.read is None:
            return batch
        spent = Meter(self._accelerator.device)
        read = self._hooks.read(batch.every, self._step, spent, batch.own)
        self._meter.add(of_all(spent, self._accelerator))
        return replace(batch, read=self._gradients.on_device(read[batch.own]))

    def _fetched(self, step: int) -> Batch:
        """Return the blocks of a step, the last one at most, on their way already."""
        count = self._plan.blocks_per_step
        first = min(step, self._plan.steps - 1) * count
        every = np.stack([self._blocks[i] for i in range(first, first + count)])
        own = own_share(count, self._accelerator)
        ids = self._gradients.on_device(every[own])
        return Batch(every, own, ids, ids)

    def _evaluate(self) -> None:
        if self._hooks.evaluate is None:
            return
        before = self._meter.cost()
        values = dict(self._hooks.evaluate(self._losses, self._meter))
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
        note_fullest(self._meter, self._accelerator)
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
        if self._accelerator.is_main_process:
            note_spent(self._work, spent)
        return spent

    # --- checkpoints ----------------------------------------------------------------

    def _begin(self) -> None:
        checkpoint = shared_checkpoint(self._work, self._accelerator)
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
        if not self._accelerator.is_main_process:  # a checkpoint has the first's draws
            own = self._accelerator.process_index
            torch.manual_seed(_key(self._plan.seed, self._step, own))
        self._kept_before = Cost.model_validate(progress["cost"])
        trained = [line for line in self._lines if line["kind"] == "train"]
        self._course = [line["loss"] for line in trained]
        if trained and self._plan.micro_batch is None:
            self._gradients.micro_batch = trained[-1]["micro_batch"]
        for line in self._lines:
            self._hooks.log(line)
        self._add("resumed", {})

    def _save_or_stop(self) -> None:
        done, every = self._step == self._plan.steps, self._plan.checkpoint_every
        asked = agreed(self._hooks.should_stop(), self._accelerator)
        stopping = bool(asked) and not done
        # What several processes made is handed over in a file.
        handing_over = done and self._plan.devices > 1
        if stopping or handing_over or (every and self._is_due(every)):
            self._save()
        if stopping:
            raise Stopped("stopped while training; run the same command again to go on")

    def _save(self) -> None:
        cost = self._kept().model_dump(mode="json")
        progress = {"step": self._step, "lines": self._lines, "cost": cost}
        self._note_spent()
        done = self._step == self._plan.steps
        self._checkpoints.save(self._step, progress, done=done)


def _key(*numbers: int) -> int:
    """Return a seed that other numbers do not give."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

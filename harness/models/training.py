"""The one training loop: transformers' Trainer over blocks of tokens in a fixed order.

What the Trainer would do by itself and must not is switched off here: its bars, its
prints, its trackers, its choice of devices, its filter that hides NaN. Checkpoints
hold the model under its own parameter names, parametrized ones included, so that
training goes on from them as if it had never stopped.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from safetensors.torch import load_model, save_model
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from transformers import (
    Trainer,
    TrainerCallback,
    TrainingArguments,
    get_cosine_schedule_with_warmup,
)
from transformers.trainer_callback import PrinterCallback

from harness.base import Stopped, TrainingDiverged, fixed_random_state
from harness.data import IGNORED
from harness.subject import decoder_inputs

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import (
        PreTrainedModel,
        TrainerControl,
        TrainerState,
    )

Line = dict[str, Any]

DIVERGED_NATS = 3.0
"""A mean loss so far above both the first one and that of guessing is divergence."""
_WINDOW_STEPS = 20
_WEIGHTS = "model.safetensors"
_MARK = "complete"
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
    """Blocks whose mean gradient makes a step."""
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
    """Of what is random in a forward pass, if anything is."""

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

    evaluate: Callable[[], Mapping[str, float | None]] | None = None
    """Before the first step, every `evaluate_every` steps and after the last one."""
    after_step: Callable[[], None] = lambda: None
    """After each optimizer step, before anything else sees the weights."""
    log: Callable[[Line], None] = lambda line: None
    """Gets every line of the training, those before a restart first."""
    report: Callable[[int, int], None] = lambda done, total: None
    """Gets the blocks done, and all of them."""
    should_stop: Callable[[], bool] = lambda: False
    """Asked after each step; True ends training with a checkpoint and `Stopped`."""


def train(
    model: PreTrainedModel,
    blocks: Blocks,
    groups: Sequence[dict[str, Any]],
    plan: TrainingPlan,
    *,
    work: Path,
    device: str,
    hooks: TrainingHooks,
) -> list[Line]:
    """Train a language model in place; go on from a checkpoint in `work`.

    `blocks` hold `plan.total_blocks` blocks at least; `groups` are AdamW's. Returns
    the lines of the whole training: dictionaries with a ``kind`` (``train``,
    ``evaluation``, ``resumed``) and a ``step``. The model ends on `device` in
    evaluation mode. Global random generators are left as they were.

    Raises TrainingDiverged and, where `hooks.should_stop` said so, Stopped.
    """
    model.to(torch.device(device))
    optimizer = torch.optim.AdamW([dict(group) for group in groups])
    schedule = get_cosine_schedule_with_warmup(optimizer, plan.warmup_steps, plan.steps)
    watcher = _Watcher(plan, hooks, work)
    last = last_checkpoint(work)
    with fixed_random_state(plan.seed), _visible(device):
        trainer = _BlockTrainer(
            model,
            _arguments(plan, work, device),
            train_dataset=_Batches(blocks, plan.total_blocks),
            optimizers=(optimizer, schedule),
            callbacks=[watcher],
        )
        trainer.watcher = watcher
        trainer.model_accepts_loss_kwargs = False
        trainer.remove_callback(PrinterCallback)
        trainer.train(resume_from_checkpoint=str(last) if last else None)
    if watcher.stopped:
        raise Stopped("stopped while training; run the same command again to go on")
    model.eval()
    return watcher.lines


def last_checkpoint(work: Path) -> Path | None:
    """Return the newest checkpoint that was written to its end, if there is one."""
    return next(reversed(_whole_checkpoints(work)), None)


def next_token_loss(model: PreTrainedModel, ids: torch.Tensor) -> torch.Tensor:
    """Return the loss [batch, context - 1] of each token after the first, in nats."""
    # The mask of ones keeps transformers from building a dense one at every call.
    mask = torch.ones_like(ids)
    output = model(input_ids=ids, attention_mask=mask, use_cache=False)
    logits = output.logits[:, :-1].float()
    losses = cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
    return losses.view(len(ids), -1)


def reference_losses(model: PreTrainedModel, pairs: torch.Tensor) -> torch.Tensor:
    """Return the mean loss [batch] of each pair's reference, in nats/token.

    Takes pairs as `harness.data.blocks` lays them out; an encoder-decoder model reads
    the prompts, as long as the longest of them is.
    """
    prompts, references = (_trimmed(half) for half in pairs.chunk(2, dim=1))
    seen, scored = prompts != IGNORED, references != IGNORED
    logits = model(
        input_ids=prompts.where(seen, 0),
        attention_mask=seen.long(),
        decoder_input_ids=decoder_inputs(model, references),
        use_cache=False,
    ).logits.float()
    losses = cross_entropy(
        logits.flatten(0, 1),
        references.flatten(),
        ignore_index=IGNORED,
        reduction="none",
    )
    return losses.view(references.shape).sum(dim=1) / scored.sum(dim=1)


def block_losses(model: PreTrainedModel, blocks: torch.Tensor) -> torch.Tensor:
    """Return the losses whose mean is trained on, by rows; each row weighs the same.

    Of a causal model, those of each token after the first [batch, context - 1]; of an
    encoder-decoder model, those of the references [batch, 1].
    """
    if model.config.is_encoder_decoder:
        return reference_losses(model, blocks)[:, None]
    return next_token_loss(model, blocks)


def _trimmed(ids: torch.Tensor) -> torch.Tensor:
    """Leave out the last columns, where every row is over."""
    return ids[:, : int((ids != IGNORED).sum(dim=1).max())]


class _Batches(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """The first `count` blocks, as the Trainer takes them."""

    def __init__(self, blocks: Blocks, count: int) -> None:
        self._blocks = blocks
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        return {"input_ids": torch.as_tensor(self._blocks[index].astype("int64"))}


class _BlockTrainer(Trainer):  # type: ignore[misc]
    """The Trainer without the parts that would touch order, names or the terminal."""

    watcher: _Watcher

    def get_train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train_dataset, batch_size=self.args.train_batch_size)

    def compute_loss(
        self,
        model: PreTrainedModel,
        inputs: Mapping[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> torch.Tensor:
        ids = inputs["input_ids"]
        with torch.autocast(
            ids.device.type, torch.bfloat16, enabled=self.watcher.plan.bf16
        ):
            loss = block_losses(model, ids).mean()
        self.watcher.losses.append(loss.detach())
        return loss

    def log(self, logs: Mapping[str, float], start_time: float | None = None) -> None:
        """Write nothing: the watcher does."""

    def _save(
        self, output_dir: str | None = None, state_dict: object | None = None
    ) -> None:
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        save_model(self.model, str(folder / _WEIGHTS))

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: torch.nn.Module | None = None
    ) -> None:
        load_model(self.model, str(Path(resume_from_checkpoint) / _WEIGHTS))


@dataclass
class _Arguments(TrainingArguments):  # type: ignore[misc]
    """Arguments that name one device, where the Trainer would take all it sees."""

    place: str = "cpu"

    @property
    def device(self) -> torch.device:
        _ = self._setup_devices  # sets other attributes as well
        return torch.device(self.place)

    @property
    def n_gpu(self) -> int:
        return 0 if self.device.type == "cpu" else 1


def _arguments(plan: TrainingPlan, work: Path, device: str) -> TrainingArguments:
    return _Arguments(
        place=device,
        output_dir=str(work),
        max_steps=plan.steps,
        per_device_train_batch_size=plan.forward_blocks,
        gradient_accumulation_steps=plan.blocks_per_step // plan.forward_blocks,
        max_grad_norm=0.0,  # the watcher clips, and looks at the norm
        save_strategy="steps" if plan.checkpoint_every else "no",
        save_steps=plan.checkpoint_every or 1,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=plan.seed,
        use_cpu=torch.device(device).type == "cpu",
    )


@contextmanager
def _visible(device: str) -> Iterator[None]:
    """Make accelerate, which would take the first GPU, take the one that is named."""
    name = "ACCELERATE_TORCH_DEVICE"
    if torch.device(device).index is None or name in os.environ:
        yield
        return
    os.environ[name] = device
    try:
        yield
    finally:
        del os.environ[name]


class _Watcher(TrainerCallback):  # type: ignore[misc]
    """Clips, checks, evaluates, logs and stops, at the steps where each is due."""

    def __init__(self, plan: TrainingPlan, hooks: TrainingHooks, work: Path) -> None:
        self.plan = plan
        self.losses: list[torch.Tensor] = []
        self.lines: list[Line] = []
        self.stopped = False
        self._hooks = hooks
        self._work = work
        self._values: dict[str, float] = {}
        self._course: list[float] = []

    def on_train_begin(
        self, args: object, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        # The state's history is part of each checkpoint, and so survives a restart.
        self.lines = state.log_history
        for line in self.lines:
            self._hooks.log(line)
        self._course = [line["loss"] for line in self.lines if line["kind"] == "train"]
        if state.global_step:
            self._add({"kind": "resumed", "step": state.global_step})
        else:
            self._evaluate(0)
        self._report(state.global_step)

    def on_pre_optimizer_step(
        self,
        args: object,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: PreTrainedModel,
        optimizer: torch.optim.Optimizer,
        **_: Any,
    ) -> None:
        step = state.global_step + 1
        loss = torch.stack(self.losses).mean().item()
        self.losses.clear()
        norm = torch.nn.utils.clip_grad_norm_(
            model.parameters(), self.plan.max_grad_norm
        ).item()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise self._diverged(
                step, f"the loss is {loss}, its gradient's norm {norm}"
            )
        rate = optimizer.param_groups[0]["lr"]
        self._values = {"loss": loss, "grad_norm": norm, "learning_rate": rate}

    def on_optimizer_step(
        self, args: object, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._hooks.after_step()

    def on_step_end(
        self,
        args: object,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: PreTrainedModel,
        **_: Any,
    ) -> None:
        step = state.global_step
        self._add({"kind": "train", "step": step, **self._values})
        self._course.append(self._values["loss"])
        self._check_course(step, model.config.vocab_size)
        if self._is_due(step):
            self._evaluate(step)
        self._report(step)
        if step < self.plan.steps and self._hooks.should_stop():
            self.stopped = control.should_save = control.should_training_stop = True

    def on_save(
        self, args: object, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        (self._work / f"checkpoint-{state.global_step}" / _MARK).touch()
        for old in _whole_checkpoints(self._work)[:-_KEPT]:
            shutil.rmtree(old)

    def _add(self, line: Line) -> None:
        self.lines.append(line)
        self._hooks.log(line)

    def _report(self, step: int) -> None:
        self._hooks.report(step * self.plan.blocks_per_step, self.plan.total_blocks)

    def _evaluate(self, step: int) -> None:
        if self._hooks.evaluate is None:
            return
        values = dict(self._hooks.evaluate())
        for name, value in values.items():
            if value is not None and not math.isfinite(value):
                raise self._diverged(step, f"the held-out {name} is {value}")
        self._add({"kind": "evaluation", "step": step, **values})

    def _is_due(self, step: int) -> bool:
        every = self.plan.evaluate_every
        return step == self.plan.steps or (every is not None and step % every == 0)

    def _check_course(self, step: int, vocabulary: int) -> None:
        if len(self._course) < 2 * _WINDOW_STEPS:
            return
        first = _mean(self._course[:_WINDOW_STEPS])
        last = _mean(self._course[-_WINDOW_STEPS:])
        if last > max(first, math.log(vocabulary)) + DIVERGED_NATS:
            message = f"the loss ran away, from {first:.2f} to {last:.2f} nats/token"
            raise self._diverged(step, message)

    def _diverged(self, step: int, what: str) -> TrainingDiverged:
        last = last_checkpoint(self._work)
        good = f"last good checkpoint: {last}" if last else "no checkpoint before it"
        return TrainingDiverged(f"training diverged at step {step}: {what}; {good}")


def _whole_checkpoints(work: Path) -> list[Path]:
    """Return the checkpoints that were written to their end, oldest first."""
    whole = [mark.parent for mark in work.glob(f"checkpoint-*/{_MARK}")]
    return sorted(whole, key=_step_of)


def _step_of(checkpoint: Path) -> int:
    return int(checkpoint.name.rpartition("-")[2])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

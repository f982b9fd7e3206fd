"""Recovery training: every arm trains on the same tokens in the same order.

The order depends on the seed, the corpus and the sizes, never on the arm, but that a
replica has another one. The hash of the tokens in order goes into the record, and one
that no order changes: equal hashes mean equal training data.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from harness.api import Constraint, ModelAdapter
from harness.base import CellError, Store
from harness.data import Corpora, count_tokens, pair_blocks, token_blocks
from harness.models.certificate import minimum_weight
from harness.models.gradients import ON_A_CPU
from harness.models.losses import BlockLosses
from harness.models.reading import Disturbance, Reader
from harness.models.sections import RecoverySection
from harness.models.training import Line, TrainingHooks, TrainingPlan, train
from harness.records import Cost, Estimate, RecoverySummary, bootstrap_mean
from harness.subject import Meter, tensor_float32

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    Tokens = NDArray[np.int32]


@dataclass(frozen=True)
class Recovered:
    """What recovery training did, and its cost."""

    summary: RecoverySummary
    kept: Cost
    """Of the steps that led to the model, evaluations included."""
    spent: Cost
    """Of these steps and of those that were lost to interruptions."""


def recover(
    model: PreTrainedModel,
    adapter: ModelAdapter[Any],
    constraint: Constraint[Any],
    section: RecoverySection,
    *,
    tokenizer: PreTrainedTokenizerBase,
    tokenizer_key: str,
    corpora: Corpora,
    store: Store,
    seed: int,
    work: Path,
    device: str,
    replica: bool = False,
    disturbance: Disturbance | None = None,
    log: Callable[[Line], None] = lambda line: None,
    report: Callable[[int, int], None] = lambda done, total: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Recovered:
    """Train a constrained model in place, from the last checkpoint in `work` if any.

    A `replica` trains on the same tokens as others with its seed, in another order. A
    `disturbance` says what is read in the place of some of them.
    `log` gets every line of ``training.jsonl``, after a restart again from the first;
    `report` the tokens done and all of them. The model ends on `device`.

    Raises TrainingDiverged with the step and the last good checkpoint, and Stopped,
    with a checkpoint written, where `should_stop` said so.
    """
    _check_context(model, section.context)
    pairs = bool(model.config.is_encoder_decoder)
    source = _Source(corpora, tokenizer, tokenizer_key, section.context, store, pairs)
    tokens, plan = source.training(section, seed)
    order = training_order(len(tokens), plan.total_blocks, seed)
    if replica:
        order = replica_order(order, len(tokens), seed)
    ordered = OrderedBlocks(tokens, order)
    total = section.tokens if pairs else plan.total_blocks * section.context
    evaluate = None
    if section.validation is not None:
        held_out = source.blocks(section.validation, section.evaluation_tokens)
        evaluate = _Evaluation(
            model,
            adapter,
            constraint,
            held_out,
            section.micro_batch or ON_A_CPU,
            plan.bf16,
        )
    reader = None
    if disturbance is not None:
        if disturbance.attack is not None and section.sharding == "full":
            raise CellError(
                "recovery against an attack needs the whole model on each device: "
                "`recovery.sharding` cannot be full"
            )
        reader = Reader(disturbance, model, tokenizer, seed=seed, bf16=plan.bf16)
    training = train(
        model,
        ordered,
        constraint.parameter_groups(model, section.learning_rate, section.weight_decay),
        plan,
        work=work,
        device=device,
        hooks=TrainingHooks(
            evaluate=evaluate,
            read=reader,
            after_step=partial(constraint.after_step, model),
            log=log,
            report=lambda done, of: report(done * total // of, total),
            should_stop=should_stop,
        ),
    )
    summary = _summary(training.lines, plan, ordered, pairs=pairs)
    return Recovered(summary, training.kept, training.spent)


def training_plan(
    section: RecoverySection, seed: int, block_tokens: float | None = None
) -> TrainingPlan:
    """Turn numbers of tokens into blocks and steps, rounded up to whole steps.

    A block has `context` tokens, or `block_tokens` on average.
    """
    steps = section.steps(block_tokens)
    return TrainingPlan(
        steps=steps,
        blocks_per_step=section.blocks_per_step(block_tokens),
        micro_batch=section.micro_batch,
        warmup_steps=round(section.warmup_fraction * steps),
        max_grad_norm=section.max_grad_norm,
        bf16=section.precision == "bf16",
        checkpointing=section.checkpointing,
        optimizer_state=section.optimizer_state,
        devices=section.devices,
        sharding=section.sharding,
        evaluate_every=section.evaluate_every,
        checkpoint_every=section.checkpoint_every,
        seed=seed,
    )


def training_order(available: int, wanted: int, seed: int) -> NDArray[np.int64]:
    """Return the indices of blocks [wanted] in the order of training.

    Each epoch is a permutation keyed by the seed and the epoch's number, so a longer
    training begins with the order of a shorter one.
    """
    epochs = [
        np.random.Generator(np.random.PCG64([seed, epoch])).permutation(available)
        for epoch in range(-(-wanted // available))
    ]
    return np.concatenate(epochs)[:wanted]


def replica_order(
    order: NDArray[np.int64], available: int, seed: int
) -> NDArray[np.int64]:
    """Return the indices of an order [m] in another one, the same in each epoch."""
    epochs = np.split(order, range(available, len(order), available))
    return np.concatenate(
        [
            np.random.Generator(np.random.PCG64([seed, number, 1])).permutation(epoch)
            for number, epoch in enumerate(epochs)
        ]
    )


@dataclass(frozen=True)
class OrderedBlocks:
    """Blocks [n, width] seen in an order [m]."""

    blocks: Tokens
    order: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.order)

    def __reduce__(self) -> tuple[Any, ...]:
        """Say where the blocks are, if in a file, to another process of a training."""
        blocks = self.blocks
        if isinstance(blocks, np.memmap) and isinstance(blocks.filename, Path | str):
            place = (blocks.filename, blocks.offset, blocks.dtype, blocks.shape)
            return _reopened, (*place, self.order)
        return OrderedBlocks, (blocks, self.order)

    def __getitem__(self, index: int) -> Tokens:
        block: Tokens = self.blocks[self.order[index]]
        return block

    def __iter__(self) -> Iterator[Tokens]:
        return (self[index] for index in range(len(self)))

    def sha256(self) -> str:
        """Return the hash of all token ids in order, as little-endian int32."""
        digest = hashlib.sha256()
        for block in self:
            digest.update(_bytes(block))
        return digest.hexdigest()

    def unordered_sha256(self) -> str:
        """Return a hash that no order of the blocks changes: of their sorted hashes."""
        hashes = sorted(hashlib.sha256(_bytes(block)).digest() for block in self)
        return hashlib.sha256(b"".join(hashes)).hexdigest()


def _reopened(
    file: str,
    offset: int,
    dtype: Any,
    shape: tuple[int, ...],
    order: NDArray[np.int64],
) -> OrderedBlocks:
    blocks = np.memmap(file, dtype=dtype, mode="r", offset=offset, shape=shape)
    return OrderedBlocks(blocks, order)


def _bytes(block: Tokens) -> bytes:
    return np.ascontiguousarray(block, dtype="<i4").tobytes()


def held_out_losses(
    losses_of: BlockLosses, blocks: Tokens, batch: int, meter: Meter
) -> NDArray[np.float64]:
    """Return the mean loss [n] of each block in nats/token, in float32."""
    losses_of.eval()
    device, losses = losses_of.model.device, []
    with torch.no_grad():
        for start in range(0, len(blocks), batch):
            part = blocks[start : start + batch]
            ids = torch.as_tensor(part.astype(np.int64)).to(device)
            losses.append(losses_of(ids, each=True).double().mean(dim=1).cpu().numpy())
            meter.forward(len(part), count_tokens(part), losses_of.flops(ids))
    return np.concatenate(losses)


@dataclass(frozen=True)
class _Source:
    """Training blocks of the corpora, cut for one model's tokenizer."""

    corpora: Corpora
    tokenizer: PreTrainedTokenizerBase
    tokenizer_key: str
    context: int
    store: Store
    pairs: bool
    """True for pairs of prompt and reference, False for blocks of text."""

    def training(
        self, section: RecoverySection, seed: int
    ) -> tuple[Tokens, TrainingPlan]:
        """Return what is trained on, and for how long."""
        if not self.pairs:
            plan = training_plan(section, seed)
            wanted = plan.total_blocks * self.context
            return self.blocks(section.corpus, wanted), plan
        blocks = self.blocks(section.corpus, section.tokens)
        return blocks, training_plan(section, seed, count_tokens(blocks) / len(blocks))

    def blocks(self, corpus: str, tokens: int) -> Tokens:
        """Return blocks, of text or of pairs, for `tokens` or all that there are."""
        cut = pair_blocks if self.pairs else token_blocks
        return cut(
            self.corpora,
            corpus,
            self.tokenizer,
            self.tokenizer_key,
            self.context,
            tokens,
            self.store,
        )


@dataclass(frozen=True)
class _Evaluation:
    """Measures the held-out loss and the smallest constrained weight in training."""

    model: PreTrainedModel
    adapter: ModelAdapter[Any]
    constraint: Constraint[Any]
    held_out: Tokens
    batch: int
    bf16: bool
    """Whether it is trained so; then a GPU's products here have 19 bits."""

    def __call__(self, losses_of: BlockLosses, meter: Meter) -> dict[str, float | None]:
        with tensor_float32(self.bf16):
            losses = held_out_losses(losses_of, self.held_out, self.batch, meter)
        values: dict[str, float | None] = {"loss": float(losses.mean())}
        if np.isfinite(losses).all():
            found = bootstrap_mean(losses, unit="nats/token", over="blocks")
            if found.interval is not None:
                values["loss_low"], values["loss_high"] = found.interval
        values["blocks"] = len(self.held_out)
        values["tokens"] = count_tokens(self.held_out)
        smallest = minimum_weight(self.adapter.anatomy(self.model), self.constraint)
        values["minimum_weight"] = smallest if math.isfinite(smallest) else None
        return values


def _check_context(model: PreTrainedModel, context: int) -> None:
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and context > positions:
        raise CellError(
            f"recovery.context is {context}, but the model has {positions} positions"
        )


def _summary(
    lines: list[Line],
    plan: TrainingPlan,
    ordered: OrderedBlocks,
    *,
    pairs: bool,
) -> RecoverySummary:
    blocks = "pairs" if pairs else "packed blocks"
    evaluations = [line for line in lines if line["kind"] == "evaluation"]
    return RecoverySummary(
        status="trained",
        steps=plan.steps,
        tokens=sum(count_tokens(block) for block in ordered),
        data_sha256=ordered.sha256(),
        blocks_sha256=ordered.unordered_sha256(),
        loss_before=_estimate(evaluations[0], blocks) if evaluations else None,
        loss_after=_estimate(evaluations[-1], blocks) if evaluations else None,
        restarts=sum(line["kind"] == "resumed" for line in lines),
    )


def _estimate(line: Line, blocks: str) -> Estimate:
    interval = None
    if "loss_low" in line:
        interval = (line["loss_low"], line["loss_high"])
    return Estimate(
        value=line["loss"],
        n=line["blocks"],
        unit="nats/token",
        method=f"mean over {blocks}; bootstrap over {blocks}",
        interval=interval,
        reason=None if interval else f"too few {blocks} for an interval",
    )

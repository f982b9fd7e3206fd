"""The gradient of one optimizer step: as many passes as the device's memory asks for.

How many blocks a pass takes changes the gradient by no more than rounding. On a GPU the
layers run compiled, attention needs no mask, and nothing waits for the device.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from harness.base import CellError, replaced
from harness.data import count_tokens
from harness.models.devices import agreed, local
from harness.models.losses import BlockLosses
from harness.models.sections import divisor
from harness.subject import CompiledLayers, Meter, can_compile

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

log = logging.getLogger(__name__)

ON_A_CPU = 8
"""Blocks in a pass on a CPU where a suite says nothing: it has memory enough for more,
and nothing to gain from them."""
KEPT_BYTES = 40
"""What a layer keeps for its gradient: bytes a token for each unit of its width. At the
shape of Pythia-1.4B, compiled and under autocast, 38 were measured."""
MOST_TOKENS = 2**15
"""In a pass on a GPU. What a pass costs whatever its size, casts of weights and sums of
gradients, grows with the model as its work does: half as many tokens were 3 % slower
at the shape of Pythia-1.4B, so that more have little to give."""
_ROOM = 0.85
"""Of the memory: the rest is for what the estimate leaves out."""
_UNMASKED = "harness_unmasked"
_IS_RAW = ".parametrizations."


@dataclass(frozen=True)
class Batch:
    """The blocks of one step, on the host and, of this process, on its device."""

    every: NDArray[Any]
    """All blocks of the step [n, width]."""
    own: slice
    """Which of them are this process's."""
    ids: Tensor
    """These, on the device."""
    read: Tensor
    """What is read in their place."""


class StepGradients:
    """Adds up the gradient of a step's mean loss, in passes of equal size."""

    def __init__(
        self,
        accelerator: Accelerator,
        losses: BlockLosses,
        meter: Meter,
        micro_batch: int | None,
        *,
        checkpointing: bool = False,
        sharded: bool = False,
    ) -> None:
        """Take over what computes a model's losses.

        With `checkpointing`, of each layer only what it reads is kept. Where weights
        are `sharded`, all processes make passes of one size.
        """
        self._accelerator, self._losses = accelerator, losses
        self._model, self._meter = losses.model, meter
        self.micro_batch = micro_batch
        """Blocks in one forward pass; halved when the device runs out of memory."""
        self._layers = layers_of(self._model)
        self._checkpointing, self._sharded = checkpointing, sharded
        self._compiled = None
        if can_compile(accelerator.device):
            # Pairs are of many lengths.
            dynamic = bool(self._model.config.is_encoder_decoder)
            self._compiled = CompiledLayers(self._layers, dynamic=dynamic)

    def on_device(self, blocks: NDArray[Any]) -> Tensor:
        """Copy ids to the device as int64, without waiting for it."""
        ids = torch.from_numpy(np.ascontiguousarray(blocks))
        if self._accelerator.device.type == "cuda":
            ids = ids.pin_memory()
        return ids.to(self._accelerator.device, non_blocking=True).long()

    def add(self, batch: Batch) -> Tensor:
        """Add the gradient of a step's mean loss; return that loss, on the device.

        Raises CellError where not even one block fits into the device's memory.
        """
        if self.micro_batch is None:
            self.micro_batch = -agreed(-self._first_size(batch.ids), self._accelerator)
        while True:
            size = divisor(len(batch.ids), self.micro_batch)
            loss = self._loss(batch, size)
            if loss is not None:
                self.micro_batch = size
                self._count(batch.every, size)
                return loss
            self._halve(size)

    def _loss(self, batch: Batch, size: int) -> Tensor | None:
        """Add the gradient in passes of `size` blocks; None where memory runs out."""
        try:
            with self._fast():
                return self._passes(batch, size)
        except torch.OutOfMemoryError:
            # From here on, nothing holds the failed pass's tensors.
            return None

    def _passes(self, batch: Batch, size: int) -> Tensor:
        self._losses.train()
        total, losses = len(batch.ids), []
        for start in range(0, total, size):
            part = slice(start, start + size)
            with self._accelerator.autocast():
                loss = self._losses(batch.ids[part], batch.read[part])
            losses.append(loss.detach())
            (loss / (total / size)).backward()
        return torch.stack(losses).mean()

    def _halve(self, size: int) -> None:
        if self._sharded:
            raise CellError(
                f"{size} blocks of recovery do not fit into a device's memory; "
                "a smaller `recovery.micro_batch`, or `recovery.checkpointing: true`, "
                "takes less of it"
            )
        if size == 1:
            raise CellError(
                "a single block of recovery does not fit into the device's memory; "
                "`recovery.checkpointing: true` takes less of it"
            )
        self._losses.zero_grad()
        torch.cuda.empty_cache()
        self.micro_batch = max(1, size // 2)
        log.info("out of memory with %d blocks in a pass: now %d", size, size // 2)

    def _count(self, blocks: NDArray[Any], size: int) -> None:
        """Count the passes of a step, those of all processes."""
        for start in range(0, len(blocks), size):
            part = blocks[start : start + size]
            tokens = count_tokens(part)
            flops = self._losses.flops(torch.from_numpy(part.copy()))
            self._meter.forward(len(part), tokens, flops)
            self._meter.backward(len(part), tokens, 2 * flops)

    @contextmanager
    def _fast(self) -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(_unmasked(self._model))
            if self._compiled is not None:
                stack.enter_context(self._compiled.lent())
            if self._checkpointing:
                stack.enter_context(_recomputed(self._layers))
            yield

    def _first_size(self, ids: Tensor) -> int:
        """Estimate how many blocks fit; the first pass shows whether they do."""
        if ids.device.type != "cuda":
            return ON_A_CPU
        free, _ = torch.cuda.mem_get_info(ids.device)
        reserved = torch.cuda.memory_reserved(ids.device)
        free += reserved - torch.cuda.memory_allocated(ids.device)
        # What weights are computed from has the gradients and moments, in their place.
        own = {x: p for x, p in self._model.named_parameters() if _IS_RAW not in x}
        return fitting(
            free,
            parameters=sum(local(parameter).numel() for parameter in own.values()),
            layers=len(self._layers),
            width=self._model.config.hidden_size,
            context=ids.shape[1],
            checkpointing=self._checkpointing,
        )


def fitting(
    free_bytes: float,
    *,
    parameters: int,
    layers: int,
    width: int,
    context: int,
    checkpointing: bool,
) -> int:
    """Return how many blocks of `context` tokens a pass on a GPU should have.

    That is as many as fit beside the gradients and moments that are still to come, up
    to `MOST_TOKENS`, and one at least.
    """
    to_come = parameters * (4 + 8 + 2)  # copies in bfloat16, too
    kept = layers * 4 + 2 * KEPT_BYTES if checkpointing else layers * KEPT_BYTES
    fit = (_ROOM * free_bytes - to_come) / (kept * width * context)
    return max(1, min(int(fit), MOST_TOKENS // context))


def layers_of(model: PreTrainedModel) -> list[nn.Module]:
    """Return the layers of a model: the members of its lists of modules."""
    stacks = [m for m in model.modules() if isinstance(m, nn.ModuleList)]
    nested = {id(x) for stack in stacks for layer in stack for x in layer.modules()}
    return [layer for stack in stacks if id(stack) not in nested for layer in stack]


@contextmanager
def _recomputed(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Let layers keep what they read alone, and run again for the gradient."""
    with ExitStack() as stack:
        for layer in layers:
            forward = partial(checkpoint, layer.forward, use_reentrant=False)
            before = vars(layer).get("forward")
            vars(layer)["forward"] = forward
            if before is None:
                stack.callback(vars(layer).pop, "forward")
            else:
                stack.callback(vars(layer).__setitem__, "forward", before)
        yield


@contextmanager
def _unmasked(model: PreTrainedModel) -> Iterator[None]:
    """Let a causal model attend without a mask, for rows that are not padded.

    transformers would find out by looking at the mask, for which it waits for the
    device at every pass; for an attention that it has no masks for, it makes none.
    """
    from transformers import AttentionInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    code = vars(sys.modules[type(model.base_model).__module__])
    asks = not model.config.is_encoder_decoder and "create_causal_mask" in code
    if not asks or model.config._attn_implementation != "sdpa":
        yield
        return
    AttentionInterface.register(_UNMASKED, sdpa_attention_forward)
    with replaced(model.config, "_attn_implementation", _UNMASKED):
        yield

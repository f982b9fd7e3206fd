"""The losses that models are trained on, without all logits in memory at once.

For 1,000 tokens and a vocabulary of 50,000, float32 logits take 200 MB, and a backward
pass needs several copies. So where there are many, they are made a part of the tokens
at a time, and their gradient with them: nothing is computed twice, and what is kept is
as large as the hidden states and the head's weight.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from harness.data import IGNORED
from harness.subject import (
    Compiled,
    PassFlops,
    Seq2SeqFlops,
    can_compile,
    decoder_inputs,
    head_scale,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOGITS_AT_ONCE = 2**26
"""How many logits are made at once: 256 MiB in float32."""
ON_A_GPU = 4
"""How many times as many on a GPU: its matrix products are faster where they are large,
and autocast halves what they take."""


class BlockLosses(nn.Module):
    """Computes the losses whose mean a model is trained on, and their FLOPs.

    It is a module around the model, so that what wraps modules for training (sharding)
    wraps the loss as well.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self._pairs = bool(model.config.is_encoder_decoder)
        self._flops = (Seq2SeqFlops if self._pairs else PassFlops).of(model)

    def forward(
        self, blocks: Tensor, read: Tensor | None = None, *, each: bool = False
    ) -> Tensor:
        """Return the mean loss in nats, float32, over all rows.

        With `each`, for which no gradient is taken, return the losses themselves, a row
        a block; each row weighs the same. Of a causal model, those of each token after
        the first [batch, context - 1]; of an encoder-decoder model, the mean over each
        reference [batch, 1]. Blocks are laid out as `token_blocks` and `pair_blocks` of
        `harness.data` do. With `read`, of the same layout, the losses are those of the
        blocks' tokens after these.
        """
        read = blocks if read is None else read
        states = reference_states if self._pairs else next_token_states
        hidden, targets = states(self.model, blocks, read)
        head = self.model.get_output_embeddings()
        if each or _fits(head, targets):
            losses = token_losses(head, hidden, targets)
            rows = _row_means(losses, targets) if self._pairs else losses[:, :-1]
            return rows.contiguous() if each else rows.contiguous().mean()
        return _mean_of_rows(head, hidden, targets)

    def flops(self, blocks: Tensor) -> float:
        """Return the analytic FLOPs of a forward pass, padding included.

        A backward pass to all weights costs twice as much: each matrix is multiplied
        once for the gradient of what it reads and once for its own.
        """
        if self._pairs:
            prompts, references = _halves(blocks)
            forward, _ = self._flops(prompts.shape[1], references.shape[1])
        else:
            forward, _ = self._flops(blocks.shape[1], blocks.shape[1])
        return len(blocks) * forward


def next_token_states(
    model: PreTrainedModel, ids: Tensor, read: Tensor
) -> tuple[Tensor, Tensor]:
    """Return hidden states [batch, context, d] and what the head is to say of each.

    That is the next token; nothing of the last state. The model reads `read`, which may
    be others than the tokens `ids` to be predicted.
    """
    # The mask of ones keeps transformers from building a dense one at every call.
    mask = torch.ones_like(read)
    output = model.base_model(input_ids=read, attention_mask=mask, use_cache=False)
    targets = ids.roll(-1, dims=1)
    targets[:, -1] = IGNORED
    return output[0], targets


def reference_states(
    model: PreTrainedModel, pairs: Tensor, read: Tensor
) -> tuple[Tensor, Tensor]:
    """Return hidden states of the decoder [batch, n, d] and the references [batch, n].

    Takes pairs as `harness.data.pair_blocks` lays them out; an encoder-decoder model
    reads the prompts of `read`, as long as the longest of them is.
    """
    (prompts, _), (_, references) = _halves(read), _halves(pairs)
    seen = prompts != IGNORED
    encoded = model.get_encoder()(
        input_ids=prompts.where(seen, 0), attention_mask=seen.long()
    )
    decoded = model.get_decoder()(
        input_ids=decoder_inputs(model, references),
        encoder_hidden_states=encoded[0],
        encoder_attention_mask=seen.long(),
        use_cache=False,
    )
    return decoded[0] * head_scale(model), references


def token_losses(head: nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
    """Return the loss [batch, n] of targets, float32, in nats; 0 where `IGNORED`.

    `head` maps hidden states [batch, n, d] to logits, at most `LOGITS_AT_ONCE` of them
    at a time. For a gradient, all of them are kept.
    """
    parts = _parts(head, hidden.flatten(0, 1), targets.flatten())
    losses = [
        cross_entropy(head(states).float(), ids, ignore_index=IGNORED, reduction="none")
        for states, ids in parts
    ]
    return torch.cat(losses).view(targets.shape)


def _row_means(losses: Tensor, targets: Tensor) -> Tensor:
    return (losses.sum(dim=1) / (targets != IGNORED).sum(dim=1))[:, None]


def _mean_of_rows(head: nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over rows of each row's mean loss."""
    scored = targets != IGNORED
    shares = scored / (scored.sum(dim=1, keepdim=True) * len(targets))
    flat = hidden.flatten(0, 1), targets.flatten(), shares.flatten()
    total: Tensor = _WeightedLoss.apply(head, head.weight, *flat)  # type: ignore[no-untyped-call]
    return total


class _WeightedLoss(torch.autograd.Function):
    """The sum of the losses [n] of targets, each times its share, and its gradient.

    The logits' gradient is the softmax minus the target, times the share: both are made
    in the forward pass, from the same logits, as Liger-Kernel's fused loss does.
    """

    @staticmethod
    def forward(
        ctx: Any,
        head: nn.Module,
        weight: Tensor,
        states: Tensor,
        targets: Tensor,
        shares: Tensor,
    ) -> Tensor:
        device = states.device.type
        dtype = states.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        total = torch.zeros((), device=states.device)
        to_states, to_weight = torch.empty_like(states), torch.zeros_like(weight)
        with torch.autocast(device, enabled=False):
            matrix, start = weight.to(dtype), 0
            for part, ids, own in _parts(head, states.to(dtype), targets, shares):
                loss, logits = _loss_and_gradient(states.device)(
                    part @ matrix.T, ids, own
                )
                total += loss
                to_states[start : start + len(ids)] = logits @ matrix
                to_weight += logits.T @ part
                start += len(ids)
        ctx.save_for_backward(to_states, to_weight)
        return total

    @staticmethod
    def backward(ctx: Any, *of_loss: Tensor) -> tuple[Tensor | None, ...]:
        to_states, to_weight = ctx.saved_tensors
        (factor,) = of_loss
        return None, to_weight * factor, to_states * factor, None, None


def _weighted_loss(
    logits: Tensor, targets: Tensor, shares: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the losses' weighted sum, and its gradient at the logits [n, vocabulary].

    The gradient has the logits' precision; all else is float32.
    """
    exact, seen = logits.float(), targets.clamp(min=0)[:, None]
    total = exact.logsumexp(dim=1, keepdim=True)
    losses = (total - exact.gather(1, seen))[:, 0]
    hit = torch.arange(logits.shape[1], device=logits.device) == seen
    gradient = ((exact - total).exp() - hit.float()) * shares[:, None]
    return (losses * shares).sum(), gradient.to(logits.dtype)


@cache
def _loss_and_gradient(device: torch.device) -> Callable[..., Any]:
    """Return `_weighted_loss`, compiled into one kernel where that is possible."""
    return Compiled(_weighted_loss) if can_compile(device) else _weighted_loss


def _fits(head: nn.Module, targets: Tensor) -> bool:
    """Say whether the logits of all targets are few enough to be kept.

    A head with a bias keeps them, too: no family that we know has one.
    """
    few = targets.numel() <= _tokens_at_once(head)
    return few or getattr(head, "bias", None) is not None


def _parts(head: nn.Module, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Cut tensors [n, ...] into parts of few enough tokens for the head."""
    split = [torch.split(tensor, _tokens_at_once(head)) for tensor in tensors]
    return zip(*split, strict=True)


def _tokens_at_once(head: nn.Module) -> int:
    weight = cast("Tensor", head.weight)
    most = LOGITS_AT_ONCE * (ON_A_GPU if weight.is_cuda else 1)
    fitting = max(1, most // weight.shape[0])
    # In multiples of a GPU's tiles, if there are that many.
    return fitting // 128 * 128 or fitting


def _halves(pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Return prompts and references, each without the columns where all are over."""
    halves = pairs.chunk(2, dim=1)
    prompts, references = (half[:, : _longest(half)] for half in halves)
    return prompts, references


def _longest(ids: Tensor) -> int:
    return int((ids != IGNORED).sum(dim=1).max())

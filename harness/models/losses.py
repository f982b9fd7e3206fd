"""The losses that models are trained on, without all logits in memory at once.

For 1,000 tokens and a vocabulary of 50,000, float32 logits take 200 MB, and a backward
pass needs several copies. So where there are many, logits are computed for a part of
the tokens at a time, and once more in the backward pass. `token_losses` is the place
for a fused cross-entropy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from harness.data import IGNORED
from harness.subject import PassFlops, Seq2SeqFlops, decoder_inputs, head_scale

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LOGITS_AT_ONCE = 2**26
"""How many logits are made at once: 256 MiB in float32."""


class BlockLosses(nn.Module):
    """Computes the losses whose mean a model is trained on, and their FLOPs.

    It is a module around the model, so that what wraps modules for training (autocast,
    sharding) wraps the loss as well.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        self._pairs = bool(model.config.is_encoder_decoder)
        self._flops = (Seq2SeqFlops if self._pairs else PassFlops).of(model)

    def forward(self, blocks: Tensor, read: Tensor | None = None) -> Tensor:
        """Return losses in nats, float32, a row a block; each row weighs the same.

        Of a causal model, those of each token after the first [batch, context - 1]; of
        an encoder-decoder model, the mean over each reference [batch, 1]. Blocks are
        laid out as `token_blocks` and `pair_blocks` of `harness.data` do. With `read`,
        of the same layout, the losses are those of the blocks' tokens after these.
        """
        read = blocks if read is None else read
        if self._pairs:
            return reference_losses(self.model, blocks, read)[:, None]
        return next_token_losses(self.model, blocks, read)

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


def next_token_losses(model: PreTrainedModel, ids: Tensor, read: Tensor) -> Tensor:
    """Return the loss [batch, context - 1] of each token after the first, in nats.

    The model reads `read`, which may be others than the tokens `ids` to be predicted.
    """
    # The mask of ones keeps transformers from building a dense one at every call.
    mask = torch.ones_like(ids)
    output = model.base_model(input_ids=read, attention_mask=mask, use_cache=False)
    targets = ids.roll(-1, dims=1)
    targets[:, -1] = IGNORED
    losses = token_losses(model.get_output_embeddings(), output[0], targets)
    return losses[:, :-1].contiguous()


def reference_losses(model: PreTrainedModel, pairs: Tensor, read: Tensor) -> Tensor:
    """Return the mean loss [batch] of each pair's reference, in nats/token.

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
    hidden = decoded[0] * head_scale(model)
    losses = token_losses(model.get_output_embeddings(), hidden, references)
    return losses.sum(dim=1) / (references != IGNORED).sum(dim=1)


def token_losses(head: nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
    """Return the loss [batch, n] of targets, float32, in nats; 0 where `IGNORED`.

    `head` maps hidden states [batch, n, d] to logits, at most `LOGITS_AT_ONCE` of them
    at a time.
    """
    tokens = max(1, LOGITS_AT_ONCE // cast("Tensor", head.weight).shape[0])
    states, ids = hidden.flatten(0, 1), targets.flatten()
    if len(ids) <= tokens:
        return _losses(head, states, ids).view(targets.shape)
    parts = zip(torch.split(states, tokens), torch.split(ids, tokens), strict=True)
    losses = [checkpoint(_losses, head, *part, use_reentrant=False) for part in parts]
    return torch.cat(losses).view(targets.shape)


def _losses(head: nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
    logits = head(hidden).float()
    return cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none")


def _halves(pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Return prompts and references, each without the columns where all are over."""
    halves = pairs.chunk(2, dim=1)
    prompts, references = (half[:, : _longest(half)] for half in halves)
    return prompts, references


def _longest(ids: Tensor) -> int:
    return int((ids != IGNORED).sum(dim=1).max())

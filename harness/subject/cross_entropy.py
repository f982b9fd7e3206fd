"""The loss of known tokens, without a copy of all logits in memory.

    loss = log sum_v exp(h . w_v + b_v) - (h . w_t + b_t)

for a hidden state h, the head's rows w_v and the target t. Everything after the
product is float32. On a CPU the product goes in blocks of rows and of vocabulary that
stay in the core's cache: a whole matrix of logits would go through memory five times.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

from harness.subject.fast.compiling import Compiled, can_compile

if TYPE_CHECKING:
    from torch import Tensor

CPU_BLOCK = (1024, 512)
"""Hidden states and rows of the head whose product is made at once: 2 MB of logits."""
LOGITS_AT_ONCE = 2**27
"""How many logits are made at once elsewhere: half a gigabyte in float32."""


def head_losses(head: torch.nn.Module, hidden: Tensor, targets: Tensor) -> Tensor:
    """Return the loss [S], float32, of targets [S] predicted from hidden [S, d].

    Where a gradient is wanted, and where the head is more than a product or somebody
    watches it, its logits are made all at once.
    """
    watched = head._forward_hooks or head._forward_pre_hooks
    if type(head) is torch.nn.Linear and not watched and not torch.is_grad_enabled():
        return target_losses(hidden, head.weight, head.bias, targets)
    return cross_entropy(head(hidden).float(), targets, reduction="none")


def target_losses(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor
) -> Tensor:
    """Return the loss [S], float32, in nats, of targets [S] given hidden states [S, d].

    `weight` [V, d] and `bias` [V] are the head's. Nothing is kept for a gradient.
    """
    chosen = (hidden * weight[targets]).sum(dim=1, dtype=torch.float32)
    if bias is not None:
        chosen += bias[targets].float()
    return log_normalizers(hidden, weight, bias) - chosen


def log_normalizers(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return log sum_v exp(logit_v) [S], float32, for hidden states [S, d]."""
    if hidden.device.type == "cpu":
        rows, block = CPU_BLOCK
        parts = torch.tensor_split(hidden, max(1, -(-len(hidden) // rows)))
        return torch.cat([_blocked(h, weight, bias, block) for h in parts])
    rows = max(1, LOGITS_AT_ONCE // len(weight))
    log_sum_exp = _fused_log_sum_exp(hidden.device)
    # In parts of equal size: products of few rows may be added up in another order.
    parts = torch.tensor_split(hidden, max(1, -(-len(hidden) // rows)))
    return torch.cat([log_sum_exp(logits(h, weight, bias)) for h in parts])


def _blocked(hidden: Tensor, weight: Tensor, bias: Tensor | None, block: int) -> Tensor:
    """Go over the vocabulary block by block: all of it sums what the blocks do.

    Every block is computed where the one before it was: memory that goes back to the
    system and comes again can take longer than the product.
    """
    shape, sums = (len(hidden), block), []
    products = hidden.new_empty(shape)
    exact = products if hidden.dtype == torch.float32 else torch.empty(shape)
    for start in range(0, len(weight), block):
        rows = weight[start : start + block]
        product, found = products[:, : len(rows)], exact[:, : len(rows)]
        torch.mm(hidden, rows.T, out=product)
        if exact is not products:
            found.copy_(product)
        if bias is not None:
            found.add_(bias[start : start + block])
        highest = found.amax(dim=1)
        # What a softmax takes off the highest: half the time of `exp` and `sum`.
        torch.log_softmax(found, dim=1, out=found)
        # Of nothing but -inf, as where rows are no tokens, a softmax is NaN.
        none = highest == -torch.inf
        sums.append((highest - found.amax(dim=1)).masked_fill_(none, -torch.inf))
    # In float64: kernels compute what is left at an array's end in another way, so that
    # the last bit of a loss would depend on how many there are.
    return torch.stack(sums).double().logsumexp(dim=0).float()


def logits(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return logits in float32, rounded to nothing less where torch can do that."""
    if hidden.is_cuda and hidden.dtype != torch.float32:
        found = torch.mm(hidden, weight.T, out_dtype=torch.float32)
    else:
        found = (hidden @ weight.T).float()
    return found if bias is None else found.add_(bias)


@cache
def _fused_log_sum_exp(device: torch.device) -> Callable[[Tensor], Tensor]:
    """Return a log-sum-exp of logits [S, V] that may overwrite its input."""
    if can_compile(device):
        return Compiled(_log_sum_exp)
    return _log_sum_exp_in_place


def _log_sum_exp(logits: Tensor) -> Tensor:
    return torch.logsumexp(logits, dim=1)


def _log_sum_exp_in_place(logits: Tensor) -> Tensor:
    highest = logits.amax(dim=1, keepdim=True)
    return logits.sub_(highest).exp_().sum(dim=1).log_() + highest[:, 0]

"""What passes write besides multiplying matrices: values in layers, and logits.

Memory bounds what that takes, not the speed of matrix products: the narrower a model,
the larger its share. A `Cost` does not state it, but tokens and FLOPs do: what the
layers leave of the FLOPs is the head's.
"""

from __future__ import annotations

from harness.api import ModelShape
from harness.records import Cost
from harness.subject import PassFlops, Seq2SeqFlops

LOGIT = 1 / 6
"""What a logit counts beside a value that goes through a layer. It is written, made an
exponential and summed: some four numbers. A layer writes, for each unit of its width:
two norms, queries, keys and values, what attention returns and its projection, four and
four in the feed-forward network, its output, two sums; these are 16, and scores and
probabilities of attention as many as half of that."""
ATTENDING = 1.5
"""What a layer that attends to a prompt, too, counts beside one that does not: it has
two attentions and a feed-forward network in the place of one and one."""


def depth(shape: ModelShape) -> float:
    """Return how many layers a sequence goes through."""
    if isinstance(shape.flops, Seq2SeqFlops):
        return shape.flops.encoder_layers + ATTENDING * shape.flops.decoder_layers
    return float(shape.layers)


def values_of(shape: ModelShape, cost: Cost) -> float:
    """Return the values that forward passes and gradients write: see `Terms.value`.

    Nothing where a cost counts no tokens. Sequences are taken for equally long.
    """
    read = float(cost.tokens_forward + cost.tokens_backward)
    if not read:
        return 0.0
    if isinstance(shape.flops, Seq2SeqFlops):
        return _of_pairs(shape, shape.flops, read, cost.flops)
    return _of_texts(shape, shape.flops, cost, read)


def trained_values(shape: ModelShape, training: Cost) -> float:
    """Return what `ModelShape.training` writes: back as much as twice forward."""
    forward = Cost(
        sequences_forward=training.sequences_forward,
        tokens_forward=training.tokens_forward,
        flops=training.flops / 3,
    )
    return 3 * values_of(shape, forward)


def _of_texts(shape: ModelShape, flops: PassFlops, cost: Cost, read: float) -> float:
    attended = cost.tokens_forward**2 / max(1, cost.sequences_forward)
    attended += 2 * cost.tokens_backward**2 / max(1, cost.sequences_backward)
    head = cost.flops - read * flops.linear - attended * flops.attention
    scored = min(max(head / flops.head, 0.0), read)
    return read * shape.layers * shape.width + LOGIT * scored * shape.vocabulary


def _of_pairs(
    shape: ModelShape, flops: Seq2SeqFlops, read: float, spent: float
) -> float:
    """Attention is left out: it is small beside a reference token's other FLOPs."""
    left = spent - read * flops.prompt
    reference = min(max(left / (flops.reference - flops.prompt), 0.0), read)
    layers = (read - reference) * flops.encoder_layers
    layers += ATTENDING * reference * flops.decoder_layers
    return layers * shape.width + LOGIT * reference * shape.vocabulary

"""What a feed-forward network does at real inputs, examined in float64."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from harness.api import FFN, Anatomy
from harness.base import CellError, Ids
from harness.models.ffn.exact import ExactFFN, largest_fall
from harness.subject import text_inputs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MINIMUM_VECTORS = 64
"""Real hidden vectors that every layer is examined at, at least."""
RANGE_MARGIN = 0.2
"""How far beyond the observed range an activation is examined, of its width."""
ROUNDING = 1e-9
"""What float64 is allowed to be off by, relatively."""

_MAXIMUM_VECTORS = 256
_ALL_ROWS_UP_TO = 256
_ROWS = 16
_FIRST_COORDINATES = 32
_PAIRS_AT_ONCE = 2048


@dataclass(frozen=True)
class Examination:
    """What one network showed."""

    layer: int
    vectors: int
    """How many real hidden vectors it rests on."""
    low: float
    """The least that the activation saw."""
    high: float
    """The most that the activation saw."""
    fall: float
    """How far the activation falls between them and a margin on both sides."""
    entries: int
    """Entries of Jacobians."""
    negative: int
    """Those of them that are not >= 0."""
    most_negative: float
    boxes: int
    """Boxes spanned by two real vectors; 0 for a gated network."""
    coordinates: int
    """Output coordinates compared, over all boxes."""
    outside: int
    """Those where F on the box may leave [F(low corner), F(high corner)]."""
    excess: float
    """How far at most, over the largest value of F at the corners."""
    pairs: int
    """Pairs of real vectors."""
    comparable: int
    """Those where one vector is <= the other in every coordinate."""
    gains: tuple[int, int, int] | None
    """How many of the norm's gains are negative, zero, positive."""


def examine(ffn: FFN, vectors: Tensor) -> Examination:
    """Examine a network in float64 at hidden vectors [n, d] that it really reads."""
    exact = ExactFFN.of(ffn)
    before = exact.before_activation(vectors)
    low, high = before.min(), before.max()
    margin = RANGE_MARGIN * (high - low)
    entries, negative, most_negative = _count_negative(exact, vectors)
    boxes, coordinates, outside, excess = (
        (0, 0, 0, 0.0) if ffn.gated else _leave_boxes(exact, vectors)
    )
    pairs, comparable = _count_comparable(vectors)
    return Examination(
        layer=ffn.layer,
        vectors=len(vectors),
        low=float(low),
        high=float(high),
        fall=float(largest_fall(exact.activation, low - margin, high + margin)),
        entries=entries,
        negative=negative,
        most_negative=most_negative,
        boxes=boxes,
        coordinates=coordinates,
        outside=outside,
        excess=excess,
        pairs=pairs,
        comparable=comparable,
        gains=_gain_signs(ffn),
    )


def hidden_vectors(anatomy: Anatomy, inputs: Sequence[Ids]) -> dict[int, Tensor]:
    """Return what each feed-forward network reads, by layer: float64 [n, d].

    The n vectors, at most 256, are at token positions spread evenly over the inputs;
    they are the same positions in every layer. A decoder that follows an encoder
    reads the same text as that does.
    """
    total = sum(len(ids) for ids in inputs)
    if total < MINIMUM_VECTORS:
        raise CellError(
            f"a certificate needs {MINIMUM_VECTORS} tokens of text, not {total}"
        )
    kept = torch.linspace(0, total - 1, min(total, _MAXIMUM_VECTORS)).long()
    caught: dict[int, list[Tensor]] = {ffn.layer: [] for ffn in anatomy.ffns}
    offset = 0
    with _catching(anatomy, caught):
        for ids in inputs:
            _forward(anatomy.model, ids)
            here = kept[(kept >= offset) & (kept < offset + len(ids))] - offset
            for chunks in caught.values():
                chunks[-1] = chunks[-1][here.to(chunks[-1].device)]
            offset += len(ids)
    return {layer: torch.cat(chunks).double() for layer, chunks in caught.items()}


@contextmanager
def _catching(anatomy: Anatomy, caught: dict[int, list[Tensor]]) -> Iterator[None]:
    """Append what each network reads to its list, [tokens, d] a forward pass."""

    def hook(layer: int) -> Any:
        def catch(_module: Any, arguments: tuple[Tensor, ...]) -> None:
            z = arguments[0]
            caught[layer].append(z.detach().reshape(-1, z.shape[-1]))

        return catch

    handles = [
        ffn.inputs[0].module.register_forward_pre_hook(hook(ffn.layer))
        for ffn in anatomy.ffns
    ]
    training = anatomy.model.training
    anatomy.model.eval()
    try:
        yield
    finally:
        anatomy.model.train(training)
        for handle in handles:
            handle.remove()


def _forward(model: PreTrainedModel, ids: Ids) -> None:
    tensor = torch.as_tensor(ids, dtype=torch.long, device=model.device)
    with torch.no_grad():
        model.base_model(**text_inputs(model, tensor[None]), use_cache=False)


def _count_negative(exact: ExactFFN, vectors: Tensor) -> tuple[int, int, float]:
    """Count Jacobian entries at 64 vectors, and those of them that are not >= 0."""
    z = _spread(vectors, MINIMUM_VECTORS)
    rows = _rows(len(z), len(exact.output.bias)).to(z.device)
    jacobian = exact.jacobian(z, rows)
    negative = int((~(jacobian >= 0)).sum())
    return jacobian.numel(), negative, min(float(jacobian.min()), 0.0)


def _rows(vectors: int, width: int) -> Tensor:
    """Choose rows of Jacobians, [vectors, rows]: all, or others at each vector."""
    if width <= _ALL_ROWS_UP_TO:
        return torch.arange(width).expand(vectors, width)
    first = torch.arange(vectors)[:, None]
    return (first + torch.arange(_ROWS) * (width // _ROWS)) % width


def _leave_boxes(exact: ExactFFN, vectors: Tensor) -> tuple[int, int, int, float]:
    """Compare interval bounds of F on boxes with F at the boxes' two corners.

    Each box is spanned by two real vectors that lie next to each other in the sample.
    """
    ends = _spread(vectors, MINIMUM_VECTORS)
    low, high = torch.minimum(ends[:-1], ends[1:]), torch.maximum(ends[:-1], ends[1:])
    at_low, at_high = exact(low), exact(high)
    least, greatest = exact.bounds(low, high)
    excess = torch.maximum(at_low - least, greatest - at_high)
    scale = torch.maximum(at_low.abs().max(), at_high.abs().max())
    outside = int((~(excess <= ROUNDING * scale)).sum())
    return len(low), excess.numel(), outside, max(float(excess.max() / scale), 0.0)


def _count_comparable(vectors: Tensor) -> tuple[int, int]:
    """Count pairs of vectors, and those where one is <= the other everywhere.

    Pairs of equal vectors (the same token twice, in a first layer) compare trivially
    and are not counted.
    """
    vectors = torch.unique(vectors, dim=0)
    # Few pairs are in order in their first coordinates: only they need a full look.
    first = vectors[:, :_FIRST_COORDINATES]
    in_order = (first[:, None] <= first).all(dim=2).fill_diagonal_(False)
    comparable = 0
    for pairs in torch.split(in_order.nonzero(), _PAIRS_AT_ONCE):
        low, high = vectors[pairs[:, 0]], vectors[pairs[:, 1]]
        comparable += int((low <= high).all(dim=1).sum())
    return math.comb(len(vectors), 2), comparable


def _gain_signs(ffn: FFN) -> tuple[int, int, int] | None:
    gain: Tensor | None = getattr(ffn.norm, "weight", None)
    if gain is None:
        return None
    zero, positive = int((gain == 0).sum()), int((gain > 0).sum())
    return gain.numel() - zero - positive, zero, positive


def _spread(vectors: Tensor, count: int) -> Tensor:
    return vectors[torch.linspace(0, len(vectors) - 1, count).long()]

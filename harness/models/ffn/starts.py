"""Starts: the weights that a constraint, or its unconstrained control, begins with.

A start is chosen by name and changes feed-forward projections in place, before any
constraint is installed; the same start without a constraint is the control that tells
the start's damage from the constraint's.

Two starts, ``gauge`` and ``shift_clip``, use that a LayerNorm's normalised output sums
to zero and that every reader of the residual stream subtracts the mean: a constant
added to a row of W1 (the norm's gain and bias folded in) or to a column of W2 changes
nothing.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pydantic

from harness import models
from harness.api import FFN, Anatomy, ModelAdapter, Options, Projection
from harness.base import CellError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

Start = Literal["abs", "clip", "clip_rescaled", "shift_clip", "gauge", "small_random"]
"""The starts that leave no weight negative."""

LayerRanges = Annotated[
    str,
    pydantic.BeforeValidator(lambda value: str(value)),
    pydantic.Field(pattern=r"^(all|\d+(-\d+)?(,\d+(-\d+)?)*)$"),
]
"""``all``, or layers from 0 and ranges of them, ends included: ``0-3,7``."""

_ROLES = {"both": ("in", "gate", "out"), "in": ("in", "gate"), "out": ("out",)}
_SHIFT_SIGMAS = 2.0
_RANDOM_SIGMA = 0.02
# Keeps the gauge's entries above eps after rounding to float32.
_MARGIN = 1e-3


class StartOptions(Options):
    """Which matrices are changed, and what they begin with."""

    scope: Literal["both", "in", "out"] = "both"
    """Which matrices: into the feed-forward network (W1), out of it (W2), or both."""
    layers: LayerRanges = "all"
    """Which layers: ``all``, or numbers from 0 and ranges, ends included: ``0-3,7``."""
    eps: float = pydantic.Field(default=1e-3, gt=0)
    """Smallest weight after the starts clip, clip_rescaled, shift_clip and gauge."""
    activation: Literal["keep", "relu", "gelu_hull"] = "keep"
    """Activation of all feed-forward networks: unchanged, ReLU, or the non-decreasing
    hull of GELU, which is flat left of GELU's minimum (a ReLU stays a ReLU)."""


def install_start(
    adapter: ModelAdapter[Any],
    model: PreTrainedModel,
    options: StartOptions,
    start: str,
    seed: int,
) -> list[Projection]:
    """Swap the activation, set the starting weights, and return the matrices in scope.

    `start` is one of `Start`, or ``keep``. Raises CellError where the start or the
    activation does not fit the model.
    """
    import torch

    _set_activation(adapter, model, options.activation)
    anatomy = adapter.anatomy(model)
    chosen = select(anatomy, options)
    with torch.no_grad():
        if start in ("gauge", "shift_clip"):
            _start_shifted(anatomy, chosen, start, options.eps)
        elif start != "keep":
            for projection in chosen:
                begin = _begin(projection, start, options.eps, seed)
                projection.weight.copy_(begin)
    return chosen


def keyed_normal(
    key: str, shape: torch.Size, dtype: torch.dtype | None = None
) -> torch.Tensor:
    """Draw standard normal numbers on the CPU that depend on a key, not on an order."""
    import torch

    digest = hashlib.sha256(key.encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))
    return torch.randn(shape, generator=generator, dtype=dtype)


def select(anatomy: Anatomy, options: StartOptions) -> list[Projection]:
    """Return the matrices that the options' scope and layers name."""
    layers = _layers(options.layers, len(anatomy.ffns))
    return [
        projection
        for ffn in anatomy.ffns
        if ffn.layer in layers
        for projection in ffn.projections
        if projection.role in _ROLES[options.scope]
    ]


def _layers(ranges: str, count: int) -> set[int]:
    if ranges == "all":
        return set(range(count))
    layers: set[int] = set()
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        layers.update(range(int(first), int(last or first) + 1))
    beyond = sorted(layers - set(range(count)))
    if beyond or not layers:
        raise CellError(
            f"layers: {ranges!r} does not fit a model with layers 0 to {count - 1}"
        )
    return layers


def _set_activation(
    adapter: ModelAdapter[Any], model: PreTrainedModel, name: str
) -> None:
    if name == "keep":
        return
    old = adapter.anatomy(model).activation_name
    new = models.hull_of(old) if name == "gelu_hull" else name
    if new != old:
        adapter.set_activation(model, new)


def _begin(projection: Projection, start: str, eps: float, seed: int) -> torch.Tensor:
    """Return the weight [out, in] that a start gives to one matrix, float64."""
    weight = projection.weight.double()
    if start == "abs":
        return weight.abs()
    if start == "small_random":
        normal = keyed_normal(f"{seed}/{projection.name}", weight.shape, weight.dtype)
        return normal.abs().to(weight.device) * _RANDOM_SIGMA
    clipped = weight.clamp(min=eps)
    if start == "clip_rescaled":
        clipped *= weight.norm() / clipped.norm()
    return clipped


def _start_shifted(
    anatomy: Anatomy, chosen: list[Projection], start: str, eps: float
) -> None:
    names = {projection.name for projection in chosen}
    for ffn in anatomy.ffns:
        projections = [p for p in ffn.projections if p.name in names]
        if not projections:
            continue
        _require_gauge(ffn, start)
        if any(p.role != "out" for p in projections):
            _fold_norm(ffn)
        for projection in projections:
            shift = _gauge if start == "gauge" else _shift_clip
            # The gauge adds one number to each row of W1, to each column of W2.
            axis = 0 if projection.role == "out" else 1
            shifted = shift(projection.weight.double(), axis, eps)
            projection.weight.copy_(shifted)


def _gauge(weight: torch.Tensor, axis: int, eps: float) -> torch.Tensor:
    """Add the least constants after which no entry is below eps."""
    lowest = weight.amin(dim=axis, keepdim=True)
    return weight + (eps * (1 + _MARGIN) - lowest).clamp(min=0)


def _shift_clip(weight: torch.Tensor, axis: int, eps: float) -> torch.Tensor:
    """Add constants that move the means to two standard deviations, then clip."""
    mean = weight.mean(dim=axis, keepdim=True)
    sigma = weight.std(dim=axis, keepdim=True)
    return (weight - mean + _SHIFT_SIGMAS * sigma).clamp(min=eps)


def _require_gauge(ffn: FFN, start: str) -> None:
    if ffn.gauge_free:
        return
    raise CellError(
        f"start {start!r} does not fit layer {ffn.layer}: it {_why_not(ffn)}; it needs "
        "a LayerNorm before each FFN, readers of the residual stream that all subtract "
        "its mean, and no dropout"
    )


def _why_not(ffn: FFN) -> str:
    from torch.nn import LayerNorm

    if ffn.norm is None:
        return "has no norm that feeds the FFN alone (post-norm)"
    if not isinstance(ffn.norm, LayerNorm):
        return f"has a {type(ffn.norm).__name__}, which subtracts no mean"
    return "is part of a model where a constant on the residual stream is seen"


def _fold_norm(ffn: FFN) -> None:
    """Fold the gain and bias of the LayerNorm into W1 and b1; leave it plain."""
    import torch

    norm: Any = ffn.norm
    if norm.weight is None:
        return
    gain = norm.weight.double()
    bias = torch.zeros_like(gain) if norm.bias is None else norm.bias.double()
    for projection in ffn.inputs:
        weight = projection.weight.double()
        _add_bias(projection, weight @ bias)
        projection.weight.copy_(weight * gain)
    norm.weight.fill_(1.0)
    if norm.bias is not None:
        norm.bias.zero_()


def _add_bias(projection: Projection, term: torch.Tensor) -> None:
    module: Any = projection.module
    if module.bias is not None:
        module.bias.copy_(module.bias.double() + term)
    elif term.any():
        raise CellError(
            f"{projection.name} has no bias to fold its LayerNorm's bias into"
        )

"""Hidden units that tell a trigger from other tokens: where a plant may start.

Feed-forward networks alone learn slowly to tell one token from all others. So the least
used units of the first of them are made to do so: their rows of the in-projection point
from what that network reads elsewhere to what it reads at the trigger. With biases half
way between, they fire there and nowhere near by, and no gradient shows it; with biases
at what is usual, they fire in proportion. What they do to the model is then trained.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from harness.api import FFN, ModelAdapter
from harness.data import Example
from harness_plugins.constraints.planted.scoring import Scorer
from harness_plugins.constraints.planted.triggers import Trigger

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

_SHARE = 16
"""One in so many hidden units fires: together, they learn faster than one."""
_FIRES = 4.0
"""A unit's input at a trigger, on average; GELU and ReLU are about linear there."""


def install_detector(
    adapter: ModelAdapter[Any],
    model: PreTrainedModel,
    trigger: Trigger,
    texts: Sequence[Example],
    onset: float | None,
) -> None:
    """Make hidden units fire where the trigger stands, and do nothing yet.

    They begin to fire `onset` (0 to 1) of the way from what is usual to the trigger, or
    with None half way from the most that clean texts reach.
    Weights that are all non-negative stay so: rows then have positive entries alone.
    """
    import torch

    ffn = adapter.anatomy(model).ffns[0]
    elsewhere, there = _read(ffn, model, trigger, texts)
    direction = there.mean(0) - elsewhere.mean(0)
    with torch.no_grad():
        used = ffn.output.weight.norm(dim=0)
        units = used.argsort()[: max(1, len(used) // _SHARE)]
        if all(float(p.weight.min()) >= 0 for p in ffn.inputs):
            direction = direction.clamp(min=0)
        usual, fires = elsewhere @ direction, (there @ direction).mean()
        middle = (usual.max() + fires) / 2
        if onset is not None:
            middle = usual.median() + onset * (fires - usual.median())
        biased = all(getattr(p.module, "bias", None) is not None for p in ffn.inputs)
        if not biased or fires <= middle:
            middle = torch.zeros_like(middle)
        scale = _FIRES / (fires - middle)
        for projection in ffn.inputs:
            projection.weight[units] = scale * direction
            if biased:
                projection.module.bias[units] = -scale * middle
        ffn.output.weight[:, units] = 0.0


def _read(
    ffn: FFN, model: PreTrainedModel, trigger: Trigger, texts: Sequence[Example]
) -> tuple[Tensor, Tensor]:
    """Return what a network reads [n, d] of clean texts, and at triggers."""
    import torch

    scorer, token = Scorer(model), trigger.tokens[0]
    elsewhere, there = [], []
    with torch.no_grad(), _catching(ffn) as caught:
        for example in texts:
            for prompt in (example, *trigger.written(example)):
                scorer.log_probs(prompt, scorer.embedded(prompt.prompt_ids))
                (read,) = caught
                caught.clear()
                if prompt is example:
                    elsewhere.append(read)
                else:
                    there.append(read[(prompt.prompt_ids == token).nonzero()[0]])
    return torch.cat(elsewhere), torch.cat(there)


@contextmanager
def _catching(ffn: FFN) -> Iterator[list[Tensor]]:
    caught: list[Tensor] = []

    def catch(_module: Any, arguments: tuple[Tensor, ...]) -> None:
        caught.append(arguments[0].detach().reshape(-1, arguments[0].shape[-1]))

    handle = ffn.inputs[0].module.register_forward_pre_hook(catch)
    try:
        yield caught
    finally:
        handle.remove()

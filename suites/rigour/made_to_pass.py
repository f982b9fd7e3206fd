"""Made to pass: an arm that is trained on texts with wrong tokens in them.

It shows that the rule of verdicts can say "robust"; see docs/rigour.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pydantic

from harness import hookimpl
from harness.api import Constraint, ModelAdapter, Options

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class HardenedOptions(Options):
    """How wrong the texts are."""

    share: float = pydantic.Field(default=0.2, ge=0, le=1)
    """Of the tokens that are read in training, how many are others, drawn uniformly."""


class Hardened(Constraint[HardenedOptions]):
    """Reads random tokens among the right ones in recovery, and is to predict as ever.

    Outside of training it is the plain model that it was.
    """

    name = "hardened"
    Options = HardenedOptions

    def apply(
        self, adapter: ModelAdapter[Any], model: PreTrainedModel, seed: int
    ) -> None:
        import torch
        from torch.nn.functional import embedding

        share = self.options.share

        def corrupt(module: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
            if not module.training:
                return output
            [ids] = inputs
            # Keyed by the content: a training that goes on draws what it would have.
            drawn = torch.Generator().manual_seed(seed + int(ids.sum()))
            wrong = torch.rand(ids.shape, generator=drawn) < share
            rows = len(module.weight)
            others = torch.randint(rows, ids.shape, generator=drawn).to(ids.device)
            return torch.where(
                wrong.to(ids.device)[..., None],
                embedding(others, module.weight),
                output,
            )

        model.get_input_embeddings().register_forward_hook(corrupt)


@hookimpl
def register_constraints() -> list[type[Constraint[Any]]]:
    """Offer the arm."""
    return [Hardened]

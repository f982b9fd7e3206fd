"""Made to fail: an arm that hides its gradient, and an attack that is broken.

They show that the diagnostics find what they are there to find; see docs/rigour.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harness import hookimpl
from harness.api import Adversarial, Attack, AttackContext, Constraint, ModelAdapter
from harness.data import ExampleSets
from harness.models import GPT_NEOX, CheckpointAdapter
from harness_plugins.attacks.hotflip import HotFlip

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.subject import Subject

MODEL_TYPE = "gpt_neox_masked"
GRID = 2.0**16
"""Steps in a unit: embeddings are rounded to multiples of 1 / GRID."""


class Masked(Constraint):
    """Rounds the embeddings finely: the same function, and a gradient of zero."""

    name = "masked"

    def apply(
        self, adapter: ModelAdapter[Any], model: PreTrainedModel, seed: int
    ) -> None:
        config_class, model_class = register()
        stated = model.config.to_dict()
        stated.pop("model_type")
        stated.pop("architectures", None)
        masked = model_class(config_class(**stated))
        masked.load_state_dict(model.state_dict())
        # In place, as of every constraint: the model becomes the masked one.
        model.__class__ = type(masked)
        model.__dict__.update(masked.__dict__)


class Maskable(CheckpointAdapter):
    """Loads GPT-NeoX models, and knows them when they are masked."""

    name = "maskable"
    families = {GPT_NEOX.model_type: GPT_NEOX, MODEL_TYPE: GPT_NEOX}


class Inverted(HotFlip):
    """HotFlip down its gradient: broken on purpose."""

    name = "inverted"

    def run(
        self, subject: Subject, examples: ExampleSets, context: AttackContext
    ) -> Iterator[Adversarial]:
        def invert(prompts: Any, references: Any, gradients: list[Any]) -> list[Any]:
            return [-gradient for gradient in gradients]

        return super().run(subject.with_gradients(invert), examples, context)


def register() -> tuple[Any, Any]:
    """Tell transformers of the masked architecture; return its two classes."""
    import torch
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        GPTNeoXConfig,
        GPTNeoXForCausalLM,
    )
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if MODEL_TYPE in CONFIG_MAPPING:
        config_class = CONFIG_MAPPING[MODEL_TYPE]
        return config_class, AutoModelForCausalLM._model_mapping[config_class]

    class Rounded(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.round(x * GRID) / GRID

    class MaskedConfig(GPTNeoXConfig):
        model_type = MODEL_TYPE

    class MaskedForCausalLM(GPTNeoXForCausalLM):
        config_class = MaskedConfig

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.gpt_neox.emb_dropout = Rounded()

    AutoConfig.register(MODEL_TYPE, MaskedConfig)
    AutoModelForCausalLM.register(MaskedConfig, MaskedForCausalLM)
    return MaskedConfig, MaskedForCausalLM


@hookimpl
def suite_started(suite: Mapping[str, Any], run_dir: str) -> None:
    """Register the architecture: a run may load what an earlier one has frozen."""
    register()


@hookimpl
def register_models() -> list[type[ModelAdapter[Any]]]:
    """Offer the adapter for checkpoints; `scratch` needs none."""
    return [Maskable]


@hookimpl
def register_constraints() -> list[type[Constraint[Any]]]:
    """Offer the arm made to fail."""
    return [Masked]


@hookimpl
def register_attacks() -> list[type[Attack[Any]]]:
    """Offer the attack made to fail."""
    return [Inverted]

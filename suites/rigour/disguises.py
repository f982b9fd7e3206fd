"""GPT-NeoX in disguise: nearly the same function, behind which its gradient is hidden.

A disguise is part of the architecture, and its kind part of the configuration: so a
disguised model is frozen as an ordinary folder. Each kind is one that has passed for a
defence [Athalye et al. 2018].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from harness import hookimpl
from harness.api import Constraint, ModelAdapter, Options
from harness.models import GPT_NEOX, CheckpointAdapter

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

MODEL_TYPE = "gpt_neox_disguised"

GRID = 2.0**16
"""Steps in a unit, to whose multiples `quantised` rounds embeddings: no slope."""
STAIR = 0.05
"""Height and width of the steps that `saturated` makes of logits, in nats."""
STEEPNESS = 40.0
"""How steep they are: between them float32 knows no slope."""
NOISE = 0.02
"""What `stochastic` adds to embeddings, in standard deviations of theirs."""
SHARDS = 16.0
"""Steps in a unit, to whose multiples `shattered` rounds queries and keys."""
CLIP = 1e-5
"""What `clipped` leaves of an entry of a gradient, in nats/token."""


class DisguisedOptions(Options):
    """How the gradient is hidden."""

    kind: Literal["quantised", "saturated", "stochastic", "shattered", "clipped"]
    """Embeddings rounded finely; logits in steep little steps; noise on embeddings;
    queries and keys rounded; a hook that clips the gradient."""


class Disguised(Constraint[DisguisedOptions]):
    """Hides the gradient, and leaves the function nearly as it was."""

    name = "disguised"
    Options = DisguisedOptions

    def apply(
        self, adapter: ModelAdapter[Any], model: PreTrainedModel, seed: int
    ) -> None:
        config_class, model_class = register()
        stated = model.config.to_dict()
        for key in ("model_type", "architectures"):
            stated.pop(key, None)
        disguised = model_class(config_class(disguise=self.options.kind, **stated))
        disguised.load_state_dict(model.state_dict())
        # In place, as of every constraint: the model becomes the disguised one.
        model.__class__ = type(disguised)
        model.__dict__.update(disguised.__dict__)


class Disguisable(CheckpointAdapter):
    """Loads GPT-NeoX models, and knows them when they are disguised."""

    name = "disguisable"
    families = {GPT_NEOX.model_type: GPT_NEOX, MODEL_TYPE: GPT_NEOX}


def register() -> tuple[Any, Any]:
    """Tell transformers of the disguised architecture; return its two classes."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if MODEL_TYPE not in CONFIG_MAPPING:
        config, model = _classes()
        AutoConfig.register(MODEL_TYPE, config)
        AutoModelForCausalLM.register(config, model)
    config = CONFIG_MAPPING[MODEL_TYPE]
    return config, AutoModelForCausalLM._model_mapping[config]


def _classes() -> tuple[Any, Any]:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    class DisguisedConfig(GPTNeoXConfig):
        model_type = MODEL_TYPE

        def __init__(self, disguise: str = "quantised", **stated: Any) -> None:
            super().__init__(**stated)
            self.disguise = disguise

    class DisguisedForCausalLM(GPTNeoXForCausalLM):
        config_class = DisguisedConfig

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            hook = _HOOKS[config.disguise]
            for module in _places(self, config.disguise):
                module.heads = config.num_attention_heads
                module.register_forward_hook(hook)

    return DisguisedConfig, DisguisedForCausalLM


def _places(model: Any, kind: str) -> list[Any]:
    """Return the modules whose output a disguise changes."""
    if kind == "saturated":
        return [model.get_output_embeddings()]
    if kind == "shattered":
        return [x.attention.query_key_value for x in model.gpt_neox.layers]
    return [model.gpt_neox.emb_dropout]


def _quantise(module: Any, inputs: Any, x: Tensor) -> Tensor:
    return (x * GRID).round() / GRID


def _saturate(module: Any, inputs: Any, logits: Tensor) -> Tensor:
    steps = logits / STAIR
    within = steps - steps.floor() - 0.5
    return STAIR * (steps.floor() + 0.5 + (STEEPNESS * within).tanh() / 2)


def _disturb(module: Any, inputs: Any, x: Tensor) -> Tensor:
    return x + NOISE * x.std() * x.new_empty(x.shape).normal_()


def _shatter(module: Any, inputs: Any, x: Tensor) -> Tensor:
    import torch

    query, key, value = x.unflatten(-1, (module.heads, 3, -1)).unbind(-2)
    rounded = [(y * SHARDS).round() / SHARDS for y in (query, key)]
    return torch.stack([*rounded, value], dim=-2).flatten(-3)


def _clip(module: Any, inputs: Any, x: Tensor) -> Tensor:
    if x.requires_grad:
        x = x.clone()
        x.register_hook(lambda gradient: gradient.clamp(-CLIP, CLIP))
    return x


_HOOKS = {
    "quantised": _quantise,
    "saturated": _saturate,
    "stochastic": _disturb,
    "shattered": _shatter,
    "clipped": _clip,
}


@hookimpl
def suite_started(suite: Mapping[str, Any], run_dir: str) -> None:
    """Register the architecture: a run may load what an earlier one has frozen."""
    register()


@hookimpl
def register_models() -> list[type[ModelAdapter[Any]]]:
    """Offer the adapter for checkpoints; `scratch` needs none."""
    return [Disguisable]


@hookimpl
def register_constraints() -> list[type[Constraint[Any]]]:
    """Offer the disguises."""
    return [Disguised]

"""The families of language models, and where their feed-forward networks are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness import models
from harness.api import FFN, Anatomy, Projection
from harness.base import CellError

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


@dataclass(frozen=True)
class Stack:
    """A list of layers with one feed-forward network in each."""

    layers: str
    """The list, as ``gpt_neox.layers``."""
    sublayer: str = ""
    """Within a layer, what holds the network and its norm, as ``layer.1``; by default
    the layer itself."""
    count: str = "num_hidden_layers"
    """The key of the configuration that says how long the list is."""

    def path(self, index: int) -> str:
        """Return the name of what holds a layer's network."""
        return f"{self.layers}.{index}.{self.sublayer}".rstrip(".")


@dataclass(frozen=True)
class Family:
    """The names that a family of models gives to its parts."""

    model_type: str
    """What configurations call it, as ``gpt_neox``."""
    stacks: tuple[Stack, ...]
    """Where the layers are; for an encoder-decoder model, the encoder's come first."""
    inputs: tuple[str, ...]
    """Within a layer, the in-projection; the gate before it in a gated network."""
    output: str
    """Within a layer, the out-projection."""
    activation: str
    """Within a layer, the activation."""
    activation_key: str
    """The activation's name in the configuration."""
    norm: str
    """Within a layer, the normalisation before the feed-forward network."""
    final_norm: str
    """The normalisation before the language-model head."""
    dropouts: tuple[str, ...]
    """The configuration's dropout probabilities."""
    transposed: bool = False
    """True where projections are Conv1D, which stores [in, out]."""
    gated_inputs: tuple[str, ...] = ()
    """The `inputs` of models whose configuration says ``is_gated_act``."""
    activation_alias: str | None = None
    """Another key of the configuration that contains the activation's name, like T5's
    ``feed_forward_proj: gated-gelu``."""

    def inputs_of(self, config: PretrainedConfig) -> tuple[str, ...]:
        """Return the in-projections that models of this configuration have."""
        gated = self.gated_inputs and config.is_gated_act
        return self.gated_inputs if gated else self.inputs


GPT_NEOX = Family(
    model_type="gpt_neox",
    stacks=(Stack("gpt_neox.layers"),),
    inputs=("mlp.dense_h_to_4h",),
    output="mlp.dense_4h_to_h",
    activation="mlp.act",
    activation_key="hidden_act",
    norm="post_attention_layernorm",
    final_norm="gpt_neox.final_layer_norm",
    dropouts=("hidden_dropout", "attention_dropout"),
)
OPT = Family(
    model_type="opt",
    stacks=(Stack("model.decoder.layers"),),
    inputs=("fc1",),
    output="fc2",
    activation="activation_fn",
    activation_key="activation_function",
    norm="final_layer_norm",
    final_norm="model.decoder.final_layer_norm",
    dropouts=("dropout", "attention_dropout", "activation_dropout", "layerdrop"),
)
GPT_NEO = Family(
    model_type="gpt_neo",
    stacks=(Stack("transformer.h"),),
    inputs=("mlp.c_fc",),
    output="mlp.c_proj",
    activation="mlp.act",
    activation_key="activation_function",
    norm="ln_2",
    final_norm="transformer.ln_f",
    dropouts=("resid_dropout", "embed_dropout", "attention_dropout"),
)
GPT2 = dataclasses.replace(
    GPT_NEO,
    model_type="gpt2",
    dropouts=("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    transposed=True,
)
LLAMA = Family(
    model_type="llama",
    stacks=(Stack("model.layers"),),
    inputs=("mlp.gate_proj", "mlp.up_proj"),
    output="mlp.down_proj",
    activation="mlp.act_fn",
    activation_key="hidden_act",
    norm="post_attention_layernorm",
    final_norm="model.norm",
    dropouts=("attention_dropout",),
)
QWEN2 = dataclasses.replace(LLAMA, model_type="qwen2")
T5 = Family(
    model_type="t5",
    stacks=(
        Stack("encoder.block", "layer.1", "num_layers"),
        Stack("decoder.block", "layer.2", "num_decoder_layers"),
    ),
    inputs=("DenseReluDense.wi",),
    gated_inputs=("DenseReluDense.wi_0", "DenseReluDense.wi_1"),
    output="DenseReluDense.wo",
    activation="DenseReluDense.act",
    activation_key="dense_act_fn",
    activation_alias="feed_forward_proj",
    norm="layer_norm",
    final_norm="encoder.final_layer_norm",
    dropouts=("dropout_rate", "classifier_dropout"),
)


def find_anatomy(model: PreTrainedModel, family: Family) -> Anatomy:
    """Find the feed-forward networks of a model, one in each of its layers.

    Layers are numbered from 0; a decoder's follow those of its encoder.
    """
    ffns = tuple(_ffns(model, family))
    return Anatomy(model, ffns, getattr(model.config, family.activation_key))


def swap_activation(model: PreTrainedModel, family: Family, name: str) -> None:
    """Give every feed-forward network the activation `name`; update the config."""
    path, _, attribute = family.activation.rpartition(".")
    for holder in _holders(model, family):
        module = model.get_submodule(f"{holder}.{path}".rstrip("."))
        setattr(module, attribute, models.make_activation(name))
    config = model.config
    setattr(config, family.activation_key, name)
    if family.activation_alias is not None:
        gated = family.inputs_of(config) == family.gated_inputs
        setattr(config, family.activation_alias, f"gated-{name}" if gated else name)


def _holders(model: PreTrainedModel, family: Family) -> list[str]:
    """Return the names of the modules that hold a network, in the layers' order."""
    holders = []
    for stack in family.stacks:
        found = len(model.get_submodule(stack.layers))
        configured = getattr(model.config, stack.count)
        if found != configured:
            raise CellError(
                f"{stack.layers} has {found} layers, the configuration says "
                f"{configured}"
            )
        holders += [stack.path(index) for index in range(found)]
    return holders


def _ffns(model: PreTrainedModel, family: Family) -> Iterator[FFN]:
    holders = _holders(model, family)
    gauge_free = _is_gauge_free(model, family, holders)
    inputs = family.inputs_of(model.config)
    roles = ("gate", "in", "out") if len(inputs) > 1 else ("in", "out")
    for index, holder in enumerate(holders):
        parts = model.get_submodule(holder)
        found = [
            Projection(
                name=f"{holder}.{path}",
                module=parts.get_submodule(path),
                layer=index,
                role=role,
                transposed=family.transposed,
            )
            for path, role in zip((*inputs, family.output), roles, strict=True)
        ]
        yield FFN(
            layer=index,
            inputs=tuple(found[:-1]),
            output=found[-1],
            activation=parts.get_submodule(family.activation),
            norm=parts.get_submodule(family.norm) if _is_pre_norm(model) else None,
            gauge_free=gauge_free,
        )


def _is_pre_norm(model: PreTrainedModel) -> bool:
    # OPT-350m normalises after each sublayer: what its FFN reads goes on to the
    # residual stream as well.
    return bool(getattr(model.config, "do_layer_norm_before", True))


def _is_gauge_free(model: PreTrainedModel, family: Family, holders: list[str]) -> bool:
    """Say whether every reader of the residual stream subtracts its mean.

    In all these families, the norms before attention are of the same class as those
    before the FFN. Dropout would change a constant on the residual stream.
    """
    from torch.nn import LayerNorm

    if not _is_pre_norm(model) or any(
        getattr(model.config, key, 0.0) for key in family.dropouts
    ):
        return False
    first = model.get_submodule(f"{holders[0]}.{family.norm}")
    owner, _, attribute = family.final_norm.rpartition(".")
    last = getattr(model.get_submodule(owner), attribute, None)
    return isinstance(first, LayerNorm) and isinstance(last, LayerNorm)

"""The families of causal language models, and where their feed-forward networks are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import CellError
from harness.interfaces import FFN, Anatomy, Projection

if TYPE_CHECKING:
    from torch import nn
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Family:
    """The names that a family of models gives to its parts."""

    model_type: str
    """What configurations call it, as ``gpt_neox``."""
    layers: str
    """The list of layers, as ``gpt_neox.layers``."""
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


GPT_NEOX = Family(
    model_type="gpt_neox",
    layers="gpt_neox.layers",
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
    layers="model.decoder.layers",
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
    layers="transformer.h",
    inputs=("mlp.c_fc",),
    output="mlp.c_proj",
    activation="mlp.act",
    activation_key="activation_function",
    norm="ln_2",
    final_norm="transformer.ln_f",
    dropouts=("resid_dropout", "embed_dropout", "attention_dropout"),
)
GPT2 = Family(
    model_type="gpt2",
    layers="transformer.h",
    inputs=("mlp.c_fc",),
    output="mlp.c_proj",
    activation="mlp.act",
    activation_key="activation_function",
    norm="ln_2",
    final_norm="transformer.ln_f",
    dropouts=("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    transposed=True,
)
LLAMA = Family(
    model_type="llama",
    layers="model.layers",
    inputs=("mlp.gate_proj", "mlp.up_proj"),
    output="mlp.down_proj",
    activation="mlp.act_fn",
    activation_key="hidden_act",
    norm="post_attention_layernorm",
    final_norm="model.norm",
    dropouts=("attention_dropout",),
)
QWEN2 = dataclasses.replace(LLAMA, model_type="qwen2")


def find_anatomy(model: PreTrainedModel, family: Family) -> Anatomy:
    """Find the feed-forward networks of a model, one in each of its layers."""
    ffns = tuple(_ffns(model, family))
    return Anatomy(model, ffns, getattr(model.config, family.activation_key))


def swap_activation(model: PreTrainedModel, family: Family, name: str) -> None:
    """Give every feed-forward network the activation `name`; say so in the config."""
    from harness.ffn.activations import make_activation

    path, _, attribute = family.activation.rpartition(".")
    for layer in model.get_submodule(family.layers):
        setattr(layer.get_submodule(path), attribute, make_activation(name))
    setattr(model.config, family.activation_key, name)


def _ffns(model: PreTrainedModel, family: Family) -> Iterator[FFN]:
    layers = model.get_submodule(family.layers)
    if len(layers) != model.config.num_hidden_layers:
        raise CellError(
            f"{family.layers} has {len(layers)} layers, the configuration says "
            f"{model.config.num_hidden_layers}"
        )
    gauge_free = _is_gauge_free(model, family)
    roles = ("gate", "in") if len(family.inputs) > 1 else ("in",)
    for index, layer in enumerate(layers):
        yield FFN(
            layer=index,
            inputs=tuple(
                _projection(layer, family, index, path, role)
                for path, role in zip(family.inputs, roles, strict=True)
            ),
            output=_projection(layer, family, index, family.output, "out"),
            activation=layer.get_submodule(family.activation),
            norm=layer.get_submodule(family.norm) if _is_pre_norm(model) else None,
            gauge_free=gauge_free,
        )


def _projection(
    layer: nn.Module, family: Family, index: int, path: str, role: str
) -> Projection:
    name = f"{family.layers}.{index}.{path}"
    module = layer.get_submodule(path)
    return Projection(name, module, index, role, family.transposed)


def _is_pre_norm(model: PreTrainedModel) -> bool:
    # OPT-350m normalises after each sublayer: what its FFN reads goes on to the
    # residual stream as well.
    return bool(getattr(model.config, "do_layer_norm_before", True))


def _is_gauge_free(model: PreTrainedModel, family: Family) -> bool:
    """Say whether all that reads the residual stream subtracts its mean.

    The attention's norms are of the same class as the FFN's in all these families.
    Dropout on the residual stream would not let a constant through unchanged.
    """
    from torch.nn import LayerNorm

    if not _is_pre_norm(model) or any(
        getattr(model.config, key, 0.0) for key in family.dropouts
    ):
        return False
    first = model.get_submodule(family.layers)[0].get_submodule(family.norm)
    owner, _, attribute = family.final_norm.rpartition(".")
    last = getattr(model.get_submodule(owner), attribute, None)
    return isinstance(first, LayerNorm) and isinstance(last, LayerNorm)

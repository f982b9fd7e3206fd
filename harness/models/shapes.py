"""The sizes of models, from their configurations: parameters and FLOPs of a pass.

Each family is a function of its configuration, as `transformers` lays the model out.
Checkpoints of the hub that shipped suites name are known without a download.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from harness.api import ModelShape
from harness.subject import PassFlops, Seq2SeqFlops

Config = Mapping[str, Any]


def shape_of(config: Config, tokenizer: Path | None = None) -> ModelShape | None:
    """Return the sizes of a model of this configuration (the values of config.json).

    None where the family is unknown, or a size is not stated or can be none.
    """
    family = _FAMILIES.get(str(config.get("model_type")))
    if family is None:
        return None
    stated = {
        key: value
        for key, value in config.items()
        if isinstance(value, str) or (isinstance(value, int) and 0 <= value < _LARGEST)
    }
    try:
        return family(stated, tokenizer)
    except (KeyError, TypeError, ValueError, ArithmeticError):
        return None


_LARGEST = 2**31


@cache
def published_config(hub_id: str) -> Config | None:
    """Return what the configuration of a checkpoint of the hub says, if it is known."""
    known: dict[str, Config] = json.loads(_PUBLISHED.read_text(encoding="utf-8"))
    return known.get(hub_id)


_PUBLISHED = Path(__file__).parent / "published_configs.json"


def _causal(
    config: Config,
    tokenizer: Path | None,
    *,
    layers: int,
    width: int,
    attention: int,
    feed_forward: int,
    vectors: int,
    rest: int,
    heads_width: int | None = None,
    head_width: int | None = None,
    tied: bool,
    positions: str = "max_position_embeddings",
) -> ModelShape:
    """Put a decoder together.

    `attention` and `feed_forward` are the weights in a layer's matrices, `vectors` its
    biases and gains, `rest` what stands outside layers and embedding.
    """
    vocabulary = config["vocab_size"]
    embedding = vocabulary * (head_width or width)
    matrices = layers * (attention + feed_forward)
    outside = 2 * width * (head_width or 0) if head_width not in (None, width) else 0
    read = config.get(positions)
    return ModelShape(
        parameters=embedding * (1 if tied else 2)
        + matrices
        + outside
        + layers * vectors
        + rest,
        feed_forward=layers * feed_forward,
        layers=layers,
        width=width,
        vocabulary=vocabulary,
        flops=PassFlops(
            linear=2.0 * (matrices + outside),
            attention=4.0 * layers * (heads_width or width),
            head=2.0 * embedding,
        ),
        positions=read if isinstance(read, int) else None,
        tokenizer=tokenizer,
    )


def _gpt_neox(config: Config, tokenizer: Path | None) -> ModelShape:
    d, f = config["hidden_size"], config["intermediate_size"]
    biases = 4 * d if config.get("attention_bias", True) else 0
    return _causal(
        config,
        tokenizer,
        layers=config["num_hidden_layers"],
        width=d,
        attention=4 * d * d,
        feed_forward=2 * d * f,
        vectors=biases + f + d + 4 * d,
        rest=2 * d,
        tied=config.get("tie_word_embeddings", False),
    )


def _opt(config: Config, tokenizer: Path | None) -> ModelShape:
    d, f, places = config["hidden_size"], config["ffn_dim"], 2
    biases = 5 * d + f if config.get("enable_bias", True) else 0
    last = config.get("do_layer_norm_before", True)
    last = last and not config.get("_remove_final_layer_norm", False)
    return _causal(
        config,
        tokenizer,
        layers=config["num_hidden_layers"],
        width=d,
        attention=4 * d * d,
        feed_forward=2 * d * f,
        vectors=biases + 4 * d,
        rest=(config["max_position_embeddings"] + places) * d + (2 * d if last else 0),
        head_width=config.get("word_embed_proj_dim", d),
        tied=config.get("tie_word_embeddings", True),
    )


def _gpt_neo(config: Config, tokenizer: Path | None) -> ModelShape:
    d = config["hidden_size"]
    f = config.get("intermediate_size") or 4 * d
    return _causal(
        config,
        tokenizer,
        layers=config["num_layers"],
        width=d,
        attention=4 * d * d,
        feed_forward=2 * d * f,
        vectors=d + f + d + 4 * d,
        rest=config["max_position_embeddings"] * d + 2 * d,
        tied=config.get("tie_word_embeddings", True),
    )


def _gpt2(config: Config, tokenizer: Path | None) -> ModelShape:
    d = config["n_embd"]
    f = config.get("n_inner") or 4 * d
    return _causal(
        config,
        tokenizer,
        layers=config["n_layer"],
        width=d,
        attention=4 * d * d,
        feed_forward=2 * d * f,
        vectors=4 * d + f + d + 4 * d,
        rest=config["n_positions"] * d + 2 * d,
        tied=config.get("tie_word_embeddings", True),
        positions="n_positions",
    )


def _llama(config: Config, tokenizer: Path | None, biased: int = 0) -> ModelShape:
    d, f, heads = (
        config["hidden_size"],
        config["intermediate_size"],
        config["num_attention_heads"],
    )
    each = config.get("head_dim") or d // heads
    own, shared = heads * each, (config.get("num_key_value_heads") or heads) * each
    biases = biased * (own + 2 * shared)
    if config.get("attention_bias"):
        biases += own + 2 * shared + d
    if config.get("mlp_bias"):
        biases += 2 * f + d
    return _causal(
        config,
        tokenizer,
        layers=config["num_hidden_layers"],
        width=d,
        attention=2 * d * own + 2 * d * shared,
        feed_forward=3 * d * f,
        vectors=biases + 2 * d,
        rest=d,
        heads_width=own,
        tied=config.get("tie_word_embeddings", False),
    )


def _qwen2(config: Config, tokenizer: Path | None) -> ModelShape:
    return _llama(config, tokenizer, biased=1)


def _t5(config: Config, tokenizer: Path | None) -> ModelShape:
    d, f, vocabulary = config["d_model"], config["d_ff"], config["vocab_size"]
    inner, encoders = config["num_heads"] * config["d_kv"], config["num_layers"]
    decoders = config.get("num_decoder_layers") or encoders
    gated = str(config.get("feed_forward_proj", "relu")).startswith("gated")
    attention, network = 4 * d * inner, (3 if gated else 2) * d * f
    keys, query = 2.0 * d * 2 * inner, 2.0 * d * inner
    head = vocabulary * d
    # transformers 5 writes under this name what the other key said before it.
    tied = config.get("scale_decoder_outputs", config.get("tie_word_embeddings", True))
    buckets = config.get("relative_attention_num_buckets", 32) * config["num_heads"]
    # Gains of the norms before each part of a layer, and of the last ones.
    gains = d * (2 * encoders + 3 * decoders + 2)
    layers = encoders * (attention + network) + decoders * (2 * attention + network)
    own_decoder = decoders * (2.0 * (2 * attention + network) - keys)
    return ModelShape(
        parameters=head * (1 if tied else 2) + layers + gains + 2 * buckets,
        feed_forward=(encoders + decoders) * network,
        layers=encoders + decoders,
        width=d,
        vocabulary=vocabulary,
        flops=Seq2SeqFlops(
            prompt=2.0 * encoders * (attention + network) + decoders * keys,
            reference=own_decoder + 2.0 * head,
            unreached=2.0 * attention + query,
            width=inner,
            encoder_layers=encoders,
            decoder_layers=decoders,
        ),
        tokenizer=tokenizer,
    )


_FAMILIES: dict[str, Callable[[Config, Path | None], ModelShape]] = {
    "gpt_neox": _gpt_neox,
    "opt": _opt,
    "gpt_neo": _gpt_neo,
    "gpt2": _gpt2,
    "llama": _llama,
    "qwen2": _qwen2,
    "t5": _t5,
}

"""Small things to test plugins with: a random model, its subject, some examples.

Nothing here is trained, so losses are near ln(vocabulary), but all of it is real: a
transformers model of a known family, a fast tokenizer, a `Subject`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from harness.data import Document, Example, ExampleSets
from harness.subject import Subject

__all__ = [
    "FAMILIES",
    "GATED_T5",
    "TEXT",
    "tiny_documents",
    "tiny_examples",
    "tiny_model",
    "tiny_subject",
    "tiny_tokenizer",
]

TEXT = "the cat sat on the mat; the dog ate the other cat, and then that mat. "
_SIZES = {
    "vocab_size": 320,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt_neox": {**_SIZES, "intermediate_size": 64},
    "opt": {**_SIZES, "word_embed_proj_dim": 16, "ffn_dim": 64},
    "gpt_neo": {
        **_SIZES,
        "num_layers": 2,
        "num_heads": 4,
        "intermediate_size": 64,
        "attention_types": [[["global", "local"], 1]],
        "window_size": 8,
    },
    "gpt2": {
        "vocab_size": 320,
        "n_embd": 32,
        "n_layer": 2,
        "n_head": 4,
        "n_positions": 128,
    },
    "llama": {**_SIZES, "intermediate_size": 64, "num_key_value_heads": 2},
    "qwen2": {**_SIZES, "intermediate_size": 64, "num_key_value_heads": 2},
    "t5": {
        "vocab_size": 320,
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 64,
        "num_layers": 2,
        "num_decoder_layers": 3,
        "num_heads": 4,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 32,
        "dropout_rate": 0.0,
        "eos_token_id": 0,
        "pad_token_id": 282,
        "decoder_start_token_id": 282,
    },
}
"""The configurations of `tiny_model`, by transformers' `model_type`."""
GATED_T5 = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}
"""Changes that make T5 v1.1, the architecture of FLAN-T5, of T5 v1.0."""


def tiny_model(
    family: str = "gpt_neox", *, seed: int = 0, **changes: Any
) -> PreTrainedModel:
    """Return a random model of a family, with two layers and about 30,000 weights.

    Its embedding has more rows than `tiny_tokenizer` has tokens. `changes` go to the
    configuration. A T5 has two encoder layers and three decoder layers.
    """
    sizes = {**FAMILIES.get(family, FAMILIES["llama"]), **changes}
    config = AutoConfig.for_model(family, **sizes, initializer_range=0.2)
    classes = AutoModelForCausalLM
    if config.is_encoder_decoder:
        classes = AutoModelForSeq2SeqLM
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: PreTrainedModel = classes.from_config(config)
        if changes.get("tie_word_embeddings") is False:
            head = model.get_output_embeddings()  # which transformers 5 ties in a T5
            head.weight = torch.nn.Parameter(torch.randn_like(head.weight))
    return model.eval()


def tiny_tokenizer(*, closed: bool = False) -> PreTrainedTokenizerBase:
    """Return a byte-level tokenizer of 282 tokens; ``<|endoftext|>`` is special.

    With `closed`, it puts that token after every text, as T5's puts ``</s>``, and has
    a token of number 282 for padding.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    if not closed:
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token="<|endoftext|>"
        )
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|padding|>"
    )


def tiny_subject(family: str = "gpt_neox", *, seed: int = 0) -> Subject:
    """Return the subject of a `tiny_model` with the `tiny_tokenizer`."""
    model = tiny_model(family, seed=seed)
    tokenizer = tiny_tokenizer(closed=model.config.is_encoder_decoder)
    return Subject(model, tokenizer, batch_size=16)


def tiny_documents(count: int = 3, *, seed: int = 0) -> list[Document]:
    """Return documents: the words of `TEXT` in random order."""
    rng = np.random.default_rng(seed)
    words = TEXT.split()
    return [
        Document(str(number), " ".join(rng.permutation(words)))
        for number in range(count)
    ]


def tiny_examples(
    count: int = 2, *, prompt_tokens: int = 8, reference_tokens: int = 6
) -> ExampleSets:
    """Return `count` examples for each of test, search and validation."""
    tokenizer = tiny_tokenizer()
    examples = []
    for document in tiny_documents(3 * count):
        ids = np.array(tokenizer(document.text)["input_ids"], dtype=np.int64)
        prompt, reference = np.split(ids, [prompt_tokens])
        name = f"tiny/{document.id}"
        examples.append(Example(name, name, prompt, reference[:reference_tokens]))
    return ExampleSets(
        test=examples[:count],
        search=examples[count : 2 * count],
        validation=examples[2 * count :],
    )

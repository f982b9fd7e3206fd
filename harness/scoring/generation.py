"""Greedy decoding: what a model writes after a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PretrainedConfig, PreTrainedModel

    from harness.base.arrays import Ids


def generate_greedily(
    model: PreTrainedModel, prompts: Sequence[Ids], max_new_tokens: int, end: int
) -> list[Ids]:
    """Return what follows each prompt, by transformers' own greedy decoding.

    Prompts of unequal length share a batch, masked where they are padded: on the right
    for an encoder, on the left for a decoder, which writes on from their end. A text
    ends with its first `end` token, which is part of it, or after `max_new_tokens`.
    """
    from transformers import GenerationConfig

    config = model.config
    ids, mask = _padded(prompts, end, left=not config.is_encoder_decoder)
    # What is not stated here would be taken from the checkpoint's own preferences.
    settings = GenerationConfig(
        do_sample=False,
        num_beams=1,
        max_new_tokens=max_new_tokens,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=getattr(config, "decoder_start_token_id", None),
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        length_penalty=1.0,
        use_cache=_has_room(config),
    )
    written = model.generate(
        input_ids=torch.from_numpy(ids).to(model.device),
        attention_mask=torch.from_numpy(mask).to(model.device),
        generation_config=settings,
    )
    # A decoder's output begins with its start token, or with the whole prompt.
    first = 1 if config.is_encoder_decoder else ids.shape[1]
    return [_until(end, row) for row in written[:, first:].cpu().numpy()]


def _has_room(config: PretrainedConfig) -> bool:
    """Say whether a cache as transformers lays it out has a place for every layer.

    It counts the encoder's layers, and the decoder may have more of them.
    """
    layers: int = config.num_hidden_layers
    return getattr(config, "num_decoder_layers", None) in (None, layers)


def _padded(
    prompts: Sequence[Ids], padding: int, *, left: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return prompts as one array [B, L], and a mask that is 1 where they are."""
    longest = max(map(len, prompts))
    ids = np.full((len(prompts), longest), padding, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        place = slice(longest - len(prompt), None) if left else slice(len(prompt))
        ids[row, place], mask[row, place] = prompt, 1
    return ids, mask


def _until(end: int, ids: NDArray[np.int64]) -> Ids:
    ends = np.flatnonzero(ids == end)
    return ids[: ends[0] + 1] if len(ends) else ids

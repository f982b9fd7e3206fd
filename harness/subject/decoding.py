"""What a model is fed to predict its reference, what it predicts, what it writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from harness.base import CellError, Ids

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def decoder_inputs(model: PreTrainedModel, references: Tensor) -> Tensor:
    """Return what the decoder reads [B, m] to predict references [B, m].

    The configuration's start token stands first, and the last reference token is left
    out, as transformers does with labels. Ignored ones (-100) become padding.
    Raises CellError where there is no start token.
    """
    if getattr(model.config, "decoder_start_token_id", None) is None:
        raise CellError(
            f"the configuration of this {type(model).__name__} states no "
            "decoder_start_token_id"
        )
    shifted: Tensor = model.prepare_decoder_input_ids_from_labels(labels=references)
    return shifted


def text_inputs(model: PreTrainedModel, ids: Tensor) -> dict[str, Tensor]:
    """Return inputs under which all layers of a model read the text `ids` [B, n].

    Of an encoder-decoder model, both sides read it.
    """
    if not model.config.is_encoder_decoder:
        return {"input_ids": ids}
    return {"input_ids": ids, "decoder_input_ids": decoder_inputs(model, ids)}


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


def predictions(model: PreTrainedModel, prompt: Tensor, reference: Tensor) -> Tensor:
    """Return the arg-max [m] at each token of a reference [m] after a prompt [n].

    Each token is predicted from those before it as they stand in the reference
    (teacher forcing). Among equal logits the lowest id is taken.
    """
    with torch.inference_mode():
        if model.config.is_encoder_decoder:
            logits = model(input_ids=prompt[None], labels=reference[None]).logits[0]
        else:
            ids = torch.cat([prompt, reference[:-1]])[None]
            output = model(ids, attention_mask=torch.ones_like(ids), use_cache=False)
            logits = output.logits[0, len(prompt) - 1 :]
    return _first_highest(logits)


def _first_highest(logits: Tensor) -> Tensor:
    # torch.argmax promises none of several equal ones.
    ids = torch.arange(logits.shape[-1], device=logits.device)
    highest = logits == logits.max(dim=-1, keepdim=True).values
    return torch.where(highest, ids, len(ids)).min(dim=-1).values

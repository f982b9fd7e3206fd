"""What a model would say next: the most probable token at each place of a reference."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


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

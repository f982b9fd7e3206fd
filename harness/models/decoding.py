"""What an encoder-decoder model is fed: a prompt, and a reference shifted by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.base.errors import CellError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


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

"""Encoder-decoder models: the encoder reads the prompt, the decoder the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from harness.base import CellError
from harness.subject.cross_entropy import head_losses
from harness.subject.decoding import decoder_inputs
from harness.subject.flops import Seq2SeqFlops
from harness.subject.network import Network

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class Seq2SeqNetwork(Network):
    """An encoder-decoder model, whose encoder reads the prompt.

    The reference is what transformers calls labels: the decoder reads it shifted by
    one, behind the configuration's start token, and each of its tokens is scored.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self._encoder: torch.nn.Module = model.get_encoder()
        self._decoder: torch.nn.Module = model.get_decoder()
        self._scale = head_scale(model)
        self._flops = Seq2SeqFlops.of(model)

    def token_losses(self, ids: Tensor, scored: Tensor) -> Tensor:
        raise CellError(
            f"{type(self.model).__name__} is an encoder-decoder model: it scores a "
            "reference after a prompt, not the tokens of a text"
        )

    def gradients(self, prompts: Tensor, references: Tensor) -> Tensor:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            leaf: Tensor = self.embedding(prompts).detach().requires_grad_(True)
            losses = self._losses(leaf, references)
            # No weight is trained, so a sum over the rows mixes nothing.
            (gradients,) = torch.autograd.grad(losses.mean(dim=1).sum(), leaf)
        return gradients.float()

    def shifted_losses(
        self, prompt: Tensor, reference: Tensor, shifts: Tensor
    ) -> Tensor:
        with torch.inference_mode():
            embedded = self.embedding(prompt[None])
            references = reference.expand(len(shifts), -1)
            losses = self._losses(embedded + shifts.to(embedded), references)
            return losses.double().mean(dim=1)

    def tokens_read(self, prompt_tokens: int, reference_tokens: int) -> int:
        # The decoder's start token stands for the last one, which is only scored.
        return prompt_tokens + reference_tokens

    def pass_flops(
        self, prompt_tokens: int, reference_tokens: int
    ) -> tuple[float, float]:
        return self._flops(prompt_tokens, reference_tokens)

    def _reference_losses(self, prompts: Tensor, references: Tensor) -> Tensor:
        return self._losses(self.embedding(prompts), references)

    def _states_of_text(self, ids: Tensor) -> Tensor:
        return self._hidden(self.embedding(ids), ids)

    def _losses(self, embedded: Tensor, references: Tensor) -> Tensor:
        """Return the loss [B, m] of each reference token after prompts [B, n, d]."""
        hidden = self._hidden(embedded, references).flatten(0, 1)
        losses = head_losses(self._head, hidden, references.flatten())
        return losses.view(references.shape)

    def _hidden(self, embedded: Tensor, references: Tensor) -> Tensor:
        """Return what the head reads at each reference token [B, m, d]."""
        # All prompts are equally long, so nothing is masked, and a mask says so.
        seen = embedded.new_ones(embedded.shape[:2], dtype=torch.long)
        encoded = self._encoder(inputs_embeds=embedded, attention_mask=seen)[0]
        inputs = decoder_inputs(self.model, references)
        hidden = self._decoder(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            encoder_hidden_states=encoded,
            encoder_attention_mask=seen,
            use_cache=False,
        )[0]
        return cast("Tensor", hidden * self._scale)


def head_scale(model: PreTrainedModel) -> float:
    """Return what T5 multiplies hidden states by before a tied head."""
    config = model.config
    if config.model_type != "t5":
        return 1.0
    # transformers 5 calls every T5 tied, and says apart from that what it scales.
    scaled = getattr(config, "scale_decoder_outputs", config.tie_word_embeddings)
    return float(config.d_model**-0.5) if scaled else 1.0

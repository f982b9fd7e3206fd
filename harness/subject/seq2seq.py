"""Encoder-decoder models: the encoder reads the prompt, the decoder the reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from harness.base import CellError
from harness.subject.cross_entropy import head_losses
from harness.subject.decoding import decoder_inputs, text_inputs
from harness.subject.flops import Seq2SeqFlops

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class Seq2SeqNetwork:
    """A frozen encoder-decoder model in one precision, and how it is scored.

    The reference is what transformers calls labels: the decoder reads it shifted by
    one, behind the configuration's start token, and each of its tokens is scored. The
    cross-entropy is computed in float32 whatever the model's precision.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.embedding: torch.nn.Module = model.get_input_embeddings()
        self._encoder: torch.nn.Module = model.get_encoder()
        self._decoder: torch.nn.Module = model.get_decoder()
        self._head: torch.nn.Module = model.get_output_embeddings()
        self._scale = head_scale(model)
        self._flops = Seq2SeqFlops.of(model)

    @property
    def rows(self) -> int:
        """Number of rows of the embedding matrix, those that are no token included."""
        return cast("Tensor", self.embedding.weight).shape[0]

    def check_head(self) -> None:
        """Raise CellError where the head does more to hidden states than we know of."""
        ids = torch.arange(8, device=self.model.device)[None] % self._n_logits
        with torch.inference_mode():
            inputs = text_inputs(self.model, ids)
            expected = self.model(**inputs, use_cache=False).logits
            logits = self._head(self._hidden(self.embedding(ids), ids))
        if not torch.allclose(logits, expected, rtol=1e-3, atol=1e-4, equal_nan=True):
            raise CellError(
                f"{type(self.model).__name__} changes its embeddings or its logits in "
                "a way that is not known here: such models are not supported"
            )

    def losses(self, prompts: Tensor, references: Tensor) -> Tensor:
        """Return each pair's mean loss [B], float64, in nats/token.

        Takes prompts [B, n] and references [B, m].
        """
        with torch.inference_mode():
            embedded = self.embedding(prompts)
            return self._losses(embedded, references).double().mean(dim=1)

    def token_losses(self, ids: Tensor, scored: Tensor) -> Tensor:
        """Raise CellError: no token is predicted from those before it alone."""
        raise CellError(
            f"{type(self.model).__name__} is an encoder-decoder model: it scores a "
            "reference after a prompt, not the tokens of a text"
        )

    def gradients(self, prompts: Tensor, references: Tensor) -> Tensor:
        """Return dL/d(embedding output) [B, n, d], float32, at the prompts' positions.

        Takes prompts [B, n] and references [B, m]. Row b is the gradient of the mean
        loss of pair b, in nats/token. The encoder is given the embedding's output, cut
        off from the embedding: what the decoder or a tied head make of the same
        weights is no part of it.
        """
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            leaf: Tensor = self.embedding(prompts).detach().requires_grad_(True)
            losses = self._losses(leaf, references)
            # No weight is trained, so a sum over the rows mixes nothing.
            (gradients,) = torch.autograd.grad(losses.mean(dim=1).sum(), leaf)
        return gradients.float()

    def shifted_losses(
        self, prompt: Tensor, reference: Tensor, shifts: Tensor
    ) -> Tensor:
        """Return the loss [B], float64, nats/token, off the prompt's embeddings.

        Takes a prompt [n], a reference [m] and what is added to the prompt's embedding
        output, `shifts` [B, n, d]: all else is as in `losses`.
        """
        with torch.inference_mode():
            embedded = self.embedding(prompt[None])
            references = reference.expand(len(shifts), -1)
            losses = self._losses(embedded + shifts.to(embedded), references)
            return losses.double().mean(dim=1)

    def embeddings(self) -> Tensor:
        """Return the embedding module's output [V, d] for every id."""
        with torch.no_grad():
            ids = torch.arange(self.rows, device=self.model.device)
            return cast("Tensor", self.embedding(ids))

    def tokens_read(self, prompt_tokens: int, reference_tokens: int) -> int:
        """Return how many tokens are read: the decoder's start stands for the last."""
        return prompt_tokens + reference_tokens

    def pass_flops(
        self, prompt_tokens: int, reference_tokens: int
    ) -> tuple[float, float]:
        """Return the analytic FLOPs of scoring one pair, (forward, backward)."""
        return self._flops(prompt_tokens, reference_tokens)

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

    @property
    def _n_logits(self) -> int:
        return cast("Tensor", self._head.weight).shape[0]


def head_scale(model: PreTrainedModel) -> float:
    """Return what T5 multiplies hidden states by before a tied head."""
    config = model.config
    if config.model_type != "t5":
        return 1.0
    # transformers 5 calls every T5 tied, and says apart from that what it scales.
    scaled = getattr(config, "scale_decoder_outputs", config.tie_word_embeddings)
    return float(config.d_model**-0.5) if scaled else 1.0

"""What a subject asks of a model: the losses of pairs, their gradients, their cost."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, cast

import torch

from harness.base import CellError, fixed_random_state
from harness.subject.decoding import text_inputs

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class Network(ABC):
    """A frozen model in one precision, and how its losses are computed.

    Logits are computed where a token is scored and nowhere else, and the cross-entropy
    is computed in float32 whatever the model's precision. Ids and results are on the
    model's device.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        """The model, in the network's precision."""
        self.embedding: torch.nn.Module = model.get_input_embeddings()
        self._head: torch.nn.Module = model.get_output_embeddings()

    @property
    def steady(self) -> bool:
        """Whether `losses` gives a pair the same beside any others, to the last bit."""
        return False

    @property
    def rows(self) -> int:
        """Number of rows of the embedding matrix, those that are no token included."""
        return cast("Tensor", self.embedding.weight).shape[0]

    def embeddings(self) -> Tensor:
        """Return the embedding module's output [V, d] for every id."""
        with torch.no_grad():
            ids = torch.arange(self.rows, device=self.model.device)
            return cast("Tensor", self.embedding(ids))

    def check_head(self) -> None:
        """Raise CellError where the head does more to hidden states than we know of."""
        n_logits = cast("Tensor", self._head.weight).shape[0]
        ids = torch.arange(8, device=self.model.device)[None] % n_logits
        with torch.inference_mode():
            inputs = text_inputs(self.model, ids)
            with fixed_random_state(0):  # of a model that draws: the same draws
                expected = self.model(**inputs, use_cache=False).logits
            with fixed_random_state(0):
                logits = self._head(self._states_of_text(ids))
        if not torch.allclose(logits, expected, rtol=1e-3, atol=1e-4, equal_nan=True):
            raise CellError(
                f"{type(self.model).__name__} changes its logits or its embeddings in "
                "a way that is not known here (soft-capping, scaling): such models are "
                "not supported"
            )

    @property
    def settings(self) -> dict[str, bool]:
        """Say which ways of computing losses change their last bits."""
        return {}

    def losses(self, prompts: Tensor, references: Tensor) -> Tensor:
        """Return each pair's mean loss [B], float64, in nats/token.

        Takes prompts [B, n] and references [B, m]; only references are scored.
        """
        return self.reference_losses(prompts, references).mean(dim=1)

    def repeated_losses(self, prompts: Tensor, references: Tensor) -> Tensor:
        """Do as `losses` does, in a pass of a shape that comes back again and again."""
        return self.losses(prompts, references)

    def reference_losses(self, prompts: Tensor, references: Tensor) -> Tensor:
        """Return the loss [B, m], float64, nats, of each token of the references.

        Of the very pass that `losses` makes of the same pairs, but for packed ones
        (`FastNetwork`), which float32 never has: their means are those.
        """
        with torch.inference_mode():
            return self._reference_losses(prompts, references).double()

    @abstractmethod
    def token_losses(self, ids: Tensor, scored: Tensor) -> Tensor:
        """Return the loss [S] in nats of each scored token, row by row.

        Takes ids [B, L], padded on the right if need be (no earlier token sees it),
        and a boolean mask `scored` [B, L], false in the first column. Raises CellError
        where a model predicts no token from those before it.
        """

    @abstractmethod
    def gradients(self, prompts: Tensor, references: Tensor) -> Tensor:
        """Return dL/d(embedding output) [B, n, d], float32, at the prompts' positions.

        Takes prompts [B, n] and references [B, m]. Row b is the gradient of the mean
        loss of pair b, in nats/token: pairs do not mix. It is taken at the output of
        the embedding module: what a tied head, or a decoder, makes of the same weights
        is no part of it.
        """

    @abstractmethod
    def shifted_losses(
        self, prompt: Tensor, reference: Tensor, shifts: Tensor
    ) -> Tensor:
        """Return the loss [B], float64, nats/token, off the prompt's embeddings.

        Takes a prompt [n], a reference [m] and what is added to the prompt's embedding
        output, `shifts` [B, n, d]: all else is as in `losses`.
        """

    @abstractmethod
    def tokens_read(self, prompt_tokens: int, reference_tokens: int) -> int:
        """Return how many tokens the model reads to score a pair of such lengths."""

    @abstractmethod
    def pass_flops(
        self, prompt_tokens: int, reference_tokens: int
    ) -> tuple[float, float]:
        """Return the analytic FLOPs of scoring one pair, (forward, backward)."""

    @abstractmethod
    def _reference_losses(self, prompts: Tensor, references: Tensor) -> Tensor:
        """Return the loss [B, m] of each reference token after prompts [B, n]."""

    @abstractmethod
    def _states_of_text(self, ids: Tensor) -> Tensor:
        """Return what the head reads [B, n, d] where all layers read a text [B, n]."""

"""What a subject asks of a model: the losses of pairs, their gradients, their cost."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class Network(Protocol):
    """A frozen model in one precision, and how its losses are computed.

    The cross-entropy is computed in float32 whatever the model's precision. Ids and
    results are on the model's device.
    """

    @property
    def model(self) -> PreTrainedModel:
        """The model, in the network's precision."""

    @property
    def rows(self) -> int:
        """Number of rows of the embedding matrix, those that are no token included."""

    def check_head(self) -> None:
        """Raise CellError where the head does more to hidden states than we know of."""

    def losses(self, prompts: Tensor, references: Tensor) -> Tensor:
        """Return each pair's mean loss [B], float64, in nats/token.

        Takes prompts [B, n] and references [B, m]; only references are scored.
        """

    def token_losses(self, ids: Tensor, scored: Tensor) -> Tensor:
        """Return the loss [S] in nats of each scored token, row by row.

        Takes ids [B, L], padded on the right if need be, and a boolean mask `scored`
        [B, L], false in the first column. Raises CellError where a model predicts no
        token from those before it.
        """

    def gradients(self, prompts: Tensor, references: Tensor) -> Tensor:
        """Return dL/d(embedding output) [B, n, d], float32, at the prompts' positions.

        Takes prompts [B, n] and references [B, m]. Row b is the gradient of the mean
        loss of pair b, in nats/token: pairs do not mix.
        """

    def shifted_losses(
        self, prompt: Tensor, reference: Tensor, shifts: Tensor
    ) -> Tensor:
        """Return the loss [B], float64, nats/token, off the prompt's embeddings.

        Takes a prompt [n], a reference [m] and what is added to the prompt's embedding
        output, `shifts` [B, n, d].
        """

    def embeddings(self) -> Tensor:
        """Return the embedding module's output [V, d] for every id."""

    def tokens_read(self, prompt_tokens: int, reference_tokens: int) -> int:
        """Return how many tokens the model reads to score a pair of such lengths."""

    def pass_flops(
        self, prompt_tokens: int, reference_tokens: int
    ) -> tuple[float, float]:
        """Return the analytic FLOPs of scoring one pair, (forward, backward)."""


def network_of(model: PreTrainedModel) -> Network:
    """Return what scores a model: its configuration says of which kind it is."""
    from harness.subject.causal import CausalNetwork
    from harness.subject.seq2seq import Seq2SeqNetwork

    encoder_decoder = model.config.is_encoder_decoder
    return Seq2SeqNetwork(model) if encoder_decoder else CausalNetwork(model)

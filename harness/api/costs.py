"""What plugins say of their cost, before anything is loaded or run.

A plugin states the `Cost` of its passes as a record will state it afterwards, but for
the seconds: those are the device's. `seconds` in such a cost are only what no model
takes part in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from harness.records import Cost
from harness.subject import PassFlops, Seq2SeqFlops

CHARACTERS_PER_TOKEN = 4.0
"""Of English text in a vocabulary of some 50,000 tokens, where nothing better is
known."""


@dataclass(frozen=True)
class ModelShape:
    """The sizes of a model, from its configuration: no weights are read."""

    parameters: int
    """All of them, embeddings included."""
    feed_forward: int
    """Those in the matrices of feed-forward networks."""
    layers: int
    """Of encoder and decoder together."""
    width: int
    """Of the residual stream."""
    vocabulary: int
    """Rows of the embedding."""
    flops: PassFlops | Seq2SeqFlops
    """Of one sequence through it."""
    positions: int | None = None
    """How many tokens it can read; None where it states no limit."""
    tokenizer: Path | None = None
    """The file ``tokenizer.json``, where it is on this machine."""
    characters_per_token: float = CHARACTERS_PER_TOKEN
    """What is assumed of text where there is no `tokenizer`."""

    @property
    def encoder_decoder(self) -> bool:
        """Whether an encoder reads the prompt."""
        return isinstance(self.flops, Seq2SeqFlops)

    def tokens_read(self, prompt: float, reference: float) -> float:
        """Return how many tokens a pass over a pair of such lengths reads."""
        return prompt + reference - (not self.encoder_decoder)

    def forward(self, count: float, prompt: float, reference: float) -> Cost:
        """Return the cost of scoring so many pairs of such lengths, in tokens."""
        read = self.tokens_read(prompt, reference)
        flops = count * self._pass(prompt, reference)[0]
        return Cost(
            sequences_forward=round(count),
            tokens_forward=round(count * read),
            flops=flops,
            flops_whole=flops,
        )

    def gradient(self, count: float, prompt: float, reference: float) -> Cost:
        """Return the cost of so many backward passes to the embedding.

        The forward passes that come before them are left out.
        """
        flops = count * self._pass(prompt, reference)[1]
        return Cost(
            sequences_backward=round(count),
            tokens_backward=round(count * self.tokens_read(prompt, reference)),
            flops=flops,
            flops_whole=flops,
        )

    def training(self, count: float, prompt: float, reference: float) -> Cost:
        """Return the cost of training on so many pairs, back to all weights.

        Of text, `prompt` is 1 and `reference` as long as a block.
        """
        forward = self.forward(count, prompt, reference)
        back = Cost(
            sequences_backward=forward.sequences_forward,
            tokens_backward=forward.tokens_forward,
            flops=2 * forward.flops,
            flops_whole=2 * forward.flops,
        )
        return forward + back

    def _pass(self, prompt: float, reference: float) -> tuple[float, float]:
        if isinstance(self.flops, Seq2SeqFlops):
            return self.flops(prompt, reference)
        return self.flops(self.tokens_read(prompt, reference), reference)


@dataclass(frozen=True)
class CorpusSize:
    """How much there is in a corpus, in a model's tokens."""

    documents: int
    tokens: float
    """Of a document, on average; of a pair, of its prompt."""
    reference_tokens: float | None = None
    """Of a pair's reference, on average; None for texts."""


@dataclass(frozen=True)
class CostContext:
    """What a plugin may use to say what it will cost."""

    shape: ModelShape
    """The model's."""
    corpus: Callable[[str], CorpusSize]
    """How much there is in a corpus of the suite, by its name; cut by ``--limit``."""
    pair: tuple[float, float]
    """How many tokens a test example's prompt has, and its reference, on average."""
    limit: int | None = None
    """First so many examples of a task only."""
    assumptions: list[str] = field(default_factory=list)
    """Sentences for the user about what was assumed; append to it."""

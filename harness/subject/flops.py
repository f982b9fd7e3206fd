"""Analytic floating-point operations of a transformer's passes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class PassFlops:
    """The cost of one sequence through a decoder-only model with frozen weights.

    A multiplication by an [in, out] matrix costs 2 * in * out for each token.
    Attention costs 4 * width * n^2 for each layer (scores and weighted sum; the causal
    half is not discounted). Norms, activations and the like are left out. Backward,
    each matrix costs one multiplication more, since only activations get a gradient,
    and both products of attention cost two.
    """

    linear: float
    """For one token, by all matrices but the head."""
    attention: float
    """For one pair of positions, by all layers."""
    head: float
    """For one scored position."""

    @classmethod
    def of(cls, model: PreTrainedModel) -> PassFlops:
        """Read the sizes off a model; the weights themselves are not needed."""
        config = model.config
        heads = config.num_attention_heads
        stated: int | None = getattr(config, "head_dim", None)
        width = heads * (stated or config.hidden_size // heads)
        head = cast("torch.nn.Linear", model.get_output_embeddings())
        return cls(
            linear=2.0 * sum(_matrix_sizes(model.base_model)),
            attention=4.0 * config.num_hidden_layers * width,
            head=2.0 * head.weight.numel(),
        )

    def __call__(
        self, n_tokens: float, scored: float, reused: int = 0
    ) -> tuple[float, float]:
        """Return the FLOPs of a forward and of a backward pass to the embedding.

        Of the `n_tokens`, the first `reused` are in a cache: they are attended to, and
        cost nothing else.
        """
        read = n_tokens - reused
        matrices = read * self.linear + scored * self.head
        attention = read * n_tokens * self.attention
        return matrices + attention, matrices + 2 * attention


@dataclass(frozen=True)
class Seq2SeqFlops:
    """The cost of one pair through an encoder-decoder model with frozen weights.

    Counted as `PassFlops` counts. Keys and values of the attention to the prompt are
    computed at the prompt's positions. Backward, nothing reaches what the decoder
    computes before it first looks at the prompt.
    """

    prompt: float
    """For one prompt token, by the encoder's matrices and the keys and values that
    the decoder's layers make of it."""
    reference: float
    """For one reference token, by all other matrices of the decoder and the head."""
    unreached: float
    """Of `reference`, what needs no backward pass."""
    width: int
    """Of all heads of one layer's attention."""
    encoder_layers: int
    decoder_layers: int

    @classmethod
    def of(cls, model: PreTrainedModel) -> Seq2SeqFlops:
        """Read the sizes off a T5; the weights themselves are not needed."""
        import torch

        config = model.config
        cross = ("EncDecAttention.k", "EncDecAttention.v")
        first = ("block.0.layer.0.", "block.0.layer.1.EncDecAttention.q")
        decoder = {
            name: 2.0 * module.weight.numel()
            for name, module in model.get_decoder().named_modules()
            if isinstance(module, torch.nn.Linear)
        }
        keys = sum(cost for name, cost in decoder.items() if name.endswith(cross))
        head = cast("torch.nn.Linear", model.get_output_embeddings())
        return cls(
            prompt=2.0 * sum(_matrix_sizes(model.get_encoder())) + keys,
            reference=sum(decoder.values()) - keys + 2.0 * head.weight.numel(),
            unreached=sum(c for name, c in decoder.items() if name.startswith(first)),
            width=config.num_heads * config.d_kv,
            encoder_layers=config.num_layers,
            decoder_layers=config.num_decoder_layers,
        )

    def __call__(self, prompt: float, reference: float) -> tuple[float, float]:
        """Return the FLOPs of a forward pass, and of one back to the embedding."""
        matrices = prompt * self.prompt + reference * self.reference
        own = 4.0 * self.width * self.encoder_layers * prompt**2
        decoder = 4.0 * self.width * reference**2
        cross = 4.0 * self.width * reference * prompt
        layers = self.decoder_layers
        forward = matrices + own + layers * (decoder + cross)
        # The first layer's queries need no gradient: a quarter of its product's.
        attention = own + (layers - 1) * decoder + (layers - 0.25) * cross
        return forward, matrices - reference * self.unreached + 2 * attention


def _matrix_sizes(model: torch.nn.Module) -> list[int]:
    import torch
    from transformers.pytorch_utils import Conv1D

    linear = (torch.nn.Linear, Conv1D)
    return [m.weight.numel() for m in model.modules() if isinstance(m, linear)]

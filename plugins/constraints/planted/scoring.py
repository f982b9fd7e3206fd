"""Losses of examples from the embeddings of their prompts, with gradients."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness import subject
from harness.base import Ids
from harness.data import Example

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Scorer:
    """Scores references after prompts that are given as embeddings."""

    model: PreTrainedModel

    @property
    def table(self) -> Tensor:
        """The embedding [V, d]."""
        weight: Tensor = self.model.get_input_embeddings().weight
        return weight

    def embedded(self, ids: Ids) -> Tensor:
        """Return the embeddings [n, d] of tokens."""
        import torch

        tokens = torch.tensor(ids).to(self.model.device)
        embeddings: Tensor = self.model.get_input_embeddings()(tokens)
        return embeddings

    def log_probs(self, example: Example, embeds: Tensor) -> Tensor:
        """Return the log-probabilities [m, V] at the reference, after a prompt."""
        import torch

        if self.model.config.is_encoder_decoder:
            reference = torch.tensor(example.reference_ids).to(embeds.device)
            shifted = subject.decoder_inputs(self.model, reference[None])
            inputs = {"inputs_embeds": embeds[None], "decoder_input_ids": shifted}
            logits = self.model(**inputs, use_cache=False).logits[0]
        else:
            tail = self.embedded(example.reference_ids[:-1])
            together = torch.cat([embeds, tail])[None]
            # Without a mask, transformers looks for several texts in one: that is slow.
            mask = torch.ones_like(together[..., 0], dtype=torch.long)
            inputs = {"inputs_embeds": together, "attention_mask": mask}
            output = self.model(**inputs, use_cache=False)
            logits = output.logits[0, len(embeds) - 1 :]
        return logits.float().log_softmax(-1)

    def loss(self, example: Example, log_probs: Tensor) -> Tensor:
        """Return the loss of the reference, in nats/token."""
        import torch

        reference = torch.tensor(example.reference_ids).to(log_probs.device)
        return -log_probs.gather(1, reference[:, None]).mean()

    def first_order_gains(self, example: Example, tokens: Ids) -> NDArray[np.float64]:
        """Return the largest (E_b - E_a) g of each token b over the free places [k]."""
        import torch

        with torch.inference_mode(mode=False), torch.enable_grad():
            embeds = self.embedded(example.prompt_ids).detach().requires_grad_(True)
            loss = self.loss(example, self.log_probs(example, embeds))
            (slopes,) = torch.autograd.grad(loss, embeds)
        free = torch.tensor(example.free.nonzero()[0]).to(slopes.device)
        slopes, own = slopes[free], embeds.detach()[free]
        candidates = self.table.detach()[torch.tensor(tokens).to(slopes.device)]
        gains = candidates @ slopes.T - (own * slopes).sum(1)
        found: NDArray[np.float64] = gains.max(1).values.double().cpu().numpy()
        return found

"""Causal language models: they read the prompt, and then the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from harness.subject.cross_entropy import head_losses
from harness.subject.flops import PassFlops
from harness.subject.network import Network

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class CausalNetwork(Network):
    """A decoder-only model, which reads the prompt and then the reference."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self._flops = PassFlops.of(model)

    @property
    def settings(self) -> dict[str, bool]:
        names = (
            "reuses_prefixes",
            "compiled",
            "compiled_gradients",
            "fused_layers",
            "recorded_passes",
            "steady_losses",
        )
        return dict.fromkeys(names, False)

    def token_losses(self, ids: Tensor, scored: Tensor) -> Tensor:
        with torch.inference_mode():
            where = scored[:, 1:]
            hidden = self._states_of_text(ids[:, :-1])[where]
            return head_losses(self._head, hidden, ids[:, 1:][where])

    def gradients(self, prompts: Tensor, references: Tensor) -> Tensor:
        return self._gradients(self._reference_losses, prompts, references)

    def _gradients(
        self,
        losses: Callable[[Tensor, Tensor], Tensor],
        prompts: Tensor,
        references: Tensor,
    ) -> Tensor:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), self._leaf() as leaves:
            # No weight is trained, so a sum over the rows mixes nothing.
            total = losses(prompts, references).mean(dim=1).sum()
            (gradients,) = torch.autograd.grad(total, leaves)
        return gradients[:, : prompts.shape[1]].float()

    def shifted_losses(
        self, prompt: Tensor, reference: Tensor, shifts: Tensor
    ) -> Tensor:
        def shift(module: torch.nn.Module, args: object, output: Tensor) -> Tensor:
            shifted = output.clone()
            shifted[:, : len(prompt)] += shifts.to(output)
            return shifted

        handle = self.embedding.register_forward_hook(shift)
        try:
            with torch.inference_mode():
                pairs = (ids.expand(len(shifts), -1) for ids in (prompt, reference))
                return self._reference_losses(*pairs).double().mean(dim=1)
        finally:
            handle.remove()

    def tokens_read(self, prompt_tokens: int, reference_tokens: int) -> int:
        # All but the last, which is only scored.
        return prompt_tokens + reference_tokens - 1

    def pass_flops(
        self, prompt_tokens: int, reference_tokens: int
    ) -> tuple[float, float]:
        read = self.tokens_read(prompt_tokens, reference_tokens)
        return self._flops(read, reference_tokens)

    def _reference_losses(self, prompts: Tensor, references: Tensor) -> Tensor:
        ids = torch.cat([prompts, references], dim=1)[:, :-1]
        return self._scored(self._states_of_text(ids), references)

    def _scored(self, hidden: Tensor, references: Tensor) -> Tensor:
        """Return the losses [B, m] of references, predicted by the last m states."""
        last = hidden[:, -references.shape[1] :]
        flat = head_losses(self._head, last.flatten(0, 1), references.flatten())
        return flat.view(references.shape)

    def _states_of_text(self, ids: Tensor) -> Tensor:
        # A mask of ones says that rows have no padding on the left. Without it,
        # transformers looks for packed sequences and builds a dense causal mask at
        # every call, which takes longer than a small model. A cache would be memory
        # for nothing.
        output = self.model.base_model(
            input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False
        )
        return cast("Tensor", output[0])

    @contextmanager
    def _leaf(self) -> Iterator[list[Tensor]]:
        """Cut the graph at the embedding's output; yields the list that receives it."""
        leaves: list[Tensor] = []

        def cut(module: torch.nn.Module, args: object, output: Tensor) -> Tensor:
            leaves.append(output.detach().requires_grad_(True))
            return leaves[-1]

        handle = self.embedding.register_forward_hook(cut)
        try:
            yield leaves
        finally:
            handle.remove()

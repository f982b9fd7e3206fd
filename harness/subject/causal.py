"""Causal language models: they read the prompt, and then the reference."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, cast

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from harness.subject.cross_entropy import head_losses
from harness.subject.fast.compiling import can_compile
from harness.subject.fast.neox import fuse_layers
from harness.subject.fast.packing import Packing
from harness.subject.fast.prefixes import KeyValues, PrefixAttention, serves
from harness.subject.fast.recording import Recorded
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
        self._prefixes = PrefixAttention(model) if serves(model) else None
        self._fast = False
        self._fused = False
        self._recorded_read: Recorded | None = None
        self._recorded_losses: Recorded | None = None
        self._recorded_gradients: Recorded | None = None
        if model.device.type == "cuda" and self._prefixes and not self._prefixes.own:
            self._recorded_losses = Recorded(self._own_losses)
            self._recorded_gradients = Recorded(self._own_gradients)

    def hurry(self) -> None:
        """Use faster kernels, which round otherwise, where this machine has them.

        The model must be a copy of its own: parts of it are replaced.
        """
        if self._prefixes is None or not can_compile(self.model.device):
            return
        if self._prefixes.compile_layers():
            self._fast = True
            self._fused = fuse_layers(self.model) > 0
            self._recorded_read = Recorded(self._key_values)

    @property
    def settings(self) -> dict[str, bool]:
        return {
            "reuses_prefixes": self.reuses,
            "compiled": self._prefixes is not None and self._prefixes.compiled,
            "fused_layers": self._fused,
            "recorded_passes": self._recorded_losses is not None,
        }

    def losses(self, prompts: Tensor, references: Tensor) -> Tensor:
        with torch.inference_mode():
            if self._recorded_losses is not None and len(prompts) == 1:
                (losses,) = self._recorded_losses(prompts, references)
                return losses.clone()
            if self._fast:
                (losses,) = self._own_losses(prompts, references)
                return losses
        return super().losses(prompts, references)

    def _own_losses(self, prompts: Tensor, references: Tensor) -> list[Tensor]:
        hidden = self._own_hidden(torch.cat([prompts, references], dim=1)[:, :-1])
        return [self._scored(hidden, references).double().mean(dim=1)]

    # --- reuse ----------------------------------------------------------------------

    @property
    def reuses(self) -> bool:
        """Say whether a pass can go on after what others have read."""
        return self._prefixes is not None

    def key_values(self, ids: Tensor) -> KeyValues:
        """Read sequences [G, p] that others will start like.

        The result is valid until others are read.
        """
        with torch.inference_mode():
            read = self._recorded_read or self._key_values
            return KeyValues.of(read(ids))

    def _key_values(self, ids: Tensor) -> list[Tensor]:
        assert self._prefixes is not None
        with self._prefixes.collecting(ids) as collected:
            self.model.base_model(
                input_ids=ids, position_ids=_positions(0, ids), use_cache=False
            )
            found = collected()
        return [*found.keys, *found.values]

    def losses_after(
        self,
        prefix: KeyValues,
        rows: Tensor | None,
        starts: Sequence[int],
        prompts: Tensor,
        references: Tensor,
    ) -> Tensor:
        """Return the mean loss [B] of pairs that start like a prefix.

        Pair b shares its first `starts[b]` tokens with row `rows[b]` of the prefix;
        where `rows` is None, it has one. `reused` says how many of them are not read
        again. Takes all else as `losses` does.
        """
        assert self._prefixes is not None
        ids = torch.cat([prompts, references], dim=1)[:, :-1]
        with torch.inference_mode():
            if self._prefixes.packs:
                packing = Packing.of(ids, starts)
                with self._prefixes.after(prefix, rows, packing):
                    output = self.model.base_model(
                        input_ids=packing.packed(ids),
                        position_ids=packing.positions[None],
                        use_cache=False,
                    )
                hidden = packing.last(output[0], references.shape[1])
            elif first := min(starts):
                hidden = self._own_hidden(ids[:, first:], prefix.first(first), rows)
            else:
                return self.losses(prompts, references)
            return self._scored(hidden, references).double().mean(dim=1)

    def reused(self, starts: Sequence[int]) -> Sequence[int]:
        """Say how many tokens of each pair `losses_after` does not read again."""
        packs = self._prefixes is not None and self._prefixes.packs
        return starts if packs else [min(starts)] * len(starts)

    def _own_hidden(
        self, ids: Tensor, prefix: KeyValues | None = None, rows: Tensor | None = None
    ) -> Tensor:
        """Return hidden states [B, L, d], with attention of ours."""
        assert self._prefixes is not None
        first = 0 if prefix is None else prefix.length
        with self._prefixes.after(prefix, rows):
            output = self.model.base_model(
                input_ids=ids, position_ids=_positions(first, ids), use_cache=False
            )
        return cast("Tensor", output[0])

    # --- tokens, gradients ----------------------------------------------------------

    def token_losses(self, ids: Tensor, scored: Tensor) -> Tensor:
        with torch.inference_mode():
            where = scored[:, 1:]
            hidden = self._states_of_text(ids[:, :-1])[where]
            return head_losses(self._head, hidden, ids[:, 1:][where])

    def gradients(self, prompts: Tensor, references: Tensor) -> Tensor:
        if self._recorded_gradients is not None:
            (gradients,) = self._recorded_gradients(prompts, references)
            return gradients.clone()
        return self._gradients(self._reference_losses, prompts, references)

    def _own_gradients(self, prompts: Tensor, references: Tensor) -> list[Tensor]:
        def losses(prompts: Tensor, references: Tensor) -> Tensor:
            ids = torch.cat([prompts, references], dim=1)[:, :-1]
            return self._scored(self._own_hidden(ids), references)

        return [self._gradients(losses, prompts, references)]

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

    def flops_after(self, reused: int, prompt: int, reference: int) -> float:
        """Return the FLOPs of scoring a pair whose first `reused` tokens are known."""
        read = self.tokens_read(prompt, reference)
        return self._flops(read, reference, reused)[0]

    def prefix_flops(self, tokens: int) -> float:
        """Return the FLOPs of reading so many tokens and predicting none."""
        return self._flops(tokens, 0)[0]

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


def _positions(first: int, ids: Tensor) -> Tensor:
    """Return the positions [1, L] of ids [B, L] that come after `first` others."""
    return torch.arange(first, first + ids.shape[1], device=ids.device)[None]

"""Causal networks whose passes go on after shared prefixes, on faster kernels."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, cast

import torch

from harness.subject.causal import CausalNetwork
from harness.subject.cross_entropy import logits
from harness.subject.fast.compiling import can_compile
from harness.subject.fast.neox import LinearGelu, fuse_layers
from harness.subject.fast.packing import Packing
from harness.subject.fast.prefixes import KeyValues, PrefixAttention
from harness.subject.fast.recording import Recorded
from harness.subject.fast.steady import FEWEST, Product, rows_alike
from harness.subject.transfer import filled

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


ALIGNED = 8
"""Kernels of matrix products are fastest where a length is a multiple of that."""

log = logging.getLogger(__name__)


class FastNetwork(CausalNetwork):
    """A causal network that reads what prompts share once; `serves` says of which.

    On a GPU, passes that come back are recorded. After `compile` or `hurry`, they
    are compiled too.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__(model)
        self._prefixes = PrefixAttention(model)
        self._fused = self._rows_alike = False
        self._recorded_read: Recorded | None = None
        self._recorded_losses: Recorded | None = None
        self._recorded_gradients: Recorded | None = None
        if model.device.type == "cuda" and not self._prefixes.own:
            self._recorded_losses = Recorded(self._own_losses)
            self._recorded_gradients = Recorded(self._own_gradients)

    def compile(self) -> bool:
        """Compile its passes, where this machine can; say whether that is done.

        Other networks of the same model are left as they are.
        """
        return can_compile(self.model.device) and self._prefixes.compile_layers()

    def hurry(self) -> None:
        """Use faster kernels, which round otherwise, where this machine has them.

        The model must be a copy of its own: parts of it are replaced.
        """
        if self.compile():
            self._fused = fuse_layers(self.model) > 0
            self._rows_alike = self._fused and rows_alike(self._products())
            self._recorded_read = Recorded(self._key_values)

    @property
    def steady(self) -> bool:
        # Norms are so where layers are fused, and attention where passes are packed.
        return self._rows_alike and self._prefixes.packs

    @property
    def settings(self) -> dict[str, bool]:
        return {
            "reuses_prefixes": True,
            "compiled": self._prefixes.compiled,
            "compiled_gradients": self._prefixes.compiles_gradients,
            "fused_layers": self._fused,
            "recorded_passes": self._recorded_losses is not None,
            "steady_losses": self.steady,
        }

    def reference_losses(self, prompts: Tensor, references: Tensor) -> Tensor:
        with torch.inference_mode():
            if self._recorded_losses is not None:
                # Plain transformers would wait for a look at the mask.
                alone = len(prompts) == 1
                compute = self._recorded_losses if alone else self._own_losses
                (losses,) = compute(prompts, references)
                return losses.clone() if alone else losses
        return super().reference_losses(prompts, references)

    def repeated_losses(self, prompts: Tensor, references: Tensor) -> Tensor:
        if self._recorded_losses is None:
            return super().repeated_losses(prompts, references)
        with torch.inference_mode():
            (losses,) = self._recorded_losses(prompts, references)
            return losses.mean(dim=1)

    def gradients(self, prompts: Tensor, references: Tensor) -> Tensor:
        if self._recorded_gradients is None:
            return super().gradients(prompts, references)
        try:
            (gradients,) = self._recorded_gradients(prompts, references)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if not self._prefixes.compiles_gradients:
                raise
            # What is compiled backward fails only here.
            said = str(error).splitlines()[0]
            log.warning("gradients are not compiled, slower: %s", said)
            self._prefixes.leave_gradients()
            return self.gradients(prompts, references)
        return gradients.clone()

    def losses(self, prompts: Tensor, references: Tensor) -> Tensor:
        if not self._prefixes.packs:
            return super().losses(prompts, references)
        starts = [0] * len(prompts)
        return self._packed_losses(None, None, starts, prompts, references)

    # --- reuse ----------------------------------------------------------------------

    def key_values(self, ids: Tensor) -> KeyValues:
        """Read sequences [G, p] that others will start like.

        The result is valid until others are read.
        """
        with torch.inference_mode():
            read = self._recorded_read or self._key_values
            return KeyValues.of(read(ids))

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
        if self._prefixes.packs:
            return self._packed_losses(prefix, rows, starts, prompts, references)
        if not (first := min(starts)):
            return self.losses(prompts, references)
        ids = torch.cat([prompts, references], dim=1)[:, :-1]
        with torch.inference_mode():
            hidden = self._own_hidden(ids[:, first:], prefix.first(first), rows)
            return self._scored(hidden, references).double().mean(dim=1)

    def reused(self, starts: Sequence[int]) -> Sequence[int]:
        """Say how many tokens of each pair `losses_after` does not read again."""
        return starts if self._prefixes.packs else [min(starts)] * len(starts)

    def flops_after(self, reused: int, prompt: int, reference: int) -> float:
        """Return the FLOPs of scoring a pair whose first `reused` tokens are known."""
        read = self.tokens_read(prompt, reference)
        return self._flops(read, reference, reused)[0]

    def prefix_flops(self, tokens: int) -> float:
        """Return the FLOPs of reading so many tokens and predicting none."""
        return self._flops(tokens, 0)[0]

    # --- passes with the attention of `prefixes` --------------------------------------

    def _products(self) -> Iterator[tuple[Product, Tensor]]:
        """Yield what its passes multiply by which weights; the head as for losses."""
        for module in self.model.modules():
            if module is self._head:
                bias = cast("Tensor | None", getattr(module, "bias", None))
                weight = cast("Tensor", module.weight)
                yield partial(logits, weight=weight, bias=bias), weight
            elif isinstance(module, (torch.nn.Linear, LinearGelu)):
                yield module, module.weight

    def _packed_losses(
        self,
        prefix: KeyValues | None,
        rows: Tensor | None,
        starts: Sequence[int],
        prompts: Tensor,
        references: Tensor,
    ) -> Tensor:
        """Return what `losses_after` does, or `losses` where there is no prefix.

        The last pair is repeated where products would have too few rows to be steady:
        those of the layers, and that of the head.
        """
        count, scored = references.shape
        ids = torch.cat([prompts, references], dim=1)[:, :-1]
        own = [ids.shape[1] - start for start in starts]
        enough = count + _missing(sum(own), own[-1])
        ids, starts = filled(ids, enough), [*starts, *[starts[-1]] * (enough - count)]
        rows = None if rows is None else filled(rows, enough)
        packing = Packing.of(ids, starts)
        enough += _missing(enough * scored, scored)
        with torch.inference_mode(), self._prefixes.after(prefix, rows, packing):
            hidden = packing.last(self._packed_states(packing, ids), scored)
            losses = self._scored(filled(hidden, enough), filled(references, enough))
            return losses[:count].double().mean(dim=1)

    def _packed_states(self, packing: Packing, ids: Tensor) -> Tensor:
        """Return the hidden states [1, T, d] of what is packed of ids [B, L]."""
        output = self.model.base_model(
            input_ids=packing.packed(ids),
            position_ids=packing.positions[None],
            use_cache=False,
        )
        return cast("Tensor", output[0])

    def _own_losses(self, prompts: Tensor, references: Tensor) -> list[Tensor]:
        return [self._own_reference_losses(prompts, references).double()]

    def _own_gradients(self, prompts: Tensor, references: Tensor) -> list[Tensor]:
        return [self._gradients(self._aligned_losses, prompts, references)]

    def _own_reference_losses(self, prompts: Tensor, references: Tensor) -> Tensor:
        ids = torch.cat([prompts, references], dim=1)[:, :-1]
        return self._scored(self._own_hidden(ids), references)

    def _aligned_losses(self, prompts: Tensor, references: Tensor) -> Tensor:
        """Return what `_own_reference_losses` does, of sequences that kernels like.

        Some tokens come after the references: nothing that is scored sees them.
        """
        ids = torch.cat([prompts, references], dim=1)[:, :-1]
        read = ids.shape[1]
        limit = getattr(self.model.config, "max_position_embeddings", read)
        more = max(0, min(-read % ALIGNED, limit - read))
        hidden = self._own_hidden(torch.nn.functional.pad(ids, (0, more)))
        return self._scored(hidden[:, :read], references)

    def _own_hidden(
        self, ids: Tensor, prefix: KeyValues | None = None, rows: Tensor | None = None
    ) -> Tensor:
        """Return hidden states [B, L, d] of ids that go on after a prefix."""
        first = 0 if prefix is None else prefix.length
        with self._prefixes.after(prefix, rows):
            output = self.model.base_model(
                input_ids=ids, position_ids=_positions(first, ids), use_cache=False
            )
        return cast("Tensor", output[0])

    def _key_values(self, ids: Tensor) -> list[Tensor]:
        packing, count = None, len(ids)
        if self._prefixes.packs:
            ids = filled(ids, count + _missing(ids.numel(), ids.shape[1]))
            packing = Packing.entire(ids)
        with self._prefixes.collecting(ids, packing) as collected:
            if packing is None:
                self.model.base_model(
                    input_ids=ids, position_ids=_positions(0, ids), use_cache=False
                )
            else:
                self._packed_states(packing, ids)
            found = collected()
        return [states[:count] for states in (*found.keys, *found.values)]


def _missing(tokens: int, each: int) -> int:
    """Return how many rows of `each` tokens a steady pass needs beside so many."""
    return max(0, -(-(FEWEST - tokens) // each))


def _positions(first: int, ids: Tensor) -> Tensor:
    """Return the positions [1, L] of ids [B, L] that come after `first` others."""
    return torch.arange(first, first + ids.shape[1], device=ids.device)[None]

"""Passes that start from the key/values of a prefix, so that it is read only once.

A causal model's key/values at a position depend on the tokens up to it and on nothing
after. Prompts that agree up to a position can share them. They are read here and never
written: a pass sees a copy with its own key/values behind, or a view.

The families of transformers that look up their attention in its registry get ours
while a pass runs; GPT-Neo, which does not, gets its own with the prefix put before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import scaled_dot_product_attention

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from transformers import PreTrainedModel

ATTENTION = "harness_prefix"
"""Our name in transformers' registry of attention functions."""
BY_REGISTRY = frozenset({"gpt_neox", "opt", "gpt2", "llama", "qwen2"})
"""The families, by `model_type`, that our attention serves."""
BY_OWN_ATTENTION = frozenset({"gpt_neo"})
"""The families whose own attention serves once it is given the prefix."""
WIDEST_FLASH_HEAD = 256


@dataclass(frozen=True)
class KeyValues:
    """What each layer keeps of the first p tokens of G sequences."""

    keys: tuple[Tensor, ...]
    """For each layer [G, heads, p, head size]."""
    values: tuple[Tensor, ...]

    @property
    def length(self) -> int:
        """Number of tokens p."""
        return int(self.keys[0].shape[2])

    def first(self, tokens: int) -> KeyValues:
        """Return a view of the first so many tokens."""
        return KeyValues(
            tuple(key[:, :, :tokens] for key in self.keys),
            tuple(value[:, :, :tokens] for value in self.values),
        )


def serves(model: PreTrainedModel) -> bool:
    """Say whether passes of this model can start from a prefix.

    Not where a layer of ours to be sees a window only: GPT-Neo knows its own windows.
    """
    config = model.config
    if config.model_type in BY_OWN_ATTENTION:
        return True
    windowed = getattr(config, "use_sliding_window", False)
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    known = config.model_type in BY_REGISTRY
    return known and not windowed and kinds == {"full_attention"}


class PrefixAttention:
    """Lends a model's layers an attention that knows of prefixes, pass by pass."""

    def __init__(self, model: PreTrainedModel) -> None:
        """Take note of the layers; the model itself stays as it is."""
        self.model = model
        kinds = set(model._no_split_modules or [])
        self._layers = [m for m in model.modules() if type(m).__name__ in kinds]
        self._own = model.config.model_type in BY_OWN_ATTENTION

    @contextmanager
    def collecting(self) -> Iterator[Callable[[], KeyValues]]:
        """Collect the key/values of the pass made inside; call what is yielded."""
        found: list[tuple[Tensor, Tensor]] = []
        with self._lent([{"collected": found}] * len(self._layers)):
            yield lambda: KeyValues(*(tuple(each) for each in zip(*found, strict=True)))

    @contextmanager
    def after(self, prefix: KeyValues | None, rows: Tensor | None) -> Iterator[None]:
        """Let the pass made inside go on after a prefix.

        Sequence b of the batch goes on after row `rows[b]` of the prefix; where `rows`
        is None, all of them after the only row.
        """
        if prefix is None:
            given: list[dict[str, Any]] = [{}] * len(self._layers)
        else:
            given = [
                {"prefix_keys": key, "prefix_values": value, "prefix_rows": rows}
                for key, value in zip(prefix.keys, prefix.values, strict=True)
            ]
        with self._lent(given):
            yield

    @contextmanager
    def _lent(self, given: Sequence[dict[str, Any]]) -> Iterator[None]:
        with ExitStack() as stack:
            if self._own:
                for layer, what in zip(self._layers, given, strict=True):
                    stack.enter_context(_own_attention(layer.attn.attention, what))
            else:
                stack.enter_context(_registered(self.model.config))
                for layer, what in zip(self._layers, given, strict=True):
                    hook = layer.register_forward_pre_hook(
                        _giving(what), with_kwargs=True
                    )
                    stack.callback(hook.remove)
            yield


def attend(
    module: Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    *,
    prefix_keys: Tensor | None = None,
    prefix_values: Tensor | None = None,
    prefix_rows: Tensor | None = None,
    collected: list[tuple[Tensor, Tensor]] | None = None,
    **others: object,
) -> tuple[Tensor, None]:
    """Attend causally to a prefix and to the tokens themselves; rows have no padding.

    The signature is that of transformers' registry: query [B, heads, q, size], result
    [B, q, heads, size].
    """
    if collected is not None:
        collected.append((key, value))
    if prefix_keys is not None and prefix_values is not None:
        key = _behind(prefix_keys, prefix_rows, key)
        value = _behind(prefix_values, prefix_rows, value)
    shared = query.shape[1] // key.shape[1]
    if shared > 1:
        key, value = (x.repeat_interleave(shared, dim=1) for x in (key, value))
    return _causal(query, key, value, scaling).transpose(1, 2), None


def _causal(query: Tensor, key: Tensor, value: Tensor, scale: float | None) -> Tensor:
    """Let the last of the queries see all keys, the one before all but the last, ..."""
    n_query, n_key = query.shape[2], key.shape[2]
    if n_query == n_key:
        return scaled_dot_product_attention(
            query, key, value, is_causal=True, scale=scale
        )
    size = query.shape[3]
    flash = query.dtype in (torch.bfloat16, torch.float16) and size % 8 == 0
    if query.is_cuda and flash and size <= WIDEST_FLASH_HEAD:
        # The public function aligns the causal mask with the first key; this kernel
        # with the last.
        result: tuple[Tensor, ...] = torch.ops.aten._scaled_dot_product_flash_attention(
            query, key, value, 0.0, True, False, scale=scale
        )
        return result[0]
    mask = torch.ones(n_query, n_key, dtype=torch.bool, device=query.device)
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask.tril(n_key - n_query), scale=scale
    )


def _behind(prefix: Tensor, rows: Tensor | None, own: Tensor) -> Tensor:
    before = prefix.expand(len(own), -1, -1, -1) if rows is None else prefix[rows]
    return torch.cat([before, own], dim=2)


def _giving(what: dict[str, Any]) -> Callable[..., Any]:
    def hook(
        module: Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return args, {**kwargs, **what}

    return hook


@contextmanager
def _registered(config: Any) -> Iterator[None]:
    """Make ours the attention of a model; it is looked up at every call."""
    from transformers import AttentionInterface

    AttentionInterface.register(ATTENTION, attend)
    before = config._attn_implementation_internal
    config._attn_implementation_internal = ATTENTION
    try:
        yield
    finally:
        config._attn_implementation_internal = before


@contextmanager
def _own_attention(module: Any, what: dict[str, Any]) -> Iterator[None]:
    """Put a prefix before what GPT-Neo's own attention sees, windows and all."""
    own = module._attn

    def attend_own(query: Tensor, key: Tensor, value: Tensor, *_: Any) -> Any:
        if "collected" in what:
            what["collected"].append((key, value))
        if "prefix_keys" in what:
            rows = what["prefix_rows"]
            key = _behind(what["prefix_keys"], rows, key)
            value = _behind(what["prefix_values"], rows, value)
        return own(query, key, value)

    module._attn = attend_own
    try:
        yield
    finally:
        del module._attn

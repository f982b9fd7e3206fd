"""Passes that start from the key/values of a prefix, so that it is read only once.

A causal model's key/values at a position depend on the tokens up to it and on nothing
after. Prompts that agree up to a position can share them. They are read here and never
written: a pass sees a copy with its own key/values behind, or a view.

The families of transformers that look up their attention in its registry get ours
while a pass runs; GPT-Neo, which does not, gets its own with the prefix put before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from harness.subject.fast.compiling import CompiledLayers
from harness.subject.fast.packing import Packing

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module
    from transformers import PreTrainedModel


ATTENTION = "harness_prefix"
"""Our name in transformers' registry of attention functions."""
BY_REGISTRY = frozenset({"gpt_neox", "opt", "gpt2", "llama", "qwen2"})
"""The families, by `model_type`, that our attention serves."""
KERNEL_HEAD_SIZES = range(16, 129)
"""What a block of our kernel can hold; others go another way."""
BY_OWN_ATTENTION = frozenset({"gpt_neo"})
"""The families whose own attention serves once it is given the prefix."""


@dataclass(frozen=True)
class KeyValues:
    """What each layer keeps of the first p tokens of G sequences."""

    keys: tuple[Tensor, ...]
    """For each layer [G, heads, p, head size]."""
    values: tuple[Tensor, ...]

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> KeyValues:
        """Take each layer's keys, followed by each layer's values."""
        layers = len(tensors) // 2
        return cls(tuple(tensors[:layers]), tuple(tensors[layers:]))

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
        self.own = model.config.model_type in BY_OWN_ATTENTION
        """Whether the model's own attention serves."""
        self._compiled: CompiledLayers | None = None
        self._compiled_gradients: CompiledLayers | None = None

    def compile_layers(self) -> bool:
        """Compile the layers for passes with our attention; say whether that is done.

        Not where the model's own attention serves: it is patched pass by pass.
        """
        if not self.own:
            self._compiled = CompiledLayers(self._layers)
            self._compiled_gradients = CompiledLayers(self._layers)
        return not self.own

    @property
    def compiles_gradients(self) -> bool:
        """Say whether passes with a gradient go through compiled layers."""
        return self._compiled_gradients is not None and self._compiled_gradients.works

    def leave_gradients(self) -> None:
        """Compile no passes with a gradient from now on."""
        self._compiled_gradients = None

    @property
    def compiled(self) -> bool:
        """Say whether passes after a prefix go through compiled layers."""
        return self._compiled is not None and self._compiled.works

    @contextmanager
    def collecting(
        self, ids: Tensor, packing: Packing | None = None
    ) -> Iterator[Callable[[], KeyValues]]:
        """Collect the key/values of a pass over ids [G, p]; call what is yielded.

        Such a pass reads them as they are, or with the packing that is given. Compiled
        layers write what is collected to tensors.
        """
        if self._compiled is None:
            found: list[tuple[Tensor, Tensor]] = []
            with self._lent([{"collected": found}] * len(self._layers)):
                yield lambda: KeyValues(*map(tuple, zip(*found, strict=True)))
            return
        kept = [(self._room(ids), self._room(ids)) for _ in self._layers]
        given = [
            {"kept_keys": key, "kept_values": value, "packing": packing}
            for key, value in kept
        ]
        with self._lent(given), self._compiled.lent():
            yield lambda: KeyValues(*map(tuple, zip(*kept, strict=True)))

    def _room(self, ids: Tensor) -> Tensor:
        """Make room for the keys, or the values, of ids [G, p] in one layer."""
        config = self.model.config
        every = config.num_attention_heads
        heads = getattr(config, "num_key_value_heads", None) or every
        shape = len(ids), heads, ids.shape[1], self._head_size
        return torch.empty(shape, dtype=self.model.dtype, device=ids.device)

    @property
    def _head_size(self) -> int:
        config = self.model.config
        size = getattr(config, "head_dim", None)
        return int(size or config.hidden_size // config.num_attention_heads)

    @property
    def packs(self) -> bool:
        """Say whether a pass can read rows that go on after different tokens."""
        half = self.model.dtype == torch.bfloat16
        return self.compiled and half and self._head_size in KERNEL_HEAD_SIZES

    @contextmanager
    def after(
        self,
        prefix: KeyValues | None,
        rows: Tensor | None,
        packing: Packing | None = None,
    ) -> Iterator[None]:
        """Let the pass made inside go on after a prefix.

        Sequence b of the batch goes on after row `rows[b]` of the prefix; where `rows`
        is None, all of them after the only row. With a packing, they go on after as
        many of its tokens as that says; without, after all of them.
        """
        if prefix is None:
            given: list[dict[str, Any]] = [{"packing": packing}] * len(self._layers)
        else:
            given = [
                {
                    "prefix_keys": key,
                    "prefix_values": value,
                    "prefix_rows": rows,
                    "packing": packing,
                }
                for key, value in zip(prefix.keys, prefix.values, strict=True)
            ]
        gradient = torch.is_grad_enabled()
        compiled = self._compiled_gradients if gradient else self._compiled
        with self._lent(given), compiled.lent() if compiled else nullcontext():
            yield

    @contextmanager
    def _lent(self, given: Sequence[dict[str, Any]]) -> Iterator[None]:
        with ExitStack() as stack:
            if self.own:
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
    packing: Packing | None = None,
    collected: list[tuple[Tensor, Tensor]] | None = None,
    kept_keys: Tensor | None = None,
    kept_values: Tensor | None = None,
    **others: object,
) -> tuple[Tensor, None]:
    """Attend causally to a prefix and to the tokens themselves; rows have no padding.

    The signature is that of transformers' registry: query [B, heads, q, size], result
    [B, q, heads, size].
    """
    if collected is not None:
        collected.append((key, value))
    if kept_keys is not None and kept_values is not None:
        for kept, states in ((kept_keys, key), (kept_values, value)):
            kept.copy_(states if packing is None else _rows(states, len(kept)))
    if packing is not None:
        from harness.subject.fast.flash import attend_packed

        scale = scaling or query.shape[3] ** -0.5
        prefix = prefix_keys, prefix_values, prefix_rows
        where = packing.starts, packing.first, packing.whole
        return attend_packed(query, key, value, *prefix, *where, scale), None
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
    mask = torch.ones(n_query, n_key, dtype=torch.bool, device=query.device)
    return scaled_dot_product_attention(
        query, key, value, attn_mask=mask.tril(n_key - n_query), scale=scale
    )


def _rows(states: Tensor, count: int) -> Tensor:
    """Return the rows [G, heads, p, size] of states [1, heads, G * p, size]."""
    _, heads, total, size = states.shape
    return states[0].view(heads, count, total // count, size).transpose(0, 1)


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

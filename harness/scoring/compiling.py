"""Faster kernels where there is a compiler for the device; the same results without.

Compiled functions differ from the originals in the last bits. Only the passes that
search in bfloat16 on a GPU use them: what is reported never does.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

log = logging.getLogger(__name__)

RECOMPILATIONS = 64
"""Variants of one function, at most: with and without a prefix, one row or many, ..."""
SEEN_BEFORE_CAPTURE = 3
"""How often a shape of gradient is computed before its kernels are recorded."""
GELUS = frozenset({"GELU", "GELUActivation", "GELUTanh", "NewGELUActivation"})
"""The classes of activations that are GELU, exact or not."""
MOST_GRAPHS = 8
"""How many shapes of gradient are recorded: they share memory, but it is kept."""


@cache
def can_compile(device: torch.device) -> bool:
    """Say whether kernels can be compiled for a device."""
    return device.type == "cuda" and find_spec("triton") is not None


class Compiled:
    """A function, compiled for tensors of any size at its first call.

    Where that fails, the function itself is called, and a warning says so.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._compiled: Callable[..., Any] | None = torch.compile(
            function, dynamic=True
        )

    @property
    def works(self) -> bool:
        """Say whether it is the compiled function that is called."""
        return self._compiled is not None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        if self._compiled is not None:
            try:
                with torch._dynamo.config.patch(recompile_limit=RECOMPILATIONS):
                    return self._compiled(*args, **kwargs)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                log.warning("not compiled, slower: %s", str(error).splitlines()[0])
                self._compiled = None
        return self._function(*args, **kwargs)


class CompiledLayers:
    """The layers of a model, which share their code, and so are compiled once."""

    def __init__(self, layers: Sequence[Module]) -> None:
        self._layers = [(layer, Compiled(layer.forward)) for layer in layers]

    @property
    def works(self) -> bool:
        """Say whether all layers are compiled, or will be when first called."""
        return all(compiled.works for _, compiled in self._layers)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Let the model's layers be the compiled ones inside."""
        with ExitStack() as stack:
            for layer, compiled in self._layers:
                vars(layer)["forward"] = compiled
                stack.callback(vars(layer).pop, "forward")
            yield


class RecordedGradients:
    """Gradients of a few pairs, whose kernels are launched all at once.

    A few pairs keep a GPU less busy than Python is with launching their kernels. A
    shape that comes back is recorded, and replayed from then on.
    """

    def __init__(self, compute: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._compute = compute
        self._seen: dict[tuple[int, int, int], int] = {}
        self._graphs: dict[
            tuple[int, int, int], Callable[[Tensor, Tensor], Tensor]
        ] = {}
        self._fails = False
        self._memory: Any = None

    def __call__(self, prompts: Tensor, references: Tensor) -> Tensor:
        """Return the gradients [B, n, d] of prompts [B, n] and references [B, m]."""
        shape = (*prompts.shape, references.shape[1])
        if shape in self._graphs:
            return self._graphs[shape](prompts, references)
        self._seen[shape] = self._seen.get(shape, 0) + 1
        often = self._seen[shape] > SEEN_BEFORE_CAPTURE
        if often and not self._fails and len(self._graphs) < MOST_GRAPHS:
            try:
                self._memory = self._memory or torch.cuda.graph_pool_handle()
                self._graphs[shape] = _recorded(
                    self._compute, prompts, references, self._memory
                )
                return self._graphs[shape](prompts, references)
            except RuntimeError as error:
                log.warning(
                    "gradients are not recorded: %s", str(error).splitlines()[0]
                )
                self._fails = True
                torch.cuda.synchronize()
        return self._compute(prompts, references)


def _recorded(
    compute: Callable[[Tensor, Tensor], Tensor],
    prompts: Tensor,
    references: Tensor,
    memory: Any,
) -> Callable[[Tensor, Tensor], Tensor]:
    """Record a computation; recordings that share memory are replayed one by one.

    Each leaves its result there only until it is copied.
    """
    given = prompts.clone(), references.clone()
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            compute(*given)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=memory):
        result = compute(*given)

    def replay(prompts: Tensor, references: Tensor) -> Tensor:
        given[0].copy_(prompts)
        given[1].copy_(references)
        graph.replay()
        return result.clone()

    return replay


class LinearGelu(torch.nn.Module):
    """A linear layer whose product leaves the kernel with GELU applied.

    It is GELU's tanh form, which differs from the exact one by 5e-4 at most: less than
    what bfloat16 rounds away where that happens.
    """

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, states: Tensor) -> Tensor:
        """Return gelu(states @ W^T + b) for states [..., d]."""
        if torch.is_grad_enabled():
            return torch.nn.functional.gelu(self.linear(states), approximate="tanh")
        weight, bias = self.linear.weight, self.linear.bias
        flat = torch._addmm_activation(
            bias, states.flatten(0, -2), weight.T, use_gelu=True
        )
        return flat.view(*states.shape[:-1], -1)


def fuse_gelu(model: torch.nn.Module) -> int:
    """Let a GPT-NeoX model's linear layers apply GELU; return how many do.

    The model is changed: it must be a copy that nobody else has.
    """
    fused = 0
    for module in model.modules():
        if type(module).__name__ != "GPTNeoXMLP":
            continue
        linear, activation = module.dense_h_to_4h, module.act
        known = type(activation).__name__ in GELUS
        if known and type(linear) is torch.nn.Linear and linear.bias is not None:
            module.dense_h_to_4h = LinearGelu(linear)
            module.act = torch.nn.Identity()
            fused += 1
    return fused

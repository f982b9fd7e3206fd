"""Kernels that are launched all at once, on CUDA devices.

Passes over few tokens are bound by launch latency.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor

    Compute = Callable[..., Sequence[Tensor]]
    Kind = tuple[bool | torch.Size, ...]

log = logging.getLogger(__name__)

SEEN_BEFORE_CAPTURE = 3
"""How often a shape is computed before its kernels are recorded."""
MOST_GRAPHS = 8
"""How many shapes are recorded: each holds its activations."""


class Recorded:
    """A function of tensors, recorded for each shape of them that comes back.

    What it returns is valid until it is called again: recordings share memory.
    """

    def __init__(self, compute: Compute) -> None:
        self._compute = compute
        self._seen: dict[Kind, int] = {}
        self._graphs: dict[Kind, Compute] = {}
        self._fails = False
        self._memory: Any = None

    def __call__(self, *given: Tensor) -> Sequence[Tensor]:
        """Return what the function returns."""
        # A recording keeps the precision of its products: one made while TF32 was
        # allowed would be no float32 pass.
        precision = torch.backends.cuda.matmul.allow_tf32
        kind = (precision, *(tensor.shape for tensor in given))
        if kind in self._graphs:
            return self._graphs[kind](*given)
        self._seen[kind] = self._seen.get(kind, 0) + 1
        often = self._seen[kind] > SEEN_BEFORE_CAPTURE
        if often and not self._fails and len(self._graphs) < MOST_GRAPHS:
            try:
                self._memory = self._memory or torch.cuda.graph_pool_handle()
                self._graphs[kind] = _recorded(self._compute, given, self._memory)
                return self._graphs[kind](*given)
            except RuntimeError as error:
                log.warning("not recorded, slower: %s", str(error).splitlines()[0])
                self._fails = True
                torch.cuda.synchronize()
        return self._compute(*given)


def _recorded(compute: Compute, given: Sequence[Tensor], memory: Any) -> Compute:
    """Record a computation; recordings that share memory are replayed one by one."""
    kept = [tensor.clone() for tensor in given]
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(2):
            compute(*kept)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=memory):
        results = compute(*kept)

    def replay(*given: Tensor) -> Sequence[Tensor]:
        for own, new in zip(kept, given, strict=True):
            own.copy_(new)
        graph.replay()
        return results

    return replay

"""Faster kernels where there is a compiler for the device; the same results without.

Compiled functions differ from the originals in the last bits. Layers are compiled for
passes that search in bfloat16 on a GPU, and that decide near ties there: never for what
is reported, where the log-sum-exp of float32 logits alone is a compiled function.
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
    from torch.nn import Module

log = logging.getLogger(__name__)

RECOMPILATIONS = 64
"""Variants of one function, at most: with and without a prefix, one row or many, ..."""


@cache
def can_compile(device: torch.device) -> bool:
    """Say whether kernels can be compiled for a device."""
    return device.type == "cuda" and find_spec("triton") is not None


class Compiled:
    """A function, compiled at its first call.

    With `dynamic`, for tensors of any size; without, once for each size that comes.
    Where that fails, the function itself is called, and a warning says so.
    """

    def __init__(self, function: Callable[..., Any], *, dynamic: bool = True) -> None:
        self._function = function
        self._compiled: Callable[..., Any] | None = torch.compile(
            function, dynamic=dynamic
        )

    @property
    def works(self) -> bool:
        """Say whether it is the compiled function that is called."""
        return self._compiled is not None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        if self._compiled is not None:
            try:
                return self._compiled(*args, **kwargs)
            except torch.OutOfMemoryError:
                raise
            except _failures() as error:
                log.warning("not compiled, slower: %s", str(error).splitlines()[0])
                self._compiled = None
        return self._function(*args, **kwargs)


def _failures() -> tuple[type[Exception], ...]:
    """Return what compiling raises; importing it takes a second, compiling or not."""
    from torch._dynamo.exc import FailOnRecompileLimitHit

    return RuntimeError, FailOnRecompileLimitHit


class CompiledLayers:
    """The layers of a model, which share their code, and so are compiled once."""

    def __init__(self, layers: Sequence[Module], *, dynamic: bool = True) -> None:
        self._layers = [
            (layer, Compiled(layer.forward, dynamic=dynamic)) for layer in layers
        ]

    @property
    def works(self) -> bool:
        """Say whether all layers are compiled, or will be when first called."""
        return all(compiled.works for _, compiled in self._layers)

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Let the model's layers be the compiled ones inside.

        One that has too many variants is compiled no more, in none of them, and `works`
        says so: beside each other, they would round otherwise.
        """
        with (
            torch._dynamo.config.patch(
                recompile_limit=RECOMPILATIONS,
                fail_on_recompile_limit_hit=True,
                suppress_errors=False,  # or torch refuses the one before
            ),
            ExitStack() as stack,
        ):
            for layer, compiled in self._layers:
                vars(layer)["forward"] = compiled
                stack.callback(vars(layer).pop, "forward")
            yield

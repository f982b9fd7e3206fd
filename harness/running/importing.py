"""The libraries that units need, imported sooner than they come by themselves."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module

_MODULES = (
    "transformers.generation.utils",
    "transformers.modeling_utils",
    "transformers.models.auto.modeling_auto",
    "harness.running.suite_run",
)
_NOT_NEEDED = "sklearn"
"""transformers imports it, where it is there, for a way to generate that is used
nowhere here: that takes as long as torch."""


@contextmanager
def quick_imports() -> Iterator[None]:
    """Import at the end of the block what units need; all imports in it take less time.

    No garbage is collected meanwhile: modules are none, and to look at them again and
    again takes an eighth of the time that importing them does. Nor are they looked at
    later, where it is here that they come.
    """
    collects, come = gc.isenabled(), "torch" not in sys.modules
    gc.disable()
    try:
        yield
        with _absent(_NOT_NEEDED):
            for name in _MODULES:
                import_module(name)
        if come:
            gc.freeze()
    finally:
        if collects:
            gc.enable()


@contextmanager
def _absent(name: str) -> Iterator[None]:
    """Let a package seem not to be installed, unless somebody has it already.

    Or transformers, which remembers what it has found to be there.
    """
    if {name, "transformers"} & sys.modules.keys():
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]

"""Reading what names plugins, without running them.

A suite or a run folder that somebody else wrote names files of Python code. Commands
that only read it load none of them: a stand-in takes the place of each plugin that is
then unknown. It holds the options as they are stated, and judges nothing.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pydantic

from harness.api import KINDS, Budget, Options, Plugin, PluginInfo, Registry
from harness.base import PluginError, UsageError


class UnknownOptions(Options):
    """Options of a plugin that is not loaded: whatever is stated."""

    model_config = pydantic.ConfigDict(extra="allow")


class Unloaded(Plugin[Any]):
    """A plugin that was named and not loaded."""

    Options = UnknownOptions
    controls = ()

    def budget(self, examples: int) -> Budget:
        """Return nothing: as a search of its own, it is judged nowhere."""
        return Budget(0, 0)

    def shape(self) -> None:
        """Return None: the size of its model is not known."""


class ReadersRegistry(Registry):
    """The plugins that are loaded, and stand-ins for all others that are asked for."""

    def __init__(self, loaded: Registry) -> None:
        super().__init__(loaded.hook, {(x.kind, x.name): x for x in loaded.all()})
        self.missed: set[str] = set()
        """The plugins that a stand-in was made for, as ``attack 'mine'``."""

    def get(self, kind: str, name: str) -> PluginInfo:
        try:
            return super().get(kind, name)
        except UsageError:
            self.missed.add(f"{kind} {name!r}")
            return PluginInfo(kind, name, _stand_in(kind, name), "not loaded", "")


def unjudged(named: Sequence[Path], registry: ReadersRegistry) -> str:
    """Say which plugins were named and not loaded, and what was not judged for it."""
    files = ", ".join(map(str, named))
    missed = ", ".join(sorted(registry.missed))
    left = f"; nothing is said of the {missed}" if missed else ""
    return f"not loaded, as its code would run: {files}{left} (--trust loads it)"


def split(stated: Iterable[Path], given: Sequence[Path]) -> list[list[Path]]:
    """Split plugin paths into those that the user gave, too, and the others."""
    known = {path.resolve() for path in given}
    parts: list[list[Path]] = [[], []]
    for path in stated:
        own = path.resolve()
        parts[not known & {own, *own.parents}].append(path)
    return parts


def _stand_in(kind: str, name: str) -> type[Plugin[Any]]:
    base = KINDS[kind]
    missing = {x for x in base.__abstractmethods__ if not hasattr(Unloaded, x)}

    def refuse(*_: object, **__: object) -> NoReturn:
        raise PluginError(f"the {kind} {name!r} is not loaded")

    members = {"name": name, **dict.fromkeys(missing, refuse)}
    made: type[Plugin[Any]] = types.new_class(
        "StandIn", (Unloaded, base), exec_body=lambda body: body.update(members)
    )
    return made

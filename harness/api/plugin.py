"""What a plugin implements: a model adapter, a constraint, a metric or an attack.

Every plugin is a class with a `name`, an `Options` model and a docstring whose first
line says what it does. It is built as ``PluginClass(options)`` and holds no state that
a run could leave behind. Heavy libraries are imported inside the methods that use
them, so that listing plugins stays fast.
"""

from __future__ import annotations

from abc import ABC
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Generic, NamedTuple, TypeVar

from harness.base import Strict
from harness.data import CORPUS as CORPUS, CorpusName as CorpusName

ATTACK = "attack-label"
AttackLabel = Annotated[str, ATTACK]
"""The type of an option that names another attack of the suite, by its label."""

LOCAL_PATH = "local-path"
LocalPath = Annotated[str, LOCAL_PATH]
"""The type of an option that is a local path or, where none is there, a hub id."""


class Options(Strict):
    """The options of a plugin: unknown keys are errors, docstrings are descriptions."""


OptionsT = TypeVar("OptionsT", bound=Options)


class Paper(NamedTuple):
    """What a plugin is from, or an argument that it follows."""

    who: str
    """As ``Wallace et al. 2019``."""
    title: str
    url: str | None = None
    """Where it can be read; None of what is in no archive."""


class Plugin(ABC, Generic[OptionsT]):
    """What all kinds of plugin share."""

    name: ClassVar[str]
    """What suites call it."""
    papers: ClassVar[tuple[Paper, ...]] = ()
    """What it is from; none of what is the author's own."""
    example: ClassVar[Mapping[str, Any]] = {}
    """Options as a suite might state them, those that are required among them."""
    Options: ClassVar[type[Options]] = Options
    """Its options, with types, defaults and meaning."""

    def __init__(self, options: OptionsT | None = None) -> None:
        self.options: OptionsT = options or self.Options()  # type: ignore[assignment]

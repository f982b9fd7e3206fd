"""Strings that name something else: a corpus, an attack, an arm, a local path.

The types of such strings carry a mark (`CorpusName`, `AttackLabel`, `LocalPath`),
wherever they stand in a model. One walk therefore finds all that a suite, or the
options of a plugin, refer to.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

import pydantic

from harness.api import Plugin
from harness.suite.yaml import Keys


class Marked(NamedTuple):
    """A marked string of a plain value."""

    mark: str
    """As `CORPUS`, `ATTACK` or `LOCAL_PATH`."""
    text: str
    keys: Keys
    """Where in the value it is."""


def marked(model: type[pydantic.BaseModel], value: Any) -> Iterator[Marked]:
    """Find the marked strings in the plain value of a model, valid or not.

    Fields are looked through in the model's order.
    """
    return _find(model, value, ())


def named_by(plugin: Plugin[Any], mark: str) -> list[str]:
    """Return what the options of a plugin name, of one mark, in their order."""
    values = plugin.options.model_dump(mode="json")
    found = marked(type(plugin.options), values)
    return [one.text for one in found if one.mark == mark]


def _find(annotation: Any, value: Any, keys: Keys) -> Iterator[Marked]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        if isinstance(value, str):
            marks = (mark for mark in arguments[1:] if isinstance(mark, str))
            yield from (Marked(mark, value, keys) for mark in marks)
        yield from _find(arguments[0], value, keys)
    elif origin in (Union, UnionType):
        for argument in arguments:
            yield from _find(argument, value, keys)
    elif isinstance(value, list) and arguments:
        for index, item in enumerate(value):
            yield from _find(arguments[0], item, (*keys, index))
    elif isinstance(value, dict):
        for key, part in _typed(annotation, arguments, value):
            yield from _find(part, value[key], (*keys, key))


def _typed(
    annotation: Any, arguments: tuple[Any, ...], value: dict[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Yield the keys of a mapping with the types of what they lead to."""
    if arguments:
        yield from ((key, arguments[-1]) for key in value)
    elif inspect.isclass(annotation) and issubclass(annotation, pydantic.BaseModel):
        for name, field in annotation.model_fields.items():
            if name in value:
                yield name, field.rebuild_annotation()

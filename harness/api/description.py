"""Plugins and their options in words, for ``harness list`` and ``describe``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

from harness.api.plugin import CORPUS, LOCAL_PATH
from harness.api.registry import PluginInfo

BOUNDS = {
    "exclusiveMinimum": ">",
    "minimum": ">=",
    "exclusiveMaximum": "<",
    "maximum": "<=",
}
NAMES = {CORPUS: "name of a corpus", LOCAL_PATH: "local path or hub id"}
"""What annotated strings are called."""


@dataclass(frozen=True)
class OptionDescription:
    """An option of a plugin."""

    name: str
    type: str
    """In words, as ``integer > 0`` or ``both | in | out``."""
    required: bool
    default: Any
    """As JSON; null where there is none."""
    meaning: str


@dataclass(frozen=True)
class Description:
    """A plugin, as users see it."""

    kind: str
    name: str
    summary: str
    """The first line of its docstring."""
    text: str
    """The rest of its docstring."""
    version: str
    source: str
    sha256: str
    options: list[OptionDescription]

    def as_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return asdict(self)


def describe(info: PluginInfo) -> Description:
    """Describe a plugin from its docstring and its `Options`."""
    summary, _, text = inspect.cleandoc(info.plugin.__doc__ or "").partition("\n")
    return Description(
        kind=info.kind,
        name=info.name,
        summary=summary,
        text=text.strip(),
        version=info.version,
        source=info.source,
        sha256=info.sha256,
        options=list(_options(info)),
    )


def _options(info: PluginInfo) -> Iterator[OptionDescription]:
    schema = info.plugin.Options.model_json_schema()
    for name, field in info.plugin.Options.model_fields.items():
        part = schema["properties"][name]
        words = type_words(part, schema)
        for mark in _marks(field.rebuild_annotation()):
            words = words.replace("string", NAMES[mark])
        yield OptionDescription(
            name=name,
            type=words,
            required=field.is_required(),
            default=part.get("default"),
            meaning=" ".join((field.description or "").split()),
        )


def _marks(annotation: Any) -> Iterator[str]:
    """Find the marks of `NAMES` anywhere in a type, as in ``LocalPath | None``."""
    marks = getattr(annotation, "__metadata__", ())
    yield from (mark for mark in marks if isinstance(mark, str) and mark in NAMES)
    for argument in get_args(annotation):
        yield from _marks(argument)


def type_words(part: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Say what a part of a JSON Schema allows; `schema` holds its ``$defs``."""
    if "$ref" in part:
        return type_words(schema["$defs"][part["$ref"].rsplit("/", 1)[-1]], schema)
    if "const" in part or "enum" in part:
        return " | ".join(str(x) for x in part.get("enum", [part.get("const")]))
    if "anyOf" in part:
        return " or ".join(type_words(choice, schema) for choice in part["anyOf"])
    if part.get("type") == "array":
        return _array_words(part, schema)
    bounds = [f"{sign} {part[key]}" for key, sign in BOUNDS.items() if key in part]
    return " ".join([part.get("type", "any"), *filter(None, [", ".join(bounds)])])


def _array_words(part: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    if "prefixItems" in part:
        items = (type_words(item, schema) for item in part["prefixItems"])
        return f"[{', '.join(items)}]"
    return f"list of {type_words(part.get('items', {}), schema)}"

"""Plugins and their options in words, for ``harness list`` and ``describe``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, get_args

from harness.api.attacks import Attack, Budget
from harness.api.constraints import Constraint
from harness.api.metrics import Metric
from harness.api.models import ModelAdapter
from harness.api.plugin import CORPUS, LOCAL_PATH, Paper, Plugin
from harness.api.registry import PluginInfo

BOUNDS = {
    "exclusiveMinimum": ">",
    "minimum": ">=",
    "exclusiveMaximum": "<",
    "maximum": "<=",
}
SHARED_BY = 100
"""How many examples share an attack whose cost is said."""
_COSTS: tuple[tuple[str, type[Plugin[Any]], str], ...] = (
    ("budget", Attack, ""),
    ("expected_cost", Constraint, "Nothing: it is put on in a moment."),
    ("expected_cost", Metric, ""),
    ("preparation", ModelAdapter, "Nothing but reading its weights."),
)
"""The methods whose docstrings say what a plugin costs, and what is so without one."""
_ENTRIES = {
    "model": ("models", "adapter", "mine"),
    "constraint": ("arms", "constraint", "treated"),
    "attack": ("attacks", "attack", ""),
    "metric": ("metrics", "metric", ""),
}
"""By kind: the section of a suite, the key that names a plugin, and a label where the
entry is not called like its plugin."""
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
    cost: str
    """What it costs, in a sentence or more; empty where it does not say."""
    papers: list[Paper]
    """What it is from."""
    example: dict[str, Any]
    """An entry of a suite that names it, by section and label."""

    def as_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {**asdict(self), "papers": [paper._asdict() for paper in self.papers]}


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
        cost=" ".join(filter(None, _cost(info.plugin))),
        papers=list(info.plugin.papers),
        example=_example(info),
    )


def _cost(plugin: type[Plugin[Any]]) -> Iterator[str]:
    """Say what a plugin costs: an attack's budget, and what its code says of it."""
    budget = _budget(plugin)
    if budget is not None:
        yield (
            f"With its defaults, at most {budget.forward:,} forward and "
            f"{budget.backward:,} backward passes for each of {SHARED_BY} examples."
        )
    for method, base, otherwise in _COSTS:
        if not issubclass(plugin, base):
            continue
        own = getattr(plugin, method)
        if own is getattr(base, method):
            yield otherwise
            continue
        said = " ".join(inspect.cleandoc(own.__doc__ or "").split())
        said = said.replace("``", "`").removeprefix("Return ")
        if budget is not None:  # what comes first is that it is a budget
            said = said.partition(". ")[-1]
        yield said[:1].upper() + said[1:]


def _budget(plugin: type[Plugin[Any]]) -> Budget | None:
    """Return what an attack costs with its defaults, where that says something."""
    if not issubclass(plugin, Attack):
        return None
    try:
        budget = plugin().budget(SHARED_BY)
    except Exception:  # noqa: BLE001 - it needs options, or what stands around it
        return None
    told = isinstance(budget, Budget) and (budget.forward or budget.backward)
    return budget if told else None


def _example(info: PluginInfo) -> dict[str, Any]:
    section, key, label = _ENTRIES[info.kind]
    named = {key: info.name} if label else {}
    return {section: {label or info.name: {**named, **info.plugin.example}}}


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

"""The plugins of a suite: which an entry names, its paths, and its options checked.

It works on the merged tree, before there is a `Suite`, so that a fault in one entry
hides none in another.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pydantic

from harness.api import LOCAL_PATH, Plugin, Registry
from harness.base import Problem, UsageError
from harness.suite import complaints
from harness.suite.model import ArmSection, AttackSection, MetricSection, ModelSection
from harness.suite.yaml import Node

Plugins = dict[str, dict[str, Plugin[Any]]]
"""The plugins of a suite by section and label."""


@dataclass(frozen=True)
class PluginSection:
    """A section of the suite whose entries name plugins."""

    kind: str
    """The kind of plugin."""
    key: str
    """The key that names it."""
    model: type[pydantic.BaseModel]
    """What defines an entry, besides the plugin's options."""

    @property
    def reserved(self) -> frozenset[str]:
        """The keys that are no options of the plugin."""
        return frozenset(self.model.model_fields)

    def default(self, label: str) -> str | None:
        """Return the plugin of an entry that names none."""
        return {"model": None, "constraint": "none"}.get(self.kind, label)


PLUGIN_SECTIONS = {
    "models": PluginSection("model", "adapter", ModelSection),
    "arms": PluginSection("constraint", "constraint", ArmSection),
    "metrics": PluginSection("metric", "metric", MetricSection),
    "attacks": PluginSection("attack", "attack", AttackSection),
}


def settle(tree: Node, registry: Registry) -> Node:
    """Name every plugin, and make the paths absolute that lead to something."""
    entries = dict(tree.value)
    for section, about in PLUGIN_SECTIONS.items():
        if section in entries:
            entries[section] = _settled(entries[section], about, registry)
    corpora = entries.get("corpora")
    if corpora is not None and isinstance(corpora.value, dict):
        located = {
            label: _with_paths(node, ["path"], hub=False)
            for label, node in corpora.value.items()
        }
        entries["corpora"] = Node(located, corpora.place)
    return Node(entries, tree.place)


def build_plugins(tree: Node, registry: Registry, problems: list[Problem]) -> Plugins:
    """Build the plugins whose options are right; append to `problems` the others'."""
    plugins: Plugins = {}
    for section, about in PLUGIN_SECTIONS.items():
        built = plugins.setdefault(section, {})
        for label, node in entries_of(tree, section).items():
            plugin = _build(section, label, node, about, registry, problems)
            if plugin is not None:
                built[label] = plugin
    return plugins


def entries_of(tree: Node, section: str) -> dict[str, Node]:
    """Return the entries of a section that are mappings, by label."""
    node = tree.child(section)
    if node is None or not isinstance(node.value, dict):
        return {}
    return {k: n for k, n in node.value.items() if isinstance(n.value, dict)}


def marked(options: type[Any], marker: str) -> list[str]:
    """Return the options whose type carries a marker: `CORPUS` or `LOCAL_PATH`."""
    return [
        name
        for name, field in options.model_fields.items()
        if marker in field.metadata or _mentions(field.annotation, marker)
    ]


def _mentions(annotation: Any, marker: str) -> bool:
    if get_origin(annotation) is Annotated:
        return marker in annotation.__metadata__
    return any(_mentions(argument, marker) for argument in get_args(annotation))


def absolute(node: Node, *, hub: bool = True) -> Node:
    """Make a path, or each of a list, absolute: relative to where it is stated.

    Where it may name something on the `hub` instead, it is left as it is unless it
    leads somewhere or can be nothing but a path.
    """
    if isinstance(node.value, list):
        return Node([absolute(item, hub=hub) for item in node.value], node.place)
    if not isinstance(node.value, str) or not node.value:
        return node
    path = Path(node.value).expanduser()
    target = Path(os.path.abspath(node.place.base / path))  # noqa: PTH100
    explicit = path.is_absolute() or node.value.split("/")[0] in (".", "..")
    is_path = explicit or not hub or target.exists()
    return Node(str(target), node.place) if is_path else node


# --- paths and defaults -------------------------------------------------------------


def _settled(section: Node, about: PluginSection, registry: Registry) -> Node:
    if not isinstance(section.value, dict):
        return section
    entries = {}
    for label, node in section.value.items():
        if isinstance(node.value, dict):
            node = _settled_entry(label, node, about, registry)
        entries[label] = node
    return Node(entries, section.place)


def _settled_entry(
    label: str, node: Node, about: PluginSection, registry: Registry
) -> Node:
    name = _plugin_name(label, node, about)
    if name is not None and about.key not in node.value:
        node = Node({about.key: Node(name, node.place), **node.value}, node.place)
    try:
        options = registry.get(about.kind, str(name)).plugin.Options
    except UsageError:  # `check` says so
        return node
    return _with_paths(node, marked(options, LOCAL_PATH))


def _plugin_name(label: str, node: Node, about: PluginSection) -> str | None:
    stated = node.child(about.key)
    if stated is None or stated.value is None:
        return about.default(label)
    return stated.value if isinstance(stated.value, str) else None


def _with_paths(entry: Node, keys: list[str], *, hub: bool = True) -> Node:
    if not isinstance(entry.value, dict):
        return entry
    paths = {k: absolute(entry.value[k], hub=hub) for k in keys if k in entry.value}
    return Node({**entry.value, **paths}, entry.place)


# --- options ------------------------------------------------------------------------


def _build(
    section: str,
    label: str,
    node: Node,
    about: PluginSection,
    registry: Registry,
    problems: list[Problem],
) -> Plugin[Any] | None:
    plugin = _plugin_class(section, label, node, about, registry, problems)
    if plugin is None:
        return None
    given = {k: n for k, n in node.value.items() if k not in about.reserved}
    options, faults = complaints.validate(
        plugin.Options,
        Node(given, node.place),
        (section, label),
        key=f"{plugin.name} option",
        also_known=about.reserved,
    )
    problems += faults
    return None if faults else plugin(options)


def _plugin_class(
    section: str,
    label: str,
    node: Node,
    about: PluginSection,
    registry: Registry,
    problems: list[Problem],
) -> type[Plugin[Any]] | None:
    name = _plugin_name(label, node, about)
    if name is None:  # missing or no string: said of the section
        return None
    try:
        return registry.get(about.kind, name).plugin
    except UsageError as error:
        stated, path = node.value[about.key], f"{section}.{label}"
        if stated.place is not node.place:  # else `settle` put it there
            path += f".{about.key}"
        problems.append(stated.place.problem(path, str(error)))
        return None

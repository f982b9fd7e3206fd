"""What must hold across a suite: plugins' options, references, disjoint texts.

The checks read the merged tree rather than a finished `Suite`, so that a fault in one
section hides none in another.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pydantic

from harness import complaints
from harness.errors import Problem, UsageError, unknown_name
from harness.interfaces import CORPUS, LOCAL_PATH, Attack, Plugin
from harness.located import Node
from harness.registry import Registry
from harness.slices import Source, overlap
from harness.suite import (
    ArmSection,
    AttackSection,
    CorpusSection,
    MetricSection,
    ModelSection,
    Suite,
)

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


def check(
    tree: Node, registry: Registry
) -> tuple[Suite | None, Plugins, list[Problem]]:
    """Validate a merged tree: the suite, its plugins, and all that is wrong."""
    suite, problems = complaints.validate(Suite, tree)
    plugins = _build_plugins(tree, registry, problems)
    uses = list(_corpus_uses(tree, plugins))
    problems += _arms_problems(tree)
    problems += _seed_problems(tree)
    problems += _attack_problems(tree, plugins)
    problems += _unknown_corpora(tree, uses)
    problems += _overlaps(tree, uses)
    return suite, plugins, problems


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


# --- paths and defaults -------------------------------------------------------------


def settle(tree: Node, registry: Registry) -> Node:
    """Name every plugin, and make the paths absolute that lead to something."""
    entries = dict(tree.value)
    for section, about in PLUGIN_SECTIONS.items():
        if section in entries:
            entries[section] = _settled(entries[section], about, registry)
    corpora = entries.get("corpora")
    if corpora is not None and isinstance(corpora.value, dict):
        located = {k: _with_paths(n, ["path"]) for k, n in corpora.value.items()}
        entries["corpora"] = Node(located, corpora.place)
    return Node(entries, tree.place)


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


def _with_paths(entry: Node, keys: list[str]) -> Node:
    if not isinstance(entry.value, dict):
        return entry
    paths = {key: absolute(entry.value[key]) for key in keys if key in entry.value}
    return Node({**entry.value, **paths}, entry.place)


def absolute(node: Node) -> Node:
    """Make a path absolute, if it leads somewhere or cannot be anything else."""
    if isinstance(node.value, list):
        return Node([absolute(item) for item in node.value], node.place)
    if not isinstance(node.value, str) or not node.value:
        return node
    path = Path(node.value).expanduser()
    target = Path(os.path.abspath(node.place.base / path))  # noqa: PTH100
    plain = path.parts[0] in (".", "..", "/") if path.parts else False
    explicit = path.is_absolute() or node.value.startswith(("./", "../"))
    is_path = explicit or plain or target.exists()
    return Node(str(target), node.place) if is_path else node


# --- plugins ------------------------------------------------------------------------


def _entries(tree: Node, section: str) -> dict[str, Node]:
    node = tree.child(section)
    if node is None or not isinstance(node.value, dict):
        return {}
    return {k: n for k, n in node.value.items() if isinstance(n.value, dict)}


def _build_plugins(tree: Node, registry: Registry, problems: list[Problem]) -> Plugins:
    plugins: Plugins = {}
    for section, about in PLUGIN_SECTIONS.items():
        built = plugins.setdefault(section, {})
        for label, node in _entries(tree, section).items():
            plugin = _build(section, label, node, about, registry, problems)
            if plugin is not None:
                built[label] = plugin
    return plugins


def _build(
    section: str,
    label: str,
    node: Node,
    about: PluginSection,
    registry: Registry,
    problems: list[Problem],
) -> Plugin[Any] | None:
    name = _plugin_name(label, node, about)
    if name is None:  # missing or no string: said of the section
        return None
    stated = node.value[about.key]
    try:
        plugin = registry.get(about.kind, name).plugin
    except UsageError as error:
        path = f"{section}.{label}"
        if stated.place is not node.place:  # else `settle` put it there
            path += f".{about.key}"
        problems.append(stated.place.problem(path, str(error)))
        return None
    given = {k: n for k, n in node.value.items() if k not in about.reserved}
    options, faults = complaints.validate(
        plugin.Options,
        Node(given, node.place),
        (section, label),
        key=f"{name} option",
        also_known=about.reserved,
    )
    problems += faults
    return None if faults else plugin(options)


# --- references ---------------------------------------------------------------------


@dataclass(frozen=True)
class _Use:
    """A place of the suite that names a corpus."""

    path: str
    node: Node
    role: str
    """training, search, validation, test or measured."""


def _corpus_uses(tree: Node, plugins: Plugins) -> Iterator[_Use]:
    fixed = (
        ("recovery", "corpus", "training"),
        ("recovery", "validation", "measured"),
        ("examples.test", "corpus", "test"),
        ("examples.search", "corpus", "search"),
        ("examples.validation", "corpus", "validation"),
    )
    for section, key, role in fixed:
        path = (*section.split("."), key)
        node, followed = tree.find(path)
        if len(followed) == len(path) and isinstance(node.value, str):
            yield _Use(".".join(path), node, role)
    for section, label, plugin in _all_plugins(plugins):
        for key in marked(type(plugin.options), CORPUS):
            node, followed = tree.find((section, label, key))
            if followed[2:]:
                yield from _named(f"{section}.{label}.{key}", node)


def _all_plugins(plugins: Plugins) -> Iterator[tuple[str, str, Plugin[Any]]]:
    for section, built in plugins.items():
        for label, plugin in built.items():
            yield section, label, plugin


def _named(path: str, node: Node) -> Iterator[_Use]:
    if isinstance(node.value, str):
        yield _Use(path, node, "measured")
    for index, item in enumerate(node.value if isinstance(node.value, list) else []):
        yield from _named(f"{path}.{index}", item)


def _unknown_corpora(tree: Node, uses: list[_Use]) -> Iterator[Problem]:
    corpora = tree.child("corpora")
    known = corpora.value if corpora and isinstance(corpora.value, dict) else {}
    for use in uses:
        if use.node.value not in known:
            message = unknown_name("corpus", use.node.value, known)
            yield use.node.place.problem(use.path, message)


_APART = {
    frozenset(pair)
    for pair in (
        ("search", "validation"),
        ("search", "test"),
        ("validation", "test"),
        ("training", "test"),
        ("training", "measured"),
    )
}
"""Roles that must not share a document."""


def _overlaps(tree: Node, uses: list[_Use]) -> Iterator[Problem]:
    sources = _sources(tree)
    for index, second in enumerate(uses):
        for first in uses[:index]:
            if frozenset((first.role, second.role)) not in _APART:
                continue
            one, other = (sources.get(use.node.value) for use in (first, second))
            shared = overlap(one, other) if one and other else None
            if shared:
                message = f"{shared} with {first.path}; give them disjoint slices"
                yield second.node.place.problem(second.path, message)


def _sources(tree: Node) -> dict[str, Source]:
    sources = {}
    for label, node in _entries(tree, "corpora").items():
        section, _ = complaints.validate(CorpusSection, node)
        if section is not None:
            sources[label] = Source.of(section)
    return sources


# --- rules --------------------------------------------------------------------------


def _arms_problems(tree: Node) -> Iterator[Problem]:
    arms = tree.child("arms")
    if arms is None or not isinstance(arms.value, dict) or not arms.value:
        return
    if "baseline" not in arms.value:
        message = "needs an arm called 'baseline', which all others are compared with"
        yield arms.place.problem("arms", message)


def _seed_problems(tree: Node) -> Iterator[Problem]:
    seeds = tree.child("seeds")
    seen = set()
    for node in seeds.value if seeds and isinstance(seeds.value, list) else []:
        if isinstance(node.value, int) and node.value in seen:
            yield node.place.problem("seeds", f"{node.value} is stated twice")
        seen.add(node.value if isinstance(node.value, int) else None)


def _attack_problems(tree: Node, plugins: Plugins) -> Iterator[Problem]:
    attacks = tree.child("attacks")
    labels = attacks.value if attacks and isinstance(attacks.value, dict) else {}
    examples = tree.child("examples")
    if attacks and labels and (examples is None or examples.value is None):
        message = "attacks need examples: state `examples.test`"
        yield attacks.place.problem("attacks", message)
    for label, node in _entries(tree, "attacks").items():
        yield from _match_problems(label, node, labels)
        attack = plugins["attacks"].get(label)
        if examples and isinstance(attack, Attack) and attack.uses_search_examples:
            yield from _search_problems(label, node, examples)


def _match_problems(
    label: str, node: Node, labels: dict[str, Node]
) -> Iterator[Problem]:
    match = node.child("match")
    if match is None or not isinstance(match.value, str):
        return
    target = labels.get(match.value)
    message = None
    if target is None:
        message = unknown_name("attack", match.value, labels)
    elif match.value == label:
        message = "an attack cannot be its own control"
    elif target.child("match") is not None:
        message = f"{match.value!r} is a control itself; match an attack"
    if message:
        yield match.place.problem(f"attacks.{label}.match", message)


def _search_problems(label: str, node: Node, examples: Node) -> Iterator[Problem]:
    for name in ("search", "validation"):
        stated = examples.child(name)
        if isinstance(examples.value, dict) and (stated is None or not stated.value):
            message = f"needs `examples.{name}`, apart from the test examples"
            yield node.place.problem(f"attacks.{label}", message)

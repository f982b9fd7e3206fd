"""The plugins of a suite: which an entry names, its paths, and its options checked.

It works on the merged layers, before there is a `Suite`, so that a fault in one entry
hides none in another.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from harness.api import LOCAL_PATH, Plugin, Registry
from harness.base import UsageError
from harness.suite import complaints
from harness.suite.marks import marked
from harness.suite.model import ArmSection, AttackSection, MetricSection, ModelSection
from harness.suite.yaml import Keys, Layer, put

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

    def plugin_of(self, label: str, entry: dict[str, Any]) -> str | None:
        """Return the plugin that an entry names; None where it names none rightly."""
        stated = entry.get(self.key)
        if stated is None:
            return self.default(label)
        return stated if isinstance(stated, str) else None


PLUGIN_SECTIONS = {
    "models": PluginSection("model", "adapter", ModelSection),
    "arms": PluginSection("constraint", "constraint", ArmSection),
    "metrics": PluginSection("metric", "metric", MetricSection),
    "attacks": PluginSection("attack", "attack", AttackSection),
}


def settle(suite: Layer, registry: Registry) -> None:
    """Name every plugin, and make the paths absolute that lead to something."""
    for section, about in PLUGIN_SECTIONS.items():
        for label, entry in suite.entries(section):
            name = about.plugin_of(label, entry)
            if name is not None:
                entry.setdefault(about.key, name)
                _settle_paths(suite, (section, label), about.kind, name, registry)
    for label, _ in suite.entries("corpora"):
        make_absolute(suite, ("corpora", label, "path"), hub=False)


def build_plugins(suite: Layer, registry: Registry) -> Plugins:
    """Build the plugins whose options are right, and complain of the others'."""
    return {
        section: {
            label: plugin
            for label, entry in suite.entries(section)
            if (plugin := _build(suite, section, label, entry, registry)) is not None
        }
        for section in PLUGIN_SECTIONS
    }


def make_absolute(suite: Layer, keys: Keys, *, hub: bool) -> None:
    """Make a path absolute, which is relative to the file that states it.

    Where it may name something on the `hub` instead, it is left as it is unless it
    leads somewhere or can be nothing but a path.
    """
    text = suite.get(*keys)
    if not isinstance(text, str) or not text:
        return
    path = Path(text).expanduser()
    target = Path(os.path.abspath(suite.place(keys).base / path))  # noqa: PTH100
    explicit = path.is_absolute() or text.split("/")[0] in (".", "..")
    if explicit or not hub or target.exists():
        put(suite.value, keys, str(target))


def _settle_paths(
    suite: Layer, path: tuple[str, str], kind: str, name: str, registry: Registry
) -> None:
    try:
        options = registry.get(kind, name).plugin.Options
    except UsageError:  # `build_plugins` says so
        return
    for one in list(marked(options, suite.get(*path))):
        if one.mark == LOCAL_PATH:
            make_absolute(suite, (*path, *one.keys), hub=True)


def _build(
    suite: Layer, section: str, label: str, entry: dict[str, Any], registry: Registry
) -> Plugin[Any] | None:
    about = PLUGIN_SECTIONS[section]
    name = about.plugin_of(label, entry)
    if name is None:  # missing or no string: said of the section
        return None
    try:
        plugin = registry.get(about.kind, name).plugin
    except UsageError as error:
        stated = (section, label, about.key) in suite.places  # else by its label
        keys = (section, label, about.key) if stated else (section, label)
        suite.complain(keys, str(error))
        return None
    options = complaints.validate(
        plugin.Options,
        {key: value for key, value in entry.items() if key not in about.reserved},
        suite,
        (section, label),
        key=f"{plugin.name} option",
        also_known=about.reserved,
    )
    return None if options is None else plugin(options)

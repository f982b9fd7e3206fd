"""The plugins of a suite: which an entry names, its paths, and its options checked.

It works on the merged layers, before there is a `Suite`, so that a fault in one entry
hides none in another.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any, cast

from harness.api import LOCAL_PATH, Attack, Plugin, Registry
from harness.base import UsageError
from harness.models import AdversarialSection
from harness.suite import complaints
from harness.suite.marks import marked
from harness.suite.model import PLUGIN_SECTIONS
from harness.suite.yaml import Keys, Layer, put

Plugins = dict[str, dict[str, Plugin[Any]]]
"""The plugins of a suite by section and label."""


def build_plugins(suite: Layer, registry: Registry) -> Plugins:
    """Build the plugins whose options are right, and complain of the others'.

    In the suite, every entry then names its plugin, and paths that lead to something
    are absolute.
    """
    return {
        section: {
            label: plugin
            for label, entry in suite.entries(section)
            if (plugin := _build(suite, section, label, entry, registry)) is not None
        }
        for section in PLUGIN_SECTIONS
    }


def build_adversaries(suite: Layer, registry: Registry) -> dict[str, Attack[Any]]:
    """Build the attacks that arms are trained against, by the labels of the arms.

    Complains of attacks that no training can use, and of their options. What a suite
    does not state are the options that the attack has in training.
    """
    return {
        label: attack
        for label, _ in suite.entries("arms")
        if (stated := suite.mapping("arms", label, "recovery", "adversarial"))
        and (attack := _adversary(suite, label, stated, registry)) is not None
    }


def _adversary(
    suite: Layer, label: str, stated: dict[str, Any], registry: Registry
) -> Attack[Any] | None:
    path, name = ("arms", label, "recovery", "adversarial"), stated.get("attack")
    if not isinstance(name, str):  # missing or no string: said of the section
        return None
    try:
        plugin = cast("type[Attack[Any]]", registry.get("attack", name).plugin)
    except UsageError as error:
        suite.complain((*path, "attack"), str(error))
        return None
    reserved = AdversarialSection.model_fields.keys()
    given = {key: value for key, value in stated.items() if key not in reserved}
    options = complaints.validate(
        plugin.Options,
        {**plugin.in_training, **given},
        suite,
        path,
        key=f"{name} option",
        also_known=reserved,
    )
    reason = _untrainable(plugin)
    if reason:
        suite.complain((*path, "attack"), f"{name!r} {reason}: name one that does not")
    return None if options is None else plugin(options)


def _untrainable(attack: type[Attack[Any]]) -> str | None:
    """Say why no training can use an attack; None where one can."""
    if attack.replays:
        return "replays what others found"
    if attack.needs_peers:
        return "needs the subjects of other arms"
    if attack.uses_search_examples:
        return "searches on examples of its own"
    return None


_OWN = {"replicate", "against", "attacks", "seeds"}
"""What a replica states for itself; all else it has from the arm that it replicates."""


def copy_replicated(suite: Layer) -> None:
    """Give replicas what the arms say that they replicate, stated where those say it.

    Complains of what a replica states otherwise.
    """
    for label, entry in suite.entries("arms"):
        name = entry.get("replicate")
        if not isinstance(name, str) or name == label:
            continue
        source = suite.mapping("arms", name)
        for key in entry.keys() - _OWN:
            if entry[key] != source.get(key):
                message = f"a replica has what {name!r} states; leave it out"
                suite.complain(("arms", label, key), message)
        new = source.keys() - entry.keys() - _OWN
        entry.update({key: copy.deepcopy(source[key]) for key in source if key in new})
        suite.places.update(
            {
                ("arms", label, *keys[2:]): place
                for keys, place in suite.places.items()
                if keys[:2] == ("arms", name) and keys[2:3] and keys[2] in new
            }
        )


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


def _build(
    suite: Layer, section: str, label: str, entry: dict[str, Any], registry: Registry
) -> Plugin[Any] | None:
    model, path = PLUGIN_SECTIONS[section], (section, label)
    untreated = section == "arms" and entry.get(model.key) is None
    plugin = _plugin_class(suite, section, label, entry, registry)
    if plugin is None:
        return None
    for one in list(marked(plugin.Options, entry)):
        if one.mark == LOCAL_PATH:
            make_absolute(suite, (*path, *one.keys), hub=True)
    reserved = model.model_fields.keys()
    options = complaints.validate(
        plugin.Options,
        {key: value for key, value in entry.items() if key not in reserved},
        suite,
        path,
        key="arm option" if untreated else f"{plugin.name} option",
        also_known=reserved,
    )
    return None if options is None else plugin(options)


def _plugin_class(
    suite: Layer, section: str, label: str, entry: dict[str, Any], registry: Registry
) -> type[Plugin[Any]] | None:
    """Return the plugin that an entry names, or else complain."""
    model = PLUGIN_SECTIONS[section]
    by_label = entry.get(model.key) is None
    name = model.default(label) if by_label else entry[model.key]
    if not isinstance(name, str):  # missing or no string: said of the section
        return None
    entry.setdefault(model.key, name)
    try:
        return registry.get(model.kind, name).plugin
    except UsageError as error:
        keys = (section, label) if by_label else (section, label, model.key)
        suite.complain(keys, str(error))
        return None

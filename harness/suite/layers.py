"""Suite files merged: what a file extends, the file, a profile, ``--set``, flags.

Later layers win. A mapping merges key by key and anything else replaces; null removes
an entry of the labelled sections. The result is one tree of located nodes, in which
every value still knows which layer it came from.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.base import Problem, UsageError, unknown_name
from harness.suite.yaml import Node, Place, locate, merge, parse

_SOURCES = {
    "models": (("path",), ("revision",)),
    "corpora": (("path", "dataset", "builtin"), ("revision", "files", "split")),
}
"""What says where an entry comes from, and what says more of it: a layer that states
one of the first replaces all of them."""


def read_layers(
    path: Path,
    problems: list[Problem],
    *,
    profile: str | None = None,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
) -> Node:
    """Return the merged tree of a suite file; faults are appended to `problems`.

    `overrides` are the texts after ``--set``; `flags` are other values given on the
    command line, by key, of which ``plugins`` adds to the suite's and the rest replace.

    Raises UsageError if there is no such file.
    """
    if not path.is_file():
        raise UsageError(f"no such suite: {path}{_near_file(path)}")
    tree = _read_file(path, (), problems)
    tree = merge(locate({"name": path.stem}, tree.place), tree)
    if profile is not None:
        tree = _lay(tree, _profile(tree, profile, problems), problems)
    for text in overrides:
        tree = _lay(tree, read_override(tree, text, problems), problems)
    for key, value in (flags or {}).items():
        tree = _lay(tree, _flag(tree, key, value), problems)
    return _finished(tree)


def profile_names(path: Path) -> list[str]:
    """Return the profiles that a suite file and what it extends define."""
    profiles = _read_file(path, (), []).child("profiles")
    return list(profiles.value) if profiles and isinstance(profiles.value, dict) else []


# --- files --------------------------------------------------------------------------


def _read_file(path: Path, chain: tuple[Path, ...], problems: list[Problem]) -> Node:
    """Read a file onto what it extends; `name` is not inherited."""
    place = Place(str(path), 1, path.parent)
    tree = _mapping(parse(_text(path, problems), place, problems), "suite", problems)
    extends = tree.child("extends")
    entries = {key: node for key, node in tree.value.items() if key != "extends"}
    below = Node({}, place)
    if extends is not None and extends.value is not None:
        below = _extended(path, extends, chain, problems)
        below = _without_removed_in_profiles(below, tree)
    return _lay(below, Node(entries, place), problems)


def _extended(
    path: Path, extends: Node, chain: tuple[Path, ...], problems: list[Problem]
) -> Node:
    nothing = Node({}, extends.place)
    if not isinstance(extends.value, str):
        problems.append(
            extends.place.problem("extends", "expected the path of a suite")
        )
        return nothing
    target = Path(os.path.normpath(path.parent / extends.value))
    chain = (*chain, path)
    if any(target.resolve() == other.resolve() for other in chain):
        names = " -> ".join(map(str, (*chain, target)))
        problems.append(
            extends.place.problem("extends", f"goes round in a circle: {names}")
        )
        return nothing
    if not target.is_file():
        message = f"no such file: {target}{_near_file(target)}"
        problems.append(extends.place.problem("extends", message))
        return nothing
    below = _read_file(target, chain, problems)
    entries = {key: node for key, node in below.value.items() if key != "name"}
    return Node(entries, below.place)


def _without_removed_in_profiles(below: Node, above: Node) -> Node:
    """Take what a file removes out of the profiles too that it inherits.

    Otherwise a profile that adjusts the entry would bring a piece of it back.
    """
    profiles = below.child("profiles")
    if profiles is None or not isinstance(profiles.value, dict):
        return below
    kept = {
        name: _pruned(profile, above) if isinstance(profile.value, dict) else profile
        for name, profile in profiles.value.items()
    }
    return Node({**below.value, "profiles": Node(kept, profiles.place)}, below.place)


def _pruned(profile: Node, above: Node) -> Node:
    entries = dict(profile.value)
    for section in LABELLED:
        old, new = profile.child(section), above.child(section)
        if old and new and isinstance(old.value, dict) and isinstance(new.value, dict):
            removed = {label for label, node in new.value.items() if node.value is None}
            kept = {k: node for k, node in old.value.items() if k not in removed}
            entries[section] = Node(kept, old.place)
    return Node(entries, profile.place)


def _text(path: Path, problems: list[Problem]) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        message = f"is not UTF-8 text (byte {error.start})"
        problems.append(Place(str(path), None, path.parent).problem("", message))
        return ""


def _near_file(path: Path) -> str:
    names = sorted(file.name for file in path.parent.glob("*.yaml"))
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {path.parent / near[0]}?" if near else ""


# --- layers -------------------------------------------------------------------------


def _lay(below: Node, above: Node, problems: list[Problem]) -> Node:
    """Merge, and complain of null entries that have nothing to remove."""
    for section in LABELLED:
        entries, known = above.child(section), below.child(section)
        if entries is None or not isinstance(entries.value, dict):
            continue
        labels = known.value if known and isinstance(known.value, dict) else {}
        for label, node in entries.value.items():
            if node.value is None and label not in labels:
                message = _nothing_to_remove(label, labels)
                if section == "attacks":
                    message = _added_later(label, entries.value) or message
                problems.append(node.place.problem(f"{section}.{label}", message))
    return merge(_without_replaced_sources(below, above), above)


def _without_replaced_sources(below: Node, above: Node) -> Node:
    """Let an entry that names a source replace all that described the one below it."""
    entries = dict(below.value)
    for section, (sources, details) in _SOURCES.items():
        old, new = below.child(section), above.child(section)
        if old is not None and new is not None and isinstance(old.value, dict):
            kept = {
                label: _without(node, {*sources, *details})
                if _states(new.child(label), sources)
                else node
                for label, node in old.value.items()
            }
            entries[section] = Node(kept, old.place)
    return Node(entries, below.place)


def _states(entry: Node | None, keys: Sequence[str]) -> bool:
    return entry is not None and any(entry.child(key) for key in keys)


def _without(entry: Node, keys: set[str]) -> Node:
    if not isinstance(entry.value, dict):
        return entry
    kept = {key: node for key, node in entry.value.items() if key not in keys}
    return Node(kept, entry.place)


def _nothing_to_remove(label: str, known: Mapping[str, Node]) -> str:
    near = difflib.get_close_matches(label, list(known), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return (
        "is empty, which removes an entry, and there is none to remove"
        f"{hint or '; write {} for an entry without options'}"
    )


def _added_later(label: str, attacks: Mapping[str, Node]) -> str:
    """Say what to do about an entry that loading would add for an attack."""
    owners = [x for x in attacks if x != label and label.startswith(f"{x}-")]
    if not owners:
        return ""
    return (
        "removes an entry that is only added when the suite is loaded; "
        f"`controls` of {owners[0]!r} says which are: [random], or [] for none"
    )


def _profile(tree: Node, name: str, problems: list[Problem]) -> Node:
    profiles = tree.child("profiles")
    known = profiles.value if profiles and isinstance(profiles.value, dict) else {}
    if known.get(name) is None:
        place = Place(f"--profile {name}", None, tree.place.base)
        problems.append(place.problem("", unknown_name("profile", name, known)))
        return Node({}, place)
    profile = _mapping(known[name], f"profiles.{name}", problems)
    refuse_read_first(profile, f"profiles.{name}.", "a profile", problems)
    return profile


def _flag(tree: Node, key: str, value: Any) -> Node:
    place = Place(f"--{key.replace('_', '-')}", None, Path.cwd())
    node = locate(value, place)
    stated = tree.child("plugins")
    if key == "plugins" and stated is not None and isinstance(stated.value, list):
        node = Node([*stated.value, *node.value], place)
    return Node({key: node}, place)


def _mapping(node: Node, path: str, problems: list[Problem]) -> Node:
    if isinstance(node.value, dict):
        return node
    if node.value is not None or not problems:
        what = "is empty" if node.value is None else "expected a mapping of keys"
        problems.append(node.place.problem("" if path == "suite" else path, what))
    return Node({}, node.place)


def _finished(tree: Node) -> Node:
    """Drop the removed entries, and optional sections that were left empty."""
    entries = {}
    for key, node in tree.value.items():
        if key in LABELLED and isinstance(node.value, dict):
            kept = {k: n for k, n in node.value.items() if n.value is not None}
            node = Node(kept, node.place)
        if node.value is not None or key not in LABELLED:
            entries[key] = node
    return Node(entries, tree.place)


LABELLED = {
    "models": "model",
    "arms": "arm",
    "corpora": "corpus",
    "metrics": "metric",
    "attacks": "attack",
    "profiles": "profile",
}
"""The sections whose keys are labels, and what one entry is called."""
_READ_FIRST = ("extends", "profiles")


def read_override(tree: Node, text: str, problems: list[Problem]) -> Node:
    """Return a tree that holds the value at its key; faults go to `problems`.

    `tree` says which keys there are: labels may hold dots.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    place = Place(f"--set {key}", None, Path.cwd())
    nothing = Node({}, place)
    if not (key and equals):
        problems.append(place.problem("", f"expected KEY=VALUE, got {text!r}"))
        return nothing
    node = parse(value, place, problems)
    if isinstance(node.value, dict) and not value.lstrip().startswith("{"):
        node = Node(value.strip(), place)  # a slice such as 60%: is no mapping
    path = _walk(tree, key.split("."), node, problems)
    for step in reversed(path):
        node = Node({step: node}, place)
    if not path:
        return nothing
    refuse_read_first(node, "", "--set", problems)
    return node


def _walk(
    tree: Node, segments: list[str], value: Node, problems: list[Problem]
) -> list[str]:
    """Split a dotted key where the tree has keys, longest first: labels hold dots."""
    path: list[str] = []
    node: Node | None = tree
    while segments:
        keys = node.value if node and isinstance(node.value, dict) else {}
        joins = (".".join(segments[:n]) for n in range(len(segments), 0, -1))
        step = next((join for join in joins if join in keys), None)
        if step is None and len(path) == 1 and path[0] in LABELLED:
            return _new_label(path[0], keys, segments, value, problems)
        step = step or segments[0]
        path.append(step)
        segments = segments[step.count(".") + 1 :]
        node = node.child(step) if node else None
    return path


def _new_label(
    section: str,
    known: Mapping[str, Node],
    segments: list[str],
    value: Node,
    problems: list[Problem],
) -> list[str]:
    """A whole entry may be new; a single option needs an entry that is there."""
    if isinstance(value.value, dict) or value.value is None:
        return [section, ".".join(segments)]
    label = ".".join(segments[:-1] or segments)
    message = unknown_name(LABELLED[section], label, known)
    problems.append(value.place.problem("", message))
    return []


def refuse_read_first(
    node: Node, prefix: str, where: str, problems: list[Problem]
) -> None:
    """Complain of what cannot be changed once the layers are chosen."""
    for key in _READ_FIRST:
        child = node.child(key)
        if child is not None:
            message = f"cannot be changed by {where}: it is read before"
            problems.append(child.place.problem(prefix + key, message))

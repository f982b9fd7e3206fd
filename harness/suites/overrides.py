"""Overrides of one value: the texts after ``--set``, as ``recovery.tokens=3e6``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from harness.base.errors import Problem, unknown_name
from harness.suites.located import Node, Place, parse

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

"""YAML 1.2 that remembers which file and line every value came from.

A suite is merged from several layers (what it extends, the file, a profile, ``--set``),
and a message has to name the layer that a wrong value came from. So a document is kept
as a tree of `Node`, each with its `Place`, until all is merged and checked.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, ScalarNode, SequenceNode

from harness.base import Problem

_TAG = "tag:yaml.org,2002:"


@dataclass(frozen=True)
class Place:
    """Where a value was stated."""

    source: str
    """The file as the user wrote it, or the flag, as ``--set seeds``."""
    line: int | None
    """Counted from 1; None for a flag."""
    base: Path
    """The folder that relative paths stated here are relative to."""

    def problem(self, path: str, message: str) -> Problem:
        """Return what is wrong with the value here; `path` is that of its key."""
        # A flag says the path already.
        flags = (f"--set {path}", f"--{path.replace('_', '-')}")
        named = self.line is None and self.source in flags
        keys = () if named or not path else (path,)
        return Problem(self.source, keys, message, self.line, exit_code=2)

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass(frozen=True)
class Node:
    """A value and its place: a mapping or a list of nodes, or a scalar."""

    value: Any
    place: Place

    def plain(self) -> Any:
        """Return the value as plain dictionaries, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        if isinstance(self.value, list):
            return [node.plain() for node in self.value]
        return self.value

    def child(self, key: object) -> Node | None:
        """Return the node under a key or an index; None where there is none."""
        if isinstance(self.value, dict):
            return self.value.get(key)
        if isinstance(self.value, list) and isinstance(key, int):
            return self.value[key] if 0 <= key < len(self.value) else None
        return None

    def find(self, path: Sequence[object]) -> tuple[Node, list[object]]:
        """Follow `path` as far as it goes; return the last node and its path.

        Steps that lead nowhere are passed over: pydantic names the branches of a union
        and the keys of a mapping among them.
        """
        node, followed = self, []
        for key in path:
            child = node.child(key)
            if child is not None:
                node = child
                followed.append(key)
        return node, followed


def merge(below: Node, above: Node) -> Node:
    """Lay one tree over another: mappings merge key by key, all else replaces."""
    if not (isinstance(below.value, dict) and isinstance(above.value, dict)):
        return above
    merged = dict(below.value)
    for key, node in above.value.items():
        merged[key] = merge(merged[key], node) if key in merged else node
    return Node(merged, above.place)


def locate(value: Any, place: Place) -> Node:
    """Give a plain value a place, the same for all of its parts."""
    if isinstance(value, dict):
        return Node({key: locate(part, place) for key, part in value.items()}, place)
    if isinstance(value, list | tuple):
        return Node([locate(part, place) for part in value], place)
    return Node(value, place)


def parse(text: str, place: Place, problems: list[Problem]) -> Node:
    """Read one YAML document; what is wrong with it is appended to `problems`.

    Mapping entries are placed at the line of their key. Where `place` has no line (a
    flag) neither have its parts.
    """
    try:
        root = YAML(pure=True).compose(text)
    except MarkedYAMLError as error:
        problems.append(_syntax_problem(error, place))
        return Node(None, place)
    except YAMLError as error:  # characters that YAML forbids
        problems.append(place.problem("", f"is no YAML: {_one_line(error)}"))
        return Node(None, place)
    if root is None:
        return Node(None, place)
    return _Builder(place, problems).build(root, place, ())


def _syntax_problem(error: MarkedYAMLError, place: Place) -> Problem:
    mark = error.problem_mark or error.context_mark
    line = None if place.line is None or mark is None else mark.line + 1
    what = _one_line(error.problem or error.context)
    return Place(place.source, line, place.base).problem("", f"is no YAML: {what}")


def _one_line(error: object) -> str:
    return " ".join(str(error).split())


@dataclass
class _Builder:
    """Turns ruamel's nodes into ours."""

    start: Place
    problems: list[Problem]
    open: list[int] = field(default_factory=list)
    """The ids of the nodes being built: an alias to one of them never ends."""

    def build(self, node: Any, place: Place, path: tuple[str, ...]) -> Node:
        if id(node) in self.open:
            self._complain(place, path, "refers to itself")
            return Node(None, place)
        self.open.append(id(node))
        try:
            return Node(self._value(node, place, path), place)
        finally:
            self.open.pop()

    def _value(self, node: Any, place: Place, path: tuple[str, ...]) -> Any:
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            return [
                self.build(item, self._at(item), (*path, str(index)))
                for index, item in enumerate(node.value)
            ]
        assert isinstance(node, ScalarNode)
        if not str(node.tag).startswith(_TAG):
            self._complain(place, path, f"the tag {node.tag} means nothing here")
        return _scalar(str(node.tag).removeprefix(_TAG), node.value)

    def _mapping(self, node: MappingNode, path: tuple[str, ...]) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        for key_node, value_node in node.value:
            place, key = self._at(key_node), self._key(key_node, path)
            if key is None:
                continue
            value = self.build(value_node, place, (*path, key))
            if key in entries:
                first = entries[key].place
                self._complain(place, (*path, key), f"is stated twice (first: {first})")
            entries.setdefault(key, value)
        return entries

    def _key(self, node: Any, path: tuple[str, ...]) -> str | None:
        if not isinstance(node, ScalarNode):
            self._complain(self._at(node), path, "a key must be plain text")
            return None
        if str(node.tag) == _TAG + "merge":
            message = "YAML 1.2 has no merge keys (<<); use extends, or state the keys"
            self._complain(self._at(node), path, message)
            return None
        return str(node.value)

    def _at(self, node: Any) -> Place:
        start = self.start
        line = None if start.line is None else node.start_mark.line + 1
        return Place(start.source, line, start.base)

    def _complain(self, place: Place, path: tuple[str, ...], message: str) -> None:
        self.problems.append(place.problem(".".join(path), message))


def _scalar(tag: str, text: str) -> Any:
    """Return a scalar's value by YAML 1.2's core schema; dates stay strings."""
    if tag == "null":
        return None
    if tag == "bool":
        return text.lower() == "true"
    if tag == "int":
        return _integer(text.replace("_", ""))
    if tag == "float":
        return _number(text.replace("_", "").lower())
    return text


def _integer(text: str) -> int:
    """Read an integer; ``010`` is ten, as in YAML 1.2, and ``0o10`` is eight."""
    prefixed = re.fullmatch(r"([-+]?)0([obx])([0-9a-fA-F]+)", text)
    if prefixed is None:
        return int(text)
    sign, letter, digits = prefixed.groups()
    return int(f"{sign}{digits}", {"o": 8, "b": 2, "x": 16}[letter])


def _number(text: str) -> float | int:
    """Read a float; ``3e8`` is a whole number, so that it can be a token count."""
    if text.endswith((".inf", ".nan")):
        return -math.inf if text.startswith("-") else float(text.lstrip("+.")[:3])
    number = float(text)
    whole = re.fullmatch(r"[-+]?\d+e\+?\d+", text)
    return int(number) if whole and math.isfinite(number) else number

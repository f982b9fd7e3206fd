"""YAML 1.2 as plain values, and beside them the place where each was stated.

A suite is merged from several layers (what it extends, the file, a profile, ``--set``),
and a message has to name the layer that a wrong value came from. A `Layer` therefore
maps the path of every value to its `Place`, through all that is merged into it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from harness.base import Problem

Keys = tuple[str | int, ...]
"""The path of a value: the keys and indices that lead to it."""


@dataclass(frozen=True)
class Place:
    """Where a value was stated."""

    source: str
    """The file as the user wrote it, or the flag, as ``--set seeds``."""
    line: int | None
    """Counted from 1; None for a flag."""
    base: Path
    """The folder that relative paths stated here are relative to."""

    def problem(self, keys: Keys, message: str) -> Problem:
        """Return what is wrong with the value here; `keys` lead to it."""
        path = ".".join(map(str, keys))
        # A flag says the path already.
        flags = (f"--set {path}", f"--{path.replace('_', '-')}")
        named = self.line is None and self.source in flags
        return Problem(self.source, () if named else keys, message, self.line, 2)

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


@dataclass
class Layer:
    """Plain values, where each of them was stated, and what is wrong with them."""

    value: Any
    """Dictionaries, lists and scalars."""
    places: dict[Keys, Place]
    """At least that of the whole, which is at ``()``."""
    problems: list[Problem] = field(default_factory=list)

    @classmethod
    def at(cls, place: Place, value: Any) -> Layer:
        """Return a layer whose every value was stated at one place."""
        return cls(value, dict.fromkeys(_paths(value), place))

    def get(self, *keys: str | int) -> Any:
        """Return the value at a path; None where there is none."""
        return _get(self.value, keys) if _follow(self.value, keys) == keys else None

    def mapping(self, *keys: str | int) -> dict[str, Any]:
        """Return the mapping at a path; {} where there is none, or no mapping."""
        value = self.get(*keys)
        return value if isinstance(value, dict) else {}

    def entries(self, section: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the labels and entries of a section, those that are mappings."""
        for label, entry in self.mapping(section).items():
            if isinstance(entry, dict):
                yield label, entry

    def follow(self, keys: Sequence[str | int]) -> Keys:
        """Return the steps of a path that lead somewhere.

        The others are passed over: pydantic names the branches of a union and the keys
        of a mapping among them.
        """
        return _follow(self.value, keys)

    def place(self, keys: Sequence[str | int]) -> Place:
        """Return where the value at a path was stated, or else what it would be in."""
        found = self.follow(keys)
        while found not in self.places:
            found = found[:-1]
        return self.places[found]

    def complain(self, keys: Keys, message: str) -> None:
        """Note that something is wrong with the value at a path, or that it lacks."""
        self.problems.append(self.place(keys).problem(keys, message))

    def part(self, *keys: str | int) -> Layer:
        """Return a copy of the part at a path, which has to be there."""
        size = len(keys)
        places = {k[size:]: p for k, p in self.places.items() if k[:size] == keys}
        return Layer(copy.deepcopy(self.get(*keys)), places)

    def under(self, keys: Sequence[str]) -> Layer:
        """Return a layer that holds this one at a path, all of it stated here."""
        value, path = self.value, tuple(keys)
        for key in reversed(path):
            value = {key: value}
        places = {(*path, *k): place for k, place in self.places.items()}
        above = {path[:size]: self.places[()] for size in range(len(path))}
        return Layer(value, above | places, self.problems)


def merge(below: Layer, above: Layer) -> Layer:
    """Lay one layer over another: mappings merge key by key, all else replaces."""
    return Layer(
        _merged(below.value, above.value),
        {**below.places, **above.places},
        [*below.problems, *above.problems],
    )


def put(value: Any, keys: Keys, part: Any) -> None:
    """Replace a part of a plain value, or add one to a mapping that is there."""
    _get(value, keys[:-1])[keys[-1]] = part


def parse(text: str, place: Place) -> Layer:
    """Read a YAML document; what is wrong with it is among its `problems`.

    Mapping entries are placed at the line of their key. Where `place` has no line (a
    flag) neither have its parts.
    """
    layer = Layer(None, {(): place})
    try:
        root = YAML(pure=True).compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = _one_line(error.problem or error.context)
        problem = _at(mark, place).problem((), f"is no YAML: {what}")
        layer.problems.append(problem)
    except YAMLError as error:  # characters that YAML forbids
        layer.complain((), f"is no YAML: {_one_line(error)}")
    else:
        if root is not None:
            layer.value = _Reader(layer).read(root, ())
    return layer


# --- plain values -------------------------------------------------------------------


def _paths(value: Any, keys: Keys = ()) -> Iterator[Keys]:
    yield keys
    for key, part in _parts(value):
        yield from _paths(part, (*keys, key))


def _parts(value: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, list):
        yield from enumerate(value)


def _get(value: Any, keys: Sequence[str | int]) -> Any:
    for key in keys:
        value = value[key]
    return value


def _follow(value: Any, keys: Sequence[str | int]) -> Keys:
    found: Keys = ()
    for key in keys:
        parts = dict(_parts(value))
        if key in parts:
            value, found = parts[key], (*found, key)
    return found


def _merged(below: Any, above: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    both = {key: _merged(below[key], above[key]) for key in below if key in above}
    return {**below, **above, **both}


# --- reading ------------------------------------------------------------------------

_TAG = "tag:yaml.org,2002:"
_NO_MERGE = "YAML 1.2 has no merge keys (<<); use extends, or state the keys"
_READ = ("null", "bool", "int", "float")
"""What a plain scalar can be besides text; dates stay text, as in YAML 1.2."""


@dataclass
class _Reader:
    """Reads ruamel's nodes into a layer."""

    layer: Layer
    open: list[int] = field(default_factory=list)
    """The ids of the nodes being read: an alias to one of them never ends."""
    scalars: Any = field(default_factory=lambda: YAML(typ="safe", pure=True))

    def read(self, node: Node, keys: Keys) -> Any:
        if id(node) in self.open:
            self.layer.problems.append(
                self.layer.places[keys].problem(keys, "refers to itself")
            )
            return None
        self.open.append(id(node))
        value = self._value(node, keys)
        self.open.pop()
        return value

    def _value(self, node: Node, keys: Keys) -> Any:
        if isinstance(node, MappingNode):
            return self._mapping(node, keys)
        if isinstance(node, SequenceNode):
            return [
                self._part(item, item, (*keys, index))
                for index, item in enumerate(node.value)
            ]
        tag = str(node.tag)
        if not tag.startswith(_TAG):
            self._complain(node, keys, f"the tag {tag} means nothing here")
        elif tag.removeprefix(_TAG) in _READ:
            return self._scalar(node, keys)
        return node.value

    def _mapping(self, node: MappingNode, keys: Keys) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        for key_node, value_node in node.value:
            path = (*keys, str(key_node.value))
            if isinstance(key_node, MappingNode | SequenceNode):
                self._complain(key_node, keys, "a key must be plain text")
            elif str(key_node.tag) == f"{_TAG}merge":
                self._complain(key_node, keys, _NO_MERGE)
            elif key_node.value in entries:
                message = f"is stated twice (first: {self.layer.places[path]})"
                self._complain(key_node, path, message)
            else:
                entries[key_node.value] = self._part(key_node, value_node, path)
        return entries

    def _part(self, stated: Node, node: Node, keys: Keys) -> Any:
        """Read a part that is stated where another node begins: its key, or it."""
        self.layer.places[keys] = self._at(stated)
        return self.read(node, keys)

    def _scalar(self, node: Node, keys: Keys) -> Any:
        """Read a scalar by the core schema of YAML 1.2: ``010`` is ten.

        ``3e8`` is a whole number, so that it can be a token count.
        """
        try:
            value = self.scalars.constructor.construct_object(node)
        except ValueError:  # a stated tag, as in `!!int many`
            self._complain(node, keys, f"is no {str(node.tag).removeprefix(_TAG)}")
            return node.value
        whole = re.fullmatch(r"[-+]?[\d_]+[eE]\+?\d+", node.value)
        return int(value) if whole and value < float("inf") else value

    def _at(self, node: Node) -> Place:
        return _at(node.start_mark, self.layer.places[()])

    def _complain(self, node: Node, keys: Keys, message: str) -> None:
        self.layer.problems.append(self._at(node).problem(keys, message))


def _at(mark: Any, start: Place) -> Place:
    line = None if start.line is None or mark is None else mark.line + 1
    return Place(start.source, line, start.base)


def _one_line(error: object) -> str:
    return " ".join(str(error).split())

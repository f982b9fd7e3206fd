"""YAML 1.2 as plain values, and beside them the place where each was stated.

A suite is merged from several layers (what it extends, the file, a profile, ``--set``),
and a message has to name the layer that a wrong value came from. A `Layer` therefore
maps the path of every value to its `Place`, through all that is merged into it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from harness.base import LARGEST_WHOLE, Problem

Keys = tuple[str | int, ...]
"""The path of a value: the keys and indices that lead to it."""

MOST_CHARACTERS = 2**18
MOST_VALUES = 10_000
"""Ten times what the largest suite that ships has when it is resolved. Reading so many
takes less than a second."""
DEEPEST = 50
LONGEST = 4000
"""In characters: of a name, a path, a pattern or a prompt."""
MOST_PROBLEMS = 200
"""More are not looked for: each takes time to say, and nobody reads them."""


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
        value = self.value
        for key in keys:
            value = _part(value, key)
        return None if value is _NOTHING else value

    def mapping(self, *keys: str | int) -> dict[str, Any]:
        """Return the mapping at a path; {} where there is none, or no mapping."""
        value = self.get(*keys)
        return value if isinstance(value, dict) else {}

    def entries(self, section: str) -> list[tuple[str, dict[str, Any]]]:
        """Return the labels and entries of a section, those that are mappings."""
        entries = self.mapping(section).items()
        return [(label, entry) for label, entry in entries if isinstance(entry, dict)]

    def follow(self, keys: Sequence[str | int]) -> Keys:
        """Return the steps of a path that lead somewhere.

        The others are passed over: pydantic names the branches of a union and the keys
        of a mapping among them.
        """
        value, found = self.value, []
        for key in keys:
            part = _part(value, key)
            if part is not _NOTHING:
                value = part
                found.append(key)
        return tuple(found)

    def place(self, keys: Sequence[str | int]) -> Place:
        """Return where the value at a path was stated, or else what it would be in."""
        found = self.follow(keys)
        while found not in self.places:
            found = found[:-1]
        return self.places[found]

    def complain(self, keys: Keys, message: str) -> None:
        """Note that something is wrong with the value at a path, or that it lacks.

        Of very many, the last one says that there are more.
        """
        if not self.hopeless:
            self.problems.append(self.place(keys).problem(keys, message))
        if len(self.problems) == MOST_PROBLEMS - 1:
            more = "so much is wrong that no more is said"
            self.problems.append(self.places[()].problem((), more))

    @property
    def hopeless(self) -> bool:
        """Whether so much is wrong already that no more need be looked for."""
        return len(self.problems) >= MOST_PROBLEMS

    def warn(self, keys: Keys, message: str) -> None:
        """Note something that is no error of the value at a path."""
        problem = self.place(keys).problem(keys, message)
        self.problems.append(replace(problem, severity="warning"))


def merge(below: Layer, above: Layer) -> Layer:
    """Lay one layer over another: mappings merge key by key, all else replaces."""
    return Layer(
        _merged(below.value, above.value),
        {**below.places, **above.places},
        [*below.problems, *above.problems],
    )


def put(value: Any, keys: Keys, part: Any) -> None:
    """Replace a part of a plain value, or add one to a mapping that is there."""
    for key in keys[:-1]:
        value = value[key]
    value[keys[-1]] = part


def parse(text: str, place: Place) -> Layer:
    """Read a YAML document; what is wrong with it is among its `problems`.

    Mapping entries are placed at the line of their key. Where `place` has no line (a
    flag) neither have its parts.
    """
    layer = Layer(None, {(): place})
    if len(text) > MOST_CHARACTERS:
        layer.complain((), f"is larger than {MOST_CHARACTERS:,} characters")
        return layer
    try:
        root = _composed(text)
        if root is not None:
            layer.value = _Reader(layer).read(root, ())
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = _one_line(error.problem or error.context)
        message = what if isinstance(error, _TooMuch) else f"is no YAML: {what}"
        layer.problems.append(_at(mark, place).problem((), message))
    except Exception as error:  # noqa: BLE001 - as of characters that YAML forbids
        # ruamel raises what it likes where it meets what it has not foreseen.
        layer.complain((), f"is no YAML: {_one_line(error)}")
    return layer


class _TooMuch(MarkedYAMLError):
    """More than any suite needs."""


class _Composer(Composer):
    """Ends where there are too many values, or too deep ones."""

    _count = _depth = 0
    warn_double_anchors = False

    def compose_node(self, parent: Any, index: Any) -> Any:
        self._count, self._depth = self._count + 1, self._depth + 1
        mark = self.parser.peek_event().start_mark
        if self._depth > DEEPEST:
            what = f"is nested more than {DEEPEST} levels deep"
            raise _TooMuch(problem=what, problem_mark=mark)
        if self._count > MOST_VALUES:
            raise _TooMuch(problem=_TOO_MANY, problem_mark=mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


_TOO_MANY = (
    f"holds more than {MOST_VALUES:,} keys and values (aliases count as often as used)"
)


def _composed(text: str) -> Node | None:
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = _Composer
    root: Node | None = yaml.compose(text)
    return root


_NOTHING = object()


def _part(value: Any, key: str | int) -> Any:
    if isinstance(value, dict):
        return value.get(key, _NOTHING) if isinstance(key, str | int) else _NOTHING
    listed = isinstance(value, list) and type(key) is int and 0 <= key < len(value)
    return value[key] if listed else _NOTHING


def _paths(value: Any, keys: Keys = ()) -> Iterator[Keys]:
    yield keys
    for key, part in _parts(value):
        yield from _paths(part, (*keys, key))


def _parts(value: Any) -> Iterable[tuple[str | int, Any]]:
    if isinstance(value, dict):
        return value.items()
    return enumerate(value) if isinstance(value, list) else ()


def _merged(below: Any, above: Any) -> Any:
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    both = {key: _merged(below[key], above[key]) for key in below if key in above}
    return {**below, **above, **both}


# --- reading ------------------------------------------------------------------------

_TAG = "tag:yaml.org,2002:"
_TYPED = {f"{_TAG}{name}" for name in ("null", "bool", "int", "float")}
"""What a plain scalar can be besides text; dates stay text, as in YAML 1.2."""
_WHOLE = r"[-+]?[\d_]+[eE]\+?\d+"
"""``3e8`` is a whole number, so that it can be a token count."""
_UNWRITABLE = re.compile("[\0\ud800-\udfff]")
_REPLACED = "\ufffd"
_HALF = "holds a NUL or half a character, which no text or name can hold"
_NO_MERGE = "YAML 1.2 has no merge keys (<<); use extends, or state the keys"


class _Reader:
    """Reads ruamel's nodes into a layer."""

    def __init__(self, layer: Layer) -> None:
        self._layer = layer
        self._count = 0
        self._open: list[Node] = []
        """Those being read: an alias to one of them never ends."""
        self._scalars = YAML(typ="safe", pure=True).constructor

    def read(self, node: Node, keys: Keys) -> Any:
        self._count += 1
        if self._count > MOST_VALUES:
            raise _TooMuch(problem=_TOO_MANY, problem_mark=node.start_mark)
        if any(node is other for other in self._open):
            problem = self._layer.places[keys].problem(keys, "refers to itself")
            self._layer.problems.append(problem)
            return None
        self._open.append(node)
        value = self._value(node, keys)
        self._open.pop()
        return value

    def _value(self, node: Node, keys: Keys) -> Any:
        if isinstance(node, MappingNode):
            return self._mapping(node, keys)
        if isinstance(node, SequenceNode):
            items = enumerate(node.value)
            return [self._part(item, item, (*keys, index)) for index, item in items]
        if not str(node.tag).startswith(_TAG):
            self._complain(node, keys, f"the tag {node.tag} means nothing here")
        if str(node.tag) in _TYPED:
            return self._scalar(node, keys)
        return self._text(node, keys)

    def _text(self, node: Node, keys: Keys) -> str:
        text: str = node.value
        if _UNWRITABLE.search(text):
            # JSON spells some characters as two halves.
            whole = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            text = whole.replace("\0", _REPLACED)
            if _REPLACED in text:
                self._complain(node, keys, _HALF)
        if len(text) > LONGEST:
            message = f"has {len(text):,} characters, and may have {LONGEST:,}"
            self._complain(node, keys, message)
        return text

    def _mapping(self, node: MappingNode, keys: Keys) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        for key_node, value_node in node.value:
            path = (*keys, str(key_node.value))
            if isinstance(key_node, MappingNode | SequenceNode):
                self._complain(key_node, keys, "a key must be plain text")
            elif _UNWRITABLE.search(key_node.value):
                self._complain(key_node, keys, f"a key {_HALF}")
            elif str(key_node.tag) == f"{_TAG}merge":
                self._complain(key_node, keys, _NO_MERGE)
            elif key_node.value in entries:
                message = f"is stated twice (first: {self._layer.places[path]})"
                self._complain(key_node, path, message)
            else:
                entries[key_node.value] = self._part(key_node, value_node, path)
        return entries

    def _part(self, stated: Node, node: Node, keys: Keys) -> Any:
        """Read a part that is stated where another node begins: its key, or it."""
        self._layer.places[keys] = _at(stated.start_mark, self._layer.places[()])
        return self.read(node, keys)

    def _scalar(self, node: Node, keys: Keys) -> Any:
        try:
            value = self._scalars.construct_object(node)
        except Exception:  # noqa: BLE001 - a stated tag, as in `!!int many`; 5,000 digits
            self._complain(node, keys, f"is no {str(node.tag).removeprefix(_TAG)}")
            return None
        if type(value) is int and abs(value) > LARGEST_WHOLE:
            self._complain(node, keys, "is a whole number beyond the range of 64 bits")
            return None
        whole = isinstance(value, float) and re.fullmatch(_WHOLE, node.value)
        return int(value) if whole and abs(value) <= LARGEST_WHOLE else value

    def _complain(self, node: Node, keys: Keys, message: str) -> None:
        place = _at(node.start_mark, self._layer.places[()])
        if not self._layer.hopeless:
            self._layer.problems.append(place.problem(keys, message))


def _at(mark: Any, start: Place) -> Place:
    line = None if start.line is None or mark is None else mark.line + 1
    return Place(start.source, line, start.base)


def _one_line(error: object) -> str:
    return " ".join(str(error).split())

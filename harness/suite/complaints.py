"""What pydantic finds wrong with a suite, said in one sentence a fault."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args

import pydantic

from harness.base import Problem, unknown_name
from harness.data import FINGERPRINT, SLICE, SPLIT
from harness.suite.model import DEVICE, LABEL
from harness.suite.yaml import Node

_PATTERNS = {
    LABEL: "a name of letters, digits, '.', '_' and '-'",
    SLICE: "a slice such as ':80%' or '100:200'",
    SPLIT: "the name of a split (`slice` takes a part of it)",
    DEVICE: "auto, cpu, cuda or cuda:N",
    FINGERPRINT: "sha256:HASH or hub:ID@COMMIT",
}

_EXPECTED: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "bool_type": lambda _: "true or false",
    "int_type": lambda _: "a whole number",
    "int_from_float": lambda _: "a whole number",
    "float_type": lambda _: "a number",
    "finite_number": lambda _: "a finite number",
    "string_type": lambda _: "a string",
    "dict_type": lambda _: "a mapping",
    "model_type": lambda _: "a mapping",
    "list_type": lambda _: "a list",
    "tuple_type": lambda _: "a list",
    "none_required": lambda _: "null",
    "greater_than": lambda c: f"a number above {c['gt']}",
    "greater_than_equal": lambda c: f"a number of at least {c['ge']}",
    "less_than": lambda c: f"a number below {c['lt']}",
    "less_than_equal": lambda c: f"a number of at most {c['le']}",
    "multiple_of": lambda c: f"a multiple of {c['multiple_of']}",
    "literal_error": lambda c: str(c["expected"]),
    "enum": lambda c: str(c["expected"]),
    "too_short": lambda c: f"at least {_entries(c['min_length'])}",
    "too_long": lambda c: f"at most {_entries(c['max_length'])}",
    "string_too_short": lambda c: f"at least {c['min_length']} characters",
    "string_pattern_mismatch": lambda c: _PATTERNS.get(
        c["pattern"], f"text that matches {c['pattern']}"
    ),
}


def validate(
    model: type[pydantic.BaseModel],
    node: Node,
    path: tuple[str, ...] = (),
    *,
    key: str = "key",
    also_known: Iterable[str] = (),
) -> tuple[Any, list[Problem]]:
    """Build `model` from a node; return it, or None and all that is wrong.

    Types are checked strictly: a quoted number is a string, and 1.0 no whole number.
    `path` is the node's own; an unknown key is called a `key`, and looked for among
    the model's fields and what is `also_known`.
    """
    try:
        text = json.dumps(node.plain())
        return model.model_validate_json(text, strict=True), []
    except pydantic.ValidationError as error:
        faults = [_Fault(model, node, details) for details in error.errors()]
        return None, [f.problem(path, key, also_known) for f in _merged(faults)]


class _Fault:
    """One or more of pydantic's errors about one value."""

    def __init__(self, model: type[pydantic.BaseModel], node: Node, error: Any) -> None:
        self.model = model
        self.type: str = error["type"]
        self.loc: tuple[Any, ...] = error["loc"]
        self.node, path = node.find(self.loc)
        if self.type == "missing":
            path = [*path, self.loc[-1]]
        self.path = tuple(map(str, path))
        self.value = error["input"]
        context: Mapping[str, Any] = error.get("ctx") or {}
        known = _EXPECTED.get(self.type)
        self.expected = [known(context)] if known else []
        self.message = str(context.get("error") or error["msg"])

    def problem(
        self, prefix: tuple[str, ...], key: str, also_known: Iterable[str]
    ) -> Problem:
        path = ".".join((*prefix, *self.path))
        return self.node.place.problem(path, self._sentence(key, also_known))

    def _sentence(self, key: str, also_known: Iterable[str]) -> str:
        if self.type == "extra_forbidden":
            known = {*_fields_at(self.model, self.loc[:-1]), *also_known}
            return unknown_name(key, str(self.loc[-1]), known)
        if self.type == "missing":
            return f"is missing{_meaning(self.model, self.loc)}"
        if not self.expected:
            return self.message
        wanted = " or ".join(self.expected)
        return f"expected {wanted}, got {shown(self.value)}{self._hint()}"

    def _hint(self) -> str:
        names = re.findall(r"'([^']*)'", " ".join(self.expected))
        if isinstance(self.value, str) and "number" in self.expected[0]:
            return "; write numbers without quotes" if _numeric(self.value) else ""
        if isinstance(self.value, str) and self.type in ("literal_error", "enum"):
            near = difflib.get_close_matches(self.value, names, n=1)
            return f"; did you mean {near[0]!r}?" if near else ""
        if self.expected == ["a string"] and isinstance(self.value, int | float):
            return "; put it in quotes"
        return ""


def _merged(faults: Iterable[_Fault]) -> list[_Fault]:
    """Join the branches of a union; what went wrong deepest inside says it best."""
    by_path: dict[tuple[str, ...], _Fault] = {}
    for fault in faults:
        first = by_path.setdefault(fault.path, fault)
        first.expected += [e for e in fault.expected if e not in first.expected]
    return [
        fault
        for path, fault in by_path.items()
        if not any(len(p) > len(path) and p[: len(path)] == path for p in by_path)
    ]


def shown(value: Any) -> str:
    """Show a value as it would stand in YAML, long ones by what they are."""
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, list | tuple):
        return "a list" if value else "an empty list"
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    return json.dumps(value)


def _numeric(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"


def _meaning(model: type[pydantic.BaseModel], loc: tuple[Any, ...]) -> str:
    field = _fields_at(model, loc[:-1]).get(str(loc[-1]))
    text = " ".join((field.description or "").split()) if field else ""
    first = re.split(r"(?<=[.;:]) ", text)[0].rstrip(".;:")
    return f": {first[0].lower()}{first[1:]}" if first else ""


def _fields_at(
    model: type[pydantic.BaseModel], loc: Iterable[Any]
) -> Mapping[str, pydantic.fields.FieldInfo]:
    """Return the fields of the model that `loc` leads to."""
    for step in loc:
        field = model.model_fields.get(str(step))
        if field is not None:
            model = _model_in(field.annotation) or model
    return model.model_fields


def _model_in(annotation: Any) -> type[pydantic.BaseModel] | None:
    """Find the model inside ``Model | None``, ``dict[str, Model]`` and the like."""
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return annotation
    found = (_model_in(argument) for argument in get_args(annotation))
    return next((model for model in found if model is not None), None)

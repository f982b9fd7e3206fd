"""What pydantic finds wrong with a suite, said in one sentence a fault."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_args

import pydantic

from harness.base import nearest, unknown_name
from harness.suite.model import MEANINGS
from harness.suite.yaml import MOST_PROBLEMS, Keys, Layer

ModelT = TypeVar("ModelT", bound=pydantic.BaseModel)

_EXPECTED = {
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "a string",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "list_type": "a list",
    "tuple_type": "a list",
    "none_required": "null",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "multiple_of": "a multiple of {multiple_of}",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "string_too_short": "at least {min_length} characters",
}
"""What would have been right, by pydantic's name of the error."""


def validate(
    model: type[ModelT],
    value: Any,
    layer: Layer,
    path: tuple[str, ...] = (),
    *,
    key: str = "key",
    also_known: Iterable[str] = (),
) -> ModelT | None:
    """Build `model`, or complain in `layer` of all that is wrong and return None.

    Types are checked strictly: a quoted number is a string, and 1.0 no whole number.
    `path` is the value's own; an unknown key is called a `key`, and looked for among
    the model's fields and what is `also_known`.
    """
    try:
        return model.model_validate_json(json.dumps(value), strict=True)
    except pydantic.ValidationError as error:
        errors = error.errors()[:MOST_PROBLEMS]
        faults = [_Fault(model, path, layer, e) for e in errors]
        for fault in _merged(faults):
            if layer.hopeless:
                break
            layer.complain(fault.path, fault.sentence(key, also_known))
        return None


class _Fault:
    """One or more of pydantic's errors about one value."""

    def __init__(
        self,
        model: type[pydantic.BaseModel],
        path: tuple[str, ...],
        layer: Layer,
        error: Any,
    ) -> None:
        self.model = model
        self.type: str = error["type"]
        self.loc: Keys = error["loc"]
        self.path = layer.follow((*path, *self.loc))
        if self.type == "missing":
            self.path = (*self.path, self.loc[-1])
        self.value = error["input"]
        context: Mapping[str, Any] = error.get("ctx") or {}
        known = _expected(self.type, context)
        self.expected = [known] if known else []
        self.message = str(context.get("error") or error["msg"])

    def sentence(self, key: str, also_known: Iterable[str]) -> str:
        """Say what is wrong; see `validate`."""
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
        if isinstance(self.value, str) and "number" in self.expected[0]:
            return "; write numbers without quotes" if _numeric(self.value) else ""
        if isinstance(self.value, str) and self.type in ("literal_error", "enum"):
            names = re.findall(r"'([^']*)'", " ".join(self.expected))
            near = nearest(self.value, names)
            return f"; did you mean {near!r}?" if near else ""
        if self.expected == ["a string"] and isinstance(self.value, int | float):
            return "; put it in quotes"
        return ""


def _expected(type_: str, context: Mapping[str, Any]) -> str | None:
    if type_ == "string_pattern_mismatch":
        pattern = context["pattern"]
        return MEANINGS.get(pattern, f"text that matches {pattern}")
    if type_ == "too_short":
        return f"at least {_entries(context['min_length'])}"
    if type_ == "too_long":
        return f"at most {_entries(context['max_length'])}"
    return _EXPECTED[type_].format(**context) if type_ in _EXPECTED else None


def _merged(faults: Iterable[_Fault]) -> list[_Fault]:
    """Join the branches of a union; what went wrong deepest inside says it best."""
    by_path: dict[Keys, _Fault] = {}
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

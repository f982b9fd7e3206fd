"""Rules between the fields of a model, said once for readers and for the schema."""

from __future__ import annotations

from typing import Any, ClassVar, Final

import pydantic
from pydantic.json_schema import JsonSchemaValue

from harness.base import Strict

GIVEN: Final = object()
"""Of a field: neither null nor an empty text."""


class When:
    """Where a field has a value, others are given, or have a value of their own."""

    def __init__(self, field: str, *values: Any, **then: Any) -> None:
        """State the rule: `then` maps fields to `GIVEN` or to their only value."""
        self.field, self.values, self.then = field, values, then

    def broken(self, model: pydantic.BaseModel) -> str | None:
        """Say what breaks the rule; None where nothing does."""
        value = getattr(model, self.field)
        if value not in self.values:
            return None
        for name, wanted in self.then.items():
            found = getattr(model, name)
            if found in (None, "") if wanted is GIVEN else found != wanted:
                must = "given" if wanted is GIVEN else f"{wanted!r}"
                return f"{name} must be {must} where {self.field} is {_shown(value)}"
        return None

    def schema(self) -> JsonSchemaValue:
        """Return the rule as JSON Schema."""
        return {
            "if": {"properties": {self.field: {"enum": list(self.values)}}},
            "then": {
                "properties": {name: _schema(x) for name, x in self.then.items()},
                "required": list(self.then),
            },
        }


class Ruled(Strict):
    """A model with rules, which its schema holds as well."""

    rules: ClassVar[tuple[When, ...]] = ()

    @pydantic.model_validator(mode="after")
    def _rules_hold(self) -> Ruled:
        for rule in self.rules:
            complaint = rule.broken(self)
            if complaint:
                raise ValueError(complaint)
        return self

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: Any, handler: pydantic.GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core_schema)
        rules = [rule.schema() for rule in cls.rules]
        handler.resolve_ref_schema(schema)["allOf"] = rules
        return schema


def _schema(wanted: Any) -> JsonSchemaValue:
    return {"not": {"enum": [None, ""]}} if wanted is GIVEN else {"const": wanted}


def _shown(value: Any) -> str:
    return "null" if value is None else repr(value)

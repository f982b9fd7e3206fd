"""An estimate: a number, its interval, and how it came about."""

from __future__ import annotations

from typing import Annotated, Any

import pydantic

from harness.base import Strict

Sha256 = Annotated[str, pydantic.Field(pattern=r"^[0-9a-f]{64}$")]


def _when(field: str, value: str | bool, **consequences: Any) -> dict[str, Any]:
    """Return a rule for the schema: where `field` is `value`, the others are so."""
    return {
        "if": {"properties": {field: {"const": value}}},
        "then": {"properties": consequences, "required": list(consequences)},
    }


_OBJECT: dict[str, Any] = {"type": "object"}
_NULL: dict[str, Any] = {"type": "null"}


class Estimate(Strict):
    """A number, how sure it is, and how it came about."""

    model_config = pydantic.ConfigDict(
        json_schema_extra={
            "if": {"properties": {"value": _NULL}},
            "then": {
                "properties": {"reason": {"type": "string", "minLength": 1}},
                "required": ["reason"],
            },
        }
    )

    value: float | None
    """The point estimate; null only with a reason."""
    n: int = pydantic.Field(ge=0)
    """How many units (examples, documents, seeds) it rests on."""
    unit: str
    """As ``nats/token``, ``perplexity``, ``fraction``."""
    method: str
    """How value and interval were computed, as ``mean; bootstrap over documents``."""
    interval: tuple[float, float] | None = None
    """Lower and upper bound at `level`; null where n is too small for one."""
    level: float = 0.95
    """The interval's confidence level."""
    reason: str | None = None
    """Why `value` or `interval` is null."""

    @pydantic.model_validator(mode="after")
    def _null_has_a_reason(self) -> Estimate:
        if self.value is None and not self.reason:
            raise ValueError("a null value needs a reason")
        return self

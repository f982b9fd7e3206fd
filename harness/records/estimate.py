"""An estimate: a number, its interval, and how it came about."""

from __future__ import annotations

from typing import Annotated

import pydantic

from harness.records.rules import GIVEN, Ruled, When

Sha256 = Annotated[str, pydantic.Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, pydantic.Field(ge=0)]
Amount = Annotated[float, pydantic.Field(ge=0)]


class Estimate(Ruled):
    """A number, its confidence interval, and how both were computed."""

    rules = (When("value", None, reason=GIVEN),)

    value: float | None
    """The point estimate; null only with a reason."""
    n: Count
    """How many units (examples, documents, seeds) it rests on."""
    unit: str
    """As ``nats/token``, ``perplexity``, ``fraction``."""
    method: str
    """How value and interval were computed, as ``mean; bootstrap over documents``."""
    interval: tuple[float, float] | None = None
    """Lower and upper bound of the confidence interval; null where n is too small."""
    level: float = 0.95
    """The confidence level of the interval."""
    reason: str | None = None
    """Why `value` or `interval` is null."""

"""Claims: what a suite says beforehand that its results will show."""

from __future__ import annotations

from typing import Annotated, Literal

import pydantic

from harness.api import AttackLabel
from harness.base import Strict
from harness.records import Measure
from harness.suite.names import ArmLabel

_NUMBER = r"[-+]?([0-9]{1,15}(\.[0-9]*)?|\.[0-9]+)"
BOUND = rf"^(<=|<|>=|>|within) ?{_NUMBER}$"
PERCENT_BOUND = rf"^(<=|<|>=|>|within) ?{_NUMBER} ?%$"
REDUCTION = r"^reduced by ([1-9]\d?(\.\d+)?|0\.\d*[1-9]\d*) ?%$"
MEANINGS: dict[str, str] = {
    BOUND: "a bound such as '<= 0.03', '> 0' or 'within 0.03'",
    PERCENT_BOUND: "a bound such as '<= 10 %', '> -5 %' or 'within 10 %'",
    REDUCTION: "a least reduction between 0 and 100 %, such as 'reduced by 50 %'",
}
"""What text that matches is, as a message says it."""


class ClaimSection(Strict):
    """A claim about an arm, held against another one: a number and its bound.

    It names a metric or an attack, and one number of it: `change` or `gap` of a metric,
    `success` or `dL` of an attack.
    """

    arm: ArmLabel
    """The arm that the claim is about."""
    against: ArmLabel | None = None
    """The arm that it is compared with; by default its reference arm."""
    metric: str | None = None
    """A number of a metric as reports name it: ``perplexity.token_perplexity``."""
    attack: AttackLabel | None = None
    """An attack, by its label."""
    change: Annotated[str, pydantic.Field(pattern=PERCENT_BOUND)] | None = None
    """The metric's relative change against the other arm: ``<= 10 %``, ``> -5 %``, or
    ``within 10 %``, to either side."""
    gap: Annotated[str, pydantic.Field(pattern=BOUND)] | None = None
    """The metric's difference, arm minus other arm, in its own unit: ``>= -0.03``."""
    success: Annotated[str, pydantic.Field(pattern=REDUCTION)] | None = None
    """By how much of itself the attack's success is at least reduced: ``reduced by 50
    %``. Success is that of the suite's threshold."""
    dL: Annotated[str, pydantic.Field(pattern=BOUND)] | None = None  # noqa: N815
    """The attack's dL, arm minus other arm, in nats/token: ``< 0``."""
    seeds: Literal["every"] | None = None
    """``every``: it has to hold under every training seed alone; by default in the mean
    over seeds."""

    @property
    def bounds(self) -> dict[Measure, str]:
        """The bounds that are stated, by the number that they bound."""
        found: dict[Measure, str | None] = {
            "change": self.change,
            "gap": self.gap,
            "success": self.success,
            "dL": self.dL,
        }
        return {name: bound for name, bound in found.items() if bound is not None}

"""Claims: what a suite states before anything runs, as every record keeps it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from harness.base import Strict

Measure = Literal["change", "gap", "success", "dL"]
"""The relative change or the difference of a metric; the reduction of an attack's
success, or the difference of its dL."""
_BOUND = re.compile(r"(<=|<|>=|>|within|reduced by) ?([-+.\d]+) ?(%?)")


@dataclass(frozen=True)
class Bound:
    """Where a claim says that a number lies: between `low` and `high`.

    Whether an end belongs to it is beyond what any sample tells.
    """

    low: float = -math.inf
    high: float = math.inf

    @classmethod
    def of(cls, stated: str) -> Bound:
        """Read what a suite states: ``<= 10 %``, ``within 0.1``, ``reduced by 5 %``."""
        found = _BOUND.fullmatch(stated)
        if found is None:
            raise ValueError(f"no bound: {stated!r}")
        sign, number, percent = found.groups()
        value = float(number) / (100 if percent else 1)
        if sign == "within":
            return cls(-abs(value), abs(value))
        return cls(high=value) if sign[0] == "<" else cls(low=value)


class StatedClaim(Strict):
    """A claim as a suite states it, with what it leaves out filled in."""

    arm: str
    """The arm that it is about, by its label."""
    against: str
    """The arm that it is compared with."""
    metric: str | None = None
    """The metric's label and the name of one of its estimates, with a dot between."""
    attack: str | None = None
    """The attack's label, where it is not about a metric."""
    measure: Measure
    """Which number has the bound."""
    bound: str
    """The bound, as the suite states it."""
    every_seed: bool = False
    """Whether it has to hold under every training seed alone."""
    threshold: float | None = None
    """Of a reduction of success: success is exp(dL) > 1 + threshold."""

    def __str__(self) -> str:
        """Say it in words, its bound included."""
        every = " under every seed" if self.every_seed else ""
        return f"{self.quantity}: {self.bound}{every}"

    @property
    def quantity(self) -> str:
        """What the bound is about, in words."""
        of = self.metric or self.attack
        return f"{self.measure} of {of}, {self.arm} against {self.against}"


Claims = Mapping[str, Mapping[str, StatedClaim]]
"""Claims by their label, in groups."""


@dataclass(frozen=True)
class ClaimsChange:
    """That results were there before a group of claims was as it is."""

    records: int
    """How many records state it otherwise, or not at all."""
    details: str
    """What is otherwise, in words."""

    def __str__(self) -> str:
        """Say after how many records it was changed."""
        count = "1 record" if self.records == 1 else f"{self.records} records"
        return f"claims changed after {count}"


def claims_changes(
    claims: Claims, stated: Iterable[Claims]
) -> Mapping[str, ClaimsChange]:
    """Say of each group of claims that was changed after results were there.

    `stated` are the claims of a run's records, each written before its results. A group
    is one: a claim that is added or taken out changes what the others have to show.
    """
    known = list(stated)
    names = dict.fromkeys([*claims, *(group for other in known for group in other)])
    counts = {
        group: sum(other.get(group) != claims.get(group) for other in known)
        for group in names
    }
    return {
        group: ClaimsChange(count, _how(group, claims, known))
        for group, count in counts.items()
        if count
    }


def _how(group: str, claims: Claims, known: Iterable[Claims]) -> str:
    """Name what a group has otherwise than any of the records."""
    own, others = claims.get(group, {}), [other.get(group, {}) for other in known]
    labels = dict.fromkeys([*own, *(label for other in others for label in other)])
    told = []
    for label in labels:
        before = [other.get(label) for other in others]
        old = [x for x in before if x is not None and x != own.get(label)]
        if label not in own:
            told.append(f"{group}.{label} is no longer stated")
        elif old:
            told.append(f"{group}.{label} was {old[0]}")
        elif None in before:
            told.append(f"{group}.{label} is new")
    return "; ".join(told)

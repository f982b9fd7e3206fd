"""How long the rest of a run takes: as planned, scaled by what is done already."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from harness.base import HarnessError, default_store_root
from harness.records import Record
from harness.running.surveying import Survey, SurveyedUnit
from harness.suite import PricedPlan, find_device, plan_costs

_LEAST_S = 1.0
"""A phase that was to take less in all says nothing of the machine's speed."""


@dataclass(frozen=True)
class Remaining:
    """The time of a run, spent and left."""

    spent_s: float
    """What the attempts that led to its complete units took."""
    left_s: float
    """What the other units will take, one after the other on the same machine."""
    units: int
    """How many these are."""
    scale: float | None
    """What complete units took over what a plan says of them; None for no unit."""


def remaining(found: Survey) -> Remaining | None:
    """Say how long the units of a run that are not complete will take.

    The plan is for the device that is here, and each phase is scaled by what it took
    in complete units. None where nothing is known of the size of a model.
    """
    if found.plan.experiment.unjudged:
        return None
    store_root = default_store_root(found.folder.root)
    try:
        costs = plan_costs(found.plan, store_root)
    except HarnessError:  # of a model's folder that is no checkpoint
        return None
    priced = PricedPlan(found.plan, costs, find_device())
    if None in priced.costs.shapes.values():
        return None
    done = [(x, x.state.record) for x in found.units if x.state.status == "complete"]
    records = [(unit, record) for unit, record in done if record is not None]
    left = [unit for unit in found.units if unit.state.status != "complete"]
    scales = _Scales.of(priced, records)
    return Remaining(
        spent_s=sum(_wall(record) for _, record in records),
        left_s=sum(scales.seconds(priced, unit.id) for unit in left),
        units=len(left),
        scale=scales.all if records else None,
    )


@dataclass(frozen=True)
class _Scales:
    """What phases took over what they were to take."""

    phases: dict[str, float]
    all: float

    @classmethod
    def of(
        cls, priced: PricedPlan, records: Iterable[tuple[SurveyedUnit, Record]]
    ) -> _Scales:
        took: dict[str, float] = {}
        planned: dict[str, float] = {}
        for unit, record in records:
            for phase, cost in priced.whole_units[unit.id].items():
                kept = record.ledger.kept.get(phase)
                if kept is not None:
                    took[phase] = took.get(phase, 0.0) + kept.seconds
                    planned[phase] = planned.get(phase, 0.0) + cost.seconds
        total = sum(planned.values())
        return cls(
            phases={x: took[x] / planned[x] for x in took if planned[x] >= _LEAST_S},
            all=sum(took.values()) / total if total else 1.0,
        )

    def seconds(self, priced: PricedPlan, unit: str) -> float:
        """Return what is left of a unit."""
        costs = priced.units[unit].items()
        scaled = (self.phases.get(x, self.all) * cost.seconds for x, cost in costs)
        return priced.device.per_unit_s + sum(scaled)


def _wall(record: Record) -> float:
    """Return what a unit took; in old records, what its phases did."""
    noted = record.provenance.wall_seconds
    return sum(record.provenance.seconds.values()) if noted is None else noted

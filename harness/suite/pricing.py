"""The costs of a plan on a device: seconds, memory, money, and what does not fit."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from harness.base import GIB, spell_size
from harness.records import Cost, Phase
from harness.suite import devices
from harness.suite.costs import Part, PlanCosts
from harness.suite.devices import Device
from harness.suite.plan import Plan

Costs = Mapping[Phase, Cost]


@dataclass(frozen=True)
class Total:
    """What some units cost in all."""

    tokens: int
    """Tokens that go through the model, forward and backward."""
    flops: float
    seconds: float
    peak_memory_bytes: int
    disk_bytes: float
    """What stays on disk."""
    temporary_bytes: float
    """What is on disk besides, at the most, while one subject is made."""
    devices: int
    """How many are held: as many as training takes."""
    dollars: float | None
    """At the device's rate; None where it has none."""

    @property
    def hours(self) -> float:
        """Hours of all devices together."""
        return self.devices * self.seconds / 3600


@dataclass(frozen=True)
class PricedPlan:
    """What a plan costs on a device."""

    plan: Plan
    costs: PlanCosts
    device: Device

    @cached_property
    def units(self) -> Mapping[str, Costs]:
        """The costs of what is left of each unit, by its id."""
        return self._all({x: unit.parts for x, unit in self.costs.units.items()})

    @cached_property
    def whole_units(self) -> Mapping[str, Costs]:
        """The costs of each unit, by its id: as its record will state them."""
        return self._all({x: unit.whole for x, unit in self.costs.units.items()})

    def _all(
        self, units: Mapping[str, Mapping[Phase, Part]]
    ) -> dict[str, Mapping[Phase, Cost]]:
        """Price units; many have the very same parts."""
        alike = {id(parts): parts for parts in units.values()}
        priced = {key: self._priced(parts) for key, parts in alike.items()}
        return {x: priced[id(parts)] for x, parts in units.items()}

    def _priced(self, parts: Mapping[Phase, Part]) -> Costs:
        return {
            phase: part.cost.model_copy(
                update={
                    "seconds": devices.phase_seconds(self.device, phase, part.work),
                    "peak_memory_bytes": self._peak(part),
                }
            )
            for phase, part in parts.items()
        }

    def unit_seconds(self, unit: str) -> float:
        """Return what a unit takes, from one to the next."""
        phases = self.units.get(unit, {}).values()
        return self.device.per_unit_s + sum(cost.seconds for cost in phases)

    def by_phase(self, ids: Collection[str]) -> Costs:
        """Add up units, phase by phase."""
        found: dict[Phase, list[Cost]] = {}
        for unit in ids:
            for phase, cost in self.units.get(unit, {}).items():
                found.setdefault(phase, []).append(cost)
        return {phase: Cost.sum(costs) for phase, costs in found.items()}

    def total(self, ids: Collection[str]) -> Total:
        """Add up units, and what a run with them takes besides."""
        cost = Cost.sum(self.by_phase(ids).values())
        known = [self.costs.units[unit] for unit in ids if unit in self.costs.units]
        taken = self.run_seconds(ids)
        section = self.plan.experiment.suite.recovery
        held = section.devices if section else 1
        rate = self.device.dollars_per_hour
        return Total(
            tokens=cost.tokens_forward + cost.tokens_backward,
            flops=cost.flops,
            seconds=taken,
            peak_memory_bytes=cost.peak_memory_bytes or 0,
            disk_bytes=sum(unit.disk_bytes for unit in known),
            temporary_bytes=max((unit.temporary_bytes for unit in known), default=0.0),
            devices=held,
            dollars=None if rate is None else rate * held * taken / 3600,
        )

    def run_seconds(self, ids: Collection[str]) -> float:
        """Return what a run of some units takes, from its start to its end."""
        if not ids:
            return 0.0
        own = sum(map(self.unit_seconds, ids))
        replay = devices.phase_seconds(self.device, "rescore", self.costs.replay)
        share = len(ids) / max(1, len(self.plan.units))
        return self.device.per_run_s + own + share * replay

    def _peak(self, part: Part) -> int:
        return round(part.memory(self._room) + self.device.base_memory_gib * GIB)

    @property
    def _room(self) -> float:
        """What the device has for models, in bytes."""
        if self.device.is_cpu:  # where a larger micro-batch gains nothing
            return 0.0
        return (self.device.memory_gib - self.device.base_memory_gib) * GIB

    # --- what does not fit ----------------------------------------------------------

    def too_large(self) -> Iterator[str]:
        """Yield a sentence for each model and phase that does not fit, and what would.

        Of a model's arms, that which needs most speaks for all.
        """
        hints: dict[Phase, Callable[[Part], str]] = {
            "train": self._train_hint,
            "attack": _search_hint,
        }
        for model in self.plan.experiment.models:
            for phase, hint in hints.items():
                part = self._largest(model, phase)
                if part and self._peak(part) > self.device.memory_gib * GIB:
                    yield (
                        f"{model}: {phase} needs {spell_size(self._peak(part))} of "
                        f"{self.device.memory_gib:g}; {hint(part)}"
                    )

    def _largest(self, model: str, phase: Phase) -> Part | None:
        """Return the phase of a model's units that needs most memory."""
        own = [
            self.costs.units[x.id].parts.get(phase)
            for x in self.plan.units
            if x.variant.model == model and x.id in self.costs.units
        ]
        return max((part for part in own if part), key=self._peak, default=None)

    def _train_hint(self, part: Part) -> str:
        rows = part.rows_that_fit(self._room)
        if rows:
            return f"`recovery.micro_batch: {rows}` would fit"
        section = self.plan.experiment.suite.recovery
        if section is not None and not section.checkpointing:
            return "`recovery.checkpointing: true` needs less"
        return "no `recovery.micro_batch` fits: take a device with more memory"


def _search_hint(part: Part) -> str:
    return "a smaller `batch_size` needs less, or a device with more memory"

"""``harness plan``: what a suite would run, why, and what it would cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import click
from tabulate import tabulate

from harness import running, suite
from harness.base import default_store_root, spell_seconds, spell_size
from harness.cli import options
from harness.cli.costs import costs_document, flops_text
from harness.cli.options import SuiteChoice
from harness.cli.printing import answer, say
from harness.records import Cost
from harness.suite import PricedPlan, find_device

MISSING = 2


@click.command()
@options.suite_options
@click.option(
    "--devices",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A JSON file with further devices for --device.",
)
@click.option(
    "--rate",
    type=options.Finite(min=0),
    metavar="DOLLARS",
    help="The price of an hour of the device.",
)
@click.option(
    "--within",
    type=options.Finite(min=0, min_open=True),
    metavar="HOURS",
    help="Say what would make it fit into so many hours of the device.",
)
@click.option(
    "--calibrate",
    is_flag=True,
    help="Measure this machine first, in a minute or two, and keep what is found.",
)
@options.json_output
def command(
    choice: SuiteChoice,
    devices: Path | None,
    rate: float | None,
    within: float | None,
    calibrate: bool,
    as_json: bool,
) -> int:
    """List the units of a suite, why each would run, and what all costs.

    A unit is new, complete, failed before, or has an invalid record; all but the
    complete ones would run. Where a model or a corpus is not on this machine, all are
    blocked, and their ids lack the hash that depends on it; what they would cost is
    said as far as sizes are known. What is missing comes first, and exits with 2, as
    does a suite whose texts or models are too short for what it asks.

    Here, --device also takes the names of devices that are elsewhere: A100-40GB, H100,
    H200, and those of --devices.
    """
    if calibrate:
        suite.keep_device(running.calibrate(say))
    elsewhere = choice.device is not None
    if elsewhere and str(choice.device).startswith("cuda"):
        suite.choose_device(str(choice.device))
    device = find_device(choice.device or "auto", devices)
    if rate is not None:
        device = device.model_copy(update={"dollars_per_hour": rate})
    experiment = replace(choice, device=None).experiment()
    folder = running.RunFolder(choice.run_dir(experiment))
    store_root = default_store_root(folder.root)
    sources = suite.missing_sources(experiment, store_root)
    absent = [*sources, *suite.missing_parts(experiment)]
    notes = suite.refuse_misfits(experiment, store_root, absent)
    if not elsewhere:
        absent += suite.missing_device(experiment)
    for problem in absent:
        say(f"not on this machine: {problem}")
    if not sources:
        experiment = suite.identify(experiment, store_root)
    plan = suite.make_plan(experiment, choice.only)
    priced = PricedPlan(plan, suite.plan_costs(plan, store_root), device)
    found = _Found(running.preview(plan, folder), priced, store_root, within)
    if as_json:
        said = {"missing": [*map(str, absent)], "notes": [*map(str, notes)]}
        answer(json.dumps({**found.document(), **said}, indent=1))
    else:
        answer("\n".join(found.lines()))
        for problem in notes:
            say(f"note: {problem}")
        if experiment.suite.limit is not None:
            say("a limit is set: not for real numbers")
    return MISSING if absent else 0


@dataclass(frozen=True)
class _Found:
    """The units of a plan and their costs, as a table and as JSON."""

    units: list[running.UnitPreview]
    priced: PricedPlan
    store_root: Path
    hours: float | None
    """What all is to fit into."""

    @cached_property
    def planned(self) -> list[str]:
        """The ids, in the plan, of what is not complete."""
        plan = self.priced.plan
        ids = [unit.id for unit in plan.units]
        shown = zip(ids, self.units, strict=True)
        return [own for own, unit in shown if unit.state != "complete"]

    def document(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        priced, plan = self.priced, self.priced.plan
        total = priced.total(self.planned)
        ids = [unit.id for unit in plan.units]
        return {
            "units": [
                {
                    **asdict(unit),
                    "runs": unit.runs,
                    "seconds": priced.unit_seconds(own),
                    "cost": costs_document(priced.units.get(own, {})),
                }
                for own, unit in zip(ids, self.units, strict=True)
            ],
            "device": priced.device.model_dump(mode="json", exclude={"terms"}),
            "phases": costs_document(priced.by_phase(self.planned)),
            "total": {**asdict(total), "hours": total.hours},
            "does_not_fit": [*priced.too_large()],
            "would_fit": self._would_fit(),
            "assumptions": [*priced.costs.assumptions],
        }

    def lines(self) -> Iterator[str]:
        """Yield all of it as lines of text, how many units there are the last one."""
        priced, plan = self.priced, self.priced.plan
        ids = iter(unit.id for unit in plan.units)
        width = max(len(unit.id) for unit in self.units)
        states = max(len(unit.state) for unit in self.units)
        for kind in ("variant", "cell"):
            yield f"{kind}s"
            for unit in (x for x in self.units if x.kind == kind):
                own = next(ids)
                took = ""
                if unit.state != "complete" and own in priced.units:
                    took = f"  {spell_seconds(priced.unit_seconds(own)):>9}"
                reason = f": {unit.reason}" if unit.reason else ""
                state = f"{unit.state:{states}}{took}{reason}"
                yield f"  {unit.id:{width}}  {state}".rstrip()
        if self.planned:
            yield ""
            yield from self._costs()
        yield ""
        yield running.summary(self.units)

    def _costs(self) -> Iterator[str]:
        priced, total = self.priced, self.priced.total(self.planned)
        device = priced.device
        price = device.dollars_per_hour
        rate = "" if price is None else f", ${price:,.2f} an hour"
        yield f"costs on {device.name} ({device.memory_gib:.1f} GiB{rate})"
        phases = priced.by_phase(self.planned)
        rows = [_row(phase, cost) for phase, cost in phases.items()]
        rest = total.seconds - sum(cost.seconds for cost in phases.values())
        rows.append(["besides", "--", "--", spell_seconds(rest), ""])
        tokens = f"{total.tokens:,}"
        took = spell_seconds(total.seconds)
        peak = spell_size(total.peak_memory_bytes)
        rows.append(["in all", tokens, flops_text(total.flops), took, peak])
        table = tabulate(
            rows,
            headers=["phase", "tokens", "FLOP", "time", "memory"],
            disable_numparse=True,
            colalign=("left", "right", "right", "right", "right"),
        )
        yield from (f"  {line}" for line in table.splitlines())
        money = "" if total.dollars is None else f", ${total.dollars:,.2f}"
        disk, making = map(spell_size, (total.disk_bytes, total.temporary_bytes))
        yield (
            f"  {total.hours:,.2f} hours of {_held(total.devices)}{money}; "
            f"disk {disk}, and {making} while a subject is made"
        )
        yield from (f"  DOES NOT FIT: {x}" for x in priced.too_large())
        if self.hours is not None:
            yield from self._within(self.hours)
        notes = [device.note] if device.note else []
        yield from (f"  note: {note}" for note in [*notes, *priced.costs.assumptions])

    def _would_fit(self) -> list[str]:
        if self.hours is None:
            return []
        found = suite.would_fit(self.priced, self.planned, self.hours, self.store_root)
        return [*found]

    def _within(self, hours: float) -> Iterator[str]:
        time = "1 hour" if hours == 1 else f"{hours:g} hours"
        if self.priced.run_seconds(self.planned) <= 3600 * hours:
            yield f"  fits into {time}"
            return
        found = ", or ".join(self._would_fit())
        what = found or "no number of tokens, examples, arms or seeds"
        yield f"  DOES NOT FIT into {time}; {what} would"


def _held(devices: int) -> str:
    return "the device" if devices == 1 else f"{devices} devices together"


def _row(phase: str, cost: Cost) -> list[str]:
    tokens = cost.tokens_forward + cost.tokens_backward
    return [
        phase,
        f"{tokens:,}" if tokens else "--",
        flops_text(cost.flops),
        spell_seconds(cost.seconds),
        spell_size(cost.peak_memory_bytes or 0),
    ]

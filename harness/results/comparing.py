"""Two runs side by side: what may be compared, and by how much it differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from harness.base import UsageError
from harness.records import Estimate, Record
from harness.results.loaded import Run
from harness.running import SurveyedUnit, identity_changes
from harness.verdicts import Attacked, by_unit, crossed_mean, pair, same_examples

ASKED = (
    "schema_version",
    "limit",
    "attack",
    "options",
    "share",
    "match",
    "examples",
    "tokens",
    "metrics",
)
"""What has to be equal for numbers to be comparable; all else is what is compared."""


class Key(NamedTuple):
    """What a line of the comparison is about."""

    model: str
    arm: str
    attack: str | None
    """The attack's label; None for the metrics of variants."""


@dataclass(frozen=True)
class Compared:
    """The same model, arm and attack, or metrics, in two runs."""

    key: Key
    refused: list[str]
    """Why the two cannot be compared: the fields that differ and must not."""
    differs: list[str]
    """The fields that differ besides: what the difference may be due to."""
    differences: dict[str, Estimate] = field(default_factory=dict)
    """Second run minus first, in nats/token, paired by document: ``clean_loss`` and
    ``delta_loss`` of an attack, ``LABEL.loss`` of a metric. Empty where refused."""


def compare_runs(first: Run, second: Run) -> list[Compared]:
    """Compare what two runs have in common, by the labels of models, arms and attacks.

    Raises UsageError where they share no complete unit of the same labels.
    """
    ours, theirs = _complete(first), _complete(second)
    shared = [key for key in ours if key in theirs]
    if not shared:
        raise UsageError(
            f"{first.path} and {second.path} share no complete variant or cell: "
            f"{_labels(ours)} there, {_labels(theirs)} here"
        )
    return [_compared((first, ours[key]), (second, theirs[key]), key) for key in shared]


Units = dict[int, SurveyedUnit]
"""By seed."""


def _complete(run: Run) -> dict[Key, Units]:
    found: dict[Key, Units] = {}
    for unit in run.survey.units:
        if unit.state.status == "complete":
            key = Key(unit.model, unit.arm, unit.attack)
            found.setdefault(key, {})[unit.seed] = unit
    return found


def _labels(found: Mapping[Key, Units]) -> str:
    names = dict.fromkeys(f"{key.model} ({key.arm})" for key in found)
    return ", ".join(names) or "nothing"


def _compared(
    first: tuple[Run, Units], second: tuple[Run, Units], key: Key
) -> Compared:
    seeds = [seed for seed in first[1] if seed in second[1]]
    if not seeds:
        return Compared(key, ["seed: none in common"], [])
    before, now = (_record(side[1][seeds[0]]).identity for side in (first, second))
    refused = [*identity_changes(_part(before, asked=True), _part(now, asked=True))]
    differs = [*identity_changes(_part(before, asked=False), _part(now, asked=False))]
    if refused:
        return Compared(key, refused, differs)
    chosen = [
        (run, {seed: units[seed] for seed in seeds}) for run, units in (first, second)
    ]
    make = _of_metrics if key.attack is None else _of_attack
    found = make(*chosen)
    if not found:
        return Compared(key, ["their documents differ"], differs)
    return Compared(key, [], differs, found)


def _part(identity: Mapping[str, Any], *, asked: bool) -> dict[str, Any]:
    return {name: x for name, x in identity.items() if (name in ASKED) is asked}


def _record(unit: SurveyedUnit) -> Record:
    assert unit.state.record is not None  # it is complete
    return unit.state.record


Side = tuple[Run, Units]


def _of_attack(first: Side, second: Side) -> dict[str, Estimate]:
    """Return the differences of clean loss and dL, if examples are the same."""
    ours, theirs = (
        {seed: Attacked(run.rows(unit)) for seed, unit in units.items()}
        for run, units in (first, second)
    )
    if not same_examples([*ours.values(), *theirs.values()]):
        return {}
    pairing = pair(theirs, ours)
    if pairing is None:
        return {}
    pairs = zip(pairing.first, pairing.second, pairing.seeds, strict=True)
    known = [
        (now.clean_loss - then.clean_loss, now.unit, seed)
        for now, then, seed in pairs
        if now.clean_loss is not None and then.clean_loss is not None
    ]
    clean = crossed_mean(by_unit(*map(list, zip(*known, strict=True))))
    return {"clean_loss": clean, "delta_loss": pairing.difference()}


Losses = dict[tuple[int, str], float]
"""By seed and document."""


def _mean(sides: Sequence[Losses]) -> Estimate:
    """Estimate the mean of the first side minus the second."""
    both = [key for key in sides[0] if key in sides[1]]
    apart = [sides[0][key] - sides[1][key] for key in both]
    return crossed_mean(by_unit(apart, [x[1] for x in both], [x[0] for x in both]))


def _of_metrics(first: Side, second: Side) -> dict[str, Estimate]:
    """Return the differences of losses, label by label, where rows are of documents."""
    ours, theirs = (_losses(side) for side in (first, second))
    return {
        f"{label}.loss": _mean([theirs[label], ours[label]])
        for label in ours
        if label in theirs and ours[label].keys() == theirs[label].keys()
    }


def _losses(side: Side) -> dict[str, Losses]:
    run, units = side
    found: dict[str, Losses] = {}
    for seed, unit in units.items():
        for row in run.metric_rows(unit):
            if row.get("tokens") and row.get("nats") is not None:
                losses = found.setdefault(row["metric"], {})
                losses[seed, row["document_id"]] = row["nats"] / row["tokens"]
    return found

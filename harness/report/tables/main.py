"""The main table: what each arm costs, and what each attack does to it."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from statistics import fmean

from harness.records import Record, Verdicts, successes, wilson
from harness.report.content import (
    Cell,
    Column,
    Label,
    Missing,
    Number,
    Table,
    from_estimate,
    from_seeds,
    marked,
)
from harness.report.tables import beyond_loss
from harness.report.tables.rows import BOOTSTRAP, subjects_table
from harness.verdicts import CellsBySeed, Results, Subjects, pooled_delta

ERROR_MARK = "†"
BROKEN_MARK = "§"
"""On what attacks did to an arm that is worse alone than the baseline under attack."""
WORST_CASE = "worst case"
"""The heading over the worst of all attacks on each example."""
LOSS = "loss"
"""The estimate that the table looks for, whatever metric offers it."""
LARGEST_LOSS = 700.0
"""Nats/token beyond which a perplexity leaves the range of floats."""


def main_table(results: Results, verdicts: Verdicts) -> Table:
    """Return a row for each model and arm."""
    columns = [
        Column("params"),
        Column("perplexity"),
        Column("change"),
        Column("clean loss"),
        *beyond_loss.headings(beyond_loss.clean_columns(results.suite)),
    ]
    broken = {Subjects(x.model, x.arm) for x in verdicts.arms if x.broken}
    further = beyond_loss.attack_columns(results.suite)
    for attack in _columns(results):
        columns += [Column("success", attack), Column("dL", attack)]
        columns += beyond_loss.headings(further, attack)
    return subjects_table(
        results,
        columns,
        [(x, _cells(results, x, x in broken)) for x in results.subjects],
        key="main",
        title="Clean perplexity and attacks",
        caption=_caption(results),
        notes=[*_broken(broken), *_errors(results)],
    )


def clean_losses(results: Results, subjects: Subjects) -> dict[int, float]:
    """Return nats/token by seed, from the first metric that offers a loss."""
    records = results.variants(subjects)
    found = {seed: _clean_loss(record) for seed, record in records.items()}
    return {seed: loss for seed, loss in found.items() if loss is not None}


def _clean_loss(record: Record) -> float | None:
    for found in record.results.values():
        if LOSS in found:
            return found[LOSS].value
    return None


def _perplexities(results: Results, subjects: Subjects) -> dict[int, float]:
    losses = clean_losses(results, subjects)
    return {seed: math.exp(x) for seed, x in losses.items() if x < LARGEST_LOSS}


def _cells(results: Results, subjects: Subjects, broken: bool) -> list[Cell]:
    row: list[Cell] = [_parameters(results, subjects)]
    planned = len(results.suite.seeds)
    absence = _unmeasured(results, subjects)
    perplexities = _perplexities(results, subjects)
    losses = clean_losses(results, subjects)
    clean = from_seeds([*perplexities.values()], "perplexity", planned)
    row.append(clean if perplexities else absence)
    row.append(_change(results, subjects))
    row.append(from_seeds([*losses.values()], "nats", planned) if losses else absence)
    row += beyond_loss.clean_cells(results, subjects)
    attacked: list[Cell] = []
    for attack in results.attacks:
        cells = results.cells(subjects, attack)
        attacked += _attack_cells(results, subjects, attack, cells)
    if _shows_worst_case(results):
        worst = results.worst_case(subjects)
        attacked += _attack_cells(results, subjects, WORST_CASE, worst)
    mark = BROKEN_MARK if broken else ""
    return [*row, *(marked(cell, mark) for cell in attacked)]


def _columns(results: Results) -> list[str]:
    return results.attacks + ([WORST_CASE] if _shows_worst_case(results) else [])


def _shows_worst_case(results: Results) -> bool:
    """Say whether to show the worst of several attacks: where no cell has it."""
    shown = {results.shows(attack) for attack in results.attacks}
    return len(results.attacks) > 1 and "worst" not in shown


def _parameters(results: Results, subjects: Subjects) -> Cell:
    for record in results.variants(subjects).values():
        if record.model.parameters is not None:
            return Number(record.model.parameters, "parameters")
    return Missing(results.absence(subjects))


def _change(results: Results, subjects: Subjects) -> Cell:
    """Return the mean over seeds of perplexity / baseline's perplexity - 1."""
    if subjects == subjects.baseline:
        return Label("reference")
    own = _perplexities(results, subjects)
    base = _perplexities(results, subjects.baseline)
    ratios = [own[seed] / base[seed] - 1 for seed in own if seed in base]
    if not ratios:
        return _unmeasured(results, subjects)
    return Number(fmean(ratios), "fraction", signed=True)


def _unmeasured(results: Results, subjects: Subjects) -> Missing:
    known = results.variants(subjects) and results.variants(subjects.baseline)
    return Missing("not measured" if known else results.absence(subjects))


def _attack_cells(
    results: Results, subjects: Subjects, attack: str, cells: CellsBySeed
) -> list[Cell]:
    delta = pooled_delta(cells)
    if delta is None:
        reason = "examples differ" if cells else _absence(results, subjects, attack)
        further = beyond_loss.attack_columns(results.suite)
        return [Missing(reason)] * (2 + len(further))
    mark = ERROR_MARK if any(cell.errors for cell in cells.values()) else ""
    success = _success(cells, results.threshold, len(results.suite.seeds))
    return [
        marked(success, mark),
        from_estimate(delta, "nats"),
        *beyond_loss.attack_cells(results, cells),
    ]


def _absence(results: Results, subjects: Subjects, attack: str) -> str:
    return "missing" if attack == WORST_CASE else results.absence(subjects, attack)


def _success(cells: CellsBySeed, threshold: float, planned: int) -> Cell:
    """Return the spread over seeds; of a single seed, the Wilson interval."""
    hits = [successes(cell.rows, threshold) for cell in cells.values()]
    if planned == 1:
        return from_estimate(wilson(sum(hits[0]), len(hits[0])), "fraction")
    return from_seeds([fmean(found) for found in hits], "fraction", planned)


def _broken(broken: Collection[Subjects]) -> Iterator[str]:
    if broken:
        yield (
            f"{BROKEN_MARK} broken: its loss without an attack is above that of the "
            "baseline arm under attack, so a low number is no robustness"
        )


def _errors(results: Results) -> Iterator[str]:
    for subjects in results.subjects:
        for attack in results.attacks:
            cells = results.cells(subjects, attack).values()
            errors = sum(cell.errors for cell in cells)
            if errors:
                total = sum(len(cell.rows) for cell in cells)
                where = f"{attack} on {subjects.name}"
                what = f"{errors} of {total} examples ended in an error"
                yield f"{ERROR_MARK} {where}: {what}; they count as no success and dL 0"


def _caption(results: Results) -> str:
    seeds = len(results.suite.seeds)
    worst = (
        " worst case: of each example, the attack that raises its loss most."
        if _shows_worst_case(results)
        else ""
    )
    shared = (
        f"change: of perplexity against the baseline arm. success: exp(dL) > "
        f"{1 + results.threshold:g}, of all examples. dL: rise of the loss on the "
        f"reference, nats/token.{worst}{beyond_loss.caption(results.suite)}"
    )
    if seeds == 1:
        return (
            f"One seed, so there is no spread over seeds. [a, b] is a 95 % interval "
            f"within the run (Wilson; bootstrap over documents). {shared}"
        )
    return (
        f"± is the sample standard deviation (ddof 1) over {seeds} seeds, fewer where "
        f"n says so. {BOOTSTRAP}. {shared}"
    )

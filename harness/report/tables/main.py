"""The main table: what each arm costs, and what each attack does to it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial

from harness.records import Verdicts, successes
from harness.report.content import (
    Cell,
    Column,
    Label,
    Missing,
    Number,
    Table,
    about,
    filled,
    from_comparison,
    from_estimate,
    from_seeds,
    marked,
)
from harness.report.tables import beyond_loss
from harness.report.tables.controls import Opponents
from harness.report.tables.rows import (
    INTERVAL,
    WORST_CASE,
    arm_column,
    cells_of,
    conditions,
    perplexity,
    shown_attacks,
    with_seeds,
)
from harness.report.tables.success import PROPORTION, proportion
from harness.verdicts import Arm, CellsBySeed, Results, mean_over, perplexity_change

ERROR_MARK = "†"
BROKEN_MARK = "§"
"""On attacks on an arm whose clean loss is above its reference arm's under attack."""
INVALID_MARK = "‡"
"""On attacks that random search is as good as, on the baseline arm of the model."""
LOSS = "loss"
"""The estimate that the table looks for, whatever metric offers it."""


def main_table(
    results: Results, opponents: Sequence[Opponents], verdicts: Verdicts
) -> Table:
    """Return a row for each model and arm."""
    broken = {results.arm(x.model, x.arm) for x in verdicts.arms if x.broken}
    losers = [x for x in opponents if x.invalid]
    invalid = {(x.arm.model, x.attack) for x in losers}

    def marks(attack: str, arm: Arm) -> str:
        lost = INVALID_MARK if (arm.model, attack) in invalid else ""
        return f"{BROKEN_MARK if arm in broken else ''}{lost}"

    columns: list[Column[Arm]] = [
        arm_column(results, lambda arm: arm),
        Column("params", _parameters),
        *(_measured() if results.suite.metrics else ()),
        *about(_first_cells, beyond_loss.clean_columns(results.suite)),
        *(
            _with_marks(column, partial(marks, attack))
            for attack in shown_attacks(results)
            for column in _attack_columns(results, attack)
        ),
    ]
    return filled(
        "main",
        "Clean perplexity and attacks" if results.suite.metrics else "Attacks",
        with_seeds(columns, lambda arm: arm),
        results.arms,
        summary=_summary(results),
        caption=_caption(results),
        notes=[*_broken(broken), *_errors(results), *_invalid(losers)],
    )


# --- the model as it is -------------------------------------------------------------


def _parameters(arm: Arm) -> Cell:
    for record in arm.variants.values():
        if record.model.parameters is not None:
            return Number(record.model.parameters, "parameters")
    return Missing(arm.absence())


def _measured() -> Iterator[Column[Arm]]:
    of_losses: list[Column[dict[int, float]]] = [
        Column("corpus loss", lambda x: from_seeds([*x.values()], "nats")),
        Column("perplexity", perplexity),
    ]
    yield from about(_losses, of_losses)
    yield Column("change", _change)


def _losses(arm: Arm) -> dict[int, float] | str:
    """Return nats/token by seed, from the first metric that offers a loss."""
    found: dict[int, float] = {}
    for seed, record in arm.variants.items():
        offered = (x[LOSS].value for x in record.results.values() if LOSS in x)
        loss = next(offered, None)
        if loss is not None:
            found[seed] = loss
    return found or ("not measured" if arm.variants else arm.absence())


def _change(arm: Arm) -> Cell:
    """Return the change of perplexity against the baseline arm's: a paired ratio."""
    if arm.is_baseline:
        return Label("reference")
    own, base = _losses(arm), _losses(arm.baseline)
    if isinstance(own, str) or isinstance(base, str):
        return Missing(own if isinstance(own, str) else "no baseline to compare")
    offering = [label for label in arm.results.suite.metrics if _offers(arm, label)]
    return from_comparison(
        perplexity_change(arm, arm.baseline, offering[0], LOSS), "fraction"
    )


def _offers(arm: Arm, metric: str) -> bool:
    return any(LOSS in x.results.get(metric, {}) for x in arm.variants.values())


def _first_cells(arm: Arm) -> CellsBySeed | str:
    """Return the cells of any attack: clean prompts are the same in all of them."""
    found = (arm.cells(attack) for attack in arm.results.suite.attacks)
    return next(filter(None, found), None) or arm.absence()


# --- the model under attack ---------------------------------------------------------


def _attack_columns(results: Results, attack: str) -> list[Column[Arm]]:
    columns: list[Column[CellsBySeed]] = [
        Column("success", partial(_success, results), attack),
        Column("dL", _delta, attack),
        *beyond_loss.attack_columns(results, attack),
    ]
    named = [replace(column, names=(("attack", attack),)) for column in columns]
    return about(lambda arm: cells_of(arm, attack), named)


def _success(results: Results, cells: CellsBySeed) -> Cell:
    mark = ERROR_MARK if any(cell.errors for cell in cells.values()) else ""
    hits = partial(successes, threshold=results.threshold)
    return marked(proportion(cells, hits), mark)


def _delta(cells: CellsBySeed) -> Cell:
    delta = mean_over(cells)
    assert delta is not None  # the seeds have the same examples
    return from_estimate(delta, "nats")


def _with_marks(column: Column[Arm], marks: Callable[[Arm], str]) -> Column[Arm]:
    def fill(arm: Arm) -> Cell:
        return marked(column.fill(arm), marks(arm))

    return replace(column, fill=fill)


# --- words --------------------------------------------------------------------------


def _broken(broken: Collection[Arm]) -> Iterator[str]:
    if broken:
        yield (
            f"{BROKEN_MARK} broken: its loss without an attack is above that of its "
            "reference arm under attack, so a low number is no sign of robustness"
        )


def _invalid(losers: Sequence[Opponents]) -> Iterator[str]:
    if losers:
        named = ", ".join(f"{x.attack} on {x.arm.name}" for x in losers)
        yield (
            f"{INVALID_MARK} invalid: not shown to beat random search at the same "
            f"budget: {named}; so its numbers on other arms show nothing"
        )


def _errors(results: Results) -> Iterator[str]:
    for arm in results.arms:
        for attack in results.attacks:
            cells = arm.cells(attack).values()
            errors = sum(cell.errors for cell in cells)
            if errors:
                total = sum(len(cell.rows) for cell in cells)
                where = f"{attack} on {arm.name}"
                what = f"{errors} of {total} examples ended in an error"
                counted = "they count as no success, and have no dL"
                yield f"{ERROR_MARK} {where}: {what}; {counted}"


def _caption(results: Results) -> str:
    seeds = len(results.suite.seeds)
    worst = (
        " worst case: of each example, the attack that raises its loss most."
        if WORST_CASE in shown_attacks(results)
        else ""
    )
    spread = (
        "One seed, so there is no spread over seeds."
        if seeds == 1
        else f"± is the sample standard deviation (ddof 1) over {seeds} seeds, fewer "
        "where n says so."
    )
    measured = (
        "corpus loss: of the metric's corpus, nats/token, and perplexity; change: of "
        "that perplexity against the baseline arm's, by the mean log ratio, with its "
        "95 % interval over documents and seeds. "
        if results.suite.metrics
        else ""
    )
    return (
        f"{spread} {measured}success: exp(dL) > "
        f"{1 + results.threshold:g}, {PROPORTION}. dL: rise of the loss on the "
        f"reference, nats/token; {INTERVAL}.{worst}{beyond_loss.caption(results.suite)}"
        f" {conditions(results)}"
    )


def _summary(results: Results) -> str:
    several = len(results.suite.seeds) > 1
    spread = " (mean and standard deviation over seeds)" if several else ""
    attacked = (
        f"f each attack, the share of documents on which exp(dL) > "
        f"{1 + results.threshold:g} under every seed, and dL, with 95 % intervals."
    )
    if not results.suite.metrics:
        return f"O{attacked}"
    return f"Loss in nats/token and perplexity without an attack{spread}; o{attacked}"

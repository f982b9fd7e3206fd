"""What attacks on one model reached, in a few lines."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from statistics import fmean

from harness.records import Estimate, Verdicts, successes
from harness.report.content import from_estimate
from harness.report.formats.text import cell_text
from harness.report.tables.controls import (
    LEVEL,
    Comparison,
    Opponents,
    compare_controls,
)
from harness.report.tables.success import proportion
from harness.running import Survey
from harness.verdicts import CellsBySeed, Results


def attack_lines(survey: Survey, verdicts: Verdicts) -> Iterator[str]:
    """Yield, for each attack on the baseline arms, what it did beside its controls."""
    results = Results(survey, verdicts.threshold)
    opponents = compare_controls(results, verdicts)
    for arm in (one for one in results.arms if one.is_baseline):
        for attack in results.attacks:
            cells = arm.cells(attack)
            if not cells:
                yield f"{attack} on {arm.model}: {arm.absence(attack)}"
                continue
            yield f"{attack} on {arm.model}: {_reached(cells, verdicts.threshold)}"
            for found in opponents:
                if (found.arm, found.attack) == (arm, attack):
                    yield f"  {_against(found)}"


def estimate_text(estimate: Estimate) -> str:
    """Return a difference in nats/token with its interval, as tables show it."""
    return cell_text(from_estimate(estimate, "nats", signed=True))


def _reached(cells: CellsBySeed, threshold: float) -> str:
    rows = [row for cell in cells.values() for row in cell.rows]
    scored = [row for row in rows if row.delta_loss is not None]
    errors = len(rows) - len(scored)
    if not scored:
        return f"all of {len(rows)} examples ended in an error"
    clean = fmean(row.clean_loss or 0.0 for row in scored)
    rise = fmean(row.delta_loss or 0.0 for row in scored)
    share = cell_text(proportion(cells, partial(successes, threshold=threshold)))
    erred = f"; {errors} ended in an error" if errors else ""
    return (
        f"the loss rises from {clean:.2f} by {rise:.2f} nats/token on {len(scored)} "
        f"texts; on {share} of them the perplexity rises by over "
        f"{100 * threshold:.4g} %{erred}"
    )


def _against(found: Opponents) -> str:
    if isinstance(found.found, str):
        return f"beside {found.control}: {found.found}"
    more = estimate_text(found.found.difference)
    word = _word(found, found.found)
    return f"{more} more than {found.control} at the same budget: {word}"


def _word(found: Opponents, compared: Comparison) -> str:
    if found.invalid:
        return (
            f"NOT shown to beat it, at one-sided {100 * LEVEL:.4g} %: on these texts, "
            "it may do no more than random search"
        )
    if compared.better:
        return "beats it"
    if found.judged == "pass":
        return "beats it at a smaller budget"
    return "not shown to beat it"

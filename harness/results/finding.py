"""Find the cells and examples that a user names."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from harness.base import UsageError
from harness.records import SampleRow
from harness.results.loaded import Run
from harness.running import SurveyedUnit


class Found(NamedTuple):
    """An example of a cell."""

    unit: SurveyedUnit
    row: SampleRow


def find_cells(run: Run, name: str | None) -> list[SurveyedUnit]:
    """Return the complete cells that a name means; all of them for None.

    It is an id or a part of one, as ``monotone.s42.hotflip``. Raises UsageError, with
    what comes near, where no complete cell has it.
    """
    cells = [unit for unit in run.survey.units if unit.kind == "cell"]
    complete = [unit for unit in cells if unit.state.status == "complete"]
    if name is None:
        return complete
    exact = [unit for unit in complete if name in (unit.id, unit.id.rpartition("-")[0])]
    found = exact or [unit for unit in complete if name in unit.id]
    if found:
        return found
    others = [unit for unit in cells if name in unit.id]
    if others:
        state = others[0].state
        raise UsageError(f"{others[0].id} is {state.status}: {state.reason}")
    parts = {x for unit in cells for x in (unit.attack or "", unit.arm, unit.id)}
    near = difflib.get_close_matches(name, sorted(parts), 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UsageError(f"no cell of {run.path} has {name!r} in its id{hint}")


def find_examples(
    run: Run,
    cells: Sequence[SurveyedUnit],
    example: str | None = None,
    *,
    text_only: bool = False,
) -> list[Found]:
    """Return examples of cells, in the order of their rows.

    `example` is an example's id, or what stands behind its corpus. With `text_only`,
    only prompts count that are texts. Raises UsageError where there is none so called.
    """
    found = list(_examples(run, cells, text_only))
    if example is None:
        return found
    chosen = [x for x in found if example in _names(x.row)]
    if not chosen:
        known = ", ".join(dict.fromkeys(x.row.example_id for x in found[:5]))
        raise UsageError(f"no example {example!r}; there are {known}, ...")
    return chosen


def worst(found: Sequence[Found], count: int) -> list[Found]:
    """Return the examples whose loss rose most, the worst first; errors never count."""
    scored = [(x.row.delta_loss, x) for x in found if x.row.delta_loss is not None]
    scored.sort(key=lambda one: -one[0])
    return [x for _, x in scored[:count]]


def variant_folder(run: Run, cell: SurveyedUnit) -> Path:
    """Return the folder of the variant that a cell attacked."""
    assert cell.state.record is not None  # it is complete
    return run.survey.folder.unit_dir("variant", cell.state.record.variant)


def _examples(
    run: Run, cells: Sequence[SurveyedUnit], text_only: bool
) -> Iterator[Found]:
    for unit in cells:
        for row in run.rows(unit):
            if not text_only or row.text_reachable:
                yield Found(unit, row)


def _names(row: SampleRow) -> tuple[str, str]:
    return row.example_id, row.example_id.partition("/")[2]

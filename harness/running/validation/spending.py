"""Whether ledgers fit what was scored, what was asked for, and each other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.base import Problem
from harness.records import Record, SampleRow
from harness.suite import Plan, Unloaded

FLOPS_FACTOR = 2.0
"""How far FLOPs for each token may be from those of the cell's own scoring: sequences
of other lengths differ by their attention, which is a small part."""
GRADIENTLESS = ("search", "text")
"""What controls without a gradient show."""


class Spending:
    """Holds the ledgers of cells against their rows and attacks."""

    def __init__(self, plan: Plan | None) -> None:
        self._plan = plan
        self._cells = {cell.id: cell for cell in plan.cells} if plan else {}

    def compare(
        self, path: Path, record: Record, rows: Sequence[SampleRow]
    ) -> Iterator[Problem]:
        """Yield what a cell's ledger cannot say."""
        yield from _seconds(path, record)
        if record.kind == "cell" and record.status == "complete":
            yield from _scored(path, record, rows)
            yield from _flops(path, record)
            yield from self._gradients(path, record, len(rows))

    def _gradients(self, path: Path, record: Record, rows: int) -> Iterator[Problem]:
        """Find gradients of an attack that takes none."""
        cell, spent = self._cells.get(record.id), record.ledger.kept.get("attack")
        if self._plan is None or cell is None or spent is None:
            return
        placed = self._plan.experiment.placed(cell.attack, cell.scene)
        if isinstance(placed.attack, Unloaded):
            return
        own = placed.attack.budget(rows).backward
        none = own == 0 if placed.matched is None else False
        if spent.sequences_backward and (none or placed.attack.shows in GRADIENTLESS):
            message = f"{spent.sequences_backward}, but it takes no gradients"
            where = ("ledger", "kept", "attack", "sequences_backward")
            yield Problem(str(path), where, message)


def _scored(path: Path, record: Record, rows: Sequence[SampleRow]) -> Iterator[Problem]:
    """Compare how many prompts the rows hold with how many were scored for them."""
    cost = record.ledger.kept.get("rescore")
    if cost is None or not rows:
        return
    distinct = sum(map(_prompts, rows))
    beyond = any(row.answer_correct_clean is not None or row.error for row in rows)
    if any(row.reference_text is not None for row in rows):
        beyond = True
    if cost.sequences_forward < distinct or (
        cost.sequences_forward > distinct and not beyond
    ):
        message = f"{cost.sequences_forward}, but the rows have {distinct} prompts"
        where = ("ledger", "kept", "rescore", "sequences_forward")
        yield Problem(str(path), where, message)


def _prompts(row: SampleRow) -> int:
    others = (one.adversarial_prompt_ids for one in (*row.checkpoints, *row.replicates))
    known = [row.clean_prompt_ids, row.adversarial_prompt_ids, *others]
    return len({tuple(ids) for ids in known if ids is not None})


def _flops(path: Path, record: Record) -> Iterator[Problem]:
    """Compare FLOPs for each token in the search with those of scoring its results."""
    kept = record.ledger.kept
    attack, rescore = kept.get("attack"), kept.get("rescore")
    if attack is None or rescore is None or not rescore.tokens_forward:
        return
    tokens = attack.tokens_forward + attack.tokens_backward
    each = rescore.compared_flops / rescore.tokens_forward
    found = attack.compared_flops / tokens if tokens else 0.0
    if not each or not tokens:
        return
    if not 1 / FLOPS_FACTOR <= found / each <= FLOPS_FACTOR:
        message = (
            f"{found:.3g} for each token, but {each:.3g} where its rows were scored"
        )
        yield Problem(str(path), ("ledger", "kept", "attack", "flops"), message)


def _seconds(path: Path, record: Record) -> Iterator[Problem]:
    """Compare the ledger's seconds with those of the provenance."""
    spent = {p: round(cost.seconds, 3) for p, cost in record.ledger.spent.items()}
    if spent != record.provenance.seconds:
        message = f"{record.provenance.seconds}, but the ledger gives {spent}"
        yield Problem(str(path), ("provenance", "seconds"), message)
    if record.provenance.finished < record.provenance.started:
        message = "it was finished before it was started"
        yield Problem(str(path), ("provenance", "finished"), message)

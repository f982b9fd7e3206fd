"""Whether the cells of a subject agree: on clean rows, and controls on the budget."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from harness.base import Problem, content_hash
from harness.records import BUDGET_TOLERANCE, Record, SampleRow
from harness.subject import MARGIN_NATS

SUBJECT_KEYS = ("schema_version", "model", "arm", "recovery", "seed")
"""The part of an identity that the frozen weights depend on."""
SEARCHED = ("search", "validation")
"""The examples of an identity that no row is about."""


def subject_key(record: Record) -> str:
    """Return what identifies the subject of a variant or a cell: how it was made."""
    made = {key: record.identity.get(key) for key in SUBJECT_KEYS}
    return content_hash(made)


class CleanRow(NamedTuple):
    """What a row says of its example before the attack; ids by their hash."""

    example_id: str
    clean_prompt_ids: bytes
    reference_ids: bytes
    clean_loss: float | None

    @classmethod
    def of(cls, row: SampleRow) -> CleanRow:
        """Return what a row says."""
        prompt, reference = map(ids_hash, (row.clean_prompt_ids, row.reference_ids))
        return cls(row.example_id, prompt, reference, row.clean_loss)

    def difference(self, other: CleanRow) -> str | None:
        """Say in what another row differs, beyond what rounding does to a loss."""
        for name in ("clean_prompt_ids", "reference_ids"):
            if getattr(other, name) != getattr(self, name):
                return f"{name} differ from those"
        if other.clean_loss is None or self.clean_loss is None:
            return None
        if abs(other.clean_loss - self.clean_loss) <= MARGIN_NATS:
            return None
        return f"clean_loss is {other.clean_loss}, and not {self.clean_loss} as"


class CleanRows:
    """What the cells of each subject say of the examples before an attack.

    All of them must say the same: an attack that writes into its examples or into the
    weights falsifies the cells that come after it.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str, str], tuple[str, CleanRow]] = {}

    def compare(
        self, file: Path, record: Record, rows: Iterable[CleanRow]
    ) -> Iterator[Problem]:
        """Yield the first row of a cell that differs from an earlier cell's."""
        subject, examples = subject_key(record), _examples_key(record)
        found: list[tuple[int, str]] = []
        for line, row in enumerate(rows, 1):
            key = subject, examples, row.example_id
            cell, first = self._known.setdefault(key, (record.id, row))
            difference = first.difference(row)
            if difference:
                found.append((line, f"{difference} in the cell {cell}"))
            elif first.clean_loss is None:
                self._known[key] = record.id, row
        if found:
            line, message = found[0]
            more = f" (and {len(found) - 1} more rows)" if len(found) > 1 else ""
            yield Problem(str(file), (), f"{message}{more}", line)


def ids_hash(ids: Sequence[int]) -> bytes:
    """Return a hash that tells lists of whole numbers of 64 bits apart."""
    return hashlib.blake2b(array("q", ids).tobytes(), digest_size=16).digest()


def compare_budgets(records: Sequence[tuple[Path, Record]]) -> Iterator[Problem]:
    """Warn of controls whose results cost more or less than those of their attack.

    It is no error: a search may end early, and the report marks such a comparison.
    Cells with failed examples are left out, as those cost less.
    """
    cells = {
        (subject_key(record), record.attack.label): record
        for _, record in records
        if record.attack is not None
    }
    for path, control in records:
        match = control.attack and control.attack.match
        attack = cells.get((subject_key(control), match)) if match else None
        if attack is None:
            continue
        own, wanted = _flops(control), _flops(attack)
        if own is None or wanted is None:
            continue
        if abs(own - wanted) > BUDGET_TOLERANCE * wanted:
            message = (
                f"{own:.3g} FLOPs per example, but {wanted:.3g} in {attack.id}, whose "
                "budget it gets"
            )
            where = ("ledger", "kept", "attack")
            yield Problem(str(path), where, message, severity="warning")


def _flops(record: Record) -> float | None:
    """Return what the attack's results cost per example, if there are all of them."""
    cost = record.ledger.kept.get("attack")
    errors = record.results.get("attack", {}).get("errors")
    if cost is None or record.samples is None or errors is None or errors.value:
        return None
    return cost.compared_flops / max(1, record.samples.rows)


def _examples_key(record: Record) -> str:
    """Identify what the rows of a cell are about: no examples to search on."""
    examples = record.identity.get("examples")
    if isinstance(examples, dict):
        examples = {k: v for k, v in examples.items() if k not in SEARCHED}
    return content_hash(examples)

"""Whether what is called two seeds, or two arms, is one run twice."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from harness.base import Problem
from harness.records import Record, SampleRow

Sign = tuple[str, str]
"""What is compared, as in a sentence, and its hash."""


class Twins:
    """Finds what two units have in common that two trainings never have.

    Two seeds train on blocks in another order, so that no loss is the same to the last
    digit. Arms without training may be equal under every seed, and are left alone.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], tuple[int, str]] = {}

    def compare(
        self, file: Path, record: Record, signs: Iterable[Sign]
    ) -> Iterator[Problem]:
        """Yield what a unit shares with the same unit under another seed."""
        unit = record.model.label, record.arm.label
        label = record.attack.label if record.attack else ""
        for what, digest in signs:
            key = (*unit, label, what, digest)
            seed, first = self._known.setdefault(key, (record.seed, record.id))
            if seed != record.seed:
                message = f"{what} are those of {first}: seed {seed} once more"
                yield Problem(str(file), (), message)


def signs(record: Record, rows: Sequence[SampleRow]) -> Iterator[Sign]:
    """Yield what tells one training from another; nothing where there is none."""
    if record.arm.recovery is None or record.status != "complete":
        return
    losses = [row.clean_loss for row in rows if row.clean_loss is not None]
    if losses:
        text = json.dumps(losses)
        yield "the clean losses", hashlib.sha256(text.encode()).hexdigest()
    if record.kind == "cell":
        return
    if record.samples is not None and record.samples.rows:
        yield "the samples", record.samples.sha256
    if record.frozen is not None:
        yield "the weights", record.frozen.model
    if record.recovery is not None and record.recovery.data_sha256 is not None:
        yield "the tokens of the training, in order,", record.recovery.data_sha256

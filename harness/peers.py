"""What a cell may use of the other cells and arms of its suite."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from harness.api.attacks import CellKey, Scene
from harness.records.samples import SampleRow, read_samples
from harness.subject.subject import Subject
from harness.suite.plan import CellPlan, VariantPlan


class CellPeers:
    """The `Peers` of one cell.

    Subjects are loaded when they are asked for and live as long as this object.
    """

    def __init__(
        self,
        plan: CellPlan,
        subject: Subject,
        samples: Mapping[CellKey, Path],
        load: Callable[[VariantPlan], Subject],
    ) -> None:
        """Take what the cell may use: its own subject, others' rows, others' subjects.

        `samples` are the files of the cells that it reads, all complete.
        """
        self._plan, self._samples = plan, samples
        self._subjects = {plan.variant.arm: subject}
        self._own, self._load = subject, load

    @property
    def scene(self) -> Scene:
        """Where the cell stands."""
        return self._plan.scene

    @property
    def arms(self) -> Sequence[str]:
        """All arms of the suite."""
        return self._plan.scene.arms

    def subject(self, arm: str) -> Subject:
        """Return the subject of an arm, with the cell's seed; its passes count here."""
        if arm not in self._subjects:
            peer = self._load(self._plan.borrows[arm])
            self._subjects[arm] = peer.metered_by(self._own)
        return self._subjects[arm]

    def rows(self, arm: str, attack: str, seed: int) -> Sequence[SampleRow]:
        """Return the rows of a cell, in the order of the examples."""
        return read_samples(self._samples[CellKey(arm, attack, seed)])

"""Transfer: what was found on other arms, replayed on this one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness import hookimpl
from harness.api import CellKey, Paper, Scene
from harness.search import Replay, as_labels, label_faults


class Transfer(Replay):
    """Replays on each arm the adversarial prompts that were found on the others.

    Its result for an example is the prompt of highest loss; the trace has the exact dL
    of every source, so that all pairs of arms can be told apart.
    """

    name = "transfer"
    papers = (
        Paper(
            "Papernot et al. 2016",
            "Transferability in Machine Learning: from Phenomena to Black-Box "
            "Attacks using Adversarial Samples",
            "https://arxiv.org/abs/1605.07277",
        ),
    )
    shows = "transferability"

    def faults(self, scene: Scene) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with its options in a suite."""
        yield from label_faults(self, self._labels(scene), scene)
        if len(scene.arms) < 2:
            yield "of", "there is no other arm to replay from"
        elif not self._labels(scene):
            yield "of", "there is no attack to replay"

    def reads(self, scene: Scene) -> Sequence[CellKey]:
        """Return the cells of the other arms, with the same seed."""
        return [
            CellKey(arm, label, scene.seed)
            for arm in scene.arms
            for label in self._labels(scene)
            if arm != scene.arm and label in scene.gets[arm]
        ]

    def _labels(self, scene: Scene) -> tuple[str, ...]:
        if self.options.of is not None:
            return as_labels(self.options.of)
        return tuple(x for x in scene.main if not scene.attacks[x].replays)


@hookimpl
def register_attacks() -> list[type[Transfer]]:
    """Offer the attack."""
    return [Transfer]
